"""Clients: everything that the kill loops have at work, until the broker is gone, and again.

A QoS 1 and a QoS 2 publisher, each with a stream to a connected subscriber, one to a persistent subscriber that is
mostly away, one to both, and (where there is P2P) one to a persistent target that is away; one that keeps changing and
deleting retained messages, one that subscribes and unsubscribes, one that makes sessions and ends them, and (where
wills are promised) one that leaves wills.  They keep to the standard: what they have not seen acknowledged they send
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from tests.faults.ledger import Ledger, Retained, Source
from tests.faults.peer import Gone, Peer
from tests.faults.processes import BrokerProcess
from twisted_p2pmqtt.codec.packets import Will

TOPICS = 8
RATE = 500  # messages a second and publisher, in bursts
NOTICE_TIMEOUT = 30.0
SESSION = "session"
CHANGED = "change/#"
LAST = "change/last"
"""A topic to which the client that changes its subscriptions is always subscribed."""


class Clients:
    """The clients of one broker; what they are promised goes into ``ledger``, what should not happen into ``notes``."""

    def __init__(self, broker: BrokerProcess, ledger: Ledger, choose: random.Random, notes: list[str]) -> None:
        self.broker = broker
        self._ledger = ledger
        self._choose = choose
        self._notes = notes
        port = broker.port
        self.publishers = {1: Peer(port, "publisher1", version=4), 2: Peer(port, "publisher2")}
        self.online = Peer(port, "online", message=partial(self._arrived, "online"))
        self.away = Peer(port, "away", version=4, message=partial(self._arrived, "away"))
        self.changer = Peer(port, "changer", message=self._changed)
        self.retainer = Peer(port, "retainer")
        self.heard: set[str] = set()
        self._sources: dict[int, list[Source]] = {}
        for qos in (1, 2):
            self._sources[qos] = [
                ledger.source(f"online{qos}", f"online/{qos}", qos, "online"),
                ledger.source(f"away{qos}", f"away/{qos}", qos, "away"),
                ledger.source(f"both{qos}", f"both/{qos}", qos, "online", "away"),
            ]
            if broker.has_p2p:
                self._sources[qos].append(ledger.source(f"p2p{qos}", f"p2p/away/t{qos}", qos, "away"))
        self._wills: list[Source] = []
        if broker.keeps_wills:
            self._wills = [ledger.source(f"will{qos}", f"away/will{qos}", qos, "away") for qos in (1, 2)]
        ledger.retained.update((f"retained/{number}", Retained()) for number in range(TOPICS))
        self._made = 0
        self._worker_ends: list[tuple[float, str, str]] = []  # when, who, why
        self._broker_ended = 0.0

    def _arrived(self, receiver: str, topic: str, payload: bytes, qos: int) -> None:
        self._ledger.arrived(receiver, payload)

    def _changed(self, topic: str, payload: bytes, qos: int) -> None:
        self.heard.add(topic)

    async def begin(self) -> None:
        """Connect to a broker that knows nobody yet."""
        for peer in (self.online, self.away):
            await self.connect(peer)
            await peer.subscribe(f"{peer.client_id}/#")
            await peer.subscribe("both/#")
        await self.away.disconnect()
        await self.connect(self.changer)
        await self.changer.subscribe(LAST, 1)

    async def connect(self, peer: Peer, will: Will | None = None) -> None:
        """Connect, and count the session as lost if the broker does not have it any more.  Raises ``Gone``."""
        if peer.is_connected:
            return
        code = await peer.connect(will=will)
        if code:
            self._notes.append(f"{peer.client_id} was refused: 0x{code:02x}")
        if peer.client_id in self._ledger.sessions and not peer.session_present:
            self._ledger.sessions_lost += 1
        self._ledger.sessions.add(peer.client_id)

    @contextlib.asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """Work, until the broker is dead, which it has to be at the end of this; ``broker_ended`` tells since when."""
        self._worker_ends.clear()
        self._broker_ended = 0.0
        works: list[Callable[[], Awaitable[None]]] = [partial(self._publish, 1), partial(self._publish, 2)]
        works += [self._listen, self._come_and_go, self._retain, self._change, self._make_sessions]
        if self._wills:
            works.append(self._leave_wills)
        workers = [asyncio.create_task(self._until_gone(work)) for work in works]
        try:
            yield
        finally:
            done, pending = await asyncio.wait(workers, timeout=NOTICE_TIMEOUT)
            for task in pending:
                task.cancel()
                self._notes.append("a client did not notice the kill")
            for task in done:
                task.result()
            for when, who, why in self._worker_ends:
                if when < self._broker_ended:
                    early = self._broker_ended - when
                    self._notes.append(f"{who} was cut off {early:.2f} s before the broker ended: {why}")
            self.note_failures()

    def broker_ended(self, when: float) -> None:
        """By that time of the monotonic clock; whoever is cut off before is so by a broker that lives."""
        self._broker_ended = when

    def note_failures(self) -> None:
        """What a client could not read, which nobody may have waited for."""
        for peer in (*self.publishers.values(), self.online, self.away, self.changer, self.retainer):
            if peer.failure:
                self._notes.append(f"{peer.client_id} could not read what came: {peer.failure}")
                peer.failure = ""

    async def _until_gone(self, work: Callable[[], Awaitable[None]]) -> None:
        why = "it returned"
        try:
            await work()
        except (Gone, asyncio.TimeoutError) as error:
            why = repr(error)
        except Exception as error:  # the others are at work still
            why = repr(error)
            self._notes.append(f"{_name(work)} failed: {why}")
        finally:
            self._worker_ends.append((time.monotonic(), _name(work), why))

    async def _publish(self, qos: int) -> None:
        publisher = self.publishers[qos]
        await self.connect(publisher)
        while True:
            burst = self._choose.choice((1, 5, 25, 100))
            for _ in range(burst):
                source = self._choose.choice(self._sources[qos])
                number, payload = source.next_payload()
                await publisher.publish(source.topic, payload, qos, partial(source.ended, number))
            await asyncio.sleep(burst / RATE)

    async def _listen(self) -> None:
        await self.connect(self.online)
        while self.online.is_connected:  # noqa: ASYNC110  # the peer's own flag
            await asyncio.sleep(0.05)

    async def _come_and_go(self) -> None:
        """Mostly away; it leaves in the middle of things."""
        while True:
            await asyncio.sleep(self._choose.uniform(0.05, 0.4))
            await self.connect(self.away)
            await asyncio.sleep(self._choose.uniform(0.0, 0.2))
            await self.away.drop()

    async def _retain(self) -> None:
        peer = self.retainer
        await self.connect(peer)
        while True:
            topic, retained = self._choose.choice(list(self._ledger.retained.items()))
            number, payload = retained.next_payload()
            await peer.publish(topic, payload, 1, partial(retained.ended, number), retain=True)
            await asyncio.sleep(0.01)

    async def _change(self) -> None:
        ledger, peer = self._ledger, self.changer
        await self.connect(peer)
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

    async def _make_sessions(self) -> None:
        while True:
            made = [name for name in self._ledger.sessions if name.startswith(SESSION)]
            if made and self._choose.random() < 0.3:
                await self._end_session(self._choose.choice(sorted(made)))
            else:
                await self._make_session()
            await asyncio.sleep(0.02)

    async def _make_session(self) -> None:
        self._made += 1
        peer = Peer(self.broker.port, f"{SESSION}{self._made}", version=self._choose.choice((4, 5)))
        await self.connect(peer)
        await peer.subscribe(CHANGED, 1)
        self._ledger.subscribers.add(peer.client_id)
        await peer.disconnect()

    async def _end_session(self, name: str) -> None:
        self._ledger.sessions.discard(name)
        self._ledger.subscribers.discard(name)
        peer = Peer(self.broker.port, name)
        peer.expiry = 0
        await peer.connect(clean=True)
        self._ledger.ended.add(name)
        await peer.disconnect()

    async def _leave_wills(self) -> None:
        """A CONNECT that is answered promises its will, which goes out because nobody says DISCONNECT."""
        while True:
            peer, source = Peer(self.broker.port, "testator"), self._choose.choice(self._wills)
            number, payload = source.next_payload()
            await self.connect(peer, Will(source.topic, payload, source.qos))
            source.ended(number, 0)
            await asyncio.sleep(self._choose.uniform(0.0, 0.1))
            await peer.drop()


def _name(work: Callable[[], Awaitable[None]]) -> str:
    """For people: the method, with its QoS where it has one."""
    if isinstance(work, partial):
        return " ".join([work.func.__name__, *map(str, work.args)])
    return getattr(work, "__name__", repr(work))
