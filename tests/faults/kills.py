"""Kill loops: SIGKILL at any moment or at a crash point, a new start, and an account of everything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tests.faults.crash import AT_STOP
from tests.faults.ledger import bad
from tests.faults.lives import Lives, Over, Result
from tests.faults.processes import BrokerProcess
from tests.faults.tables import aligned


class KillLoop:
    """The loop for one broker."""

    def __init__(self, broker: BrokerProcess, seed: int, longest: float) -> None:
        self._lives = Lives(broker, seed)
        self._longest = longest
        self.result = self._lives.result

    async def run(self, kills: int, points: Sequence[str], tell: Callable[[str], None]) -> Result:
        """Kill so often; at some of ``points`` by itself, most of the time, where there are any."""
        lives, choose = self._lives, self._lives.choose
        try:
            await lives.begin()
            while self.result.kills < kills:
                point = choose.choice(points) if points and choose.random() < 0.7 else ""
                await self._kill(point)
                await lives.account()
                tell(str(self))
        except Over:
            pass  # it is in the notes
        finally:
            lives.broker.kill()
        if self.result.kills != kills:
            self.result.notes.append(f"killed {self.result.kills} times, not {kills}")
        return self.result

    async def _kill(self, point: str) -> None:
        lives, choose = self._lives, self._lives.choose
        if point:
            lives.broker.stop() if choose.random() < 0.2 else lives.broker.kill()
            count = choose.choice((1, 1, 2, 3, 5, 10, 30))
            if not await lives.start_to_crash(point, count):
                lives.died_at(point)
                return
        await lives.live(choose.uniform(0.1, self._longest), is_stopped=point.partition(".")[0] in AT_STOP)
        lives.died_at(point)

    def __str__(self) -> str:
        totals = self.result.ledger.totals()
        acknowledged = f"{totals['qos 1 acked']}+{totals['qos 2 acked']} acknowledged"
        return f"{self.result.name}: {self.result.kills} kills, {acknowledged}, {bad(totals) or 'nothing lost'}"


def table(results: list[Result]) -> str:
    """One line a broker."""
    return aligned(
        [
            {
                "broker": result.name,
                "kills": str(result.kills),
                "at points": str(result.at_points),
                **{name: f"{count:,}" for name, count in result.ledger.totals().items()},
                "slowest start": f"{result.slowest_start:.2f} s",
            }
            for result in results
        ]
    )
