"""Restart: how long a broker with a full store takes to answer, and whether it stalls its host meanwhile; and before
that, what the sessions cost that clients leave in a store.

The store holds 100,000 sessions with a subscription each, and 20,000 queued messages of 128 bytes.  It is read twice:
by ``twistd p2pmqtt``, whose first CONNACK is waited for and whose queues are then emptied; and by a broker embedded in
a process whose reactor runs already, where a timer tells the longest time that the reactor did nothing else: once in a
host that has put off garbage collection while it starts, and once in one that has not.  Both must do.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from twisted.python.failure import Failure

from benchmarks.brokers import ROOT
from tests.faults.newcomers import Arrival, arrive
from tests.faults.peer import Peer, is_answered
from tests.faults.processes import BrokerProcess, Ours
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.core.delivery import Delivery
from twisted_p2pmqtt.core.records import SessionRecord, SubscriptionRecord
from twisted_p2pmqtt.store.sqlite import SQLiteStore
from twisted_p2pmqtt.store.writer import DirectWriter

MAX_START, MAX_STALL = 5.0, 0.1
MAX_BYTES = 6 * 1024
"""Resident, of one session that waits for its client."""

MIN_CREATED = 1500.0
"""Sessions a second that clients leave in the store."""

TARGETS = 1000
"""Sessions that have messages."""

AT_ONCE = 100
PERIOD = 0.001
QUIET = 5.0
PROBE_TIMEOUT = 120.0


def fill(path: Path, sessions: int, messages: int) -> None:
    """Make the store."""
    store = SQLiteStore(str(path), writer=DirectWriter())
    store.restore_now(lambda records: None)
    for number in range(sessions):
        client_id = f"session{number}"
        store.save_session(SessionRecord(client_id, 604_800, time.time(), None))
        store.save_subscription(client_id, SubscriptionRecord(f"site/{number}/#", 1, False, False, 0))
        if number % 5000 == 0:
            store.commit()
    for number in range(messages):
        client_id = f"session{number % TARGETS}"
        message = Message(f"p2p/{client_id}/t".encode(), b"%08d" % number * 16, 0, 1)
        store.enqueue(client_id, store.new_sequence(), Delivery(message, 1, 0, b"", True), 0, None)
    store.commit()
    store.close()


@dataclass
class Result:
    """What was measured; seconds."""

    sessions: int
    messages: int
    arrival: Arrival
    start: float = 0.0
    loading: float = 0.0
    stall: float = 0.0
    stall_with_collector: float = 0.0
    delivered: int = 0

    @property
    def is_clean(self) -> bool:
        """Within the limits, and nothing missing."""
        return (
            self.start <= MAX_START
            and self.stall <= MAX_STALL
            and self.stall_with_collector <= MAX_STALL
            and self.delivered == self.messages
            and self.arrival.bytes_each <= MAX_BYTES
            and self.arrival.per_second >= MIN_CREATED
        )

    def __str__(self) -> str:
        return (
            f"{self.sessions:,} sessions, {self.messages:,} queued: first CONNACK after {self.start:.2f} s;"
            f" {self.delivered:,} delivered; embedded: read in {self.loading:.2f} s,"
            f" longest stall {self.stall * 1000:.0f} ms,"
            f" {self.stall_with_collector * 1000:.0f} ms where garbage collection was left on\n{self.arrival}"
        )


async def create(broker: BrokerProcess, sessions: int) -> Arrival:
    """Start a broker that knows nobody, and have clients leave so many sessions with it."""
    try:
        await _start(broker)
        return await arrive(broker, sessions)
    finally:
        broker.kill()


async def _start(broker: BrokerProcess) -> None:
    broker.start()
    if not (broker.wait_until_ready() and await is_answered(broker.port)):
        raise RuntimeError(f"it did not start:\n{broker.last_words()}")


async def restart(directory: Path, sessions: int, messages: int, created: int) -> Result:
    """Have ``created`` sessions made by clients; then fill a store, and measure what a restart on it is like."""
    (directory / "created").mkdir()
    result = Result(sessions, messages, await create(Ours(directory / "created"), created))
    broker = Ours(directory)
    fill(broker.store, sessions, messages)
    result.loading, result.stall = _embedded(broker.store, "off")
    _, result.stall_with_collector = _embedded(broker.store, "on")
    try:
        started = time.monotonic()
        await _start(broker)
        result.start = time.monotonic() - started
        result.delivered = await _empty(broker.port, messages)
    finally:
        broker.kill()
    return result


def _embedded(store: Path, collector: str) -> tuple[float, float]:
    """What ``probe`` tells.  Raises ``RuntimeError`` where it cannot read the store, or hangs."""
    command = [sys.executable, "-m", "tests.faults.restart", str(store), collector]
    try:
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PROBE_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"embedded, it had not read {store} after {PROBE_TIMEOUT:.0f} s") from None
    if run.returncode:
        raise RuntimeError(f"embedded, it could not read {store}:\n{run.stderr}")
    loading, stall = run.stdout.split()
    return float(loading), float(stall)


async def _empty(port: int, messages: int) -> int:
    """Take what is queued; how many different messages that is."""
    received: set[bytes] = set()
    since = time.monotonic()

    def arrived(topic: str, payload: bytes, qos: int) -> None:
        nonlocal since
        received.add(payload)
        since = time.monotonic()

    peers = [Peer(port, f"session{number}", message=arrived) for number in range(TARGETS)]
    for start in range(0, TARGETS, AT_ONCE):
        await asyncio.gather(*(peer.connect() for peer in peers[start : start + AT_ONCE]))
    while len(received) < messages and time.monotonic() < since + QUIET:  # noqa: ASYNC110  # peers tell no event
        await asyncio.sleep(0.01)
    await asyncio.gather(*(peer.drop() for peer in peers))
    return len(received)


def probe(path: str, collector: str) -> None:
    """Read the store in a running reactor; print how long that took, and the longest time between two turns.

    The exit code is 1 where it cannot be read.
    """
    from twisted.internet import reactor

    from twisted_p2pmqtt.config import Settings, StoreSettings
    from twisted_p2pmqtt.service import MQTTService

    clock: Any = reactor
    service = MQTTService(Settings(listeners=(), store=StoreSettings("sqlite", path=path)))
    turns: list[float] = []
    failures: list[str] = []

    def turn() -> None:
        turns.append(time.monotonic())
        clock.callLater(PERIOD, turn)

    def done(result: object) -> None:
        turns.append(time.monotonic())
        clock.stop()

    def failed(failure: Failure) -> None:
        failures.append(failure.getTraceback())
        clock.stop()

    def begin() -> None:
        turn()
        try:
            restoring = service.broker.restore()
        except Exception:
            failed(Failure())
        else:
            restoring.addCallback(done).addErrback(failed)

    if collector == "off":
        gc.disable()
    clock.callWhenRunning(begin)
    clock.run()
    if failures:
        sys.exit(failures[0])
    print(turns[-1] - turns[0], max(later - earlier for earlier, later in pairwise(turns)))


if __name__ == "__main__":
    probe(*sys.argv[1:])
