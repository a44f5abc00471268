"""Authentication: everything that one broker's configuration says about logins, put together.

Files are read when it is made, so that a mistake is told before a port opens; threads and fetches begin and end with it
as a service.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.application.service import MultiService

from twisted_p2pmqtt.auth.access import Access
from twisted_p2pmqtt.auth.acl import AclFile
from twisted_p2pmqtt.auth.certificates import NONE
from twisted_p2pmqtt.auth.files import BadFile
from twisted_p2pmqtt.auth.login import make_login
from twisted_p2pmqtt.auth.passwords import PasswordFile
from twisted_p2pmqtt.auth.pool import HashPool
from twisted_p2pmqtt.auth.throttle import Throttle
from twisted_p2pmqtt.auth.users import Users
from twisted_p2pmqtt.core.credentials import MQTTCredentials
from twisted_p2pmqtt.core.timers import TimerWheel

T = TypeVar("T")

FETCH_CONNECT_TIMEOUT = 5.0


class Authentication(MultiService):
    """``reactor`` and ``wheel``, the broker's, or None for both: only read the files, to see that they are good.

    The other arguments are the ``[auth]`` table of the configuration.  ``BadFile`` with the problems of all files.
    """

    def __init__(
        self,
        reactor: Any,
        wheel: TimerWheel | None,
        *,
        password_file: str | None = None,
        acl_file: str | None = None,
        client_id_prefix_of_user: bool = False,
        jwt_algorithms: tuple[str, ...] = (),
        jwt_key_file: str | None = None,
        jwt_jwks_url: str | None = None,
        jwt_audience: str | None = None,
        http_url: str | None = None,
        http_timeout: float = 1.0,
    ) -> None:
        MultiService.__init__(self)
        self._problems: list[str] = []
        pool = HashPool(reactor)
        MultiService.addService(self, pool)

        def now() -> float:
            return wheel.now if wheel is not None else 0.0

        self.passwords = self._made(PasswordFile, password_file, pool, now) if password_file is not None else None
        self.acl = self._made(AclFile, acl_file) if acl_file is not None else None
        tokens, web = None, None
        if jwt_key_file is not None or jwt_jwks_url is not None:
            tokens = self._tokens(reactor, jwt_algorithms, jwt_key_file, jwt_jwks_url, jwt_audience)
        if http_url is not None:
            web = self._web(reactor, http_url, http_timeout)
        if self._problems:
            raise BadFile(self._problems)
        self.access = Access(self.acl, client_id_prefix_of_user)
        self.users: Users | None = None
        if self.passwords is not None or tokens is not None or web is not None:
            throttle = Throttle(now, wheel.after) if wheel is not None else None
            self.users = Users(self.passwords, tokens, web, throttle)

    def login(self, identity: str = NONE, allow_anonymous: bool = False) -> Callable[[MQTTCredentials], Any]:
        """How clients of one listener log in: see ``make_login``."""
        return make_login(self.access, self.users, identity, allow_anonymous)

    def _made(self, make: Callable[..., T], *arguments: Any) -> T | None:
        try:
            return make(*arguments)
        except BadFile as error:
            self._problems.extend(error.problems)
            return None

    def _tokens(
        self,
        reactor: Any,
        algorithms: tuple[str, ...],
        key_file: str | None,
        jwks_url: str | None,
        audience: str | None,
    ) -> Any:
        if not self._has("jwt", "auth", "auth.jwt"):
            return None
        from twisted_p2pmqtt.auth.jwt import KeyFile, Tokens

        keys: Any
        if key_file is not None:
            keys = self._made(KeyFile, key_file, algorithms)
        else:
            assert jwks_url is not None
            keys = self._key_set(reactor, jwks_url, algorithms)
        return None if keys is None else Tokens(keys, algorithms, audience)

    def _key_set(self, reactor: Any, url: str, algorithms: tuple[str, ...]) -> Any:
        if not self._can_ask(url, "auth.jwt.jwks_url") or reactor is None:
            return None
        from twisted_p2pmqtt.auth.jwks import JwksKeys
        from twisted_p2pmqtt.auth.web import make_agent

        keys = JwksKeys(url, algorithms, make_agent(reactor, FETCH_CONNECT_TIMEOUT), reactor)
        MultiService.addService(self, keys)
        return keys

    def _web(self, reactor: Any, url: str, timeout: float) -> Any:
        if not self._can_ask(url, "auth.http.url") or reactor is None:
            return None
        from twisted_p2pmqtt.auth.http import WebService
        from twisted_p2pmqtt.auth.web import make_agent

        return WebService(url, timeout, make_agent(reactor, timeout), reactor)

    def _can_ask(self, url: str, option: str) -> bool:
        if not url.isascii():
            self._problems.append(f"{option}: must be ASCII; write other characters as %XX, a host as xn--...")
            return False
        return not url.startswith("https:") or self._has("OpenSSL", "tls", option)

    def _has(self, module: str, extra: str, option: str) -> bool:
        if importlib.util.find_spec(module) is not None:
            return True
        self._problems.append(
            f"{option}: needs {module}, which is not installed: pip install 'twisted_p2pmqtt[{extra}]'"
        )
        return False
