"""Endpoints: a callable of the embedding process that clients address over P2P like any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.delivery import ONLINE, Delivery, Outcome
from twisted_p2pmqtt.core.guard import name_of
from twisted_p2pmqtt.core.publisher import sender_stamp
from twisted_p2pmqtt.core.subscriber import ASK, Subscriber

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.routes import Route


class Endpoint(Subscriber):
    """A client id served from Python.

    ``handler(message)`` is called for each message sent to the id.  Bytes that it returns, or that its Deferred gives
    within five seconds, are published to the message's Response Topic with its Correlation Data, in this id's name.
    """

    __slots__ = ("_broker", "_handler", "avatar", "is_local", "stamp")

    def __init__(self, broker: Broker, client_id: str, handler: Callable[[Message], object]) -> None:
        self.client_id = client_id
        self.connection = None
        self.encoding = ASK
        self.sink = None
        self.replay = None
        self.is_local = True
        self.avatar: Any = None
        self.stamp = sender_stamp(client_id)
        self._broker = broker
        self._handler = handler

    def may_use(self, route: Route) -> bool:
        """An endpoint speaks with the rights of its process."""
        return True

    def deliver(self, delivery: Delivery) -> Outcome:
        """Call the handler and answer."""
        guard, message = self._broker.guard, delivery.message
        answer = guard.call(self._handler, message)
        if isinstance(answer, Deferred):
            guard.within_deadline(answer, name_of(self._handler)).addCallback(self._answer, message)
        else:
            self._answer(answer, message)
        if delivery.confirmed is not None:
            delivery.confirmed(0)
        return ONLINE

    def _answer(self, answer: object, request: Message) -> None:
        topic = request.properties.get("response_topic")
        if answer is None or topic is None:
            return
        if not isinstance(answer, bytes):
            self._broker.guard.reject(name_of(self._handler), answer, "bytes or None")
            return
        properties: Properties = {}
        if "correlation_data" in request.properties:
            properties["correlation_data"] = request.properties["correlation_data"]
        try:
            self._broker.publish_message(Message(topic.encode(), answer, 0, request.qos, properties=properties), self)
        except MQTTError:
            self._broker.stats.p2p_dropped_malformed += 1
        self._broker.schedule_flush()

    def unregister(self) -> None:
        """Give the id back; again does nothing."""
        if self._broker.endpoints.get(self.client_id) is self:
            del self._broker.endpoints[self.client_id]


def register_endpoint(broker: Broker, client_id: str, handler: Callable[[Message], object]) -> Endpoint:
    """Serve ``client_id`` with ``handler``; ValueError where the id is empty or taken."""
    if not client_id or client_id in broker.sessions or client_id in broker.endpoints:
        raise ValueError(f"client id {client_id!r} is empty or taken")
    endpoint = broker.endpoints[client_id] = Endpoint(broker, client_id, handler)
    return endpoint
