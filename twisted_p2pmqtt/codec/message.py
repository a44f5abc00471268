"""Message: a decoded PUBLISH and the application message it carries, in one object (section 3.3).

The payload is never copied before it is joined into a socket's write: a message read from the wire keeps its packet,
and where that packet can go out as it came (QoS 0, the same protocol family, the same topic) it is the frame.  Every
other form is encoded at most once a variant: ``frame`` for QoS 0, ``halves`` for QoS 1 and 2, where the packet
identifier of each receiver goes between a head and a tail that all of them share.
"""

from __future__ import annotations

from functools import lru_cache

from twisted_p2pmqtt.codec.primitives import encode_varint
from twisted_p2pmqtt.codec.properties import NO_PROPERTIES, Properties, copy_properties, encode_property_body

RETAIN, DUP = 0x01, 0x08


class Message:
    """One application message.

    ``topic`` is the name in UTF-8; ``qos``, ``retain`` (0 or ``RETAIN``) and ``dup`` (0 or ``DUP``) are as published,
    the latter two as bits of the fixed header; ``body[start:]`` is the payload; ``packet_id`` is the publisher's (0
    for QoS 0); ``properties`` the PUBLISH properties as published.  ``expires_at`` is a time on the broker's monotonic
    clock in seconds, or None.
    Frames are kept once made, so topic and properties are final by then (``readdress``).
    """

    __slots__ = (
        "_property_body",
        "body",
        "dup",
        "expires_at",
        "frame_v3",
        "frame_v5",
        "packet_id",
        "properties",
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
        self._property_body: bytes | None = None

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

    def readdress(self, topic: bytes, properties: Properties, property_body: bytes | None = None) -> None:
        """Give the message another topic and other properties, before anybody else has seen it.

        ``property_body`` is the encoded form of ``properties`` where the caller has it at hand.
        """
        self.topic = topic
        self.properties = properties
        self._property_body = property_body
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
            return encode_halves(self.topic, self.payload, flags, None)
        return encode_halves(self.topic, self.payload, flags, self.property_body + extra)

    @property
    def property_body(self) -> bytes:
        """The properties encoded for a receiver, without their length; kept."""
        if self._property_body is None:
            # [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
            self._property_body = encode_property_body(self.properties) if self.properties else b""
        return self._property_body


def encode_halves(topic: bytes, payload: bytes, flags: int, properties: bytes | None) -> tuple[bytes, bytes]:
    """Head and tail of a PUBLISH around its packet identifier; ``properties`` None for 3.x, else encoded, no length."""
    if properties is None:
        tail = payload
    elif properties:
        tail = b"%b%b%b" % (encode_varint(len(properties)), properties, payload)
    else:
        tail = b"\0" + payload
    return encode_head(topic, flags, len(tail) + 2 if flags & 6 else len(tail)), tail


@lru_cache(maxsize=4096)
def encode_head(topic: bytes, flags: int, rest: int) -> bytes:
    """A PUBLISH up to its topic, where ``rest`` bytes follow the topic.

    Kept, because messages of one topic tend to have one size, and then all begin with the same bytes.
    """
    remaining = encode_varint(2 + len(topic) + rest)
    return b"%c%b%b%b" % (0x30 | flags, remaining, len(topic).to_bytes(2, "big"), topic)
