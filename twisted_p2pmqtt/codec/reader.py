"""PacketReader: a stream of bytes in, packets out; the only parser on the hot path.

A packet's size and first byte are judged as soon as its fixed header is there, before anything of it is kept.  Bytes of
an unfinished packet wait in one buffer that is looked at again only when the packet is whole, so the cost is linear
however the stream is cut.  PUBLISH and the four acknowledgements are read in the loop itself, everything else by
``decode.DECODERS``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from io import BytesIO
from struct import Struct
from types import MappingProxyType
from typing import Any, Protocol

from twisted_p2pmqtt.codec.constants import MAX_REMAINING_LENGTH, PacketType
from twisted_p2pmqtt.codec.decode import (
    ACKNOWLEDGEMENTS,
    DECODERS,
    FLAGS_ARE_LEGAL,
    PUBLISH_BYTES,
    RESENT_BYTES_V31,
    Packet,
    decode_connect,
    sniff_version,
)
from twisted_p2pmqtt.codec.errors import MalformedPacket, MQTTError, PacketTooLarge, ProtocolViolation
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connect, Pubacks
from twisted_p2pmqtt.codec.properties import NO_PROPERTIES, Properties, decode_properties
from twisted_p2pmqtt.codec.topics import check_response_topic, check_topic_name

_CONNECT_BYTE = PacketType.CONNECT << 4
_ONLY_FROM_SERVER = (PacketType.CONNACK, PacketType.SUBACK, PacketType.UNSUBACK, PacketType.PINGRESP)
_ONLY_FROM_CLIENT = (PacketType.CONNECT, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE, PacketType.PINGREQ)


_BEGINNING = Struct(">BBH")
"""First byte, remaining length where it is one byte, and what is behind it: a topic's length or a packet identifier."""

_PUBACK_HEAD = b"\x40\x02"
_PUBACK = Struct(">HH")


class KnownTopic(Protocol):
    """What a reader wants to know of a topic."""

    is_forwarded: bool
    """May a packet to it go out as it came?  Then it is kept whole."""


NO_TOPICS: Mapping[bytes, KnownTopic] = MappingProxyType({})


class PacketReader:
    """Bytes from one peer to packets.

    Until a CONNECT is read nothing else is accepted; then ``feed`` stops, so that whoever judges the CONNECT can set
    ``max_packet_size`` and call ``feed`` again for what came behind it.  ``version`` may be given where the CONNECT
    went the other way (``from_server=True``: a client reading a server's packets).

    ``known_topics`` holds topics by name (bytes) that were checked before; those are not checked again.
    """

    __slots__ = (
        "partial",
        "_from_server",
        "_known_topics",
        "_missing",
        "error",
        "is_halted",
        "max_packet_size",
        "version",
    )

    def __init__(
        self,
        max_packet_size: int = MAX_REMAINING_LENGTH + 5,
        known_topics: Mapping[bytes, KnownTopic] = NO_TOPICS,
        version: int = 0,
        from_server: bool = False,
    ) -> None:
        self.max_packet_size = max_packet_size
        self.version = version
        self.error: MQTTError | None = None
        self.is_halted = False  # behind a CONNECT: what follows waits for the next feed
        self._known_topics = known_topics
        self._from_server = from_server
        self.partial: BytesIO | None = None
        self._missing = 0

    @property
    def has_partial_packet(self) -> bool:
        """Does the beginning of a packet wait for the rest?"""
        return self.partial is not None

    def feed(self, data: bytes) -> list[Packet]:
        """The packets that ``data`` completes, in order.

        What follows an illegal packet is never read: the error is in ``error``, the packets before it are returned,
        and so nothing here raises.
        """
        packets: list[Packet] = []
        self.is_halted = False
        if self.error is None:
            try:
                if self.partial is None:
                    self._read(data, 0, packets)
                else:
                    self._complete(data, packets)
            except MQTTError as error:
                self.error = error
        return packets

    def _complete(self, data: bytes, packets: list[Packet]) -> None:
        """Read a packet that had begun, when all of it is there, and what is behind it."""
        pos = 0
        while self.partial is not None and not self.is_halted and (pos < len(data) or not self._missing):
            missing = self._missing or len(data)
            partial = self.partial
            partial.write(memoryview(data)[pos : pos + missing])
            pos += missing
            if pos > len(data):
                self._missing = pos - len(data)
                return
            self.partial = None
            self._read(partial.getvalue(), 0, packets)
        if self.is_halted:
            self.hold(data[pos:])
        else:
            self._read(data, pos, packets)

    def hold(self, data: bytes) -> None:
        """Take bytes in without reading them yet; the next ``feed`` does."""
        if data:
            if self.partial is None:
                self.partial = BytesIO()
            self.partial.write(data)
            self._missing = 0

    def _connect(self, body: bytes) -> Connect:
        self.version = sniff_version(body)  # a refusal too is worded in the client's version
        connect = decode_connect(body, 0)
        self.version = connect.version
        return connect

    def _keep(self, rest: bytes, missing: int) -> None:
        if rest:
            self.partial = BytesIO()
            self.partial.write(rest)
            self._missing = missing

    def _read(self, data: bytes, pos: int, packets: list[Packet]) -> None:  # noqa: C901  # the hot loop: few calls
        size = len(data)
        version, limit, known_topics = self.version, self.max_packet_size, self._known_topics
        append, startswith, begin = packets.append, data.startswith, _BEGINNING.unpack_from
        while pos < size:
            try:
                first, remaining, word = begin(data, pos)
            except struct.error:  # fewer than four bytes are left: a short packet, or the beginning of one
                first, word = data[pos], 0
                if pos + 2 > size:
                    self._check_first_byte(first)
                    self._keep(data[pos:], 1)
                    return
                remaining = data[pos + 1]
            at = pos + 2
            if remaining > 127:
                remaining, at = self._long_remaining(data, pos, size)
                if remaining < 0:
                    self._keep(data[pos:], 1)
                    return
                if at + 2 <= size:
                    word = data[at] << 8 | data[at + 1]
            end = at + remaining
            if end - pos > limit:
                self._check_first_byte(first)
                raise PacketTooLarge("packet is larger than the maximum packet size")  # [MQTT-3.2.2-15]
            if end > size:
                self._check_first_byte(first)
                self._keep(data[pos:], end - size)
                return

            if first in PUBLISH_BYTES and version:
                body = at + 2
                if body > end:
                    raise MalformedPacket("PUBLISH without a topic")  # [MQTT-3.3.2-1] [MQTT3-3.3.2-1]
                body += word
                if body > end:
                    raise MalformedPacket("topic is longer than its packet")
                topic = data[at + 2 : body]
                if first & 0x06:
                    if body + 2 > end:
                        raise MalformedPacket("PUBLISH without a packet identifier")
                    packet_id = data[body] << 8 | data[body + 1]
                    if not packet_id:  # [MQTT-2.2.1-3] [MQTT3-2.3.1-1]
                        raise ProtocolViolation("packet identifier is zero")
                    body += 2
                else:  # [MQTT-2.2.1-2] [MQTT3-2.3.1-5]
                    packet_id = 0
                properties, is_bare = NO_PROPERTIES, True
                if version == 5:
                    if body < end and not data[body]:
                        body += 1
                    else:
                        is_bare = False  # even if nothing is left of them
                        properties, body = decode_properties(data, body, end, 3)
                        properties = self._check_publish_properties(properties, first)
                known = known_topics.get(topic)
                if known is None:
                    if topic or "topic_alias" not in properties:
                        if not topic and version == 5:  # 3.3.2.1; in 3.x it is a topic name like any other
                            raise ProtocolViolation("PUBLISH with neither a topic nor a topic alias")
                        check_topic_name(topic)
                if properties:
                    packet = data[pos:end]
                    append(
                        Message(topic, packet, body - pos, first >> 1 & 3, first & 1, first & 8, packet_id, properties)
                    )
                elif first != 0x30:
                    append(Message(topic, data[body:end], 0, first >> 1 & 3, first & 1, first & 8, packet_id))
                elif known is not None and not known.is_forwarded:
                    append(Message(topic, data[body:end]))
                elif version == 5:
                    packet = data[pos:end]
                    append(Message(topic, packet, body - pos, 0, 0, 0, 0, NO_PROPERTIES, None, packet))
                else:
                    packet = data[pos:end]
                    append(Message(topic, packet, body - pos, 0, 0, 0, 0, NO_PROPERTIES, packet))
                if 2 * end - pos <= size and is_bare:
                    if startswith(topic, end + at + 2 - pos):
                        end = self._read_alike(data, pos, body, end, packets)
                    elif topic and startswith(data[pos : at + 2], end):
                        end = self._read_similar(data, pos, body, end, packets)
            elif remaining == 2 and first in ACKNOWLEDGEMENTS and version:
                packet_id = word
                if not packet_id:
                    raise ProtocolViolation("packet identifier is zero")
                if first == 0x40 and data[end : end + 2] == _PUBACK_HEAD and end + 4 <= size:
                    packet_ids = _run_of_pubacks(data, pos)
                    append(Pubacks(packet_ids))
                    pos += 4 * len(packet_ids)
                    continue
                append(ACKNOWLEDGEMENTS[first](packet_id, 0, NO_PROPERTIES))
            else:
                self._check_first_byte(first)
                if first == _CONNECT_BYTE:
                    packets.append(self._connect(data[at:end]))
                    self.is_halted = True
                    self._keep(data[end:], 0)
                    return
                append(DECODERS[first >> 4](data[at:end], version))
            pos = end

    def _read_alike(self, data: bytes, at: int, body: int, pos: int, packets: list[Packet]) -> int:
        """Read on where a burst to one topic goes on: messages without properties that begin with the same flags,
        length and topic as the last one need no other look.  That one was at ``data[at:pos]``, its payload from
        ``body`` on.  Gives where the first packet that differs begins.
        """
        like = packets[-1]
        assert isinstance(like, Message)
        topic, qos, retain, dup = like.topic, like.qos, like.retain, like.dup
        append, is_v5 = packets.append, self.version == 5
        start, length = body - at, pos - at
        payload_size = length - start
        if qos:
            id_at = start - 3 if is_v5 else start - 2
            head, no_properties = data[at : at + id_at], b"\0" if is_v5 else b""
            layout = f">{id_at}sH{len(no_properties)}s{payload_size}s"
            for begin, packet_id, properties, payload in _pieces(data, pos, length, layout):
                if begin != head or not packet_id or properties != no_properties:
                    break
                append(Message(topic, payload, 0, qos, retain, dup, packet_id))
                pos += length
        elif not retain:
            head = data[at:body]
            known = self._known_topics.get(topic)
            if known is not None and not known.is_forwarded:
                for begin, payload in _pieces(data, pos, length, f"{start}s{payload_size}s"):
                    if begin != head:
                        break
                    append(Message(topic, payload))
                    pos += length
                return pos
            for (packet,) in _pieces(data, pos, length, f"{length}s"):
                if packet[:start] != head:
                    break
                if is_v5:
                    append(Message(topic, packet, start, 0, 0, 0, 0, NO_PROPERTIES, None, packet))
                else:
                    append(Message(topic, packet, start, 0, 0, 0, 0, NO_PROPERTIES, packet))
                pos += length
        return pos

    def _read_similar(self, data: bytes, at: int, body: int, pos: int, packets: list[Packet]) -> int:
        """The same for a burst to many topics: flags, length and the topic's length are those of the last message, as
        when somebody tells many clients, or one thing of many, in turn.
        """
        like = packets[-1]
        assert isinstance(like, Message)
        qos, retain, dup = like.qos, like.retain, like.dup
        append, known_topics, no_properties = packets.append, self._known_topics, b"\0" if self.version == 5 else b""
        topic_size, payload_size, length = len(like.topic), pos - body, pos - at
        topic_at = body - at - len(no_properties) - (2 if qos else 0) - topic_size
        beginning = data[at : at + topic_at]
        if qos:
            layout = f">{topic_at}s{topic_size}sH{len(no_properties)}s{payload_size}s"
            for begin, topic, packet_id, properties, payload in _pieces(data, pos, length, layout):
                if begin != beginning or not packet_id or properties != no_properties:
                    break
                if topic not in known_topics:
                    check_topic_name(topic)
                append(Message(topic, payload, 0, qos, retain, dup, packet_id))
                pos += length
        elif not retain:
            layout = f"{topic_at}s{topic_size}s{len(no_properties)}s{payload_size}s"
            for begin, topic, properties, payload in _pieces(data, pos, length, layout):
                if begin != beginning or properties != no_properties:
                    break
                known = known_topics.get(topic)
                if known is not None and not known.is_forwarded:
                    append(Message(topic, payload))
                else:
                    if known is None:
                        check_topic_name(topic)
                    packet = data[pos : pos + length]
                    frame_v3, frame_v5 = (None, packet) if no_properties else (packet, None)
                    append(Message(topic, packet, body - at, 0, 0, 0, 0, NO_PROPERTIES, frame_v3, frame_v5))
                pos += length
        return pos

    def _long_remaining(self, data: bytes, pos: int, size: int) -> tuple[int, int]:
        """A remaining length of two to four bytes and where the packet goes on; -1 where the rest is still to come."""
        value = shift = 0
        for at in range(pos + 1, min(pos + 5, size)):
            byte = data[at]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if not byte:  # [MQTT-1.5.5-1]
                    self._check_first_byte(data[pos])
                    raise MalformedPacket("remaining length is not in its shortest form")
                return value, at + 1
            shift += 7
        self._check_first_byte(data[pos])
        if size >= pos + 5:
            raise MalformedPacket("remaining length is longer than four bytes")
        return -1, 0

    def _check_first_byte(self, first: int) -> None:
        if not FLAGS_ARE_LEGAL[first] and (self.version != 3 or first not in RESENT_BYTES_V31):  # [MQTT3-2.2.2-2]
            raise MalformedPacket("packet type or its flags are not legal")
        if first >> 4 in (_ONLY_FROM_CLIENT if self._from_server else _ONLY_FROM_SERVER):
            raise ProtocolViolation("this packet goes the other way only")
        if first == _CONNECT_BYTE:
            if self.version:  # [MQTT-3.1.0-2] [MQTT3-3.1.0-2]
                raise ProtocolViolation("a second CONNECT")
        elif not self.version:  # [MQTT-3.1.0-1] [MQTT3-3.1.0-1]
            raise ProtocolViolation("the first packet is not CONNECT")
        if first == 0xF0 and self.version != 5:
            raise MalformedPacket("AUTH before MQTT 5.0")

    def _check_publish_properties(self, properties: Properties, first: int) -> Properties:
        """The properties that a PUBLISH with this first byte is taken with."""
        if "response_topic" in properties:
            check_response_topic(properties["response_topic"])
        if self._from_server or "subscription_identifiers" not in properties:
            return properties
        # A client must not send one [MQTT-3.3.4-6], and is told so.  But clients exist that forward a message as they
        # got it, and other brokers bear it: at QoS 1 and 2, where a refusal would come back with each reconnect, the
        # identifier is taken off and the message taken on.
        if not first & 6 or len(properties["subscription_identifiers"]) > 1:
            raise ProtocolViolation("a client sent a subscription identifier in PUBLISH")
        properties.pop("subscription_identifiers")
        return properties or NO_PROPERTIES


def _pieces(data: bytes, pos: int, length: int, layout: str) -> Iterator[tuple[Any, ...]]:
    """What is behind ``pos``, taken apart as if it were all packets of this length and layout."""
    return struct.iter_unpack(layout, memoryview(data)[pos : len(data) - (len(data) - pos) % length])


def _run_of_pubacks(data: bytes, pos: int) -> list[int]:
    """The packet identifiers of the short PUBACKs from ``pos`` on, up to the first packet that is none or is
    illegal.
    """
    packet_ids = []
    for head, packet_id in _PUBACK.iter_unpack(memoryview(data)[pos : len(data) - (len(data) - pos) % 4]):
        if head != 0x4002 or not packet_id:
            break
        packet_ids.append(packet_id)
    return packet_ids
