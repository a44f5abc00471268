"""``p2p-ack=target``: the sender's acknowledgement is held until the target's (section 7 of the P2P page)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.core.support import (
    SlowStore,
    acknowledgements,
    client,
    heard,
    later,
    offline,
    persistent,
    publish,
    result_of,
    status,
    user_properties,
)
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connect, Disconnect, Pingreq, Pingresp, Puback, Pubcomp, Pubrec, Pubrel, Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.limits import Limits, P2POptions
from twisted_p2pmqtt.core.records import StoreError
from twisted_p2pmqtt.testing import MemoryClient, make_broker

ASKS: Properties = {"user_properties": [("p2p-ack", "target")]}


def asks(timeout: str) -> Properties:
    return {"user_properties": [("p2p-ack", "target"), ("p2p-timeout", timeout)]}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(clock: Clock) -> Broker:
    return make_broker(clock)


def silent(broker: Broker, client_id: str = "dev", version: int = 5, **properties: Any) -> MemoryClient:
    """A connected target that acknowledges when the test does."""
    return client(broker, client_id, version, acknowledges=False, properties=Properties(**properties))  # type: ignore[typeddict-item]  # of **


def wait(clock: Clock, seconds: float) -> None:
    clock.pump([0.25] * int(seconds * 4))


def told(sender: MemoryClient) -> list[tuple[type, int, int, str | None]]:
    """Kind, packet id, reason code and status of each acknowledgement that came."""
    return [(type(each), each.packet_id, each.reason_code, status(each)) for each in acknowledgements(sender)]


def request(sender: MemoryClient, packet_id: int, qos: int = 1, topic: str = "p2p/dev/t", asked: bool = True) -> None:
    properties = Properties(**ASKS) if asked else Properties()
    sender.send(Message(topic.encode(), b"%d" % packet_id, 0, qos, 0, 0, packet_id, properties))


# --- until the target has acknowledged --------------------------------------------------------------------------------


def test_qos_1_waits_for_the_targets_puback(broker: Broker) -> None:
    target, sender = silent(broker), client(broker, "app")
    assert publish(sender, "p2p/dev/t", properties=ASKS) is None
    target.send(Puback(target.messages[0].packet_id))
    assert told(sender) == [(Puback, 1, 0, "delivered")]


def test_qos_2_waits_for_the_end_of_the_targets_exchange(broker: Broker) -> None:
    target, sender = silent(broker), client(broker, "app")
    assert publish(sender, "p2p/dev/t", qos=2, properties=ASKS) is None
    packet_id = target.messages[0].packet_id
    target.send(Pubrec(packet_id))
    assert told(sender) == []
    target.send(Pubcomp(packet_id))
    assert told(sender) == [(Pubrec, 1, 0, "delivered")]
    sender.send(Pubrel(1))
    assert sender.take(Pubcomp).reason_code == 0


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_target_of_3_x_can_only_say_yes(broker: Broker, version: int, qos: int) -> None:
    target, sender = silent(broker, version=version), client(broker, "app")
    assert publish(sender, "p2p/dev/t", qos=qos, properties=ASKS) is None
    packet_id = target.messages[0].packet_id
    target.send(*([Puback(packet_id)] if qos == 1 else [Pubrec(packet_id), Pubcomp(packet_id)]))
    assert told(sender) == [((Puback, Pubrec)[qos - 1], 1, 0, "delivered")]


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize("code", [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
def test_the_targets_reason_code_is_passed_on(broker: Broker, qos: int, code: int) -> None:
    target, sender = silent(broker), client(broker, "app")
    publish(sender, "p2p/dev/t", qos=qos, properties=ASKS)
    kind = (Puback, Pubrec)[qos - 1]
    target.send(kind(target.messages[0].packet_id, code))
    assert told(sender) == [(kind, 1, code, "refused")]
    if qos == 2:  # the exchange is over, and its packet id free
        assert not broker.sessions["app"].received
        publish(sender, "p2p/dev/t", qos=2, properties=ASKS)
        assert len(target.messages) == 2


def test_a_pubcomp_that_knows_no_such_packet_means_that_the_target_has_it(broker: Broker) -> None:
    target, sender = silent(broker), client(broker, "app")
    publish(sender, "p2p/dev/t", qos=2, properties=ASKS)
    packet_id = target.messages[0].packet_id
    target.send(Pubrec(packet_id), Pubcomp(packet_id, 0x92))
    assert told(sender) == [(Pubrec, 1, 0, "delivered")]


@pytest.mark.parametrize("qos", [1, 2])
def test_no_status_where_none_is_wanted_or_fits(broker: Broker, qos: int) -> None:
    for client_id, wish in (("a", {"request_problem_information": 0}), ("b", {"maximum_packet_size": 20})):
        target = silent(broker)
        sender = client(broker, client_id, properties=Properties(**wish))  # type: ignore[typeddict-item]  # of **
        publish(sender, "p2p/dev/t", qos=qos, properties=ASKS)
        target.send((Puback, Pubrec)[qos - 1](target.messages[0].packet_id, 0x97))
        assert told(sender) == [((Puback, Pubrec)[qos - 1], 1, 0x97, None)]


def test_the_wish_is_forwarded_like_any_user_property(broker: Broker) -> None:
    target, sender = silent(broker), client(broker, "app")
    publish(sender, "p2p/dev/t", properties=asks("3"))
    expected = [("p2p-ack", "target"), ("p2p-timeout", "3"), ("p2p-from", "app")]
    assert user_properties(target.messages[0]) == expected


def test_to_oneself(broker: Broker) -> None:
    me = client(broker, "me")
    answer = publish(me, "p2p/me/t", properties=ASKS)
    assert (status(answer), heard(me)) == ("delivered", [("t", b"x")])


# --- time -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.parametrize(
    ("properties", "seconds"),
    [
        (ASKS, 5),
        (asks("1"), 1),
        (asks("15"), 15),
        (asks("0"), 1),
        (asks("16"), 15),
        (asks("9" * 5000), 15),
        (asks("007"), 7),
        (asks(""), 5),
        (asks("-3"), 5),
        (asks("2.5"), 5),
        (asks("soon"), 5),
        (asks("\u0663"), 5),
        ({"user_properties": [("p2p-timeout", "2"), ("p2p-ack", "target"), ("p2p-timeout", "9")]}, 2),
    ],
)
def test_time_out(clock: Clock, broker: Broker, properties: Properties, seconds: int, qos: int) -> None:
    target, sender = silent(broker), client(broker, "app")
    publish(sender, "p2p/dev/t", qos=qos, properties=properties)
    wait(clock, seconds - 0.25)
    assert told(sender) == []
    wait(clock, 0.75)
    assert told(sender) == [((Puback, Pubrec)[qos - 1], 1, 0x83, "queued")]
    assert len(broker.sessions["dev"].inflight) == 1  # it stays where it is
    target.send(*([Puback(1)] if qos == 1 else [Pubrec(1), Pubcomp(1)]))
    assert told(sender) == []
    if qos == 2:
        assert not broker.sessions["app"].received


@pytest.mark.parametrize("qos", [1, 2])
def test_after_the_time_out_a_target_that_comes_back_gets_it(clock: Clock, broker: Broker, qos: int) -> None:
    first = persistent(broker, "dev", acknowledges=False)
    sender = client(broker, "app")
    publish(sender, "p2p/dev/t", qos=qos, properties=ASKS)
    first.lose()
    wait(clock, 6)
    assert told(sender) == [((Puback, Pubrec)[qos - 1], 1, 0x83, "queued")]
    assert heard(persistent(broker, "dev")) == [("t", b"x")]


def test_a_target_that_is_taken_over_in_between_acknowledges_in_time(clock: Clock, broker: Broker) -> None:
    persistent(broker, "dev", acknowledges=False)
    sender = client(broker, "app")
    publish(sender, "p2p/dev/t", properties=asks("9"))
    wait(clock, 3)
    persistent(broker, "dev")
    assert told(sender) == [(Puback, 1, 0, "delivered")]


# --- at once ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [1, 2])
def test_offline_and_unknown_targets_are_told_at_once(broker: Broker, qos: int) -> None:
    offline(broker, "away")
    sender = client(broker, "app")
    kind = (Puback, Pubrec)[qos - 1]
    for topic, expected in (("p2p/away/t", (0, "queued")), ("p2p/nobody/t", (0x10, None)), ("p2p/x", (0x90, None))):
        answer = publish(sender, topic, qos=qos, properties=ASKS)
        assert isinstance(answer, kind)
        assert (answer.reason_code, status(answer)) == expected


def test_too_large_and_too_many_are_told_at_once(clock: Clock) -> None:
    broker = make_broker(clock, p2p=P2POptions(max_queued=1))
    silent(broker, "small", maximum_packet_size=50)
    silent(broker, "slow", receive_maximum=1)
    sender = client(broker, "app")
    answer = publish(sender, "p2p/small/t", b"x" * 100, properties=ASKS)
    assert answer is not None
    assert (answer.reason_code, "reason_string" in answer.properties) == (0x83, True)
    for _ in range(2):
        assert publish(sender, "p2p/slow/t", properties=asks("15")) is None
    assert publish(sender, "p2p/slow/t", qos=2, properties=ASKS).reason_code == 0x97  # type: ignore[union-attr]  # it is answered


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_no_p2p_message_no_waiting(broker: Broker, qos: int) -> None:
    reader, sender = silent(broker, "reader"), client(broker, "app")
    reader.subscribe("t")
    answer = publish(sender, "t", qos=qos, properties=ASKS)
    assert (answer is None) == (qos == 0)
    assert user_properties(reader.messages[0]) == [("p2p-ack", "target")]
    publish(sender, "p2p/reader/t", qos=0, properties=ASKS)
    assert len(reader.messages) == 2


def test_other_values_ask_for_nothing(broker: Broker) -> None:
    silent(broker)
    sender = client(broker, "app")
    for pair in (("p2p-ack", "broker"), ("p2p-ack", "TARGET"), ("P2P-ACK", "target"), ("p2p-timeout", "5")):
        assert status(publish(sender, "p2p/dev/t", properties={"user_properties": [pair]})) == "online"


def test_hidden_presence_stays_hidden(clock: Clock) -> None:
    """Waiting would tell who is there, and so would the target's reason code."""
    broker = make_broker(clock, p2p=P2POptions(hide_presence=True))
    silent(broker)
    offline(broker, "away")
    sender = client(broker, "app")
    for name in ("dev", "away", "nobody"):
        for qos in (1, 2):
            answer = publish(sender, f"p2p/{name}/t", qos=qos, properties=ASKS)
            assert answer is not None
            assert (answer.reason_code, answer.properties) == (0, {})


def test_a_will_has_nobody_to_tell(broker: Broker) -> None:
    target = silent(broker)
    client(broker, "app", will=Will("p2p/dev/t", b"bye", 1, properties=Properties(**ASKS))).lose()
    target.send(Puback(target.messages[0].packet_id))
    assert heard(target) == [("t", b"bye")]


def test_the_process_itself_is_told_at_once(broker: Broker) -> None:
    silent(broker)
    assert result_of(broker.publish("p2p/dev/t", b"x", 1, properties=ASKS)) == 0


# --- what becomes of the message otherwise ----------------------------------------------------------------------------


def test_a_target_whose_session_ends_has_not_got_it(broker: Broker) -> None:
    """At QoS 2 the question is whether PUBREC came."""
    for number, (qos, has_it) in enumerate(((1, False), (2, False), (2, True))):
        target, sender = silent(broker), client(broker, f"app{number}")
        publish(sender, "p2p/dev/t", qos=qos, properties=ASKS)
        if has_it:
            target.send(Pubrec(target.messages[0].packet_id))
        target.send(Disconnect())
        kind = (Puback, Pubrec)[qos - 1]
        assert told(sender) == [(kind, 1, 0, "delivered") if has_it else (kind, 1, 0x10, None)]


def test_a_clean_start_ends_it_too(broker: Broker) -> None:
    persistent(broker, "dev", acknowledges=False)
    sender = client(broker, "app")
    publish(sender, "p2p/dev/t", properties=ASKS)
    client(broker, "dev")
    assert told(sender) == [(Puback, 1, 0x10, None)]


def test_a_message_that_expires_behind_a_shut_window(clock: Clock, broker: Broker) -> None:
    target = silent(broker, receive_maximum=1)
    sender = client(broker, "app")
    publish(sender, "p2p/dev/t")
    publish(sender, "p2p/dev/t", properties={**asks("15"), "message_expiry_interval": 2})
    wait(clock, 3)
    target.send(Puback(target.messages[0].packet_id))
    assert [(kind, code) for kind, _, code, _ in told(sender)] == [(Puback, 0x83)]


def test_a_message_that_makes_room_for_a_newer_one(clock: Clock) -> None:
    broker = make_broker(clock, p2p=P2POptions(max_queued=1, overflow="drop_oldest"))
    silent(broker, receive_maximum=1)
    sender = client(broker, "app")
    for packet_id in (1, 2, 3):
        request(sender, packet_id, asked=packet_id == 2)
    assert [(packet_id, code) for _, packet_id, code, _ in told(sender)] == [(1, 0), (2, 0x97), (3, 0)]


def test_a_sender_that_has_gone_is_not_missed(clock: Clock, broker: Broker) -> None:
    """Its packet id belongs to its next connection, whose exchange must not be disturbed."""
    target = silent(broker)
    sender = persistent(broker, "app")
    request(sender, 9, 2)
    sender.lose()
    back = persistent(broker, "app")
    back.send(Message(b"p2p/dev/t", b"9", 0, 2, 0, 8, 9, Properties(**ASKS)))
    assert told(back) == [(Pubrec, 9, 0, None)]
    target.send(Pubrec(target.messages[0].packet_id, 0x97))
    wait(clock, 6)
    back.send(Pubrel(9))
    assert back.take(Pubcomp).reason_code == 0
    assert len(target.messages) == 1


# --- order and Receive Maximum ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.spec("MQTT-4.6.0-2", "MQTT-4.6.0-3")
def test_later_acknowledgements_of_the_kind_wait_behind(clock: Clock, broker: Broker, qos: int) -> None:
    target, sender = silent(broker), client(broker, "app")
    client(broker, "other")
    request(sender, 1, qos)
    request(sender, 2, qos, "p2p/other/t", asked=False)
    request(sender, 3, qos, "p2p/nobody/t", asked=False)
    request(sender, 4, qos)
    request(sender, 5, qos, "p2p/x", asked=False)
    other = 3 - qos
    request(sender, 6, other, "p2p/other/t", asked=False)
    assert [packet_id for _, packet_id, _, _ in told(sender)] == [6]  # the other kind does not wait
    second, first = target.messages[1].packet_id, target.messages[0].packet_id
    kind = (Puback, Pubrec)[qos - 1]
    target.send(kind(second, 0x97))
    assert told(sender) == []
    target.send(kind(first, 0x80))
    assert [(packet_id, code) for _, packet_id, code, _ in told(sender)] == [
        (1, 0x80),
        (2, 0),
        (3, 0x10),
        (4, 0x97),
        (5, 0x90),
    ]
    request(sender, 7, qos, "p2p/other/t", asked=False)
    assert [packet_id for _, packet_id, _, _ in told(sender)] == [7]


def test_answers_of_other_kinds_do_not_wait(broker: Broker) -> None:
    silent(broker)
    sender = client(broker, "app")
    request(sender, 1)
    sender.send(Pingreq())
    sender.take(Pingresp)
    assert sender.subscribe("t") == [2]
    assert told(sender) == []


def test_a_duplicate_of_a_held_qos_2_message_is_not_answered_twice(broker: Broker) -> None:
    target, sender = silent(broker), client(broker, "app")
    request(sender, 1, 2)
    sender.send(Message(b"p2p/dev/t", b"1", 0, 2, 0, 8, 1, Properties(**ASKS)))
    target.send(Pubrec(1), Pubcomp(1))
    assert told(sender) == [(Pubrec, 1, 0, "delivered")]
    request(sender, 2, 2)
    sender.send(Message(b"p2p/dev/t", b"1", 0, 2, 0, 8, 1, Properties(**ASKS)))  # one that has its PUBREC: in its turn
    assert told(sender) == []
    target.send(Pubrec(2), Pubcomp(2))
    assert told(sender) == [(Pubrec, 2, 0, "delivered"), (Pubrec, 1, 0, None)]


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.spec("MQTT-3.3.4-7", "MQTT-3.3.4-8", "MQTT-4.9.0-1")
def test_held_ones_count_for_receive_maximum(clock: Clock, qos: int) -> None:
    broker = make_broker(clock, limits=Limits(receive_maximum=3))
    target, sender = silent(broker), client(broker, "app")
    request(sender, 1, qos)
    request(sender, 2, qos, asked=False)
    request(sender, 3, qos)
    target.send(*(((Puback, Pubrec)[qos - 1](each.packet_id, 0x80)) for each in target.messages))
    assert len(told(sender)) == 3
    for packet_id in range(4, 7) if qos == 1 else (4, 5):  # at QoS 2 the second one awaits its PUBREL
        request(sender, packet_id, qos)
    assert not sender.is_closed
    request(sender, 9, 1, "p2p/nobody/t", asked=False)
    assert sender.take(Disconnect).reason_code == 0x93


# --- with a store -----------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(clock: Clock) -> Broker:
    return make_broker(clock, store=SlowStore())


def settle(broker: Broker, error: Exception | None = None) -> None:
    """Let the commit that is due begin and end."""
    broker.flush()
    assert isinstance(broker.store, SlowStore)
    broker.store.finish(error)
    broker.flush()


def stored_target(broker: Broker) -> tuple[MemoryClient, MemoryClient]:
    target = MemoryClient(broker, "dev", acknowledges=False)
    target.send(Connect("dev", 5, False, 0, None, None, None, {"session_expiry_interval": 3600}))
    settle(broker)
    target.receive()
    return target, client(broker, "app")


def test_the_targets_acknowledgement_and_the_commit_are_both_waited_for(stored: Broker) -> None:
    target, sender = stored_target(stored)
    request(sender, 1)
    request(sender, 2, 1, "p2p/nobody/t", asked=False)
    target.send(Puback(target.messages[0].packet_id))
    assert told(sender) == []
    settle(stored)
    assert [(packet_id, code) for _, packet_id, code, _ in told(sender)] == [(1, 0), (2, 0x10)]


def test_a_commit_that_fails_is_told_and_the_order_kept(stored: Broker) -> None:
    target, sender = stored_target(stored)
    request(sender, 1)
    request(sender, 2, asked=False)
    settle(stored, StoreError("disk full"))
    assert [(packet_id, code) for _, packet_id, code, _ in told(sender)] == [(1, 0x97), (2, 0x97)]
    target.send(*(Puback(each.packet_id) for each in target.messages))
    settle(stored)
    assert told(sender) == []


def test_an_earlier_acknowledgement_that_waits_for_its_commit_leaves_first(stored: Broker) -> None:
    target, sender = stored_target(stored)
    request(sender, 1, asked=False)
    stored.flush()  # its commit is under way
    request(sender, 2)
    target.send(*(Puback(each.packet_id) for each in target.messages))
    assert told(sender) == []
    settle(stored)
    settle(stored)
    assert [packet_id for _, packet_id, _, _ in told(sender)] == [1, 2]


# --- endpoints --------------------------------------------------------------------------------------------------------


def test_an_endpoint_acknowledges_when_its_handler_is_done(clock: Clock, broker: Broker) -> None:
    def handler(message: Message) -> object:
        if message.payload == b"bad":
            raise ValueError
        answers: dict[bytes, tuple[float, object]] = {
            b"later": (2, b"done"),
            b"badly": (2, ValueError()),
            b"never": (1000, None),
        }
        if message.payload in answers:
            return later(clock, *answers[message.payload])
        return None if message.payload == b"now" else 42

    broker.register_endpoint("service", handler)
    sender = client(broker, "app")
    expected = {b"now": 0, b"bad": 0x83, b"wrong": 0x83}
    for payload, code in expected.items():
        answer = publish(sender, "p2p/service/t", payload, properties=ASKS)
        assert answer is not None
        assert answer.reason_code == code
    for payload, code in ((b"later", 0), (b"badly", 0x83), (b"never", 0x83)):
        assert publish(sender, "p2p/service/t", payload, properties=asks("15")) is None
        wait(clock, 6)
        assert [code for _, _, code, _ in told(sender)] == [code]
