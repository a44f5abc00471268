"""The load generator: one process, one loop, raw sockets.

`python -m benchmarks.load '{"port": 1883, ...}'` runs one `LoadSpec` and prints one line of JSON. Modes:

- `closed`: as many messages in flight as `window` allows, counted in deliveries outstanding over all clients or, where
  the targets are `offline`, in messages not acknowledged. No broker is driven into dropping. `connections` more stand
  idle beside, with one subscription each.
- `storm`: many clients connect, with one subscription each, while `rate` messages a second flow whatever comes back;
  what becomes of those.

Loads of messages that come one at a time, and of clients that only connect, are singles.c's.

The result tells how busy both processes were. In a closed loop the generator answers as soon as it can, in pieces as
small as they come, so that it may look busy beside any broker; it is the bottleneck where `load_cpu` is near 1 and
`broker_cpu` is not.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import frames
from benchmarks.clients import Client, Loop, Opener, Publisher, Stalled, Subscriber, Tally, open_all
from benchmarks.links import LinkClosed

Result = dict[str, float]

PATIENCE = 10.0  # seconds without any progress that make a run a failure
DRAIN = 5.0  # seconds to wait at the end for what is outstanding
FILTERS_PER_HOLDER = 1000
SAMPLE = 10  # offline targets that come back at the end to have their messages counted


@dataclasses.dataclass(frozen=True)
class LoadSpec:
    """What to send. In the topic and the filter, {client} is the target's client id, {j} its number, {n} the topic's.

    Publisher i sends to target i modulo the subscribers; where these are more, to each publishers-th from i in turn.
    """

    mode: str = "closed"
    publishers: int = 10
    subscribers: int = 10
    topic: str = "bench/{j:05d}/t"
    topics: int = 1
    subscribe: str | None = None
    qos: int = 0
    size: int = 64
    level: int = frames.V311
    window: int = 2000
    fan: bool = False
    offline: bool = False
    persistent: bool = False
    rate: int = 0
    connections: int = 0
    in_flight: int = 100
    extra_subscriptions: int = 0
    warm: float = 0.5
    time: float = 3.0
    port: int = 1883
    transport: str = "tcp"
    pid: int = 0


@dataclasses.dataclass(frozen=True)
class Mark:
    """The counters at one moment."""

    at: float
    sent: int
    acked: int
    delivered: int
    broker_cpu: float
    own_cpu: float
    idle: float


def broker_cpu(pid: int) -> float:
    """Seconds of CPU that a process has used, all its threads together."""
    if not pid:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def broker_rss(pid: int) -> int:
    """Bytes resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() if pid else 0


def own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def percentile(ordered: list[int], share: float) -> float:
    return float(ordered[int((len(ordered) - 1) * share)]) if ordered else 0.0


class Load:
    """One run of a LoadSpec."""

    def __init__(self, spec: LoadSpec) -> None:
        self.spec = spec
        self.loop = Loop(spec.port, spec.transport)
        self.tally = Tally()
        self.subscribers = [self._subscriber(j) for j in range(spec.subscribers)]
        self.publishers = [self._publisher(i) for i in range(spec.publishers)]
        self._fan = spec.subscribers if spec.fan else 1
        self._next = 0
        self._holding = 0.0  # seconds until the extra subscriptions were made
        self._idle = 0.0  # seconds that a busy loop spent finding nothing to do
        self._progress = (0, time.monotonic())

    def run(self) -> Result:
        try:
            run = {"closed": self._closed, "storm": self._storm}.get(self.spec.mode)
            if run is None:
                raise ValueError(f"no mode {self.spec.mode}")
            self._open()
            return run()
        finally:
            self.loop.close_all()

    # Clients

    def _subscriber(self, j: int) -> Subscriber:
        spec = self.spec
        name = self._target(j)
        filters = [spec.subscribe.format(client=name, j=j)] if spec.subscribe else []
        return Subscriber(name, self.tally, spec.size, filters, spec.qos, spec.level, not spec.persistent)

    def _publisher(self, i: int) -> Publisher:
        spec = self.spec
        targets = range(i, spec.subscribers, spec.publishers) if i < spec.subscribers else [i % spec.subscribers]
        topics = [spec.topic.format(client=self._target(j), j=j, n=n) for j in targets for n in range(spec.topics)]
        topics = list(dict.fromkeys(topics))
        # Twice a publisher's share of the window, so that acknowledgements may lag behind deliveries.
        at_least = max(16, 2 * spec.window // spec.publishers // (spec.subscribers if spec.fan else 1))
        ring = frames.publish_ring(topics, spec.size, spec.qos, spec.level, at_least)
        return Publisher(f"p{i:05d}", self.tally, ring, topics, spec.qos, spec.level)

    @staticmethod
    def _target(j: int) -> str:
        return f"s{j:05d}"

    def _holders(self) -> Iterator[Client]:
        """Clients that hold the extra subscriptions; one in ten of them has wildcards, none ever matches."""
        for at in range(0, self.spec.extra_subscriptions, FILTERS_PER_HOLDER):
            wild = "+/#" if at // FILTERS_PER_HOLDER % 10 == 9 else "state"
            yield Client(f"h{at:07d}", [f"other/{at + k:07d}/{wild}" for k in range(FILTERS_PER_HOLDER)])

    def _open(self) -> None:
        begun = time.monotonic()
        open_all(self.loop, self._holders(), in_flight=4)
        self._holding = time.monotonic() - begun
        if self.spec.mode == "closed":
            open_all(self.loop, self._crowd(self.spec.connections, "i"), self.spec.in_flight)
        open_all(self.loop, self.subscribers)
        if self.spec.offline:
            for subscriber in self.subscribers:
                subscriber.close()
        open_all(self.loop, self.publishers)

    # Closed loop

    def _closed(self) -> Result:
        start = time.monotonic()
        measure_at, end = start + self.spec.warm, start + self.spec.warm + self.spec.time
        first: Mark | None = None
        while (now := time.monotonic()) < end:
            if first is None and now >= measure_at:
                first = self._mark()
            self._fill()
            self.loop.poll(0.05)
            self._check_progress(now)
        result = self._result(first or self._mark()) | {"holding_s": self._holding}
        self._drain()
        result["lost"] = self._outstanding()
        if self.spec.offline:
            result["lost"] += self._missing_offline()
        return result

    def _outstanding(self) -> int:
        tally = self.tally
        return tally.sent - tally.acked if self.spec.offline else tally.sent * self._fan - tally.delivered

    def _fill(self) -> None:
        """Send what the window allows, in equal parts, going on at the publisher where the last turn ended."""
        room = (self.spec.window - self._outstanding()) // self._fan
        if room <= 0:
            return
        publishers = self.publishers
        share, extra = divmod(room, len(publishers))
        for k in range(len(publishers) if share else extra):
            publisher = publishers[self._next]
            self._next = (self._next + 1) % len(publishers)
            count = min(share + (k < extra), publisher.room())
            if count > 0:
                publisher.publish(count)

    def _check_progress(self, now: float) -> None:
        done = self.tally.delivered + self.tally.acked
        if done != self._progress[0]:
            self._progress = (done, now)
        elif now - self._progress[1] > PATIENCE:
            raise Stalled(
                f"nothing for {PATIENCE:.0f} s: sent {self.tally.sent}, acknowledged {self.tally.acked}, "
                f"delivered {self.tally.delivered}"
            )

    def _drain(self) -> None:
        """Wait for what is outstanding, acknowledgements too; in the end every byte must belong to a whole frame."""
        deadline = time.monotonic() + DRAIN
        while self._undone() and time.monotonic() < deadline:
            self.loop.poll(0.05)
        if not self._outstanding():
            for subscriber in self.subscribers:
                subscriber.check_end()

    def _undone(self) -> bool:
        if self._outstanding() > 0 or (self.spec.qos > 0 and self.tally.acked < self.tally.sent):
            return True
        return any(subscriber.unfinished for subscriber in self.subscribers)

    def _missing_offline(self) -> int:
        """Some of the offline targets come back: how many of the messages acknowledged for them are not there."""
        expected = 0
        sample = self.subscribers[:SAMPLE]
        before = self.tally.delivered
        for subscriber in sample:
            expected += sum(self._sent_to(subscriber.name, publisher) for publisher in self.publishers)
        for subscriber in sample:
            subscriber.open_again(self.loop)
        last, deadline = -1, time.monotonic() + DRAIN
        while self.tally.delivered - before < expected and time.monotonic() < deadline:
            self.loop.poll(0.05)
            if self.tally.delivered != last:
                last, deadline = self.tally.delivered, time.monotonic() + DRAIN
        return expected - (self.tally.delivered - before)

    def _sent_to(self, name: str, publisher: Publisher) -> int:
        """How many of the publisher's messages went to the target; it takes its topics in turn."""
        mine = [k for k, topic in enumerate(publisher.topics) if name in topic]
        rounds, rest = divmod(publisher.sent, len(publisher.topics))
        return rounds * len(mine) + sum(k < rest for k in mine)

    # Open loop

    def _send_due(self, start: float, base: int) -> int:
        """Send what the rate says is due by now; how many."""
        due = base + int((time.monotonic() - start) * self.spec.rate)
        begun = 0
        while self.tally.sent < due:
            publisher = self.publishers[self._next]
            if publisher.room() <= 0:
                break
            self._next = (self._next + 1) % len(self.publishers)
            publisher.publish_stamped(self.spec.size)
            begun += 1
        return begun

    def _pace(self, seconds: float, opener: Opener | None = None) -> None:
        """Keep the rate for so long, or until the opener has done. A busy loop: epoll's milliseconds are too coarse."""
        start, base = time.monotonic(), self.tally.sent
        now = start
        while now - start < seconds and not (opener and opener.done):
            did = self._send_due(start, base) + (opener.step(2) if opener else 0)
            did += self.loop.poll(0)
            before, now = now, time.monotonic()
            if not did:
                self._idle += now - before
            if opener is None:
                self._check_progress(now)
        if opener and not opener.done:
            raise Stalled(f"{opener.ready} of {opener.opened} clients of the storm were ready after {seconds:.0f} s")

    def _latency_result(self) -> Result:
        ordered = sorted(self.tally.latencies or [])
        names = {"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999, "max_us": 1.0}
        return {name: percentile(ordered, share) / 1000 for name, share in names.items()}

    # Connections

    def _crowd(self, count: int, prefix: str) -> Iterator[Client]:
        for k in range(count):
            name = f"{prefix}{k:05d}"
            yield Client(name, [f"dev/{name}/#"], level=self.spec.level)

    def _storm(self) -> Result:
        self.tally.latencies = []
        self._pace(self.spec.warm)
        self.tally.latencies.clear()
        opener = Opener(self.loop, self._crowd(self.spec.connections, "c"), self.spec.in_flight)
        first = self._mark()
        self._pace(120.0, opener)
        result = self._result(first) | self._latency_result()
        elapsed = time.monotonic() - first.at
        result["connects_per_s"] = self.spec.connections / elapsed
        result["flow_kept"] = min(100.0, 100 * result["delivered_per_s"] / self.spec.rate)
        result["p99_ms"] = result["p99_us"] / 1000
        self._drain()
        result["lost"] = self._outstanding()
        return result

    # Figures

    def _mark(self) -> Mark:
        tally = self.tally
        cpu = broker_cpu(self.spec.pid)
        return Mark(time.monotonic(), tally.sent, tally.acked, tally.delivered, cpu, own_cpu(), self._idle)

    def _result(self, first: Mark) -> Result:
        last = self._mark()
        elapsed = max(last.at - first.at, 1e-9)
        busy = last.own_cpu - first.own_cpu - (last.idle - first.idle)
        return {
            "sent_per_s": (last.sent - first.sent) / elapsed,
            "acked_per_s": (last.acked - first.acked) / elapsed,
            "delivered_per_s": (last.delivered - first.delivered) / elapsed,
            "load_cpu": max(busy, 0.0) / elapsed,
            "broker_cpu": (last.broker_cpu - first.broker_cpu) / elapsed,
            "broker_rss_kib": broker_rss(self.spec.pid) / 1024,
            "lost": 0,
        }


def run_load(spec: LoadSpec) -> Result:
    """Run one load in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    load = Load(spec)
    # No cyclic garbage is made on the way, and a collection among 10,000 clients would stall the load.
    gc.disable()
    try:
        return load.run()
    finally:
        gc.enable()


def main() -> int:
    try:
        result = run_load(LoadSpec(**json.loads(sys.argv[1])))
    except (frames.ProtocolError, LinkClosed, Stalled, OSError, ValueError) as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
