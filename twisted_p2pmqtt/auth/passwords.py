"""PasswordFile: users and their hashed passwords, in mosquitto's format.

A line is ``user:hash``.  Whether a user exists must not be measurable: an unknown one costs the hash of some known one,
always the same for the same name.  A fleet that reconnects must not wait for a hash each time: the keyed digest of what
was right is remembered for some minutes, and equal attempts that come together share one hash.
"""

from __future__ import annotations

import hmac
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

from twisted_p2pmqtt.auth.files import Problems, numbered_lines, read_file
from twisted_p2pmqtt.auth.hashes import PasswordHash, Pbkdf2Hash, parse_hash

T = TypeVar("T")

REMEMBERED_SECONDS = 600.0
REMEMBERED_USERS = 10_000

_NO_USERS = Pbkdf2Hash(101, b"nobody", bytes(64))
"""What an attempt costs where the file has no user at all."""


class Runner(Protocol):
    """Where hashing is done: ``HashPool``, or in a test right here."""

    def run(self, work: Callable[..., T], *arguments: object) -> Deferred[T]:
        """Give what the work gives; may raise ``MQTTError`` to refuse."""


def parse_passwords(data: bytes, path: str) -> dict[bytes, PasswordHash]:
    """Hashes by user name; ``BadFile`` with every bad line."""
    problems = Problems(path)
    hashes: dict[bytes, PasswordHash] = {}
    for number, line in numbered_lines(data, problems):
        name, colon, text = line.partition(":")
        name = name.strip(" ")
        if not colon or not name:
            problems.add(number, "must be a user name, a colon and a hashed password")
            continue
        if name.encode() in hashes:
            problems.add(number, f"user {name!r} stands here a second time")
            continue
        try:
            hashes[name.encode()] = parse_hash(text.strip(" "))
        except ValueError as error:
            problems.add(number, f"user {name!r}: {error}")
    problems.check()
    return hashes


class _Attempt:
    """One hash on its way, and all who wait for it; given up when nobody does any more."""

    __slots__ = ("_result", "_waiting", "work")

    def __init__(self) -> None:
        self.work: Deferred[bool] | None = None
        self._waiting: list[Deferred[bool]] = []
        self._result: bool | Failure | None = None

    def share(self) -> Deferred[bool]:
        """Another who wants to know."""
        waiting: Deferred[bool] = Deferred(self._give_up)
        if self._result is not None:
            waiting.callback(self._result)  # a Failure is an errback
        else:
            self._waiting.append(waiting)
        return waiting

    def _give_up(self, waiting: Deferred[bool]) -> None:
        self._waiting.remove(waiting)
        if not self._waiting and self.work is not None:
            self.work.cancel()

    def finish(self, result: bool | Failure) -> None:
        """Tell everybody."""
        self._result = result
        for waiting in self._waiting:
            waiting.callback(result)
        self._waiting = []


class PasswordFile:
    """The users of one file.  ``runner`` does the hashing; ``now`` is a monotonic clock in seconds."""

    def __init__(self, path: str, runner: Runner, now: Callable[[], float] = time.monotonic) -> None:
        """``BadFile`` where the file cannot be used."""
        self._path = path
        self._runner = runner
        self._now = now
        self._secret = os.urandom(32)
        self._right: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()
        self._running: dict[bytes, _Attempt] = {}
        self._hashes: dict[bytes, PasswordHash] = {}
        self._names: list[bytes] = []
        self.reload()

    def reload(self) -> None:
        """Read the file again; on ``BadFile`` everything stays as it was."""
        hashes = parse_passwords(read_file(self._path), self._path)
        self._hashes, self._names = hashes, sorted(hashes)
        self._right.clear()

    def knows(self, username: bytes) -> bool:
        """Is there such a user?  Not to be told to the client."""
        return username in self._hashes

    def verify(self, username: bytes, password: bytes) -> Deferred[bool]:
        """Is this the user's password?  Raises ``MQTTError`` where too many ask."""
        digest = hmac.digest(self._secret, len(username).to_bytes(4, "big") + username + password, "sha256")
        if self._is_remembered(username, digest):
            return succeed(True)
        attempt = self._running.get(digest)
        if attempt is None:
            attempt = self._begin(username, password, digest)
        return attempt.share()

    def _begin(self, username: bytes, password: bytes, digest: bytes) -> _Attempt:
        known = self._hashes.get(username)
        work = (known or self._decoy(username)).verify
        attempt = self._running[digest] = _Attempt()

        def verified(is_right: bool) -> bool:
            # A file that was read again in the meantime may know better.
            is_right = is_right and known is not None and self._hashes.get(username) is known
            if is_right:
                self._remember(username, digest)
            return is_right

        def finished(result: bool | Failure) -> None:
            del self._running[digest]
            attempt.finish(result)

        try:
            attempt.work = self._runner.run(work, password)
        except BaseException:
            del self._running[digest]
            raise
        attempt.work.addCallback(verified).addBoth(finished)
        return attempt

    def _decoy(self, username: bytes) -> PasswordHash:
        """Some user's hash for one who does not exist: the cost of an attempt tells nothing."""
        if not self._names:
            return _NO_USERS
        number = int.from_bytes(hmac.digest(self._secret, username, "sha256")[:8], "big")
        return self._hashes[self._names[number % len(self._names)]]

    def _is_remembered(self, username: bytes, digest: bytes) -> bool:
        right, until = self._right.get(username, (b"", 0.0))
        return hmac.compare_digest(right, digest) and self._now() < until

    def _remember(self, username: bytes, digest: bytes) -> None:
        self._right[username] = (digest, self._now() + REMEMBERED_SECONDS)
        self._right.move_to_end(username)
        if len(self._right) > REMEMBERED_USERS:
            self._right.popitem(last=False)
