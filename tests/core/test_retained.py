"""RetainedMessages: bounded in number and bytes, found by filter, gone when they expire; and their replay in slices."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from tests.core.support import Avatar, client, guarded_factory, heard, publish
from tests.core.test_topic_index import filters, names
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Puback, Subscribe, SubscriptionRequest
from twisted_p2pmqtt.codec.topics import matches
from twisted_p2pmqtt.core import replay
from twisted_p2pmqtt.core.limits import Limits
from twisted_p2pmqtt.core.retained import RetainedMessages
from twisted_p2pmqtt.testing import make_broker


@given(
    st.lists(st.tuples(names, st.one_of(st.none(), st.integers(0, 60))), max_size=40),
    st.lists(filters, min_size=1, max_size=4),
)
@settings(deadline=None)
def test_bounds_hold_and_what_is_there_is_found(steps: list[tuple[str, int | None]], wanted: list[str]) -> None:
    kept, expected = RetainedMessages(8, 200), dict[str, Message]()
    for topic, size in steps:
        if size is None:
            assert kept.remove(topic) == (expected.pop(topic, None) is not None)
            continue
        message = Message(topic.encode(), b"x" * size)
        others = {name: each for name, each in expected.items() if name != topic}
        fits = len(others) < 8 and sum(each.size for each in others.values()) + message.size <= 200
        assert kept.put(topic, message) == fits
        if fits:
            expected[topic] = message
        assert kept.size == sum(each.size for each in expected.values()) <= 200
        assert len(kept) == len(expected) <= 8
    for topic_filter in wanted:
        assert sorted(kept.matching(topic_filter)) == sorted(name for name in expected if matches(topic_filter, name))
    for name, message in expected.items():
        assert kept.get(name, 0) is message


def test_what_has_expired_is_gone() -> None:
    kept, message = RetainedMessages(10, 100), Message(b"t", b"x")
    message.expires_at = 5.0
    kept.put("t", message)
    assert kept.get("t", 4.9) is message
    assert kept.get("t", 5.0) is None
    assert (len(kept), kept.size, kept.matching("#")) == (0, 0, [])


@pytest.mark.spec("MQTT-3.3.1-5", "MQTT-3.3.1-6", "MQTT-3.3.1-7", "MQTT3-3.3.1-5", "MQTT3-3.3.1-10", "MQTT3-3.3.1-11")
def test_no_room_is_told_and_an_empty_payload_makes_some() -> None:
    broker = make_broker(Clock(), limits=Limits(max_retained_messages=2))
    sender = client(broker, "app")
    codes = [publish(sender, topic, retain=True) for topic in ("a", "b", "c", "a")]
    assert [answer.reason_code for answer in codes if answer] == [0x10, 0x10, 0x97, 0x10]
    publish(sender, "a", b"", retain=True)
    assert publish(sender, "c", retain=True).reason_code == 0x10  # type: ignore[union-attr]  # it is answered
    assert sorted(broker.retained.matching("#")) == ["b", "c"]


# --- replay -----------------------------------------------------------------------------------------------------------


def test_a_replay_takes_turns_with_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run ends after its slice of time: here a hundred looks at the clock."""
    looks = count()
    monkeypatch.setattr(replay, "perf_counter", lambda: next(looks) * replay.SLICE / 100)
    clock = Clock()
    broker = make_broker(clock)
    for number in range(1000):
        broker.publish(f"t/{number}", b"%d" % number, retain=True)
    reader = client(broker, "reader")
    sizes: list[int] = []
    run = broker.run_replay

    def running(subscriber: object) -> None:
        before = len(reader._messages)
        run(subscriber)  # type: ignore[arg-type]  # the reader, seen as any object
        broker.flush()
        sizes.append(before)

    monkeypatch.setattr(broker, "run_replay", running)
    reader.send(Subscribe(1, [SubscriptionRequest("t/#", 0)]))
    assert sorted(int(message.payload) for message in reader.messages) == list(range(1000))
    assert len(sizes) >= 10
    assert broker.sessions["reader"].replay is None


def test_a_replay_is_paced_by_the_window() -> None:
    clock = Clock()
    broker = make_broker(clock)
    for number in range(50):
        broker.publish(f"t/{number:02}", b"x", 1, retain=True)
    reader = client(broker, "reader", acknowledges=False, properties={"receive_maximum": 3})
    reader.subscribe("t/#")
    assert len(reader.messages) == 3
    assert not broker.sessions["reader"].pending  # what is owed waits as topics, not as messages
    broker.publish("t/00", b"newer", 1, retain=True)
    seen = 0
    while seen < len(reader.messages):
        message = reader.messages[seen]
        seen += 1
        reader.send(Puback(message.packet_id))
    assert len(reader.messages) == 51
    assert {message.retain for message in reader.messages} == {0, 1}
    by_topic: dict[bytes, list[bytes]] = {}
    for message in reader.messages:
        by_topic.setdefault(message.topic, []).append(message.payload)
    assert by_topic[b"t/00"] in ([b"x", b"newer"], [b"newer", b"newer"])  # never an older value after a newer one


def test_what_is_cleared_meanwhile_is_not_sent() -> None:
    broker = make_broker(Clock())
    for number in range(10):
        broker.publish(f"t/{number}", b"x", 1, retain=True)
    reader = client(broker, "reader", acknowledges=False, properties={"receive_maximum": 1})
    reader.subscribe("t/#")
    for number in range(10):
        broker.publish(f"t/{number}", b"", 0, retain=True)
    first = len(reader.messages)
    reader.send(Puback(reader.messages[0].packet_id))
    assert [message.retain for message in reader.messages[first:]] == []


def test_a_replay_ends_with_its_connection_and_asks_for_the_right_to_each() -> None:
    broker = make_broker(Clock())
    factory = guarded_factory(broker, {"reader": Avatar(receive=["t/1"])})
    for number in range(3):
        broker.publish(f"t/{number}", b"x", 1, retain=True)
    reader = client(factory, "reader", acknowledges=False, properties={"receive_maximum": 1})
    reader.subscribe("#")
    assert heard(reader) == [("t/1", b"x")]
    reader.lose()
    again = client(factory, "reader")
    assert heard(again) == []
