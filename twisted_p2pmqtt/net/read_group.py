"""ReadGroup: many sockets that the reactor sees as one reader.

A reactor spends more on finding out who is readable, logging context and all, than the broker spends on a small packet.
So plain sockets are watched by an epoll of our own, and it is that epoll, itself a file descriptor, that the reactor
watches.  When it is readable every ready socket is read once, each read goes straight to its connection, and what that
caused is written after every few of them: with a thousand clients that each wait for one answer this halves the cost of
a message.

The transport is Twisted's, and is told to stop reading, a port's first one; what that port makes from then on does not
begin (``GroupedServer``).  It gets its socket back (``release``) for the one thing that is left to it, to find the end
of the stream and close.  Linux only; elsewhere, and for transports that are not plain sockets, the reactor reads.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet import tcp
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

READ_SIZE = 65536
"""Bytes taken from a socket at once."""

LARGE_READ_SIZE = 262_144
"""The same while each read finds as much as it asked for: large messages, then, come whole more often."""

WRITE_BYTES = 1_048_576
"""Bytes taken in before what they made the broker write is sent, so that it stays bounded."""

WRITE_READS = 8
"""Sockets read before the same.  What a message touches on its way, in the kernel too, is some kilobytes, and what is
written soon is still in the processor's cache: that counts where a thousand clients send a message each.
"""

TURN_BYTES = 4_194_304
"""Bytes taken in before the reactor's other readers have their turn."""

AT_ONCE = 256
"""Sockets read before they have it, at most; epoll hands out the rest first next time."""

# Edge triggered: a readable socket is reported once for what has come, not again until it is empty.
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET if hasattr(select, "epoll") else 0
_ENDING = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR if hasattr(select, "epoll") else 0

_log = Logger()


def plain_socket(transport: Any) -> Any:
    """The transport's socket where bytes may pass to and from it directly, else None."""
    if isinstance(transport, tcp.Connection) and not transport.TLS:
        return transport.getHandle()
    return None


class GroupedServer(tcp.Server):
    """Twisted's transport, but for a protocol whose ``joins_group`` says that a ``ReadGroup`` will read its socket the
    reactor is not told to read it, and then not to.
    """

    began_unread = False
    """Was the reactor not told so?"""

    @classmethod
    def adopt(cls, port: object) -> None:
        """Have a TCP port make these from now on."""
        if isinstance(port, tcp.Port) and port.transport is tcp.Server:
            port.transport = cls

    def startReading(self) -> None:
        """The constructor asks for it too, before anybody could say who reads."""
        if self.connected or not getattr(self.protocol, "joins_group", False):
            super().startReading()  # type: ignore[no-untyped-call]  # Twisted's
        else:
            self.began_unread = True


class _Member(NamedTuple):
    recv: Callable[[int], bytes]
    receive: Callable[[bytes], object]
    transport: Any
    size: int


@implementer(IReadDescriptor)
class ReadGroup:
    """Reads its members and hands what they sent to their ``receive``.

    ``started`` is called before each turn and ``done`` behind it; ``write`` in between, to send what is to be sent.
    """

    def __init__(
        self, reactor: Any, started: Callable[[], object], write: Callable[[], object], done: Callable[[], object]
    ) -> None:
        self._reactor = reactor
        self._started = started
        self._write = write
        self._done = done
        self._members: dict[int, _Member] = {}
        self._epoll = select.epoll()

    @staticmethod
    def is_possible(reactor: Any) -> bool:
        """Does this platform have what it takes, and can this reactor watch a file descriptor?"""
        return hasattr(select, "epoll") and IReactorFDSet.providedBy(reactor)

    def add(self, transport: Any, receive: Callable[[bytes], object]) -> int:
        """Read this plain socket from now on; gives the key for the other calls."""
        key: int = transport.fileno()
        if not getattr(transport, "began_unread", False):
            transport.stopReading()
            GroupedServer.adopt(getattr(transport, "server", None))  # for the connections to come
        if not self._members:
            self._reactor.addReader(self)
        self._members[key] = _Member(transport.getHandle().recv, receive, transport, READ_SIZE)
        self._epoll.register(key, _READABLE)
        return key

    def pause(self, key: int) -> None:
        """Do not read this member for now."""
        if key in self._members:
            self._epoll.unregister(key)

    def resume(self, key: int) -> None:
        """Read it again, with what has come meanwhile."""
        if key in self._members:
            self._epoll.register(key, _READABLE)

    def remove(self, key: int) -> None:
        """The member's socket is closed, or about to be; an unknown one is ignored."""
        if self._members.pop(key, None) is None:
            return
        try:
            self._epoll.unregister(key)
        except OSError:
            pass  # a closed socket, or a paused one, is not registered any more
        if not self._members:
            self._reactor.removeReader(self)

    def release(self, key: int) -> None:
        """Let the transport read its socket itself again: it will find the end of the stream there."""
        transport = self._members[key].transport
        self.remove(key)
        transport.startReading()

    def fileno(self) -> int:
        """What the reactor watches."""
        return self._epoll.fileno()

    def logPrefix(self) -> str:
        """For the reactor's log."""
        return "p2pmqtt"

    def doRead(self) -> None:
        """Read every member that is ready, once."""
        members = self._members
        taken = unwritten = reads = 0
        left: list[tuple[int, int]] = []  # not read in this turn
        more: list[tuple[int, int]] = []  # read, but perhaps not to the end
        self._started()
        for key, event in self._epoll.poll(0, AT_ONCE):
            member = members.get(key)
            if member is None:
                continue  # closed by what an earlier one sent
            if taken > TURN_BYTES:
                left.append((key, member.size))
                continue
            if unwritten > WRITE_BYTES or reads == WRITE_READS:
                unwritten = reads = 0
                self._write()
            recv, receive, transport, wanted = member
            try:
                data = recv(wanted)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if data:
                taken += len(data)
                unwritten += len(data)
                reads += 1
                try:
                    receive(data)
                except Exception:
                    _log.failure("reading a connection failed")
                    transport.abortConnection()
            if (event & _ENDING or not data) and key in members:
                self.release(key)
            elif len(data) >= READ_SIZE:
                more.append((key, LARGE_READ_SIZE))
            elif wanted > READ_SIZE:
                more.append((key, READ_SIZE))
        self._ask_again(left + more)
        self._done()

    def _ask_again(self, keys: list[tuple[int, int]]) -> None:
        """There may be more: have these sockets reported in the next round, and read so much of each.  epoll reports in
        the order in which it is asked, so whoever was left out stands before those that were read.
        """
        members = self._members
        for key, size in keys:
            member = members.get(key)
            if member is None:
                continue  # closed by what another sent
            if member.size != size:
                members[key] = member._replace(size=size)
            try:
                self._epoll.modify(key, _READABLE)
            except OSError:
                pass  # paused meanwhile; it will be reported when it is resumed

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is going down; the transports are told by themselves."""
