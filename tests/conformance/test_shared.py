"""Shared subscriptions: one member of a group gets each message (4.8.2, 3.8.3.1)."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.conformance.helpers import V5, V31, V311, World, ask, every_version, payloads
from twisted_p2pmqtt.codec.packets import Disconnect, Puback, Pubcomp, Pubrec, Pubrel, Subscribe
from twisted_p2pmqtt.testing import MemoryClient

SHARED = "$share/g/t"


def members(
    world: World, count: int, version: int = V5, topic_filter: str = SHARED, qos: int = 2
) -> list[MemoryClient]:
    """Clients of one group."""
    clients = [world.join(f"m{number}", version) for number in range(count)]
    for client in clients:
        client.subscribe(ask(topic_filter, qos))
    return clients


def publish(world: World, count: int, qos: int = 1, topic: str = "t") -> list[bytes]:
    """So many messages; gives their payloads."""
    publisher = world.join("p")
    sent = [b"%d" % number for number in range(count)]
    for payload in sent:
        publisher.publish(topic, payload, qos)
    return sent


# Who gets a message


@pytest.mark.parametrize("qos", [0, 1, 2])
@every_version
def test_each_message_goes_to_one_member_and_all_have_their_share(world: World, version: int, qos: int) -> None:
    clients = members(world, 3, version)
    sent = publish(world, 30, qos)
    assert sorted(payload for client in clients for payload in payloads(client)) == sorted(sent)
    assert [len(client.messages) for client in clients] == [10, 10, 10]


def test_groups_and_plain_subscribers_do_not_touch_each_other(world: World) -> None:
    group, other = members(world, 2), world.join("h")
    other.subscribe("$share/h/t")
    plain = world.join("plain")
    plain.subscribe("t")
    sent = publish(world, 10)
    assert payloads(plain) == sent
    assert payloads(other) == sent
    assert sum(len(client.messages) for client in group) == 10


def test_the_same_share_name_with_another_filter_is_another_group(world: World) -> None:
    one, two = world.join("one"), world.join("two")
    one.subscribe("$share/g/t")
    two.subscribe("$share/g/+")
    sent = publish(world, 4)
    assert payloads(one) == sent
    assert payloads(two) == sent


@pytest.mark.parametrize(
    "topic_filter", ["$share/g/#", "$share/g/+/b", "$share/g//", "$share/name with space/a/b", "$share/g/$x"]
)
@every_version
def test_filters_of_every_kind_can_be_shared(world: World, version: int, topic_filter: str) -> None:
    clients = members(world, 2, version, topic_filter)
    for topic in ("a/b", "/", "$x"):
        world.broker.publish(topic, topic.encode())
    got = [payload for client in clients for payload in payloads(client)]
    expected = {"#": [b"a/b", b"/"], "+/b": [b"a/b"], "/": [b"/"], "a/b": [b"a/b"], "$x": [b"$x"]}
    assert sorted(got) == sorted(expected[topic_filter.split("/", 2)[2]])


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_connected_members_come_first(world: World, qos: int) -> None:
    away = world.rejoin("away")
    away.subscribe(SHARED)
    away.lose()
    there = world.join("there")
    there.subscribe(SHARED)
    sent = publish(world, 6, qos)
    assert payloads(there) == sent
    assert payloads(world.rejoin("away")) == []


def test_where_nobody_is_connected_messages_wait_with_a_member(world: World) -> None:
    for name in ("a", "b"):
        client = world.rejoin(name)
        client.subscribe(SHARED)
        client.lose()
    sent = publish(world, 6)
    got = payloads(world.rejoin("a")) + payloads(world.rejoin("b"))
    assert sorted(got) == sent


def test_a_member_whose_window_is_shut_is_passed_over(world: World) -> None:
    slow = world.join("slow", acknowledges=False, receive_maximum=1)
    quick = world.join("quick")
    slow.subscribe(SHARED)
    quick.subscribe(SHARED)
    publish(world, 10)
    assert Counter(len(each.messages) for each in (slow, quick)) == Counter([1, 9])


def test_a_member_that_leaves_gets_nothing_more(world: World) -> None:
    one, two = members(world, 2)
    one.unsubscribe(SHARED)
    sent = publish(world, 4)
    assert payloads(two) == sent
    two.disconnect()
    publish(world, 4)
    assert world.broker.tree.count == 0


@pytest.mark.spec("MQTT-4.8.2-3")
@pytest.mark.parametrize("published", [0, 1, 2])
def test_each_member_has_its_own_qos(world: World, published: int) -> None:
    clients = [world.join(f"m{qos}") for qos in range(3)]
    for qos, client in enumerate(clients):
        client.subscribe(ask(SHARED, qos))
    publish(world, 6, published)
    for qos, client in enumerate(clients):
        assert [each.qos for each in client.messages] == [min(qos, published)] * 2


def test_identifiers_and_retain_as_published_hold_in_a_group(world: World) -> None:
    client = world.join("c")
    client.subscribe(ask(SHARED, retain_as_published=True), identifier=5)
    world.join("p").publish("t", b"x", 1, retain=True)
    assert [(each.retain, dict(each.properties)) for each in client.messages] == [
        (1, {"subscription_identifiers": [5]})
    ]


@pytest.mark.parametrize("handling", [0, 1, 2])
def test_no_retained_messages_for_a_group(world: World, handling: int) -> None:
    world.join("p").publish("t", b"kept", 1, retain=True)
    client = world.join("c")
    client.subscribe(ask(SHARED, retain_handling=handling))
    assert payloads(client) == []


# Illegal


@pytest.mark.spec("MQTT-3.8.3-4")
def test_no_local_is_not_for_groups(world: World) -> None:
    client = world.join("c")
    client.send(Subscribe(1, [ask(SHARED, no_local=True)]))
    assert client.take(Disconnect).reason_code == 0x82
    assert client.is_closed
    assert world.broker.tree.count == 0


MALFORMED = [
    "$share",
    "$share/",
    "$share/g",
    "$share/g/",
    "$share//t",
    "$share/+/t",
    "$share/#/t",
    "$share/a+/t",
    "$share/#",
]


@pytest.mark.spec("MQTT-4.8.2-1", "MQTT-4.8.2-2")
@pytest.mark.parametrize("topic_filter", MALFORMED)
def test_a_malformed_shared_filter_in_5_0(world: World, topic_filter: str) -> None:
    client = world.join("c")
    client.send(Subscribe(1, [ask("a"), ask(topic_filter)]))
    assert client.take(Disconnect).reason_code == 0x82
    assert world.broker.tree.count == 0


@pytest.mark.parametrize("topic_filter", MALFORMED)
@pytest.mark.parametrize("version", [V31, V311])
def test_a_malformed_shared_filter_in_3_x(world: World, version: int, topic_filter: str) -> None:
    client = world.join("c", version)
    assert client.subscribe("a", topic_filter) == [2, 0x80]
    assert world.broker.tree.count == 1


@pytest.mark.parametrize("topic_filter", ["$share/g/a/#/b", "$share/g/a+"])
def test_a_shared_filter_whose_filter_is_invalid(world: World, topic_filter: str) -> None:
    assert world.join("c").subscribe(topic_filter) == [0x8F]


# What a member leaves behind


def two_with_one_silent(world: World, qos: int) -> tuple[MemoryClient, MemoryClient, list[bytes]]:
    """A member that does not acknowledge and one that does, and what was sent: half of it is with each."""
    silent = world.rejoin("silent", acknowledges=False)
    other = world.join("other")
    silent.subscribe(SHARED)
    other.subscribe(SHARED)
    sent = publish(world, 6, qos)
    assert len(silent.messages) == 3
    assert len(other.messages) == 3
    return silent, other, sent


def test_unacknowledged_messages_go_to_another_member_when_the_session_ends(world: World) -> None:
    silent, other, sent = two_with_one_silent(world, 1)
    silent.lose()
    assert len(other.messages) == 3  # the member may come back
    world.wait(3601)
    assert sorted(payloads(other)) == sent


def test_a_member_that_comes_back_gets_them_itself(world: World) -> None:
    silent, other, sent = two_with_one_silent(world, 1)
    silent.lose()
    again = world.rejoin("silent")
    assert sorted(payloads(again) + payloads(other)) == sent
    assert all(each.dup for each in again.messages)


def test_they_do_though_the_group_had_no_member_meanwhile(world: World) -> None:
    silent = world.rejoin("silent", acknowledges=False)
    silent.subscribe(SHARED)
    sent = publish(world, 1, 1)
    silent.unsubscribe(SHARED)
    other = world.join("other")
    other.subscribe(SHARED)
    silent.lose()
    world.wait(3601)
    assert payloads(other) == sent


@pytest.mark.parametrize("qos", [1, 2])
def test_waiting_messages_go_to_another_member_when_the_session_ends(world: World, qos: int) -> None:
    away = world.rejoin("away")
    away.subscribe(SHARED)
    away.lose()
    sent = publish(world, 5, qos)
    other = world.join("other")
    other.subscribe(SHARED)
    assert payloads(other) == []
    world.wait(3601)
    assert payloads(other) == sent


def test_what_expired_meanwhile_goes_to_nobody(world: World) -> None:
    away = world.rejoin("away")
    away.subscribe(SHARED)
    away.lose()
    world.join("p").publish("t", b"old", 1, properties={"message_expiry_interval": 10})
    other = world.join("other")
    other.subscribe(SHARED)
    world.wait(3601)
    assert payloads(other) == []


@pytest.mark.spec("MQTT-4.8.2-4")
def test_a_qos_2_delivery_is_completed_with_its_member(world: World) -> None:
    silent, other, _ = two_with_one_silent(world, 2)
    begun = [each.packet_id for each in silent.messages]
    silent.send(Pubrec(begun[0]))
    assert silent.take(Pubrel).packet_id == begun[0]
    silent.lose()
    again = world.rejoin("silent", acknowledges=False)
    assert again.take(Pubrel).packet_id == begun[0]
    assert [each.packet_id for each in again.messages] == begun[1:]
    again.send(Pubcomp(begun[0]), *(Pubrec(each) for each in begun[1:]))
    assert [again.take(Pubrel).packet_id for _ in begun[1:]] == begun[1:]
    again.send(*(Pubcomp(each) for each in begun[1:]))
    assert world.broker.sessions["silent"].inflight == {}
    assert len(other.messages) == 3


@pytest.mark.spec("MQTT-4.8.2-5")
def test_a_qos_2_message_that_was_sent_goes_to_no_other_member(world: World) -> None:
    silent, other, _ = two_with_one_silent(world, 2)
    silent.lose()
    world.wait(3601)
    assert "silent" not in world.broker.sessions
    assert len(other.messages) == 3


@pytest.mark.spec("MQTT-4.8.2-6")
@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_that_a_member_refuses_is_discarded(world: World, qos: int) -> None:
    silent, other, _ = two_with_one_silent(world, qos)
    for each in list(silent.messages):
        silent.send(Puback(each.packet_id, 0x97) if qos == 1 else Pubrec(each.packet_id, 0x97))
    assert not any(isinstance(each, Pubrel) for each in silent.receive())
    silent.lose()
    assert payloads(world.rejoin("silent")) == []
    world.wait(3601)
    assert len(other.messages) == 3


def test_subscribing_and_unsubscribing_in_all_orders_leaves_nothing(world: World) -> None:
    filters = ["$share/x/t", "t", "$share/y/t", "$share/x/+"]
    client = world.join("c")
    for first in filters:
        for second in filters:
            client.subscribe(first, second)
            client.unsubscribe(second, first)
    assert world.broker.tree.count == 0
    assert world.broker.tree.match("t") == []
