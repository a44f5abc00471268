"""Outbox: what waits to be written to one transport; the only caller of ``transport.write``.

``frames`` is the sink that everybody appends to; ``flush`` joins and sends it.  On a plain TCP or Unix socket it sends
directly, because Twisted's ``write`` arms and disarms the poller each time; only what the kernel does not take goes
through the transport.  From then on the outbox is *blocked*: it becomes the transport's pull producer, hands it one
chunk whenever the last one is gone, and tells the connection, which lets QoS 1 and 2 wait in the session and sends
QoS 0 into a bounded backlog.  So a peer that does not read costs at most a chunk in the transport, the rest of one
flush, ``max_qos0_bytes``, and its answers, for which reading stops at ``ANSWERS_LIMIT``; after ``stall_timeout`` in
which no chunk went out it is aborted.

Other transports (TLS, WebSocket, HAProxy, tests) are written to, a chunk at a time, and pause us as a streaming
producer.

The order of bytes is kept because there is one place for each of them: while blocked everything, a stray flush too,
goes behind the backlog; a direct send happens only while the transport's own buffer is empty, that is between the
``resumeProducing`` that finds the backlog empty and the next partial send.

The end: a transport with a producer never closes (TLS does not even begin to), and one whose peer does not read never
finishes.  So ``close`` unregisters first, and aborts after ``CLOSE_TIMEOUT``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from twisted_p2pmqtt.core.timers import TICK, Timer, TimerWheel
from twisted_p2pmqtt.net.read_group import plain_socket

CHUNK = 65536
"""Bytes handed to a blocked transport at once."""

ANSWERS_LIMIT = 65536
"""Bytes of answers waiting behind a blocked transport at which the peer is read no more."""

FRAME_OVERHEAD = 64
"""Bytes that a waiting QoS 0 frame counts for besides its own: what Python needs to keep it."""

CLOSE_TIMEOUT = 2.0
"""Seconds that a closing peer has to take what was written."""

# What a waiting frame is: it must go and is bounded by reading less, or may be dropped, or is the rest of a flush.
_ANSWER, _QOS0, _REST = range(3)


class OutboxOwner(Protocol):
    """What an outbox asks of its protocol."""

    @property
    def wheel(self) -> TimerWheel:
        """Where time comes from."""

    @property
    def stall_timeout(self) -> float:
        """Seconds in which a blocked transport must take something."""

    @property
    def max_qos0_bytes(self) -> int:
        """Bytes of QoS 0 messages that may wait behind it."""

    def blocked(self, answers: Any, qos0: Any) -> None:
        """The transport takes nothing more: use these sinks."""

    def unblocked(self, frames: list[bytes]) -> None:
        """It takes again: use this one."""

    def hold_reading(self) -> None:
        """Too many answers wait: read no more."""

    def go_on_reading(self) -> None:
        """Read again."""

    def dropped(self) -> None:
        """A QoS 0 message found no room."""

    def stalled(self) -> None:
        """The peer has taken nothing for too long: abort."""


class _Backlog:
    """Frames waiting behind a blocked transport, in order, counted by kind."""

    __slots__ = ("answers", "frames", "qos0")

    def __init__(self) -> None:
        self.frames: deque[tuple[bytes | memoryview, int]] = deque()
        self.answers = 0
        self.qos0 = 0

    def add(self, frame: bytes, kind: int) -> None:
        self.frames.append((frame, kind))
        if kind == _QOS0:
            self.qos0 += len(frame) + FRAME_OVERHEAD
        elif kind == _ANSWER:
            self.answers += len(frame)

    def take(self) -> bytes:
        """The next chunk; the last frame in it is cut where it is too long."""
        out: list[bytes | memoryview] = []
        frames, room = self.frames, CHUNK
        while frames and room:
            frame, kind = frames.popleft()
            size = len(frame)
            if size > room:
                view = memoryview(frame)
                frames.appendleft((view[room:], kind))
                frame, size = view[:room], room
            elif kind == _QOS0:
                self.qos0 -= FRAME_OVERHEAD
            if kind == _QOS0:
                self.qos0 -= size
            elif kind == _ANSWER:
                self.answers -= size
            out.append(frame)
            room -= size
        return b"".join(out)


class _Answers:
    """The sink for frames that must not be dropped."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def __bool__(self) -> bool:
        return True

    def append(self, frame: bytes) -> None:
        self._outbox.wait(frame)

    def extend(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            self._outbox.wait(frame)


class _QoS0:
    """The sink for messages that may be dropped, whole."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def __bool__(self) -> bool:
        return True

    def append(self, frame: bytes) -> None:
        self._outbox.wait_or_drop(frame)

    def extend(self, frames: Iterable[bytes]) -> None:
        self._outbox.wait_or_drop(b"".join(frames))


@implementer(IPushProducer)
class Outbox:
    """Frames to one peer."""

    __slots__ = (
        "_backlog",
        "_direct",
        "_is_holding",
        "_is_paused",
        "_owner",
        "_progress_at",
        "_send",
        "_timer",
        "_transport",
        "frames",
        "is_closing",
    )

    def __init__(self, transport: Any, owner: OutboxOwner) -> None:
        self.frames: list[bytes] = []
        self.is_closing = False
        self._transport = transport
        self._owner = owner
        self._backlog: _Backlog | None = None  # not None: blocked
        self._is_paused = False
        self._is_holding = False
        self._progress_at = 0.0
        self._timer: Timer | None = None
        self._direct: Callable[[bytes], int] | None = None  # the socket's own send, where there is such a socket
        socket = plain_socket(transport)
        if socket is not None:
            self._direct = socket.send
        else:
            transport.registerProducer(self, True)
        self._send: Callable[[bytes], int] | None = self._direct  # how to send now; None: by the transport

    @property
    def is_direct(self) -> bool:
        """Is the transport a plain socket, that is sent to directly?"""
        return self._direct is not None

    @property
    def waiting(self) -> int:
        """Bytes that wait here for the transport to take them."""
        backlog = self._backlog
        return sum(len(frame) for frame, _ in backlog.frames) if backlog is not None else 0

    # --- writing -------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send what is in ``frames``."""
        frames = self.frames
        if not frames:
            return
        data = frames[0] if len(frames) == 1 else b"".join(frames)
        frames.clear()
        send = self._send
        if send is None:
            if not self.is_closing:
                self._write(data)
            return
        try:
            sent = send(data)
        except OSError:
            sent = 0  # no room; or the socket is dead, which the transport learns as soon as it tries
        if sent < len(data):
            self._block()
            self._keep(data[sent:])
            self._transport.registerProducer(self, False)

    def _write(self, data: bytes) -> None:
        if len(data) <= CHUNK:
            self._transport.write(data)
        else:
            self._block()
            self._keep(data)
            self.resumeProducing()

    def _block(self) -> None:
        self._backlog = _Backlog()
        if self.frames:  # the transport may be full of what others write to it: a WebSocket's own answers
            self._keep(b"".join(self.frames))
            self.frames.clear()
        self._send = self._keep
        self._note_progress()
        if self._timer is None:
            self._timer = self._owner.wheel.after(self._owner.stall_timeout, self._check_progress)
        self._owner.blocked(_Answers(self), _QoS0(self))

    def _keep(self, data: bytes) -> int:
        """Put the rest of a flush behind the backlog: all of it is taken."""
        assert self._backlog is not None
        self._backlog.add(data, _REST)
        return len(data)

    def wait(self, frame: bytes) -> None:
        """Put a frame behind what the transport has not taken yet."""
        backlog = self._backlog
        if backlog is None:
            self.frames.append(frame)
            return
        backlog.add(frame, _ANSWER)
        if backlog.answers > ANSWERS_LIMIT and not self._is_holding:
            self._is_holding = True
            self._owner.hold_reading()

    def wait_or_drop(self, frame: bytes) -> None:
        """The same for a QoS 0 message, unless too many wait already."""
        backlog = self._backlog
        if backlog is None:
            self.frames.append(frame)
        elif backlog.qos0 + len(frame) + FRAME_OVERHEAD > self._owner.max_qos0_bytes:
            self._owner.dropped()
        else:
            backlog.add(frame, _QOS0)

    # --- the transport as our consumer ---------------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._is_paused = True
        if self._backlog is None and not self.is_closing:
            self._block()

    def resumeProducing(self) -> None:
        """The transport has room: give it the next chunk, or go back to normal."""
        self._is_paused = False
        backlog = self._backlog
        if backlog is None:
            return
        self._note_progress()
        while backlog.frames and not self._is_paused:
            self._transport.write(backlog.take())
            if self._is_holding and backlog.answers <= ANSWERS_LIMIT:
                self._is_holding = False
                self._owner.go_on_reading()
            if self._direct is not None:
                return  # a pull producer is asked again
        if not self._is_paused and self._backlog is backlog:  # a write may end the connection
            self._unblock()

    def stopProducing(self) -> None:
        """The transport is gone."""
        self._stop_timer()

    def _unblock(self) -> None:
        if self._direct is not None:
            self._transport.unregisterProducer()
        self._backlog = None
        self._send = self._direct
        self._owner.unblocked(self.frames)

    def _note_progress(self) -> None:
        # The wheel's time is that of its last tick; it may be this much later by now.
        self._progress_at = self._owner.wheel.now + TICK

    def _check_progress(self) -> None:
        """One timer a connection, however often it is blocked: it lives on until it finds nothing to watch."""
        self._timer = None
        if self._backlog is None:
            return
        left = self._progress_at + self._owner.stall_timeout - self._owner.wheel.now
        if left > 0:
            self._timer = self._owner.wheel.after(left, self._check_progress)
        else:
            self._owner.stalled()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write what is left and close; a peer that does not take it within ``CLOSE_TIMEOUT`` is aborted."""
        if self.is_closing:
            return
        self.flush()
        self.is_closing = True
        backlog, self._backlog = self._backlog, None
        if backlog is not None or self._direct is None:
            self._transport.unregisterProducer()
        self._send = self._direct = None
        while backlog is not None and backlog.frames:
            self._transport.write(backlog.take())
        self._stop_timer()
        # Before the close, which may tell us at once that the transport is gone.
        self._timer = self._owner.wheel.after(CLOSE_TIMEOUT, self._transport.abortConnection)
        self._transport.loseConnection()

    def lost(self) -> None:
        """The transport is gone."""
        self.is_closing = True
        self.frames.clear()
        self._backlog = None
        self._send = self._direct = None
        self._stop_timer()
