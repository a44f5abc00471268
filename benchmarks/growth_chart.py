"""The curves of growth, as SVG, from what `python -m benchmarks.growth --json FILE` wrote.

    python -m benchmarks.growth_chart FILE > docs/growth.svg

Left CPU per message, right memory, both by how many there are. A level line on the left means that a message costs the
same however many others there are. On the right both scales are logarithmic: the lines are flat while the broker itself
is most of the memory, and rise one decade for a decade where each more costs as much as the one before.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.growth import TITLES, Point, read
from benchmarks.svg import FAINT, INK, curve, document, level, text, upright

WIDTH, HEIGHT = 1070, 430
TOP, BOTTOM = 70, 350
PANELS = ((60, 500), (600, 1040))
COLOURS = {"busy": "#b5483a", "idle": "#2f7d4f", "subscriptions": "#34629c"}
MIB = 2**20


def decades(low: float, high: float) -> list[float]:
    """The powers of ten around a range."""
    return [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]


def steps(high: float) -> list[float]:
    """About five round numbers from 0 up to `high` or a little more."""
    size = 10.0 ** math.floor(math.log10(high / 2.5))
    size = next(size * times for times in (1, 2, 5, 10) if high / (size * times) <= 6)
    return [size * number for number in range(math.ceil(high / size) + 1)]


def draw(points: Sequence[Point]) -> str:
    """The SVG document."""
    across = decades(min(point.n for point in points), max(point.n for point in points))
    cpu = steps(max(point.us for point in points))
    memory = decades(min(point.rss for point in points) / MIB, max(point.rss for point in points) / MIB)
    parts = _panel(PANELS[0], "CPU, us a message", points, across, cpu, lambda point: point.us / cpu[-1])
    parts += _panel(
        PANELS[1],
        "memory, MiB",
        points,
        across,
        memory,
        lambda point: math.log10(point.rss / MIB / memory[0]) / math.log10(memory[-1] / memory[0]),
    )
    x = PANELS[0][0]
    for series, title in TITLES.items():
        parts += curve([(x, HEIGHT - 24), (x + 20, HEIGHT - 24)], COLOURS[series])
        parts.append(text(x + 30, HEIGHT - 20, title, "start"))
        x += 300
    return document(WIDTH, HEIGHT, "How cost grows", parts)


def _panel(
    sides: tuple[int, int],
    title: str,
    points: Iterable[Point],
    across: Sequence[float],
    up: Sequence[float],
    height: Callable[[Point], float],
) -> list[str]:
    left, right = sides
    is_linear = not up[0]

    def x(n: float) -> float:
        return left + (right - left) * math.log10(n / across[0]) / math.log10(across[-1] / across[0])

    def y(share: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * share

    parts = [text(left, TOP - 14, title, "start")]
    for tick in across:
        parts.append(upright(x(tick), TOP, BOTTOM, FAINT))
        parts.append(text(x(tick), BOTTOM + 18, f"{tick:,.0f}", "middle"))
    for number, tick in enumerate(up):
        share = tick / up[-1] if is_linear else number / (len(up) - 1)
        parts.append(level(left, right, y(share), INK if not number else FAINT))
        parts.append(text(left - 8, y(share) + 4, f"{tick:g}", "end"))
    points = list(points)
    for series, colour in COLOURS.items():
        mine = [(x(point.n), y(height(point))) for point in points if point.series == series]
        if mine:
            parts += curve(mine, colour)
    return parts


def main() -> int:
    if len(sys.argv) != 2:
        print("usage: python -m benchmarks.growth_chart FILE > growth.svg", file=sys.stderr)
        return 2
    sys.stdout.write(draw(read(Path(sys.argv[1]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
