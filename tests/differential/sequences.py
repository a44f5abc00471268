"""Generated sequences: what several clients send to a broker, legal and illegal, in MQTT 3.1.1 and 5.0.

``generate(seed, number)`` is a pure function: the same two numbers give the same bytes on every machine.  A sequence
is a list of steps; what a broker's own packet identifiers decide (acknowledging what it sent) is left to the player.
Nothing depends on time: intervals are 0 or a hundred seconds and more.  Topics keep clear of the P2P marker, which
means something to our broker alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from tests.differential.mutations import mutate
from twisted_p2pmqtt.codec.message import DUP, RETAIN, Message
from twisted_p2pmqtt.codec.packets import (
    Connect,
    Disconnect,
    Puback,
    Pubrec,
    Pubrel,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.codec.writer import encode

TOPICS = ["a", "a/b", "a/b/c", "/a", "a/", "//", "\u00e9/\U0001f600", "a b"]
RESERVED = "$x/a"
FILTERS = [
    *("a", "a/b", "a/b/c", "/a", "a/", "//", "\u00e9/\U0001f600", "a b", "$x/a"),
    *("#", "+", "+/+", "a/#", "a/+", "+/b", "a/+/c", "/+", "/#", "+/+/#", "$x/#", "$x/+", "//#", "\u00e9/+"),
]
BAD_FILTERS = ["a#", "#/a", "a/#/b", "+a", "a+/b", "a/b#", ""]
LONG = 100_000
"""Seconds that no sequence lasts."""


@dataclass
class Step:
    """One thing that happens: ``open`` a connection for a client and send, ``send`` on its newest one, ``ack`` what the
    broker sent (``acks`` says how), ``close`` it without a word."""

    client: int
    kind: str
    data: bytes = b""
    text: str = ""
    is_mutated: bool = False
    packet: Any = None  # what it was before it was mutated
    mistake: str = ""  # how it was mutated


@dataclass
class Client:
    """What the generator knows of one client."""

    name: str
    version: int
    answers: bool  # acknowledges at once what the broker sends
    is_open: bool = False
    packet_id: int = 0
    unreleased: list[int] = field(default_factory=list)
    subscribed: list[str] = field(default_factory=list)
    aliases: list[int] = field(default_factory=list)


@dataclass
class Sequence:
    """Steps and the clients that take them."""

    number: int
    clients: list[Client]
    steps: list[Step]

    def __str__(self) -> str:
        lines = [f"sequence {self.number}"]
        lines += [
            f"  client {index}: {client.name}, version {client.version}, "
            + ("acknowledges at once" if client.answers else "acknowledges when told")
            for index, client in enumerate(self.clients)
        ]
        lines += [
            f"  {at:2d} client {step.client} {step.kind:5s} {step.text}"
            + (f"  [{step.data.hex(' ')}]" if step.data else "")
            for at, step in enumerate(self.steps)
        ]
        return "\n".join(lines)


class Generator:
    """Makes one sequence."""

    def __init__(self, seed: int, number: int) -> None:
        self.random = random.Random(f"{seed}/{number}")
        count = self.random.choice((1, 2, 2, 3))
        self.clients = [
            Client(f"d{number}c{index}", self.random.choice((4, 5, 5)), self.random.random() < 0.8)
            for index in range(count)
        ]
        self.number = number
        self.steps: list[Step] = []
        self.payloads = 0

    def make(self) -> Sequence:
        pick = self.random
        for index in range(len(self.clients)):
            self._open(index)
        operations = [self._subscribe, self._publish, self._publish, self._publish, self._release]
        operations += [self._unsubscribe, self._answer, self._leave, self._open, self._publish_again]
        weights = [8, 8, 8, 8, 5, 3, 4, 3, 1, 1]
        for _ in range(pick.randrange(4, 16)):
            index = pick.randrange(len(self.clients))
            if not self.clients[index].is_open:
                self._open(index)
            else:
                pick.choices(operations, weights)[0](index)
        return Sequence(self.number, self.clients, self.steps)

    # --- steps -------------------------------------------------------------------------------------------------------

    def _add(self, index: int, kind: str, packet: Any, text: str, chance: float = 0.07) -> bool:
        """Add a packet, perhaps changed for the worse; True if it went in as it is."""
        version = self.clients[index].version
        data = encode(packet, version)
        if self.random.random() < chance:
            changed, how = mutate(self.random, packet, data, version)
            if changed != data:
                self.steps.append(Step(index, kind, changed, f"{text}, {how}", True, packet, how))
                self.clients[index].is_open = self.random.random() < 0.3  # most mistakes end the connection
                return False
        self.steps.append(Step(index, kind, data, text, packet=packet))
        return True

    def _open(self, index: int) -> None:
        pick, client = self.random, self.clients[index]
        client.is_open = True
        client.aliases.clear()
        is_clean = pick.random() < 0.5
        properties = self._connect_properties() if client.version == 5 else Properties()
        will = self._will(client.version) if pick.random() < 0.25 else None
        name = client.name if pick.random() < 0.95 else ""
        if not name:
            properties.pop("session_expiry_interval", None)  # nobody could remove a session whose name is not known
        username, password = pick.choice(((None, None), (None, None), ("u", None), ("u", b"p")))
        connect = Connect(
            name, client.version, is_clean, pick.choice((0, 60, 65535)), username, password, will, properties
        )
        self._add(index, "open", connect, f"CONNECT {connect}", 0.08)
        if not name and not is_clean and client.version == 4:
            client.is_open = False
        if is_clean:
            client.unreleased.clear()

    def _connect_properties(self) -> Properties:
        pick = self.random
        properties = Properties()
        if pick.random() < 0.6:
            properties["session_expiry_interval"] = pick.choice((0, LONG, LONG))
        if pick.random() < 0.2:
            properties["receive_maximum"] = pick.choice((1, 2, 65535))
        if pick.random() < 0.2:
            properties["topic_alias_maximum"] = pick.choice((1, 2, 65535))
        if pick.random() < 0.1:
            properties["maximum_packet_size"] = pick.choice((40, 1000))
        if pick.random() < 0.2:
            properties["request_problem_information"] = pick.randrange(2)
        if pick.random() < 0.1:
            properties["user_properties"] = [("k", "v"), ("k", "")]
        return properties

    def _will(self, version: int) -> Will:
        pick = self.random
        properties = Properties()
        if version == 5:
            properties = self._message_properties()
            if pick.random() < 0.3:
                properties["will_delay_interval"] = 0
        topic = pick.choice(TOPICS) if pick.random() < 0.97 else RESERVED
        return Will(topic, self._payload("will"), pick.randrange(3), pick.random() < 0.3, properties)

    def _payload(self, kind: str = "") -> bytes:
        self.payloads += 1
        return f"{kind}{self.payloads}".encode() + (b"x" * 60 if self.random.random() < 0.1 else b"")

    def _message_properties(self) -> Properties:
        pick = self.random
        properties = Properties()
        if pick.random() < 0.5:
            return properties
        if pick.random() < 0.3:
            properties["payload_format_indicator"] = pick.randrange(2)
        if pick.random() < 0.3:
            properties["message_expiry_interval"] = LONG
        if pick.random() < 0.3:
            properties["content_type"] = pick.choice(("", "text/\u00e9"))
        if pick.random() < 0.3:
            properties["response_topic"] = "a/b"
        if pick.random() < 0.3:
            properties["correlation_data"] = pick.choice((b"", b"\0\xff"))
        if pick.random() < 0.3:
            properties["user_properties"] = [("b", "1"), ("a", ""), ("b", "1")]
        return properties

    def _next_id(self, client: Client) -> int:
        client.packet_id += 1
        return client.packet_id

    def _publish(self, index: int) -> None:
        pick, client = self.random, self.clients[index]
        qos = pick.randrange(3)
        retain = RETAIN if pick.random() < 0.25 else 0
        payload = b"" if pick.random() < (0.3 if retain else 0.05) else self._payload()
        topic = pick.choice(TOPICS) if pick.random() < 0.98 else RESERVED
        properties = Properties()
        if client.version == 5:
            properties = self._message_properties()
            if pick.random() < 0.15 and topic != RESERVED:
                alias = pick.choice(client.aliases) if client.aliases and pick.random() < 0.7 else pick.randrange(1, 11)
                properties["topic_alias"] = alias
                if alias in client.aliases and pick.random() < 0.7:
                    topic = ""
                elif pick.random() < 0.05:
                    topic = ""
                    client.is_open = False  # an alias that was never set
                else:
                    client.aliases.append(alias)
        packet_id = self._next_id(client) if qos else 0
        message = Message(topic.encode(), payload, 0, qos, retain, 0, packet_id, properties)
        text = f"PUBLISH {topic!r} {payload!r} qos {qos} retain {retain} id {packet_id} {properties}"
        if self._add(index, "send", message, text) and qos == 2:
            # Mostly with its PUBREL at once: a broker may pass the message on at either.
            if pick.random() < 0.9:
                self.steps[-1].data += encode(Pubrel(packet_id), client.version)
                self.steps[-1].text += ", and PUBREL"
            else:
                client.unreleased.append(packet_id)

    def _publish_again(self, index: int) -> None:
        """A QoS 2 message again with DUP, before its PUBREL."""
        client = self.clients[index]
        if client.unreleased:
            packet_id = self.random.choice(client.unreleased)
            message = Message(b"a", b"again", 0, 2, 0, DUP, packet_id)
            self._add(index, "send", message, f"PUBLISH 'a' qos 2 DUP id {packet_id}", 0.0)

    def _release(self, index: int) -> None:
        client = self.clients[index]
        if client.unreleased and self.random.random() < 0.9:
            packet_id = client.unreleased.pop(self.random.randrange(len(client.unreleased)))
        else:
            packet_id = 60_000
        self._add(index, "send", Pubrel(packet_id), f"PUBREL id {packet_id}", 0.05)

    def _subscribe(self, index: int) -> None:
        pick, client = self.random, self.clients[index]
        requests = []
        for _ in range(pick.choice((1, 1, 1, 2, 3))):
            topic_filter = pick.choice(BAD_FILTERS if pick.random() < 0.02 else FILTERS)
            if pick.random() < 0.08:
                topic_filter = f"$share/g{self.number}/{topic_filter}"
            request = SubscriptionRequest(topic_filter, pick.randrange(3))
            if client.version == 5:
                request.no_local = pick.random() < 0.15 and not topic_filter.startswith("$share")
                request.retain_as_published = pick.random() < 0.25
                request.retain_handling = pick.choice((0, 0, 0, 1, 2))
            requests.append(request)
        properties = Properties()
        if client.version == 5 and pick.random() < 0.2:
            properties["subscription_identifiers"] = [pick.choice((1, 127, 128, 268_435_455))]
        client.subscribed += [request.topic_filter for request in requests]
        packet = Subscribe(self._next_id(client), requests, properties)
        self._add(index, "send", packet, f"SUBSCRIBE {requests} {properties} id {packet.packet_id}")

    def _unsubscribe(self, index: int) -> None:
        pick, client = self.random, self.clients[index]
        known = client.subscribed or FILTERS
        filters = [pick.choice(known if pick.random() < 0.8 else FILTERS) for _ in range(pick.choice((1, 1, 2)))]
        packet = Unsubscribe(self._next_id(client), filters)
        self._add(index, "send", packet, f"UNSUBSCRIBE {filters} id {packet.packet_id}", 0.05)

    def _answer(self, index: int) -> None:
        pick, client = self.random, self.clients[index]
        if pick.random() < 0.15:
            packet: Puback | Pubrec | Pubrel = pick.choice((Puback, Pubrec))(61_000)
            self._add(index, "send", packet, f"{packet} for nothing", 0.1)
        elif not client.answers:
            how = pick.choice(("first", "all", "all", "refuse") if client.version == 5 else ("first", "all"))
            self.steps.append(Step(index, "ack", text=how))

    def _leave(self, index: int) -> None:
        pick, client = self.random, self.clients[index]
        client.is_open = False
        if pick.random() < 0.4:
            self.steps.append(Step(index, "close"))
            return
        packet = Disconnect()
        if client.version == 5 and pick.random() < 0.5:
            packet.reason_code = pick.choice((0, 4, 0x80))
            if pick.random() < 0.4:
                packet.properties = Properties(session_expiry_interval=pick.choice((0, LONG)))
        self._add(index, "send", packet, f"{packet}", 0.1)


def generate(seed: int, number: int) -> Sequence:
    """The sequence with this number."""
    return Generator(seed, number).make()
