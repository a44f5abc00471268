"""SubscriptionTree against a naive match over all filters; shared groups taken in turn."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_topic_index import filters, names
from twisted_p2pmqtt.codec.topics import matches
from twisted_p2pmqtt.core.delivery import Delivery, Outcome
from twisted_p2pmqtt.core.subscriber import Subscriber
from twisted_p2pmqtt.core.subscriptions import SharedGroup, Subscription, SubscriptionTree, is_wild


class Reader(Subscriber):
    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.is_connected = self.is_ready = True

    def deliver(self, delivery: Delivery) -> Outcome:
        raise NotImplementedError


shared_filters = st.builds(lambda name, rest: f"$share/{name}/{rest}", st.sampled_from(["g", "h"]), filters)
changes = st.lists(
    st.tuples(st.booleans(), st.integers(0, 3), st.one_of(filters, shared_filters), st.integers(0, 2)), max_size=40
)


def parts(topic_filter: str) -> tuple[str, str]:
    """Share name (empty for none) and filter."""
    if not topic_filter.startswith("$share/"):
        return "", topic_filter
    name, _, rest = topic_filter[7:].partition("/")
    return name, rest


@given(changes, st.lists(names, min_size=1, max_size=6))
@settings(deadline=None)
@pytest.mark.spec("MQTT-4.7.2-1", "MQTT-3.8.4-3", "MQTT3-4.7.2-1", "MQTT3-3.8.4-3")
def test_tree_and_a_naive_match_agree(steps: list[tuple[bool, int, str, int]], topics: list[str]) -> None:
    tree, readers = SubscriptionTree(), [Reader(str(number)) for number in range(4)]
    held: dict[tuple[Reader, str], Subscription] = {}
    for is_added, number, topic_filter, qos in steps:
        reader = readers[number]
        if is_added:
            subscription = Subscription(topic_filter, qos)
            assert tree.add(reader, subscription) == ((reader, topic_filter) not in held)
            held[reader, topic_filter] = subscription
        else:
            assert tree.remove(reader, topic_filter) == (held.pop((reader, topic_filter), None) is not None)
    assert tree.count == len(held)
    for topic in topics:
        found: set[tuple[str, str, str, int]] = set()
        for entry in tree.match(topic):
            everybody: list[tuple[str, Any]] = [("", entry.subscribers)]
            everybody += [(group.name, group.members) for group in (entry.groups or {}).values()]
            for name, members in everybody:
                for reader, subscription in members.items():
                    one = (name, reader.client_id, subscription.topic_filter, subscription.qos)
                    assert one not in found
                    found.add(one)
        expected = {
            (parts(topic_filter)[0], reader.client_id, topic_filter, subscription.qos)
            for (reader, topic_filter), subscription in held.items()
            if matches(parts(topic_filter)[1], topic)
        }
        assert found == expected


def test_nothing_is_left_of_subscriptions_that_went() -> None:
    """Shared and ordinary ones of the same filter, taken out in every order."""
    tree, readers = SubscriptionTree(), [Reader("a"), Reader("b")]
    filters = ["t", "$share/g/t", "$share/h/t", "t/#", "$share/g/t/#", "+", "a/+/b"]
    for order in (filters, filters[::-1], filters[3:] + filters[:3]):
        for topic_filter in filters:
            for reader in readers:
                tree.add(reader, Subscription(topic_filter))
        for topic_filter in order:
            for reader in readers:
                assert tree.remove(reader, topic_filter)
                assert not tree.remove(reader, topic_filter)
        assert (tree.count, tree._literal, tree._wild) == (0, {}, {})


def test_share_names_do_not_mix_with_filters() -> None:
    tree, reader = SubscriptionTree(), Reader("a")
    tree.add(reader, Subscription("$share/g/t"))
    assert not tree.remove(reader, "t")
    assert not tree.remove(reader, "$share/h/t")
    assert not tree.remove(reader, "$share/g/u")
    assert tree.remove(reader, "$share/g/t")


def everybody(subscriber: Subscriber) -> bool:
    return True


def test_a_shared_group_takes_turns_connected_ones_first() -> None:
    group, readers = SharedGroup("g"), [Reader(name) for name in "abc"]
    for reader in readers:
        group.members[reader] = Subscription("$share/g/t")

    def chosen() -> str:
        found = group.choose(everybody)
        return found[0].client_id if found else ""

    assert [chosen() for _ in range(6)] == list("abcabc")
    readers[1].is_ready = False
    assert sorted(chosen() for _ in range(4)) == list("aacc")
    readers[0].is_ready = readers[2].is_ready = False
    readers[1].is_connected = readers[2].is_connected = False
    assert [chosen() for _ in range(2)] == list("aa")  # its window is shut, but it is there
    readers[0].is_connected = False
    assert sorted(chosen() for _ in range(3)) == list("abc")
    assert group.choose(lambda subscriber: False) is None
    usable = group.choose(lambda subscriber: subscriber is readers[2])
    assert usable is not None
    assert usable[0] is readers[2]


@pytest.mark.parametrize(("topic_filter", "wild"), [("a", False), ("a/+", True), ("#", True), ("$share/g/a", False)])
def test_is_wild(topic_filter: str, wild: bool) -> None:
    assert is_wild(topic_filter) == wild


def test_plain_subscriptions() -> None:
    assert Subscription("t", 2).is_plain
    for options in ({"no_local": True}, {"retain_as_published": True}, {"identifier": 1}):
        assert not Subscription("t", 0, **options).is_plain
    assert Subscription("$share/g/a/#").matched_filter == "a/#"
