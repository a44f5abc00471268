"""TimerWheel: no timer early, none late by more than a tick, none lost, whatever the clock does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_p2pmqtt.core.timers import TICK, Timer, TimerWheel


class Time:
    """A clock and a wheel on it; ``fired`` is when what was called."""

    def __init__(self, start: float = 0.0) -> None:
        self.now = start
        self.failures = 0
        self.wheel = TimerWheel(lambda: self.now, self.fail)
        self.fired: list[tuple[float, object]] = []

    def fail(self) -> None:
        self.failures += 1

    def note(self, what: object) -> None:
        self.fired.append((self.now, what))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.wheel.advance()


durations = st.floats(0, 30, allow_nan=False)


@given(
    st.floats(0, 1e9),
    st.lists(st.tuples(durations, st.booleans()), max_size=20),
    st.lists(st.floats(0, 5), max_size=40),
)
@settings(deadline=None)
def test_on_time(start: float, timers: list[tuple[float, bool]], steps: list[float]) -> None:
    time = Time(start)
    due: dict[int, float] = {}
    for number, (seconds, is_cancelled) in enumerate(timers):
        timer = time.wheel.after(seconds, time.note, number)
        due[number] = time.now + seconds
        if is_cancelled:
            timer.cancel()
            timer.cancel()
            del due[number]
    looked = time.now
    for step in steps:
        before = time.now
        time.advance(step)
        for when, what in time.fired:
            assert isinstance(what, int)
            assert due.pop(what) <= when
        time.fired.clear()
        looked = before
        assert all(moment > looked - TICK for moment in due.values())
    time.advance(100)
    assert {what for _, what in time.fired} == set(due)
    assert not time.wheel._slots


def test_order_is_that_of_the_ticks() -> None:
    time = Time()
    for seconds in (3, 1, 2, 1.5, 0.1):
        time.wheel.after(seconds, time.note, seconds)
    time.advance(10)
    assert [what for _, what in time.fired] == [0.1, 1, 1.5, 2, 3]


def test_a_long_pause_fires_all_and_costs_what_there_is() -> None:
    time = Time()
    for seconds in (5, 1, 3):
        time.wheel.after(seconds, time.note, seconds)
    time.advance(10 * 365 * 86400)
    assert [what for _, what in time.fired] == [1, 3, 5]
    time.wheel.after(1, time.note, "after")
    time.advance(1.5)
    assert time.fired[-1][1] == "after"


def test_a_clock_that_stands_still_or_goes_back_fires_nothing() -> None:
    time = Time(100)
    time.wheel.after(1, time.note, "x")
    for step in (0, 0, -50, 40):
        time.advance(step)
    assert time.fired == []
    time.advance(20)
    assert [what for _, what in time.fired] == ["x"]


def test_timers_set_while_others_fire() -> None:
    time = Time()

    def again() -> None:
        time.note("again")
        time.wheel.after(0, time.note, "at once")
        later.cancel()

    time.wheel.after(1, again)
    later = time.wheel.after(1, time.note, "cancelled in time")
    time.advance(1.5)
    assert [what for _, what in time.fired] == ["again"]
    time.advance(TICK)
    assert [what for _, what in time.fired] == ["again", "at once"]


@pytest.mark.parametrize("error", [ValueError, RecursionError, MemoryError])
def test_one_that_raises_does_not_stop_the_others(error: type[Exception]) -> None:
    time = Time()

    def bad() -> None:
        raise error

    time.wheel.after(1, bad)
    time.wheel.after(1, time.note, "same tick")
    time.wheel.after(2, time.note, "later")
    time.advance(3)
    assert [what for _, what in time.fired] == ["same tick", "later"]
    assert time.failures == 1


def test_arguments_and_cancelling() -> None:
    got: list[tuple[int, str]] = []
    timer: Any = Timer(lambda a, b: got.append((a, b)), (1, "x"))
    timer.callback(*timer.arguments)
    timer.cancel()
    assert (timer.callback, timer.arguments, got) == (None, (), [(1, "x")])
