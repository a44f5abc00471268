"""TCP: ordered, lossless bytes in both directions (4.2 of 5.0, 7 of 3.1.1), on a reactor of this test's own."""

from __future__ import annotations

import ast
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.helpers import CONNECT_HEX, V5, V31, V311, every_version
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Puback
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.limits import Limits
from twisted_p2pmqtt.core.p2p import NoP2PRouter
from twisted_p2pmqtt.net.protocol import MQTTFactory
from twisted_p2pmqtt.store.memory import MemoryStore

try:
    from twisted.internet.epollreactor import EPollReactor as Reactor
except ImportError:  # not on Linux
    from twisted.internet.selectreactor import SelectReactor as Reactor

PACKAGE = Path(__file__).resolve().parents[2] / "twisted_p2pmqtt"


class Listening:
    """A broker that listens on a port of the loopback."""

    def __init__(self) -> None:
        self.reactor: Any = Reactor()
        limits = Limits(receive_maximum=65535, max_inflight=65535)
        self.broker = Broker(self.reactor, MemoryStore(), NoP2PRouter(), limits)
        self.port = self.reactor.listenTCP(0, MQTTFactory(self.broker, reactor=self.reactor), interface="127.0.0.1")
        self.reactor.startRunning(installSignalHandlers=False)
        self.sockets: list[socket.socket] = []

    def until(self, done: Callable[[], bool]) -> None:
        """Run the reactor until this is so."""
        end = time.monotonic() + 20
        while not done():
            assert time.monotonic() < end
            self.reactor.iterate(0.01)

    def connect(self) -> socket.socket:
        """A client's socket that does not block."""
        link = socket.create_connection(("127.0.0.1", self.port.getHost().port))
        link.setblocking(False)
        self.sockets.append(link)
        return link

    def close(self) -> None:
        """End it all."""
        for link in self.sockets:
            link.close()
        self.port.stopListening()
        for _ in range(5):
            self.reactor.iterate(0.01)
        self.reactor.fireSystemEvent("shutdown")
        self.reactor.iterate(0)


@pytest.fixture
def listening() -> Iterator[Listening]:
    """A broker on TCP."""
    one = Listening()
    yield one
    one.close()


class Link:
    """One client."""

    def __init__(self, listening: Listening, version: int) -> None:
        self.socket = listening.connect()
        self.listening = listening
        self.reader = PacketReader(version=version, from_server=True)
        self.packets: list[Packet] = []
        self.is_closed = False

    def read(self) -> None:
        """Take in what is there."""
        try:
            data = self.socket.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        self.is_closed = self.is_closed or not data
        self.packets += self.reader.feed(data)
        assert self.reader.error is None

    def send(self, data: bytes) -> None:
        """Send all of it, while the server's answers are being read."""
        while data:
            try:
                data = data[self.socket.send(data) :]
            except BlockingIOError:
                pass
            self.listening.reactor.iterate(0)
            self.read()

    def messages(self) -> list[Message]:
        """Those that have come."""
        self.read()
        return [each for each in self.packets if isinstance(each, Message)]

    def acknowledged(self) -> list[int]:
        """The packet ids of the PUBACKs that have come."""
        self.read()
        return [each.packet_id for each in self.packets if isinstance(each, Puback)]

    def is_over(self) -> bool:
        """Has the server closed?"""
        self.read()
        return self.is_closed


def text(value: str) -> bytes:
    """A string with its length in front."""
    return len(value).to_bytes(2, "big") + value.encode()


@pytest.mark.spec("MQTT-4.2.0-1", "MQTT3-7.1.1-1", "MQTT3-7.0.0-2")
@every_version
def test_bytes_come_in_order_and_none_is_lost(listening: Listening, version: int) -> None:
    """One client writes 4 MB at QoS 1 and hears it all, with nothing but the specification's packets."""
    none = b"\0" if version == V5 else b""
    link = Link(listening, version)
    link.send(
        bytes.fromhex(CONNECT_HEX[version]) + b"\x82" + bytes([6 + len(none)]) + b"\0\1" + none + text("t") + b"\1"
    )
    sent = [number.to_bytes(4, "big") + bytes([number % 256]) * 1996 for number in range(2000)]
    for number, payload in enumerate(sent, 1):
        body = text("t") + number.to_bytes(2, "big") + none + payload
        link.send(b"\x32" + bytes([len(body) & 127 | 128, len(body) >> 7]) + body)
    listening.until(lambda: len(link.messages()) == len(sent))
    assert [each.payload for each in link.messages()] == sent
    listening.until(lambda: len(link.acknowledged()) == len(sent))
    assert link.acknowledged() == list(range(1, 2001))
    link.send(b"\xe0\x00")
    listening.until(link.is_over)


@pytest.mark.spec("MQTT-4.2.0-1", "MQTT3-7.1.1-1")
@pytest.mark.parametrize("version", [V31, V311])
def test_single_bytes(listening: Listening, version: int) -> None:
    link = Link(listening, version)
    for byte in bytes.fromhex(CONNECT_HEX[version] + "82 06 0001 0001 74 00" + "30 04 0001 74 78"):
        link.send(bytes([byte]))
    listening.until(lambda: bool(link.messages()))
    assert [each.payload for each in link.messages()] == [b"x"]


CLIENT_ENDS = {"connectTCP", "connectSSL", "connectUNIX", "clientFromString", "connectProtocol", "TCP4ClientEndpoint"}


@pytest.mark.spec("MQTT3-7.0.0-1")
def test_the_server_connects_to_no_other_mqtt_server() -> None:
    """So nothing of it has to conform as a client: no module opens a connection, but for the HTTP of logins."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
            if name in CLIENT_ENDS:
                found.add(path.relative_to(PACKAGE).as_posix())
    assert {each for each in found if not each.startswith("auth/")} == set()
