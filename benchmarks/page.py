"""Puts figures into docs/performance.md, and draws its charts, from what the `--json` options wrote.

    python -m benchmarks.page results.json startup.json --growth growth.json --memory memory.json

The page says where: everything between `<!-- begin NAME -->` and `<!-- end NAME -->` is written here, and only here.
`python -m benchmarks --markdown results.json` prints the block of the rows alone.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import chart, growth, growth_chart, memory
from benchmarks.brokers import ROOT

DOCS = ROOT / "docs"
PAGE = "performance.md"
Entry = dict[str, Any]


def read(paths: Iterable[Path]) -> list[Entry]:
    """The lines of JSON of several files."""
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def number(value: float | None) -> str:
    """Three digits or so."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.2f}"


def rows_block(entries: Sequence[Entry]) -> str:
    """Markdown: in short, what is lost, and the table."""
    figures = [entry for entry in entries if "target" in entry]
    others = {(entry["row"], entry["unit"], entry["broker"]): entry for entry in entries if "target" not in entry}
    passed = [entry["pass"] for entry in figures]
    counts = passed.count(True), passed.count(False), passed.count(None)
    lines = [
        "{} targets met, {} missed, {} figures without a target.".format(*counts),
        f"Measured with {_versions(entries)}.",
        "",
    ]
    lost = [entry for entry in figures if entry["pass"] is False]
    if lost:
        lines += ["Missed:", "", *(f"- {_in_words(entry)}" for entry in lost), ""]
    lines += ["| what | unit | ours | other | ours : other | wanted | | CPU broker/load |"]
    lines += ["| :--- | :--- | ---: | ---: | :--- | :--- | :--- | :--- |"]
    lines += [_table_row(entry, others.get((entry["row"], entry["unit"], entry["ratio_to"]))) for entry in figures]
    return "\n".join(lines)


def _versions(entries: Sequence[Entry]) -> str:
    brokers = {"twisted_p2pmqtt" if name.startswith("our") else name: version for name, version in _brokers(entries)}
    parts = [f"{name} {version}" for name, version in brokers.items()]
    for key, name in (("python", "Python"), ("twisted", "Twisted")):
        parts += sorted({f"{name} {entry[key]}" for entry in entries if key in entry})
    return ", ".join(parts)


def _brokers(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    return [(entry["broker"], entry["version"]) for entry in entries]


def _wanted(entry: Entry) -> str:
    if entry["target"] is None:
        return ""
    return f"{'' if entry['target_against'] else 'ours '}{'>=' if entry['higher'] else '<='} {entry['target']:g}"


def _in_words(entry: Entry) -> str:
    is_ratio = entry["target_against"] is not None
    measured = f"{entry['ratio']:.2f} times {entry['ratio_to']}" if is_ratio else number(entry["value"])
    return f"{entry['title']}, {entry['unit']}: {measured}, wanted {_wanted(entry)}"


def _table_row(entry: Entry, other: Entry | None) -> str:
    ratio = "" if entry["ratio"] is None else f"{entry['ratio']:.2f} : 1 {entry['ratio_to']}"
    word = {True: "met", False: "**missed**", None: ""}[entry["pass"]]
    cpu = ", ".join(f"{side['broker_cpu']:.2f}/{side['load_cpu']:.2f}" for side in (entry, other) if side)
    theirs = number(other["value"]) if other else ""
    cells = [entry["title"], entry["unit"], number(entry["value"]), theirs, ratio, _wanted(entry), word]
    return f"| {' | '.join(cells)} | {cpu if entry['broker_cpu'] else ''} |"


def insert(page: str, name: str, block: str) -> str:
    """The page with the block between its markers; ValueError where these are missing."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"{PAGE} must hold {begin} and {end} once each")
    before, _, rest = page.partition(begin)
    return f"{before}{begin}\n\n{block}\n\n{end}{rest.partition(end)[2]}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description="Put figures into the page.")
    parser.add_argument("results", nargs="*", type=Path, metavar="FILE", help="of the rows, and of startup")
    parser.add_argument("--growth", type=Path, metavar="FILE", help="of benchmarks.growth")
    parser.add_argument("--memory", type=Path, metavar="FILE", help="of benchmarks.memory")
    options = parser.parse_args()
    page = (DOCS / PAGE).read_text()
    if options.results:
        page = insert(page, "rows", rows_block(read(options.results)))
        bars = chart.read_bars(options.results[0].read_text().splitlines())
        if bars:
            (DOCS / "performance.svg").write_text(chart.draw(bars))
    if options.growth:
        points = growth.read(options.growth)
        page = insert(page, "growth", "\n".join(growth.table(points)))
        (DOCS / "growth.svg").write_text(growth_chart.draw(points))
    if options.memory:
        page = insert(page, "memory", memory.table(memory.read(options.memory)))
    (DOCS / PAGE).write_text(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
