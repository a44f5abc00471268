"""MQTT over WebSocket (section 6 of MQTT 5.0 and 3.1.1; RFC 6455): MQTTProtocol, unchanged, on another transport.

``WebSocketFactory`` serves a port of its own, ``WebSocketResource`` a place in a ``twisted.web`` site of the host's.
For MQTT a WebSocket is a byte tunnel: what a frame holds is handed on as it arrives, and nothing is ever put together
again, so neither a frame nor a message of any size costs memory.  Each flush goes out as one binary frame.

The MQTTProtocol exists from accept on, so that its limits and its connect timeout hold for the handshake as well.

Bounds: ``FRAMES_PER_TURN``, as a socket read may hold ten thousand small frames; of the answers to pings that wait for
a peer that does not read, only the last is kept (5.5.3); after a close frame the peer has ``CLOSE_TIMEOUT``.

Needs wsproto, the extra ``websocket``: whoever imports this module must be ready for an ImportError.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.pages import notFound
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits
from zope.interface import implementer

from twisted_p2pmqtt.net.outbox import CLOSE_TIMEOUT
from twisted_p2pmqtt.net.protocol import peer_certificate, send_at_once
from twisted_p2pmqtt.net.websocket_handshake import (
    MAX_HEAD,
    Refused,
    Request,
    accept,
    is_for,
    parse_request,
    response_head,
)

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.timers import Timer
    from twisted_p2pmqtt.net.protocol import MQTTFactory

FRAMES_PER_TURN = 500
"""Frames of one peer that are read before everybody else has a turn."""

MAX_FRAME = 268_435_460
"""Bytes that a frame may announce: as many as the largest MQTT packet.  Nothing is kept, but nobody needs more."""


class _Bounds(Extension):
    """No extension, but where wsproto shows a frame's header before its payload has come."""

    name = "x-bounds"

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False

    def frame_inbound_header(
        self, proto: FrameDecoder | FrameProtocol, opcode: Opcode, rsv: RsvBits, payload_length: int
    ) -> CloseReason | RsvBits:
        if opcode is Opcode.TEXT:  # [MQTT-6.0.0-1] [MQTT3-6.0.0-1]
            return CloseReason.UNSUPPORTED_DATA
        if payload_length > MAX_FRAME:
            return CloseReason.MESSAGE_TOO_BIG
        return RsvBits(False, False, False)


@implementer(IPushProducer)
class _Gate:
    """Stands before the producer of what is written, and knows whether the wire takes any more."""

    __slots__ = ("_opened", "is_paused", "producer")

    def __init__(self, producer: Any, opened: Any) -> None:
        self.producer = producer
        self.is_paused = False
        self._opened = opened

    def pauseProducing(self) -> None:
        self.is_paused = True
        self.producer.pauseProducing()

    def resumeProducing(self) -> None:
        self.is_paused = False
        self._opened()
        self.producer.resumeProducing()

    def stopProducing(self) -> None:
        self.producer.stopProducing()


@implementer(ITransport, IConsumer, IPushProducer)
class WebSocketTransport:
    """The transport of one MQTTProtocol, and the other side of its wire: bytes there are frames here.

    ``protocol`` is that MQTTProtocol.  ``disconnecting``: nothing more is sent, and what comes is not for it.
    """

    def __init__(self, wire: Any, broker: Broker) -> None:
        self.protocol: Any = None
        self.disconnecting = False
        self._wire = wire
        self._clock = broker.clock
        self._wheel = broker.wheel
        self._frames: Connection | None = None  # None until the handshake is over
        self._gate: _Gate | None = None
        self._pongs: list[bytes] = []
        self._is_over = False
        self._is_paused = False  # by the protocol
        self._is_behind = False  # frames are left for another turn
        self._call: Any = None
        self._timer: Timer | None = None

    # --- from the wire -------------------------------------------------------------------------------------------

    def opened(self, data: bytes = b"") -> None:
        """The handshake is over, and ``data`` came behind it."""
        self._frames = Connection(ConnectionType.SERVER, [_Bounds()])
        if data:
            self.received(data)

    def received(self, data: bytes) -> None:
        """Bytes behind the handshake."""
        if self._frames is not None and not self._is_over:
            self._frames.receive_data(data)
            if not self._is_behind:
                self._read()

    def lost(self, reason: Failure = connectionDone) -> None:
        """The wire is gone."""
        self._is_over = self.disconnecting = True
        self._stop_waiting()
        if self._timer is not None:
            self._timer.cancel()
        self.protocol.connectionLost(reason)

    def _read(self) -> None:
        frames = self._frames
        assert frames is not None
        left = FRAMES_PER_TURN
        payloads: list[bytes] = []
        end: CloseConnection | None = None
        for event in frames.events():
            if isinstance(event, BytesMessage):
                payloads.append(bytes(event.data))  # they need not begin together [MQTT-6.0.0-2] [MQTT3-6.0.0-2]
            elif isinstance(event, Ping):
                if not self.disconnecting:
                    self._pongs.append(frames.send(Pong(event.payload)))
            elif isinstance(event, CloseConnection):
                end = event
                break
            elif isinstance(event, TextMessage):  # not reached: _Bounds refuses them by their header
                end = CloseConnection(CloseReason.UNSUPPORTED_DATA)
                break
            left -= 1
            if not left:
                break
        self._is_behind = not left
        data = b"".join(payloads)
        if data and not self.disconnecting:
            self.protocol.dataReceived(data)
        self._send_pongs()
        if self._is_over:
            return
        if end is not None:
            self._closed_by_peer(end)
        elif self._is_behind:
            self._wire.pauseProducing()
            self._read_later()

    def _read_later(self) -> None:
        if self._call is None and not self._is_paused:
            self._call = self._clock.callLater(0, self._catch_up)

    def _catch_up(self) -> None:
        self._call = None
        if not self._is_paused:
            self._read()
            self._read_wire()

    def _read_wire(self) -> None:
        if not self._is_behind and not self._is_paused and not self._is_over:
            self._wire.resumeProducing()

    def _stop_waiting(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _send_pongs(self) -> None:
        if self._pongs and not self.disconnecting:
            if self._gate is not None and self._gate.is_paused:
                del self._pongs[:-1]
                return
            self._wire.write(b"".join(self._pongs))
        self._pongs.clear()

    # --- the end -------------------------------------------------------------------------------------------------

    def _closed_by_peer(self, event: CloseConnection) -> None:
        """A close frame, or something that is no legal frame: then ``event`` says what to tell the peer."""
        frames = self._frames
        assert frames is not None
        if frames.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            self._wire.write(frames.send(CloseConnection(event.code, event.reason)))
        self.end()

    def end(self) -> None:
        """Close the wire once what was written is gone; abort it where that takes too long."""
        if self._is_over:
            return
        self._is_over = self.disconnecting = True
        self._stop_waiting()
        self.unregisterProducer()  # or the wire might never close
        self._abort_in_time()
        self._wire.loseConnection()

    def _abort_in_time(self) -> None:
        if self._timer is None:
            self._timer = self._wheel.after(CLOSE_TIMEOUT, self._wire.abortConnection)

    # --- for the protocol ----------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send these bytes in one frame."""
        if self._frames is not None and not self.disconnecting:
            self._wire.write(self._frames.send(BytesMessage(data)))

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """The same for several pieces."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Send a close frame behind what was written, wait for the peer's, then close."""
        if self.disconnecting:
            return
        if self._frames is None:
            self.end()
            return
        self.disconnecting = True
        self._wire.write(self._frames.send(CloseConnection(CloseReason.NORMAL_CLOSURE)))
        self._abort_in_time()
        # The peer's close frame is to be read, whatever the protocol held back.
        self.resumeProducing()

    def abortConnection(self) -> None:
        """Close now."""
        if not self._is_over:
            self._is_over = self.disconnecting = True
            self._stop_waiting()
        self._wire.abortConnection()

    def pauseProducing(self) -> None:
        """Hand on no more for now."""
        self._is_paused = True
        self._wire.pauseProducing()

    def resumeProducing(self) -> None:
        """Hand on again."""
        self._is_paused = False
        if self._is_behind:
            self._read_later()  # not at once: the protocol has to finish what it held back first
        self._read_wire()

    def stopProducing(self) -> None:
        """The consumer of what is read wants no more."""
        self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """Let the wire pause and resume the producer of what is written."""
        gate = _Gate(producer, self._send_pongs)
        self._wire.registerProducer(gate, streaming)
        self._gate = gate

    def unregisterProducer(self) -> None:
        """There is no such producer any more."""
        if self._gate is not None:
            self._gate = None
            self._wire.unregisterProducer()

    def getPeer(self) -> Any:
        """The address of the wire's peer."""
        return self._wire.getPeer()

    def getHost(self) -> Any:
        """The wire's own address."""
        return self._wire.getHost()

    def getPeerCertificate(self) -> Any:
        """The certificate that the peer showed, or None."""
        return peer_certificate(self._wire)


def carry(wire: Any, mqtt_factory: MQTTFactory) -> WebSocketTransport:
    """Start an MQTTProtocol of this factory on the wire, whose handshake is still going on."""
    transport = WebSocketTransport(wire, mqtt_factory.broker)
    transport.protocol = mqtt_factory.buildProtocol(wire.getPeer())
    transport.protocol.makeConnection(transport)
    return transport


# --- a port of its own -----------------------------------------------------------------------------------------------


class WebSocketProtocol(Protocol):
    """The wire of one connection: a request's head, then frames."""

    factory: WebSocketFactory
    _carrier: WebSocketTransport

    def connectionMade(self) -> None:
        """Count the connection, and let its time run."""
        transport: Any = self.transport
        send_at_once(transport)
        self._head = bytearray()
        self._carrier = carry(transport, self.factory.mqtt_factory)

    def dataReceived(self, data: bytes) -> None:
        """Part of the request's head."""
        if self._carrier.disconnecting:
            return
        head = self._head
        start = max(0, len(head) - 3)
        head += data
        end = head.find(b"\r\n\r\n", start) + 4
        if end < 4 and len(head) < MAX_HEAD:
            return
        transport: Any = self.transport
        try:
            if not 4 <= end <= MAX_HEAD:
                raise Refused(431, f"a request has at most {MAX_HEAD} bytes before its body")
            headers = self.factory.accept(parse_request(bytes(head[:end])))
        except Refused as refused:
            self.factory.mqtt_factory.broker.stats.connections_refused += 1
            transport.write(refused.response())
            self._carrier.end()
            return
        transport.write(response_head(101, headers))
        self.dataReceived = self._carrier.received  # type: ignore[method-assign]  # one call less
        self._head = bytearray()
        self._carrier.opened(bytes(head[end:]))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The wire is gone."""
        self._carrier.lost(reason)


class WebSocketFactory(Factory):
    """For a port: MQTT over WebSocket at ``path``, and nothing else.  ``allowed_origins``: see ``accept``."""

    protocol: Any = WebSocketProtocol
    noisy = False

    def __init__(self, mqtt_factory: MQTTFactory, path: str = "/mqtt", allowed_origins: Iterable[str] = ()) -> None:
        self.mqtt_factory: Any = mqtt_factory
        self.path = path
        self.allowed_origins = frozenset(origin.lower() for origin in allowed_origins)

    def startFactory(self) -> None:
        """The first port listens."""
        self.mqtt_factory.doStart()

    def stopFactory(self) -> None:
        """The last port is closed."""
        self.mqtt_factory.doStop()

    def accept(self, request: Request) -> list[tuple[bytes, bytes]]:
        """The headers of the response; raises ``Refused``."""
        if not is_for(request, self.path):
            raise Refused(404, "there is nothing here")
        return accept(request, self.allowed_origins)


# --- a place in a site -----------------------------------------------------------------------------------------------


class WebSocketResource(Resource):
    """For ``putChild``: MQTT over WebSocket at this place of a ``twisted.web`` site.

    The site reads the request, within its own limits and timeouts; the MQTT connect timeout runs from there on.
    """

    def __init__(self, mqtt_factory: MQTTFactory, allowed_origins: Iterable[str] = ()) -> None:
        Resource.__init__(self)
        self.mqtt_factory: Any = mqtt_factory
        self.allowed_origins = frozenset(origin.lower() for origin in allowed_origins)

    def getChild(self, path: bytes, request: Any) -> Any:
        """A slash at the end, and being the root of the site, make no difference."""
        return self if path == b"" else notFound()

    def render(self, request: Any) -> Any:
        """Take the connection over, or say why not."""
        headers = [
            (name.lower(), value) for name, values in request.requestHeaders.getAllRawHeaders() for value in values
        ]
        try:
            if request.clientproto != b"HTTP/1.1" or not isinstance(request.channel, HTTPChannel):
                raise Refused(426, "a WebSocket needs HTTP/1.1", [(b"Upgrade", b"websocket")])
            answer = accept(Request(request.method, request.uri, headers), self.allowed_origins)
        except Refused as refused:
            request.setResponseCode(refused.status)
            for name, value in refused.headers:
                request.setHeader(name, value)
            return refused.body
        self._take_over(request.channel, answer)
        return NOT_DONE_YET

    def _take_over(self, channel: Any, answer: list[tuple[bytes, bytes]]) -> None:
        wire = channel.transport
        channel._networkProducer.unregisterProducer()  # the channel itself, which is no producer any more
        self.mqtt_factory.doStart()  # time runs while somebody is connected
        carrier = carry(wire, self.mqtt_factory)
        release = channel.connectionLost

        def lost(reason: Failure) -> None:
            self.mqtt_factory.doStop()
            carrier.lost(reason)
            release(reason)

        # The channel is in raw mode while it waits for us; what came with the request still goes that way.
        channel.dataReceived = channel.rawDataReceived = carrier.received
        channel.connectionLost = lost
        if not carrier.disconnecting:  # turned away by a limit
            wire.write(response_head(101, answer))
            carrier.opened()
