"""Retained messages: kept, replaced, removed, and brought by subscriptions (3.3.1.3, 3.8.3.1)."""

from __future__ import annotations

import pytest

from tests.conformance.helpers import V5, V31, V311, World, ask, every_version, payloads
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Puback
from twisted_p2pmqtt.testing import MemoryClient


def retained(world: World, topic_filter: str = "t", version: int = V5, qos: int = 2) -> list[tuple[bytes, int, int]]:
    """Payload, QoS and RETAIN of what a new subscription brings."""
    client = world.join("reader", version)
    client.subscribe(ask(topic_filter, qos))
    return [(each.payload, each.qos, each.retain) for each in client.messages]


# Kept, replaced, removed


@pytest.mark.spec("MQTT-3.3.1-5", "MQTT3-3.3.1-5", "MQTT3-3.3.1-6", "MQTT3-3.3.1-8")
@pytest.mark.parametrize("qos", [0, 1, 2])
@every_version
def test_a_retained_message_is_kept_with_its_qos(world: World, version: int, qos: int) -> None:
    world.join("p", version).publish("t", b"kept", qos, retain=True)
    assert retained(world, version=version) == [(b"kept", qos, 1)]
    assert retained(world, version=version, qos=0) == [(b"kept", 0, 1)]


@pytest.mark.spec("MQTT-3.3.1-5", "MQTT3-3.3.1-5", "MQTT3-3.3.1-7")
@pytest.mark.parametrize("old", [0, 1, 2])
@pytest.mark.parametrize("new", [0, 1, 2])
@every_version
def test_a_retained_message_takes_the_place_of_the_former_one(world: World, version: int, old: int, new: int) -> None:
    client = world.join("p", version)
    client.publish("t", b"old", old, retain=True)
    client.publish("t", b"new", new, retain=True)
    assert retained(world) == [(b"new", new, 1)]


@pytest.mark.spec("MQTT-3.3.1-6", "MQTT-3.3.1-7", "MQTT3-3.3.1-10", "MQTT3-3.3.1-11")
@pytest.mark.parametrize("qos", [0, 1, 2])
@every_version
def test_an_empty_message_removes_the_retained_one_and_is_delivered(world: World, version: int, qos: int) -> None:
    listener = world.join("listener", version)
    listener.subscribe("t")
    client = world.join("p", version)
    client.publish("t", b"old", qos, retain=True)
    client.publish("t", b"", qos, retain=True)
    assert [(each.payload, each.qos, each.retain) for each in listener.messages] == [(b"old", qos, 0), (b"", qos, 0)]
    assert retained(world) == []
    assert len(world.broker.retained) == 0


@pytest.mark.spec("MQTT-3.3.1-7", "MQTT3-3.3.1-11")
def test_an_empty_message_is_not_kept_where_there_was_none(world: World) -> None:
    world.join("p").publish("t", b"", retain=True)
    assert retained(world) == []
    assert len(world.broker.retained) == 0


@pytest.mark.spec("MQTT-3.3.1-8", "MQTT3-3.3.1-12")
@pytest.mark.parametrize("payload", [b"", b"other"])
@pytest.mark.parametrize("qos", [0, 1, 2])
@every_version
def test_without_retain_nothing_is_kept_replaced_or_removed(
    world: World, version: int, qos: int, payload: bytes
) -> None:
    client = world.join("p", version)
    client.publish("other", payload, qos)
    assert retained(world, "other") == []
    client.publish("t", b"kept", qos, retain=True)
    client.publish("t", payload, qos)
    assert retained(world) == [(b"kept", qos, 1)]


@pytest.mark.parametrize(
    ("topic_filter", "topics"),
    [
        ("#", ["/", "a", "a/b", "a/b/c"]),
        ("a/#", ["a", "a/b", "a/b/c"]),
        ("+", ["a"]),
        ("+/+", ["/", "a/b"]),
        ("a/+/c", ["a/b/c"]),
        ("$SYS/#", ["$SYS/x"]),
        ("a", ["a"]),
        ("b", []),
    ],
)
@every_version
def test_a_filter_brings_every_retained_message_that_it_matches(
    world: World, version: int, topic_filter: str, topics: list[str]
) -> None:
    for topic in ("a", "a/b", "a/b/c", "/", "$SYS/x"):
        world.broker.publish(topic, topic.encode(), 1, retain=True)
    client = world.join("reader", version)
    client.subscribe(topic_filter)
    assert sorted(each.decode() for each in payloads(client)) == topics


# For whom


@pytest.mark.spec("MQTT3-3.3.1-6", "MQTT3-3.3.1-8", "MQTT3-3.3.1-9")
@every_version
def test_retain_tells_old_from_new(world: World, version: int) -> None:
    publisher, client = world.join("p", version), world.join("s", version)
    publisher.publish("t", b"old", 1, retain=True)
    client.subscribe("t")
    publisher.publish("t", b"new", 1, retain=True)
    assert [(each.payload, each.retain) for each in client.messages] == [(b"old", 1), (b"new", 0)]


@pytest.mark.spec("MQTT-3.3.1-12", "MQTT-3.3.1-13")
@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_retain_as_published(world: World, as_published: bool, retain: bool, qos: int) -> None:
    client = world.join("s")
    client.subscribe(ask("t", retain_as_published=as_published))
    world.join("p").publish("t", b"x", qos, retain)
    assert [each.retain for each in client.messages] == [int(retain and as_published)]


@pytest.mark.spec("MQTT-3.3.1-12", "MQTT-3.3.1-13")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_retain_as_published_is_a_matter_of_its_own(world: World, qos: int) -> None:
    """Neither an identifier nor No Local nor a group brings it; of overlapping subscriptions one is enough."""
    wanted = {
        "identifier": [ask("t")],
        "no local": [ask("t", no_local=True)],
        "group": [ask("$share/g/t")],
        "two": [ask("t"), ask("+", retain_as_published=True)],
    }
    clients = {name: world.join(name) for name in wanted}
    for name, requests in wanted.items():
        clients[name].subscribe(*requests, identifier=7 if name == "identifier" else 0)
    world.join("p").publish("t", b"x", qos, retain=True)
    retain = {name: [each.retain for each in client.messages] for name, client in clients.items()}
    assert retain == {"identifier": [0], "no local": [0], "group": [0], "two": [1]}


@pytest.mark.spec("MQTT-3.3.1-9", "MQTT-3.3.1-10", "MQTT-3.3.1-11", "MQTT-3.8.4-4")
@pytest.mark.parametrize(("handling", "first", "again"), [(0, 1, 1), (1, 1, 0), (2, 0, 0)])
@pytest.mark.parametrize("topic_filter", ["t", "+", "#"])
def test_retain_handling(world: World, handling: int, first: int, again: int, topic_filter: str) -> None:
    world.join("p").publish("t", b"kept", 1, retain=True)
    client = world.join("s")
    client.subscribe(ask(topic_filter, retain_handling=handling))
    assert [each.retain for each in client.messages] == [1] * first
    client.subscribe(ask(topic_filter, retain_handling=handling))
    assert len(client.messages) == first + again
    client.unsubscribe(topic_filter)
    client.subscribe(ask(topic_filter, retain_handling=handling))
    assert len(client.messages) == first + again + first


@pytest.mark.spec("MQTT-3.3.1-10")
def test_retain_handling_knows_the_subscriptions_of_a_resumed_session(world: World) -> None:
    world.join("p").publish("t", b"kept", 1, retain=True)
    world.rejoin("s").subscribe(ask("t", retain_handling=1))
    client = world.rejoin("s")
    client.subscribe(ask("t", retain_handling=1))
    assert payloads(client) == []


@pytest.mark.spec("MQTT3-3.8.4-3")
@pytest.mark.parametrize("version", [V31, V311])
def test_in_3_x_every_subscription_brings_retained_messages(world: World, version: int) -> None:
    world.join("p").publish("t", b"kept", 1, retain=True)
    client = world.join("s", version)
    client.subscribe("t")
    client.subscribe("t")
    assert payloads(client) == [b"kept", b"kept"]


def test_resuming_a_session_brings_no_retained_messages(world: World) -> None:
    world.rejoin("s").subscribe("t")
    world.broker.sessions["s"].connection.wire.close()  # type: ignore[union-attr]  # it is connected
    world.join("p").publish("t", b"kept", 0, retain=True)
    assert payloads(world.rejoin("s")) == []


@pytest.mark.spec("MQTT-3.8.3-3")
def test_no_local_holds_for_retained_messages(world: World) -> None:
    client = world.join("c")
    client.publish("t", b"mine", retain=True)
    client.subscribe(ask("t", no_local=True))
    assert payloads(client) == []
    world.join("p").publish("t", b"another's", retain=True)
    client.subscribe(ask("t", no_local=True))
    assert payloads(client) == [b"another's", b"another's"]


def test_identifiers_go_with_retained_messages(world: World) -> None:
    world.join("p").publish("t", b"kept", retain=True, properties={"user_properties": [("a", "b")]})
    client = world.join("s")
    client.subscribe("t", identifier=300)
    assert client.messages[0].properties == {"user_properties": [("a", "b")], "subscription_identifiers": [300]}


# Many of them


def many(world: World, count: int) -> list[bytes]:
    """So many retained messages; gives their payloads."""
    expected = []
    for number in range(count):
        world.broker.publish(f"many/{number}", b"%d" % number, 1, retain=True)
        expected.append(b"%d" % number)
    return sorted(expected)


def settle(world: World, client: MemoryClient) -> None:
    """Until nothing more comes."""
    while client.receive():
        world.clock.advance(0.01)


@pytest.mark.spec("MQTT-3.3.4-9")
@pytest.mark.parametrize("window", [1, 2, 65535])
def test_retained_messages_wait_for_the_window(world: World, window: int) -> None:
    expected = many(world, 50)
    client = world.join("s", receive_maximum=window)
    client.subscribe("many/#")
    settle(world, client)
    assert sorted(payloads(client)) == expected


def test_retained_messages_of_a_session_that_was_away(world: World) -> None:
    """Those that were owed when the connection broke come when it is back."""
    expected = many(world, 10)
    client = world.rejoin("s", acknowledges=False, receive_maximum=3)
    client.subscribe("many/#")
    assert len(client.messages) == 3
    client.lose()
    world.clock.advance(1)
    client = world.rejoin("s", receive_maximum=3)
    settle(world, client)
    assert sorted(payloads(client)) == expected


@pytest.mark.spec("MQTT-3.10.4-2")
def test_retained_messages_that_are_not_on_their_way_end_with_the_subscription(world: World) -> None:
    many(world, 10)
    client = world.join("s", acknowledges=False, receive_maximum=3)
    client.subscribe("many/#")
    assert client.unsubscribe("many/#") == [0]
    for message in list(client.messages):
        client.send(Puback(message.packet_id))
    settle(world, client)
    assert len(client.messages) == 3


def test_a_subscriber_never_sees_an_older_value_after_a_newer_one(world: World) -> None:
    many(world, 5)
    client = world.join("s", acknowledges=False, receive_maximum=1)
    client.subscribe("many/#")
    first: Message = client.messages[0]
    last = next(f"many/{number}" for number in range(5) if f"many/{number}".encode() != first.topic)
    world.broker.publish(last, b"newer", 1, retain=True)
    client.acknowledges = True
    client.send(Puback(first.packet_id))
    settle(world, client)
    assert {each.payload for each in client.messages if each.topic.decode() == last} == {b"newer"}


@pytest.mark.parametrize("version", [V311, V5])
def test_unsubscribing_and_subscribing_while_retained_messages_come(world: World, version: int) -> None:
    expected = many(world, 20)
    client = world.join("s", version, acknowledges=False)
    for _ in range(3):
        client.subscribe("many/#")
        client.unsubscribe("many/#")
    client.acknowledges = True
    client.subscribe("many/#")
    settle(world, client)
    assert set(payloads(client)) == set(expected)
