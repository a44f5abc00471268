"""Who may publish, subscribe and receive what: mosquitto's ACL file, and the avatar that answers by it.

    # a comment, its # in the first column
    topic read news/#                        before any `user`: for clients without a user name
    user alice                               from here on: for this user
    topic [read|write|readwrite|deny] TOPIC  readwrite where the word is left out; TOPIC may hold spaces where it is not
    pattern [read|write|readwrite|deny] devices/%c/#    for every client; %c its client id, %u its user name

What no rule allows is denied, and a rule that denies wins over every rule that allows, wherever it stands.  (In
mosquitto a user's own ``topic`` rule wins over a ``pattern`` that denies.)

Rules become a trie of levels; a question is a walk over the levels of one topic, without recursion or regular
expression.  ``%c`` and ``%u`` are never put into text that is read as a filter: they are compared with one level of the
topic, and an id that could mean more than one level there, or mean something else, equals nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from zope.interface import implementer

from twisted_p2pmqtt.auth.files import Problems, numbered_lines, read_file
from twisted_p2pmqtt.codec.errors import TopicFilterInvalid
from twisted_p2pmqtt.codec.topics import check_topic_filter
from twisted_p2pmqtt.interfaces import IClientAvatar

READ, WRITE, DENY = 1, 2, 4

_ACCESS = {"read": READ, "write": WRITE, "readwrite": READ | WRITE, "deny": DENY}

CLIENT_ID, USERNAME = "%c", "%u"

# `%`: the name of a P2P topic escapes ids with it, so that `a%2Fb` in a rule would stand for the client `a/b`.
_NEVER_IN_A_RULE = frozenset("/+#$%")


class Own(NamedTuple):
    """What a client's ``%c`` and ``%u`` stand for; None where no rule with it applies to this client."""

    client_id: str | None
    username: str | None


def own(client_id: str, username: str | None) -> Own:
    """The client id and user name as rules may use them."""
    return Own(_level(client_id), _level(username))


def _level(text: str | None) -> str | None:
    if not text or any(c in _NEVER_IN_A_RULE or c < " " or "\x7f" <= c <= "\x9f" for c in text):
        return None
    return text


class Template:
    """One level of a pattern that holds ``%c`` or ``%u``, perhaps with text around it."""

    __slots__ = ("_parts", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts: list[str] = []
        rest = text
        while rest:
            found = min((at for name in (CLIENT_ID, USERNAME) if (at := rest.find(name)) >= 0), default=len(rest))
            if found:
                self._parts.append(rest[:found])
            if found < len(rest):
                self._parts.append(rest[found : found + 2])
            rest = rest[found + 2 :]

    def fill(self, names: Own) -> str | None:
        """The level for this client, None where there is none."""
        filled = ""
        for part in self._parts:
            value = names.client_id if part == CLIENT_ID else names.username if part == USERNAME else part
            if value is None:
                return None
            filled += value
        return filled


class Node:
    """A place in the trie.  ``here`` are the rights of rules that end here, ``below`` of those that end here with
    ``#``; ``has_read``: some rule from here on allows to read.
    """

    __slots__ = ("below", "has_read", "here", "levels", "own")

    def __init__(self) -> None:
        self.levels: dict[str, Node] = {}
        self.own: list[tuple[Template, Node]] = []
        self.here = 0
        self.below = 0
        self.has_read = False

    def child(self, level: str, is_pattern: bool) -> Node:
        """The place one level on, made where it is missing."""
        if not is_pattern or (CLIENT_ID not in level and USERNAME not in level):
            return self.levels.setdefault(level, Node())
        for template, node in self.own:
            if template.text == level:
                return node
        node = Node()
        self.own.append((Template(level), node))
        return node


def add_rule(root: Node, topic: str, access: int, is_pattern: bool) -> None:
    """Put a rule into the trie."""
    levels = topic.split("/")
    node = root
    passed = [root]
    for level in levels:
        if level == "#":
            node.below |= access
            break
        node = node.child(level, is_pattern)
        passed.append(node)
    else:
        node.here |= access
    if access & READ:
        for each in passed:
            each.has_read = True


def rights(root: Node, topic: str, names: Own) -> int:
    """The rights of all rules that match the topic name.

    For a topic filter: of all rules that match every topic which the filter matches.
    """
    found = 0
    nodes = [root]
    hidden = topic.startswith("$")  # as in subscriptions: no leading wildcard matches it
    for level in topic.split("/"):
        further: list[Node] = []
        for node in nodes:
            if not hidden:
                found |= node.below
            if level == "#":  # of a filter; only `#` covers it
                continue
            literal = node.levels.get(level)
            if literal is not None:
                further.append(literal)
            if not hidden and level != "+":
                wild = node.levels.get("+")
                if wild is not None:
                    further.append(wild)
            for template, child in node.own:
                if template.fill(names) == level:
                    further.append(child)
        if not further:
            return found
        nodes, hidden = further, False
    for node in nodes:
        found |= node.here | node.below
    return found


def may_read_some(root: Node, topic_filter: str, names: Own) -> bool:
    """Is there a topic that the filter matches, and that some rule allows to read?"""
    nodes = [root]
    at_start = True
    for level in topic_filter.split("/"):
        hides = at_start and level.startswith("$")
        further: list[Node] = []
        for node in nodes:
            if not hides and node.below & READ:
                return True
            if level == "#":
                if _reads_below(node, names, at_start):
                    return True
            elif node.has_read:
                further.extend(_next(node, level, names, at_start, hides))
        nodes, at_start = further, False
    empty = root.levels.get("") if "/" not in topic_filter else None  # what `/#` says of a topic that cannot be
    return any((node.here | node.below) & READ for node in nodes if node is not empty)


def _next(node: Node, level: str, names: Own, at_start: bool, hides: bool) -> Iterable[Node]:
    """Where rules go on that agree with one level of a filter."""
    if level == "+":
        yield from (child for name, child in node.levels.items() if not (at_start and name.startswith("$")))
        yield from (child for template, child in node.own if template.fill(names) is not None)
        return
    literal = node.levels.get(level)
    if literal is not None:
        yield literal
    wild = node.levels.get("+")
    if wild is not None and not hides:
        yield wild
    yield from (child for template, child in node.own if template.fill(names) == level)


def _reads_below(start: Node, names: Own, at_start: bool) -> bool:
    """May something be read here or further on?"""
    if start.here & READ and not at_start:
        return True
    stack = list(_next(start, "+", names, at_start, False))
    while stack:
        node = stack.pop()
        if not node.has_read:
            continue
        if (node.here | node.below) & READ:
            return True
        stack.extend(_next(node, "+", names, False, False))
    return False


class Rules:
    """All rules of one file: of clients without a user name, of each user, and the patterns for everybody."""

    __slots__ = ("anonymous", "patterns", "users")

    def __init__(self) -> None:
        self.anonymous = Node()
        self.users: dict[str, Node] = {}
        self.patterns = Node()

    def of(self, username: str | None) -> Node:
        """The rules that name this user, or for None of clients without a user name."""
        return self.anonymous if username is None else self.users.get(username, _NO_RULES)


_NO_RULES = Node()


def parse_acl(data: bytes, path: str) -> Rules:
    """The rules of a file; ``BadFile`` with every bad line."""
    problems = Problems(path)
    rules = Rules()
    section = rules.anonymous
    for number, line in numbered_lines(data, problems):
        word, _, rest = line.lstrip(" ").partition(" ")
        rest = rest.strip(" ")
        if word == "user":
            if not rest:
                problems.add(number, "user: the name is missing")
                continue
            section = rules.users.setdefault(rest, Node())
        elif word in ("topic", "pattern"):
            try:
                access, topic = _rule(rest)
            except ValueError as error:
                problems.add(number, f"{word}: {error}")
                continue
            is_pattern = word == "pattern"
            add_rule(rules.patterns if is_pattern else section, topic, access, is_pattern)
        else:
            problems.add(number, f"must begin with user, topic or pattern, not {word!r}; comments have # in column 0")
    problems.check()
    return rules


def _rule(text: str) -> tuple[int, str]:
    """Access and topic of a ``topic`` or ``pattern`` line; ValueError."""
    first, _, rest = text.partition(" ")
    topic = rest.strip(" ")
    if topic:
        access = _ACCESS.get(first, 0)
        if not access:
            raise ValueError(f"access must be read, write, readwrite or deny, not {first!r}")
    else:
        # A word alone is a topic whose access was left out, but hardly one named `read`: mosquitto would allow
        # everything on that.
        if not first or first in _ACCESS:
            raise ValueError("the topic is missing")
        access, topic = READ | WRITE, first
    try:
        check_topic_filter(topic)
    except TopicFilterInvalid as error:
        raise ValueError(f"{topic!r} is no topic filter: {error.reason_string}") from None
    if "\0" in topic:
        raise ValueError("the topic holds a NUL")
    return access, topic


class AclFile:
    """The rules of one file, which may change while avatars use them."""

    def __init__(self, path: str) -> None:
        """``BadFile`` where the file cannot be used."""
        self._path = path
        self.rules = Rules()
        self.reload()

    def reload(self) -> None:
        """Read the file again; on ``BadFile`` everything stays as it was.

        Call ``IBroker.forget_routes`` behind it: what the old rules answered is remembered there.
        """
        self.rules = parse_acl(read_file(self._path), self._path)


@implementer(IClientAvatar)
class AclAvatar:
    """One client, with the rights that a file gives it; ``username`` is None for an anonymous client."""

    __slots__ = ("_acl", "_own", "_username")

    def __init__(self, acl: AclFile, username: str | None, client_id: str) -> None:
        self._acl = acl
        self._username = username
        self._own = own(client_id, username)

    def _rights(self, topic: str) -> int:
        rules = self._acl.rules
        return rights(rules.of(self._username), topic, self._own) | rights(rules.patterns, topic, self._own)

    def _has(self, right: int, topic: str) -> bool:
        found = self._rights(topic)
        return bool(found & right) and not found & DENY

    def may_publish(self, topic: str) -> bool:
        """Does a rule with ``write`` match the topic, and none with ``deny``?"""
        return self._has(WRITE, topic)

    def may_receive(self, topic: str) -> bool:
        """Does a rule with ``read`` match the topic, and none with ``deny``?"""
        return self._has(READ, topic)

    def may_send_to(self, client_id: str, topic: str, canonical: str) -> bool:
        """The same question as for publishing, for the canonical name ``p2p/{target}/{topic}``."""
        return self._has(WRITE, canonical)

    def may_subscribe(self, topic_filter: str) -> bool:
        """Might the client ever receive anything by this filter?

        Yes where some topic is matched by the filter and by a rule with ``read``, unless one rule with ``deny`` covers
        the whole filter.  Each message is judged by ``may_receive`` again, so ``#`` gives what may be read and no more.
        """
        if self._rights(topic_filter) & DENY:
            return False
        rules = self._acl.rules
        return may_read_some(rules.of(self._username), topic_filter, self._own) or may_read_some(
            rules.patterns, topic_filter, self._own
        )


@implementer(IClientAvatar)
class OpenAvatar:
    """A client that may do everything, where an avatar has to be one."""

    __slots__ = ()

    def may_publish(self, topic: str) -> bool:
        """Yes."""
        return True

    def may_subscribe(self, topic_filter: str) -> bool:
        """Yes."""
        return True

    def may_receive(self, topic: str) -> bool:
        """Yes."""
        return True

    def may_send_to(self, client_id: str, topic: str, canonical: str) -> bool:
        """Yes."""
        return True
