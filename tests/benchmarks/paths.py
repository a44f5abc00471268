"""The ways of a message, each as bursts in memory: reader, broker, session and sink, without a socket.

A burst is one read of many packets, as a busy connection sees it, with every exchange that the QoS asks for; single
packets come one a read and one a turn, as from many connections that are not.  Only the broker's own work is timed;
what stands for the clients (reading what they got, making their answers) is not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from twisted.internet.task import Clock

from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import (
    Acknowledgement,
    Connect,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Subscribe,
    SubscriptionRequest,
)
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.connection import Connection
from twisted_p2pmqtt.core.handshake import Login
from twisted_p2pmqtt.testing import make_broker

BATCH = 100
"""Messages in one burst; fewer than any window, so that nothing waits."""

PAYLOAD = bytes(64)
FAN = 500
FAN_BATCH = 4
STRANGERS = 1000
"""Other clients' subscriptions, in the way of a topic that is published to for the first time."""

cpu = time.process_time


class Peer:
    """A client and the wire between it and its connection."""

    certificate = None
    peer = "memory"
    is_over = False

    def __init__(self, broker: Broker, version: int) -> None:
        self.sink: list[bytes] = []
        self.broker = broker
        self.version = version
        self.connection = Connection(broker, self, Login(None, {}))
        self._written: list[bytes] = []
        self._reader = PacketReader(version=version, from_server=True)

    def send(self, data: bytes) -> None:
        """Let the broker act on bytes, up to the end of its turn."""
        self.connection.receive(data)
        self.broker.flush()

    def flush(self) -> None:
        """Join, as every wire must."""
        self._written.append(b"".join(self.sink))
        self.sink.clear()

    def take(self) -> tuple[int, list[bytes]]:
        """How many messages came since last time, and the packets to answer all that came."""
        messages = 0
        answers: list[Acknowledgement] = []
        packets = self._reader.feed(b"".join(self._written))
        self._written.clear()
        for packet in packets:
            if isinstance(packet, Message):
                messages += 1
                if packet.qos:
                    answers.append((Puback if packet.qos == 1 else Pubrec)(packet.packet_id))
            elif isinstance(packet, Pubrec):
                answers.append(Pubrel(packet.packet_id))
            elif isinstance(packet, Pubrel):
                answers.append(Pubcomp(packet.packet_id))
        return messages, [encode(answer, self.version) for answer in answers]

    def close(self) -> None:
        """The broker ends the connection: nothing here makes it."""
        assert self.is_over, "the broker closed a connection"

    def pause(self) -> None:
        """Never in memory."""

    resume = pause


class Burst:
    """Messages from one publisher to its receivers; calling it gives the CPU seconds that one message took."""

    is_single = False
    """Each packet in a read and a turn of its own?"""

    def __init__(
        self, broker: Broker, publisher: Peer, receivers: list[Peer], messages: list[Message], copies: int | None = None
    ) -> None:
        """Each message goes to so many of the receivers, to all unless given."""
        self._broker = broker
        self._publisher = publisher
        self._peers = [publisher, *receivers]
        self._packets = [encode(message, publisher.version) for message in messages]
        self._count = len(messages)
        self._expected = len(messages) * (len(receivers) if copies is None else copies)
        self.before: Callable[[], None] = lambda: None

    def __call__(self) -> float:
        self.before()
        spent = self._timed([(self._publisher, self._packets)])
        came = 0
        while True:
            answers = []
            for peer in self._peers:
                messages, packets = peer.take()
                came += messages
                if packets:
                    answers.append((peer, packets))
            if not answers:
                break
            spent += self._timed(answers)
        assert came == self._expected, f"{came} of {self._expected} messages came"
        return spent / self._count

    def _timed(self, inputs: list[tuple[Peer, list[bytes]]]) -> float:
        if self.is_single:
            turns = [[(peer, packet)] for peer, packets in inputs for packet in packets]
        else:
            turns = [[(peer, b"".join(packets)) for peer, packets in inputs]]
        start = cpu()
        for turn in turns:
            for peer, data in turn:
                peer.connection.receive(data)
            self._broker.flush()
        return cpu() - start


def client(broker: Broker, client_id: str, version: int = 4, topic_filter: str = "", qos: int = 0) -> Peer:
    """A client that is connected, and has subscribed where it names a filter."""
    peer = Peer(broker, version)
    peer.send(encode(Connect(client_id, version), version))
    if topic_filter:
        peer.send(encode(Subscribe(1, [SubscriptionRequest(topic_filter, qos)]), version))
    peer.take()
    return peer


class Connects:
    """CONNECT, SUBSCRIBE and their answers for a crowd; calling it gives the CPU seconds of one client."""

    def __init__(self) -> None:
        self._broker = make_broker(Clock())
        self._frames = []
        for number in range(BATCH):
            subscribe = Subscribe(1, [SubscriptionRequest(f"dev/c{number:05d}/#", 0)])
            self._frames.append((encode(Connect(f"c{number:05d}", 4), 4), encode(subscribe, 4)))

    def __call__(self) -> float:
        broker = self._broker
        peers = [Peer(broker, 4) for _ in self._frames]
        start = cpu()
        for peer, (connect, subscribe) in zip(peers, self._frames, strict=True):
            peer.send(connect)
            peer.send(subscribe)
        spent = cpu() - start
        assert len(broker.sessions) == broker.tree.count == BATCH
        for peer in peers:
            peer.is_over = True
            peer.connection.lost()
        broker.flush()
        return spent / BATCH


def _messages(topics: list[str], qos: int) -> list[Message]:
    numbered = enumerate(topics, 1)
    return [Message(topic.encode(), PAYLOAD, qos=qos, packet_id=number if qos else 0) for number, topic in numbered]


def _to_one(topic: str, topic_filter: str, qos: int, version: int) -> Burst:
    broker = make_broker(Clock())
    receiver = client(broker, "receiver", version, topic_filter, qos)
    publisher = client(broker, "publisher", version)
    return Burst(broker, publisher, [receiver], _messages([topic] * BATCH, qos))


def p2p(qos: int, version: int) -> Burst:
    """A message that names its target."""
    return _to_one("p2p/receiver/t", "", qos, version)


def p2p_in_turn(qos: int) -> Burst:
    """Messages to as many clients as there are messages, each in its turn."""
    broker = make_broker(Clock())
    receivers = [client(broker, f"receiver{number:03d}") for number in range(BATCH)]
    topics = [f"p2p/receiver{number:03d}/t" for number in range(BATCH)]
    return Burst(broker, client(broker, "publisher"), receivers, _messages(topics, qos), 1)


def subscribed(qos: int, version: int) -> Burst:
    """A message to the one client that has subscribed."""
    return _to_one("dev/receiver/t", "dev/receiver/t", qos, version)


def single(qos: int, version: int) -> Burst:
    """A message that names its target and comes alone."""
    burst = p2p(qos, version)
    burst.is_single = True
    return burst


def with_properties() -> Burst:
    """A message with the properties of a request, to the one client that has subscribed."""
    broker = make_broker(Clock())
    receiver = client(broker, "receiver", 5, "dev/receiver/t", 1)
    messages = _messages(["dev/receiver/t"] * BATCH, 1)
    for message in messages:
        message.properties = {
            "response_topic": "app/answers",
            "correlation_data": b"1",
            "user_properties": [("a", "b")],
        }
    return Burst(broker, client(broker, "publisher", 5), [receiver], messages)


def fan(qos: int) -> Burst:
    """A message to 500 clients."""
    broker = make_broker(Clock())
    receivers = [client(broker, f"r{number:03d}", 4, "all", qos) for number in range(FAN)]
    return Burst(broker, client(broker, "publisher"), receivers, _messages(["all"] * FAN_BATCH, qos))


def route_miss() -> Burst:
    """Messages to topics that the broker has never seen, which one wildcard subscription in a thousand matches."""
    broker = make_broker(Clock())
    for number in range(STRANGERS):
        client(broker, f"s{number:04d}", 4, f"dev/d{number:04d}/+/x")
    receiver = client(broker, "receiver", 4, "site/#")
    topics = [f"site/room{number:03d}/temperature" for number in range(BATCH)]
    burst = Burst(broker, client(broker, "publisher"), [receiver], _messages(topics, 0))
    burst.before = broker.forget_routes
    return burst


def p2p_route_miss() -> Burst:
    """Messages to one client by P2P topics that the broker has never seen."""
    broker = make_broker(Clock())
    receiver = client(broker, "receiver")
    topics = [f"p2p/receiver/room{number:03d}/temperature" for number in range(BATCH)]
    burst = Burst(broker, client(broker, "publisher"), [receiver], _messages(topics, 0))
    burst.before = broker.forget_routes
    return burst


class Path(NamedTuple):
    """What is measured: ``make()`` gives a callable that gives CPU seconds a message."""

    title: str
    make: Callable[[], Callable[[], float]]


def _paths() -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for version, word in ((4, "3.1.1"), (5, "5.0")):
        for qos in (0, 1, 2):
            paths[f"p2p-{word}-qos{qos}"] = Path(f"P2P, {word}, QoS {qos}", partial(p2p, qos, version))
        for qos in (0, 1, 2):
            title = f"subscription, {word}, QoS {qos}"
            paths[f"sub-{word}-qos{qos}"] = Path(title, partial(subscribed, qos, version))
        for qos in (0, 1):
            paths[f"single-{word}-qos{qos}"] = Path(f"single P2P, {word}, QoS {qos}", partial(single, qos, version))
    for qos in (0, 1):
        paths[f"p2p-in-turn-qos{qos}"] = Path(f"P2P to {BATCH} clients in turn, QoS {qos}", partial(p2p_in_turn, qos))
    paths["sub-5.0-properties"] = Path("subscription, 5.0, QoS 1, 3 properties", with_properties)
    paths["fan-qos0"] = Path(f"one to {FAN}, QoS 0", partial(fan, 0))
    paths["fan-qos1"] = Path(f"one to {FAN}, QoS 1", partial(fan, 1))
    paths["route-miss"] = Path(f"a new topic, {STRANGERS:,} other subscriptions", route_miss)
    paths["p2p-route-miss"] = Path("a new P2P topic", p2p_route_miss)
    paths["connect"] = Path("CONNECT and SUBSCRIBE", Connects)
    return paths


PATHS: dict[str, Path] = _paths()
