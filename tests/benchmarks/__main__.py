"""`python -m tests.benchmarks`: what a message costs on each path, beside what is recorded; `--record` records anew."""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys

from tests.benchmarks.measuring import FIGURES, import_share, limit, measure, measure_apart, record, recorded, typical
from tests.benchmarks.paths import PATHS

ROUNDS = 5


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="What a message costs in memory.")
    parser.add_argument("paths", nargs="*", metavar="PATH", default=["*"], help="only these; * and ? are allowed")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"the median counts ({ROUNDS})")
    parser.add_argument("--record", action="store_true", help=f"write the figures to {FIGURES.name}")
    parser.add_argument("--json", action="store_true", help="measure in this process, print JSON: for the tests")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    names = [name for name in PATHS if any(fnmatch.fnmatchcase(name, wanted) for wanted in options.paths)]
    if not names:
        sys.exit("no such path; there are " + ", ".join(PATHS))
    if options.json:
        print(json.dumps({name: [measure(name) for _ in range(options.rounds)] for name in names}))
        return 0
    costs = {name: typical(rounds) for name, rounds in measure_apart(names, options.rounds).items()}
    known = recorded() if FIGURES.exists() else {}
    print(f"{'path':<40}{'us':>10}{'units':>10}{'recorded':>10}{'times':>8}")
    for name, cost in costs.items():
        old = known.get(name)
        beside = f"{old:>10.2f}{cost.units / old:>8.2f}" if old else ""
        word = "  TOO MUCH" if old and cost.units > limit(name) else ""
        print(f"{PATHS[name].title:<40}{cost.microseconds:>10.2f}{cost.units:>10.2f}{beside}{word}")
    share = import_share()
    print(f"{'import of the package : of Twisted':<40}{'':>10}{share:>10.2f}")
    if options.record:
        record(costs, share)
    return 0


if __name__ == "__main__":
    sys.exit(main())
