"""`python -m tests.faults --kills 200`: kill a broker again and again, and account for all it acknowledged.

Ours with both durabilities; ``--broker mosquitto`` or ``all`` for others.  Prints one table; the exit code is 1 where
ours lost something that it had acknowledged, or delivered a QoS 2 message twice.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.probes import NotAvailable
from tests.faults.crash import CRUCIAL, POINTS
from tests.faults.kills import KillLoop, Result, table
from tests.faults.processes import BrokerProcess, Mosquitto, Ours


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, metavar="N", default=20, help="kill each broker so often")
    parser.add_argument("--broker", choices=("ours", "mosquitto", "all"), default="ours")
    parser.add_argument("--durability", choices=("commit", "full", "both"), default="both")
    parser.add_argument("--longest", type=float, metavar="S", default=3.0, help="seconds before a kill, at most")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def show(text: str) -> None:
    print(text, flush=True)


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def run_kills(options: argparse.Namespace) -> int:
    makers: list[Callable[[Path], BrokerProcess]] = []
    if options.broker in ("ours", "all"):
        durabilities = ("commit", "full") if options.durability == "both" else (options.durability,)
        makers += [partial(Ours, durability=durability) for durability in durabilities]
    if options.broker in ("mosquitto", "all"):
        makers += [partial(Mosquitto, settings=settings) for settings in ("default", "safest")]
    results: list[Result] = []
    points = (*POINTS, *CRUCIAL * 3)  # the crucial ones more often
    for make in makers:
        with tempfile.TemporaryDirectory(prefix="p2pmqtt-faults-") as name:
            try:
                broker = make(Path(name))
            except NotAvailable as error:
                show(str(error))
                continue
            loop = KillLoop(broker, options.seed, options.longest)
            result = asyncio.run(loop.run(options.kills, points if isinstance(broker, Ours) else (), progress))
            progress("")
            results.append(result)
            for note in result.notes:
                show(f"{broker.name}: {note}")
            if result.points:
                show(f"{broker.name}: killed itself at {len(result.points)} crash points")
    show(table(results))
    return int(not all(result.is_clean for result in results if result.name.startswith("ours")))


if __name__ == "__main__":
    sys.exit(run_kills(arguments()))
