"""Message: a decoded PUBLISH and the application message it carries, in one object (section 3.3).

The payload is never copied before it is joined into a socket's write: a message read from the wire keeps its packet,
and where that packet can go out as it came (QoS 0, the same protocol family, the same topic) it is the frame.  Every
other form is encoded at most once a variant: ``frame`` for QoS 0, ``halves`` for QoS 1 and 2, where the packet
identifier of each receiver goes between a head and a tail that all of them share.
"""

from __future__ import annotations

from functools import lru_cache

from twisted_p2pmqtt.codec.primitives import encode_varint
from twisted_p2pmqtt.codec.properties import NO_PROPERTIES, Properties, copy_properties, encode_properties

RETAIN, DUP = 0x01, 0x08


class Message:
    """One application message.

    ``topic`` is the name in UTF-8; ``qos``, ``retain`` (0 or ``RETAIN``) and ``dup`` (0 or ``DUP``) are as published,
    the latter two as bits of the fixed header; ``body[start:]`` is the payload; ``packet_id`` is the publisher's (0
    for QoS 0); ``properties`` the PUBLISH properties as published.  ``expires_at`` is a time on the broker's monotonic
    clock in seconds, or None.  ``property_block`` are the properties encoded for a receiver, their length in front,
    None until somebody needed them (``encoded_properties``).
    Frames are kept once made, so topic and properties are final by then (``readdress``).
    """

    __slots__ = (
        "body",
        "dup",
        "expires_at",
        "frame_v3",
        "frame_v5",
        "packet_id",
        "properties",
        "property_block",
        "qos",
        "retain",
        "start",
        "topic",
    )

    def __init__(
        self,
        topic: bytes,
        body: bytes,
        start: int = 0,
        qos: int = 0,
        retain: int = 0,
        dup: int = 0,
        packet_id: int = 0,
        properties: Properties = NO_PROPERTIES,
        frame_v3: bytes | None = None,
        frame_v5: bytes | None = None,
    ) -> None:
        """``frame_v3`` and ``frame_v5`` are given by the reader where a packet may go out as it came."""
        self.topic = topic
        self.body = body
        self.start = start
        self.qos = qos
        self.retain = retain
        self.dup = dup
        self.packet_id = packet_id
        self.properties = properties
        self.frame_v3 = frame_v3
        self.frame_v5 = frame_v5
        self.expires_at: float | None = None
        self.property_block: bytes | None = None

    @property
    def payload(self) -> bytes:
        """The application's bytes."""
        return self.body[self.start :]

    @property
    def size(self) -> int:
        """Bytes that keeping this message costs: payload and topic, and properties of one from the wire."""
        return len(self.body) if self.start else len(self.topic) + len(self.body)

    def copy(self) -> Message:
        """One that shares nothing that could be changed."""
        copy = Message(self.topic, self.body, self.start, self.qos, self.retain, self.dup, self.packet_id)
        if self.properties:
            copy.properties = copy_properties(self.properties)
        copy.expires_at = self.expires_at
        return copy

    def readdress(self, topic: bytes, properties: Properties, property_block: bytes | None = None) -> None:
        """Give the message another topic and other properties, before anybody else has seen it.

        ``property_block`` is the encoded form of ``properties`` where the caller has it at hand.
        """
        self.topic = topic
        self.properties = properties
        self.property_block = property_block
        self.frame_v3 = self.frame_v5 = None

    def frame(self, version: int) -> bytes:
        """The whole PUBLISH at QoS 0, not retained, for a 3.x (``version`` 3 or 4) or 5.0 receiver; kept."""
        if version == 5:
            if self.frame_v5 is None:
                head, tail = self.halves(5, 0)  # [MQTT-4.3.1-1] [MQTT3-4.3.1-1]
                self.frame_v5 = head + tail
            return self.frame_v5
        if self.frame_v3 is None:
            payload = self.payload
            self.frame_v3 = encode_head(self.topic, 0, len(payload)) + payload
        return self.frame_v3

    def halves(self, version: int, flags: int, extra: bytes = b"") -> tuple[bytes, bytes]:
        """What stands before and behind the packet identifier, for these header flags (QoS << 1, RETAIN, DUP).

        ``extra`` are encoded properties of this receiver alone (subscription identifiers).  Towards 3.x receivers
        properties are left out.
        """
        if version < 5:
            return encode_halves(self.topic, self.payload, flags, b"")
        if extra:
            properties = self.property_body + extra
            block = encode_varint(len(properties)) + properties
        else:
            block = self.encoded_properties()
        return encode_halves(self.topic, self.payload, flags, block)

    def encoded_properties(self) -> bytes:
        """``property_block``, made now if need be; kept."""
        block = self.property_block
        if block is None:
            # [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
            block = self.property_block = encode_properties(self.properties) if self.properties else b"\0"
        return block

    @property
    def property_body(self) -> bytes:
        """The same without the length."""
        if not self.properties:
            return b""
        block = self.encoded_properties()
        at = 0
        while block[at] > 127:
            at += 1
        return block[at + 1 :]


def encode_halves(topic: bytes, payload: bytes, flags: int, property_block: bytes) -> tuple[bytes, bytes]:
    """Head and tail of a PUBLISH around its packet identifier; ``property_block`` with its length, empty for 3.x."""
    tail = property_block + payload
    return encode_head(topic, flags, len(tail) + 2 if flags & 6 else len(tail)), tail


@lru_cache(maxsize=4096)
def encode_head(topic: bytes, flags: int, rest: int) -> bytes:
    """A PUBLISH up to its topic, where ``rest`` bytes follow the topic.

    Kept, because messages of one topic tend to have one size, and then all begin with the same bytes.
    """
    remaining = encode_varint(2 + len(topic) + rest)
    return b"%c%b%b%b" % (0x30 | flags, remaining, len(topic).to_bytes(2, "big"), topic)
