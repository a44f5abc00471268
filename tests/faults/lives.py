"""Lives of a broker on one store: clients at work until it is killed, a new start, and the account of everything.

What the loops of ``kills`` and ``points`` have in common.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.faults.account import reconcile
from tests.faults.clients import Clients
from tests.faults.ledger import Ledger, bad
from tests.faults.peer import Gone, Peer
from tests.faults.processes import BrokerProcess

ACCOUNT_TIMEOUT = 180.0
END_TIMEOUT = 5.0
"""Seconds until a process whose connections are closed has ended."""

REAPING = 1.0
"""Seconds between the end of its connections and that of a process that killed itself, at most."""


class Over(Exception):
    """The loop cannot go on; why is in the notes."""


@dataclass
class Result:
    """What a loop has found; ``slowest_start`` in seconds, from the process's start to the first CONNACK.

    ``kills`` are the lives that SIGKILL ended, ours or that of a crash point, at work, at a start or at a stop: not
    those that ended in order, nor the idle ones that made room for the next.
    """

    name: str
    kills: int = 0
    at_points: int = 0
    points: set[str] = field(default_factory=set)
    slowest_start: float = 0.0
    notes: list[str] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def is_clean(self) -> bool:
        """Nothing acknowledged was lost, nothing came twice."""
        return not self.notes and not bad(self.ledger.totals())


class Lives:
    """One broker after the other, all on one directory."""

    def __init__(self, broker: BrokerProcess, seed: int) -> None:
        self.broker = broker
        self.choose = random.Random(seed)
        self.result = Result(broker.name, notes=broker.notes)  # the broker's own tell how it ended
        self._clients = Clients(broker, self.result.ledger, self.choose, self.result.notes)

    async def begin(self) -> None:
        """The first life.  Like all else here it raises ``Over``."""
        await self.start()
        with self._noted("at the begin"):
            await self._clients.begin()

    async def start(self) -> None:
        """Start it, and wait until it answers, which it has to."""
        self.broker.start()
        if not await self._is_answered():
            self.broker.kill()  # its notes tell how it ended
            raise Over

    async def start_to_crash(self, point: str, count: int) -> bool:
        """Start it to die at the crash point's so manieth call; False where that was before it answered."""
        self.broker.start(crash_at=f"{point}:{count}")
        if await self._is_answered():
            return True
        self.broker.kill()  # waits: the port of one that is dying can still be open
        self._count()
        return False

    async def _is_answered(self) -> bool:
        """Wait for the first CONNACK; the time from the process's start to that counts.  False where it died."""
        started = time.monotonic()
        probe = Peer(self.broker.port, "probe", version=4)
        with self._noted("at a start"):
            try:
                if not self.broker.wait_until_ready():
                    return False
                await probe.connect(clean=True)
            except Gone:  # a port is open before the store behind it is read
                if await self._has_ended():
                    return False
                raise
            except asyncio.TimeoutError:
                await probe.drop()
                raise
        self.result.slowest_start = max(self.result.slowest_start, time.monotonic() - started)
        with contextlib.suppress(Gone):
            await probe.disconnect()
        return True

    async def _has_ended(self) -> bool:
        """Or will have in a moment."""
        end = time.monotonic() + END_TIMEOUT
        while self.broker.is_running and time.monotonic() < end:  # noqa: ASYNC110  # a process tells no event
            await asyncio.sleep(0.002)
        return not self.broker.is_running

    async def live(self, longest: float, is_stopped: bool = False) -> None:
        """Have the clients work until it has died, or for so many seconds; then it is killed, or stopped in order."""
        async with self._clients.at_work():
            end = time.monotonic() + longest
            while time.monotonic() < end and self.broker.is_running:  # noqa: ASYNC110  # a process tells no event
                await asyncio.sleep(0.002)
            was_running, now = self.broker.is_running, time.monotonic()
            if is_stopped:
                self.broker.stop()
            else:
                self.broker.kill()
            self._clients.broker_ended(now if was_running and not self.broker.has_crashed else now - REAPING)
        self._count()

    def _count(self) -> None:
        """The life that is over."""
        self.result.kills += self.broker.was_killed
        if not self.broker.has_ended_well:
            raise Over

    def died_at(self, point: str) -> bool:
        """Was it the point that ended it?  Counted."""
        result = self.result
        if not (point and self.broker.was_killed and self.broker.has_crashed):
            return False
        result.at_points += 1
        result.points.add(point)
        return True

    async def account(self) -> None:
        """Start again, and bring the ledger up to date."""
        await self.start()
        with self._noted("at the account"):
            await asyncio.wait_for(reconcile(self._clients, self.result.ledger), ACCOUNT_TIMEOUT)

    @contextlib.contextmanager
    def _noted(self, when: str) -> Iterator[None]:
        """A broker that hangs, or sends its clients away."""
        try:
            yield
        except (Gone, TimeoutError, asyncio.TimeoutError) as error:
            what = "a client was sent away" if isinstance(error, Gone) else "waited in vain"
            told = f": {error}" if str(error) else ""
            self.result.notes.append(f"after {self.result.kills} kills, {when}: {what}{told}")
            raise Over from error
