"""Subscriptions and the tree that finds those a topic matches: sections 3.8.3.1, 4.7 and 4.8.

Filters without a wildcard live in one dict, so that a topic finds them in one look; the others in a trie of nested
dicts in which ``+`` is a key like any level (no topic level can be spelled so).  What ends in a dict of the trie stands
in it beside what goes on: under ``b`` the dict of all below, under ``b/`` the entry of ``a/b``, and under ``b/#`` that
of ``a/b/#``, which matches ``a/b`` too.  No level holds a slash, so these never mix.  All walks are loops.

A hundred thousand sessions that wait for their clients are a hundred thousand subscriptions.  Each time Python collects
garbage it looks at every object that can refer to others, and the process stands still meanwhile; so a subscription is
a number, and its filter costs one such object, its entry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NewType

from twisted_p2pmqtt.codec.topics import split_shared

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.subscriber import Subscriber


Subscription = NewType("Subscription", int)
"""What one subscriber asked of one filter, which is the key that it is held under: the maximum QoS and the options with
the bits that they have in SUBSCRIBE (3.8.3.1), and above them the Subscription Identifier, 0 for none.
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

    __slots__ = ("members", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: dict[Subscriber, Subscription] = {}

    def choose(self, usable: Any) -> tuple[Subscriber, Subscription] | None:
        """The next member for which ``usable(subscriber)``; among them connected ones first.  None if there is none."""
        fallback = None
        for subscriber, subscription in self.members.items():
            if not usable(subscriber):
                continue
            if subscriber.is_ready:
                self._to_the_end(subscriber, subscription)
                return subscriber, subscription
            if fallback is None or (subscriber.is_connected and not fallback[0].is_connected):
                fallback = subscriber, subscription
        if fallback is not None:
            self._to_the_end(*fallback)
        return fallback

    def _to_the_end(self, subscriber: Subscriber, subscription: Subscription) -> None:
        del self.members[subscriber]
        self.members[subscriber] = subscription


class FilterEntry(dict["Subscriber", Subscription]):
    """All who hold one filter: ordinary subscribers, and in ``groups`` shared groups by name."""

    __slots__ = ("groups",)

    def __init__(self) -> None:
        super().__init__()
        self.groups: dict[str, SharedGroup] | None = None


class SubscriptionTree:
    """Who subscribed to what."""

    __slots__ = ("_literal", "_wild", "count")

    def __init__(self) -> None:
        self._literal: dict[str, FilterEntry] = {}
        self._wild: dict[Any, Any] = {}
        self.count = 0

    def add(self, subscriber: Subscriber, topic_filter: str, subscription: Subscription) -> bool:
        """Put it in under this filter, ``$share/...`` or not, in place of what is there; True if nothing was."""
        share_name, topic_filter = split_shared(topic_filter)
        entry = self._entry(topic_filter)
        holders: dict[Subscriber, Subscription] = entry
        if share_name is not None:
            if entry.groups is None:
                entry.groups = {}
            holders = entry.groups.setdefault(share_name, SharedGroup(share_name)).members
        is_new = subscriber not in holders
        holders[subscriber] = subscription  # [MQTT-3.8.4-3] [MQTT3-3.8.4-3] [MQTT-3.8.4-4]
        self.count += is_new
        return is_new

    def remove(self, subscriber: Subscriber, topic_filter: str) -> bool:
        """Take it out; False if there was none."""
        share_name, topic_filter = split_shared(topic_filter)
        entry = self._find(topic_filter)
        if entry is None:
            return False
        if share_name is None:
            found = entry.pop(subscriber, None)
        else:
            group = entry.groups.get(share_name) if entry.groups else None
            found = group.members.pop(subscriber, None) if group else None
            if group and entry.groups and not group.members:
                del entry.groups[share_name]
        if found is None:
            return False
        self.count -= 1
        if not entry and not entry.groups:
            self._forget(topic_filter)
        return True

    def match(self, topic: str) -> list[FilterEntry]:
        """The entries of every filter that matches the topic name, in no particular order."""
        literal = self._literal.get(topic)
        found = [literal] if literal is not None else []
        if not self._wild:
            return found
        hidden = topic.startswith("$")  # [MQTT-4.7.2-1] [MQTT3-4.7.2-1]: no leading wildcard matches it
        if not hidden and "#" in self._wild:
            found.append(self._wild["#"])
        *above, last = topic.split("/")
        nodes = [self._wild]
        for level in above:
            below = []
            for name in (level,) if hidden else (level, "+"):
                rest = name + "/#"
                for node in nodes:
                    if rest in node:
                        found.append(node[rest])
                    if name in node:
                        below.append(node[name])
            if not below:
                return found
            nodes, hidden = below, False
        for name in (last,) if hidden else (last, "+"):
            for node in nodes:
                found += [node[key] for key in (name + "/", name + "/#") if key in node]
        return found

    def _entry(self, topic_filter: str) -> FilterEntry:
        if not is_wild(topic_filter):
            entry = self._literal.get(topic_filter)
            if entry is None:
                entry = self._literal[topic_filter] = FilterEntry()
            return entry
        levels, key = _levels_and_key(topic_filter)
        node = self._wild
        for level in levels:
            if level not in node:
                node[level] = {}
            node = node[level]
        if key not in node:
            node[key] = FilterEntry()
        wild: FilterEntry = node[key]
        return wild

    def _find(self, topic_filter: str) -> FilterEntry | None:
        if not is_wild(topic_filter):
            return self._literal.get(topic_filter)
        levels, key = _levels_and_key(topic_filter)
        node = self._wild
        for level in levels:
            if level not in node:
                return None
            node = node[level]
        return node.get(key)

    def _forget(self, topic_filter: str) -> None:
        if not is_wild(topic_filter):
            del self._literal[topic_filter]
            return
        levels, key = _levels_and_key(topic_filter)
        path, node = [], self._wild
        for level in levels:
            path.append((node, level))
            node = node[level]
        del node[key]
        for parent, level in reversed(path):
            if parent[level]:
                break
            del parent[level]


def _levels_and_key(topic_filter: str) -> tuple[list[str], str]:
    """The levels that lead to the dict of a filter's entry, and the entry's key there; ``#`` alone is its own."""
    *levels, last = topic_filter.split("/")
    if last != "#":
        return levels, last + "/"
    return levels[:-1], "/".join((*levels[-1:], "#"))


def matched_filter(topic_filter: str) -> str:
    """The filter that topics are matched with: the share name taken off."""
    return split_shared(topic_filter)[1]


def is_wild(topic_filter: str) -> bool:
    """Does the filter hold a wildcard?"""
    return "+" in topic_filter or "#" in topic_filter
