"""Session: the window, packet identifiers, the bounded queue, and a socket that takes nothing more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.task import Clock

from tests.core.support import LONG, client, heard, offline, persistent, publish
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connect, Puback, Pubcomp, Pubrec, Pubrel
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.delivery import (
    OFFLINE_QOS0,
    ONLINE,
    QUEUED,
    QUOTA_EXCEEDED,
    Delivery,
    Outcome,
    Released,
    acknowledged,
)
from twisted_p2pmqtt.core.limits import Limits
from twisted_p2pmqtt.core.session import MAX_PACKET_ID, Session
from twisted_p2pmqtt.testing import MemoryClient, make_broker


@pytest.fixture
def clock() -> Clock:
    return Clock()


def deliver(session: Session, payload: bytes = b"x", qos: int = 1) -> Outcome:
    outcome = session.deliver(Delivery(Message(b"t", payload), qos))
    session.broker.flush()
    return outcome


def silent(broker: Broker, client_id: str = "dev", window: int = 65535) -> tuple[MemoryClient, Session]:
    """A connected client that does not acknowledge, with its session."""
    made = persistent(broker, client_id, acknowledges=False, properties={"receive_maximum": window})
    return made, broker.sessions[client_id]


# --- packet identifiers -----------------------------------------------------------------------------------------------


class Counting(dict[int, Any]):
    """An inflight table that counts how often it was looked into."""

    looks = 0

    def __contains__(self, key: object) -> bool:
        self.looks += 1
        return super().__contains__(key)


@pytest.mark.spec("MQTT-3.3.4-9", "MQTT-4.9.0-2", "MQTT-2.2.1-4", "MQTT3-2.3.1-4")
def test_all_packet_ids_in_use_and_none_twice(clock: Clock) -> None:
    """PID-EXH: 65,535 in flight, the rest queued up to its bound; an allocation looks at two ids at most."""
    limits = Limits(max_inflight=65535, max_queued_messages=2000, max_queued_bytes=10_000_000)
    broker = make_broker(clock, limits=limits)
    _, session = silent(broker)
    session.inflight = inflight = Counting()
    outcomes = [session.deliver(Delivery(Message(b"t", b"x"), 1)) for _ in range(70_000)]
    assert outcomes.count(ONLINE) == MAX_PACKET_ID
    assert outcomes[MAX_PACKET_ID:] == [QUEUED] * 2000 + [QUOTA_EXCEEDED] * (70_000 - MAX_PACKET_ID - 2000)
    assert sorted(inflight) == list(range(1, MAX_PACKET_ID + 1))
    assert inflight.looks <= 2 * MAX_PACKET_ID
    # Each acknowledgement frees one id, wherever it lies, and the next message finds it at once.
    for packet_id in (40_000, 3, 65_535, 1, 20_000, 20_001, 19_999):
        before = inflight.looks
        session.puback(packet_id, 0)
        assert packet_id in inflight
        assert inflight.looks - before <= 4
    assert len(session.pending or ()) == 2000 - 7


def test_ids_are_found_at_once_where_most_are_taken(clock: Clock) -> None:
    """Every second one comes free; the look-ups of an allocation stay few however full it is."""
    broker = make_broker(clock, limits=Limits(max_inflight=65535))
    _, session = silent(broker)
    for _ in range(MAX_PACKET_ID):
        session.deliver(Delivery(Message(b"t", b"x"), 1))
    session.inflight = inflight = Counting(session.inflight)
    for packet_id in range(2, 20_000, 2):
        session.puback(packet_id, 0)
    most = 0
    for _ in range(9_000):
        before = inflight.looks
        assert session.deliver(Delivery(Message(b"t", b"x"), 1)) is ONLINE
        most = max(most, inflight.looks - before)
    assert most <= 4


def test_ids_go_round_and_skip_those_in_use(clock: Clock) -> None:
    broker = make_broker(clock, limits=Limits(max_inflight=3))
    target, session = silent(broker, window=3)
    deliver(session)  # 1, which stays
    session._last_packet_id = MAX_PACKET_ID - 1
    for _ in range(3):
        deliver(session)
        last = target.messages[-1].packet_id
        if last != 1:
            target.send(Puback(last))
    assert [message.packet_id for message in target.messages] == [1, MAX_PACKET_ID, 2, 3]


# --- the window -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "limit", "window"), [(None, 10, 10), (3, 10, 3), (100, 10, 10), (65535, 5, 5)])
@pytest.mark.spec("MQTT-3.3.4-9", "MQTT-4.9.0-1")
def test_the_window_is_the_smaller_of_both_limits(clock: Clock, wanted: int | None, limit: int, window: int) -> None:
    broker = make_broker(clock, limits=Limits(max_inflight=limit))
    properties: Any = {} if wanted is None else {"receive_maximum": wanted}
    target = client(broker, "dev", acknowledges=False, properties=properties)
    session = broker.sessions["dev"]
    outcomes = [deliver(session) for _ in range(window + 2)]
    assert outcomes == [ONLINE] * window + [QUEUED] * 2
    assert len(target.messages) == window
    assert session.is_ready is False
    assert deliver(session, qos=0) is ONLINE


class Flow(RuleBasedStateMachine):
    """Messages of every QoS to a client that acknowledges when it likes and loses its connection now and then."""

    @initialize(window=st.integers(1, 4))
    def begin(self, window: int) -> None:
        self.window = window
        limits = Limits(max_inflight=window, max_queued_messages=6)
        self.broker = make_broker(Clock(), limits=limits)
        self.sent: list[int] = []  # accepted at QoS 1 and 2
        self.at_qos: dict[int, int] = {}
        self.number = 0
        self.pending: set[int] = set()  # QoS 2 packet ids received and not released
        self.owed: list[Puback | Pubrec | Pubcomp] = []
        self.got: dict[int, int] = {}
        self.first: list[int] = []
        self.attach()

    def attach(self) -> None:
        self.target = persistent(self.broker, "dev", acknowledges=False, properties={"receive_maximum": self.window})
        self.session = self.broker.sessions["dev"]
        self.owed = []

    @rule(qos=st.integers(1, 2))
    def message(self, qos: int) -> None:
        self.number += 1
        if deliver(self.session, b"%d" % self.number, qos) in (ONLINE, QUEUED):
            self.sent.append(self.number)
            self.at_qos[self.number] = qos

    @rule()
    def read(self) -> None:
        for packet in self.target.receive():
            if isinstance(packet, Message):
                number = int(packet.payload)
                if packet.qos == 1:
                    self.take(number)
                    self.owed.append(Puback(packet.packet_id))
                    continue
                if packet.packet_id not in self.pending:
                    self.pending.add(packet.packet_id)
                    self.take(number)
                self.owed.append(Pubrec(packet.packet_id))
            elif isinstance(packet, Pubrel):
                self.pending.discard(packet.packet_id)
                self.owed.append(Pubcomp(packet.packet_id))

    def take(self, number: int) -> None:
        self.got[number] = self.got.get(number, 0) + 1
        if self.got[number] == 1:
            self.first.append(number)

    @rule(how_many=st.integers(1, 3))
    def acknowledge(self, how_many: int) -> None:
        if self.target.is_closed:
            return
        now, self.owed = self.owed[:how_many], self.owed[how_many:]
        if now:
            self.target.send(*now)

    @rule()
    def lose(self) -> None:
        self.target.lose()

    @rule()
    def come_back(self) -> None:
        self.read()
        self.attach()

    @invariant()
    def bounds(self) -> None:
        if hasattr(self, "session"):
            session = self.session
            assert len(session.inflight) <= self.window
            assert len(session.pending or ()) <= 6
            if len(session.inflight) < session.quota and session._unsent is None:
                assert not session.pending

    def teardown(self) -> None:
        if not hasattr(self, "session"):
            return
        self.come_back()
        for _ in range(100):
            self.read()
            self.acknowledge(3)
        assert sorted(self.got) == self.sent  # nothing lost of what was taken
        for qos in (1, 2):
            assert [number for number in self.first if self.at_qos[number] == qos] == [
                number for number in self.sent if self.at_qos[number] == qos
            ]
        assert all(count == 1 for number, count in self.got.items() if self.at_qos[number] == 2)
        assert not self.session.inflight
        assert not self.session.pending
        assert self.broker.stats.queued_bytes == 0
        assert self.broker.stats.internal_errors == 0


Flow.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestFlow = pytest.mark.spec(
    "MQTT-4.3.2-2", "MQTT-4.3.3-4", "MQTT-4.3.3-5", "MQTT-4.4.0-1", "MQTT-4.6.0-6", "MQTT3-4.4.0-1", "MQTT3-4.6.0-6"
)(Flow.TestCase)


# --- the queue --------------------------------------------------------------------------------------------------------


def queue(limits: Limits) -> tuple[Broker, Session]:
    broker = make_broker(Clock(), limits=limits)
    offline(broker, "dev")
    return broker, broker.sessions["dev"]


def test_the_queue_is_bounded_in_messages() -> None:
    broker, session = queue(Limits(max_queued_messages=3))
    assert [deliver(session) for _ in range(5)] == [QUEUED] * 3 + [QUOTA_EXCEEDED] * 2
    assert broker.stats.dropped_queue_full == 2


def test_the_queue_is_bounded_in_bytes() -> None:
    broker, session = queue(Limits(max_queued_bytes=102))  # a topic of one byte each
    sizes = (60, 50, 40, 1)
    assert [deliver(session, b"x" * size) for size in sizes] == [QUEUED, QUOTA_EXCEEDED, QUEUED, QUOTA_EXCEEDED]
    assert session.queue.bytes == broker.stats.queued_bytes == 102


def test_all_queues_together_are_bounded() -> None:
    broker, first = queue(Limits(max_total_queued_bytes=102))
    offline(broker, "other")
    second = broker.sessions["other"]
    assert deliver(first, b"x" * 60) is QUEUED
    assert deliver(second, b"x" * 60) is QUOTA_EXCEEDED
    assert deliver(second, b"x" * 40) is QUEUED
    broker.registry.end(first)
    assert broker.stats.queued_bytes == 41
    assert deliver(second, b"x" * 60) is QUEUED


def test_qos_0_does_not_wait() -> None:
    broker, session = queue(Limits())
    assert deliver(session, qos=0) is OFFLINE_QOS0
    assert broker.stats.dropped_offline_qos0 == 1


# --- a blocked socket -------------------------------------------------------------------------------------------------


class Bin(list[bytes]):
    """A sink of a blocked socket."""

    def __bool__(self) -> bool:
        return True


@pytest.fixture
def blocked(clock: Clock) -> tuple[MemoryClient, Session, Bin, Bin]:
    broker = make_broker(clock)
    target, session = silent(broker)
    deliver(session, b"before")
    answers, qos0 = Bin(), Bin()
    target.protocol.connection.block(answers, qos0)
    return target, session, answers, qos0


def test_a_blocked_socket_lets_qos_1_wait_and_qos_0_go_elsewhere(
    blocked: tuple[MemoryClient, Session, Bin, Bin],
) -> None:
    target, session, answers, qos0 = blocked
    assert [deliver(session, payload, 1) for payload in (b"1", b"2")] == [QUEUED, QUEUED]
    assert deliver(session, b"0", 0) is ONLINE
    session.broker.publish("p2p/dev/t", b"p2p")
    assert not session.has_room(0)
    assert not session.has_room(1)
    assert len(b"".join(qos0)) > 0
    assert answers == []
    assert heard(target) == [("t", b"before")]
    target.protocol.connection.unblock(target.protocol.sink)
    session.broker.flush()
    assert [payload for _, payload in heard(target)] == [b"before", b"1", b"2"]
    assert session.has_room(0)
    assert session.has_room(1)


def test_acknowledgements_are_taken_while_the_socket_is_blocked(
    blocked: tuple[MemoryClient, Session, Bin, Bin],
) -> None:
    target, session, answers, _ = blocked
    deliver(session, b"1")
    target.send(Puback(1))
    assert len(session.inflight) == 0
    assert len(session.pending or ()) == 1
    publish(target, "nobody/listens")
    assert answers != []


def test_a_session_that_loses_a_blocked_socket_goes_on_with_the_next(
    blocked: tuple[MemoryClient, Session, Bin, Bin],
) -> None:
    target, session, _, _ = blocked
    deliver(session, b"1")
    target.lose()
    again = persistent(session.broker, "dev")
    assert [payload for _, payload in heard(again)] == [b"before", b"1"]


def test_a_release_that_is_owed_is_no_message_to_be_dropped(clock: Clock) -> None:
    broker = make_broker(clock)
    target = persistent(broker, "dev", acknowledges=False)
    publish(client(broker, "app"), "p2p/dev/t", qos=2)
    target.send(Pubrec(target.messages[0].packet_id))
    target.lose()
    again = MemoryClient(broker, "dev")
    answers, qos0 = Bin(), Bin()
    again.protocol.connection.block(answers, qos0)
    properties: Properties = {"session_expiry_interval": LONG}
    again.protocol.dataReceived(encode(Connect("dev", 5, clean_start=False, properties=properties), 5))
    assert answers[1:] == [encode(Pubrel(1), 5)]
    assert qos0 == []


# --- outcomes ---------------------------------------------------------------------------------------------------------


def test_what_a_receiver_says() -> None:
    assert [acknowledged(code).status for code in (0, 0x10, 0x92)] == ["delivered"] * 3
    assert acknowledged(0x92).reason_code == 0
    assert (acknowledged(0x97).status, acknowledged(0x97).reason_code) == ("refused", 0x97)
    assert acknowledged(0xA2).reason_code == 0x80  # a code that PUBACK cannot have
    assert repr(acknowledged(0)) == "<Outcome delivered 0x00>"


def test_a_copy_of_a_delivery_is_for_one_session() -> None:
    delivery = Delivery(Message(b"t", b"x"), 2, 1, b"\x0b\x01", True)
    delivery.confirmed = print
    copy = delivery.copy()
    copy.sequence = 7
    assert (copy.message, copy.qos, copy.retain, copy.extra, copy.is_p2p) == (delivery.message, 2, 1, b"\x0b\x01", True)
    assert (copy.confirmed, delivery.sequence) == (print, 0)
    assert (Released().sequence, Released(3, print).confirmed) == (0, print)
