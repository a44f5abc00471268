"""The client's Maximum Packet Size: what is too large is left out, dropped, or ends the connection (3.1.2.11.4)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.helpers import V5, World, kinds, message, payloads
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.errors import PacketTooLarge
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Unsuback,
    Unsubscribe,
)
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.testing import MemoryClient

LIMIT = 60


def small(world: World, client_id: str = "s", **more: Any) -> MemoryClient:
    """A client that takes no packet larger than ``LIMIT``."""
    return world.join(client_id, maximum_packet_size=LIMIT, **more)


def fitting(topic: str, qos: int, spare: int = 0) -> bytes:
    """The longest payload that reaches the client, or one longer by ``spare`` bytes."""
    return (LIMIT - 2 - 2 - len(topic) - (2 if qos else 0) - 1 + spare) * b"x"


# PUBLISH


@pytest.mark.spec("MQTT-3.1.2-24", "MQTT-3.1.2-25")
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_message_too_large_is_dropped_for_that_client_only(world: World, qos: int) -> None:
    client, other = small(world), world.join("other")
    client.subscribe("t")
    other.subscribe("t")
    publisher = world.join("p")
    assert publisher.publish("t", fitting("t", qos, 1), qos) == 0
    assert publisher.publish("t", fitting("t", qos), qos) == 0
    assert payloads(other) == [fitting("t", qos, 1), fitting("t", qos)]
    assert payloads(client) == [fitting("t", qos)]
    assert len(encode(client.messages[0], V5)) == LIMIT
    assert not client.is_closed
    assert world.broker.stats.dropped_too_large == 1


@pytest.mark.spec("MQTT-3.1.2-25")
@pytest.mark.parametrize("qos", [1, 2])
def test_it_counts_as_sent_for_its_publisher(world: World, qos: int) -> None:
    small(world).subscribe("t")
    assert world.join("p").publish("t", fitting("t", qos, 1), qos) == 0
    assert world.broker.sessions["s"].inflight == {}


@pytest.mark.spec("MQTT-3.1.2-24", "MQTT-3.1.2-25")
@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_that_waited_is_measured_too(world: World, qos: int) -> None:
    client = world.rejoin("s")
    client.subscribe("t")
    client.lose()
    for spare in (1, 0, 1):
        world.join("p").publish("t", fitting("t", qos, spare), qos)
    assert payloads(world.rejoin("s", maximum_packet_size=LIMIT)) == [fitting("t", qos)]
    assert world.broker.sessions["s"].inflight == {}


@pytest.mark.spec("MQTT-3.1.2-24", "MQTT-3.1.2-25")
@pytest.mark.parametrize("qos", [1, 2])
def test_a_message_to_send_again_is_measured_too(world: World, qos: int) -> None:
    client = world.rejoin("s", acknowledges=False)
    client.subscribe("t")
    world.join("p").publish("t", fitting("t", qos, 1), qos)
    assert len(client.messages) == 1
    client.lose()
    assert payloads(world.rejoin("s", maximum_packet_size=LIMIT)) == []
    assert world.broker.sessions["s"].inflight == {}


@pytest.mark.spec("MQTT-3.1.2-24")
def test_retained_messages_are_measured_too(world: World) -> None:
    publisher = world.join("p")
    publisher.publish("a", fitting("a", 0, 1), retain=True)
    publisher.publish("b", fitting("b", 0), retain=True)
    client = small(world)
    client.subscribe("#")
    assert [each.topic for each in client.messages] == [b"b"]


@pytest.mark.spec("MQTT-3.1.2-24")
def test_subscription_identifiers_count(world: World) -> None:
    client = small(world)
    client.subscribe("t", identifier=1)
    publisher = world.join("p")
    publisher.publish("t", fitting("t", 0))
    publisher.publish("t", fitting("t", 0, -2))
    assert payloads(client) == [fitting("t", 0, -2)]


# Everything else: reasons and user properties are left out


WHY: Any = {"reason_string": 60 * "x", "user_properties": [("a", 60 * "b")]}


@pytest.mark.spec("MQTT-3.2.2-19", "MQTT-3.2.2-20", "MQTT-3.9.2-1", "MQTT-3.9.2-2", "MQTT-3.11.2-1", "MQTT-3.11.2-2")
@pytest.mark.spec("MQTT-3.14.2-3", "MQTT-3.14.2-4", "MQTT-3.15.2-2", "MQTT-3.15.2-3")
@pytest.mark.parametrize("name", ["reason_string", "user_properties"])
@pytest.mark.parametrize(
    "packet",
    [
        Connack(False, 0, {"receive_maximum": 10}),
        Suback(1, [0]),
        Unsuback(1, [0]),
        Disconnect(0x98),
        Auth(0x18, {"authentication_method": "x"}),
    ],
    ids=lambda packet: type(packet).__name__,
)
def test_a_reason_that_does_not_fit_is_left_out(world: World, packet: Any, name: str) -> None:
    """All packets of these kinds go out through ``encode_fitting``; the tests below see that they do."""
    connection = small(world).protocol.connection
    bare = encode(packet, V5)
    explained = type(packet)(**{each: getattr(packet, each) for each in packet.__slots__})
    explained.properties = {**packet.properties, name: WHY[name]}
    assert len(encode(explained, V5)) > LIMIT
    assert connection.encode_fitting(explained) == bare
    connection.max_packet_size = 0
    explained.properties = {**packet.properties, name: WHY[name]}
    assert connection.encode_fitting(explained) == encode(explained, V5)


def test_a_packet_that_does_not_fit_even_so(world: World) -> None:
    connection = small(world).protocol.connection
    with pytest.raises(PacketTooLarge):
        connection.encode_fitting(Suback(1, 60 * [0]))


@pytest.mark.spec("MQTT-3.14.2-3", "MQTT-3.14.2-4")
@pytest.mark.parametrize("limit", [24, 30, 100])
def test_disconnect_without_its_reason(world: World, limit: int) -> None:
    client = world.join("s", maximum_packet_size=limit)
    client.send(message("a/#"))
    goodbye = client.take(Disconnect)
    assert goodbye.reason_code == 0x90
    assert ("reason_string" in goodbye.properties) is (limit == 100)
    assert client.is_closed


@pytest.mark.spec("MQTT-3.4.2-2", "MQTT-3.4.2-3", "MQTT-3.5.2-2", "MQTT-3.5.2-3")
@pytest.mark.parametrize(("limit", "is_explained"), [(24, False), (26, False), (27, True), (100, True)])
@pytest.mark.parametrize(("qos", "kind"), [(1, Puback), (2, Pubrec)])
def test_puback_and_pubrec_without_their_reason(
    world: World, qos: int, kind: type[Puback | Pubrec], limit: int, is_explained: bool
) -> None:
    """A P2P message to a client that is there is acknowledged with a user property of 21 bytes."""
    world.join("there")
    client = world.join("s", maximum_packet_size=limit)
    client.send(message("p2p/there/t", qos=qos, packet_id=9))
    answer = client.take(kind)
    assert (answer.packet_id, answer.reason_code) == (9, 0)
    assert answer.properties == ({"user_properties": [("p2p-status", "online")]} if is_explained else {})
    assert len(encode(answer, V5)) <= limit


@pytest.mark.spec("MQTT-3.6.2-2", "MQTT-3.6.2-3", "MQTT-3.7.2-2", "MQTT-3.7.2-3")
def test_pubrel_and_pubcomp_have_no_reason_at_all(world: World) -> None:
    client = world.join("s", acknowledges=False, maximum_packet_size=24)
    client.subscribe("t")
    world.join("p").publish("t", b"x", 2)
    packet_id = client.take(Message).packet_id
    client.send(Pubrec(packet_id), Pubrec(77), Pubrel(88), message("t", qos=2, packet_id=5), Pubrel(5))
    answers: list[Packet] = [each for each in client.receive() if isinstance(each, Pubrel | Pubcomp)]
    assert answers == [Pubrel(packet_id), Pubrel(77, 0x92), Pubcomp(88, 0x92), Pubcomp(5)]
    assert all(len(encode(each, V5)) <= 5 for each in answers)


@pytest.mark.spec("MQTT-3.1.2-24", "MQTT-3.9.2-1", "MQTT-3.11.2-1")
def test_an_answer_that_does_not_fit_ends_the_connection(world: World) -> None:
    client = small(world)
    assert client.subscribe(*(str(number) for number in range(50))) == 50 * [2]
    client.send(Unsubscribe(99, [str(number) for number in range(60)]))
    assert client.take(Disconnect).reason_code == 0x95
    assert kinds(client.packets) == []
    assert client.is_closed


@pytest.mark.spec("MQTT-3.1.2-24")
@pytest.mark.parametrize("limit", [1, 2, 5, 10])
def test_a_client_that_takes_no_connack_gets_no_session(world: World, limit: int) -> None:
    client = world.client("s")
    client.send(Connect("s", properties={"maximum_packet_size": limit}), message("t"))
    assert client.is_closed
    assert client.packets == []
    assert world.broker.sessions == {}


@pytest.mark.spec("MQTT-3.1.2-24")
def test_a_client_that_takes_the_connack_is_served(world: World) -> None:
    size = len(encode(world.connect("s")[1], V5))
    client = world.client("s")
    client.send(Connect("s", properties={"maximum_packet_size": size - 1}))
    assert client.is_closed
    assert not world.join("s", maximum_packet_size=size).is_closed
