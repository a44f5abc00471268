"""Outbox: what waits to be written to one transport; the only caller of ``transport.write``.

``frames`` is the sink that everybody appends to; ``flush`` joins and sends it.  On a plain TCP or Unix socket it sends
directly, because Twisted's ``write`` arms and disarms the poller each time; only what the kernel does not take goes
through the transport.  From then on the outbox is *blocked*: it becomes the transport's pull producer, hands it one
chunk whenever the last one is gone, and tells the connection, which lets QoS 1 and 2 wait in the session and sends
QoS 0 into a bounded backlog.  So a peer that does not read costs at most a chunk in the transport,
``max_qos0_bytes``, and its answers, for which reading stops at ``ANSWERS_LIMIT``; after ``stall_timeout`` without
progress it is aborted.

Other transports (TLS, WebSocket, HAProxy, tests) are written to; they pause us as a streaming producer.  The order of
bytes is kept because a direct send happens only while the transport's own buffer is empty: between the first partial
send and the ``resumeProducing`` that finds the backlog empty, everything goes through the transport.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from twisted_p2pmqtt.net.read_group import plain_socket

CHUNK = 65536
"""Bytes handed to a blocked transport at once."""

ANSWERS_LIMIT = 65536
"""Bytes of answers waiting behind a blocked transport at which the peer is read no more."""

CLOSE_TIMEOUT = 2.0
"""Seconds that a closing peer has to take what was written."""


class _Backlog:
    """Frames waiting behind a blocked transport, in order, counted by kind."""

    __slots__ = ("answers", "frames", "qos0")

    def __init__(self) -> None:
        self.frames: deque[tuple[bytes, bool]] = deque()
        self.answers = 0
        self.qos0 = 0

    def add(self, frame: bytes, is_qos0: bool) -> None:
        self.frames.append((frame, is_qos0))
        if is_qos0:
            self.qos0 += len(frame)
        else:
            self.answers += len(frame)

    def take(self) -> bytes:
        """The next chunk, whole frames, at least one."""
        out, size = [], 0
        while self.frames and size < CHUNK:
            frame, is_qos0 = self.frames.popleft()
            if is_qos0:
                self.qos0 -= len(frame)
            else:
                self.answers -= len(frame)
            out.append(frame)
            size += len(frame)
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
    """Frames to one peer.

    ``blocked(answers, qos0)`` and ``unblocked(frames)`` tell the connection which sinks to use; ``hold_reading`` and
    ``go_on_reading`` stop and start its input; ``dropped()`` counts a QoS 0 message that found no room.
    """

    __slots__ = (
        "_backlog",
        "_has_progress",
        "_is_holding",
        "_is_paused",
        "_owner",
        "_send",
        "_timer",
        "_transport",
        "frames",
        "is_closing",
    )

    def __init__(self, transport: Any, owner: Any) -> None:
        """``owner`` is the protocol: see ``OutboxOwner`` in its module for what is asked of it."""
        self.frames: list[bytes] = []
        self.is_closing = False
        self._transport = transport
        self._owner = owner
        self._backlog: _Backlog | None = None  # not None: blocked
        self._is_paused = False
        self._is_holding = False
        self._has_progress = False
        self._timer: Any = None
        self._send: Callable[[bytes], int] | None = None
        socket = plain_socket(transport)
        if socket is not None:
            self._send = socket.send
        else:
            transport.registerProducer(self, True)

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
                self._transport.write(data)
            return
        try:
            sent = send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            # The transport learns of a dead socket in its own way when it reads or writes next.
            self._transport.write(data)
            return
        if sent < len(data):
            self._block()
            self.wait(data[sent:])
            self._transport.registerProducer(self, False)

    def _block(self) -> None:
        self._backlog = _Backlog()
        self._has_progress = False
        self._timer = self._owner.after(self._owner.stall_timeout, self._check_progress)
        self._owner.blocked(_Answers(self), _QoS0(self))

    def wait(self, frame: bytes) -> None:
        """Put a frame behind what the transport has not taken yet."""
        backlog = self._backlog
        if backlog is None:
            self.frames.append(frame)
            return
        backlog.add(frame, False)
        if backlog.answers > ANSWERS_LIMIT and not self._is_holding:
            self._is_holding = True
            self._owner.hold_reading()

    def wait_or_drop(self, frame: bytes) -> None:
        """The same for a QoS 0 message, unless too many wait already."""
        backlog = self._backlog
        if backlog is None:
            self.frames.append(frame)
        elif backlog.qos0 + len(frame) > self._owner.max_qos0_bytes:
            self._owner.dropped()
        else:
            backlog.add(frame, True)

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
        self._has_progress = True
        while backlog.frames and not self._is_paused:
            self._transport.write(backlog.take())
            if self._is_holding and backlog.answers <= ANSWERS_LIMIT:
                self._is_holding = False
                self._owner.go_on_reading()
            if self._send is not None:
                return  # a pull producer is asked again
        if not self._is_paused:
            self._unblock()

    def stopProducing(self) -> None:
        """The transport is gone."""
        self._stop_timer()

    def _unblock(self) -> None:
        if self._send is not None:
            self._transport.unregisterProducer()
        self._backlog = None
        self._stop_timer()
        if not self.is_closing:
            self._owner.unblocked(self.frames)

    def _check_progress(self) -> None:
        self._timer = None
        if self._backlog is None:
            return
        if not self._has_progress:
            self._owner.stalled()
            return
        self._has_progress = False
        self._timer = self._owner.after(self._owner.stall_timeout, self._check_progress)

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
        if backlog is not None or self._send is None:
            self._transport.unregisterProducer()
        while backlog is not None and backlog.frames:
            self._transport.write(backlog.take())
        self._stop_timer()
        self._transport.loseConnection()
        self._timer = self._owner.after(CLOSE_TIMEOUT, self._transport.abortConnection)

    def lost(self) -> None:
        """The transport is gone."""
        self.is_closing = True
        self.frames.clear()
        self._backlog = None
        self._stop_timer()
