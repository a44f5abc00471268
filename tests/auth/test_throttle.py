"""Guessing gets slower, without anything sleeping."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from twisted_p2pmqtt.auth.throttle import (
    FORGOTTEN_AFTER,
    FREE_FAILURES,
    LOGGED_PER_MINUTE,
    LONGEST_DELAY,
    MAX_ENTRIES,
    Throttle,
    delay,
)
from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.core.handshake import LOGIN_DEADLINE


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def throttle(clock: Clock) -> Throttle:
    return Throttle(clock.seconds, clock.callLater)


def fail(throttle: Throttle, times: int, host: str = "h", name: bytes = b"alice") -> None:
    for _ in range(times):
        throttle.failed(host, name)


def test_the_first_failures_are_free(throttle: Throttle) -> None:
    fail(throttle, FREE_FAILURES - 1)
    assert throttle.admit("h", b"alice") is None


def test_then_it_waits_longer_and_longer(throttle: Throttle, clock: Clock) -> None:
    fail(throttle, FREE_FAILURES)
    waits = []
    for _ in range(6):
        waiting = throttle.admit("h", b"alice")
        assert waiting is not None
        begin = clock.seconds()
        while not waiting.called:
            clock.advance(0.05)
        waits.append(clock.seconds() - begin)
        throttle.failed("h", b"alice")
    assert waits == pytest.approx([0.25, 0.5, 1.0, 2.0, LONGEST_DELAY, LONGEST_DELAY], abs=0.06)
    assert LONGEST_DELAY < LOGIN_DEADLINE - 1, "there must be time for the hash"


def test_others_do_not_wait(throttle: Throttle) -> None:
    fail(throttle, 20)
    assert throttle.admit("other", b"alice") is None
    assert throttle.admit("h", b"bob") is None


def test_success_forgives(throttle: Throttle) -> None:
    fail(throttle, 20)
    throttle.succeeded("h", b"alice")
    assert throttle.admit("h", b"alice") is None


def test_time_forgives(throttle: Throttle, clock: Clock) -> None:
    fail(throttle, 20)
    clock.advance(FORGOTTEN_AFTER + 1)
    assert throttle.admit("h", b"alice") is None
    fail(throttle, 1)
    assert throttle.admit("h", b"alice") is None


def test_many_connections_guess_no_faster_than_one(throttle: Throttle, clock: Clock) -> None:
    fail(throttle, 20)
    outcomes: list[object] = []
    for _ in range(20):
        waiting = throttle.admit("h", b"alice")
        assert isinstance(waiting, Deferred)
        waiting.addCallbacks(outcomes.append, lambda failure: outcomes.append(failure.value))
    assert outcomes == [], "nobody is answered at once"
    clock.advance(LONGEST_DELAY)
    assert outcomes.count(None) == 1
    refusals = [outcome for outcome in outcomes if isinstance(outcome, MQTTError)]
    assert len(refusals) == 19
    assert {refusal.reason_code for refusal in refusals} == {ReasonCode.SERVER_BUSY}


def test_the_table_is_bounded(throttle: Throttle) -> None:
    for number in range(MAX_ENTRIES + 10):
        throttle.failed("h", b"x" * 100 + b"%d" % number)
    assert len(throttle._failures) == MAX_ENTRIES


def test_the_log_shows_names_harmless_and_not_too_often(throttle: Throttle, clock: Clock) -> None:
    with capturedLogs() as events:
        fail(throttle, 50, "h", b"x\n2026-01-01 [root] login ok \x1b[2J\xe2\x80\xae" + b"y" * 60_000)
        (line,) = [formatEvent(event) for event in events]
        assert line.isprintable()
        assert line.isascii()
        assert len(line) < 512
        for number in range(100):
            fail(throttle, 5, "h", b"%d" % number)
        assert len(events) == LOGGED_PER_MINUTE
        clock.advance(60)
        fail(throttle, 5, "h", b"another")
        assert len(events) == LOGGED_PER_MINUTE + 1


def test_delays() -> None:
    assert [delay(count) for count in (0, 4, 5, 6, 7, 8, 9, 10**9)] == [0.0, 0.0, 0.25, 0.5, 1.0, 2.0, 3.0, 3.0]
