"""Wills: when they are published, when not, and as what (3.1.2.5 to 3.1.2.7, 3.1.3.2, 3.14.4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance.helpers import V5, V31, V311, World, every_version, message, payloads
from twisted_p2pmqtt.codec.packets import Connack, Connect, Disconnect, Will
from twisted_p2pmqtt.testing import MemoryClient

WILL = Will("w/t", b"bye", 1)


def listen(world: World, topic_filter: str = "w/#", version: int = V5) -> MemoryClient:
    """A client that hears wills."""
    listener = world.join("listener", version)
    listener.subscribe(topic_filter)
    return listener


def delayed(seconds: int, **properties: Any) -> Will:
    """A will with a Will Delay Interval."""
    return Will("w/t", b"bye", 1, properties={"will_delay_interval": seconds, **properties})  # type: ignore[typeddict-item]  # of **


def lose(world: World, client: MemoryClient) -> None:
    """The network fails."""
    client.lose()


def break_a_rule(world: World, client: MemoryClient) -> None:
    """The server closes after a malformed packet."""
    client.send_bytes(b"\xc1\x00")


def fall_silent(world: World, client: MemoryClient) -> None:
    """The keep-alive runs out."""
    world.wait(16)


def be_taken_over(world: World, client: MemoryClient) -> None:
    """Another connection takes the client id."""
    world.join(client.client_id, client.version)


def be_sent_away(world: World, client: MemoryClient) -> None:
    """An administrator closes the connection."""
    world.broker.disconnect(client.client_id)


ENDS = [lose, break_a_rule, fall_silent, be_taken_over, be_sent_away]


@pytest.mark.spec("MQTT-3.1.2-7", "MQTT-3.1.2-8", "MQTT-3.1.2-22", "MQTT3-3.1.2-8")
@pytest.mark.parametrize("end", ENDS)
@every_version
def test_a_will_is_published_when_the_connection_ends_badly(
    world: World, version: int, end: Callable[[World, MemoryClient], None]
) -> None:
    listener = listen(world)
    client = world.join("c", version, will=WILL, keep_alive=10)
    assert payloads(listener) == []
    end(world, client)
    assert client.is_closed
    assert [(each.topic, each.payload, each.qos) for each in listener.messages] == [(b"w/t", b"bye", 1)]


@pytest.mark.spec("MQTT-3.1.2-10", "MQTT3-3.1.2-10")
@every_version
def test_a_will_is_published_once(world: World, version: int) -> None:
    listener = listen(world)
    properties: Any = {"session_expiry_interval": 5} if version == V5 else {}
    world.join("c", version, will=WILL, clean_start=False, **properties).lose()
    assert payloads(listener) == [b"bye"]
    world.wait(700_000)  # the session's end does not bring it again
    assert "c" not in world.broker.sessions
    assert payloads(listener) == [b"bye"]


@pytest.mark.spec("MQTT-3.1.2-10", "MQTT-3.14.4-3", "MQTT3-3.1.2-10", "MQTT3-3.14.4-3")
@every_version
@pytest.mark.parametrize("clean_start", [True, False])
def test_disconnect_removes_the_will(world: World, version: int, clean_start: bool) -> None:
    listener = listen(world)
    properties: Any = {} if clean_start or version < V5 else {"session_expiry_interval": 5}
    client = world.join("c", version, will=WILL, clean_start=clean_start, **properties)
    client.disconnect()
    world.wait(700_000)
    assert payloads(listener) == []


@pytest.mark.spec("MQTT-3.1.2-8", "MQTT-3.14.4-3")
@pytest.mark.parametrize("code", [0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x95, 0x97, 0x99])
def test_disconnect_with_any_other_code_keeps_the_will(world: World, code: int) -> None:
    listener = listen(world)
    world.join("c", will=WILL).disconnect(code)
    assert payloads(listener) == [b"bye"]


@pytest.mark.spec("MQTT3-3.1.2-12")
@every_version
def test_no_will_where_there_is_none(world: World, version: int) -> None:
    listener = listen(world, "#")
    world.join("c", version).lose()
    assert payloads(listener) == []
    assert world.broker.stats.wills_published == 0


def test_a_will_of_the_connection_before_is_forgotten(world: World) -> None:
    listener = listen(world)
    world.join("c", will=WILL).disconnect()
    world.join("c").lose()
    assert payloads(listener) == []


# As what


@pytest.mark.spec("MQTT-3.1.2-14", "MQTT-3.1.2-15", "MQTT3-3.1.2-16", "MQTT3-3.1.2-17")
@every_version
@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_will_is_retained_where_it_asks_for_that(world: World, version: int, retain: bool, qos: int) -> None:
    early = listen(world)
    world.join("c", version, will=Will("w/t", b"bye", qos, retain)).lose()
    assert [(each.qos, each.retain) for each in early.messages] == [(qos, 0)]
    late = world.join("late")
    late.subscribe("w/t")
    assert [(each.payload, each.qos, each.retain) for each in late.messages] == [(b"bye", qos, 1)] * retain


def test_an_empty_retained_will_clears_the_topic(world: World) -> None:
    world.join("p").publish("w/t", b"old", retain=True)
    world.join("c", will=Will("w/t", b"", 0, True)).lose()
    assert listen(world).messages == []


@pytest.mark.spec("MQTT-3.1.3-10")
def test_a_will_has_its_properties(world: World) -> None:
    listener = listen(world)
    pairs = [("b", "1"), ("a", "2"), ("b", "0"), ("b", "1")]
    properties: dict[str, Any] = {
        "payload_format_indicator": 1,
        "content_type": "text",
        "response_topic": "r/t",
        "correlation_data": b"\x00\xff",
        "message_expiry_interval": 30,
        "user_properties": pairs,
    }
    delay: Any = {**properties, "will_delay_interval": 0}
    world.join("c", will=Will("w/t", b"bye", properties=delay)).lose()
    assert dict(listener.messages[0].properties) == properties


def test_a_will_expires_counted_from_its_publication(world: World) -> None:
    """3.1.3.2.4: the lifetime of the will message is a matter of when the server publishes it."""
    world.rejoin("away").subscribe("w/t")
    world.broker.sessions["away"].connection.wire.close()  # type: ignore[union-attr]  # it is connected
    world.join("c", will=delayed(20, message_expiry_interval=30), session_expiry_interval=100).lose()
    world.wait(21 + 20)
    messages = world.rejoin("away").messages
    assert [each.properties["message_expiry_interval"] for each in messages] in ([9], [10], [11])


@pytest.mark.parametrize("version", [V31, V311])
def test_a_will_of_a_3_x_client_has_no_properties(world: World, version: int) -> None:
    listener = listen(world)
    world.join("c", version, will=WILL).lose()
    assert listener.messages[0].properties == {}


# The delay


@pytest.mark.spec("MQTT-3.1.2-8")
def test_a_will_waits_for_its_delay(world: World) -> None:
    listener = listen(world)
    world.join("c", will=delayed(10), session_expiry_interval=100).lose()
    world.wait(9.5)
    assert payloads(listener) == []
    world.wait(1)
    assert payloads(listener) == [b"bye"]
    world.wait(200)
    assert payloads(listener) == [b"bye"]


@pytest.mark.spec("MQTT-3.1.2-8")
@pytest.mark.parametrize("delay", [11, 10, 2**32 - 1])
def test_a_will_does_not_outlast_its_session(world: World, delay: int) -> None:
    listener = listen(world)
    world.join("c", will=delayed(delay), session_expiry_interval=10).lose()
    world.wait(9.5)
    assert payloads(listener) == []
    world.wait(1)
    assert payloads(listener) == [b"bye"]


@pytest.mark.spec("MQTT-3.1.2-8")
@pytest.mark.parametrize("interval", [None, 0])
def test_a_session_that_ends_at_once_does_not_delay_its_will(world: World, interval: int | None) -> None:
    listener = listen(world)
    properties: Any = {} if interval is None else {"session_expiry_interval": interval}
    world.join("c", will=delayed(10), **properties).lose()
    assert payloads(listener) == [b"bye"]


@pytest.mark.spec("MQTT-3.1.3-9")
def test_reconnecting_in_time_keeps_the_will_unsent(world: World) -> None:
    listener = listen(world)
    world.join("c", will=delayed(10), session_expiry_interval=100).lose()
    world.wait(9)
    client = world.join("c", clean_start=False, session_expiry_interval=100)
    world.wait(100)
    assert payloads(listener) == []
    client.lose()  # this connection has no will
    world.wait(100)
    assert payloads(listener) == []


@pytest.mark.spec("MQTT-3.1.3-9")
def test_being_taken_over_by_a_client_that_goes_on_keeps_a_delayed_will_unsent(world: World) -> None:
    listener = listen(world)
    older = world.join("c", will=delayed(10), session_expiry_interval=100)
    world.join("c", clean_start=False, session_expiry_interval=100)
    assert older.is_closed
    world.wait(50)
    assert payloads(listener) == []


@pytest.mark.spec("MQTT-3.1.2-8")
def test_a_clean_start_ends_the_session_and_so_the_delay(world: World) -> None:
    listener = listen(world)
    world.join("c", will=delayed(10), session_expiry_interval=100).lose()
    world.join("c", session_expiry_interval=100)
    assert payloads(listener) == [b"bye"]
    world.join("d", will=delayed(10), session_expiry_interval=100)
    world.join("d", session_expiry_interval=100)  # taken over by a clean start
    assert payloads(listener) == [b"bye", b"bye"]


def test_the_will_of_the_new_connection_takes_the_place_of_the_old_one(world: World) -> None:
    listener = listen(world)
    world.join("c", will=delayed(10), session_expiry_interval=100).lose()
    second = Will("w/t", b"second", 1, properties={"will_delay_interval": 5})
    world.join("c", clean_start=False, will=second, session_expiry_interval=100).lose()
    world.wait(6)
    assert payloads(listener) == [b"second"]
    world.wait(20)
    assert payloads(listener) == [b"second"]


def test_disconnect_with_will_waits_for_the_delay_too(world: World) -> None:
    listener = listen(world)
    client = world.join("c", will=delayed(10), session_expiry_interval=100)
    client.disconnect(4)
    world.wait(9)
    assert payloads(listener) == []
    world.wait(2)
    assert payloads(listener) == [b"bye"]


def test_disconnect_with_will_and_another_expiry_interval(world: World) -> None:
    """3.14.2.2.2: the delay is cut by the interval that DISCONNECT gives."""
    listener = listen(world)
    world.join("c", will=delayed(10), session_expiry_interval=100).disconnect(4, {"session_expiry_interval": 5})
    world.wait(4.5)
    assert payloads(listener) == []
    world.wait(1)
    assert payloads(listener) == [b"bye"]


# Refused wills


@every_version
@pytest.mark.parametrize(
    ("topic", "code", "return_code"),
    [("$SYS/x", 0x87, 5), ("$foo", 0x87, 5), ("p2p//x", 0x90, None), ("p2p/a", 0x90, None)],
)
def test_a_will_to_a_topic_that_is_not_the_clients(
    world: World, version: int, topic: str, code: int, return_code: int | None
) -> None:
    client = world.client("c", version)
    client.send(Connect("c", version, will=Will(topic, b"x")))
    assert client.is_closed
    codes = [each.reason_code for each in client.packets if isinstance(each, Connack)]
    assert codes == ([code] if version == V5 else [return_code] if return_code else [])


def test_a_will_may_set_off_another(world: World) -> None:
    """Each will fires once, however its publication ends other connections."""
    listener = listen(world)
    clients = [world.join(f"c{number}", will=Will("w/t", str(number).encode())) for number in range(20)]
    world.broker.subscribe("w/#", lambda got: clients[(int(got.payload) + 1) % 20].lose())
    clients[0].lose()
    assert sorted(map(int, payloads(listener))) == list(range(20))


def test_a_will_and_the_clients_own_messages_come_in_order(world: World) -> None:
    listener = listen(world)
    client = world.join("c", will=Will("w/t", b"will", 1))
    client.send(message("w/t", b"1", 1, 1), message("w/t", b"2", 1, 2))
    client.send_bytes(b"\xc1\x00")
    assert payloads(listener) == [b"1", b"2", b"will"]
    assert [each for each in client.packets if isinstance(each, Disconnect)]
