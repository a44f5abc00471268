"""The broker from Python, in the process that embeds it: publish, subscribe, send_to, disconnect, list_sessions."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from tests.core.support import (
    Avatar,
    SlowStore,
    client,
    guarded_factory,
    heard,
    later,
    offline,
    persistent,
    publish,
    result_of,
    user_properties,
)
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Disconnect, Puback, Pubcomp, Pubrec
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.limits import Limits, P2POptions
from twisted_p2pmqtt.core.local import SendResult
from twisted_p2pmqtt.core.records import StoreError
from twisted_p2pmqtt.testing import make_broker


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(clock: Clock) -> Broker:
    return make_broker(clock)


# --- publish ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", [3, 4, 5])
def test_publish(broker: Broker, version: int, qos: int) -> None:
    reader = client(broker, "reader", version)
    reader.subscribe("news")
    assert result_of(broker.publish("news", b"x", qos, properties={"content_type": "text/plain"})) == 0
    assert (heard(reader), reader.messages[0].qos) == ([("news", b"x")], qos)
    if version == 5:
        assert reader.messages[0].properties == {"content_type": "text/plain"}


def test_publish_tells_what_became_of_it(broker: Broker) -> None:
    assert result_of(broker.publish("nobody/listens", b"x", 1)) == 0x10
    assert result_of(broker.publish("p2p/nobody/t", b"x", 1)) == 0x10
    assert result_of(broker.publish("p2p/nobody", b"x", 1)) == 0x90
    assert result_of(broker.publish("p2p//t", b"x", 1)) == 0x90
    for topic in ("a/+", "#", "", "a\0b"):
        with pytest.raises(MQTTError):
            broker.publish(topic, b"x")
    with pytest.raises(MQTTError):
        broker.publish("x" * 5000, b"x")
    with pytest.raises(ValueError, match="QoS"):
        broker.publish("t", b"x", 3)


def test_publish_to_reserved_topics_and_retained(broker: Broker) -> None:
    broker.publish("$SYS/x", b"1", retain=True)
    reader = client(broker, "reader")
    reader.subscribe("$SYS/#", "#")
    assert heard(reader) == [("$SYS/x", b"1")]
    assert reader.messages[0].retain == 1


def test_properties_are_looked_at_where_they_are_given(broker: Broker) -> None:
    for wrong in ("topic_alias", "subscription_identifiers", "session_expiry_interval", "colour"):
        with pytest.raises(ValueError, match=wrong):
            broker.publish("t", b"x", properties={wrong: 1})  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises((TypeError, AttributeError)):
        broker.publish("t", b"x", properties={"content_type": 1})  # type: ignore[arg-type]  # wrong on purpose
    mine: Properties = {"user_properties": [("a", "1")]}
    reader = client(broker, "reader")
    broker.send_to("reader", "t", b"x", properties=mine)
    assert mine == {"user_properties": [("a", "1")]}
    assert user_properties(reader.messages[0]) == [("a", "1"), ("p2p-from", "$broker")]


def test_publish_is_done_when_what_must_survive_is_stored(clock: Clock) -> None:
    store = SlowStore()
    broker = make_broker(clock, store=store)
    fates: list[int] = []
    for _ in range(2):
        broker.publish("kept", b"x", 1, retain=True).addCallback(fates.append)
        broker.flush()
        assert len(fates) == len(store.noted) - 1
        store.finish(StoreError("disk full") if fates else None)
    assert fates == [0x10, 0x97]


# --- subscribe --------------------------------------------------------------------------------------------------------


def test_subscribe_and_unsubscribe(broker: Broker) -> None:
    got: list[tuple[str, bytes]] = []
    held = broker.subscribe("sensor/#", lambda message: got.append((message.topic.decode(), message.payload)))
    sender = client(broker, "app")
    for qos in (0, 1, 2):
        publish(sender, "sensor/temp", b"%d" % qos, qos)
    publish(sender, "other", b"x")
    publish(sender, "p2p/nobody/sensor/temp")
    assert got == [("sensor/temp", b"0"), ("sensor/temp", b"1"), ("sensor/temp", b"2")]
    held.unsubscribe()
    held.unsubscribe()
    publish(sender, "sensor/temp", b"late")
    assert len(got) == 3
    assert broker.tree.count == 0


def test_subscribers_of_the_process_see_retained_messages_first_and_no_p2p(clock: Clock, broker: Broker) -> None:
    broker.publish("a", b"kept", retain=True)
    got: list[bytes] = []
    broker.subscribe("#", lambda message: got.append(message.payload))
    clock.advance(0)
    client(broker, "dev")
    for topic in ("p2p/dev/a", "a"):
        broker.publish(topic, topic.encode())
    assert got == [b"kept", b"a"]


def test_a_shared_subscription_of_the_process(broker: Broker) -> None:
    got: list[str] = []
    for name in ("one", "two"):
        broker.subscribe("$share/g/t", lambda message, name=name: got.append(name))  # type: ignore[misc]  # of a default
    for _ in range(4):
        broker.publish("t", b"x")
    assert sorted(got) == ["one", "one", "two", "two"]


@pytest.mark.parametrize("topic_filter", ["", "a/#/b", "a+", "$share//t", "$share/g", "$share/g/"])
def test_an_illegal_filter_is_told(broker: Broker, topic_filter: str) -> None:
    with pytest.raises(MQTTError):
        broker.subscribe(topic_filter, lambda message: None)


@pytest.mark.parametrize("qos", [-1, 3, 4])
def test_an_illegal_qos_is_told(broker: Broker, qos: int) -> None:
    with pytest.raises(ValueError, match="QoS"):
        broker.subscribe("t", lambda message: None, qos)
    assert broker.tree.count == 0


def test_what_a_callback_does_to_a_message_nobody_else_sees(broker: Broker) -> None:
    def change(message: Message) -> None:
        message.properties.pop("response_topic", None)
        message.topic = b"elsewhere"

    broker.subscribe("t", change)
    device = client(broker, "device")
    device.subscribe("t", qos=1)
    for receiver in (device, client(broker, "later")):
        if receiver is not device:
            receiver.subscribe("t")
        else:
            publish(client(broker, "app"), "t", b"hey", 1, retain=True, properties={"response_topic": "app/answer"})
        (message,) = receiver.messages
        assert (message.topic, message.properties) == (b"t", {"response_topic": "app/answer"})


def test_a_callback_may_publish_and_unsubscribe(broker: Broker) -> None:
    got: list[bytes] = []

    def callback(message: Message) -> None:
        held.unsubscribe()
        got.append(message.payload)
        broker.publish("t", b"again")

    held = broker.subscribe("t", callback)
    broker.publish("t", b"first")
    assert got == [b"first"]


# --- send_to ----------------------------------------------------------------------------------------------------------


def test_sent_and_queued(broker: Broker) -> None:
    target = client(broker, "dev")
    assert result_of(broker.send_to("dev", "cmd/reboot", b"now")) == SendResult("sent", 0)
    assert heard(target) == [("cmd/reboot", b"now")]
    assert user_properties(target.messages[0]) == [("p2p-from", "$broker")]
    offline(broker, "away")
    assert result_of(broker.send_to("away", "cmd", b"x")) == SendResult("queued", 0)
    assert heard(persistent(broker, "away")) == [("cmd", b"x")]


@pytest.mark.parametrize("deliver", ["business", "original", "reply"])
def test_the_topic_is_what_the_target_hears_whatever_the_options(clock: Clock, deliver: str) -> None:
    broker = make_broker(clock, p2p=P2POptions(deliver_topic=deliver))
    target = client(broker, "dev", 4)
    broker.send_to("dev", "$own/cmd", b"x")
    assert heard(target) == [("$own/cmd", b"x")]


def test_no_session(broker: Broker) -> None:
    assert result_of(broker.send_to("nobody", "t", b"x")) == SendResult("no_session", 0x10)
    offline(broker, "away")
    assert result_of(broker.send_to("away", "t", b"x", qos=0)) == SendResult("no_session", 0x10)


def test_quota(clock: Clock) -> None:
    broker = make_broker(clock, p2p=P2POptions(max_queued=1))
    offline(broker, "away")
    results = [result_of(broker.send_to("away", "t", b"x")).status for _ in range(2)]
    assert results == ["queued", "quota"]


def test_quota_where_the_store_takes_nothing(clock: Clock) -> None:
    store = SlowStore()
    broker = make_broker(clock, store=store)
    offline_target = persistent  # its CONNACK waits for the commit
    with pytest.raises(AssertionError, match="no Connack"):
        offline_target(broker, "dev")
    broker.flush()
    store.finish()
    store.available = False
    assert result_of(broker.send_to("dev", "t", b"x")) == SendResult("quota", 0x97)


def test_denied(clock: Clock) -> None:
    broker = make_broker(clock, p2p=P2POptions(check_receive=True))
    factory = guarded_factory(broker, {"dev": Avatar(receive=["ok"])})
    client(factory, "dev")
    client(factory, "small", properties={"maximum_packet_size": 50})
    assert result_of(broker.send_to("dev", "ok", b"x")).status == "sent"
    assert result_of(broker.send_to("dev", "secret", b"x")) == SendResult("denied", 0x87)
    assert result_of(broker.send_to("small", "t", b"x" * 100)) == SendResult("denied", 0x83)


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("code", [0, 0x10, 0x80, 0x87, 0x97])
def test_confirmed(broker: Broker, qos: int, code: int) -> None:
    target = client(broker, "dev", acknowledges=False)
    waiting = broker.send_to("dev", "t", b"x", qos, confirm=True)
    results: list[SendResult] = []
    waiting.addCallback(results.append)
    packet_id = target.messages[0].packet_id
    assert results == []
    if qos == 1:
        target.send(Puback(packet_id, code))
    else:
        target.send(Pubrec(packet_id, code))
        if code < 0x80:
            assert results == []
            target.send(Pubcomp(packet_id))
            code = 0  # PUBREC's success is not passed on, the end is
    assert results == [SendResult("delivered" if code < 0x80 else "denied", code)]


def test_confirmed_after_waiting_behind_others(broker: Broker) -> None:
    target = client(broker, "dev", acknowledges=False, properties={"receive_maximum": 1})
    first, second = (broker.send_to("dev", "t", payload, confirm=True) for payload in (b"1", b"2"))
    target.send(Puback(target.messages[0].packet_id))
    assert result_of(first).status == "delivered"
    target.send(Puback(target.messages[1].packet_id))
    assert result_of(second).status == "delivered"


def test_timeout(clock: Clock, broker: Broker) -> None:
    target = client(broker, "dev", acknowledges=False)
    results: list[SendResult] = []
    broker.send_to("dev", "t", b"x", confirm=True, timeout=2).addCallback(results.append)
    clock.pump([0.25] * 8)
    assert results == []
    clock.pump([0.25] * 2)
    assert results == [SendResult("timeout", 0x83)]
    target.send(Puback(target.messages[0].packet_id))
    assert len(results) == 1


def test_confirm_has_nothing_to_wait_for(clock: Clock, broker: Broker) -> None:
    offline(broker, "away")
    client(broker, "dev")
    assert result_of(broker.send_to("away", "t", b"x", confirm=True)).status == "queued"
    assert result_of(broker.send_to("nobody", "t", b"x", confirm=True)).status == "no_session"
    assert result_of(broker.send_to("dev", "t", b"x", qos=0, confirm=True)).status == "sent"


def test_confirm_ends_with_the_session(broker: Broker) -> None:
    target = client(broker, "dev", acknowledges=False)
    waiting = broker.send_to("dev", "t", b"x", confirm=True)
    target.send(Disconnect())
    assert result_of(waiting) == SendResult("no_session", 0x10)


def test_confirm_of_an_endpoint(clock: Clock, broker: Broker) -> None:
    broker.register_endpoint("service", lambda request: later(clock, 1, b"done"))
    broker.register_endpoint("broken", lambda request: later(clock, 1, ValueError()))
    waiting = [broker.send_to(name, "t", b"x", confirm=True) for name in ("service", "broken")]
    clock.advance(1)
    assert [result_of(each).status for each in waiting] == ["delivered", "denied"]


def test_what_cannot_be_sent_is_told_at_once(broker: Broker) -> None:
    client(broker, "dev")
    for topic in ("a/+", "", "x" * 5000):
        with pytest.raises(MQTTError):
            broker.send_to("dev", topic, b"x")
    with pytest.raises(ValueError, match="QoS"):
        broker.send_to("dev", "t", b"x", qos=-1)


def test_send_to_counts_down_the_expiry(clock: Clock, broker: Broker) -> None:
    offline(broker, "away")
    broker.send_to("away", "t", b"x", properties={"message_expiry_interval": 10})
    clock.pump([0.25] * 16)
    assert persistent(broker, "away").messages[0].properties["message_expiry_interval"] == 6


# --- clients ----------------------------------------------------------------------------------------------------------


def test_disconnect(broker: Broker) -> None:
    target, old = client(broker, "dev"), client(broker, "old", 4)
    assert broker.disconnect("dev")
    assert target.take(Disconnect).reason_code == 0x98
    assert target.is_closed
    assert broker.disconnect("old", 0x8B)
    assert old.is_closed
    assert not broker.disconnect("dev")
    assert not broker.disconnect("nobody")


def test_list_sessions(broker: Broker) -> None:
    dev = client(broker, "dev", 4, keep_alive=30, username="me", acknowledges=False)
    dev.subscribe("a", "b/#")
    broker.publish("a", b"x", 1)
    offline(broker, "away")
    broker.send_to("away", "t", b"x")
    dev_info, away_info = sorted(broker.list_sessions(), key=lambda info: info.client_id, reverse=True)
    assert (dev_info.client_id, dev_info.is_connected, dev_info.version) == ("dev", True, 4)
    assert (dev_info.username, dev_info.keep_alive, dev_info.subscriptions) == ("me", 30, ("a", "b/#"))
    assert (dev_info.inflight, dev_info.pending) == (1, 0)
    assert (away_info.client_id, away_info.is_connected, away_info.peer, away_info.pending) == ("away", False, "", 1)
    assert away_info.session_expiry_interval == 3600


def test_limits_of_the_server_hold_for_the_process(clock: Clock) -> None:
    broker = make_broker(clock, limits=Limits(max_qos=1))
    reader = client(broker, "reader")
    reader.subscribe("t")
    broker.publish("t", b"x", 2)
    assert reader.messages[0].qos == 1
