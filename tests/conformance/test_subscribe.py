"""SUBSCRIBE and SUBACK: filters, options, identifiers, overlapping subscriptions (3.8, 3.9, 3.3.4)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.helpers import CONNECT_HEX, V5, V31, V311, World, ask, every_version, message, payloads
from twisted_p2pmqtt.codec.packets import Disconnect, Suback, Subscribe
from twisted_p2pmqtt.testing import MemoryClient


def publish(world: World, topic: str = "t", payload: bytes = b"x", qos: int = 0) -> None:
    """Somebody else publishes."""
    world.join("p").publish(topic, payload, qos)


def identifiers(client: MemoryClient) -> list[list[int]]:
    """The subscription identifiers of each message."""
    return [sorted(each.properties.get("subscription_identifiers", [])) for each in client.messages]


# SUBACK


@pytest.mark.spec("MQTT-3.8.4-1", "MQTT-3.8.4-2", "MQTT-2.2.1-6", "MQTT3-3.8.4-1", "MQTT3-3.8.4-2", "MQTT3-2.3.1-7")
@pytest.mark.parametrize("packet_id", [1, 2, 255, 256, 65535])
@every_version
def test_suback_repeats_the_packet_id(world: World, version: int, packet_id: int) -> None:
    client = world.join("c", version)
    client.send(Subscribe(packet_id, [ask("t", 1)]))
    assert client.receive() == [Suback(packet_id, [1])]


@pytest.mark.spec("MQTT-3.8.4-5", "MQTT-3.8.4-6", "MQTT-3.8.4-7", "MQTT-3.9.3-1")
@pytest.mark.spec("MQTT3-3.8.4-4", "MQTT3-3.8.4-5", "MQTT3-3.9.3-1")
@every_version
def test_one_suback_with_a_code_for_each_filter_in_their_order(world: World, version: int) -> None:
    client = world.join("c", version)
    wanted = [ask("a", 2), ask("b/#/c", 1), ask("c", 0), ask("d", 1), ask("e+", 0), ask("a", 0)]
    client.send(Subscribe(7, wanted))
    failure = 0x8F if version == V5 else 0x80
    assert client.receive() == [Suback(7, [2, failure, 0, 1, failure, 0])]
    for topic in ("a", "b", "c", "d", "e"):
        publish(world, topic, topic.encode(), 2)
    assert [(each.payload, each.qos) for each in client.messages] == [(b"a", 0), (b"c", 0), (b"d", 1)]


@pytest.mark.spec("MQTT-3.9.3-2", "MQTT3-3.9.3-2", "MQTT3-3.8.3-2")
@pytest.mark.parametrize(
    ("limits", "topic_filter", "code"),
    [
        ({"wildcard_subscriptions": False}, "a/#", 0xA2),
        ({"wildcard_subscriptions": False}, "+", 0xA2),
        ({"wildcard_subscriptions": False}, "$share/g/+", 0xA2),
        ({"shared_subscriptions": False}, "$share/g/t", 0x9E),
        ({"max_subscriptions": 0}, "t", 0x97),
        ({"max_topic_levels": 3}, "a/b/c/d", 0x97),
        ({"max_topic_bytes": 3}, "abcd", 0x97),
        ({}, "a/#/b", 0x8F),
        ({}, "a+", 0x8F),
    ],
)
@every_version
def test_every_refusal(version: int, limits: dict[str, Any], topic_filter: str, code: int) -> None:
    world = World(**limits)
    client = world.join("c", version)
    assert client.subscribe(topic_filter) == [code if version == V5 else 0x80]
    assert world.broker.tree.count == 0
    assert not client.is_closed


def test_where_wildcards_are_off_other_filters_are_not(world: World) -> None:
    client = World(wildcard_subscriptions=False).join("c")
    assert client.subscribe("a/b") == [2]


def test_a_client_may_not_have_more_than_so_many_subscriptions() -> None:
    client = World(max_subscriptions=2).join("c")
    assert client.subscribe("a", "b", "c") == [2, 2, 0x97]
    assert client.subscribe("b", "d") == [2, 0x97]  # one that it has may be replaced
    client.unsubscribe("a")
    assert client.subscribe("d") == [2]


@pytest.mark.parametrize("right", ["raises", "denies"])
@every_version
def test_a_filter_that_is_not_authorized(version: int, right: str) -> None:
    class Avatar:
        def may_subscribe(self, topic_filter: str) -> bool:
            if right == "raises" and topic_filter == "secret":
                raise RuntimeError
            return topic_filter != "secret"

        def may_receive(self, topic: str) -> bool:
            return True

    world = World(lambda credentials: Avatar() if credentials.client_id == "c" else None)
    client = world.join("c", version)
    assert client.subscribe("a", "secret", "b") == [2, 0x87 if version == V5 else 0x80, 2]
    publish(world, "secret")
    assert payloads(client) == []


# Replacing


@pytest.mark.spec("MQTT-3.8.4-3", "MQTT3-3.8.4-3")
@every_version
def test_the_same_filter_again_replaces_the_subscription(world: World, version: int) -> None:
    client = world.join("c", version)
    for qos in (2, 0, 1):
        client.subscribe(ask("t", qos))
        publish(world, "t", b"x", 2)
    assert [each.qos for each in client.messages] == [2, 0, 1]
    assert world.broker.tree.count == 1


@pytest.mark.spec("MQTT-3.8.4-3")
def test_the_options_are_replaced_too(world: World) -> None:
    client = world.join("c")
    client.subscribe(ask("t", no_local=True, retain_as_published=True), identifier=7)
    client.subscribe("t")
    client.publish("t", b"x", retain=True)
    assert [(each.retain, dict(each.properties)) for each in client.messages] == [(0, {})]


@pytest.mark.spec("MQTT-3.8.4-4", "MQTT3-3.8.4-3")
@every_version
def test_replacing_loses_no_message(world: World, version: int) -> None:
    client = world.join("c", version)
    publisher = world.join("p")
    for number in range(10):
        publisher.publish("t", b"%d" % number, 1)
        client.subscribe(ask("t", 1 + number % 2))
    assert payloads(client) == [b"%d" % number for number in range(1, 10)]


# Overlapping


@pytest.mark.spec("MQTT-3.3.4-2", "MQTT3-3.3.5-1")
@pytest.mark.parametrize("published", [0, 1, 2])
@every_version
def test_of_overlapping_subscriptions_the_highest_qos_counts(world: World, version: int, published: int) -> None:
    client = world.join("c", version)
    client.subscribe(ask("t/#", 0), ask("t/a", 2), ask("t/+", 1), ask("#", 0))
    publish(world, "t/a", b"x", published)
    publish(world, "t/b", b"y", published)
    publish(world, "t", b"z", published)
    got = [(each.payload, each.qos) for each in client.messages]
    assert got == [(b"x", published), (b"y", min(1, published)), (b"z", 0)]


@pytest.mark.spec("MQTT-3.3.4-3", "MQTT-3.3.4-4", "MQTT-3.3.4-5")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_single_copy_carries_all_identifiers(world: World, qos: int) -> None:
    client = world.join("c")
    client.subscribe("t/#", identifier=1)
    client.subscribe("t/a", identifier=268_435_455)
    client.subscribe("t/+", qos=0)
    client.subscribe("+/a", identifier=128)
    client.subscribe("u", identifier=5)
    publish(world, "t/a", b"x", qos)
    publish(world, "t/b", b"y", qos)
    publish(world, "u", b"z", qos)
    assert payloads(client) == [b"x", b"y", b"z"]
    assert identifiers(client) == [[1, 128, 268_435_455], [1], [5]]


@pytest.mark.spec("MQTT-3.3.4-3", "MQTT-3.3.4-4")
def test_one_identifier_for_several_subscriptions_stands_once_for_each(world: World) -> None:
    client = world.join("c")
    client.subscribe("t/#", "t/a", identifier=9)
    publish(world, "t/a")
    assert identifiers(client) in ([[9]], [[9, 9]])


@pytest.mark.spec("MQTT-3.3.4-5")
def test_of_several_copies_each_has_its_own_identifier(world: World) -> None:
    """A shared subscription is a copy of its own."""
    client = world.join("c")
    client.subscribe("t", identifier=1)
    client.subscribe("$share/g/t", identifier=2)
    client.subscribe("$share/h/t", identifier=3)
    publish(world, "t")
    assert sorted(identifiers(client)) == [[1], [2], [3]]


def test_identifiers_may_change_and_go(world: World) -> None:
    client = world.join("c")
    client.subscribe("t", identifier=1)
    publish(world, "t")
    client.subscribe("t", identifier=2)
    publish(world, "t")
    client.subscribe("t")
    publish(world, "t")
    assert identifiers(client) == [[1], [2], []]


def test_identifiers_last_as_long_as_the_session(world: World) -> None:
    client = world.rejoin("c")
    client.subscribe("t", identifier=77)
    client.lose()
    publish(world, "t", b"x", 1)
    client = world.rejoin("c")
    publish(world, "t", b"x", 0)
    assert identifiers(client) == [[77], [77]]


def test_identifiers_where_there_are_none() -> None:
    world = World(subscription_identifiers=False)
    client = world.join("c")
    client.send(Subscribe(1, [ask("t")], {"subscription_identifiers": [1]}))
    assert client.take(Disconnect).reason_code == 0xA1
    assert world.broker.tree.count == 0
    assert world.join("d").subscribe("t") == [2]


# No Local


@pytest.mark.spec("MQTT-3.8.3-3")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_no_local(world: World, qos: int) -> None:
    client, other = world.join("c"), world.join("other")
    client.subscribe(ask("t", no_local=True))
    other.subscribe(ask("t", no_local=True))
    client.publish("t", b"mine", qos)
    other.publish("t", b"another's", qos)
    assert payloads(client) == [b"another's"]
    assert payloads(other) == [b"mine"]


@pytest.mark.spec("MQTT-3.8.3-3")
def test_no_local_concerns_its_own_subscription_only(world: World) -> None:
    client = world.join("c")
    client.subscribe(ask("t", 2, no_local=True), identifier=1)
    client.subscribe(ask("#", 1), identifier=2)
    client.publish("t", b"mine", 2)
    publish(world, "t", b"another's", 2)
    assert [(each.payload, each.qos) for each in client.messages] == [(b"mine", 1), (b"another's", 2)]
    assert identifiers(client) == [[2], [1, 2]]


@pytest.mark.spec("MQTT-3.8.3-3")
def test_no_local_knows_the_client_id_and_not_the_connection(world: World) -> None:
    client = world.rejoin("c", acknowledges=False)
    client.subscribe(ask("t", no_local=True))
    client.send(message("t", b"mine", 1, 1))
    client.lose()
    assert payloads(world.rejoin("c")) == []


# Illegal packets


@pytest.mark.spec("MQTT-3.8.1-1", "MQTT-3.8.3-2", "MQTT-3.8.3-5", "MQTT-3.8.3-1", "MQTT-4.13.1-1", "MQTT-4.7.3-1")
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("80 07 0001 00 0001 74 00", 0x81),
        ("82 03 0001 00", 0x82),
        ("82 07 0001 00 0001 74 c0", 0x81),
        ("82 07 0001 00 0001 74 40", 0x81),
        ("82 07 0001 00 0001 ff 00", 0x81),
        ("82 06 0001 00 0000 00", 0x81),
        ("82 07 0001 00 0001 74 03", 0x82),
        ("82 07 0001 00 0001 74 30", 0x82),
        ("82 09 0001 02 0b 00 0001 74 00", 0x82),
        ("82 06 0001 00 0001 74", 0x81),
    ],
)
def test_an_illegal_subscribe_in_5_0(world: World, sent: str, code: int) -> None:
    raw = world.raw()
    raw.put(CONNECT_HEX[V5])
    assert raw.put(sent)[:3:2] == bytes([0xE0, code])
    assert raw.is_closed
    assert world.broker.tree.count == 0


@pytest.mark.spec("MQTT3-3.8.1-1", "MQTT3-3.8.3-3", "MQTT3-3.8.3-4", "MQTT3-3.8.3-1", "MQTT3-4.8.0-1")
@pytest.mark.parametrize(
    "sent",
    [
        "80 06 0001 0001 74 00",
        "82 02 0001",
        "82 06 0001 0001 74 04",
        "82 06 0001 0001 74 80",
        "82 06 0001 0001 74 03",
        "82 06 0001 0001 ff 00",
        "82 05 0001 0000 00",
    ],
)
@pytest.mark.parametrize("version", [V31, V311])
def test_an_illegal_subscribe_in_3_x(world: World, version: int, sent: str) -> None:
    raw = world.raw()
    raw.put(CONNECT_HEX[version])
    assert raw.put(sent) == b""
    assert raw.is_closed
    assert world.broker.tree.count == 0


def test_of_an_illegal_subscribe_nothing_is_kept(world: World) -> None:
    client = world.join("c")
    client.send(Subscribe(1, [ask("a"), ask("$share/g/t", no_local=True)]))
    assert client.is_closed
    assert world.broker.tree.count == 0
