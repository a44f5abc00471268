"""Publishing: what one client publishes, from the packet to its acknowledgement (3.3, 4.3, 4.9).

QoS 2 is answered once a packet identifier: an identifier that still awaits PUBREL is a duplicate, whatever its DUP
flag says.  A P2P message whose sender asked for it is acknowledged when its target has (``late``).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError, ProtocolViolation
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.properties import NO_PROPERTIES, Properties
from twisted_p2pmqtt.codec.writer import PACKET_ID, PUBACK_HEAD, PUBREC_HEAD
from twisted_p2pmqtt.core.delivery import (
    ACCEPTED,
    MAX_EXPLAINED,
    PAYLOAD_INVALID,
    PUBACK,
    PUBREC,
    QUOTA_EXCEEDED,
    TIMED_OUT,
    Awaited,
    Outcome,
)
from twisted_p2pmqtt.core.late import Done, Late, Line

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.connection import Connection
    from twisted_p2pmqtt.core.session import Session

NO_LIMIT = 268_435_460


class NotYet:
    """Stands where a connection's ``Publishing`` will be, until there is a session."""

    def publish(self, message: Message) -> None:
        """Refuse."""
        raise ProtocolViolation("PUBLISH before the handshake is over")

    def release(self, packet_id: int) -> bool:
        """Refuse."""
        raise ProtocolViolation("PUBREL before the handshake is over")


class Publishing:
    """The publishing side of one connection."""

    __slots__ = (
        "_aliases",
        "_broker",
        "_bucket",
        "_carried",
        "_connection",
        "_is_explained",
        "_is_v5",
        "_limit",
        "_max_qos",
        "_pubacks",
        "_pubrecs",
        "_session",
        "_store",
        "_unacknowledged",
    )

    def __init__(self, connection: Connection, session: Session) -> None:
        self._connection = connection
        self._session = session
        self._broker = connection.broker
        self._store = self._broker.store if self._broker.store.durable else None
        self._is_v5 = connection.version == 5
        self._limit = connection.max_packet_size or NO_LIMIT
        self._is_explained = connection.is_explained and self._limit >= MAX_EXPLAINED
        self._aliases: dict[int, bytes] | None = None  # [MQTT-3.3.2-7]: they end with the connection
        self._unacknowledged = 0
        # QoS 2 ids of connections before: the Receive Maximum is this one's alone (4.9).
        self._carried = set(session.received) if session.received else None
        self._pubacks: Line | None = None  # made when one has to wait for a P2P target
        self._pubrecs: Line | None = None
        limits = self._broker.limits
        self._max_qos = limits.max_qos
        self._bucket = TokenBucket(limits.publish_rate, limits.publish_burst) if limits.publish_rate else None

    def publish(self, message: Message) -> Deferred[Any] | None:
        """Act on a PUBLISH; a Deferred of the same message where it must be acted on again later."""
        broker, session = self._broker, self._session
        if message.properties:
            self._apply_properties(message)
            if broker.limits.validate_payload_format and not has_valid_format(message.properties, message.payload):
                self._refuse_payload(message)
                return None
        route = None if session.avatar is None else broker.routes[message.topic]
        if self._bucket is not None or (route is not None and not session.rights.get(route)):
            waiting = self._must_wait(message)
            if waiting is not None:
                return waiting
        qos = message.qos
        if message.retain or qos > self._max_qos:
            self._check_supported(message)
        if qos == 0:  # [MQTT-3.3.4-1] [MQTT3-3.3.4-1]
            broker.publish_message(message, session, route)
            return None
        store = self._store
        if (
            store is not None
            and (store.congested or not store.available)
            and broker.commits.must_wait(self._connection)
        ):
            return broker.commits.wait(self._connection, message)
        if self._is_v5 and (self._unacknowledged or session.received):
            self._check_receive_maximum(message)
        if qos == 1:
            self._publish_at_least_once(message)
        else:
            self._publish_exactly_once(message)
        return None

    def _publish_at_least_once(self, message: Message) -> None:
        broker, connection = self._broker, self._connection
        outcome = broker.publish_message(message, self._session)
        if outcome is ACCEPTED or not self._is_v5:
            frame = PUBACK_HEAD + PACKET_ID[message.packet_id]  # [MQTT-2.2.1-5] [MQTT-4.3.2-5] [MQTT3-2.3.1-6]
        elif type(outcome) is Awaited:
            self._await_target(PUBACK, message.packet_id, outcome)
            return
        elif self._is_explained:
            frame = outcome.puback_head + PACKET_ID[message.packet_id] + outcome.explanation
        else:
            frame = self._explain(PUBACK, message.packet_id, outcome)
        if not (connection.frames_held or broker.store.pending or self._pubacks):  # [MQTT-4.3.2-4] [MQTT3-4.3.2-2]
            sink = connection.sink
            if not sink:
                broker.touched.append(connection)
            sink.append(frame)
        elif self._is_v5:
            self._unacknowledged += 1
            refusal = self._explain(PUBACK, message.packet_id, QUOTA_EXCEEDED)
            self._hold(self._pubacks, message.packet_id, frame, refusal, self._acknowledged)
        else:
            broker.commits.hold(connection, frame, b"")

    def _check_supported(self, message: Message) -> None:
        if message.retain and not self._broker.limits.retain_available:  # [MQTT-3.2.2-14]
            raise MQTTError("retained messages are not supported", ReasonCode.RETAIN_NOT_SUPPORTED)
        if message.qos > self._max_qos:  # [MQTT-3.2.2-11]
            raise MQTTError("the QoS is not supported", ReasonCode.QOS_NOT_SUPPORTED)

    def _must_wait(self, message: Message) -> Deferred[Message] | None:
        """A Deferred of the message while its right is being asked, or its publisher's rate is used up."""
        broker = self._broker
        if self._session.avatar is not None:
            right = self._session.ask_right(broker.routes[message.topic])
            if not isinstance(right, bool):
                return right.addCallback(lambda answer: message)
        if self._bucket is not None and (wait := self._bucket.wait(broker.wheel.now)):
            later: Deferred[Message] = Deferred()
            broker.wheel.after(wait, later.callback, message)
            return later
        return None

    def _refuse_payload(self, message: Message) -> None:
        """The payload is not the UTF-8 that it is said to be (3.3.2.3.2)."""
        if not message.qos:
            raise MQTTError("the payload is not UTF-8", ReasonCode.PAYLOAD_FORMAT_INVALID)
        first, line = (PUBACK, self._pubacks) if message.qos == 1 else (PUBREC, self._pubrecs)
        refusal = self._explain(first, message.packet_id, PAYLOAD_INVALID)
        self._respond(line, message.packet_id, refusal, refusal)

    def _publish_exactly_once(self, message: Message) -> None:
        broker, session, packet_id = self._broker, self._session, message.packet_id
        received = session.received
        if received is None:
            received = session.received = set()
        if packet_id in received:  # [MQTT-4.3.3-10] [MQTT3-4.3.3-2]
            if self._carried:
                self._carried.discard(packet_id)
            if not self._pubrecs or not self._pubrecs.holds(packet_id):
                self._respond(self._pubrecs, packet_id, PUBREC_HEAD + PACKET_ID[packet_id], b"")
            return
        outcome = broker.publish_message(message, session)
        if self._is_v5 and outcome.reason_code >= 0x80:  # [MQTT-4.3.3-9]: the exchange ends here
            refusal = self._explain(PUBREC, packet_id, outcome)
            self._respond(self._pubrecs, packet_id, refusal, refusal)
            return
        received.add(packet_id)  # [MQTT-4.3.3-13]
        if session.is_durable:
            broker.store.receive(session.client_id, packet_id)
        if outcome is ACCEPTED or not self._is_v5:  # [MQTT3-3.3.5-2]
            frame = PUBREC_HEAD + PACKET_ID[packet_id]
        elif type(outcome) is Awaited:
            self._await_target(PUBREC, packet_id, outcome)
            return
        elif self._is_explained:
            frame = outcome.pubrec_head + PACKET_ID[packet_id] + outcome.explanation
        else:
            frame = self._explain(PUBREC, packet_id, outcome)
        if self._connection.frames_held or broker.store.pending or self._pubrecs:
            refusal = self._explain(PUBREC, packet_id, QUOTA_EXCEEDED) if self._is_v5 else b""
            self._hold(self._pubrecs, packet_id, frame, refusal, partial(self._received, packet_id))
        else:
            self._connection.put(frame)  # [MQTT-4.3.3-8]

    def _received(self, packet_id: int, has_survived: bool) -> None:
        if not has_survived:  # the client may use the id for something else
            self.release(packet_id)

    def _respond(self, line: Line | None, packet_id: int, frame: bytes, refusal: bytes) -> None:
        """Send an acknowledgement that promises nothing new."""
        if line:
            self._unacknowledged += 1
            self._hold(line, packet_id, frame, refusal, self._acknowledged)
        else:
            self._connection.respond(frame, refusal)

    # --- acknowledgements that leave later -----------------------------------------------------------------------

    def _hold(self, line: Line | None, packet_id: int, frame: bytes, refusal: bytes, done: Done) -> None:
        """Send a frame after the commit, and not before those that wait for a target."""
        if line:  # [MQTT-4.6.0-2] [MQTT-4.6.0-3]
            self._cover(line, line.join(packet_id, frame, refusal, done))
        else:
            self._broker.commits.hold(self._connection, frame, refusal, done)

    def _cover(self, line: Line, late: Late) -> None:
        """Have it wait for the commit, and for the frames that wait for theirs already."""
        if self._connection.frames_held or self._broker.store.pending:
            self._broker.commits.hold(self._connection, b"", b"", partial(line.cover, late))
        else:
            line.cover(late, True)

    def _await_target(self, first: bytes, packet_id: int, awaited: Awaited) -> None:
        """Acknowledge when the target has, or when the sender's time is up."""
        put, done = self._connection.put, self._acknowledged
        if first == PUBACK:
            self._unacknowledged += 1
            line = self._pubacks = self._pubacks if self._pubacks is not None else Line(put)
        else:
            done = partial(self._received, packet_id)
            line = self._pubrecs = self._pubrecs if self._pubrecs is not None else Line(put)
        late = line.join(packet_id, b"", self._explain(first, packet_id, QUOTA_EXCEEDED), done)
        timer = self._broker.wheel.after(awaited.timeout, self._answer, first, line, late, TIMED_OUT)

        def confirmed(outcome: Outcome) -> None:
            timer.cancel()
            self._answer(first, line, late, outcome)

        awaited.confirmation.addCallback(confirmed)
        self._cover(line, late)

    def _answer(self, first: bytes, line: Line, late: Late, outcome: Outcome) -> None:
        if late.frame or self._connection.is_closed:  # a new connection has begun the exchange anew
            return
        frame = self._explain(first, late.packet_id, outcome)
        if first == PUBREC and outcome.reason_code >= 0x80 and self.release(late.packet_id):  # [MQTT-4.3.3-9]
            late.is_covered = False  # that the id is free must survive as well
            line.answer(late, frame)
            self._cover(line, late)
        else:
            line.answer(late, frame)
        self._broker.schedule_flush()

    def release(self, packet_id: int) -> bool:
        """PUBREL: the id may be used again; False where it was not in use."""
        session = self._session
        if not session.received or packet_id not in session.received:
            return False
        session.received.discard(packet_id)  # [MQTT-4.3.3-12]
        if self._carried:
            self._carried.discard(packet_id)
        if session.is_durable:
            self._broker.store.forget(session.client_id, packet_id)
        return True

    def _explain(self, first: bytes, packet_id: int, outcome: Outcome) -> bytes:
        return outcome.acknowledgement(first, PACKET_ID[packet_id], self._connection.is_explained, self._limit)

    def _acknowledged(self, has_survived: bool) -> None:
        self._unacknowledged -= 1

    def _check_receive_maximum(self, message: Message) -> None:
        received = self._session.received
        count = self._unacknowledged + (len(received) if received else 0) - (len(self._carried) if self._carried else 0)
        if count >= self._broker.limits.receive_maximum and not (received and message.packet_id in received):
            # [MQTT-3.3.4-7]
            raise MQTTError("more than Receive Maximum unacknowledged", ReasonCode.RECEIVE_MAXIMUM_EXCEEDED)

    def _apply_properties(self, message: Message) -> None:
        properties = message.properties
        alias = properties.get("topic_alias")
        if alias is not None:
            self._resolve_alias(message, alias)
            rest = Properties(**properties)
            del rest["topic_alias"]
            message.properties = rest or NO_PROPERTIES
        interval = properties.get("message_expiry_interval")
        if interval is not None:
            message.expires_at = self._broker.wheel.now + interval

    def _resolve_alias(self, message: Message, alias: int) -> None:
        if alias > self._broker.limits.topic_alias_maximum:  # [MQTT-3.3.2-9] [MQTT-3.2.2-17] [MQTT-3.2.2-18]
            raise MQTTError("topic alias is larger than the maximum", ReasonCode.TOPIC_ALIAS_INVALID)
        aliases = self._aliases
        if aliases is None:
            aliases = self._aliases = {}
        if message.topic:
            aliases[alias] = message.topic
            return
        topic = aliases.get(alias)
        if topic is None:
            raise ProtocolViolation("topic alias was not set")
        message.topic = topic  # [MQTT-3.3.2-12]


def has_valid_format(properties: Properties, payload: bytes) -> bool:
    """Is a payload whose Payload Format Indicator says UTF-8 that?"""
    if properties.get("payload_format_indicator"):
        try:
            payload.decode()
        except UnicodeDecodeError:
            return False
    return True


class TokenBucket:
    """A rate: ``rate`` messages a second on average, ``burst`` at once (a second's worth where it is 0)."""

    __slots__ = ("_burst", "_filled", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int) -> None:
        self._rate = rate
        self._burst = float(burst or max(rate, 1.0))
        self._tokens = self._burst
        self._filled = 0.0

    def wait(self, now: float) -> float:
        """Take a token, or give the seconds until there is one."""
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1.0:
            return (1.0 - self._tokens) / self._rate
        self._tokens -= 1.0
        return 0.0
