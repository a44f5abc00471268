"""`python -m tests.faults --kills 200`: do to a broker what must not harm it, and account for all it acknowledged.

--kills N      kill it again and again, at any moment and at named points of its own code
--points N     kill it N times at each of these points; ``--at`` names some of them
--sync         under strace: does each acknowledgement leave after its commit's sync, and survive a power cut?
--disk-full    its store is on a file system of 1 MiB
--corrupt N    damage N stores
--restart      start on a store with 100,000 sessions; make sessions

The exit code is 1 where ours breaks its promise.  ``--broker all`` puts mosquitto beside it where that makes sense.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import partial
from itertools import chain
from pathlib import Path

from benchmarks.probes import NotAvailable
from tests.faults.corrupt import damage_stores
from tests.faults.crash import CRUCIAL, POINTS
from tests.faults.disk import FullDisk, small_disk
from tests.faults.kills import KillLoop, table
from tests.faults.lives import Result
from tests.faults.points import PointResult, hit_all
from tests.faults.points import table as table_of_points
from tests.faults.processes import BrokerProcess, Mosquitto, Ours
from tests.faults.restart import create, restart
from tests.faults.sync import audit
from tests.faults.tables import aligned

MESSAGES_TO_FULL_DISK = 4000
SYNCED_MESSAGES, POWER_CUTS = 10_000, 200
SESSIONS, QUEUED, CREATED = 100_000, 20_000, 20_000


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--kills", type=int, metavar="N")
    what.add_argument("--points", type=int, metavar="N")
    what.add_argument("--sync", action="store_true")
    what.add_argument("--disk-full", action="store_true")
    what.add_argument("--corrupt", type=int, metavar="N")
    what.add_argument("--restart", action="store_true")
    parser.add_argument("--broker", choices=("ours", "mosquitto", "all"), default="ours")
    parser.add_argument("--durability", choices=("commit", "full", "both"), default="both")
    parser.add_argument("--longest", type=float, metavar="S", default=3.0, help="seconds before a kill, at most")
    parser.add_argument("--at", metavar="PATTERN", default="*", help="the points, as in 'commit.*'")
    parser.add_argument("--jobs", type=int, metavar="N", default=6, help="points that are hit side by side")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def show(text: str) -> None:
    print(text, flush=True)


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def durabilities(options: argparse.Namespace) -> tuple[str, ...]:
    return ("commit", "full") if options.durability == "both" else (options.durability,)


Make = partial[Ours] | partial[Mosquitto]
"""It takes a directory, and ``store``, where to keep the broker's store."""


def ours(options: argparse.Namespace) -> list[Make]:
    """Where they were asked for."""
    return [partial(Ours, durability=each) for each in durabilities(options)] if options.broker != "mosquitto" else []


def mosquittos(options: argparse.Namespace) -> list[Make]:
    """Where they were asked for."""
    return [partial(Mosquitto, settings=each) for each in ("default", "safest")] if options.broker != "ours" else []


def brokers(makers: Iterable[Make]) -> Iterator[BrokerProcess]:
    """One after another, each in a directory of its own; which is not installed is said."""
    for make in makers:
        with tempfile.TemporaryDirectory(prefix="p2pmqtt-faults-") as name:
            try:
                broker = make(Path(name))
            except NotAvailable as error:
                show(str(error))
                continue
            yield broker


def run_kills(options: argparse.Namespace) -> bool:
    results: list[Result] = []
    points = (*POINTS, *CRUCIAL * 3)  # the crucial ones more often
    for broker in brokers(chain(ours(options), mosquittos(options))):
        loop = KillLoop(broker, options.seed, options.longest)
        result = asyncio.run(loop.run(options.kills, points if isinstance(broker, Ours) else (), progress))
        progress("")
        results.append(result)
        for note in result.notes:
            show(f"{broker.name}: {note}")
        show(str(loop) + (f"; killed itself at {len(result.points)} crash points" if result.points else ""))
    show(table(results))
    return all(result.is_clean for result in results if result.name.startswith("ours"))


def run_points(options: argparse.Namespace) -> bool:
    """Ours only: others have no such points."""
    points = [point for point in POINTS if fnmatchcase(point, options.at)]
    root = Path(tempfile.mkdtemp(prefix="p2pmqtt-points-"))
    results: list[PointResult] = []
    for durability in durabilities(options):
        for result in hit_all(points, options.points, durability, root, options.seed, options.jobs):
            results.append(result)
            show(str(result))
    if not any(root.iterdir()):
        root.rmdir()
    show(table_of_points(results))
    return bool(results) and all(result.is_clean for result in results)


def run_sync(options: argparse.Namespace) -> bool:
    """``full``, unless ``--durability commit`` shows that the check can fail."""
    with tempfile.TemporaryDirectory(prefix="p2pmqtt-faults-") as name:
        durability = "commit" if options.durability == "commit" else "full"
        result = audit(Path(name), durability, SYNCED_MESSAGES, POWER_CUTS)
    show(str(result))
    return result.is_clean


def run_disk_full(options: argparse.Namespace) -> bool:
    rows: list[dict[str, str]] = []
    is_clean = True
    for make in chain(ours(options), mosquittos(options)):
        with tempfile.TemporaryDirectory(prefix="p2pmqtt-faults-") as name, small_disk(Path(name)) as disk:
            broker = make(Path(name), store=disk)
            account = asyncio.run(FullDisk(broker, disk).run(MESSAGES_TO_FULL_DISK))
        for note in account.notes:
            show(f"{account.name}: {note}")
        rows.append(account.row())
        is_clean = is_clean and (account.is_clean or not isinstance(broker, Ours))
    show(aligned(rows))
    return is_clean


def run_corrupt(options: argparse.Namespace) -> bool:
    result = asyncio.run(damage_stores(options.corrupt, progress))
    progress("")
    for note in result.notes:
        show(note)
    show(", ".join(f"{count} {kind}" for kind, count in result.kinds.most_common()))
    show(str(result))
    return result.is_clean


def run_restart(options: argparse.Namespace) -> bool:
    """Ours with ``commit`` alone, whatever is asked for."""
    is_clean = True
    if options.broker != "mosquitto":
        with tempfile.TemporaryDirectory(prefix="p2pmqtt-faults-") as name:
            result = asyncio.run(restart(Path(name), SESSIONS, QUEUED, CREATED))
        show(str(result))
        is_clean = result.is_clean
    for broker in brokers(mosquittos(options)):
        show(str(asyncio.run(create(broker, CREATED))))
    return is_clean


def main() -> int:
    options = arguments()
    runs = {
        "kills": run_kills,
        "points": run_points,
        "sync": run_sync,
        "disk_full": run_disk_full,
        "corrupt": run_corrupt,
        "restart": run_restart,
    }
    (run,) = (run for name, run in runs.items() if getattr(options, name))
    try:
        return int(not run(options))
    except NotAvailable as error:
        show(str(error))
        return 2


if __name__ == "__main__":
    sys.exit(main())
