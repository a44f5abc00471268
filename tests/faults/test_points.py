"""A few crash points, once each; ``python -m tests.faults --points 25`` is the long version."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.faults.crash import POINTS
from tests.faults.points import PointResult, hit_all, table

IN_A_TRANSACTION, AT_A_START, AT_A_STOP = "commit.before", "restored.before", "checkpoint.after"


def test_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    points = [IN_A_TRANSACTION, AT_A_START, AT_A_STOP]
    assert set(points) < set(POINTS)
    results = list(hit_all(points, 1, "commit", tmp_path, seed=1, jobs=len(points)))
    assert sorted(result.point for result in results) == sorted(points)
    for result in results:
        assert result.is_clean, str(result)
        assert result.totals["qos 1 acked"]
        assert result.totals["qos 2 acked"]
    assert not any(tmp_path.iterdir()), "kept only where something is wrong"


def test_what_is_wrong_is_told() -> None:
    totals = {"qos 1 acked": 5, "qos 1 lost": 0, "qos 2 acked": 7}
    clean = PointResult("ours", "open.after", 25, 25, 51, totals, 0.5, [], "")
    assert clean.is_clean
    assert str(clean) == "ours: open.after: 25 of 25 times, 5+7 acknowledged, nothing lost"
    unreached = replace(clean, point="end.after", hits=0)
    assert not unreached.is_clean
    lossy = replace(clean, totals={**totals, "qos 1 lost": 1}, kept="/tmp/it")
    assert not lossy.is_clean
    assert str(lossy).endswith("{'qos 1 lost': 1} (kept: /tmp/it)")
    assert not replace(clean, notes=["a client waited in vain"]).is_clean
    head, line = table([clean, unreached]).splitlines()
    assert head.split()[:3] == ["broker", "points", "reached"]
    assert line.split()[:6] == ["ours", "2", "1", "102", "25", "10"]
