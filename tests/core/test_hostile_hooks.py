"""Code that is not the broker's, at its worst: nothing of it reaches another client, the reactor or the host.

Fifteen ways to misbehave at each point where foreign code is called: an exception denies or skips and is counted, so
does a wrong type, a Deferred has five seconds; what other clients do goes on meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from tests.core.support import Avatar, acknowledgements, client, guarded_factory, heard, persistent, publish
from twisted_p2pmqtt.codec.packets import Puback, Suback, Subscribe, SubscriptionRequest
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.limits import P2POptions
from twisted_p2pmqtt.core.observers import Observer
from twisted_p2pmqtt.core.p2p import P2PAddress
from twisted_p2pmqtt.interfaces import IP2PRouter
from twisted_p2pmqtt.testing import MemoryClient, make_broker, memory_factory


def raising(error: BaseException) -> Callable[..., Any]:
    def hook(*arguments: Any, **more: Any) -> Any:
        raise error

    return hook


def giving(make: Callable[[], Any]) -> Callable[..., Any]:
    return lambda *arguments, **more: make()


def recursing(*arguments: Any, **more: Any) -> Any:
    return recursing(*arguments, **more)


async def failing_coroutine(*arguments: Any, **more: Any) -> Any:
    raise ValueError("later")


RAISING = {
    "ValueError": raising(ValueError("no")),
    "SystemExit": raising(SystemExit(1)),
    "KeyboardInterrupt": raising(KeyboardInterrupt()),
    "GeneratorExit": raising(GeneratorExit()),
    "MemoryError": raising(MemoryError()),
    "StopIteration": raising(StopIteration()),
    "RecursionError": recursing,
}
ANSWERING = {
    "Deferred that fails": giving(lambda: fail(ValueError("no"))),
    "Deferred that never fires": giving(Deferred),
    "coroutine that fails": failing_coroutine,
    "number": giving(lambda: 42),
    "text": giving(lambda: "yes"),
    "object": giving(object),
    "class": giving(lambda: Broker),
    "Deferred of nonsense": giving(lambda: succeed("yes")),
}
HOOKS = {**RAISING, **ANSWERING}
hostile = pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS.keys())


class Canary:
    """Two clients that have nothing to do with it."""

    def __init__(self, broker: Broker) -> None:
        self.sender, self.reader = client(broker, "canary-1"), client(broker, "canary-2")
        self.reader.subscribe("canary")

    def sings(self) -> bool:
        """Do an ordinary and a P2P message come through?"""
        before = len(self.reader.messages)
        for topic in ("canary", "p2p/canary-2/canary"):
            answer = publish(self.sender, topic)
            if answer is None or answer.reason_code:
                return False
        return len(self.reader.messages) == before + 2 and not self.sender.is_closed


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """What is logged meanwhile: every traceback is ours by design, and comes once a minute."""
    events: list[LogEvent] = []
    observer = cast(ILogObserver, events.append)
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


def wait(clock: Clock) -> None:
    """Longer than a Deferred has."""
    clock.pump([0.25] * 24)


# --- the router -------------------------------------------------------------------------------------------------------


@implementer(IP2PRouter)
class Router:
    """Hostile to topics that begin with `bad`."""

    marker = "p2p"

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook = hook
        self.asked = 0

    def resolve(self, topic: str) -> Any:
        if topic.startswith("bad"):
            self.asked += 1
            return self.hook(topic)
        head, _, rest = topic.removeprefix("p2p/").partition("/")
        return P2PAddress(head, rest) if topic.startswith("p2p/") else None

    def response_information(self, client_id: str) -> Any:
        return self.hook(client_id)


ADDRESSES: dict[str, Callable[..., Any]] = {
    "address without an id": giving(lambda: P2PAddress("", "t")),
    "address of a number": giving(lambda: P2PAddress(7, "t")),  # type: ignore[arg-type]  # wrong on purpose
    "address without a topic": giving(lambda: P2PAddress("dev", "")),
    "address with a wildcard": giving(lambda: P2PAddress("dev", "a/#")),
    "address with a surrogate": giving(lambda: P2PAddress("dev", "\ud800")),
    "address with no topic at all": giving(lambda: P2PAddress("dev", None)),  # type: ignore[arg-type]  # wrong on purpose
    "tuple": giving(lambda: ("dev", "t")),
    "True": giving(lambda: True),
}
ROUTERS = {**HOOKS, **ADDRESSES}


@pytest.mark.parametrize("hook", ROUTERS.values(), ids=ROUTERS.keys())
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_router(clock: Clock, logged: list[LogEvent], hook: Callable[..., Any], qos: int) -> None:
    router = Router(hook)
    broker = make_broker(clock, router=router)
    canary, sender, reader = Canary(broker), client(broker, "app"), client(broker, "reader")
    reader.subscribe("#")
    client(broker, "dev")
    for _ in range(3):
        answer = publish(sender, "bad/topic", qos=qos, retain=True)
        assert answer is None or answer.reason_code == 0x87
    assert heard(reader) == []
    assert len(broker.retained) == 0
    assert broker.stats.hook_errors == router.asked == 3  # asked again each time: it may have recovered
    assert len([event for event in logged if event.get("log_failure")]) == 1
    assert canary.sings()
    assert not sender.is_closed


def test_router_that_recovers(clock: Clock) -> None:
    router = Router(RAISING["ValueError"])
    broker = make_broker(clock, router=router)
    sender, target = client(broker, "app"), client(broker, "dev")
    publish(sender, "bad/x")
    router.hook = giving(lambda: P2PAddress("dev", "good"))
    publish(sender, "bad/x")
    assert heard(target) == [("good", b"x")]


@hostile
def test_response_information(clock: Clock, hook: Callable[..., Any]) -> None:
    broker = make_broker(clock, router=Router(hook))
    connack = MemoryClient(broker, "app").connect(properties={"request_response_information": 1})
    assert connack.reason_code == 0
    expected = {"response_information": "yes"} if hook is ANSWERING["text"] else {}
    assert {key: value for key, value in connack.properties.items() if key == "response_information"} == expected
    assert broker.stats.internal_errors == 0


class OwnAddress(P2PAddress):
    """With names of the embedder's own, which fail."""

    @property
    def canonical(self) -> str:
        if self.client_id == "canonical":
            raise ValueError
        return super().canonical

    def reply_topic(self, sender: str) -> str:
        if self.client_id == "number":
            return 42  # type: ignore[return-value]  # wrong on purpose
        raise ValueError


def test_an_address_class_of_the_embedders(clock: Clock) -> None:
    class Own(Router):
        def resolve(self, topic: str) -> Any:
            address = super().resolve(topic)
            return address and OwnAddress(*address)

    broker = make_broker(clock, router=Own(RAISING["ValueError"]), p2p=P2POptions(deliver_topic="reply"))
    factory = guarded_factory(broker, {"app": Avatar(publish=["#"])})
    sender, raises, number = (client(factory, each) for each in ("app", "raises", "number"))
    codes = [publish(sender, f"p2p/{each}/t") for each in ("canonical", "raises", "number")]
    assert [answer.reason_code for answer in codes if answer] == [0x87, 0, 0]
    assert heard(raises) == heard(number) == [("t", b"x")]
    assert broker.stats.internal_errors == 0


# --- avatars ----------------------------------------------------------------------------------------------------------


def hostile_avatar(question: str, hook: Callable[..., Any]) -> Avatar:
    avatar = Avatar(publish=["#"])
    setattr(avatar, question, hook)
    return avatar


@hostile
@pytest.mark.parametrize(("question", "topic"), [("may_publish", "t"), ("may_send_to", "p2p/dev/t")])
@pytest.mark.parametrize("qos", [0, 1])
def test_rights_to_publish(clock: Clock, question: str, topic: str, qos: int, hook: Callable[..., Any]) -> None:
    broker = make_broker(clock)
    factory = guarded_factory(broker, {"app": hostile_avatar(question, hook)})
    canary, sender = Canary(broker), client(factory, "app")
    reader, target = client(factory, "reader"), client(factory, "dev")
    reader.subscribe("#")
    publish(sender, topic, qos=qos)
    if hook is not ANSWERING["Deferred that never fires"]:
        assert broker.stats.hook_errors == (0 if hook is ANSWERING["Deferred of nonsense"] else 1)
    assert canary.sings()
    wait(clock)
    assert heard(target) == []
    assert heard(reader) == [("canary", b"x")]
    assert not sender.is_closed
    assert canary.sings()
    assert publish(sender, "p2p/nobody/t" if question == "may_publish" else "t", qos=1) is not None


@hostile
def test_rights_to_subscribe(clock: Clock, hook: Callable[..., Any]) -> None:
    broker = make_broker(clock)
    factory = guarded_factory(broker, {"app": hostile_avatar("may_subscribe", hook)})
    canary, reader = Canary(broker), client(factory, "app")
    reader.send(
        Subscribe(1, [SubscriptionRequest("a", 1), SubscriptionRequest("a/#/b", 1), SubscriptionRequest("b", 1)])
    )
    wait(clock)
    assert reader.take(Suback).reason_codes == [0x87, 0x8F, 0x87]
    broker.publish("a", b"x")
    assert heard(reader) == []
    assert canary.sings()


@hostile
def test_rights_to_receive(clock: Clock, hook: Callable[..., Any]) -> None:
    """Live, retained, queued and shared messages; P2P ones with ``check_receive``."""
    broker = make_broker(clock, p2p=P2POptions(check_receive=True))
    factory = guarded_factory(broker, {"app": hostile_avatar("may_receive", hook)})
    canary, sender = Canary(broker), client(factory, "other")
    publish(sender, "kept", retain=True)
    reader = persistent(factory, "app")
    reader.subscribe("#", "$share/g/t")
    clock.advance(0)
    publish(sender, "t")
    publish(sender, "p2p/app/t")
    reader.disconnect()
    publish(sender, "t")
    publish(sender, "p2p/app/t")
    again = persistent(factory, "app")
    wait(clock)
    assert heard(reader) == heard(again) == []
    assert broker.stats.hook_errors > 0
    assert canary.sings()


# --- observers --------------------------------------------------------------------------------------------------------

EVENTS = ("connected", "disconnected", "subscribed", "unsubscribed", "published", "delivered", "dropped")


@hostile
@pytest.mark.parametrize("event", EVENTS)
def test_observers(clock: Clock, event: str, hook: Callable[..., Any]) -> None:
    broker = make_broker(clock)
    observer, polite = Observer(), Counting()
    setattr(observer, event, hook)
    observer.p2p = polite.p2p = True
    broker.add_observer(observer)
    broker.add_observer(polite)
    canary = Canary(broker)
    each = client(broker, "app")
    each.subscribe("t")
    publish(each, "t")
    publish(each, "p2p/nobody/t")
    each.unsubscribe("t")
    each.disconnect()
    wait(clock)
    assert canary.sings()
    assert polite.seen == set(EVENTS)
    failing = hook in RAISING.values() or hook in (ANSWERING["Deferred that fails"], failing_coroutine)
    assert (broker.stats.hook_errors > 0) == failing
    assert broker.stats.internal_errors == 0


class Counting(Observer):
    def __init__(self) -> None:
        self.seen: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        if name in EVENTS:
            self.seen.add(name)
        return super().__getattribute__(name)


def test_an_observer_need_not_have_every_method(clock: Clock) -> None:
    broker = make_broker(clock)
    broker.add_observer(object())  # type: ignore[arg-type]  # wrong on purpose
    assert Canary(broker).sings()
    assert broker.stats.hook_errors == 0


# --- endpoints and subscribers of the process -------------------------------------------------------------------------


@hostile
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_endpoints(clock: Clock, qos: int, hook: Callable[..., Any]) -> None:
    broker = make_broker(clock)
    broker.register_endpoint("service", hook)
    canary, app = Canary(broker), client(broker, "app")
    answer = publish(app, "p2p/service/t", qos=qos, properties={"response_topic": "p2p/app/answer"})
    assert (answer is None) == (qos == 0)
    assert canary.sings()
    wait(clock)
    assert heard(app) == []
    assert broker.stats.hook_errors == 1
    assert canary.sings()


@hostile
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_subscribers(clock: Clock, qos: int, hook: Callable[..., Any]) -> None:
    broker = make_broker(clock)
    broker.publish("t", b"kept", retain=True)
    held = broker.subscribe("#", hook)
    reader, sender = client(broker, "reader"), client(broker, "app")
    reader.subscribe("t")
    publish(sender, "t", b"x", qos)
    assert heard(reader) == [("t", b"kept"), ("t", b"x")]
    assert Canary(broker).sings()
    held.unsubscribe()
    assert broker.stats.internal_errors == 0


# --- logins -----------------------------------------------------------------------------------------------------------


@hostile
def test_logins(clock: Clock, hook: Callable[..., Any]) -> None:
    """What a login raises refuses; an avatar that cannot be asked denies; a login that hangs is given up."""
    broker = make_broker(clock)
    canary = Canary(broker)
    stranger = MemoryClient(memory_factory(broker, hook), "app")
    try:
        stranger.connect()
    except AssertionError:
        wait(clock)
    for topic in ("t", "p2p/canary-2/t"):
        publish(stranger, topic, qos=0)
    assert canary.sings()
    assert all(topic == "canary" for topic, _ in heard(canary.reader))
    assert broker.stats.internal_errors == 0


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_hook_that_holds_up_the_reactor_is_named_once_a_minute(
    clock: Clock, logged: list[LogEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("twisted_p2pmqtt.core.guard.perf_counter", lambda: now[0])

    def slow(message: object) -> None:
        now[0] += 0.06

    broker = make_broker(clock)
    broker.subscribe("t", slow)
    for _ in range(3):
        broker.publish("t", b"x")
    named = [event for event in logged if "held up" in event.get("log_format", "")]
    assert [event["what"].rpartition(".")[2] for event in named] == ["slow"]
    clock.advance(61)
    broker.advance()
    broker.publish("t", b"x")
    assert len([event for event in logged if "held up" in event.get("log_format", "")]) == 2


def test_hooks_that_publish_from_hooks_do_not_recurse(clock: Clock) -> None:
    """Each callback publishes to the next; from the eighth on they take turns."""
    broker = make_broker(clock)
    order: list[int] = []

    def follow(number: int) -> Callable[[object], None]:
        def callback(message: object) -> None:
            order.append(number)
            broker.publish(f"chain/{number + 1}", b"x")

        return callback

    for number in range(500):
        broker.subscribe(f"chain/{number}", follow(number))
    broker.publish("chain/0", b"x")
    assert len(order) == 8
    clock.advance(0)
    assert order == list(range(500))
    assert broker.stats.hook_errors == 0


def test_deferreds_of_hooks_do_not_outlive_their_deadline(clock: Clock) -> None:
    cancelled: list[Any] = []
    broker = make_broker(clock)
    factory = guarded_factory(broker, {"app": hostile_avatar("may_publish", lambda topic: Deferred(cancelled.append))})
    sender = client(factory, "app")
    publish(sender, "t")
    wait(clock)
    assert len(cancelled) == 1
    assert [answer.reason_code for answer in acknowledgements(sender)] == [0x87]
    assert broker.stats.hook_errors == 1


def test_a_canceller_that_raises(clock: Clock) -> None:
    broker = make_broker(clock)
    factory = guarded_factory(
        broker, {"app": hostile_avatar("may_publish", lambda topic: Deferred(RAISING["SystemExit"]))}
    )
    sender = client(factory, "app")
    publish(sender, "t")
    wait(clock)
    assert isinstance(sender.take(Puback), Puback)
    assert Canary(broker).sings()


def test_a_right_that_ends_the_member_that_it_is_asked_about(clock: Clock) -> None:
    broker = make_broker(clock)

    class Ending(Avatar):
        def may_receive(self, topic: str) -> bool:
            broker.disconnect("first")
            return True

    factory = guarded_factory(broker, {"first": Ending()})
    for client_id in ("first", "second"):
        client(factory, client_id).subscribe("$share/g/t", qos=1)
    sender = client(broker, "app")
    answer = publish(sender, "t", b"hey")
    assert answer is not None
    assert answer.reason_code == 0
    assert not sender.is_closed
    assert broker.stats.internal_errors == 0


# --- the transport ----------------------------------------------------------------------------------------------------


def test_a_transport_that_cannot_be_written_to_ends_its_own_connection(clock: Clock, logged: list[LogEvent]) -> None:
    broker = make_broker(clock)
    names = ("before", "broken", "behind")
    clients = {name: client(broker, name) for name in names}
    for one in clients.values():
        one.subscribe("t")
    connection = broker.sessions["broken"].connection
    assert connection is not None
    connection.flush = raising(RuntimeError("of a test"))
    broker.publish("t", b"x")
    broker.flush()
    assert heard(clients["before"]) == heard(clients["behind"]) == [("t", b"x")]
    assert connection.is_closed
    assert broker.stats.internal_errors == len(logged) == 1
    broker.publish("t", b"y")
    broker.flush()
    assert len(heard(clients["before"])) == len(heard(clients["behind"])) == 2
