"""Ticker: calls the broker's ``advance`` every tick, by the monotonic clock.

Twisted's own timers hang on the wall clock: set back by an hour, ``callLater(1)`` fires an hour late.  So a small
thread waits on a monotonic condition and asks the reactor to tick; in tests a ``Clock`` does.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from typing import Any

from twisted.internet.task import Clock, LoopingCall

from twisted_p2pmqtt.core.timers import TICK


class Ticker:
    """Ticks from ``start`` to ``stop``; both count, so several factories may share one."""

    def __init__(self, reactor: Any, tick: Callable[[], None]) -> None:
        self._reactor = reactor
        self._tick = tick
        self._users = 0
        self._stopped: Event | None = None
        self._loop: LoopingCall | None = None
        self._is_asked = False

    def start(self) -> None:
        """Tick from now on."""
        self._users += 1
        if self._users > 1:
            return
        if isinstance(self._reactor, Clock):
            self._loop = LoopingCall(self._tick)
            self._loop.clock = self._reactor
            self._loop.start(TICK, now=False)
        else:
            self._stopped = Event()
            Thread(target=self._run, args=(self._stopped,), name="p2pmqtt-ticker", daemon=True).start()

    def _run(self, stopped: Event) -> None:
        while not stopped.wait(TICK):
            if not self._is_asked:  # a stalled reactor must not find a queue of ticks
                self._is_asked = True
                self._reactor.callFromThread(self._ticked, stopped)

    def _ticked(self, stopped: Event) -> None:
        self._is_asked = False
        if not stopped.is_set():
            self._tick()

    def stop(self) -> None:
        """Tick no more, when as many have stopped as have started."""
        self._users -= 1
        if self._users:
            return
        if self._loop is not None:
            self._loop.stop()
            self._loop = None
        if self._stopped is not None:
            self._stopped.set()
            self._stopped = None
