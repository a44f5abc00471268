"""`python -m benchmarks.startup`: from the start of a broker's process to its first CONNACK, and what importing costs.

- First CONNACK: the process is started, and a client tries to connect every millisecond; then it sends CONNECT. Ours
  with `twistd p2pmqtt`, without a store and with an empty sqlite store; mosquitto beside it.
- Import: CPU time of importing the package, in a process that has imported what `twistd` and any TCP server of
  Twisted's import; and how many modules that adds.

Byte code is compiled before. Medians; our processes and the client are each on a core of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import frames
from benchmarks.brokers import BROKER_CORE, ROOT, BrokerSpec, child_conditions, free_port, start, stop, version
from benchmarks.probes import NotAvailable
from benchmarks.rows import MOSQUITTO, OURS, Target
from benchmarks.runner import Line

TIMEOUT = 20.0
CONNACK_TARGET = Target("first_connack_ms", "ms", 1000.0, None, higher=False)
IMPORT_TARGET = Target("import_ms", "ms of CPU", 150.0, None, higher=False)

TWISTED_OWN = "twisted.scripts.twistd, twisted.internet.endpoints, twisted.internet.reactor"
IMPORTED = "twisted_p2pmqtt, twisted_p2pmqtt.tap"
IMPORT_CODE = f"""
import json, sys, time
start = time.process_time()
import {TWISTED_OWN}
between, before = time.process_time(), set(sys.modules)
import {IMPORTED}
print(json.dumps([between - start, time.process_time() - between, sorted(set(sys.modules) - before)]))
"""


@dataclasses.dataclass(frozen=True)
class ImportCost:
    """Seconds of CPU for Twisted's own modules and then for ours, and the names of what ours added."""

    twisted: float
    ours: float
    modules: tuple[str, ...]


def import_cost() -> ImportCost:
    """Of one fresh interpreter."""
    with child_conditions(BROKER_CORE):
        done = subprocess.run(
            [sys.executable, "-c", IMPORT_CODE], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True
        )
    twisted, ours, modules = json.loads(done.stdout)
    return ImportCost(twisted, ours, tuple(modules))


def first_connack(spec: BrokerSpec) -> float:
    """Seconds from the start of the process to the first byte of CONNACK."""
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="p2pmqtt-start-", ignore_cleanup_errors=True)
        directory = Path(stack.enter_context(temporary))
        directory.chmod(0o777)
        port = free_port()
        begun = time.monotonic()
        process = start(spec, port, directory)
        stack.callback(stop, process)
        while time.monotonic() - begun < TIMEOUT and process.poll() is None:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)) as client:
                client.settimeout(TIMEOUT)
                client.sendall(frames.connect("first"))
                if client.recv(4)[:1] != bytes((frames.CONNACK,)):
                    raise RuntimeError(f"{spec.name} answered with something else than CONNACK")
                return time.monotonic() - begun
            time.sleep(0.001)
    raise NotAvailable(f"{spec.name} does not start")


def _line(row: str, title: str, target: Target, ours: float, theirs: float | None = None) -> Line:
    other = None if theirs is None else "mosquitto"
    sides = ("ours",) if other is None else ("ours", other)
    return Line(
        row=row,
        title=title,
        target=target,
        subject="ours",
        value=ours,
        other=other,
        other_value=theirs,
        ratio=None if theirs is None else ours / theirs,
        cpu=dict.fromkeys(sides, (0.0, 0.0)),
        lost=dict.fromkeys(sides, 0),
        versions={name: version(name) for name in sides},
    )


def measure(runs: int) -> tuple[list[Line], ImportCost]:
    """The lines of the table, and the import that was in the middle."""
    import_cost()  # compiles
    sides = {"memory": OURS, "sqlite": dataclasses.replace(OURS, store="commit"), "other": MOSQUITTO}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    imports: list[ImportCost] = []
    for _ in range(runs):
        for name, spec in sides.items():
            with contextlib.suppress(NotAvailable):
                seconds[name].append(first_connack(spec))
        imports.append(import_cost())
    lines = []
    theirs = statistics.median(seconds["other"]) * 1000 if seconds["other"] else None
    for name, title in (("memory", "no store on disk"), ("sqlite", "an empty sqlite store")):
        ours = statistics.median(seconds[name]) * 1000
        lines.append(_line(f"start-{name}", f"from start to first CONNACK, {title}", CONNACK_TARGET, ours, theirs))
    typical = sorted(imports, key=lambda cost: cost.ours)[len(imports) // 2]
    title = f"import, beyond the {typical.twisted * 1000:.0f} ms of Twisted's own"
    lines.append(_line("import", title, IMPORT_TARGET, typical.ours * 1000))
    return lines, typical


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description="Start and import.")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="of which the median counts (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write one line of JSON per figure and broker")
    options = parser.parse_args()
    lines, typical = measure(options.runs)
    for line in lines:
        other = "" if line.other_value is None else f"   {line.other} {line.other_value:.0f} ms"
        print(f"{line.title:<56}{line.value:>7.0f} {line.target.unit:<10}{line.target} {line.word}{other}")
    own = [name for name in typical.modules if name.startswith("twisted_p2pmqtt")]
    others = [name for name in typical.modules if name not in own]
    print(f"modules: {len(own)} of ours, {len(others)} others: {', '.join(others)}")
    if options.json:
        options.json.write_text("".join(entry + "\n" for line in lines for entry in line.as_json()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
