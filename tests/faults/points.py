"""Points: every crash point so many times, each followed by a new start and the account of everything.

Each point has a broker, a directory and clients of its own, and several are at it side by side.  A round is: work on
the running broker, SIGKILL in the middle of it, a start with the crash point, work until that is reached, a start, the
account.  So what the point meets is a store as a kill leaves it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tests.faults.crash import AT_START, AT_STOP
from tests.faults.forks import Forked
from tests.faults.ledger import bad
from tests.faults.lives import Lives, Over
from tests.faults.tables import aligned

COUNTS = (1, 2, 3, 5, 10, 30)
"""At which of its calls a point kills; the first where it is at a start or a stop, or where not so many come."""

MISSES = 8
"""So often in a row it may not be reached; by then all of ``COUNTS`` have been tried."""

BEFORE, WORK, TO_POINT = 0.1, 0.3, 2.0
"""Seconds of work: at least and at most before a kill or a stop, and at most until a point is reached."""


@dataclass(frozen=True)
class PointResult:
    """What came of one point; ``slowest_start`` in seconds, ``kept`` where its store is, if anything was wrong."""

    broker: str
    point: str
    wanted: int
    hits: int
    kills: int
    totals: dict[str, int]
    slowest_start: float
    notes: list[str]
    kept: str

    @property
    def is_clean(self) -> bool:
        """Nothing acknowledged was lost, nothing came twice, and it was reached as often as it should be."""
        return not self.notes and not bad(self.totals) and self.hits == self.wanted

    def __str__(self) -> str:
        acknowledged = f"{self.totals['qos 1 acked']:,}+{self.totals['qos 2 acked']:,} acknowledged"
        found = "; ".join([*self.notes, str(bad(self.totals) or "nothing lost")])
        kept = f" (kept: {self.kept})" if self.kept else ""
        return f"{self.broker}: {self.point}: {self.hits} of {self.wanted} times, {acknowledged}, {found}{kept}"


class PointLoop:
    """The rounds at one point."""

    def __init__(self, point: str, durability: str, directory: Path, seed: int) -> None:
        self._point = point
        self._name = point.partition(".")[0]
        self._directory = directory
        self._broker = Forked(directory, durability)
        self._lives = Lives(self._broker, seed)
        self._most = 1 if self._name in (*AT_START, *AT_STOP) else COUNTS[-1]
        self.hits = 0
        self.result = self._lives.result

    async def run(self, times: int) -> None:
        """Until it was hit so often, or cannot be, or something is wrong."""
        misses = 0
        try:
            await self._lives.begin()
            while self.hits < times and misses < MISSES and self.result.is_clean:
                is_hit = await self._round()
                misses = 0 if is_hit else misses + 1
        except Over:
            pass  # it is in the notes
        except Exception as error:
            self.result.notes.append(f"{type(error).__name__}: {error}")
        finally:
            self._broker.kill()
            self.result.notes += self.result.ledger.faults()

    async def _round(self) -> bool:
        lives, choose = self._lives, self._lives.choose
        await lives.live(choose.uniform(BEFORE, WORK))
        count = choose.choice([count for count in COUNTS if count <= self._most])
        if await lives.start_to_crash(self._point, count) and self._name not in AT_START:
            is_stopped = self._name in AT_STOP
            await lives.live(choose.uniform(BEFORE, WORK) if is_stopped else TO_POINT, is_stopped)
        self._broker.kill()  # one that has come through its start
        is_hit = lives.died_at(self._point)
        self.hits += is_hit
        if not is_hit:
            self._most = max(1, count - 1)
        self._keep_store()
        await lives.account()
        return is_hit

    def _keep_store(self) -> None:
        """As it is now, for whoever wants to know why something was lost."""
        kept = self._directory / "killed"
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for path in self._directory.glob("store.db*"):
            shutil.copy(path, kept)


def hit(point: str, times: int, durability: str, root: Path, seed: int) -> PointResult:
    """Hit one point so often; its directory stays only where a promise was broken."""
    directory = root / f"{durability}-{point}"
    directory.mkdir()
    loop = PointLoop(point, durability, directory, seed)
    asyncio.run(loop.run(times))
    result = loop.result
    if result.is_clean:
        shutil.rmtree(directory)
    kept = "" if result.is_clean else str(directory)
    totals = result.ledger.totals()
    return PointResult(
        result.name, point, times, loop.hits, result.kills, totals, result.slowest_start, result.notes, kept
    )


def hit_all(
    points: Sequence[str], times: int, durability: str, root: Path, seed: int, jobs: int
) -> Iterator[PointResult]:
    """Hit every point so often, ``jobs`` of them side by side; a result as soon as it is there.

    In ``root`` stays what is needed to look into what went wrong.
    """
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:  # processes that have nothing of this one's
        under_way = [
            pool.submit(hit, point, times, durability, root, seed + number) for number, point in enumerate(points)
        ]
        for future in as_completed(under_way):
            yield future.result()


def table(results: Sequence[PointResult]) -> str:
    """One line a broker."""
    rows = []
    for broker in dict.fromkeys(result.broker for result in results):
        of_it = [result for result in results if result.broker == broker]
        rows.append(
            {
                "broker": broker,
                "points": str(len(of_it)),
                "reached": str(sum(result.hits > 0 for result in of_it)),
                "kills": f"{sum(result.kills for result in of_it):,}",
                "at points": f"{sum(result.hits for result in of_it):,}",
                **{name: f"{sum(result.totals[name] for result in of_it):,}" for name in of_it[0].totals},
                "slowest start": f"{max(result.slowest_start for result in of_it):.2f} s",
            }
        )
    return aligned(rows)
