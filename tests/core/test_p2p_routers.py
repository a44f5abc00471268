"""The three routers: the table of section 3 of the P2P page, a naive reading of it, and the suite for everybody's."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from tests.core.p2p_reading import MALFORMED, ORDINARY, read
from tests.core.support import client
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.core.observers import Observer
from twisted_p2pmqtt.core.p2p import (
    BothP2PRouter,
    P2PAddress,
    PrefixP2PRouter,
    SuffixP2PRouter,
    escape_client_id,
    make_router,
    unescape_client_id,
)
from twisted_p2pmqtt.interfaces import IP2PRouter, MalformedP2PTopic
from twisted_p2pmqtt.testing import P2PRouterTests, make_broker

MODES = ("prefix", "suffix", "both")

# The page's table: a topic, and what it is in each of the three modes.
TABLE: list[tuple[str, object, object, object]] = [
    ("p2p/dev/sensor/temp", ("dev", "sensor/temp"), ORDINARY, ("dev", "sensor/temp")),
    ("sensor/temp/p2p/dev", ORDINARY, ("dev", "sensor/temp"), ("dev", "sensor/temp")),
    ("p2p", ORDINARY, ORDINARY, ORDINARY),
    ("P2P/x/t", ORDINARY, ORDINARY, ORDINARY),
    ("p2p/x", MALFORMED, MALFORMED, MALFORMED),
    ("p2p/x/", MALFORMED, ORDINARY, MALFORMED),
    ("p2p//t", MALFORMED, ORDINARY, MALFORMED),
    ("p2p/x//t", ("x", "/t"), ORDINARY, ("x", "/t")),
    ("a/p2p/", ORDINARY, MALFORMED, MALFORMED),
    ("a/p2p", ORDINARY, ORDINARY, ORDINARY),
    ("p2p/p2p/x", ("p2p", "x"), ("x", "p2p"), ("p2p", "x")),
    ("p2p/a/t/p2p/b", ("a", "t/p2p/b"), ("b", "p2p/a/t"), ("a", "t/p2p/b")),
    ("p2p/a%2Fb/t", ("a/b", "t"), ORDINARY, ("a/b", "t")),
    ("devices/p2p/GID_test@@@mac", ORDINARY, ("GID_test@@@mac", "devices"), ("GID_test@@@mac", "devices")),
    # what the page says in words
    ("p2p/", MALFORMED, MALFORMED, MALFORMED),
    ("p2p//", MALFORMED, ORDINARY, MALFORMED),
    ("p2p/p2p", MALFORMED, MALFORMED, MALFORMED),
    ("p2p/p2p/", MALFORMED, MALFORMED, MALFORMED),
    ("p2p/a/p2p/b/t", ("a", "p2p/b/t"), ORDINARY, ("a", "p2p/b/t")),
    ("p2p/x/p2p/y", ("x", "p2p/y"), ("y", "p2p/x"), ("x", "p2p/y")),
    ("p2p/x/$SYS/y", ("x", "$SYS/y"), ORDINARY, ("x", "$SYS/y")),
    ("p2p ", ORDINARY, ORDINARY, ORDINARY),
    ("xp2p/a/t", ORDINARY, ORDINARY, ORDINARY),
    ("t/p2p/a/b", ORDINARY, ORDINARY, ORDINARY),
    ("/", ORDINARY, ORDINARY, ORDINARY),
]


def resolve(mode: str, topic: str) -> object:
    try:
        address = make_router(mode).resolve(topic)
    except MalformedP2PTopic:
        return MALFORMED
    return ORDINARY if address is None else (address.client_id, address.topic)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("topic", "prefix", "suffix", "both"), TABLE, ids=[row[0] for row in TABLE])
def test_table_of_section_3(mode: str, topic: str, prefix: object, suffix: object, both: object) -> None:
    assert resolve(mode, topic) == {"prefix": prefix, "suffix": suffix, "both": both}[mode]


def test_an_empty_first_level_is_a_level() -> None:
    """`/p2p/x/t` is ordinary in every mode; `/p2p/x` has the suffix form with an empty business topic."""
    assert [resolve(mode, "/p2p/x/t") for mode in MODES] == [ORDINARY] * 3
    assert [resolve(mode, "/p2p/x") for mode in MODES] == [ORDINARY, MALFORMED, MALFORMED]
    assert [resolve(mode, "//p2p/x") for mode in MODES] == [ORDINARY, ("x", "/"), ("x", "/")]


@pytest.mark.parametrize("topic", [row[0] for row in TABLE])
def test_mode_off_leaves_every_topic_alone(topic: str) -> None:
    assert resolve("off", topic) == ORDINARY


def test_an_unknown_mode_is_told() -> None:
    with pytest.raises(ValueError, match="none of off, prefix, suffix, both"):
        make_router("broadcast")


# --- a naive reading of section 3 -------------------------------------------------------------------------------------


_characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0+#/")
_level = st.one_of(
    st.sampled_from(["", "p2p", "P2P", "m", "$SYS", "%2F", "%2f", "%2B", "%25", "%252F", "%", "%%", "%2", "a%23b"]),
    st.text(_characters, max_size=4),
    st.text("%2FfBb35", max_size=6),
)
_levels = st.lists(_level, min_size=1, max_size=4).map("/".join)


def _named(marker: str) -> st.SearchStrategy[tuple[str, str]]:
    """The marker, and a topic that may well have one of its forms."""
    prefix, suffix = (
        st.builds(f"{marker}/{{}}".format, _levels),
        st.builds(f"{{}}/{marker}/{{}}".format, _levels, _level),
    )
    either = st.builds(f"{marker}/{{}}/{marker}/{{}}".format, _levels, _level)
    return st.tuples(st.just(marker), st.one_of(_levels.filter(bool), prefix, suffix, either))


markers_and_topics = st.sampled_from(["p2p", "m", "to client"]).flatmap(_named)


@given(mode=st.sampled_from(MODES), named=markers_and_topics)
def test_router_and_a_naive_reading_agree(mode: str, named: tuple[str, str]) -> None:
    marker, topic = named
    router = make_router(mode, marker)
    try:
        address = router.resolve(topic)
    except MalformedP2PTopic:
        found: object = MALFORMED
    else:
        found = ORDINARY if address is None else (address.client_id, address.topic)
    assert found == read(mode, marker, topic, is_client=False)


class Targets(Observer):
    """Whom P2P messages were for that reached nobody."""

    p2p = True

    def __init__(self) -> None:
        self.found: list[str] = []

    def dropped(self, client_id: str, message: Message, reason: str) -> None:
        self.found.append(client_id)


@given(mode=st.sampled_from(MODES), named=markers_and_topics)
def test_a_broker_and_a_naive_reading_agree(mode: str, named: tuple[str, str]) -> None:
    """With the `$` that only the broker knows of, and by what a client hears; nobody is there but the sender."""
    marker, topic = named
    broker, targets = make_broker(Clock(), router=make_router(mode, marker)), Targets()
    broker.add_observer(targets)
    code = client(broker, "the sender").publish(topic, b"x", qos=1)
    expected = read(mode, marker, topic)
    if isinstance(expected, tuple):
        assert (code, targets.found) == (0x10, [expected[0]])
    else:
        refusals = {MALFORMED: 0x90, ORDINARY: 0x87 if topic.startswith("$") else 0x10}
        assert (code, targets.found) == (refusals[str(expected)], [])


# --- escapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "client_id"),
    [
        ("a%2Fb", "a/b"),
        ("a%2fb", "a/b"),
        ("a%2Bb", "a+b"),
        ("a%2bb", "a+b"),
        ("%23", "#"),
        ("%25", "%"),
        ("%252F", "%2F"),
        ("%25%32F", "%%32F"),
        ("%%2F", "%/"),
        ("%2%2F", "%2/"),
        ("100%", "100%"),
        ("%41", "%41"),  # a closed set: other codes stand for themselves
        ("%00", "%00"),
        ("a%20b", "a%20b"),
        ("%", "%"),
        ("%2", "%2"),
    ],
)
def test_escapes(level: str, client_id: str) -> None:
    assert unescape_client_id(level) == client_id


@given(st.text(max_size=12))
def test_an_escaped_id_is_one_level_and_comes_back(client_id: str) -> None:
    level = escape_client_id(client_id)
    assert not set(level) & set("/+#")
    assert unescape_client_id(level) == client_id


def test_ids_are_compared_by_byte() -> None:
    composed, decomposed = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")
    assert resolve("prefix", f"p2p/{composed}/t") == (composed, "t")
    assert resolve("prefix", f"p2p/{decomposed}/t") == (decomposed, "t")
    assert composed != decomposed


# --- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "topic", "reply", "canonical"),
    [
        ("prefix", "p2p/dev/a/b", "p2p/s%2F1/a/b", "p2p/dev/a/b"),
        ("suffix", "a/b/p2p/dev", "a/b/p2p/s%2F1", "p2p/dev/a/b"),
        ("both", "p2p/dev/a/b", "p2p/s%2F1/a/b", "p2p/dev/a/b"),
        ("both", "a/b/p2p/dev", "a/b/p2p/s%2F1", "p2p/dev/a/b"),
        ("prefix", "p2p/d%2fev/a", "p2p/s%2F1/a", "p2p/d%2Fev/a"),
    ],
)
def test_reply_topic_and_canonical_name(mode: str, topic: str, reply: str, canonical: str) -> None:
    address = make_router(mode).resolve(topic)
    assert address.reply_topic("s/1") == reply
    assert address.canonical == canonical


def test_a_marker_of_ones_own() -> None:
    address = PrefixP2PRouter("to").resolve("to/dev/a")
    assert address == P2PAddress("dev", "a", "prefix", "to")
    assert address is not None
    assert (address.canonical, address.reply_topic("me")) == ("to/dev/a", "to/me/a")
    assert PrefixP2PRouter("to").resolve("p2p/dev/a") is None
    assert SuffixP2PRouter("to").resolve("a/to/dev") == P2PAddress("dev", "a", "suffix", "to")


# --- the suite that an embedder's router can be held against ----------------------------------------------------------


class _Ours(P2PRouterTests):
    mode = ""
    column = 0

    def make_router(self) -> IP2PRouter:
        return make_router(self.mode)

    @property
    def addresses(self) -> dict[str, tuple[str, str]]:  # type: ignore[override]  # a fixture of values
        return {row[0]: found for row in TABLE if isinstance(found := row[self.column], tuple)}

    @property
    def ordinary(self) -> list[str]:  # type: ignore[override]  # a fixture of values
        return [row[0] for row in TABLE if row[self.column] == ORDINARY]

    @property
    def malformed(self) -> list[str]:  # type: ignore[override]  # a fixture of values
        return [row[0] for row in TABLE if row[self.column] == MALFORMED]

    def topic_for(self, client_id: str, business: str) -> str:
        return f"p2p/{escape_client_id(client_id)}/{business}"


class TestPrefixP2PRouter(_Ours):
    mode, column = "prefix", 1


class TestSuffixP2PRouter(_Ours):
    mode, column = "suffix", 2

    def topic_for(self, client_id: str, business: str) -> str:
        return f"{business}/p2p/{escape_client_id(client_id)}"


class TestBothP2PRouter(_Ours):
    mode, column = "both", 3


class TestBothP2PRouterBySuffix(_Ours):
    mode, column = "both", 3

    def topic_for(self, client_id: str, business: str) -> str:
        return f"{business}/p2p/{escape_client_id(client_id)}"


class _Folding(PrefixP2PRouter):
    def resolve(self, topic: str) -> P2PAddress | None:
        address = super().resolve(topic)
        return address and address._replace(client_id=address.client_id.lower())


class _Forgetful(BothP2PRouter):
    asked = 0

    def resolve(self, topic: str) -> P2PAddress | None:
        self.asked += 1
        return super().resolve(topic) if self.asked % 7 else None


class _Fragile(PrefixP2PRouter):
    def resolve(self, topic: str) -> P2PAddress | None:
        return super().resolve(topic.encode("ascii").decode())


class _Careless(PrefixP2PRouter):
    def resolve(self, topic: str) -> P2PAddress | None:
        level, _, business = topic.removeprefix("p2p/").partition("/")
        return P2PAddress(level, business) if topic.startswith("p2p/") else None


class _Wild(PrefixP2PRouter):
    """Its canonical name of the client `#` is a filter, which a rule for everybody might be taken to allow."""

    class Address(P2PAddress):
        @property
        def canonical(self) -> str:
            return f"p2p/{self.client_id}/{self.topic}"

    def resolve(self, topic: str) -> P2PAddress | None:
        address = super().resolve(topic.replace("dev", "%23"))
        return address and self.Address(*address)


@pytest.mark.parametrize(
    ("router", "test"),
    [
        (_Wild, "test_answers_with_the_right_types"),
        (_Folding, "test_ids_are_exact"),
        (_Folding, "test_answers_reach_the_sender"),
        (_Forgetful, "test_is_a_function_of_the_topic"),
        (_Fragile, "test_answers_with_the_right_types"),
        (_Careless, "test_answers_with_the_right_types"),
        (_Careless, "test_malformed_topics"),
    ],
)
def test_the_suite_finds_what_is_wrong(router: type[PrefixP2PRouter], test: str) -> None:
    class Tests(TestPrefixP2PRouter):
        def make_router(self) -> IP2PRouter:
            return router()

    with pytest.raises(AssertionError):
        getattr(Tests(), test)()
