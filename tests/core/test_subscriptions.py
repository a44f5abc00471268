"""SubscriptionTree against a naive match over all filters; shared groups taken in turn."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.test_topic_index import filters, names
from twisted_p2pmqtt.codec.topics import matches
from twisted_p2pmqtt.core.delivery import Delivery, Outcome
from twisted_p2pmqtt.core.subscriber import Subscriber
from twisted_p2pmqtt.core.subscriptions import (
    NO_LOCAL,
    QOS,
    RETAIN_AS_PUBLISHED,
    SharedGroup,
    SubscriptionTree,
    identifier_of,
    is_plain,
    is_wild,
    make_subscription,
    matched_filter,
)


class Reader(Subscriber):
    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self.is_connected = self.is_ready = True
        self.subscriptions = {}

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
    held: set[tuple[Reader, str]] = set()
    for is_added, number, topic_filter, _ in steps:
        reader = readers[number]
        if is_added:
            assert tree.add(reader, topic_filter) == ((reader, topic_filter) not in held)
            held.add((reader, topic_filter))
        else:
            assert tree.remove(reader, topic_filter) == ((reader, topic_filter) in held)
            held.discard((reader, topic_filter))
    assert tree.count == len(held)
    for topic in topics:
        found = []
        for matched, holder in tree.match(topic):
            if isinstance(holder, SharedGroup):
                assert parts(holder.topic_filter)[1] == matched
                found += [(member, holder.topic_filter) for member in holder.members]
            else:
                found.append((holder, matched))
        expected = {one for one in held if matches(parts(one[1])[1], topic)}
        assert len(found) == len(expected)
        assert set(found) == expected


def test_nothing_is_left_of_subscriptions_that_went() -> None:
    """Shared and ordinary ones of the same filter, taken out in every order."""
    tree, readers = SubscriptionTree(), [Reader("a"), Reader("b")]
    filters = ["t", "$share/g/t", "$share/h/t", "t/#", "$share/g/t/#", "+", "a/+/b"]
    for order in (filters, filters[::-1], filters[3:] + filters[:3]):
        for topic_filter in filters:
            for reader in readers:
                assert tree.add(reader, topic_filter)
        for topic_filter in order:
            for reader in readers:
                assert tree.remove(reader, topic_filter)
                assert not tree.remove(reader, topic_filter)
        assert (tree.count, tree._literal, tree._wild, tree._groups) == (0, {}, {}, {})


def test_share_names_do_not_mix_with_filters() -> None:
    tree, reader = SubscriptionTree(), Reader("a")
    tree.add(reader, "$share/g/t")
    assert not tree.remove(reader, "t")
    assert not tree.remove(reader, "$share/h/t")
    assert not tree.remove(reader, "$share/g/u")
    assert tree.remove(reader, "$share/g/t")


def everybody(subscriber: Subscriber) -> bool:
    return True


def test_a_shared_group_takes_turns_connected_ones_first() -> None:
    group, readers = SharedGroup("$share/g/t"), [Reader(name) for name in "abc"]
    for reader in readers:
        group.members[reader] = None

    def chosen() -> str:
        found = group.choose(everybody)
        return found.client_id if found else ""

    assert [chosen() for _ in range(6)] == list("abcabc")
    readers[1].is_ready = False
    assert sorted(chosen() for _ in range(4)) == list("aacc")
    readers[0].is_ready = readers[2].is_ready = False
    readers[1].is_connected = readers[2].is_connected = False
    assert [chosen() for _ in range(2)] == list("aa")  # its window is shut, but it is there
    readers[0].is_connected = False
    assert sorted(chosen() for _ in range(3)) == list("abc")
    assert group.choose(lambda subscriber: False) is None
    assert group.choose(lambda subscriber: subscriber is readers[2]) is readers[2]


@pytest.mark.parametrize(("topic_filter", "wild"), [("a", False), ("a/+", True), ("#", True), ("$share/g/a", False)])
def test_is_wild(topic_filter: str, wild: bool) -> None:
    assert is_wild(topic_filter) == wild


def test_what_was_asked_of_a_filter() -> None:
    asked = itertools.product((0, 1, 2), (False, True), (False, True), (0, 1, 268_435_455))
    for qos, no_local, retain_as_published, identifier in asked:
        subscription = make_subscription(qos, no_local, retain_as_published, identifier)
        assert subscription & QOS == qos
        assert bool(subscription & NO_LOCAL) == no_local
        assert bool(subscription & RETAIN_AS_PUBLISHED) == retain_as_published
        assert identifier_of(subscription) == identifier
        assert is_plain(subscription) == (not (no_local or retain_as_published or identifier))


def test_the_filter_that_topics_are_matched_with() -> None:
    assert matched_filter("$share/g/a/#") == matched_filter("a/#") == "a/#"
