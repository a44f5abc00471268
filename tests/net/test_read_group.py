"""ReadGroup, on socket pairs and without a reactor that runs; and the transports that it makes a real port make."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor, tcp
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from tests.net.sockets import connected
from twisted_p2pmqtt import Broker, MemoryStore, MQTTFactory, MQTTProtocol
from twisted_p2pmqtt.net import read_group
from twisted_p2pmqtt.net.read_group import LARGE_READ_SIZE, READ_SIZE, WRITE_READS, GroupedServer, ReadGroup

pytestmark = pytest.mark.skipif(not hasattr(__import__("select"), "epoll"), reason="Linux only")


class Reactor:
    """Knows its readers."""

    def __init__(self) -> None:
        self.readers: list[object] = []

    def addReader(self, reader: object) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: object) -> None:
        self.readers.remove(reader)


class Transport:
    """One end of a socket pair as a transport, and what was done to it."""

    def __init__(self, group: ReadGroup) -> None:
        self.near, self.far = socket.socketpair()
        self.far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.near.setblocking(False)
        self.group = group
        self.is_read_by_reactor = True
        self.is_aborted = False
        self.received: list[int] = []
        self.key = group.add(self, self.receive)

    def getHandle(self) -> socket.socket:
        return self.near

    def fileno(self) -> int:
        return self.near.fileno()

    def stopReading(self) -> None:
        self.is_read_by_reactor = False

    def startReading(self) -> None:
        self.is_read_by_reactor = True

    def abortConnection(self) -> None:
        self.is_aborted = True

    def receive(self, data: bytes) -> None:
        self.received.append(len(data))
        if data == b"raise":
            raise RuntimeError("of a test")

    def close(self) -> None:
        self.group.remove(self.key)
        self.near.close()
        self.far.close()


class World:
    """A group, and what it told of its turns."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        self.told: list[str] = []
        started, wrote, done = (partial(self.told.append, word) for word in ("started", "wrote", "done"))
        self.group = ReadGroup(self.reactor, started, wrote, done)
        self.transports: list[Transport] = []

    def transport(self) -> Transport:
        self.transports.append(Transport(self.group))
        return self.transports[-1]


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    for transport in world.transports:
        transport.close()


def test_a_turn_reads_each_member_once_and_ends_with_one_flush(world: World) -> None:
    first, second, silent = world.transport(), world.transport(), world.transport()
    assert world.reactor.readers == [world.group]
    first.far.send(b"abc")
    second.far.send(b"de")
    world.group.doRead()
    assert (first.received, second.received, silent.received) == ([3], [2], [])
    assert world.told == ["started", "done"]
    assert not first.is_read_by_reactor


def test_what_a_few_members_caused_is_written_before_the_next_are_read(world: World) -> None:
    members = [world.transport() for _ in range(2 * WRITE_READS + 1)]
    for member in members:
        member.receive = lambda data: world.told.append("read")  # type: ignore[method-assign]  # in order
        world.group.remove(member.key)
        member.key = world.group.add(member, member.receive)
        member.far.send(b"abc")
    world.group.doRead()
    a_few = ["read"] * WRITE_READS
    assert world.told == ["started", *a_few, "wrote", *a_few, "wrote", "read", "done"]


def test_what_much_that_was_taken_in_caused_is_written_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_group, "WRITE_BYTES", 100)
    for member in [world.transport() for _ in range(3)]:
        member.far.send(bytes(60))
    world.group.doRead()
    assert world.told == ["started", "wrote", "done"]


def test_who_fills_a_read_gets_larger_ones_for_as_long(world: World) -> None:
    busy = world.transport()
    size = READ_SIZE + LARGE_READ_SIZE + 10
    assert busy.far.send(bytes(size)) == size
    for _ in range(3):
        world.group.doRead()
    assert busy.received == [READ_SIZE, LARGE_READ_SIZE, 10]
    assert busy.far.send(bytes(size)) == size
    world.group.doRead()
    assert busy.received[3:] == [READ_SIZE]


def test_a_paused_member_is_not_read_until_it_is_resumed(world: World) -> None:
    member = world.transport()
    world.group.pause(member.key)
    member.far.send(b"abc")
    world.group.doRead()
    assert member.received == []
    world.group.resume(member.key)
    world.group.doRead()
    assert member.received == [3]


def test_the_end_of_a_stream_is_the_transports_to_find(world: World) -> None:
    leaving, staying = world.transport(), world.transport()
    leaving.far.close()
    world.group.doRead()
    assert leaving.is_read_by_reactor
    assert not staying.is_read_by_reactor
    world.group.remove(staying.key)
    assert world.reactor.readers == []


def test_an_error_ends_the_one_member(world: World) -> None:
    bad, good = world.transport(), world.transport()
    bad.far.send(b"raise")
    good.far.send(b"abc")
    world.group.doRead()
    assert (bad.is_aborted, good.is_aborted, good.received) == (True, False, [3])


def test_a_member_that_an_earlier_one_closed_is_not_read(world: World) -> None:
    one, other = world.transport(), world.transport()
    for near, far in ((one, other), (other, one)):
        near.receive = lambda data, far=far: world.group.remove(far.key)  # type: ignore[method-assign, misc]  # of a default
        world.group.remove(near.key)
        near.key = world.group.add(near, near.receive)
    one.far.send(b"a")
    other.far.send(b"b")
    world.group.doRead()
    assert len(world.group._members) == 1


def test_a_turn_takes_in_so_much_and_leaves_the_rest_for_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_group, "TURN_BYTES", 100)
    members = [world.transport() for _ in range(3)]
    for member in members:
        member.far.send(bytes(90))
    counts = []
    for _ in range(3):
        world.group.doRead()
        counts.append(sum(len(member.received) for member in members))
    assert counts == [2, 3, 3]


def test_whoever_was_left_out_comes_first_in_the_next_turn(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_group, "TURN_BYTES", READ_SIZE)
    busy, quiet = [world.transport() for _ in range(6)], world.transport()
    for turn in range(40):
        for member in busy:
            member.far.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    member.far.send(bytes(READ_SIZE))
        if turn == 20:
            quiet.far.send(b"abc")
        world.group.doRead()
    assert quiet.received == [3]
    counts = [len(member.received) for member in busy]
    assert max(counts) <= 2 * min(counts)


class Mixed(MQTTFactory):
    """Serves something else where it is told to."""

    other: type[Protocol] | None = None

    def buildProtocol(self, addr: Any) -> Any:
        if self.other is None:
            return super().buildProtocol(addr)
        return Factory.forProtocol(self.other).buildProtocol(addr)


class Watching(MQTTProtocol):
    """Sees the bytes, and so reads through the reactor."""

    seen = b""

    def dataReceived(self, data: bytes) -> None:
        Watching.seen += data
        super().dataReceived(data)


class Sniffing(Protocol):
    """Becomes MQTT with the first bytes, as a port for several protocols does."""

    mqtt: MQTTFactory

    def dataReceived(self, data: bytes) -> None:
        transport: Any = self.transport
        protocol: Any = MQTTFactory.buildProtocol(self.mqtt, transport.getPeer())
        transport.protocol = protocol
        protocol.makeConnection(transport)
        protocol.dataReceived(data)


class Proxy:
    """A transport that no group can read, for it is not the socket's own."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Proxied(MQTTProtocol):
    """Has its transport wrapped."""

    def makeConnection(self, transport: Any) -> None:
        super().makeConnection(Proxy(transport))  # type: ignore[no-untyped-call]  # Twisted's


class Greeting(Protocol):
    """No MQTT at all."""

    heard: Deferred[bytes]

    def dataReceived(self, data: bytes) -> None:
        Greeting.heard.callback(data)


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_small_packets_are_sent_at_once_to_those_too_who_were_there_before_anybody_was_accepted() -> None:
    clock: Any = reactor
    factory = MQTTFactory(Broker(clock, MemoryStore()), reactor=clock)
    port = clock.listenTCP(0, factory, interface="127.0.0.1")
    with contextlib.ExitStack() as stack:
        for _ in range(3):  # they wait in the kernel's queue, for the reactor does not run meanwhile
            stack.enter_context(socket.create_connection(("127.0.0.1", port.getHost().port)))
        while len(factory.connections) < 3:
            await deferLater(clock, 0.01)
        transports: list[Any] = [protocol.transport for protocol in factory.connections]
        assert {type(transport) for transport in transports} == {tcp.Server, GroupedServer}
        assert all(transport.getTcpNoDelay() for transport in transports)
    await port.stopListening()


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_the_reactor_is_asked_once_a_port_to_read_and_not_to_read() -> None:
    clock: Any = reactor
    factory = Mixed(Broker(clock, MemoryStore()), reactor=clock)
    port = clock.listenTCP(0, factory, interface="127.0.0.1")
    endpoint = TCP4ClientEndpoint(clock, "127.0.0.1", port.getHost().port)
    clients = [await connected(clock, endpoint, "tcp", None, name) for name in ("first", "second")]
    sessions: Any = factory.broker.sessions
    transports = [sessions[name].connection.wire.transport for name in ("first", "second")]
    assert [type(transport) for transport in transports] == [tcp.Server, GroupedServer]
    assert not set(transports) & set(clock.getReaders())

    factory.protocol = Watching
    clients.append(await connected(clock, endpoint, "tcp", None, "watched"))
    assert sessions["watched"].connection.wire.transport in clock.getReaders()
    assert b"watched" in Watching.seen

    factory.protocol = Proxied
    clients.append(await connected(clock, endpoint, "tcp", None, "proxied"))
    await clients[-1].publish("t", b"", qos=1)

    factory.protocol, factory.other, Sniffing.mqtt = MQTTProtocol, Sniffing, factory
    clients.append(await connected(clock, endpoint, "tcp", None, "sniffed"))
    assert sessions["sniffed"].connection.wire.transport not in clock.getReaders()
    await clients[-1].publish("t", b"", qos=1)

    factory.other, Greeting.heard = Greeting, Deferred()
    greeter = await connectProtocol(endpoint, Protocol())
    greeter.transport.write(b"hello")
    assert await Greeting.heard == b"hello"

    greeter.transport.loseConnection()
    for client in clients:
        await client.close()
    assert await client_count(factory, 0) == 0
    await port.stopListening()


async def client_count(factory: MQTTFactory, wanted: int) -> int:
    """How many connections there are once there are so many, or after two seconds."""
    clock: Any = reactor
    for _ in range(200):
        if len(factory.connections) == wanted:
            break
        pause: Deferred[None] = Deferred()
        clock.callLater(0.01, pause.callback, None)
        await pause
    return len(factory.connections)
