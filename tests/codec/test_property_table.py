"""The 27 properties of MQTT 5.0, each in every packet: where it may stand, how often, and with which values.

``SPECIFIED`` is the specification's table 2-4 once more, written from the text and in its letters.
"""

import copy
import pickle
from typing import NamedTuple

import pytest

from twisted_p2pmqtt.codec.constants import PacketType, ReasonCode
from twisted_p2pmqtt.codec.errors import MalformedPacket, ProtocolViolation
from twisted_p2pmqtt.codec.primitives import encode_varint
from twisted_p2pmqtt.codec.properties import (
    NO_PROPERTIES,
    TABLE,
    WILL,
    SharedProperties,
    decode_properties,
    encode_properties,
    encode_property_body,
)

PACKETS = {
    "C": PacketType.CONNECT,
    "W": WILL,
    "c": PacketType.CONNACK,
    "P": PacketType.PUBLISH,
    "a": PacketType.PUBACK,
    "r": PacketType.PUBREC,
    "l": PacketType.PUBREL,
    "o": PacketType.PUBCOMP,
    "S": PacketType.SUBSCRIBE,
    "s": PacketType.SUBACK,
    "U": PacketType.UNSUBSCRIBE,
    "u": PacketType.UNSUBACK,
    "D": PacketType.DISCONNECT,
    "A": PacketType.AUTH,
}


class Row(NamedTuple):
    """A property: its name, the packets that it may be in, its bytes and what they say; the values out of its range."""

    name: str
    packets: str
    sent: str
    value: object
    refused: tuple[str, ...] = ()


SPECIFIED = [
    Row("payload_format_indicator", "PW", "01 01", 1, ("01 02", "01 ff")),
    Row("message_expiry_interval", "PW", "02 00000000", 0),
    Row("content_type", "PW", "03 0002 c3a9", "\xe9"),
    Row("response_topic", "PW", "08 0003 612f62", "a/b"),
    Row("correlation_data", "PW", "09 0002 00ff", b"\x00\xff"),
    Row("subscription_identifiers", "PS", "0b 8001", [128], ("0b 00",)),
    Row("session_expiry_interval", "CcD", "11 ffffffff", 0xFFFFFFFF),
    Row("assigned_client_identifier", "c", "12 0001 61", "a"),
    Row("server_keep_alive", "c", "13 0102", 258),
    Row("authentication_method", "CcA", "15 0001 61", "a"),
    Row("authentication_data", "CcA", "16 0000", b""),
    Row("request_problem_information", "C", "17 00", 0, ("17 02",)),
    Row("will_delay_interval", "W", "18 01020304", 0x01020304),
    Row("request_response_information", "C", "19 01", 1, ("19 02",)),
    Row("response_information", "c", "1a 0000", ""),
    Row("server_reference", "cD", "1c 0001 61", "a"),
    Row("reason_string", "carlosuDA", "1f 0001 61", "a"),
    Row("receive_maximum", "Cc", "21 ffff", 65535, ("21 0000",)),
    Row("topic_alias_maximum", "Cc", "22 0000", 0),
    Row("topic_alias", "P", "23 0001", 1, ("23 0000",)),
    Row("maximum_qos", "c", "24 00", 0, ("24 02",)),
    Row("retain_available", "c", "25 01", 1, ("25 02",)),
    Row("user_properties", "CWcParloSsUuDA", "26 0001 61 0000", [("a", "")]),
    Row("maximum_packet_size", "Cc", "27 00000001", 1, ("27 00000000",)),
    Row("wildcard_subscription_available", "c", "28 00", 0, ("28 02",)),
    Row("subscription_identifier_available", "c", "29 01", 1, ("29 02",)),
    Row("shared_subscription_available", "c", "2a 00", 0, ("2a 80",)),
]
REPEATABLE = {"user_properties", "subscription_identifiers"}
every_row = pytest.mark.parametrize("row", SPECIFIED, ids=lambda row: row.name)


def listed(sent: str) -> bytes:
    """These properties with their length in front."""
    body = bytes.fromhex(sent)
    return encode_varint(len(body)) + body


def refuse(data: bytes, packet: int, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        decode_properties(data, 0, len(data), packet)
    assert caught.type is error


def test_all_properties_are_specified() -> None:
    assert [row.name for row in SPECIFIED] == [row.name for row in TABLE.values()]


@every_row
def test_where_it_may_stand(row: Row) -> None:
    data = listed(row.sent)
    for letter, packet in PACKETS.items():
        if letter in row.packets:
            assert decode_properties(data, 0, len(data), packet) == ({row.name: row.value}, len(data))
        else:  # 2.2.2.2: an identifier that is not valid for its packet type is malformed
            refuse(data, packet, ProtocolViolation if packet == WILL else MalformedPacket)


@every_row
def test_it_is_written_as_it_is_read(row: Row) -> None:
    assert encode_properties({row.name: row.value}) == listed(row.sent)  # type: ignore[misc]  # a name from a table
    assert encode_property_body({row.name: row.value}) == bytes.fromhex(row.sent)  # type: ignore[misc]  # a name from a table


@every_row
def test_twice(row: Row) -> None:
    data = listed(row.sent + row.sent)
    packet = PACKETS[row.packets[0]]
    if row.name in REPEATABLE:
        value = row.value
        assert isinstance(value, list)
        assert decode_properties(data, 0, len(data), packet)[0] == {row.name: value + value}
    else:
        refuse(data, packet, ProtocolViolation)


@every_row
def test_values_out_of_its_range(row: Row) -> None:
    for sent in row.refused:
        for letter in row.packets:
            refuse(listed(sent), PACKETS[letter], ProtocolViolation)


@every_row
def test_cut_anywhere(row: Row) -> None:
    body = bytes.fromhex(row.sent)
    packet = PACKETS[row.packets[0]]
    for size in range(1, len(body)):
        refuse(encode_varint(size) + body[:size], packet, MalformedPacket)  # the length ends it within
        refuse(encode_varint(len(body)) + body[:size], packet, MalformedPacket)  # the packet does


@pytest.mark.spec("MQTT-3.3.2-8")
def test_a_topic_alias_of_zero_has_a_reason_code_of_its_own() -> None:
    with pytest.raises(ProtocolViolation) as caught:
        decode_properties(listed("23 0000"), 0, 4, PacketType.PUBLISH)
    assert caught.value.reason_code is ReasonCode.TOPIC_ALIAS_INVALID


@pytest.mark.parametrize("identifier", sorted(set(range(256)) - set(TABLE)))
def test_identifiers_that_are_not_specified(identifier: int) -> None:
    refuse(listed((encode_varint(identifier) + b"\0").hex()), PacketType.CONNACK, MalformedPacket)


@pytest.mark.spec("MQTT-1.5.5-1")
def test_identifiers_and_lengths_take_their_fewest_bytes() -> None:
    refuse(bytes.fromhex("03 a400 00"), PacketType.CONNACK, MalformedPacket)
    refuse(bytes.fromhex("8200 24 00"), PacketType.CONNACK, MalformedPacket)
    refuse(bytes.fromhex("8000"), PacketType.CONNACK, MalformedPacket)


def test_the_length_is_the_packets_business_too() -> None:
    for sent in ("", "80", "02 24", "7f 24 00", "ffffffff 24 00", "ffffffff7f 24 00"):
        refuse(bytes.fromhex(sent), PacketType.CONNACK, MalformedPacket)


@pytest.mark.parametrize(
    "sent", ["26 0001 ff 0001 61", "26 0001 61 0001 ff", "26 0001 00 0001 61", "26 0001 61 0001 00"]
)
@pytest.mark.spec("MQTT-1.5.7-1")
def test_both_halves_of_a_pair_are_strings(sent: str) -> None:
    refuse(listed(sent), PacketType.PUBLISH, MalformedPacket)


@pytest.mark.parametrize("identifier", ["03", "08", "12", "15", "1a", "1c", "1f"])
@pytest.mark.spec("MQTT-1.5.4-1", "MQTT-1.5.4-2", "MQTT-3.3.2-13", "MQTT-3.3.2-19")
def test_every_string_is_utf_8(identifier: str) -> None:
    packet = PacketType.PUBLISH if identifier in ("03", "08") else PacketType.CONNACK
    for text in ("ff", "00", "c080", "eda080"):
        refuse(listed(f"{identifier} 000{len(text) // 2} {text}"), packet, MalformedPacket)


def test_user_properties_keep_their_order_among_others() -> None:
    sent = "26 0001 62 0001 31 1f 0001 78 26 0001 61 0001 32 26 0001 62 0001 31"
    found, _ = decode_properties(listed(sent), 0, 26, PacketType.PUBACK)
    assert found == {"user_properties": [("b", "1"), ("a", "2"), ("b", "1")], "reason_string": "x"}


@pytest.mark.spec("MQTT-2.2.2-1")
def test_no_properties_are_a_zero_and_one_object_for_all() -> None:
    assert decode_properties(b"\0", 0, 1, PacketType.CONNECT) == ({}, 1)
    assert decode_properties(b"\0", 0, 1, PacketType.CONNECT)[0] is NO_PROPERTIES
    assert encode_properties({}) == encode_properties(NO_PROPERTIES) == b"\0"


def test_the_shared_empty_list_cannot_be_written_to() -> None:
    with pytest.raises(TypeError):
        NO_PROPERTIES["topic_alias"] = 1
    with pytest.raises(TypeError):
        NO_PROPERTIES.setdefault("topic_alias", 1)
    with pytest.raises(TypeError):
        NO_PROPERTIES.update({"topic_alias": 1})
    assert not NO_PROPERTIES
    assert {**NO_PROPERTIES, "topic_alias": 1} == {"topic_alias": 1}


def test_a_copy_of_a_shared_list_is_ones_own() -> None:
    shared = SharedProperties(user_properties=[("a", "b")])
    for made in (copy.copy(shared), copy.deepcopy(shared), pickle.loads(pickle.dumps(shared))):
        assert made == shared
        made["topic_alias"] = 1
    assert "topic_alias" not in shared
