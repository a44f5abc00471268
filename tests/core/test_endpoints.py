"""Endpoints: client ids served from Python, and why an answer is no way around the requester's rights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.core.support import (
    Avatar,
    SlowStore,
    client,
    guarded_factory,
    heard,
    later,
    offline,
    persistent,
    publish,
    result_of,
    status,
    user_properties,
)
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.limits import P2POptions
from twisted_p2pmqtt.core.p2p import make_router
from twisted_p2pmqtt.core.records import SessionRecord
from twisted_p2pmqtt.testing import MemoryClient, make_broker


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def broker(clock: Clock) -> Broker:
    return make_broker(clock)


def asking(topic: str = "p2p/app/answer", **more: object) -> Properties:
    return {"response_topic": topic, "correlation_data": b"42", **more}  # type: ignore[typeddict-item]  # of **


# --- requests and answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", [3, 4, 5])
def test_a_handler_gets_what_clients_send(broker: Broker, version: int, qos: int) -> None:
    requests: list[Message] = []
    broker.register_endpoint("service", requests.append)
    sender = client(broker, "app", version)
    answer = publish(sender, "p2p/service/time/now", b"?", qos)
    (request,) = requests
    assert (request.topic, request.payload, request.qos) == (b"time/now", b"?", qos)
    assert ("p2p-from", "app") in user_properties(request)
    assert status(answer) == ("online" if version == 5 and qos else None)
    assert broker.stats.p2p_delivered == 1


def test_a_handler_may_change_the_properties_that_it_got(broker: Broker) -> None:
    """They are its own: the sender's name is on whatever that sends later, to others too."""

    def change(request: Message) -> None:
        request.properties["user_properties"].append(("p2p-from", "somebody else"))
        request.properties.pop("user_properties")

    broker.register_endpoint("service", change)
    sender, target = client(broker, "app"), client(broker, "device")
    publish(sender, "p2p/service/t", b"first")
    publish(sender, "p2p/device/t", b"second")
    (message,) = target.messages
    assert user_properties(message) == [("p2p-from", "app")]
    assert broker.sessions["app"].stamp is not None
    with pytest.raises(TypeError, match="shared"):
        broker.sessions["app"].stamp.properties.pop("user_properties")
    assert broker.stats.hook_errors == 0


def test_what_a_handler_does_to_its_request_does_not_change_where_the_answer_goes(broker: Broker) -> None:
    def change(request: Message) -> bytes:
        request.properties = {"response_topic": 5}  # type: ignore[typeddict-item]  # nonsense
        request.qos = 7
        return b"answer"

    broker.register_endpoint("service", change)
    app = client(broker, "app")
    publish(app, "p2p/service/t", b"?", 1, properties=asking())
    assert heard(app) == [("answer", b"answer")]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("how", ["at once", "later", "coroutine"])
def test_the_answer_goes_to_the_response_topic(clock: Clock, broker: Broker, how: str, qos: int) -> None:
    async def reply(request: Message) -> bytes:
        answer: bytes = await later(clock, 1, request.payload.upper())
        return answer

    handlers: dict[str, Callable[[Message], object]] = {
        "at once": lambda request: request.payload.upper(),
        "later": lambda request: later(clock, 1, request.payload.upper()),
        "coroutine": reply,
    }
    broker.register_endpoint("service", handlers[how])
    app = client(broker, "app")
    publish(app, "p2p/service/shout", b"hey", qos, properties=asking())
    clock.advance(1)
    (answer,) = app.messages
    assert (answer.topic, answer.payload, answer.qos, answer.retain) == (b"answer", b"HEY", qos, 0)
    assert answer.properties == {"correlation_data": b"42", "user_properties": [("p2p-from", "service")]}


def test_no_response_topic_or_none_no_answer(broker: Broker) -> None:
    broker.register_endpoint("service", lambda request: b"answer" if request.payload else None)
    app = client(broker, "app")
    app.subscribe("#")
    publish(app, "p2p/service/t", b"x")
    publish(app, "p2p/service/t", b"", properties=asking())
    assert heard(app) == []


def test_the_answer_waits_for_a_requester_that_is_away(clock: Clock, broker: Broker) -> None:
    broker.register_endpoint("service", lambda request: later(clock, 2, b"done"))
    persistent(broker, "app").publish("p2p/service/t", b"x", qos=1, properties=asking())
    broker.disconnect("app")
    clock.advance(3)
    assert heard(persistent(broker, "app")) == [("answer", b"done")]


@pytest.mark.parametrize("mode", ["prefix", "suffix", "both"])
def test_every_form_reaches_an_endpoint(clock: Clock, mode: str) -> None:
    broker = make_broker(clock, router=make_router(mode))
    topics: list[bytes] = []
    broker.register_endpoint("a/b", lambda request: topics.append(request.topic))
    app = client(broker, "app")
    publish(app, "t/p2p/a%2Fb" if mode == "suffix" else "p2p/a%2Fb/t")
    assert topics == [b"t"]


def test_an_endpoint_may_be_asked_by_the_process_and_by_another_endpoint(broker: Broker) -> None:
    broker.register_endpoint("first", lambda request: b"first")
    got: list[bytes] = []
    broker.register_endpoint("second", lambda request: got.append(request.payload))
    result = result_of(broker.send_to("first", "t", b"x", properties=asking("p2p/second/t"), confirm=True))
    assert (result.status, result.reason_code) == ("delivered", 0)
    assert got == [b"first"]


def test_endpoints_that_talk_to_each_other_do_not_recurse(clock: Clock, broker: Broker) -> None:
    """A chain of a thousand requests, each sent from the handler of the one before."""
    served: list[int] = []

    def hop(request: Message) -> None:
        number = int(request.payload)
        served.append(number)
        if number < 1000:
            broker.send_to(("even", "odd")[number % 2], "t", b"%d" % (number + 1))

    for name in ("even", "odd"):
        broker.register_endpoint(name, hop)
    publish(client(broker, "app"), "p2p/even/t", b"0")
    clock.advance(0)
    assert served == list(range(1001))
    assert broker.stats.hook_errors == 0


def test_an_answer_to_an_endpoint_that_answers(clock: Clock, broker: Broker) -> None:
    """An answer has no Response Topic of its own, so it ends there."""
    broker.register_endpoint("service", lambda request: b"answer")
    app = client(broker, "app")
    publish(app, "p2p/service/t", properties=asking("p2p/service/again"))
    assert broker.stats.p2p_delivered == 2


# --- the requester's rights -------------------------------------------------------------------------------------------


def deputy(broker: Broker, app: Avatar | None) -> tuple[MemoryClient, MemoryClient]:
    """A requester with these rights, and somebody who hears everything and is addressed as ``victim``."""
    broker.register_endpoint("service", lambda request: b"evil")
    factory = guarded_factory(broker, {"app": app})
    victim = client(factory, "victim")
    victim.subscribe("#", "$SYS/#")
    return client(factory, "app"), victim


@pytest.mark.parametrize(
    "topic",
    [
        "secret/topic",
        "p2p/victim/cmd",
        "$SYS/broker/version",
        "p2p/victim/$SYS/x",
        "p2p/victim",
        "p2p/app",
        "p2p/app/$SYS/x",
    ],
)
def test_an_answer_is_no_way_around_the_requesters_rights(broker: Broker, topic: str) -> None:
    """The requester may reach the service alone; it chooses the Response Topic."""
    app, victim = deputy(broker, Avatar(publish=["p2p/service/#"]))
    assert status(publish(app, "p2p/service/t", properties=asking(topic))) == "online"
    assert heard(victim) == heard(app) == []
    assert broker.stats.p2p_dropped_denied == 1
    assert len(broker.retained) == 0


@pytest.mark.parametrize("topic", ["$SYS/broker/version", "p2p/victim/$SYS/x"])
def test_nor_is_it_for_a_requester_that_may_do_all_a_client_may(broker: Broker, topic: str) -> None:
    app, victim = deputy(broker, None)
    publish(app, "p2p/service/t", properties=asking(topic))
    assert heard(victim) == []


def test_what_the_requester_may_do_itself_the_answer_may(broker: Broker) -> None:
    app, victim = deputy(broker, Avatar(publish=["p2p/service/#", "news", "p2p/victim/hello"]))
    for topic in ("news", "p2p/victim/hello"):
        publish(app, "p2p/service/t", properties=asking(topic))
    assert heard(victim) == [("news", b"evil"), ("hello", b"evil")]
    assert user_properties(victim.messages[1]) == [("p2p-from", "service")]


def test_the_requester_itself_needs_no_right_to_be_answered(broker: Broker) -> None:
    app, victim = deputy(broker, Avatar(publish=["p2p/service/#"]))
    publish(app, "p2p/service/t", properties=asking("p2p/app/x"))
    assert (heard(app), heard(victim)) == ([("x", b"evil")], [])


def test_rights_are_those_of_the_requester_that_asked(clock: Clock, broker: Broker) -> None:
    """It leaves, and another client takes its id with more rights, before the answer is there."""
    broker.register_endpoint("service", lambda request: later(clock, 2, b"evil"))
    avatars = {"app": Avatar(publish=["p2p/service/#"])}
    factory = guarded_factory(broker, avatars)
    listener = client(factory, "listener")
    listener.subscribe("secret")
    publish(client(factory, "app"), "p2p/service/t", properties=asking("secret"))
    broker.disconnect("app")
    avatars["app"] = Avatar(publish=["#"])
    client(factory, "app")
    clock.advance(3)
    assert heard(listener) == []
    assert broker.stats.p2p_dropped_denied == 1


def test_a_will_asks_with_the_rights_of_its_client(broker: Broker) -> None:
    app, victim = deputy(broker, Avatar(publish=["p2p/service/#"]))
    app.disconnect()
    factory = guarded_factory(broker, {"app": Avatar(publish=["p2p/service/#"])})
    client(factory, "app", will=Will("p2p/service/t", b"x", 1, properties=asking("secret"))).lose()
    assert heard(victim) == []


@pytest.mark.parametrize("answer", [True, False])
def test_rights_may_come_later(clock: Clock, broker: Broker, answer: bool) -> None:
    class Later(Avatar):
        def may_publish(self, topic: str) -> Any:
            return later(clock, 1, answer)

    app, victim = deputy(broker, Later(publish=["p2p/service/#"]))
    publish(app, "p2p/service/t", properties=asking("news"))
    clock.advance(1.25)
    assert heard(victim) == ([("news", b"evil")] if answer else [])


def test_a_right_that_came_for_another_meaning_of_the_topic_is_none(clock: Clock) -> None:
    """The router's rules change while the right to publish to an ordinary topic is being asked."""

    class Table(type(make_router("prefix"))):  # type: ignore[misc]  # a base made at run time
        aliases: dict[str, str] = {}

        def resolve(self, topic: str) -> object:
            return super().resolve(self.aliases.get(topic, topic))

    class Later(Avatar):
        def may_publish(self, topic: str) -> Any:
            return later(clock, 1, True)

    router = Table()
    broker = make_broker(clock, router=router)
    app, victim = deputy(broker, Later(publish=["p2p/service/#"]))
    publish(app, "p2p/service/t", properties=asking("news"))
    router.aliases["news"] = "p2p/victim/news"
    broker.forget_routes()
    clock.advance(1.25)
    assert heard(victim) == []


# --- what handlers may do wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["text", 42, bytearray(b"x"), [b"x"], True])
def test_an_answer_of_the_wrong_type_is_counted_and_not_sent(broker: Broker, answer: object) -> None:
    broker.register_endpoint("service", lambda request: answer)
    app = client(broker, "app")
    publish(app, "p2p/service/t", properties=asking())
    assert heard(app) == []
    assert broker.stats.hook_errors == 1


def test_an_answer_that_comes_too_late_is_not_sent(clock: Clock, broker: Broker) -> None:
    broker.register_endpoint("service", lambda request: later(clock, 30, b"late"))
    app = client(broker, "app")
    publish(app, "p2p/service/t", properties=asking())
    clock.pump([0.25] * 24)
    assert broker.stats.hook_errors == 1
    clock.advance(30)
    assert heard(app) == []


@pytest.mark.parametrize("topic", ["p2p//x", "x" * 5000, "/".join("x" * 200)])
def test_a_response_topic_that_is_none(broker: Broker, topic: str) -> None:
    broker.register_endpoint("service", lambda request: b"x")
    app = client(broker, "app")
    app.subscribe("#")
    publish(app, "p2p/service/t", properties=asking(topic))
    assert heard(app) == []
    assert broker.stats.p2p_dropped_malformed + broker.stats.p2p_dropped_denied == 1
    assert not app.is_closed


# --- ids --------------------------------------------------------------------------------------------------------------


def test_an_id_is_served_once(broker: Broker) -> None:
    client(broker, "online")
    offline(broker, "away")
    endpoint = broker.register_endpoint("service", lambda request: None)
    for taken in ("service", "online", "away", ""):
        with pytest.raises(ValueError, match="empty or taken"):
            broker.register_endpoint(taken, lambda request: None)
    endpoint.unregister()
    endpoint.unregister()
    second = broker.register_endpoint("service", lambda request: None)
    endpoint.unregister()  # not its own any more
    assert broker.endpoints == {"service": second}


def test_an_id_that_was_a_clients_before_the_restart_is_the_processs_now(clock: Clock) -> None:
    class Remembering(SlowStore):
        def restore_now(self, receive: Callable[[list[Any]], None]) -> None:
            receive([SessionRecord(name, 3600, None, None) for name in ("service", "other")])

    broker = make_broker(clock, store=Remembering())
    got: list[bytes] = []
    broker.register_endpoint("service", lambda request: got.append(request.payload))
    broker.restore_now()
    assert list(broker.sessions) == ["other"]
    broker.publish("p2p/service/t", b"x")
    assert got == [b"x"]


@pytest.mark.parametrize("version", [3, 4, 5])
def test_no_client_takes_an_endpoints_id(broker: Broker, version: int) -> None:
    broker.register_endpoint("service", lambda request: None)
    refused = MemoryClient(broker, "service", version)
    assert refused.connect().reason_code == (0x85 if version == 5 else 2)


def test_hidden_presence_hides_endpoints_too(clock: Clock) -> None:
    broker = make_broker(clock, p2p=P2POptions(hide_presence=True))
    endpoint = broker.register_endpoint("service", lambda request: None)
    app = client(broker, "app")
    before = publish(app, "p2p/service/t")
    endpoint.unregister()
    after = publish(app, "p2p/service/t")
    assert before is not None
    assert after is not None
    assert (before.reason_code, before.properties) == (after.reason_code, after.properties) == (0, {})
