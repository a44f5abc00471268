"""UNSUBSCRIBE and UNSUBACK (3.10, 3.11)."""

from __future__ import annotations

import pytest

from tests.conformance.helpers import CONNECT_HEX, V5, V31, V311, World, every_version, kinds, payloads
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Puback, Pubcomp, Pubrec, Pubrel, Unsuback, Unsubscribe


def publish(world: World, topic: str, payload: bytes = b"x", qos: int = 1) -> None:
    """Somebody else publishes."""
    world.join("p").publish(topic, payload, qos)


@pytest.mark.spec("MQTT-3.10.4-4", "MQTT-3.10.4-5", "MQTT-2.2.1-6", "MQTT3-3.10.4-4", "MQTT3-3.10.4-5", "MQTT3-2.3.1-7")
@pytest.mark.parametrize("packet_id", [1, 255, 65535])
@every_version
def test_unsuback_repeats_the_packet_id(world: World, version: int, packet_id: int) -> None:
    client = world.join("c", version)
    client.subscribe("t")
    client.send(Unsubscribe(packet_id, ["t"]))
    assert client.receive() == [Unsuback(packet_id, [0] if version == V5 else [])]
    client.send(Unsubscribe(packet_id, ["t"]))  # there is nothing to delete any more
    assert client.receive() == [Unsuback(packet_id, [0x11] if version == V5 else [])]


@pytest.mark.spec("MQTT-3.10.4-6", "MQTT-3.11.3-1", "MQTT-3.11.3-2", "MQTT3-3.10.4-6")
@every_version
def test_one_unsuback_for_all_filters_in_their_order(world: World, version: int) -> None:
    client = world.join("c", version)
    client.subscribe("a", "b", "c/#", "$share/g/d")
    client.send(Unsubscribe(3, ["b", "none", "a", "b", "$share/g/d", "$share/h/d", "c/#"]))
    codes = [0, 0x11, 0, 0x11, 0, 0x11, 0]
    assert client.receive() == [Unsuback(3, codes if version == V5 else [])]
    assert world.broker.tree.count == 0


@pytest.mark.spec("MQTT-3.10.4-1", "MQTT3-3.10.4-1")
@pytest.mark.parametrize(
    "other", ["t/+", "t/#", "#", "+/a", "T/a", "t/a/", "/t/a", "t/a ", "t//a", "$share/g/t/a", "t"]
)
@every_version
def test_filters_are_compared_character_by_character(world: World, version: int, other: str) -> None:
    client = world.join("c", version)
    client.subscribe("t/a")
    client.unsubscribe(other)
    publish(world, "t/a")
    assert payloads(client) == [b"x"]


@pytest.mark.spec("MQTT-3.10.4-1", "MQTT3-3.10.4-1")
@pytest.mark.parametrize("topic_filter", ["t/a", "t/+", "#", "+/+", "/", "\xe9/#", "$SYS/#", "$share/g/t/a"])
@every_version
def test_an_equal_filter_is_deleted(world: World, version: int, topic_filter: str) -> None:
    client = world.join("c", version)
    client.subscribe(topic_filter, "other")
    client.unsubscribe(topic_filter)
    for topic in ("t/a", "/", "\xe9", "other"):
        publish(world, topic, topic.encode())
    assert payloads(client) == [b"other"]
    assert world.broker.tree.count == 1


@pytest.mark.spec("MQTT-3.10.4-2", "MQTT3-3.10.4-2")
@pytest.mark.parametrize("qos", [0, 1, 2])
@every_version
def test_no_new_messages_behind_unsuback(world: World, version: int, qos: int) -> None:
    client, other = world.join("c", version), world.join("other", version)
    client.subscribe("t")
    other.subscribe("t")
    publish(world, "t", b"1", qos)
    client.unsubscribe("t")
    publish(world, "t", b"2", qos)
    assert payloads(client) == [b"1"]
    assert payloads(other) == [b"1", b"2"]


@every_version
def test_of_overlapping_subscriptions_the_others_stay(world: World, version: int) -> None:
    client = world.join("c", version)
    client.subscribe("t/#", "t/a", qos=1)
    client.subscribe("#", qos=0)
    client.unsubscribe("t/a", "t/#")
    publish(world, "t/a", b"x", 2)
    assert [each.qos for each in client.messages] == [0]


@pytest.mark.spec("MQTT-3.10.4-3", "MQTT3-3.10.4-3")
@every_version
def test_deliveries_that_have_begun_are_completed(world: World, version: int) -> None:
    client = world.rejoin("c", version, acknowledges=False)
    client.subscribe("t")
    publish(world, "t", b"1", 1)
    publish(world, "t", b"2", 2)
    one, two = client.messages
    client.unsubscribe("t")
    client.send(Pubrec(two.packet_id))
    assert client.take(Pubrel).packet_id == two.packet_id
    client.lose()

    client = world.rejoin("c", version, acknowledges=False)
    assert sorted(kinds(client.packets)) == ["Message", "Pubrel"]
    assert client.take(Message).packet_id == one.packet_id
    client.send(Puback(one.packet_id), Pubcomp(two.packet_id))
    assert world.broker.sessions["c"].inflight == {}


@pytest.mark.spec("MQTT-3.10.1-1", "MQTT-3.10.3-1", "MQTT-3.10.3-2", "MQTT-4.7.3-1")
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("a0 06 0001 00 0001 74", 0x81),
        ("a2 03 0001 00", 0x82),
        ("a2 06 0001 00 0001 ff", 0x81),
        ("a2 05 0001 00 0000", 0x81),
        ("a2 05 0001 00 0001", 0x81),
    ],
)
def test_an_illegal_unsubscribe_in_5_0(world: World, sent: str, code: int) -> None:
    raw = world.raw()
    raw.put(CONNECT_HEX[V5])
    assert raw.put(sent)[:3:2] == bytes([0xE0, code])
    assert raw.is_closed


@pytest.mark.spec("MQTT3-3.10.1-1", "MQTT3-3.10.3-1", "MQTT3-3.10.3-2")
@pytest.mark.parametrize("sent", ["a0 05 0001 0001 74", "a2 02 0001", "a2 05 0001 0001 ff", "a2 04 0001 0000"])
@pytest.mark.parametrize("version", [V31, V311])
def test_an_illegal_unsubscribe_in_3_x(world: World, version: int, sent: str) -> None:
    raw = world.raw()
    raw.put(CONNECT_HEX[version])
    assert raw.put(sent) == b""
    assert raw.is_closed
