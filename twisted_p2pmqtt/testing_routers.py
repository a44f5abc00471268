"""P2PRouterTests: what every P2P router owes the broker, as tests to subclass; ours pass them, hold yours to them.

    class TestTenantRouter(P2PRouterTests):
        addresses = {"acme/to/dev1/cmd": ("acme.dev1", "cmd")}
        ordinary = ("acme/telemetry",)
        malformed = ("acme/to//cmd",)

        def make_router(self) -> IP2PRouter:
            return TenantRouter()

pytest collects the subclass by its name; for trial and unittest, inherit from ``TestCase`` too.  Nothing but the
standard library and zope is needed.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zope.interface.verify import verifyObject

from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.codec.topics import check_topic_name
from twisted_p2pmqtt.core.p2p import P2PAddress
from twisted_p2pmqtt.interfaces import IP2PRouter, MalformedP2PTopic

MALFORMED = "malformed"

AWKWARD_IDS = (
    "dev",
    "Dev",
    "DEV",
    "a b",
    " ",
    "a/b",
    "/",
    "a+b",
    "#",
    "%",
    "%%",
    "a%2Fb",
    "%252F",
    "%2",
    "100%",
    "GID_test@@@mac",
    "$SYS",
    "p2p",
    "..",
    "\u202egnp",
    "\ufeff",
    "caf\u00e9",
    "cafe\u0301",
    "\U0001f4e1",
    "x" * 256,
)
"""Client ids that have been confused with each other, or with something else, somewhere."""

_LEVELS = ("", "p2p", "P2P", "p2p ", "$SYS", "$share", "a", "dev", "%2F", "%2f", "%25", "%zz", "%", "é", "\u202e", " ")


class P2PRouterTests:
    """Subclass it, give ``make_router``, and say what your router does in the three tables.

    ``addresses`` maps topics to the client id and the business topic that they stand for, ``ordinary`` and
    ``malformed`` are topics of the other two kinds.  Where any client id can be addressed, give ``topic_for`` too.
    ``has_reply_topics``: does ``reply_topic`` of your addresses name the sender (needed for
    ``deliver_topic = "reply"``)?
    """

    addresses: Mapping[str, tuple[str, str]] = {}
    ordinary: Sequence[str] = ()
    malformed: Sequence[str] = ()
    has_reply_topics = True

    def make_router(self) -> IP2PRouter:
        """A new router; two of them must answer alike."""
        raise NotImplementedError

    def topic_for(self, client_id: str, business: str) -> str | None:
        """The topic that addresses any client id with this business topic; None where ids cannot be chosen freely."""
        return None

    # --- what your tables say ------------------------------------------------------------------------------------

    def test_addresses(self) -> None:
        """Topics of the P2P form name whom they should, with the business topic that they should."""
        router = self.make_router()
        for topic, expected in self.addresses.items():
            answer = resolve(router, topic)
            found = (answer.client_id, answer.topic) if isinstance(answer, P2PAddress) else answer
            _check(found == expected, f"{topic!r}: {found!r}, not {expected!r}")

    def test_ordinary_topics(self) -> None:
        """Other topics are left alone."""
        router = self.make_router()
        for topic in self.ordinary:
            answer = resolve(router, topic)
            _check(answer is None, f"{topic!r}: {answer!r}, not None")

    def test_malformed_topics(self) -> None:
        """Topics of the P2P form that name nobody or nothing are refused, not broadcast."""
        router = self.make_router()
        for topic in self.malformed:
            answer = resolve(router, topic)
            _check(answer == MALFORMED, f"{topic!r}: {answer!r}, not MalformedP2PTopic")

    # --- what every router owes ----------------------------------------------------------------------------------

    def test_provides_the_interface(self) -> None:
        """``zope.interface`` agrees."""
        verifyObject(IP2PRouter, self.make_router())

    def test_answers_with_the_right_types(self) -> None:
        """For any topic: None, ``MalformedP2PTopic``, or a ``P2PAddress`` that a message can be delivered by."""
        router = self.make_router()
        for topic in self._topics():
            answer = resolve(router, topic)
            if answer is None or answer == MALFORMED:
                continue
            _check(isinstance(answer, P2PAddress), f"{topic!r}: {answer!r} is neither a P2PAddress nor None")
            _check(
                isinstance(answer.client_id, str) and answer.client_id != "", f"{topic!r}: no client id in {answer!r}"
            )
            _check(is_topic_name(answer.topic), f"{topic!r}: the business topic of {answer!r} is no topic name")
            _check(is_topic_name(answer.canonical), f"{topic!r}: {answer.canonical!r} is no name to ask rights for")

    def test_is_a_function_of_the_topic(self) -> None:
        """Asked again, in another order, or of another router: the same answer, for the broker keeps it."""
        first, second = self.make_router(), self.make_router()
        topics = list(self._topics())
        answers = {topic: resolve(first, topic) for topic in topics}
        for topic in reversed(topics):
            for router in (first, second):
                again = resolve(router, topic)
                _check(again == answers[topic], f"{topic!r}: {again!r} after {answers[topic]!r}")

    def test_ids_are_exact(self) -> None:
        """An id is kept code point by code point: no case is folded, nothing normalised, escapes are undone once."""
        router = self.make_router()
        for client_id in AWKWARD_IDS:
            topic = self.topic_for(client_id, "cmd/reboot")
            if topic is None:
                continue
            answer = resolve(router, topic)
            found = (answer.client_id, answer.topic) if isinstance(answer, P2PAddress) else answer
            _check(found == (client_id, "cmd/reboot"), f"{topic!r}: {found!r}, not for {client_id!r}")

    def test_canonical_names_tell_targets_apart(self) -> None:
        """Rights are asked for the canonical name: two targets, or two business topics, never share one."""
        router, seen = self.make_router(), dict[str, tuple[str, str]]()
        for topic in self._topics():
            answer = resolve(router, topic)
            if isinstance(answer, P2PAddress):
                meant = (answer.client_id, answer.topic)
                other = seen.setdefault(answer.canonical, meant)
                _check(other == meant, f"{answer.canonical!r} is the canonical name of {other!r} and of {meant!r}")

    def test_answers_reach_the_sender(self) -> None:
        """What is published to an address's reply topic goes to the sender and to nobody else."""
        router = self.make_router()
        if not self.has_reply_topics:
            return
        for topic in self.addresses:
            answer = resolve(router, topic)
            for sender in AWKWARD_IDS:
                back = resolve(router, answer.reply_topic(sender))
                reached = back.client_id if isinstance(back, P2PAddress) else back
                _check(reached == sender, f"{topic!r}: an answer to {sender!r} reaches {reached!r}")

    def test_response_information_reaches_the_client(self) -> None:
        """What CONNACK offers as Response Information, where the router has any, is a topic of its client's, or the
        beginning of some."""
        router: Any = self.make_router()
        if not hasattr(router, "response_information"):
            return
        for client_id in AWKWARD_IDS:
            offered = router.response_information(client_id)
            _check(is_topic_name(offered), f"{offered!r} is no topic name")
            found = [resolve(router, topic) for topic in (offered, f"{offered}/1")]
            reached = [answer.client_id for answer in found if isinstance(answer, P2PAddress)]
            _check(client_id in reached, f"{offered!r}, offered to {client_id!r}, reaches {reached!r}")

    # --- topics --------------------------------------------------------------------------------------------------

    def _topics(self) -> Iterator[str]:
        """The examples, then topics made of their levels and of troublesome ones; the same each time."""
        known = [*self.addresses, *self.ordinary, *self.malformed]
        yield from known
        levels = [*_LEVELS, *{level for topic in known for level in topic.split("/")}]
        levels.sort()
        chance = random.Random(1883)  # noqa: S311  # made to be the same each time
        for _ in range(2000):
            topic = "/".join(chance.choices(levels, k=chance.randint(1, 6)))
            if topic:
                yield topic
        for topic in known:
            yield topic + "/" + "/".join(["deep"] * 120)
            yield topic + "x" * 3000
            yield "y/" * 120 + topic
            yield unicodedata.normalize("NFD", topic.upper())


def resolve(router: Any, topic: str) -> Any:
    """What the router makes of the topic, ``MALFORMED`` where it says so; whatever else it raises is an error."""
    try:
        return router.resolve(topic)
    except MalformedP2PTopic:
        return MALFORMED
    except BaseException as error:
        raise AssertionError(f"{topic!r}: the router raised {error!r}") from error


def is_topic_name(text: object) -> bool:
    """Is this text that may be published to?"""
    try:
        return isinstance(text, str) and bool(check_topic_name(text.encode()))
    except (MQTTError, UnicodeError):
        return False


def _check(holds: bool, otherwise: str) -> None:
    # not an assert statement: the suite means the same under python -O and without pytest's rewriting
    if not holds:
        raise AssertionError(otherwise)
