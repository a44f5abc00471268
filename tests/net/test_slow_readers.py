"""Readers that stop reading, on real sockets of every kind: what they cost, when they go, what others notice of it."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import deferLater

from tests.net.certificates import Pki
from tests.net.sockets import KINDS, SmallEndpoint, SocketClient, connected
from twisted_p2pmqtt import Broker, Limits, MemoryStore, MQTTFactory
from twisted_p2pmqtt.net.outbox import ANSWERS_LIMIT, CHUNK
from twisted_p2pmqtt.net.tls import over_tls, server_context
from twisted_p2pmqtt.net.websocket import WebSocketFactory

SIZE = 1000
KERNEL = 16_384
"""Bytes to which the kernel's buffers of a slow reader are set, so that it takes little to fill them."""


class Listening:
    """A broker on a free port of the loopback interface, and its clients."""

    def __init__(self, kind: str, pki: Pki, limits: Limits) -> None:
        self.kind = kind
        self.ca = pki.ca
        self.broker = Broker(reactor, MemoryStore(), limits=limits)
        self.mqtt_factory = MQTTFactory(self.broker, reactor=reactor)
        served: Any = self.mqtt_factory
        if kind.startswith("websocket"):
            served = WebSocketFactory(self.mqtt_factory)
        if kind.endswith("tls"):
            served = over_tls(server_context(pki.certificate, pki.key), served)
        self.port: Any = reactor.listenTCP(0, served, interface="127.0.0.1")
        self.clients: list[SocketClient] = []

    async def client(self, client_id: str, endpoint: Any = None) -> SocketClient:
        endpoint = endpoint or TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        client = await connected(reactor, endpoint, self.kind, self.ca, client_id)
        self.clients.append(client)
        return client

    def protocol_of(self, client_id: str) -> Any:
        connection: Any = self.broker.sessions[client_id].connection
        return connection.wire

    async def slow_client(self) -> SocketClient:
        """One whose kernel buffers are small, and that will stop to read."""
        client = await self.client("slow", SmallEndpoint(reactor, self.port.getHost().port, KERNEL))
        server = tcp_of(self.protocol_of("slow").transport)
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL)
        return client

    def buffered(self, client_id: str) -> int:
        """Bytes that the process keeps for this client: in the outbox and in Twisted's transport."""
        protocol = self.protocol_of(client_id)
        wire = tcp_of(protocol.transport)
        return int(protocol.outbox.waiting + len(wire.dataBuffer) - wire.offset + wire._tempDataLen)

    async def publish(self, count: int, qos: int = 0) -> int:
        """Publish to ``a`` as the broker; gives the most that was buffered for ``slow``.

        A turn's worth is less than the 64 KiB that a client in the same reactor reads in a turn.
        """
        most = 0
        for number in range(count):
            self.broker.publish("a", b"%06d" % number + bytes(SIZE - 6), qos)
            if number % 50 == 49:
                most = max(most, self.buffered("slow"))
                await turn()
        return most

    async def fill(self) -> None:
        """Publish until no buffer takes any more for ``slow``, the kernel's neither."""
        while not self.broker.stats.dropped_slow_reader:
            await self.publish(100)

    async def close(self) -> None:
        await self.port.stopListening()
        for client in self.clients:
            await client.close()
        while self.mqtt_factory.connections:
            await turn()


def tcp_of(transport: Any) -> Any:
    """What is below WebSocket and TLS."""
    for name in ("_wire", "transport"):
        transport = getattr(transport, name, transport)
    return transport


def turn(seconds: float = 0) -> Deferred[None]:
    return deferLater(reactor, seconds, lambda: None)


async def until(condition: Callable[[], bool]) -> None:
    """Look until the condition holds, for at most ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await turn(0.01)


def numbers(client: SocketClient) -> list[int]:
    return [int(message.payload[:6]) for message in client.messages]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Iterator[str]:
    return request.param  # type: ignore[no-any-return]  # pytest's Any


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_qos0_for_a_slow_reader_is_bounded(kind: str, pki: Pki) -> None:
    listening = Listening(kind, pki, Limits(max_qos0_pending_bytes=500_000))
    slow, fast = await listening.slow_client(), await listening.client("fast")
    await slow.subscribe("a")
    await fast.subscribe("a")
    slow.wire.pauseProducing()
    count = 4000
    most = await listening.publish(count)
    stats = listening.broker.stats
    assert stats.dropped_slow_reader > 0
    assert most <= 500_000 + 4 * CHUNK, "its backlog, a chunk, and the rest of one flush"
    await fast.until(lambda: len(fast.messages) == count)
    assert numbers(fast) == list(range(count))

    slow.wire.resumeProducing()
    await slow.publish("b", b"", 1)  # answered behind everything that waits
    got = numbers(slow)
    assert len(got) == count - stats.dropped_slow_reader
    assert got == sorted(got)
    assert listening.buffered("slow") == 0
    await listening.publish(100)
    await slow.until(lambda: numbers(slow)[-100:] == list(range(100)))
    await listening.close()


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_qos1_for_a_slow_reader_is_bounded(kind: str, pki: Pki) -> None:
    limits = Limits(max_inflight=1000, max_queued_messages=500)
    listening = Listening(kind, pki, limits)
    slow, fast = await listening.slow_client(), await listening.client("fast")
    await slow.subscribe("a", 1)
    await fast.subscribe("a", 1)
    slow.wire.pauseProducing()
    count = 4000
    most = await listening.publish(count, 1)
    assert most <= 1000 * (SIZE + 20)
    await fast.until(lambda: len(fast.messages) == count)
    assert numbers(fast) == list(range(count))
    slow.wire.resumeProducing()
    dropped = listening.broker.stats.dropped_queue_full
    await slow.until(lambda: len(slow.messages) == count - dropped)
    assert numbers(slow) == sorted(numbers(slow))
    await listening.close()


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_a_stalled_reader_is_aborted_in_time(kind: str, pki: Pki) -> None:
    listening = Listening(kind, pki, Limits(write_stall_timeout=1.0))
    slow, fast = await listening.slow_client(), await listening.client("fast")
    await slow.subscribe("a")
    await fast.subscribe("a")
    slow.wire.pauseProducing()
    protocol = listening.protocol_of("slow")
    await listening.fill()
    blocked = time.monotonic()
    await until(lambda: protocol not in listening.mqtt_factory.connections)
    assert 0.75 < time.monotonic() - blocked < 5  # not before its time, and far from never
    assert listening.broker.stats.stalled_connections == 1
    assert not fast.is_lost
    await fast.publish("b", b"", 1)
    slow.wire.resumeProducing()
    await slow.until(lambda: slow.is_lost)
    await listening.close()


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_a_peer_that_only_sends_is_not_read_for_ever(kind: str, pki: Pki) -> None:
    """QoS 1 messages come in and nobody takes the answers: they wait, up to a bound, and reading stops."""
    listening = Listening(kind, pki, Limits())
    slow = await listening.slow_client()
    slow.wire.pauseProducing()
    protocol = listening.protocol_of("slow")
    packet = bytes.fromhex("32 06 0001 62 0001 78")
    count = 100_000
    slow.write(packet * count)
    await until(lambda: protocol.connection.is_unread)
    assert listening.buffered("slow") <= ANSWERS_LIMIT + 4 * CHUNK
    slow.wire.resumeProducing()
    await slow.until(lambda: len(slow.packets) == count)
    assert not protocol.connection.is_unread
    await listening.close()


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_a_blocked_connection_that_closes_sends_the_rest(kind: str, pki: Pki) -> None:
    listening = Listening(kind, pki, Limits(max_qos0_pending_bytes=100_000))
    slow = await listening.slow_client()
    await slow.subscribe("a")
    slow.wire.pauseProducing()
    await listening.fill()
    assert listening.buffered("slow")
    listening.broker.disconnect("slow")
    await turn()
    slow.wire.resumeProducing()
    await slow.until(lambda: slow.is_lost)
    got = numbers(slow)
    assert len(got) > 50
    assert got == [number % 100 for number in range(len(got))], "none is missing in between"
    await listening.close()


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_a_peer_that_goes_while_it_is_blocked(kind: str, pki: Pki) -> None:
    listening = Listening(kind, pki, Limits())
    slow = await listening.slow_client()
    await slow.subscribe("a")
    slow.wire.pauseProducing()
    await listening.fill()
    slow.wire.abortConnection()
    await until(lambda: not listening.mqtt_factory.connections)
    assert listening.broker.stats.internal_errors == 0
    await listening.close()
