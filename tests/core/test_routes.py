"""RouteTable: what it keeps is what it would make anew, whoever comes and goes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from tests.core.support import Avatar, client, guarded_factory, heard, publish
from tests.core.test_subscriptions import Reader, changes
from tests.core.test_topic_index import names
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.core import routes
from twisted_p2pmqtt.core.p2p import P2PAddress, PrefixP2PRouter
from twisted_p2pmqtt.core.routes import Plan, Route, RouteTable, make_plan
from twisted_p2pmqtt.core.subscriptions import SubscriptionTree, make_subscription, matched_filter
from twisted_p2pmqtt.testing import make_broker


def build(topic: bytes) -> Route:
    return Route(topic, topic.decode())


def subscribe(tree: SubscriptionTree, reader: Reader, topic_filter: str, qos: int = 0, identifier: int = 0) -> None:
    tree.add(reader, topic_filter)
    reader.subscriptions[topic_filter] = make_subscription(qos, identifier=identifier)


def content(plan: Plan) -> Any:
    """What is in a plan, in an order of its own."""
    return (
        sorted(each.client_id for each in plan.plain),
        [sorted(each.client_id for each in readers) for readers in plan.by_qos],
        sorted((match.subscriber.client_id, match.qos, match.extra) for match in plan.special),
        sorted(map(id, plan.groups)),
    )


@given(changes, st.lists(names, min_size=1, max_size=5), st.data())
@settings(deadline=None)
def test_cached_plans_are_those_that_would_be_made_anew(
    steps: list[tuple[bool, int, str, int]], topics: list[str], data: st.DataObject
) -> None:
    tree, readers = SubscriptionTree(), [Reader(str(number)) for number in range(4)]
    table = RouteTable(build, tree)
    for is_added, number, topic_filter, qos in steps:
        if is_added:
            subscribe(tree, readers[number], topic_filter, qos, identifier=qos // 2)
        else:
            tree.remove(readers[number], topic_filter)
        table.invalidate(matched_filter(topic_filter))
        for topic in data.draw(st.lists(st.sampled_from(topics), max_size=2)):
            table.plan(table[topic.encode()])
        for route in table.values():
            if route.plan is not None:
                assert content(route.plan) == content(make_plan(tree, route.name)), route.name


def test_a_filter_touches_what_it_matches_and_no_more() -> None:
    tree, reader = SubscriptionTree(), Reader("a")
    table = RouteTable(build, tree)
    for topic in (b"a/b", b"a/c", b"b", b"$SYS/x"):
        table.plan(table[topic])

    def planned() -> set[bytes]:
        return {route.topic for route in table.values() if route.plan is not None}

    table.invalidate("a/b")
    assert planned() == {b"a/c", b"b", b"$SYS/x"}
    table.invalidate("+/c")
    assert planned() == {b"b", b"$SYS/x"}
    table.invalidate("#")
    assert planned() == {b"$SYS/x"}
    table.invalidate("never/published/to")
    subscribe(tree, reader, "$SYS/#")
    table.invalidate("$SYS/#")
    assert planned() == set()
    assert table.plan(table[b"$SYS/x"]).plain == [reader]


def test_the_oldest_routes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MAX_ROUTES", 64)
    tree, reader = SubscriptionTree(), Reader("a")
    table = RouteTable(build, tree)
    for number in range(1000):
        table.plan(table[b"t/%d" % number])
        assert len(table) <= 64
    assert b"t/999" in table
    assert b"t/0" not in table
    assert len(list(table._planned.matching("#"))) == len(table)
    old = build(b"t/0")  # still in somebody's hands
    table.plan(old)
    subscribe(tree, reader, "t/0")
    table.invalidate("t/+")
    assert all(route.plan is None for route in table.values())


def test_routes_that_failed_are_not_kept() -> None:
    def broken(topic: bytes) -> Route:
        route = build(topic)
        route.is_broken = True
        return route

    table = RouteTable(broken, SubscriptionTree())
    assert table[b"t"].topic == b"t"
    assert len(table) == 0


def test_an_illegal_topic_has_no_route() -> None:
    broker = make_broker(Clock())
    for topic in (b"", b"a/#", b"+", b"\xff", b"a\0", b"x" * 4097, b"/" * 128):
        with pytest.raises(MQTTError):
            broker.routes[topic]
    assert len(broker.routes) == 0
    assert broker.routes[b"/" * 127].name == "/" * 127


# --- forget_routes ----------------------------------------------------------------------------------------------------


class Aliases(PrefixP2PRouter):
    """A table that changes."""

    def __init__(self, table: dict[str, str]) -> None:
        super().__init__()
        self.table = table
        self.asked = 0

    def resolve(self, topic: str) -> P2PAddress | None:
        self.asked += 1
        address = super().resolve(topic)
        return address and address._replace(client_id=self.table.get(address.client_id, address.client_id))


def test_the_router_is_asked_once_a_topic_until_its_rules_change() -> None:
    router = Aliases({"boiler": "dev1"})
    broker = make_broker(Clock(), router=router)
    old, new, sender = (client(broker, each) for each in ("dev1", "dev2", "app"))
    for _ in range(5):
        publish(sender, "p2p/boiler/t", b"1")
    assert router.asked == 1
    router.table["boiler"] = "dev2"
    publish(sender, "p2p/boiler/t", b"2")
    broker.forget_routes()
    publish(sender, "p2p/boiler/t", b"3")
    assert [payload for _, payload in heard(old)] == [b"1"] * 5 + [b"2"]
    assert heard(new) == [("t", b"3")]
    assert router.asked == 2


def test_rights_are_asked_once_a_topic_until_they_change() -> None:
    broker = make_broker(Clock())
    avatar = Avatar(publish=["t"])
    factory = guarded_factory(broker, {"app": avatar})
    sender, reader = client(factory, "app"), client(factory, "reader")
    reader.subscribe("t")
    for _ in range(5):
        publish(sender, "t")
    assert avatar.asked == [("publish", "t")]
    avatar.publish.clear()
    broker.forget_routes()
    publish(sender, "t")
    assert (len(heard(reader)), len(avatar.asked)) == (5, 2)


def test_a_router_that_forgets_while_it_is_asked() -> None:
    class Restless(PrefixP2PRouter):
        def resolve(self, topic: str) -> P2PAddress | None:
            broker.forget_routes()
            return super().resolve(topic)

    broker = make_broker(Clock(), router=Restless())
    target, sender = client(broker, "dev"), client(broker, "app")
    target.subscribe("#")
    for topic in ("p2p/dev/t", "t", "p2p/dev/t"):
        publish(sender, topic)
    assert heard(target) == [("t", b"x")] * 3


def test_an_ordinary_topic_that_becomes_p2p_is_broadcast_no_more() -> None:
    class Private(PrefixP2PRouter):
        is_private = False

        def resolve(self, topic: str) -> P2PAddress | None:
            return P2PAddress("dev", topic) if self.is_private else None

    router = Private()
    broker = make_broker(Clock(), router=router)
    reader, target, sender = (client(broker, each) for each in ("reader", "dev", "app"))
    reader.subscribe("#")
    publish(sender, "t", b"public", retain=True)
    router.is_private = True
    broker.forget_routes()
    publish(sender, "t", b"private", retain=True)
    assert heard(reader) == [("t", b"public")]
    assert heard(target) == [("t", b"private")]
    late = client(broker, "late")
    late.subscribe("t")
    assert heard(late) == [("t", b"public")]  # what was public then; nothing private was kept
