"""Endpoints: a callable of the embedding process that clients address over P2P like any device.

An endpoint has the rights of its process, so its answer must not lend them to the requester, who chose the Response
Topic.  An answer therefore goes only where the requester itself could publish, or to the requester over P2P.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import Deferred

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.delivery import ONLINE, Delivery, Outcome, acknowledged
from twisted_p2pmqtt.core.guard import name_of
from twisted_p2pmqtt.core.publisher import NO_RIGHTS, Stamp, ask_right
from twisted_p2pmqtt.core.subscriber import ASK, Subscriber

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.publisher import Publisher
    from twisted_p2pmqtt.core.routes import Route

_FAILED = object()


class _Request(NamedTuple):
    """What a handler was given, and whose rights its answer has: those that the requester has now, for it may be gone
    by then."""

    delivery: Delivery
    client_id: str
    avatar: Any
    is_local: bool


class Endpoint(Subscriber):
    """A client id served from Python.

    ``handler(message)`` is called for each message sent to the id.  Bytes that it returns, or that its Deferred gives
    within five seconds, are published to the message's Response Topic with its Correlation Data, in this id's name. A
    sender that waits for the acknowledgement has it when the handler is done, 0x83 where that fails.
    """

    __slots__ = ("_broker", "_handler", "avatar", "is_local", "stamp")

    rights = NO_RIGHTS

    def __init__(self, broker: Broker, client_id: str, handler: Callable[[Message], object]) -> None:
        self.client_id = client_id
        self.connection = None
        self.encoding = ASK
        self.sink = None
        self.replay = None
        self.is_local = True
        self.avatar: Any = None
        self.stamp: Stamp | None = None
        self._broker = broker
        self._handler = handler

    def may_use(self, route: Route) -> bool:
        """An endpoint speaks with the rights of its process; ``_may_answer`` keeps it from lending them."""
        return True

    def serve(self, delivery: Delivery, requester: Publisher) -> Outcome:
        """Call the handler and answer."""
        guard = self._broker.guard
        request = _Request(delivery, requester.client_id, requester.avatar, requester.is_local)
        answer = guard.call(self._handler, delivery.message.copy(), otherwise=_FAILED)
        if isinstance(answer, Deferred):
            waiting = guard.within_deadline(answer, name_of(self._handler), otherwise=_FAILED)
            waiting.addCallback(self._answered, request)
        else:
            self._answered(answer, request)
        return ONLINE

    def _answered(self, answer: object, request: _Request) -> None:
        if answer is not None and answer is not _FAILED and not isinstance(answer, bytes):
            self._broker.guard.reject(name_of(self._handler), answer, "bytes or None")
            answer = _FAILED
        if request.delivery.confirmed is not None:
            code = ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR if answer is _FAILED else ReasonCode.SUCCESS
            request.delivery.confirmed(acknowledged(code))
        topic = request.delivery.message.properties.get("response_topic")
        if not isinstance(answer, bytes) or topic is None:
            return
        try:
            route = self._broker.routes[topic.encode()]
        except MQTTError:
            self._broker.stats.p2p_dropped_malformed += 1
            return
        right = self._may_answer(route, request)
        if isinstance(right, Deferred):
            right.addCallback(self._answer, route, answer, request)
        else:
            self._answer(right, route, answer, request)

    def _may_answer(self, route: Route, request: _Request) -> bool | Deferred[bool]:
        if request.is_local:
            return True
        if route.refusal is not None:
            return False
        if request.avatar is None or (route.address is not None and route.target == request.client_id):
            return True
        return ask_right(self._broker.guard, request.avatar, route)

    def _answer(self, is_allowed: bool, route: Route, answer: bytes, request: _Request) -> None:
        if not is_allowed or not self._broker.routes[route.topic].leads_like(route):
            self._broker.stats.p2p_dropped_denied += 1
            return
        message = request.delivery.message
        properties: Properties = {}
        if "correlation_data" in message.properties:
            properties["correlation_data"] = message.properties["correlation_data"]
        self._broker.publish_message(Message(route.topic, answer, 0, message.qos, properties=properties), self)
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
