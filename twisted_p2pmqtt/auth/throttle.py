"""Throttle: guessing one user's password from one address gets slower with every wrong guess.

Nothing sleeps: an attempt waits as a Deferred.  Attempts for the same user and address wait in line, so that many
connections guess no faster than one; where the line is longer than a login may take, an attempt is refused unheard
after the longest wait, and it makes no difference whether it was right.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from twisted_p2pmqtt.auth.text import for_log
from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError

FREE_FAILURES = 5
FIRST_DELAY = 0.25
LONGEST_DELAY = 3.0
"""Seconds; with the hash behind it an attempt must stay within ``core.handshake.LOGIN_DEADLINE``."""
FORGOTTEN_AFTER = 600.0
MAX_ENTRIES = 10_000
LOGGED_PER_MINUTE = 10

_log = Logger()


class _Failures:
    __slots__ = ("count", "free_at", "last", "waiting")

    def __init__(self) -> None:
        self.count = 0
        self.waiting = 0
        self.free_at = 0.0
        self.last = 0.0


class Throttle:
    """Counts failed logins by address and user name.

    ``now`` is a monotonic clock in seconds; ``after(seconds, callback)`` calls back once.
    """

    def __init__(self, now: Callable[[], float], after: Callable[[float, Callable[[], object]], Any]) -> None:
        self._now = now
        self._after = after
        self._failures: OrderedDict[tuple[str, bytes], _Failures] = OrderedDict()
        self._logged: tuple[float, int] = (float("-inf"), 0)

    def admit(self, host: str, username: bytes) -> Deferred[None] | None:
        """None for an attempt that may go on now, else a Deferred for when it may, or which refuses it."""
        entry = self._failures.get(_key(host, username))
        now = self._now()
        if entry is None or entry.count < FREE_FAILURES or now - entry.last > FORGOTTEN_AFTER:
            return None
        start = max(now, entry.free_at)
        waiting: Deferred[None] = Deferred()
        if start - now > LONGEST_DELAY:
            self._after(LONGEST_DELAY, lambda: _refuse(waiting))
        else:
            entry.waiting += 1
            entry.free_at = start + delay(entry.count + entry.waiting)  # each of them will fail, most likely
            self._after(start - now, lambda: _go_on(entry, waiting))
        return waiting

    def failed(self, host: str, username: bytes) -> None:
        """An attempt was wrong."""
        now, key = self._now(), _key(host, username)
        entry = self._failures.get(key)
        if entry is None or now - entry.last > FORGOTTEN_AFTER:
            entry = self._failures[key] = _Failures()
        entry.count += 1
        entry.last = now
        entry.free_at = max(entry.free_at, now + delay(entry.count))
        self._failures.move_to_end(key)
        if len(self._failures) > MAX_ENTRIES:
            self._failures.popitem(last=False)
        if entry.count == FREE_FAILURES:
            self._log(host, username)

    def succeeded(self, host: str, username: bytes) -> None:
        """An attempt was right: what was wrong before is forgiven."""
        self._failures.pop(_key(host, username), None)

    def _log(self, host: str, username: bytes) -> None:
        now = self._now()
        since, count = self._logged
        if now - since >= 60.0:
            since, count = now, 0
        if count < LOGGED_PER_MINUTE:
            name = for_log(username.decode("utf-8", "replace"))
            _log.warn("{count} failed logins of {name} from {host}", count=FREE_FAILURES, name=name, host=for_log(host))
        self._logged = (since, count + 1)


def delay(failures: int) -> float:
    """Seconds to wait before the next attempt, after so many that failed."""
    if failures < FREE_FAILURES:
        return 0.0
    return min(LONGEST_DELAY, FIRST_DELAY * 2.0 ** min(failures - FREE_FAILURES, 16))


def _key(host: str, username: bytes) -> tuple[str, bytes]:
    # A digest: names are the client's to choose, up to 64 KiB each.
    return host, hashlib.blake2b(username, digest_size=16).digest()


def _go_on(entry: _Failures, waiting: Deferred[None]) -> None:
    entry.waiting -= 1
    if not waiting.called:
        waiting.callback(None)


def _refuse(waiting: Deferred[None]) -> None:
    if not waiting.called:
        waiting.errback(MQTTError("too many failed logins", ReasonCode.SERVER_BUSY))
