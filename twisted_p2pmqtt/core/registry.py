"""SessionRegistry: the life of sessions: opened, taken over, left, resumed, expired (3.1.2.4, 3.1.2.11.2, 4.1)."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from math import inf
from time import perf_counter
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.core.delivery import Delivery
from twisted_p2pmqtt.core.records import SessionRecord
from twisted_p2pmqtt.core.session import Session

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.connection import Connection
    from twisted_p2pmqtt.core.wills import PendingWill


MAX_STALE = 1000
"""Ends that may be noted of sessions that have none any more, beside as many as there are sessions."""


class SessionRegistry:
    """Every session by client id, connected or not."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.sessions: dict[str, Session] = {}
        # A heap of when sessions may end, each with its client id.  A timer each would be as many objects more for
        # garbage collection to look at (see ``subscriptions``), and would be cancelled most of the time: here what
        # does not hold any more is found out when its time comes.
        self._ends: list[tuple[float, str]] = []

    def open(
        self, connection: Connection, client_id: str, clean_start: bool, expiry_interval: int, will: PendingWill | None
    ) -> bool:
        """Give the connection its session, new or resumed; True where it is resumed.

        A connection that had the session before is told that it was taken over [MQTT-3.1.4-3] [MQTT3-3.1.4-2].
        """
        broker = self._broker
        session = self.sessions.get(client_id)  # [MQTT-3.1.3-2] [MQTT3-3.1.3-2]
        if session is not None and session.connection is not None:
            broker.stats.sessions_taken_over += 1
            session.connection.close(ReasonCode.SESSION_TAKEN_OVER)  # [MQTT-3.1.4-3] [MQTT3-3.1.4-2]
        elif session is not None:
            self._catch_up(session)
        session = self.sessions.get(client_id)  # it may have ended just now
        if session is not None and clean_start:  # [MQTT-3.1.2-4] [MQTT3-3.1.2-6]
            self.end(session)
            session = None
        is_resumed = session is not None  # [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.4-4] [MQTT3-3.1.2-4] [MQTT3-3.1.4-3]
        if session is None:
            if len(self.sessions) >= broker.limits.max_sessions:
                raise MQTTError("the broker has no room for another session", ReasonCode.QUOTA_EXCEEDED)
            session = self.sessions[client_id] = Session(broker, client_id)
        self._cancel_will(session)
        # [MQTT-3.1.2-7] [MQTT3-3.1.2-8]
        session.will = will  # one that was still delayed is not sent any more [MQTT-3.1.3-9]
        session.expiry_interval = expiry_interval
        session.left_at = None
        if session.is_durable and expiry_interval == 0:  # it will end with this connection
            self._unstore(session)
        session.is_durable = broker.store.durable and expiry_interval > 0
        connection.session = session
        self.save(session)
        return is_resumed

    def leave(self, session: Session, is_orderly: bool) -> None:
        """The session's connection has ended; ``is_orderly`` where the client said DISCONNECT and wants no will."""
        if is_orderly:  # [MQTT-3.1.2-10] [MQTT-3.14.4-3] [MQTT3-3.14.4-3]
            session.will = None  # [MQTT3-3.1.2-10]
        session.detach()  # [MQTT-4.1.0-1] [MQTT3-4.1.0-1] [MQTT3-4.1.0-2]
        session.left_at = self._broker.wheel.clock()
        if self._broker.is_stopping:
            self.save(session)
            return
        if session.expiry_interval == 0:  # [MQTT-3.1.2-23]
            self.end(session)
            return
        if session.will is not None and session.will.delay == 0:  # [MQTT-3.1.2-8] [MQTT3-3.1.2-12]
            self._publish_will(session)
        self.await_end(session, 0.0)
        self.save(session)
        self._broker.schedule_flush()

    def await_end(self, session: Session, away: float) -> None:
        """The client has been away for so many seconds: what is left of the will's delay and of the session."""
        will, ends = session.will, self._ends
        if will is not None and will.delay < session.expiry_interval:  # else when the session ends [MQTT-3.1.3-9]
            wait = max(0.0, will.delay - away)
            will.timer = self._broker.wheel.after(wait, self._publish_will, session)
        if session.ends_at < inf:
            heappush(ends, (session.ends_at, session.client_id))
        if len(ends) > 2 * len(self.sessions) + MAX_STALE:
            ends[:] = [(one.ends_at, one.client_id) for one in self.sessions.values() if one.ends_at < inf]
            heapify(ends)

    def end_expired(self, until: float = inf) -> bool:
        """End the sessions whose clients have stayed away for too long; False where some are left, as with timers."""
        ends, wheel = self._ends, self._broker.wheel
        while ends and ends[0][0] <= wheel.now:
            session = self.sessions.get(heappop(ends)[1])
            if session is not None and session.ends_at <= wheel.now:
                try:
                    self._expire(session)
                except Exception:  # one that fails must not stop the others
                    wheel.failed()
            if perf_counter() > until:
                return False
        return True

    def _catch_up(self, session: Session) -> None:
        """Its client is back: do first what is due, for timers are late by a tick, and all are after a restart."""
        assert session.left_at is not None
        now, will = self._broker.wheel.clock(), session.will
        if session.ends_at <= now:
            self._expire(session)
        elif will is not None and session.left_at + will.delay <= now:  # [MQTT-3.1.2-8] [MQTT3-3.1.2-8]
            self._publish_will(session)

    def end(self, session: Session) -> None:
        """Forget the session and everything in it; its will goes out now if it has not before [MQTT-3.1.2-8]."""
        broker = self._broker
        self._cancel_will(session)
        if self.sessions.get(session.client_id) is session:
            del self.sessions[session.client_id]
        for topic_filter in list(session.subscriptions):
            broker.unsubscribe_filter(session, topic_filter)
        if session.is_durable:
            self._unstore(session)
        session.is_durable = False
        self._hand_on_shared(session)
        session.forget()
        self._publish_will(session)

    def _unstore(self, session: Session) -> None:
        """Have the store forget the session and all that it was given for it."""
        store, client_id = self._broker.store, session.client_id
        store.drop_session(client_id)
        for state in (*session.inflight.values(), *(session.pending or ())):
            if state.sequence:
                store.acknowledge(client_id, state.sequence)
                state.sequence = 0

    def _hand_on_shared(self, session: Session) -> None:
        # [MQTT-4.8.2-4]
        """What a shared group's member leaves undone goes to another member, QoS 2 only if it was never sent."""
        left = [state for state in session.inflight.values() if isinstance(state, Delivery) and state.qos == 1]
        now = self._broker.wheel.now
        for delivery in [*left, *(session.pending or ())]:
            expires_at = delivery.message.expires_at
            if delivery.group is not None and (expires_at is None or expires_at > now):  # [MQTT-4.8.2-5] [MQTT-3.3.2-5]
                group = self._broker.tree.group(delivery.group.topic_filter)  # as it is now
                if group is not None:
                    self._broker.fan_out.send_shared(group, delivery.message)

    def _expire(self, session: Session) -> None:
        self._broker.stats.sessions_expired += 1
        self.end(session)
        self._broker.schedule_flush()

    def _publish_will(self, session: Session) -> None:
        self._cancel_will(session)
        will, session.will = session.will, None
        if will is not None:
            try:
                will.publish()
            except Exception:  # whoever ends a session or a connection has more to do
                self._broker.guard.report_internal("a will")
            self.save(session)

    def judge_will(self, session: Session, avatar: Any) -> None:
        """The client has logged in anew: a will that it may not publish now goes, from the store too.

        For what is stored is published after a restart without a question: nobody is left then who could be asked.
        """
        will = session.will
        if will is None:
            return
        will.avatar = avatar

        def judged(answer: bool) -> None:
            if not answer and session.will is will:
                session.will = None
                self.save(session)
                self._broker.schedule_flush()

        right = will.ask_right()
        if isinstance(right, Deferred):
            right.addCallback(judged)
        else:
            judged(right)

    @staticmethod
    def _cancel_will(session: Session) -> None:
        if session.will is not None and session.will.timer is not None:
            session.will.timer.cancel()

    def set_expiry(self, session: Session, interval: int) -> None:
        """A DISCONNECT changed the session expiry interval (3.14.2.2.2)."""
        session.expiry_interval = min(interval, self._broker.limits.max_session_expiry)

    def save(self, session: Session) -> None:
        """Note the session's own row in the store."""
        if session.is_durable:
            self._broker.store.save_session(self._record(session))

    def _record(self, session: Session) -> SessionRecord:
        broker, will, left_at = self._broker, session.will, session.left_at
        if left_at is not None:
            left_at = broker.wall() - (broker.wheel.clock() - left_at)
        return SessionRecord(session.client_id, session.expiry_interval, left_at, will.will if will else None)
