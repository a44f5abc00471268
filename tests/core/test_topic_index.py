"""TopicIndex against the letter of section 4.7, with names that come and go."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_p2pmqtt.codec.topics import matches
from twisted_p2pmqtt.core.topic_index import TopicIndex

levels = st.sampled_from(["", "a", "b", "$SYS", "$", "ab"])
names = st.lists(levels, min_size=1, max_size=4).map("/".join).filter(bool)
filters = st.one_of(
    names,
    st.lists(st.one_of(levels, st.just("+")), min_size=1, max_size=4).map("/".join).filter(bool),
    st.lists(st.one_of(levels, st.just("+")), max_size=3).map(lambda levels: "/".join([*levels, "#"])),
)


@given(st.lists(st.tuples(st.booleans(), names), max_size=30), st.lists(filters, min_size=1, max_size=5))
@settings(deadline=None)
@pytest.mark.spec("MQTT-4.7.2-1", "MQTT-4.7.3-4", "MQTT3-4.7.2-1", "MQTT3-4.7.3-4")
def test_index_and_a_naive_match_agree(changes: list[tuple[bool, str]], wanted: list[str]) -> None:
    index, present = TopicIndex(), set[str]()
    for is_added, name in changes:
        (index.add if is_added else index.discard)(name)
        (present.add if is_added else present.discard)(name)
    for topic_filter in wanted:
        found = list(index.matching(topic_filter))
        assert sorted(found) == sorted(name for name in present if matches(topic_filter, name))


def test_nothing_is_left_of_names_that_went() -> None:
    index = TopicIndex()
    for name in ("a", "a/b", "a/b/c", "/", "a/"):
        index.add(name)
        index.add(name)
    for name in ("a/b/c", "a", "nothing", "a/b/c/d", "a/b", "/", "a/", "a"):
        index.discard(name)
    assert index._root == {}


def test_depth_costs_no_stack() -> None:
    index, deep = TopicIndex(), "/".join("x" * 5000)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200)
    try:
        index.add(deep)
        assert list(index.matching("#")) == list(index.matching("x/+/#")) == [deep]
        assert list(index.matching("/".join("+" * 5000))) == [deep]
        index.discard(deep)
    finally:
        sys.setrecursionlimit(limit)
    assert list(index.matching("#")) == []
