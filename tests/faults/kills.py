"""Kill loops: clients at work, SIGKILL at any moment or at a crash point, a new start, and an account of everything.

At work are a QoS 1 and a QoS 2 publisher with a stream each to a connected subscriber, to a persistent one that is
away, and (where there is P2P) to a persistent target that is away; one that keeps changing retained messages, one that
subscribes and unsubscribes, one that makes new sessions.  The publishers keep to the standard: what they have not seen
acknowledged they send again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.faults.crash import AT_START
from tests.faults.ledger import Ledger, Stream
from tests.faults.peer import Gone, Peer
from tests.faults.processes import BrokerProcess
from tests.faults.tables import aligned

TOPICS = 8
ROUND_TIMEOUT = 180.0
RATE = 500  # messages a second and publisher, in bursts


@dataclass
class Result:
    """One broker's line of the table."""

    name: str
    kills: int = 0
    at_points: int = 0
    points: set[str] = field(default_factory=set)
    slowest_start: float = 0.0
    notes: list[str] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def is_clean(self) -> bool:
        """Nothing acknowledged was lost, nothing came twice."""
        totals = self.ledger.totals()
        return not self.notes and not any(count for name, count in totals.items() if not name.endswith("acked"))


class KillLoop:
    """The loop for one broker."""

    def __init__(self, broker: BrokerProcess, seed: int, longest: float) -> None:
        self._broker = broker
        self._choose = random.Random(seed)
        self._longest = longest
        self.result = Result(broker.name)
        ledger = self._ledger = self.result.ledger
        port = broker.port

        def arrived(topic: str, payload: bytes, qos: int) -> None:
            ledger.arrived(payload)

        self._publishers = {1: Peer(port, "publisher1", version=4), 2: Peer(port, "publisher2")}
        self._online = Peer(port, "online", message=arrived)
        self._away = Peer(port, "away", version=4, message=arrived)
        self._changer = Peer(port, "changer", message=self._changed)
        self._retainer = Peer(port, "retainer")
        self._streams: dict[int, list[Stream]] = {1: [], 2: []}
        for qos, streams in self._streams.items():
            streams.append(ledger.stream(f"online{qos}", f"online/{qos}", qos))
            streams.append(ledger.stream(f"away{qos}", f"away/{qos}", qos))
            if broker.has_p2p:
                streams.append(ledger.stream(f"p2p{qos}", f"p2p/away/t{qos}", qos))
        self._heard: set[str] = set()
        self._made = 0

    async def run(self, kills: int, points: Sequence[str], tell: Callable[[str], None]) -> Result:
        """Kill so often; at some of ``points`` by itself, most of the time, where there are any."""
        result, broker, choose = self.result, self._broker, self._choose
        try:
            broker.start()
            await self._ready()
            await self._begin()
            while result.kills < kills:
                point = choose.choice(points) if points and choose.random() < 0.7 else ""
                if point:
                    broker.stop() if choose.random() < 0.2 else broker.kill()
                    if point.partition(".")[0] in AT_START:
                        await self._crash_at_start(point)
                    else:
                        count = choose.choice((1, 2, 3, 5, 10, 30))
                        broker.start(crash_at=f"{point}:{count}")
                    await self._ready_or_dead(point)
                await self._life(point)
                result.kills += 1
                await asyncio.wait_for(self._reconcile(), ROUND_TIMEOUT)
                tell(str(self))
        except asyncio.TimeoutError:
            result.notes.append(f"after kill {result.kills} a client waited in vain")
        finally:
            broker.kill()
        return result

    def __str__(self) -> str:
        totals = self._ledger.totals()
        bad = {name: count for name, count in totals.items() if count and not name.endswith("acked")}
        acknowledged = f"{totals['qos 1 acked']}+{totals['qos 2 acked']} acknowledged"
        return f"{self.result.name}: {self.result.kills} kills, {acknowledged}, {bad or 'nothing lost'}"

    # --- starting ---

    async def _ready(self) -> None:
        """The time from the process's start to the first CONNACK counts."""
        started = time.monotonic()
        if not self._broker.wait_until_ready():
            raise RuntimeError(f"{self._broker.name} did not start:\n{self._broker.last_words()}")
        probe = Peer(self._broker.port, "probe", version=4)
        await probe.connect(clean=True)
        self.result.slowest_start = max(self.result.slowest_start, time.monotonic() - started)
        await probe.disconnect()

    async def _crash_at_start(self, point: str) -> None:
        """The broker dies while it starts, and is then started without that."""
        self._broker.start(crash_at=f"{point}:1")
        if not self._broker.wait_until_ready():
            self._died_at(point)
        else:  # its port was open; whoever is answered knows that it got through
            with contextlib.suppress(Gone, asyncio.TimeoutError):
                await Peer(self._broker.port, "probe", version=4).connect(clean=True)
            if not self._broker.is_running:
                self._died_at(point)
        self._broker.kill()
        self._broker.start()

    async def _ready_or_dead(self, point: str) -> None:
        if not self._broker.wait_until_ready():
            self._died_at(point)
            self._broker.start()
            await self._ready()

    def _died_at(self, point: str) -> None:
        self.result.at_points += 1
        self.result.points.add(point)

    # --- work ---

    async def _begin(self) -> None:
        await self._online.connect()
        await self._online.subscribe("online/#")
        await self._away.connect()
        await self._away.subscribe("away/#")
        await self._away.disconnect()
        await self._changer.connect()

    async def _life(self, point: str) -> None:
        """Work until the broker is dead."""
        broker = self._broker
        workers = [
            asyncio.create_task(self._until_gone(work))
            for work in (
                partial(self._publish, 1),
                partial(self._publish, 2),
                self._listen,
                self._retain,
                self._change,
                self._make_sessions,
            )
        ]
        end = time.monotonic() + self._choose.uniform(0.1, self._longest)
        while time.monotonic() < end and broker.is_running:  # noqa: ASYNC110  # a process tells no event
            await asyncio.sleep(0.002)
        if not broker.is_running:
            self._died_at(point)
        broker.kill()
        done, pending = await asyncio.wait(workers, timeout=30)
        for task in pending:
            task.cancel()
            self.result.notes.append("a client did not notice the kill")
        for task in done:
            task.result()

    async def _until_gone(self, work: Callable[[], Awaitable[None]]) -> None:
        with contextlib.suppress(Gone, asyncio.TimeoutError):
            await work()

    async def _connect(self, peer: Peer) -> None:
        """Connect, and count the session as lost if the broker does not have it any more."""
        if peer.is_connected:
            return
        code = await peer.connect()
        if code:
            self.result.notes.append(f"{peer.client_id} was refused: 0x{code:02x}")
        if peer.client_id in self._ledger.sessions and not peer.session_present:
            self._ledger.sessions_lost += 1
        self._ledger.sessions.add(peer.client_id)

    async def _publish(self, qos: int) -> None:
        publisher = self._publishers[qos]
        await self._connect(publisher)
        while True:
            burst = self._choose.choice((1, 5, 25, 100))
            for _ in range(burst):
                stream = self._choose.choice(self._streams[qos])
                number, payload = stream.next_payload()
                await publisher.publish(stream.topic, payload, qos, partial(stream.ended, number))
            await asyncio.sleep(burst / RATE)

    async def _listen(self) -> None:
        await self._connect(self._online)
        while self._online.is_connected:  # noqa: ASYNC110  # the peer's own flag
            await asyncio.sleep(0.05)

    async def _retain(self) -> None:
        ledger, peer = self._ledger, self._retainer
        await self._connect(peer)

        def done(topic: str, number: int, code: int) -> None:
            if code < 0x80:
                ledger.retained[topic] = max(number, ledger.retained.get(topic, 0))

        while True:
            topic = f"retained/{self._choose.randrange(TOPICS)}"
            number = ledger.retained_sent[topic] = ledger.retained_sent.get(topic, 0) + 1
            await peer.publish(topic, b"%d" % number, 1, partial(done, topic, number), retain=True)
            await asyncio.sleep(0.01)

    async def _change(self) -> None:
        ledger, peer = self._ledger, self._changer
        await self._connect(peer)
        while True:
            topic_filter = f"change/{self._choose.randrange(TOPICS)}"
            is_held = topic_filter in ledger.subscribed
            ledger.subscribed.discard(topic_filter)
            ledger.unsubscribed.discard(topic_filter)
            if is_held:
                await peer.unsubscribe(topic_filter)
                ledger.unsubscribed.add(topic_filter)
            else:
                await peer.subscribe(topic_filter, 1)
                ledger.subscribed.add(topic_filter)
            await asyncio.sleep(0.01)

    def _changed(self, topic: str, payload: bytes, qos: int) -> None:
        self._heard.add(topic)

    async def _make_sessions(self) -> None:
        while True:
            self._made += 1
            peer = Peer(self._broker.port, f"session{self._made}", version=self._choose.choice((4, 5)))
            await peer.connect()
            self._ledger.sessions.add(peer.client_id)
            await peer.disconnect()
            await asyncio.sleep(0.02)

    # --- the account ---

    async def _reconcile(self) -> None:
        """Start again, let every exchange end and every queue run empty, and see what is missing."""
        self._broker.start()
        await self._ready()
        for peer in (*self._publishers.values(), self._online, self._away, self._changer, self._retainer):
            await self._connect(peer)
        for peer in (*self._publishers.values(), self._retainer):
            await peer.settled()
        await self._all_arrived()
        for stream in self._ledger.streams.values():
            stream.take_lost()
        await self._check_retained()
        await self._check_subscriptions()
        await self._check_sessions()
        await self._away.disconnect()

    async def _all_arrived(self) -> None:
        """Everything acknowledged has come, or nothing has for a while."""
        streams = self._ledger.streams.values()
        last, quiet = -1, 0
        while quiet < 20 and any(stream.acknowledged - stream.received.keys() - stream.lost for stream in streams):
            count = sum(len(stream.order) for stream in streams)
            quiet = quiet + 1 if count == last else 0
            last = count
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.05)

    async def _check_retained(self) -> None:
        ledger = self._ledger
        found: dict[str, int] = {}

        def take(topic: str, payload: bytes, qos: int) -> None:
            found[topic] = int(payload)

        peer = Peer(self._broker.port, "reader", message=take)
        await peer.connect(clean=True)
        await peer.subscribe("retained/#", 0)
        await self._until(lambda: found.keys() >= ledger.retained.keys())
        for topic, number in ledger.retained.items():
            if not number <= found.get(topic, 0) <= ledger.retained_sent[topic]:
                ledger.retained_lost += 1
                ledger.retained[topic] = found.get(topic, 0)
        await peer.disconnect()

    async def _check_subscriptions(self) -> None:
        ledger, publisher = self._ledger, self._publishers[2]
        self._heard.clear()
        over: list[int] = []
        for number in range(TOPICS):
            await publisher.publish(f"change/{number}", b"0", 1, over.append)
        await publisher.settled()
        await self._until(lambda: ledger.subscribed <= self._heard)
        lost, kept = ledger.subscribed - self._heard, ledger.unsubscribed & self._heard
        ledger.subscriptions_lost += len(lost)
        ledger.subscriptions_kept += len(kept)
        ledger.subscribed = set(self._heard)
        ledger.unsubscribed = set()

    async def _check_sessions(self) -> None:
        """Some of the sessions that were made; each is looked at once."""
        made = [name for name in self._ledger.sessions if name.startswith("session")]
        for name in made[-40:]:
            peer = Peer(self._broker.port, name, version=4)
            await self._connect(peer)
            await peer.disconnect()
        self._ledger.sessions.difference_update(made)

    @staticmethod
    async def _until(is_so: Callable[[], bool]) -> None:
        for _ in range(100):
            if is_so():
                return
            await asyncio.sleep(0.01)


def table(results: list[Result]) -> str:
    """One line a broker."""
    return aligned(
        [
            {
                "broker": result.name,
                "kills": str(result.kills),
                "at points": str(result.at_points),
                **{name: f"{count:,}" for name, count in result.ledger.totals().items()},
                "slowest start": f"{result.slowest_start:.2f} s",
            }
            for result in results
        ]
    )
