"""Costs in units of the reference loop, on a machine that others use too.

Subject and loop run in turn, in bursts of about a millisecond; of each the fastest burst counts, for whatever disturbs
makes it only slower.  CPU time, not time: waiting costs nothing.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from benchmarks.startup import import_cost
from tests.benchmarks.paths import PATHS
from tests.benchmarks.reference import loop

ROOT = Path(__file__).resolve().parents[2]
FIGURES = Path(__file__).with_name("figures.json")

LIMIT = 1.5
"""Times the recorded figure at which a path has become too expensive."""

OTHER_PYTHON = 1.25
"""Times more, where the figures are another Python's: each has made other things faster."""

BURSTS = 60
LOOPS = 1000
IMPORTS = 5


class Cost(NamedTuple):
    """What one message costs: in reference loops, and in microseconds here and now."""

    units: float
    microseconds: float


def measure(name: str, bursts: int = BURSTS) -> Cost:
    """One round of one path, in this process."""
    subject = PATHS[name].make()
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        subject()
        loop(LOOPS)
        message = unit = float("inf")
        for _ in range(bursts):
            start = time.process_time()
            loop(LOOPS)
            unit = min(unit, (time.process_time() - start) / LOOPS)
            message = min(message, subject())
    finally:
        if was_enabled:
            gc.enable()
    return Cost(message / unit, message * 1e6)


def measure_apart(names: Iterable[str], rounds: int = 1) -> dict[str, list[Cost]]:
    """So many rounds of each path, in a process of their own: no tracer, no objects of other tests, a fixed hash."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("COV", "PYTEST"))}
    command = [sys.executable, "-m", "tests.benchmarks", "--rounds", str(rounds), "--json", *names]
    done = subprocess.run(
        command, cwd=ROOT, env=environment | {"PYTHONHASHSEED": "0"}, stdout=subprocess.PIPE, text=True, check=True
    )
    return {name: [Cost(*cost) for cost in costs] for name, costs in json.loads(done.stdout).items()}


def typical(costs: list[Cost]) -> Cost:
    """The median round."""
    return Cost(statistics.median(cost.units for cost in costs), statistics.median(cost.microseconds for cost in costs))


def import_share() -> float:
    """What importing the package costs, to what importing Twisted's own modules costs; in fresh processes."""
    costs = [import_cost() for _ in range(IMPORTS)]
    return min(cost.ours for cost in costs) / min(cost.twisted for cost in costs)


def recorded_import_share() -> float:
    """The figure in the repository."""
    share: float = json.loads(FIGURES.read_text())["import_share"]
    return share


def recorded() -> dict[str, float]:
    """The figures in the repository: units by path."""
    units: dict[str, float] = json.loads(FIGURES.read_text())["units"]
    return units


def limit(name: str) -> float:
    """The most units that a message may cost on this path, by this Python."""
    figures = json.loads(FIGURES.read_text())
    most: float = LIMIT * figures["units"][name]
    is_same = figures["python"].split(".")[:2] == platform.python_version().split(".")[:2]
    return most if is_same else most * OTHER_PYTHON


def record(costs: dict[str, Cost], share: float) -> None:
    """Write them; paths that were not measured keep theirs, paths that are no more go."""
    old = recorded() if FIGURES.exists() else {}
    units = old | {name: round(cost.units, 2) for name, cost in costs.items()}
    figures = {
        "note": "written by python -m tests.benchmarks --record; units are reference loops a message",
        "python": platform.python_version(),
        "import_share": round(share, 2),
        "units": {name: units[name] for name in PATHS if name in units},
    }
    FIGURES.write_text(json.dumps(figures, indent=2) + "\n")
