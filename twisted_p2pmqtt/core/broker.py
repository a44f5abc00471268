"""Broker: the rules of publishing and subscribing, and the facade that everything outside the core talks to.

The way of a message is ``publish``: one lookup of its route, the right to use it, then either the one session that a
P2P topic names or every subscriber in the route's plan.  What is written waits in the touched connections' sinks until
``write``; what is recorded waits for ``flush``, at the end of the reactor's turn.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer
from zope.interface.verify import verifyObject

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import TopicNameInvalid
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.codec.topics import check_topic_name
from twisted_p2pmqtt.core.commits import Commits
from twisted_p2pmqtt.core.delivery import (
    DENIED,
    EXPIRED,
    NO_SESSION,
    QUOTA_EXCEEDED,
    STORE_UNAVAILABLE,
    TOO_LARGE,
    TOPIC_INVALID,
    Delivery,
    Outcome,
)
from twisted_p2pmqtt.core.endpoints import Endpoint, register_endpoint
from twisted_p2pmqtt.core.fan_out import FanOut
from twisted_p2pmqtt.core.guard import MAX_DEPTH, Guard
from twisted_p2pmqtt.core.info import SessionInfo, describe
from twisted_p2pmqtt.core.limits import Limits, P2POptions
from twisted_p2pmqtt.core.local import LocalClient, LocalSubscription, SendResult
from twisted_p2pmqtt.core.observers import Observers
from twisted_p2pmqtt.core.p2p import P2PAddress, PrefixP2PRouter
from twisted_p2pmqtt.core.p2p_delivery import P2PDelivery
from twisted_p2pmqtt.core.publisher import NO_RIGHTS
from twisted_p2pmqtt.core.registry import SessionRegistry
from twisted_p2pmqtt.core.replay import Replay
from twisted_p2pmqtt.core.restore import Restorer
from twisted_p2pmqtt.core.retained import RetainedMessages
from twisted_p2pmqtt.core.routes import Route, RouteTable
from twisted_p2pmqtt.core.stats import Stats
from twisted_p2pmqtt.core.subscriber import Subscriber
from twisted_p2pmqtt.core.subscriptions import Subscription, SubscriptionTree, matched_filter
from twisted_p2pmqtt.core.timers import TimerWheel
from twisted_p2pmqtt.interfaces import IBroker, IBrokerObserver, IP2PRouter, IStore, MalformedP2PTopic

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.publisher import Publisher

OUTCOME_OF_DROP = {
    "dropped_expired": EXPIRED,
    "dropped_queue_full": QUOTA_EXCEEDED,
    "dropped_too_large": TOO_LARGE,
    "p2p_dropped_oldest": QUOTA_EXCEEDED,
}
"""What the sender of a P2P message is told that waits for its acknowledgement, by counter."""

T = TypeVar("T")

SLICE = 0.01
"""Seconds in one turn that what is due may take."""

FLUSH_EVERY = 1_048_576
"""Bytes that may be taken in between two flushes, so that one turn's output stays bounded."""


@implementer(IBroker)
class Broker:
    """One broker: sessions, subscriptions, retained messages, and the ways between them.

    ``clock`` is asked only for ``callLater(0)``; time is ``monotonic()`` in seconds, and ``wall()`` in seconds since
    the epoch for what is stored.  ``store`` is an ``IStore``; ``router`` an ``IP2PRouter``, the prefix form unless
    told.  Raises ``zope.interface.Invalid`` for a router that is none.
    """

    def __init__(
        self,
        clock: IReactorTime,
        store: IStore,
        router: IP2PRouter | None = None,
        limits: Limits | None = None,
        p2p: P2POptions | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits or Limits()
        self.router = router if router is not None else PrefixP2PRouter()  # [MQTT3-7.0.0-2]
        verifyObject(IP2PRouter, self.router)  # a class in place of an object would refuse every message, later
        self.store = store
        self.wall = wall
        self.stats = Stats()
        self.wheel = TimerWheel(monotonic, self._timer_failed)
        self.guard = Guard(self.stats, self.wheel)
        self.observers = Observers(self.guard)
        self.tree = SubscriptionTree()
        self.routes = RouteTable(self._build_route, self.tree)
        self.retained = RetainedMessages(self.limits.max_retained_messages, self.limits.max_retained_bytes)
        self.registry = SessionRegistry(self)
        self.sessions = self.registry.sessions
        self.fan_out = FanOut(self)
        self.p2p = P2PDelivery(self, p2p or P2POptions())
        self.endpoints: dict[str, Endpoint] = {}
        self.commits = Commits(self)
        self.touched: list[Any] = []
        self.clock = clock
        self._flush_call: Any = None
        self._advance_call: Any = None
        self._taken_in = 0
        self._is_in_turn = False
        self._restorer: Restorer | None = None
        self.is_stopping = False  # sessions that survive keep their wills; no connection's end publishes one
        self.local = LocalClient(self)

    # --- publishing ----------------------------------------------------------------------------------------------

    def publish_message(self, message: Message, publisher: Publisher, route: Route | None = None) -> Outcome:
        """Route one message; the outcome is what its publisher is told.  Raises ``MQTTError`` for an illegal topic.

        ``route`` is that of the message's topic, where the caller has just looked it up.
        """
        if route is None:
            route = self.routes[message.topic]
        self.stats.messages_received += 1
        if route.refusal is not None and not (publisher.is_local and route.is_for_clients):
            return self._refuse(route, route.refusal)
        if publisher.avatar is not None and not publisher.rights.get(route) and not publisher.may_use(route):
            return self._refuse(route, DENIED)
        if route.address is not None:
            if self.observers:
                self.observers.published(publisher, message, is_p2p=True)
            return self.p2p.publish(route, message, publisher)
        if message.qos and not self.store.available:
            return STORE_UNAVAILABLE
        if message.retain and not self._retain(route, message, publisher.client_id):  # [MQTT3-3.3.1-12]
            return QUOTA_EXCEEDED
        plan = route.plan or self.routes.plan(route)
        if self.observers:
            self.observers.published(publisher, message, is_p2p=False)
        return self.fan_out.publish(plan, message, publisher)

    def _refuse(self, route: Route, outcome: Outcome) -> Outcome:
        stats = self.stats
        if route.is_malformed:
            stats.p2p_dropped_malformed += 1
        elif route.address is not None:
            stats.p2p_dropped_denied += 1
        else:
            stats.dropped_not_authorized += 1
        return outcome

    def _build_route(self, topic: bytes) -> Route:
        if len(topic) > self.limits.max_topic_bytes or topic.count(b"/") >= self.limits.max_topic_levels:
            raise TopicNameInvalid("topic name is longer or deeper than this server allows")
        route = Route(topic, check_topic_name(topic))
        try:
            address = self.router.resolve(route.name)
            if address is not None:
                self._set_address(route, address)
            elif route.name.startswith("$"):
                route.refuse(DENIED, is_for_clients=True)
        except MalformedP2PTopic:
            if self.p2p.options.on_malformed == "reject":
                route.refuse(TOPIC_INVALID, is_malformed=True)
            elif route.name.startswith("$"):
                route.refuse(DENIED, is_for_clients=True)
        except BaseException:  # a router that raises SystemExit must not stop the reactor either
            self.guard.report("P2P router")
            route.refuse(DENIED)
            route.is_broken = True
        return route

    def _set_address(self, route: Route, address: object) -> None:
        """Take a router's answer; raises where it is none that a message could be delivered by."""
        if not isinstance(address, P2PAddress) or not address.client_id or not isinstance(address.client_id, str):
            self.guard.silence(address)
            raise TypeError(f"the P2P router gave {type(address).__name__}, not a P2PAddress with a client id, or None")
        if not isinstance(address.canonical, str):  # a class of the embedder's may have its own
            raise TypeError("the address has no canonical name")
        route.target_topic = address.topic.encode()
        check_topic_name(route.target_topic)
        route.address = address
        route.is_forwarded = False
        route.target = address.client_id
        if address.topic.startswith("$"):  # from a client malformed whatever the policy: no other broker routes it
            route.refuse(TOPIC_INVALID, is_for_clients=True, is_malformed=True)

    # --- retained messages ---------------------------------------------------------------------------------------

    def _retain(self, route: Route, message: Message, publisher: str) -> bool:
        """Store or clear the topic's retained message; False where there is no room."""
        if not message.payload:  # [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT3-3.3.1-10] [MQTT3-3.3.1-11]
            if self.retained.remove(route.name) and self.store.durable:
                self.store.unretain(route.name)
            return True
        if not self.keep_retained(route.name, message, publisher):
            self.stats.dropped_queue_full += 1
            return False
        if self.store.durable:
            expires_at = None if message.expires_at is None else self.wall_time(message.expires_at)
            self.store.retain(route.name, message, expires_at)
        return True

    def keep_retained(self, topic: str, message: Message, publisher: str | None = None) -> bool:
        """Keep it until it expires; False where there is no room."""
        # [MQTT-3.3.1-5] [MQTT3-3.1.2-7] [MQTT3-3.3.1-5] [MQTT3-3.3.1-7]
        if not self.retained.put(topic, message, publisher):
            return False
        if message.expires_at is not None:
            self.wheel.after(message.expires_at - self.wheel.now, self._expire_retained, topic, message)
        return True

    def _expire_retained(self, topic: str, message: Message) -> None:
        if self.retained.get(topic, float("-inf")) is message:
            self.retained.remove(topic)
            if self.store.durable:
                self.store.unretain(topic)

    def replay(self, subscriber: Subscriber, topic_filter: str, subscription: Subscription) -> None:
        """Send the subscriber the retained messages that the filter, which is no shared one, matches."""
        if self._restorer is not None:
            self._restorer.afterwards(self.replay, subscriber, topic_filter, subscription)
            return
        if not self.retained:
            return
        topics = self.retained.matching(topic_filter)
        if not topics:
            return
        replay = subscriber.replay
        if replay is None:
            replay = subscriber.replay = Replay(self, subscriber)
        replay.add(topic_filter, subscription, topics)
        self.run_replay(subscriber)

    def schedule_replay(self, subscriber: Subscriber) -> None:
        """Go on with the subscriber's replay in the next turn."""
        replay = subscriber.replay
        if replay is not None and not replay.is_scheduled:
            replay.is_scheduled = True
            self.clock.callLater(0, self.run_replay, subscriber)

    def run_replay(self, subscriber: Subscriber) -> None:
        """One slice of it."""
        replay = subscriber.replay
        if replay is not None:
            replay.is_scheduled = False
            if replay.run():
                subscriber.replay = None
            self.schedule_flush()

    # --- subscriptions -------------------------------------------------------------------------------------------

    def subscribe_filter(self, subscriber: Subscriber, topic_filter: str, subscription: Subscription) -> bool:
        """Add or replace the subscription to a filter that was checked; True if it is new."""
        is_new = self.tree.add(subscriber, topic_filter)
        subscriber.subscriptions[topic_filter] = subscription  # [MQTT-3.8.4-3] [MQTT3-3.8.4-3] [MQTT-3.8.4-4]
        self.routes.invalidate(matched_filter(topic_filter))
        return is_new

    def unsubscribe_filter(self, subscriber: Subscriber, topic_filter: str) -> bool:
        """Take a subscription out; False if there was none."""
        if subscriber.subscriptions.pop(topic_filter, None) is None:
            return False
        self.tree.remove(subscriber, topic_filter)
        self.routes.invalidate(matched_filter(topic_filter))
        return True

    def forget_routes(self) -> None:
        """Ask router and rights again for every topic: their rules have changed."""
        self.routes.forget()
        for session in self.sessions.values():
            session.rights = NO_RIGHTS

    # --- from Python, inside the same process --------------------------------------------------------------------

    def publish(
        self, topic: str, payload: bytes, qos: int = 0, retain: bool = False, properties: Properties | None = None
    ) -> Deferred[int]:
        """Publish as the broker itself; a Deferred of the reason code, fired when what must survive is stored."""
        return self._in_turn(self.local.publish, topic, payload, qos, retain, properties)

    def subscribe(self, topic_filter: str, callback: Callable[[Message], object], qos: int = 2) -> LocalSubscription:
        """Call ``callback(message)`` for what the filter matches, retained messages first."""
        return self.local.subscribe(topic_filter, callback, qos)

    def send_to(
        self,
        client_id: str,
        topic: str,
        payload: bytes,
        qos: int = 1,
        properties: Properties | None = None,
        confirm: bool = False,
        timeout: float = 5.0,
    ) -> Deferred[SendResult]:
        """Send to one client's session; with ``confirm`` the Deferred fires when the client has acknowledged."""
        return self._in_turn(self.local.send_to, client_id, topic, payload, qos, properties, confirm, timeout)

    def register_endpoint(self, client_id: str, handler: Callable[[Message], object]) -> Endpoint:
        """Serve a client id from Python; ValueError where a session or endpoint has it."""
        return register_endpoint(self, client_id, handler)

    def disconnect(
        self,
        client_id: str,
        reason_code: int = ReasonCode.ADMINISTRATIVE_ACTION,
        server_reference: str | None = None,
    ) -> bool:
        """Close the client's connection; True if there was one.

        ``server_reference`` names the server to use instead, and goes with reason codes 0x9C and 0x9D (4.11).
        """
        session = self.sessions.get(client_id)
        if session is None or session.connection is None:
            return False
        properties = Properties()
        if server_reference is not None:
            properties["server_reference"] = server_reference
        session.connection.close(ReasonCode(reason_code), properties)
        return True

    def list_sessions(self) -> list[SessionInfo]:
        """One entry a session, connected or not."""
        return [describe(session) for session in self.sessions.values()]

    def restore(self) -> Deferred[None]:
        """Read the store; fires when every session, queue and retained message is there."""
        self._restorer = Restorer(self)
        restored: Deferred[None] = self.store.restore(self._restorer.receive)
        return restored.addCallback(self._restored)

    def restore_now(self) -> None:
        """The same before this returns, for a process whose reactor does not run yet.  Raises ``StoreError``."""
        self._restorer = Restorer(self)
        self.store.restore_now(self._restorer.receive)
        self._restored(None)

    def _restored(self, result: None) -> None:
        restorer, self._restorer = self._restorer, None
        if restorer is not None:
            restorer.finish()
        self.schedule_flush()

    def _in_turn(self, function: Callable[..., Deferred[T]], *arguments: Any) -> Deferred[T]:
        """Call it now; or when every subscriber is known again; or in the next turn where hooks call each other."""
        if self._restorer is None and self.guard.depth < MAX_DEPTH:
            return function(*arguments)
        waiting: Deferred[Any] = Deferred()
        if self._restorer is not None:
            self._restorer.afterwards(waiting.callback, None)
        else:
            self.clock.callLater(0, waiting.callback, None)
        return waiting.addCallback(lambda result: function(*arguments))

    def wall_time(self, moment: float) -> float:
        """A time of the broker's own clock as seconds since the epoch."""
        return self.wall() + moment - self.wheel.now

    # --- the end of a turn ---------------------------------------------------------------------------------------

    def schedule_flush(self) -> None:
        """Flush when every socket that is readable now has been read."""
        if self._flush_call is None and (self.touched or self.store.pending) and not self._is_in_turn:
            self._flush_call = self.clock.callLater(0, self.flush)

    def taken_in(self, size: int) -> None:
        """So many bytes were acted on: flush when the turn is over, or now where much was taken in within it."""
        self._taken_in += size
        if self._taken_in > FLUSH_EVERY:
            self.flush()
        elif self._flush_call is None and (self.touched or self.store.pending) and not self._is_in_turn:
            self._flush_call = self.clock.callLater(0, self.flush)

    def begin_turn(self) -> None:
        """Whoever feeds connections will call ``flush`` at the end of its turn."""
        self._is_in_turn = True

    def flush(self) -> None:
        """Hand what was recorded to the store, and what was written to the sockets."""
        if self._flush_call is not None:
            if self._flush_call.active():
                self._flush_call.cancel()
            self._flush_call = None
        self._taken_in = 0
        self._is_in_turn = False
        if self.store.pending:
            self.commits.start()
        self.write()

    def write(self) -> None:
        """Hand to the sockets what was written to them.  What is recorded waits for the turn's end: the store likes it
        in one piece.
        """
        touched, self.touched = self.touched, []
        for connection in touched:
            flush = connection.flush  # kept in a slot, and so no method to the interpreter
            try:
                flush()
            except Exception:  # a transport of the embedder's; what it did not take is gone
                self.guard.report_internal("writing to a connection")
                connection.lost()

    def advance(self) -> None:
        """Move time on: what is due happens.  Flush even if the wall clock was set back behind a pending call.

        Thousands of wills may be due at once, after a restart, or sessions at the end of a long night: they go out a
        slice at a time, with turns of the reactor in between.
        """
        if self._restorer is None:
            until = perf_counter() + SLICE
            is_done = self.wheel.advance(until) and self.registry.end_expired(until)
            if not is_done and self._advance_call is None:
                self._advance_call = self.clock.callLater(0, self._advance_on)
        if self.touched or self.store.pending:
            self.flush()

    def _advance_on(self) -> None:
        self._advance_call = None
        self.advance()

    # --- observers and counters ----------------------------------------------------------------------------------

    def add_observer(self, observer: IBrokerObserver) -> None:
        """Tell it what happens from now on."""
        self.observers.add(observer)

    def remove_observer(self, observer: IBrokerObserver) -> None:
        """Stop telling it."""
        self.observers.discard(observer)

    def count_drop(self, subscriber: Subscriber, delivery: Delivery, reason: str) -> None:
        """A delivery to this subscriber is dropped; ``reason`` is the counter's name."""
        setattr(self.stats, reason, getattr(self.stats, reason) + 1)
        if self.observers:
            self.observers.dropped(subscriber, delivery, reason)
        if delivery.confirmed is not None:
            delivery.confirmed(OUTCOME_OF_DROP.get(reason, NO_SESSION))

    def _timer_failed(self) -> None:
        self.guard.report_internal("a timer")
