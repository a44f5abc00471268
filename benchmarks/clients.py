"""The load generator's clients: the handshake, then a publisher or a subscriber that handles its input in bulk.

A subscriber of QoS 0 only counts bytes, since all its frames are of one size (learnt from the first). All other input
is cut into runs (frames.py). What is common to all clients of a load, its counters and its event loop, is handed in.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from benchmarks import frames
from benchmarks.frames import ProtocolError, Ring
from benchmarks.links import TcpLink, open_link

MAX_EVENTS = 512


class Stalled(Exception):
    """Nothing moves any more, though something is outstanding."""


class Tally:
    """What a load has seen so far. `latencies` (ns) is None unless payloads carry time stamps."""

    __slots__ = ("acked", "delivered", "latencies", "sent")

    def __init__(self) -> None:
        self.sent = self.acked = self.delivered = 0
        self.latencies: list[int] | None = None


class Loop:
    """epoll and who reads what."""

    def __init__(self, port: int, transport: str = "tcp") -> None:
        self.port = port
        self.transport = transport
        self.epoll = select.epoll()
        self.readers: dict[int, Callable[[], None]] = {}
        self.links: dict[int, TcpLink] = {}

    def open(self, reader: Callable[[], None]) -> TcpLink:
        link = open_link(self.transport, self.port, self.epoll)
        self.links[link.fd] = link
        self.readers[link.fd] = reader
        return link

    def close(self, link: TcpLink) -> None:
        del self.links[link.fd], self.readers[link.fd]
        link.close()

    def close_all(self) -> None:
        for link in list(self.links.values()):
            self.close(link)
        self.epoll.close()

    def poll(self, timeout: float) -> int:
        """Handle what is there, waiting up to `timeout` seconds for it; how many sockets had something."""
        events = self.epoll.poll(timeout, MAX_EVENTS)
        readers = self.readers
        for fd, event in events:
            if event & select.EPOLLOUT:
                self.links[fd].on_writable()
            if event != select.EPOLLOUT:
                readers[fd]()
        return len(events)


class Client:
    """One connection from CONNECT to its last SUBACK; then `ready`, and `on_traffic` gets the input."""

    def __init__(
        self, name: str, filters: Sequence[str] = (), qos: int = 0, level: int = frames.V311, clean: bool = True
    ) -> None:
        self.name = name
        self.filters = filters
        self.qos = qos
        self.level = level
        self.clean = clean
        self.ready = False
        self.receive_maximum = 0xFFFF
        self.link: TcpLink
        self.loop: Loop
        self._on_ready: Callable[[], None]
        self._rest = b""
        self._subacks_due = 0

    def open(self, loop: Loop, on_ready: Callable[[], None]) -> None:
        self.loop = loop
        self._on_ready = on_ready
        self._rest = b""
        self.ready = False
        self.link = loop.open(self._on_handshake)
        self.link.send(frames.connect(self.name, self.level, self.clean))

    def close(self) -> None:
        """DISCONNECT and close."""
        self.link.send(frames.packet(frames.DISCONNECT, b""))
        self.loop.close(self.link)

    def on_traffic(self) -> None:
        for run in frames.cut(self._input()):
            raise ProtocolError(f"{self.name} got a packet of type 0x{run.first:02x}")

    def _input(self) -> bytes:
        """What was left of the last time and what has arrived."""
        data = self.link.receive()
        return self._rest + data if self._rest else data

    def _on_handshake(self) -> None:
        data = self._input()
        stop = 0
        for run in frames.cut(data):
            self._on_handshake_packet(run.first, data[run.start + run.head : run.start + run.stride])
            # One packet at a time: what a kept session has waiting may stand right behind the CONNACK.
            stop = run.start + run.stride
            if self.ready or run.frames > 1:
                break
        self._rest = data[stop:]
        if self.ready and self._rest:
            self.on_traffic()
        elif self._rest and stop:
            self._on_handshake()

    def _on_handshake_packet(self, first: int, body: bytes) -> None:
        if first == frames.CONNACK:
            frames.check_connack(body)
            if self.level == frames.V5:
                self.receive_maximum = frames.receive_maximum(body)
            self._subscribe()
        elif first == frames.SUBACK:
            frames.check_suback(body, self.level)
            self._subacks_due -= 1
        else:
            raise ProtocolError(f"{self.name} got a packet of type 0x{first:02x} in its handshake")
        if not self._subacks_due:
            self.ready = True
            self.loop.readers[self.link.fd] = self.on_traffic
            self._on_ready()

    def _subscribe(self) -> None:
        step = frames.SUBSCRIPTIONS_PER_PACKET
        for packet_id, at in enumerate(range(0, len(self.filters), step), 1):
            part = self.filters[at : at + step]
            self.link.send(frames.subscribe(part, self.qos, self.level, packet_id))
            self._subacks_due += 1


class Publisher(Client):
    """Sends slices of its ring; counts acknowledgements."""

    def __init__(self, name: str, tally: Tally, ring: Ring, topics: Sequence[str], qos: int, level: int) -> None:
        super().__init__(name, qos=qos, level=level)
        self.tally = tally
        self.ring = ring
        self.topics = topics
        self.sent = 0
        self._unacked = 0

    def room(self) -> int:
        """How many messages it may send now: none while the socket is full, else as Receive Maximum and ring allow."""
        if self.link.backlog:
            return 0
        if not self.qos:
            return self.ring.length
        return min(self.ring.length, self.receive_maximum) - self._unacked

    def publish(self, count: int) -> None:
        self._count(count)
        self.link.send(self.ring.take(count))

    def publish_stamped(self, size: int) -> None:
        """One message whose payload begins with the time."""
        packet_id = self.sent % 0xFFFF + 1
        topic = self.topics[self.sent % len(self.topics)]
        head = frames.publish_head(topic, self.qos, packet_id, size, self.level)
        self._count(1)
        self.link.send(head + time.monotonic_ns().to_bytes(8, "little") + bytes(size - 8))

    def on_traffic(self) -> None:
        data = self._input()
        stop = 0
        for run in frames.cut(data):
            stop = run.stop
            if frames.failures(data, run):
                raise ProtocolError(f"a message of {self.name} was refused: {data[run.start : run.start + 8].hex()}")
            if run.first in (frames.PUBACK, frames.PUBCOMP):
                self._on_acked(run.frames)
            elif run.first == frames.PUBREC:
                self.link.send(frames.answer(data, run, frames.PUBREL))
            else:
                raise ProtocolError(f"{self.name} got a packet of type 0x{run.first:02x}")
        self._rest = data[stop:]

    def _on_acked(self, count: int) -> None:
        self._unacked -= count
        self.tally.acked += count

    def _count(self, count: int) -> None:
        self.sent += count
        self.tally.sent += count
        if self.qos:
            self._unacked += count


class Subscriber(Client):
    """Counts deliveries and acknowledges them."""

    def __init__(
        self, name: str, tally: Tally, size: int, filters: Sequence[str], qos: int, level: int, clean: bool
    ) -> None:
        super().__init__(name, filters, qos, level, clean)
        self.tally = tally
        self.delivered = 0
        self._size = size
        self._frame_size = 0  # of the PUBLISH frames seen last
        self._partial = 0  # bytes of an unfinished frame, where only bytes are counted

    def on_traffic(self) -> None:
        if self.qos or self.tally.latencies is not None:
            self._parse()
        elif self._frame_size:
            self._count_bytes()
        else:
            self._parse()
            self._begin_counting()

    def _begin_counting(self) -> None:
        """Once a frame has told the size, only the number of bytes of the unfinished one matters."""
        if self._frame_size:
            self._partial, self._rest = len(self._rest), b""

    def _count_bytes(self) -> None:
        data = self.link.receive()
        if not self._partial and data and data[0] & 0xF0 != frames.PUBLISH:
            raise ProtocolError(f"{self.name} got a packet of type 0x{data[0]:02x}")
        count, self._partial = divmod(self._partial + len(data), self._frame_size)
        self._count(count)

    @property
    def unfinished(self) -> int:
        """Bytes of a frame whose end has not come."""
        return max(self._partial, len(self._rest))

    def check_end(self) -> None:
        """At the end of a load, half a frame means that the counting by bytes was wrong, or that one never came."""
        if self.unfinished:
            raise ProtocolError(f"{self.name} ended with {self.unfinished} bytes of an unfinished frame")

    def open_again(self, loop: Loop) -> None:
        """Come back to a session that was kept, and take what has waited; nothing is asked for anew."""
        self.filters = ()
        self.open(loop, lambda: None)

    def _parse(self) -> None:
        data = self._input()
        out: list[bytes] = []
        count = stop = 0
        for run in frames.cut(data):
            stop = run.stop
            if run.first & 0xF0 == frames.PUBLISH:
                count += run.frames
                self._on_publish(data, run, out)
            elif run.first == frames.PUBREL:
                out.append(frames.answer(data, run, frames.PUBCOMP))
            else:
                raise ProtocolError(f"{self.name} got a packet of type 0x{run.first:02x}")
        self._rest = data[stop:]
        if out:
            self.link.send(b"".join(out))
        if count:
            self._count(count)

    def _on_publish(self, data: bytes, run: frames.Run, out: list[bytes]) -> None:
        qos = run.first >> 1 & 3
        if qos:
            out.append(frames.answer(data, run, frames.PUBACK if qos == 1 else frames.PUBREC))
        latencies = self.tally.latencies
        if latencies is not None:
            now = time.monotonic_ns()
            for at in range(run.start + run.stride - self._size, run.stop, run.stride):
                latencies.append(now - int.from_bytes(data[at : at + 8], "little"))
        else:
            self._frame_size = run.stride

    def _count(self, count: int) -> None:
        self.delivered += count
        self.tally.delivered += count


class Opener:
    """Opens clients with a bounded number of handshakes under way."""

    def __init__(self, loop: Loop, clients: Iterable[Client], in_flight: int) -> None:
        self._loop = loop
        self._left: Iterator[Client] = iter(clients)
        self._in_flight = in_flight
        self._exhausted = False
        self.opened = self.ready = 0

    @property
    def done(self) -> bool:
        return self._exhausted and self.ready == self.opened

    def step(self, at_most: int) -> int:
        """Open up to `at_most` more; how many were opened."""
        begun = 0
        while begun < at_most and self.opened - self.ready < self._in_flight and not self._exhausted:
            client = next(self._left, None)
            if client is None:
                self._exhausted = True
                break
            client.open(self._loop, self._on_ready)
            self.opened += 1
            begun += 1
        return begun

    def _on_ready(self) -> None:
        self.ready += 1


def open_all(loop: Loop, clients: Iterable[Client], in_flight: int = 100, patience: float = 20.0) -> None:
    """Open all and wait until each is ready; `Stalled` when none became so for `patience` seconds."""
    opener = Opener(loop, clients, in_flight)
    ready, deadline = 0, time.monotonic() + patience
    while not opener.done:
        begun = opener.step(4)
        loop.poll(0 if begun else 0.1)
        if opener.ready != ready:
            ready, deadline = opener.ready, time.monotonic() + patience
        elif time.monotonic() > deadline:
            raise Stalled(f"{opener.ready} of {opener.opened} clients opened are ready")
