"""Byte strings to refuse: what is sent, with which error and reason code it is refused, and the sentences that say so.

A name that begins with a letter and two digits is an attack of the project's collection of 88 byte vectors (section 2
of its page on reliability); those that need a session's state to be judged are not here.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.wire import MQISDP, MQTT
from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import (
    MalformedPacket,
    MQTTError,
    ProtocolViolation,
    TopicNameInvalid,
    UnsupportedVersion,
)
from twisted_p2pmqtt.codec.reader import PacketReader

FIRST = 0
"""The version of what is refused where a CONNECT should be."""


class Refused(NamedTuple):
    """``code`` where the error's own reason code is not the one; ``spec`` are the ids of the sentences."""

    name: str
    version: int
    hex: str
    error: type[MQTTError]
    spec: tuple[str, ...] = ()
    code: ReasonCode | None = None
    from_server: bool = False

    @property
    def data(self) -> bytes:
        """The bytes on the wire."""
        return bytes.fromhex(self.hex)

    @property
    def reason_code(self) -> ReasonCode:
        """What a 5.0 peer is told."""
        return self.error.reason_code if self.code is None else self.code

    def reader(self) -> PacketReader:
        """A reader in the state in which these bytes come."""
        return PacketReader(version=self.version, from_server=self.from_server)


C4, C5 = f"{MQTT} 04", f"{MQTT} 05"
ID = "0003 617474"

INSTEAD_OF_CONNECT = [
    Refused("A01 remaining length of 5 bytes", FIRST, "10 ffffffff01", MalformedPacket),
    Refused(
        "A02 remaining length 16 in 2 bytes", FIRST, f"10 9000 {C5} 02 003c 00 {ID}", MalformedPacket, ("MQTT-1.5.5-1",)
    ),
    Refused("A03 large PUBLISH", FIRST, "30 ffffff7f", ProtocolViolation, ("MQTT-3.1.0-1", "MQTT3-3.1.0-1")),
    Refused("A05 type 0", FIRST, "00 00", MalformedPacket),
    Refused("A06 PINGREQ", FIRST, "c0 00", ProtocolViolation, ("MQTT-3.1.0-1", "MQTT3-3.1.0-1")),
    Refused("A07 flags 0001", FIRST, f"11 0f {C4} 02 003c {ID}", MalformedPacket, ("MQTT3-2.2.2-2",)),
    Refused("CONNACK from a client", FIRST, "20 02 00 00", ProtocolViolation),
    Refused("AUTH", FIRST, "f0 00", ProtocolViolation, ("MQTT-3.1.0-1",)),
    Refused("nothing in it", FIRST, "10 00", MalformedPacket),
    Refused("B01 MQIsdp and level 4", FIRST, f"10 11 {MQISDP} 04 02 003c {ID}", UnsupportedVersion),
    Refused("MQTT and level 3", FIRST, f"10 0f {MQTT} 03 02 003c {ID}", UnsupportedVersion),
    Refused("B02 level 6", FIRST, f"10 0f {MQTT} 06 02 003c {ID}", UnsupportedVersion),
    Refused("level 5 of a bridge", FIRST, f"10 10 {MQTT} 85 02 003c 00 {ID}", UnsupportedVersion),
    Refused(
        "another protocol",
        FIRST,
        f"10 0f 0004 4d515458 04 02 003c {ID}",
        MalformedPacket,
        ("MQTT-3.1.2-1", "MQTT3-3.1.2-1"),
    ),
    Refused(
        "the name in small letters", FIRST, f"10 0f 0004 6d717474 04 02 003c {ID}", MalformedPacket, ("MQTT-3.1.2-1",)
    ),
    Refused("B03 reserved flag, 3.1.1", FIRST, f"10 0f {C4} 03 003c {ID}", MalformedPacket, ("MQTT3-3.1.2-3",)),
    Refused("B03 reserved flag, 5.0", FIRST, f"10 10 {C5} 03 003c 00 {ID}", MalformedPacket, ("MQTT-3.1.2-3",)),
    Refused(
        "B04 will QoS 3, 3.1.1", FIRST, f"10 15 {C4} 1e 003c {ID} 0001 77 0001 78", MalformedPacket, ("MQTT3-3.1.2-14",)
    ),
    Refused(
        "B04 will QoS 3, 5.0",
        FIRST,
        f"10 17 {C5} 1e 003c 00 {ID} 00 0001 77 0001 78",
        MalformedPacket,
        ("MQTT-3.1.2-12",),
    ),
    Refused(
        "B05 will RETAIN without a will, 3.1.1",
        FIRST,
        f"10 0f {C4} 22 003c {ID}",
        MalformedPacket,
        ("MQTT3-3.1.2-11", "MQTT3-3.1.2-15"),
    ),
    Refused(
        "B05 will RETAIN without a will, 5.0", FIRST, f"10 10 {C5} 22 003c 00 {ID}", MalformedPacket, ("MQTT-3.1.2-13",)
    ),
    Refused(
        "will QoS without a will, 3.1.1",
        FIRST,
        f"10 0f {C4} 0a 003c {ID}",
        MalformedPacket,
        ("MQTT3-3.1.2-11", "MQTT3-3.1.2-13"),
    ),
    Refused("will QoS without a will, 5.0", FIRST, f"10 10 {C5} 12 003c 00 {ID}", MalformedPacket, ("MQTT-3.1.2-11",)),
    Refused("will fields missing, 3.1.1", FIRST, f"10 0f {C4} 06 003c {ID}", MalformedPacket, ("MQTT3-3.1.2-9",)),
    Refused("will fields missing, 5.0", FIRST, f"10 10 {C5} 06 003c 00 {ID}", MalformedPacket, ("MQTT-3.1.2-9",)),
    Refused(
        "will fields without a will",
        FIRST,
        f"10 15 {C4} 02 003c {ID} 0001 77 0001 78",
        MalformedPacket,
        ("MQTT3-3.1.2-11",),
    ),
    Refused(
        "B06 password without a user, 3.1.1",
        FIRST,
        f"10 13 {C4} 42 003c {ID} 0002 7077",
        MalformedPacket,
        ("MQTT3-3.1.2-22",),
    ),
    Refused("password without a user, 3.1", FIRST, f"10 15 {MQISDP} 03 42 003c {ID} 0002 7077", MalformedPacket),
    Refused("user missing, 3.1.1", FIRST, f"10 0f {C4} 82 003c {ID}", MalformedPacket, ("MQTT3-3.1.2-19",)),
    Refused("user missing, 5.0", FIRST, f"10 10 {C5} 82 003c 00 {ID}", MalformedPacket, ("MQTT-3.1.2-17",)),
    Refused("user cut short, 3.1", FIRST, f"10 13 {MQISDP} 03 82 003c {ID} 0001", MalformedPacket),
    Refused(
        "user without its flag, 3.1.1", FIRST, f"10 12 {C4} 02 003c {ID} 0001 75", MalformedPacket, ("MQTT3-3.1.2-18",)
    ),
    Refused(
        "user without its flag, 5.0", FIRST, f"10 13 {C5} 02 003c 00 {ID} 0001 75", MalformedPacket, ("MQTT-3.1.2-16",)
    ),
    Refused("password missing, 3.1.1", FIRST, f"10 12 {C4} c2 003c {ID} 0001 75", MalformedPacket, ("MQTT3-3.1.2-21",)),
    Refused("password missing, 5.0", FIRST, f"10 10 {C5} 42 003c 00 {ID}", MalformedPacket, ("MQTT-3.1.2-19",)),
    Refused(
        "password without its flag, 3.1.1",
        FIRST,
        f"10 16 {C4} 82 003c {ID} 0001 75 0002 7077",
        MalformedPacket,
        ("MQTT3-3.1.2-20",),
    ),
    Refused(
        "password without its flag, 5.0",
        FIRST,
        f"10 17 {C5} 82 003c 00 {ID} 0001 75 0002 7077",
        MalformedPacket,
        ("MQTT-3.1.2-18",),
    ),
    Refused("no client id, 3.1.1", FIRST, f"10 0a {C4} 02 003c", MalformedPacket, ("MQTT3-3.1.3-3",)),
    Refused("no client id, 5.0", FIRST, f"10 0b {C5} 02 003c 00", MalformedPacket, ("MQTT-3.1.3-3",)),
    Refused("B08 NUL in the client id", FIRST, f"10 0f {C4} 02 003c 0003 610062", MalformedPacket, ("MQTT3-1.5.3-2",)),
    Refused(
        "B09 surrogate in the client id",
        FIRST,
        f"10 10 {C4} 02 003c 0004 61eda080",
        MalformedPacket,
        ("MQTT3-1.5.3-1", "MQTT3-3.1.3-4"),
    ),
    Refused("B10 overlong client id", FIRST, f"10 0e {C4} 02 003c 0002 c080", MalformedPacket, ("MQTT3-1.5.3-1",)),
    Refused(
        "latin-1 client id, 5.0",
        FIRST,
        f"10 0e {C5} 02 003c 00 0001 e9",
        MalformedPacket,
        ("MQTT-1.5.4-1", "MQTT-3.1.3-4"),
    ),
    Refused("B15 bytes behind the client id", FIRST, f"10 11 {C4} 02 003c {ID} 7a7a", MalformedPacket),
    Refused("B16 wildcard in the will topic", FIRST, f"10 17 {C4} 06 003c {ID} 0003 612f23 0001 78", TopicNameInvalid),
    Refused(
        "B17 empty will topic", FIRST, f"10 14 {C4} 06 003c {ID} 0000 0001 78", TopicNameInvalid, ("MQTT3-4.7.3-1",)
    ),
    Refused(
        "will topic not UTF-8, 3.1.1",
        FIRST,
        f"10 15 {C4} 06 003c {ID} 0001 ff 0001 78",
        MalformedPacket,
        ("MQTT3-3.1.3-10",),
    ),
    Refused(
        "will topic not UTF-8, 5.0",
        FIRST,
        f"10 17 {C5} 06 003c 00 {ID} 00 0001 ff 0001 78",
        MalformedPacket,
        ("MQTT-3.1.3-11",),
    ),
    Refused("user not UTF-8, 3.1.1", FIRST, f"10 12 {C4} 82 003c {ID} 0001 ff", MalformedPacket, ("MQTT3-3.1.3-11",)),
    Refused("user not UTF-8, 5.0", FIRST, f"10 13 {C5} 82 003c 00 {ID} 0001 ff", MalformedPacket, ("MQTT-3.1.3-12",)),
    Refused(
        "will's response topic with a wildcard",
        FIRST,
        f"10 1d {C5} 06 003c 00 {ID} 06 08 0003 722f23 0001 77 0001 78",
        ProtocolViolation,
        ("MQTT-3.3.2-14",),
    ),
    Refused(
        "B18 session expiry twice", FIRST, f"10 1a {C5} 02 003c 0a 11 00000001 11 00000001 {ID}", ProtocolViolation
    ),
    Refused("B19 receive maximum 0", FIRST, f"10 13 {C5} 02 003c 03 21 0000 {ID}", ProtocolViolation),
    Refused("B20 maximum packet size 0", FIRST, f"10 15 {C5} 02 003c 05 27 00000000 {ID}", ProtocolViolation),
    Refused("B21 authentication data, no method", FIRST, f"10 14 {C5} 02 003c 04 16 0001 78 {ID}", ProtocolViolation),
    Refused("B22 property 0x7f", FIRST, f"10 12 {C5} 02 003c 02 7f 00 {ID}", MalformedPacket),
    Refused("B23 property length beyond the packet", FIRST, f"10 0e {C5} 02 003c 7f 0001 61", MalformedPacket),
    Refused("B24 property length of 5 bytes", FIRST, f"10 12 {C5} 02 003c ffffffff01 0001 61", MalformedPacket),
    Refused("B25 request problem information 2", FIRST, f"10 12 {C5} 02 003c 02 17 02 {ID}", ProtocolViolation),
    Refused(
        "B26 will with a topic alias",
        FIRST,
        f"10 1a {C5} 06 003c 00 {ID} 03 23 0001 0001 77 0001 78",
        ProtocolViolation,
    ),
    Refused(
        "B27 NUL in a user property",
        FIRST,
        f"10 18 {C5} 02 003c 08 26 0002 6100 0001 62 {ID}",
        MalformedPacket,
        ("MQTT-1.5.7-1",),
    ),
]

AFTER_CONNECT = [
    Refused("A08 second CONNECT, 3.1.1", 4, f"10 0f {C4} 02 003c {ID}", ProtocolViolation, ("MQTT3-3.1.0-2",)),
    Refused("A09 second CONNECT, 5.0", 5, f"10 10 {C5} 02 003c 00 {ID}", ProtocolViolation, ("MQTT-3.1.0-2",)),
    Refused("A10 PINGREQ with a byte", 4, "c0 01 00", MalformedPacket),
    Refused("A11 CONNACK from a client", 5, "20 03 00 00 00", ProtocolViolation),
    Refused("A12 SUBACK from a client", 4, "90 03 0001 00", ProtocolViolation),
    Refused("UNSUBACK from a client", 4, "b0 02 0001", ProtocolViolation),
    Refused("PINGRESP from a client", 4, "d0 00", ProtocolViolation),
    Refused("A13 PUBREL flags 0000, 5.0", 5, "60 02 0001", MalformedPacket, ("MQTT-3.6.1-1",)),
    Refused("PUBREL flags 0000, 3.1.1", 4, "60 02 0001", MalformedPacket, ("MQTT3-3.6.1-1",)),
    Refused("PUBREL flags 0000, 3.1", 3, "60 02 0001", MalformedPacket),
    Refused("A14 SUBSCRIBE flags 0000, 3.1.1", 4, "80 06 0001 0001 61 00", MalformedPacket, ("MQTT3-3.8.1-1",)),
    Refused("SUBSCRIBE flags 0000, 5.0", 5, "80 07 0001 00 0001 61 00", MalformedPacket, ("MQTT-3.8.1-1",)),
    Refused("UNSUBSCRIBE flags 0000, 3.1.1", 4, "a0 05 0001 0001 61", MalformedPacket, ("MQTT3-3.10.1-1",)),
    Refused("UNSUBSCRIBE flags 0000, 5.0", 5, "a0 06 0001 00 0001 61", MalformedPacket, ("MQTT-3.10.1-1",)),
    Refused("F03 DISCONNECT flags 0001, 3.1.1", 4, "e1 00", MalformedPacket, ("MQTT3-3.14.1-1",)),
    Refused("DISCONNECT flags 0001, 5.0", 5, "e1 00", MalformedPacket, ("MQTT-3.14.1-1",)),
    Refused("AUTH flags 0001", 5, "f1 06 19 04 15 0001 78", MalformedPacket, ("MQTT-3.15.1-1",)),
    Refused("A15 CONNACK of flags 1001", 5, "29 02 0001", MalformedPacket, ("MQTT-2.1.3-1",)),
    Refused("A16 DISCONNECT with a cut property", 5, "e0 02 0020", MalformedPacket),
    Refused("C01 QoS 3, 3.1.1", 4, "36 08 0001 61 0001 78797a", MalformedPacket, ("MQTT3-3.3.1-4",)),
    Refused("QoS 3, 5.0", 5, "36 07 0001 61 0001 00 78", MalformedPacket, ("MQTT-3.3.1-4",)),
    Refused("C02 QoS 1 with packet id 0, 5.0", 5, "32 07 0001 61 0000 00 78", ProtocolViolation, ("MQTT-2.2.1-3",)),
    Refused("QoS 1 with packet id 0, 3.1.1", 4, "32 06 0001 61 0000 78", ProtocolViolation, ("MQTT3-2.3.1-1",)),
    Refused("QoS 1 without a packet id", 4, "32 04 0001 61 00", MalformedPacket, ("MQTT3-2.3.1-1",)),
    Refused("C03 empty topic, 3.1.1", 4, "30 03 0000 78", TopicNameInvalid, ("MQTT3-4.7.3-1",)),
    Refused("empty topic and nothing else, 3.1.1", 4, "30 02 0000", TopicNameInvalid, ("MQTT3-4.7.3-1",)),
    Refused("C04 empty topic and no alias", 5, "30 04 0000 00 78", ProtocolViolation, ("MQTT-4.7.3-1",)),
    Refused(
        "C05 wildcard + in the topic, 5.0",
        5,
        "30 07 0003 612f2b 00 78",
        TopicNameInvalid,
        ("MQTT-3.3.2-2", "MQTT-4.7.0-1"),
    ),
    Refused(
        "wildcard # in the topic, 3.1.1",
        4,
        "30 06 0003 612f23 78",
        TopicNameInvalid,
        ("MQTT3-3.3.2-2", "MQTT3-4.7.1-1"),
    ),
    Refused("C06 NUL in the topic", 4, "30 06 0003 610062 78", MalformedPacket, ("MQTT3-4.7.3-2",)),
    Refused("NUL in the topic, 5.0", 5, "30 07 0003 610062 00 78", MalformedPacket, ("MQTT-1.5.4-2", "MQTT-4.7.3-2")),
    Refused("surrogate in the topic, 5.0", 5, "30 08 0004 61eda080 00 78", MalformedPacket, ("MQTT-1.5.4-1",)),
    Refused("C07 topic not UTF-8, 5.0", 5, "30 06 0002 fffe 00 78", MalformedPacket, ("MQTT-3.3.2-1",)),
    Refused("topic not UTF-8, 3.1.1", 4, "30 05 0002 fffe 78", MalformedPacket, ("MQTT3-3.3.2-1",)),
    Refused("C08 topic longer than its packet", 4, "30 05 ffff 616161", MalformedPacket),
    Refused("no topic at all", 4, "30 01 00", MalformedPacket, ("MQTT3-3.3.2-1", "MQTT-3.3.2-1")),
    Refused("C09 DUP at QoS 0, 3.1.1", 4, "38 04 0001 61 78", MalformedPacket, ("MQTT3-3.3.1-2",)),
    Refused("DUP at QoS 0, 5.0", 5, "38 05 0001 61 00 78", MalformedPacket, ("MQTT-3.3.1-2",)),
    Refused(
        "C10 topic alias 0",
        5,
        "30 08 0001 61 03 23 0000 78",
        ProtocolViolation,
        ("MQTT-3.3.2-8",),
        ReasonCode.TOPIC_ALIAS_INVALID,
    ),
    Refused(
        "C13 subscription identifier from a client",
        5,
        "30 07 0001 61 02 0b 01 78",
        ProtocolViolation,
        ("MQTT-3.3.4-6",),
    ),
    Refused(
        "C21 wildcard in the response topic",
        5,
        "30 0b 0001 61 06 08 0003 722f23 78",
        ProtocolViolation,
        ("MQTT-3.3.2-14",),
    ),
    Refused("response topic not UTF-8", 5, "30 09 0001 61 04 08 0001 ff 78", MalformedPacket, ("MQTT-3.3.2-13",)),
    Refused("content type not UTF-8", 5, "30 09 0001 61 04 03 0001 ff 78", MalformedPacket, ("MQTT-3.3.2-19",)),
    Refused("C23 message expiry twice", 5, "30 0f 0001 61 0a 02 00000001 02 00000001 78", ProtocolViolation),
    Refused("PUBLISH 5.0 without a property length", 5, "30 03 0001 61", MalformedPacket, ("MQTT-2.2.2-1",)),
    Refused("D01 SUBSCRIBE without a filter, 5.0", 5, "82 03 0001 00", ProtocolViolation, ("MQTT-3.8.3-2",)),
    Refused("SUBSCRIBE without a filter, 3.1.1", 4, "82 02 0001", ProtocolViolation, ("MQTT3-3.8.3-3",)),
    Refused("D02 UNSUBSCRIBE without a filter, 3.1.1", 4, "a2 02 0001", ProtocolViolation, ("MQTT3-3.10.3-2",)),
    Refused("UNSUBSCRIBE without a filter, 5.0", 5, "a2 03 0001 00", ProtocolViolation, ("MQTT-3.10.3-2",)),
    Refused("D03 SUBSCRIBE QoS 3, 3.1.1", 4, "82 06 0001 0001 61 03", ProtocolViolation, ("MQTT3-3.8.3-4",)),
    Refused("SUBSCRIBE QoS 3, 5.0", 5, "82 07 0001 00 0001 61 03", ProtocolViolation),
    Refused("SUBSCRIBE options 04, 3.1.1", 4, "82 06 0001 0001 61 04", MalformedPacket, ("MQTT3-3.8.3-4",)),
    Refused("D04 SUBSCRIBE options C0", 5, "82 07 0001 00 0001 61 c0", MalformedPacket, ("MQTT-3.8.3-5",)),
    Refused("D05 retain handling 3", 5, "82 07 0001 00 0001 61 30", ProtocolViolation),
    Refused("retain handling 3 with QoS 1", 5, "82 07 0001 00 0001 61 31", ProtocolViolation),
    Refused("D08 SUBSCRIBE with packet id 0, 3.1.1", 4, "82 06 0000 0001 61 00", ProtocolViolation, ("MQTT3-2.3.1-1",)),
    Refused("UNSUBSCRIBE with packet id 0, 5.0", 5, "a2 06 0000 00 0001 61", ProtocolViolation, ("MQTT-2.2.1-3",)),
    Refused("D14 subscription identifier 0", 5, "82 09 0001 02 0b 00 0001 61 00", ProtocolViolation),
    Refused("D15 subscription identifier of 5 bytes", 5, "82 0d 0001 06 0b 8080808001 0001 61 00", MalformedPacket),
    Refused(
        "subscription identifier not minimal", 5, "82 0a 0001 03 0b 8100 0001 61 00", MalformedPacket, ("MQTT-1.5.5-1",)
    ),
    Refused("subscription identifier twice", 5, "82 0b 0001 04 0b 01 0b 02 0001 61 00", ProtocolViolation),
    Refused("D16 empty filter, 3.1.1", 4, "82 05 0001 0000 00", MalformedPacket, ("MQTT3-4.7.3-1",)),
    Refused("empty filter in UNSUBSCRIBE, 5.0", 5, "a2 05 0001 00 0000", MalformedPacket, ("MQTT-4.7.3-1",)),
    Refused("filter not UTF-8, 3.1.1", 4, "82 06 0001 0001 ff 00", MalformedPacket, ("MQTT3-3.8.3-1",)),
    Refused("filter not UTF-8, 5.0", 5, "82 07 0001 00 0001 ff 00", MalformedPacket, ("MQTT-3.8.3-1",)),
    Refused("filter not UTF-8 in UNSUBSCRIBE, 3.1.1", 4, "a2 05 0001 0001 ff", MalformedPacket, ("MQTT3-3.10.3-1",)),
    Refused("filter not UTF-8 in UNSUBSCRIBE, 5.0", 5, "a2 06 0001 00 0001 ff", MalformedPacket, ("MQTT-3.10.3-1",)),
    Refused("SUBSCRIBE without options", 4, "82 05 0001 0001 61", MalformedPacket),
    Refused("E05 PUBACK with packet id 0", 4, "40 02 0000", ProtocolViolation),
    Refused("PUBACK 5.0 with packet id 0 and a code", 5, "40 03 0000 00", ProtocolViolation),
    Refused("PUBACK 3.1.1 with a code", 4, "40 03 0001 00", MalformedPacket),
    Refused("PUBACK cut short", 5, "40 01 00", MalformedPacket),
    Refused("PUBACK with code 0x11", 5, "40 03 0001 11", ProtocolViolation, ("MQTT-3.4.2-1",)),
    Refused("PUBREC with code 0x92", 5, "50 03 0001 92", ProtocolViolation, ("MQTT-3.5.2-1",)),
    Refused("PUBREL with code 0x10", 5, "62 03 0001 10", ProtocolViolation, ("MQTT-3.6.2-1",)),
    Refused("PUBCOMP with code 0x10", 5, "70 03 0001 10", ProtocolViolation, ("MQTT-3.7.2-1",)),
    Refused("DISCONNECT with code 0x01", 5, "e0 01 01", ProtocolViolation, ("MQTT-3.14.2-1",)),
    Refused("F04 DISCONNECT 3.1.1 with a byte", 4, "e0 01 00", MalformedPacket),
    Refused("F02 AUTH without a method", 5, "f0 00", ProtocolViolation),
    Refused("AUTH with code 0x17", 5, "f0 06 17 04 15 0001 78", ProtocolViolation, ("MQTT-3.15.2-1",)),
    Refused("AUTH with a code alone", 5, "f0 01 18", MalformedPacket),
    Refused("AUTH in 3.1.1", 4, "f0 00", MalformedPacket),
]

FROM_SERVER = [
    Refused("CONNACK flags 02", 5, "20 03 02 00 00", MalformedPacket, ("MQTT-3.2.2-1",), from_server=True),
    Refused("CONNACK with code 0x10", 5, "20 03 00 10 00", ProtocolViolation, ("MQTT-3.2.2-8",), from_server=True),
    Refused("CONNACK without properties", 5, "20 02 00 00", MalformedPacket, ("MQTT-2.2.2-1",), from_server=True),
    Refused("CONNACK 3.1.1 with code 6", 4, "20 02 00 06", ProtocolViolation, from_server=True),
    Refused("CONNACK 3.1.1 with a byte more", 4, "20 03 00 00 00", MalformedPacket, from_server=True),
    Refused("SUBACK with code 0x03", 5, "90 04 0001 00 03", ProtocolViolation, ("MQTT-3.9.3-2",), from_server=True),
    Refused("SUBACK 3.1.1 with code 0x03", 4, "90 03 0001 03", ProtocolViolation, ("MQTT3-3.9.3-2",), from_server=True),
    Refused("SUBACK without a code", 4, "90 02 0001", MalformedPacket, from_server=True),
    Refused("UNSUBACK with code 0x01", 5, "b0 04 0001 00 01", ProtocolViolation, ("MQTT-3.11.3-2",), from_server=True),
    Refused("UNSUBACK without a code", 5, "b0 03 0001 00", MalformedPacket, from_server=True),
    Refused("UNSUBACK 3.1.1 with a byte more", 4, "b0 03 0001 00", MalformedPacket, from_server=True),
    Refused("PINGRESP with a byte", 4, "d0 01 00", MalformedPacket, from_server=True),
    *(
        Refused(f"{name} from a server", 4, sent, ProtocolViolation, from_server=True)
        for name, sent in (
            ("CONNECT", f"10 0f {C4} 02 003c {ID}"),
            ("SUBSCRIBE", "82 06 0001 0001 61 00"),
            ("UNSUBSCRIBE", "a2 05 0001 0001 61"),
            ("PINGREQ", "c0 00"),
        )
    ),
]

REFUSED = [*INSTEAD_OF_CONNECT, *AFTER_CONNECT, *FROM_SERVER]
