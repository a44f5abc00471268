"""Rights: what one client may publish and hear, as its avatar says; what that answered is remembered by route."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_p2pmqtt.core.publisher import NO_RIGHTS, ask_right
from twisted_p2pmqtt.core.subscriber import Subscriber
from twisted_p2pmqtt.core.subscriptions import matched_filter

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.delivery import Delivery
    from twisted_p2pmqtt.core.routes import Route

MAX_RIGHTS = 4096
"""Topics for which one client's right is remembered."""


class RightsHolder(Subscriber):
    """Base of ``Session``.  ``avatar`` is the ``IClientAvatar`` to ask, None for a client that may do everything."""

    __slots__ = ("avatar", "broker", "rights")

    avatar: Any
    broker: Broker
    rights: dict[Route, bool]

    def authorize(self, avatar: Any) -> None:
        """Other rights hold from now on: what was answered before, plans of delivery included, is asked again."""
        if avatar is not None or self.avatar is not None:
            for topic_filter in self.subscriptions:
                self.broker.routes.invalidate(matched_filter(topic_filter))
        self.avatar = avatar
        self.rights = NO_RIGHTS

    def may_receive(self, topic: str) -> bool:
        """Asked when a delivery plan is made, and again when a delivery has waited."""
        if self.avatar is None:
            return True
        return self.broker.guard.ask(self.avatar.may_receive, topic)

    def may_receive_delivery(self, delivery: Delivery) -> bool:
        """The same for a delivery: a P2P message is received by right of its address, unless the options say more."""
        if delivery.is_p2p and not self.broker.p2p.options.check_receive:
            return True
        return self.may_receive(delivery.message.topic.decode())

    def may_use(self, route: Route) -> bool:
        """May the client publish along this route?  ``ask_right`` has been called before."""
        right = self.ask_right(route)
        return right if isinstance(right, bool) else False

    def ask_right(self, route: Route) -> bool | Deferred[bool]:
        """The right to publish along this route, asked once; a Deferred while the answer is on its way."""
        if self.avatar is None:
            return True
        rights = self.rights
        if rights is NO_RIGHTS:
            rights = self.rights = {}
        known = rights.get(route)
        if known is not None:
            return known
        if route.refusal is not None:
            return False
        if len(rights) >= MAX_RIGHTS:
            rights.clear()
        right = ask_right(self.broker.guard, self.avatar, route)
        if isinstance(right, Deferred):
            return right.addCallback(lambda answer: rights.setdefault(route, answer))
        rights[route] = right
        return right
