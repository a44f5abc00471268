"""Topic aliases, both ways and across reconnects (3.3.2.3.4)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.helpers import V5, SlowStore, World, ask, payloads, subscribe_packet
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connect, Disconnect, Puback, Pubrec
from twisted_p2pmqtt.testing import MemoryClient


def aliased(topic: str, alias: int, payload: bytes = b"x", qos: int = 0, packet_id: int = 0, **more: Any) -> Message:
    """A PUBLISH with a topic alias."""
    return Message(topic.encode(), payload, 0, qos, 0, 0, packet_id, {"topic_alias": alias, **more})  # type: ignore[typeddict-item]  # of **


def topics(client: MemoryClient) -> list[str]:
    """The topics that the client understands, with the aliases that it was taught."""
    known: dict[int, str] = {}
    heard = []
    for each in client.messages:
        topic, alias = each.topic.decode(), each.properties.get("topic_alias")
        if alias is not None and topic:
            known[alias] = topic
        heard.append(topic or known[alias or 0])
    return heard


def aliases(client: MemoryClient) -> list[tuple[str, int | None]]:
    """Topic and alias of each message, as they came."""
    return [(each.topic.decode(), each.properties.get("topic_alias")) for each in client.messages]


# From the client


@pytest.mark.spec("MQTT-3.3.2-12")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_every_alias_up_to_the_maximum(world: World, qos: int) -> None:
    listener = world.join("listener")
    listener.subscribe("#")
    client = world.join("c")
    for number in range(1, 11):
        client.send(aliased(f"t/{number}", number, b"", qos, number if qos else 0))
    for number in range(1, 11):
        client.send(aliased("", number, b"", qos, 100 + number if qos else 0))
    assert topics(listener) == [f"t/{number}" for number in range(1, 11)] * 2
    assert all("topic_alias" not in each.properties for each in listener.messages)
    assert not client.is_closed


@pytest.mark.spec("MQTT-3.3.2-9", "MQTT-3.2.2-17")
@pytest.mark.parametrize(("maximum", "alias"), [(10, 11), (10, 65535), (1, 2)])
def test_an_alias_above_the_maximum(maximum: int, alias: int) -> None:
    world = World(topic_alias_maximum=maximum)
    listener, client = world.join("listener"), world.join("c")
    listener.subscribe("#")
    client.send(aliased("t", alias))
    assert client.take(Disconnect).reason_code == 0x94
    assert client.is_closed
    assert payloads(listener) == []


@pytest.mark.spec("MQTT-3.2.2-18")
def test_aliases_where_there_are_none() -> None:
    client = World(topic_alias_maximum=0).join("c")
    client.send(aliased("t", 1))
    assert client.take(Disconnect).reason_code == 0x94


@pytest.mark.spec("MQTT-3.3.2-8")
def test_alias_zero(world: World) -> None:
    client = world.join("c")
    client.send(aliased("t", 0))
    assert client.take(Disconnect).reason_code == 0x94


def test_an_alias_that_was_not_set(world: World) -> None:
    client = world.join("c")
    client.send(aliased("", 1))
    assert client.take(Disconnect).reason_code == 0x82


def test_an_alias_may_be_set_anew(world: World) -> None:
    listener, client = world.join("listener"), world.join("c")
    listener.subscribe("#")
    client.send(aliased("a", 1), aliased("", 1), aliased("b", 1), aliased("", 1), aliased("a", 2), aliased("", 2))
    assert topics(listener) == ["a", "a", "b", "b", "a", "a"]


@pytest.mark.spec("MQTT-3.3.2-7")
def test_the_clients_aliases_end_with_its_connection(world: World) -> None:
    world.rejoin("c").send(aliased("t", 1))
    client = world.rejoin("c")
    client.send(aliased("", 1))
    assert client.take(Disconnect).reason_code == 0x82


def test_each_connection_has_its_own_aliases(world: World) -> None:
    listener, one, two = world.join("listener"), world.join("one"), world.join("two")
    listener.subscribe("#")
    one.send(aliased("a", 1))
    two.send(aliased("b", 1))
    one.send(aliased("", 1))
    two.send(aliased("", 1))
    assert topics(listener) == ["a", "b", "a", "b"]


def test_an_alias_is_set_even_where_the_message_is_not_for_the_client_to_publish(world: World) -> None:
    client = world.join("c")
    client.send(aliased("$SYS/x", 1, b"x", 1, 1), aliased("", 1, b"x", 1, 2))
    assert [each.reason_code for each in client.packets if isinstance(each, Puback)] == [0x87, 0x87]


@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_sent_with_an_alias_waits_and_is_retained_under_its_topic(world: World, qos: int) -> None:
    away = world.rejoin("away")
    away.subscribe("t")
    away.lose()
    client = world.join("c")
    client.send(aliased("t", 1))
    retained = aliased("", 1, b"kept", qos, 5)
    retained.retain = 1
    client.send(retained)
    assert topics(world.rejoin("away")) == ["t"]
    later = world.join("later")
    later.subscribe("t")
    assert [(each.topic, each.payload, dict(each.properties)) for each in later.messages] == [(b"t", b"kept", {})]


# To the client


def publish(world: World, *names: str, qos: int = 0) -> None:
    """One message to each topic."""
    publisher = world.join("p")
    for name in names:
        publisher.publish(name, name.encode(), qos)


@pytest.mark.spec("MQTT-3.1.2-27")
@pytest.mark.parametrize("properties", [{}, {"topic_alias_maximum": 0}])
def test_no_aliases_for_a_client_that_knows_none(world: World, properties: Any) -> None:
    client = world.join("s", **properties)
    client.subscribe("#")
    publish(world, "a", "a", "a")
    assert aliases(client) == [("a", None)] * 3


@pytest.mark.spec("MQTT-3.1.2-26", "MQTT-3.3.2-11")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_aliases_within_the_clients_maximum(world: World, qos: int) -> None:
    client = world.join("s", topic_alias_maximum=2)
    client.subscribe("#")
    publish(world, "a", "b", "c", "a", "b", "c", "d", qos=qos)
    assert topics(client) == [each.decode() for each in payloads(client)] == list("abcabcd")
    used = [alias for _, alias in aliases(client) if alias is not None]
    assert used == [1, 2, 1, 2]
    assert aliases(client)[3] == ("", 1)


@pytest.mark.spec("MQTT-3.3.2-7")
def test_our_aliases_end_with_the_connection(world: World) -> None:
    client = world.rejoin("s", topic_alias_maximum=5, acknowledges=False)
    client.subscribe("#")
    publish(world, "a", "a", qos=1)
    assert aliases(client) == [("a", 1), ("", 1)]
    client.lose()
    again = world.rejoin("s", topic_alias_maximum=5)
    assert aliases(again) == [("a", 1), ("", 1)]  # sent again, taught anew
    third = world.rejoin("s")
    publish(world, "a")
    assert aliases(third) == [("a", None)]


def test_an_alias_goes_with_other_properties(world: World) -> None:
    client = world.join("s", topic_alias_maximum=5)
    client.subscribe("a", identifier=9)
    properties: Any = {"message_expiry_interval": 10, "user_properties": [("k", "v")]}
    world.join("p").publish("a", b"x", 1, properties=properties)
    world.join("p").publish("a", b"x", 1, properties=properties)
    for each, topic in zip(client.messages, (b"a", b""), strict=True):
        assert each.topic == topic
        assert each.properties == {**properties, "topic_alias": 1, "subscription_identifiers": [9]}


def test_a_message_that_is_too_large_teaches_nothing(world: World) -> None:
    client = world.join("s", topic_alias_maximum=5, maximum_packet_size=100)
    client.subscribe("#")
    publisher = world.join("p")
    publisher.publish("a", 100 * b"x")
    publisher.publish("a", b"1")
    publisher.publish("a", b"2")
    assert topics(client) == ["a", "a"]
    assert aliases(client) == [("a", 1), ("", 1)]


def test_a_message_that_fits_without_its_alias_goes_without(world: World) -> None:
    client = world.join("s", topic_alias_maximum=5, maximum_packet_size=100)
    client.subscribe("#")
    publisher = world.join("p")
    publisher.publish("abc", (100 - 2 - 5 - 1) * b"x")
    assert aliases(client) == [("abc", None)]
    publisher.publish("abc", b"1")
    publisher.publish("abc", (100 - 2 - 2 - 4) * b"x")
    assert aliases(client)[1:] == [("abc", 1), ("", 1)]


def test_a_message_that_may_be_dropped_teaches_nothing() -> None:
    """Behind a blocked socket QoS 0 messages are dropped when too many wait."""
    world = World(max_qos0_pending_bytes=100)
    client = world.join("s", V5, topic_alias_maximum=5)
    client.subscribe(ask("#", 0))
    producer = client.transport.producer
    producer.pauseProducing()
    publisher = world.join("p")
    for topic in ("a", "b", "c", "d"):
        publisher.publish(topic, topic.encode())
    producer.resumeProducing()
    for topic in ("a", "b", "c", "d", "a", "d"):
        publisher.publish(topic, topic.encode())
    assert world.broker.stats.dropped_slow_reader > 0
    assert topics(client) == [each.decode() for each in payloads(client)]


def test_a_message_that_waits_for_its_commit_teaches_nothing() -> None:
    """QoS 2 leaves after the commit: what is published meanwhile at QoS 0 overtakes it."""
    store = SlowStore()
    world = World(store=store)
    client = world.client("s", acknowledges=False)
    client.send(Connect("s", properties={"session_expiry_interval": 60, "topic_alias_maximum": 5}))
    client.send(subscribe_packet(1, "#"))
    store.finish()
    publisher = world.join("p")
    publisher.send(aliased("a", 1, b"slow", 2, 1))
    assert client.messages == []
    publisher.publish("a", b"quick")
    publisher.publish("a", b"quick too")
    assert payloads(client) == [b"quick", b"quick too"]
    store.finish()
    assert payloads(client) == [b"quick", b"quick too", b"slow"]
    assert topics(client) == ["a", "a", "a"]
    assert aliases(client)[:2] == [("a", 1), ("", 1)]


def test_aliases_are_not_for_3_1_1(world: World) -> None:
    client = world.join("s", 4)
    client.subscribe("#")
    world.join("p").send(aliased("a", 1), aliased("", 1))
    assert [each.topic for each in client.messages] == [b"a", b"a"]


def test_a_qos_2_exchange_with_aliases(world: World) -> None:
    client = world.join("c")
    client.send(aliased("t", 1, b"x", 2, 7), aliased("", 1, b"x", 2, 7))
    assert [each.packet_id for each in client.packets if isinstance(each, Pubrec)] == [7, 7]
