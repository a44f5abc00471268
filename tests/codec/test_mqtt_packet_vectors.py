"""151 vectors of another implementation, npm's mqtt-packet: each holds, or stands here with the sentence that decides.

The file and its licence are in tests/data.  mqtt-packet reads both directions with one parser and goes on behind an
error; our reader is told who is speaking and stops.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.wire import comparable, read_all
from twisted_p2pmqtt.codec.constants import PacketType
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.errors import MQTTError, PacketTooLarge
from twisted_p2pmqtt.codec.message import DUP, RETAIN, Message
from twisted_p2pmqtt.codec.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    Will,
)
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import encode

Fields = dict[str, Any]
DATA = Path(__file__).parents[1] / "data" / "mqtt-packet.json"
VECTORS: list[Fields] = json.loads(DATA.read_text(encoding="utf-8"))["vectors"]

NAME_OF_ANOTHER_LEVEL = "mqtt-packet-011"  # MQIsdp with level 4, which we cannot write either
HUGE = "mqtt-packet-083"  # 256 MiB, tested by its beginning alone

# What mqtt-packet reads and we refuse
WE_REFUSE = {
    # 3.1.1, 3.1.2.1: "The Protocol Name is a UTF-8 encoded string that represents the protocol name "MQTT"" for level 4
    NAME_OF_ANOTHER_LEVEL,
    # 5.0, 3.2.2: "The Variable Header of the CONNACK Packet contains the following fields in the order: Connect
    # Acknowledge Flags, Connect Reason Code, and Properties."
    "mqtt-packet-032",
    # 5.0, 2.2.2.1: "If there are no properties, this MUST be indicated by including a Property Length of zero"
    # [MQTT-2.2.2-1]; for CONNACK no sentence allows to leave it out
    "mqtt-packet-033",
    # 5.0, 3.2.2.3.4: "It is a Protocol Error to include Maximum QoS more than once, or to have a value other than 0
    # or 1."
    "mqtt-packet-070",
    "mqtt-packet-071",
    # 5.0, 3.15.2.2.2: "It is a Protocol Error to omit the Authentication Method or to include it more than once."
    "mqtt-packet-140",
}
# What mqtt-packet refuses and we read
WE_READ = {
    # 3.1, 3.1: "Server implementations must allow for the possibility that the User Name flag is set, but the User Name
    # string is missing.  This is valid, and connections should be allowed to continue."
    "mqtt-packet-055",
}
# What we write in fewer bytes
WE_WRITE_LESS = {
    # 5.0, 3.4.2.2.1: "If the Remaining Length is less than 4 there is no Property Length and the value of 0 is used."
    "mqtt-packet-093",
    # 5.0, 3.14.2.1: "The Reason Code and Property Length can be omitted if the Reason Code is 0x00 (Normal
    # disconnecton) and there are no Properties."
    "mqtt-packet-039",
    "mqtt-packet-136",
}
# Not the packet's fields but mqtt-packet's default for one that is missing: clean session
DEFAULTED = {"mqtt-packet-021"}
# 5.0, 4.13.1: on a malformed packet the receiver closes; 3.1.1, 4.8: "it MUST close the Network Connection on which it
# received that Control Packet which caused the protocol violation" [MQTT3-4.8.0-1], so nothing behind it is read
STOPS_AT_ERROR = {"mqtt-packet-150"}

ACKNOWLEDGEMENTS: dict[str, Any] = {"PUBACK": Puback, "PUBREC": Pubrec, "PUBREL": Pubrel, "PUBCOMP": Pubcomp}
LISTS = {"user_property": "user_properties", "subscription_identifier": "subscription_identifiers"}


def properties_of(fields: Fields) -> Any:
    """``[name, value]`` pairs as our dict."""
    found: Fields = {}
    for name, value in fields.get("properties", ()):
        if isinstance(value, dict):
            found[name] = bytes.fromhex(value["hex"])
        elif name in LISTS:
            found.setdefault(LISTS[name], []).append(tuple(value) if isinstance(value, list) else value)
        else:
            found[name] = value
    return found


def connect_of(fields: Fields, version: int) -> Connect:
    will = fields["will"]
    if will is not None:
        payload = bytes.fromhex(will["payload_hex"])
        will = Will(will["topic"], payload, will["qos"], will["retain"], properties_of(will))
    password = fields["password_hex"]
    return Connect(
        fields["client_id"],
        fields.get("protocol_version", version),
        fields["clean_start"],
        fields["keep_alive"],
        fields["username"],
        None if password is None else bytes.fromhex(password),
        will,
        properties_of(fields),
        fields["bridge"],
    )


def publish_of(fields: Fields) -> Message:
    payload = fields["payload_hex"]
    return Message(
        fields["topic"].encode(),
        bytes.fromhex(payload),
        0,
        fields["qos"],
        RETAIN if fields["retain"] else 0,
        DUP if fields["dup"] else 0,
        fields["packet_id"] or 0,
        properties_of(fields),
    )


def subscribe_of(fields: Fields) -> Subscribe:
    requests = [
        SubscriptionRequest(
            each["filter"],
            each["qos"],
            each.get("no_local", False),
            each.get("retain_as_published", False),
            each.get("retain_handling", 0),
        )
        for each in fields["subscriptions"]
    ]
    return Subscribe(fields["packet_id"], requests, properties_of(fields))


def packet_of(fields: Fields, version: int) -> Packet:
    """Our packet of these fields."""
    kind, properties = fields["type"], properties_of(fields)
    if kind in ACKNOWLEDGEMENTS:
        acknowledgement: Packet = ACKNOWLEDGEMENTS[kind](fields["packet_id"], fields.get("reason_code", 0), properties)
        return acknowledgement
    simple: dict[str, Any] = {
        "CONNECT": lambda: connect_of(fields, version),
        "PUBLISH": lambda: publish_of(fields),
        "SUBSCRIBE": lambda: subscribe_of(fields),
        "CONNACK": lambda: Connack(
            fields["session_present"], fields["reason_code" if version == 5 else "return_code"], properties
        ),
        "SUBACK": lambda: Suback(fields["packet_id"], fields["codes"], properties),
        "UNSUBSCRIBE": lambda: Unsubscribe(fields["packet_id"], fields["filters"], properties),
        "UNSUBACK": lambda: Unsuback(fields["packet_id"], fields.get("codes", []), properties),
        "PINGREQ": Pingreq,
        "PINGRESP": Pingresp,
        "DISCONNECT": lambda: Disconnect(fields.get("reason_code", 0), properties),
        "AUTH": lambda: Auth(fields["reason_code"], properties),
    }
    packet: Packet = simple[kind]()
    return packet


def reader_for(data: bytes, version: int | None) -> PacketReader:
    """A reader in the state in which this packet may come, from the side that may send it."""
    kind = data[0] >> 4
    if kind == PacketType.CONNECT:
        return PacketReader()
    only_from_client = (PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE, PacketType.PINGREQ)
    return PacketReader(version=version or 4, from_server=kind not in only_from_client)


def of(*operations: str, without: tuple[str, ...] = (HUGE,)) -> pytest.MarkDecorator:
    """Every vector with one of these operations."""
    chosen = [
        pytest.param(each, id=each["id"]) for each in VECTORS if each["op"] in operations and each["id"] not in without
    ]
    return pytest.mark.parametrize("vector", chosen)


@of("decode", "decode+encode")
def test_decode(vector: Fields) -> None:
    data = bytes.fromhex(vector["hex"])
    reader = reader_for(data, vector["version"])
    packets = reader.feed(data)
    if vector["id"] in WE_REFUSE:
        assert packets == []
        assert isinstance(reader.error, MQTTError)
    else:
        assert reader.error is None
        wanted = packet_of(vector["packet"], vector["version"])
        assert list(map(comparable, packets)) == [comparable(wanted)]


@of("encode", "decode+encode", without=(HUGE, NAME_OF_ANOTHER_LEVEL))
def test_encode(vector: Fields) -> None:
    packet = packet_of(vector["packet"], vector["version"])
    if vector["id"] in DEFAULTED:
        assert isinstance(packet, Connect)
        assert not packet.clean_start
        packet.clean_start = True
    data = bytes.fromhex(vector["hex"])
    written = encode(packet, vector["version"])
    if vector["id"] in WE_WRITE_LESS:
        assert len(written) < len(data)
        assert reader_for(data, 5).feed(written) == reader_for(data, 5).feed(data) == [packet]
    else:
        assert written.hex() == data.hex()


@of("decode-error")
def test_decode_error(vector: Fields) -> None:
    data = bytes.fromhex(vector["hex"])
    reader = reader_for(data, vector["version"])
    packets = reader.feed(data)
    if vector["id"] in WE_READ:
        assert reader.error is None
        assert [type(packet) for packet in packets] == [Connect]
    else:
        assert packets == []
        assert isinstance(reader.error, MQTTError)


@of("stream")
def test_stream(vector: Fields) -> None:
    chunks = [bytes.fromhex(chunk) for chunk in vector["chunks"]]
    reader = reader_for(chunks[0], vector["version"])
    packets = read_all(reader, *chunks)
    wanted = [packet_of(fields, vector["version"] or 4) for fields in vector["packets"]]
    if vector["id"] in STOPS_AT_ERROR:
        wanted = wanted[:1]
    assert list(map(comparable, packets)) == list(map(comparable, wanted))
    assert isinstance(reader.error, MQTTError) == (vector["error"] is not None)


def test_the_largest_packet() -> None:
    (vector,) = (each for each in VECTORS if each["id"] == HUGE)
    head = bytes.fromhex(vector["hex"]["head"])
    reader = reader_for(head, 4)
    assert reader.feed(head) == []
    assert reader.error is None
    assert reader.has_partial_packet
    small = PacketReader(vector["hex"]["total"] - 1, version=4)
    assert small.feed(head) == []
    assert isinstance(small.error, PacketTooLarge)


def test_all_vectors_are_played_and_all_exceptions_needed() -> None:
    ids = {each["id"] for each in VECTORS}
    assert len(ids) == len(VECTORS) == 151
    assert {each["op"] for each in VECTORS} == {"decode", "encode", "decode+encode", "decode-error", "stream"}
    assert ids >= WE_REFUSE | WE_READ | WE_WRITE_LESS | DEFAULTED | STOPS_AT_ERROR | {HUGE}
