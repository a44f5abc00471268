"""No sequence of publishes makes a third client see a P2P message: clients that do what they like, in each mode."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.task import Clock

from tests.core.support import offline, persistent, result_of
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import SubscriptionRequest, Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.limits import P2POptions
from twisted_p2pmqtt.core.p2p import escape_client_id, make_router
from twisted_p2pmqtt.interfaces import MalformedP2PTopic
from twisted_p2pmqtt.testing import MemoryClient, make_broker

IDS = ("a", "a/b", "#", "p2p", "spy")
LEVELS = ("", "p2p", "a", "a%2Fb", "%23", "spy", "t", "u", "$SYS", "gone")
FILTERS = (
    "#",
    "p2p/#",
    "p2p/+/#",
    "+/p2p/+",
    "t/#",
    "t",
    "u",
    "+",
    "+/+/+",
    "$share/g/#",
    "$share/g/p2p/#",
    "$SYS/#",
    "/#",
)

ids = st.sampled_from(IDS)
topics = st.one_of(
    st.builds(lambda target, rest: f"p2p/{escape_client_id(target)}/{rest}", ids, st.sampled_from(("t", "u", "t/u"))),
    st.builds(lambda target, rest: f"{rest}/p2p/{escape_client_id(target)}", ids, st.sampled_from(("t", "u", "t/u"))),
    st.sampled_from(("p2p/a", "p2p/a/", "p2p//t", "t/p2p/", "/p2p/a", "p2p/a/$SYS/t", "$SYS/t/p2p/a", "$SYS/p2p/a")),
    st.lists(st.sampled_from(LEVELS), min_size=1, max_size=5).map("/".join).filter(bool),
)
qos = st.integers(0, 2)


class Privacy(RuleBasedStateMachine):
    """Every payload says whom it is for: one client, nobody (malformed), or everybody."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.clients: dict[str, MemoryClient] = {}
        self.seen: dict[str, list[bytes]] = {}
        self.taken: list[tuple[str, MemoryClient]] = []
        self.number = 0
        self.aliased: dict[str, bytes] = {}

    @initialize(
        mode=st.sampled_from(("prefix", "suffix", "both")),
        deliver=st.sampled_from(("business", "original", "reply")),
        overflow=st.sampled_from(("reject", "drop_oldest")),
        check=st.booleans(),
    )
    def begin(self, mode: str, deliver: str, overflow: str, check: bool) -> None:
        self.router: Any = make_router(mode)
        options = P2POptions(deliver_topic=deliver, overflow=overflow, max_queued=4, check_receive=check)
        self.broker = make_broker(self.clock, router=self.router, p2p=options)
        for client_id in IDS:
            self.connect(client_id, 5, 0, None)

    def whom(self, topic: str) -> str:
        """`#` for everybody, `!` for nobody, or ``=`` and the target's id."""
        try:
            address = self.router.resolve(topic)
        except MalformedP2PTopic:
            return "!"
        if address is None:
            return "#"
        return "!" if address.topic.startswith("$") else "=" + address.client_id

    def payload(self, topic: str) -> bytes:
        self.number += 1
        return f"{self.whom(topic)} {self.number}".encode()

    def connect(self, client_id: str, version: int, aliases: int, will: str | None) -> None:
        properties: Properties = {"topic_alias_maximum": aliases} if version == 5 else {}
        wish = Will(will, self.payload(will), 1, True) if will is not None else None
        try:
            made = persistent(self.broker, client_id, version, properties=properties, will=wish)
        except AssertionError:  # its will was refused, which in 3.x is told by closing
            return
        if not made.is_closed:
            self.clients[client_id] = made
            self.taken.append((client_id, made))
            self.aliased.pop(client_id, None)

    @rule(client_id=ids, version=st.sampled_from((4, 5)), aliases=st.integers(0, 2), will=st.none() | topics)
    def reconnect(self, client_id: str, version: int, aliases: int, will: str | None) -> None:
        """A takeover, where it is connected."""
        self.connect(client_id, version, aliases, will)

    @rule(client_id=ids, orderly=st.booleans())
    def leave(self, client_id: str, orderly: bool) -> None:
        sender = self.clients[client_id]
        if not sender.is_closed:
            sender.disconnect() if orderly else sender.lose()

    @rule(client_id=ids, topic_filter=st.sampled_from(FILTERS), no_local=st.booleans(), qos=qos)
    def subscribe(self, client_id: str, topic_filter: str, no_local: bool, qos: int) -> None:
        each = self.clients[client_id]
        if not each.is_closed:
            local = no_local and not topic_filter.startswith("$share") and each.version == 5
            each.subscribe(SubscriptionRequest(topic_filter, qos, local))

    @rule(client_id=ids, topic=topics, qos=qos, retain=st.booleans(), ack=st.booleans())
    def publish(self, client_id: str, topic: str, qos: int, retain: bool, ack: bool) -> None:
        sender = self.clients[client_id]
        if not sender.is_closed:
            properties: Properties = {}
            if ack and sender.version == 5:
                properties["user_properties"] = [("p2p-ack", "target"), ("p2p-from", "root")]
            packet_id = sender.packet_id() if qos else 0
            sender.send(Message(topic.encode(), self.payload(topic), 0, qos, int(retain), 0, packet_id, properties))

    @rule(client_id=ids, topic=topics)
    def publish_by_alias(self, client_id: str, topic: str) -> None:
        sender = self.clients[client_id]
        if not sender.is_closed and sender.version == 5:
            sender.send(Message(topic.encode(), self.payload(topic), properties={"topic_alias": 1}))
            again = self.payload(topic)
            sender.send(Message(b"", again, properties={"topic_alias": 1}))

    @rule(topic=topics, retain=st.booleans())
    def publish_from_the_process(self, topic: str, retain: bool) -> None:
        address = self.whom(topic)
        if topic.startswith("$") or address == "!":
            return
        try:
            result_of(self.broker.publish(topic, self.payload(topic), 1, retain))
        except MQTTError:
            pass

    @rule(client_id=ids, topic=st.sampled_from(("t", "u")), confirm=st.booleans())
    def send_to(self, client_id: str, topic: str, confirm: bool) -> None:
        self.number += 1
        self.broker.send_to(client_id, topic, f"={client_id} {self.number}".encode(), confirm=confirm)

    @rule()
    def forget(self) -> None:
        self.broker.forget_routes()

    @rule(seconds=st.sampled_from((0.25, 6.0)))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @precondition(lambda self: self.clients)
    @invariant()
    def nobody_hears_what_is_for_another(self) -> None:
        for client_id, each in self.taken:
            payloads = [message.payload for message in each.messages]
            each.messages.clear()
            for payload in payloads:
                whom = payload.decode().rpartition(" ")[0]
                assert whom in ("#", "=" + client_id), f"{client_id} heard {payload!r}"
            self.seen.setdefault(client_id, []).extend(one for one in payloads if one.startswith(b"="))

    def teardown(self) -> None:
        if not self.clients:
            return
        for payloads in self.seen.values():  # QoS 1 may repeat only over a lost connection, and all acknowledge at once
            assert len(payloads) == len(set(payloads))
        late = persistent(self.broker, "late")
        late.subscribe("#", "$SYS/#", "p2p/#")
        assert all(message.payload.startswith(b"#") for message in late.messages)
        assert not self.broker.stats.internal_errors


Privacy.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPrivacy = Privacy.TestCase


@pytest.mark.parametrize("mode", ["prefix", "suffix", "both"])
def test_a_queue_is_heard_by_its_client_alone(mode: str) -> None:
    broker = make_broker(Clock(), router=make_router(mode))
    for client_id in IDS:
        offline(broker, client_id)
    sender = persistent(broker, "sender")
    for client_id in IDS:
        level = escape_client_id(client_id)
        sender.publish(f"t/p2p/{level}" if mode == "suffix" else f"p2p/{level}/t", client_id.encode(), qos=1)
    for client_id in IDS:
        assert [message.payload for message in persistent(broker, client_id).messages] == [client_id.encode()]
