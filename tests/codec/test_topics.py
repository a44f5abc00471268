"""Topic names, topic filters, shares and matching (MQTT 5.0 sections 4.7 and 4.8.2)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twisted_p2pmqtt.codec.errors import MalformedPacket, ProtocolViolation, TopicFilterInvalid, TopicNameInvalid
from twisted_p2pmqtt.codec.topics import (
    check_response_topic,
    check_topic_filter,
    check_topic_name,
    matches,
    split_shared,
)


@pytest.mark.parametrize(
    "name", ["a", "/", "//", "a/b", "/a", "a/", "a b", "$SYS/x", "$share/g/t", "\ufeff", 1000 * "/"]
)
def test_topic_names(name: str) -> None:
    assert check_topic_name(name.encode()) == name


@pytest.mark.parametrize("name", ["#", "+", "a/#", "a/+/b", "a+", "#b", "a#b"])
@pytest.mark.spec("MQTT-3.3.2-2", "MQTT3-3.3.2-2", "MQTT-4.7.0-1", "MQTT3-4.7.1-1")
def test_topic_names_with_a_wildcard(name: str) -> None:
    with pytest.raises(TopicNameInvalid, match="wildcard"):
        check_topic_name(name.encode())


@pytest.mark.spec("MQTT-4.7.3-1", "MQTT3-4.7.3-1")
def test_no_topic_is_empty() -> None:
    with pytest.raises(TopicNameInvalid, match="empty"):
        check_topic_name(b"")
    with pytest.raises(TopicFilterInvalid, match="empty"):
        check_topic_filter("")


@pytest.mark.spec("MQTT-4.7.3-2", "MQTT3-4.7.3-2")
def test_topic_names_have_no_nul_and_are_utf_8() -> None:
    for raw in (b"\0", b"a/\0", b"\xff", b"a/\xc0\x80"):
        with pytest.raises(MalformedPacket):
            check_topic_name(raw)


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+",
        "/",
        "a",
        "a/#",
        "/#",
        "+/#",
        "a/+",
        "a/+/b",
        "+/+",
        "/+",
        "+/",
        "a//b",
        "$SYS/#",
        "$SYS/+/x",
        "a b/ä/#",
    ],
)
def test_topic_filters(topic_filter: str) -> None:
    check_topic_filter(topic_filter)


@pytest.mark.parametrize("topic_filter", ["a#", "#a", "a/#/b", "#/", "#/#", "##", "a/b#", "a/#b", "+#", "a/+#", "#+"])
@pytest.mark.spec("MQTT-4.7.1-1", "MQTT3-4.7.1-2")
def test_a_multi_level_wildcard_out_of_place(topic_filter: str) -> None:
    with pytest.raises(TopicFilterInvalid):
        check_topic_filter(topic_filter)


@pytest.mark.parametrize("topic_filter", ["a+", "+a", "a/b+/c", "++", "a/+b", "+ "])
@pytest.mark.spec("MQTT-4.7.1-2", "MQTT3-4.7.1-3")
def test_a_single_level_wildcard_that_does_not_fill_its_level(topic_filter: str) -> None:
    with pytest.raises(TopicFilterInvalid, match="alone in its level"):
        check_topic_filter(topic_filter)


@pytest.mark.parametrize(
    ("topic_filter", "share_name", "rest"),
    [
        ("a/b", None, "a/b"),
        ("", None, ""),
        ("share/g/t", None, "share/g/t"),
        ("$shared/g/t", None, "$shared/g/t"),
        ("$SHARE/g/t", None, "$SHARE/g/t"),
        ("a/$share/g/t", None, "a/$share/g/t"),
        ("$share/g/t", "g", "t"),
        ("$share/g/#", "g", "#"),
        ("$share/g//", "g", "/"),
        ("$share/g/a/+/b", "g", "a/+/b"),
        ("$share/g g/$SYS/#", "g g", "$SYS/#"),
        ("$share/g/$share/h/t", "g", "$share/h/t"),
    ],
)
@pytest.mark.spec("MQTT-4.8.2-1", "MQTT-4.8.2-2")
def test_splitting_a_share(topic_filter: str, share_name: str | None, rest: str) -> None:
    assert split_shared(topic_filter) == (share_name, rest)


@pytest.mark.parametrize(
    "topic_filter",
    [
        "$share",
        "$share/",
        "$share//",
        "$share//t",
        "$share/g",
        "$share/g/",
        "$share/+/t",
        "$share/#/t",
        "$share/g+/t",
        "$share/#",
    ],
)
@pytest.mark.spec("MQTT-4.8.2-1", "MQTT-4.8.2-2")
def test_shares_to_refuse(topic_filter: str) -> None:
    with pytest.raises(TopicFilterInvalid):
        split_shared(topic_filter)


@pytest.mark.spec("MQTT-3.3.2-14")
def test_response_topics() -> None:
    check_response_topic("a/b")
    for topic in ("+", "a/+", "#", "a#"):
        with pytest.raises(ProtocolViolation):
            check_response_topic(topic)


@pytest.mark.parametrize(
    ("topic_filter", "matched", "not_matched"),
    [  # the examples of 4.7.1.2, 4.7.1.3, 4.7.2 and 4.7.3, and their edges
        ("sport/tennis/player1/#", "sport/tennis/player1", "sport/tennis/player2"),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", "sport/tennis/player10"),
        ("sport/#", "sport", "sports"),
        ("sport/#", "sport/", "Sport"),
        ("#", "a/b/c", "$SYS"),
        ("#", "/", "$SYS/monitor/Clients"),
        ("sport/tennis/+", "sport/tennis/player1", "sport/tennis/player1/ranking"),
        ("sport/+", "sport/", "sport"),
        ("+/+", "/finance", "finance"),
        ("/+", "/finance", "finance"),
        ("+", "finance", "/finance"),
        ("+/tennis/#", "sport/tennis", "sport/golf"),
        ("+/monitor/Clients", "x/monitor/Clients", "$SYS/monitor/Clients"),
        ("$SYS/#", "$SYS/monitor", "SYS/monitor"),
        ("$SYS/#", "$SYS", "$sys"),
        ("$SYS/monitor/+", "$SYS/monitor/Clients", "$SYS/monitor"),
        ("a/+/c", "a/$b/c", "a/b"),
        ("a/#", "a/$SYS", "b"),
        ("ACCOUNTS", "ACCOUNTS", "Accounts"),
        ("Accounts payable", "Accounts payable", "Accounts  payable"),
        ("/finance", "/finance", "finance"),
        ("a//b", "a//b", "a/b"),
        ("a/", "a/", "a"),
        ("\xe9", "\xe9", "e\u0301"),
        ("\ufeffa", "\ufeffa", "a"),
    ],
)
@pytest.mark.spec("MQTT-4.7.2-1", "MQTT3-4.7.2-1", "MQTT-4.7.3-4", "MQTT3-4.7.3-4")
def test_matching(topic_filter: str, matched: str, not_matched: str) -> None:
    assert matches(topic_filter, matched)
    assert not matches(topic_filter, not_matched)


def naive(wanted: list[str], levels: list[str]) -> bool:
    """Section 4.7.1 again, as a recursion over the levels."""
    if wanted == ["#"]:
        return True
    if not wanted or not levels:
        return wanted == levels
    return wanted[0] in ("+", levels[0]) and (naive(wanted[1:], levels[1:]))


level_names = st.sampled_from(["", "a", "b", "$a"])


@given(
    st.lists(level_names | st.just("+"), max_size=4),
    st.booleans(),
    st.lists(level_names, min_size=1, max_size=5),
)
def test_matching_against_a_naive_definition(levels: list[str], is_open: bool, names: list[str]) -> None:
    wanted = [*levels, "#"] if is_open or not levels else levels
    topic_filter, topic = "/".join(wanted), "/".join(names)
    hidden = topic[:1] == "$" and topic_filter[:1] in ("+", "#")
    assert matches(topic_filter, topic) == (naive(topic_filter.split("/"), topic.split("/")) and not hidden)


@given(st.text("ab/+#", min_size=1, max_size=8))
def test_a_filter_is_accepted_when_each_of_its_levels_may_stand_there(topic_filter: str) -> None:
    levels = topic_filter.split("/")
    is_legal = all(
        level == "+" or (level == "#" and at == len(levels) - 1) or not set(level) & {"+", "#"}
        for at, level in enumerate(levels)
    )
    if is_legal:
        check_topic_filter(topic_filter)
    else:
        with pytest.raises(TopicFilterInvalid):
            check_topic_filter(topic_filter)
