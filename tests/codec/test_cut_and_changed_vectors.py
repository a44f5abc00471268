"""Golden vectors cut short, with reserved bits flipped, with any byte changed: refused or waited for, never misread."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.wire import OTHER_FORMS, VECTORS, Vector, comparable, message
from twisted_p2pmqtt.codec.constants import PacketType
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.errors import MalformedPacket, MQTTError
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import (
    Connect,
    Disconnect,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from twisted_p2pmqtt.codec.primitives import encode_varint
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import encode

every_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
PUBLISH = PacketType.PUBLISH
ACKNOWLEDGEMENTS = (Puback, Pubrec, Pubrel, Pubcomp)


def header_size(data: bytes) -> int:
    """Two bytes or three: no vector is longer than 16 KiB."""
    return 2 if data[1] < 128 else 3


@every_vector
def test_without_its_end_it_waits(vector: Vector) -> None:
    for size in range(1, len(vector.data)):
        reader = vector.reader()
        assert reader.feed(vector.data[:size]) == []
        assert reader.error is None
        assert reader.has_partial_packet
        assert list(map(comparable, reader.feed(vector.data[size:]))) == [comparable(vector.packet)]


def shorter_packets(packet: Packet) -> Iterator[Packet]:
    """The legal packets whose bytes are the beginning of this one's: all those with a payload that may end earlier."""
    if isinstance(packet, Message):
        for size in range(len(packet.payload)):
            flags = packet.retain | packet.dup
            yield message(packet.payload[:size], packet.topic, packet.qos, flags, packet.packet_id, packet.properties)
    elif isinstance(packet, Subscribe):
        for size in range(1, len(packet.requests)):
            yield Subscribe(packet.packet_id, packet.requests[:size], packet.properties)
    elif isinstance(packet, Unsubscribe):
        for size in range(1, len(packet.topic_filters)):
            yield Unsubscribe(packet.packet_id, packet.topic_filters[:size], packet.properties)
    elif isinstance(packet, Suback | Unsuback):
        for size in range(1, len(packet.reason_codes)):
            yield type(packet)(packet.packet_id, packet.reason_codes[:size], packet.properties)


def short_forms(vector: Vector) -> dict[bytes, Packet]:
    """What the vector's body may be cut to, and the packet that this is then."""
    version, packet = vector.version, vector.packet
    forms = {}
    for shorter in shorter_packets(packet):
        data = encode(shorter, version)
        forms[data[header_size(data) :]] = shorter
    body = vector.data[header_size(vector.data) :]
    if version == 5 and isinstance(packet, ACKNOWLEDGEMENTS):  # 3.4.2.1, 3.4.2.2.1 and their like
        forms[body[:2]] = type(packet)(packet.packet_id)
        forms[body[:3]] = type(packet)(packet.packet_id, packet.reason_code)
    elif version == 5 and isinstance(packet, Disconnect):  # 3.14.2.1, 3.14.2.2.1
        forms[b""] = Disconnect()
        forms[body[:1]] = Disconnect(packet.reason_code)
    elif version == 3 and isinstance(packet, Connect) and packet.username and packet.password:  # MQTT 3.1, section 3.1
        end = len(body) - 2 - len(packet.password)
        forms[body[:end]] = replace(packet, password=None)
        forms[body[: end - 2 - len(packet.username)]] = replace(packet, username=None, password=None)
    forms.pop(body, None)
    return forms


@every_vector
def test_cut_short_with_a_length_to_match_it_is_refused_or_a_legal_shorter_packet(vector: Vector) -> None:
    body = vector.data[header_size(vector.data) :]
    forms = short_forms(vector)
    met = 0
    for size in range(len(body)):
        cut = body[:size]
        reader = vector.reader()
        packets = reader.feed(vector.data[:1] + encode_varint(size) + cut)
        if cut in forms:
            met += 1
            assert reader.error is None, cut.hex(" ")
            assert list(map(comparable, packets)) == [comparable(forms[cut])]
        else:
            assert packets == [], cut.hex(" ")
            assert isinstance(reader.error, MQTTError), cut.hex(" ")
    assert met == len(forms)


def with_a_zero_more(vector: Vector) -> Packet | None:
    """The packet that the vector with a zero byte behind it is, if it is one."""
    packet = vector.packet
    if isinstance(packet, Message):
        flags = packet.retain | packet.dup
        return message(packet.payload + b"\0", packet.topic, packet.qos, flags, packet.packet_id, packet.properties)
    if isinstance(packet, Suback) or (vector.version == 5 and isinstance(packet, Unsuback)):
        return type(packet)(packet.packet_id, [*packet.reason_codes, 0], packet.properties)
    if vector.version == 5 and isinstance(packet, (*ACKNOWLEDGEMENTS, Disconnect)) and not packet.properties:
        return packet  # the zero is its reason code, or the length of its properties
    return None


@every_vector
def test_a_byte_too_many_is_refused_or_a_legal_longer_packet(vector: Vector) -> None:
    body = vector.data[header_size(vector.data) :] + b"\0"
    longer = with_a_zero_more(vector)
    reader = vector.reader()
    packets = reader.feed(vector.data[:1] + encode_varint(len(body)) + body)
    assert list(map(comparable, packets)) == ([] if longer is None else [comparable(longer)])
    assert isinstance(reader.error, MQTTError) == (longer is None)


@every_vector
@pytest.mark.spec("MQTT-2.1.3-1", "MQTT3-2.2.2-1", "MQTT3-2.2.2-2", "MQTT-3.6.1-1", "MQTT3-3.6.1-1", "MQTT-3.8.1-1")
@pytest.mark.spec(
    "MQTT3-3.8.1-1", "MQTT-3.10.1-1", "MQTT3-3.10.1-1", "MQTT-3.14.1-1", "MQTT3-3.14.1-1", "MQTT-3.15.1-1"
)
@pytest.mark.spec("MQTT-3.3.1-2", "MQTT3-3.3.1-2", "MQTT-3.3.1-4", "MQTT3-3.3.1-4")
def test_other_flags_in_the_fixed_header_are_refused(vector: Vector) -> None:
    first = vector.data[0]
    if first >> 4 == PUBLISH:
        illegal = [flags for flags in range(16) if flags & 6 == 6 or flags in (8, 9)]
    else:
        illegal = [flags for flags in range(16) if flags != first & 15]
    resent_in_31 = (0x6A, 0x8A, 0xAA) if vector.version == 3 else ()
    for changed in (first & 0xF0 | flags for flags in illegal):
        if changed in resent_in_31:
            continue
        for header_only in (True, False):
            reader = vector.reader()
            assert reader.feed(bytes((changed,)) + (b"" if header_only else vector.data[1:])) == []
            assert isinstance(reader.error, MalformedPacket)
            assert not reader.has_partial_packet


def test_reserved_bits_of_the_connect_flags() -> None:
    connects = [vector for vector in VECTORS if isinstance(vector.packet, Connect)]
    for vector in connects:
        changed = bytearray(vector.data)
        changed[11 if vector.version == 3 else 9] |= 1
        assert vector.reader().feed(bytes(changed)) == [], vector.name
    assert len(connects) > 10


@pytest.mark.parametrize(("version", "reserved"), [(3, 0xFC), (4, 0xFC), (5, 0xC0)])
@pytest.mark.spec("MQTT-3.8.3-5", "MQTT3-3.8.3-4")
def test_reserved_bits_of_the_subscription_options(version: int, reserved: int) -> None:
    sent = bytes.fromhex("82 07 0001 00 0001 61 00" if version == 5 else "82 06 0001 0001 61 00")
    for bit in (1 << number for number in range(8)):
        reader = PacketReader(version=version)
        packets = reader.feed(sent[:-1] + bytes((bit,)))
        if bit & reserved:
            assert packets == []
            assert isinstance(reader.error, MalformedPacket)
        else:
            assert encode(packets[0], version)[-1] == bit


@pytest.mark.parametrize("bit", [1 << number for number in range(1, 8)])
@pytest.mark.spec("MQTT-3.2.2-1")
def test_reserved_bits_of_the_connack_flags(bit: int) -> None:
    for version, sent in ((3, "20 02 00 00"), (4, "20 02 00 00"), (5, "20 03 00 00 00")):
        changed = bytearray.fromhex(sent)
        changed[2] = bit
        reader = PacketReader(version=version, from_server=True)
        assert reader.feed(bytes(changed)) == []
        assert isinstance(reader.error, MalformedPacket)


CHANGES = (0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xFF, 0x81)


@pytest.mark.parametrize("vector", [*VECTORS, *OTHER_FORMS], ids=lambda vector: vector.name)
def test_any_byte_changed_is_refused_waited_for_or_read_as_what_it_says(vector: Vector) -> None:
    """What is still read has to come back when it is written and read again: so it was understood."""
    for at in range(len(vector.data)):
        for change in CHANGES:
            changed = bytearray(vector.data)
            changed[at] ^= change
            reader = vector.reader()
            for packet in reader.feed(bytes(changed)):
                again = vector.reader()
                version = packet.version if isinstance(packet, Connect) else vector.version
                assert list(map(comparable, again.feed(encode(packet, version)))) == [comparable(packet)]
            assert reader.error is None or isinstance(reader.error, MQTTError)
