"""CONNACK: its flags, its codes, and all that it tells of what is limited (3.2)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.helpers import (
    CONNECT_HEX,
    V5,
    V31,
    V311,
    World,
    ask,
    every_version,
    kinds,
    message,
    payloads,
    since_v311,
)
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.codec.packets import Connack, Connect, Disconnect, Will
from twisted_p2pmqtt.core.p2p import NoP2PRouter, make_router
from twisted_p2pmqtt.testing import MemoryClient, make_broker

DEFAULTS = {"topic_alias_maximum": 10, "receive_maximum": 1000, "maximum_packet_size": 1_048_576}
"""What CONNACK 5.0 says where nothing is switched off."""


@pytest.mark.spec("MQTT-3.2.0-2", "MQTT-3.2.0-1", "MQTT3-3.2.0-1")
@every_version
def test_one_connack_before_everything_else(world: World, version: int) -> None:
    first = world.rejoin("c", version)
    first.subscribe("t")
    first.lose()
    world.join("other").publish("t", b"waits", 1)
    client = world.client("c", version)
    properties: Any = {"session_expiry_interval": 60} if version == V5 else {}
    client.send(Connect("c", version, clean_start=False, properties=properties))
    world.wait(5)
    assert kinds(client.packets) == ["Connack", "Message"]
    client.disconnect()
    assert kinds(client.packets).count("Connack") == 1


@pytest.mark.spec("MQTT-3.2.2-1")
@every_version
def test_the_flags_hold_session_present_only(world: World, version: int) -> None:
    for expected in (b"\x20", b"\x20"):
        raw = world.raw()
        answer = raw.put(CONNECT_HEX[version])
        assert answer[:1] == expected
        assert answer[2] == 0


@pytest.mark.spec("MQTT-3.2.2-2", "MQTT3-3.2.2-1")
@since_v311
def test_no_session_present_where_the_client_wants_a_new_one(world: World, version: int) -> None:
    world.rejoin("c", version).lose()
    assert world.connect("c", version, clean_start=True)[1].session_present is False


@pytest.mark.spec("MQTT-3.2.2-3", "MQTT3-3.2.2-2", "MQTT3-3.2.2-3")
@since_v311
def test_session_present_is_exact(world: World, version: int) -> None:
    properties: Any = {"session_expiry_interval": 10} if version == V5 else {}
    client, connack = world.connect("c", version, clean_start=False, properties=properties)
    assert connack.session_present is False
    client.lose()
    client, connack = world.connect("c", version, clean_start=False, properties=properties)
    assert connack.session_present is True
    client.lose()
    world.wait(11 if version == V5 else 604_801)
    assert world.connect("c", version, clean_start=False)[1].session_present is False


def test_3_1_knows_no_session_present(world: World) -> None:
    world.rejoin("c", V31).lose()
    assert world.connect("c", V31, clean_start=False)[1] == Connack(False, 0)


@pytest.mark.spec("MQTT-3.2.2-6", "MQTT-3.2.2-7", "MQTT3-3.2.2-4", "MQTT3-3.2.2-5")
@since_v311
def test_a_refusal_has_no_session_present(version: int) -> None:
    def login(credentials: Any) -> None:
        if credentials.username:
            raise MQTTError("no", 0x87)  # type: ignore[arg-type]  # an embedder's plain number

    world = World(login)
    world.rejoin("c", version).lose()
    client, connack = world.connect("c", version, clean_start=False, username="u")
    assert (connack.session_present, connack.reason_code) == (False, 0x87 if version == V5 else 5)
    assert client.is_closed


@pytest.mark.spec("MQTT-3.2.2-8")
@pytest.mark.parametrize(
    ("code", "told"), [(0x87, 0x87), (0x8A, 0x8A), (0x8C, 0x8C), (0x9F, 0x9F), (0x8E, 0x80), (0x93, 0x80)]
)
def test_reason_codes_are_those_of_the_table(code: int, told: int) -> None:
    def login(credentials: Any) -> None:
        raise MQTTError("no", code)  # type: ignore[arg-type]  # a number will do

    assert World(login).connect("c")[1].reason_code == told


# What is limited


def announced(**limits: Any) -> dict[str, Any]:
    """What the CONNACK of a broker with these limits says besides the defaults."""
    properties: dict[str, Any] = dict(World(**limits).connect("c")[1].properties)
    return {name: value for name, value in properties.items() if DEFAULTS.get(name) != value}


def test_nothing_is_limited_by_default(world: World) -> None:
    assert world.connect("c")[1].properties == DEFAULTS


@pytest.mark.spec("MQTT-3.2.2-9")
@pytest.mark.parametrize("maximum", [0, 1])
def test_a_maximum_qos_is_announced(maximum: int) -> None:
    assert announced(max_qos=maximum) == {"maximum_qos": maximum}


@pytest.mark.parametrize(
    ("limit", "value", "property_name", "told"),
    [
        ("retain_available", False, "retain_available", 0),
        ("wildcard_subscriptions", False, "wildcard_subscription_available", 0),
        ("shared_subscriptions", False, "shared_subscription_available", 0),
        ("subscription_identifiers", False, "subscription_identifier_available", 0),
        ("receive_maximum", 7, "receive_maximum", 7),
        ("topic_alias_maximum", 3, "topic_alias_maximum", 3),
        ("topic_alias_maximum", 0, "topic_alias_maximum", 0),
        ("max_packet_size", 1000, "maximum_packet_size", 1000),
    ],
)
def test_every_limit_is_announced(limit: str, value: Any, property_name: str, told: int) -> None:
    assert announced(**{limit: value}) == {property_name: told}


@pytest.mark.spec("MQTT-3.2.2-10", "MQTT-3.8.4-8")
@pytest.mark.parametrize("maximum", [0, 1])
def test_a_subscription_may_ask_for_more_than_the_maximum_qos(maximum: int) -> None:
    world = World(max_qos=maximum)
    client = world.join("c")
    assert client.subscribe(ask("0", 0), ask("1", 1), ask("2", 2)) == [0, min(1, maximum), maximum]
    world.broker.publish("2", b"x", 2)
    assert [each.qos for each in client.messages] == [maximum]


@pytest.mark.spec("MQTT-3.2.2-11")
@every_version
@pytest.mark.parametrize(("maximum", "qos"), [(0, 1), (0, 2), (1, 2)])
def test_a_publish_above_the_maximum_qos(version: int, maximum: int, qos: int) -> None:
    world = World(max_qos=maximum)
    listener, client = world.join("listener"), world.join("c", version)
    listener.subscribe("t")
    client.send(message("t", qos=qos, packet_id=1))
    assert client.is_closed
    assert [each.reason_code for each in client.packets if isinstance(each, Disconnect)] == [0x9B] * (version == V5)
    assert payloads(listener) == []


@pytest.mark.spec("MQTT-3.2.2-12")
@every_version
@pytest.mark.parametrize(("maximum", "qos"), [(0, 1), (0, 2), (1, 2)])
def test_a_will_above_the_maximum_qos(version: int, maximum: int, qos: int) -> None:
    client = World(max_qos=maximum).client("c", version)
    client.send(Connect("c", version, will=Will("w", b"", qos)))
    assert client.is_closed
    assert [each.reason_code for each in client.packets if isinstance(each, Connack)] == [0x9B] * (version == V5)


@pytest.mark.spec("MQTT-3.2.2-13")
@every_version
def test_a_retained_will_where_nothing_is_retained(version: int) -> None:
    world = World(retain_available=False)
    client = world.client("c", version)
    client.send(Connect("c", version, will=Will("w", b"x", 0, True)))
    assert client.is_closed
    assert [each.reason_code for each in client.packets if isinstance(each, Connack)] == [0x9A] * (version == V5)
    assert world.join("d", version, will=Will("w", b"x")).is_closed is False


@pytest.mark.spec("MQTT-3.2.2-14")
@every_version
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_retained_publish_where_nothing_is_retained(version: int, qos: int) -> None:
    world = World(retain_available=False)
    client = world.join("c", version)
    client.send(message("t", qos=qos, packet_id=min(qos, 1), retain=True))
    assert client.is_closed
    assert [each.reason_code for each in client.packets if isinstance(each, Disconnect)] == [0x9A] * (version == V5)


@pytest.mark.spec("MQTT-3.2.2-15", "MQTT-4.13.1-1")
@every_version
def test_a_packet_above_the_servers_maximum(version: int) -> None:
    world = World(max_packet_size=200)
    listener = world.join("listener")
    listener.subscribe("t")
    client = world.join("c", version)
    fits = 200 - 3 - 3 - (version == V5)  # fixed header of 3 bytes, topic, properties
    client.publish("t", fits * b"x")
    assert [len(each) for each in payloads(listener)] == [fits]
    client.publish("t", (fits + 1) * b"x")
    assert client.is_closed
    assert [each.reason_code for each in client.packets if isinstance(each, Disconnect)] == [0x95] * (version == V5)
    assert len(payloads(listener)) == 1


@pytest.mark.spec("MQTT-3.2.2-15")
def test_a_packet_above_the_maximum_is_refused_at_its_header() -> None:
    raw = World(max_packet_size=200).raw()
    raw.put(CONNECT_HEX[V5])
    assert raw.put("30 c601")[:3:2] == b"\xe0\x95"
    assert raw.is_closed


# Session expiry and keep alive


@pytest.mark.parametrize(("wanted", "told"), [(0, None), (59, None), (60, None), (61, 60), (2**32 - 1, 60)])
def test_a_session_expiry_that_is_cut_is_told(wanted: int, told: int | None) -> None:
    connack = World(max_session_expiry=60).connect("c", properties={"session_expiry_interval": wanted})[1]
    assert connack.properties.get("session_expiry_interval") == told


@pytest.mark.parametrize(
    ("limits", "asked", "told"),
    [
        ({}, 60, None),
        ({}, 0, None),
        ({"max_keep_alive": 30}, 60, 30),
        ({"max_keep_alive": 30}, 0, 30),
        ({"max_keep_alive": 30}, 30, None),
        ({"min_keep_alive": 10}, 5, 10),
        ({"min_keep_alive": 10}, 0, None),
    ],
)
def test_a_keep_alive_of_the_servers_is_told(limits: dict[str, Any], asked: int, told: int | None) -> None:
    connack = World(**limits).connect("c", keep_alive=asked)[1]
    assert connack.properties.get("server_keep_alive") == told


# Response information, problem information


@pytest.mark.spec("MQTT-3.1.2-28")
def test_response_information_is_for_those_who_ask(world: World) -> None:
    for wanted in ({}, {"request_response_information": 0}):
        connack = world.connect("c", properties=wanted)[1]
        assert "response_information" not in connack.properties
    connack = world.connect("c", properties={"request_response_information": 1})[1]
    assert connack.properties["response_information"] == "p2p/c"


@pytest.mark.parametrize(
    ("mode", "told"), [("prefix", "p2p/d%2Fe"), ("suffix", "reply/p2p/d%2Fe"), ("both", "p2p/d%2Fe")]
)
def test_response_information_is_an_address_of_the_client(mode: str, told: str) -> None:
    world = World()
    world.broker.router = make_router(mode)
    connack = world.connect("d/e", properties={"request_response_information": 1})[1]
    assert connack.properties["response_information"] == told


def test_no_response_information_without_p2p() -> None:
    client = MemoryClient(make_broker(World().clock, router=NoP2PRouter()), "c")
    assert "response_information" not in client.connect(properties={"request_response_information": 1}).properties


@pytest.mark.spec("MQTT-3.1.2-29")
def test_no_problem_information_for_those_who_want_none(world: World) -> None:
    """PUBACK, PUBREC, SUBACK, UNSUBACK and DISCONNECT of a broker that has something to explain, and does not."""
    quiet, curious = world.join("quiet", request_problem_information=0), world.join("curious")
    for client in (quiet, curious):
        for qos in (1, 2):
            client.send(message("p2p/nobody/t", qos=qos, packet_id=qos), message("p2p//t", qos=qos, packet_id=qos + 2))
        client.send(message("p2p/curious/t", qos=1, packet_id=5))
        client.subscribe("a/#/b", "$share/g/t")
        client.unsubscribe("none")
        client.send_bytes(b"\xc1\x00")
        assert client.is_closed
    explained = [
        type(each).__name__
        for each in quiet.packets
        if {"reason_string", "user_properties"} & set(getattr(each, "properties", {}))
    ]
    assert set(explained) <= {"Message", "Connack", "Disconnect"}
    assert any("user_properties" in getattr(each, "properties", {}) for each in curious.packets)
    assert "reason_string" in curious.take(Disconnect).properties


@pytest.mark.spec("MQTT3-3.2.0-1")
def test_3_1_1_has_a_connack_of_4_bytes(world: World) -> None:
    for version in (V31, V311):
        assert world.raw().put(CONNECT_HEX[version]) == b"\x20\x02\x00\x00"
