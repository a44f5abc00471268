"""DISCONNECT both ways, its codes, and being sent to another server (3.14, 4.11, 4.13)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred

from tests.conformance.helpers import CONNECT_HEX, V5, V31, V311, World, every_version, message, payloads
from twisted_p2pmqtt import ServerRedirect
from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.packets import Connack, Connect, Disconnect, Will

# From the client


@pytest.mark.spec("MQTT-3.14.4-2")
@every_version
def test_disconnect_closes(world: World, version: int) -> None:
    client = world.join("c", version)
    client.disconnect()
    assert client.is_closed
    assert client.receive() == []
    assert "c" not in world.broker.sessions


@pytest.mark.spec("MQTT-3.14.4-1")
@every_version
def test_nothing_behind_disconnect_is_handled(world: World, version: int) -> None:
    listener = world.join("listener")
    listener.subscribe("t")
    client = world.join("c", version)
    client.send(message("t", b"1"), Disconnect(), message("t", b"2"), message("t", b"3", 1, 1))
    assert payloads(listener) == [b"1"]
    assert client.receive() == []


CLIENTS_CODES = [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99]


@pytest.mark.spec("MQTT-3.14.2-1")
@pytest.mark.parametrize("code", CLIENTS_CODES)
def test_every_code_of_a_client(world: World, code: int) -> None:
    client = world.join("c")
    client.disconnect(code, {"reason_string": "why", "user_properties": [("a", "b")]})
    assert client.receive() == []
    assert client.is_closed


@pytest.mark.spec("MQTT-3.14.2-1", "MQTT-3.14.1-1", "MQTT-4.13.1-1")
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("e1 00", 0x81),
        ("ef 00", 0x81),
        ("e0 01 01", 0x82),
        ("e0 01 ff", 0x82),
        ("e0 02 0020", 0x81),
        ("e0 03 00 00 00", 0x81),
    ],
)
def test_an_illegal_disconnect(world: World, sent: str, code: int) -> None:
    raw = world.raw()
    raw.put(CONNECT_HEX[V5])
    assert raw.put(sent)[:3:2] == bytes([0xE0, code])
    assert raw.is_closed


@pytest.mark.spec("MQTT3-3.14.1-1")
@pytest.mark.parametrize("sent", ["e1 00", "e2 00", "e8 00", "e0 01 00"])
@pytest.mark.parametrize("version", [V31, V311])
def test_an_illegal_disconnect_in_3_x_fires_the_will(world: World, version: int, sent: str) -> None:
    listener = world.join("listener")
    listener.subscribe("w")
    client = world.join("c", version, will=Will("w", b"bye"))
    client.send_bytes(bytes.fromhex(sent))
    assert client.is_closed
    assert payloads(listener) == [b"bye"]


def test_a_server_reference_is_the_servers_to_give(world: World) -> None:
    client = world.join("c")
    client.disconnect(0, {"server_reference": "elsewhere"})
    assert client.take(Disconnect).reason_code == 0x82


# From the server


@pytest.mark.spec("MQTT-3.14.4-1", "MQTT-3.14.4-2", "MQTT-3.14.2-2", "MQTT-4.13.2-1")
def test_the_server_says_disconnect_last(world: World) -> None:
    client = world.join("c", session_expiry_interval=60)
    client.subscribe("t")
    client.receive()
    assert world.broker.disconnect("c", ReasonCode.ADMINISTRATIVE_ACTION) is True
    world.join("p").publish("t", b"later", 1)
    assert client.receive() == [Disconnect(0x98)]
    assert client.is_closed
    assert world.broker.disconnect("c") is False
    assert world.broker.disconnect("nobody") is False


@pytest.mark.parametrize("version", [V31, V311])
def test_in_3_x_the_server_just_closes(world: World, version: int) -> None:
    client = world.join("c", version)
    assert world.broker.disconnect("c") is True
    assert client.is_closed
    assert client.receive() == []


CAUSES: dict[str, tuple[bytes, int]] = {
    "malformed": (bytes.fromhex("82 07 0001 00 0001 ff 00"), 0x81),
    "protocol error": (bytes.fromhex("32 07 0001 74 0000 00 78"), 0x82),
    "topic filter": (bytes.fromhex("82 0b 0001 00 0005 612f232f62 00"), 0),
    "topic name": (bytes.fromhex("30 05 0002 612b 00"), 0x90),
    "packet too large": (bytes.fromhex("30 ff7f"), 0x95),
    "topic alias": (bytes.fromhex("30 08 0001 74 03 23 00ff 78"), 0x94),
    "receive maximum": (bytes.fromhex("34 06 0001 74 0001 00") + bytes.fromhex("34 06 0001 74 0002 00"), 0x93),
    "qos": (bytes.fromhex("34 06 0001 74 0001 00"), 0x9B),
    "retain": (bytes.fromhex("31 05 0001 74 00 78"), 0x9A),
    "subscription identifiers": (bytes.fromhex("82 09 0001 02 0b01 0001 74 00"), 0xA1),
}
LIMITS: dict[str, dict[str, Any]] = {
    "packet too large": {"max_packet_size": 1000},
    "receive maximum": {"receive_maximum": 1},
    "qos": {"max_qos": 1},
    "retain": {"retain_available": False},
    "subscription identifiers": {"subscription_identifiers": False},
}


@pytest.mark.spec("MQTT-3.14.2-1", "MQTT-4.13.1-1", "MQTT-4.13.2-1")
@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_has_its_code_and_says_why(cause: str) -> None:
    client = World(**LIMITS.get(cause, {})).join("c")
    sent, code = CAUSES[cause]
    client.send_bytes(sent)
    goodbyes = [each for each in client.receive() if isinstance(each, Disconnect)]
    assert [each.reason_code for each in goodbyes] == ([code] if code else [])
    assert all(set(each.properties) == {"reason_string"} for each in goodbyes)
    assert client.is_closed is bool(code)


@pytest.mark.spec("MQTT-3.14.0-1")
@pytest.mark.parametrize(
    "sent",
    [
        "10 10 0004 4d515454 05 03 003c 00 0003 617474",
        "10 10 0004 4d515454 06 02 003c 00 0003 617474",
        "10 15 0004 4d515454 05 02 003c 05 15 0002 7a7a 0003 617474",
        "10 10 0004 4d515454 05 02 003c 00 0003 610a74",
        "c0 00",
        "30 ffffff7f",
    ],
)
def test_no_disconnect_without_a_connack_that_accepts(world: World, sent: str) -> None:
    raw = world.raw()
    answer = raw.put(sent)
    assert raw.is_closed
    assert answer[:1] in (b"", b"\x20")
    assert b"\xe0" not in answer[:1]
    assert len(answer) in (0, 5)


@pytest.mark.spec("MQTT-3.14.0-1")
def test_no_disconnect_while_the_login_is_on_its_way() -> None:
    answer: Deferred[None] = Deferred()
    world = World(lambda credentials: answer)
    client = world.client("c")
    client.send(Connect("c"))
    world.wait(20)  # the login took too long, and then connect_timeout would have struck
    assert [type(each) for each in client.receive()] == [Connack]
    assert client.is_closed


# Another server


@pytest.mark.parametrize(("permanently", "code"), [(False, 0x9C), (True, 0x9D)])
@every_version
def test_a_client_is_sent_to_another_server_when_it_connects(version: int, permanently: bool, code: int) -> None:
    def login(credentials: Any) -> None:
        raise ServerRedirect("other.example:1883", permanently)

    client, connack = World(login).connect("c", version)
    if version == V5:
        assert connack == Connack(False, code, {"server_reference": "other.example:1883"})
    else:
        assert connack == Connack(False, 3)
    assert client.is_closed


def test_a_login_may_decide_that_later() -> None:
    answer: Deferred[None] = Deferred()
    client = World(lambda credentials: answer).client("c")
    client.send(Connect("c"))
    answer.errback(ServerRedirect("other.example"))
    assert client.take(Connack).properties == {"server_reference": "other.example"}
    assert client.is_closed


@pytest.mark.parametrize("code", [0x9C, 0x9D])
@every_version
def test_a_connected_client_is_sent_to_another_server(world: World, version: int, code: int) -> None:
    client = world.join("c", version)
    assert world.broker.disconnect("c", code, "other.example other2.example:8883") is True
    assert client.is_closed
    expected = Disconnect(code, {"server_reference": "other.example other2.example:8883"})
    assert client.receive() == ([expected] if version == V5 else [])


@pytest.mark.spec("MQTT-3.14.2-1")
@pytest.mark.parametrize("code", [0x84, 0x85, 0x86, 0x88, 0x8A])
def test_a_code_that_is_not_for_disconnect_becomes_one_that_is(world: World, code: int) -> None:
    client = world.join("c")
    world.broker.disconnect("c", code)
    assert client.take(Disconnect).reason_code == 0x87
