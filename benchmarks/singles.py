"""singles.c: compiled when it is first needed, and the options that a `LoadSpec` comes to."""

from __future__ import annotations

import atexit
import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

from benchmarks.load import LoadSpec
from benchmarks.probes import NotAvailable

SOURCE = Path(__file__).with_suffix(".c")
MODES = ("pairs", "rate", "connect")
KNOWN = (
    "mode", "port", "pid", "publishers", "subscribers", "topic", "subscribe", "qos", "size", "rate", "warm", "time",
    "connections", "in_flight", "window",
)  # fmt: skip
"""Fields of a `LoadSpec` that may differ from their defaults; it has no use for a window."""


@functools.cache
def compiled(source: Path) -> str:
    """The program that a C file makes, kept as long as this process. Raises NotAvailable."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise NotAvailable(f"{source.name} needs a C compiler, cc")
    directory = tempfile.mkdtemp(prefix="p2pmqtt-benchmarks-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    program = str(Path(directory) / source.stem)
    built = subprocess.run([compiler, "-O2", "-o", program, source], capture_output=True, text=True, check=False)
    if built.returncode:
        raise NotAvailable(f"{source.name} could not be compiled: {built.stderr.strip()[-300:]}")
    return program


def command(spec: LoadSpec) -> list[str]:
    """How to run a load with it. Raises ValueError for one that it does not know."""
    known = LoadSpec(**{name: getattr(spec, name) for name in KNOWN})
    if spec.mode not in MODES or spec != known or (spec.publishers and "{j" in spec.topic):
        raise ValueError(f"singles.c cannot run {spec}")
    options: dict[str, object] = {
        "mode": spec.mode, "port": spec.port, "pid": spec.pid, "publishers": spec.publishers,
        "subscribers": spec.subscribers, "qos": spec.qos, "size": spec.size, "rate": spec.rate, "warm": spec.warm,
        "time": spec.time, "connections": spec.connections, "in-flight": spec.in_flight,
        "topic": spec.topic.replace("{client}", "s%05d"),
    }  # fmt: skip
    if spec.mode == "connect":
        options["filter"] = "dev/c%05d/#"
    elif spec.subscribe:
        options["filter"] = spec.subscribe.replace("{client}", "s%05d")
    return [compiled(SOURCE), *(f"--{name}={value}" for name, value in options.items())]
