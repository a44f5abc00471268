"""MQTTProtocol and MQTTFactory: the broker's connections as Twisted knows them.

The protocol carries bytes between a transport and a ``core.connection.Connection``, which has all the rules; the
factory counts connections, refuses those over its limits, and ticks the broker while it listens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.core.connection import Connection
from twisted_p2pmqtt.core.handshake import LoggedIn, Login
from twisted_p2pmqtt.interfaces import IClientAvatar
from twisted_p2pmqtt.net.descriptors import default_max_connections, make_room
from twisted_p2pmqtt.net.outbox import Outbox
from twisted_p2pmqtt.net.read_group import ReadGroup
from twisted_p2pmqtt.net.ticker import Ticker

if TYPE_CHECKING:
    from twisted.cred.portal import Portal

    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.credentials import MQTTCredentials
    from twisted_p2pmqtt.core.timers import TimerWheel


class MQTTProtocol(Protocol):
    """One connection's Twisted side: the ``Wire`` of its ``Connection`` and the owner of its ``Outbox``."""

    factory: MQTTFactory
    connection: Connection
    outbox: Outbox
    counted_host: str | None = None
    """The host under which ``AddressLimits`` counts this connection."""
    _pauses = 0
    _group: ReadGroup | None = None
    _key = -1

    def connectionMade(self) -> None:
        """Start the connection; one over the factory's limits is turned away at once."""
        transport: Any = self.transport
        send_at_once(transport)
        factory = self.factory
        self.outbox = Outbox(transport, self)
        self.sink = self.outbox.frames
        self.flush = self.outbox.flush
        self.connection = Connection(factory.broker, self, factory.login)
        # Whoever overrides dataReceived wants to see the bytes, and so reads through the reactor.
        group = factory.read_group
        if group is not None and self.outbox.is_direct and type(self).dataReceived is MQTTProtocol.dataReceived:
            self._group = group
            self._key = group.add(transport, self.connection.receive)
        if not factory.admit(self):
            self.connection.refuse(ReasonCode.CONNECTION_RATE_EXCEEDED)
        elif factory.is_proxied:
            self.dataReceived = self._first_received  # type: ignore[method-assign]  # once

    def _first_received(self, data: bytes) -> None:
        """The first bytes behind a PROXY header: only now is the peer's address known."""
        del self.dataReceived
        if self.factory.admit_address(self):
            self.dataReceived(data)
        else:
            self.connection.refuse(ReasonCode.CONNECTION_RATE_EXCEEDED)

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the peer."""
        self.connection.receive(data)  # [MQTT-4.2.0-1] [MQTT3-7.1.1-1]
        self.factory.broker.taken_in(len(data))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The transport is gone."""
        if self._group is not None:
            self._group.remove(self._key)
        self.outbox.lost()
        self.connection.lost()
        self.factory.released(self)

    @property
    def joins_group(self) -> bool:
        """Will ``connectionMade`` surely have a ``ReadGroup`` read a plain socket?"""
        kind = type(self)
        return (
            self.factory.read_group is not None
            and kind.makeConnection is MQTTProtocol.makeConnection
            and kind.connectionMade is MQTTProtocol.connectionMade
            and kind.dataReceived is MQTTProtocol.dataReceived
        )

    # --- what the connection asks of its wire --------------------------------------------------------------------

    @property
    def peer(self) -> str:
        """The peer's address, as text."""
        return peer_text(self.transport)

    @property
    def certificate(self) -> Any:
        """The peer's certificate, or None."""
        return peer_certificate(self.transport)

    def close(self) -> None:
        """Send what is in the sink and close."""
        if self._group is not None:
            self._group.remove(self._key)
        self.outbox.close()

    def pause(self) -> None:
        """Read no more until ``resume`` was called as often."""
        self._pauses += 1
        if self._pauses == 1:
            if self._group is not None:
                self._group.pause(self._key)
            else:
                self.transport.pauseProducing()  # type: ignore[union-attr]  # it is connected

    def resume(self) -> None:
        """Read again."""
        self._pauses -= 1
        if self._pauses == 0 and not self.outbox.is_closing:
            if self._group is not None:
                self._group.resume(self._key)
            else:
                self.transport.resumeProducing()  # type: ignore[union-attr]  # it is connected

    # --- what the outbox asks of its owner -----------------------------------------------------------------------

    @property
    def wheel(self) -> TimerWheel:
        """Where time comes from."""
        return self.factory.broker.wheel

    @property
    def stall_timeout(self) -> float:
        """Seconds in which a blocked transport must take something."""
        return self.factory.broker.limits.write_stall_timeout

    @property
    def max_qos0_bytes(self) -> int:
        """Bytes of QoS 0 messages that may wait behind it."""
        return self.factory.broker.limits.max_qos0_pending_bytes

    def blocked(self, answers: Any, qos0: Any) -> None:
        """The transport takes nothing more: use these sinks."""
        self.connection.block(answers, qos0)

    def unblocked(self, frames: list[bytes]) -> None:
        """It takes again: use this one."""
        self.connection.unblock(frames)

    def hold_reading(self) -> None:
        """Too many answers wait for a peer that does not read."""
        self.connection.is_unread = True
        self.pause()

    def go_on_reading(self) -> None:
        """It reads again."""
        self.connection.is_unread = False
        self.connection.last_packet = self.wheel.now
        self.resume()

    def dropped(self) -> None:
        """A QoS 0 message found no room behind a blocked transport."""
        self.factory.broker.stats.dropped_slow_reader += 1

    def stalled(self) -> None:
        """The peer has taken nothing for too long."""
        self.factory.broker.stats.stalled_connections += 1
        self.abort()

    def abort(self) -> None:
        """Close now; what is not sent is lost."""
        self.transport.abortConnection()  # type: ignore[union-attr]  # every stream transport has it


def peer_text(transport: Any) -> str:
    """``host:port`` of the transport's peer, or the address's own text."""
    peer = transport.getPeer()
    return f"{peer.host}:{peer.port}" if hasattr(peer, "host") else str(peer)


def send_at_once(transport: Any) -> None:
    """Let small packets leave when they are written.  Unix sockets know no such thing, though they claim to be TCP."""
    set_no_delay = getattr(transport, "setTcpNoDelay", None)
    if set_no_delay is not None:
        try:
            set_no_delay(True)
        except OSError:
            pass


def peer_certificate(transport: Any) -> Any:
    """The verified certificate of the transport's peer (pyOpenSSL's X509), or None."""
    get = getattr(transport, "getPeerCertificate", None)
    return get() if get is not None else None


def open_login(credentials: MQTTCredentials) -> None:
    """Everybody may do everything."""


def portal_login(portal: Portal, allow_anonymous: bool = False) -> Callable[[MQTTCredentials], Any]:
    """Clients log in at a cred portal for an ``IClientAvatar``.

    Without user name and password a client is refused, unless ``allow_anonymous``: then the portal is asked if it has
    a checker for ``IAnonymous``, and else the client has every right.  The realm gets the credentials as its ``mind``,
    so that rights may depend on the client id.
    """
    from twisted.cred.credentials import IAnonymous

    def authenticate(credentials: MQTTCredentials) -> Any:
        if IAnonymous.providedBy(credentials):
            if not allow_anonymous:
                raise MQTTError("a user name is required", ReasonCode.NOT_AUTHORIZED)
            if IAnonymous not in portal.checkers:
                return None
        # zope, not the type checker, knows that the credentials provide an ICredentials
        return portal.login(cast(Any, credentials), credentials, IClientAvatar).addCallback(logged_in)

    def logged_in(result: tuple[Any, Any, Callable[[], object]]) -> LoggedIn:
        interface, avatar, logout = result
        if interface is not IClientAvatar or avatar is None:
            raise UnauthorizedLogin("the realm gave no IClientAvatar")
        return LoggedIn(avatar, logout)

    return authenticate


class MQTTFactory(Factory):
    """Serves one broker; any number of factories may.

    ``login`` is a callable as in ``core.handshake.Login``, open to everybody unless given; ``methods`` are
    ``IEnhancedAuthenticator``.  ``max_connections`` is a number of connections of this factory, None for no limit.
    ``ticker`` drives the broker's clock while at least one factory listens; one of its own unless given.
    ``is_proxied``: a peer's address is known only with its first bytes, as behind a ``haproxy:`` endpoint.
    """

    protocol: Any = MQTTProtocol  # a server only: nothing here connects to another one  [MQTT3-7.0.0-1]
    noisy = False

    def __init__(
        self,
        broker: Broker,
        login: Callable[[MQTTCredentials], Any] = open_login,
        methods: Iterable[Any] = (),
        max_connections: int | None = None,
        reactor: Any = None,
        ticker: Ticker | None = None,
        is_proxied: bool = False,
    ) -> None:
        self.broker = broker
        self.login = Login(None if login is open_login else login, {method.method: method for method in methods})
        self.max_connections = max_connections
        self.is_proxied = is_proxied
        self.connections: set[MQTTProtocol] = set()
        self.read_group: ReadGroup | None = None
        if ReadGroup.is_possible(broker.clock):
            self.read_group = ReadGroup(broker.clock, broker.begin_turn, broker.write, broker.flush)
        self._addresses = AddressLimits(
            broker.limits.connections_per_address, broker.limits.connects_per_second_per_address
        )
        if ticker is None:
            if reactor is None:
                from twisted.internet import reactor
            ticker = Ticker(reactor, broker.advance)
        self._ticker = ticker

    def startFactory(self) -> None:
        """The first port listens."""
        if self.read_group is not None:  # there will be sockets
            make_room(self.max_connections if self.max_connections is not None else default_max_connections())
        self._ticker.start()

    def stopFactory(self) -> None:
        """The last port is closed."""
        self._ticker.stop()

    def admit(self, protocol: MQTTProtocol) -> bool:
        """Count a new connection; False where it is one too many."""
        self.connections.add(protocol)
        if self.max_connections is not None and len(self.connections) > self.max_connections:
            return False
        return self.is_proxied or self.admit_address(protocol)

    def admit_address(self, protocol: MQTTProtocol) -> bool:
        """Count the connection for its address; False where that has one too many."""
        if not self._addresses.are_limited:
            return True
        # Kept, because what was not counted must not be released, nor under another name.
        protocol.counted_host = host_of(protocol.transport)
        return self._addresses.admit(protocol.counted_host, time.monotonic())

    def released(self, protocol: MQTTProtocol) -> None:
        """A connection is over."""
        self.connections.discard(protocol)
        if protocol.counted_host is not None:
            self._addresses.released(protocol.counted_host)


def host_of(transport: Any) -> str:
    """The peer's host, the same for all peers of a Unix socket."""
    return str(getattr(transport.getPeer(), "host", ""))


class AddressLimits:
    """Connections of one address, at a time and a second; 0 for no limit."""

    def __init__(self, at_once: int, per_second: float) -> None:
        self._at_once = at_once
        self._per_second = per_second
        self.are_limited = bool(at_once or per_second)
        self._open: dict[str, int] = {}
        self._recent: dict[str, tuple[float, float]] = {}

    def admit(self, host: str, now: float) -> bool:
        """Count a connection from this host; False where it is over a limit."""
        if self._at_once:
            self._open[host] = self._open.get(host, 0) + 1
            if self._open[host] > self._at_once:
                return False
        if not self._per_second:
            return True
        if len(self._recent) > 10_000:
            self._recent.clear()
        burst = max(self._per_second, 1.0)
        tokens, last = self._recent.get(host, (burst, now))
        tokens = min(burst, tokens + (now - last) * self._per_second)
        self._recent[host] = (max(tokens - 1.0, 0.0), now)
        return tokens >= 1.0

    def released(self, host: str) -> None:
        """A counted connection is over."""
        if self._at_once:
            self._open[host] -= 1
            if not self._open[host]:
                del self._open[host]
