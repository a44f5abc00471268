"""Integers, strings and variable byte integers (MQTT 5.0 section 1.5), at their edges."""

import pytest

from twisted_p2pmqtt.codec.errors import MalformedPacket
from twisted_p2pmqtt.codec.primitives import (
    decode_binary,
    decode_byte,
    decode_string,
    decode_text,
    decode_uint16,
    decode_uint32,
    decode_varint,
    encode_binary,
    encode_string,
    encode_varint,
)

VARINTS = [  # 1.5.5, table 1-1
    (0, "00"),
    (1, "01"),
    (127, "7f"),
    (128, "8001"),
    (321, "c102"),
    (16_383, "ff7f"),
    (16_384, "808001"),
    (2_097_151, "ffff7f"),
    (2_097_152, "80808001"),
    (268_435_455, "ffffff7f"),
]


@pytest.mark.parametrize(("value", "sent"), VARINTS)
@pytest.mark.spec("MQTT-1.5.5-1")
def test_a_varint_and_its_fewest_bytes(value: int, sent: str) -> None:
    data = bytes.fromhex(sent)
    assert encode_varint(value) == data
    assert decode_varint(data, 0, len(data)) == (value, len(data))
    assert decode_varint(b"??" + data + b"?", 2, len(data) + 3) == (value, len(data) + 2)
    for end in range(len(data)):
        with pytest.raises(MalformedPacket):
            decode_varint(data, 0, end)


@pytest.mark.parametrize("sent", ["8000", "808000", "80808000", "8100", "ff00", "ffff00", "ffffff00"])
@pytest.mark.spec("MQTT-1.5.5-1")
def test_a_varint_in_more_bytes_than_it_needs(sent: str) -> None:
    with pytest.raises(MalformedPacket, match="shortest"):
        decode_varint(bytes.fromhex(sent), 0, len(sent) // 2)


@pytest.mark.parametrize("sent", ["80808080", "ffffffff", "8080808001", "ffffffff7f", "80808080808001"])
def test_a_varint_of_more_than_four_bytes(sent: str) -> None:
    with pytest.raises(MalformedPacket, match="four bytes"):
        decode_varint(bytes.fromhex(sent), 0, len(sent) // 2)


@pytest.mark.parametrize("value", [268_435_456, 1 << 40])
def test_no_varint_is_written_for_what_does_not_fit(value: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        encode_varint(value)


def test_integers_are_big_endian_and_whole() -> None:
    data = bytes.fromhex("00 fe dc ba 98")
    assert decode_byte(data, 1, 5) == (0xFE, 2)
    assert decode_uint16(data, 1, 5) == (0xFEDC, 3)
    assert decode_uint32(data, 1, 5) == (0xFEDCBA98, 5)
    for decode, size in ((decode_byte, 1), (decode_uint16, 2), (decode_uint32, 4)):
        for end in range(1, 1 + size):
            with pytest.raises(MalformedPacket):
                decode(data, 1, end)  # more bytes are there, but they are not this packet's


def test_binary_data_of_every_edge_size() -> None:
    for size in (0, 1, 255, 256, 65_535):
        data = encode_binary(size * b"\0")
        assert data[:2] == size.to_bytes(2, "big")
        assert decode_binary(data, 0, len(data)) == (size * b"\0", size + 2)
        with pytest.raises(MalformedPacket):
            decode_binary(data, 0, len(data) - 1)


@pytest.mark.spec("MQTT-4.7.3-3", "MQTT3-4.7.3-3")
def test_nothing_longer_than_65_535_bytes_is_written() -> None:
    assert encode_string(32_767 * "\xe9" + "e")[:2] == b"\xff\xff"
    for too_long in (65_536 * "e", 32_768 * "\xe9"):
        with pytest.raises(OverflowError):
            encode_string(too_long)


LEGAL_TEXTS = {
    "empty": "",
    "the example of 1.5.4": "41 f0aa9b94",
    "first and last of 1 byte": "01 7f",
    "first and last of 2 bytes": "c280 dfbf",
    "first and last of 3 bytes": "e0a080 efbfbf",
    "around the surrogates": "ed9fbf ee8080",
    "first and last of 4 bytes": "f0908080 f48fbfbf",
    "byte order mark before": "efbbbf 61",
    "byte order mark within": "61 efbbbf 61",
    "control characters": "01 1f 7f c280 c29f",
    "non-characters": "efb790 efbfbe",
}


@pytest.mark.parametrize("sent", LEGAL_TEXTS.values(), ids=LEGAL_TEXTS)
@pytest.mark.spec("MQTT-1.5.4-3", "MQTT3-1.5.3-3")
def test_text_is_kept_as_it_is(sent: str) -> None:
    raw = bytes.fromhex(sent)
    text = decode_text(raw)
    assert encode_string(text) == len(raw).to_bytes(2, "big") + raw
    assert decode_string(encode_string(text) + b"?", 0, len(raw) + 3) == (text, len(raw) + 2)


def test_a_byte_order_mark_is_a_character() -> None:
    assert decode_text(b"\xef\xbb\xbfa") == "\ufeffa"


ILLEGAL_TEXTS = {
    "continuation alone": "80",
    "continuation missing": "c3",
    "2 of 3 bytes": "e282",
    "3 of 4 bytes": "f09f98",
    "overlong NUL": "c080",
    "overlong slash in 2": "c0af",
    "overlong slash in 3": "e080af",
    "overlong slash in 4": "f08080af",
    "first surrogate": "eda080",
    "last surrogate": "edbfbf",
    "surrogate pair": "eda081edb080",
    "above U+10FFFF": "f4908080",
    "5 bytes": "f888808080",
    "6 bytes": "fc8480808080",
    "FE": "fe",
    "FF": "ff",
    "latin-1": "61e962",
}


@pytest.mark.parametrize("sent", ILLEGAL_TEXTS.values(), ids=ILLEGAL_TEXTS)
@pytest.mark.spec("MQTT-1.5.4-1", "MQTT3-1.5.3-1")
def test_text_that_is_not_utf_8(sent: str) -> None:
    raw = bytes.fromhex(sent)
    for around in (raw, b"a" + raw, raw + b"a"):
        with pytest.raises(MalformedPacket, match="not UTF-8"):
            decode_text(around)


@pytest.mark.spec("MQTT-1.5.4-1", "MQTT3-1.5.3-1")
def test_no_surrogate_is_a_character() -> None:
    for point in range(0xD800, 0xE000):
        with pytest.raises(MalformedPacket):
            decode_text(chr(point).encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize("raw", [b"\0", b"\0a", b"a\0", b"a\0a", "\xe9\0".encode()])
@pytest.mark.spec("MQTT-1.5.4-2", "MQTT3-1.5.3-2", "MQTT-4.7.3-2", "MQTT3-4.7.3-2")
def test_text_with_a_nul(raw: bytes) -> None:
    with pytest.raises(MalformedPacket, match=r"U\+0000"):
        decode_text(raw)
