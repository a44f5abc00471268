"""MQTTProtocol and MQTTFactory: deadlines to the tick, limits, pausing, closing; all in memory, on a Clock."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.task import Clock

from tests.net.fakes import Plain
from twisted_p2pmqtt import Limits
from twisted_p2pmqtt.codec.packets import Connect, Pingreq
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.core.timers import TICK
from twisted_p2pmqtt.net.outbox import ANSWERS_LIMIT
from twisted_p2pmqtt.net.protocol import AddressLimits, MQTTFactory
from twisted_p2pmqtt.testing import MemoryTransport, make_broker, memory_factory

CONNECT = encode(Connect("c", 4, keep_alive=0), 4)
PING = encode(Pingreq(), 4)


class Peer:
    """One connection of a factory, seen from the socket."""

    def __init__(self, factory: Any, host: str) -> None:
        self.clock = factory.broker.clock
        self.protocol = factory.buildProtocol(None)
        self.transport: Any = MemoryTransport(self.protocol.connectionLost)
        self.transport.peerAddr = IPv4Address("TCP", host, 1)
        self.protocol.makeConnection(self.transport)
        self.clock.advance(0)

    def send(self, data: bytes) -> None:
        if not self.is_closed:
            self.protocol.dataReceived(data)
        self.clock.advance(0)

    @property
    def is_closed(self) -> bool:
        return bool(self.transport.is_closed)

    @property
    def received(self) -> bytes:
        return bytes(self.transport.value())

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)


def accepted(factory: Any, host: str = "192.0.2.1") -> Any:
    """A peer as an Any, or mypy takes its state for constant."""
    return Peer(factory, host)


def factory(limits: Limits | None = None, **arguments: Any) -> Any:
    return memory_factory(make_broker(Clock(), limits=limits), **arguments)


def connected(keep_alive: int = 0, limits: Limits | None = None) -> Any:
    peer = accepted(factory(limits))
    peer.send(encode(Connect("c", 4, keep_alive=keep_alive), 4))
    assert peer.received == b"\x20\2\0\0"
    return peer


# Deadlines


@pytest.mark.parametrize("sent", [b"", b"\x10", CONNECT[:-1]])
def test_the_connect_timeout_runs_from_accept(sent: bytes) -> None:
    peer = accepted(factory())
    peer.wait(4)
    peer.send(sent)
    peer.wait(6)
    assert not peer.is_closed
    peer.wait(TICK)
    assert peer.is_closed
    assert peer.received == b""


def test_dripping_bytes_do_not_stretch_the_connect_timeout() -> None:
    peer = accepted(factory(Limits(connect_timeout=3)))
    for at in range(len(CONNECT) - 1):
        peer.send(CONNECT[at : at + 1])
        peer.wait(0.25)
    assert peer.is_closed


def test_a_connected_client_has_no_connect_timeout() -> None:
    peer = connected()
    peer.wait(1000)
    assert not peer.is_closed


@pytest.mark.spec("MQTT-3.1.2-22", "MQTT3-3.1.2-24")
def test_a_silent_client_is_closed_at_one_and_a_half_keep_alives() -> None:
    peer = connected(keep_alive=10)
    peer.wait(15)
    assert not peer.is_closed
    peer.wait(TICK)
    assert peer.is_closed


def test_a_packet_starts_the_keep_alive_again_and_part_of_one_does_not() -> None:
    peer = connected(keep_alive=10)
    peer.wait(14)
    peer.send(PING)
    peer.wait(14)
    assert not peer.is_closed
    peer.send(PING[:1])
    peer.wait(1 + TICK)
    assert peer.is_closed


def test_a_packet_that_has_begun_has_to_be_whole_in_time() -> None:
    peer = connected()
    peer.send(b"\x30\x7f")
    peer.wait(30)
    assert not peer.is_closed
    peer.wait(TICK)
    assert peer.is_closed


def test_dripping_bytes_do_not_stretch_the_packet_timeout() -> None:
    peer = connected()
    peer.send(b"\x30\x7f")
    for _ in range(6):
        peer.wait(5)
        peer.send(b"\0")
    peer.wait(TICK)
    assert peer.is_closed


# Limits


def test_connections_of_one_factory_are_bounded() -> None:
    made = factory(max_connections=2)
    first, second = accepted(made), accepted(made)
    third = accepted(made)
    assert (first.is_closed, second.is_closed, third.is_closed, third.received) == (False, False, True, b"")
    assert len(made.connections) == 2
    first.transport.abortConnection()
    assert not accepted(made).is_closed


def test_connections_of_one_address_are_bounded() -> None:
    made = factory(Limits(connections_per_address=1))
    first = accepted(made)
    assert accepted(made).is_closed
    assert not accepted(made, "192.0.2.2").is_closed
    first.transport.abortConnection()
    assert not accepted(made).is_closed
    assert accepted(made).is_closed


def test_what_was_not_counted_for_its_address_is_not_taken_off() -> None:
    made = factory(Limits(connections_per_address=1), max_connections=1)
    first = accepted(made)
    assert accepted(made).is_closed  # one too many altogether
    first.transport.abortConnection()
    assert not accepted(made).is_closed


def test_connects_of_one_address_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("twisted_p2pmqtt.net.protocol.time.monotonic", lambda: now)
    made = factory(Limits(connects_per_second_per_address=2))
    assert [accepted(made).is_closed for _ in range(3)] == [False, False, True]
    assert not accepted(made, "192.0.2.2").is_closed
    now += 0.5
    assert [accepted(made).is_closed for _ in range(2)] == [False, True]


def test_less_than_one_connect_a_second() -> None:
    limits = AddressLimits(0, 0.1)
    assert [limits.admit("a", now) for now in (0, 5, 20)] == [True, False, True]


def test_addresses_are_not_remembered_for_ever() -> None:
    limits = AddressLimits(0, 1)
    for number in range(30_000):
        limits.admit(str(number), 0)
    assert len(limits._recent) <= 10_001


def test_behind_a_proxy_the_true_address_counts() -> None:
    made = factory(Limits(connections_per_address=1), is_proxied=True)
    peers = [accepted(made, "192.0.2.99") for _ in range(3)]  # the proxy's
    assert not any(peer.is_closed for peer in peers)
    for peer, host in zip(peers, ("10.0.0.1", "10.0.0.2", "10.0.0.1"), strict=True):
        peer.transport.peerAddr = IPv4Address("TCP", host, 1)
        peer.send(CONNECT[:5])
    assert [peer.is_closed for peer in peers] == [False, False, True]
    peers[0].send(CONNECT[5:])
    assert peers[0].received == b"\x20\2\0\0"
    for peer in peers:
        peer.transport.abortConnection()
    again = accepted(made)
    again.transport.peerAddr = IPv4Address("TCP", "10.0.0.1", 1)
    again.send(CONNECT)
    assert not again.is_closed


def test_a_proxied_connection_that_is_lost_before_it_tells_its_address() -> None:
    made = factory(Limits(connections_per_address=1), is_proxied=True)
    accepted(made).transport.abortConnection()
    assert not made.connections


# Pausing


def test_pauses_are_counted() -> None:
    peer = connected()
    protocol, transport = peer.protocol, peer.transport
    protocol.pause()
    protocol.pause()
    assert transport.producerState == "paused"
    protocol.resume()
    assert transport.producerState == "paused"
    protocol.resume()
    assert transport.producerState == "producing"


def test_a_closing_connection_is_not_read_again() -> None:
    class Slow(MemoryTransport):
        def loseConnection(self) -> None:
            """Not yet."""

    peer = connected()
    peer.transport.__class__ = Slow
    peer.protocol.pause()
    peer.protocol.close()
    peer.protocol.resume()
    assert peer.transport.producerState == "paused"
    peer.wait(2 + TICK)
    assert peer.is_closed


def block(peer: Any) -> None:
    """The transport takes no more, and so many answers wait that reading stops."""
    peer.protocol.outbox.pauseProducing()
    peer.protocol.connection.put(bytes(ANSWERS_LIMIT + 1))


def test_a_client_that_is_not_read_is_not_silent() -> None:
    peer = connected(keep_alive=10, limits=Limits(write_stall_timeout=1000))
    peer.send(b"\x30\x7f")
    block(peer)
    assert peer.transport.producerState == "paused"
    peer.wait(100)
    assert not peer.is_closed
    peer.protocol.outbox.resumeProducing()
    assert peer.transport.producerState == "producing"
    peer.wait(14)
    assert not peer.is_closed
    peer.wait(2)
    assert peer.is_closed


def test_a_stalled_peer_is_aborted_and_counted() -> None:
    peer = connected(limits=Limits(write_stall_timeout=5))
    block(peer)
    peer.wait(5)
    assert not peer.is_closed
    peer.wait(2 * TICK)
    assert peer.is_closed
    assert peer.protocol.factory.broker.stats.stalled_connections == 1


def test_dropped_messages_are_counted() -> None:
    peer = connected(limits=Limits(max_qos0_pending_bytes=100))
    peer.send(bytes.fromhex("8206 0001 0001 61 00"))
    block(peer)
    for _ in range(3):
        peer.protocol.factory.broker.publish("a", bytes(20))
    assert peer.protocol.factory.broker.stats.dropped_slow_reader == 2


def test_a_peer_that_is_blocked_before_connack_is_bounded_too() -> None:
    """Its transport may be full of what others write to it, a WebSocket's pongs."""
    peer = accepted(factory(Limits(max_qos0_pending_bytes=10_000)))
    peer.protocol.outbox.pauseProducing()
    peer.send(CONNECT)
    broker = peer.protocol.factory.broker
    for _ in range(100):
        broker.send_to("c", "t", bytes(1000), qos=0)
    assert peer.protocol.outbox.waiting <= 11_000
    assert broker.stats.dropped_slow_reader > 80
    peer.protocol.outbox.resumeProducing()
    broker.send_to("c", "t", b"again", qos=0)
    peer.clock.advance(0)
    assert peer.received.endswith(b"again")


# The rest


def test_an_error_closes_and_forgets() -> None:
    made = factory()
    peer = accepted(made)
    peer.send(b"\0\0")
    assert (peer.is_closed, peer.received, made.connections) == (True, b"", set())
    assert made.broker.stats.connections_open == 0


def test_unix_sockets_know_no_delay() -> None:
    class Unix(Plain):
        def getHost(self) -> UNIXAddress:
            return UNIXAddress("/run/mqtt.sock")

        def setTcpNoDelay(self, enabled: bool) -> None:
            raise OSError(errno.EOPNOTSUPP, "of Unix sockets")

    made = factory()
    for transport in (Plain(), Unix()):
        made.buildProtocol(None).makeConnection(transport)
    assert len(made.connections) == 2


def test_peer_and_certificate() -> None:
    peer = accepted(factory())
    assert (peer.protocol.peer, peer.protocol.certificate) == ("192.0.2.1:1", None)
    peer.transport.peerAddr = UNIXAddress("/run/mqtt.sock")
    assert peer.protocol.peer == "UNIXAddress('/run/mqtt.sock')"


def test_a_protocol_of_ones_own_sees_the_bytes() -> None:
    from twisted_p2pmqtt import MQTTProtocol

    seen = []

    class Own(MQTTProtocol):
        def dataReceived(self, data: bytes) -> None:
            seen.append(data)
            super().dataReceived(data)

    made = factory()
    made.protocol = Own
    accepted(made).send(CONNECT)
    assert seen == [CONNECT]


def test_time_goes_by_while_somebody_listens() -> None:
    clock = Clock()
    made: Any = MQTTFactory(make_broker(clock), reactor=clock)
    made.doStart()
    made.doStart()
    made.doStop()
    assert len(clock.calls) == 1
    made.doStop()
    assert clock.calls == []
