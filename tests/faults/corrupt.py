"""Corrupt stores: a hundred ways to damage one, and what ``twistd p2pmqtt`` says to each.

It may start with everything that was there, as its clients see it, or refuse to start: with one line that says why and
an exit code.  Then it is started with ``--recover``, and nothing may be there that was not before.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet.task import Clock

from tests.faults.disk import make_read_only, small_disk
from tests.faults.peer import Peer, is_answered
from tests.faults.processes import Ours
from tests.store.test_corruption import copied, cut, flip, make_original, mix

MAX_SECONDS = 10.0
QUIET = 0.3
COMPLETE = 10.0


def empty(files: list[Path], choose: random.Random) -> None:
    """The database has no byte left."""
    files[0].write_bytes(b"")


def lose_log(files: list[Path], choose: random.Random) -> None:
    """The write-ahead log is missing."""
    files[1].unlink()


def set_version(files: list[Path], choose: random.Random) -> None:
    """Of a version that does not exist yet, or never did."""
    version = choose.choice((0, 99))
    with files[0].open("r+b") as file:
        file.seek(60)
        file.write(version.to_bytes(4, "big"))


def make_foreign(files: list[Path], choose: random.Random) -> None:
    """Text, noise, or the database of another program."""
    kind = choose.choice(("text", "noise", "database"))
    files[0].unlink()
    if kind == "text":
        files[0].write_text("Dear broker, this is not yours.\n" * 100)
    elif kind == "noise":
        files[0].write_bytes(choose.randbytes(20_000))
    else:
        connection = sqlite3.connect(files[0])
        connection.execute("CREATE TABLE session (id INTEGER PRIMARY KEY, name TEXT)")
        connection.close()


def forbid_writing(files: list[Path], choose: random.Random) -> None:
    """The directory is read-only; the files are as they were."""
    make_read_only(files[0].parent)


Damage = Callable[[list[Path], random.Random], None]

KINDS: tuple[tuple[Damage, tuple[str, ...]], ...] = (
    (flip, ("stopped", "killed", "checkpointed")),
    (cut, ("stopped", "killed", "checkpointed")),
    (mix, ("stopped", "killed", "checkpointed")),
    (empty, ("stopped", "killed")),
    (lose_log, ("killed", "checkpointed")),
    (set_version, ("stopped",)),
    (make_foreign, ("stopped", "killed")),
    (forbid_writing, ("stopped", "killed")),
)
"""The damages, and how the broker ended whose store they are done to."""

WEIGHTS = (30, 20, 14, 4, 8, 8, 8, 8)


Waiting = tuple[int, bytes]
"""QoS and payload."""


@dataclass
class Seen:
    """What clients see of a broker: by client id the filters that are heard and what waited, in the order of each QoS;
    and the retained messages by topic.
    """

    filters: dict[str, set[str]] = field(default_factory=dict)
    queues: dict[str, list[Waiting]] = field(default_factory=dict)
    retained: dict[str, bytes] = field(default_factory=dict)

    def is_part_of(self, whole: Seen) -> bool:
        """Nothing but what was there, in its order."""
        return (
            all(filters <= whole.filters[client_id] for client_id, filters in self.filters.items())
            and all(is_subsequence(queue, whole.queues[client_id]) for client_id, queue in self.queues.items())
            and self.retained.items() <= whole.retained.items()
        )


def is_subsequence(some: list[Waiting], whole: list[Waiting]) -> bool:
    """Is the one what is left of the other where things are taken out?"""
    rest = iter(whole)
    return all(one in rest for one in some)


@dataclass
class Result:
    """The tally of all seeds."""

    seeds: int = 0
    whole: int = 0
    refused: int = 0
    recovered: int = 0
    messages_recovered: int = 0
    slowest: float = 0.0
    kinds: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Never a part, never a traceback, never long."""
        return not self.notes and self.whole + self.refused == self.seeds and self.slowest <= MAX_SECONDS

    def __str__(self) -> str:
        return (
            f"{self.seeds} damaged stores: {self.whole} started whole, {self.refused} refused with a reason and exit"
            f" code 1, {len(self.notes)} otherwise; {self.recovered} recovered, with {self.messages_recovered:,}"
            f" messages; slowest start {self.slowest:.2f} s"
        )


class Trial:
    """Damages stores, one a seed."""

    def __init__(self, directory: Path) -> None:
        self.result = Result()
        self._originals = directory
        self._original = cache(self._make_original)

    def _make_original(self, ending: str) -> tuple[Path, Seen]:
        directory = self._originals / ending
        directory.mkdir()
        clock = Clock()
        clock.advance(time.time() - 1e9)  # from the time of a test to now: a session of then has expired
        path, (sessions, retained) = make_original(directory, ending, clock)
        whole = Seen(retained=retained)
        for client_id, (filters, pending, _) in sessions.items():
            whole.filters[client_id] = set(filters)
            whole.queues[client_id] = sorted(((qos, payload) for _, payload, qos in pending), key=itemgetter(0))
        return path, whole

    async def run(self, seed: int) -> None:
        """One damage, one start, and one with ``--recover`` where that was refused."""
        choose = random.Random(seed)
        ((damage, endings),) = choose.choices(KINDS, WEIGHTS)
        original, whole = self._original(choose.choice(endings))
        result = self.result
        result.seeds += 1
        result.kinds[damage.__name__] += 1
        with TemporaryDirectory(prefix="p2pmqtt-faults-") as name:
            directory = Path(name)
            with small_disk(directory, "16m") as disk:
                damage(copied(original, disk), choose)
                broker = Ours(directory, store=disk)
                try:
                    note = await self._try(broker, whole, can_recover=damage is not forbid_writing)
                finally:
                    broker.kill()
                if "Traceback" in broker.log.read_text():
                    note = note or f"a traceback: {broker.last_words()}"
        if note:
            result.notes.append(f"seed {seed} ({damage.__name__}): {note}")

    async def _try(self, broker: Ours, whole: Seen, can_recover: bool) -> str:
        """What is wrong with how the broker takes it; nothing where that is empty."""
        result = self.result
        if await self._starts(broker):
            result.whole += 1
            seen = await look(broker.port, whole)
            return "" if seen == whole else "started with a part"
        code = broker.exit_code()
        reasons = {line for line in broker.log.read_text().splitlines() if line.startswith(f"store {broker.store}")}
        if code != 1 or len(reasons) != 1:
            return f"ended with {code}: {broker.last_words()}"
        if not can_recover and not any("cannot be written" in reason for reason in reasons):
            return f"blames the store: {reasons}"
        result.refused += 1
        if await self._starts(broker, "--recover"):
            seen = await look(broker.port, whole)
            result.recovered += 1
            result.messages_recovered += sum(map(len, seen.queues.values()))
            if "Recovered: " not in broker.log.read_text():
                return "recovered without a word"
            return "" if seen.is_part_of(whole) else "made something up"
        return f"cannot recover: {broker.last_words()}" if can_recover else ""

    async def _starts(self, broker: Ours, *options: str) -> bool:
        started = time.monotonic()
        broker.start(extra=options)
        is_ready = broker.wait_until_ready() and await is_answered(broker.port)
        self.result.slowest = max(self.result.slowest, time.monotonic() - started)
        return is_ready


async def look(port: int, whole: Seen) -> Seen:
    """What the clients of ``whole`` see of the broker now."""
    seen = Seen()
    heard: list[Any] = []
    peers = []
    for client_id in whole.queues:
        queue: list[Waiting] = []
        filters: set[str] = set()

        def arrived(topic: str, payload: bytes, qos: int, queue: list[Waiting] = queue, to: set[str] = filters) -> None:
            heard.append(payload)
            if payload:
                queue.append((qos, payload))
            else:
                to.add(topic)

        peer = Peer(port, client_id, message=arrived)
        peers.append(peer)
        await peer.connect()
        if peer.session_present:
            seen.queues[client_id], seen.filters[client_id] = queue, filters

    def retained(topic: str, payload: bytes, qos: int) -> None:
        heard.append(payload)
        seen.retained[topic] = payload

    reader = Peer(port, "reader", version=4, message=retained)
    await reader.connect(clean=True)
    await reader.subscribe("#", 0)
    await _until_quiet(heard, sum(map(len, whole.queues.values())) + len(whole.retained))
    await reader.unsubscribe("#")
    for queue in seen.queues.values():
        queue.sort(key=itemgetter(0))
    filters = set().union(*whole.filters.values())
    for topic in filters:
        reader.publish_qos0(topic, b"")
    await _until_quiet(heard, len(heard) + sum(map(len, whole.filters.values())))
    for peer in (*peers, reader):
        await peer.drop()
    return seen


async def _until_quiet(heard: list[Any], enough: int) -> None:
    """Until so much was heard, or nothing more for a while."""
    deadline = time.monotonic() + COMPLETE
    count, since = len(heard), time.monotonic()
    while count < enough and time.monotonic() < min(deadline, since + QUIET):
        await asyncio.sleep(0.02)
        if len(heard) > count:
            count, since = len(heard), time.monotonic()


async def damage_stores(seeds: int, tell: Callable[[str], None]) -> Result:
    """Try so many seeds."""
    with TemporaryDirectory(prefix="p2pmqtt-faults-") as name:
        trial = Trial(Path(name))
        for seed in range(seeds):
            await trial.run(seed)
            tell(str(trial.result))
        return trial.result
