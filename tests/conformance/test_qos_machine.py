"""Publishers and subscribers that lose their connections, or the broker, at any point, and what has to hold
nevertheless (4.1, 4.3 to 4.6).

Every client here keeps its side of the protocol: it stores what it must, sends again what it must when it comes back,
and sees only those packets that it has read before the connection was lost.  QoS 2 arrives exactly once, QoS 1 at least
once, both in the order in which they were published, and in the end nobody owes anybody anything.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.conformance.helpers import V5, V31, V311, World
from tests.store.conftest import MEMORY
from tests.store.lives import Life
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.message import DUP, Message
from twisted_p2pmqtt.codec.packets import Connack, Puback, Pubcomp, Pubrec, Pubrel
from twisted_p2pmqtt.core.limits import Limits
from twisted_p2pmqtt.testing import MemoryClient

INFLIGHT = 4
"""What the broker sends at most before it waits, and what publishers do."""


class Peer:
    """A client with a lasting session, whose connection comes and goes."""

    def __init__(self, world: World | Life, client_id: str, version: int) -> None:
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

    def __init__(self, world: World | Life, client_id: str, version: int) -> None:
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
    """Hears ``t/1`` and ``t/2``.  ``heard`` is what its application got, ``half`` the QoS 2 ids that await PUBREL, with
    their payloads, ``released`` the payloads for which it came.
    """

    def __init__(self, world: World | Life, client_id: str, version: int) -> None:
        super().__init__(world, client_id, version)
        self.heard: dict[bytes, list[bytes]] = {b"t/1": [], b"t/2": []}
        self.half: dict[int, bytes] = {}
        self.released: set[bytes] = set()
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
                assert packet.qos == 1 or packet.payload not in self.released
            elif isinstance(packet, Pubrel) and packet.packet_id in self.half:
                self.released.add(self.half[packet.packet_id])
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
                self.half[packet.packet_id] = packet.payload
            answer = Puback(packet.packet_id) if packet.qos == 1 else Pubrec(packet.packet_id)
        elif isinstance(packet, Pubrel):
            self.half.pop(packet.packet_id, None)
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
    world: World | Life

    def make_world(self) -> World | Life:
        """The broker that all of them use."""
        return World(max_inflight=INFLIGHT)

    @initialize(versions=st.lists(st.sampled_from([V31, V311, V5]), min_size=4, max_size=4))
    def begin(self, versions: list[int]) -> None:
        """Everybody connects."""
        self.world = self.make_world()
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

    @rule(
        which=st.integers(0, 1),
        levels=st.lists(st.sampled_from([1, 2]), min_size=1, max_size=INFLIGHT),
        is_lost=st.sampled_from([False, False, False, True]),
    )
    def publish(self, which: int, levels: list[int], is_lost: bool) -> None:
        """Somebody publishes; the last message may be lost."""
        for left, qos in zip(reversed(range(len(levels))), levels, strict=True):
            self.publishers[which].publish(qos, is_lost and not left)

    @rule(which=st.integers(0, 3), count=st.integers(1, 4), is_lost=st.sampled_from([False, False, False, True]))
    def handle(self, which: int, count: int, is_lost: bool) -> None:
        """Somebody acts on packets that have come; the last answer may be lost."""
        peer = self.peers[which]
        peer.read()
        for left in reversed(range(count)):
            peer.handle(is_lost and not left)
            peer.read()

    @rule()
    def settle(self) -> None:
        """Everybody who is there acts on everything that there is."""
        has_acted = True
        while has_acted:
            has_acted = False
            for peer in self.peers:
                peer.read()
                has_acted = has_acted or bool(peer.inbox)
                while peer.inbox:
                    peer.handle(False)
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
        self.settle()
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


class FlowOverRestarts(Flow):
    """The same, with a broker that is killed, or stopped, and started again on what it has stored."""

    world: Life

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(prefix="p2pmqtt-test-", dir=MEMORY)

    def make_world(self) -> Life:
        """A broker with a store."""
        return Life(Path(self._directory.name) / "store", limits=Limits(max_inflight=INFLIGHT))

    @rule(is_orderly=st.booleans(), away=st.sets(st.integers(0, 3)))
    def restart(self, is_orderly: bool, away: set[int]) -> None:
        """The broker goes, with every connection and all that was on its way, and comes back, as do most clients."""
        self.world = self.world.killed(is_orderly=is_orderly)
        for number, peer in enumerate(self.peers):
            peer.world, peer.link = self.world, None
            peer.inbox.clear()
            if number not in away:
                peer.connect()

    def teardown(self) -> None:
        """Everybody comes back and settles everything."""
        try:
            super().teardown()
        finally:
            if hasattr(self, "world"):
                self.world.stop()
            self._directory.cleanup()


Flow.TestCase.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
FlowOverRestarts.TestCase.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)

TestFlowOverRestarts = pytest.mark.spec(
    "MQTT-4.3.2-3", "MQTT-4.3.3-3", "MQTT-4.3.3-5", "MQTT-4.3.3-10", "MQTT-4.4.0-1", "MQTT3-4.1.0-1", "MQTT3-4.4.0-1"
)(FlowOverRestarts.TestCase)

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
