"""LocalClient: the embedding process as a client of its own broker: publish, subscribe, send to one client.

It may do everything, `$`-topics included, and needs no connection.  Call from the reactor's thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_p2pmqtt.codec.constants import PacketType, ReasonCode
from twisted_p2pmqtt.codec.errors import TopicNameInvalid
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.properties import TABLE, Properties
from twisted_p2pmqtt.codec.topics import check_topic_filter, check_topic_name, split_shared
from twisted_p2pmqtt.core.delivery import (
    EXPIRED,
    NO_SESSION,
    OFFLINE_QOS0,
    ONLINE,
    QUEUED,
    QUOTA_EXCEEDED,
    STORE_UNAVAILABLE,
    TIMED_OUT,
    Delivery,
    Outcome,
)
from twisted_p2pmqtt.core.publisher import NO_RIGHTS, Stamp
from twisted_p2pmqtt.core.subscriber import ASK, Subscriber
from twisted_p2pmqtt.core.subscriptions import make_subscription

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.routes import Route

CLIENT_ID = "$broker"
"""The sender that P2P messages of the process itself name; a client that says it has this id is refused."""

_PROPERTIES = frozenset(row.name for row in TABLE.values() if PacketType.PUBLISH in row.packets) - {
    "topic_alias",
    "subscription_identifiers",
}


@dataclass(frozen=True, slots=True)
class SendResult:
    """What became of ``send_to``.

    ``status`` is ``delivered`` (the target has acknowledged), ``sent`` (it is on its way to a connected target),
    ``queued``, ``no_session`` (nobody took it: no such session, or QoS 0 to one that is away), ``denied`` (refused by
    the target, not for it, or too large for it), ``quota`` or ``timeout``.
    """

    status: str
    reason_code: int


def check_qos(qos: int) -> None:
    """Raise ValueError unless it is one."""
    if qos not in (0, 1, 2):
        raise ValueError(f"QoS {qos!r} is none of 0, 1, 2")


class LocalClient:
    """The broker's own process as a publisher."""

    is_local = True
    avatar: Any = None
    rights = NO_RIGHTS
    client_id = CLIENT_ID

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.stamp: Stamp | None = None

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
        check_qos(qos)
        raw = topic.encode()
        check_topic_name(raw)
        limits = self._broker.limits
        if len(raw) > limits.max_topic_bytes:
            raise TopicNameInvalid("topic name is longer than this server allows")
        message = Message(raw, bytes(payload), 0, min(qos, limits.max_qos), int(retain))
        if properties:
            if unknown := properties.keys() - _PROPERTIES:
                raise ValueError(f"no property of a message: {', '.join(sorted(unknown))}")
            message.properties = Properties(**properties)
            message.encoded_properties()  # a value that cannot be encoded is told here, not to a subscriber
        interval = message.properties.get("message_expiry_interval")
        if interval is not None:
            message.expires_at = self._broker.wheel.now + interval
        return message

    def subscribe(self, topic_filter: str, callback: Callable[[Message], object], qos: int) -> LocalSubscription:
        """Call back for every message that the filter matches, retained ones first."""
        share_name, matched = split_shared(topic_filter)
        check_topic_filter(matched)
        check_qos(qos)
        local, subscription = LocalSubscription(self._broker, topic_filter, callback), make_subscription(qos)
        self._broker.subscribe_filter(local, topic_filter, subscription)
        if share_name is None:
            self._broker.replay(local, topic_filter, subscription)
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
        confirmation: Deferred[Outcome] = Deferred()
        outcome = broker.p2p.send(client_id, message, self, confirmation.callback if confirm and message.qos else None)
        broker.schedule_flush()
        target = broker.sessions.get(client_id)
        is_awaited = outcome is ONLINE or (outcome is QUEUED and target is not None and target.is_connected)
        if not (confirm and message.qos and is_awaited):
            return broker.commits.covering(_result(outcome), SendResult("quota", int(ReasonCode.QUOTA_EXCEEDED)))
        return self._await(confirmation, timeout)

    def _await(self, confirmation: Deferred[Outcome], timeout: float) -> Deferred[SendResult]:
        result: Deferred[SendResult] = Deferred()

        def finish(outcome: Outcome) -> None:
            timer.cancel()
            if not result.called:
                result.callback(_result(outcome))

        timer = self._broker.wheel.after(timeout, finish, TIMED_OUT)
        confirmation.addCallback(finish)
        return result


_STATUS: dict[Outcome, str] = {
    ONLINE: "sent",
    QUEUED: "queued",
    NO_SESSION: "no_session",
    OFFLINE_QOS0: "no_session",
    QUOTA_EXCEEDED: "quota",
    STORE_UNAVAILABLE: "quota",
    TIMED_OUT: "timeout",
    EXPIRED: "timeout",
}


def _result(outcome: Outcome) -> SendResult:
    status = _STATUS.get(outcome, "delivered" if outcome.reason_code < 0x80 else "denied")
    code = ReasonCode.NO_MATCHING_SUBSCRIBERS if status == "no_session" else outcome.reason_code
    return SendResult(status, int(code))


class LocalSubscription(Subscriber):
    """A callback of the embedding process as a subscriber; ``unsubscribe`` ends it."""

    __slots__ = ("_broker", "_callback", "_topic_filter")

    def __init__(self, broker: Broker, topic_filter: str, callback: Callable[[Message], object]) -> None:
        self.client_id = CLIENT_ID
        self.connection = None
        self.encoding = ASK
        self.sink = None
        self.replay = None
        self.subscriptions = {}
        self._topic_filter = topic_filter
        self._broker = broker
        self._callback = callback

    def deliver(self, delivery: Delivery) -> Outcome:
        """Call back; what the callback raises is counted and logged, and what it does to the message is its own."""
        self._broker.guard.notify(self._callback, delivery.message.copy())
        return ONLINE

    def unsubscribe(self) -> None:
        """Hear no more; again does nothing."""
        self._broker.unsubscribe_filter(self, self._topic_filter)
        self.replay = None
