"""`python -m benchmarks.memory`: the bytes of Python objects that one idle client costs, by whose they are.

The broker runs in this process on the real reactor and real sockets; clients connect, subscribe to `dev/<id>/#` and are
silent. What `tracemalloc` then counts more is theirs. The resident memory of the rows is more: the allocator's own.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import socket
import sys
import time
import tracemalloc
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import frames

WARM = 200
SETTLE = 0.6

# The first that the file's path holds: who made it, and what that is.
OWNERS = (
    ("twisted_p2pmqtt/net/", "MQTTProtocol's methods, Outbox, ReadGroup's member"),
    ("twisted_p2pmqtt/core/session", "Session"),
    ("twisted_p2pmqtt/core/registry", "Session"),
    ("twisted_p2pmqtt/core/subscri", "the subscription and its place in the tree"),
    ("twisted_p2pmqtt/codec/", "client id, filter, and the dictionary of subscriptions"),
    ("twisted_p2pmqtt/", "Connection, PacketReader, Publishing, timer"),
    ("", "Twisted's transport, protocol and addresses; the socket"),
)


@dataclasses.dataclass(frozen=True)
class Share:
    """Bytes and blocks of one client."""

    title: str
    size: float
    blocks: float


def measure(count: int) -> list[Share]:
    """What one of `count` clients costs, the largest share first."""
    from twisted.internet import reactor as installed

    from twisted_p2pmqtt.config import ListenerSettings, Settings, StoreSettings
    from twisted_p2pmqtt.service import MQTTService

    reactor: Any = installed
    port = _free_port()
    listener = ListenerSettings(f"tcp:{port}:interface=127.0.0.1", allow_anonymous=True)
    service = MQTTService(Settings(listeners=(listener,), store=StoreSettings("memory")), reactor)
    reactor.startRunning(installSignalHandlers=False)
    service.startService()
    warm = [socket.socket() for _ in range(WARM)]
    clients = [socket.socket() for _ in range(count)]

    def connect(sockets: Sequence[socket.socket], prefix: str) -> None:
        wanted = service.broker.tree.count + len(sockets)
        for number, sock in enumerate(sockets):
            name = f"{prefix}{number:05d}"
            sock.connect(("127.0.0.1", port))
            sock.sendall(frames.connect(name) + frames.subscribe([f"dev/{name}/#"], 0))
        while service.broker.tree.count < wanted:
            reactor.iterate(0.01)

    connect(warm, "w")
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    connect(clients, "c")
    settled = time.monotonic() + SETTLE
    while time.monotonic() < settled:
        reactor.iterate(0.05)
    gc.collect()
    after = tracemalloc.take_snapshot()
    ours = [tracemalloc.Filter(False, __file__), tracemalloc.Filter(False, tracemalloc.__file__)]
    changes = after.filter_traces(ours).compare_to(before.filter_traces(ours), "filename")
    for sock in (*warm, *clients):
        sock.close()
    return _by_owner(changes, count)


def _by_owner(changes: Iterable[tracemalloc.StatisticDiff], count: int) -> list[Share]:
    sizes: dict[str, list[float]] = {}
    for change in changes:
        path = change.traceback[0].filename.replace("\\", "/")
        title = next(title for part, title in OWNERS if part in path)
        share = sizes.setdefault(title, [0.0, 0.0])
        share[0] += change.size_diff / count
        share[1] += change.count_diff / count
    shares = [Share(title, size, blocks) for title, (size, blocks) in sizes.items()]
    return sorted(shares, key=lambda share: -share.size)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def table(shares: Sequence[Share]) -> str:
    """Markdown."""
    lines = ["| whose | bytes | objects |", "| :--- | ---: | ---: |"]
    lines += [f"| {share.title} | {share.size:,.0f} | {share.blocks:.0f} |" for share in shares]
    size, blocks = sum(share.size for share in shares), sum(share.blocks for share in shares)
    return "\n".join([*lines, f"| **together** | **{size:,.0f}** | **{blocks:.0f}** |"])


def read(path: Path) -> list[Share]:
    """What --json wrote."""
    return [Share(**json.loads(line)) for line in path.read_text().splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description="What an idle client costs.")
    parser.add_argument("--count", type=int, default=1000, metavar="N", help="clients (1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write one line of JSON a share")
    options = parser.parse_args()
    shares = measure(options.count)
    print(table(shares))
    if options.json:
        options.json.write_text("".join(json.dumps(dataclasses.asdict(share)) + "\n" for share in shares))
    return 0


if __name__ == "__main__":
    sys.exit(main())
