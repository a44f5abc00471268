"""A broker with a store on a file, in memory otherwise, that can be killed and started again; no thread, no sleep."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.limits import Limits
from twisted_p2pmqtt.store.sqlite import SQLiteStore
from twisted_p2pmqtt.store.writer import DirectWriter
from twisted_p2pmqtt.testing import MemoryClient, make_broker, memory_factory

RECORDING = (
    "save_session",
    "drop_session",
    "save_subscription",
    "drop_subscription",
    "enqueue",
    "sent",
    "released",
    "acknowledge",
    "receive",
    "forget",
    "retain",
    "unretain",
)
"""The methods of ``IStore`` that note what must survive."""

TABLES = ("session", "subscription", "received", "message", "delivery", "retained")


class Life:
    """One life of a broker on the file at ``path``.  With ``is_stepping`` nothing is written before ``writer.step``."""

    def __init__(self, path: Path, clock: Clock | None = None, limits: Limits | None = None, **options: Any) -> None:
        self.path = path
        self.clock = clock or Clock()
        self.writer = DirectWriter()
        self.store = SQLiteStore(str(path), writer=self.writer, **options)
        self.limits = limits
        self.broker = make_broker(self.clock, self.store, limits=limits)
        self.broker.restore_now()
        self.factory = memory_factory(self.broker)  # which moves its time on with the clock

    def client(self, client_id: str, version: int = 5, acknowledges: bool = True) -> MemoryClient:
        """A client that has not connected yet."""
        return MemoryClient(self.factory, client_id, version, acknowledges)

    def connected(
        self, client_id: str, version: int = 5, expiry: int = 1000, acknowledges: bool = True, **options: Any
    ) -> MemoryClient:
        """A client with a session that survives."""
        client = self.client(client_id, version, acknowledges)
        if version == 5:
            options["properties"] = Properties(session_expiry_interval=expiry)
        client.connect(clean_start=False, **options)
        return client

    def killed(self, after: float = 0.0, is_orderly: bool = False) -> Life:
        """The next life, ``after`` seconds later, on what a killed process leaves (or one that stopped in order)."""
        path = self.path
        if is_orderly:
            self.stop()
        else:
            path = self.left_behind()
        clock = Clock()
        clock.advance(self.clock.seconds() + after)
        return Life(path, clock, self.limits)

    def left_behind(self) -> Path:
        """A copy of the files as they are now; this life is over."""
        name, _, number = self.path.name.partition("@")
        path = self.path.with_name(f"{name}@{int(number or 0) + 1}")
        for rest in ("", "-wal", "-mark"):
            shutil.copy(f"{self.path}{rest}", f"{path}{rest}")
        self.store._database.abandon()
        return path

    def stop(self) -> None:
        """Stop in order."""
        self.broker.is_stopping = True
        for session in list(self.broker.sessions.values()):
            if session.connection is not None:
                session.connection.lost()
        self.broker.flush()
        closed: list[None] = []
        self.store.close().addCallback(closed.append)
        assert closed

    @property
    def database(self) -> sqlite3.Connection:
        """The store's own connection."""
        connection = self.store._database.connection
        assert connection is not None
        return connection

    def counts(self) -> dict[str, int]:
        """Rows of each table that has any."""
        counts = {table: self.database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in TABLES}
        return {table: count for table, count in counts.items() if count}


def fired(deferred: Deferred[Any] | None) -> bool:
    """Has it fired?"""
    return deferred is not None and deferred.called
