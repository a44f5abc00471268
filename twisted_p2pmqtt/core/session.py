"""Session: what outlives a connection, and the way of a message to one client (4.1, 4.3, 4.4, 4.9 of MQTT 5.0).

A delivery at QoS 1 or 2 gets a packet identifier and is *inflight* until the client has acknowledged it, or waits in
*pending* while the client's window is shut.  The state of the session is in ``quota``: the size of the window while
frames may go out, 0 while they may not (no connection, a blocked socket, unfinished resending), so the test on the
hot path is one comparison.  Invariant: while ``len(inflight) < quota`` nothing is pending.

Transitions of one outgoing packet identifier (section 4.3; ``Delivery`` and ``Released`` are the states):

    QoS 1   Delivery --PUBACK--> gone
    QoS 2   Delivery --PUBREC--> Released --PUBCOMP--> gone          Delivery --PUBREC >= 0x80--> gone
            nothing --PUBREC--> Released: the PUBREL that it gets is answered too
"""

from __future__ import annotations

from collections import OrderedDict, deque
from math import inf
from typing import TYPE_CHECKING, Any

from twisted_p2pmqtt.codec.constants import NEVER_EXPIRES, ReasonCode
from twisted_p2pmqtt.codec.errors import ProtocolViolation
from twisted_p2pmqtt.codec.message import DUP
from twisted_p2pmqtt.codec.writer import PACKET_ID, PUBREL_HEAD
from twisted_p2pmqtt.core.delivery import (
    NO_SESSION,
    OFFLINE_QOS0,
    ONLINE,
    QUEUED,
    QUOTA_EXCEEDED,
    RELEASED,
    STORE_UNAVAILABLE,
    TOO_LARGE,
    Delivery,
    Outcome,
    Released,
    acknowledged,
)
from twisted_p2pmqtt.core.encoding import encode_for, fits
from twisted_p2pmqtt.core.pending import Pending
from twisted_p2pmqtt.core.publisher import NO_RIGHTS, Stamp
from twisted_p2pmqtt.core.rights import RightsHolder
from twisted_p2pmqtt.core.subscriber import ASK

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.connection import Connection
    from twisted_p2pmqtt.core.replay import Replay
    from twisted_p2pmqtt.core.routes import Route
    from twisted_p2pmqtt.core.wills import PendingWill

MAX_PACKET_ID = 65535

NO_INFLIGHT: dict[int, Delivery | Released] = {}
"""Of sessions that have nothing inflight and no connection; never changed."""


class Session(RightsHolder):
    """One client's session.  ``connection`` is None while the client is away."""

    is_local = False

    __slots__ = (
        "_freed",
        "_last_packet_id",
        "_unsent",
        "expiry_interval",
        "inflight",
        "is_durable",
        "left_at",
        "pending",
        "quota",
        "received",
        "stamp",
        "version",
        "will",
    )

    def __init__(self, broker: Broker, client_id: str) -> None:
        self.broker = broker
        self.client_id = client_id
        self.connection: Connection | None = None
        self.sink: Any = None
        self.encoding = ASK
        self.version = 5
        self.quota = 0
        self.expiry_interval = 0
        self.left_at: float | None = None  # when the last connection ended, on the broker's clock
        self.is_durable = False
        self.subscriptions = {}
        self.inflight = NO_INFLIGHT
        # Made when first needed: most sessions of a large fleet never do.
        self.pending: Pending | None = None
        self.received: set[int] | None = None  # QoS 2 packet ids of the client that await PUBREL
        # Inflight packet ids whose PUBLISH this connection has not seen yet; one may be acknowledged nevertheless.
        self._unsent: OrderedDict[int, None] | None = None
        self._freed: deque[int] | None = None
        self.replay: Replay | None = None
        self.rights: dict[Route, bool] = NO_RIGHTS  # answers to ``ask_right``
        self.stamp: Stamp | None = None
        self._last_packet_id = 0
        self.avatar: Any = None
        self.will: PendingWill | None = None

    @property
    def is_connected(self) -> bool:  # type: ignore[override]  # a constant in the base
        return self.connection is not None

    @property
    def ends_at(self) -> float:
        """When the session ends, on the broker's clock, if its client stays away; infinite where it is there."""
        if self.left_at is None or self.expiry_interval == NEVER_EXPIRES:  # [MQTT-4.1.0-2]
            return inf
        return self.left_at + self.expiry_interval

    @property
    def is_ready(self) -> bool:  # type: ignore[override]  # the same
        """May a QoS 1 message go out at once?"""
        return len(self.inflight) < self.quota

    def has_room(self, qos: int) -> bool:
        """Would a message of this QoS go out now?"""
        if qos:
            return len(self.inflight) < self.quota
        return self.sink is not None and self.connection is not None and not self.connection.is_blocked

    # --- to the client -----------------------------------------------------------------------------------------

    def deliver(self, delivery: Delivery) -> Outcome:
        """Send now, or keep for later; the outcome says which, or why neither."""
        if not delivery.qos:
            return self._deliver_qos0(delivery)
        if self.is_durable:
            if not self.broker.store.available:
                return STORE_UNAVAILABLE
            if not delivery.is_p2p:  # which has one target, and is its own
                delivery = delivery.copy()
            delivery.sequence = self.broker.store.new_sequence()
        if len(self.inflight) < self.quota:
            # [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT3-4.6.0-5] [MQTT3-4.6.0-6]
            return self._send(delivery)
        return self._queue(delivery)  # [MQTT3-3.1.2-5]

    def _deliver_qos0(self, delivery: Delivery) -> Outcome:
        if self.sink is None:
            self.broker.count_drop(self, delivery, "dropped_offline_qos0")
            return OFFLINE_QOS0
        halves = self._halves(delivery, delivery.retain)
        if halves is None:
            return TOO_LARGE
        self._put(halves)
        return ONLINE

    def _send(self, delivery: Delivery, is_stored: bool = False) -> Outcome:
        inflight = self.inflight
        packet_id = self._last_packet_id + 1
        # [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT3-2.3.1-4]
        if packet_id > MAX_PACKET_ID or packet_id in inflight:
            packet_id = self._find_packet_id(packet_id)
        if self.encoding and delivery.message.expires_at is None:
            head, tail = delivery.halves(self.version)
        else:
            # [MQTT-3.3.1-3] [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT3-3.3.1-3]
            halves = self._halves(delivery, delivery.qos << 1 | delivery.retain)
            if halves is None:
                return TOO_LARGE
            head, tail = halves
        self._last_packet_id = packet_id
        inflight[packet_id] = delivery  # [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT3-4.3.2-1] [MQTT3-4.3.3-1]
        if delivery.sequence:
            if is_stored:
                self.broker.store.sent(self.client_id, delivery.sequence, packet_id)
            else:
                self._store(delivery, packet_id)
            if delivery.qos == 2:
                # Exactly once needs the packet id to survive before the client can have seen it.
                self._after_commit(head + PACKET_ID[packet_id] + tail)
                return ONLINE
        sink = self.sink
        if not sink:
            self.broker.touched.append(self.connection)
        sink.extend((head, PACKET_ID[packet_id], tail))
        return ONLINE

    def _put(self, frames: tuple[bytes, ...]) -> None:
        sink = self.sink
        if not sink:
            self.broker.touched.append(self.connection)
        sink.extend(frames)

    def _after_commit(self, frame: bytes) -> None:
        assert self.connection is not None
        self.connection.respond(frame, b"")

    def _halves(self, delivery: Delivery, flags: int) -> tuple[bytes, bytes] | None:
        """Encode for this client alone: what is left of the expiry, its alias, its limit; None where it is too
        large.
        """
        connection = self.connection
        assert connection is not None
        halves = encode_for(connection, delivery, flags)
        if not fits(connection, halves, flags):
            self.broker.count_drop(self, delivery, "dropped_too_large")  # [MQTT-3.1.2-24] [MQTT-3.1.2-25]
            return None
        return halves

    def _find_packet_id(self, packet_id: int) -> int:
        """An id that is not in use.  Ids go round; where most are taken the ones that come free are remembered."""
        freed = self._freed
        while freed:
            if (known := freed.popleft()) not in self.inflight:
                return known
        for candidate in range(packet_id, packet_id + MAX_PACKET_ID):
            wrapped = (candidate - 1) % MAX_PACKET_ID + 1
            if wrapped not in self.inflight:
                return wrapped
        raise AssertionError("the window is smaller than the number of packet ids")

    @property
    def queue(self) -> Pending:
        """``pending``, made now if need be."""
        if self.pending is None:
            self.pending = Pending(self.broker.limits, self.broker.stats)
        return self.pending

    def _queue(self, delivery: Delivery) -> Outcome:
        broker, queue, size = self.broker, self.queue, delivery.message.size
        if not self.has_queue_room(size):
            # The new one is refused, so that nothing acknowledged before is lost.
            broker.count_drop(self, delivery, "dropped_queue_full")
            return QUOTA_EXCEEDED
        queue.add(delivery)
        broker.stats.messages_queued += 1
        if delivery.sequence:
            self._store(delivery, 0)
        return QUEUED

    def has_queue_room(self, size: int) -> bool:
        """Does the queue take a message of so many bytes?  What has expired in it goes first."""
        return self.queue.has_room(size) or (self.drop_expired() and self.queue.has_room(size))

    def drop_expired(self) -> bool:
        """Drop what has expired in the queue; False where nothing had, or where that was looked for just now."""
        expired = self.queue.take_expired(self.broker.wheel.now)
        for delivery in expired:
            self._drop(delivery, "dropped_expired")
        return bool(expired)

    def make_room_for_p2p(self, size: int, max_queued: int) -> bool:
        """Drop the oldest P2P messages until one more of this size fits; none where that would not help."""
        dropped = self.queue.take_oldest_p2p(size, max_queued)
        for delivery in dropped:
            self._drop(delivery, "p2p_dropped_oldest")
        return bool(dropped)

    def pump(self) -> None:
        """Send what waits, as far as the window allows: first what was sent before, then what never was."""
        if self._unsent is not None and not self._resend():
            return
        pending = self.pending
        now = self.broker.wheel.now
        while pending and len(self.inflight) < self.quota:
            delivery = pending.take()
            message = delivery.message
            if message.expires_at is not None and message.expires_at <= now:  # [MQTT-3.3.2-5]
                self._drop(delivery, "dropped_expired")
            elif self.avatar is not None and not self.may_receive_delivery(delivery):
                self._drop(delivery, "dropped_not_authorized")
            elif self._send(delivery, is_stored=True) is TOO_LARGE:
                self._end_stored(delivery)
        if self.replay is not None:
            self.broker.schedule_replay(self)

    def _drop(self, delivery: Delivery, reason: str) -> None:
        self._end_stored(delivery)
        self.broker.count_drop(self, delivery, reason)

    def _store(self, delivery: Delivery, packet_id: int) -> None:
        broker, expires_at = self.broker, delivery.message.expires_at
        if expires_at is not None:
            expires_at = broker.wall_time(expires_at)
        broker.store.enqueue(self.client_id, delivery.sequence, delivery, packet_id, expires_at)

    def _end_stored(self, delivery: Delivery | Released) -> None:
        if delivery.sequence:
            self.broker.store.acknowledge(self.client_id, delivery.sequence)

    # --- acknowledgements of the client -------------------------------------------------------------------------

    def puback(self, packet_id: int, reason_code: int) -> None:
        """The client has a QoS 1 message, or refused it; either ends it."""
        delivery = self.inflight.get(packet_id)
        if delivery.__class__ is not Delivery:
            self.broker.stats.acknowledgements_unknown += 1
        elif delivery.qos != 1:
            raise ProtocolViolation("PUBACK for a QoS 2 message")
        else:
            self._finish(packet_id, delivery, reason_code)

    def pubacks(self, packet_ids: list[int]) -> None:
        """A run of PUBACKs that say success, at less cost than one by one where nobody waits for any of them."""
        inflight = self.inflight
        is_crowded = self._freed is not None or len(inflight) > MAX_PACKET_ID // 2
        if self.is_durable or is_crowded or self.broker.observers:
            for packet_id in packet_ids:
                self.puback(packet_id, 0)
            return
        ended = 0
        for packet_id in packet_ids:
            delivery = inflight.get(packet_id)
            if delivery.__class__ is Delivery and delivery.qos == 1 and delivery.confirmed is None:
                del inflight[packet_id]
                ended += 1
            else:
                self.puback(packet_id, 0)
        self.broker.stats.messages_delivered += ended
        if self._unsent is not None:
            for packet_id in packet_ids:
                self._unsent.pop(packet_id, None)
        if self.pending or self._unsent is not None or self.replay is not None:
            self.pump()

    def pubrec(self, packet_id: int, reason_code: int) -> tuple[bool, int]:
        """The client has a QoS 2 message.  Gives whether PUBREL is owed, and its reason code."""
        delivery = self.inflight.get(packet_id)
        if delivery is None:
            self.broker.stats.acknowledgements_unknown += 1
            return reason_code < 0x80 and self._release_unknown(packet_id), ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
        if isinstance(delivery, Released):
            return reason_code < 0x80, 0
        if delivery.qos != 2:
            raise ProtocolViolation("PUBREC for a QoS 1 message")
        if reason_code >= 0x80:  # [MQTT-4.3.3-4]
            self._finish(packet_id, delivery, reason_code)
            return False, 0
        if delivery.sequence:
            self.broker.store.released(self.client_id, delivery.sequence, packet_id)
        if delivery.sequence or delivery.confirmed:
            self.inflight[packet_id] = Released(delivery.sequence, delivery.confirmed)
        else:
            self.inflight[packet_id] = RELEASED
        if self._unsent is not None:
            self._unsent.pop(packet_id, None)
        self._observe_delivered(delivery)
        return True, 0

    def _release_unknown(self, packet_id: int) -> bool:
        """Our PUBREL will be answered, and until then no message may have this packet id, or the answer is to that.

        It may be answered twice, where PUBREC came twice; so a message should not have it soon afterwards either.
        """
        if len(self.inflight) >= self.broker.limits.max_inflight:
            raise ProtocolViolation("PUBREC for what was not sent, while as much as may be is under way")
        self.inflight[packet_id] = RELEASED
        self._last_packet_id = max(self._last_packet_id, packet_id)
        return True

    def pubcomp(self, packet_id: int, reason_code: int) -> None:
        """The exchange of a QoS 2 message is over."""
        state = self.inflight.get(packet_id)
        if state is None:
            self.broker.stats.acknowledgements_unknown += 1
        elif isinstance(state, Released):
            self._finish(packet_id, state, reason_code)
        else:
            raise ProtocolViolation("PUBCOMP before PUBREC")

    def _finish(self, packet_id: int, state: Delivery | Released, reason_code: int) -> None:
        inflight = self.inflight
        del inflight[packet_id]  # [MQTT-4.4.0-2] [MQTT-4.8.2-6]
        if state.sequence:
            self._end_stored(state)
        if isinstance(state, Delivery):
            self._observe_delivered(state)
        if self._freed is not None or len(inflight) > MAX_PACKET_ID // 2:
            self._remember_freed(packet_id)
        if self.pending or self._unsent is not None or self.replay is not None:
            if self._unsent is not None:
                self._unsent.pop(packet_id, None)
            self.pump()
        if state.confirmed is not None:
            state.confirmed(acknowledged(reason_code))

    def _remember_freed(self, packet_id: int) -> None:
        if len(self.inflight) <= MAX_PACKET_ID // 2:
            self._freed = None
        else:
            if self._freed is None:
                self._freed = deque()
            self._freed.append(packet_id)

    def _observe_delivered(self, delivery: Delivery) -> None:
        broker = self.broker
        broker.stats.messages_delivered += 1
        if broker.observers:
            broker.observers.delivered(self, delivery)

    # --- coming and going ----------------------------------------------------------------------------------------

    def attach(self, connection: Connection) -> None:
        """A connection carries the session from now on; nothing is sent before ``resume``."""
        if self.inflight is NO_INFLIGHT:
            self.inflight = {}
        self.connection = connection
        self.version = connection.version
        self.authorize(connection.avatar)

    def resume(self) -> None:
        """Behind CONNACK: resend what was inflight, in order, then what is pending [MQTT-4.4.0-1] [MQTT3-4.4.0-1]."""
        connection = self.connection
        assert connection is not None
        self.sink = connection.qos0_sink
        self.encoding = connection.encoding
        if self.inflight:
            unsent: OrderedDict[int, None] = OrderedDict()
            for packet_id, state in self.inflight.items():
                if isinstance(state, Delivery):
                    unsent[packet_id] = None
                else:  # no window holds a PUBREL back  [MQTT-3.3.4-10] [MQTT-4.3.3-6]
                    connection.put(PUBREL_HEAD + PACKET_ID[packet_id])  # [MQTT-4.9.0-3]
            self._unsent = unsent or None  # [MQTT-4.4.0-1] [MQTT3-4.4.0-1]
        if not connection.is_blocked:
            self.quota = connection.window
            self.pump()

    def _resend(self) -> bool:
        """Send again with DUP as much as the window allows; True when all is sent."""
        unsent, inflight, connection = self._unsent, self.inflight, self.connection
        assert unsent is not None
        if connection is None or connection.is_blocked:
            return False
        while unsent:
            if len(inflight) - len(unsent) >= connection.window:  # [MQTT-3.3.4-9]
                self.quota = 0
                return False
            packet_id, _ = unsent.popitem(last=False)
            state = inflight[packet_id]
            assert isinstance(state, Delivery)
            self._resend_publish(packet_id, state)
        self._unsent = None
        self.quota = connection.window
        return True

    def _resend_publish(self, packet_id: int, delivery: Delivery) -> None:
        # [MQTT-4.3.3-7] [MQTT-4.3.3-13]
        # One that has expired goes out too: the client may have it already, and the exchange is to end.
        if self.avatar is not None and not self.may_receive_delivery(delivery):
            del self.inflight[packet_id]
            self._drop(delivery, "dropped_not_authorized")
            return
        halves = self._halves(delivery, delivery.qos << 1 | delivery.retain | DUP)  # [MQTT-3.3.1-1] [MQTT3-3.3.1-1]
        if halves is None:
            self._end_stored(self.inflight.pop(packet_id))
            return
        self._put((halves[0], PACKET_ID[packet_id], halves[1]))

    def detach(self) -> None:
        """The connection is gone; the session waits."""
        self.connection = None
        self.sink = None
        self.encoding = ASK
        self.quota = 0
        self._unsent = None
        if not self.inflight:
            self.inflight = NO_INFLIGHT
        self.authorize(None)

    def block(self, sink: Any) -> None:
        """The socket takes nothing more: QoS 0 goes to ``sink``, which is bounded, QoS 1 and 2 wait."""
        if self.sink is not None:
            self.sink = sink
            self.quota = 0

    def unblock(self, sink: Any) -> None:
        """The socket takes again."""
        if self.sink is not None and self.connection is not None:
            self.sink = sink
            self.quota = self.connection.window
            self.pump()

    # --- the end -------------------------------------------------------------------------------------------------

    def forget(self) -> None:
        """The session ends: whoever may still know it, a route for one, keeps nothing that grew with it.  What waits in
        it is gone, and what its client has not acknowledged.
        """
        self.subscriptions.clear()
        self.received = self._freed = self._unsent = self.replay = self.stamp = None
        self.rights = NO_RIGHTS
        unheard = [state for state in self.inflight.values() if state.confirmed is not None]
        self.inflight = NO_INFLIGHT
        pending, self.pending = self.pending, None
        if pending is not None:
            unheard += [delivery for delivery in pending.take_all() if delivery.confirmed is not None]
        for state in unheard:
            if state.confirmed is not None:
                state.confirmed(NO_SESSION if isinstance(state, Delivery) else acknowledged(0))
