"""What is over before its batch is written never touches the disk; and how few statements the rest takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.store.lives import Life, fired
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connect, Puback, Pubrec, Pubrel, Subscribe, SubscriptionRequest
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.store import sqlite
from twisted_p2pmqtt.store.statements import MAX_ROWS, padded

Trace = Callable[[], list[str]]


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path / "store.db")


@pytest.fixture
def trace(life: Life) -> Iterator[Trace]:
    """Gives the statements run since it was asked last, without those that every transaction has."""
    run: list[str] = []
    life.database.set_trace_callback(run.append)

    def statements() -> list[str]:
        told, run[:] = run[:], []
        return [sql.split("VALUES")[0].split("IN (")[0].strip() for sql in told if not is_frame(sql)]

    yield statements
    life.database.set_trace_callback(None)


def is_frame(sql: str) -> bool:
    return sql.startswith(("BEGIN", "COMMIT", "UPDATE meta", "SELECT count"))


def publish(life: Life, count: int, qos: int = 1) -> None:
    for number in range(count):
        life.broker.publish("a", b"%d" % number, qos)


def test_acknowledged_before_it_is_written(life: Life, trace: Trace) -> None:
    subscriber = life.connected("sub")
    subscriber.subscribe("a")
    publisher = life.client("pub", version=4)
    publisher.connect()
    life.store._is_idle = False  # as if a batch were being written
    trace()
    for packet_id in range(1, 101):
        publisher.send(Message(b"a", b"x", 0, 1, packet_id=packet_id))
    assert len(subscriber.messages) == 100
    assert life.broker.sessions["sub"].inflight == {}
    assert not any(isinstance(packet, Puback) for packet in publisher.packets)
    life.store._finished(None)
    assert sum(isinstance(packet, Puback) for packet in publisher.packets) == 100
    assert trace() == []


def test_a_batch_waits_for_acknowledgements_of_connected_clients(life: Life, trace: Trace) -> None:
    life.connected("sub", acknowledges=False).subscribe("a")
    trace()
    publish(life, sqlite.WORTH_LINGERING)
    life.broker.flush()
    assert len(life.writer.jobs) == 1, "it pauses first"
    session = life.broker.sessions["sub"]
    for packet_id in list(session.inflight):
        session.puback(packet_id, 0)
    life.writer.step()
    assert trace() == []
    assert not life.store.pending
    publish(life, sqlite.WORTH_LINGERING - 1)
    life.broker.flush()
    assert trace() == ["INSERT OR REPLACE INTO delivery"], "few do not wait"


def test_deliveries_to_clients_that_are_away_do_not_wait(life: Life, trace: Trace) -> None:
    subscriber = life.connected("sub")
    subscriber.subscribe("a")
    subscriber.lose()
    trace()
    publish(life, 100)
    life.broker.flush()
    assert trace() == ["INSERT OR REPLACE INTO delivery"]


def test_what_a_turn_records_is_written_at_its_end_and_not_between_its_reads(life: Life, trace: Trace) -> None:
    life.connected("away").subscribe("a")
    life.broker.sessions["away"].connection.lost()  # type: ignore[union-attr]  # it is connected
    subscriber = life.connected("sub", expiry=0)
    subscriber.subscribe("a")
    life.broker.flush()
    trace()
    life.broker.begin_turn()
    publish(life, 2)
    life.broker.write()
    assert len(subscriber.messages) == 2
    assert trace() == []
    publish(life, 1)
    life.broker.flush()
    assert trace() == ["INSERT OR REPLACE INTO delivery"]
    assert life.counts()["delivery"] == 3


def test_one_statement_a_table_however_many_rows(life: Life, trace: Trace) -> None:
    for number in range(9):
        life.connected(f"sub{number}", acknowledges=False).subscribe("a" if number < 8 else "b")
    new = life.connected("new")
    life.store._is_idle = False
    publish(life, 20)
    for number in range(10):
        life.broker.publish("b", b"%d" % number, 2, retain=True)
    new.send(Subscribe(1, [SubscriptionRequest("x"), SubscriptionRequest("y")]))
    new.lose()
    trace()
    life.store._finished(None)
    assert trace() == []
    life.writer.step()
    assert sorted(trace()) == [
        "INSERT OR REPLACE INTO delivery",
        "INSERT OR REPLACE INTO message",
        "INSERT OR REPLACE INTO retained",
        "INSERT OR REPLACE INTO session",
        "INSERT OR REPLACE INTO subscription",
    ]
    assert life.counts() == {"session": 10, "subscription": 11, "message": 20, "delivery": 170, "retained": 1}
    life.store._is_idle = False
    for session in life.broker.sessions.values():
        for packet_id in list(session.inflight):
            if session.client_id != "sub8":
                session.puback(packet_id, 0)
    life.broker.flush()
    life.store._finished(None)
    assert trace() == ["DELETE FROM delivery WHERE id", "DELETE FROM message WHERE id"]
    assert life.counts() == {"session": 10, "subscription": 11, "delivery": 10, "retained": 1}


def test_a_qos_2_exchange_within_a_batch(life: Life, trace: Trace) -> None:
    publisher = life.connected("pub")
    life.store._is_idle = False
    trace()
    publisher.send(Message(b"a", b"x", 0, 2, packet_id=5), Pubrel(5))
    life.store._finished(None)
    assert trace() == []
    publisher.send(Message(b"a", b"x", 0, 2, packet_id=6))
    assert trace() == ["INSERT OR REPLACE INTO received"]
    life.store._is_idle = False
    publisher.send(Pubrel(6), Message(b"a", b"y", 0, 2, packet_id=6))
    life.store._finished(None)
    assert trace() == [], "the row is there already"
    assert life.counts()["received"] == 1


def test_a_session_that_came_and_went(life: Life, trace: Trace) -> None:
    life.store._is_idle = False
    trace()
    client = life.client("brief")
    client.send(Connect("brief", clean_start=False, properties=Properties(session_expiry_interval=100)))
    client.send(Subscribe(1, [SubscriptionRequest("a")]), Message(b"a", b"x", 0, 2, packet_id=5))
    client.disconnect(properties=Properties(session_expiry_interval=0))
    assert life.broker.list_sessions() == []
    life.store._finished(None)
    assert trace() == []
    assert life.counts() == {}


def test_states_of_one_delivery(life: Life, trace: Trace) -> None:
    subscriber = life.connected("sub", acknowledges=False)
    subscriber.subscribe("a")
    life.broker.publish("a", b"x", 2)
    (message,) = subscriber.messages
    trace()
    subscriber.send(Pubrec(message.packet_id))
    assert trace() == ["UPDATE delivery SET state = v.column2 FROM ("]
    assert life.counts()["delivery"] == 1


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 15, 16, 17, 100, 511, MAX_ROWS])
def test_sizes_of_statements(count: int) -> None:
    assert count <= padded(count) <= max(8, count * 9 / 8)
    assert padded(padded(count)) == padded(count)


def test_few_sizes_of_statements() -> None:
    assert len({padded(count) for count in range(1, MAX_ROWS + 1)}) == 8 + 8 * 6


@pytest.mark.parametrize("count", [1, 9, 17, 513, 1200])
def test_batches_of_any_size(life: Life, count: int) -> None:
    for client_id in ("one", "two"):
        subscriber = life.connected(client_id)
        subscriber.subscribe("a")
        subscriber.lose()
    life.limits = life.broker.limits
    life.store._is_idle = False
    session = life.broker.sessions["one"]
    for number in range(count):
        life.broker.publish("a" if number % 2 else "p2p/one/a", b"%d" % number, 1)
    life.broker.flush()
    life.store._finished(None)
    assert life.counts()["delivery"] == sum(len(one.pending or ()) for one in life.broker.sessions.values())
    next_life = life.killed()
    restored = next_life.broker.sessions["one"]
    assert [d.message.payload for d in restored.pending or ()] == [d.message.payload for d in session.pending or ()]


def test_commits_are_shared(life: Life) -> None:
    """While one batch is written the next collects, and one write covers all commits asked for meanwhile."""
    life.writer.is_stepping = True
    commits = []
    for number in range(5):
        life.store.retain(f"r{number}", Message(b"r", b"x"), None)
        commits.append(life.store.commit())
    life.writer.step()
    assert [fired(one) for one in commits] == [True, False, False, False, False]
    assert len(life.writer.jobs) == 1
    life.writer.step()
    assert all(fired(one) for one in commits)
    assert life.counts()["retained"] == 5
