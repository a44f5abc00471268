"""Sockets, transports and an owner for tests of the outbox: Twisted's own buffering over sockets that take so much."""

from __future__ import annotations

import errno
import sys
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from twisted_p2pmqtt.core.timers import TICK, TimerWheel


class FakeSocket:
    """Takes ``room`` bytes, or raises ``error`` (an errno); ``sent`` is what it took."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.room = 0
        self.error = 0
        self.calls = 0

    def send(self, data: bytes | memoryview) -> int:
        self.calls += 1
        if self.error:
            raise OSError(self.error, "as told")
        if not self.room:
            raise BlockingIOError(errno.EAGAIN, "full")
        size = min(self.room, len(data))
        self.sent += data[:size]
        self.room -= size
        return size

    def setblocking(self, blocking: bool) -> None:
        pass

    def fileno(self) -> int:
        return 99

    def shutdown(self, how: int) -> None:
        pass

    def close(self) -> None:
        self.error = errno.EBADF

    def setsockopt(self, *args: Any) -> None:
        pass


class FakeReactor(Clock):
    """Remembers who wants to write."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: set[Any] = set()
        self.readers: set[Any] = set()

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)


class Plain(tcp.Connection):
    """Twisted's TCP connection on a fake socket: an outbox sends on it directly."""

    def __init__(self, protocol: Any = None) -> None:
        self.clock = FakeReactor()
        self.fake = FakeSocket()
        socket: Any = self.fake
        super().__init__(socket, protocol or Protocol(), self.clock)  # type: ignore[arg-type]  # has the methods used
        self.connected = 1

    def getPeer(self) -> Any:
        return IPv4Address("TCP", "192.0.2.1", 1)

    def getHost(self) -> Any:
        return IPv4Address("TCP", "192.0.2.2", 1883)

    @property
    def buffered(self) -> int:
        """Bytes that wait in the transport."""
        return len(self.dataBuffer) - self.offset + self._tempDataLen

    def take(self, size: int = sys.maxsize) -> None:
        """The peer reads so many bytes, and the reactor finds out, until nothing more is to be written."""
        self.fake.room = size
        while self in self.clock.writers and self.fake.room:
            self.write_once()
        self.fake.room = 0

    def write_once(self) -> None:
        """What the reactor does for a writable socket."""
        itself: Any = self
        why = itself.doWrite()
        if why is not None:
            itself.stopWriting()
            itself.connectionLost(Failure(why))


class Streaming:
    """A transport over ``Plain`` that is no socket, as TLS and WebSocket are: an outbox is its streaming producer."""

    def __init__(self) -> None:
        self.wire = Plain()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wire, name)


class Owner:
    """What an outbox asks of its protocol, recorded."""

    def __init__(self, stall_timeout: float = 30.0, max_qos0_bytes: int = 10_000) -> None:
        self.clock = Clock()
        self.failures: list[Any] = []
        self.wheel = TimerWheel(self.clock.seconds, lambda: self.failures.append(sys.exc_info()[1]))
        self.stall_timeout = stall_timeout
        self.max_qos0_bytes = max_qos0_bytes
        self.outbox: Any = None
        self.answers: Any = None
        self.qos0: Any = None
        self.is_blocked = False
        self.drops = 0
        self.holds = 0
        self.stalls = 0

    def owns(self, outbox: Any) -> None:
        self.outbox = outbox
        self.answers = self.qos0 = outbox.frames

    def blocked(self, answers: Any, qos0: Any) -> None:
        assert not self.is_blocked
        self.is_blocked = True
        self.answers, self.qos0 = answers, qos0

    def unblocked(self, frames: list[bytes]) -> None:
        assert self.is_blocked
        self.is_blocked = False
        self.answers = self.qos0 = frames

    def hold_reading(self) -> None:
        self.holds += 1

    def go_on_reading(self) -> None:
        self.holds -= 1

    def dropped(self) -> None:
        self.drops += 1

    def stalled(self) -> None:
        self.stalls += 1

    def wait(self, seconds: float) -> None:
        """Time goes by, in ticks."""
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)
            self.wheel.advance()
        assert not self.failures
