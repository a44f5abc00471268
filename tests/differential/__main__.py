"""Compare this broker with mosquitto: ``python -m tests.differential --sequences 2000 --seed 1``.

Exits with 1 where a difference belongs to no class of docs/differences.md; the sequence is printed then, and what both
brokers made of it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.differential import page
from tests.differential.run import brokers


def main() -> int:
    """The command; gives its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__.split("\n")[0])
    parser.add_argument("--sequences", type=int, default=2000, help="how many (2000)")
    parser.add_argument("--seed", type=int, default=1, help="which (1)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one (0), to play one again")
    parser.add_argument("--show", metavar="CLASS", help="print a sequence with a difference of this class")
    parser.add_argument("--page", action="store_true", help="write docs/differences.md, and play nothing")
    parser.add_argument("--check", action="store_true", help="with --page: write nothing, exit with 1 if it is stale")
    arguments = parser.parse_args()
    if arguments.page:
        if not arguments.check:
            page.write()
        print("docs/differences.md is stale" if page.is_stale() else "docs/differences.md is up to date")
        return int(page.is_stale())
    return _play(arguments)


def _play(arguments: argparse.Namespace) -> int:
    unknown = 0
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="differential-") as directory, brokers(Path(directory)) as run:
        for number in range(arguments.first, arguments.first + arguments.sequences):
            verdict = run.compare(arguments.seed, number)
            if verdict.unknown:
                unknown += 1
                print(f"{verdict}\n  again: --seed {arguments.seed} --first {number} --sequences 1\n", flush=True)
            if arguments.show in verdict.examples:
                print(verdict.sequence, *verdict.examples[arguments.show], sep="\n")
                arguments.show = None
        run.check()
    seconds = time.monotonic() - start
    for name, count in run.counts.most_common():
        print(f"{count:6d} {name}")
    print(
        f"{arguments.sequences} sequences, {run.steps} steps, {sum(run.counts.values())} known differences,"
        f" {unknown} sequences with unknown ones, {seconds:.0f} s"
    )
    return int(unknown > 0)


if __name__ == "__main__":
    sys.exit(main())
