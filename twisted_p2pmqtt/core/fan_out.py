"""FanOut: an ordinary message to everybody whose subscription matches its topic.

Sections 3.3.4, 3.8.4 and 4.8 of MQTT 5.0.  Called by the broker with the plan of the message's route, in place of which
a P2P message has ``P2PDelivery``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.core.delivery import (
    ACCEPTED,
    NO_SUBSCRIBERS,
    ONLINE,
    STORE_UNAVAILABLE,
    TOO_LARGE,
    Delivery,
    Outcome,
)
from twisted_p2pmqtt.core.routes import Match, Plan, encode_identifiers
from twisted_p2pmqtt.core.subscriptions import QOS, RETAIN_AS_PUBLISHED

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.publisher import Publisher
    from twisted_p2pmqtt.core.subscriber import Subscriber
    from twisted_p2pmqtt.core.subscriptions import SharedGroup


class FanOut:
    """Delivers by plan."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def publish(self, plan: Plan, message: Message, publisher: Publisher) -> Outcome:
        """One copy to each subscriber of the plan; the outcome is what the publisher is told of all of them."""
        if message.qos:
            if plan.only_qos:
                return self._send_to_only(plan, message)
        elif plan.is_plain:
            self._send_qos0(plan.plain, message)
            return ACCEPTED
        outcomes: set[Outcome] = set()
        if message.qos:
            self._send_acknowledged(plan, message, outcomes)
        elif plan.plain:
            self._send_qos0(plan.plain, message)
            outcomes.add(ACCEPTED)
        for match in plan.special:
            outcomes.add(self._send_special(match, message, publisher))
        for group in plan.groups:
            outcomes.add(self.send_shared(group, message))
        return sum_up(outcomes)

    def _send_to_only(self, plan: Plan, message: Message) -> Outcome:
        qos = min(message.qos, plan.only_qos)  # [MQTT-3.8.4-8] [MQTT3-3.8.4-6]
        outcome = plan.plain[0].deliver(Delivery(message, qos))
        return ACCEPTED if outcome is ONLINE else sum_up({outcome})

    def _send_qos0(self, subscribers: list[Subscriber], message: Message) -> None:
        touched = self._broker.touched
        shared: Delivery | None = None
        for subscriber in subscribers:
            encoding = subscriber.encoding
            if encoding == 4:
                frame = message.frame_v3 or message.frame(4)
            elif encoding == 5:
                frame = message.frame_v5 or message.frame(5)
            else:
                shared = shared or Delivery(message, 0)
                subscriber.deliver(shared)
                continue
            sink = subscriber.sink
            if not sink:
                touched.append(subscriber.connection)
            sink.append(frame)

    def _send_acknowledged(self, plan: Plan, message: Message, outcomes: set[Outcome]) -> None:
        if plan.by_qos[0]:
            self._send_qos0(plan.by_qos[0], message)
            outcomes.add(ACCEPTED)
        for qos in (1, 2):
            subscribers = plan.by_qos[qos]
            if subscribers:
                delivery = Delivery(message, min(qos, message.qos))  # [MQTT-3.8.4-8] [MQTT3-3.8.4-6]
                for subscriber in subscribers:
                    outcomes.add(subscriber.deliver(delivery))

    def _send_special(self, match: Match, message: Message, publisher: Publisher) -> Outcome:
        if match.subscriber.client_id == publisher.client_id:
            heard = match.without_local()  # [MQTT-3.8.3-3]
            if heard is None:
                return NO_SUBSCRIBERS
            match = heard
        retain = message.retain if match.retain_as_published else 0  # [MQTT-3.3.1-12] [MQTT-3.3.1-13] [MQTT3-3.3.1-9]
        return match.subscriber.deliver(Delivery(message, min(match.qos, message.qos), retain, match.extra))

    def send_shared(self, group: SharedGroup, message: Message) -> Outcome:
        """To one member of the group."""
        topic = message.topic.decode()
        subscriber = group.choose(lambda subscriber: subscriber.may_receive(topic))
        if subscriber is None:
            return NO_SUBSCRIBERS
        subscription = subscriber.subscriptions[group.topic_filter]
        retain = message.retain if subscription & RETAIN_AS_PUBLISHED else 0
        # [MQTT-4.8.2-3]
        delivery = Delivery(message, min(subscription & QOS, message.qos), retain, encode_identifiers([subscription]))
        delivery.group = group
        return subscriber.deliver(delivery)


def sum_up(outcomes: set[Outcome]) -> Outcome:
    """What the publisher is told of several deliveries: a refusal only where nobody took the message, or where somebody
    could not store it.  A client that takes no packet as large counts as served [MQTT-3.1.2-25].
    """
    if STORE_UNAVAILABLE in outcomes:
        return STORE_UNAVAILABLE
    outcomes.discard(NO_SUBSCRIBERS)
    for outcome in outcomes:
        if outcome.reason_code < 0x80 or outcome is TOO_LARGE:
            return ACCEPTED
    return outcomes.pop() if outcomes else NO_SUBSCRIBERS
