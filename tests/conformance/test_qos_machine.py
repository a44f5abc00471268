"""Publishers and subscribers that lose their connections at any point, and what has to hold nevertheless (4.3 to 4.6).

Every client here keeps its side of the protocol: it stores what it must, sends again what it must when it comes back,
and sees only those packets that it has read before the connection was lost.  QoS 2 arrives exactly once, QoS 1 at least
once, both in the order in which they were published, and in the end nobody owes anybody anything.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.conformance.helpers import V5, World
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.message import DUP, Message
from twisted_p2pmqtt.codec.packets import Connack, Puback, Pubcomp, Pubrec, Pubrel
from twisted_p2pmqtt.testing import MemoryClient

INFLIGHT = 4
"""What the broker sends at most before it waits, and what publishers do."""


class Peer:
    """A client with a lasting session, whose connection comes and goes."""

    def __init__(self, world: World, client_id: str, version: int) -> None:
        self.world = world
        self.client_id = client_id
        self.version = version
        self.link: MemoryClient | None = None
        self.inbox: list[Packet] = []

    def connect(self, receive_maximum: int = INFLIGHT) -> None:
        """Come back, or take over from a connection that still stands."""
        self.inbox.clear()
        properties: Any = {}
        if self.version == V5:
            properties = {"session_expiry_interval": 3600, "receive_maximum": receive_maximum}
        self.link = self.world.client(self.client_id, self.version, acknowledges=False)
        connack: Connack = self.link.connect(clean_start=False, properties=properties)
        assert connack.reason_code == 0

    def lose(self) -> None:
        """What was on its way is lost, what was not read too."""
        if self.link is not None:
            self.link.lose()
            self.link = None
        self.inbox.clear()

    def send(self, packet: Packet) -> None:
        """Send, if there is a connection."""
        if self.link is not None:
            self.link.send(packet)

    def read(self) -> None:
        """Take in what has come."""
        if self.link is not None:
            self.inbox += self.link.receive()
            assert not self.link.is_closed


class Publisher(Peer):
    """Numbers its messages.  ``open`` are those not acknowledged, in order, each as what is to be sent again."""

    def __init__(self, world: World, client_id: str, version: int) -> None:
        super().__init__(world, client_id, version)
        self.sent = {1: 0, 2: 0}
        self.open: dict[int, Message | Pubrel] = {}

    def publish(self, qos: int, is_lost: bool) -> None:
        """Publish the next number; with ``is_lost`` the connection goes before the packet leaves."""
        if len(self.open) >= INFLIGHT:
            return
        packet_id = next(number for number in range(1, INFLIGHT + 2) if number not in self.open)
        payload = b"%s %d" % (self.client_id.encode(), self.sent[qos])
        self.sent[qos] += 1
        packet = Message(b"t/%d" % qos, payload, 0, qos, 0, 0, packet_id)
        self.open[packet_id] = packet
        if is_lost:
            self.lose()
        self.send(packet)

    def connect(self, receive_maximum: int = INFLIGHT) -> None:
        """Come back and send again what is open."""
        super().connect(receive_maximum)
        for packet in list(self.open.values()):
            if isinstance(packet, Message):
                packet.dup = DUP
            self.send(packet)

    def handle(self, is_lost: bool) -> None:
        """Act on the oldest packet read; with ``is_lost`` the connection goes before the answer leaves."""
        if not self.inbox:
            return
        packet = self.inbox.pop(0)
        if is_lost:
            self.lose()
        if isinstance(packet, Puback | Pubcomp):
            # 0x92: an earlier PUBREL came through, and its PUBCOMP did not
            assert packet.reason_code in ((0,) if isinstance(packet, Puback) else (0, 0x92))
            assert self.open.pop(packet.packet_id, None) is not None
        elif isinstance(packet, Pubrec):
            assert packet.reason_code == 0
            self.open[packet.packet_id] = Pubrel(packet.packet_id)
            self.send(Pubrel(packet.packet_id))


class Subscriber(Peer):
    """Hears ``t/1`` and ``t/2``.  ``heard`` is what its application got, ``half`` the QoS 2 ids that await PUBREL."""

    def __init__(self, world: World, client_id: str, version: int) -> None:
        super().__init__(world, client_id, version)
        self.heard: dict[bytes, list[bytes]] = {b"t/1": [], b"t/2": []}
        self.half: set[int] = set()
        self.unacknowledged = 0
        self.window = INFLIGHT

    def connect(self, receive_maximum: int = INFLIGHT) -> None:
        """Come back, with a window that may be another."""
        self.unacknowledged = 0
        self.window = receive_maximum if self.version == V5 else INFLIGHT
        super().connect(receive_maximum)

    def read(self) -> None:
        """Take in what has come, and see that it is not too much."""
        old = len(self.inbox)
        super().read()
        for packet in self.inbox[old:]:
            if isinstance(packet, Message):
                self.unacknowledged += 1
                assert packet.packet_id
        assert self.unacknowledged <= self.window

    def handle(self, is_lost: bool) -> None:
        """Act on the oldest packet read; with ``is_lost`` the connection goes before the answer leaves."""
        if not self.inbox:
            return
        packet = self.inbox.pop(0)
        answer: Packet | None = None
        if isinstance(packet, Message):
            if packet.qos == 1 or packet.packet_id not in self.half:
                self.heard[packet.topic].append(packet.payload)
            if packet.qos == 2:
                self.half.add(packet.packet_id)
            answer = Puback(packet.packet_id) if packet.qos == 1 else Pubrec(packet.packet_id)
        elif isinstance(packet, Pubrel):
            self.half.discard(packet.packet_id)
            answer = Pubcomp(packet.packet_id)
        if is_lost:
            self.lose()
        elif answer is not None:
            if not isinstance(answer, Pubrec):
                self.unacknowledged = max(0, self.unacknowledged - 1)
            self.send(answer)


class Flow(RuleBasedStateMachine):
    """Two publishers and two subscribers."""

    publishers: list[Publisher]
    subscribers: list[Subscriber]

    @initialize(versions=st.lists(st.sampled_from([4, 5]), min_size=4, max_size=4))
    def begin(self, versions: list[int]) -> None:
        """Everybody connects."""
        self.world = World(max_inflight=INFLIGHT)
        self.publishers = [Publisher(self.world, f"p{number}", versions[number]) for number in range(2)]
        self.subscribers = [Subscriber(self.world, f"s{number}", versions[2 + number]) for number in range(2)]
        for subscriber in self.subscribers:
            subscriber.connect()
            assert subscriber.link is not None
            assert subscriber.link.subscribe("t/1", "t/2") == [2, 2]
        for publisher in self.publishers:
            publisher.connect()

    @property
    def peers(self) -> list[Publisher | Subscriber]:
        """Everybody."""
        return [*self.publishers, *self.subscribers]

    @rule(which=st.integers(0, 1), qos=st.sampled_from([1, 2]), is_lost=st.sampled_from([False, False, False, True]))
    def publish(self, which: int, qos: int, is_lost: bool) -> None:
        """Somebody publishes."""
        self.publishers[which].publish(qos, is_lost)

    @rule(which=st.integers(0, 3), count=st.integers(1, 4), is_lost=st.sampled_from([False, False, False, True]))
    def handle(self, which: int, count: int, is_lost: bool) -> None:
        """Somebody acts on packets that have come; the last answer may be lost."""
        peer = self.peers[which]
        peer.read()
        for left in reversed(range(count)):
            peer.handle(is_lost and not left)
            peer.read()

    @rule(which=st.integers(0, 3))
    def lose(self, which: int) -> None:
        """Somebody loses the connection."""
        self.peers[which].lose()

    @rule(which=st.integers(0, 3), receive_maximum=st.integers(1, INFLIGHT + 1))
    def reconnect(self, which: int, receive_maximum: int) -> None:
        """Somebody connects, whether the old connection stands or not."""
        self.peers[which].connect(receive_maximum)

    @invariant()
    def order_is_kept(self) -> None:
        """Whatever has been heard so far came in order."""
        for subscriber in getattr(self, "subscribers", ()):
            for publisher in self.publishers:
                name = publisher.client_id.encode()
                for qos, topic in ((1, b"t/1"), (2, b"t/2")):
                    numbers = [int(each.split()[1]) for each in subscriber.heard[topic] if each.startswith(name)]
                    firsts = list(dict.fromkeys(numbers))
                    assert firsts == list(range(len(firsts)))
                    if qos == 2:
                        assert numbers == firsts  # exactly once

    def teardown(self) -> None:
        """Everybody comes back and settles everything."""
        if not hasattr(self, "world"):
            return
        for peer in self.peers:
            peer.connect()
        while self.settle():
            pass
        self.order_is_kept()
        for subscriber in self.subscribers:
            for publisher in self.publishers:
                assert publisher.open == {}
                name = publisher.client_id.encode()
                for qos, topic in ((1, b"t/1"), (2, b"t/2")):
                    heard = {each for each in subscriber.heard[topic] if each.startswith(name)}
                    assert len(heard) == publisher.sent[qos]
        for session in self.world.broker.sessions.values():
            assert not session.inflight
            assert not session.pending
            assert not session.received
        assert self.world.broker.stats.internal_errors == 0

    def settle(self) -> bool:
        """Read and act on everything that there is; False where there was nothing."""
        has_acted = False
        for peer in self.peers:
            peer.read()
            has_acted = has_acted or bool(peer.inbox)
            while peer.inbox:
                peer.handle(False)
                peer.read()
        return has_acted


Flow.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)

TestFlow = pytest.mark.spec(
    "MQTT-4.3.2-3",
    "MQTT-4.3.3-3",
    "MQTT-4.3.3-5",
    "MQTT-4.3.3-6",
    "MQTT-4.3.3-10",
    "MQTT-4.4.0-1",
    "MQTT-4.6.0-5",
    "MQTT-4.6.0-6",
    "MQTT-3.3.4-9",
    "MQTT3-4.3.2-1",
    "MQTT3-4.3.3-1",
    "MQTT3-4.3.3-2",
    "MQTT3-4.4.0-1",
    "MQTT3-4.6.0-5",
    "MQTT3-4.6.0-6",
)(Flow.TestCase)
