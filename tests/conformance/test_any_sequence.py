"""Whatever clients send, legal or not, in whatever order: the server keeps its rules and nothing of it breaks.

A few clients with a few ids, topics and packet identifiers do as chance has it, so that all they do meets.  Every byte
that comes back is decoded and judged: no packet too large, no identifier in use given again, no more than the Receive
Maximum allows, no alias that was not taught, CONNACK first and DISCONNECT last.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.conformance.helpers import V5, World
from tests.wire_refused import REFUSED
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.testing import MemoryClient

TOPICS = ["t", "t/a", "u", "/", "$SYS/x", "p2p/one/x", "p2p/none/x", "p2p/one"]
FILTERS = ["t", "t/+", "t/#", "#", "+", "/", "$SYS/#", "$share/g/t", "$share/g/#", "$share/h/t", "a/#/b", "$share/g"]
CODES = [0, 0, 0, 0x10, 0x80, 0x97]

packet_ids = st.integers(1, 4)
payloads = st.sampled_from([b"", b"x", 30 * b"x", 300 * b"x"])
qos = st.integers(0, 2)
expiry = st.sampled_from(
    [{}, {}, {"message_expiry_interval": 5}, {"content_type": "c", "user_properties": [("a", "b")]}]
)
aliases = st.sampled_from([{}, {}, {"topic_alias": 1}, {"topic_alias": 2}])
requests = st.builds(
    SubscriptionRequest,
    st.sampled_from(FILTERS),
    qos,
    st.sampled_from([False, False, True]),
    st.booleans(),
    st.integers(0, 2),
)


@st.composite
def publishes(draw: st.DrawFn) -> Message:
    """A PUBLISH."""
    level = draw(qos)
    some: Any = draw(expiry)
    properties: Any = {**some, **draw(aliases)}
    topic = "" if "topic_alias" in properties and draw(st.booleans()) else draw(st.sampled_from(TOPICS))
    retain, dup = draw(st.integers(0, 1)), 8 * draw(st.integers(0, 1)) if level else 0
    return Message(topic.encode(), draw(payloads), 0, level, retain, dup, draw(packet_ids) if level else 0, properties)


identified = st.sampled_from([{}, {}, {"subscription_identifiers": [3]}])
acknowledgements = st.one_of(
    st.builds(Puback, packet_ids, st.sampled_from(CODES)),
    st.builds(Pubrec, packet_ids, st.sampled_from(CODES)),
    st.builds(Pubrel, packet_ids, st.sampled_from([0, 0x92])),
    st.builds(Pubcomp, packet_ids, st.sampled_from([0, 0x92])),
)
others: st.SearchStrategy[Packet] = st.one_of(
    st.builds(Subscribe, packet_ids, st.lists(requests, min_size=1, max_size=3), identified),
    st.builds(Unsubscribe, packet_ids, st.lists(st.sampled_from(FILTERS), min_size=1, max_size=3)),
    st.builds(Pingreq),
    st.builds(Disconnect, st.sampled_from([0, 0, 4, 0x80]), st.sampled_from([{}, {"session_expiry_interval": 7}])),
    st.just(Auth(0x19, {"authentication_method": "x"})),
    st.builds(Connect, st.just("one")),
)
packets = publishes() | publishes() | acknowledgements | acknowledgements | others
wills = st.builds(
    Will,
    st.sampled_from(TOPICS),
    payloads,
    qos,
    st.booleans(),
    st.sampled_from([{}, {"will_delay_interval": 3}]),
)
connect_properties = st.fixed_dictionaries(
    {},
    optional={
        "session_expiry_interval": st.sampled_from([0, 5, 100]),
        "receive_maximum": st.integers(1, 3),
        "maximum_packet_size": st.sampled_from([20, 40, 100]),
        "topic_alias_maximum": st.integers(0, 2),
        "request_problem_information": st.integers(0, 1),
    },
)


class Judge(MemoryClient):
    """A client that judges what it gets."""

    def __init__(self, world: World, connect: Connect) -> None:
        self.limit = connect.properties.get("maximum_packet_size", 1 << 30)
        self.window = connect.properties.get("receive_maximum", 65535)
        self.alias_maximum = connect.properties.get("topic_alias_maximum", 0)
        self.taught: dict[int, bytes] = {}
        self.open: dict[int, str] = {}
        self.has_connack = False
        self.is_told = False
        super().__init__(world.factory, connect.client_id, connect.version, acknowledges=False)

    def _turn(self) -> None:
        self._clock.advance(0)
        data = self.transport.value()
        self.transport.clear()
        while data:
            size = size_of(data)
            assert size <= self.limit or data[0] >> 4 == 2  # a refusing CONNACK has 5 bytes at least
            for packet in self._reader.feed(data[:size]):
                self._judge(packet)
                self._packets.append(packet)
            assert self._reader.error is None
            assert not self._reader.has_partial_packet
            data = data[size:]

    def _judge(self, packet: Packet) -> None:
        assert not self.is_told, "a packet behind DISCONNECT"
        if isinstance(packet, Connack):
            assert not self.has_connack
            self.has_connack = True
            return
        assert self.has_connack
        if isinstance(packet, Disconnect):
            self.is_told = True
            assert self.version == V5
            assert "session_expiry_interval" not in packet.properties
        elif isinstance(packet, Pubrel):
            self.open[packet.packet_id] = "released"
        elif isinstance(packet, Message):
            self._judge_message(packet)

    def _judge_message(self, message: Message) -> None:
        alias = message.properties.get("topic_alias")
        if alias is not None:
            assert 1 <= alias <= self.alias_maximum
            if message.topic:
                self.taught[alias] = message.topic
        topic = message.topic or self.taught[alias or 0]
        assert b"#" not in topic
        assert b"+" not in topic
        if message.qos:
            assert message.packet_id not in self.open
            self.open[message.packet_id] = f"sent at QoS {message.qos}"
            assert sum(state != "released" for state in self.open.values()) <= self.window

    def do(self, packet: Packet) -> None:
        """Send a packet, and remember what it ends."""
        state = self.open.get(getattr(packet, "packet_id", 0))
        ends = (
            (isinstance(packet, Puback) and state == "sent at QoS 1")
            or (isinstance(packet, Pubrec) and state == "sent at QoS 2" and packet.reason_code >= 0x80)
            or (isinstance(packet, Pubcomp) and state == "released")
        )
        if ends:
            assert isinstance(packet, Puback | Pubrec | Pubcomp)
            del self.open[packet.packet_id]
        self.send_bytes(encode(packet, self.version))


def size_of(data: bytes) -> int:
    """The size of the first packet."""
    at, length, shift = 1, 0, 0
    while True:
        length |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return at + length


class Anything(RuleBasedStateMachine):
    """Four connections."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            max_inflight=3, receive_maximum=3, max_queued_messages=4, topic_alias_maximum=2, max_retained_messages=3
        )
        self.links: dict[int, Judge] = {}

    @rule(
        which=st.integers(0, 3),
        client_id=st.sampled_from(["one", "two", "three", ""]),
        version=st.sampled_from([3, 4, 5, 5]),
        clean_start=st.booleans(),
        will=st.none() | wills,
        properties=connect_properties,
        behind=st.lists(packets, max_size=2),
    )
    def connect(
        self,
        which: int,
        client_id: str,
        version: int,
        clean_start: bool,
        will: Will | None,
        properties: Any,
        behind: list[Packet],
    ) -> None:
        """A new connection, in the place of one that is left to itself, with packets close behind its CONNECT."""
        connect = Connect(client_id, version, clean_start, 10, None, None, will, properties if version == V5 else {})
        link = self.links[which] = Judge(self.world, connect)
        link.send_bytes(encode(connect, version) + b"".join(encode(packet, version) for packet in behind))

    @rule(which=st.integers(0, 3), some=st.lists(packets, min_size=1, max_size=4))
    def send(self, which: int, some: list[Packet]) -> None:
        """Packets, one after the other."""
        if which in self.links:
            for packet in some:
                self.links[which].do(packet)

    @rule(which=st.integers(0, 3))
    def settle(self, which: int) -> None:
        """Acknowledge everything that is open, as it should be."""
        link = self.links.get(which)
        if link is None:
            return
        for packet_id, state in list(link.open.items()):
            if state == "sent at QoS 1":
                link.do(Puback(packet_id))
            else:
                if state != "released":
                    link.do(Pubrec(packet_id))
                if link.open.get(packet_id) == "released":
                    link.do(Pubcomp(packet_id))

    @rule(which=st.integers(0, 3), refused=st.sampled_from(REFUSED))
    def break_a_rule(self, which: int, refused: Any) -> None:
        """Bytes that are illegal in some version."""
        if which in self.links and refused.version in (0, self.links[which].version):
            self.links[which].send_bytes(refused.data)

    @rule(which=st.integers(0, 3), garbage=st.binary(min_size=1, max_size=12))
    def send_garbage(self, which: int, garbage: bytes) -> None:
        """Bytes."""
        if which in self.links:
            self.links[which].send_bytes(garbage)

    @rule(which=st.integers(0, 3))
    def lose(self, which: int) -> None:
        """The connection breaks."""
        if which in self.links:
            self.links.pop(which).lose()

    @rule(seconds=st.sampled_from([0.25, 1, 6, 20]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.world.wait(seconds)

    @invariant()
    def everything_is_in_order(self) -> None:
        """Nothing broke, and the broker's own books agree."""
        broker = self.world.broker
        for link in self.links.values():
            link.packets.clear()
        assert broker.stats.internal_errors == 0
        assert broker.stats.hook_errors == 0
        sessions = broker.sessions.values()
        assert broker.tree.count == sum(len(session.subscriptions) for session in sessions)
        assert broker.stats.queued_bytes == sum(session.queue.bytes for session in sessions)
        assert len(broker.retained) <= 3
        for session in sessions:
            assert len(session.inflight) <= 65535
            assert len(session.pending or ()) <= 4

    def teardown(self) -> None:
        """Everybody goes, and nothing is left."""
        for link in self.links.values():
            link.lose()
        for _ in range(2):  # the keep-alives of connections left to themselves, then the sessions
            self.world.clock.advance(700_000)
        broker = self.world.broker
        assert broker.sessions == {}
        assert broker.tree.count == 0
        assert broker.stats.queued_bytes == 0
        assert broker.stats.connections_open == 0
        assert broker.stats.internal_errors == 0


Anything.TestCase.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)

TestAnything = pytest.mark.spec(
    "MQTT-2.2.1-4",
    "MQTT-3.1.2-24",
    "MQTT-3.1.2-26",
    "MQTT-3.1.2-27",
    "MQTT-3.2.0-1",
    "MQTT-3.2.0-2",
    "MQTT-3.3.4-9",
    "MQTT-3.14.0-1",
    "MQTT-3.14.2-2",
    "MQTT-3.14.4-1",
    "MQTT3-2.3.1-4",
    "MQTT3-3.2.0-1",
)(Anything.TestCase)
