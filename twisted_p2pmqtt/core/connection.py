"""Connection: the rules of one network connection, without the network.

Bytes come in through ``receive``, frames go out through ``sink``; a ``Wire`` (the Twisted protocol, the WebSocket
adapter, the testing client) carries both.  Until the handshake has made a session nothing but CONNECT and AUTH is
taken. Packets that must wait for an answer (a login, a right) hold back all that came after them, in order.

Errors: any layer raises ``MQTTError``; ``receive`` is the one place that turns it into a DISCONNECT or CONNACK (5.0)
or a close (3.x).  Any other exception is logged, counted, and ends this connection alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.errors import MQTTError, PacketTooLarge, ProtocolViolation, ServerRedirect
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Pubacks,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import PACKET_ID, PINGRESP, PUBCOMP_HEAD, PUBREL_HEAD, encode
from twisted_p2pmqtt.core.aliases import OutgoingAliases
from twisted_p2pmqtt.core.connack import refusal_frame
from twisted_p2pmqtt.core.handshake import Handshake, Login, Over
from twisted_p2pmqtt.core.publishing import NotYet, Publishing
from twisted_p2pmqtt.core.subscribing import subscribe, unsubscribe
from twisted_p2pmqtt.core.wire import DISCARDING, Wire
from twisted_p2pmqtt.interfaces import IConnection

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.session import Session

PACKET_LIMIT_BEFORE_CONNECT = 65536 + 64
"""Bytes that a packet may have until a CONNECT is accepted: the longest client id fits, and is refused as what it
is.
"""

PACKET_TIMEOUT = 30.0
"""Seconds in which a packet that has begun must be whole."""


NOT_IN_DISCONNECT = frozenset((0x84, 0x85, 0x86, 0x88, 0x8A, 0x8C))
"""Reason codes for refusing a CONNECT that a failed re-authentication may raise as well (4.12.1)."""


Explained = Connack | Suback | Unsuback | Disconnect | Auth
"""Packets of ours that may carry a reason string."""


NOT_YET = NotYet()


@implementer(IConnection)
class Connection:
    """One network connection: who it is, what its peer can take, what is owed to it."""

    __slots__ = (
        "_has_progress",
        "_held",
        "_partial_timer",
        "_timer",
        "aliases",
        "avatar",
        "broker",
        "encoding",
        "flush",
        "frames_held",
        "handshake",
        "is_blocked",
        "is_closed",
        "is_explained",
        "is_stuck",
        "is_unread",
        "keep_alive",
        "last_packet",
        "login_timer",
        "logout",
        "max_packet_size",
        "publishing",
        "qos0_sink",
        "reader",
        "session",
        "sink",
        "username",
        "version",
        "window",
        "wire",
    )

    def __init__(self, broker: Broker, wire: Wire, login: Login) -> None:
        self.broker = broker
        self.wire = wire
        self.sink: Any = wire.sink
        self.qos0_sink: Any = wire.sink  # where a QoS 0 message goes, which may be dropped
        self.flush: Callable[[], None] = wire.flush
        self.reader = PacketReader(
            min(PACKET_LIMIT_BEFORE_CONNECT, broker.limits.max_packet_size), known_topics=broker.routes
        )
        self.session: Session | None = None
        self.handshake: Handshake | Over = Handshake(self, login)
        self.publishing: Publishing | NotYet = NOT_YET
        self.avatar: Any = None
        self.logout: Callable[[], object] | None = None
        self.login_timer: Any = None
        self.username: str | None = None
        self.version = 0
        self.encoding = 0
        self.max_packet_size = 0
        self.aliases: OutgoingAliases | None = None
        self.keep_alive = 0
        self.window = 0  # QoS 1 and 2 messages that may be unacknowledged by the client
        self.is_explained = True  # may acknowledgements carry reason strings and user properties?
        self.is_blocked = False
        self.is_closed = False
        self.is_stuck = False  # is it not read because the store cannot be written?
        self.is_unread = False  # is reading held back by us, so that silence is not the peer's?
        self.frames_held = 0
        self.last_packet = broker.wheel.now
        self._held: Iterator[Packet] | None = None
        self._has_progress = False
        self._partial_timer: Any = None
        self._timer: Any = broker.wheel.after(broker.limits.connect_timeout, self._connect_timed_out)
        broker.stats.connections_open += 1

    @property
    def peer(self) -> str:
        """The peer's address, for logs and lists."""
        return self.wire.peer

    # --- bytes in ------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes from the peer and act on every packet that they complete.

        Whoever calls sees to it that ``Broker.flush`` follows, by ``taken_in`` or at the end of a round.
        """
        if self.is_closed:  # [MQTT-3.1.4-6] [MQTT3-3.1.4-5]
            return
        reader = self.reader
        if self._held is not None:
            reader.hold(data)
            return
        packets = reader.feed(data)
        if packets:
            self.last_packet = self.broker.wheel.now
            self._has_progress = True
            self._process(iter(packets))
            if reader.is_halted and reader.partial is not None and self._held is None:
                self.receive(b"")  # what came behind CONNECT
                return
        elif reader.error is not None:
            self._fail(reader.error)
        if reader.partial is not None and self._partial_timer is None and not self.is_closed:
            self._has_progress = False
            self._partial_timer = self.broker.wheel.after(PACKET_TIMEOUT, self._check_partial_packet)

    def _process(self, packets: Iterator[Packet]) -> None:
        try:
            for packet in packets:
                if type(packet) is Message:
                    waiting = self.publishing.publish(packet)
                else:
                    waiting = _HANDLERS[type(packet)](self, packet)
                if waiting is not None:
                    self._hold(waiting, packets)
                    return
                if self.is_closed:
                    return
            if self.reader.error is not None:
                self._fail(self.reader.error)
        except MQTTError as error:  # [MQTT-3.1.4-1] [MQTT-4.13.1-1] [MQTT3-3.1.4-1] [MQTT3-4.8.0-1]
            self._fail(error)
        except Exception:  # [MQTT3-4.8.0-2]
            self.broker.guard.report_internal("a connection")
            self._fail(MQTTError("internal error", ReasonCode.UNSPECIFIED_ERROR))

    def _hold(self, waiting: Deferred[Any], packets: Iterator[Packet]) -> None:
        """Act on nothing more until ``waiting`` has fired; it gives what is to be acted on first, or None."""
        self._held = packets
        self.wire.pause()
        waiting.addCallbacks(self._go_on, self._hold_failed)

    def _go_on(self, first: Packet | None) -> None:
        packets, self._held = self._held, None
        if packets is None or self.is_closed:
            return
        self.wire.resume()
        self._process(_before(first, packets) if first is not None else packets)
        self.receive(b"")  # what came behind in the meantime
        self.broker.schedule_flush()

    def _hold_failed(self, failure: Any) -> None:
        self._held = None
        if failure.check(MQTTError):
            self._fail(failure.value)
        else:
            self.broker.guard.report("a connection's answer", failure)
            self._fail(MQTTError("internal error", ReasonCode.UNSPECIFIED_ERROR))
        self.broker.schedule_flush()

    # --- frames out ----------------------------------------------------------------------------------------------

    def put(self, frame: bytes) -> None:
        """Send a frame with the next flush."""
        sink = self.sink
        if not sink:
            self.broker.touched.append(self)
        sink.append(frame)

    def put_all(self, frames: list[bytes]) -> None:
        """Send frames with the next flush."""
        sink = self.sink
        if not sink:
            self.broker.touched.append(self)
        sink.extend(frames)

    def respond(self, frame: bytes, refusal: bytes) -> None:
        """Send a frame that promises survival: after the commit, or ``refusal`` where that fails."""
        if self.frames_held or self.broker.store.pending:
            self.broker.commits.hold(self, frame, refusal)
        else:
            self.put(frame)

    def send(self, packet: Explained) -> None:
        """Encode a packet and send it, without its explanations where the client takes no packet that large."""
        self.respond(self.encode_fitting(packet), b"")

    def encode_fitting(self, packet: Explained) -> bytes:
        """The packet's bytes, without reason string and user properties where they make it too large; raises
        ``PacketTooLarge`` where the client does not take it even so.
        """
        frame = encode(packet, self.version)
        limit = self.max_packet_size
        if limit and len(frame) > limit:
            # [MQTT-3.2.2-19] [MQTT-3.2.2-20] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2]
            # [MQTT-3.14.2-3] [MQTT-3.14.2-4] [MQTT-3.15.2-2] [MQTT-3.15.2-3]
            packet.properties = Properties(**packet.properties)
            packet.properties.pop("reason_string", None)
            packet.properties.pop("user_properties", None)
            frame = encode(packet, self.version)
            if len(frame) > limit:  # [MQTT-3.1.2-24]
                raise PacketTooLarge("the client's maximum packet size has no room for an answer")
        return frame

    # --- packets that need no file of their own ----------------------------------------------------------------------

    def _connect(self, packet: Connect) -> Deferred[Any] | None:
        if self.handshake.has_begun:
            raise ProtocolViolation("second CONNECT")  # [MQTT-3.1.0-2] [MQTT3-3.1.0-2]
        return self.handshake.begin(packet)

    def _auth(self, packet: Auth) -> Deferred[Any] | None:
        return self.handshake.auth(packet)

    def _puback(self, packet: Puback) -> None:
        session = self.session or self._session
        session.puback(packet.packet_id, packet.reason_code)

    def _pubacks(self, packet: Pubacks) -> None:
        self._session.pubacks(packet.packet_ids)

    def _pubrec(self, packet: Pubrec) -> None:
        owed, code = self._session.pubrec(packet.packet_id, packet.reason_code)
        if owed:
            if code and self.version == 5:
                self.respond(encode(Pubrel(packet.packet_id, code), 5), b"")  # [MQTT-3.6.2-2] [MQTT-3.6.2-3]
            else:
                self.respond(PUBREL_HEAD + PACKET_ID[packet.packet_id], b"")  # [MQTT-4.3.3-5]

    def _pubrel(self, packet: Pubrel) -> None:
        if self.publishing.release(packet.packet_id) or self.version < 5:
            self.respond(PUBCOMP_HEAD + PACKET_ID[packet.packet_id], b"")  # [MQTT-4.3.3-11] [MQTT3-4.3.3-2]
        else:
            # [MQTT-3.7.2-2] [MQTT-3.7.2-3]
            self.respond(encode(Pubcomp(packet.packet_id, ReasonCode.PACKET_IDENTIFIER_NOT_FOUND), 5), b"")

    def _pubcomp(self, packet: Pubcomp) -> None:
        self._session.pubcomp(packet.packet_id, packet.reason_code)

    def _subscribe(self, packet: Subscribe) -> Deferred[Any] | None:
        return subscribe(self, self._session, packet)

    def _unsubscribe(self, packet: Unsubscribe) -> None:
        unsubscribe(self, self._session, packet)

    def _pingreq(self, packet: Pingreq) -> None:
        self._session  # noqa: B018  # refuses before CONNECT is through
        self.respond(PINGRESP, PINGRESP)  # [MQTT-3.12.4-1] [MQTT3-3.12.4-1]

    def _disconnect(self, packet: Disconnect) -> None:
        session = self.session
        if session is None:  # in the middle of an AUTH exchange a client may give up  [MQTT-3.1.2-30]
            self._end(packet.reason_code, is_orderly=True)
            return
        if "server_reference" in packet.properties:
            raise ProtocolViolation("a server reference is the server's to give")
        interval = packet.properties.get("session_expiry_interval")
        if interval is not None:
            if session.expiry_interval == 0 and interval != 0:
                raise ProtocolViolation("the session expiry interval was zero and must stay so")
            self.broker.registry.set_expiry(session, interval)
        self._end(packet.reason_code, is_orderly=packet.reason_code == ReasonCode.SUCCESS)  # [MQTT-3.14.4-3]

    @property
    def _session(self) -> Session:
        if self.session is None:
            raise ProtocolViolation("packet before the handshake is over")
        return self.session

    # --- the end -------------------------------------------------------------------------------------------------

    def close(self, reason_code: int, properties: Properties | None = None) -> None:
        """Tell a 5.0 client why, and close.  Idempotent."""
        if self.is_closed:
            return
        if self.session is not None and self.version == 5:  # [MQTT-3.14.0-1]
            if reason_code in NOT_IN_DISCONNECT:  # [MQTT-3.14.2-1]
                reason_code = ReasonCode.NOT_AUTHORIZED
            try:
                self.put(self.encode_fitting(Disconnect(reason_code, properties or Properties())))  # [MQTT-3.14.2-2]
            except PacketTooLarge:  # the close has to say it  [MQTT-4.13.2-1]
                pass
        self._end(reason_code, is_orderly=False)

    def _fail(self, error: MQTTError) -> None:
        """The client broke a rule: say which, where that is allowed, and close."""
        if self.is_closed:
            return
        stats = self.broker.stats
        stats.malformed_packets += 1
        if self.session is not None:
            properties = Properties(reason_string=error.reason_string) if self.is_explained else Properties()
            if isinstance(error, ServerRedirect):
                properties["server_reference"] = error.server_reference
            self.close(error.reason_code, properties)
            return
        stats.connections_refused += 1
        # Before a CONNECT could be read the peer may be anything, and is told nothing.
        if not isinstance(error, PacketTooLarge):
            frame = refusal_frame(self.reader.version, error)
            if frame:
                self.put(frame)
        self._end(error.reason_code, is_orderly=False)  # [MQTT-3.2.2-7] [MQTT3-3.2.2-5]

    def refuse(self, reason_code: ReasonCode) -> None:
        """Turn the connection away before it has a session."""
        self._fail(MQTTError("connection refused", reason_code))
        self.broker.schedule_flush()

    def _end(self, reason_code: int, is_orderly: bool) -> None:
        self.is_closed = True
        for timer in (self._timer, self._partial_timer, self.login_timer):
            if timer is not None:
                timer.cancel()
        self._held = None
        self.broker.stats.connections_open -= 1
        session = self.session
        # One whose opening failed half-way is nobody's yet, and would else wait for ever.
        if session is not None and session.connection in (self, None) and session.left_at is None:
            self.broker.registry.leave(session, is_orderly)
            if self.broker.observers:
                self.broker.observers.tell("disconnected", session.client_id, int(reason_code))
        self.handshake.cancel()
        if self.logout is not None:
            self.broker.guard.call(self.logout)
        self.wire.close()  # [MQTT-3.14.4-2]
        self.sink = DISCARDING  # [MQTT-3.14.4-1]
        self.broker.schedule_flush()

    def lost(self) -> None:
        """The transport is gone."""
        if not self.is_closed:
            self._end(ReasonCode.UNSPECIFIED_ERROR, is_orderly=False)

    # --- time ----------------------------------------------------------------------------------------------------

    def accepted(self, keep_alive: int) -> None:
        """The handshake is over: the limits of a known client hold, and its keep-alive runs."""
        self.reader.max_packet_size = self.broker.limits.max_packet_size
        self.keep_alive = keep_alive
        self._timer.cancel()
        self._timer = None
        self.last_packet = self.broker.wheel.now
        if keep_alive:
            self._timer = self.broker.wheel.after(keep_alive * 1.5, self._check_keep_alive)

    def established(self, has_survived: bool) -> None:
        """CONNACK is on its way: what is owed to the session follows it; or it could not be stored."""
        if self.is_closed:
            return
        if not has_survived:
            if self.session is not None and self.session.connection is self:
                self.session.expiry_interval = 0  # what could not be stored is not to be resumed
            self._end(ReasonCode.QUOTA_EXCEEDED, is_orderly=True)
        elif self.session is not None and self.session.connection is self:
            self.session.resume()

    def _check_keep_alive(self) -> None:
        left = self.last_packet + self.keep_alive * 1.5 - self.broker.wheel.now
        if left > 0 or self._held is not None or self.is_unread or self.is_stuck:
            self._timer = self.broker.wheel.after(max(left, 1.0), self._check_keep_alive)
        else:
            self.close(ReasonCode.KEEP_ALIVE_TIMEOUT)  # [MQTT-3.1.2-22] [MQTT3-3.1.2-24]

    def _check_partial_packet(self) -> None:
        self._partial_timer = None
        if self.reader.has_partial_packet and self._held is None:
            if not self._has_progress and not self.is_unread:
                self.close(ReasonCode.MALFORMED_PACKET)
            else:
                self._has_progress = False
                self._partial_timer = self.broker.wheel.after(PACKET_TIMEOUT, self._check_partial_packet)

    def _connect_timed_out(self) -> None:
        if not self.is_closed and self.session is None:
            self.broker.stats.connections_refused += 1
            self._end(ReasonCode.KEEP_ALIVE_TIMEOUT, is_orderly=False)

    # --- the wire's state ----------------------------------------------------------------------------------------

    def block(self, sink: Any, qos0_sink: Any) -> None:
        """The socket takes nothing more: answers go to ``sink``, QoS 0 messages to ``qos0_sink``, which may drop
        them.
        """
        self.is_blocked = True
        if not self.is_closed:
            self.sink, self.qos0_sink = sink, qos0_sink
            if self.session is not None and self.session.connection is self:
                self.session.block(qos0_sink)

    def unblock(self, sink: Any) -> None:
        """The socket takes again."""
        self.is_blocked = False
        if not self.is_closed:
            self.sink = self.qos0_sink = sink
            if self.session is not None and self.session.connection is self:
                self.session.unblock(sink)
                self.broker.schedule_flush()


def _before(first: Packet, rest: Iterator[Packet]) -> Iterator[Packet]:
    yield first
    yield from rest


def _not_from_client(connection: Connection, packet: Packet) -> None:
    raise ProtocolViolation("this packet goes the other way only")


_HANDLERS: dict[type, Callable[[Connection, Any], Deferred[Any] | None]] = {
    Puback: Connection._puback,
    Pubacks: Connection._pubacks,
    Pubrec: Connection._pubrec,
    Pubrel: Connection._pubrel,
    Pubcomp: Connection._pubcomp,
    Connect: Connection._connect,
    Subscribe: Connection._subscribe,
    Unsubscribe: Connection._unsubscribe,
    Pingreq: Connection._pingreq,
    Disconnect: Connection._disconnect,
    Auth: Connection._auth,
    Connack: _not_from_client,
    Pingresp: _not_from_client,
}
