"""The writer's thread, and a store that uses it: order, errors, pauses, reading while the reactor goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.store.lives import Life
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.core.records import RetainedRecord, StoreError
from twisted_p2pmqtt.store.reading import CHUNK
from twisted_p2pmqtt.store.sqlite import CHUNKS_AHEAD, SQLiteStore
from twisted_p2pmqtt.store.writer import ThreadWriter
from twisted_p2pmqtt.testing import make_broker

TIMEOUT = 20.0


class FakeReactor:
    """Takes calls from threads, and runs them when told, in this thread."""

    def __init__(self) -> None:
        self.calls: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = SimpleQueue()

    def callFromThread(self, function: Callable[..., object], *arguments: Any) -> None:
        assert threading.current_thread().name == "p2pmqtt-writer"
        self.calls.put((function, arguments))

    def turn(self) -> None:
        """Run the next call, as soon as there is one."""
        function, arguments = self.calls.get(timeout=TIMEOUT)
        function(*arguments)

    def until(self, deferred: Deferred[Any]) -> Any:
        """Run calls until the Deferred has fired; its result."""
        results: list[Any] = []
        deferred.addBoth(results.append)
        while not results:
            self.turn()
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]


@pytest.fixture
def reactor() -> FakeReactor:
    return FakeReactor()


@pytest.fixture
def writer(reactor: FakeReactor) -> Iterator[ThreadWriter]:
    writer = ThreadWriter(reactor)
    yield writer
    writer.hurry()
    writer.stop()


def note(told: list[Any], number: int, result: object) -> None:
    told.append((number, result))


def test_jobs_run_in_order_in_a_thread_of_their_own(reactor: FakeReactor, writer: ThreadWriter) -> None:
    threads: list[str] = []
    done: list[Any] = []
    for number in range(5):
        writer.run(lambda: threads.append(threading.current_thread().name), partial(note, done, number))
    for _ in range(5):
        reactor.turn()
    assert done == [(number, None) for number in range(5)]
    assert threads == ["p2pmqtt-writer"] * 5


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), SystemExit(3)])
def test_what_a_job_raises_is_told_and_the_thread_goes_on(
    reactor: FakeReactor, writer: ThreadWriter, error: BaseException
) -> None:
    told: list[Any] = []

    def fail() -> None:
        raise error

    writer.run(fail, told.append)
    writer.run(lambda: None, told.append)
    reactor.turn()
    reactor.turn()
    assert told == [error, None]


def test_a_pause_can_be_hurried(reactor: FakeReactor, writer: ThreadWriter) -> None:
    started = monotonic()
    done: list[Any] = []
    writer.pause(1000, done.append)
    writer.hurry()
    reactor.turn()
    assert monotonic() - started < TIMEOUT
    writer.pause(1000, done.append)
    reactor.turn()
    assert done == [None, None]


def test_pauses_last(reactor: FakeReactor, writer: ThreadWriter) -> None:
    started = monotonic()
    writer.pause(0.01, lambda error: None)
    reactor.turn()
    assert monotonic() - started >= 0.01


def populated(path: Path, sessions: int, retained: int) -> None:
    life = Life(path)
    for number in range(sessions):
        client = life.connected(f"c{number}")
        client.subscribe("a")
        client.lose()
    for number in range(retained):
        life.store.retain(f"r/{number}", Message(b"r/%d" % number, b"x", 0, 1, 1), None)
    life.broker.publish("a", b"x", 1)
    life.broker.flush()
    life.stop()


def test_a_life_with_a_thread(reactor: FakeReactor, tmp_path: Path) -> None:
    populated(tmp_path / "store.db", 100, 10)
    store = SQLiteStore(str(tmp_path / "store.db"), reactor=reactor)
    broker = make_broker(Clock(), store)
    reactor.until(broker.restore())
    assert len(broker.sessions) == 100
    assert all(len(session.pending or ()) == 1 for session in broker.sessions.values())
    published = broker.publish("a", b"y", 1)
    broker.flush()
    assert reactor.until(published) == 0
    reactor.until(store.close())
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["store.db"]
    again = Life(tmp_path / "store.db")
    assert all(len(session.pending or ()) == 2 for session in again.broker.sessions.values())


def test_records_come_in_lists_that_no_turn_notices(reactor: FakeReactor, tmp_path: Path) -> None:
    """And the thread does not read ahead by more than a few of them."""
    populated(tmp_path / "store.db", 0, 20 * CHUNK)
    store = SQLiteStore(str(tmp_path / "store.db"), reactor=reactor)
    lists: list[list[Any]] = []
    read = 0
    original = store._database.read

    def reading() -> Iterator[list[Any]]:
        nonlocal read
        for records in original():
            read += 1
            yield records

    store._database.read = reading  # type: ignore[method-assign]  # the fault

    def receive(records: list[Any]) -> None:
        assert read <= len(lists) + CHUNKS_AHEAD + 1
        lists.append(records)

    reactor.until(store.restore(receive))
    assert [len(records) for records in lists] == [CHUNK] * 20
    assert all(isinstance(record, RetainedRecord) for records in lists for record in records)
    reactor.until(store.close())


def test_a_file_that_cannot_be_read(reactor: FakeReactor, tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"no database, but long enough for one")
    store = SQLiteStore(str(tmp_path / "store.db"), reactor=reactor)
    broker = make_broker(Clock(), store)
    with pytest.raises(StoreError, match="no SQLite database"):
        reactor.until(broker.restore())
    reactor.until(store.close())


def test_what_the_broker_raises_ends_the_reading(reactor: FakeReactor, tmp_path: Path) -> None:
    populated(tmp_path / "store.db", 0, 3 * CHUNK)
    store = SQLiteStore(str(tmp_path / "store.db"), reactor=reactor)

    def receive(records: list[Any]) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        reactor.until(store.restore(receive))
    reactor.until(store.close())


def test_closed_before_it_was_read(reactor: FakeReactor, tmp_path: Path) -> None:
    populated(tmp_path / "store.db", 0, 10 * CHUNK)
    store = SQLiteStore(str(tmp_path / "store.db"), reactor=reactor)
    restored = store.restore(lambda records: None)
    reactor.turn()
    closed = store.close()
    with pytest.raises(StoreError, match="closed before"):
        reactor.until(restored)
    reactor.until(closed)


def test_closed_without_having_been_opened(reactor: FakeReactor, tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path / "store.db"), reactor=reactor)
    reactor.until(store.close())
    assert list(tmp_path.iterdir()) == []


def committed(store: SQLiteStore) -> Deferred[None]:
    commit = store.commit()
    assert commit is not None
    return commit


def test_commits_in_order_while_the_disk_fails(reactor: FakeReactor, tmp_path: Path) -> None:
    store = SQLiteStore(str(tmp_path / "store.db"), reactor=reactor)
    reactor.until(store.restore(lambda records: None))
    (pages,) = store._database.connection.execute("PRAGMA page_count").fetchone()  # type: ignore[union-attr]  # it is open
    store._database.connection.execute(f"PRAGMA max_page_count={pages}")  # type: ignore[union-attr]  # it is open
    store.retain("a", Message(b"a", b"x" * 100_000), None)
    with pytest.raises(StoreError, match="full"):
        reactor.until(committed(store))
    assert (store.available, store.pending) == (False, True)
    fired: list[Any] = []
    for number in range(3):
        store.retain(f"r{number}", Message(b"r", b"x"), None)
        committed(store).addCallbacks(partial(note, fired, number), partial(note, fired, number))
    store._database.connection.execute("PRAGMA max_page_count=1000000")  # type: ignore[union-attr]  # it is open
    reactor.until(store.close())
    assert [number for number, _ in fired] == [0, 1, 2]
    life = Life(tmp_path / "store.db")
    assert len(life.broker.retained) == 4
