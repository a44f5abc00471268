"""Deep and odd filters: the broker's trees against the letter of section 4.7 (``codec.topics.matches``)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.helpers import V5, V311, World, payloads
from twisted_p2pmqtt.codec.topics import matches

LEVELS = ["", "a", "b", "$x", "A", "\xe9", "e\u0301", "\ufeff", " "]
topics = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=5).map("/".join).filter(bool)
filters = st.builds(
    lambda levels, end: "/".join([*levels, *end]),
    st.lists(st.sampled_from([*LEVELS, "+", "+"]), min_size=0, max_size=5),
    st.sampled_from([[], [], ["#"], ["+"]]),
).filter(bool)

ODD = [
    "/",
    "//",
    "///",
    "+",
    "+/",
    "/+",
    "+/+",
    "+/+/+",
    "#",
    "+/#",
    "/#",
    "//#",
    "+//#",
    "/+/#",
    "a/#",
    "a/+",
    "a//b",
    "$x/#",
    "$x",
    "$x/+",
]
TOPICS = [
    "a",
    "/",
    "//",
    "///",
    "/a",
    "a/",
    "a/b",
    "a//b",
    "/a/b",
    "a/b/c",
    "$x",
    "$x/",
    "$x/a",
    "$x/a/b",
    "a/$x",
    "A",
    " ",
]


@pytest.mark.spec("MQTT-4.7.3-4", "MQTT-4.7.2-1", "MQTT-3.3.2-3", "MQTT3-4.7.3-4", "MQTT3-4.7.2-1", "MQTT3-3.3.2-3")
@pytest.mark.parametrize("version", [V311, V5])
@pytest.mark.parametrize("topic_filter", ODD)
def test_odd_filters(world: World, version: int, topic_filter: str) -> None:
    client = world.join("c", version)
    assert client.subscribe(topic_filter) == [2]
    for topic in TOPICS:
        world.broker.publish(topic, topic.encode())
    assert payloads(client) == [topic.encode() for topic in TOPICS if matches(topic_filter, topic)]


@pytest.mark.spec("MQTT-4.7.3-4", "MQTT-4.7.2-1", "MQTT-4.7.1-1", "MQTT-4.7.1-2", "MQTT-3.3.2-3")
@pytest.mark.spec("MQTT3-4.7.3-4", "MQTT3-4.7.2-1", "MQTT3-4.7.1-2", "MQTT3-4.7.1-3", "MQTT3-3.3.2-3")
@settings(max_examples=150, deadline=None)
@given(
    wanted=st.lists(filters, min_size=1, max_size=6, unique=True),
    dropped=st.integers(0, 3),
    published=st.lists(topics, min_size=1, max_size=6),
)
def test_subscriptions_and_retained_messages_match_alike(wanted: list[str], dropped: int, published: list[str]) -> None:
    """Live, with routes made before the subscriptions came and went, and as retained messages."""
    world = World()
    client, early = world.join("c"), world.join("early")
    early.subscribe("#", "$x/#", "$x")
    for topic in published:
        world.broker.publish(topic, b"route")
    client.subscribe(*wanted)
    if wanted[:dropped]:
        client.unsubscribe(*wanted[:dropped])
    left = wanted[dropped:]
    for topic in published:
        world.broker.publish(topic, topic.encode(), retain=True)
    assert payloads(client) == [each.encode() for each in published if any(matches(one, each) for one in left)]

    for topic_filter in wanted:
        late = world.join("late")
        late.subscribe(topic_filter)
        expected = {each.encode() for each in published if matches(topic_filter, each)}
        assert sorted(payloads(late)) == sorted(expected)


@pytest.mark.spec("MQTT-4.7.3-4", "MQTT3-4.7.3-4", "MQTT-1.5.4-3", "MQTT3-1.5.3-3")
@pytest.mark.parametrize(
    ("one", "other"),
    [("\xe9", "e\u0301"), ("a", "A"), ("\ufeffa", "a"), ("a ", "a"), ("\u212b", "\xc5"), ("a\u200d", "a")],
)
def test_nothing_is_normalized(world: World, one: str, other: str) -> None:
    client = world.join("c")
    client.subscribe(one)
    world.join("p").publish(other, b"other")
    world.join("p").publish(one, b"one")
    assert [(each.topic.decode(), each.payload) for each in client.messages] == [(one, b"one")]


@pytest.mark.parametrize("depth", [1, 2, 64, 127])
def test_deep_topics(world: World, depth: int) -> None:
    client = world.join("c")
    topic = "/".join(["x"] * (depth + 1))
    for topic_filter in (topic, "/".join(["+"] * (depth + 1)), "#", "/".join(["+"] * depth) + "/#"):
        assert client.subscribe(topic_filter) == [2]
    world.join("p").publish(topic, b"deep", 1)
    assert payloads(client) == [b"deep"]
