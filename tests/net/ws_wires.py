"""WebSocket connections to a factory's port, in memory, on a Clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from tests.net.ws_client import Frames, frame, request
from twisted_p2pmqtt import Limits
from twisted_p2pmqtt.codec.packets import Connect, Pingreq
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.core.timers import TICK
from twisted_p2pmqtt.net.websocket import WebSocketFactory
from twisted_p2pmqtt.testing import MemoryTransport, make_broker, memory_factory

CONNECT = encode(Connect("c", 4, keep_alive=0), 4)
CONNACK = b"\x20\2\0\0"
PING, PONG = encode(Pingreq(), 4), b"\xd0\0"
TEXT, BINARY, CLOSE, WS_PING, WS_PONG = 1, 2, 8, 9, 10


class Slow(MemoryTransport):
    """A wire that does not close by itself, and tells who writes to it."""

    asked_to_close = False

    def loseConnection(self) -> None:
        assert self.producer is None, "a transport with a producer never closes"
        self.asked_to_close = True
        self.disconnecting = True

    def abortConnection(self) -> None:
        assert not self.is_closed, "TLS knows no abort behind the end"
        MemoryTransport.abortConnection(self)

    def peer_closes(self) -> None:
        MemoryTransport.loseConnection(self)


class Wire:
    """One connection to a factory's port, on a Clock."""

    def __init__(self, factory: Any, wire: type[MemoryTransport] = Slow) -> None:
        self.protocol: Any = factory.buildProtocol(None)
        self.transport: Any = wire(self.protocol.connectionLost)
        self.transport.peerAddr = IPv4Address("TCP", "192.0.2.1", 1)
        self.protocol.makeConnection(self.transport)
        self.head = b""
        self.frames = Frames()

    def send(self, data: bytes) -> None:
        if not self.transport.is_closed:
            self.protocol.dataReceived(data)

    def written(self) -> bytes:
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    @property
    def is_closed(self) -> bool:
        return bool(self.transport.is_closed)

    def status(self) -> int:
        """The status of the response."""
        self.head += self.written()
        assert self.head.endswith(b"\r\n\r\n") or b"Content-Length" in self.head
        return int(self.head.split()[1])


class Client(Wire):
    """One that is through with the handshake."""

    def __init__(self, factory: Any, wire: type[MemoryTransport] = Slow) -> None:
        super().__init__(factory, wire)
        self.clock = factory.mqtt_factory.broker.clock
        self.send(request())
        assert self.status() == 101

    def read(self) -> Frames:
        self.clock.advance(0)
        self.frames.feed(self.written())
        return self.frames

    def mqtt(self, *packets: bytes) -> None:
        for packet in packets:
            self.send(frame(BINARY, packet))

    def connect(self) -> None:
        self.mqtt(CONNECT)
        assert self.read().data == CONNACK
        self.frames = Frames()

    def closed(self) -> int:
        """The code of the server's close frame."""
        close = self.read().closed
        assert close is not None
        return int(close.code)

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)


def served(limits: Limits | None = None, origins: tuple[str, ...] = (), **arguments: Any) -> Any:
    """A factory for WebSockets, as an Any: its MQTT factory's broker has a Clock."""
    return WebSocketFactory(memory_factory(make_broker(Clock(), limits=limits), **arguments), "/mqtt", origins)
