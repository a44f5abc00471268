"""A chart of the ratios, as SVG, from what `--json` wrote: `python -m benchmarks.chart results.json > chart.svg`.

One bar for each figure that was compared with another broker. Bars start at 1, equal speed, and grow to the right where
ours is the better one, whether more is better (messages/s) or less (latency). The scale is logarithmic: twice as good
and half as good are equally long. A small line marks the target.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.svg import FAINT, INK, document, text, upright

WIDTH, LABELS, RIGHT = 1070, 530, 70
BAR, GAP, TOP, BOTTOM = 16, 8, 56, 34
BETTER, WORSE = "#2f7d4f", "#b5483a"


@dataclasses.dataclass(frozen=True)
class Bar:
    """`times` better than the other broker: below 1, worse."""

    label: str
    times: float
    target: float | None


def read_bars(lines: Iterable[str]) -> list[Bar]:
    """The bars of a --json file's lines; figures that were not compared, or only with ourselves, have none."""
    bars = []
    for line in lines:
        entry = json.loads(line)
        other = entry.get("ratio_to")
        if not entry.get("ratio") or other is None or other.startswith("our"):
            continue
        target = entry["target"] if entry["target_against"] == other else None
        better = entry["higher"]
        unit = "" if entry["unit"] == "messages/s" else f" ({entry['unit']})"
        bars.append(
            Bar(
                label=entry["title"] + unit,
                times=entry["ratio"] if better else 1 / entry["ratio"],
                target=(target if better else 1 / target) if target else None,
            )
        )
    return bars


def _ticks(low: float, high: float) -> list[float]:
    return [2.0**power for power in range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)]


def draw(bars: list[Bar]) -> str:
    """The SVG document."""
    values = [1.0, *(bar.times for bar in bars), *(bar.target for bar in bars if bar.target)]
    ticks = _ticks(min(values), max(values) * 1.05)
    span = math.log2(ticks[-1] / ticks[0]) or 1.0

    def x(times: float) -> float:
        return LABELS + (WIDTH - LABELS - RIGHT) * math.log2(times / ticks[0]) / span

    height = TOP + len(bars) * (BAR + GAP) + BOTTOM
    parts = [text(16, 40, "times better; right of 1 ours is the better one; the mark is the target", "start")]
    for tick in ticks:
        parts.append(upright(x(tick), TOP, height - BOTTOM, INK if tick == 1 else FAINT))
        parts.append(text(x(tick), height - BOTTOM + 18, f"{tick:g}", "middle"))
    for index, bar in enumerate(bars):
        parts += _bar(bar, TOP + index * (BAR + GAP) + GAP / 2, x(1.0), x(bar.times), x(bar.target or 1.0))
    return document(WIDTH, height, "twisted_p2pmqtt beside mosquitto, one core each", parts)


def _bar(bar: Bar, y: float, one: float, end: float, target: float) -> list[str]:
    colour = BETTER if bar.times >= 1 else WORSE
    left, width = min(one, end), max(abs(end - one), 1)
    parts = [
        text(LABELS - 10, y + 12, bar.label, "end"),
        f"<rect x='{left:.1f}' y='{y}' width='{width:.1f}' height='{BAR}' fill='{colour}'/>",
        text(max(one, end, target if bar.target else 0) + 5, y + 12, f"{bar.times:.2f}", "start"),
    ]
    if bar.target:
        parts.append(upright(target, y - 2, y + BAR + 2, INK, 2))
    return parts


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m benchmarks.chart FILE > chart.svg", file=sys.stderr)
        return 2
    bars = read_bars(Path(sys.argv[1]).read_text().splitlines())
    if not bars:
        print("nothing to draw: no figure was compared with another broker", file=sys.stderr)
        return 1
    sys.stdout.write(draw(bars))
    return 0


if __name__ == "__main__":
    sys.exit(main())
