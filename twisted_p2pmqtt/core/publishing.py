"""Publishing: what one client publishes, from the packet to its acknowledgement (3.3, 4.3, 4.9).

QoS 2 is answered once a packet identifier: an identifier that still awaits PUBREL is a duplicate, whatever its DUP
flag says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError, ProtocolViolation
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.properties import NO_PROPERTIES, Properties
from twisted_p2pmqtt.codec.writer import PACKET_ID, PUBACK_HEAD, PUBREC_HEAD
from twisted_p2pmqtt.core.delivery import ACCEPTED, QUOTA_EXCEEDED, Outcome

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.connection import Connection
    from twisted_p2pmqtt.core.session import Session

PUBACK, PUBREC = b"\x40", b"\x50"
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
        "_connection",
        "_is_v5",
        "_limit",
        "_max_qos",
        "_session",
        "_unacknowledged",
    )

    def __init__(self, connection: Connection, session: Session) -> None:
        self._connection = connection
        self._session = session
        self._broker = connection.broker
        self._is_v5 = connection.version == 5
        self._limit = connection.max_packet_size or NO_LIMIT
        self._aliases: dict[int, bytes] | None = None  # [MQTT-3.3.2-7]: they end with the connection
        self._unacknowledged = 0
        limits = self._broker.limits
        self._max_qos = limits.max_qos
        self._bucket = TokenBucket(limits.publish_rate, limits.publish_burst) if limits.publish_rate else None

    def publish(self, message: Message) -> Deferred[Any] | None:
        """Act on a PUBLISH; a Deferred of the same message where it must be acted on again later."""
        broker, session = self._broker, self._session
        if message.properties:
            self._apply_properties(message)
        if session.avatar is not None:
            right = session.ask_right(broker.routes[message.topic])
            if not isinstance(right, bool):
                return right.addCallback(lambda answer: message)
        if self._bucket is not None and (wait := self._bucket.wait(broker.wheel.now)):
            later: Deferred[Message] = Deferred()
            broker.wheel.after(wait, later.callback, message)
            return later
        if message.retain and not broker.limits.retain_available:  # [MQTT-3.2.2-14]
            raise MQTTError("retained messages are not supported", ReasonCode.RETAIN_NOT_SUPPORTED)
        qos = message.qos
        if qos == 0:
            broker.publish_message(message, session)
            return None
        if qos > self._max_qos:  # [MQTT-3.2.2-11]
            raise MQTTError("the QoS is not supported", ReasonCode.QOS_NOT_SUPPORTED)
        if self._is_v5 and (self._unacknowledged or session.received):
            self._check_receive_maximum(message)
        if qos == 1:
            outcome = broker.publish_message(message, session)
            if outcome is ACCEPTED or not self._is_v5:
                frame = PUBACK_HEAD + PACKET_ID[message.packet_id]
            else:
                frame = self._explain(PUBACK, message.packet_id, outcome)
            if self._connection.frames_held or broker.store.pending:
                self._unacknowledged += 1
                refusal = self._explain(PUBACK, message.packet_id, QUOTA_EXCEEDED) if self._is_v5 else b""
                broker.commits.hold(self._connection, frame, refusal, self._acknowledged)
            else:
                self._connection.put(frame)  # [MQTT-4.3.2-4] [MQTT3-4.3.2-2]
            return None
        self._publish_exactly_once(message)
        return None

    def _publish_exactly_once(self, message: Message) -> None:
        broker, session, packet_id = self._broker, self._session, message.packet_id
        received = session.received
        if received is None:
            received = session.received = set()
        if packet_id in received:  # [MQTT-4.3.3-10] [MQTT3-4.3.3-2]
            self._connection.respond(PUBREC_HEAD + PACKET_ID[packet_id], b"")
            return
        outcome = broker.publish_message(message, session)
        if self._is_v5 and outcome.reason_code >= 0x80:  # [MQTT-4.3.3-9]: the exchange ends here
            self._connection.respond(self._explain(PUBREC, packet_id, outcome), b"")
            return
        received.add(packet_id)
        if session.is_durable:
            broker.store.receive(session.client_id, packet_id)
        if outcome is ACCEPTED or not self._is_v5:
            frame = PUBREC_HEAD + PACKET_ID[packet_id]
        else:
            frame = self._explain(PUBREC, packet_id, outcome)
        if self._connection.frames_held or broker.store.pending:
            refusal = self._explain(PUBREC, packet_id, QUOTA_EXCEEDED) if self._is_v5 else b""

            def finished(has_survived: bool) -> None:
                if not has_survived:  # the client may use the id for something else
                    received.discard(packet_id)

            broker.commits.hold(self._connection, frame, refusal, finished)
        else:
            self._connection.put(frame)

    def release(self, packet_id: int) -> bool:
        """PUBREL: the id may be used again; False where it was not in use."""
        session = self._session
        if not session.received or packet_id not in session.received:
            return False
        session.received.discard(packet_id)  # [MQTT-4.3.3-12]
        if session.is_durable:
            self._broker.store.forget(session.client_id, packet_id)
        return True

    def _explain(self, first: bytes, packet_id: int, outcome: Outcome) -> bytes:
        return outcome.acknowledgement(first, PACKET_ID[packet_id], self._connection.is_explained, self._limit)

    def _acknowledged(self, has_survived: bool) -> None:
        self._unacknowledged -= 1

    def _check_receive_maximum(self, message: Message) -> None:
        received = self._session.received
        count = self._unacknowledged + (len(received) if received else 0)
        if count >= self._broker.limits.receive_maximum and not (received and message.packet_id in received):
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
        if alias > self._broker.limits.topic_alias_maximum:  # [MQTT-3.3.2-9]
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
