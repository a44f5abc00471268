"""What every ``IStore`` does, and that the SQLite store gives back what it was told, whatever the order and the
faults.
"""

from __future__ import annotations

import copy
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from zope.interface.verify import verifyObject

from tests.store.conftest import MEMORY
from tests.store.lives import RECORDING, fired
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.delivery import Delivery
from twisted_p2pmqtt.core.records import DeliveryRecord, RetainedRecord, SessionRecord, SubscriptionRecord
from twisted_p2pmqtt.interfaces import IStore
from twisted_p2pmqtt.store.memory import MemoryStore
from twisted_p2pmqtt.store.sqlite import SQLiteStore
from twisted_p2pmqtt.store.writer import DirectWriter


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made: Any = MemoryStore()
    if request.param == "sqlite":
        made = SQLiteStore(str(tmp_path / "store.db"), writer=DirectWriter())
    yield made
    made.close()


def test_provides_the_interface(store: Any) -> None:
    assert verifyObject(IStore, store)


def test_a_new_store_is_empty_and_idle(store: Any) -> None:
    received: list[Any] = []
    assert fired(store.restore(received.extend))
    assert received == []
    assert (store.pending, store.available, store.congested) == (False, True, False)
    assert store.commit() is None
    assert fired(store.close())


def test_a_new_store_is_empty_at_once(store: Any) -> None:
    received: list[Any] = []
    store.restore_now(received.extend)
    assert received == []
    assert fired(store.close())


# --- the model -------------------------------------------------------------------------------------------------------


class Model:
    """What a store should hold, in plain values."""

    def __init__(self) -> None:
        self.sessions: dict[str, tuple[Any, ...]] = {}
        self.subscriptions: dict[tuple[str, str], tuple[Any, ...]] = {}
        self.received: set[tuple[str, int]] = set()
        self.deliveries: dict[int, tuple[Any, ...]] = {}
        self.retained: dict[str, tuple[Any, ...]] = {}

    def as_values(self) -> tuple[Any, ...]:
        return self.sessions, self.subscriptions, self.received, self.deliveries, self.retained


def model_of(store: SQLiteStore) -> Model:
    """What the store gives back."""
    model = Model()

    def receive(records: list[Any]) -> None:
        for record in records:
            if isinstance(record, SessionRecord):
                model.sessions[record.client_id] = (record.expiry_interval, record.left_at, record.will)
                for one in record.subscriptions:
                    model.subscriptions[record.client_id, one.topic_filter] = subscription_values(one)
                model.received |= {(record.client_id, packet_id) for packet_id in record.received}
            elif isinstance(record, DeliveryRecord):
                message = record.message
                model.deliveries[record.sequence] = (
                    record.client_id,
                    (record.qos, record.retain, record.extra, record.is_p2p),
                    record.packet_id,
                    record.is_released,
                    (message.topic, message.payload, message.qos, dict(message.properties), message.expires_at),
                )
            else:
                assert isinstance(record, RetainedRecord)
                message = record.message
                values = (message.payload, message.qos, dict(message.properties), message.expires_at)
                model.retained[record.topic] = values

    store.restore_now(receive)
    assert list(model.deliveries) == sorted(model.deliveries)
    return model


def subscription_values(record: SubscriptionRecord) -> tuple[Any, ...]:
    return record.qos, record.no_local, record.retain_as_published, record.identifier


CLIENTS = ("a", "\u00fc/\U0001f600", "x" * 250)
clients = st.sampled_from(CLIENTS)
filters = st.sampled_from(["t", "t/#", "$share/g/t", "+"])
times = st.none() | st.floats(0, 4e9)
properties = st.sampled_from(
    [{}, Properties(content_type="c"), Properties(user_properties=[("k", "v" * 300)], correlation_data=b"\0")]
)
payloads = st.binary(max_size=40) | st.sampled_from([5000, 70_000]).map(lambda size: b"x" * size)
wills = st.none() | st.builds(
    Will, st.sampled_from(["w", "w/\u00e9"]), payloads, st.integers(0, 2), st.booleans(), properties
)


messages = st.builds(
    lambda payload, qos, some: Message(b"t/\xc3\xa9", payload, 0, qos, properties=some),
    payloads,
    st.integers(0, 2),
    properties,
)
topics = st.sampled_from(["r", "r/\u00e9"])
operations = st.one_of(
    st.tuples(st.just("save_session"), clients, st.integers(1, 0xFFFFFFFF), times, wills),
    st.tuples(st.just("drop_session"), clients),
    st.tuples(st.just("save_subscription"), clients, filters, st.integers(0, 2), st.integers(0, 300)),
    st.tuples(st.just("drop_subscription"), clients, filters),
    st.tuples(
        st.just("enqueue"),
        st.lists(clients, min_size=1, max_size=3, unique=True),
        messages,
        times,
        st.sampled_from([0, 1, 65535]),
        st.integers(1, 2),
        st.sampled_from([b"", b"\x0b\x01", b"\x0b\x80\x01\x0b\x07"]),
    ),
    st.tuples(st.just("change_delivery"), st.integers(0, 1000), st.sampled_from(["sent", "released", "acknowledge"])),
    st.tuples(st.just("receive_or_forget"), clients, st.integers(1, 2)),
    st.tuples(st.just("retain"), topics, messages, times),
    st.tuples(st.just("unretain"), topics),
)


class StoreMachine(RuleBasedStateMachine):
    """Random recording, commits that wait or fail, kills.

    ``now`` is what was recorded, ``handed`` what the writer was given last, ``stored`` what it has written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="p2pmqtt-store-", dir=MEMORY))
        self.path = self.directory / "0.db"
        self.lives = 0
        self.now = Model()
        self.recorded = 0  # operations so far, and how many of them ``handed`` and ``stored`` hold
        self.handed, self.handed_count = Model(), 0
        self.stored, self.stored_count = Model(), 0
        self.waiting: list[object] = []
        self._start()
        assert model_of(self.store).as_values() == self.now.as_values()

    def _start(self) -> None:
        self.writer = DirectWriter(is_stepping=True)
        store = self.store = SQLiteStore(str(self.path), writer=self.writer)
        self.is_broken = False
        self.waiting = []
        hand_over, finished = store._hand_over, store._finished

        def handing(error: BaseException | None) -> None:
            self.handed, self.handed_count = copy.deepcopy(self.now), self.recorded
            hand_over(error)

        def finishing(error: BaseException | None) -> None:
            if error is None:
                self.stored, self.stored_count = self.handed, self.handed_count
            finished(error)

        for name in RECORDING:
            self._count_calls(store, name)
        store._hand_over = handing  # type: ignore[method-assign]  # the fault
        store._finished = finishing  # type: ignore[method-assign]  # the fault

    def _count_calls(self, store: SQLiteStore, name: str) -> None:
        method = getattr(store, name)

        def counted(*arguments: Any) -> None:
            self.recorded += 1
            method(*arguments)

        setattr(store, name, counted)

    def teardown(self) -> None:
        self.store._database.abandon()
        shutil.rmtree(self.directory)

    # --- recording ---

    @rule(operations=st.lists(operations, min_size=1, max_size=30))
    def record(self, operations: list[tuple[Any, ...]]) -> None:
        for name, *arguments in operations:
            getattr(self, name)(*arguments)

    def save_session(self, client_id: str, interval: int, left_at: float | None, will: Will | None) -> None:
        self.store.save_session(SessionRecord(client_id, interval, left_at, will))
        self.now.sessions[client_id] = (interval, left_at, will)

    def _known(self, client_id: str) -> str:
        if client_id not in self.now.sessions:
            self.save_session(client_id, 100, None, None)
        return client_id

    def drop_session(self, client_id: str) -> None:
        self.store.drop_session(client_id)
        now = self.now
        now.sessions.pop(client_id, None)
        now.subscriptions = {key: value for key, value in now.subscriptions.items() if key[0] != client_id}
        now.received = {key for key in now.received if key[0] != client_id}
        for sequence in [key for key, value in now.deliveries.items() if value[0] == client_id]:
            self.store.acknowledge(client_id, sequence)
            del now.deliveries[sequence]

    def save_subscription(self, client_id: str, topic_filter: str, qos: int, identifier: int) -> None:
        record = SubscriptionRecord(topic_filter, qos, qos == 1, identifier > 100, identifier)
        self.store.save_subscription(self._known(client_id), record)
        self.now.subscriptions[client_id, topic_filter] = subscription_values(record)

    def drop_subscription(self, client_id: str, topic_filter: str) -> None:
        self.store.drop_subscription(self._known(client_id), topic_filter)
        self.now.subscriptions.pop((client_id, topic_filter), None)

    def enqueue(
        self, holders: list[str], message: Message, expires_at: float | None, packet_id: int, qos: int, extra: bytes
    ) -> None:
        message = copy.copy(message)  # hypothesis may give the same object twice
        is_p2p = len(holders) == 1
        for client_id in holders:
            sequence = self.store.new_sequence()
            assert sequence > max(self.now.deliveries, default=0)
            delivery = Delivery(message, qos, int(qos == 1), extra, is_p2p)
            self.store.enqueue(self._known(client_id), sequence, delivery, packet_id, expires_at)
            values = (message.topic, message.payload, message.qos, dict(message.properties), expires_at)
            self.now.deliveries[sequence] = (client_id, (qos, int(qos == 1), extra, is_p2p), packet_id, False, values)

    def change_delivery(self, which: int, what: str) -> None:
        if not self.now.deliveries:
            return
        sequences = list(self.now.deliveries)
        sequence = sequences[which % len(sequences)]
        client_id, options, _, is_released, message = self.now.deliveries[sequence]
        if what == "acknowledge":
            self.store.acknowledge(client_id, sequence)
            del self.now.deliveries[sequence]
        elif what == "sent" and not is_released:
            self.store.sent(client_id, sequence, 77)
            self.now.deliveries[sequence] = (client_id, options, 77, False, message)
        elif what == "released":
            self.store.released(client_id, sequence, 78)
            self.now.deliveries[sequence] = (client_id, options, 78, True, message)

    def receive_or_forget(self, client_id: str, packet_id: int) -> None:
        key = self._known(client_id), packet_id
        if key in self.now.received:
            self.store.forget(*key)
            self.now.received.discard(key)
        else:
            self.store.receive(*key)
            self.now.received.add(key)

    def retain(self, topic: str, message: Message, expires_at: float | None) -> None:
        self.store.retain(topic, message, expires_at)
        values = (message.payload, message.qos, dict(message.properties), expires_at)
        self.now.retained[topic] = values

    def unretain(self, topic: str) -> None:
        self.store.unretain(topic)
        self.now.retained.pop(topic, None)

    # --- commits ---

    @precondition(lambda self: self.store.pending)
    @rule()
    def commit(self) -> None:
        committed, count, entry = self.store.commit(), self.recorded, object()
        assert committed is not None
        self.waiting.append(entry)

        def succeeded(result: None) -> None:
            assert self.waiting.pop(0) is entry, "in the order of the calls"
            assert self.stored_count >= count

        def failed(failure: Any) -> None:
            assert self.is_broken
            self.waiting.remove(entry)

        committed.addCallbacks(succeeded, failed)

    @precondition(lambda self: self.writer.jobs)
    @rule()
    def write(self) -> None:
        self.writer.step()

    @rule()
    def break_or_mend(self) -> None:
        """From now on commits fail in their middle, or work again."""
        self.is_broken = not self.is_broken
        execute = self.store._database.execute
        if self.is_broken:

            def failing(statements: list[Any]) -> None:
                execute([*statements[: len(statements) // 2], ("INSERT INTO nowhere VALUES (1)", [])])

            self.store._database.execute = failing  # type: ignore[method-assign]  # the fault
        else:
            del self.store._database.execute

    @rule(is_settled=st.booleans())
    def kill(self, is_settled: bool) -> None:
        """What was committed is there, and of what was not nothing."""
        if is_settled and not self.is_broken:
            self.store.commit()
            while self.writer.jobs:
                self.writer.step()
            assert self.now.as_values() == self.stored.as_values()
        self.lives += 1
        path = self.directory / f"{self.lives}.db"
        for rest in ("", "-wal", "-mark"):
            shutil.copy(f"{self.path}{rest}", f"{path}{rest}")
        self.store._database.abandon()
        self.path = path
        self._start()
        self.now = model_of(self.store)
        assert self.now.as_values() == self.stored.as_values()

    @invariant()
    def nothing_is_held_back(self) -> None:
        if not self.writer.jobs:
            assert not self.waiting
            assert self.store.available or self.is_broken


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=80, stateful_step_count=20, deadline=None)


def test_machine_notices_a_difference(tmp_path: Path) -> None:
    """The model would see a row that is not what was recorded."""
    store = SQLiteStore(str(tmp_path / "store.db"), writer=DirectWriter())
    store.restore_now(lambda records: None)
    store.save_session(SessionRecord("a", 5, None, None))
    store.commit()
    connection = store._database.connection
    assert isinstance(connection, sqlite3.Connection)
    assert connection.execute("SELECT client_id, expiry_interval FROM session").fetchall() == [("a", 5)]
    store.close()
