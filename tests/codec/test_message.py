"""Message: its payload, and the frames that it makes for its receivers."""

import pytest

from tests.wire import comparable, message
from twisted_p2pmqtt.codec.message import DUP, RETAIN, Message, encode_halves
from twisted_p2pmqtt.codec.packets import Puback
from twisted_p2pmqtt.codec.properties import NO_PROPERTIES
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import (
    PACKET_ID,
    PINGRESP,
    PUBACK_HEAD,
    PUBCOMP_HEAD,
    PUBREC_HEAD,
    PUBREL_HEAD,
    encode,
)


def read(sent: str, version: int) -> Message:
    (packet,) = PacketReader(version=version).feed(bytes.fromhex(sent))
    assert isinstance(packet, Message)
    return packet


def test_a_plain_publish_goes_out_as_it_came() -> None:
    in_311, in_5 = "30 06 0003 612f62 78", "30 07 0003 612f62 00 78"
    first, second = read(in_311, 4), read(in_5, 5)
    assert first.frame_v3 == bytes.fromhex(in_311)
    assert second.frame_v5 == bytes.fromhex(in_5)
    for received in (first, second):
        assert received.payload == b"x"
        for version, frame in ((3, in_311), (4, in_311), (5, in_5)):
            assert received.frame(version) == bytes.fromhex(frame)
            assert received.frame(version) is received.frame(version)  # encoded once


@pytest.mark.parametrize(
    ("sent", "version", "frame_v3", "frame_v5"),
    [
        ("31 06 0003 612f62 78", 4, "30 06 0003 612f62 78", "30 07 0003 612f62 00 78"),
        ("32 08 0003 612f62 0001 78", 4, "30 06 0003 612f62 78", "30 07 0003 612f62 00 78"),
        ("3d 09 0003 612f62 0001 00 78", 5, "30 06 0003 612f62 78", "30 07 0003 612f62 00 78"),
        ("30 09 0003 612f62 02 01 01 78", 5, "30 06 0003 612f62 78", "30 09 0003 612f62 02 01 01 78"),
        ("30 06 0003 612f62 00", 5, "30 05 0003 612f62", "30 06 0003 612f62 00"),
    ],
)
@pytest.mark.spec("MQTT-3.3.1-3", "MQTT3-3.3.1-3", "MQTT-3.3.1-12", "MQTT3-3.3.1-9")
def test_frames_are_qos_0_not_retained_and_without_dup(sent: str, version: int, frame_v3: str, frame_v5: str) -> None:
    received = read(sent, version)
    assert received.frame(3) == received.frame(4) == bytes.fromhex(frame_v3)
    assert received.frame(5) == bytes.fromhex(frame_v5)


@pytest.mark.spec("MQTT-3.3.2-4", "MQTT-3.3.2-15", "MQTT-3.3.2-16", "MQTT-3.3.2-17", "MQTT-3.3.2-18", "MQTT-3.3.2-20")
def test_properties_go_on_as_they_came() -> None:
    pairs = "26 0001 62 0001 31 26 0001 61 0001 32 26 0001 62 0001 31"
    sent = f"30 2a 0003 612f62 23 01 01 08 0001 72 09 0001 ff 03 0001 74 {pairs} 78"
    received = read(sent, 5)
    assert received.properties == {
        "payload_format_indicator": 1,
        "response_topic": "r",
        "correlation_data": b"\xff",
        "content_type": "t",
        "user_properties": [("b", "1"), ("a", "2"), ("b", "1")],
    }
    assert received.frame(5) == bytes.fromhex(sent)


def test_halves_leave_room_for_the_packet_id() -> None:
    for version, tail in ((3, b"x"), (4, b"x"), (5, b"\0x")):
        for flags in (2, 2 | RETAIN, 4 | DUP, 4 | DUP | RETAIN):
            head, end = message().halves(version, flags)
            assert head == bytes((0x30 | flags, 7 + len(tail))) + b"\0\3a/b"
            assert end == tail
    head, end = message().halves(4, RETAIN)
    assert head + end == bytes.fromhex("31 06 0003 612f62 78")


def test_properties_are_encoded_once() -> None:
    published = message(properties={"content_type": "t"})
    assert published.encoded_properties() == bytes.fromhex("04 03 0001 74")
    assert published.encoded_properties() is published.encoded_properties()
    assert published.property_body == bytes.fromhex("03 0001 74")
    assert message().property_body == b""
    long = message(properties={"content_type": "t" * 200})
    assert long.property_body == bytes.fromhex("03 00c8") + b"t" * 200
    published.readdress(b"c", {"content_type": "u"}, bytes.fromhex("04 03 0001 75"))
    assert published.frame(5) == bytes.fromhex("30 09 0001 63 04 03 0001 75 78")


def test_extra_properties_stand_behind_the_messages_own() -> None:
    published = message(properties={"content_type": "t"})
    head, tail = published.halves(5, 2, b"\x0b\x01\x0b\x02")
    sent = head + PACKET_ID[7] + tail
    (received,) = PacketReader(version=5, from_server=True).feed(sent)
    assert isinstance(received, Message)
    assert received.properties == {"content_type": "t", "subscription_identifiers": [1, 2]}
    assert (received.packet_id, received.qos, received.payload) == (7, 1, b"x")
    assert published.properties == {"content_type": "t"}


@pytest.mark.parametrize("size", [0, 120, 121, 122, 123, 16_377, 16_378, 16_379, 2_097_144, 2_097_145])
def test_remaining_lengths_of_every_size(size: int) -> None:
    for version in (4, 5):
        head, tail = encode_halves(b"a/b", bytes(size), 2, b"" if version == 4 else b"\0")
        reader = PacketReader(version=version)
        (received,) = reader.feed(head + b"\0\1" + tail)
        assert isinstance(received, Message)
        assert received.payload == bytes(size)
        assert not reader.has_partial_packet


def test_readdressing_forgets_the_frames() -> None:
    received = read("30 07 0003 612f62 00 78", 5)
    received.frame(4), received.halves(5, 2)
    received.readdress(b"c", {"content_type": "t"})
    assert received.frame(4) == bytes.fromhex("30 04 0001 63 78")
    assert received.frame(5) == bytes.fromhex("30 09 0001 63 04 03 0001 74 78")
    assert received.halves(4, 2) == (bytes.fromhex("32 06 0001 63"), b"x")


def test_what_a_message_says_of_itself() -> None:
    received = read("3d 09 0003 612f62 0005 7879", 4)
    assert comparable(received) == (b"a/b", b"xy", (2, RETAIN, DUP), 5, {})
    assert received.properties is NO_PROPERTIES
    assert received.expires_at is None
    assert received.size == 5  # topic and payload are kept
    made = Message(b"a/b", b"xy")
    assert comparable(made) == (b"a/b", b"xy", (0, 0, 0), 0, {})
    assert made.size == 5


def test_ready_made_bytes_are_what_the_encoders_make() -> None:
    assert PINGRESP == b"\xd0\0"
    assert PUBACK_HEAD + PACKET_ID[258] == encode(Puback(258), 5) == bytes.fromhex("40 02 0102")
    assert (PUBREC_HEAD, PUBREL_HEAD, PUBCOMP_HEAD) == (b"\x50\2", b"\x62\2", b"\x70\2")
    assert len(PACKET_ID) == 65536
    assert PACKET_ID[0] == b"\0\0"
    assert PACKET_ID[65535] == b"\xff\xff"
