"""Route and RouteTable: all that is known of one topic, found in one dict lookup per message.

A miss checks the name and asks the P2P router.  The plan of an ordinary topic, who gets it and how, is made when the
topic is next published to and kept until somebody (un)subscribes with a filter that matches it; an index of the
planned topics finds those, so a subscription costs what it touches and not what the table holds.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from twisted_p2pmqtt.codec.primitives import encode_varint
from twisted_p2pmqtt.core.p2p import P2PAddress
from twisted_p2pmqtt.core.subscriptions import (
    NO_LOCAL,
    QOS,
    RETAIN_AS_PUBLISHED,
    SharedGroup,
    Subscription,
    SubscriptionTree,
    identifier_of,
    is_plain,
    is_wild,
)
from twisted_p2pmqtt.core.topic_index import TopicIndex

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.delivery import Outcome
    from twisted_p2pmqtt.core.publisher import Publisher
    from twisted_p2pmqtt.core.session import Session
    from twisted_p2pmqtt.core.subscriber import Subscriber

MAX_ROUTES = 65536
"""Topics that are remembered; past it the oldest eighth is forgotten."""

_SUBSCRIPTION_IDENTIFIER = b"\x0b"


class Match:
    """One subscriber of a topic whose copy is its own: identifiers, No Local, Retain As Published."""

    __slots__ = ("extra", "qos", "retain_as_published", "subscriber", "subscriptions")

    def __init__(self, subscriber: Subscriber, subscriptions: list[Subscription]) -> None:
        self.subscriber = subscriber
        self.subscriptions = subscriptions
        self.qos = max(subscription & QOS for subscription in subscriptions)  # [MQTT-3.3.4-2] [MQTT3-3.3.5-1]
        self.retain_as_published = any(subscription & RETAIN_AS_PUBLISHED for subscription in subscriptions)
        self.extra = encode_identifiers(subscriptions)

    def without_local(self) -> Match | None:
        """What is left when the publisher is this subscriber itself."""
        heard = [subscription for subscription in self.subscriptions if not subscription & NO_LOCAL]
        return Match(self.subscriber, heard) if heard else None


def encode_identifiers(subscriptions: list[Subscription]) -> bytes:
    """The Subscription Identifier properties of these subscriptions [MQTT-3.3.4-3] [MQTT-3.3.4-4]."""
    return b"".join(  # [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.4-5]
        _SUBSCRIPTION_IDENTIFIER + encode_varint(identifier_of(subscription))
        for subscription in subscriptions
        if identifier_of(subscription)
    )


class Plan:
    """Who gets an ordinary topic: plain subscribers by the QoS they asked for, special ones, shared groups.

    ``is_plain``: there are plain ones and no others.  ``only_qos``: there is but one, which asked for this QoS; or 0.
    """

    __slots__ = ("by_qos", "groups", "is_plain", "only_qos", "plain", "special")

    def __init__(self) -> None:
        self.is_plain = False
        self.only_qos = 0
        self.plain: list[Subscriber] = []
        self.by_qos: tuple[list[Subscriber], list[Subscriber], list[Subscriber]] = ([], [], [])
        self.special: list[Match] = []
        self.groups: list[SharedGroup] = []


def make_plan(tree: SubscriptionTree, topic: str) -> Plan:
    """One entry a subscriber, however many of its filters match."""
    plan = Plan()
    found: dict[Subscriber, list[Subscription]] = {}
    for topic_filter, holder in tree.match(topic):  # [MQTT-3.3.2-3] [MQTT-4.5.0-1] [MQTT3-3.3.2-3] [MQTT3-4.5.0-1]
        if isinstance(holder, SharedGroup):
            plan.groups.append(holder)
        else:
            found.setdefault(holder, []).append(holder.subscriptions[topic_filter])
    for subscriber, subscriptions in found.items():
        if not subscriber.may_receive(topic):
            continue
        if all(map(is_plain, subscriptions)):
            plan.plain.append(subscriber)
            plan.by_qos[max(subscriptions)].append(subscriber)
        else:
            plan.special.append(Match(subscriber, subscriptions))
    plan.is_plain = bool(plan.plain) and not plan.special and not plan.groups
    if plan.is_plain and len(plan.plain) == 1:
        plan.only_qos = 2 if plan.by_qos[2] else 1 if plan.by_qos[1] else 0
    return plan


class Route:
    """What a topic leads to.

    ``address`` names a P2P target, ``target`` is its client id, ``target_topic`` its business topic.
    ``session`` is the one that was found under it last, where messages may go straight to it while it has this
    ``encoding``.

    ``refusal`` is what whoever publishes here hears: the topic has the P2P form and is wrong (``is_malformed``), it
    starts with ``$``, or its router failed (``is_broken``: not kept, so the router is asked again).  A refusal
    ``is_for_clients`` where the broker's own process may do what they may not.  ``is_forwarded``: its messages go out
    under the name that they came with.  ``name`` is the topic as text, ``topic`` as bytes.  ``plan`` is None until it
    is needed; ``head`` is all but the payload of the last QoS 0 frame that went along here to a P2P target.
    """

    __slots__ = (
        "address",
        "encoding",
        "head",
        "head_sender",
        "head_size",
        "is_broken",
        "is_for_clients",
        "is_forwarded",
        "is_malformed",
        "name",
        "plan",
        "refusal",
        "session",
        "target",
        "target_topic",
        "topic",
    )

    def __init__(self, topic: bytes, name: str) -> None:
        self.topic = topic
        self.name = name
        self.address: P2PAddress | None = None
        self.session: Session | None = None
        self.encoding = 0
        self.target = ""
        self.target_topic = b""
        self.is_broken = False
        self.is_for_clients = False
        self.is_forwarded = True
        self.is_malformed = False
        self.refusal: Outcome | None = None
        self.plan: Plan | None = None
        self.head = b""
        self.head_sender: Publisher | None = None
        self.head_size = -1

    def refuse(self, outcome: Outcome, is_for_clients: bool = False, is_malformed: bool = False) -> None:
        """Nobody, or no client, may publish here."""
        self.refusal = outcome
        self.is_for_clients = is_for_clients
        self.is_malformed = is_malformed

    def leads_like(self, other: Route) -> bool:
        """Does what was answered for ``other``, a route of this topic, hold for this one too?"""
        return self.address == other.address and self.refusal is other.refusal


class RouteTable(dict[bytes, Route]):
    """Routes by topic name in bytes; a missing one is made by ``build``."""

    def __init__(self, build: Callable[[bytes], Route], tree: SubscriptionTree) -> None:
        super().__init__()
        self._build = build
        self._tree = tree
        self._planned = TopicIndex()

    def __missing__(self, topic: bytes) -> Route:
        route = self._build(topic)
        if route.is_broken:
            return route
        if len(self) >= MAX_ROUTES:
            for old in list(islice(self.values(), MAX_ROUTES // 8)):
                self._unplan(old)
                del self[old.topic]
        self[topic] = route
        return route

    def plan(self, route: Route) -> Plan:
        """The route's plan, made now if need be."""
        if route.plan is None:
            route.plan = make_plan(self._tree, route.name)
            if route.topic in self:  # an evicted route may still be in somebody's hands
                self._planned.add(route.name)
        return route.plan

    def invalidate(self, topic_filter: str) -> None:
        """A subscription to this filter (share name taken off) came or went: the plans it touches are made anew."""
        if is_wild(topic_filter):
            for name in list(self._planned.matching(topic_filter)):
                self._unplan(self[name.encode()])
        elif (route := self.get(topic_filter.encode())) is not None:
            self._unplan(route)

    def _unplan(self, route: Route) -> None:
        if route.plan is not None:
            route.plan = None
            self._planned.discard(route.name)

    def forget(self) -> None:
        """Everything is asked again."""
        self.clear()
        self._planned = TopicIndex()
