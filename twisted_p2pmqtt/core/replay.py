"""Replay: retained messages on their way to a new subscription (3.3.1.3), a few at a time.

A filter may match every retained topic.  So topics are noted, not messages: each is looked up when its turn comes,
and a subscriber never sees a value older than one it has seen.  A run ends after five milliseconds, when the client's
window is full, or when its socket takes nothing more, and goes on when there is room.
"""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING

from twisted_p2pmqtt.core.delivery import Delivery
from twisted_p2pmqtt.core.routes import encode_identifiers
from twisted_p2pmqtt.core.subscriber import Subscriber
from twisted_p2pmqtt.core.subscriptions import NO_LOCAL, QOS, Subscription

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker

SLICE = 0.005
"""Seconds that one run may take."""


class Replay:
    """The retained messages that one subscriber is still owed."""

    __slots__ = ("_broker", "_owed", "_subscriber", "is_scheduled")

    def __init__(self, broker: Broker, subscriber: Subscriber) -> None:
        self._broker = broker
        self._subscriber = subscriber
        self._owed: deque[tuple[str, Subscription, deque[str]]] = deque()
        self.is_scheduled = False

    def add(self, topic_filter: str, subscription: Subscription, topics: list[str]) -> None:
        """Owe the messages of these topics too, which the filter matches."""
        self._owed.append((topic_filter, subscription, deque(topics)))

    def forget(self, topic_filter: str) -> None:
        """The subscription with this filter ended or was replaced: nothing more is owed for it."""  # [MQTT-3.10.4-2]
        self._owed = deque(owed for owed in self._owed if owed[0] != topic_filter)

    def run(self) -> bool:
        """Send what can be sent now; True when nothing is owed any more."""
        end, subscriber = perf_counter() + SLICE, self._subscriber
        while self._owed:
            _, subscription, topics = self._owed[0]
            while topics:
                if not self._send(subscription, topics[0]):
                    return False
                topics.popleft()
                if perf_counter() >= end and topics:
                    self._broker.schedule_replay(subscriber)
                    return False
            self._owed.popleft()
        return True

    def _send(self, subscription: Subscription, topic: str) -> bool:
        subscriber = self._subscriber
        retained = self._broker.retained
        message = retained.get(topic, self._broker.wheel.now)
        if message is None or not subscriber.may_receive(topic):
            return True
        if subscription & NO_LOCAL and retained.publisher(topic) == subscriber.client_id:  # [MQTT-3.8.3-3]
            return True
        qos = min(subscription & QOS, message.qos)
        if not subscriber.has_room(qos):
            return False
        extra = encode_identifiers([subscription])
        subscriber.deliver(Delivery(message, qos, 1, extra))  # [MQTT-3.3.1-8] [MQTT3-3.3.1-6] [MQTT3-3.3.1-8]
        return True
