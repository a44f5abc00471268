"""Guard: how the broker calls code that is not its own: avatars, routers, observers, endpoints.

Whatever such code does, the answer is a plain value: an exception, a wrong type or a Deferred that does not fire
denies. Each failing piece of code is logged with its traceback once a minute and always counted (section 6 of the
project's reliability page).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.stats import Stats
    from twisted_p2pmqtt.core.timers import Timer, TimerWheel

DEADLINE = 5.0
"""Seconds that a Deferred of foreign code has."""

_QUIET = 60.0

_log = Logger()


class Guard:
    """Calls foreign code and survives it."""

    def __init__(self, stats: Stats, wheel: TimerWheel) -> None:
        self._stats = stats
        self._wheel = wheel
        self._last_logged: dict[str, float] = {}

    def report(self, what: str, failure: Failure | None = None) -> None:
        """Count an error, and log it with its traceback unless ``what`` was logged within the last minute."""
        self._stats.hook_errors += 1
        self._log(what, failure or Failure())

    def report_internal(self, what: str) -> None:
        """The same for an error of the broker's own."""
        self._stats.internal_errors += 1
        self._log(what, Failure())

    def _log(self, what: str, failure: Failure) -> None:
        now = self._wheel.now
        if now - self._last_logged.get(what, -_QUIET) >= _QUIET:
            if len(self._last_logged) > 1000:
                self._last_logged.clear()
            self._last_logged[what] = now
            _log.failure("{what} failed; further failures are counted, not logged, for a minute", failure, what=what)

    def ask(self, question: Callable[..., Any], *arguments: Any) -> bool:
        """A yes or no, now; everything but True is no."""
        answer = self.call(question, *arguments)
        if isinstance(answer, bool):
            return answer
        if answer is not None:
            self.reject(name_of(question), answer, "bool")
        return False

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function gives, or None where it raises."""
        try:
            return function(*arguments)
        except BaseException as error:  # a hook that raises SystemExit must not stop the reactor either
            self.report(name_of(function))
            if isinstance(error, GeneratorExit):
                raise
            return None

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
        if isinstance(answer, Deferred):
            answer.addErrback(lambda failure: None)
        try:
            raise TypeError(f"{what} gave {type(answer).__name__}, not {expected}")
        except TypeError:
            self.report(what)

    def within_deadline(self, waiting: Deferred[Any], what: str, seconds: float = DEADLINE) -> Deferred[Any]:
        """A Deferred that fires with the result, or with None after a failure or when the time is up."""
        guarded: Deferred[Any] = Deferred()

        def fire(result: Any) -> None:
            timer.cancel()
            if not guarded.called:
                guarded.callback(result)

        def fail(failure: Failure) -> None:
            self.report(what, failure)
            fire(None)

        def give_up() -> None:
            try:
                raise TimeoutError(f"{what} gave no answer in {seconds:g} s")
            except TimeoutError:
                self.report(what)
            fire(None)
            waiting.cancel()

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
