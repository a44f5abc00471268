"""MQTT clients on real sockets, for tests in one reactor: TCP, TLS, WebSocket, and WebSocket over TLS."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import connectProtocol, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.net.ws_client import Frames, frame, request
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import (
    Connack,
    Connect,
    Puback,
    Pubacks,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
)
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import encode

KINDS = ("tcp", "tls", "websocket", "websocket over tls")
TIMEOUT = 20.0


class SocketClient(Protocol):
    """One MQTT 3.1.1 client.  ``messages`` are what it has received; it acknowledges all of it."""

    def __init__(self, reactor: Any, is_websocket: bool) -> None:
        self.reactor = reactor
        self.is_websocket = is_websocket
        self.packets: list[Packet] = []
        self.messages: list[Message] = []
        self.is_lost = False
        self._reader = PacketReader(max_packet_size=1 << 28, version=4, from_server=True)
        self._frames: Frames | None = None
        self._has_answered = False
        self._head = b""
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []
        self._next_id = 1

    # --- the wire ------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        if self.is_websocket:
            self.wire.write(request())

    @property
    def wire(self) -> Any:
        return self.transport

    def dataReceived(self, data: bytes) -> None:
        if self.is_websocket:
            data = self._unwrap(data)
        for packet in self._reader.feed(data):
            self._take(packet)
        assert self._reader.error is None
        self._look()

    def _unwrap(self, data: bytes) -> bytes:
        if self._frames is None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return b""
            assert head.split()[1] == b"101"
            self._frames = Frames()
        self._frames.feed(data)
        if self._frames.closed is not None and not self._has_answered:
            self._has_answered = True
            self.wire.write(self._frames.answer_close())
        data = self._frames.data
        self._frames.messages[:] = [b""]
        return data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.is_lost = True
        self._look()

    def write(self, data: bytes) -> None:
        if self.is_websocket:
            data = b"".join(frame(2, data[at : at + 60000]) for at in range(0, len(data), 60000))
        self.wire.write(data)

    def send(self, *packets: Packet) -> None:
        self.write(b"".join(encode(packet, 4) for packet in packets))

    # --- what comes ----------------------------------------------------------------------------------------------

    def _take(self, packet: Packet) -> None:
        if isinstance(packet, Message):
            self.messages.append(packet)
            if packet.qos:
                self.send(Puback(packet.packet_id) if packet.qos == 1 else Pubrec(packet.packet_id))
        elif isinstance(packet, Pubacks):  # a run of them
            self.packets += [Puback(packet_id) for packet_id in packet.packet_ids]
        elif isinstance(packet, Pubrel):
            self.send(Pubcomp(packet.packet_id))
        else:
            self.packets.append(packet)

    def _look(self) -> None:
        for entry in list(self._waiting):
            if entry[0]():
                self._waiting.remove(entry)
                entry[1].callback(None)

    def until(self, condition: Callable[[], bool], timeout: float = TIMEOUT) -> Deferred[None]:
        """Fires when the condition holds; it is looked at whenever something has come."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append((condition, waiting))
        waiting.addTimeout(timeout, self.reactor)
        self._look()
        return waiting

    async def take(self, kind: type[Packet]) -> Any:
        """The first packet of this class."""
        await self.until(lambda: self.is_lost or any(isinstance(packet, kind) for packet in self.packets))
        packet = next(packet for packet in self.packets if isinstance(packet, kind))
        self.packets.remove(packet)
        return packet

    # --- whole exchanges -----------------------------------------------------------------------------------------

    async def connect(self, client_id: str, keep_alive: int = 0) -> None:
        if self.is_websocket:
            await self.until(lambda: self._frames is not None)
        self.send(Connect(client_id, 4, keep_alive=keep_alive))
        assert (await self.take(Connack)).reason_code == 0

    async def subscribe(self, topic_filter: str, qos: int = 0) -> None:
        self.send(Subscribe(1, [SubscriptionRequest(topic_filter, qos)]))
        assert (await self.take(Suback)).reason_codes == [qos]

    async def publish(self, topic: str, payload: bytes, qos: int = 0) -> None:
        """Publish, and see the exchange through."""
        packet_id, self._next_id = self._next_id, self._next_id + 1
        self.send(Message(topic.encode(), payload, 0, qos, 0, 0, packet_id if qos else 0))
        if qos == 1:
            await self.take(Puback)
        elif qos == 2:
            await self.take(Pubrec)
            self.send(Pubrel(packet_id))
            await self.take(Pubcomp)

    async def close(self) -> None:
        if not self.is_lost:
            self.wire.abortConnection()
        await self.until(lambda: self.is_lost)


@implementer(IStreamClientEndpoint)
class SmallEndpoint:
    """Connects to a port of the loopback interface with a small receive buffer: it must be set before the connect."""

    def __init__(self, reactor: Any, port: int, size: int) -> None:
        self._reactor = reactor
        self._port = port
        self._size = size

    def connect(self, factory: Any) -> Deferred[Any]:
        built: list[Any] = []

        class Built(Factory):
            def buildProtocol(self, address: Any) -> Any:
                built.append(factory.buildProtocol(address))
                return built[0]

        with socket.socket() as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._size)
            made.connect(("127.0.0.1", self._port))
            made.setblocking(False)
            self._reactor.adoptStreamConnection(made.fileno(), socket.AF_INET, Built())
        return succeed(built[0])


def trusting(endpoint: Any, ca: str) -> Any:
    """The endpoint under TLS."""
    with open(ca, "rb") as file:
        return wrapClientTLS(optionsForClientTLS("localhost", Certificate.loadPEM(file.read())), endpoint)


async def connected(reactor: Any, endpoint: Any, kind: str, ca: str | None, client_id: str) -> SocketClient:
    """A client on this endpoint that the broker has accepted."""
    if kind.endswith("tls"):
        assert ca is not None
        endpoint = trusting(endpoint, ca)
    client = SocketClient(reactor, kind.startswith("websocket"))
    await connectProtocol(endpoint, client)
    await client.connect(client_id)
    return client
