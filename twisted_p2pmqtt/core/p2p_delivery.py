"""P2PDelivery: a message that names its target, to that target's session and to nobody else.

Sections 4 and 5 of the project's P2P page.  Called by the broker in place of the subscription fan-out once the topic's
route has an address and the sender may use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted_p2pmqtt.codec.message import Message, encode_head
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
from twisted_p2pmqtt.core.publisher import NO_STAMP, SENDER
from twisted_p2pmqtt.core.routes import Route

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.publisher import Publisher
    from twisted_p2pmqtt.core.subscriber import Subscriber


class P2PDelivery:
    """Delivers to addresses, by the options of the ``[p2p]`` table."""

    def __init__(self, broker: Broker, options: P2POptions) -> None:
        self._broker = broker
        self.options = options
        # What the options come to on the way of each message.
        self._has_business_topic = options.deliver_topic == "business"
        self._is_stamped = options.stamp_sender
        self._max_queued = options.max_queued

    def publish(self, route: Route, message: Message, publisher: Publisher) -> Outcome:
        """One copy to the target's session; the outcome is what the sender may know."""
        broker, options = self._broker, self.options
        if route.names_reserved_topic and not publisher.is_local:
            broker.stats.p2p_dropped_malformed += 1
            return TOPIC_INVALID
        if message.retain:
            broker.stats.p2p_retain_ignored += 1
            message.retain = 0
        target: Subscriber | None = broker.sessions.get(route.target)
        if target is None:
            target = broker.endpoints.get(route.target)
        if target is None:
            broker.stats.p2p_dropped_unknown += 1
            outcome = NO_SESSION
        else:
            topic = route.target_topic if self._has_business_topic else self._delivered_topic(route, publisher)
            if options.check_receive and not target.may_receive(topic.decode()):
                broker.stats.p2p_dropped_denied += 1
                outcome = OFFLINE_QOS0
            else:
                outcome = self._hand_over(target, message, topic, publisher)
        if options.hide_presence and outcome in (ONLINE, QUEUED, NO_SESSION, OFFLINE_QOS0):
            return ACCEPTED
        return outcome

    def _delivered_topic(self, route: Route, publisher: Publisher) -> bytes:
        if self.options.deliver_topic == "original":
            return route.topic
        assert route.address is not None
        return route.address.reply_topic(publisher.client_id).encode()

    def send(
        self, client_id: str, message: Message, publisher: Publisher, confirmed: Callable[[int], None] | None = None
    ) -> Outcome:
        """Send to a client by id rather than by topic; ``message.topic`` is what it hears."""
        broker = self._broker
        target: Subscriber | None = broker.sessions.get(client_id) or broker.endpoints.get(client_id)
        if target is None:
            broker.stats.p2p_dropped_unknown += 1
            return NO_SESSION
        self._address(message, message.topic, publisher)
        delivery = Delivery(message, message.qos, 0, b"", True)
        delivery.confirmed = confirmed
        return self._deliver(target, delivery)

    def _hand_over(self, target: Subscriber, message: Message, topic: bytes, publisher: Publisher) -> Outcome:
        encoding = target.encoding
        if not message.qos and (encoding == 4 or (encoding == 5 and not message.properties)):
            # Nothing but the topic changes, and the sender's name comes in where the target can read it.
            sink = target.sink
            if not sink:
                self._broker.touched.append(target.connection)
            payload = message.payload
            if encoding == 4:
                sink.append(encode_head(topic, 0, len(payload)) + payload)
            else:
                block = publisher.stamp.block if self._is_stamped else NO_STAMP.block
                sink.append(encode_head(topic, 0, len(block) + len(payload)) + block + payload)
            self._broker.stats.p2p_delivered += 1
            return ONLINE
        if message.properties:
            self._address(message, topic, publisher)
        else:
            stamp = publisher.stamp if self._is_stamped else NO_STAMP
            message.readdress(topic, stamp.properties, stamp.body)
        return self._deliver(target, Delivery(message, message.qos, 0, b"", True))

    def _address(self, message: Message, topic: bytes, publisher: Publisher) -> None:
        """Set what the target hears: the topic, and the true sender in place of what a client claims to be one."""
        if not message.properties:
            stamp = publisher.stamp if self._is_stamped else NO_STAMP
            message.readdress(topic, stamp.properties, stamp.body)
            return
        properties = Properties(**message.properties)
        pairs = [pair for pair in properties.get("user_properties", ()) if pair[0] != SENDER]
        if self.options.stamp_sender:
            pairs.append((SENDER, publisher.client_id))
        properties.pop("user_properties", None)
        if pairs:
            properties["user_properties"] = pairs
        message.readdress(topic, properties)

    def _deliver(self, target: Subscriber, delivery: Delivery) -> Outcome:
        is_crowded = target.pending_p2p >= self._max_queued and delivery.qos
        if is_crowded and self.options.overflow == "reject":
            outcome = QUOTA_EXCEEDED
        else:
            if is_crowded:
                target.drop_oldest_p2p()
            outcome = target.deliver(delivery)
            if outcome is ONLINE:
                self._broker.stats.p2p_delivered += 1
                return ONLINE
            if outcome is QUOTA_EXCEEDED and self.options.overflow == "drop_oldest":
                target.drop_oldest_p2p()
                outcome = target.deliver(delivery)
        counter = _COUNTERS.get(outcome, "p2p_dropped_quota")
        stats = self._broker.stats
        setattr(stats, counter, getattr(stats, counter) + 1)
        return outcome


_COUNTERS = {
    ONLINE: "p2p_delivered",
    QUEUED: "p2p_queued",
    OFFLINE_QOS0: "p2p_dropped_qos0_offline",
    TOO_LARGE: "p2p_dropped_too_large",
}
