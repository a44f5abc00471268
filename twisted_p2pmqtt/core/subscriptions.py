"""Subscriptions and the tree that finds those a topic matches: sections 3.8.3.1, 4.7 and 4.8.

Filters without a wildcard live in one dict, so that a topic finds them in one look; the others in a trie of nested
dicts in which ``+`` is a key like any level (no topic level can be spelled so); the entry of a filter stands in the
dict of its last level under None, that of ``.../#`` in the dict above under ``#``.  All walks are loops.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted_p2pmqtt.codec.topics import split_shared

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.subscriber import Subscriber


@dataclass(slots=True)
class Subscription:
    """One subscriber's hold on one filter.  ``topic_filter`` is as subscribed, ``$share/...`` included;
    ``identifier`` is 0 for none."""

    topic_filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    identifier: int = 0

    @property
    def matched_filter(self) -> str:
        """The filter that topics are matched with: the share name taken off."""
        return split_shared(self.topic_filter)[1]

    @property
    def is_plain(self) -> bool:
        """No option that makes this subscriber's copy differ from its neighbour's?"""
        return not (self.no_local or self.retain_as_published or self.identifier)


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


class FilterEntry:
    """All who hold one filter: ordinary subscribers, and shared groups by name."""

    __slots__ = ("groups", "subscribers")

    def __init__(self) -> None:
        self.subscribers: dict[Subscriber, Subscription] = {}
        self.groups: dict[str, SharedGroup] | None = None

    @property
    def is_empty(self) -> bool:
        return not self.subscribers and not self.groups


class SubscriptionTree:
    """Who subscribed to what."""

    __slots__ = ("_literal", "_wild", "count")

    def __init__(self) -> None:
        self._literal: dict[str, FilterEntry] = {}
        self._wild: dict[Any, Any] = {}
        self.count = 0

    def add(self, subscriber: Subscriber, subscription: Subscription) -> bool:
        """Put it in, in place of one with the same filter; True if it is new."""
        share_name, topic_filter = split_shared(subscription.topic_filter)
        entry = self._entry(topic_filter)
        if share_name is None:
            holders = entry.subscribers
        else:
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
            found = entry.subscribers.pop(subscriber, None)
        else:
            group = entry.groups.get(share_name) if entry.groups else None
            found = group.members.pop(subscriber, None) if group else None
            if group and entry.groups and not group.members:
                del entry.groups[share_name]
        if found is None:
            return False
        self.count -= 1
        if entry.is_empty:
            self._forget(topic_filter)
        return True

    def match(self, topic: str) -> list[FilterEntry]:
        """The entries of every filter that matches the topic name, in no particular order."""
        literal = self._literal.get(topic)
        found = [literal] if literal is not None else []
        if not self._wild:
            return found
        levels = topic.split("/")
        nodes = [self._wild]
        hidden = levels[0].startswith("$")  # [MQTT-4.7.2-1] [MQTT3-4.7.2-1]: no leading wildcard matches it
        for level in levels:
            below = []
            for node in nodes:
                if not hidden:
                    if "#" in node:
                        found.append(node["#"])
                    if "+" in node:
                        below.append(node["+"])
                if level in node:
                    below.append(node[level])
            if not below:
                return found
            nodes, hidden = below, False
        for node in nodes:
            if None in node:
                found.append(node[None])
            if "#" in node:  # `sport/#` matches `sport`
                found.append(node["#"])
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
            node = node.setdefault(level, {})
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


def _levels_and_key(topic_filter: str) -> tuple[list[str], str | None]:
    """The levels that lead to the dict of a filter's entry, and the entry's key there."""
    levels = topic_filter.split("/")
    if levels[-1] == "#":
        return levels[:-1], "#"
    return levels, None


def is_wild(topic_filter: str) -> bool:
    """Does the filter hold a wildcard?"""
    return "+" in topic_filter or "#" in topic_filter
