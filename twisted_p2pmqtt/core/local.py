"""LocalClient: the embedding process as a client of its own broker: publish, subscribe, send to one client.

It may do everything, `$`-topics included, and needs no connection.  Call from the reactor's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.codec.topics import check_topic_filter, check_topic_name, split_shared
from twisted_p2pmqtt.core.delivery import (
    NO_SESSION,
    OFFLINE_QOS0,
    ONLINE,
    QUEUED,
    TOO_LARGE,
    Delivery,
    Outcome,
)
from twisted_p2pmqtt.core.publisher import sender_stamp
from twisted_p2pmqtt.core.subscriber import ASK, Subscriber
from twisted_p2pmqtt.core.subscriptions import Subscription

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.routes import Route

CLIENT_ID = "$broker"
"""The sender that P2P messages of the process itself name; no client can have it as its id in a topic of its own."""


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of ``send_to``: ``status`` is delivered, sent, queued, no_session, denied, quota or timeout."""

    status: str
    reason_code: int


class LocalClient:
    """The broker's own process as a publisher."""

    is_local = True
    avatar: Any = None
    client_id = CLIENT_ID

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.stamp = sender_stamp(CLIENT_ID)

    def may_use(self, route: Route) -> bool:
        """Always."""
        return True

    def publish(
        self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties | None
    ) -> Deferred[int]:
        """Publish; a Deferred of the reason code, fired when what must survive is stored."""
        broker = self._broker
        message = self._message(topic, payload, qos, retain, properties)
        outcome = broker.publish_message(message, self)
        broker.schedule_flush()
        return broker.commits.covering(int(outcome.reason_code), int(ReasonCode.QUOTA_EXCEEDED))

    def _message(self, topic: str, payload: bytes, qos: int, retain: bool, properties: Properties | None) -> Message:
        if qos not in (0, 1, 2):
            raise ValueError(f"QoS {qos!r} is none of 0, 1, 2")
        raw = topic.encode()
        check_topic_name(raw)
        message = Message(raw, bytes(payload), 0, qos, int(retain), properties=properties or Properties())
        interval = message.properties.get("message_expiry_interval")
        if interval is not None:
            message.expires_at = self._broker.wheel.now + interval
        return message

    def subscribe(self, topic_filter: str, callback: Callable[[Message], object], qos: int) -> LocalSubscription:
        """Call back for every message that the filter matches, retained ones first."""
        share_name, matched = split_shared(topic_filter)
        check_topic_filter(matched)
        local = LocalSubscription(self._broker, Subscription(topic_filter, qos), callback)
        self._broker.subscribe_filter(local, local.subscription)
        if share_name is None:
            self._broker.replay(local, local.subscription, matched)
        return local

    def send_to(
        self,
        client_id: str,
        topic: str,
        payload: bytes,
        qos: int,
        properties: Properties | None,
        confirm: bool,
        timeout: float,
    ) -> Deferred[SendResult]:
        """Send to one client's session, online or not."""
        broker = self._broker
        message = self._message(topic, payload, qos, False, properties)
        confirmation: Deferred[int] = Deferred()
        outcome = broker.p2p.send(client_id, message, self, confirmation.callback if confirm and qos else None)
        broker.schedule_flush()
        result = SendResult(_STATUS.get(outcome, "quota"), int(outcome.reason_code))
        target = broker.sessions.get(client_id)
        is_awaited = outcome is ONLINE or (outcome is QUEUED and target is not None and target.is_connected)
        if not (confirm and qos and is_awaited):
            return broker.commits.covering(result, SendResult("quota", int(ReasonCode.QUOTA_EXCEEDED)))
        return self._await(confirmation, timeout)

    def _await(self, confirmation: Deferred[int], timeout: float) -> Deferred[SendResult]:
        result: Deferred[SendResult] = Deferred()

        def finish(status: str, reason_code: int) -> None:
            timer.cancel()
            if not result.called:
                result.callback(SendResult(status, reason_code))

        timer = self._broker.wheel.after(timeout, finish, "timeout", int(ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR))
        confirmation.addCallback(lambda code: finish("delivered" if code < 0x80 else "denied", code))
        return result


_STATUS: dict[Outcome, str] = {
    ONLINE: "sent",
    QUEUED: "queued",
    NO_SESSION: "no_session",
    OFFLINE_QOS0: "no_session",
    TOO_LARGE: "denied",
}


class LocalSubscription(Subscriber):
    """A callback of the embedding process as a subscriber; ``unsubscribe`` ends it."""

    __slots__ = ("_broker", "_callback", "subscription")

    def __init__(self, broker: Broker, subscription: Subscription, callback: Callable[[Message], object]) -> None:
        self.client_id = CLIENT_ID
        self.connection = None
        self.encoding = ASK
        self.sink = None
        self.replay = None
        self.subscription = subscription
        self._broker = broker
        self._callback = callback

    def deliver(self, delivery: Delivery) -> Outcome:
        """Call back; what the callback raises is counted and logged."""
        self._broker.guard.call(self._callback, delivery.message)
        return ONLINE

    def unsubscribe(self) -> None:
        """Hear no more; again does nothing."""
        self._broker.unsubscribe_filter(self, self.subscription)
        self.replay = None
