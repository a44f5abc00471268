"""Writer: the one thread that waits for the disk, so that the reactor's never does.

It belongs to one store and does one job after another; what comes of each is told in the reactor's thread, in order.
The reactor's own thread pool is left to the host.  Pauses are slept here, too, on the monotonic clock: a ``callLater``
hangs on the wall clock, and acknowledgements would wait for an hour where that is set back by one.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Event, Thread
from typing import Any, Protocol

Done = Callable[[BaseException | None], object]
"""Told how a job ended: None, or what it raised."""


class Writer(Protocol):
    """Runs jobs out of the reactor's way."""

    def run(self, job: Callable[[], object], done: Done) -> None:
        """Do the job after those given before."""

    def pause(self, seconds: float, done: Done) -> None:
        """Do nothing for so long, unless ``hurry`` is called."""

    def hurry(self) -> None:
        """No pause any more, now or later."""

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """From within a job: call the function in the reactor's thread, soon."""

    def stop(self) -> None:
        """Nothing will be run after what was given so far."""


class ThreadWriter:
    """A ``Writer`` that is a daemon thread, started when it is first needed."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._jobs: SimpleQueue[tuple[Callable[[], object], Done] | None] = SimpleQueue()
        self._hurry = Event()
        self._thread: Thread | None = None

    def run(self, job: Callable[[], object], done: Done) -> None:
        """Do the job after those given before."""
        self._jobs.put((job, done))
        if self._thread is None:
            self._thread = Thread(target=self._loop, name="p2pmqtt-writer", daemon=True)
            self._thread.start()

    def pause(self, seconds: float, done: Done) -> None:
        """Sleep in the thread."""
        self.run(lambda: self._hurry.wait(seconds), done)

    def hurry(self) -> None:
        """End the pause, if there is one, and those to come."""
        self._hurry.set()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call in the reactor's thread."""
        self._reactor.callFromThread(function, *arguments)

    def stop(self) -> None:
        """Let the thread end."""
        self._jobs.put(None)

    def _loop(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, done = entry
            error: BaseException | None = None
            try:
                job()
            except BaseException as raised:  # whatever it is, the thread must go on and the store must know
                error = raised
            self._reactor.callFromThread(done, error)
            del entry, job, done, error


class DirectWriter:
    """A ``Writer`` without a thread, for tests: jobs run where they are given.

    With ``is_stepping`` they wait for ``step``; pauses always do, and take no time.
    """

    def __init__(self, is_stepping: bool = False) -> None:
        self.is_stepping = is_stepping
        self.jobs: list[tuple[Callable[[], object], Done]] = []
        self._is_hurried = False

    def run(self, job: Callable[[], object], done: Done) -> None:
        """Now, or at ``step``."""
        self.jobs.append((job, done))
        if not self.is_stepping and len(self.jobs) == 1:
            self.step()

    def pause(self, seconds: float, done: Done) -> None:
        """Until ``step``."""
        self.jobs.append((lambda: None, done))
        if self._is_hurried:
            self.step()

    def hurry(self) -> None:
        """No pauses any more."""
        self._is_hurried = True
        if self.jobs and not self.is_stepping:
            self.step()

    def call(self, function: Callable[..., object], *arguments: Any) -> None:
        """At once."""
        function(*arguments)

    def stop(self) -> None:
        """Nothing to stop."""

    def step(self) -> None:
        """Do the oldest job."""
        job, done = self.jobs.pop(0)
        error: BaseException | None = None
        try:
            job()
        except Exception as raised:
            error = raised
        done(error)
