"""Which reason codes each packet may have: the tables of chapter 3, in hex, against all 256."""

import pytest

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import ProtocolViolation
from twisted_p2pmqtt.codec.reader import PacketReader

ACKNOWLEDGED = "00 10 80 83 87 90 91 97 99"

pytestmark = [
    pytest.mark.spec("MQTT-3.2.2-8", "MQTT-3.4.2-1", "MQTT-3.5.2-1", "MQTT-3.6.2-1", "MQTT-3.7.2-1", "MQTT-3.9.3-2"),
    pytest.mark.spec("MQTT-3.11.3-2", "MQTT-3.14.2-1", "MQTT-3.15.2-1", "MQTT3-3.9.3-2"),
]


@pytest.mark.parametrize(
    ("version", "sent", "codes"),
    [
        # 0x01 without properties is the CONNACK of a server that knows no 5.0; here there are properties
        pytest.param(
            5,
            "20 03 00 ?? 00",
            "00 80 81 82 83 84 85 86 87 88 89 8a 8c 90 95 97 99 9a 9b 9c 9d 9f",
            id="CONNACK 5.0",
        ),
        pytest.param(4, "20 02 00 ??", "00 01 02 03 04 05", id="CONNACK 3.1.1"),
        pytest.param(3, "20 02 00 ??", "00 01 02 03 04 05", id="CONNACK 3.1"),
        pytest.param(5, "40 03 0001 ??", ACKNOWLEDGED, id="PUBACK"),
        pytest.param(5, "50 03 0001 ??", ACKNOWLEDGED, id="PUBREC"),
        pytest.param(5, "62 03 0001 ??", "00 92", id="PUBREL"),
        pytest.param(5, "70 03 0001 ??", "00 92", id="PUBCOMP"),
        pytest.param(5, "90 04 0001 00 ??", "00 01 02 80 83 87 8f 91 97 9e a1 a2", id="SUBACK 5.0"),
        pytest.param(5, "90 05 0001 00 ?? 00", "00 01 02 80 83 87 8f 91 97 9e a1 a2", id="SUBACK 5.0, first of two"),
        pytest.param(4, "90 03 0001 ??", "00 01 02 80", id="SUBACK 3.1.1"),
        pytest.param(3, "90 03 0001 ??", "00 01 02 80", id="SUBACK 3.1"),
        pytest.param(5, "b0 04 0001 00 ??", "00 11 80 83 87 8f 91", id="UNSUBACK"),
        # 3.14.2.1; 0x8c by the table of section 2.4 alone
        pytest.param(
            5,
            "e0 01 ??",
            "00 04 80 81 82 83 87 89 8b 8c 8d 8e 8f 90 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2",
            id="DISCONNECT",
        ),
        pytest.param(5, "f0 06 ?? 04 15 0001 78", "00 18 19", id="AUTH"),
    ],
)
def test_codes(version: int, sent: str, codes: str) -> None:
    legal = set()
    for code in range(256):
        reader = PacketReader(version=version, from_server=True)
        if reader.feed(bytes.fromhex(sent.replace("??", f"{code:02x}"))):
            legal.add(code)
        else:
            assert type(reader.error) is ProtocolViolation
    assert legal == set(bytes.fromhex(codes))


def test_the_reason_codes_are_those_of_section_2_4() -> None:
    assert set(ReasonCode) == set(
        bytes.fromhex(
            "00 01 02 04 10 11 18 19 80 81 82 83 84 85 86 87 88 89 8a 8b 8c 8d 8e 8f "
            "90 91 92 93 94 95 96 97 98 99 9a 9b 9c 9d 9e 9f a0 a1 a2"
        )
    )
