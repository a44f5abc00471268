"""Twenty kills; ``python -m tests.faults --kills 200`` is the long version."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.crash import CRUCIAL
from tests.faults.kills import KillLoop
from tests.faults.processes import Ours

pytestmark = pytest.mark.slow

KILLS = 10
LONGEST = 0.5


@pytest.mark.parametrize("durability", ["commit", "full"])
def test_nothing_acknowledged_is_lost(tmp_path: Path, durability: str) -> None:
    loop = KillLoop(Ours(tmp_path, durability), seed=1, longest=LONGEST)
    result = asyncio.run(loop.run(KILLS, CRUCIAL, lambda text: None))
    totals = result.ledger.totals()
    assert result.is_clean, (totals, result.notes)
    assert result.kills == KILLS
    assert totals["qos 1 acked"] > KILLS
    assert totals["qos 2 acked"] > KILLS
