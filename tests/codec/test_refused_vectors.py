"""Every byte string to refuse is refused, with its error and reason code, and nothing of it gets through."""

import pytest

from tests.wire_refused import INSTEAD_OF_CONNECT, REFUSED, Refused
from twisted_p2pmqtt.codec.constants import RETURN_CODE_OF_REASON, ConnectReturnCode, ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError, ServerRedirect, UnsupportedVersion

# Literal, because docs/conformance.md is made from this file's text.
MARKS = {
    mark.args[0]: mark
    for mark in (
        pytest.mark.spec("MQTT-1.5.4-1"),
        pytest.mark.spec("MQTT-1.5.4-2"),
        pytest.mark.spec("MQTT-1.5.5-1"),
        pytest.mark.spec("MQTT-1.5.7-1"),
        pytest.mark.spec("MQTT-2.1.3-1"),
        pytest.mark.spec("MQTT-2.2.1-3"),
        pytest.mark.spec("MQTT-2.2.2-1"),
        pytest.mark.spec("MQTT-3.1.0-1"),
        pytest.mark.spec("MQTT-3.1.0-2"),
        pytest.mark.spec("MQTT-3.1.2-1"),
        pytest.mark.spec("MQTT-3.1.2-3"),
        pytest.mark.spec("MQTT-3.1.2-9"),
        pytest.mark.spec("MQTT-3.1.2-11"),
        pytest.mark.spec("MQTT-3.1.2-12"),
        pytest.mark.spec("MQTT-3.1.2-13"),
        pytest.mark.spec("MQTT-3.1.2-16"),
        pytest.mark.spec("MQTT-3.1.2-17"),
        pytest.mark.spec("MQTT-3.1.2-18"),
        pytest.mark.spec("MQTT-3.1.2-19"),
        pytest.mark.spec("MQTT-3.1.3-3"),
        pytest.mark.spec("MQTT-3.1.3-4"),
        pytest.mark.spec("MQTT-3.1.3-11"),
        pytest.mark.spec("MQTT-3.1.3-12"),
        pytest.mark.spec("MQTT-3.2.2-1"),
        pytest.mark.spec("MQTT-3.2.2-8"),
        pytest.mark.spec("MQTT-3.3.1-2"),
        pytest.mark.spec("MQTT-3.3.1-4"),
        pytest.mark.spec("MQTT-3.3.2-1"),
        pytest.mark.spec("MQTT-3.3.2-2"),
        pytest.mark.spec("MQTT-3.3.2-8"),
        pytest.mark.spec("MQTT-3.3.2-13"),
        pytest.mark.spec("MQTT-3.3.2-14"),
        pytest.mark.spec("MQTT-3.3.2-19"),
        pytest.mark.spec("MQTT-3.3.4-6"),
        pytest.mark.spec("MQTT-3.4.2-1"),
        pytest.mark.spec("MQTT-3.5.2-1"),
        pytest.mark.spec("MQTT-3.6.1-1"),
        pytest.mark.spec("MQTT-3.6.2-1"),
        pytest.mark.spec("MQTT-3.7.2-1"),
        pytest.mark.spec("MQTT-3.8.1-1"),
        pytest.mark.spec("MQTT-3.8.3-1"),
        pytest.mark.spec("MQTT-3.8.3-2"),
        pytest.mark.spec("MQTT-3.8.3-5"),
        pytest.mark.spec("MQTT-3.9.3-2"),
        pytest.mark.spec("MQTT-3.10.1-1"),
        pytest.mark.spec("MQTT-3.10.3-1"),
        pytest.mark.spec("MQTT-3.10.3-2"),
        pytest.mark.spec("MQTT-3.11.3-2"),
        pytest.mark.spec("MQTT-3.14.1-1"),
        pytest.mark.spec("MQTT-3.14.2-1"),
        pytest.mark.spec("MQTT-3.15.1-1"),
        pytest.mark.spec("MQTT-3.15.2-1"),
        pytest.mark.spec("MQTT-4.7.0-1"),
        pytest.mark.spec("MQTT-4.7.3-1"),
        pytest.mark.spec("MQTT-4.7.3-2"),
        pytest.mark.spec("MQTT3-1.5.3-1"),
        pytest.mark.spec("MQTT3-1.5.3-2"),
        pytest.mark.spec("MQTT3-2.2.2-2"),
        pytest.mark.spec("MQTT3-2.3.1-1"),
        pytest.mark.spec("MQTT3-3.1.0-1"),
        pytest.mark.spec("MQTT3-3.1.0-2"),
        pytest.mark.spec("MQTT3-3.1.2-1"),
        pytest.mark.spec("MQTT3-3.1.2-3"),
        pytest.mark.spec("MQTT3-3.1.2-9"),
        pytest.mark.spec("MQTT3-3.1.2-11"),
        pytest.mark.spec("MQTT3-3.1.2-13"),
        pytest.mark.spec("MQTT3-3.1.2-14"),
        pytest.mark.spec("MQTT3-3.1.2-15"),
        pytest.mark.spec("MQTT3-3.1.2-18"),
        pytest.mark.spec("MQTT3-3.1.2-19"),
        pytest.mark.spec("MQTT3-3.1.2-20"),
        pytest.mark.spec("MQTT3-3.1.2-21"),
        pytest.mark.spec("MQTT3-3.1.2-22"),
        pytest.mark.spec("MQTT3-3.1.3-3"),
        pytest.mark.spec("MQTT3-3.1.3-4"),
        pytest.mark.spec("MQTT3-3.1.3-10"),
        pytest.mark.spec("MQTT3-3.1.3-11"),
        pytest.mark.spec("MQTT3-3.3.1-2"),
        pytest.mark.spec("MQTT3-3.3.1-4"),
        pytest.mark.spec("MQTT3-3.3.2-1"),
        pytest.mark.spec("MQTT3-3.3.2-2"),
        pytest.mark.spec("MQTT3-3.6.1-1"),
        pytest.mark.spec("MQTT3-3.8.1-1"),
        pytest.mark.spec("MQTT3-3.8.3-1"),
        pytest.mark.spec("MQTT3-3.8.3-3"),
        pytest.mark.spec("MQTT3-3.8.3-4"),
        pytest.mark.spec("MQTT3-3.9.3-2"),
        pytest.mark.spec("MQTT3-3.10.1-1"),
        pytest.mark.spec("MQTT3-3.10.3-1"),
        pytest.mark.spec("MQTT3-3.10.3-2"),
        pytest.mark.spec("MQTT3-3.14.1-1"),
        pytest.mark.spec("MQTT3-4.7.1-1"),
        pytest.mark.spec("MQTT3-4.7.3-1"),
        pytest.mark.spec("MQTT3-4.7.3-2"),
    )
}


def test_no_mark_is_left_over() -> None:
    assert set(MARKS) == {sentence for refused in REFUSED for sentence in refused.spec}


@pytest.mark.parametrize(
    "refused",
    [pytest.param(each, marks=[MARKS[sentence] for sentence in each.spec], id=each.name) for each in REFUSED],
)
def test_refused(refused: Refused) -> None:
    reader = refused.reader()
    assert reader.feed(refused.data) == []
    assert type(reader.error) is refused.error
    assert reader.error.reason_code == refused.reason_code
    assert not reader.has_partial_packet
    assert reader.feed(b"\xc0\x00") == []  # whatever follows is never read


@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.name)
def test_refused_byte_by_byte_too(refused: Refused) -> None:
    reader = refused.reader()
    for byte in refused.data:
        assert reader.feed(bytes((byte,))) == []
    assert type(reader.error) is refused.error
    assert reader.error.reason_code == refused.reason_code


def test_each_is_one_whole_packet() -> None:
    """So it is refused for what it says, and not for a slip in its length."""
    slips = {"A01", "A02", "A03"}  # their remaining length is the point
    assert {each.name[:3] for each in REFUSED if each.data[1] != len(each.data) - 2} == slips


@pytest.mark.parametrize(
    ("sent", "version"),
    [
        ("10 0f 0004 4d515454 06 02 003c 0003 617474", 5),  # a version to come is told so in the newest words
        ("10 10 0004 4d515454 05 03 003c 00 0003 617474", 5),
        ("10 0f 0004 4d515454 04 03 003c 0003 617474", 4),
        ("10 0f 0004 4d515454 03 02 003c 0003 617474", 4),
        ("10 10 0006 4d5149736470 09 02 003c 0002 6331", 4),
        ("10 0f 0004 4d515458 04 02 003c 0003 617474", 0),  # not MQTT: no answer at all
        ("10 07 0004 4d515454 05", 5),  # ends with its level
        ("10 06 0004 4d515454", 0),  # ends before it
        ("10 00", 0),
    ],
)
def test_a_refused_connect_says_in_which_version_to_answer(sent: str, version: int) -> None:
    reader = INSTEAD_OF_CONNECT[0].reader()
    reader.feed(bytes.fromhex(sent))
    assert isinstance(reader.error, MQTTError)
    assert reader.version == version


def test_errors_carry_a_sentence_and_a_reason_code() -> None:
    assert str(UnsupportedVersion("no")) == UnsupportedVersion("no").reason_string == "no"
    assert UnsupportedVersion("no").reason_code is ReasonCode.UNSUPPORTED_PROTOCOL_VERSION
    assert MQTTError("no").reason_code is ReasonCode.UNSPECIFIED_ERROR
    assert MQTTError("no", ReasonCode.BANNED).reason_code is ReasonCode.BANNED
    assert ServerRedirect("host:1883").reason_code is ReasonCode.USE_ANOTHER_SERVER
    assert ServerRedirect("host:1883", permanently=True).reason_code is ReasonCode.SERVER_MOVED
    assert ServerRedirect("host:1883").server_reference == "host:1883"


def test_every_return_code_of_3_x_stands_for_a_reason() -> None:
    assert set(RETURN_CODE_OF_REASON.values()) == set(ConnectReturnCode) - {ConnectReturnCode.ACCEPTED}
    assert all(reason >= 0x80 for reason in RETURN_CODE_OF_REASON)
    assert RETURN_CODE_OF_REASON[ReasonCode.UNSUPPORTED_PROTOCOL_VERSION] == 1
    assert RETURN_CODE_OF_REASON[ReasonCode.BAD_USER_NAME_OR_PASSWORD] == 4
