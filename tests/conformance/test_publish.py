"""PUBLISH: topics, properties, expiry, reason codes and who gets what (3.3, 4.5, 4.7)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.helpers import CONNECT_HEX, V5, V31, V311, World, every_version, message, payloads
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connect, Disconnect, Puback, Pubrec, Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.testing import MemoryClient


def subscriber(world: World, *filters: str, version: int = V5, client_id: str = "s", qos: int = 2) -> MemoryClient:
    """A connected client that has subscribed."""
    client = world.join(client_id, version)
    client.subscribe(*filters, qos=qos)
    return client


# On the wire


@pytest.mark.spec("MQTT-4.3.1-1", "MQTT3-4.3.1-1", "MQTT-2.2.1-2", "MQTT3-2.3.1-5", "MQTT-3.3.2-1", "MQTT3-3.3.2-1")
@pytest.mark.parametrize("qos", [0, 1, 2])
@every_version
def test_a_qos_0_message_on_the_wire(world: World, version: int, qos: int) -> None:
    """First the topic, then the properties, then the payload; no packet identifier, no flag."""
    raw = world.raw()
    raw.put(CONNECT_HEX[version])
    raw.put("82 09 0001 00 0003 612f62 00" if version == V5 else "82 08 0001 0003 612f62 00")
    world.join("p").publish("a/b", b"xyz", qos)
    assert raw.got() == bytes.fromhex("30 09 0003 612f62 00 78797a" if version == V5 else "30 08 0003 612f62 78797a")


@pytest.mark.spec("MQTT-3.3.1-3", "MQTT3-3.3.1-3")
@pytest.mark.parametrize("qos", [1, 2])
@every_version
def test_dup_is_not_passed_on(world: World, version: int, qos: int) -> None:
    listener = subscriber(world, "t", version=version)
    world.join("p", version).send(message("t", qos=qos, packet_id=5, dup=True))
    assert [each.dup for each in listener.messages] == [0]


@pytest.mark.spec("MQTT-3.3.1-12", "MQTT3-3.3.1-9")
@pytest.mark.parametrize("qos", [0, 1, 2])
@every_version
def test_retain_is_not_passed_on_to_an_established_subscription(world: World, version: int, qos: int) -> None:
    listener = subscriber(world, "t", version=version)
    world.join("p", version).publish("t", b"x", qos, retain=True)
    assert [each.retain for each in listener.messages] == [0]


@pytest.mark.parametrize("payload", [b"", b"\0", bytes(range(256)), 70_000 * b"x"])
@pytest.mark.parametrize("qos", [0, 1, 2])
@every_version
def test_a_payload_is_any_bytes(world: World, version: int, qos: int, payload: bytes) -> None:
    listener = subscriber(world, "t", version=version)
    world.join("p", version).publish("t", payload, qos)
    assert payloads(listener) == [payload]


# Who gets it


@pytest.mark.spec("MQTT-4.5.0-1", "MQTT3-4.5.0-1", "MQTT-3.3.2-3", "MQTT3-3.3.2-3")
@every_version
def test_a_message_reaches_every_client_that_subscribed_and_no_other(world: World, version: int) -> None:
    filters = ["a/b", "a/+", "#", "a/b/#", "+/b", "x", "a", "a/b/c", "+", "/a/b", "a/b/"]
    clients = {each: subscriber(world, each, version=version, client_id=f"s{each}") for each in filters}
    assert world.join("p", version).publish("a/b", b"x", 1) == 0
    got = {each for each, client in clients.items() if client.messages}
    assert got == {"a/b", "a/+", "#", "a/b/#", "+/b"}
    assert all(each.topic == b"a/b" for client in clients.values() for each in client.messages)


@every_version
def test_a_client_hears_itself(world: World, version: int) -> None:
    client = subscriber(world, "t", version=version)
    client.publish("t", b"x")
    assert payloads(client) == [b"x"]


@pytest.mark.spec("MQTT-4.6.0-5", "MQTT-4.6.0-6", "MQTT3-4.6.0-5", "MQTT3-4.6.0-6")
@pytest.mark.parametrize("qos", [0, 1, 2])
@every_version
def test_a_clients_messages_keep_their_order(world: World, version: int, qos: int) -> None:
    world = World(max_inflight=7)
    listeners = [subscriber(world, "t/#", version=each, client_id=f"s{each}") for each in (V31, V311, V5)]
    publishers = [world.join(f"p{number}", version) for number in range(3)]
    for number in range(40):
        for name, publisher in enumerate(publishers):
            publisher.publish(f"t/{name}", b"%d" % number, qos)
    for listener in listeners:
        for name in range(3):
            got = [int(each.payload) for each in listener.messages if each.topic == b"t/%d" % name]
            assert got == list(range(40))


@pytest.mark.spec("MQTT-4.6.0-5", "MQTT3-4.6.0-6")
@pytest.mark.parametrize("qos", [1, 2])
@every_version
def test_messages_of_a_burst_keep_their_order(world: World, version: int, qos: int) -> None:
    listener = subscriber(world, "t", version=version)
    publisher = world.join("p", version)
    publisher.send(*(message("t", b"%d" % number, qos, number) for number in range(1, 201)))
    assert payloads(listener) == [b"%d" % number for number in range(1, 201)]
    kind = Puback if qos == 1 else Pubrec
    assert [each.packet_id for each in publisher.packets if isinstance(each, kind)] == list(range(1, 201))


# $-topics, forbidden topics


@pytest.mark.spec("MQTT-4.7.2-1", "MQTT3-4.7.2-1")
@every_version
def test_topics_of_the_server_hide_from_leading_wildcards(world: World, version: int) -> None:
    filters = {"$SYS/x": 1, "$SYS/#": 1, "$SYS/+": 1, "#": 0, "+/x": 0, "+/#": 0, "+/+": 0}
    clients = {each: subscriber(world, each, version=version, client_id=f"s{each}") for each in filters}
    world.broker.publish("$SYS/x", b"1")
    world.broker.publish("a/$SYS", b"2")
    assert {each: payloads(client).count(b"1") for each, client in clients.items()} == filters
    assert payloads(clients["#"]) == [b"2"]
    assert payloads(clients["+/+"]) == [b"2"]


@pytest.mark.spec("MQTT3-3.3.5-2")
@pytest.mark.parametrize("topic", ["$SYS/x", "$foo/x", "$", "$share/g/t"])
@pytest.mark.parametrize("qos", [0, 1, 2])
@every_version
def test_topics_of_the_server_are_not_for_clients_to_publish(world: World, version: int, topic: str, qos: int) -> None:
    listener = subscriber(world, "$SYS/#", "$foo/#", "$", "#", version=version)
    client = world.join("p", version)
    expected = 0x87 if version == V5 and qos else 0
    assert client.publish(topic, b"x", qos, retain=True) == expected
    assert not client.is_closed
    assert payloads(listener) == []
    assert len(world.broker.retained) == 0


@pytest.mark.spec("MQTT-3.3.2-2", "MQTT-4.7.0-1", "MQTT3-3.3.2-2", "MQTT3-4.7.1-1", "MQTT3-4.8.0-1")
@pytest.mark.parametrize("topic", ["#", "+", "a/#", "a/+/b", "a+"])
@every_version
def test_a_topic_with_a_wildcard_closes(world: World, version: int, topic: str) -> None:
    listener, client = subscriber(world, "#"), world.join("p", version)
    client.send(message(topic))
    assert client.is_closed
    assert [each.reason_code for each in client.packets if isinstance(each, Disconnect)] == [0x90] * (version == V5)
    assert payloads(listener) == []


@pytest.mark.parametrize("topic", [129 * "a/", 4097 * "a"])
@every_version
def test_a_topic_beyond_the_servers_bounds_closes(world: World, version: int, topic: str) -> None:
    client = world.join("p", version)
    client.send(message(topic))
    assert client.is_closed
    assert [each.reason_code for each in client.packets if isinstance(each, Disconnect)] == [0x90] * (version == V5)


@pytest.mark.parametrize("topic", ["/", "//", "a//b", " ", "a b", "/a", "a/", "\xe9", "a/$b", 127 * "/", "\ufeff"])
@every_version
def test_odd_topics(world: World, version: int, topic: str) -> None:
    listener = subscriber(world, topic, version=version)
    world.join("p", version).publish(topic, b"x", 1)
    assert [each.topic.decode() for each in listener.messages] == [topic]


# Reason codes


@pytest.mark.parametrize("qos", [1, 2])
def test_nobody_there(world: World, qos: int) -> None:
    client = world.join("p")
    assert client.publish("t", b"x", qos) == 0x10
    subscriber(world, "t")
    assert client.publish("t", b"x", qos) == 0


@pytest.mark.parametrize("qos", [1, 2])
def test_a_retained_message_where_there_is_no_room(qos: int) -> None:
    world = World(max_retained_messages=1)
    client = world.join("p")
    assert client.publish("a", b"x", qos, retain=True) == 0x10
    assert client.publish("b", b"x", qos, retain=True) == 0x97
    assert client.publish("a", b"y", qos, retain=True) == 0x10


@pytest.mark.spec("MQTT-4.3.3-9")
def test_a_refused_packet_id_may_be_used_again_at_once(world: World) -> None:
    listener = subscriber(world, "t")
    client = world.join("p")
    client.send(message("$SYS/x", b"no", 2, 5), message("t", b"yes", 2, 5))
    assert [each.reason_code for each in client.packets if isinstance(each, Pubrec)] == [0x87, 0]
    assert payloads(listener) == [b"yes"]


# Properties


ALL: dict[str, Any] = {
    "payload_format_indicator": 1,
    "content_type": "text/plain",
    "response_topic": "reply/here",
    "correlation_data": b"\x00\xff\x01",
    "user_properties": [("b", "1"), ("a", "2"), ("b", "0"), ("", ""), ("b", "1")],
}


@pytest.mark.spec("MQTT-3.3.2-4", "MQTT-3.3.2-15", "MQTT-3.3.2-16", "MQTT-3.3.2-17", "MQTT-3.3.2-18", "MQTT-3.3.2-20")
@pytest.mark.parametrize("name", [*ALL, None])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("is_queued", [False, True])
def test_properties_are_passed_on_unchanged(world: World, name: str | None, qos: int, is_queued: bool) -> None:
    properties: Any = ALL if name is None else {name: ALL[name]}
    listener = world.rejoin("s")
    listener.subscribe("t")
    if is_queued:
        listener.lose()
    world.join("p").publish("t", b"x", qos, properties=properties)
    if is_queued:
        listener = world.rejoin("s")
    assert [dict(each.properties) for each in listener.messages] == [properties] * (qos > 0 or not is_queued)


@pytest.mark.spec("MQTT-3.3.2-4")
@pytest.mark.parametrize("value", [0, 1])
def test_a_payload_format_of_0_is_passed_on_too(world: World, value: int) -> None:
    listener = subscriber(world, "t")
    world.join("p").publish("t", b"\xff", properties={"payload_format_indicator": value})
    assert listener.messages[0].properties == {"payload_format_indicator": value}


def test_properties_stay_behind_before_3_x(world: World) -> None:
    listeners = [subscriber(world, "t", version=version, client_id=str(version)) for version in (V31, V311)]
    for qos in (0, 1, 2):
        world.join("p").publish("t", b"x", qos, properties=ALL)  # type: ignore[arg-type]  # a plain dict
    for listener in listeners:
        assert payloads(listener) == [b"x", b"x", b"x"]


@pytest.mark.spec("MQTT-3.3.2-14")
def test_a_response_topic_with_a_wildcard(world: World) -> None:
    client = world.join("p")
    client.send(Message(b"t", b"x", properties={"response_topic": "r/#"}))
    assert client.take(Disconnect).reason_code == 0x82


# A client that sends a subscription identifier


@pytest.mark.spec("MQTT-3.3.4-6")
def test_a_subscription_identifier_from_a_client_at_qos_0(world: World) -> None:
    listener, client = subscriber(world, "t"), world.join("p")
    client.send(Message(b"t", b"x", properties={"subscription_identifiers": [1]}))
    assert client.take(Disconnect).reason_code == 0x82
    assert client.is_closed
    assert payloads(listener) == []


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("more", [{}, {"content_type": "x", "user_properties": [("a", "b")]}])
def test_a_subscription_identifier_from_a_client_above_qos_0_is_taken_off(world: World, qos: int, more: Any) -> None:
    """Our one deviation from 3.3.4-6, and why: ``codec.reader``."""
    listener, client = subscriber(world, "t"), world.join("p")
    properties: Any = {"subscription_identifiers": [7], **more}
    assert client.publish("t", b"x", qos, properties=properties) == 0
    assert [dict(each.properties) for each in listener.messages] == [more]


@pytest.mark.spec("MQTT-3.3.4-6")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_subscription_identifiers_from_a_client(world: World, qos: int) -> None:
    client = world.join("p")
    client.send(Message(b"t", b"x", 0, qos, 0, 0, min(qos, 1), {"subscription_identifiers": [7, 8]}))
    assert client.take(Disconnect).reason_code == 0x82


# Payload format validation


@pytest.mark.parametrize("qos", [1, 2])
def test_a_payload_that_is_not_what_it_says(qos: int) -> None:
    world = World(validate_payload_format=True)
    listener, client = subscriber(world, "t"), world.join("p")
    text: Properties = {"payload_format_indicator": 1}
    assert client.publish("t", b"\xff", qos, properties=text) == 0x99
    assert client.publish("t", "\xe9".encode(), qos, properties=text) == 0
    assert client.publish("t", b"\xff", qos, properties={"payload_format_indicator": 0}) == 0
    assert client.publish("t", b"\xff", qos) == 0
    assert payloads(listener) == [b"\xc3\xa9", b"\xff", b"\xff"]


def test_a_qos_0_payload_that_is_not_what_it_says() -> None:
    world = World(validate_payload_format=True)
    listener, client = subscriber(world, "t"), world.join("p")
    client.publish("t", b"\xff", properties={"payload_format_indicator": 1})
    assert client.take(Disconnect).reason_code == 0x99
    assert payloads(listener) == []


def test_a_will_that_is_not_what_it_says() -> None:
    world = World(validate_payload_format=True)
    will = Will("w", b"\xff", properties={"payload_format_indicator": 1})
    assert world.connect("c", will=will)[1].reason_code == 0x99
    assert world.broker.sessions == {}


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_payloads_are_not_looked_at_by_default(world: World, qos: int) -> None:
    listener = subscriber(world, "t")
    world.join("p").publish("t", b"\xff", qos, properties={"payload_format_indicator": 1})
    world.connect("c", will=Will("w", b"\xff", properties={"payload_format_indicator": 1}))
    assert payloads(listener) == [b"\xff"]


def test_a_publish_before_the_session_is_there(world: World) -> None:
    client = world.client("c")
    client.send(Connect("c"), message("t", b"1"))
    assert not client.is_closed
