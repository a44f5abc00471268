"""Observers: whoever is told what happens in the broker, after it happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zope.interface import implementer

from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.interfaces import IBrokerObserver

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.delivery import Delivery
    from twisted_p2pmqtt.core.guard import Guard
    from twisted_p2pmqtt.core.info import SessionInfo
    from twisted_p2pmqtt.core.subscriber import Subscriber


@implementer(IBrokerObserver)
class Observer:
    """An observer that ignores everything: override what you want to hear.  Set ``p2p`` to hear of P2P messages too."""

    p2p = False

    def connected(self, client_id: str, info: SessionInfo) -> None:
        """A CONNECT was accepted."""

    def disconnected(self, client_id: str, reason_code: int) -> None:
        """A connection ended."""

    def subscribed(self, client_id: str, topic_filter: str, qos: int) -> None:
        """A subscription was granted."""

    def unsubscribed(self, client_id: str, topic_filter: str) -> None:
        """A subscription was removed by the client."""

    def published(self, client_id: str | None, message: Message) -> None:
        """A message was taken in."""

    def delivered(self, client_id: str, message: Message) -> None:
        """A QoS 1 or 2 message was acknowledged by its receiver."""

    def dropped(self, client_id: str, message: Message, reason: str) -> None:
        """A message for this client was dropped."""


class Observers(list[IBrokerObserver]):
    """Calls every observer.  A list, so that the hot path's question whether there is any costs nothing."""

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self._guard = guard

    def add(self, observer: IBrokerObserver) -> None:
        """Tell it from now on; twice is once."""
        if observer not in self:
            self.append(observer)

    def discard(self, observer: IBrokerObserver) -> None:
        """Stop telling it; an unknown one is ignored."""
        if observer in self:
            self.remove(observer)

    def tell(self, event: str, *arguments: Any) -> None:
        """Call the method of this name on each."""
        for observer in list(self):
            method = getattr(observer, event, None)
            if method is not None:
                self._guard.notify(method, *arguments)

    def _tell_of_message(self, is_p2p: bool, event: str, *arguments: Any) -> None:
        for observer in list(self):
            method = getattr(observer, event, None)
            if method is not None and (not is_p2p or getattr(observer, "p2p", False) is True):
                self._guard.notify(method, *arguments)

    def published(self, publisher: Any, message: Message, is_p2p: bool, topic: bytes = b"") -> None:
        """A message was taken in; ``topic`` where it names its target in another way than by its own topic."""
        if is_p2p:
            if not any(getattr(observer, "p2p", False) is True for observer in self):
                return
            # As published: its delivery is about to give the message another topic and the sender's name.
            message = Message(
                topic or message.topic, message.payload, 0, message.qos, message.retain, properties=message.properties
            )
        self._tell_of_message(is_p2p, "published", None if publisher.is_local else publisher.client_id, message)

    def delivered(self, subscriber: Subscriber, delivery: Delivery) -> None:
        """A message was acknowledged by its receiver."""
        self._tell_of_message(delivery.is_p2p, "delivered", subscriber.client_id, delivery.message)

    def dropped(self, subscriber: Subscriber, delivery: Delivery, reason: str) -> None:
        """A delivery was dropped."""
        self._tell_of_message(delivery.is_p2p, "dropped", subscriber.client_id, delivery.message, reason)

    def dropped_p2p(self, client_id: str, message: Message, reason: str) -> None:
        """A P2P message got as far as no session."""
        self._tell_of_message(True, "dropped", client_id, message, reason)
