"""Recovery: a damaged file is set aside, and what is readable in it becomes a new one (``--recover``).

SQLite stops at the first page that it cannot read.  Here reading goes on behind it, by key; rows whose checksum is
wrong are left out, and so is what belongs to nothing any more.  What was kept and what was not is counted in the log.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timezone
from time import monotonic
from typing import Any

from twisted.logger import Logger

from twisted_p2pmqtt.store.database import (
    PAGE,
    READING_ERRORS,
    Database,
    StoreDamaged,
    make_database,
    pattern,
    schema_of,
)
from twisted_p2pmqtt.store.rows import (
    DELIVERY,
    MESSAGE,
    RECEIVED,
    RETAINED,
    SESSION,
    SUBSCRIPTION,
    TABLES,
    Damaged,
    Row,
    Table,
    check_delivery,
    message_from,
    received_from,
    retained_from,
    session_from,
    subscription_from,
)
from twisted_p2pmqtt.store.statements import put

TIMEOUT = 30.0
"""Seconds that reading a damaged file may take; what has not been found by then is given up."""

FARTHEST = 1 << 62

_CHECKS = {
    SESSION: session_from,
    SUBSCRIPTION: subscription_from,
    RECEIVED: received_from,
    MESSAGE: message_from,
    DELIVERY: check_delivery,
    RETAINED: retained_from,
}

_log = Logger()


def recover(database: Database) -> None:
    """Open the store; if it is damaged set it aside, and open a new one with what is readable.  Raises
    ``StoreError``.
    """
    try:
        database.open()
        for _ in database.read():
            pass
    except StoreDamaged as error:
        database.abandon()
        reason = str(error).partition("; --recover")[0]
    else:
        _log.info("{path} is sound: there is nothing to recover", path=database.path)
        return
    aside = set_aside(database.path)
    found, unreadable = salvage(aside)
    database.open()
    incomplete = _leave_out_incomplete(found)
    for table in TABLES:
        rows = list(found[table].values())
        for start in range(0, len(rows), 10_000):
            database.execute(list(put(table, rows[start : start + 10_000])))
    kept = ", ".join(f"{len(found[table])} {_plural(table)}" for table in TABLES)
    _log.critical(
        "{reason}. It is kept as {aside}. Recovered: {kept}. Left out: {unreadable} damaged places and rows,"
        " {incomplete} rows of something that is lost",
        reason=reason,
        aside=aside,
        kept=kept,
        unreadable=unreadable,
        incomplete=incomplete,
    )


def _plural(table: Table) -> str:
    return {"delivery": "deliveries", "received": "received packet ids", "retained": "retained messages"}.get(
        table.name, table.name + "s"
    )


def set_aside(path: str) -> str:
    """Rename the file and what stands beside it; the new name."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    aside = f"{path}.damaged-{stamp}"
    number = 1
    while os.path.exists(aside):
        number += 1
        aside = f"{path}.damaged-{stamp}-{number}"
    for rest in ("", "-wal", "-shm", "-journal", "-mark"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(path + rest, aside + rest)
    return aside


def salvage(path: str) -> tuple[dict[Table, dict[Any, Row]], int]:
    """The sound rows of every table by key, and the number of places and rows that are not."""
    found: dict[Table, dict[Any, Row]] = {table: {} for table in TABLES}
    if not os.path.exists(path):
        return found, 0
    if has_schema(path):
        return found, _salvage(path, found)
    mended = path + "-mended"
    try:
        mend_first_page(path, mended)
        return found, 1 + _salvage(mended, found)
    finally:
        for rest in ("", "-wal", "-shm", "-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(mended + rest)


def has_schema(path: str) -> bool:
    """Does the file have the tables that we know?"""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        return schema_of(connection) == schema_of(pattern())
    except READING_ERRORS:
        return False
    finally:
        connection.close()


def mend_first_page(path: str, mended: str) -> None:
    """A copy of the file whose first page, the header and the tables' names, is a new store's.

    Tables begin where they do in every store that was made with this version.
    """
    make_database(mended)
    with open(mended, "rb") as file:
        first = bytearray(file.read(PAGE))
    for rest in ("", "-wal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(path + rest, mended + rest)
    first[18:20] = b"\2\2"  # there may be a log
    first[28:32] = (os.path.getsize(mended) // PAGE).to_bytes(4, "big")
    first[32:40] = bytes(8)  # no list of free pages
    with open(mended, "r+b") as file:
        file.write(first)


def _salvage(path: str, found: dict[Table, dict[Any, Row]]) -> int:
    unreadable = 0
    connection = sqlite3.connect(path, isolation_level=None)
    deadline = monotonic() + TIMEOUT
    connection.set_progress_handler(lambda: int(monotonic() > deadline), 100_000)
    try:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA trusted_schema=OFF")
        for table in TABLES:
            unreadable += _salvage_table(connection, table, found[table])
    finally:
        connection.close()
    return unreadable


def _salvage_table(connection: sqlite3.Connection, table: Table, found: dict[Any, Row]) -> int:
    unreadable = 0
    text = [table.columns.index(name) for name in table.text]
    for row in _rows(connection, table):
        if row is None:
            unreadable += 1
            continue
        try:
            _CHECKS[table](row)
        except Damaged:
            unreadable += 1
            continue
        values = list(row)
        for index in text:
            values[index] = None if values[index] is None else values[index].decode()
        found[tuple(values[table.columns.index(name)] for name in table.key)] = tuple(values)
    return unreadable


def _rows(connection: sqlite3.Connection, table: Table) -> Iterator[Row | None]:
    """The table's rows; None for each place that cannot be read."""
    key = table.key[0]
    if table is RETAINED:  # by name: from either end up to the damage
        yield from _until_damaged(connection, f"SELECT {table.selected} FROM {table.name} ORDER BY {key}")
        yield from _until_damaged(connection, f"SELECT {table.selected} FROM {table.name} ORDER BY {key} DESC")
        return
    select = f"SELECT {table.selected} FROM {table.name} WHERE {key} > ? ORDER BY {key}"
    position: int | None = -1
    while position is not None:
        try:
            for row in connection.execute(select, (position,)):
                if isinstance(row[0], int) and row[0] > position:
                    position = row[0]
                yield row
            return
        except READING_ERRORS:  # noqa: PERF203  # each damaged page is stepped over by itself
            yield None
            position = _behind(connection, select, position)


def _until_damaged(connection: sqlite3.Connection, select: str) -> Iterator[Row | None]:
    try:
        yield from connection.execute(select)
    except READING_ERRORS:
        yield None


def _behind(connection: sqlite3.Connection, select: str, position: int) -> int | None:
    """The smallest key behind which there is something readable again; None where there is nothing."""
    step = 1
    while not _is_readable(connection, select, position + step):
        step *= 2
        if position + step > FARTHEST:
            return None
    low, high = position + step // 2, position + step
    while high - low > 1:
        middle = (low + high) // 2
        if _is_readable(connection, select, middle):
            high = middle
        else:
            low = middle
    return high


def _is_readable(connection: sqlite3.Connection, select: str, position: int) -> bool:
    try:
        connection.execute(select + " LIMIT 1", (position,)).fetchall()
    except READING_ERRORS:
        return False
    return True


def _leave_out_incomplete(found: dict[Table, dict[Any, Row]]) -> int:
    """Take out what belongs to a session or a message that is lost, and messages that nobody holds; how many rows."""
    before = sum(map(len, found.values()))
    sessions, messages, deliveries = found[SESSION], found[MESSAGE], found[DELIVERY]
    clients: dict[str, Any] = {}
    for key, row in sessions.items():  # of two sessions of one client the later one
        clients[row[1]] = max(key, clients.get(row[1], key))
    for key in set(sessions) - set(clients.values()):
        del sessions[key]
    for table in (SUBSCRIPTION, RECEIVED):
        found[table] = {key: row for key, row in found[table].items() if (row[0],) in sessions}
    found[DELIVERY] = {
        key: row
        for key, row in deliveries.items()
        if (row[1],) in sessions and (row[3] is not None or (row[4],) in messages)
    }
    held = {row[4] for row in found[DELIVERY].values() if row[3] is None}
    found[MESSAGE] = {key: row for key, row in messages.items() if key[0] in held}
    return before - sum(map(len, found.values()))
