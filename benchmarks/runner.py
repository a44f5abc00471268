"""Runs rows: for every run and every side a fresh broker on one core and a fresh load generator on the other, in turn.

What comes out is `Line`s, one for each figure of a row: medians, the ratio, and whether the target was met.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable

import twisted
from benchmarks import singles
from benchmarks.brokers import LOAD_CORE, ROOT, BrokerSpec, child_conditions, running, version
from benchmarks.load import LoadSpec, Result
from benchmarks.probes import NotAvailable
from benchmarks.rows import Row, Side, Target

QUICK_SCALE = 10
LOAD_TIMEOUT = 240.0


class RowFailed(Exception):
    """The row could not be measured; the text says why."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long and how often. `quick`: a tenth of the connections and extra subscriptions; a check, not a figure."""

    runs: int = 3
    seconds: float = 3.0
    warm: float = 0.5
    quick: bool = False

    def apply(self, load: LoadSpec) -> LoadSpec:
        load = dataclasses.replace(load, time=self.seconds, warm=self.warm)
        if not self.quick:
            return load
        connections, extra = load.connections // QUICK_SCALE, load.extra_subscriptions // QUICK_SCALE
        return dataclasses.replace(load, connections=connections, extra_subscriptions=extra)


@dataclasses.dataclass(frozen=True)
class Line:
    """One figure of a row. `other` is the side compared with; `ratio` is ours to theirs, the median over the runs."""

    row: str
    title: str
    target: Target
    subject: str
    value: float
    other: str | None
    other_value: float | None
    ratio: float | None
    cpu: dict[str, tuple[float, float]]
    lost: dict[str, int]
    versions: dict[str, str]

    @property
    def passed(self) -> bool | None:
        """Whether the target was met; None where there is none."""
        if self.target.bound is None:
            return None
        judged = self.value if self.target.against is None else self.ratio
        return judged is not None and self.target.met(judged)

    @property
    def word(self) -> str:
        return {True: "WON", False: "LOST", None: ""}[self.passed]

    def as_json(self) -> list[str]:
        """One line of JSON for each broker."""
        common = {"row": self.row, "title": self.title, "unit": self.target.unit, "higher": self.target.higher}
        ours = {
            "broker": self.subject,
            "version": self.versions[self.subject],
            "value": self.value,
            "pass": self.passed,
            "target": self.target.bound,
            "target_against": self.target.against,
            "ratio": self.ratio,
            "ratio_to": self.other,
            "python": platform.python_version(),
            "twisted": twisted.__version__,
        }
        lines = [common | ours | self._load_of(self.subject)]
        if self.other is not None:
            theirs = {"broker": self.other, "version": self.versions[self.other], "value": self.other_value}
            theirs["pass"] = None
            lines.append(common | theirs | self._load_of(self.other))
        return [json.dumps(line) for line in lines]

    def _load_of(self, side: str) -> dict[str, float]:
        broker, load = self.cpu[side]
        return {"broker_cpu": round(broker, 3), "load_cpu": round(load, 3), "lost": self.lost[side]}


def measure(row: Row, plan: Plan, progress: Callable[[str], None] = lambda text: None) -> list[Line]:
    """Run the row; its lines. Raises NotAvailable or RowFailed."""
    results: dict[str, list[Result]] = {name: [] for name in row.sides}
    for run in range(plan.runs):
        for name, side in row.sides.items():
            progress(f"{row.name}: {name}, run {run + 1} of {plan.runs}")
            results[name].append(run_side(side, plan))
    return [_line(row, target, results) for target in row.targets]


def run_side(side: Side, plan: Plan) -> Result:
    """One broker, started for this, under one load."""
    if side.load.mode in singles.MODES:
        singles.compiled(singles.SOURCE)  # without a compiler it is not the broker that is missing
    try:
        with running(side.broker) as broker:
            spec = dataclasses.replace(
                plan.apply(side.load), port=broker.port, pid=broker.pid, transport=side.broker.transport
            )
            return start_load(spec)
    except NotAvailable as error:
        if side.broker in (BrokerSpec("ours"), BrokerSpec("mosquitto")):
            raise RowFailed(f"{side.broker.name} does not start: {error}") from error
        raise NotAvailable(f"{side.broker.name}: {error}") from error
    except RuntimeError as error:
        raise RowFailed(str(error)) from error


def start_load(spec: LoadSpec) -> Result:
    """The load generator in a process of its own, on its own core."""
    if spec.mode in singles.MODES:
        command = singles.command(spec)
    else:
        command = [sys.executable, "-m", "benchmarks.load", json.dumps(dataclasses.asdict(spec))]
    try:
        with child_conditions(LOAD_CORE):
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        output, errors = process.communicate(timeout=LOAD_TIMEOUT + spec.time)
    except subprocess.TimeoutExpired as error:
        process.kill()
        process.communicate()
        raise RowFailed("the load generator did not end") from error
    try:
        result: Result = json.loads(output)
    except ValueError:
        raise RowFailed(f"the load generator failed: {errors.strip()[-300:]}") from None
    if "error" in result:
        raise RowFailed(str(result["error"]))
    return result


def _line(row: Row, target: Target, results: dict[str, list[Result]]) -> Line:
    subject = next(iter(row.sides))
    other = target.against or next((name for name in row.sides if name != subject), None)
    values = {name: [result[target.metric] for result in runs] for name, runs in results.items()}
    ratio = None
    if other is not None:
        pairs = zip(values[subject], values[other], strict=True)
        ratios = [ours / theirs for ours, theirs in pairs if theirs > 0]
        ratio = statistics.median(ratios) if ratios else None
    shown = [subject] if other is None else [subject, other]
    return Line(
        row=row.name,
        title=row.title,
        target=target,
        subject=subject,
        value=statistics.median(values[subject]),
        other=other,
        other_value=statistics.median(values[other]) if other is not None else None,
        ratio=ratio,
        cpu={name: (_median(results[name], "broker_cpu"), _median(results[name], "load_cpu")) for name in shown},
        lost={name: int(max(result["lost"] for result in results[name])) for name in shown},
        versions={name: version(row.sides[name].broker.name) for name in shown},
    )


def _median(results: list[Result], key: str) -> float:
    return statistics.median(result[key] for result in results)
