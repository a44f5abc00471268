"""`python -m benchmarks`: the command line and the table."""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
from pathlib import Path

from benchmarks.check_load import compare
from benchmarks.page import read, rows_block
from benchmarks.probes import NotAvailable
from benchmarks.rows import Row, all_rows
from benchmarks.runner import Line, Plan, RowFailed, measure

HEAD = f"{'row':<24}{'ours':>12}{'other':>12}  {'unit':<16}{'ours : other':<26}{'target':<9}{'':<6}CPU broker/load"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Our broker beside others, in one run.")
    parser.add_argument("--list", action="store_true", help="print the rows' names and what they are")
    parser.add_argument("--rows", nargs="+", metavar="NAME", default=["*"], help="only these; * and ? are allowed")
    parser.add_argument("--runs", type=int, metavar="N", help="runs of each row, of which the median counts (3)")
    parser.add_argument("--time", type=float, metavar="S", help="seconds measured in each run (3)")
    parser.add_argument("--quick", action="store_true", help="one run of one second, a tenth of the connections")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write one line of JSON per figure and broker")
    parser.add_argument(
        "--markdown", nargs="+", type=Path, metavar="FILE", help="measure nothing: print what --json wrote"
    )
    parser.add_argument(
        "--check-load",
        action="store_true",
        help="our load generator beside mqload, and what mqload says of both brokers",
    )
    parser.add_argument("--mqload", type=Path, metavar="PATH", help="mqload's C source, for --check-load")
    options = parser.parse_args()
    if options.check_load and not options.mqload:
        parser.error("--check-load needs --mqload PATH")
    return options


def chosen(names: list[str]) -> list[Row]:
    rows = all_rows()
    for name in names:
        if not any(fnmatch.fnmatchcase(row.name, name) for row in rows):
            sys.exit(f"no row is called {name}; see --list")
    return [row for row in rows if any(fnmatch.fnmatchcase(row.name, name) for name in names)]


def number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def shown(line: Line) -> str:
    ratio = "" if line.ratio is None else f"{line.ratio:.2f} : 1 {line.other}"
    cpu = "  ".join(f"{broker:.2f}/{load:.2f}" for broker, load in line.cpu.values())
    lost = ", ".join(f"{name} lost {count}" for name, count in line.lost.items() if count)
    return (
        f"{line.row:<24}{number(line.value):>12}{number(line.other_value):>12}  {line.target.unit:<16}"
        f"{ratio:<26}{line.target!s:<9}{line.word:<6}{cpu}{'  ' + lost if lost else ''}"
    )


def progress(text: str) -> None:
    """What is going on, on one line that the next one overwrites; nothing where nobody looks."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def show(text: str) -> None:
    progress("")
    print(text, flush=True)


def run_rows(rows: list[Row], plan: Plan, json_file: Path | None) -> int:
    """Print the table; 1 if any row could not be run, else 0."""
    failed = False
    words: list[str] = []
    if json_file:
        json_file.write_text("")
    show(HEAD)
    for row in rows:
        try:
            lines = measure(row, plan, progress)
        except NotAvailable as error:
            show(f"{row.name:<24}not available: {error}")
            continue
        except (RowFailed, OSError) as error:
            failed = True
            show(f"{row.name:<24}FAILED: {error}")
            continue
        for line in lines:
            show(shown(line))
            words.append(line.word)
            if json_file:  # row by row: what was measured is not lost by what comes later
                with json_file.open("a") as file:
                    file.writelines(f"{figure}\n" for figure in line.as_json())
    show(f"{words.count('WON')} won, {words.count('LOST')} lost, {words.count('')} without a target")
    return int(failed)


def main() -> int:
    options = arguments()
    if options.markdown:
        print(rows_block(read(options.markdown)))
        return 0
    runs, seconds = (1, 1.0) if options.quick else (3, 3.0)
    plan = Plan(options.runs or runs, options.time or seconds, quick=options.quick)
    if options.list:
        for row in all_rows():
            print(f"{row.name:<24}{row.title}")
        return 0
    if len(os.sched_getaffinity(0)) < 2:
        show("only one core: broker and load share it, and the figures mean little")
    if options.check_load:
        try:
            compare(options.mqload, plan, show)
        except (NotAvailable, RowFailed) as error:
            show(str(error))
            return 1
        return 0
    return run_rows(chosen(options.rows), plan, options.json)


if __name__ == "__main__":
    sys.exit(main())
