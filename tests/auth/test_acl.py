"""ACL files: what is understood, what is refused, and what rules come to, held against a naive reading of them."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from zope.interface.verify import verifyObject

from tests.auth.helpers import acl_file, write
from twisted_p2pmqtt.auth import AclAvatar, AclFile, BadFile, OpenAvatar
from twisted_p2pmqtt.auth.acl import DENY, READ, WRITE, Node, add_rule, may_read_some, own, parse_acl, rights
from twisted_p2pmqtt.codec.topics import matches
from twisted_p2pmqtt.core.p2p import P2PAddress, escape_client_id
from twisted_p2pmqtt.interfaces import IClientAvatar

FILE = """\
# anonymous clients first
topic read public/#
topic write inbox

user alice
topic alice/#
topic read news/+/today
topic write log/alice
topic deny alice/secret/#
  topic readwrite a topic with spaces  \n
user bob smith
topic read #
topic deny private/#
user alice
topic read later
pattern read devices/%c/in
pattern write devices/%c/out
pattern users/%u/#
pattern deny devices/+/factory
pattern read site-%u/x%c
"""


@pytest.fixture
def acl(tmp_path: Path) -> AclFile:
    return acl_file(tmp_path, FILE)


def can(acl: AclFile, username: str | None, client_id: str, topic: str) -> str:
    """The client's rights to a topic: r, w, both or none."""
    avatar = AclAvatar(acl, username, client_id)
    return "r" * avatar.may_receive(topic) + "w" * avatar.may_publish(topic)


@pytest.mark.parametrize("avatar", [OpenAvatar(), AclAvatar(None, "u", "c")])  # type: ignore[arg-type]  # no reactor is needed
def test_avatars_are_avatars(avatar: object) -> None:
    assert verifyObject(IClientAvatar, avatar)


def test_the_open_avatar() -> None:
    avatar = OpenAvatar()
    assert avatar.may_publish("t")
    assert avatar.may_subscribe("#")
    assert avatar.may_receive("t")
    assert avatar.may_send_to("x", "t", "p2p/x/t")


@pytest.mark.parametrize(
    ("username", "client_id", "topic", "expected"),
    [
        (None, "c", "public/a/b", "r"),
        (None, "c", "public", "r"),
        (None, "c", "inbox", "w"),
        (None, "c", "alice/x", ""),
        ("alice", "c", "public/a", ""),  # the first section is for clients without a name
        ("alice", "c", "alice", "rw"),
        ("alice", "c", "alice/x/y", "rw"),
        ("alice", "c", "alice/secret", ""),
        ("alice", "c", "alice/secret/x", ""),
        ("alice", "c", "news/x/today", "r"),
        ("alice", "c", "news/x/y/today", ""),
        ("alice", "c", "news//today", "r"),
        ("alice", "c", "log/alice", "w"),
        ("alice", "c", "a topic with spaces", "rw"),
        ("alice", "c", "later", "r"),
        ("bob smith", "c", "anything/at/all", "r"),
        ("bob smith", "c", "$SYS/broker", ""),
        ("bob smith", "c", "private/x", ""),
        ("bob", "c", "anything", ""),
        ("eve", "c", "devices/c/in", "r"),  # patterns are for everybody
        (None, "c", "devices/c/out", "w"),
        (None, "c", "devices/d/out", ""),
        (None, "c", "devices/%c/out", ""),
        ("eve", "c", "users/eve/x", "rw"),
        ("eve", "c", "users/alice/x", ""),
        (None, "c", "users/x", ""),
        ("", "c", "users/", ""),
        ("eve", "factory", "devices/factory/in", "r"),
        ("bob smith", "c", "devices/c/factory", ""),  # a pattern that denies wins over a topic that allows
        ("eve", "c", "site-eve/xc", "r"),
        ("eve", "c", "site-eve/xd", ""),
        ("eve", "", "devices//in", ""),
    ],
)
def test_rights(acl: AclFile, username: str | None, client_id: str, topic: str, expected: str) -> None:
    assert can(acl, username, client_id, topic) == expected


@pytest.mark.parametrize(
    ("username", "topic_filter", "expected"),
    [
        (None, "public/#", True),
        (None, "public/a", True),
        (None, "#", True),
        (None, "+", True),  # public/# matches `public`
        (None, "+/a", True),
        (None, "inbox", False),
        (None, "alice/#", False),
        (None, "$SYS/#", False),
        (None, "devices/+/in", True),
        (None, "devices/d/in", False),
        (None, "devices/c/out", False),
        ("alice", "alice/#", True),
        ("alice", "alice/secret/#", False),  # covered by a rule that denies
        ("alice", "alice/secret/x/+", False),
        ("alice", "alice/+/x", True),
        ("alice", "news/+/+", True),
        ("alice", "news/a/b", False),
        ("alice", "log/#", False),
        ("alice", "+/+/+", True),
        ("alice", "users/alice/+", True),
        ("alice", "users/bob/+", False),
        ("alice", "users/+/+", True),
        ("eve", "#", True),
        ("eve", "+/+", True),
        ("eve", "devices/+/+/in", False),
        ("eve", "later", False),
        ("bob smith", "$SYS/#", False),
        ("bob smith", "private/+", False),
        ("bob smith", "a/b/c/d", True),
    ],
)
def test_subscriptions(acl: AclFile, username: str | None, topic_filter: str, expected: bool) -> None:
    assert AclAvatar(acl, username, "c").may_subscribe(topic_filter) is expected


def test_nothing_is_allowed_by_an_empty_file(tmp_path: Path) -> None:
    acl = acl_file(tmp_path, "# nothing\n")
    for username in (None, "alice"):
        assert can(acl, username, "c", "t") == ""
        assert not AclAvatar(acl, username, "c").may_subscribe("#")
        assert not AclAvatar(acl, username, "c").may_send_to("x", "t", "p2p/x/t")


def test_bad_lines_are_all_told() -> None:
    lines = [
        "topic read ok",
        "user",
        "user   ",
        "topic",
        "topic read",
        "topic allow a",
        "topic a b",
        "topic read a/#/b",
        "topic write a+",
        "pattern read %c/#x",
        "pattern",
        " # a comment, but not in the first column",
        "topics read a",
        "allow all",
        "topic read a\0b",
        "\ttopic read a",
        "topic\tread a",
    ]
    with pytest.raises(BadFile) as caught:
        parse_acl("\n".join(lines).encode() + b"\ntopic read \xff", "etc/acl")
    assert [int(problem.split(":")[1]) for problem in caught.value.problems] == [18, *range(2, 18)]
    assert all(problem.startswith("etc/acl:") for problem in caught.value.problems)
    told = "\n".join(caught.value.problems)
    assert "etc/acl:6: topic: access must be read, write, readwrite or deny, not 'allow'" in told
    assert "etc/acl:5: topic: the topic is missing" in told
    assert "etc/acl:8: topic: 'a/#/b' is no topic filter: '#' is not alone in the last level" in told
    assert "etc/acl:18: is not UTF-8" in told


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="cannot be read"):
        AclFile(str(tmp_path / "none"))


def test_reload(acl: AclFile, tmp_path: Path) -> None:
    avatar = AclAvatar(acl, "alice", "c")
    assert avatar.may_publish("alice/x")
    write(tmp_path, "acl", "user alice\ntopic read alice/#\n")
    acl.reload()
    assert not avatar.may_publish("alice/x")
    assert avatar.may_receive("alice/x")


@pytest.mark.parametrize("text", [None, "topic read #\ntopic nonsense here\n"], ids=["gone", "bad"])
def test_reload_of_a_bad_file_keeps_the_old_rules(acl: AclFile, tmp_path: Path, text: str | None) -> None:
    if text is None:
        (tmp_path / "acl").unlink()
    else:
        write(tmp_path, "acl", text)
    with pytest.raises(BadFile):
        acl.reload()
    assert can(acl, "alice", "c", "alice/x") == "rw"
    assert can(acl, None, "c", "other") == ""


# Ids that try to be more than a name


IDS = [
    "+", "#", "a/#", "$share", ".*", "^", "(a|b)", "%c", "%u", "{clientid}", "{username}", "${clientid}", "\x01",
    "\x7f", "\x85", "a" * 256, "/", "//", "a/b", "../a", "+/+", "a+", "a#", "#a", "$SYS", "$", "a$", "%2F", "a%2Fb",
    "%23", "%25", "*", "?", "[a-z]", "\\", "a\\/b", " ", "a ", "\u202e", "\u0130", "e\u0301", "\ufeff", "victim ",
    "VICTIM",
]  # fmt: skip
"""The substitution set (CVE-2017-7650 and its like); each is used as client id and as user name."""

REFUSED = frozenset("/+#$%") | {chr(c) for c in (*range(32), *range(0x7F, 0xA0))}

PATTERNS = """\
pattern devices/%c/#
pattern users/%u/#
pattern p2p/%c/#
pattern p2p/box-%u/#
pattern both/%u/%c
"""

PROBES = [
    "devices", "devices/victim", "devices/victim/x", "devices/a/b/x", "users/victim/x", "users/a/x", "devices/a/x",
    "p2p/victim/x", "p2p/a%2Fb/x", "p2p/box-victim/x", "both/victim/victim", "devices/%c/x", "users/%u/x", "x",
    "devices/{clientid}/x", "devices//x", "users//x", "$SYS/x", "devices/b/x", "devices/clientid/x",
]  # fmt: skip


def test_there_are_forty_ids() -> None:
    assert len(set(IDS)) >= 40


@pytest.mark.parametrize("name", IDS, ids=ascii)
def test_no_id_widens_a_rule(tmp_path: Path, name: str) -> None:
    acl = acl_file(tmp_path, PATTERNS)
    is_usable = not any(character in REFUSED for character in name)
    own_topics = (
        {f"devices/{name}", f"devices/{name}/x", f"users/{name}/x", f"both/{name}/{name}"} if is_usable else set()
    )
    for username, client_id in ((name, name), (None, name), (name, "other"), ("other", name)):
        for topic in [*PROBES, f"devices/{name}/x", f"users/{name}/x", f"both/{name}/{name}"]:
            allowed = can(acl, username, client_id, topic)
            assert allowed in ("", "rw")
            if allowed:
                assert topic in own_topics, (username, client_id, topic)
        avatar = AclAvatar(acl, username, client_id)
        for topic_filter in ("devices/victim/#", "users/victim/#", "devices/a/+", "both/victim/+", "$SYS/#"):
            assert not avatar.may_subscribe(topic_filter)
        for target in ("victim", "a/b", "a", "+", "#", "%c"):
            address = P2PAddress(target, "x")
            if avatar.may_send_to(target, "x", address.canonical):
                assert target == client_id == name
                assert is_usable
    if is_usable:
        assert can(acl, name, name, f"devices/{name}/x") == "rw", "the ordinary use"
        assert AclAvatar(acl, name, name).may_subscribe(f"devices/{name}/#")


def test_an_escaped_id_is_not_the_id_that_it_spells(tmp_path: Path) -> None:
    acl = acl_file(tmp_path, "pattern write p2p/%c/#\n")
    assert escape_client_id("a/b") == "a%2Fb"
    assert not AclAvatar(acl, None, "a%2Fb").may_send_to("a/b", "t", "p2p/a%2Fb/t")
    assert AclAvatar(acl, None, "ab").may_send_to("ab", "t", "p2p/ab/t")


# Against a naive reading


LEVELS = st.sampled_from(["a", "b", "", "$x", "+"])
FILTERS = st.builds(
    lambda levels, end: "/".join(levels + end), st.lists(LEVELS, min_size=1, max_size=3), st.sampled_from([[], ["#"]])
).map(lambda text: text or "a")
RULES = st.lists(st.tuples(FILTERS | st.just("#"), st.sampled_from([READ, WRITE, READ | WRITE, DENY])), max_size=6)
UNIVERSE = [
    "/".join(levels)
    for size in (1, 2, 3, 4)
    for levels in itertools.product(["a", "b", "", "$x", "other"], repeat=size)
    if "/".join(levels)
]
NOBODY = own("", None)


def tree(rules: list[tuple[str, int]]) -> Node:
    root = Node()
    for topic_filter, access in rules:
        add_rule(root, topic_filter, access, is_pattern=False)
    return root


@given(RULES, st.sampled_from(UNIVERSE))
def test_rights_are_those_of_all_matching_rules(rules: list[tuple[str, int]], topic: str) -> None:
    expected = 0
    for topic_filter, access in rules:
        if matches(topic_filter, topic):
            expected |= access
    assert rights(tree(rules), topic, NOBODY) == expected


@given(RULES, FILTERS | st.just("#"))
@example([("/#", READ)], "+")
def test_a_filter_may_read_some_where_it_meets_a_rule(rules: list[tuple[str, int]], topic_filter: str) -> None:
    readable = [rule for rule, access in rules if access & READ]
    meets = any(matches(topic_filter, topic) and matches(rule, topic) for rule in readable for topic in UNIVERSE)
    assert may_read_some(tree(rules), topic_filter, NOBODY) == meets


@given(RULES, FILTERS | st.just("#"))
def test_a_filter_has_the_rights_of_the_rules_that_cover_it(rules: list[tuple[str, int]], topic_filter: str) -> None:
    matched = [topic for topic in UNIVERSE if matches(topic_filter, topic)]
    found = rights(tree(rules), topic_filter, NOBODY)
    for bit in (READ, WRITE, DENY):
        if found & bit:
            assert any(access & bit and all(matches(rule, topic) for topic in matched) for rule, access in rules)
    assert rights(tree([*rules, (topic_filter, DENY)]), topic_filter, NOBODY) & DENY, "a filter covers itself"


def test_deep_and_wide_rules_are_no_burden(tmp_path: Path) -> None:
    masks = ["/".join(levels) for levels in itertools.product(["+", "a"], repeat=10)]
    acl = acl_file(tmp_path, "".join(f"topic read {mask}\n" for mask in masks) + "topic read " + "a/" * 5000 + "#\n")
    avatar = AclAvatar(acl, None, "c")
    assert avatar.may_receive("/".join("a" * 10))
    assert avatar.may_subscribe("+/+/+/+/+/+/+/+/+/+")
    assert avatar.may_receive("a/" * 6000)
    assert not avatar.may_receive("b/" * 6000)
    assert avatar.may_subscribe("a/" * 6000 + "#")
