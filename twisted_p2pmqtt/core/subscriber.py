"""Subscriber: what the subscription tree, the delivery plans and shared groups know of whoever holds a subscription."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from twisted_p2pmqtt.core.delivery import Delivery, Outcome
from twisted_p2pmqtt.interfaces import ISubscriber

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.replay import Replay
    from twisted_p2pmqtt.core.subscriptions import Subscription

ASK = 0
"""``encoding`` of a subscriber whose every delivery goes through ``deliver``."""


@implementer(ISubscriber)
class Subscriber:
    """Base of ``Session`` and of in-process subscriptions.

    ``encoding`` is 4 or 5 where a plain QoS 0 frame of that version may be put straight into ``sink``, else ``ASK``.
    ``subscriptions`` is what was asked of each filter, ``$share/...`` included, that the tree names this holder of.
    """

    __slots__ = ("client_id", "connection", "encoding", "replay", "sink", "subscriptions")

    client_id: str
    connection: Any
    encoding: int
    replay: Replay | None
    sink: Any
    subscriptions: dict[str, Subscription]

    is_connected = True
    is_ready = True

    def deliver(self, delivery: Delivery) -> Outcome:
        """Take one message of any QoS; never raises."""
        raise NotImplementedError

    def has_room(self, qos: int) -> bool:
        """Would a message of this QoS go out now rather than wait or be dropped?"""
        return True

    def may_receive(self, topic: str) -> bool:
        """Has the subscriber the right to messages of this topic?"""
        return True
