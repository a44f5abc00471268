"""Golden vectors: what stands on the wire, and the packet that it is.

Written by hand from the specifications (MQTT 3.1; 3.1.1 and 5.0, chapter 3), never made by the code that they test.
``VECTORS`` hold in both directions, bytes to packet and packet to bytes; ``OTHER_FORMS`` are legal and read, but never
written like that; the byte strings to refuse are in ``tests.wire_refused``.
"""

from __future__ import annotations

from typing import NamedTuple

from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.message import DUP, RETAIN, Message
from twisted_p2pmqtt.codec.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Pubacks,
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
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.codec.reader import PacketReader


class Vector(NamedTuple):
    """One packet in both its forms; ``hex`` has spaces between the fields, for the eye."""

    name: str
    version: int
    hex: str
    packet: Packet
    from_server: bool = False

    @property
    def data(self) -> bytes:
        """The packet as it stands on the wire."""
        return bytes.fromhex(self.hex)

    def reader(self, max_packet_size: int = 268_435_460) -> PacketReader:
        """A reader in the state in which this packet may come."""
        version = 0 if isinstance(self.packet, Connect) else self.version
        return PacketReader(max_packet_size, version=version, from_server=self.from_server)


def comparable(packet: Packet) -> object:
    """Something that is equal for equal packets: a ``Message`` has no equality of its own, the others have."""
    if not isinstance(packet, Message):
        return packet
    flags = (packet.qos, packet.retain, packet.dup)
    return (packet.topic, packet.payload, flags, packet.packet_id, dict(packet.properties))


def read_all(reader: PacketReader, *chunks: bytes) -> list[Packet]:
    """Everything that the reader makes of these chunks, going on behind a CONNECT as a server does.

    Runs of PUBACK are spelled out: how long they are depends on how the stream was cut.
    """
    packets: list[Packet] = []
    for chunk in chunks:
        packets += (new := reader.feed(chunk))
        if new and isinstance(new[-1], Connect):
            packets += reader.feed(b"")
    out: list[Packet] = []
    for packet in packets:
        out += map(Puback, packet.packet_ids) if isinstance(packet, Pubacks) else [packet]
    return out


def message(
    payload: bytes = b"x",
    topic: bytes = b"a/b",
    qos: int = 0,
    flags: int = 0,
    packet_id: int = 0,
    properties: Properties | None = None,
) -> Message:
    """A ``Message`` with ``flags`` RETAIN and DUP as in the fixed header."""
    return Message(topic, payload, 0, qos, flags & RETAIN, flags & DUP, packet_id, properties or {})


REQUEST = SubscriptionRequest
WILL_311 = Will("w/t", b"bye", 1)
USER: Properties = {"user_properties": [("a", "b")]}
WHY: Properties = {"reason_string": "no", "user_properties": [("a", "b")]}
USER_HEX = "26 0001 61 0001 62"
WHY_HEX = f"1f 0002 6e6f {USER_HEX}"  # 12 bytes
MQISDP, MQTT = "0006 4d5149736470", "0004 4d515454"

CONNECT_PROPERTIES: Properties = {
    "session_expiry_interval": 3600,
    "receive_maximum": 10,
    "maximum_packet_size": 1_048_576,
    "topic_alias_maximum": 5,
    "request_response_information": 1,
    "request_problem_information": 0,
    "user_properties": [("a", "b"), ("a", "")],
    "authentication_method": "SCRAM",
    "authentication_data": b"\x01\x02",
}
CONNECT_PROPERTIES_HEX = (
    f"2e 11 00000e10 21 000a 27 00100000 22 0005 19 01 17 00 {USER_HEX} 26 0001 61 0000 15 0005 534352414d 16 0002 0102"
)
WILL_PROPERTIES: Properties = {
    "will_delay_interval": 5,
    "payload_format_indicator": 1,
    "message_expiry_interval": 60,
    "content_type": "text",
    "response_topic": "r/t",
    "correlation_data": b"\xc0\xde",
    "user_properties": [("k", "v")],
}
WILL_PROPERTIES_HEX = "25 18 00000005 01 01 02 0000003c 03 0004 74657874 08 0003 722f74 09 0002 c0de 26 0001 6b 0001 76"
CONNACK_PROPERTIES: Properties = {
    "session_expiry_interval": 60,
    "receive_maximum": 10,
    "maximum_qos": 1,
    "retain_available": 0,
    "maximum_packet_size": 65536,
    "assigned_client_identifier": "aut",
    "topic_alias_maximum": 10,
    "reason_string": "ok",
    "user_properties": [("a", "b")],
    "wildcard_subscription_available": 1,
    "subscription_identifier_available": 0,
    "shared_subscription_available": 1,
    "server_keep_alive": 30,
    "response_information": "r/1",
    "server_reference": "n:1",
    "authentication_method": "x",
    "authentication_data": b"y",
}
CONNACK_PROPERTIES_HEX = (
    f"43 11 0000003c 21 000a 24 01 25 00 27 00010000 12 0003 617574 22 000a 1f 0002 6f6b {USER_HEX} "
    "28 01 29 00 2a 01 13 001e 1a 0003 722f31 1c 0003 6e3a31 15 0001 78 16 0001 79"
)
PUBLISH_PROPERTIES: Properties = {
    "payload_format_indicator": 1,
    "message_expiry_interval": 10,
    "topic_alias": 7,
    "response_topic": "r/t",
    "correlation_data": b"\xff",
    "user_properties": [("a", "b")],
    "content_type": "text",
}
PUBLISH_PROPERTIES_HEX = f"22 01 01 02 0000000a 23 0007 08 0003 722f74 09 0001 ff {USER_HEX} 03 0004 74657874"
SUBSCRIPTION_IDENTIFIERS_HEX = "0a 0b 01 0b 8001 0b ffffff7f"

FROM_CLIENT = [
    Vector("CONNECT 3.1", 3, f"10 10 {MQISDP} 03 02 003c 0002 6331", Connect("c1", 3)),
    Vector("CONNECT 3.1 of a bridge", 3, f"10 10 {MQISDP} 83 02 003c 0002 6331", Connect("c1", 3, is_bridge=True)),
    Vector(
        "CONNECT 3.1 with everything",
        3,
        f"10 21 {MQISDP} 03 f4 000a 0002 6331 0003 772f74 0003 627965 0001 75 0002 00ff",
        Connect("c1", 3, False, 10, "u", b"\x00\xff", Will("w/t", b"bye", 2, True)),
    ),
    Vector("CONNECT 3.1.1", 4, f"10 0e {MQTT} 04 02 003c 0002 6331", Connect("c1", 4)),
    Vector("CONNECT 3.1.1 of a bridge", 4, f"10 0e {MQTT} 84 02 003c 0002 6331", Connect("c1", 4, is_bridge=True)),
    Vector("CONNECT 3.1.1 without an id", 4, f"10 0c {MQTT} 04 02 0000 0000", Connect("", 4, True, 0)),
    Vector("CONNECT 3.1.1, empty user", 4, f"10 10 {MQTT} 04 82 003c 0002 6331 0000", Connect("c1", 4, username="")),
    Vector(
        "CONNECT 3.1.1 with everything",
        4,
        f"10 1f {MQTT} 04 ce 000a 0002 6331 0003 772f74 0003 627965 0001 75 0002 00ff",
        Connect("c1", 4, True, 10, "u", b"\x00\xff", WILL_311),
    ),
    Vector(
        "CONNECT 3.1.1, id of a BOM, 2 and 4 bytes",
        4,
        f"10 15 {MQTT} 04 02 003c 0009 efbbbf c3a9 f09f9880",
        Connect("\ufeff\xe9\U0001f600", 4),
    ),
    Vector("CONNECT 5.0", 5, f"10 0f {MQTT} 05 02 003c 00 0002 6331", Connect("c1")),
    Vector("CONNECT 5.0 to resume", 5, f"10 0f {MQTT} 05 00 ffff 00 0002 6331", Connect("c1", 5, False, 65535)),
    Vector(
        "CONNECT 5.0, password alone",
        5,
        f"10 13 {MQTT} 05 42 003c 00 0002 6331 0002 7077",
        Connect("c1", password=b"pw"),
    ),
    Vector(
        "CONNECT 5.0, empty will",
        5,
        f"10 17 {MQTT} 05 06 003c 00 0002 6331 00 0003 772f74 0000",
        Connect("c1", will=Will("w/t", b"")),
    ),
    Vector(
        "CONNECT 5.0 with everything",
        5,
        f"10 74 {MQTT} 05 f6 003c {CONNECT_PROPERTIES_HEX} 0002 6331"
        f"{WILL_PROPERTIES_HEX} 0003 772f74 0003 627965 0001 75 0002 7077",
        Connect("c1", 5, True, 60, "u", b"pw", Will("w/t", b"bye", 2, True, WILL_PROPERTIES), CONNECT_PROPERTIES),
    ),
    Vector("SUBSCRIBE 3.1", 3, "82 08 000a 0003 612f62 01", Subscribe(10, [REQUEST("a/b", 1)])),
    Vector("SUBSCRIBE 3.1.1", 4, "82 08 000a 0003 612f62 01", Subscribe(10, [REQUEST("a/b", 1)])),
    Vector(
        "SUBSCRIBE 3.1.1, two filters",
        4,
        "82 0e 000a 0003 612f62 00 0003 2b2f23 02",
        Subscribe(10, [REQUEST("a/b"), REQUEST("+/#", 2)]),
    ),
    Vector("SUBSCRIBE 5.0", 5, "82 09 000a 00 0003 612f62 00", Subscribe(10, [REQUEST("a/b")])),
    Vector(
        "SUBSCRIBE 5.0 with everything",
        5,
        f"82 20 000a 0a 0b ac02 {USER_HEX} 0003 612f62 2e 000a 2473686172652f672f74 11",
        Subscribe(
            10,
            [REQUEST("a/b", 2, True, True, 2), REQUEST("$share/g/t", 1, False, False, 1)],
            {"subscription_identifiers": [300], "user_properties": [("a", "b")]},
        ),
    ),
    Vector("UNSUBSCRIBE 3.1", 3, "a2 07 000a 0003 612f62", Unsubscribe(10, ["a/b"])),
    Vector("UNSUBSCRIBE 3.1.1", 4, "a2 0a 000a 0003 612f62 0001 23", Unsubscribe(10, ["a/b", "#"])),
    Vector("UNSUBSCRIBE 5.0", 5, "a2 08 000a 00 0003 612f62", Unsubscribe(10, ["a/b"])),
    Vector(
        "UNSUBSCRIBE 5.0 with everything",
        5,
        f"a2 12 000a 07 {USER_HEX} 0003 612f62 0001 23",
        Unsubscribe(10, ["a/b", "#"], USER),
    ),
    *(Vector(f"PINGREQ, version {version}", version, "c0 00", Pingreq()) for version in (3, 4, 5)),
    Vector("DISCONNECT 3.1", 3, "e0 00", Disconnect()),
    Vector("DISCONNECT 3.1.1", 4, "e0 00", Disconnect()),
    Vector("DISCONNECT 5.0 with its will", 5, "e0 01 04", Disconnect(4)),
    Vector(
        "DISCONNECT 5.0, another expiry", 5, "e0 07 00 05 11 0000003c", Disconnect(0, {"session_expiry_interval": 60})
    ),
    Vector("AUTH again", 5, "f0 06 19 04 15 0001 78", Auth(0x19, {"authentication_method": "x"})),
]

FROM_SERVER = [
    Vector("CONNACK 3.1", 3, "20 02 00 00", Connack(False, 0), True),
    Vector("CONNACK 3.1.1, session present", 4, "20 02 01 00", Connack(True, 0), True),
    Vector("CONNACK 3.1.1 that refuses", 4, "20 02 00 05", Connack(False, 5), True),
    Vector("CONNACK 5.0", 5, "20 03 00 00 00", Connack(False, 0), True),
    Vector("CONNACK 5.0, session present", 5, "20 03 01 00 00", Connack(True, 0), True),
    Vector("CONNACK 5.0 that refuses", 5, "20 03 00 87 00", Connack(False, 0x87), True),
    Vector(
        "CONNACK 5.0 with everything",
        5,
        f"20 46 00 00 {CONNACK_PROPERTIES_HEX}",
        Connack(False, 0, CONNACK_PROPERTIES),
        True,
    ),
    Vector(
        "PUBLISH 5.0 with subscription identifiers",
        5,
        f"30 11 0003 612f62 {SUBSCRIPTION_IDENTIFIERS_HEX} 78",
        message(properties={"subscription_identifiers": [1, 128, 268_435_455]}),
        True,
    ),
    Vector("SUBACK 3.1", 3, "90 03 000a 01", Suback(10, [1]), True),
    Vector("SUBACK 3.1.1", 4, "90 05 000a 00 02 80", Suback(10, [0, 2, 0x80]), True),
    Vector("SUBACK 5.0", 5, "90 06 000a 00 00 01 8f", Suback(10, [0, 1, 0x8F]), True),
    Vector("SUBACK 5.0 with everything", 5, f"90 10 000a 0c {WHY_HEX} 87", Suback(10, [0x87], WHY), True),
    Vector("UNSUBACK 3.1", 3, "b0 02 000a", Unsuback(10, []), True),
    Vector("UNSUBACK 3.1.1", 4, "b0 02 000a", Unsuback(10, []), True),
    Vector("UNSUBACK 5.0", 5, "b0 05 000a 00 00 11", Unsuback(10, [0, 0x11]), True),
    Vector("UNSUBACK 5.0 with everything", 5, f"b0 10 000a 0c {WHY_HEX} 80", Unsuback(10, [0x80], WHY), True),
    *(Vector(f"PINGRESP, version {version}", version, "d0 00", Pingresp(), True) for version in (3, 4, 5)),
    Vector(
        "DISCONNECT 5.0 to another server",
        5,
        f"e0 14 9c 12 {WHY_HEX} 1c 0003 6e3a31",
        Disconnect(0x9C, {**WHY, "server_reference": "n:1"}),
        True,
    ),
    Vector("AUTH done", 5, "f0 06 00 04 15 0001 78", Auth(0, {"authentication_method": "x"}), True),
]

EITHER_WAY = [
    Vector("PUBLISH 3.1", 3, "30 06 0003 612f62 78", message()),
    Vector("PUBLISH 3.1.1", 4, "30 06 0003 612f62 78", message()),
    Vector("PUBLISH 3.1.1, retained, empty", 4, "31 05 0003 612f62", message(b"", flags=RETAIN)),
    Vector("PUBLISH 3.1.1, QoS 1", 4, "32 08 0003 612f62 0001 78", message(qos=1, packet_id=1)),
    Vector("PUBLISH 3.1.1, all flags", 4, "3d 08 0003 612f62 ffff 78", message(b"x", b"a/b", 2, DUP | RETAIN, 65535)),
    Vector("PUBLISH 3.1, QoS 2", 3, "34 08 0003 612f62 0100 78", message(qos=2, packet_id=256)),
    Vector("PUBLISH 3.1.1, topic of 2 bytes", 4, "30 05 0002 c3a9 21", message(b"!", b"\xc3\xa9")),
    Vector("PUBLISH 3.1.1, 127 bytes follow", 4, "30 7f 0001 61" + 124 * "78", message(124 * b"x", b"a")),
    Vector("PUBLISH 3.1.1, 128 bytes follow", 4, "30 8001 0001 61" + 125 * "78", message(125 * b"x", b"a")),
    Vector("PUBLISH 3.1.1, topic of 256 bytes", 4, "30 8302 0100" + 256 * "61" + "78", message(topic=256 * b"a")),
    Vector("PUBLISH 5.0", 5, "30 07 0003 612f62 00 78", message()),
    Vector("PUBLISH 5.0, retained, empty", 5, "31 06 0003 612f62 00", message(b"", flags=RETAIN)),
    Vector("PUBLISH 5.0, QoS 1", 5, "32 09 0003 612f62 0001 00 78", message(qos=1, packet_id=1)),
    Vector("PUBLISH 5.0, QoS 2 again", 5, "3c 09 0003 612f62 0001 00 78", message(b"x", b"a/b", 2, DUP, 1)),
    Vector(
        "PUBLISH 5.0, topic alias alone",
        5,
        "30 07 0000 03 23 0001 78",
        message(topic=b"", properties={"topic_alias": 1}),
    ),
    Vector(
        "PUBLISH 5.0 with everything",
        5,
        f"32 2b 0003 612f62 0001 {PUBLISH_PROPERTIES_HEX} 78",
        message(qos=1, packet_id=1, properties=PUBLISH_PROPERTIES),
    ),
    *(
        Vector(f"{kind.__name__.upper()}, version {version}", version, f"{first} 02 0001", kind(1))
        for version in (3, 4, 5)
        for first, kind in (("40", Puback), ("50", Pubrec), ("62", Pubrel), ("70", Pubcomp))
    ),
    Vector("PUBACK 5.0, nobody there", 5, "40 03 0001 10", Puback(1, 0x10)),
    Vector("PUBREC 5.0, nobody there", 5, "50 03 0001 10", Pubrec(1, 0x10)),
    Vector("PUBREL 5.0, unknown", 5, "62 03 0001 92", Pubrel(1, 0x92)),
    Vector("PUBCOMP 5.0, unknown", 5, "70 03 0001 92", Pubcomp(1, 0x92)),
    Vector("PUBACK 5.0 with everything", 5, f"40 10 0001 97 0c {WHY_HEX}", Puback(1, 0x97, WHY)),
    Vector("PUBREC 5.0 with everything", 5, f"50 10 0001 97 0c {WHY_HEX}", Pubrec(1, 0x97, WHY)),
    Vector("PUBREL 5.0 with everything", 5, f"62 10 0001 92 0c {WHY_HEX}", Pubrel(1, 0x92, WHY)),
    Vector("PUBCOMP 5.0 with everything", 5, f"70 10 0001 92 0c {WHY_HEX}", Pubcomp(1, 0x92, WHY)),
    Vector("PUBACK 5.0, success explained", 5, f"40 10 0001 00 0c {WHY_HEX}", Puback(1, 0, WHY)),
    Vector("DISCONNECT 5.0", 5, "e0 00", Disconnect()),
    Vector("DISCONNECT 5.0, protocol error", 5, "e0 01 82", Disconnect(0x82)),
    Vector("DISCONNECT 5.0, explained", 5, f"e0 0e 81 0c {WHY_HEX}", Disconnect(0x81, WHY)),
    Vector(
        "AUTH with everything",
        5,
        f"f0 16 18 14 15 0001 78 16 0001 79 {WHY_HEX}",
        Auth(0x18, {"authentication_method": "x", "authentication_data": b"y", **WHY}),
    ),
]

VECTORS = [
    *FROM_CLIENT,
    *FROM_SERVER,
    *(vector._replace(name=f"{vector.name}, from a client") for vector in EITHER_WAY),
    *(vector._replace(name=f"{vector.name}, from a server", from_server=True) for vector in EITHER_WAY),
]

OTHER_FORMS = [
    # 3.4.2.1 and its like: reason code 0x00 and an empty property list may be left out, and need not be
    *(
        Vector(f"{kind.__name__.upper()} with {said}", 5, f"{first} {tail}", kind(1, code))
        for first, kind in (("40", Puback), ("50", Pubrec), ("62", Pubrel), ("70", Pubcomp))
        for said, tail, code in (("a code", "03 0001 00", 0), ("code and properties", "04 0001 00 00", 0))
    ),
    Vector("PUBACK with a code and no properties", 5, "40 04 0001 10 00", Puback(1, 0x10)),
    Vector("DISCONNECT with a code", 5, "e0 01 00", Disconnect()),
    Vector("DISCONNECT with code and properties", 5, "e0 02 00 00", Disconnect()),
    Vector("DISCONNECT with its will and no properties", 5, "e0 02 04 00", Disconnect(4)),
    Vector("CONNACK of a server that knows 3.1.1 only", 5, "20 02 00 01", Connack(False, 1), True),
    # MQTT 3.1, section 3.1: the remaining length takes precedence over the flags for user name and password
    Vector("CONNECT 3.1, user and password missing", 3, f"10 10 {MQISDP} 03 c2 003c 0002 6331", Connect("c1", 3)),
    Vector(
        "CONNECT 3.1, password missing",
        3,
        f"10 13 {MQISDP} 03 c2 003c 0002 6331 0001 75",
        Connect("c1", 3, username="u"),
    ),
    # the same: without the will flag the will's QoS and RETAIN are disregarded
    Vector("CONNECT 3.1, bits of no will", 3, f"10 10 {MQISDP} 03 3a 003c 0002 6331", Connect("c1", 3)),
    # MQTT 3.1, section 2.1: DUP may be set on what is sent again
    Vector("PUBREL 3.1 again", 3, "6a 02 0001", Pubrel(1)),
    Vector("SUBSCRIBE 3.1 again", 3, "8a 08 000a 0003 612f62 01", Subscribe(10, [REQUEST("a/b", 1)])),
    Vector("UNSUBSCRIBE 3.1 again", 3, "aa 07 000a 0003 612f62", Unsubscribe(10, ["a/b"])),
]
