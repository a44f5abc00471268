"""P2PDelivery: a message that names its target, to that target's session and to nobody else.

Sections 4 and 5 of the project's P2P page.  Called by the broker in place of the subscription fan-out once the topic's
route has an address and the sender may use it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.codec.message import Message, encode_head
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.delivery import (
    ACCEPTED,
    DENIED,
    NO_SESSION,
    OFFLINE_QOS0,
    ONLINE,
    QUEUED,
    QUOTA_EXCEEDED,
    TOO_LARGE,
    Awaited,
    Delivery,
    Outcome,
)
from twisted_p2pmqtt.core.endpoints import Endpoint
from twisted_p2pmqtt.core.limits import P2POptions
from twisted_p2pmqtt.core.p2p import P2PAddress
from twisted_p2pmqtt.core.publisher import NO_STAMP, SENDER, stamp_of
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
        self._sessions = broker.sessions
        self._stats = broker.stats
        self.options = options
        # What the options come to on the way of each message.
        self._has_business_topic = options.deliver_topic == "business"
        self._hides = options.hide_presence
        self._is_stamped = options.stamp_sender
        self._max_queued = options.max_queued
        self._is_direct = self._has_business_topic and not options.hide_presence and not options.check_receive

    def publish(self, route: Route, message: Message, publisher: Publisher) -> Outcome:
        """One copy to the target's session; the outcome is what the sender may know."""
        target = route.session
        if target is None or target.encoding != route.encoding:
            target = self._find(route)
        if target is None or message.properties or message.retain:
            return self._publish(route, message, publisher)
        # Nothing but the topic changes, and the sender's name comes in where the target can read it.
        if message.qos:
            stamp = (publisher.stamp or stamp_of(publisher)) if self._is_stamped else NO_STAMP
            message.readdress(route.target_topic, stamp.properties, stamp.block)
            delivery = Delivery(message, message.qos, 0, b"", True)
            if len(target.inflight) < target.quota:
                outcome = target.deliver(delivery)
                if outcome is ONLINE:
                    self._stats.p2p_delivered += 1
                    return ONLINE
                return self._count(outcome)
            return self._deliver(target, delivery, publisher)
        payload = message.body[message.start :] if message.start else message.body
        if route.head_size != len(payload) or (route.head_sender is not publisher and route.encoding == 5):
            self._encode_head(route, len(payload), publisher)
        sink = target.sink
        if not sink:
            self._broker.touched.append(target.connection)
        sink.append(route.head + payload)
        self._stats.p2p_delivered += 1
        return ONLINE

    def _encode_head(self, route: Route, size: int, publisher: Publisher) -> None:
        """Have the route keep how a QoS 0 frame begins; messages of one topic tend to have one sender and one size."""
        block = b""
        if route.encoding == 5:
            block = (stamp_of(publisher) if self._is_stamped else NO_STAMP).block
        route.head = encode_head(route.target_topic, 0, len(block) + size) + block
        route.head_size, route.head_sender = size, publisher

    def _find(self, route: Route) -> Session | None:
        """The target's session where messages may go straight to it, which the route then remembers: one with an
        encoding is connected, and so is still the client's.
        """
        target = self._sessions.get(route.target)
        if target is None or not target.encoding or not self._is_direct:
            route.session = None
        elif route.session is not target or route.encoding != target.encoding:
            route.session, route.encoding, route.head_size = target, target.encoding, -1
        return route.session

    def _publish(self, route: Route, message: Message, publisher: Publisher) -> Outcome:
        """The same with all that options, properties and absent targets ask for."""
        broker, options = self._broker, self.options
        target: Subscriber | None = self._sessions.get(route.target)
        if self._hides and isinstance(publisher, Session) and publisher.connection is not None:
            broker.touched.append(publisher.connection)  # its acknowledgement is written before the target's message
        if message.retain:
            broker.stats.p2p_retain_ignored += 1
            message.retain = 0
        if target is None:
            target = broker.endpoints.get(route.target)
        if target is None:
            outcome = self._drop(route.target, message, "p2p_dropped_unknown")
            if self._hides:
                self._pretend(message, publisher)
        else:
            topic = route.target_topic if self._has_business_topic else self._delivered_topic(route, publisher)
            if options.check_receive and not target.may_receive(topic.decode()):
                # Told like a target that is not there: what it may hear is not the sender's business.
                outcome = self._drop(route.target, message, "p2p_dropped_denied")
            else:
                outcome = self._hand_over(target, message, topic, publisher)
        if self._hides and outcome in (ONLINE, QUEUED, NO_SESSION, OFFLINE_QOS0):
            return ACCEPTED
        return outcome

    def _pretend(self, message: Message, publisher: Publisher) -> None:
        """Take the time that a delivery takes: the clock is not to tell what the acknowledgement hides."""
        self._address(message, message.topic, publisher)
        delivery = Delivery(message, message.qos, 0, b"", True)
        delivery.halves(5)
        delivery.halves(4)  # stands for what the target's queue and window take

    def _delivered_topic(self, route: Route, publisher: Publisher) -> bytes:
        if self.options.deliver_topic == "original":
            return route.topic
        # An address may be of a class of the embedder's, and may know no way back: an answer is never broadcast.
        topic = self._broker.guard.call(cast(P2PAddress, route.address).reply_topic, publisher.client_id)
        try:
            reply: bytes = topic.encode()
            return reply if self._broker.routes[reply].target == publisher.client_id else route.target_topic
        except (AttributeError, UnicodeError, MQTTError):
            return route.target_topic

    def send(
        self,
        client_id: str,
        message: Message,
        publisher: Publisher,
        confirmed: Callable[[Outcome], object] | None = None,
    ) -> Outcome:
        """Send to a client by id rather than by topic; ``message.topic`` is what it hears."""
        broker = self._broker
        if broker.observers:
            marker = getattr(broker.router, "marker", "p2p")
            address = P2PAddress(client_id, message.topic.decode(), marker=str(marker))
            broker.observers.published(publisher, message, True, address.canonical.encode())
        target: Subscriber | None = broker.sessions.get(client_id) or broker.endpoints.get(client_id)
        if target is None:
            return self._drop(client_id, message, "p2p_dropped_unknown")
        if self.options.check_receive and not target.may_receive(message.topic.decode()):
            self._drop(client_id, message, "p2p_dropped_denied")
            return DENIED
        self._address(message, message.topic, publisher)
        delivery = Delivery(message, message.qos, 0, b"", True)
        delivery.confirmed = confirmed
        return self._deliver(target, delivery, publisher)

    def _drop(self, client_id: str, message: Message, counter: str) -> Outcome:
        stats, observers = self._broker.stats, self._broker.observers
        setattr(stats, counter, getattr(stats, counter) + 1)
        if observers:
            observers.dropped_p2p(client_id, message, counter)
        return NO_SESSION

    def _hand_over(self, target: Subscriber, message: Message, topic: bytes, publisher: Publisher) -> Outcome:
        if message.properties:
            timeout = wanted_acknowledgement(message) if message.qos else 0
            self._address(message, topic, publisher)
            if timeout and isinstance(publisher, Session) and not self._hides:
                return self._deliver_awaited(target, Delivery(message, message.qos, 0, b"", True), publisher, timeout)
        else:
            stamp = stamp_of(publisher) if self._is_stamped else NO_STAMP
            message.readdress(topic, stamp.properties, stamp.block)
        return self._deliver(target, Delivery(message, message.qos, 0, b"", True), publisher)

    def _deliver_awaited(self, target: Subscriber, delivery: Delivery, publisher: Publisher, timeout: int) -> Outcome:
        """The sender wants to hear of the target's acknowledgement; without a connected target it hears at once."""
        awaited = Awaited(timeout)
        delivery.confirmed = awaited.confirmation.callback
        outcome = self._deliver(target, delivery, publisher)
        return awaited if outcome is ONLINE or (outcome is QUEUED and target.is_connected) else outcome

    def _address(self, message: Message, topic: bytes, publisher: Publisher) -> None:
        """Set what the target hears: the topic, and the true sender in place of what a client claims to be one."""
        if not message.properties:
            stamp = stamp_of(publisher) if self._is_stamped else NO_STAMP
            message.readdress(topic, stamp.properties, stamp.block)
            return
        properties = Properties(**message.properties)
        pairs = [pair for pair in properties.get("user_properties", ()) if pair[0] != SENDER]
        if self.options.stamp_sender:
            pairs.append((SENDER, publisher.client_id))
        properties.pop("user_properties", None)
        if pairs:
            properties["user_properties"] = pairs
        message.readdress(topic, properties)

    def _deliver(self, target: Subscriber, delivery: Delivery, publisher: Publisher) -> Outcome:
        if target.__class__ is not Session:
            outcome = cast(Endpoint, target).serve(delivery, publisher)
        elif not delivery.qos or len(target.inflight) < target.quota or self._has_queue_room(target, delivery):
            outcome = target.deliver(delivery)
        else:
            self._broker.count_drop(target, delivery, "dropped_queue_full")
            outcome = QUOTA_EXCEEDED
        return self._count(outcome)

    def _count(self, outcome: Outcome) -> Outcome:
        counter = _COUNTERS.get(outcome, "p2p_dropped_quota")
        setattr(self._stats, counter, getattr(self._stats, counter) + 1)
        return outcome

    def _has_queue_room(self, target: Session, delivery: Delivery) -> bool:
        """Does the target's queue take one more P2P message, perhaps by dropping its oldest ones?  The limits that hold
        for every message the session asks itself.
        """
        queue = target.queue
        if queue.p2p >= self._max_queued:
            target.drop_expired()
        if self.options.overflow != "drop_oldest":
            return queue.p2p < self._max_queued
        size = delivery.message.size
        if queue.p2p < self._max_queued and target.has_queue_room(size):
            return True
        return target.make_room_for_p2p(size, self._max_queued)


_COUNTERS = {
    ONLINE: "p2p_delivered",
    QUEUED: "p2p_queued",
    OFFLINE_QOS0: "p2p_dropped_qos0_offline",
    TOO_LARGE: "p2p_dropped_too_large",
}

WANTS_ACKNOWLEDGEMENT = ("p2p-ack", "target")
TIMEOUT = "p2p-timeout"
DEFAULT_TIMEOUT, MAX_TIMEOUT = 5, 15


def wanted_acknowledgement(message: Message) -> int:
    """The seconds that the sender wants to wait for the target's acknowledgement, 0 where it did not ask for it.

    A ``p2p-timeout`` out of its range is taken to its nearer end, one that is no whole number as not said.
    """
    pairs = message.properties.get("user_properties", ())
    if WANTS_ACKNOWLEDGEMENT not in pairs:
        return 0
    for name, value in pairs:
        if name == TIMEOUT and value.isascii() and value.isdigit():
            return min(max(int(value[:9]), 1), MAX_TIMEOUT)
    return DEFAULT_TIMEOUT
