"""Reading: every row of a store, checked, as the records that ``IStore.restore`` gives.

Sessions come first, with their subscriptions and received packet ids, then deliveries over all sessions in the order of
their sequence, then retained messages.  Nothing is sorted or looked up at random: each table is read once along its
key.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted_p2pmqtt.core.records import DeliveryRecord, MessageRecord, RetainedRecord, SessionRecord
from twisted_p2pmqtt.store.rows import (
    DELIVERY,
    MESSAGE,
    RECEIVED,
    RETAINED,
    SESSION,
    SUBSCRIPTION,
    Damaged,
    Table,
    check_delivery,
    delivery_from,
    message_from,
    received_from,
    retained_from,
    session_from,
    subscription_from,
)
from twisted_p2pmqtt.store.statements import Holders

CHUNK = 50
"""Records, and subscriptions of sessions, that one list may hold (a session is never divided): a millisecond's work."""

CHUNK_BYTES = 4_194_304
"""Bytes of payloads in one list, about."""

Rows = Iterator[tuple[Any, ...]]


def read_everything(connection: sqlite3.Connection, holders: Holders) -> Iterator[list[Any]]:
    """The records, in lists; ``holders`` is filled.  Raises ``Damaged`` and ``sqlite3.Error``."""
    clients: dict[int, str] = {}
    yield from _chunks(_sessions(connection, clients))
    yield from _chunks(_deliveries(connection, clients, holders))
    yield from _chunks(_retained(connection))


@contextmanager
def _all_of(connection: sqlite3.Connection, table: Table) -> Iterator[Rows]:
    """The table's rows in the order of its key.  A cursor left open would keep the file locked."""
    cursor = connection.execute(f"SELECT {table.selected} FROM {table.name} ORDER BY {table.key[0]}")
    try:
        yield cursor
    finally:
        cursor.close()


def _chunks(records: Iterator[Any]) -> Iterator[list[Any]]:
    chunk: list[Any] = []
    weight = size = 0
    for record in records:
        chunk.append(record)
        weight += 1
        if isinstance(record, SessionRecord):
            weight += len(record.subscriptions) + len(record.received)
        else:
            size += len(record.message.payload)
        if weight >= CHUNK or size >= CHUNK_BYTES:
            yield chunk
            chunk, weight, size = [], 0, 0
    if chunk:
        yield chunk


def _sessions(connection: sqlite3.Connection, clients: dict[int, str]) -> Iterator[SessionRecord]:
    known: dict[str, None] = {}  # no set, which garbage collection would walk through again and again
    with (
        _all_of(connection, SESSION) as sessions,
        _all_of(connection, SUBSCRIPTION) as subscriptions,
        _all_of(connection, RECEIVED) as received,
    ):
        subscription, packet = next(subscriptions, None), next(received, None)
        for row in sessions:
            record = session_from(row)
            key = row[0]
            if record.client_id in known:
                raise Damaged(f"two sessions of {record.client_id!r}")
            known[record.client_id] = None
            clients[key] = record.client_id
            while subscription is not None and subscription[0] == key:
                record.subscriptions.append(subscription_from(subscription))
                subscription = next(subscriptions, None)
            while packet is not None and packet[0] == key:
                record.received.append(received_from(packet))
                packet = next(received, None)
            yield record
    if subscription is not None or packet is not None:
        raise Damaged("a row of a session that is not there")


def _deliveries(connection: sqlite3.Connection, clients: dict[int, str], holders: Holders) -> Iterator[DeliveryRecord]:
    shared: dict[int, MessageRecord] = {}
    held = f"SELECT {MESSAGE.selected} FROM message WHERE id = ?"
    with _all_of(connection, DELIVERY) as rows:
        for row in rows:
            check_delivery(row)
            sequence, session, _, topic, key, _ = row
            client_id = clients.get(session)
            if client_id is None:
                raise Damaged(f"delivery {sequence} has no session")
            message = None
            if topic is None:
                message = shared.get(key)
                if message is None:
                    found = connection.execute(held, (key,)).fetchall()
                    if not found:
                        raise Damaged(f"delivery {sequence} has no message")
                    message = shared[key] = message_from(found[0])
                holders.hold(sequence, key)
            yield delivery_from(row, client_id, message)


def _retained(connection: sqlite3.Connection) -> Iterator[RetainedRecord]:
    with _all_of(connection, RETAINED) as rows:
        for row in rows:
            yield retained_from(row)
