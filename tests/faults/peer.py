"""Peer: an MQTT client over a socket that keeps its own part of a session through every break, as the standard asks.

What it has published and not seen acknowledged it publishes again, with the same packet identifier where the broker has
the session; what it has received at QoS 2 it takes once.  So what is lost or comes twice is the broker's doing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from twisted_p2pmqtt.codec.message import DUP, Message
from twisted_p2pmqtt.codec.packets import (
    Connack,
    Connect,
    Disconnect,
    Puback,
    Pubacks,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    Will,
)
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import encode

EXPIRY = 3600
TIMEOUT = 20.0


class Gone(Exception):
    """The connection is closed; with why, where what came was not MQTT or could not be taken."""


class Sent:
    """A publish on its way: ``is_received`` once PUBREC came."""

    def __init__(self, topic: str, payload: bytes, qos: int, retain: bool, done: Callable[[int], None]) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain
        self.done = done
        self.is_received = False


class Peer:
    """A client with a session that survives.  ``message(topic, payload, qos)`` is called for each message taken."""

    def __init__(
        self, port: int, client_id: str, version: int = 5, message: Callable[[str, bytes, int], None] | None = None
    ) -> None:
        self.port = port
        self.client_id = client_id
        self.version = version
        self.expiry = EXPIRY
        self.message = message or (lambda topic, payload, qos: None)
        self.sent: dict[int, Sent] = {}
        self.session_present = False
        self.acknowledges = True
        self.failure = ""  # why it closed its last connection itself
        self._received: set[int] = set()
        self._answers: dict[int, asyncio.Future[list[int]]] = {}
        self._last_id = 0
        self._connack: asyncio.Future[Connack] | None = None
        self._room = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    @property
    def is_connected(self) -> bool:
        return self._writer is not None

    async def connect(self, clean: bool = False, will: Will | None = None) -> int:
        """Connect and take up the session; gives CONNACK's code.  Raises ``Gone``."""
        self.failure = ""
        try:
            reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            raise Gone from None
        self._connack = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(reader))
        properties = Properties(session_expiry_interval=self.expiry) if self.version == 5 else Properties()
        self._send(Connect(self.client_id, self.version, clean, 0, None, None, will, properties))
        connack = await asyncio.wait_for(asyncio.shield(self._connack), TIMEOUT)
        self.session_present = connack.session_present
        if connack.reason_code == 0:
            self._resume()
        return int(connack.reason_code)

    def _resume(self) -> None:
        if not self.session_present:
            self._received.clear()
        sent, self.sent = self.sent, {}
        for packet_id, one in sent.items():
            if self.session_present:
                self.sent[packet_id] = one
            if one.is_received:
                if self.session_present:
                    self._send(Pubrel(packet_id))
                else:
                    one.done(0)  # the broker had it: what became of it is its affair
            elif self.session_present:
                self._send(self._packet(packet_id, one, DUP))
            else:
                self._publish(one)
        self._room.set()

    def _packet(self, packet_id: int, one: Sent, dup: int = 0) -> Message:
        return Message(one.topic.encode(), one.payload, 0, one.qos, int(one.retain), dup, packet_id)

    def _send(self, *packets: Any) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(b"".join(encode(packet, self.version) for packet in packets))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        packets = PacketReader(version=self.version, from_server=True)
        try:
            while data := await reader.read(65536):
                for packet in packets.feed(data):
                    self._take(packet)
                assert packets.error is None, packets.error
        except OSError:
            pass
        except Exception as error:  # nobody may be waiting for this task
            self.failure = repr(error)
            raise
        finally:
            self._gone()

    def _gone(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        waiting: list[asyncio.Future[Any]] = [*self._answers.values()]
        if self._connack:
            waiting.append(self._connack)
        self._answers.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(Gone(self.failure))
                future.exception()  # it may have been given up
        self._room.set()

    def _take(self, packet: Any) -> None:  # noqa: C901  # one branch a packet type
        if isinstance(packet, Message):
            self._take_message(packet)
        elif isinstance(packet, Puback):
            self._finish(packet.packet_id, packet.reason_code)
        elif isinstance(packet, Pubacks):
            for packet_id in packet.packet_ids:
                self._finish(packet_id, 0)
        elif isinstance(packet, Pubrec):
            one = self.sent.get(packet.packet_id)
            if packet.reason_code >= 0x80:
                self._finish(packet.packet_id, packet.reason_code)
            else:
                if one is not None:
                    one.is_received = True
                self._send(Pubrel(packet.packet_id))
        elif isinstance(packet, Pubcomp):
            self._finish(packet.packet_id, 0)
        elif isinstance(packet, Pubrel):
            self._received.discard(packet.packet_id)
            self._send(Pubcomp(packet.packet_id))
        elif isinstance(packet, Suback | Unsuback):
            future = self._answers.pop(packet.packet_id, None)
            if future is not None and not future.done():
                future.set_result(list(packet.reason_codes))
        elif isinstance(packet, Connack) and self._connack is not None and not self._connack.done():
            self._connack.set_result(packet)

    def _take_message(self, packet: Message) -> None:
        topic = packet.topic.decode()
        if packet.qos == 2:
            if packet.packet_id not in self._received:
                self._received.add(packet.packet_id)
                self.message(topic, packet.payload, 2)
            if self.acknowledges:
                self._send(Pubrec(packet.packet_id))
        else:
            self.message(topic, packet.payload, packet.qos)
            if packet.qos and self.acknowledges:
                self._send(Puback(packet.packet_id))

    def _finish(self, packet_id: int, reason_code: int) -> None:
        one = self.sent.pop(packet_id, None)
        if one is not None:
            one.done(reason_code)
        self._room.set()

    def _next_id(self) -> int:
        while True:
            self._last_id = self._last_id % 65535 + 1
            if self._last_id not in self.sent and self._last_id not in self._answers:
                return self._last_id

    def _publish(self, one: Sent) -> None:
        packet_id = self._next_id()
        self.sent[packet_id] = one
        self._send(self._packet(packet_id, one))

    async def publish(
        self,
        topic: str,
        payload: bytes,
        qos: int,
        done: Callable[[int], None],
        retain: bool = False,
        window: int = 100,
    ) -> None:
        """Publish when fewer than ``window`` are on their way; ``done(code)`` is called at its end.  Raises
        ``Gone``.
        """
        while len(self.sent) >= window and self.is_connected:
            self._room.clear()
            await self._room.wait()
        if not self.is_connected:
            raise Gone(self.failure)
        self._publish(Sent(topic, payload, qos, retain, done))
        await asyncio.sleep(0)

    def publish_qos0(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 0."""
        self._send(Message(topic.encode(), payload, 0, 0))

    async def settled(self) -> None:
        """Wait until everything published is over.  Raises ``Gone``."""
        while self.sent:
            if not self.is_connected:
                raise Gone(self.failure)
            self._room.clear()
            await asyncio.wait_for(self._room.wait(), TIMEOUT)

    async def _ask(self, make: Callable[[int], Any]) -> list[int]:
        if not self.is_connected:
            raise Gone(self.failure)
        packet_id = self._next_id()
        future = self._answers[packet_id] = asyncio.get_running_loop().create_future()
        self._send(make(packet_id))
        return await asyncio.wait_for(asyncio.shield(future), TIMEOUT)

    async def subscribe(self, topic_filter: str, qos: int = 2) -> list[int]:
        """Subscribe; gives SUBACK's codes.  Raises ``Gone``."""
        request = SubscriptionRequest(topic_filter, qos)
        return await self._ask(lambda packet_id: Subscribe(packet_id, [request]))

    async def unsubscribe(self, topic_filter: str) -> list[int]:
        """Unsubscribe; gives UNSUBACK's codes.  Raises ``Gone``."""
        return await self._ask(lambda packet_id: Unsubscribe(packet_id, [topic_filter]))

    async def drop(self) -> None:
        """Close the connection without a word, and forget what was on its way."""
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            await self._reading
        self.sent.clear()

    async def disconnect(self) -> None:
        """Say DISCONNECT and wait for the end."""
        self._send(Disconnect())
        if self._reading is not None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._reading), TIMEOUT)


async def is_answered(port: int) -> bool:
    """Does whoever listens there answer a CONNECT?  A port is open before the store behind it is read."""
    probe = Peer(port, "probe", version=4)
    try:
        await probe.connect(clean=True)
    except Gone:
        return False
    await probe.disconnect()
    return True
