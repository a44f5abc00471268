"""Subscriptions and the tree that finds those a topic matches: sections 3.8.3.1, 4.7 and 4.8.

The tree knows who holds which filter; what was asked of it is in the subscriber's own ``subscriptions``.  Filters
without a wildcard live in one dict, so that a topic finds them in one look; the others in a trie of nested dicts in
which ``+`` is a key like any level (no topic level can be spelled so).  What ends in a dict of the trie stands in it
beside what goes on: under ``b`` is the dict of all below ``a/b``, under ``b/`` who holds ``a/b``, and under ``b/#`` who
holds ``a/b/#``, which matches ``a/b`` too.  No level holds a slash, so these never mix.  All walks are loops.

A hundred thousand sessions that wait for their clients hold as many filters.  Each time that Python collects garbage it
looks at every object that can refer to others, and the process stands still meanwhile.  So a subscription is a number,
and a filter that is held once costs no object: its holder stands where else a dict of them would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NewType

from twisted_p2pmqtt.codec.topics import split_shared

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.subscriber import Subscriber

Subscription = NewType("Subscription", int)
"""What a subscriber asked of one filter: the maximum QoS and the options, with the bits that they have in SUBSCRIBE
(3.8.3.1), and above them the Subscription Identifier, 0 for none.
"""

QOS, NO_LOCAL, RETAIN_AS_PUBLISHED = 0b0011, 0b0100, 0b1000
OPTION_BITS = 4


def make_subscription(
    qos: int = 0, no_local: bool = False, retain_as_published: bool = False, identifier: int = 0
) -> Subscription:
    """All of it as one number."""
    return Subscription(
        identifier << OPTION_BITS | retain_as_published * RETAIN_AS_PUBLISHED | no_local * NO_LOCAL | qos
    )


def identifier_of(subscription: Subscription) -> int:
    """The Subscription Identifier, 0 for none."""
    return subscription >> OPTION_BITS


def is_plain(subscription: Subscription) -> bool:
    """Nothing but a QoS, so that this subscriber's copy is like its neighbour's?"""
    return subscription <= QOS


class SharedGroup:
    """The members of one ``$share/{name}/{filter}``, taken in turn, connected ones first (4.8.2)."""

    __slots__ = ("members", "topic_filter")

    def __init__(self, topic_filter: str) -> None:
        self.topic_filter = topic_filter  # with its share name
        self.members: dict[Subscriber, None] = {}

    def choose(self, usable: Callable[[Subscriber], bool]) -> Subscriber | None:
        """The next member for which ``usable(subscriber)``; among them connected ones first.  None if there is none."""
        fallback = None
        for subscriber in tuple(self.members):
            if not usable(subscriber) or subscriber not in self.members:  # whoever was asked may have ended it
                continue
            if subscriber.is_ready:
                self._to_the_end(subscriber)
                return subscriber
            if fallback is None or (subscriber.is_connected and not fallback.is_connected):
                fallback = subscriber
        if fallback is None or fallback not in self.members:
            return None
        self._to_the_end(fallback)
        return fallback

    def _to_the_end(self, subscriber: Subscriber) -> None:
        del self.members[subscriber]
        self.members[subscriber] = None


class SubscriptionTree:
    """Who holds which filter; ``count`` subscriptions in all.

    A filter's place holds its only holder, or a dict of several; a shared group is one holder, whoever is in it.
    Holders are told apart by identity, and are no dicts themselves.
    """

    __slots__ = ("_groups", "_literal", "_wild", "count")

    def __init__(self) -> None:
        self._groups: dict[str, SharedGroup] = {}
        self._literal: dict[str, Any] = {}
        self._wild: dict[str, Any] = {}
        self.count = 0

    def add(self, subscriber: Subscriber, topic_filter: str) -> bool:
        """The subscriber holds this filter, ``$share/...`` or not, from now on; True if it did not before."""
        share_name, matched = split_shared(topic_filter)
        if share_name is None:
            is_new = self._hold(matched, subscriber)
        else:
            group = self._groups.get(topic_filter)
            if group is None:
                group = self._groups[topic_filter] = SharedGroup(topic_filter)
                self._hold(matched, group)
            is_new = subscriber not in group.members
            group.members.setdefault(subscriber)
        self.count += is_new
        return is_new

    def remove(self, subscriber: Subscriber, topic_filter: str) -> bool:
        """The subscriber holds the filter no more; False if it did not."""
        share_name, matched = split_shared(topic_filter)
        if share_name is None:
            is_gone = self._let_go(matched, subscriber)
        else:
            group = self._groups.get(topic_filter)
            is_gone = group is not None and subscriber in group.members
            if group is not None and is_gone:
                del group.members[subscriber]
                if not group.members:
                    del self._groups[topic_filter]
                    self._let_go(matched, group)
        self.count -= is_gone
        return is_gone

    def group(self, topic_filter: str) -> SharedGroup | None:
        """Those who hold this ``$share/...`` filter, if anybody does."""
        return self._groups.get(topic_filter)

    def match(self, topic: str) -> list[tuple[str, Subscriber | SharedGroup]]:
        """Every filter (share name taken off) that matches the topic name, with each of its holders."""
        found: list[tuple[str, Any]] = []
        if topic in self._literal:
            found.append((topic, self._literal[topic]))
        if self._wild:
            self._match_wild(topic, found)
        held: list[tuple[str, Subscriber | SharedGroup]] = []
        for topic_filter, holders in found:
            if isinstance(holders, dict):
                held += [(topic_filter, holder) for holder in holders]
            else:
                held.append((topic_filter, holders))
        return held

    def _match_wild(self, topic: str, found: list[tuple[str, Any]]) -> None:
        hidden = topic.startswith("$")  # [MQTT-4.7.2-1] [MQTT3-4.7.2-1]: no leading wildcard matches it
        if "#" in self._wild and not hidden:
            found.append(("#", self._wild["#"]))
        nodes = [("", self._wild)]  # each with the part of the filter that leads to it
        *above, last = topic.split("/")
        for level in above:
            below = []
            for name in (level,) if hidden else (level, "+"):
                rest = name + "/#"
                for prefix, node in nodes:
                    if rest in node:
                        found.append((prefix + rest, node[rest]))
                    if name in node:
                        below.append((prefix + name + "/", node[name]))
            if not below:
                return
            nodes, hidden = below, False
        for name in (last,) if hidden else (last, "+"):
            end, rest = name + "/", name + "/#"
            for prefix, node in nodes:
                if end in node:
                    found.append((prefix + name, node[end]))
                if rest in node:  # `sport/#` matches `sport`
                    found.append((prefix + rest, node[rest]))

    def _hold(self, topic_filter: str, holder: Subscriber | SharedGroup) -> bool:
        """Put a holder in the filter's place; False if it is there."""
        node, key = self._literal, topic_filter
        if is_wild(topic_filter):
            node, levels = self._wild, _keys(topic_filter)
            key = levels.pop()
            for level in levels:
                below = node.get(level)
                if below is None:
                    below = node[level] = {}
                node = below
        holders = node.get(key)
        if holders is None:
            node[key] = holder
            return True
        if holders is holder:
            return False
        if not isinstance(holders, dict):
            holders = node[key] = {holders: None}
        is_new = holder not in holders
        holders[holder] = None
        return is_new

    def _let_go(self, topic_filter: str, holder: Subscriber | SharedGroup) -> bool:
        """Take a holder out of the filter's place, and the dicts that lead nowhere without it; False if it was not
        there.
        """
        path, node, key = [], self._literal, topic_filter
        if is_wild(topic_filter):
            node, levels = self._wild, _keys(topic_filter)
            key = levels.pop()
            for level in levels:
                if level not in node:
                    return False
                path.append((node, level))
                node = node[level]
        holders = node.get(key)
        if isinstance(holders, dict):
            if holder not in holders:
                return False
            del holders[holder]
            if len(holders) == 1:
                node[key] = next(iter(holders))
            return True
        if holders is not holder:
            return False
        del node[key]
        for parent, level in reversed(path):
            if parent[level]:
                break
            del parent[level]
        return True


def _keys(topic_filter: str) -> list[str]:
    """The keys that lead through the trie to the filter's place, its own last; ``#`` alone is a key."""
    keys = topic_filter.split("/")
    if keys[-1] != "#":
        keys[-1] += "/"
    elif len(keys) > 1:
        del keys[-1]
        keys[-1] += "/#"
    return keys


def matched_filter(topic_filter: str) -> str:
    """The filter that topics are matched with: the share name taken off."""
    return split_shared(topic_filter)[1]


def is_wild(topic_filter: str) -> bool:
    """Does the filter hold a wildcard?"""
    return "+" in topic_filter or "#" in topic_filter
