"""P2PDelivery: a message that names its target, to that target's session and to nobody else.

Sections 4 and 5 of the project's P2P page.  Called by the broker in place of the subscription fan-out once the topic's
route has an address and the sender may use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.delivery import (
    ACCEPTED,
    NO_SESSION,
    OFFLINE_QOS0,
    ONLINE,
    QUEUED,
    QUOTA_EXCEEDED,
    TOO_LARGE,
    TOPIC_INVALID,
    Delivery,
    Outcome,
)
from twisted_p2pmqtt.core.limits import P2POptions
from twisted_p2pmqtt.core.publisher import SENDER
from twisted_p2pmqtt.core.routes import Route
from twisted_p2pmqtt.core.session import Session

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.publisher import Publisher
    from twisted_p2pmqtt.core.subscriber import Subscriber


class P2PDelivery:
    """Delivers to addresses, by the options of the ``[p2p]`` table."""

    def __init__(self, broker: Broker, options: P2POptions) -> None:
        self._broker = broker
        self.options = options

    def publish(self, route: Route, message: Message, publisher: Publisher) -> Outcome:
        """One copy to the target's session; the outcome is what the sender may know."""
        stats = self._broker.stats
        stats.p2p_received += 1
        address = route.address
        assert address is not None
        if address.topic.startswith("$") and not publisher.is_local:
            stats.p2p_dropped_malformed += 1
            return TOPIC_INVALID
        if message.retain:
            stats.p2p_retain_ignored += 1
            message.retain = 0
        outcome = self._deliver(route, address.client_id, message, publisher)
        if self.options.hide_presence and outcome in (ONLINE, QUEUED, NO_SESSION, OFFLINE_QOS0):
            return ACCEPTED
        return outcome

    def send(
        self, client_id: str, message: Message, publisher: Publisher, confirmed: Callable[[int], None] | None = None
    ) -> Outcome:
        """Send to a client by id rather than by topic; ``message.topic`` is what it hears."""
        broker = self._broker
        broker.stats.p2p_received += 1
        target: Subscriber | None = broker.sessions.get(client_id) or broker.endpoints.get(client_id)
        if target is None:
            broker.stats.p2p_dropped_unknown += 1
            return NO_SESSION
        self._address(message, message.topic, publisher)
        delivery = Delivery(message, message.qos, 0, b"", True)
        delivery.confirmed = confirmed
        return self._hand_over(target, delivery)

    def _deliver(self, route: Route, client_id: str, message: Message, publisher: Publisher) -> Outcome:
        broker, options = self._broker, self.options
        stats = broker.stats
        target: Subscriber | None = broker.sessions.get(client_id) or broker.endpoints.get(client_id)
        if target is None:
            stats.p2p_dropped_unknown += 1
            return NO_SESSION
        if options.deliver_topic == "business":
            topic = route.target_topic
        elif options.deliver_topic == "original":
            topic = message.topic
        else:
            assert route.address is not None
            topic = route.address.reply_topic(publisher.client_id).encode()
        if options.check_receive and not target.may_receive(topic.decode()):
            stats.p2p_dropped_denied += 1
            return NO_SESSION if options.hide_presence else OFFLINE_QOS0
        self._address(message, topic, publisher)
        if not message.qos and target.encoding:
            sink = target.sink
            if not sink:
                broker.touched.append(target.connection)
            sink.append(message.frame(target.encoding))
            stats.p2p_delivered += 1
            return ONLINE
        return self._hand_over(target, Delivery(message, message.qos, 0, b"", True))

    def _address(self, message: Message, topic: bytes, publisher: Publisher) -> None:
        """Set what the target hears: the topic, and the true sender in place of what a client claims to be one."""
        if not message.properties:
            if not self.options.stamp_sender:
                message.readdress(topic, message.properties)
                return
            properties, body = publisher.stamp
            message.readdress(topic, properties, body)
            return
        properties = Properties(**message.properties)
        pairs = [pair for pair in properties.get("user_properties", ()) if pair[0] != SENDER]
        if self.options.stamp_sender:
            pairs.append((SENDER, publisher.client_id))
        properties.pop("user_properties", None)
        if pairs:
            properties["user_properties"] = pairs
        message.readdress(topic, properties)

    def _hand_over(self, target: Subscriber, delivery: Delivery) -> Outcome:
        broker, options = self._broker, self.options
        stats = broker.stats
        if delivery.qos and isinstance(target, Session) and target.pending_p2p >= options.max_queued:
            if options.overflow == "reject":
                stats.p2p_dropped_quota += 1
                return QUOTA_EXCEEDED
            target.drop_oldest_p2p()
        outcome = target.deliver(delivery)
        if outcome is QUOTA_EXCEEDED and options.overflow == "drop_oldest" and isinstance(target, Session):
            target.drop_oldest_p2p()
            outcome = target.deliver(delivery)
        if outcome is ONLINE:
            stats.p2p_delivered += 1
        elif outcome is QUEUED:
            stats.p2p_queued += 1
        elif outcome is OFFLINE_QOS0:
            stats.p2p_dropped_qos0_offline += 1
        elif outcome is TOO_LARGE:
            stats.p2p_dropped_too_large += 1
        else:
            stats.p2p_dropped_quota += 1
        return outcome
