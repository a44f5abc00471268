"""MQTT frames for the load generator: encode once, send many times, and count what comes back in bulk.

Nothing of the broker's package is imported: a generator that shared the broker's codec would share its mistakes and its
cost. Two ideas make it fast enough not to be the bottleneck:

- A publisher sends slices of a `Ring`, one long string of frames encoded before the run.
- A receiver cuts its input with `cut` into *runs*: frames of the same kind and size standing back to back. Within a run
  the packet ids lie at a fixed stride, so one slice collects them all and one slice assignment builds all the answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK = 0x20, 0x30, 0x40, 0x50, 0x62, 0x70, 0x90
DISCONNECT = 0xE0
V311, V5 = 4, 5
SUBSCRIPTIONS_PER_PACKET = 100

# MQTT 5 section 2.2.2.2: the size of each property value that a CONNACK may hold; "s" is a string, "p" a pair of them.
_CONNACK_PROPERTIES: dict[int, int | str] = {
    0x11: 4, 0x12: "s", 0x13: 2, 0x15: "s", 0x16: "s", 0x1A: "s", 0x1C: "s", 0x1F: "s", 0x21: 2, 0x22: 2,
    0x24: 1, 0x25: 1, 0x26: "p", 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1,
}  # fmt: skip


class ProtocolError(Exception):
    """The broker sent what no broker should send to this load."""


def varint(value: int) -> bytes:
    """The variable byte integer of a remaining length."""
    out = bytearray()
    while True:
        value, low = divmod(value, 128)
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def read_varint(data: bytes, pos: int) -> tuple[int, int] | None:
    """(value, next position), or None where the bytes end too early."""
    value = shift = 0
    for k in range(pos, min(pos + 4, len(data))):
        value |= (data[k] & 0x7F) << shift
        shift += 7
        if data[k] < 0x80:
            return value, k + 1
    if len(data) - pos >= 4:
        raise ProtocolError("remaining length longer than four bytes")
    return None


def text(value: str) -> bytes:
    raw = value.encode()
    return len(raw).to_bytes(2, "big") + raw


def packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + varint(len(body)) + body


def connect(client_id: str, level: int = V311, clean: bool = True) -> bytes:
    """CONNECT without keep-alive; an MQTT 5 session that is not clean never expires."""
    expiry = b"" if clean else b"\x11\xff\xff\xff\xff"
    properties = varint(len(expiry)) + expiry if level == V5 else b""
    return packet(0x10, text("MQTT") + bytes((level, 2 if clean else 0, 0, 0)) + properties + text(client_id))


def subscribe(filters: Iterable[str], qos: int, level: int = V311, packet_id: int = 1) -> bytes:
    properties = b"\0" if level == V5 else b""
    body = b"".join(text(name) + bytes((qos,)) for name in filters)
    return packet(0x82, packet_id.to_bytes(2, "big") + properties + body)


def publish_head(topic: str, qos: int, packet_id: int, payload_size: int, level: int = V311) -> bytes:
    """A PUBLISH up to where its payload starts."""
    body = text(topic)
    if qos:
        body += packet_id.to_bytes(2, "big")
    if level == V5:
        body += b"\0"
    return bytes((PUBLISH | qos << 1,)) + varint(len(body) + payload_size) + body


def publish(topic: str, payload: bytes, qos: int = 0, packet_id: int = 0, level: int = V311) -> bytes:
    return publish_head(topic, qos, packet_id, len(payload), level) + payload


class Ring:
    """Frames of equal size in a circle, kept twice in a row so that any piece of the circle is one slice."""

    __slots__ = ("length", "stride", "_pos", "_view")

    def __init__(self, frames: Sequence[bytes]) -> None:
        self.length = len(frames)
        self.stride = len(frames[0])
        if any(len(frame) != self.stride for frame in frames):
            raise ValueError("the frames of a ring must be of one size")
        self._view = memoryview(b"".join(frames) * 2)
        self._pos = 0

    def take(self, count: int) -> memoryview:
        """The next `count` frames, at most `length`."""
        start = self._pos
        self._pos = (start + count) % self.length
        return self._view[start * self.stride : (start + count) * self.stride]


def publish_ring(topics: Sequence[str], size: int, qos: int, level: int, at_least: int) -> Ring:
    """PUBLISH frames over `topics` in turn, ids 1, 2, 3...; as many as a publisher may have unacknowledged."""
    rounds = -(-at_least // len(topics))
    count = rounds * len(topics)
    if count > 0xFFFF and qos:
        raise ValueError("more frames than packet ids")
    payload = b"x" * size
    return Ring([publish(topics[k % len(topics)], payload, qos, k + 1, level) for k in range(count)])


class Run(NamedTuple):
    """`frames` of one kind, `stride` bytes each, back to back from `start`; the body of each begins `head` bytes in."""

    first: int
    start: int
    frames: int
    stride: int
    head: int

    @property
    def stop(self) -> int:
        return self.start + self.frames * self.stride

    def column(self, data: bytes, offset: int) -> bytes:
        """The byte at `offset` of each frame."""
        return data[self.start + offset : self.stop : self.stride]


_patterns: dict[tuple[bytes, int], re.Pattern[bytes]] = {}


def _pattern(key: bytes, stride: int) -> re.Pattern[bytes]:
    """A regular expression for back-to-back frames that begin with `key`: C counts them at some 15 ns each."""
    found = _patterns.get((key, stride))
    if found is None:
        source = b"(?:" + re.escape(key) + b".{%d})+" % (stride - len(key))
        found = _patterns[key, stride] = re.compile(source, re.DOTALL)
    return found


def cut(data: bytes) -> Iterator[Run]:
    """The whole frames at the start of `data`, as runs in order; an unfinished frame at the end is left out."""
    pos, end = 0, len(data)
    while end - pos >= 2:
        if data[pos + 1] < 0x80:
            stride, head = data[pos + 1] + 2, 2
        else:
            length = read_varint(data, pos + 1)
            if length is None:
                return
            head = length[1] - pos
            stride = length[0] + head
        if pos + stride > end:
            return
        first = data[pos]
        if pos + stride == end:
            yield Run(first, pos, 1, stride, head)
            return
        # Frames of a PUBLISH run also share the topic's length, so that their packet ids stand at one offset.
        key = data[pos : pos + head + 2] if first & 0xF0 == PUBLISH else data[pos : pos + head]
        match = _pattern(key, stride).match(data, pos)
        if match is None:
            raise ProtocolError(f"PUBLISH too short for a topic: {data[pos : pos + 8].hex()}")
        many = (match.end() - pos) // stride
        yield Run(first, pos, many, stride, head)
        pos += many * stride


def packet_id_offset(data: bytes, run: Run) -> int:
    """Where the packet id stands in each frame of a run of PUBLISH or of acknowledgements."""
    if run.first & 0xF0 != PUBLISH:
        return run.head
    start = run.start + run.head
    return run.head + 2 + int.from_bytes(data[start : start + 2], "big")


def answer(data: bytes, run: Run, first: int) -> bytes:
    """The four-byte acknowledgements of type `first`, one for each frame of the run."""
    offset = packet_id_offset(data, run)
    head = bytes((first, 2))
    if run.frames == 1:
        at = run.start + offset
        return head + data[at : at + 2]
    out = bytearray((head + b"\0\0") * run.frames)
    out[2::4] = run.column(data, offset)
    out[3::4] = run.column(data, offset + 1)
    return bytes(out)


def failures(data: bytes, run: Run) -> int:
    """How many acknowledgements of the run carry a reason code that says the message goes nowhere (MQTT 5 only)."""
    if run.stride < run.head + 3:
        return 0
    codes = run.column(data, run.head + 2)
    if not any(codes):
        return 0
    return sum(code >= 0x80 or code == 0x10 for code in codes)


def check_connack(body: bytes) -> None:
    if len(body) < 2 or body[1]:
        raise ProtocolError(f"CONNECT refused with code 0x{body[1] if len(body) > 1 else 0:02x}")


def receive_maximum(body: bytes) -> int:
    """The broker's Receive Maximum in the body of an MQTT 5 CONNACK; 65,535 where it gives none."""
    length = read_varint(body, 2)
    if length is None:
        return 0xFFFF
    pos, end = length[1], length[1] + length[0]
    while pos < end:
        identifier = body[pos]
        pos += 1
        if identifier == 0x21:
            return int.from_bytes(body[pos : pos + 2], "big")
        size = _CONNACK_PROPERTIES.get(identifier)
        if size is None:
            raise ProtocolError(f"property 0x{identifier:02x} in a CONNACK")
        if isinstance(size, int):
            pos += size
            continue
        for _ in range(2 if size == "p" else 1):
            pos += 2 + int.from_bytes(body[pos : pos + 2], "big")
    return 0xFFFF


def check_suback(body: bytes, level: int) -> None:
    start = 2
    if level == V5:
        length = read_varint(body, 2)
        start = length[1] + length[0] if length else 2
    if len(body) <= start or max(body[start:]) >= 0x80:
        raise ProtocolError(f"SUBSCRIBE refused: {body[start:][:8].hex()}")
