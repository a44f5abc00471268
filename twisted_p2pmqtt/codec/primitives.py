"""The data representations of MQTT 5.0 section 1.5: integers, UTF-8 strings, binary data, variable byte integers.

Every decoder takes ``(data, pos, end)`` and gives ``(value, pos behind it)``; what does not fit before ``end`` raises
``MalformedPacket``.  Encoders give bytes.
"""

from __future__ import annotations

from twisted_p2pmqtt.codec.constants import MAX_REMAINING_LENGTH
from twisted_p2pmqtt.codec.errors import MalformedPacket


def decode_varint(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """A variable byte integer of one to four bytes, in the fewest bytes that hold it."""
    value = shift = 0
    for at in range(pos, min(pos + 4, end)):
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:  # [MQTT-1.5.5-1]
                raise MalformedPacket("variable byte integer is not in its shortest form")
            return value, at + 1
        shift += 7
    raise MalformedPacket("variable byte integer is cut off or longer than four bytes")


_ONE_BYTE = [bytes((value,)) for value in range(128)]


def encode_varint(value: int) -> bytes:
    """The fewest bytes that hold ``value`` (0 to 268,435,455)."""  # [MQTT-1.5.5-1]
    if 0 <= value < 128:
        return _ONE_BYTE[value]
    if value > MAX_REMAINING_LENGTH:
        raise ValueError(f"{value} does not fit a variable byte integer")
    out = bytearray()
    while value > 127:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode_byte(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """One byte, 0 to 255."""
    if pos >= end:
        raise MalformedPacket("packet ends before a byte")
    return data[pos], pos + 1


def decode_uint16(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """Two bytes, most significant first."""
    if pos + 2 > end:
        raise MalformedPacket("packet ends inside a two byte integer")
    return data[pos] << 8 | data[pos + 1], pos + 2


def decode_uint32(data: bytes, pos: int, end: int) -> tuple[int, int]:
    """Four bytes, most significant first."""
    if pos + 4 > end:
        raise MalformedPacket("packet ends inside a four byte integer")
    return int.from_bytes(data[pos : pos + 4], "big"), pos + 4


def decode_binary(data: bytes, pos: int, end: int) -> tuple[bytes, int]:
    """Binary data behind its two byte length."""
    start = pos + 2
    if start > end:
        raise MalformedPacket("packet ends inside the length of binary data")
    stop = start + (data[pos] << 8 | data[pos + 1])
    if stop > end:
        raise MalformedPacket("binary data is longer than its packet")
    return data[start:stop], stop


def encode_binary(value: bytes) -> bytes:
    """Two bytes of length and the bytes; at most 65,535."""  # [MQTT-4.7.3-3] [MQTT3-4.7.3-3]
    return len(value).to_bytes(2, "big") + value


def decode_text(raw: bytes) -> str:
    """The text of UTF-8 ``raw``; surrogates, overlong forms and U+0000 are malformed."""
    try:
        text = raw.decode()  # strict: refuses D800 to DFFF too  [MQTT-1.5.4-1] [MQTT3-1.5.3-1]
    except UnicodeDecodeError:
        raise MalformedPacket("string is not UTF-8") from None
    if "\0" in text:  # [MQTT-1.5.4-2] [MQTT-4.7.3-2] [MQTT3-1.5.3-2] [MQTT3-4.7.3-2]
        raise MalformedPacket("string holds U+0000")
    return text


def decode_string(data: bytes, pos: int, end: int) -> tuple[str, int]:
    """A UTF-8 string behind its two byte length.  A BOM is kept as it is."""  # [MQTT-1.5.4-3] [MQTT3-1.5.3-3]
    start = pos + 2  # as in decode_binary: strings are most of what is decoded, and a call costs as much as this
    if start > end:
        raise MalformedPacket("packet ends inside the length of a string")
    stop = start + (data[pos] << 8 | data[pos + 1])
    if stop > end:
        raise MalformedPacket("string is longer than its packet")
    return decode_text(data[start:stop]), stop


def encode_string(value: str) -> bytes:
    """Two bytes of length and the text in UTF-8; at most 65,535 bytes."""
    return encode_binary(value.encode())
