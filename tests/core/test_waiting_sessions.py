"""Sessions that wait for their clients, perhaps a hundred thousand of them: what each costs, and when it ends."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.core.support import LONG
from twisted_p2pmqtt.codec.packets import SubscriptionRequest, Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core import registry
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.records import SessionRecord, SubscriptionRecord
from twisted_p2pmqtt.core.session import NO_INFLIGHT, Session
from twisted_p2pmqtt.store.memory import MemoryStore
from twisted_p2pmqtt.testing import MemoryClient, make_broker

SESSIONS = 500
TRACKED = 2 if sys.version_info >= (3, 14) else 1
"""Objects of a session that garbage collection looks at: itself, and from Python 3.14 on its ``subscriptions``."""


class FullStore(MemoryStore):
    """Gives back ``SESSIONS`` sessions whose clients left one after another."""

    def restore_now(self, receive: Callable[[list[Any]], None]) -> None:
        for number in range(SESSIONS):
            record = SessionRecord(f"session{number}", LONG, 1e9 - number, None)
            record.subscriptions.append(SubscriptionRecord(topic_filter(number), 1, False, False, number))
            receive([record])


def topic_filter(number: int) -> str:
    """A filter of this session alone, of every form."""
    return ("site/{}/#", "site/{}/+", "site/{}", "+/{}")[number % 4].format(number)


def restore(clock: Clock) -> Broker:
    broker = make_broker(clock, FullStore())
    broker.restore_now()
    return broker


def leave(broker: Broker, client_id: str, *filters: str) -> None:
    """A client comes, subscribes, and goes."""
    client = MemoryClient(broker, client_id)
    client.connect(clean_start=False, properties=Properties(session_expiry_interval=LONG))
    for each in filters:
        client.subscribe(SubscriptionRequest(each, 1))
    client.disconnect()


def be_left(clock: Clock) -> Broker:
    broker = make_broker(clock)
    for number in range(SESSIONS):
        leave(broker, f"session{number}", topic_filter(number))
        clock.advance(1)
        broker.advance()
    clock.advance(LONG / 2)  # what the connections' own timers held is let go
    broker.advance()
    return broker


@pytest.mark.parametrize("make", [restore, be_left])
def test_what_garbage_collection_has_to_look_at(make: Callable[[Clock], Broker]) -> None:
    kept = [make(Clock())]  # whatever is made once is there
    gc.collect()
    before = len(gc.get_objects())
    kept.append(make(Clock()))
    gc.collect()
    assert (len(gc.get_objects()) - before) / SESSIONS < TRACKED + 0.45  # and a broker around them
    assert all(len(broker.sessions) == broker.tree.count == SESSIONS for broker in kept)
    assert not NO_INFLIGHT


def assert_only_c_is_left_and_lasts(clock: Clock, broker: Broker) -> None:
    """For ``LONG`` from now on, and no second more."""
    clock.advance(LONG - 1)
    broker.advance()
    assert list(broker.sessions) == ["c"]
    clock.advance(1)
    broker.advance()
    assert not broker.sessions


def test_a_session_that_was_resumed_ends_when_it_was_left_last() -> None:
    clock = Clock()
    broker = make_broker(clock)
    leave(broker, "c")
    clock.advance(LONG / 2)
    broker.advance()
    leave(broker, "c")
    assert_only_c_is_left_and_lasts(clock, broker)
    assert broker.stats.sessions_expired == 1


def test_ends_that_no_longer_hold_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_STALE", 10)
    clock = Clock()
    broker = make_broker(clock)
    leave(broker, "other")
    for _ in range(100):
        clock.advance(1)
        broker.advance()
        leave(broker, "c")
        assert len(broker.registry._ends) <= 2 * len(broker.sessions) + registry.MAX_STALE
    assert_only_c_is_left_and_lasts(clock, broker)


def test_one_end_that_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    broker = make_broker(clock)
    for client_id in ("a", "b", "c"):
        leave(broker, client_id)
    end = broker.registry.end

    def fail(session: Session) -> None:
        if session.client_id == "b":
            raise RuntimeError
        end(session)

    monkeypatch.setattr(broker.registry, "end", fail)
    clock.advance(LONG)
    broker.advance()
    assert list(broker.sessions) == ["b"]
    assert broker.stats.internal_errors == 1


class FailingStore(MemoryStore):
    """Durable, but it cannot save a session at first."""

    durable = True
    failures = 1

    def save_session(self, record: SessionRecord) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("of a test")


def test_a_session_whose_opening_failed_waits_and_ends_like_others() -> None:
    clock = Clock()
    broker = make_broker(clock, FailingStore())
    properties = Properties(session_expiry_interval=LONG)
    with pytest.raises(AssertionError):
        MemoryClient(broker, "c").connect(clean_start=False, properties=properties)
    again = MemoryClient(broker, "c")
    assert not again.connect(clean_start=False, properties=properties).reason_code
    again.lose()
    clock.advance(LONG)
    broker.advance()
    assert not broker.sessions


def test_the_reactor_has_its_turns_while_many_sessions_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twisted_p2pmqtt.core.broker.SLICE", -1.0)
    clock = Clock()
    broker = make_broker(clock)
    for number in range(10):
        leave(broker, str(number))
    clock.rightNow += LONG
    broker.advance()
    assert len(broker.sessions) == 9
    broker.advance()  # the ticker's: no more turns are asked for by that
    calls: Any = clock.getDelayedCalls()
    assert [call.func for call in calls].count(broker._advance_on) == 1
    clock.advance(0)
    assert not broker.sessions


def test_and_while_many_wills_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    broker = make_broker(clock)
    heard: list[bytes] = []
    broker.subscribe("wills/#", lambda message: heard.append(message.payload))
    properties = Properties(session_expiry_interval=LONG)
    for number in range(10):
        client = MemoryClient(broker, str(number))
        will = Will(f"wills/{number}", b"%d" % number, properties=Properties(will_delay_interval=60))
        client.connect(clean_start=False, properties=properties, will=will)
        client.lose()
    monkeypatch.setattr("twisted_p2pmqtt.core.broker.SLICE", -1.0)
    clock.rightNow += 61
    broker.advance()
    assert heard == [b"0"]
    clock.advance(0)
    assert heard == [b"%d" % number for number in range(10)]


def test_a_will_that_fails_keeps_no_connection_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    broker = make_broker(clock)
    client = MemoryClient(broker, "c")
    properties = Properties(session_expiry_interval=LONG)
    client.connect(clean_start=False, properties=properties, will=Will("w", b""))

    def fail(*arguments: object) -> None:
        raise RuntimeError("of a test")

    monkeypatch.setattr(broker.fan_out, "publish", fail)
    client.lose()
    assert broker.stats.internal_errors == 1
    assert broker.stats.connections_open == 0
    clock.advance(LONG)
    broker.advance()
    assert not broker.sessions
