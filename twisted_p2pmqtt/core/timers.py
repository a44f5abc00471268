"""TimerWheel: the deadlines of the broker on one monotonic clock: keep-alives, will delays, stalls.

A ``callLater`` hangs on the wall clock (a step back freezes it) and costs an object in the reactor's heap for each of
20,000 connections; here a deadline is an entry in the list of its tick.  Whoever owns the wheel calls ``advance``
at least once per ``TICK``; nothing here knows where that call comes from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from time import perf_counter
from typing import Any

TICK = 0.25
"""Seconds between two looks at the wheel; a timer is late by at most this, where not too many are due with it."""


class Timer:
    """One deadline; ``cancel`` makes it never fire."""

    __slots__ = ("arguments", "callback")

    def __init__(self, callback: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.callback: Callable[..., object] | None = callback
        self.arguments = arguments

    def cancel(self) -> None:
        """Forget the callback; calling again does nothing."""
        self.callback = None
        self.arguments = ()


class TimerWheel:
    """Deadlines by tick.  ``now`` is the clock's time in seconds as of the last ``advance``."""

    __slots__ = ("_done", "_due", "_slots", "clock", "failed", "now")

    def __init__(self, clock: Callable[[], float], failed: Callable[[], None]) -> None:
        """``clock`` gives monotonic seconds; ``failed`` is called inside the handler of a callback's exception."""
        self.clock = clock
        self._slots: dict[int, list[Timer]] = {}
        self._due: deque[Timer] = deque()
        self.now = clock()
        self._done = int(self.now / TICK)
        self.failed = failed

    def after(self, seconds: float, callback: Callable[..., object], *arguments: Any) -> Timer:
        """Call ``callback(*arguments)`` once, ``seconds`` from now or up to one tick later."""
        timer = Timer(callback, arguments)
        # rounded up, so that a timer never fires early
        due = max(int((self.clock() + seconds) / TICK) + 1, self._done + 1)
        slot = self._slots.get(due)
        if slot is None:
            slot = self._slots[due] = []
        slot.append(timer)
        return timer

    def advance(self, until: float = inf) -> bool:
        """Fire what is due, in the order of the ticks; False where ``perf_counter`` came past ``until`` before all was
        fired: the next call goes on there.
        """
        self.now = self.clock()
        reached = int(self.now / TICK)
        # After a long pause (a stopped process) walking the slots beats walking the ticks.
        if reached - self._done > len(self._slots):
            ticks = sorted(tick for tick in self._slots if tick <= reached)
        else:
            ticks = list(range(self._done + 1, reached + 1))
        self._done = max(self._done, reached)
        due = self._due
        for tick in ticks:
            due.extend(self._slots.pop(tick, ()))
        while due:
            timer = due.popleft()
            if timer.callback is not None:
                try:
                    timer.callback(*timer.arguments)
                except Exception:  # one bad deadline must not stop the others
                    self.failed()
                if perf_counter() > until:
                    break
        return not due
