"""Wills: what a client asked to be published if its connection ends badly (3.1.2.5, 3.1.3.2.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.publisher import NO_RIGHTS, Stamp, ask_right

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.routes import Route
    from twisted_p2pmqtt.core.timers import Timer


class PendingWill:
    """A will with the rights of the client that left it; a publisher in that client's name."""

    __slots__ = ("_allowed", "_broker", "avatar", "client_id", "delay", "stamp", "timer", "will")

    is_local = False
    rights = NO_RIGHTS

    def __init__(self, broker: Broker, client_id: str, will: Will, avatar: Any) -> None:
        self._broker = broker
        self._allowed: Route | None = None
        self.client_id = client_id
        self.stamp: Stamp | None = None
        self.will = will
        self.avatar = avatar
        self.timer: Timer | None = None  # of the delay, once it has begun
        self.delay: int = will.properties.get("will_delay_interval", 0)  # seconds

    def may_use(self, route: Route) -> bool:
        """The answer that ``publish`` has got, if it was about this route."""
        return self._allowed is not None and route.leads_like(self._allowed)

    def publish(self) -> None:
        """Publish it now, if its client may still do so; the right is asked anew."""
        right = self.ask_right()
        if isinstance(right, Deferred):
            right.addCallback(self._authorized)
        else:
            self._authorized(right)

    def ask_right(self) -> bool | Deferred[bool]:
        """May its client publish it?  Yes where there is no avatar: after a restart the answer that it got at its login
        stands.
        """
        if self.avatar is None:
            return True
        try:
            self._allowed = self._broker.routes[self.will.topic.encode()]
        except MQTTError:
            return False
        return ask_right(self._broker.guard, self.avatar, self._allowed)

    def _authorized(self, answer: bool) -> None:
        if not answer:
            self._allowed = None
        self._publish()

    def _publish(self) -> None:
        will, broker = self.will, self._broker
        properties = Properties(**will.properties)
        properties.pop("will_delay_interval", None)
        # [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT-3.1.3-10] [MQTT3-3.1.2-16] [MQTT3-3.1.2-17]
        message = Message(will.topic.encode(), will.payload, 0, will.qos, int(will.retain), properties=properties)
        interval = properties.get("message_expiry_interval")
        if interval is not None:
            message.expires_at = broker.wheel.now + interval
        broker.stats.wills_published += 1
        try:
            broker.publish_message(message, self)
        except MQTTError:
            broker.stats.malformed_packets += 1  # its route was fine at CONNECT; the router's rules changed
        broker.schedule_flush()
