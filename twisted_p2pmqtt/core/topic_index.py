"""TopicIndex: a set of topic names that can be asked for those a filter matches (section 4.7).

A trie of nested dicts, one level a dict; the key None holds the name that ends there.  All walks are loops, so depth
costs memory and never the stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Node = dict[Any, Any]


class TopicIndex:
    """Topic names, added and discarded one by one, found by filter."""

    __slots__ = ("_root",)

    def __init__(self) -> None:
        self._root: Node = {}

    def add(self, topic: str) -> None:
        """Put the name in; a name that is there stays."""
        node = self._root
        for level in topic.split("/"):
            node = node.setdefault(level, {})
        node[None] = topic

    def discard(self, topic: str) -> None:
        """Take the name out, and the levels that lead nowhere without it; an unknown name is ignored."""
        path = []
        node = self._root
        for level in topic.split("/"):
            path.append((node, level))
            found = node.get(level)
            if found is None:
                return
            node = found
        node.pop(None, None)
        for parent, level in reversed(path):
            if parent[level]:
                break
            del parent[level]

    def matching(self, topic_filter: str) -> Iterator[str]:
        """The names that the filter matches.  Do not add or discard while iterating."""
        levels = topic_filter.split("/")
        last = len(levels)
        stack: list[tuple[Node, int]] = [(self._root, 0)]
        while stack:
            node, depth = stack.pop()
            if depth == last:
                if None in node:
                    yield node[None]
                continue
            level = levels[depth]
            if level == "#":
                yield from self._below(node, depth)
            elif level == "+":
                stack.extend(
                    (child, depth + 1) for key, child in node.items() if key is not None and _is_visible(key, depth)
                )
            elif level in node:
                stack.append((node[level], depth + 1))

    @staticmethod
    def _below(node: Node, depth: int) -> Iterator[str]:
        # `a/#` matches `a` itself (4.7.1.2), so the node's own name counts; the root has none
        stack = [(node, depth)]
        while stack:
            node, depth = stack.pop()
            for key, child in node.items():
                if key is None:
                    yield child
                elif _is_visible(key, depth):
                    stack.append((child, depth + 1))


def _is_visible(level: str, depth: int) -> bool:
    """May a wildcard stand for this level?  Not for a first one that starts with `$`."""
    return depth > 0 or not level.startswith("$")  # [MQTT-4.7.2-1]
