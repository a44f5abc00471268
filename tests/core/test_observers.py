"""Observers: told of everything that happens, and of P2P messages only if they ask."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.core.support import Avatar, client, guarded_factory, offline, persistent, publish, user_properties
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Puback
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.info import SessionInfo
from twisted_p2pmqtt.core.limits import P2POptions
from twisted_p2pmqtt.core.observers import Observer
from twisted_p2pmqtt.core.p2p import make_router
from twisted_p2pmqtt.testing import make_broker


class Diary(Observer):
    """Writes everything down."""

    def __init__(self, p2p: bool = False) -> None:
        self.p2p = p2p
        self.entries: list[tuple[Any, ...]] = []
        self.messages: list[Message] = []

    def connected(self, client_id: str, info: SessionInfo) -> None:
        self.entries.append(("connected", client_id, info.is_connected))

    def disconnected(self, client_id: str, reason_code: int) -> None:
        self.entries.append(("disconnected", client_id, reason_code))

    def subscribed(self, client_id: str, topic_filter: str, qos: int) -> None:
        self.entries.append(("subscribed", client_id, topic_filter, qos))

    def unsubscribed(self, client_id: str, topic_filter: str) -> None:
        self.entries.append(("unsubscribed", client_id, topic_filter))

    def published(self, client_id: str | None, message: Message) -> None:
        self.messages.append(message)
        self.entries.append(("published", client_id, message.topic.decode()))

    def delivered(self, client_id: str, message: Message) -> None:
        self.entries.append(("delivered", client_id, message.topic.decode()))

    def dropped(self, client_id: str, message: Message, reason: str) -> None:
        self.entries.append(("dropped", client_id, message.topic.decode(), reason))

    def take(self) -> list[tuple[Any, ...]]:
        entries, self.entries = self.entries, []
        return entries


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(clock: Clock) -> Broker:
    return make_broker(clock)


@pytest.fixture
def diary(broker: Broker) -> Diary:
    kept = Diary()
    broker.add_observer(kept)
    return kept


def test_coming_and_going(broker: Broker, diary: Diary) -> None:
    one = client(broker, "one")
    one.disconnect()
    client(broker, "two").lose()
    client(broker, "three")
    broker.disconnect("three")
    client(broker, "four")
    client(broker, "four").disconnect(4)
    assert diary.take() == [
        ("connected", "one", True),
        ("disconnected", "one", 0),
        ("connected", "two", True),
        ("disconnected", "two", 0x80),
        ("connected", "three", True),
        ("disconnected", "three", 0x98),
        ("connected", "four", True),
        ("disconnected", "four", 0x8E),
        ("connected", "four", True),
        ("disconnected", "four", 4),
    ]


def test_subscriptions(broker: Broker, diary: Diary) -> None:
    factory = guarded_factory(broker, {"app": Avatar(subscribe=["a", "b"])})
    app = client(factory, "app")
    app.subscribe("a", "secret", "b", qos=1)
    app.unsubscribe("a", "nothing")
    app.disconnect()
    assert diary.take()[1:-1] == [
        ("subscribed", "app", "a", 1),
        ("subscribed", "app", "b", 1),
        ("unsubscribed", "app", "a"),
    ]


def test_ordinary_messages(broker: Broker, diary: Diary) -> None:
    reader = persistent(broker, "reader", properties={"receive_maximum": 1})
    reader.subscribe("t")
    sender = client(broker, "app")
    diary.take()
    publish(sender, "t")
    assert len(reader.messages) == 1  # now it has acknowledged
    publish(sender, "t", qos=0)
    broker.publish("nobody", b"x")
    reader.disconnect()
    publish(sender, "t", qos=0)
    assert [entry for entry in diary.take() if entry[0] != "disconnected"] == [
        ("published", "app", "t"),
        ("delivered", "reader", "t"),
        ("published", "app", "t"),
        ("published", None, "nobody"),
        ("published", "app", "t"),
        ("dropped", "reader", "t", "dropped_offline_qos0"),
    ]


def everything_over_p2p(broker: Broker) -> None:
    """Each thing that can become of a P2P message, and one ordinary message."""
    target = client(broker, "dev", acknowledges=False, properties={"maximum_packet_size": 200})
    offline(broker, "away")
    sender = client(broker, "app")
    publish(sender, "p2p/dev/t")
    target.send(Puback(target.messages[0].packet_id))
    publish(sender, "p2p/dev/big", b"x" * 300)
    publish(sender, "p2p/nobody/t")
    publish(sender, "p2p/dev")
    for qos in (0, 1, 1):
        publish(sender, "p2p/away/t", qos=qos)
    broker.send_to("dev", "from/python", b"x", qos=0)
    broker.send_to("no/body", "from/python", b"x", qos=0)
    publish(sender, "ordinary")


def test_p2p_messages_are_told_only_to_those_who_ask(clock: Clock) -> None:
    broker = make_broker(clock, p2p=P2POptions(max_queued=1))
    diary, curious = Diary(), Diary(p2p=True)
    broker.add_observer(diary)
    broker.add_observer(curious)
    everything_over_p2p(broker)
    about_messages = ("published", "delivered", "dropped")
    assert [entry for entry in diary.take() if entry[0] in about_messages] == [("published", "app", "ordinary")]
    assert [entry for entry in curious.take() if entry[0] in about_messages] == [
        ("published", "app", "p2p/dev/t"),
        ("delivered", "dev", "t"),
        ("published", "app", "p2p/dev/big"),
        ("dropped", "dev", "big", "dropped_too_large"),
        ("published", "app", "p2p/nobody/t"),
        ("dropped", "nobody", "p2p/nobody/t", "p2p_dropped_unknown"),
        ("published", "app", "p2p/away/t"),
        ("dropped", "away", "t", "dropped_offline_qos0"),
        ("published", "app", "p2p/away/t"),
        ("published", "app", "p2p/away/t"),
        ("dropped", "away", "t", "dropped_queue_full"),
        ("published", None, "p2p/dev/from/python"),
        ("published", None, "p2p/no%2Fbody/from/python"),
        ("dropped", "no/body", "from/python", "p2p_dropped_unknown"),
        ("published", "app", "ordinary"),
    ]


def test_what_the_process_sends_is_told_by_its_canonical_name(clock: Clock) -> None:
    broker, curious = make_broker(clock, router=make_router("suffix", "to")), Diary(p2p=True)
    broker.add_observer(curious)
    broker.send_to("a/b", "cmd", b"x")
    assert curious.take()[0] == ("published", None, "to/a%2Fb/cmd")


def test_what_an_observer_was_shown_does_not_change_afterwards(broker: Broker) -> None:
    curious = Diary(p2p=True)
    broker.add_observer(curious)
    client(broker, "dev")
    publish(client(broker, "app"), "p2p/dev/t", b"x", retain=True, properties={"user_properties": [("a", "1")]})
    (message,) = curious.messages
    assert (message.topic, message.payload, message.retain) == (b"p2p/dev/t", b"x", 1)
    assert user_properties(message) == [("a", "1")]


def test_added_twice_is_once_and_removed_is_gone(broker: Broker, diary: Diary) -> None:
    broker.add_observer(diary)
    broker.publish("t", b"x")
    assert len(diary.take()) == 1
    broker.remove_observer(diary)
    broker.remove_observer(diary)
    broker.publish("t", b"x")
    assert diary.take() == []


def test_an_observer_that_leaves_while_it_is_told(broker: Broker) -> None:
    class Shy(Observer):
        told = 0

        def published(self, client_id: str | None, message: Message) -> None:
            self.told += 1
            broker.remove_observer(self)

    shy, other = Shy(), Diary()
    broker.add_observer(shy)
    broker.add_observer(other)
    for _ in range(2):
        broker.publish("t", b"x")
    assert (shy.told, len(other.entries)) == (1, 2)
