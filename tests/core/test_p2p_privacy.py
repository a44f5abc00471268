"""No sequence of publishes makes a third client see a P2P message: clients that do what they like, in each mode."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.task import Clock

from tests.core.p2p_reading import ORDINARY, read
from tests.core.support import LONG, offline, persistent, result_of
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import SubscriptionRequest, Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.limits import P2POptions
from twisted_p2pmqtt.core.observers import Observer
from twisted_p2pmqtt.core.p2p import escape_client_id, make_router
from twisted_p2pmqtt.testing import MemoryClient, make_broker

IDS = ("a", "a/b", "#", "p2p", "spy")
TARGETS = (*IDS, "service")
LEVELS = ("", "p2p", "a", "a%2Fb", "%23", "spy", "service", "t", "u", "$SYS", "gone")
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

ids, targets, business = st.sampled_from(IDS), st.sampled_from(TARGETS), st.sampled_from(("t", "u", "t/u"))
topics = st.one_of(
    st.builds(
        lambda target, rest: f"p2p/{escape_client_id(target)}/{rest}", targets, st.sampled_from(("t", "u", "t/u"))
    ),
    st.builds(
        lambda target, rest: f"{rest}/p2p/{escape_client_id(target)}", targets, st.sampled_from(("t", "u", "t/u"))
    ),
    st.sampled_from(("p2p/a", "p2p/a/", "p2p//t", "t/p2p/", "/p2p/a", "p2p/a/$SYS/t", "$SYS/t/p2p/a", "$SYS/p2p/a")),
    st.lists(st.sampled_from(LEVELS), min_size=1, max_size=5).map("/".join).filter(bool),
)
qos = st.integers(0, 2)


class Eavesdropper(Observer):
    """An observer that does not ask for P2P messages."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def published(self, client_id: str | None, message: Message) -> None:
        self.payloads.append(message.payload)

    def delivered(self, client_id: str, message: Message) -> None:
        self.payloads.append(message.payload)

    def dropped(self, client_id: str, message: Message, reason: str) -> None:
        self.payloads.append(message.payload)


class Privacy(RuleBasedStateMachine):
    """Every payload says whom it is for: one client, nobody (malformed), or everybody."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.clients: dict[str, MemoryClient] = {}
        self.seen: dict[str, list[bytes]] = {}
        self.taken: list[tuple[str, MemoryClient]] = []
        self.number = 0

    @initialize(
        mode=st.sampled_from(("prefix", "suffix", "both")),
        marker=st.sampled_from(("p2p", "p2p", "t")),
        malformed=st.sampled_from(("reject", "publish")),
        deliver=st.sampled_from(("business", "original", "reply")),
        overflow=st.sampled_from(("reject", "drop_oldest")),
        check=st.booleans(),
        hide=st.booleans(),
    )
    def begin(
        self, mode: str, marker: str, malformed: str, deliver: str, overflow: str, check: bool, hide: bool
    ) -> None:
        self.mode, self.marker, self.on_malformed = mode, marker, malformed
        options = P2POptions(deliver, malformed, overflow, 4, check_receive=check, hide_presence=hide)
        self.broker = make_broker(self.clock, router=make_router(mode, marker), p2p=options)
        self.eavesdropper = Eavesdropper()
        self.broker.add_observer(self.eavesdropper)
        self.broker.register_endpoint("service", self.serve)
        for topic_filter in ("#", f"{marker}/#", "$share/g/#"):
            self.broker.subscribe(topic_filter, lambda message: self.eavesdropper.payloads.append(message.payload))
        for client_id in IDS:
            self.connect(client_id, 5, False, Properties(), None)

    def whom(self, topic: str, is_client: bool = True) -> str:
        """`#` for everybody, `!` for nobody, or ``=`` and the target's id."""
        found = read(self.mode, self.marker, topic, is_client)
        if isinstance(found, tuple):
            return f"={found[0]}"
        if found == ORDINARY:
            return "#"
        named = isinstance(read(self.mode, self.marker, topic, is_client=False), tuple)  # its topic begins with `$`
        is_reserved = named or (topic.startswith("$") and is_client)
        return "!" if self.on_malformed == "reject" or is_reserved else "#"

    def payload(self, topic: str, is_client: bool = True) -> bytes:
        self.number += 1
        return f"{self.whom(topic, is_client)} {self.number}".encode()

    def serve(self, request: Message) -> bytes:
        """The endpoint: it is a third client to all that is not for it."""
        self.seen.setdefault("service", []).append(request.payload)
        assert request.payload.startswith(b"=service "), f"the endpoint heard {request.payload!r}"
        return self.payload(request.properties.get("response_topic", "none"))

    def connect(self, client_id: str, version: int, clean: bool, properties: Properties, will: Will | None) -> None:
        lasting: Properties = {"session_expiry_interval": LONG, **properties} if version == 5 else {}
        made = MemoryClient(self.broker, client_id, version)
        try:
            made.connect(clean_start=clean, properties=lasting, will=will)
        except AssertionError:  # its will was refused, which in 3.x is told by closing
            return
        if not made.is_closed:
            self.clients[client_id] = made
            self.taken.append((client_id, made))

    @rule(
        client_id=ids,
        version=st.sampled_from((3, 4, 5)),
        clean=st.booleans(),
        aliases=st.integers(0, 2),
        will=st.none() | topics,
        delay=st.integers(0, 3),
    )
    def reconnect(self, client_id: str, version: int, clean: bool, aliases: int, will: str | None, delay: int) -> None:
        """A takeover, where it is connected."""
        wish = None
        if will is not None:
            later: Properties = {"will_delay_interval": delay} if version == 5 and delay else {}
            wish = Will(will, self.payload(will), 1, True, later)
        self.connect(client_id, version, clean, {"topic_alias_maximum": aliases}, wish)

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

    @rule(client_id=ids, topic_filter=st.sampled_from(FILTERS))
    def unsubscribe(self, client_id: str, topic_filter: str) -> None:
        each = self.clients[client_id]
        if not each.is_closed:
            each.unsubscribe(topic_filter)

    @rule(client_id=ids, topic=topics, answer=st.none() | topics, qos=qos, retain=st.booleans(), ack=st.booleans())
    def publish(self, client_id: str, topic: str, answer: str | None, qos: int, retain: bool, ack: bool) -> None:
        sender = self.clients[client_id]
        if not sender.is_closed:
            properties: Properties = {}
            if ack and sender.version == 5:
                properties["user_properties"] = [("p2p-ack", "target"), ("p2p-from", "root")]
            if answer is not None and sender.version == 5:
                properties["response_topic"] = answer
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
        """Whose topics may start with `$`."""
        result_of(self.broker.publish(topic, self.payload(topic, is_client=False), 1, retain))

    @rule(client_id=targets, topic=st.sampled_from(("t", "u")), confirm=st.booleans())
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
        assert all(payload.startswith(b"#") for payload in self.eavesdropper.payloads), self.eavesdropper.payloads
        self.eavesdropper.payloads.clear()
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
        assert not self.broker.stats.hook_errors  # the endpoint heard what was its own


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
