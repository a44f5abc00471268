"""Disk full and other reasons why nothing can be written: nothing is acknowledged falsely, and all is well again
after.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.logger import ILogObserver, LogLevel, globalLogPublisher
from zope.interface import implementer

from tests.store.lives import Life
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import (
    Connack,
    Connect,
    Disconnect,
    Puback,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
)
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.commits import PATIENCE
from twisted_p2pmqtt.store import sqlite
from twisted_p2pmqtt.testing import MemoryClient

REFUSED = 0x97
MANY_PAGES = 1_000_000
BIG = b"x" * 100_000


@pytest.fixture
def life(tmp_path: Path) -> Life:
    """A broker with a persistent subscriber that is away."""
    life = Life(tmp_path / "store.db")
    life.connected("sub").subscribe("a", "b")
    life.broker.sessions["sub"].connection.lost()  # type: ignore[union-attr]  # it is connected
    life.broker.flush()
    return life


@pytest.fixture
def alarms() -> Iterator[list[str]]:
    """What is logged at level critical."""
    told: list[str] = []

    @implementer(ILogObserver)
    class Observer:
        def __call__(self, event: Any) -> None:
            if event.get("log_level") == LogLevel.critical:
                told.append(event["log_format"].format(**event))

    observer = Observer()
    globalLogPublisher.addObserver(observer)
    yield told
    globalLogPublisher.removeObserver(observer)


def fill(life: Life) -> None:
    """The disk is full from now on."""
    (pages,) = life.database.execute("PRAGMA page_count").fetchone()
    life.database.execute(f"PRAGMA max_page_count={pages}")


def free(life: Life) -> None:
    """There is room again."""
    life.database.execute(f"PRAGMA max_page_count={MANY_PAGES}")


def connect_packet(client_id: str, version: int) -> Connect:
    properties = Properties(session_expiry_interval=100) if version == 5 else Properties()
    return Connect(client_id, version, clean_start=False, properties=properties)


def retry(life: Life) -> None:
    """The second until the next attempt has passed."""
    life.writer.step()
    life.broker.flush()


def is_available(life: Life) -> bool:
    return life.store.available


def is_read(client: MemoryClient) -> bool:
    """Does the broker read what the client sends?"""
    return bool(client.transport.producerState == "producing")


def answered(publisher: MemoryClient) -> list[int]:
    """The packet ids of PUBACKs and PUBRECs that came since this was asked last."""
    return [packet.packet_id for packet in publisher.receive() if isinstance(packet, Puback | Pubrec)]


def queued(life: Life) -> list[bytes]:
    return [delivery.message.payload for delivery in life.broker.sessions["sub"].pending or ()]


def failing_writes(life: Life, error: Exception) -> Callable[[], None]:
    """Every write fails with this; call what is returned to mend that."""
    database = life.store._database

    def execute(statements: object) -> None:
        raise error

    database.execute = execute  # type: ignore[method-assign]  # the fault
    return lambda: delattr(database, "execute")


def test_5_0_is_refused_and_goes_on(life: Life, alarms: list[str]) -> None:
    publisher = life.client("pub")
    publisher.connect()
    fill(life)
    assert publisher.publish("a", BIG, 1) == REFUSED
    assert not is_available(life)
    assert publisher.publish("a", b"later", 2) == REFUSED
    assert publisher.publish("p2p/sub/t", b"later", 1) == REFUSED
    assert queued(life) == [BIG], "the batch that failed is tried again"
    assert publisher.publish("a", b"qos 0", 0) == 0
    assert len(alarms) == 1
    assert "database or disk is full" in alarms[0]
    assert "refused" in alarms[0]

    for _ in range(5):
        retry(life)
    assert len(alarms) == 1, "told once"
    assert life.broker.stats.store_failures
    free(life)
    retry(life)
    assert is_available(life)
    assert "can be written again" in alarms[1]
    assert publisher.publish("a", b"after", 1) == 0
    assert life.killed().broker.list_sessions()[0].pending == 2


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("qos", [1, 2])
def test_3_x_is_not_answered_and_not_read_until_it_can_be_stored(life: Life, version: int, qos: int) -> None:
    publisher = life.client("pub", version)
    publisher.connect()
    answer: type[Puback] | type[Pubrec] = Puback if qos == 1 else Pubrec
    fill(life)
    publisher.send(Message(b"a", BIG, 0, qos, packet_id=1))
    publisher.send(Message(b"a", b"behind", 0, qos, packet_id=2))
    for _ in range(3):
        retry(life)
    assert publisher.receive() == []
    assert not is_read(publisher)
    free(life)
    retry(life)
    assert answered(publisher) == [1, 2]
    assert is_read(publisher)
    publisher.send(Message(b"a", b"after", 0, qos, packet_id=3))
    assert publisher.take(answer).packet_id == 3
    if qos == 2:
        publisher.send(Message(b"a", BIG, 0, qos, dup=8, packet_id=1), Pubrel(1))
        assert publisher.take(Pubcomp).packet_id == 1
    assert queued(life) == [BIG, b"behind", b"after"]
    assert life.killed().broker.list_sessions()[0].pending == 3


@pytest.mark.parametrize("version", [4, 5])
def test_who_waits_too_long_is_sent_away(life: Life, version: int) -> None:
    """A 3.x publisher, and one of 5.0 whose SUBACK has no refusal."""
    client = life.connected("pub", version)
    fill(life)
    if version == 4:
        client.send(Message(b"a", BIG, 0, 1, packet_id=1))
    else:
        life.broker.publish("a", BIG, 1)
        client.send(Subscribe(1, [SubscriptionRequest("c")]))
    retry(life)
    life.clock.advance(PATIENCE - 1)
    assert client.is_closed is False
    life.clock.advance(2)
    assert client.transport.is_closed
    assert not any(isinstance(packet, Puback | Suback) for packet in client.receive())
    free(life)
    retry(life)
    assert is_available(life)


def test_3_x_held_publish_is_sent_away_too(life: Life) -> None:
    fill(life)
    life.broker.publish("a", BIG, 1)
    life.broker.flush()
    publisher = life.client("pub", 4)
    publisher.connect()
    publisher.send(Message(b"a", b"x", 0, 1, packet_id=1))
    life.clock.advance(PATIENCE + 1)
    assert publisher.is_closed
    free(life)
    retry(life)
    assert queued(life) == [BIG]


def test_a_refused_qos_2_id_may_be_used_again(life: Life) -> None:
    publisher = life.connected("pub")
    fill(life)
    publisher.send(Message(b"a", BIG, 0, 2, packet_id=7))
    assert publisher.take(Pubrec).reason_code == REFUSED
    free(life)
    retry(life)
    life = life.killed()
    publisher = life.connected("pub")
    publisher.send(Message(b"a", b"new", 0, 2, packet_id=7))
    assert publisher.take(Pubrec).reason_code == 0
    assert queued(life) == [BIG, b"new"]


def test_new_sessions_and_subscriptions_are_refused(life: Life) -> None:
    old = life.connected("old")
    fill(life)
    life.broker.publish("a", BIG, 1)
    life.broker.flush()
    old.send(Subscribe(1, [SubscriptionRequest("c")]))
    retry(life)
    assert old.take(Suback).reason_codes == [REFUSED]
    assert "c" not in life.broker.sessions["old"].subscriptions

    new = life.client("new")
    new.send(connect_packet("new", 5))
    new3 = life.client("new3", 4)
    new3.send(connect_packet("new3", 4))
    retry(life)
    assert new.take(Connack).reason_code == REFUSED
    assert new3.take(Connack).reason_code == 3
    assert new.is_closed
    assert new3.is_closed
    assert not {"new", "new3"} & set(life.broker.sessions)
    clean = life.client("clean")
    assert clean.connect().reason_code == 0, "nothing of it has to be stored"
    assert clean.subscribe("c") == [2]
    free(life)
    retry(life)
    life = life.killed()
    assert set(life.broker.sessions) == {"old", "sub"}


def test_what_waits_can_be_fetched_meanwhile(life: Life) -> None:
    life.broker.publish("a", b"waits", 1)
    life.broker.flush()
    fill(life)
    life.broker.publish("a", BIG, 1)
    life.broker.flush()
    subscriber = life.client("sub")
    subscriber.send(connect_packet("sub", 5))
    retry(life)
    assert subscriber.take(Connack).session_present
    assert [message.payload for message in subscriber.messages] == [b"waits", BIG]
    free(life)
    retry(life)
    assert life.counts()["session"] == 1
    assert "delivery" not in life.counts(), "what was acknowledged meanwhile is gone"


def test_acknowledgements_of_subscribers_are_not_lost(life: Life) -> None:
    life.broker.publish("a", b"one", 2)
    subscriber = life.connected("sub", acknowledges=False)
    (message,) = subscriber.messages
    fill(life)
    life.broker.publish("b", BIG, 1)
    life.broker.flush()
    subscriber.send(Pubrec(message.packet_id))
    retry(life)
    assert not any(isinstance(packet, Pubrel) for packet in subscriber.packets)
    free(life)
    retry(life)
    assert subscriber.take(Pubrel).packet_id == message.packet_id


def test_frames_keep_their_order_over_failures(life: Life) -> None:
    publisher = life.client("pub", 4)
    publisher.connect()
    mend = failing_writes(life, sqlite3.OperationalError("disk I/O error"))
    publisher.send(*[Message(b"a", b"x", 0, 1, packet_id=number) for number in range(1, 4)])
    for _ in range(3):
        retry(life)
    mend()
    retry(life)
    assert answered(publisher) == [1, 2, 3]


@pytest.mark.parametrize(
    "error",
    [
        sqlite3.OperationalError("disk I/O error"),
        sqlite3.OperationalError("database is locked"),
        sqlite3.OperationalError("attempt to write a readonly database"),
        MemoryError(),
    ],
)
def test_whatever_fails(life: Life, error: Exception, alarms: list[str]) -> None:
    publisher = life.client("pub")
    publisher.connect()
    mend = failing_writes(life, error)
    assert publisher.publish("a", b"x", 1) == REFUSED
    retry(life)
    mend()
    retry(life)
    assert publisher.publish("a", b"y", 1) == 0
    assert life.killed().broker.list_sessions()[0].pending == 2


def test_a_failure_in_the_middle_leaves_nothing_of_the_batch(life: Life) -> None:
    before = life.counts()
    fill(life)
    life.broker.publish("c", b"small", 1, retain=True)
    life.broker.publish("a", BIG, 1)
    life.broker.flush()
    assert not is_available(life)
    assert not life.database.in_transaction
    assert life.counts() == before


def test_memory_stays_bounded_while_nothing_can_be_written(life: Life) -> None:
    fill(life)
    life.broker.publish("a", BIG, 1)
    life.broker.flush()
    batch = life.store._batch
    client = life.client("sub")
    for number in range(200):
        life.broker.publish("a", b"x", 1)
        life.broker.publish("r", b"%d" % number, 0, retain=True)
        client = life.client("sub")
        client.send(connect_packet("sub", 5))
        client.lose()
        life.broker.flush()
    assert life.store._batch is batch
    assert (len(batch.queued), len(batch.sessions), len(batch.retained)) == (0, 1, 1)
    assert len(life.broker.commits._stuck) <= 1
    assert sum(map(len, life.broker.commits._kept.values())) <= 1


def test_stopping_while_nothing_can_be_written(life: Life, alarms: list[str]) -> None:
    fill(life)
    life.broker.publish("a", BIG, 1)
    life.broker.flush()
    life.stop()
    assert "without its last changes" in alarms[-1]
    assert Path(f"{life.path}-mark").exists()
    after = Life(life.path)
    assert after.broker.list_sessions()[0].pending == 0


def test_a_failed_commit_from_python(life: Life) -> None:
    fill(life)
    codes: list[int] = []
    life.broker.publish("a", BIG, 1).addCallback(codes.append)
    life.broker.flush()
    life.broker.publish("a", b"x", 1).addCallback(codes.append)
    life.broker.flush()
    retry(life)
    assert codes == [REFUSED, REFUSED]
    assert queued(life) == [BIG]


def test_disconnect_reason_for_who_waited(life: Life) -> None:
    client = life.connected("pub")
    fill(life)
    life.broker.publish("a", BIG, 1)
    client.send(Subscribe(1, [SubscriptionRequest("c")]))
    retry(life)
    life.clock.advance(PATIENCE + 1)
    assert client.take(Disconnect).reason_code == REFUSED


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
def test_an_acknowledgement_behind_others_needs_no_commit_of_its_own(life: Life, version: int, qos: int) -> None:
    """Nothing of its message is stored, so no later commit may ever come that could bring it along."""
    life.writer.is_stepping = True
    publisher = life.client("pub", version)
    publisher.connect()
    publisher.send(Message(b"a", b"stored", 0, 1, packet_id=1))
    life.broker.flush()
    publisher.send(Message(b"nobody", b"", 0, qos, packet_id=2))
    life.broker.flush()
    assert answered(publisher) == []
    life.writer.step()
    life.broker.flush()
    assert answered(publisher) == [1, 2]
    assert life.writer.jobs == []


# --- back-pressure ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [4, 5])
def test_publishers_wait_while_the_writer_is_behind(life: Life, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MAX_OPERATIONS", 10)
    life.writer.is_stepping = True
    publisher = life.client("pub", version)
    publisher.connect()
    quiet = life.client("quiet", version)
    quiet.connect()
    for number in range(1, 31):
        publisher.send(Message(b"a", b"%d" % number, 0, 1, packet_id=number))
    assert len(queued(life)) == 11
    assert life.store.congested
    assert not is_read(publisher)
    heard: list[bytes] = []
    life.broker.subscribe("q", lambda message: heard.append(message.payload))
    quiet.publish("q", b"qos 0", 0)
    assert heard == [b"qos 0"]
    assert is_read(quiet)
    while life.writer.jobs:
        life.writer.step()
        life.broker.flush()
    assert answered(publisher) == list(range(1, 31))
    assert queued(life) == [b"%d" % number for number in range(1, 31)]
    assert is_read(publisher)


def test_bytes_count_too(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MAX_BYTES", 250_000)
    life.writer.is_stepping = True
    publisher = life.client("pub")
    publisher.connect()
    publisher.send(*[Message(b"a", BIG, 0, 1, packet_id=number) for number in range(1, 6)])
    assert len(queued(life)) == 3
    while life.writer.jobs:
        life.writer.step()
        life.broker.flush()
    assert len(queued(life)) == 5
    assert not life.store.congested


def test_a_publisher_that_waits_may_go(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "MAX_OPERATIONS", 1)
    life.writer.is_stepping = True
    publisher = life.client("pub")
    publisher.connect()
    publisher.send(*[Message(b"a", b"x", 0, 1, packet_id=number) for number in range(1, 6)])
    publisher.lose()
    while life.writer.jobs:
        life.writer.step()
        life.broker.flush()
    assert len(queued(life)) == 2
    assert life.broker.commits._waiting == []
