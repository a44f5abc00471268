"""Users: every way to check a user's password, asked in turn.

The password file first: who stands in it is judged by it alone.  Then tokens, then the web service.  Whoever is unknown
to all of them costs the password file a hash all the same, so that time does not tell who exists.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, inlineCallbacks

from twisted_p2pmqtt.auth.passwords import PasswordFile
from twisted_p2pmqtt.auth.throttle import Throttle

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.credentials import MQTTCredentials


class User(NamedTuple):
    """Somebody who is known; ``expires_in`` is the seconds for which that holds, None for ever."""

    name: str
    expires_in: float | None = None


class TokenCheck(Protocol):
    """Judges passwords that are tokens (``jwt.Tokens``)."""

    def check(self, username: bytes | None, password: bytes) -> User | None:
        """Whose token this is; None where it is no good one.  May raise ``MQTTError``."""


class WebCheck(Protocol):
    """Asks a web service (``http.WebService``)."""

    def check(self, credentials: MQTTCredentials) -> Deferred[bool]:
        """What it says.  Raises, or fails with, ``MQTTError`` where it gives no answer."""


class Users:
    """The ways that are configured; any may be None."""

    def __init__(
        self,
        passwords: PasswordFile | None = None,
        tokens: TokenCheck | None = None,
        web: WebCheck | None = None,
        throttle: Throttle | None = None,
    ) -> None:
        self._passwords = passwords
        self._tokens = tokens
        self._web = web
        self._throttle = throttle

    @inlineCallbacks
    def check(self, credentials: MQTTCredentials) -> Generator[Deferred[Any], Any, User]:
        """Who this is.  Fails with ``UnauthorizedLogin``, or with ``MQTTError`` where that could not be found out.

        A user name without a password, or with an empty one or one that holds a NUL, is never right.
        """
        name, password = credentials.username, credentials.password
        if not password or b"\0" in password:
            raise UnauthorizedLogin("no password")
        if self._throttle is None or not name:  # a token without a name is not found by guessing
            user = yield self._ask(name, password, credentials)
        else:
            user = yield self._ask_slowly(self._throttle, name, password, credentials)
        if user is None:
            raise UnauthorizedLogin("bad user name or password")
        known: User = user
        return known

    @inlineCallbacks
    def _ask_slowly(
        self, throttle: Throttle, name: bytes, password: bytes, credentials: MQTTCredentials
    ) -> Generator[Deferred[Any], Any, User | None]:
        host = host_of(getattr(credentials, "peer", ""))
        waiting = throttle.admit(host, name)
        if waiting is not None:
            yield waiting
        user: User | None = yield self._ask(name, password, credentials)
        if user is None:
            throttle.failed(host, name)
        else:
            throttle.succeeded(host, name)
        return user

    @inlineCallbacks
    def _ask(
        self, name: bytes | None, password: bytes, credentials: MQTTCredentials
    ) -> Generator[Deferred[Any], Any, User | None]:
        passwords = self._passwords
        if passwords is not None and name is not None and passwords.knows(name):
            is_right = yield passwords.verify(name, password)
            return User(name.decode()) if is_right else None
        if self._tokens is not None:
            user = self._tokens.check(name, password)
            if user is not None:
                return user
        if self._web is not None and name is not None:
            says_yes = yield self._web.check(credentials)
            if says_yes is True:
                return User(name.decode())
        if passwords is not None:
            yield passwords.verify(name or b"", password)
        return None


def host_of(peer: object) -> str:
    """The host of ``host:port``, or of an address; other text as it is."""
    host = getattr(peer, "host", None)
    if host is not None:
        return str(host)
    text = str(peer)
    head, colon, port = text.rpartition(":")
    return head if colon and port.isdigit() else text
