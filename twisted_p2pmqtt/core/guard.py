"""Guard: how the broker calls code that is not its own: avatars, routers, observers, endpoints.

Whatever such code does, the answer is a plain value: an exception, a wrong type or a Deferred that does not fire
denies. A coroutine is as good as a Deferred.  Each failing piece of code is logged with its traceback once a minute
and always counted (section 6 of the project's reliability page).
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.stats import Stats
    from twisted_p2pmqtt.core.timers import Timer, TimerWheel

DEADLINE = 5.0
"""Seconds that a Deferred of foreign code has."""

SLOW = 0.05
"""Seconds of the reactor's time that one call of foreign code may take before it is named in the log."""

MAX_DEPTH = 8
"""Calls of foreign code within each other; what one publishes at this depth is published in the next turn."""

_QUIET = 60.0

_log = Logger()


class Guard:
    """Calls foreign code and survives it."""

    def __init__(self, stats: Stats, wheel: TimerWheel) -> None:
        self._stats = stats
        self._wheel = wheel
        self._last_logged: dict[str, float] = {}
        self.depth = 0

    def report(self, what: str, failure: Failure | None = None) -> None:
        """Count an error, and log it with its traceback unless ``what`` was logged within the last minute."""
        self._stats.hook_errors += 1
        self._log(what, failure or Failure())

    def report_internal(self, what: str) -> None:
        """The same for an error of the broker's own."""
        self._stats.internal_errors += 1
        self._log(what, Failure())

    def _log(self, what: str, failure: Failure) -> None:
        if self._is_news(what):
            _log.failure("{what} failed; further failures are counted, not logged, for a minute", failure, what=what)

    def _is_news(self, what: str) -> bool:
        now = self._wheel.now
        if now - self._last_logged.get(what, -_QUIET) < _QUIET:
            return False
        if len(self._last_logged) > 1000:
            self._last_logged.clear()
        self._last_logged[what] = now
        return True

    def ask(self, question: Callable[..., Any], *arguments: Any) -> bool:
        """A yes or no, now; everything but True is no."""
        answer = self.call(question, *arguments)
        if isinstance(answer, bool):
            return answer
        if answer is not None:
            self.reject(name_of(question), answer, "bool")
        return False

    def call(self, function: Callable[..., Any], *arguments: Any, otherwise: Any = None) -> Any:
        """What the function gives, or ``otherwise`` where it raises."""
        start = perf_counter()
        self.depth += 1
        try:
            answer = function(*arguments)
            return Deferred.fromCoroutine(answer) if isinstance(answer, CoroutineType) else answer
        except BaseException:  # a hook that raises SystemExit must not stop the reactor either
            self.report(name_of(function))
            return otherwise
        finally:
            self.depth -= 1
            time = perf_counter() - start
            if time > SLOW and self._is_news(f"slow {name_of(function)}"):
                _log.warn("{what} held up everything for {time:.3f} s", what=name_of(function), time=time)

    def notify(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call a function whose answer nobody waits for; a Deferred of it may fail."""
        answer = self.call(function, *arguments)
        if isinstance(answer, Deferred):
            name = name_of(function)
            answer.addErrback(lambda failure: self.report(name, failure))

    def ask_later(self, question: Callable[..., Any], *arguments: Any) -> bool | Deferred[bool]:
        """A yes or no, now or as a Deferred that always fires with a bool, within ``DEADLINE``."""
        answer = self.call(question, *arguments)
        if isinstance(answer, Deferred):
            return self.within_deadline(answer, name_of(question)).addCallback(lambda result: result is True)
        if isinstance(answer, bool):
            return answer
        if answer is not None:
            self.reject(name_of(question), answer, "bool")
        return False

    def reject(self, what: str, answer: object, expected: str) -> None:
        """Report an answer of the wrong type."""
        self.silence(answer)
        try:
            raise TypeError(f"{what} gave {type(answer).__name__}, not {expected}")
        except TypeError:
            self.report(what)

    @staticmethod
    def silence(answer: object) -> None:
        """Let an answer that nobody will look at end quietly."""
        if isinstance(answer, Deferred):
            answer.addErrback(lambda failure: None)
        elif isinstance(answer, CoroutineType):
            answer.close()

    def within_deadline(
        self, waiting: Deferred[Any], what: str, seconds: float = DEADLINE, otherwise: Any = None
    ) -> Deferred[Any]:
        """A Deferred that fires with the result, or with ``otherwise`` after a failure or when the time is up."""
        guarded: Deferred[Any] = Deferred()

        def fire(result: Any) -> None:
            timer.cancel()
            if not guarded.called:
                guarded.callback(result)

        def fail(failure: Failure) -> None:
            if not guarded.called:
                self.report(what, failure)
                fire(otherwise)

        def give_up() -> None:
            try:
                raise TimeoutError(f"{what} gave no answer in {seconds:g} s")
            except TimeoutError:
                self.report(what)
            fire(otherwise)
            self.call(waiting.cancel)

        timer: Timer = self._wheel.after(seconds, give_up)
        waiting.addCallbacks(fire, fail)
        waiting.addErrback(lambda failure: None)
        return guarded


def name_of(function: Callable[..., Any]) -> str:
    """A name to log a callable under."""
    owner = getattr(function, "__self__", None)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return (
        f"{type(owner).__module__}.{type(owner).__qualname__}.{name.rpartition('.')[2]}" if owner is not None else name
    )
