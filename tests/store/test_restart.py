"""What a client finds when the broker was killed, or stopped, and is there again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.core.support import Avatar
from tests.store.lives import Life
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Auth, Puback, Pubcomp, Pubrec, Pubrel, SubscriptionRequest, Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.handshake import Success
from twisted_p2pmqtt.core.subscriptions import make_subscription
from twisted_p2pmqtt.store.sqlite import SQLiteStore
from twisted_p2pmqtt.store.writer import DirectWriter
from twisted_p2pmqtt.testing import MemoryClient, make_broker, memory_factory

Restart = Callable[..., Life]


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return Life(tmp_path / "store.db")


@pytest.fixture(params=["killed", "stopped"])
def restart(request: pytest.FixtureRequest) -> Restart:
    """The next life of a broker that was killed, or stopped in order."""
    return lambda life, after=0.0: life.killed(after, is_orderly=request.param == "stopped")


def payloads(messages: list[Message]) -> list[bytes]:
    return [message.payload for message in messages]


def test_subscriptions_and_queue(life: Life, restart: Restart) -> None:
    subscriber = life.connected("sub")
    subscriber.subscribe(SubscriptionRequest("a/#", 2, True, True), SubscriptionRequest("$share/g/b", 1), identifier=7)
    subscriber.unsubscribe("$share/g/b")
    subscriber.lose()
    publisher = life.client("pub")
    publisher.connect()
    properties = Properties(content_type="text", user_properties=[("k", "v"), ("k", "w")])
    assert publisher.publish("a/1", b"one", 1, properties=properties) == 0
    assert publisher.publish("a/2", b"two", 2) == 0
    assert publisher.publish("p2p/sub/x", b"p2p", 1) == 0
    assert publisher.publish("b", b"not for sub", 1) == 0x10

    life = restart(life)
    (session,) = life.broker.list_sessions()
    assert (session.client_id, session.subscriptions, session.pending) == ("sub", ("a/#",), 3)
    subscriber = life.connected("sub")
    assert sorted(payloads(subscriber.messages)) == [b"one", b"p2p", b"two"]
    one = next(message for message in subscriber.messages if message.payload == b"one")
    assert one.properties == {**properties, "subscription_identifiers": [7]}
    assert life.broker.sessions["sub"].subscriptions == {"a/#": make_subscription(2, True, True, 7)}
    assert life.counts() == {"session": 1, "subscription": 1}, "all is acknowledged"


def test_session_is_present(life: Life, restart: Restart) -> None:
    life.connected("here").lose()
    life = restart(life)
    client = life.client("here")
    assert client.connect(clean_start=False).session_present
    assert not life.client("other").connect(clean_start=False).session_present


def test_sessions_without_an_interval_leave_nothing(life: Life, restart: Restart) -> None:
    client = life.client("gone")
    client.connect()
    client.subscribe("a")
    assert client.publish("a", b"x", 2) == 0
    assert life.counts() == {}
    life = restart(life)
    assert life.broker.list_sessions() == []


@pytest.mark.parametrize("version", [3, 4, 5])
def test_inflight_is_sent_again_with_its_packet_id(life: Life, restart: Restart, version: int) -> None:
    life.connected("sub", version, acknowledges=False).subscribe("a")
    publisher = life.client("pub")
    publisher.connect()
    for number in range(4):
        publisher.publish("a", b"%d" % number, 1)
    client = life.broker.sessions["sub"].connection
    assert client is not None
    ids = list(life.broker.sessions["sub"].inflight)

    life = restart(life)
    subscriber = life.connected("sub", version, acknowledges=False)
    assert [(m.packet_id, m.payload, bool(m.dup)) for m in subscriber.messages] == [
        (packet_id, b"%d" % number, True) for number, packet_id in enumerate(ids)
    ]
    life.broker.publish("a", b"new", 1)
    assert subscriber.messages[-1].packet_id not in ids
    for packet_id in ids:
        subscriber.send(Puback(packet_id))
    assert list(life.broker.sessions["sub"].inflight) == [subscriber.messages[-1].packet_id]


def test_pending_gets_packet_ids_that_survive(life: Life, restart: Restart) -> None:
    life.connected("sub").subscribe("a", qos=1)
    life.broker.sessions["sub"].connection.lost()  # type: ignore[union-attr]  # it is connected
    life.broker.publish("a", b"waited", 1)
    life.broker.flush()
    life = restart(life)
    before = life.connected("sub", acknowledges=False).messages
    life = restart(life)
    after = life.connected("sub").messages
    assert [(m.packet_id, m.payload) for m in after] == [(m.packet_id, m.payload) for m in before]
    assert after[0].dup


def test_exactly_once_towards_a_subscriber(life: Life, restart: Restart) -> None:
    subscriber = life.connected("sub", acknowledges=False)
    subscriber.subscribe("a")
    life.broker.publish("a", b"released", 2)
    life.broker.publish("a", b"sent", 2)
    first, second = subscriber.messages
    subscriber.send(Pubrec(first.packet_id))
    assert subscriber.take(Pubrel).packet_id == first.packet_id

    life = restart(life)
    subscriber = life.connected("sub", acknowledges=False)
    assert [(m.packet_id, m.payload) for m in subscriber.messages] == [(second.packet_id, b"sent")]
    assert subscriber.take(Pubrel).packet_id == first.packet_id
    subscriber.send(Pubcomp(first.packet_id), Pubrec(second.packet_id))
    assert subscriber.take(Pubrel).packet_id == second.packet_id
    subscriber.send(Pubcomp(second.packet_id))
    assert life.counts() == {"session": 1, "subscription": 1}


def test_exactly_once_from_a_publisher(life: Life, restart: Restart) -> None:
    life.connected("sub").subscribe("a")
    publisher = life.connected("pub")
    publisher.send(Message(b"a", b"x", 0, 2, packet_id=5))
    assert publisher.take(Pubrec).packet_id == 5

    life = restart(life)
    subscriber = life.connected("sub")
    assert len(subscriber.messages) <= 1
    publisher = life.connected("pub")
    publisher.send(Message(b"a", b"x", 0, 2, dup=8, packet_id=5))
    assert publisher.take(Pubrec).packet_id == 5
    publisher.send(Pubrel(5))
    assert publisher.take(Pubcomp).reason_code == 0
    assert len(subscriber.messages) <= 1, "never twice"
    publisher.send(Message(b"a", b"y", 0, 2, packet_id=5))
    assert payloads(subscriber.messages)[-1:] == [b"y"], "the id is free again"

    life = restart(life)
    publisher = life.connected("pub")
    publisher.send(Pubrel(5))
    assert publisher.take(Pubcomp).reason_code == 0, "it was taken before"


def test_a_message_for_many_is_stored_and_restored_once(life: Life, restart: Restart) -> None:
    for number in range(20):
        life.connected(f"sub{number}").subscribe("all")
        life.broker.sessions[f"sub{number}"].connection.lost()  # type: ignore[union-attr]  # it is connected
    life.broker.publish("all", b"x" * 1000, 1)
    life.broker.flush()
    assert life.counts() == {"session": 20, "subscription": 20, "message": 1, "delivery": 20}

    life = restart(life)
    messages = {id(session.pending[0].message) for session in life.broker.sessions.values() if session.pending}
    assert len(messages) == 1
    for number in range(20):
        assert life.counts()["message"] == 1
        assert payloads(life.connected(f"sub{number}").messages) == [b"x" * 1000]
    assert life.counts() == {"session": 20, "subscription": 20}


def test_retained_messages(life: Life, restart: Restart) -> None:
    publisher = life.client("pub")
    publisher.connect()
    assert publisher.publish("r/kept", b"old", 1, retain=True) == 0x10
    assert publisher.publish("r/kept", b"new", 2, retain=True, properties=Properties(content_type="t")) == 0x10
    publisher.publish("r/gone", b"x", 1, retain=True)
    publisher.publish("r/gone", b"", 1, retain=True)
    publisher.publish("r/short", b"x", 0, retain=True, properties=Properties(message_expiry_interval=5))
    publisher.publish("r/long", b"x", 0, retain=True, properties=Properties(message_expiry_interval=50))
    life.broker.flush()

    life = restart(life, after=10)
    life.clock.advance(1)
    subscriber = life.client("sub")
    subscriber.connect()
    subscriber.subscribe("r/#")
    found = {m.topic: (m.payload, m.qos, m.retain, m.properties) for m in subscriber.messages}
    assert found == {
        b"r/kept": (b"new", 2, 1, {"content_type": "t"}),
        b"r/long": (b"x", 0, 1, {"message_expiry_interval": 39}),
    }
    life.broker.flush()
    assert life.counts() == {"retained": 2}


def test_expired_messages_are_not_delivered(life: Life, restart: Restart) -> None:
    life.connected("sub").subscribe("a")
    life.broker.sessions["sub"].connection.lost()  # type: ignore[union-attr]  # it is connected
    for interval in (5, 50):
        life.broker.publish("a", b"%d" % interval, 1, properties=Properties(message_expiry_interval=interval))
    life.broker.flush()
    life = restart(life, after=10)
    (message,) = life.connected("sub").messages
    assert (message.payload, message.properties) == (b"50", {"message_expiry_interval": 40})
    assert life.broker.stats.dropped_expired == 1


def test_sessions_expire_by_the_time_they_were_left_alone(life: Life, restart: Restart) -> None:
    life.connected("left", expiry=100).lose()
    life.clock.advance(30)
    life.connected("connected", expiry=20)
    life = restart(life, after=60)
    assert set(life.broker.sessions) == {"left", "connected"}
    life.clock.advance(1)
    assert "left" in life.broker.sessions, "nine seconds are left"
    life.clock.advance(10)
    assert "left" not in life.broker.sessions
    life.broker.flush()
    life = restart(life)
    assert "left" not in life.broker.sessions


def test_who_was_connected_at_a_kill_has_left_at_the_restart(life: Life) -> None:
    life.connected("sub", expiry=100)
    life = life.killed(after=500)
    life.clock.advance(1)
    assert "sub" in life.broker.sessions
    life.broker.flush()
    life = life.killed(after=60)  # not anew at each restart
    life.clock.advance(41)
    assert "sub" not in life.broker.sessions


def test_a_clock_that_was_set_back_ends_nothing_early(tmp_path: Path) -> None:
    life = Life(tmp_path / "store.db")
    life.clock.advance(10_000)
    life.connected("sub", expiry=100).lose()
    path = life.left_behind()
    life = Life(path, Clock())  # ten thousand seconds earlier
    life.clock.advance(99)
    assert "sub" in life.broker.sessions
    life.clock.advance(2)
    assert "sub" not in life.broker.sessions


def test_wills_wait_for_what_is_left_of_their_delay(life: Life, restart: Restart) -> None:
    will = Will("w", b"dead", 1, False, Properties(will_delay_interval=60, content_type="c"))
    life.connected("dying", will=will).lose()
    life = restart(life, after=30)
    heard: list[bytes] = []
    life.broker.subscribe("w", lambda message: heard.append(message.payload))
    life.clock.advance(29)
    assert heard == []
    life.clock.advance(2)
    assert heard == [b"dead"]
    life.broker.flush()
    life = restart(life, after=100)
    assert life.broker.sessions["dying"].will is None, "once"


def test_wills_of_those_who_come_back_are_not_sent(life: Life, restart: Restart) -> None:
    will = Will("w", b"dead", 0, False, Properties(will_delay_interval=60))
    life.connected("alive", will=will)
    life = restart(life)
    heard: list[bytes] = []
    life.broker.subscribe("w", lambda message: heard.append(message.payload))
    life.connected("alive")
    life.clock.advance(100)
    assert heard == []


def test_a_will_goes_out_though_its_client_is_back_at_once(life: Life, restart: Restart) -> None:
    """Clients of a broker that is restarted wait in its backlog, and so are there before its first tick."""
    life.connected("hearing").subscribe("w")
    life.connected("dying", will=Will("w", b"dead", 1))
    life.broker.flush()
    life = restart(life)
    life.connected("dying", will=Will("w", b"dead again", 1))
    life.clock.advance(1)
    assert payloads(life.connected("hearing").messages) == [b"dead"]


def test_so_does_one_whose_delay_has_passed_meanwhile(life: Life, restart: Restart) -> None:
    life.connected("hearing").subscribe("w")
    life.connected("dying", will=Will("w", b"dead", 1, False, Properties(will_delay_interval=60))).lose()
    life.broker.flush()
    life = restart(life, after=60)
    life.connected("dying")
    assert payloads(life.connected("hearing").messages) == [b"dead"]


def test_a_session_that_expired_meanwhile_is_not_resumed(life: Life, restart: Restart) -> None:
    life.connected("late", expiry=60).lose()
    life.broker.flush()
    life = restart(life, after=60)
    assert not life.client("late").connect(clean_start=False).session_present


class Rights:
    """An authentication method whose data is what the client may publish."""

    method = "RIGHTS"

    def begin(self, client_id: str, username: str | None, data: bytes | None) -> Rights:
        return self

    def proceed(self, data: bytes | None) -> Any:
        return Success(None, Avatar(publish=[(data or b"").decode()]))


def logged_in(life: Life, will: Will, rights: bytes) -> MemoryClient:
    """A persistent client whose rights are asked."""
    life.factory = memory_factory(life.broker, methods=[Rights()])
    client = life.client("dying")
    properties = Properties(session_expiry_interval=1000, authentication_method="RIGHTS", authentication_data=rights)
    client.connect(clean_start=False, will=will, properties=properties)
    return client


def heard_after(life: Life, restart: Restart) -> list[bytes]:
    """What is published in the next life."""
    life.broker.flush()
    life = restart(life)
    heard: list[bytes] = []
    life.broker.subscribe("#", lambda message: heard.append(message.payload))
    life.clock.advance(100)
    assert life.broker.sessions["dying"].will is None
    return heard


def test_a_will_needs_no_right_anew(life: Life, restart: Restart) -> None:
    """It had it at CONNECT, or would not be stored; nobody is left who could be asked."""
    logged_in(life, Will("mine/w", b"dead", 1, False, Properties(will_delay_interval=60)), b"mine/#")
    assert heard_after(life, restart) == [b"dead"]


def test_a_will_without_a_right_is_never_stored(life: Life) -> None:
    assert logged_in(life, Will("yours/w", b"dead", 1), b"mine/#").is_closed
    life.broker.flush()
    assert life.counts() == {}


def test_a_will_that_its_clients_next_login_may_not_publish_goes(life: Life, restart: Restart) -> None:
    client = logged_in(life, Will("mine/w", b"dead", 1, False, Properties(will_delay_interval=60)), b"mine/#")
    client.send(Auth(0x19, Properties(authentication_method="RIGHTS", authentication_data=b"other/#")))
    assert client.take(Auth).reason_code == 0
    assert heard_after(life, restart) == []


def test_a_will_reaches_subscribers_that_are_restored_after_it(life: Life) -> None:
    life.connected("dying", will=Will("w", b"dead", 1))
    life.connected("hearing").subscribe("w")
    life.broker.sessions["hearing"].connection.lost()  # type: ignore[union-attr]  # it is connected
    life = life.killed()
    life.clock.advance(1)
    assert payloads(life.connected("hearing").messages) == [b"dead"]


def test_a_session_that_gives_up_its_interval_is_forgotten(life: Life, restart: Restart) -> None:
    subscriber = life.connected("sub")
    subscriber.subscribe("a")
    subscriber.lose()
    life.broker.publish("a", b"x", 1)
    client = life.client("sub")
    assert client.connect(clean_start=False).session_present
    assert payloads(client.messages) == [b"x"]
    assert life.counts() == {}, "it ends with this connection"
    life = restart(life)
    assert life.broker.list_sessions() == []


def test_a_clean_start_forgets_everything(life: Life, restart: Restart) -> None:
    subscriber = life.connected("sub", acknowledges=False)
    subscriber.subscribe("a")
    for qos in (1, 2):
        life.broker.publish("a", b"old", qos)
    subscriber.send(Message(b"b", b"x", 0, 2, packet_id=1))
    subscriber.lose()
    life.broker.publish("a", b"older", 1)
    client = life.client("sub")
    client.connect(clean_start=True, properties=Properties(session_expiry_interval=100))
    client.lose()
    assert life.counts() == {"session": 1}
    life = restart(life)
    (session,) = life.broker.list_sessions()
    assert (session.pending, session.inflight, session.subscriptions) == (0, 0, ())


def test_from_python_while_the_store_is_being_read(life: Life) -> None:
    life.connected("sub").subscribe("a")
    path = life.left_behind()
    writer, clock = DirectWriter(is_stepping=True), Clock()
    store = SQLiteStore(str(path), writer=writer)
    broker = make_broker(clock, store)
    done = broker.restore()
    codes: list[int] = []
    broker.publish("a", b"early", 1).addCallback(codes.append)
    assert (codes, done.called) == ([], False)
    writer.is_stepping = False
    writer.step()
    assert done.called
    clock.advance(0)
    assert codes == [0]
    assert broker.list_sessions()[0].pending == 1
