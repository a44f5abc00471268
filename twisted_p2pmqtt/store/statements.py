"""Statements: from a batch to the SQL that writes it, one multi-row statement a table (a few for huge batches).

Measured: a writer thread beside a busy reactor has to win the interpreter back after each call into SQLite, so calls
count, not rows; and preparing a statement costs as much as running it.  So rows go in statements of some sixty sizes,
which SQLite's cache keeps prepared; the last row is repeated to fill one up, which replaces it by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import chain, islice
from typing import Any

from twisted_p2pmqtt.store.batch import DELIVERY, EXPIRES_AT, Batch
from twisted_p2pmqtt.store.rows import (
    DELIVERY as DELIVERY_TABLE,
)
from twisted_p2pmqtt.store.rows import (
    MESSAGE,
    RECEIVED,
    RETAINED,
    SESSION,
    SUBSCRIPTION,
    Row,
    Table,
    delivery_row,
    message_row,
    received_row,
    retained_row,
    session_row,
    shared_row,
    state_row,
    subscription_row,
)

Statement = tuple[str, list[Any]]

MAX_ROWS = 512
"""Rows of one statement: a prepared one of this size takes some 150 KB."""

MAX_KEYS = 8192
"""Keys that one statement deletes; they stand in its text."""


def padded(count: int) -> int:
    """The smallest size of statement for so many rows: up to 8 exactly, then eight sizes for each doubling."""
    if count <= 8:
        return count
    step = 1 << (count - 1).bit_length() - 4
    return -(-count // step) * step


@lru_cache(maxsize=1024)
def _values(columns: int, rows: int) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return ",".join([row] * rows)


def multi_row(sql: Callable[[str], str], rows: list[Row]) -> Iterable[Statement]:
    """``sql(values)`` for all rows; ``values`` is a list of rows of parameters."""
    columns = len(rows[0])
    for start in range(0, len(rows), MAX_ROWS):
        some = rows[start : start + MAX_ROWS]
        size = padded(len(some))
        some.extend([some[-1]] * (size - len(some)))
        yield sql(_values(columns, size)), list(chain.from_iterable(some))


def put(table: Table, rows: list[Row]) -> Iterable[Statement]:
    """Create or replace the rows."""
    if not rows:
        return ()
    # The table's name and the question marks are ours; what clients said is bound.
    return multi_row(lambda values: f"INSERT OR REPLACE INTO {table.name} VALUES {values}", rows)


def delete_keys(table: str, column: str, keys: Iterable[int]) -> Iterable[Statement]:
    """Delete by an integer key.  Keys are numbers of the store's own, so they may stand in the text."""
    left = iter(keys)
    while some := list(islice(left, MAX_KEYS)):
        yield f"DELETE FROM {table} WHERE {column} IN ({','.join(map(str, some))})", []


def delete_rows(table: Table, keys: list[Row]) -> Iterable[Statement]:
    """Delete by a key of any kind."""
    if not keys:
        return ()
    names = ", ".join(table.key)
    return multi_row(lambda values: f"DELETE FROM {table.name} WHERE ({names}) IN (VALUES {values})", keys)


def update_states(rows: list[Row]) -> Iterable[Statement]:
    """Set the state of deliveries."""
    if not rows:
        return ()
    return multi_row(
        lambda values: (
            f"UPDATE delivery SET state = v.column2 FROM (VALUES {values}) AS v WHERE delivery.id = v.column1"
        ),
        rows,
    )


class Holders:
    """Which deliveries hold messages that have rows of their own."""

    def __init__(self) -> None:
        self._message_of: dict[int, int] = {}
        self._count: dict[int, int] = {}

    def hold(self, delivery: int, message: int) -> None:
        """``delivery`` holds ``message``."""
        self._message_of[delivery] = message
        self._count[message] = self._count.get(message, 0) + 1

    def release(self, deliveries: list[int]) -> list[int]:
        """These deliveries are over; the messages that nobody holds any more."""
        free: list[int] = []
        if not self._message_of:
            return free
        for delivery in deliveries:
            message = self._message_of.pop(delivery, None)
            if message is None:
                continue
            self._count[message] -= 1
            if not self._count[message]:
                del self._count[message]
                free.append(message)
        return free

    def __len__(self) -> int:
        return len(self._message_of)


def statements_of(batch: Batch, holders: Holders) -> list[Statement]:
    """Everything that writes the batch, in order; ``holders`` is brought up to date."""
    out: list[Statement] = []
    dropped = batch.dropped
    stored = dropped - batch.created
    for table in ("session", "subscription", "received"):
        out += delete_keys(table, "id" if table == "session" else "session", stored)
    out += put(SESSION, [session_row(key, record) for key, record in batch.sessions.items() if key not in dropped])
    gone: list[Row] = []
    rows: list[Row] = []
    for (session, topic_filter), record in batch.subscriptions.items():
        if session in dropped:
            continue
        if record is None:
            gone.append((session, topic_filter))
        else:
            rows.append(subscription_row(session, record))
    out += delete_rows(SUBSCRIPTION, gone)
    out += put(SUBSCRIPTION, rows)
    received = [(key, here) for key, here in batch.received.items() if key[0] not in dropped]
    out += delete_rows(RECEIVED, [key for key, here in received if not here])
    out += put(RECEIVED, [received_row(*key) for key, here in received if here])
    if batch.ended:
        out += delete_keys("delivery", "id", batch.ended)
        out += delete_keys("message", "id", holders.release(batch.ended))
    out += _queued(batch, holders)
    out += update_states([state_row(key, *state) for key, state in batch.progress.items()])
    out += delete_rows(RETAINED, [(topic,) for topic, kept in batch.retained.items() if kept is None])
    out += put(RETAINED, [retained_row(topic, *kept) for topic, kept in batch.retained.items() if kept is not None])
    return out


def _queued(batch: Batch, holders: Holders) -> list[Statement]:
    messages: list[Row] = []
    deliveries: list[Row] = []
    holding: dict[int, int] = {}  # how many deliveries, by the message object's identity
    for entry in batch.queued.values():
        delivery = entry[DELIVERY]
        if not delivery.is_p2p:  # which has one target
            identity = id(delivery.message)
            holding[identity] = holding.get(identity, 0) + 1
    if not holding:
        return list(put(DELIVERY_TABLE, [delivery_row(key, entry) for key, entry in batch.queued.items()]))
    stored: dict[int, int] = {}
    for key, entry in batch.queued.items():
        identity = id(entry[DELIVERY].message)
        if holding.get(identity, 1) == 1:
            deliveries.append(delivery_row(key, entry))
            continue
        message = stored.get(identity)
        if message is None:
            message = stored[identity] = key
            messages.append(message_row(key, entry[DELIVERY].message, entry[EXPIRES_AT]))
        holders.hold(key, message)
        deliveries.append(shared_row(key, entry, message))
    return [*put(MESSAGE, messages), *put(DELIVERY_TABLE, deliveries)]
