"""MQTTService: a whole broker from settings, as a Twisted service; the one entry point for embedding.

    service = MQTTService(Settings(listeners=(ListenerSettings("tcp:1883"),), store=StoreSettings("memory")))
    service.setServiceParent(application)          # or service.startService()
    service.broker.publish("news", b"we are up")

Start: ports are bound first, so that a port in use is told at once; nobody is accepted before the store is read.
Stop: stop listening, tell 5.0 clients 0x8B, commit; done within ``STOP_DEADLINE`` whatever hangs.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.config import (
    AuthSettings,
    ConfigError,
    ListenerSettings,
    P2PSettings,
    Settings,
    StoreSettings,
    anonymous_allowed,
    make_own_router,
)
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.credentials import MQTTCredentials
from twisted_p2pmqtt.core.p2p import make_router
from twisted_p2pmqtt.core.records import StoreError
from twisted_p2pmqtt.endpoint_strings import endpoint_kind
from twisted_p2pmqtt.interfaces import IP2PRouter, IStore
from twisted_p2pmqtt.net.descriptors import default_max_connections, raise_file_limit
from twisted_p2pmqtt.net.protocol import MQTTFactory, open_login
from twisted_p2pmqtt.net.ticker import Ticker
from twisted_p2pmqtt.net.tls import TLSFilesError, over_tls, server_context
from twisted_p2pmqtt.store.memory import MemoryStore

if TYPE_CHECKING:
    from twisted_p2pmqtt.auth import Authentication

STOP_DEADLINE = 10.0
"""Seconds from ``stopService`` until its Deferred has fired."""

BACKLOG = 4096
CLOSED_PER_TURN = 2000

_log = Logger()

EMBEDDED = Settings(listeners=(), store=StoreSettings(type="memory"))
"""What an embedded broker is unless told: no port, sessions in memory."""


class MQTTService(MultiService):
    """A broker, its store and its ports.

    ``router`` (``IP2PRouter``), ``login`` (see ``core.handshake.Login``), ``methods`` (``IEnhancedAuthenticator``) and
    ``store`` (``IStore``) take the place of what the settings say.  ``recover``: a damaged store is set aside, and what
    is readable in it is kept.  ``owns_process`` is for ``twistd p2pmqtt``: only then is the process itself touched
    (open-file limit, garbage collector, exit code), except that whoever listens makes room for file descriptors.
    """

    def __init__(
        self,
        settings: Settings = EMBEDDED,
        reactor: Any = None,
        *,
        router: IP2PRouter | None = None,
        login: Callable[[MQTTCredentials], Any] | None = None,
        methods: Iterable[Any] = (),
        store: IStore | None = None,
        owns_process: bool = False,
        recover: bool = False,
    ) -> None:
        MultiService.__init__(self)
        if reactor is None:
            from twisted.internet import reactor
        self.reactor = reactor
        self.settings = settings
        self._owns_process = owns_process
        self.broker = Broker(
            reactor,
            store if store is not None else make_store(settings.store, reactor, recover),
            router if router is not None else router_from(settings.p2p),
            settings.limits,
            settings.p2p.options,
        )
        self._ticker = Ticker(reactor, self.broker.advance)
        self._login = login
        self.authentication = make_authentication(settings.auth, reactor, self.broker)
        MultiService.addService(self, self.authentication)
        self._methods = tuple(methods)
        if owns_process:
            raise_file_limit()
        self.factories = [self._factory(listener) for listener in settings.listeners]
        self._served = served(settings.listeners, self.factories, reactor)
        self._ports: list[IListeningPort] = []
        self._is_bound = False

    @classmethod
    def from_settings(cls, settings: Settings, reactor: Any, recover: bool = False) -> MQTTService:
        """The service that ``twistd p2pmqtt`` runs; ConfigError where it cannot be made."""
        return cls(settings, reactor, owns_process=True, recover=recover)

    def _factory(self, listener: ListenerSettings) -> MQTTFactory:
        login = self._login if self._login is not None else self._login_of(listener)
        limit = listener.max_connections if listener.max_connections is not None else default_max_connections()
        is_proxied = endpoint_kind(listener.endpoint) == "haproxy"
        return MQTTFactory(self.broker, login, self._methods, limit, ticker=self._ticker, is_proxied=is_proxied)

    def _login_of(self, listener: ListenerSettings) -> Callable[[MQTTCredentials], Any]:
        is_open = anonymous_allowed(listener, self.settings.auth)
        identity = listener.tls.identity if listener.tls is not None else "none"
        if self.settings.auth == AuthSettings() and identity == "none":
            return open_login if is_open else closed_login
        return self.authentication.login(identity, is_open)

    def websocket_resource(self, allowed_origins: Iterable[str] = (), allow_anonymous: bool = False) -> Any:
        """A ``twisted.web`` resource that carries MQTT over WebSocket, to be put into a site of the host's.

        Its clients log in as on any listener, and are told when this service stops.  ConfigError without wsproto.
        """
        listener = ListenerSettings("", "websocket", allow_anonymous=allow_anonymous)
        websocket = import_websocket()
        factory = self._factory(listener)
        self.factories.append(factory)
        return websocket.WebSocketResource(factory, allowed_origins)

    # --- start ---------------------------------------------------------------------------------------------------

    def privilegedStartService(self) -> None:
        """Bind the ports."""
        MultiService.privilegedStartService(self)
        self._bind()

    def startService(self) -> None:
        """Bind the ports unless that is done, read the store, then accept clients."""
        if not self._is_bound:
            self._bind()
        MultiService.startService(self)
        self._ticker.start()
        if self._owns_process:
            # Measured: full collections of 100,000 sessions stall the loop; what is loaded now stays anyway.
            gc.set_threshold(50_000, 20, 100)
            self._restore_now()
            gc.freeze()
            self._accept(None)
        else:
            self.broker.restore().addCallbacks(self._accept, self._not_restored)

    def _restore_now(self) -> None:
        """Nothing is stalled, since the reactor does not run yet; and twistd can still say that it could not start."""
        try:
            self.broker.restore_now()
        except StoreError as error:
            self._ticker.stop()
            _log.critical("{reason}", reason=str(error))
            # twistd logs what is written to sys.stderr; whoever started it by hand is to see this.
            print(error, file=sys.__stderr__)
            raise SystemExit(1) from None

    def _bind(self) -> None:
        self._is_bound = True
        for listener, factory in zip(self.settings.listeners, self._served, strict=True):
            listening = serverFromString(self.reactor, with_backlog(listener.endpoint)).listen(factory)
            failures: list[Failure] = []
            listening.addCallbacks(self._bound, failures.append)
            if failures:
                self._cannot_listen(listener.endpoint, failures[0])

    def _bound(self, port: IListeningPort) -> None:
        self._ports.append(port)
        # Whoever connects now waits in the kernel's backlog until the sessions are there.
        if hasattr(port, "stopReading"):
            port.stopReading()

    def _cannot_listen(self, endpoint: str, failure: Failure) -> None:
        error = failure.value
        reason = getattr(error, "socketError", error)
        text = f"cannot listen on {endpoint}: {getattr(reason, 'strerror', None) or reason}"
        if not self._owns_process:
            raise error if isinstance(error, CannotListenError) else RuntimeError(text)
        print(text, file=sys.stderr)
        raise SystemExit(1)

    def _accept(self, ignored: object) -> None:
        for port in self._ports:
            if hasattr(port, "startReading"):
                port.startReading()

    def _not_restored(self, failure: Failure) -> None:
        _log.critical("nobody is accepted: {reason}", reason=failure.getErrorMessage())

    # --- stop ----------------------------------------------------------------------------------------------------

    def stopService(self) -> Deferred[None]:
        """Stop in order; the Deferred fires within ``STOP_DEADLINE``."""
        stopped = self._stop()
        stopped.addTimeout(STOP_DEADLINE, self.reactor)
        return stopped.addErrback(lambda failure: _log.failure("the broker did not stop in order", failure))

    @inlineCallbacks
    def _stop(self) -> Any:
        broker = self.broker
        ports, self._ports = self._ports, []
        yield DeferredList([maybeDeferred(port.stopListening) for port in ports])
        broker.is_stopping = True
        connections = [protocol for factory in self.factories for protocol in factory.connections]
        for start in range(0, len(connections), CLOSED_PER_TURN):
            for protocol in connections[start : start + CLOSED_PER_TURN]:
                protocol.connection.close(ReasonCode.SERVER_SHUTTING_DOWN)
            broker.flush()
            yield deferLater(self.reactor, 0)
        broker.flush()
        for _ in range(30):
            if not any(factory.connections for factory in self.factories):
                break
            yield deferLater(self.reactor, 0.1)
        for factory in self.factories:
            for protocol in list(factory.connections):
                protocol.abort()
        self._ticker.stop()
        yield broker.store.close()
        self._is_bound = False
        yield maybeDeferred(MultiService.stopService, self)


def import_websocket() -> Any:
    """The module ``net.websocket``; ConfigError where the extra that it needs is not installed."""
    try:
        from twisted_p2pmqtt.net import websocket
    except ImportError as error:
        package = str(error.name).partition(".")[0]
        text = f"WebSocket needs {package}, which is not installed: pip install 'twisted_p2pmqtt[websocket]'"
        raise ConfigError([text]) from error
    return websocket


def tls_contexts(listeners: Iterable[ListenerSettings]) -> list[Any]:
    """The TLS context of each listener, None for one without TLS; opens no port.

    Raises ConfigError with everything that is wrong with the files.
    """
    contexts, problems = [], []
    for index, listener in enumerate(listeners):
        tls, context = listener.tls, None
        # Browsers offer the protocol that a WebSocket begins with.
        protocol = b"http/1.1" if listener.transport == "websocket" else b"mqtt"
        try:
            if tls is not None:
                files = tls.certificate, tls.private_key, tls.client_ca
                context = server_context(*files, tls.client_certificate, [protocol])
        except TLSFilesError as error:
            problems += [f"listener.{index}.tls.{name}: {text}" for name, text in error.problems]
        except ImportError as error:
            extra = "pip install 'twisted_p2pmqtt[tls]'"
            problems.append(f"listener.{index}.tls: needs {error.name}, which is not installed: {extra}")
        contexts.append(context)
    if problems:
        raise ConfigError(problems)
    return contexts


def served(listeners: Iterable[ListenerSettings], factories: Iterable[MQTTFactory], clock: Any) -> list[Any]:
    """What each listener's port serves: its factory, within WebSocket, within TLS.  ConfigError where it cannot be."""
    wrapped = []
    listeners = list(listeners)
    for listener, factory, context in zip(listeners, factories, tls_contexts(listeners), strict=True):
        outer: Any = factory
        if listener.transport == "websocket":
            outer = import_websocket().WebSocketFactory(factory, listener.websocket_path, listener.allowed_origins)
        wrapped.append(outer if context is None else over_tls(context, outer, clock))
    return wrapped


def make_store(settings: StoreSettings, reactor: Any, recover: bool = False) -> IStore:
    """The store that the settings name; no file is opened yet.  ``recover``: see ``SQLiteStore``."""
    if settings.type == "memory":
        return MemoryStore()
    from twisted_p2pmqtt.store.sqlite import SQLiteStore  # not for an embedder who wants neither file nor thread

    return SQLiteStore(settings.path, settings.durability, reactor, recover)


def router_from(settings: P2PSettings) -> IP2PRouter:
    """The router that the settings name; ConfigError where one of the user's own cannot be made."""
    if settings.router is not None:
        return settings.router
    try:  # settings that were made by hand
        return make_own_router(settings.mode) if ":" in settings.mode else make_router(settings.mode, settings.marker)
    except ValueError as error:
        raise ConfigError([f"p2p.mode: {error}"]) from error


def check_files(settings: Settings) -> None:
    """Read every file that the settings name; ConfigError with everything that is wrong with them.  Opens no port."""
    problems: list[str] = []
    try:
        tls_contexts(settings.listeners)
    except ConfigError as error:
        problems += error.problems
    try:
        make_authentication(settings.auth, None, None)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems)


def make_authentication(settings: AuthSettings, reactor: Any, broker: Broker | None) -> Authentication:
    """The logins that the settings describe; ConfigError with every mistake in the files that they name.

    Without reactor and broker only the files are read, to see that they are good.
    """
    from twisted_p2pmqtt.auth import Authentication, BadFile

    jwt, http = settings.jwt, settings.http
    try:
        return Authentication(
            reactor,
            broker.wheel if broker is not None else None,
            password_file=settings.password_file,
            acl_file=settings.acl_file,
            client_id_prefix_of_user=settings.client_id_prefix_of_user,
            jwt_algorithms=jwt.algorithms if jwt is not None else (),
            jwt_key_file=jwt.key_file if jwt is not None else None,
            jwt_jwks_url=jwt.jwks_url if jwt is not None else None,
            jwt_audience=jwt.audience if jwt is not None else None,
            http_url=http.url if http is not None else None,
            http_timeout=http.timeout if http is not None else 1.0,
        )
    except BadFile as error:
        raise ConfigError(error.problems) from error


def closed_login(credentials: MQTTCredentials) -> None:
    """Nobody may do anything: no way to log in is configured, and the listener is not for everybody."""
    raise MQTTError("anonymous clients are not allowed here", ReasonCode.NOT_AUTHORIZED)


def with_backlog(endpoint: str) -> str:
    """The endpoint string with a backlog fit for a fleet that reconnects, unless it names one or is no socket's."""
    kind = endpoint.partition(":")[0]
    if kind in ("tcp", "tcp6", "unix", "ssl", "tls") and ":backlog=" not in endpoint:
        return f"{endpoint}:backlog={BACKLOG}"
    return endpoint


__all__ = ["EMBEDDED", "MQTTService", "STOP_DEADLINE"]
