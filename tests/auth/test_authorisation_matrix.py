"""Every way of a message to a client, every state of the rights, every moment at which they may have changed.

The reader's side is ten ways (the seven of MQTT itself, P2P, the embedding process, and ``$SYS``) times six states
times three moments; the writer's side six ways.  What may not be had must not arrive, and what may be had must.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from twisted_p2pmqtt.auth import AclAvatar, AclFile
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connect, Puback, Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.credentials import MQTTCredentials
from twisted_p2pmqtt.core.limits import P2POptions
from twisted_p2pmqtt.core.p2p import BothP2PRouter
from twisted_p2pmqtt.interfaces import IClientAvatar
from twisted_p2pmqtt.testing import MemoryClient, make_broker, memory_factory

MESSAGE, FILLER = b"the message", "filler"
STATES = ["allow", "deny exactly", "deny under allow", "deny by client id", "raises", "hangs"]
MOMENTS = ["before", "between", "after reconnect"]


def rules(state: str, base: str, client_id: str) -> str:
    """An ACL that says about ``base/{client_id}/x`` what the state is, and allows the rest."""
    allow = f"topic {FILLER}\ntopic {base}/#\ntopic p2p/#\n"
    return {
        "allow": allow,
        "deny exactly": f"{allow}topic deny {base}/{client_id}/x\ntopic deny p2p/reader/{base}/{client_id}/x\n",
        "deny under allow": f"{allow}topic #\ntopic deny {base}/+/#\ntopic deny p2p/reader/#\n",
        "deny by client id": f"{allow}pattern deny {base}/%c/#\npattern deny p2p/reader/{base}/%c/#\n",
    }[state]


@implementer(IClientAvatar)
class Raises:
    def _raise(self, *arguments: object) -> Any:
        raise SystemExit("rights have bugs, too")

    may_publish = may_subscribe = may_receive = may_send_to = _raise


@implementer(IClientAvatar)
class Hangs:
    def _hang(self, *arguments: object) -> Any:
        return Deferred()

    may_publish = may_subscribe = may_receive = may_send_to = _hang


@implementer(IClientAvatar)
class Switch:
    """An avatar whose rights change.  It may always subscribe: what is delivered is what counts here."""

    def __init__(self, rights: Any) -> None:
        self.rights = rights

    def may_subscribe(self, topic_filter: str) -> bool:
        return True

    def may_publish(self, topic: str) -> Any:
        return self.rights.may_publish(topic)

    def may_receive(self, topic: str) -> Any:
        return self.rights.may_receive(topic)

    def may_send_to(self, client_id: str, topic: str, canonical: str) -> Any:
        return self.rights.may_send_to(client_id, topic, canonical)


class World:
    """A broker with a reader and a writer, one of whom is judged."""

    def __init__(self, directory: Path, judged: str, state: str, base: str = "t") -> None:
        self.clock = Clock()
        self.broker = make_broker(self.clock, router=BothP2PRouter(), p2p=P2POptions(check_receive=judged == "reader"))
        self.directory = directory
        self.judged = judged
        self.base = base
        self.topic = f"{base}/{judged}/x"
        self.state = state
        self.avatars: dict[str, Any] = {}
        self.factory = memory_factory(self.broker, self._login)

    def _login(self, credentials: MQTTCredentials) -> Any:
        return self.avatars.get(credentials.client_id)

    def rights(self, state: str) -> Any:
        if state in ("raises", "hangs"):
            return Raises() if state == "raises" else Hangs()
        path = self.directory / state
        path.write_text(rules(state, self.base, self.judged))
        return AclAvatar(AclFile(str(path)), None, self.judged)

    def enter(self, state: str) -> None:
        """Whoever logs in next as the judged client has these rights."""
        self.avatars[self.judged] = Switch(self.rights(state))

    def switch(self) -> None:
        """The rights change now, as by a reload."""
        self.avatars[self.judged].rights = self.rights(self.state)
        self.broker.forget_routes()

    def client(
        self, client_id: str, acknowledges: bool = True, will: Will | None = None, receive_maximum: int = 65535
    ) -> MemoryClient:
        client = MemoryClient(self.factory, client_id, acknowledges=acknowledges)
        properties = Properties(session_expiry_interval=1000, receive_maximum=receive_maximum)
        self.connack = client.connect(clean_start=False, properties=properties, will=will)
        return client

    def reader(self, subscribe: str | None = None, is_slow: bool = False, window: int = 1) -> MemoryClient:
        """The reader; a slow one has its window full of a filler that it does not acknowledge."""
        reader = self.client("reader", not is_slow, receive_maximum=window if is_slow else 65535)
        reader.subscribe(FILLER, *([subscribe or f"{self.base}/#"] if subscribe != "" else []))
        if is_slow and window == 1:
            self.publish(FILLER, b"filler")
            assert [message.payload for message in reader.messages] == [b"filler"]
        return reader

    def writer(self, will: Will | None) -> MemoryClient:
        """The writer, once it is accepted or refused."""
        writer = MemoryClient(self.factory, "writer")
        writer.send(Connect("writer", 5, False, 0, will=will, properties=Properties(session_expiry_interval=1000)))
        self.wait()
        return writer

    @staticmethod
    def free(reader: MemoryClient) -> None:
        """Acknowledge the oldest message: what waits may come."""
        reader.send(Puback(reader.messages[0].packet_id))

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self.broker.publish(topic, payload, 1, retain)

    def wait(self) -> None:
        """As long as anything here may take."""
        for _ in range(30):
            self.clock.advance(1.0)


def count(reader: MemoryClient) -> int:
    return sum(message.payload == MESSAGE for message in reader.messages)


def expected(state: str) -> int:
    return int(state == "allow")


# How a message comes about


def by_publish(world: World) -> None:
    writer = MemoryClient(world.factory, "writer")
    writer.connect()
    writer.publish(world.topic, MESSAGE, 1)
    writer.disconnect()


def by_will(world: World, delay: int = 0) -> None:
    will = Will(world.topic, MESSAGE, 1, properties=Properties(will_delay_interval=delay) if delay else Properties())
    writer = world.client("writer", will=will)
    writer.lose()


def by_delayed_will(world: World) -> None:
    by_will(world, 10)
    for _ in range(11):
        world.clock.advance(1.0)


def by_p2p(world: World) -> None:
    writer = MemoryClient(world.factory, "writer")
    writer.connect()
    writer.publish(f"p2p/reader/{world.topic}", MESSAGE, 1)
    writer.disconnect()


def by_the_process(world: World) -> None:
    world.publish(world.topic, MESSAGE)


LIVE: dict[str, tuple[Callable[[World], None], str | None, str]] = {
    "live": (by_publish, None, "t"),
    "shared": (by_publish, "$share/g/t/#", "t"),
    "will": (by_will, None, "t"),
    "delayed will": (by_delayed_will, None, "t"),
    "p2p": (by_p2p, "", "t"),
    "process": (by_the_process, None, "t"),
    "$SYS": (by_the_process, None, "$SYS"),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("way", LIVE)
def test_messages_that_are_made_now(tmp_path: Path, way: str, state: str, moment: str) -> None:
    produce, subscription, base = LIVE[way]
    world = World(tmp_path, "reader", state, base)
    if moment == "before":
        world.enter(state)
        reader = world.reader(subscription)
        produce(world)
    elif moment == "between":
        world.enter("allow")
        reader = world.reader(subscription, is_slow=True)
        produce(world)
        assert count(reader) == 0
        world.switch()
        world.free(reader)
    else:
        world.enter("allow")
        reader = world.reader(subscription)
        produce(world)
        assert count(reader) == 1, "the plan is made, and remembered"
        reader.lose()
        world.enter(state)
        reader = world.client("reader")
        produce(world)
    world.wait()
    assert count(reader) == expected(state)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("qos", [0, 1])
def test_retained(tmp_path: Path, state: str, moment: str, qos: int) -> None:
    world = World(tmp_path, "reader", state)
    world.publish(world.topic, MESSAGE, retain=True)
    if moment == "before":
        world.enter(state)
        reader = world.reader()
    elif moment == "between":
        world.enter("allow")
        reader = world.reader(FILLER, is_slow=True)
        reader.subscribe("t/#", qos=1)
        assert count(reader) == 0
        world.switch()
        world.free(reader)
    else:
        world.enter("allow")
        reader = world.reader()
        reader.lose()
        world.enter(state)
        reader = world.client("reader")
        reader.subscribe("t/#", qos=qos)
    world.wait()
    assert count(reader) == expected(state)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("state", STATES)
def test_queued_while_away(tmp_path: Path, state: str, moment: str) -> None:
    world = World(tmp_path, "reader", state)
    world.enter(state if moment == "before" else "allow")
    world.reader().lose()
    by_publish(world)
    if moment == "after reconnect":
        # The window opens only after the rights have changed.
        world.publish(FILLER, b"behind")
        reader = world.client("reader", acknowledges=False, receive_maximum=1)
        reader.messages.clear()
        reader.send(Puback(1))
        reader.lose()
        by_publish(world)
        world.enter("allow")
        reader = world.client("reader", acknowledges=False, receive_maximum=1)
        assert [message.payload for message in reader.messages] == [b"behind"]
        world.switch()
        world.free(reader)
    else:
        if moment == "between":
            world.switch()
        reader = world.client("reader")
    world.wait()
    assert count(reader) == expected(state)


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("is_p2p", [False, True], ids=["subscription", "p2p"])
def test_in_flight(tmp_path: Path, state: str, moment: str, is_p2p: bool) -> None:
    world = World(tmp_path, "reader", state)
    produce = by_p2p if is_p2p else by_publish
    world.enter(state if moment == "before" else "allow")
    reader = world.reader(is_slow=True, window=10)
    if moment == "after reconnect":
        world.publish(FILLER, b"filler")
    produce(world)
    sent_before = count(reader)
    assert sent_before == (1 if moment != "before" else expected(state))
    reader.lose()
    if moment == "after reconnect":
        reader = world.client("reader", acknowledges=False, receive_maximum=1)
        assert [message.payload for message in reader.messages] == [b"filler"]
        world.switch()
        world.free(reader)
    else:
        if moment == "between":
            world.switch()
        reader = world.client("reader", acknowledges=False)
    world.wait()
    assert count(reader) == expected(state)
    stats = world.broker.stats
    if state != "allow" and moment != "before":
        assert stats.dropped_not_authorized == 1
        session = world.broker.sessions["reader"]
        assert not session.inflight, "and the identifier is free again"


# The writer's side


WAYS_OUT = ["publish", "retain", "will", "delayed will", "p2p", "p2p suffix"]


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("way", WAYS_OUT)
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_writers(tmp_path: Path, way: str, state: str, moment: str, qos: int) -> None:
    world = World(tmp_path, "writer", state)
    topic = world.topic
    if way.startswith("p2p"):
        topic = f"p2p/reader/{topic}" if way == "p2p" else f"{topic}/p2p/reader"
    reader = MemoryClient(world.factory, "reader")
    reader.connect()
    reader.subscribe("t/#")
    is_will = "will" in way
    delay = Properties(will_delay_interval=10) if way == "delayed will" else Properties()
    will = Will(topic, MESSAGE, qos, properties=delay) if is_will else None
    world.enter(state if moment == "before" else "allow")
    writer = world.writer(will)
    if is_will:
        if moment == "between":
            world.switch()
        elif moment == "after reconnect":  # the first will is gone with this CONNECT, the second is judged
            world.enter(state)
            writer.disconnect()
            writer = world.writer(will)
        writer.lose()
    else:
        if moment != "before":
            writer.publish(topic, b"first", qos)
        if moment == "between":
            world.switch()
        elif moment == "after reconnect":
            writer.lose()
            world.enter(state)
            writer = world.writer(None)
        writer.send(Message(topic.encode(), MESSAGE, 0, qos, int(way == "retain"), 0, 77 if qos else 0))
    world.wait()
    assert count(reader) == expected(state)
    assert len(world.broker.retained) == (way == "retain" and state == "allow")


def test_how_many_cases_these_are() -> None:
    reading = len(LIVE) + len(["retained", "queued", "in flight"])
    assert reading * len(STATES) * len(MOMENTS) == 180
