"""Message Expiry Interval: counted down while a message waits, and the end of one that waited too long (3.3.2.3.3)."""

from __future__ import annotations

import pytest

from tests.conformance.helpers import V5, V311, World, payloads
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Puback, Pubrec, Pubrel
from twisted_p2pmqtt.testing import MemoryClient


def intervals(client: MemoryClient) -> list[int]:
    """What the client was told of each message's expiry."""
    return [message.properties["message_expiry_interval"] for message in client.messages]


def publish(world: World, payload: bytes, seconds: int, qos: int = 1, retain: bool = False) -> None:
    """Publish a message that lives so long."""
    world.join("p").publish("t", payload, qos, retain, {"message_expiry_interval": seconds})


def away(world: World, version: int = V5) -> None:
    """A session that waits for its client."""
    client = world.rejoin("s", version)
    client.subscribe("t")
    client.lose()


@pytest.mark.spec("MQTT-3.3.2-6")
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("seconds", [0, 1, 10, 2**32 - 1])
def test_a_message_that_need_not_wait(world: World, qos: int, seconds: int) -> None:
    client = world.join("s")
    client.subscribe("t")
    publish(world, b"x", seconds, qos)
    assert intervals(client) == [seconds]


@pytest.mark.spec("MQTT-3.3.2-6")
@pytest.mark.parametrize("qos", [1, 2])
def test_the_time_in_a_queue_is_taken_off(world: World, qos: int) -> None:
    away(world)
    publish(world, b"x", 100, qos)
    world.wait(30)
    assert intervals(world.rejoin("s")) == [70]


@pytest.mark.spec("MQTT-3.3.2-5")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("version", [V311, V5])
def test_a_message_that_waited_too_long_is_deleted(world: World, version: int, qos: int) -> None:
    away(world, version)
    publish(world, b"short", 10, qos)
    publish(world, b"long", 100, qos)
    world.join("p").publish("t", b"for ever", qos)
    world.wait(11)
    client = world.rejoin("s", version)
    assert payloads(client) == [b"long", b"for ever"]
    assert world.broker.stats.dropped_expired == 1


@pytest.mark.spec("MQTT-3.3.2-5")
def test_a_message_behind_a_shut_window_expires_too(world: World) -> None:
    client = world.join("s", acknowledges=False, receive_maximum=1)
    client.subscribe("t")
    publish(world, b"1", 10)
    publish(world, b"2", 10)
    publish(world, b"3", 100)
    world.wait(20)
    client.send(Puback(client.take(Message).packet_id))
    assert payloads(client) == [b"1", b"3"]
    assert intervals(client) == [10, 80]


def test_expired_messages_make_room_in_a_full_queue() -> None:
    world = World(max_queued_messages=2)
    away(world)
    publish(world, b"1", 10)
    publish(world, b"2", 10)
    world.wait(11)
    publish(world, b"3", 10)
    assert payloads(world.rejoin("s")) == [b"3"]


@pytest.mark.spec("MQTT-3.3.2-6")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_the_time_as_a_retained_message_is_taken_off(world: World, qos: int) -> None:
    publish(world, b"x", 100, qos, retain=True)
    world.wait(30)
    client = world.join("s")
    client.subscribe("t")
    assert intervals(client) == [70]
    world.wait(30)
    client.subscribe("t")
    assert intervals(client) == [70, 40]


@pytest.mark.spec("MQTT-3.3.2-5")
@pytest.mark.parametrize("version", [V311, V5])
def test_a_retained_message_expires(world: World, version: int) -> None:
    publish(world, b"x", 10, retain=True)
    world.wait(11)
    client = world.join("s", version)
    client.subscribe("t")
    assert payloads(client) == []
    assert len(world.broker.retained) == 0


def test_the_expiry_of_a_replaced_retained_message_is_forgotten(world: World) -> None:
    publish(world, b"short", 10, retain=True)
    publish(world, b"long", 100, retain=True)
    world.wait(20)
    client = world.join("s")
    client.subscribe("t")
    assert payloads(client) == [b"long"]
    assert intervals(client) == [80]


@pytest.mark.spec("MQTT-4.3.3-7", "MQTT-4.3.3-13")
def test_a_qos_2_message_that_was_sent_does_not_expire(world: World) -> None:
    client = world.rejoin("s", acknowledges=False)
    client.subscribe("t")
    publish(world, b"x", 10, 2)
    packet_id = client.take(Message).packet_id
    client.lose()
    world.wait(20)

    client = world.rejoin("s", acknowledges=False)
    again = client.take(Message)
    assert (again.packet_id, again.payload, again.dup) == (packet_id, b"x", 8)
    assert again.properties["message_expiry_interval"] == 0
    client.send(Pubrec(packet_id))
    assert client.take(Pubrel).packet_id == packet_id
    client.lose()
    world.wait(20)
    assert world.rejoin("s").take(Pubrel).packet_id == packet_id


@pytest.mark.spec("MQTT-4.3.3-13")
def test_a_publisher_finishes_the_exchange_of_an_expired_message(world: World) -> None:
    away(world)
    publisher = world.join("p")
    publisher.send(Message(b"t", b"x", 0, 2, 0, 0, 9, {"message_expiry_interval": 1}))
    assert publisher.take(Pubrec) == Pubrec(9, 0)
    world.wait(10)
    publisher.send(Message(b"t", b"x", 0, 2, 0, 8, 9, {"message_expiry_interval": 1}), Pubrel(9))
    assert [type(each).__name__ for each in publisher.packets] == ["Pubrec", "Pubcomp"]


def test_an_interval_is_rounded_up_and_never_grows(world: World) -> None:
    away(world)
    publish(world, b"x", 10)
    world.wait(0.5)
    assert intervals(world.rejoin("s")) == [10]
