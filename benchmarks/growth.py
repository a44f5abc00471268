"""`python -m benchmarks.growth`: how cost grows with connections and with subscriptions. Ours alone; the shape counts.

Each point is a fresh broker under a closed loop of 64 byte messages, 2,000 in flight over all clients, QoS 0:

- busy: 1 to 5,000 pairs, every connection at work, P2P. The more there are, the fewer messages each has in flight.
- idle: 10 pairs at work, P2P, beside 1 to 10,000 connections that stand idle with one subscription each.
- subscriptions: 10 pairs at work over subscriptions, beside 100 to 1,000,000 that match nothing, one in ten a wildcard;
  a client holds a thousand of them.

CPU is that of the broker per message delivered; memory is what is resident at the end.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.load import LoadSpec
from benchmarks.rows import OURS, P2P_TOPIC, PAIRS, SUBSCRIBED, Side
from benchmarks.runner import Plan, RowFailed, run_side

BUSY = (1, 5, 50, 500, 5000)
IDLE = (1, 10, 100, 1000, 10_000)
SUBSCRIPTIONS = (100, 1000, 10_000, 100_000, 1_000_000)
QUICK = {"busy": 3, "idle": 4, "subscriptions": 3}
TITLES = {
    "busy": "connections, all at work",
    "idle": "connections that stand idle",
    "subscriptions": "subscriptions that match nothing",
}


@dataclasses.dataclass(frozen=True)
class Point:
    """One measurement; `n` is what grows, `each` the bytes of memory that one more costs, against the first point."""

    series: str
    n: int
    us: float
    per_s: float
    rss: float
    made_per_s: float = 0.0
    each: float = 0.0


def _busy(pairs: int) -> LoadSpec:
    return dataclasses.replace(PAIRS, topic=P2P_TOPIC, publishers=pairs, subscribers=pairs)


def _idle(connections: int) -> LoadSpec:
    return dataclasses.replace(PAIRS, topic=P2P_TOPIC, connections=connections)


def _subscriptions(count: int) -> LoadSpec:
    return dataclasses.replace(SUBSCRIBED, extra_subscriptions=count)


SERIES: dict[str, tuple[tuple[int, ...], Callable[[int], LoadSpec]]] = {
    "busy": (BUSY, _busy),
    "idle": (IDLE, _idle),
    "subscriptions": (SUBSCRIPTIONS, _subscriptions),
}


def measure(series: str, n: int, plan: Plan) -> Point:
    """One point, the run in the middle by its CPU; raises RowFailed."""
    runs = sorted((_run(series, n, plan) for _ in range(plan.runs)), key=lambda point: point.us)
    return runs[len(runs) // 2]


def _run(series: str, n: int, plan: Plan) -> Point:
    result = run_side(Side(OURS, SERIES[series][1](n)), plan)
    per_s = result["delivered_per_s"]
    if result["lost"] or not per_s:
        raise RowFailed(f"lost {result['lost']:.0f}, {per_s:.0f} messages/s")
    holding = result["holding_s"]
    return Point(
        series=series,
        n=2 * n if series == "busy" else n,
        us=result["broker_cpu"] / per_s * 1e6,
        per_s=per_s,
        rss=result["broker_rss_kib"] * 1024,
        made_per_s=n / holding if series == "subscriptions" and holding else 0.0,
    )


def with_memory_each(points: list[Point]) -> list[Point]:
    """The points of one series with what one more costs, from the first one up."""
    first = points[0]
    return [first] + [
        dataclasses.replace(point, each=(point.rss - first.rss) / (point.n - first.n)) for point in points[1:]
    ]


def table(points: Iterable[Point]) -> list[str]:
    """Markdown, one table a series."""
    lines: list[str] = []
    points = list(points)
    for series, title in TITLES.items():
        mine = [point for point in points if point.series == series]
        if not mine:
            continue
        lines += ["", f"| {title} | CPU, us a message | messages/s | memory, MiB | bytes for one more |"]
        lines += ["| ---: | ---: | ---: | ---: | ---: |"]
        for point in mine:
            # A few more weigh less than what an allocator takes at once.
            each = f"{point.each:,.0f}" if point.n >= 1000 and point.each > 0 else ""
            lines.append(f"| {point.n:,} | {point.us:.2f} | {point.per_s:,.0f} | {point.rss / 2**20:,.1f} | {each} |")
        if mine[-1].made_per_s:
            lines += ["", f"{mine[-1].made_per_s:,.0f} subscriptions are made in a second while there are many."]
    return lines[1:]


def read(path: Path) -> list[Point]:
    """What --json wrote."""
    return [Point(**json.loads(line)) for line in path.read_text().splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description="How cost grows.")
    parser.add_argument("--series", nargs="+", choices=list(SERIES), default=list(SERIES), help="only these")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each point, of which the median counts (3)")
    parser.add_argument("--time", type=float, metavar="S", help="seconds measured in each run (2)")
    parser.add_argument("--quick", action="store_true", help="one run of one second, and not the largest points")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write one line of JSON a point")
    options = parser.parse_args()
    runs, seconds = (1, 1.0) if options.quick else (3, 2.0)
    plan = Plan(options.runs or runs, options.time or seconds)
    points: list[Point] = []
    failed = False
    for series in options.series:
        mine = []
        for n in SERIES[series][0][: QUICK[series] if options.quick else None]:
            print(f"{series}: {n:,}", file=sys.stderr, flush=True)
            try:
                mine.append(measure(series, n, plan))
            except (RowFailed, OSError) as error:
                failed = True
                print(f"{series} {n:,}: FAILED: {error}", file=sys.stderr)
        points += with_memory_each(mine) if mine else []
    print("\n".join(table(points)))
    if options.json:
        options.json.write_text("".join(json.dumps(dataclasses.asdict(point)) + "\n" for point in points))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
