"""Plays a sequence to one broker, and writes down what every connection hears, step by step.

Behind each step every connection that is through with CONNECT is asked with a PINGREQ: what comes before the PINGRESP
belongs to the step, so nothing waits for a clock.  Only a connection from which neither an answer nor a close comes
(half a packet, no CONNECT yet) costs ``PATIENCE``.  A ``careful`` run waits before it asks: a broker that closes with
a PINGREQ unread resets the connection, and its DISCONNECT can be lost.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterable
from typing import Any

from tests.differential.sequences import Sequence, Step
from tests.interop.broker import HOST
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import (
    Connack,
    Connect,
    Pingresp,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Subscribe,
    SubscriptionRequest,
)
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import encode

PATIENCE = 0.25
"""Seconds after which a broker that says nothing is taken to wait for more."""

CAREFUL = 0.08
"""Seconds that a careful run gives a broker before it asks anything."""

DEADLINE = 5.0
"""Seconds in which a connected client must have its PINGRESP."""

PINGREQ = b"\xc0\x00"

CLOSED = "closed"
UNREADABLE = "unreadable"
SILENT = "silent"

Heard = Packet | str
"""A packet, or one of the words above."""


class Connection:
    """One connection of one client."""

    def __init__(self, port: int, version: int, answers: bool) -> None:
        self.sock = socket.create_connection((HOST, port), DEADLINE)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.version = version
        self.answers = answers
        self.reader = PacketReader(version=version, from_server=True)
        self.heard: list[Heard] = []
        self.unanswered: list[Message | Pubrel] = []
        self.aliases: dict[int, bytes] = {}
        self.is_closed = False
        self.is_connected = False
        self.pongs = 0
        self.sent_since_ping = False

    def send(self, data: bytes) -> None:
        """Send, as far as the broker still takes it."""
        self.sent_since_ping = True
        with contextlib.suppress(OSError):
            self.sock.sendall(data)

    def read(self, timeout: float) -> bool:
        """Take in what comes within the time; False if nothing does."""
        if self.is_closed:
            return False
        ready, _, _ = select.select([self.sock], [], [], timeout)
        if not ready:
            return False
        try:
            data = self.sock.recv(262_144)
        except OSError:
            data = b""
        if not data:
            self._end()
            return True
        for packet in self.reader.feed(data):
            self._take(packet)
        if self.reader.error is not None:
            self.heard.append(f"{UNREADABLE}: {self.reader.error}")
            self._end()
        return True

    def _end(self) -> None:
        self.is_closed = True
        self.sock.close()
        self.heard.append(CLOSED)

    def _take(self, packet: Packet) -> None:
        if isinstance(packet, Pingresp):
            self.pongs += 1
            return
        if isinstance(packet, Connack) and not packet.reason_code:
            self.is_connected = True
        if isinstance(packet, Message):
            self._resolve_alias(packet)
        self.heard.append(packet)
        if (isinstance(packet, Message) and packet.qos) or isinstance(packet, Pubrel):  # PUBREL is a step of its own
            if self.answers:
                self.send(encode(answer(packet), self.version))
            else:
                self.unanswered.append(packet)

    def _resolve_alias(self, message: Message) -> None:
        alias = message.properties.get("topic_alias")
        if alias is None:
            return
        if message.topic:
            self.aliases[alias] = message.topic
        message.topic = self.aliases.get(alias, b"(alias %d, never set)" % alias)

    def settle(self, is_careful: bool, is_doubtful: bool) -> None:
        """Until the broker has acted on all that was sent."""
        if is_careful or is_doubtful:
            deadline = time.monotonic() + CAREFUL
            while not self.is_closed and (left := deadline - time.monotonic()) > 0:
                self.read(left)
        while self.read(0):
            pass
        if not self.is_connected:
            # CONNACK, or the end; a broker may as well wait for more.
            deadline = time.monotonic() + PATIENCE
            while not (self.is_closed or self.is_connected) and (left := deadline - time.monotonic()) > 0:
                self.read(left)
        while self.is_connected and not self.is_closed:
            self.sent_since_ping = False
            wanted = self.pongs + 1
            self.send(PINGREQ)
            self.sent_since_ping = False
            deadline = time.monotonic() + (PATIENCE if is_doubtful else DEADLINE)
            while (left := deadline - time.monotonic()) > 0 and self._is_silent(wanted):
                self.read(left)
            if self._is_silent(wanted):
                self.heard.append(SILENT)
                return
            if not self.sent_since_ping:
                return

    def _is_silent(self, wanted: int) -> bool:
        return self.pongs < wanted and not self.is_closed

    def acknowledge(self, how: str) -> None:
        """Acknowledge what has waited for it: the first, all, or all with a reason code that refuses."""
        waiting = self.unanswered[:1] if how == "first" else self.unanswered
        self.unanswered = self.unanswered[len(waiting) :]
        for packet in waiting:
            self.send(encode(answer(packet, 0x83 if how == "refuse" else 0), self.version))

    def close(self) -> None:
        """Close without a word, and wait until the broker has seen it: it may have a will to publish."""
        if not self.is_closed:
            self.is_closed = True
            with contextlib.suppress(OSError):
                self.sock.shutdown(socket.SHUT_WR)
                self.sock.settimeout(PATIENCE)
                while self.sock.recv(262_144):
                    pass
            self.sock.close()

    def take_heard(self) -> list[Heard]:
        heard, self.heard = self.heard, []
        return heard


def answer(packet: Message | Pubrel, code: int = 0) -> Packet:
    """What a client says to a PUBLISH of QoS 1 or 2, or to a PUBREL."""
    if isinstance(packet, Pubrel):
        return Pubcomp(packet.packet_id)
    return (Puback if packet.qos == 1 else Pubrec)(packet.packet_id, code)


Transcript = list[dict[tuple[int, int], list[Heard]]]
"""For each step: what was heard, by client and which of its connections."""


class Player:
    """One broker, and the connections of the sequence that is played to it."""

    def __init__(self, port: int) -> None:
        self.port = port

    def play(self, sequence: Sequence, is_careful: bool = False) -> Transcript:
        """The whole sequence; what it leaves behind in the broker is removed."""
        connections: dict[tuple[int, int], Connection] = {}
        newest: dict[int, Connection] = {}
        transcript: Transcript = []
        try:
            for step in sequence.steps:
                self._take(step, sequence, connections, newest)
                current = newest[step.client]
                current.settle(is_careful, step.is_mutated)
                # Twice: what the first round acknowledges may bring more to others.
                for _ in range(2):
                    for connection in connections.values():
                        if connection.is_connected and not connection.is_closed and SILENT not in connection.heard:
                            connection.settle(False, False)
                transcript.append({key: one.take_heard() for key, one in connections.items()})
            return transcript
        finally:
            for connection in connections.values():
                connection.close()
            self._clean(sequence, connections.values())

    def _take(
        self,
        step: Step,
        sequence: Sequence,
        connections: dict[tuple[int, int], Connection],
        newest: dict[int, Connection],
    ) -> None:
        if step.kind == "open":
            client = sequence.clients[step.client]
            number = sum(key[0] == step.client for key in connections)
            # A broker answers in the version that the CONNECT asks for, which may be another than the client's.
            level = step.data[8] if step.data[2:8] == b"\0\4MQTT" and len(step.data) > 8 else client.version
            connection = Connection(self.port, 5 if level & 0x7F >= 5 else 4, client.answers)
            connections[step.client, number] = newest[step.client] = connection
        connection = newest[step.client]
        if step.kind == "close":
            connection.close()
        elif step.kind == "ack":
            connection.acknowledge(step.text)
        elif not connection.is_closed:
            connection.send(step.data)

    def _clean(self, sequence: Sequence, connections: Iterable[Connection]) -> None:
        """End the sessions, and remove the retained messages: with ids of this sequence, and by their topics."""
        for client in sequence.clients:
            janitor = Connection(self.port, 4, True)
            janitor.send(encode(Connect(client.name, 4, True), 4))
            janitor.settle(False, False)
            janitor.close()
        janitor = Connection(self.port, 4, True)
        janitor.send(encode(Connect(f"janitor{sequence.number}", 4, True), 4))
        janitor.send(encode(Subscribe(1, [SubscriptionRequest("#"), SubscriptionRequest("$x/#")]), 4))
        janitor.settle(False, False)
        for topic in {packet.topic for packet in janitor.heard if isinstance(packet, Message)}:
            janitor.send(encode(Message(topic, b"", 0, 0, 1), 4))
        janitor.settle(False, False)
        janitor.close()


def is_alive(port: int) -> bool:
    """Does the broker still serve?"""
    connection: Any = None
    try:
        connection = Connection(port, 4, True)
        connection.send(encode(Connect("alive", 4, True), 4))
        connection.settle(False, False)
        return bool(connection.is_connected)
    except OSError:
        return False
    finally:
        if connection is not None:
            connection.close()
