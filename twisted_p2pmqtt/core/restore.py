"""Restore: from the store's records to sessions, queues and retained messages, as they were when the broker stopped.

Records come in lists, with turns of the reactor in between.  Nothing is sent, published or expired before all are here
(``Broker.advance`` waits): a will must find every subscriber.  Stored times are wall-clock seconds.  What has passed
since then is taken off intervals, and never less than nothing: a clock that was set back only makes things last longer.

A session whose client was connected when the broker was killed has lost its connection now.

A will is stored only when its client was allowed to publish it, at CONNECT and at each later login, and that answer
stands: nobody who could be asked anew is left of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted_p2pmqtt.codec.message import RETAIN, Message
from twisted_p2pmqtt.core.delivery import Delivery, Released
from twisted_p2pmqtt.core.records import DeliveryRecord, MessageRecord, RetainedRecord, SessionRecord
from twisted_p2pmqtt.core.session import NO_INFLIGHT, Session
from twisted_p2pmqtt.core.subscriptions import make_subscription
from twisted_p2pmqtt.core.wills import PendingWill

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker


class Restorer:
    """Puts the records of one restore where they belong."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._now = broker.wheel.clock()
        self._wall = broker.wall()
        self._waiting: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self._take: dict[type, Callable[[Any], None]] = {
            SessionRecord: self._session,
            DeliveryRecord: self._delivery,
            RetainedRecord: self._retained,
        }

    def receive(self, records: list[Any]) -> None:
        """Take some records."""
        for record in records:
            self._take[type(record)](record)

    def afterwards(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call this when all is here."""
        self._waiting.append((function, arguments))

    def finish(self) -> None:
        """All records are here."""
        broker = self._broker
        for client_id in broker.endpoints.keys() & broker.sessions.keys():
            broker.registry.end(broker.sessions[client_id])  # an id that the process serves itself now
        waiting, self._waiting = self._waiting, []
        for function, arguments in waiting:
            function(*arguments)

    def _session(self, record: SessionRecord) -> None:
        broker = self._broker
        session = Session(broker, record.client_id)
        broker.sessions[record.client_id] = session
        session.is_durable = True
        session.expiry_interval = record.expiry_interval
        for one in record.subscriptions:
            subscription = make_subscription(one.qos, one.no_local, one.retain_as_published, one.identifier)
            broker.subscribe_filter(session, one.topic_filter, subscription)
        if record.received:
            session.received = set(record.received)
        if record.will is not None:
            session.will = PendingWill(broker, record.client_id, record.will, None)
        away = 0.0 if record.left_at is None else max(0.0, self._wall - record.left_at)
        session.left_at = self._now - away
        broker.registry.await_end(session, away)
        if record.left_at is None:
            broker.registry.save(session)

    def _delivery(self, record: DeliveryRecord) -> None:
        session = self._broker.sessions[record.client_id]
        message = self._message(record.message)
        if record.packet_id and session.inflight is NO_INFLIGHT:
            session.inflight = {}
        if record.is_released:
            session.inflight[record.packet_id] = Released(record.sequence)
            return
        delivery = Delivery(message, record.qos, record.retain, record.extra, record.is_p2p)
        delivery.sequence = record.sequence
        if record.packet_id:
            session.inflight[record.packet_id] = delivery
        else:
            session.queue.add(delivery)

    def _retained(self, record: RetainedRecord) -> None:
        message = self._message(record.message)
        message.retain = RETAIN
        self._broker.keep_retained(record.topic, message)

    def _message(self, record: MessageRecord) -> Message:
        if record.made is None:
            message = Message(record.topic, record.payload, 0, record.qos, properties=record.properties)
            if record.expires_at is not None:
                left = record.expires_at - self._wall
                interval = record.properties.get("message_expiry_interval")
                message.expires_at = self._now + (left if interval is None else min(left, interval))
            record.made = message
        made: Message = record.made
        return made
