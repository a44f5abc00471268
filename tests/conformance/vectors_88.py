"""The byte vectors of the project's page on reliability (section 2: A01 to F04), each with what our broker answers.

``sent`` is hex; ``C4`` and ``C5`` in it stand for an accepted CONNECT of 3.1.1 and of 5.0.  ``outcome`` is what comes
back behind its CONNACK, a packet a word, and then ``close`` or ``open`` (a PINGREQ is answered).  A packet is its name,
with its code where that is not 0: ``disconnect:82``, ``suback:80``; ``pubrec*20`` stands for twenty.  ``version`` is
that of the answers.  ``limits`` are the broker's where its defaults would not do.

Where the page leaves a choice, this is the choice made; every outcome is one that the page allows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

C4 = "100f00044d5154540402003c0003617474"
C5 = "101000044d5154540502003c000003617474"


class Vector(NamedTuple):
    """One attack."""

    id: str
    attack: str
    sent: str
    outcome: str
    version: int = 4
    limits: Mapping[str, Any] = {}

    @property
    def data(self) -> bytes:
        """The bytes to send."""
        return bytes.fromhex(self.sent.replace("C4", C4).replace("C5", C5))


LONG_ID = "10 8d8004 0006 4d5149736470 03 02 003c ffff" + 65535 * "61"
MANY_PROPERTIES = "10 96dc55 0004 4d515454 05 02 003c 80dc55" + 200_000 * "26000161000162" + "0003 617474"
MANY_FILTERS = "82 f2a204 0001" + "".join(f"0004 {f'{number:04d}'.encode().hex()} 00" for number in range(10_000))
QOS_2 = "".join(f"34 07 0001 61 {number:04x} 00 78" for number in range(1, 26))

VECTORS = [
    Vector("A01", "remaining length 5 bytes, first packet", "10ffffffff01", "close"),
    Vector("A02", "CONNECT v5, overlong 2-byte length", "10900000044d5154540502003c000003617474", "close"),
    Vector("A03", "PUBLISH RL=268435455 before CONNECT", "30ffffff7f", "close"),
    Vector("A04", "CONNECT RL=268435455, 10 bytes sent", "10ffffff7f00044d5154540402003c0003617474", "close"),
    Vector("A05", "type 0 first", "0000", "close"),
    Vector("A06", "PINGREQ before CONNECT", "c000", "close"),
    Vector("A07", "CONNECT with fixed-header flags 0001", "110f00044d5154540402003c0003617474", "close"),
    Vector("A08", "second CONNECT v4", "C4 C4", "close"),
    Vector("A09", "second CONNECT v5", "C5 C5", "disconnect:82 close", 5),
    Vector("A10", "PINGREQ RL=1", "C4 c00100", "close"),
    Vector("A11", "client sends CONNACK", "C5 2003000000", "disconnect:82 close", 5),
    Vector("A12", "client sends SUBACK v4", "C4 9003000100", "close"),
    Vector("A13", "PUBREL flags 0000 v5", "C5 60020001", "disconnect:81 close", 5),
    Vector("A14", "SUBSCRIBE flags 0000 v4", "C4 8006000100016100", "close"),
    Vector(
        "A15", "mosquitto 2163", "101000044d5154540502003c03210014000029020001e000", "connack disconnect:81 close", 5
    ),
    Vector(
        "A16",
        "aedes 612",
        "101000044d5154540502003c0321001400006202d301e0020020",
        "connack pubcomp:92 disconnect:81 close",
        5,
    ),
    Vector("B01", "protocol name MQIsdp level 4", "101100064d51497364700402003c0003617474", "connack:01 close"),
    Vector("B02", "protocol level 6", "100f00044d5154540602003c0003617474", "connack:84 close", 5),
    Vector("B03", "reserved connect flag", "100f00044d5154540403003c0003617474", "close"),
    Vector("B04", "will QoS 3", "101500044d515454041e003c0003617474000177000178", "close"),
    Vector("B05", "will retain set, will flag 0", "100f00044d5154540422003c0003617474", "close"),
    Vector("B06", "v4 password flag without username", "101300044d5154540442003c000361747400027077", "close"),
    Vector("B07", "zero client id, clean=0 v4", "100c00044d5154540400003c0000", "connack:02 close"),
    Vector("B08", "client id has U+0000", "100f00044d5154540402003c0003610062", "close"),
    Vector("B09", "client id has surrogate", "101000044d5154540402003c000461eda080", "close"),
    Vector("B10", "client id overlong C0 80", "100e00044d5154540402003c0002c080", "close"),
    Vector("B11", "client id LF and ANSI", "101700044d5154540402003c000b780a1b5b33316d726f6f74", "connack:02 close"),
    Vector("B12", "client id #", "100d00044d5154540402003c000123", "connack open"),
    Vector("B13", "client id a/b", "100f00044d5154540402003c0003612f62", "connack open"),
    Vector("B14", "client id 65535 bytes", LONG_ID, "connack:02 close"),
    Vector("B15", "trailing bytes after client id", "101100044d5154540402003c00036174747a7a", "close"),
    Vector("B16", "will topic wildcard", "101700044d5154540406003c00036174740003612f23000178", "close"),
    Vector("B17", "will topic empty", "101400044d5154540406003c00036174740000000178", "close"),
    Vector(
        "B18",
        "v5 duplicate Session Expiry",
        "101a00044d5154540502003c0a110000000111000000010003617474",
        "connack:82 close",
        5,
    ),
    Vector("B19", "v5 Receive Maximum 0", "101300044d5154540502003c032100000003617474", "connack:82 close", 5),
    Vector("B20", "v5 Maximum Packet Size 0", "101500044d5154540502003c0527000000000003617474", "connack:82 close", 5),
    Vector("B21", "v5 Auth Data without method", "101400044d5154540502003c04160001780003617474", "connack:82 close", 5),
    Vector("B22", "v5 unknown property 7F", "101200044d5154540502003c027f000003617474", "connack:81 close", 5),
    Vector("B23", "v5 property length > packet", "100e00044d5154540502003c7f000161", "connack:81 close", 5),
    Vector("B24", "v5 5-byte property length", "101200044d5154540502003cffffffff01000161", "connack:81 close", 5),
    Vector("B25", "v5 Request Problem Info = 2", "101200044d5154540502003c0217020003617474", "connack:82 close", 5),
    Vector(
        "B26",
        "v5 will with Topic Alias",
        "101a00044d5154540506003c00000361747403230001000177000178",
        "connack:82 close",
        5,
    ),
    Vector(
        "B27", "v5 user property U+0000", "101800044d5154540502003c0826000261000001620003617474", "connack:81 close", 5
    ),
    Vector("B28", "v5 200k user properties", MANY_PROPERTIES, "close", 5),
    Vector("B29", "v5 Auth Method unknown", "101500044d5154540502003c051500027a7a0003617474", "connack:8c close", 5),
    Vector("C01", "PUBLISH QoS 3 v4", "C4 3608000161000178797a", "close"),
    Vector("C02", "QoS1 packet id 0 v5", "C5 320700016100000078", "disconnect:82 close", 5),
    Vector("C03", "empty topic v4", "C4 3003000078", "close"),
    Vector("C04", "empty topic no alias v5", "C5 300400000078", "disconnect:82 close", 5),
    Vector("C05", "topic a/+ v5", "C5 30070003612f2b0078", "disconnect:90 close", 5),
    Vector("C06", "topic U+0000 v4", "C4 3006000361006278", "close"),
    Vector("C07", "topic invalid UTF-8 v5", "C5 30060002fffe0078", "disconnect:81 close", 5),
    Vector("C08", "topic length > RL v4", "C4 3005ffff616161", "close"),
    Vector("C09", "DUP=1 QoS0 v4", "C4 380400016178", "close"),
    Vector("C10", "Topic Alias 0", "C5 30080001610323000078", "disconnect:94 close", 5),
    Vector("C11", "Topic Alias 65535 (> max)", "C5 30080001610323ffff78", "disconnect:94 close", 5),
    Vector("C12", "Topic Alias unknown, empty topic", "C5 300700000323000178", "disconnect:82 close", 5),
    Vector("C13", "Subscription Identifier in client PUBLISH", "C5 3007000161020b0178", "disconnect:82 close", 5),
    Vector("C14", "publish $SYS/x QoS1 v5", "C5 320c0006245359532f7800010078", "puback:87 open", 5),
    Vector("C15", "publish $SYS/x QoS1 v4", "C4 320b0006245359532f78000178", "puback open"),
    Vector("C16", "publish $foo/x QoS1 v4", "C4 320b000624666f6f2f78000178", "puback open"),
    Vector("C17", "topic / x65000 v4", "C4 30 ebfb03 fde8" + 65000 * "2f" + "78", "close"),
    Vector("C18", "3 MB PUBLISH v5", "C5 30 c58db701 0001 61 00" + 3_000_001 * "78", "disconnect:95 close", 5),
    Vector(
        "C19",
        "21 QoS2 unreleased, Receive Maximum 20 v5",
        "C5" + QOS_2,
        "pubrec*20 disconnect:93 close",
        5,
        {"receive_maximum": 20},
    ),
    Vector("C20", "same QoS2 id x1000, no PUBREL v4", "C4" + 1000 * "34060001610007 78", "pubrec*1000 open"),
    Vector("C21", "Response Topic with wildcard", "C5 300b00016106080003722f2378", "disconnect:82 close", 5),
    Vector(
        "C22",
        "Payload Format 1 with invalid UTF-8 QoS1",
        "C5 32090001610001020101ff",
        "puback:99 open",
        5,
        {"validate_payload_format": True},
    ),
    Vector("C23", "duplicate Message Expiry", "C5 300f0001610a0200000001020000000178", "disconnect:82 close", 5),
    Vector("D01", "SUBSCRIBE without filter v5", "C5 8203000100", "disconnect:82 close", 5),
    Vector("D02", "UNSUBSCRIBE without filter v4", "C4 a2020001", "close"),
    Vector("D03", "SUBSCRIBE QoS 3 v4", "C4 8206000100016103", "close"),
    Vector("D04", "SUBSCRIBE options C0 v5", "C5 8207000100000161c0", "disconnect:81 close", 5),
    Vector("D05", "Retain Handling 3", "C5 820700010000016130", "disconnect:82 close", 5),
    Vector("D06", "filter a/#/b v5", "C5 820b0001000005612f232f6200", "suback:8f open", 5),
    Vector("D07", "filter a+ v4", "C4 820700010002612b00", "suback:80 open"),
    Vector("D08", "packet id 0 v4", "C4 8206000000016100", "close"),
    Vector("D09", "$share/g", "C5 820e00010000082473686172652f6700", "disconnect:82 close", 5),
    Vector("D10", "$share//t", "C5 820f00010000092473686172652f2f7400", "disconnect:82 close", 5),
    Vector("D11", "$share/+/t", "C5 8210000100000a2473686172652f2b2f7400", "disconnect:82 close", 5),
    Vector("D12", "$share/g/", "C5 820f00010000092473686172652f672f00", "disconnect:82 close", 5),
    Vector("D13", "No Local on shared", "C5 8210000100000a2473686172652f672f7404", "disconnect:82 close", 5),
    Vector("D14", "Subscription Identifier 0", "C5 82090001020b0000016100", "disconnect:82 close", 5),
    Vector("D15", "Subscription Identifier 5-byte", "C5 820d0001060b808080800100016100", "disconnect:81 close", 5),
    Vector("D16", "empty filter v4", "C4 82050001000000", "close"),
    Vector("D17", "filter +/ x32767 v5", "C5 82 848004 0001 00 fffe" + 32767 * "2b2f" + "00", "suback:97 open", 5),
    Vector("D18", "10 000 filters in one SUBSCRIBE v4", "C4" + MANY_FILTERS, "suback open"),
    Vector("E01", "PUBREL unknown id v5", "C5 62020009", "pubcomp:92 open", 5),
    Vector("E02", "PUBREL unknown id v4", "C4 62020009", "pubcomp open"),
    Vector("E03", "PUBACK unknown id v5", "C5 40020009", "open", 5),
    Vector("E04", "PUBREC unknown id v5", "C5 50020009", "pubrel:92 open", 5),
    Vector("E05", "PUBACK id 0 v4", "C4 40020000", "close"),
    Vector("F01", "DISCONNECT raises expiry 0 to 10 v5", "C5 e0070005110000000a", "disconnect:82 close", 5),
    Vector("F02", "AUTH without method v5", "C5 f000", "disconnect:82 close", 5),
    Vector("F03", "DISCONNECT flags 0001", "C4 e100", "close"),
    Vector("F04", "DISCONNECT v4 RL=1", "C4 e00100", "close"),
]
