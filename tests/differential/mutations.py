"""Legal packets made illegal, byte by byte: each mutation is a mistake that some client has made.

``mutate`` gives other bytes and says what it did.  The remaining length is kept right unless that is the mistake, so
that a broker has a whole packet to judge.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connect, Disconnect, Subscribe, Unsubscribe
from twisted_p2pmqtt.codec.primitives import decode_varint, encode_varint

Mutation = tuple[bytes, str]

FLIPPED = "a bit of the first byte flipped"


def frame(first: int, body: bytes) -> bytes:
    """A packet around its body."""
    return bytes((first,)) + encode_varint(len(body)) + body


def body_of(data: bytes) -> bytes:
    """What stands behind the fixed header."""
    return data[decode_varint(data, 1, len(data))[1] :]


def mutate(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    """The packet, spoilt in one way."""
    own = _OF_PACKET.get(type(packet), [])
    return pick.choice([*_ANY, *own, *own])(pick, packet, data, version)


# --- any packet ------------------------------------------------------------------------------------------------------


def _flip_flags(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    return bytes((data[0] ^ (1 << pick.randrange(4)),)) + data[1:], FLIPPED


def _cut_end(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    body = body_of(data)
    if not body:
        return data, ""
    size = pick.randrange(len(body))
    return frame(data[0], body[:size]), f"cut to {size} bytes of {len(body)}"


def _add_end(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    more = pick.choice((b"\0", b"\0\1", b"\xff\xff\xff"))
    return frame(data[0], body_of(data) + more), f"{more.hex()} added at its end"


def _change_byte(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    body = bytearray(body_of(data))
    if not body:
        return data, ""
    at, value = pick.randrange(min(len(body), 12)), pick.choice((0, 1, 2, 0x7F, 0x80, 0xC0, 0xFF))
    body[at] = value
    return frame(data[0], bytes(body)), f"byte {at} of the body made {value:#04x}"


def _other_type(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    other = pick.choice((0x00, 0x20, 0x90, 0xB0, 0xD0, 0xF0, 0x10, 0x30, 0x60, 0x80))
    return bytes((other,)) + data[1:], f"its first byte made {other:#04x}"


def _endless_length(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    return data[:1] + b"\xff\xff\xff\xff\x01" + body_of(data), "a remaining length of five bytes"


def _twice_connect(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    name = b"\0\4MQTT" + bytes((version,)) + b"\2\0\x3c" + (b"\0" if version == 5 else b"") + b"\0\1z"
    return data + frame(0x10, name), "a CONNECT behind it"


_ANY: list[Callable[[random.Random, Any, bytes, int], Mutation]] = [
    _flip_flags,
    _cut_end,
    _add_end,
    _change_byte,
    _change_byte,
    _other_type,
    _endless_length,
    _twice_connect,
]

# --- properties ------------------------------------------------------------------------------------------------------

_BAD_PROPERTIES = {
    "twice": b"\x1f\0\1r\x1f\0\1r",
    "unknown": b"\x7f\0",
    "of another packet": b"\x13\0\x3c",
    "flag of 2": b"\x01\x02",
    "cut": b"\x26\0\1k",
    "alias 0": b"\x23\0\0",
    "alias 11": b"\x23\0\x0b",
    "identifier 0": b"\x0b\0",
    "identifier": b"\x0b\x05",
    "identifier twice": b"\x0b\x05\x0b\x06",
    "receive maximum 0": b"\x21\0\0",
    "packet size 0": b"\x27\0\0\0\0",
    "server reference": b"\x1c\0\1s",
    "wild response topic": b"\x08\0\2a+",
    "bad text": b"\x03\0\2\xc3\x28",
    "expiry twice": b"\x11\0\0\0\0\x11\0\0\0\0",
    "data without method": b"\x16\0\1d",
    "method": b"\x15\0\1m",
}


def _bad_property(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    """Put a property into the packet's property list."""
    if version < 5:
        return _change_byte(pick, packet, data, version)
    body = body_of(data)
    at = _properties_at(packet, body)
    if at is None:
        return data, ""
    size, behind = decode_varint(body, at, len(body)) if at < len(body) else (0, at)
    name = pick.choice(sorted(_BAD_PROPERTIES))
    bad = _BAD_PROPERTIES[name]
    changed = body[:at] + encode_varint(size + len(bad)) + bad + body[behind:]
    return frame(data[0], changed), f"with property: {name}"


def _properties_at(packet: Any, body: bytes) -> int | None:
    if isinstance(packet, Connect):
        return 10
    if isinstance(packet, Message):
        return 2 + len(packet.topic) + (2 if packet.qos else 0)
    if isinstance(packet, Subscribe | Unsubscribe):
        return 2
    if isinstance(packet, Disconnect) and body:
        return 1
    return None


# --- CONNECT ---------------------------------------------------------------------------------------------------------


def _connect_head(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    body = body_of(data)
    head, text = pick.choice(
        (
            (b"\0\4mqtt", "protocol name mqtt"),
            (b"\0\4MQTT\x06", "protocol level 6"),
            (b"\0\4MQTT\x03", "protocol level 3"),
            (b"\0\4MQTT\x84", "protocol level 0x84"),
            (b"\0\4MQTT\0", "protocol level 0"),
        )
    )
    return frame(data[0], head + body[len(head) :]), text


def _connect_flags(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    body = bytearray(body_of(data))
    bit = 1 << pick.randrange(8)
    body[7] ^= bit
    return frame(data[0], bytes(body)), f"connect flag {bit:#04x} flipped"


def _connect_id(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    old = packet.client_id.encode()
    new = pick.choice((b"\xff\xfe", b"a\0b", b"\xed\xa0\x80", b"x" * len(old)))
    body = body_of(data).replace(len(old).to_bytes(2, "big") + old, len(new).to_bytes(2, "big") + new, 1)
    if not old or new.startswith(b"x"):
        return data, ""
    return frame(data[0], body), f"client id {new!r}"


def _before_connect(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    first = pick.choice((b"\x30\4\0\1ax", b"\xc0\0", b"\xe0\0", b"\x82\6\0\1\0\1a\0", b"\xf0\0", b"\x40\2\0\1"))
    return first + data, f"{first.hex()} before it"


# --- PUBLISH ---------------------------------------------------------------------------------------------------------


def _topic(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    new = pick.choice((b"a/+", b"#", b"", b"a\0", b"\xff", b"\xed\xa0\x80", b"a#b", b"$SYS/x", b"$share/g/a"))
    body = new_body = body_of(data)
    new_body = len(new).to_bytes(2, "big") + new + body[2 + len(packet.topic) :]
    return frame(data[0], new_body), f"topic {new!r}"


def _qos_3(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    return bytes((data[0] | 6,)) + data[1:], "qos 3"


def _id_0(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    if isinstance(packet, Message):
        if not packet.qos:
            return bytes((data[0] | 8,)) + data[1:], "DUP at qos 0"
        at = 2 + len(packet.topic)
    else:
        at = 0
    body = body_of(data)
    return frame(data[0], body[:at] + b"\0\0" + body[at + 2 :]), "packet id 0"


# --- SUBSCRIBE, UNSUBSCRIBE ------------------------------------------------------------------------------------------


def _no_filters(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    return frame(data[0], body_of(data)[:2] + (b"\0" if version == 5 else b"")), "without a filter"


def _options(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    body = bytearray(body_of(data))
    body[-1] = value = pick.choice((0x03, 0x30, 0x40, 0x80, 0x08 if version < 5 else 0xC0))
    return frame(data[0], bytes(body)), f"options {value:#04x}"


def _filter(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    new = pick.choice(
        b"a\0 \xff  a# #/a a+ $share $share/ $share/g $share/g/ $share//a".split(b" ")
        + b"$share/+/a $share/g#/a $share/g/a# $SYS/#/x $sharex/a".split(b" ")
    )
    tail = b"\0" if isinstance(packet, Subscribe) else b""
    head = body_of(data)[:2] + (b"\0" if version == 5 else b"")
    return frame(data[0], head + len(new).to_bytes(2, "big") + new + tail), f"filter {new!r}"


def _shared_no_local(pick: random.Random, packet: Any, data: bytes, version: int) -> Mutation:
    if version < 5:
        return _options(pick, packet, data, version)
    return frame(data[0], body_of(data)[:2] + b"\0\0\x0a$share/g/a\x04"), "a shared filter with No Local"


_OF_PACKET: dict[type, list[Callable[[random.Random, Any, bytes, int], Mutation]]] = {
    Connect: [_connect_head, _connect_flags, _connect_flags, _connect_id, _before_connect, _bad_property],
    Message: [_topic, _topic, _qos_3, _id_0, _bad_property, _bad_property],
    Subscribe: [_no_filters, _options, _options, _filter, _filter, _id_0, _bad_property, _shared_no_local],
    Unsubscribe: [_no_filters, _filter, _id_0, _bad_property],
    Disconnect: [_bad_property, _bad_property],
}
