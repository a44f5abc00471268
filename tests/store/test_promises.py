"""No frame leaves before the commit of what it promises, whatever clients do and whenever turns and commits end."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.store.lives import RECORDING, Life
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.message import RETAIN, Message
from twisted_p2pmqtt.codec.packets import (
    Connack,
    Connect,
    Disconnect,
    Puback,
    Pubacks,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.core.commits import Commits
from twisted_p2pmqtt.core.connection import Connection
from twisted_p2pmqtt.store.sqlite import SQLiteStore
from twisted_p2pmqtt.testing import MemoryTransport

SEEDS = range(20)
STEPS = 400
CLIENTS = 6

TOPICS = (b"a", b"b", *(b"p2p/c%d/x" % number for number in range(CLIENTS + 1)))  # the last one has no session
FILTERS = ("a", "b", "+")

PACKET_ID_AT = {"enqueue": 3, "sent": 2, "released": 2}
"""Which argument is the packet identifier of a delivery; the first is the client id."""

ANSWERS = (Connack, Suback, Unsuback, Puback, Pubrec, Pubcomp)


class Early(NamedTuple):
    """A frame that left before its commit: the number it had to wait for, and the one that was committed."""

    client_id: str
    kind: type
    packet_id: int
    promised: int
    committed: int


class Oracle:
    """Numbers what the store records.

    ``recorded`` is the last number, ``committed`` the last one that is on the disk, ``deliveries`` has the last one of
    each outgoing packet identifier of each client.
    """

    def __init__(self, store: SQLiteStore) -> None:
        self.recorded = 0
        self.committed = 0
        self.deliveries: dict[tuple[str, int], int] = {}
        self._handed_over = 0
        for name in RECORDING:
            setattr(store, name, self._numbered(name, getattr(store, name)))
        self._hand_over, self._finished = store._hand_over, store._finished
        store._hand_over = self._handing_over  # type: ignore[method-assign]  # to be told first
        store._finished = self._finishing  # type: ignore[method-assign]  # to be told first

    def _numbered(self, name: str, record: Callable[..., None]) -> Callable[..., None]:
        def numbered(*arguments: Any) -> None:
            record(*arguments)
            self.recorded += 1
            if name in PACKET_ID_AT:
                self.deliveries[arguments[0], arguments[PACKET_ID_AT[name]]] = self.recorded

        return numbered

    def _handing_over(self, error: BaseException | None) -> None:
        self._handed_over = self.recorded
        self._hand_over(error)

    def _finishing(self, error: BaseException | None) -> None:
        if error is None:
            self.committed = self._handed_over
        self._finished(error)


class Client:
    """A client that does one thing after another and judges what it gets; ``early`` is what came too soon.

    Its version, and whether its session survives, stay the same over all its connections.
    """

    def __init__(self, life: Life, oracle: Oracle, choose: random.Random, client_id: str) -> None:
        self._factory: Any = life.factory
        self._oracle = oracle
        self._choose = choose
        self.client_id = client_id
        self.version = choose.choice((4, 5))
        self.is_durable = choose.random() < 0.7
        self.early: list[Early] = []
        self._last_packet_id = 0
        self._actions: dict[Callable[[], None], int] = {
            self.publish: 40,
            self.acknowledge: 25,
            self.subscribe: 12,
            self.release: 12,
            self.unsubscribe: 5,
            self.disconnect: 3,
            self.lose: 2,
            self.connect: 1,  # a takeover
        }
        self.connect()

    # --- what it does --------------------------------------------------------------------------------------------

    def act(self) -> None:
        """Do something; come back, sometimes, where the connection is gone."""
        if not self._transport.is_closed:
            (action,) = self._choose.choices(list(self._actions), list(self._actions.values()))
            action()
        elif self._choose.random() < 0.3:
            self.connect()

    def connect(self) -> None:
        """Begin a new connection, whatever became of the last."""
        self._protocol = self._factory.buildProtocol(None)
        self._transport: Any = MemoryTransport(self._protocol.connectionLost)
        self._protocol.makeConnection(self._transport)
        self._reader = PacketReader(version=self.version, from_server=True)
        self._promised: dict[int, int] = {}  # numbers of what the answers to come promise, by packet identifier
        self._unacknowledged: list[Packet] = []  # what is to be answered
        self._received: list[int] = []  # packet identifiers to be released
        properties = Properties()
        clean_start = not self.is_durable
        if self.is_durable and self.version == 5:
            properties["session_expiry_interval"] = 1000
            clean_start = self._choose.random() < 0.2
        self._ask(0, Connect(self.client_id, self.version, clean_start, keep_alive=0, properties=properties))

    def publish(self) -> None:
        """At any QoS, to a topic or a client."""
        choose, qos = self._choose, self._choose.randrange(3)
        properties = Properties()
        if self.version == 5 and choose.random() < 0.2:
            properties["user_properties"] = [("p2p-ack", "target")]
        retain = RETAIN if choose.random() < 0.2 else 0
        packet_id = self._packet_id() if qos else 0
        message = Message(choose.choice(TOPICS), b"x", 0, qos, retain, 0, packet_id, properties)
        if qos:
            self._ask(packet_id, message)
        else:
            self._send(message)

    def subscribe(self) -> None:
        """One filter."""
        packet_id = self._packet_id()
        request = SubscriptionRequest(self._choose.choice(FILTERS), self._choose.randrange(3))
        self._ask(packet_id, Subscribe(packet_id, [request]))

    def unsubscribe(self) -> None:
        """One filter, which may not be there."""
        packet_id = self._packet_id()
        self._ask(packet_id, Unsubscribe(packet_id, [self._choose.choice(FILTERS)]))

    def acknowledge(self) -> None:
        """Answer the oldest PUBLISH or PUBREL."""
        if self._unacknowledged:
            self._send(self._unacknowledged.pop(0))

    def release(self) -> None:
        """PUBREL for the oldest PUBREC."""
        if self._received:
            packet_id = self._received.pop(0)
            self._ask(packet_id, Pubrel(packet_id))

    def disconnect(self) -> None:
        """Say DISCONNECT."""
        self._send(Disconnect())

    def lose(self) -> None:
        """Lose the connection without a word."""
        self._transport.abortConnection()

    def _packet_id(self) -> int:
        self._last_packet_id += 1
        return self._last_packet_id

    def _ask(self, packet_id: int, packet: Packet) -> None:
        """Send what will be answered.  The answer promises what the store recorded meanwhile."""
        before = self._oracle.recorded
        self._send(packet)
        recorded = self._oracle.recorded
        self._promised[packet_id] = recorded if recorded > before else 0

    def _send(self, packet: Packet) -> None:
        self._protocol.dataReceived(encode(packet, self.version))

    # --- what it gets --------------------------------------------------------------------------------------------

    def judge(self) -> None:
        """Look at everything that left for this client since it was asked last."""
        for packet in self._packets():
            promised, committed = self._promise(packet), self._oracle.committed
            if promised > committed:
                packet_id = getattr(packet, "packet_id", 0)
                self.early.append(Early(self.client_id, type(packet), packet_id, promised, committed))
            self._note(packet)

    def _packets(self) -> Iterator[Packet]:
        data = self._transport.value()
        self._transport.clear()
        for packet in self._reader.feed(data):
            if isinstance(packet, Pubacks):
                yield from map(Puback, packet.packet_ids)
            else:
                yield packet
        assert self._reader.error is None

    def _promise(self, packet: Packet) -> int:
        """The number of what the packet promises, 0 where it promises nothing."""
        if isinstance(packet, ANSWERS):
            promised = self._promised.pop(getattr(packet, "packet_id", 0))
            return 0 if is_refusal(packet) else promised
        if isinstance(packet, Pubrel) or (isinstance(packet, Message) and packet.qos == 2):
            return self._oracle.deliveries.get((self.client_id, packet.packet_id), 0)
        return 0

    def _note(self, packet: Packet) -> None:
        if isinstance(packet, Message) and packet.qos:
            self._unacknowledged.append((Puback if packet.qos == 1 else Pubrec)(packet.packet_id))
        elif isinstance(packet, Pubrel):
            self._unacknowledged.append(Pubcomp(packet.packet_id))
        elif isinstance(packet, Pubrec) and not is_refusal(packet):
            self._received.append(packet.packet_id)


def is_refusal(packet: Packet) -> bool:
    return isinstance(packet, Puback | Pubrec) and packet.reason_code >= 0x80


def early_frames(path: Path, seed: int) -> list[Early]:
    """Let clients and the broker do this and that in an order that the seed decides; gives what left too soon."""
    choose = random.Random(seed)
    life = Life(path)
    life.writer.is_stepping = True
    oracle = Oracle(life.store)
    clients = [Client(life, oracle, choose, f"c{number}") for number in range(CLIENTS)]

    def end_turn() -> None:
        life.broker.flush()
        life.clock.advance(0)

    def write_batch() -> None:
        if life.writer.jobs:
            life.writer.step()

    def pass_time() -> None:
        life.clock.advance(0.1)

    moments: list[Callable[[], None]] = [life.broker.write, end_turn, write_batch, pass_time, lambda: None]
    for _ in range(STEPS):
        choose.choice(clients).act()
        (moment,) = choose.choices(moments, [35, 10, 15, 5, 35])
        moment()
        for client in clients:
            client.judge()
    assert life.broker.stats.internal_errors == 0
    return [frame for client in clients for frame in client.early]


@pytest.mark.parametrize("seed", SEEDS)
def test_nothing_leaves_before_its_commit(tmp_path: Path, seed: int) -> None:
    assert early_frames(tmp_path / "store.db", seed) == []


def test_frames_that_are_not_held_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every kind: so none of them goes unjudged above."""

    def put_at_once(
        commits: Commits,
        connection: Connection,
        frame: bytes,
        refusal: bytes,
        done: Callable[[bool], None] | None = None,
    ) -> None:
        connection.put(frame)
        if done is not None:
            done(True)

    monkeypatch.setattr(Commits, "hold", put_at_once)
    early = [frame for seed in SEEDS[:5] for frame in early_frames(tmp_path / f"{seed}.db", seed)]
    assert {frame.kind for frame in early} == {*ANSWERS, Message, Pubrel}
