"""Sessions: begun, resumed, taken over, expired, and what is in them (3.1.2.4, 3.1.2.11.2, 3.1.4, 4.1)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.helpers import V5, V31, V311, World, every_version, message, payloads, since_v311
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Disconnect, Pingreq, Pingresp, Pubrec, Pubrel, Will
from twisted_p2pmqtt.testing import MemoryClient

NEVER = 2**32 - 1
WEEK = 604_800


def left(world: World, version: int, client_id: str = "c", filters: tuple[str, ...] = ("t",)) -> None:
    """A session with subscriptions, whose client has gone."""
    client = world.rejoin(client_id, version)
    client.subscribe(*filters)
    client.lose()


def publish(world: World, topic: str, payload: bytes, qos: int = 1) -> None:
    """Somebody else publishes."""
    world.join("publisher").publish(topic, payload, qos)


# Begun and resumed


@pytest.mark.spec("MQTT-3.1.2-4", "MQTT-3.1.4-4", "MQTT3-3.1.2-6", "MQTT3-3.1.4-3")
@every_version
def test_a_clean_start_throws_the_session_away(world: World, version: int) -> None:
    left(world, version)
    publish(world, "t", b"old")
    client = world.join("c", version)
    assert payloads(client) == []
    publish(world, "t", b"new")
    assert payloads(client) == []
    client.lose()
    assert payloads(world.rejoin("c", version)) == []  # and nothing of it is there later


@pytest.mark.spec("MQTT-3.1.2-5", "MQTT-3.1.2-23", "MQTT-3.1.4-4", "MQTT-4.5.0-1")
@pytest.mark.spec("MQTT3-3.1.2-4", "MQTT3-3.1.2-5", "MQTT3-3.1.4-3", "MQTT3-4.1.0-1", "MQTT3-4.5.0-1")
@every_version
@pytest.mark.parametrize("qos", [1, 2])
def test_without_a_clean_start_the_session_goes_on(world: World, version: int, qos: int) -> None:
    left(world, version)
    publish(world, "t", b"while away", qos)
    client = world.rejoin("c", version)
    assert payloads(client) == [b"while away"]
    publish(world, "t", b"now", qos)
    assert payloads(client) == [b"while away", b"now"]
    assert [each.qos for each in client.messages] == [qos, qos]


@pytest.mark.spec("MQTT-3.1.2-6", "MQTT3-3.1.2-4")
@every_version
def test_without_a_session_a_new_one_begins(world: World, version: int) -> None:
    client = world.rejoin("c", version)
    assert world.broker.sessions["c"].subscriptions == {}
    client.subscribe("t")
    publish(world, "t", b"1")
    assert payloads(client) == [b"1"]


@every_version
def test_qos_0_is_not_kept_for_later(world: World, version: int) -> None:
    left(world, version)
    publish(world, "t", b"0", 0)
    publish(world, "t", b"1", 1)
    assert payloads(world.rejoin("c", version)) == [b"1"]


@pytest.mark.spec("MQTT3-3.1.2-7")
@every_version
def test_retained_messages_outlive_sessions(world: World, version: int) -> None:
    client = world.join("c", version)
    client.publish("t", b"kept", 1, retain=True)
    client.disconnect()
    later = world.join("c", version)
    later.subscribe("t")
    assert payloads(later) == [b"kept"]


@every_version
def test_a_session_may_be_resumed_in_another_version(world: World, version: int) -> None:
    left(world, version)
    publish(world, "t", b"1")
    for other in (V5, V311, V31):
        client = world.rejoin("c", other)
        publish(world, "t", b"2")
        assert payloads(client)[-1] == b"2"


# How long


@pytest.mark.spec("MQTT-4.1.0-1", "MQTT3-4.1.0-2")
@every_version
def test_a_session_lasts_as_long_as_its_connection(world: World, version: int) -> None:
    client = world.join("c", version)
    client.subscribe("t")
    world.wait(WEEK + 10)
    publish(world, "t", b"still here")
    assert payloads(client) == [b"still here"]


@pytest.mark.spec("MQTT-4.1.0-2")
@pytest.mark.parametrize("properties", [{}, {"session_expiry_interval": 0}])
def test_without_an_expiry_interval_the_session_ends_with_its_connection(world: World, properties: Any) -> None:
    world.join("c", **properties).lose()
    assert "c" not in world.broker.sessions
    assert world.connect("c", clean_start=False)[1].session_present is False


@pytest.mark.spec("MQTT-3.1.2-23", "MQTT-4.1.0-2")
def test_a_session_is_kept_until_it_expires(world: World) -> None:
    world.join("c", session_expiry_interval=60).lose()
    world.wait(59)
    assert "c" in world.broker.sessions
    world.wait(1.5)
    assert "c" not in world.broker.sessions
    assert world.broker.stats.sessions_expired == 1


def test_a_session_that_is_used_does_not_expire(world: World) -> None:
    world.join("c", session_expiry_interval=10).lose()
    world.wait(9)
    client = world.join("c", clean_start=False, session_expiry_interval=10)
    world.wait(100)
    assert "c" in world.broker.sessions
    client.lose()
    world.wait(9)
    assert "c" in world.broker.sessions


@pytest.mark.parametrize(
    ("cap", "interval", "expires"), [(WEEK, NEVER, True), (WEEK, WEEK + 1, True), (NEVER, NEVER, False)]
)
def test_the_longest_expiry_interval(cap: int, interval: int, expires: bool) -> None:
    world = World(max_session_expiry=cap)
    world.join("c", session_expiry_interval=interval).lose()
    world.wait(WEEK - 10)
    assert "c" in world.broker.sessions
    world.wait(100)
    assert ("c" not in world.broker.sessions) is expires
    world.wait(2 * NEVER)
    assert ("c" not in world.broker.sessions) is expires


@pytest.mark.parametrize("version", [V31, V311])
def test_a_session_of_3_x_is_kept_as_long_as_the_server_keeps_any(version: int) -> None:
    world = World(max_session_expiry=100)
    left(world, version)
    world.wait(99)
    assert "c" in world.broker.sessions
    world.wait(2)
    assert "c" not in world.broker.sessions


@pytest.mark.parametrize(
    ("at_connect", "at_disconnect", "lasts"),
    [(60, None, 60), (60, 10, 10), (10, 60, 60), (60, 0, 0), (10, NEVER, 1000)],
)
def test_disconnect_may_change_the_expiry_interval(at_connect: int, at_disconnect: int | None, lasts: int) -> None:
    world = World(max_session_expiry=1000)
    client = world.join("c", session_expiry_interval=at_connect)
    client.disconnect(0, None if at_disconnect is None else {"session_expiry_interval": at_disconnect})
    if lasts:
        world.wait(lasts - 1)
        assert "c" in world.broker.sessions
        world.wait(1.5)
    assert "c" not in world.broker.sessions


@pytest.mark.parametrize("properties", [{}, {"session_expiry_interval": 0}])
def test_disconnect_may_not_begin_an_expiry_interval(world: World, properties: Any) -> None:
    client = world.join("c", will=Will("w", b"will"), **properties)
    listener = world.join("listener")
    listener.subscribe("w")
    client.disconnect(0, {"session_expiry_interval": 10})
    assert client.take(Disconnect).reason_code == 0x82
    assert client.is_closed
    assert "c" not in world.broker.sessions
    assert payloads(listener) == [b"will"]  # that was no DISCONNECT that the server could take


def test_disconnect_may_say_zero_again(world: World) -> None:
    client = world.join("c")
    client.disconnect(0, {"session_expiry_interval": 0})
    assert [each for each in client.packets if isinstance(each, Disconnect)] == []


def test_the_expiry_interval_is_the_last_connects(world: World) -> None:
    world.join("c", session_expiry_interval=1000).lose()
    world.join("c", clean_start=False, session_expiry_interval=10).lose()
    world.wait(11)
    assert "c" not in world.broker.sessions


# Taken over


def is_alive(client: MemoryClient) -> bool:
    """Does it get an answer?"""
    client.send(Pingreq())
    return any(isinstance(each, Pingresp) for each in client.receive())


@pytest.mark.spec("MQTT-3.1.4-3", "MQTT-4.13.2-1", "MQTT3-3.1.4-2")
@pytest.mark.parametrize("newer", [V31, V311, V5])
@every_version
def test_a_newer_connection_takes_the_client_id_over(world: World, version: int, newer: int) -> None:
    older = world.join("c", version)
    client = world.join("c", newer)
    assert older.is_closed
    assert [each.reason_code for each in older.packets if isinstance(each, Disconnect)] == [0x8E] * (version == V5)
    assert is_alive(client)
    assert len(world.broker.sessions) == 1


@pytest.mark.spec("MQTT-3.1.4-3", "MQTT3-3.1.4-2", "MQTT3-3.1.2-4")
@every_version
def test_a_session_goes_over_to_the_newer_connection(world: World, version: int) -> None:
    older = world.rejoin("c", version, acknowledges=False)
    older.subscribe("t")
    publish(world, "t", b"1")
    assert payloads(older) == [b"1"]
    lasting: Any = {"session_expiry_interval": 60} if version == V5 else {}
    newer = world.join("c", version, clean_start=False, **lasting)
    assert older.is_closed
    publish(world, "t", b"2")
    assert payloads(newer) == [b"1", b"2"]
    assert [each.dup for each in newer.messages] == [8, 0]
    assert payloads(older) == [b"1"]


def test_a_session_without_expiry_ends_where_it_is_taken_over(world: World) -> None:
    world.join("c").subscribe("t")
    client, connack = world.connect("c", clean_start=False)
    assert connack.session_present is False
    publish(world, "t", b"1")
    assert payloads(client) == []


def test_of_many_connections_the_last_one_stays(world: World) -> None:
    clients = [world.join("c", version) for version in (V5, V311, V31, V5, V311)]
    assert [each.is_closed for each in clients] == [True, True, True, True, False]
    assert world.broker.stats.sessions_taken_over == 4
    assert world.broker.stats.connections_open == 1


def test_the_end_of_the_older_connection_does_not_touch_the_session(world: World) -> None:
    older = world.join("c", session_expiry_interval=5)
    newer = world.join("c", clean_start=False, session_expiry_interval=5)
    older.lose()
    world.wait(60)
    assert is_alive(newer)


# What is in a session


@since_v311
def test_a_session_keeps_the_packet_ids_of_qos_2(world: World, version: int) -> None:
    """Received and not released, sent and not acknowledged, released and not complete."""
    listener = world.join("listener")
    listener.subscribe("up")
    client = world.rejoin("c", version, acknowledges=False)
    client.subscribe("down")
    client.send(message("up", b"once", 2, 7))
    publish(world, "down", b"a", 2)
    publish(world, "down", b"b", 2)
    first = client.take(Message).packet_id
    client.send(Pubrec(first))
    client.lose()

    client = world.rejoin("c", version, acknowledges=False)
    assert client.take(Pubrel).packet_id == first
    assert payloads(client) == [b"b"]
    client.send(message("up", b"once", 2, 7, dup=True), Pubrel(7))
    assert payloads(listener) == [b"once"]


@since_v311
def test_the_queue_of_a_session_has_a_bound(version: int) -> None:
    world = World(max_queued_messages=3)
    left(world, version)
    publisher = world.join("publisher")
    codes = [publisher.publish("t", str(number).encode(), 1) for number in range(5)]
    assert codes == [0, 0, 0, 0x97, 0x97]
    assert payloads(world.rejoin("c", version)) == [b"0", b"1", b"2"]
