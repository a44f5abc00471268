"""Words that the conformance tests share: a broker in memory, clients of it, and time that passes when told to.

    world = World(receive_maximum=2)
    alice = world.join("alice", session_expiry_interval=60)
    world.wait(61)

``World`` is the real broker on a ``Clock``; its clients are ``MemoryClient`` or, where bytes matter, ``Raw``.  Behind
each test the broker's counter of internal errors is looked at (conftest), so no test passes over a traceback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.store.lives import RECORDING
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connack, Connect, Subscribe, SubscriptionRequest, Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.limits import Limits
from twisted_p2pmqtt.net.protocol import MQTTFactory, open_login
from twisted_p2pmqtt.store.memory import MemoryStore
from twisted_p2pmqtt.testing import MemoryClient, make_broker, memory_factory

V31, V311, V5 = 3, 4, 5
TICK = 0.25

every_version = pytest.mark.parametrize("version", [V31, V311, V5])
"""Runs a test in 3.1, 3.1.1 and 5.0."""

since_v311 = pytest.mark.parametrize("version", [V311, V5])
"""Runs a test in 3.1.1 and 5.0."""


class SlowStore(MemoryStore):
    """A durable store that keeps nothing, and has committed when the test says so."""

    durable = True

    def __init__(self) -> None:
        self.pending = False
        self._sequence = 0
        self._commits: list[Deferred[None]] = []
        for name in RECORDING:
            setattr(self, name, self._note)

    def _note(self, *what: object) -> None:
        self.pending = True

    def new_sequence(self) -> int:
        """The next one."""
        self._sequence += 1
        return self._sequence

    def commit(self) -> Any:
        """Begin a commit."""
        self.pending = False
        self._commits.append(Deferred())
        return self._commits[-1]

    def finish(self) -> None:
        """What was to be committed is."""
        while self._commits:
            self._commits.pop(0).callback(None)


"""The methods of ``IStore`` that note what happened."""


class World:
    """A broker and whoever talks to it.  Keyword arguments are limits; ``login`` and ``methods`` as a factory's."""

    all: list[World] = []

    def __init__(
        self,
        login: Callable[..., Any] = open_login,
        methods: Iterable[Any] = (),
        store: Any = None,
        **limits: Any,
    ) -> None:
        self.clock = Clock()
        self.broker: Broker = make_broker(self.clock, store=store, limits=Limits(**limits))
        self.factory: MQTTFactory = memory_factory(self.broker, login, methods)
        self.expected_errors = 0
        World.all.append(self)

    def wait(self, seconds: float) -> None:
        """Let so much time pass, tick by tick."""
        ticks = int(seconds / TICK)
        if ticks > 4000:  # a long time: its end is what counts
            self.clock.advance(seconds - 1000)
            ticks = 4000
        self.clock.pump([TICK] * ticks)

    def client(self, client_id: str = "", version: int = V5, acknowledges: bool = True) -> MemoryClient:
        """A connection that has not said CONNECT yet."""
        return MemoryClient(self.factory, client_id, version, acknowledges)

    def raw(self) -> Raw:
        """A peer that sends bytes."""
        return Raw(self.factory)

    def join(
        self,
        client_id: str = "",
        version: int = V5,
        acknowledges: bool = True,
        clean_start: bool = True,
        keep_alive: int = 0,
        username: str | None = None,
        password: bytes | None = None,
        will: Will | None = None,
        **properties: Any,
    ) -> MemoryClient:
        """A client whose CONNECT was accepted; more keyword arguments are the CONNECT's properties."""
        client = self.client(client_id, version, acknowledges)
        connack = client.connect(clean_start, keep_alive, username, password, will, cast(Properties, properties))
        assert connack.reason_code == 0
        return client

    def rejoin(self, client_id: str, version: int = V5, acknowledges: bool = True, **properties: Any) -> MemoryClient:
        """A client with a session that outlives its connections; the connection that has it is lost first."""
        session = self.broker.sessions.get(client_id)
        if session is not None and session.connection is not None:
            session.connection.wire.transport.abortConnection()  # type: ignore[attr-defined]  # the testing client has one
        if version == V5:
            properties.setdefault("session_expiry_interval", 3600)
        return self.join(client_id, version, acknowledges, clean_start=False, **properties)

    def connect(self, client_id: str = "", version: int = V5, **fields: Any) -> tuple[MemoryClient, Connack]:
        """Send a CONNECT with these fields; gives the client and the CONNACK."""
        client = self.client(client_id, version)
        client.send(Connect(client_id, version, **fields))
        return client, client.take(Connack)


class Raw(MemoryClient):
    """A peer that sends bytes, hex where it is text, and keeps the bytes that come back in ``data``."""

    data = b""

    def _turn(self) -> None:
        self._clock.advance(0)
        self.data += self.transport.value()
        self.transport.clear()

    def put(self, sent: str | bytes) -> bytes:
        """Send; gives what came back, and forgets it."""
        self.send_bytes(bytes.fromhex(sent) if isinstance(sent, str) else sent)
        return self.got()

    def got(self) -> bytes:
        """What came back since the last call."""
        self._turn()
        data, self.data = self.data, b""
        return data


CONNECT_V31 = "10 11 0006 4d5149736470 03 02 003c 0003 617474"
CONNECT_V311 = "10 0f 0004 4d515454 04 02 003c 0003 617474"
CONNECT_V5 = "10 10 0004 4d515454 05 02 003c 00 0003 617474"
CONNECT_HEX = {V31: CONNECT_V31, V311: CONNECT_V311, V5: CONNECT_V5}
"""A CONNECT of client "att" in each version: a new session, keep alive 60 seconds."""


def payloads(client: MemoryClient) -> list[bytes]:
    """The payloads of all messages that the client has got."""
    return [message.payload for message in client.messages]


def kinds(packets: Iterable[Packet]) -> list[str]:
    """The names of the packets' types."""
    return [type(packet).__name__ for packet in packets]


def message(
    topic: str, payload: bytes = b"x", qos: int = 0, packet_id: int = 0, dup: bool = False, retain: bool = False
) -> Message:
    """A PUBLISH to send."""
    return Message(topic.encode(), payload, 0, qos, int(retain), 8 if dup else 0, packet_id)


def ask(topic_filter: str, qos: int = 2, **options: Any) -> SubscriptionRequest:
    """One filter of a SUBSCRIBE."""
    return SubscriptionRequest(topic_filter, qos, **options)


def subscribe_packet(packet_id: int, *topic_filters: str, qos: int = 2) -> Subscribe:
    """A SUBSCRIBE to send."""
    return Subscribe(packet_id, [SubscriptionRequest(one, qos) for one in topic_filters])
