"""Account: after a new start, let every exchange end and every queue run empty, and see what is missing.

Not looked at: the QoS and the options of a subscription that is there; what waited for the sessions that clients make
and end, across a kill (``away`` has the queues for that, theirs is filled and emptied here); and whatever was under way
without an answer when the broker was killed, which may be either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.faults.clients import LAST, SESSION, TOPICS, Clients
from tests.faults.ledger import Ledger
from tests.faults.peer import Peer

AT_ONCE = 40
PATIENCE = 1.0
"""Seconds in which nothing comes any more before what is missing is lost."""

TICK = 0.01
TOPICS_CHANGED = [*(f"change/{number}" for number in range(TOPICS)), LAST]


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
    clients.note_failures()


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
            retained.take_lost()


async def _take_subscriptions(clients: Clients, ledger: Ledger) -> None:
    """Publish to every topic: what is heard is what is subscribed to."""
    heard, publisher = clients.heard, clients.publishers[2]
    heard.clear()
    for topic in TOPICS_CHANGED:
        await publisher.publish(topic, b"0", 1, lambda code: None)
    await publisher.settled()
    await _until(lambda: LAST in heard)
    if LAST not in heard:
        ledger.subscriptions_lost += 1
        await clients.changer.subscribe(LAST, 1)
    ledger.subscriptions_lost += len(ledger.subscribed - heard)
    ledger.subscriptions_kept += len(ledger.unsubscribed & heard)
    ledger.subscribed = heard - {LAST}
    ledger.unsubscribed = set()


async def _take_sessions(clients: Clients, ledger: Ledger) -> None:
    """Those that were made and those that were ended; each is looked at once, and then ended.

    What ``_take_subscriptions`` has published waits for those that are there with their subscription.
    """
    made = [name for name in ledger.sessions if name.startswith(SESSION)]
    names = [*made, *ledger.ended]
    for start in range(0, len(names), AT_ONCE):
        await asyncio.gather(*(_take_session(clients, ledger, name) for name in names[start : start + AT_ONCE]))
    ledger.sessions.difference_update(made)
    ledger.subscribers.clear()
    ledger.ended.clear()


async def _take_session(clients: Clients, ledger: Ledger, name: str) -> None:
    heard: set[str] = set()
    peer = Peer(clients.broker.port, name, message=lambda topic, payload, qos: heard.add(topic))
    peer.expiry = 0
    await peer.connect()
    ledger.sessions_lost += name in ledger.sessions and not peer.session_present
    ledger.sessions_kept += name in ledger.ended and peer.session_present
    if name in ledger.subscribers and peer.session_present:
        await _until(lambda: heard.issuperset(TOPICS_CHANGED))
        ledger.subscriptions_lost += not heard.issuperset(TOPICS_CHANGED)
    await peer.disconnect()


async def _until(is_so: Callable[[], bool]) -> None:
    for _ in range(round(PATIENCE / TICK)):
        if is_so():
            return
        await asyncio.sleep(TICK)
