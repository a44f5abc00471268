"""Account: after a new start, let every exchange end and every queue run empty, and see what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.faults.clients import SESSION, TOPICS, Clients
from tests.faults.ledger import Ledger
from tests.faults.peer import Peer

SESSIONS_CHECKED = 40
PATIENCE = 1.0
"""Seconds in which nothing comes any more before what is missing is lost."""

TICK = 0.01
LAST = "change/last"
"""A topic to which the client that changes its subscriptions is always subscribed."""


async def reconcile(clients: Clients, ledger: Ledger) -> None:
    """Bring the ledger up to date.  Raises ``Gone`` and ``asyncio.TimeoutError``."""
    publishers = clients.publishers.values()
    for peer in (*publishers, clients.online, clients.away, clients.changer, clients.retainer):
        await clients.connect(peer)
    for peer in (*publishers, clients.retainer):
        await peer.settled()
    await _take_streams(ledger)
    await _take_retained(clients, ledger)
    await _take_subscriptions(clients, ledger)
    await _take_sessions(clients, ledger)
    await clients.away.disconnect()


async def _take_streams(ledger: Ledger) -> None:
    """Everything acknowledged has come, or nothing has for a while."""
    streams = ledger.streams
    last, quiet = -1, 0.0
    while quiet < PATIENCE and any(stream.missing for stream in streams):
        count = sum(len(stream.order) for stream in streams)
        quiet = quiet + TICK if count == last else 0.0
        last = count
        await asyncio.sleep(TICK)
    await asyncio.sleep(0.05)  # for what comes twice
    for stream in streams:
        stream.take_lost()


async def _take_retained(clients: Clients, ledger: Ledger) -> None:
    found: dict[str, int] = {}

    def take(topic: str, payload: bytes, qos: int) -> None:
        found[topic] = int(payload)

    peer = Peer(clients.broker.port, "reader", message=take)
    await peer.connect(clean=True)
    await peer.subscribe("retained/#", 0)
    awaited = {topic for topic, retained in ledger.retained.items() if not retained.may_be_absent}
    await _until(lambda: found.keys() >= awaited)
    await peer.disconnect()
    for topic, retained in ledger.retained.items():
        if not retained.allows(found.get(topic, 0)):
            ledger.retained_lost += 1
            retained.acknowledged = 0  # counted once


async def _take_subscriptions(clients: Clients, ledger: Ledger) -> None:
    """Publish to every topic: what is heard is what is subscribed to."""
    heard, publisher = clients.heard, clients.publishers[2]
    await clients.changer.subscribe(LAST, 1)
    heard.clear()
    topics = [f"change/{number}" for number in range(TOPICS)]
    for topic in (*topics, LAST):
        await publisher.publish(topic, b"0", 1, lambda code: None)
    await publisher.settled()
    await _until(lambda: LAST in heard)
    ledger.subscriptions_lost += len(ledger.subscribed - heard)
    ledger.subscriptions_kept += len(ledger.unsubscribed & heard)
    ledger.subscribed = heard & set(topics)
    ledger.unsubscribed = set()


async def _take_sessions(clients: Clients, ledger: Ledger) -> None:
    """Some of those that were made and some of those that were ended; each is looked at once, and then ended."""
    made = [name for name in ledger.sessions if name.startswith(SESSION)]
    ended = list(ledger.ended)
    for name in (*made[:SESSIONS_CHECKED], *ended[:SESSIONS_CHECKED]):
        peer = Peer(clients.broker.port, name)
        peer.expiry = 0
        await peer.connect()
        ledger.sessions_lost += name in ledger.sessions and not peer.session_present
        ledger.sessions_kept += name in ledger.ended and peer.session_present
        await peer.disconnect()
    ledger.sessions.difference_update(made)
    ledger.ended.clear()


async def _until(is_so: Callable[[], bool]) -> None:
    for _ in range(round(PATIENCE / TICK)):
        if is_so():
            return
        await asyncio.sleep(TICK)
