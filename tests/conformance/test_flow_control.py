"""Receive Maximum, both ways (3.1.2.11.3, 3.2.2.3.3, 3.3.4, 4.9)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.helpers import V5, V31, V311, World, ask, every_version, kinds, message, payloads
from twisted_p2pmqtt.codec.message import DUP, Message
from twisted_p2pmqtt.codec.packets import Disconnect, Pingreq, Puback, Pubcomp, Pubrec, Pubrel, Unsubscribe
from twisted_p2pmqtt.testing import MemoryClient

# Towards the client


def waiting(world: World, count: int, window: int, qos: int = 1) -> MemoryClient:
    """A silent client with this Receive Maximum, and so many messages for it."""
    client = world.rejoin("s", acknowledges=False, receive_maximum=window)
    client.subscribe("t")
    client.receive()
    for number in range(count):
        world.join("p").publish("t", b"%d" % number, qos)
    return client


@pytest.mark.spec("MQTT-3.3.4-9", "MQTT-4.9.0-1", "MQTT-4.9.0-2")
@pytest.mark.parametrize("window", [1, 2, 5])
@pytest.mark.parametrize("qos", [1, 2])
def test_the_server_keeps_to_the_clients_window(world: World, window: int, qos: int) -> None:
    client = waiting(world, 12, window, qos)
    for number in range(12):
        assert len(client.messages) == min(12, window + number)
        packet_id = client.messages[number].packet_id
        if qos == 2:
            client.send(Pubrec(packet_id))
            assert len(client.messages) == min(12, window + number)  # PUBREC does not open it
        client.send(Puback(packet_id) if qos == 1 else Pubcomp(packet_id))
    assert payloads(client) == [b"%d" % number for number in range(12)]


@pytest.mark.spec("MQTT-4.9.0-1")
def test_a_refusing_pubrec_opens_the_window(world: World) -> None:
    client = waiting(world, 3, 1, 2)
    client.send(Pubrec(client.messages[0].packet_id, 0x97))
    assert payloads(client) == [b"0", b"1"]


@pytest.mark.spec("MQTT-4.9.0-1")
@pytest.mark.parametrize(("asked", "limit", "expected"), [(65535, 3, 3), (2, 3, 2), (None, 3, 3), (None, 1000, 20)])
def test_the_window_is_the_smaller_of_the_clients_and_ours(asked: int | None, limit: int, expected: int) -> None:
    world = World(max_inflight=limit)
    properties: Any = {} if asked is None else {"receive_maximum": asked}
    client = world.join("s", acknowledges=False, **properties)
    client.subscribe("t")
    for _ in range(20):
        world.join("p").publish("t", b"x", 1)
    assert len(client.messages) == expected


@pytest.mark.parametrize("version", [V31, V311])
def test_the_window_of_a_3_x_client_is_ours(version: int) -> None:
    world = World(max_inflight=2)
    client = world.join("s", version, acknowledges=False)
    client.subscribe("t")
    for _ in range(5):
        world.join("p").publish("t", b"x", 1)
    assert len(client.messages) == 2
    client.send(Puback(client.messages[0].packet_id))
    assert len(client.messages) == 3


@pytest.mark.spec("MQTT-3.3.4-10", "MQTT-4.9.0-3")
def test_a_shut_window_holds_nothing_else_back(world: World) -> None:
    client = waiting(world, 3, 1, 2)
    client.receive()
    client.subscribe("other", "$SYS/#")
    client.send(
        Pingreq(), Unsubscribe(99, ["other"]), message("up", qos=1, packet_id=5), message("up", qos=2, packet_id=6)
    )
    client.send(Pubrel(6), Pubrec(1))
    assert kinds(client.receive()) == ["Pingresp", "Unsuback", "Puback", "Pubrec", "Pubcomp", "Pubrel"]


@pytest.mark.spec("MQTT-4.9.0-2")
def test_a_shut_window_lets_qos_0_through(world: World) -> None:
    client = waiting(world, 3, 1)
    client.subscribe(ask("zero", 0))
    world.join("p").publish("zero", b"0", 2)
    assert payloads(client) == [b"0", b"0"]
    assert [each.qos for each in client.messages] == [1, 0]


@pytest.mark.spec("MQTT-3.3.4-9", "MQTT-4.4.0-1")
@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(("before", "after"), [(5, 2), (2, 5), (5, 1)])
def test_resending_keeps_to_the_new_window(world: World, qos: int, before: int, after: int) -> None:
    waiting(world, 8, before, qos).lose()
    client = world.rejoin("s", acknowledges=False, receive_maximum=after)
    for number in range(8):
        assert len(client.messages) == min(8, after + number)
        packet_id = client.messages[number].packet_id
        if qos == 2:
            client.send(Pubrec(packet_id))
        client.send(Puback(packet_id) if qos == 1 else Pubcomp(packet_id))
    assert payloads(client) == [b"%d" % number for number in range(8)]
    assert [each.dup for each in client.messages] == [DUP] * before + [0] * (8 - before)
    assert world.broker.sessions["s"].inflight == {}


@pytest.mark.spec("MQTT-3.3.4-10")
def test_no_window_holds_a_pubrel_back(world: World) -> None:
    """PUBREL goes out at once when the session resumes, whatever PUBLISH packets wait before it."""
    client = waiting(world, 4, 4, 2)
    ids = [each.packet_id for each in client.messages]
    client.send(Pubrec(ids[2]), Pubrec(ids[3]))
    client.lose()
    client = world.rejoin("s", acknowledges=False, receive_maximum=1)
    assert [each.packet_id for each in client.packets if isinstance(each, Pubrel)] == ids[2:]
    client.send(Pubcomp(ids[2]), Pubcomp(ids[3]))
    assert [each.packet_id for each in client.messages] == ids[:1]


@pytest.mark.spec("MQTT-3.3.4-9")
def test_an_early_acknowledgement_does_not_widen_the_window(world: World) -> None:
    """The client acknowledges from the connection before what has not been sent again yet."""
    client = waiting(world, 4, 4)
    ids = [each.packet_id for each in client.messages]
    client.lose()
    client = world.rejoin("s", acknowledges=False, receive_maximum=1)
    client.send(Puback(ids[3]))
    assert [each.packet_id for each in client.messages] == ids[:1]
    client.send(Puback(ids[0]))
    assert [each.packet_id for each in client.messages] == ids[:2]
    client.send(Puback(ids[1]))
    client.send(Puback(ids[2]))
    assert [each.packet_id for each in client.messages] == ids[:3]
    assert world.broker.sessions["s"].inflight == {}


# Towards the server


@pytest.mark.spec("MQTT-3.3.4-7")
def test_a_client_that_does_not_keep_to_our_window() -> None:
    world = World(receive_maximum=3)
    listener = world.join("listener")
    listener.subscribe("t")
    client = world.join("c")
    client.send(*(message("t", b"%d" % number, 2, number) for number in range(1, 4)))
    assert [each.packet_id for each in client.packets if isinstance(each, Pubrec)] == [1, 2, 3]
    client.send(message("t", b"4", 2, 4))
    assert client.take(Disconnect).reason_code == 0x93
    assert client.is_closed
    assert payloads(listener) == [b"1", b"2", b"3"]


def test_what_is_acknowledged_does_not_count() -> None:
    client = World(receive_maximum=1).join("c")
    for _ in range(5):
        assert client.publish("t", b"x", 1) == 0x10
        assert client.publish("t", b"x", 2) == 0x10
    client.send(message("t", qos=2, packet_id=9), message("t", qos=2, packet_id=9, dup=True), Pubrel(9))
    client.send(message("t", qos=2, packet_id=10))
    client.send(message("$x", qos=0))
    assert not client.is_closed


def test_qos_1_counts_while_qos_2_is_open() -> None:
    client = World(receive_maximum=1).join("c")
    client.send(message("t", qos=2, packet_id=1))
    client.send(message("t", qos=1, packet_id=2))
    assert client.take(Disconnect).reason_code == 0x93


def test_a_new_connection_begins_with_a_new_window() -> None:
    """4.9: the quota is not carried over; what the client sends again counts, what it has forgotten does not."""
    world = World(receive_maximum=2)
    client = world.rejoin("c")
    client.send(message("t", qos=2, packet_id=1), message("t", qos=2, packet_id=2))
    client = world.rejoin("c")
    client.send(message("t", qos=2, packet_id=2, dup=True))
    client.send(message("t", qos=2, packet_id=3))
    assert not client.is_closed
    client.send(message("t", qos=2, packet_id=4))
    assert client.take(Disconnect).reason_code == 0x93


@pytest.mark.parametrize("version", [V31, V311])
def test_3_x_knows_no_window(version: int) -> None:
    client = World(receive_maximum=1).join("c", version)
    client.send(*(message("t", qos=2, packet_id=number) for number in range(1, 20)))
    assert len([each for each in client.packets if isinstance(each, Pubrec)]) == 19


# A queue behind the window


@pytest.mark.parametrize(
    "limits", [{"max_queued_messages": 2}, {"max_queued_bytes": 90}, {"max_total_queued_bytes": 90}]
)
@every_version
def test_a_queue_that_is_full_refuses_what_is_new(version: int, limits: dict[str, Any]) -> None:
    world = World(max_inflight=1, **limits)
    client = world.join("s", V5, acknowledges=False)
    client.subscribe("t")
    publisher = world.join("p", version)
    codes = [publisher.publish("t", b"%d" % number + 30 * b" ", 1) for number in range(5)]
    assert codes == ([0, 0, 0, 0x97, 0x97] if version == V5 else [0] * 5)
    for _ in range(3):
        client.send(Puback(client.messages[-1].packet_id))
    assert [each[:1] for each in payloads(client)] == [b"0", b"1", b"2"]
    assert world.broker.stats.dropped_queue_full == 2
    assert world.broker.stats.queued_bytes == 0


def test_one_full_queue_does_not_refuse_for_all() -> None:
    world = World(max_inflight=1, max_queued_messages=1)
    slow, quick = world.join("slow", acknowledges=False), world.join("quick")
    slow.subscribe("t")
    quick.subscribe("t")
    publisher = world.join("p")
    for number in range(1, 5):
        assert publisher.publish("t", b"x", 1) == 0
        assert len(quick.messages) == number
    assert [type(each) for each in slow.messages] == [Message]
