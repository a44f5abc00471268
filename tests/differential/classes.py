"""The known classes of differences, each with what decides it.  The first that matches a difference names it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.differential.comparison import Difference, Publish, View


class Known(NamedTuple):
    """One class.  ``goes_on``: are both brokers in the same state behind it, so that the rest can be compared?"""

    name: str
    what: str
    decides: str
    matches: Callable[[Difference], bool]
    goes_on: bool = False


def _refused(view: View) -> bool:
    return view.is_closed


def _both_refuse(difference: Difference) -> bool:
    ours, theirs = difference.ours, difference.theirs
    return ours.is_closed and theirs.is_closed and _successes(ours) == _successes(theirs) and _rest_equal(difference)


def _successes(view: View) -> list[tuple[object, ...]]:
    return [event for event in view.answers if not (event[0] == "CONNACK" and event[1])]


def _rest_equal(difference: Difference) -> bool:
    ours, theirs = difference.ours, difference.theirs
    return ours.publishes == theirs.publishes and ours.releases == theirs.releases


def _says_why(difference: Difference) -> bool:
    return _both_refuse(difference) and difference.ours.code is not None and difference.theirs.code is None


def _other_code(difference: Difference) -> bool:
    return _both_refuse(difference) and difference.ours.code is not None and difference.theirs.code is not None


def _merged(publishes: list[Publish]) -> list[tuple[object, ...]]:
    """Copies of one message as one, at the highest QoS, with all identifiers."""
    found: dict[tuple[bytes, bytes, bool], list[Publish]] = {}
    for publish in publishes:
        found.setdefault((publish.topic, publish.payload, publish.dup), []).append(publish)
    return sorted(
        (key, max(p.qos for p in copies), sorted(i for p in copies for i in p.identifiers), copies[0].properties)
        for key, copies in found.items()
    )


def _overlap(difference: Difference) -> bool:
    ours, theirs = difference.ours, difference.theirs
    if ours.flow != theirs.flow or set(ours.releases) != set(theirs.releases):
        return False
    return len(ours.publishes) < len(theirs.publishes) and _merged(ours.publishes) == _merged(theirs.publishes)


def _is_takeover(difference: Difference) -> bool:
    key, step = difference.key, difference.step
    return step.kind == "open" and key[0] == step.client and difference.ours.code == 0x8E


def _code_pairs(difference: Difference, name: str) -> list[tuple[int, int]] | None:
    """Where the flows differ only in the reason codes of these acknowledgements: the pairs of codes."""
    ours, theirs = difference.ours.flow, difference.theirs.flow
    if len(ours) != len(theirs):
        return None
    pairs = []
    for one, other in zip(ours, theirs, strict=True):
        if one != other:
            if one[0] != name or other[0] != name or one[1] != other[1]:
                return None
            pairs.append((one[2], other[2]))
    return pairs


def _only_codes(name: str, *allowed: tuple[int, int]) -> Callable[[Difference], bool]:
    def matches(difference: Difference) -> bool:
        pairs = _code_pairs(difference, name)
        return bool(pairs) and _rest_equal(difference) and all(pair in allowed for pair in pairs or ())

    return matches


KNOWN = [
    Known("takeover-told", "", "", lambda d: _is_takeover(d) and _says_why(d), True),
    Known("refusal-told", "", "", _says_why, True),
    Known("refusal-code", "", "", _other_code, True),
    Known("no-subscribers", "", "", _only_codes("PUBREC", (0x10, 0)), True),
    Known("unknown-pubrel", "", "", _only_codes("PUBCOMP", (0x92, 0)), True),
    Known("overlap", "", "", _overlap, True),
]


def classify(difference: Difference) -> Known | None:
    """The class, or None for a difference that nobody has judged."""
    return next((known for known in KNOWN if known.matches(difference)), None)
