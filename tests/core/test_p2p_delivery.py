"""Delivery to one client: section 5 of the P2P page, sentence by sentence."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock
from zope.interface import implementer

from tests.core.support import client, heard, offline, persistent, publish, status, user_properties
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connack, Puback, Pubrec, SubscriptionRequest, Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.limits import Limits, P2POptions
from twisted_p2pmqtt.core.p2p import P2PAddress, make_router
from twisted_p2pmqtt.interfaces import IP2PRouter
from twisted_p2pmqtt.testing import MemoryClient, make_broker


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(clock: Clock) -> Broker:
    return make_broker(clock)


# --- one copy, and to nobody else -------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", [3, 4, 5])
def test_one_copy_whatever_the_target_subscribed_to(broker: Broker, version: int, qos: int) -> None:
    target, sender = client(broker, "dev", version), client(broker, "app")
    target.subscribe("#", "sensor/#", "sensor/temp", "p2p/#", "p2p/dev/#", "p2p/dev/sensor/temp")
    publish(sender, "p2p/dev/sensor/temp", b"23.5", qos)
    assert heard(target) == [("sensor/temp", b"23.5")]
    assert target.messages[0].qos == qos


def test_options_of_subscriptions_are_not_consulted(broker: Broker) -> None:
    """No Local, Retain As Published, subscription identifiers: of the target's subscription to the business topic."""
    target = client(broker, "dev")
    target.subscribe(SubscriptionRequest("t", 0, no_local=True, retain_as_published=True), identifier=7)
    publish(target, "p2p/dev/t", qos=2, retain=True)
    (message,) = target.messages
    assert (message.qos, message.retain) == (2, 0)
    assert "subscription_identifiers" not in message.properties


def test_to_oneself(broker: Broker) -> None:
    me = client(broker, "me")
    assert status(publish(me, "p2p/me/note")) == "online"
    assert heard(me) == [("note", b"x")]
    assert ("p2p-from", "me") in user_properties(me.messages[0])


def test_a_subscription_to_p2p_topics_is_accepted_and_hears_nothing(broker: Broker) -> None:
    spy, sender, _ = client(broker, "spy"), client(broker, "app"), client(broker, "dev")
    assert spy.subscribe("p2p/dev/t", "p2p/+/#", "t", "$share/g/p2p/#", qos=1) == [1, 1, 1, 1]
    publish(sender, "p2p/dev/t")
    publish(sender, "p2p/spy2/t")
    assert heard(spy) == []


# --- topics -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    ("mode", "topic", "deliver", "expected"),
    [
        ("prefix", "p2p/dev/sensor/temp", "business", "sensor/temp"),
        ("prefix", "p2p/dev/sensor/temp", "original", "p2p/dev/sensor/temp"),
        ("prefix", "p2p/dev/sensor/temp", "reply", "p2p/app%2F1/sensor/temp"),
        ("suffix", "sensor/temp/p2p/dev", "business", "sensor/temp"),
        ("suffix", "sensor/temp/p2p/dev", "original", "sensor/temp/p2p/dev"),
        ("suffix", "sensor/temp/p2p/dev", "reply", "sensor/temp/p2p/app%2F1"),
        ("both", "p2p/dev/t", "reply", "p2p/app%2F1/t"),
        ("both", "t/p2p/dev", "reply", "t/p2p/app%2F1"),
    ],
)
def test_deliver_topic(
    clock: Clock, mode: str, topic: str, deliver: str, expected: str, version: int, qos: int
) -> None:
    broker = make_broker(clock, router=make_router(mode), p2p=P2POptions(deliver_topic=deliver))
    target, sender = client(broker, "dev", version), client(broker, "app/1")
    publish(sender, topic, qos=qos)
    assert heard(target) == [(expected, b"x")]


def test_a_device_answers_on_the_topic_on_which_it_heard(clock: Clock) -> None:
    broker = make_broker(clock, p2p=P2POptions(deliver_topic="reply"))
    device, sender = client(broker, "dev", 4), client(broker, "a/p%p", 4)
    publish(sender, "p2p/dev/state", b"?")
    publish(device, heard(device)[0][0], b"ok")
    assert heard(sender) == [("p2p/dev/state", b"ok")]
    publish(sender, heard(sender)[0][0], b"thanks")
    assert heard(device)[-1] == ("p2p/a%2Fp%25p/state", b"thanks")


def test_a_reply_topic_that_leads_elsewhere_is_not_given(clock: Clock) -> None:
    """A router of the embedder's whose forms ``reply_topic`` does not know, and a name that would be too long."""

    @implementer(IP2PRouter)
    class Own:
        def resolve(self, topic: str) -> P2PAddress | None:
            return P2PAddress("dev", topic[3:]) if topic.startswith("to/") else None

    for router, topic, sender_id in (
        (Own(), "to/cmd", "app"),
        (make_router("prefix"), "p2p/dev/" + "x" * 4080, "/" * 200),
    ):
        broker = make_broker(clock, router=router, p2p=P2POptions(deliver_topic="reply"))
        target, sender = client(broker, "dev"), client(broker, sender_id)
        publish(sender, topic)
        assert [heard_topic for heard_topic, _ in heard(target)] == [topic.removeprefix("p2p/dev/").removeprefix("to/")]


def test_ids_that_need_escapes(broker: Broker) -> None:
    sender = client(broker, "app")
    for client_id, level in (("a/b", "a%2Fb"), ("#", "%23"), ("+", "%2B"), ("100%", "100%"), ("%2F", "%252F")):
        target = client(broker, client_id)
        assert status(publish(sender, f"p2p/{level}/t")) == "online"
        assert heard(target) == [("t", b"x")]


# --- flags and properties ---------------------------------------------------------------------------------------------


@pytest.mark.spec("MQTT-3.3.1-3", "MQTT-3.3.1-12")
def test_dup_and_retain_are_not_passed_on_and_the_packet_id_is_the_targets(broker: Broker) -> None:
    target, sender = client(broker, "dev"), client(broker, "app")
    sender.send(Message(b"p2p/dev/t", b"x", 0, 1, 1, 8, 4711))
    (message,) = target.messages
    assert (message.dup, message.retain, message.packet_id) == (0, 0, 1)
    assert sender.take(Puback).packet_id == 4711


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_retain_is_ignored_under_either_name(broker: Broker, qos: int) -> None:
    sender = client(broker, "app")
    publish(sender, "t", b"kept", retain=True)
    client(broker, "dev")
    for payload in (b"private", b""):
        publish(sender, "p2p/dev/t", payload, qos, retain=True)
        publish(sender, "p2p/nobody/t", payload, qos, retain=True)
    assert broker.stats.p2p_retain_ignored == 4
    late = client(broker, "late")
    late.subscribe("#", "p2p/#")
    assert heard(late) == [("t", b"kept")]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.spec("MQTT-3.3.2-4", "MQTT-3.3.2-15", "MQTT-3.3.2-16", "MQTT-3.3.2-17", "MQTT-3.3.2-18", "MQTT-3.3.2-20")
def test_properties_are_forwarded(broker: Broker, qos: int) -> None:
    target, sender = client(broker, "dev"), client(broker, "app")
    properties: Properties = {
        "payload_format_indicator": 1,
        "content_type": "text/plain",
        "response_topic": "p2p/app/answer",
        "correlation_data": b"\x00\x01",
        "user_properties": [("b", "2"), ("a", "1"), ("b", "1")],
    }
    publish(sender, "p2p/dev/t", b"x", qos, properties=properties)
    (message,) = target.messages
    pairs = [("b", "2"), ("a", "1"), ("b", "1"), ("p2p-from", "app")]
    assert message.properties == {**properties, "user_properties": pairs}


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("stamps", [True, False])
@pytest.mark.parametrize("forged", [[], [("p2p-from", "root")], [("k", "v"), ("p2p-from", "a"), ("p2p-from", "b")]])
def test_the_sender_is_named_and_cannot_forge_it(
    clock: Clock, forged: list[tuple[str, str]], stamps: bool, qos: int
) -> None:
    broker = make_broker(clock, p2p=P2POptions(stamp_sender=stamps))
    target, old, sender = client(broker, "dev"), client(broker, "old", 4), client(broker, "app")
    properties: Properties = {"user_properties": forged} if forged else {}
    publish(sender, "p2p/dev/t", qos=qos, properties=properties)
    publish(sender, "p2p/old/t", qos=qos, properties=properties)
    kept = [pair for pair in forged if pair[0] != "p2p-from"]
    assert user_properties(target.messages[0]) == kept + ([("p2p-from", "app")] if stamps else [])
    assert heard(old) == [("t", b"x")]


def test_an_ordinary_message_may_say_what_it_likes(broker: Broker) -> None:
    target, sender = client(broker, "dev"), client(broker, "app")
    target.subscribe("t")
    publish(sender, "t", properties={"user_properties": [("p2p-from", "root")]})
    assert user_properties(target.messages[0]) == [("p2p-from", "root")]


@pytest.mark.parametrize("maximum", [0, 1])
def test_qos_up_to_the_servers_maximum(clock: Clock, maximum: int) -> None:
    broker = make_broker(clock, limits=Limits(max_qos=maximum))
    target = client(broker, "dev")
    broker.send_to("dev", "t", b"x", qos=2)
    assert target.messages[0].qos == maximum


@pytest.mark.spec("MQTT-3.3.2-5", "MQTT-3.3.2-6")
def test_expiry_is_counted_down_in_the_queue(clock: Clock, broker: Broker) -> None:
    offline(broker, "dev")
    sender = client(broker, "app")
    for payload, interval in ((b"short", 10), (b"long", 100)):
        publish(sender, "p2p/dev/t", payload, properties={"message_expiry_interval": interval})
    clock.pump([0.25] * 44)  # eleven seconds
    target = persistent(broker, "dev")
    (message,) = target.messages
    assert (message.payload, message.properties["message_expiry_interval"]) == (b"long", 89)
    assert broker.stats.dropped_expired == 1


@pytest.mark.spec("MQTT-3.3.2-7", "MQTT-3.3.2-12")
def test_by_topic_alias_and_to_a_target_with_aliases(broker: Broker) -> None:
    target = client(broker, "dev", properties={"topic_alias_maximum": 5})
    other = client(broker, "other")
    sender = client(broker, "app")
    for topic in ("p2p/dev/t", "", ""):
        publish(sender, topic, properties={"topic_alias": 1})
    publish(sender, "p2p/other/t", properties={"topic_alias": 1})
    publish(sender, "", properties={"topic_alias": 1})
    assert [(each.topic, each.properties.get("topic_alias")) for each in target.messages] == [
        (b"t", 1),
        (b"", 1),
        (b"", 1),
    ]
    assert heard(other) == [("t", b"x")] * 2
    assert "topic_alias" not in other.messages[0].properties


# --- order, queues, takeover ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.spec("MQTT-4.6.0-5")
def test_order_holds_across_p2p_and_ordinary_messages(broker: Broker, qos: int) -> None:
    target = persistent(broker, "dev", properties={"receive_maximum": 2})
    target.subscribe("news")
    target.disconnect()
    sender = client(broker, "app")
    for number in range(20):
        topic = "p2p/dev/t" if number % 3 else "news"
        publish(sender, topic, b"%d" % number, qos)
    back = persistent(broker, "dev", properties={"receive_maximum": 2})
    assert [int(message.payload) for message in back.messages] == list(range(20))


@pytest.mark.parametrize("qos", [1, 2])
def test_a_takeover_loses_nothing(broker: Broker, qos: int) -> None:
    sender = client(broker, "app")
    first = persistent(broker, "dev", acknowledges=False, properties={"receive_maximum": 3})
    for number in range(10):
        publish(sender, "p2p/dev/t", b"%d" % number, qos)
    assert len(first.messages) == 3
    second = persistent(broker, "dev")
    assert first.is_closed
    assert [int(message.payload) for message in second.messages] == list(range(10))
    assert [bool(message.dup) for message in second.messages] == [True] * 3 + [False] * 7


@pytest.mark.parametrize(("overflow", "kept"), [("reject", range(5)), ("drop_oldest", range(5, 10))])
def test_overflow(clock: Clock, overflow: str, kept: range) -> None:
    broker = make_broker(clock, p2p=P2POptions(max_queued=5, overflow=overflow))
    target = persistent(broker, "dev")
    target.subscribe("news")
    target.disconnect()
    sender = client(broker, "app")
    publish(sender, "news", b"100")
    answers = [publish(sender, "p2p/dev/t", b"%d" % number) for number in range(10)]
    codes = [answer.reason_code for answer in answers if answer is not None]
    assert codes == ([0] * 5 + [0x97] * 5 if overflow == "reject" else [0] * 10)
    stats = broker.stats
    assert (stats.p2p_dropped_quota, stats.p2p_dropped_oldest) == ((5, 0) if overflow == "reject" else (0, 5))
    publish(sender, "news", b"101")
    back = persistent(broker, "dev")
    assert [int(message.payload) for message in back.messages] == [100, *kept, 101]


def test_drop_oldest_makes_room_in_the_sessions_own_bounds_and_drops_no_more_than_it_must(clock: Clock) -> None:
    broker = make_broker(clock, limits=Limits(max_queued_bytes=1000), p2p=P2POptions(overflow="drop_oldest"))
    target = persistent(broker, "dev")
    target.subscribe("news")
    target.disconnect()
    sender = client(broker, "app")
    publish(sender, "news", b"n" * 300)
    for number in range(4):
        publish(sender, "p2p/dev/t", b"%d" % number * 100)
    for payload, expected in ((b"x" * 300, 0), (b"y" * 900, 0x97)):
        answer = publish(sender, "p2p/dev/t", payload)
        assert answer is not None
        assert answer.reason_code == expected
    back = persistent(broker, "dev")
    assert [message.payload[:1] for message in back.messages] == [b"n", b"1", b"2", b"3", b"x"]
    assert broker.stats.queued_bytes == 0


def test_nothing_waits_where_the_queue_is_zero_but_a_connected_target_is_served(clock: Clock) -> None:
    for overflow in ("reject", "drop_oldest"):
        broker = make_broker(clock, p2p=P2POptions(max_queued=0, overflow=overflow))
        target, sender = persistent(broker, "dev"), client(broker, "app")
        assert status(publish(sender, "p2p/dev/t")) == "online"
        target.disconnect()
        answer = publish(sender, "p2p/dev/t")
        assert answer is not None
        assert answer.reason_code == 0x97


@pytest.mark.parametrize("overflow", ["reject", "drop_oldest"])
@pytest.mark.parametrize(("max_queued", "max_messages"), [(1000, 3), (3, 1000)])
def test_what_has_expired_in_a_full_queue_makes_room(
    clock: Clock, overflow: str, max_queued: int, max_messages: int
) -> None:
    options = P2POptions(max_queued=max_queued, overflow=overflow)
    broker = make_broker(clock, p2p=options, limits=Limits(max_queued_messages=max_messages))
    offline(broker, "dev")
    sender = client(broker, "app")
    for _ in range(3):
        publish(sender, "p2p/dev/t", b"old", properties={"message_expiry_interval": 5})
    if overflow == "reject":
        refused = publish(sender, "p2p/dev/t", b"new")
        assert refused is not None
        assert refused.reason_code == 0x97
    clock.pump([0.25] * 24)
    assert status(publish(sender, "p2p/dev/t", b"new")) == "queued"
    assert [message.payload for message in persistent(broker, "dev").messages] == [b"new"]
    assert broker.stats.dropped_expired == 3


def test_qos_2_goes_through_to_its_end(broker: Broker) -> None:
    target, sender = client(broker, "dev"), client(broker, "app")
    assert sender.publish("p2p/dev/t", b"x", qos=2) == 0
    assert heard(target) == [("t", b"x")]
    assert not broker.sessions["dev"].inflight
    assert not broker.sessions["app"].received


# --- wills ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("retain", [False, True])
@pytest.mark.spec("MQTT-3.1.2-8")
def test_a_will_to_a_p2p_topic(broker: Broker, version: int, retain: bool) -> None:
    watcher, spy = client(broker, "watcher"), client(broker, "spy")
    spy.subscribe("#")
    device = client(broker, "dev", version, will=Will("p2p/watcher/gone", b"bye", 1, retain))
    device.lose()
    assert heard(watcher) == [("gone", b"bye")]
    assert user_properties(watcher.messages[0]) == [("p2p-from", "dev")]
    assert heard(spy) == []
    assert len(broker.retained) == 0


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("topic", ["p2p/watcher", "p2p//x", "p2p/x/", "p2p/watcher/$SYS/x"])
def test_a_malformed_will_is_refused_at_connect(broker: Broker, version: int, topic: str) -> None:
    device = MemoryClient(broker, "dev", version)
    if version == 5:
        assert device.connect(will=Will(topic, b"bye")).reason_code == 0x90
    else:
        with pytest.raises(AssertionError, match="no Connack"):
            device.connect(will=Will(topic, b"bye"))
    assert device.is_closed
    assert "dev" not in broker.sessions


def test_a_will_to_oneself_ends_nowhere(broker: Broker) -> None:
    device = client(broker, "dev", will=Will("p2p/dev/gone", b"bye", 1))
    device.lose()
    assert broker.stats.p2p_dropped_unknown == 1
    kept = persistent(broker, "kept", will=Will("p2p/kept/gone", b"bye", 1))
    kept.lose()
    assert heard(persistent(broker, "kept")) == [("gone", b"bye")]


def test_wills_that_answer_wills(broker: Broker) -> None:
    """A thousand clients whose wills go to each other's inboxes: each fires once."""
    clients = [
        client(broker, f"c{number}", will=Will(f"p2p/c{(number + 1) % 100}/gone", b"bye", 1)) for number in range(100)
    ]
    for each in clients:
        each.lose()
    assert broker.stats.wills_published == 100
    assert broker.stats.p2p_received == 100


# --- response information ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "expected"), [("prefix", "p2p/a%2Fb"), ("suffix", "reply/p2p/a%2Fb"), ("both", "p2p/a%2Fb"), ("off", None)]
)
@pytest.mark.spec("MQTT-3.1.2-28")
def test_response_information(clock: Clock, mode: str, expected: str | None) -> None:
    broker = make_broker(clock, router=make_router(mode))
    asked = MemoryClient(broker, "a/b").connect(properties={"request_response_information": 1})
    assert asked.properties.get("response_information") == expected
    for properties in ({"request_response_information": 0}, {}):
        connack = MemoryClient(broker, "a/b").connect(properties=Properties(**properties))  # type: ignore[typeddict-item]  # of **
        assert "response_information" not in connack.properties


def test_response_information_names_the_assigned_id(broker: Broker) -> None:
    connack: Connack = MemoryClient(broker).connect(properties={"request_response_information": 1})
    assigned = connack.properties["assigned_client_identifier"]
    assert connack.properties["response_information"] == f"p2p/{assigned}"


@pytest.mark.parametrize("mode", ["prefix", "suffix", "both"])
def test_request_and_response_without_a_subscription(clock: Clock, mode: str) -> None:
    broker = make_broker(clock, router=make_router(mode))
    app, device = MemoryClient(broker, "app"), client(broker, "dev")
    information = app.connect(properties={"request_response_information": 1}).properties["response_information"]
    answer_to = information if mode == "suffix" else f"{information}/reply"
    topic = "cmd/p2p/dev" if mode == "suffix" else "p2p/dev/cmd"
    publish(app, topic, b"?", properties={"response_topic": answer_to, "correlation_data": b"7"})
    (request,) = device.messages
    assert request.topic == b"cmd"
    back: Properties = {"correlation_data": request.properties["correlation_data"]}
    publish(device, request.properties["response_topic"], b"!", properties=back)
    (response,) = app.messages
    assert (response.topic, response.payload, response.properties["correlation_data"]) == (b"reply", b"!", b"7")
    assert user_properties(response) == [("p2p-from", "dev")]
    assert not broker.tree.count


# --- counters ---------------------------------------------------------------------------------------------------------


def test_every_message_is_counted_once(broker: Broker) -> None:
    client(broker, "dev")
    offline(broker, "away")
    sender = client(broker, "app")
    for topic in ("p2p/dev/t", "p2p/away/t", "p2p/nobody/t", "p2p/dev"):
        for qos in (0, 1, 2):
            publish(sender, topic, qos=qos)
    counters = broker.stats.snapshot()
    assert counters["p2p_received"] == 12
    assert {name: count for name, count in counters.items() if name.startswith("p2p_") and count} == {
        "p2p_received": 12,
        "p2p_delivered": 3,
        "p2p_queued": 2,
        "p2p_dropped_qos0_offline": 1,
        "p2p_dropped_unknown": 3,
        "p2p_dropped_malformed": 3,
    }


def test_a_pubrec_that_refuses_ends_it(broker: Broker) -> None:
    target, sender = client(broker, "dev", acknowledges=False), client(broker, "app")
    publish(sender, "p2p/dev/t", qos=2)
    target.send(Pubrec(target.messages[0].packet_id, 0x97))
    assert not broker.sessions["dev"].inflight


def test_a_route_keeps_nothing_of_a_session_that_has_ended(broker: Broker) -> None:
    target = client(broker, "dev", 4, acknowledges=False)
    target.send(*(Message(b"t", b"x", qos=2, packet_id=number) for number in range(1, 1000)))
    publish(client(broker, "app"), "p2p/dev/t", qos=0)
    session = broker.routes[b"p2p/dev/t"].session
    assert session is not None
    assert len(session.received or ()) == 999
    target.disconnect()
    assert "dev" not in broker.sessions
    assert not session.received
    assert not session.subscriptions
    assert session.pending is None
