"""SQLiteStore: an ``IStore`` in one SQLite file.

Recording is an entry in the current ``Batch``.  ``commit`` hands the batch to the writer thread as soon as that is
idle; while it writes one batch the next collects, so a commit's size adapts to the load and its cost is shared.  A
batch with many deliveries on their way to connected clients waits ``LINGER`` first: most are acknowledged by then, and
what is over before its batch is written never touches the disk.

A batch that cannot be written is tried again every ``RETRY`` seconds until it can, and those behind it wait: what was
recorded is in memory too, so the file may lag behind but never differ.  Every commit asked for meanwhile fails when
the next attempt does; ``available`` is False until one succeeds.  Nothing grows without bound in that time: new
deliveries are refused, and all else is kept once per session, subscription, delivery or topic.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from threading import Semaphore
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.core.delivery import Delivery
from twisted_p2pmqtt.core.records import SessionRecord, StoreError, SubscriptionRecord
from twisted_p2pmqtt.interfaces import IStore
from twisted_p2pmqtt.store.batch import DELIVERY, IS_RELEASED, PACKET_ID, Batch
from twisted_p2pmqtt.store.database import Database
from twisted_p2pmqtt.store.recovery import recover
from twisted_p2pmqtt.store.writer import ThreadWriter, Writer

LINGER = 0.002
"""Seconds that a batch waits for acknowledgements, where it has ``WORTH_LINGERING`` deliveries to connected clients."""

WORTH_LINGERING = 16

RETRY = 1.0
"""Seconds between two attempts to write a batch."""

MAX_OPERATIONS, MAX_BYTES = 20_000, 33_554_432
"""Deliveries, and bytes of their messages, that may wait for the writer before publishers have to."""

CHUNKS_AHEAD = 2
"""Lists of records that may be read while the reactor is busy with others."""

_log = Logger()


@implementer(IStore)
class SQLiteStore:
    """Sessions, queues and retained messages in the file at ``path``.

    ``durability`` ``commit`` survives a killed process, ``full`` a power failure.  With ``recover`` a damaged file is
    set aside when the store is opened, and what is readable in it is kept.  ``reactor`` is for ``callFromThread``.
    """

    durable = True

    def __init__(
        self,
        path: str,
        durability: str = "commit",
        reactor: Any = None,
        recover: bool = False,
        writer: Writer | None = None,
    ) -> None:
        if writer is None:
            if reactor is None:
                from twisted.internet import reactor
            writer = ThreadWriter(reactor)
        self._writer = writer
        self._database = Database(path, durability)
        self._recover = recover
        self._is_open = False
        self._ids: dict[str, int] = {}
        self._next_key = 1
        self._batch = Batch()
        self._written: Batch | None = None  # handed to the writer
        self._waiting: list[Deferred[None]] = []  # for the current batch
        self._covered: list[Deferred[None]] = []  # for the one handed to the writer
        self._is_idle = True
        self._closing: Deferred[None] | None = None
        self.pending = False
        self.available = True

    @property
    def congested(self) -> bool:
        """Is the writer behind by so much that publishers have to wait?"""
        batch, written = self._batch, self._written
        if written is None:
            return len(batch.queued) > MAX_OPERATIONS or batch.size > MAX_BYTES
        return len(batch.queued) + len(written.queued) > MAX_OPERATIONS or batch.size + written.size > MAX_BYTES

    # --- reading -------------------------------------------------------------------------------------------------

    def restore(self, receive: Callable[[list[Any]], None]) -> Deferred[None]:
        """Open the file and read everything, in the writer's thread."""
        restored: Deferred[None] = Deferred()
        room = Semaphore(CHUNKS_AHEAD)
        failures: list[Failure] = []

        def take(records: list[Any]) -> None:
            try:
                if not failures:
                    self._take(records, receive)
            except Exception:
                failures.append(Failure())
            room.release()

        def read() -> None:
            self._open()
            for records in self._database.read():
                room.acquire()
                if self._closing is not None:
                    raise StoreError("the store was closed before it was read")
                self._writer.call(take, records)

        def done(error: BaseException | None) -> None:
            if error is not None:
                self._database.abandon()
                restored.errback(Failure(error))
            elif failures:
                restored.errback(failures[0])
            else:
                restored.callback(None)
            self._is_idle = True
            if self._waiting:
                self._begin()
            else:
                self._close_if_done()

        self._is_idle = False
        self._writer.run(read, done)
        return restored

    def restore_now(self, receive: Callable[[list[Any]], None]) -> None:
        """The same at once, for a process whose reactor does not run yet.  Raises ``StoreError``."""
        try:
            self._open()
            for records in self._database.read():
                self._take(records, receive)
        except BaseException:
            self._database.abandon()
            raise

    def _open(self) -> None:
        if self._recover:
            recover(self._database)
        else:
            self._database.open()
        self._next_key = self._database.next_key()
        self._is_open = True

    def _take(self, records: list[Any], receive: Callable[[list[Any]], None]) -> None:
        for record in records:
            if isinstance(record, SessionRecord):
                self._ids[record.client_id] = record.key
        receive(records)

    # --- recording -----------------------------------------------------------------------------------------------

    def new_sequence(self) -> int:
        """A number larger than any before, now or in an earlier life."""
        key = self._next_key
        self._next_key = key + 1
        return key

    def save_session(self, record: SessionRecord) -> None:
        """Create or replace the session's own row."""
        key = self._ids.get(record.client_id)
        if key is None:
            key = self._ids[record.client_id] = self.new_sequence()
            self._batch.created.add(key)
        self._batch.sessions[key] = record
        self.pending = True

    def drop_session(self, client_id: str) -> None:
        """Forget it; a later session of the same client has another number."""
        key = self._ids.pop(client_id, None)
        if key is not None:
            self._batch.dropped.add(key)
            self.pending = True

    def save_subscription(self, client_id: str, record: SubscriptionRecord) -> None:
        """Create or replace it."""
        self._batch.subscriptions[self._ids[client_id], record.topic_filter] = record
        self.pending = True

    def drop_subscription(self, client_id: str, topic_filter: str) -> None:
        """Forget it."""
        self._batch.subscriptions[self._ids[client_id], topic_filter] = None
        self.pending = True

    def enqueue(
        self, client_id: str, sequence: int, delivery: Delivery, packet_id: int, expires_at: float | None
    ) -> None:
        """Note a delivery; its row is made by the writer."""
        batch = self._batch
        batch.queued[sequence] = [self._ids[client_id], delivery, packet_id, 0, expires_at]
        batch.size += delivery.message.size
        if packet_id and delivery.qos == 1:
            batch.awaited += 1
        self.pending = True

    def sent(self, client_id: str, sequence: int, packet_id: int) -> None:
        """A waiting delivery got its packet id."""
        batch = self._batch
        entry = batch.queued.get(sequence)
        if entry is None:
            batch.progress[sequence] = packet_id, 0
        else:
            entry[PACKET_ID] = packet_id
            batch.awaited += entry[DELIVERY].qos == 1
        self.pending = True

    def released(self, client_id: str, sequence: int, packet_id: int) -> None:
        """PUBREC was received."""
        entry = self._batch.queued.get(sequence)
        if entry is None:
            self._batch.progress[sequence] = packet_id, 1
        else:
            entry[PACKET_ID], entry[IS_RELEASED] = packet_id, 1
        self.pending = True

    def acknowledge(self, client_id: str, sequence: int) -> None:
        """It is over: gone without a trace where its batch is still here."""
        batch = self._batch
        entry = batch.queued.pop(sequence, None)
        if entry is None:
            batch.ended.append(sequence)
            batch.progress.pop(sequence, None)
            self.pending = True
        else:
            delivery = entry[DELIVERY]
            batch.size -= delivery.message.size
            if entry[PACKET_ID] and delivery.qos == 1:
                batch.awaited -= 1

    def receive(self, client_id: str, packet_id: int) -> None:
        """Taken, and not released yet."""
        self._note_received((self._ids[client_id], packet_id), True)

    def forget(self, client_id: str, packet_id: int) -> None:
        """Released."""
        self._note_received((self._ids[client_id], packet_id), False)

    def _note_received(self, key: tuple[int, int], is_here: bool) -> None:
        received = self._batch.received
        if received.get(key) is (not is_here):
            del received[key]  # it is as the file has it
        else:
            received[key] = is_here
        self.pending = True

    def retain(self, topic: str, message: Message, expires_at: float | None) -> None:
        """Keep it."""
        self._batch.retained[topic] = message, expires_at
        self.pending = True

    def unretain(self, topic: str) -> None:
        """Forget it."""
        self._batch.retained[topic] = None
        self.pending = True

    # --- committing ----------------------------------------------------------------------------------------------

    def commit(self) -> Deferred[None] | None:
        """Write what was recorded, now or when what is being written is done."""
        if not self.pending:
            return None
        self.pending = False
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if self._is_idle:
            self._begin()
        return waiting

    def _begin(self) -> None:
        self._is_idle = False
        if self._batch.awaited >= WORTH_LINGERING and self._closing is None:
            self._writer.pause(LINGER, self._hand_over)
        else:
            self._hand_over(None)

    def _hand_over(self, error: BaseException | None) -> None:
        batch, self._batch = self._batch, Batch()
        self._covered, self._waiting = self._waiting, []
        self._written = batch
        if batch.is_empty:
            self._finished(None)
        else:
            self._try()

    def _try(self, error: BaseException | None = None) -> None:
        batch = self._written
        assert batch is not None
        self._writer.run(lambda: self._database.write(batch), self._finished)

    def _finished(self, error: BaseException | None) -> None:
        covered, self._covered = self._covered, []
        if error is not None:
            covered += self._waiting
            self._waiting = []
            self._failed(error)
            failure = Failure(StoreError(str(error)))
            for waiting in covered:
                waiting.errback(failure)
            return
        if not self.available:
            self.available = True
            _log.critical("the store {path} can be written again", path=self._database.path)
        self._written = None
        for waiting in covered:
            waiting.callback(None)
        if self._waiting:
            self._begin()
        else:
            self._is_idle = True
            self._close_if_done()

    def _failed(self, error: BaseException) -> None:
        """The batch stays where it is and is tried again."""
        self.pending = True
        if self.available:
            self.available = False
            _log.critical(
                "the store {path} cannot be written ({error}): messages of QoS 1 and 2 are refused until it can",
                path=self._database.path,
                error=error,
            )
            if not isinstance(error, sqlite3.Error):
                _log.failure("the store failed", Failure(error))
        if self._closing is not None:
            self._abandon()
        else:
            self._writer.pause(RETRY, self._try)

    # --- the end -------------------------------------------------------------------------------------------------

    def close(self) -> Deferred[None]:
        """Commit and close.  Fires in any case; what could not be written is told in the log."""
        if self._closing is None:
            self._closing = Deferred()
            self._writer.hurry()
            if self._is_idle:
                self._close_if_done()
        return self._closing

    def _close_if_done(self) -> None:
        if self._closing is None:
            return
        committed = self.commit() if self._is_open else None
        if committed is None:
            self._writer.run(self._database.close, self._closed)
        else:
            committed.addErrback(lambda failure: None)

    def _abandon(self) -> None:
        _log.critical("the store {path} was closed without its last changes", path=self._database.path)
        self._writer.run(self._database.abandon, self._closed)

    def _closed(self, error: BaseException | None) -> None:
        self._is_open = False
        self._writer.stop()
        assert self._closing is not None
        self._closing.callback(None)
