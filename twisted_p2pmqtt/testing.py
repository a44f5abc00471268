"""For tests of whoever embeds the broker: the real broker, in memory, on a ``Clock``; no port, no thread, no sleep.

    clock = Clock()
    broker = make_broker(clock)
    device, app = MemoryClient(broker, "device001"), MemoryClient(broker, "app")
    device.connect()
    app.connect()
    app.publish("p2p/device001/sensor/temp", b"23.5", qos=1)
    assert device.messages[0].payload == b"23.5"

``MemoryClient`` runs the same protocol, factory and codec as a TCP client meets; only the socket is a list of bytes.
``P2PRouterTests`` is a suite that a P2P router of your own can be held against.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import (
    Connack,
    Connect,
    Disconnect,
    Puback,
    Pubacks,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    Will,
)
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.limits import Limits, P2POptions
from twisted_p2pmqtt.interfaces import IP2PRouter, IStore
from twisted_p2pmqtt.net.protocol import MQTTFactory, open_login
from twisted_p2pmqtt.store.memory import MemoryStore
from twisted_p2pmqtt.testing_routers import P2PRouterTests

__all__ = ["MemoryClient", "MemoryTransport", "P2PRouterTests", "make_broker", "memory_factory"]

P = TypeVar("P", bound=Packet)


def make_broker(
    clock: Clock,
    store: IStore | None = None,
    router: IP2PRouter | None = None,
    limits: Limits | None = None,
    p2p: P2POptions | None = None,
) -> Broker:
    """A broker whose time is the clock's: ``clock.advance`` moves keep-alives, expiries and will delays."""
    return Broker(
        clock, store or MemoryStore(), router, limits, p2p, monotonic=clock.seconds, wall=lambda: 1e9 + clock.seconds()
    )


class MemoryTransport(StringTransport):
    """A transport that keeps what is written, and tells its protocol when it is closed."""

    def __init__(self, lost: Callable[[Failure], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Twisted's
        self._lost = lost
        self.is_closed = False

    def loseConnection(self) -> None:
        """Closed at once: nothing is buffered here."""
        self._close(ConnectionDone())

    def abortConnection(self) -> None:
        """The same, in anger."""
        self._close(ConnectionAborted())

    def _close(self, reason: Exception) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.disconnecting = True
            self._lost(Failure(reason))

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing to set."""


class MemoryClient:
    """A client of a broker (or of a factory, where its logins matter), without a network.

    ``packets`` are all packets received and not yet taken by ``receive``; ``messages`` all messages, in order.  With
    ``acknowledges`` (the default) QoS 1 and 2 messages are answered as a client must.
    """

    def __init__(
        self,
        server: Broker | MQTTFactory,
        client_id: str = "",
        version: int = 5,
        acknowledges: bool = True,
    ) -> None:
        self.factory = server if isinstance(server, MQTTFactory) else _shared_factory(server)
        self.client_id = client_id
        self.version = version
        self.acknowledges = acknowledges
        self._packets: list[Packet] = []
        self._messages: list[Message] = []
        self._clock: Any = self.factory.broker.clock
        self._reader = PacketReader(version=version, from_server=True)
        self._next_packet_id = 1
        self.protocol: Any = cast(Any, self.factory).buildProtocol(None)
        self.transport: Any = MemoryTransport(self._lost)
        self.protocol.makeConnection(self.transport)
        self._turn()

    @property
    def packets(self) -> list[Packet]:
        """The packets received and not taken yet."""
        self._turn()
        return self._packets

    @property
    def messages(self) -> list[Message]:
        """Every message received, in order."""
        self._turn()
        return self._messages

    @property
    def is_closed(self) -> bool:
        """Has either side closed the connection?"""
        return bool(self.transport.is_closed)

    def _lost(self, reason: Failure) -> None:
        self.protocol.connectionLost(reason)

    def _turn(self) -> None:
        """Let the broker's turn end, and read what it wrote, until nothing more happens."""
        while True:
            self._clock.advance(0)
            data = self.transport.value()
            if not data:
                return
            self.transport.clear()
            packets = self._reader.feed(data)
            if self._reader.error is not None:
                raise self._reader.error
            for packet in packets:
                for each in map(Puback, packet.packet_ids) if isinstance(packet, Pubacks) else (packet,):
                    self._take(each)

    def _take(self, packet: Packet) -> None:
        self._packets.append(packet)
        if isinstance(packet, Message):
            self._messages.append(packet)
            if self.acknowledges and packet.qos == 1:
                self._write(Puback(packet.packet_id))
            elif self.acknowledges and packet.qos == 2:
                self._write(Pubrec(packet.packet_id))
        elif isinstance(packet, Pubrel) and self.acknowledges:
            self._write(Pubcomp(packet.packet_id))

    def _write(self, packet: Packet) -> None:
        if not self.is_closed:
            self.protocol.dataReceived(encode(packet, self.version))

    def send(self, *packets: Packet) -> None:
        """Send packets, in one piece."""
        self.send_bytes(b"".join(encode(packet, self.version) for packet in packets))

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        if not self.is_closed:
            self.protocol.dataReceived(data)
        self._turn()

    def receive(self) -> list[Packet]:
        """Every packet that came since the last call."""
        packets, self._packets = self.packets, []
        return packets

    def take(self, kind: type[P]) -> P:
        """The first packet of this class that was received, taken out; AssertionError where there is none."""
        for packet in self.packets:
            if isinstance(packet, kind):
                self._packets.remove(packet)
                return packet
        raise AssertionError(f"no {kind.__name__} among {self._packets!r}")

    def connect(
        self,
        clean_start: bool = True,
        keep_alive: int = 0,
        username: str | None = None,
        password: bytes | None = None,
        will: Will | None = None,
        properties: Properties | None = None,
    ) -> Connack:
        """Send CONNECT; gives the CONNACK."""
        self.send(
            Connect(
                self.client_id,
                self.version,
                clean_start,
                keep_alive,
                username,
                password,
                will,
                properties or Properties(),
            )
        )
        return self.take(Connack)

    def packet_id(self) -> int:
        """A packet identifier that this client has not used before."""
        self._next_packet_id += 1
        return self._next_packet_id - 1

    def publish(
        self, topic: str, payload: bytes, qos: int = 0, retain: bool = False, properties: Properties | None = None
    ) -> int:
        """Publish, with the whole exchange that the QoS asks for; gives the reason code (0 for QoS 0)."""
        packet_id = self.packet_id() if qos else 0
        self.send(Message(topic.encode(), payload, 0, qos, int(retain), 0, packet_id, properties or Properties()))
        if qos == 0:
            return 0
        if qos == 1:
            return self.take(Puback).reason_code
        received = self.take(Pubrec)
        if received.reason_code < 0x80:
            self.send(Pubrel(packet_id))
            self.take(Pubcomp)
        return received.reason_code

    def subscribe(self, *requests: str | SubscriptionRequest, qos: int = 2, identifier: int = 0) -> list[int]:
        """Subscribe to filters; gives the codes of SUBACK."""
        wanted = [SubscriptionRequest(one, qos) if isinstance(one, str) else one for one in requests]
        properties = Properties(subscription_identifiers=[identifier]) if identifier else Properties()
        self.send(Subscribe(self.packet_id(), wanted, properties))
        return self.take(Suback).reason_codes

    def unsubscribe(self, *topic_filters: str) -> list[int]:
        """Unsubscribe; gives the codes of UNSUBACK."""
        self.send(Unsubscribe(self.packet_id(), list(topic_filters)))
        return self.take(Unsuback).reason_codes

    def disconnect(self, reason_code: int = 0, properties: Properties | None = None) -> None:
        """Say DISCONNECT."""
        self.send(Disconnect(reason_code, properties or Properties()))

    def lose(self) -> None:
        """Lose the connection without a word."""
        self.transport.abortConnection()
        self._clock.advance(0)


def memory_factory(
    broker: Broker, login: Callable[..., Any] = open_login, methods: Iterable[Any] = (), **limits: Any
) -> MQTTFactory:
    """A factory for a broker of ``make_broker``, ticking with its clock; more arguments as ``MQTTFactory`` has them."""
    factory = MQTTFactory(broker, login, methods, reactor=broker.clock, **limits)
    cast(Any, factory).doStart()
    return factory


_factories: WeakKeyDictionary[Broker, MQTTFactory] = WeakKeyDictionary()


def _shared_factory(broker: Broker) -> MQTTFactory:
    """One factory a broker, open to everybody."""
    factory = _factories.get(broker)
    if factory is None:
        factory = _factories[broker] = memory_factory(broker)
    return factory
