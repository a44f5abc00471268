"""The settings of a broker, read from TOML, the environment and the command line.

``load_settings`` gives typed, frozen settings, or raises one ConfigError with *every* problem found, each a line of the
form ``file:line: table.key: what is wrong, what is allowed; did you mean 'x'?``.  Nothing is opened but the files that
the configuration names, and no port ever.

What one key allows stands in config_keys, where values come from in config_sources; here are the settings themselves,
and the rules that concern several keys.  The names are those of ``p2pmqtt.example.toml``.  Only ``service`` and ``tap``
see these settings; everything below them takes plain arguments.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from zope.interface import Invalid
from zope.interface.verify import verifyObject

from .config_keys import (
    P2P_MODES,
    Check,
    auth_keys,
    http_keys,
    jwt_keys,
    limit_keys,
    listener_keys,
    near_miss,
    p2p_keys,
    require,
    store_keys,
    tls_keys,
)
from .config_sources import ConfigError, Override, Source
from .core.limits import Limits, P2POptions
from .endpoint_strings import endpoint_kind, inherits_sockets, listen_address
from .interfaces import IP2PRouter
from .toml_lines import Path

__all__ = [
    "AuthSettings",
    "ConfigError",
    "HTTPAuthSettings",
    "JWTSettings",
    "Limits",
    "ListenerSettings",
    "Override",
    "P2POptions",
    "P2PSettings",
    "Settings",
    "StoreSettings",
    "TLSSettings",
    "anonymous_allowed",
    "import_router_factory",
    "load_settings",
    "make_own_router",
    "warnings",
]


@dataclass(frozen=True, slots=True)
class TLSSettings:
    """TLS on one listener.  The files are absolute paths of PEM files."""

    certificate: str
    private_key: str
    client_ca: str | None = None
    client_certificate: str = "none"  # none | optional | required
    identity: str = "none"  # none | cn | subject: what of the client's certificate is its user name


@dataclass(frozen=True, slots=True)
class ListenerSettings:
    """One port to listen on.  ``endpoint`` is a Twisted server endpoint string."""

    endpoint: str = "tcp:1883:interface=127.0.0.1"
    transport: str = "mqtt"  # mqtt | websocket
    websocket_path: str = "/mqtt"
    allowed_origins: tuple[str, ...] = ()  # of browsers; empty: any
    allow_anonymous: bool | None = None  # None: see anonymous_allowed
    max_connections: int | None = None  # None: the open-file limit less 64
    tls: TLSSettings | None = None


@dataclass(frozen=True, slots=True)
class P2PSettings:
    """Which topics are P2P messages, and how these are treated."""

    mode: str = "prefix"  # off | prefix | suffix | both | package.module:factory
    marker: str = "p2p"
    options: P2POptions = field(default_factory=P2POptions)
    router: IP2PRouter | None = field(default=None, compare=False)  # what the factory made; None for a mode of ours


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Where sessions and retained messages are kept.  ``path`` is absolute, unless made by hand."""

    type: str = "sqlite"  # sqlite | memory
    path: str = "p2pmqtt.db"
    durability: str = "commit"  # commit: survives a killed process | full: survives power loss too


@dataclass(frozen=True, slots=True)
class JWTSettings:
    """Tokens as passwords: which signatures are trusted, and whose.  One of ``key_file`` and ``jwks_url`` is set.

    ``audience``: whom a token must be made for, its ``aud``; None: anybody.
    """

    algorithms: tuple[str, ...] = ("RS256",)
    key_file: str | None = None
    jwks_url: str | None = None
    audience: str | None = None


@dataclass(frozen=True, slots=True)
class HTTPAuthSettings:
    """A web service that is asked about every login.  ``timeout`` in seconds; no answer by then denies."""

    url: str
    timeout: float = 1.0


@dataclass(frozen=True, slots=True)
class AuthSettings:
    """Who may connect and do what.  All at their defaults means that no authentication is configured."""

    password_file: str | None = None
    acl_file: str | None = None
    client_id_prefix_of_user: bool = False
    jwt: JWTSettings | None = None
    http: HTTPAuthSettings | None = None

    @property
    def names_users(self) -> bool:
        """True where some way to check a user's credentials is configured."""
        return self.password_file is not None or self.jwt is not None or self.http is not None


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one broker.  ``Settings()`` is the broker without any configuration."""

    listeners: tuple[ListenerSettings, ...] = (ListenerSettings(),)
    p2p: P2PSettings = field(default_factory=P2PSettings)
    limits: Limits = field(default_factory=Limits)
    store: StoreSettings = field(default_factory=StoreSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)


def load_settings(
    path: str | None = None, environ: Mapping[str, str] = os.environ, overrides: Iterable[Override] = ()
) -> Settings:
    """Read the settings from the TOML file at ``path`` (None: defaults), then ``environ``, then ``overrides``.

    Relative file names are meant from the directory of the file, or from the working directory where ``path`` is None.
    A router factory of one's own is called, here and only here, so that what is wrong with it is told like all else.

    Raises ConfigError, with all problems at once; only a file that cannot be read or is no TOML is the only problem.
    """
    source = Source(path, environ, overrides)
    settings = _Reader(source).settings()
    if source.problems:
        raise ConfigError(source.problems)
    return settings


def anonymous_allowed(listener: ListenerSettings, auth: AuthSettings) -> bool:
    """May clients without credentials connect to ``listener``?

    What ``allow_anonymous`` says.  Unless told: only where just this machine's own processes can connect (loopback and
    unix endpoints) and no authentication is configured.
    """
    if listener.allow_anonymous is not None:
        return listener.allow_anonymous
    address = listen_address(listener.endpoint)
    return auth == AuthSettings() and address is not None and address.is_local


def import_router_factory(mode: str) -> Callable[..., object]:
    """The callable that a ``p2p.mode`` of the form ``package.module:factory`` names.

    Raises ValueError, saying what failed, where the module cannot be imported or has no such callable.
    """
    module_name, _, attribute = mode.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # someone else's module may raise anything
        raise ValueError(f"cannot import {module_name!r}: {type(error).__name__}: {error}") from error
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise ValueError(f"{module_name!r} has no {attribute!r}{near_miss(name, dir(found))}")
        found = getattr(found, name)
    if not callable(found):
        raise ValueError(f"{mode!r} is not callable, must be a class or function that makes an IP2PRouter")
    return found  # type: ignore[no-any-return]  # what it makes is checked


def make_own_router(mode: str) -> IP2PRouter:
    """What the factory makes that a ``p2p.mode`` of the form ``package.module:factory`` names.

    Raises ValueError, with one line, where there is no such factory, where it fails, or makes no IP2PRouter.
    """
    factory = import_router_factory(mode)
    try:
        router = factory()
    except Exception as error:  # someone else's code
        raise ValueError(f"{mode!r} cannot make a router: {type(error).__name__}: {error}") from error
    try:
        verifyObject(IP2PRouter, router)
    except Invalid as error:
        raise ValueError(f"{mode!r} makes no IP2PRouter: {' '.join(str(error).split())}") from error
    return router  # type: ignore[return-value]  # verified


def warnings(settings: Settings) -> list[str]:
    """What is allowed, but probably not meant; one line of text each."""
    found = []
    for index, listener in enumerate(settings.listeners):
        anonymous = anonymous_allowed(listener, settings.auth)
        certificate = listener.tls is not None and listener.tls.identity != "none"
        address = listen_address(listener.endpoint)
        place = f"listener.{index} ({listener.endpoint})"
        if not anonymous and not settings.auth.names_users and not certificate:
            found.append(
                f"{place}: nobody can connect: anonymous clients are refused and no users are configured;"
                " set allow_anonymous = true or configure [auth]"
            )
        if anonymous and (address is None or not address.is_local) and settings.auth.acl_file is None:
            found.append(f"{place}: anyone who can reach it may publish and read everything; configure [auth]")
        if endpoint_kind(listener.endpoint) == "systemd" and not inherits_sockets():
            found.append(f"{place}: systemd handed no sockets to this process, so the endpoint is not checked")
    return found


class _Reader:
    """Turns a source's tree into settings, and tells the source of each problem on the way.

    Where something is wrong, what is made is of no use, but reading goes on, to find the other problems as well.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    def settings(self) -> Settings:
        names = ("listener", "p2p", "limits", "store", "auth")
        for name in self.source.tree:
            if name not in names:
                self.unknown((name,), names)
        return Settings(
            listeners=self.listeners(), p2p=self.p2p(), limits=self.limits(), store=self.store(), auth=self.auth()
        )

    # Tables

    def listeners(self) -> tuple[ListenerSettings, ...]:
        raw = self.source.tree.get("listener", [])
        if not isinstance(raw, list):
            self.source.problem(("listener",), "must be an array of tables, each written [[listener]]")
            return ()
        listeners = tuple(self.listener(("listener", index), table) for index, table in enumerate(raw))
        self.check_distinct(raw, listeners)
        return listeners or (ListenerSettings(),)

    def listener(self, path: Path, raw: object) -> ListenerSettings:
        values = self.table(path, raw, listener_keys(), tables=("tls",))
        listener = ListenerSettings(**values, tls=self.tls((*path, "tls"), _get(raw, "tls")))
        if _get(raw, "transport") in (None, "mqtt"):
            for key in ("websocket_path", "allowed_origins"):
                if getattr(listener, key) != getattr(ListenerSettings(), key):
                    self.source.problem((*path, key), "is allowed only with transport = 'websocket'")
        if listener.tls is not None and endpoint_kind(listener.endpoint) in ("ssl", "tls"):
            text = (
                f"is not allowed with an {endpoint_kind(listener.endpoint)}: endpoint, which is TLS already; use tcp:"
            )
            self.source.problem((*path, "tls"), text)
        return listener

    def tls(self, path: Path, raw: object) -> TLSSettings | None:
        if raw is None:
            return None
        values = self.table(path, raw, tls_keys(self.source.base), needs=("OpenSSL", "tls"))
        missing = [key for key in ("certificate", "private_key") if _get(raw, key) is None]
        for key in missing:
            self.source.problem(path, f"{key} is missing: certificate and private_key must both be set")
        if missing or not {"certificate", "private_key"} <= values.keys():
            return None
        tls = TLSSettings(**values)
        if tls.client_certificate == "none":
            for key in ("client_ca", "identity"):
                if values.get(key, "none") != "none":
                    text = "is allowed only with client_certificate = 'optional' or 'required'"
                    self.source.problem((*path, key), text)
        elif _get(raw, "client_ca") is None:
            self.source.problem((*path, "client_certificate"), "needs client_ca, which says whose certificates count")
        return tls

    def p2p(self) -> P2PSettings:
        values = self.table(("p2p",), self.source.tree.get("p2p"), p2p_keys())
        mode, marker = values.pop("mode", "prefix"), values.pop("marker", "p2p")
        router = None
        if mode not in P2P_MODES:
            try:
                router = make_own_router(mode)
            except ValueError as error:
                self.source.problem(("p2p", "mode"), str(error))
        return P2PSettings(mode, marker, P2POptions(**values), router)

    def limits(self) -> Limits:
        limits = Limits(**self.table(("limits",), self.source.tree.get("limits"), limit_keys()))
        if 0 < limits.max_keep_alive < limits.min_keep_alive:
            text = (
                f"must be 0 (no cap) or at least min_keep_alive, {limits.min_keep_alive}, got {limits.max_keep_alive}"
            )
            self.source.problem(("limits", "max_keep_alive"), text)
        return limits

    def store(self) -> StoreSettings:
        values = self.table(("store",), self.source.tree.get("store"), store_keys(self.source.base))
        values.setdefault("path", os.path.join(self.source.base, StoreSettings().path))
        return StoreSettings(**values)

    def auth(self) -> AuthSettings:
        raw = self.source.tree.get("auth")
        values = self.table(("auth",), raw, auth_keys(self.source.base), tables=("jwt", "http"))
        jwt = self.jwt(("auth", "jwt"), _get(raw, "jwt"))
        return AuthSettings(**values, jwt=jwt, http=self.http(("auth", "http"), _get(raw, "http")))

    def jwt(self, path: Path, raw: object) -> JWTSettings | None:
        if raw is None:
            return None
        values = self.table(path, raw, jwt_keys(self.source.base), needs=("jwt", "auth"))
        if (_get(raw, "key_file") is None) == (_get(raw, "jwks_url") is None):
            self.source.problem(path, "exactly one of key_file and jwks_url must be set")
        return JWTSettings(**values)

    def http(self, path: Path, raw: object) -> HTTPAuthSettings | None:
        if raw is None:
            return None
        values = self.table(path, raw, http_keys())
        if _get(raw, "url") is None:
            self.source.problem(path, "url is missing: must be http://... or https://...")
        return HTTPAuthSettings(**values) if "url" in values else None

    # Helpers

    def table(
        self,
        path: Path,
        raw: object,
        checks: Mapping[str, Check],
        tables: tuple[str, ...] = (),
        needs: tuple[str, str] | None = None,
    ) -> dict[str, Any]:
        """The checked values of one table, those of ``tables`` inside it left out.  None is an empty table.

        ``needs``: an optional dependency without which the table is of no use, and the extra that brings it.
        """
        if raw is None:
            return {}
        if not isinstance(raw, dict):
            self.source.problem(path, f"must be a table, written [{'.'.join(str(part) for part in path)}]")
            return {}
        values = {}
        try:
            if needs is not None:
                require(*needs)
        except ValueError as error:
            self.source.problem(path, str(error))
        for key, value in raw.items():
            if key in checks:
                try:
                    values[key] = checks[key](value)
                except ValueError as error:
                    self.source.problem((*path, key), str(error))
            elif key not in tables:
                self.unknown((*path, key), (*checks, *tables))
        return values

    def unknown(self, path: Path, known: Iterable[str]) -> None:
        name = str(path[-1])
        what = "table" if len(path) == 1 else "option"
        hint = near_miss(name, known) or f", must be one of {', '.join(known)}"
        self.source.problem(path, f"unknown {what} {name!r}{hint}")

    def check_distinct(self, raw: list[object], listeners: tuple[ListenerSettings, ...]) -> None:
        """Two listeners on one address: the second could never open its port."""
        seen: dict[object, int] = {}
        for index, listener in enumerate(listeners):
            if _get(raw[index], "endpoint") not in (None, listener.endpoint):  # a bad one, and reported as such
                continue
            address = listen_address(listener.endpoint)
            if address is not None and address.port == 0:  # the system chooses a free port for each
                continue
            first = seen.setdefault(address or listener.endpoint, index)
            if first != index:
                text = f"each listener must have an endpoint of its own, {listener.endpoint!r} is listener.{first}'s"
                self.source.problem(("listener", index, "endpoint"), text)


def _get(raw: object, key: str) -> Any:
    """``raw[key]``, or None where there is none or ``raw`` is no table (which is reported elsewhere)."""
    return raw.get(key) if isinstance(raw, dict) else None
