"""Outbox: the order of bytes, bounds, stalls and the end, on Twisted's own buffering over fake sockets."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from twisted.internet.interfaces import IPushProducer
from zope.interface.verify import verifyObject

from tests.net.fakes import Owner, Plain, Streaming
from twisted_p2pmqtt.net.outbox import ANSWERS_LIMIT, CHUNK, CLOSE_TIMEOUT, FRAME_OVERHEAD, Outbox


def made(transport: Any, **limits: Any) -> Any:
    """The transport, its outbox and that one's owner."""
    owner = Owner(**limits)
    outbox = Outbox(transport, owner)
    owner.owns(outbox)
    return transport, outbox, owner


def plain(room: int = 0, **limits: Any) -> Any:
    """The same on a socket with so much room."""
    transport, outbox, owner = made(Plain(), **limits)
    transport.fake.room = room
    return transport, outbox, owner


def streaming(**limits: Any) -> Any:
    """The same on a transport that is no socket."""
    return made(Streaming(), **limits)


def full_stream(**limits: Any) -> Any:
    """A streaming transport whose buffer holds ``CHUNK`` and a byte, and that has paused the outbox."""
    transport, outbox, owner = streaming(**limits)
    outbox.frames.append(bytes(CHUNK + 1))
    outbox.flush()
    transport.wire.write(b"")
    assert owner.is_blocked
    return transport, outbox, owner


def test_it_is_a_push_producer() -> None:
    assert verifyObject(IPushProducer, plain()[1])


# A socket with room


def test_a_flush_is_one_direct_send() -> None:
    transport, outbox, owner = plain(100)
    outbox.frames.extend([b"a", b"bc"])
    outbox.flush()
    assert (bytes(transport.fake.sent), transport.fake.calls) == (b"abc", 1)
    assert (transport.producer, transport.clock.writers, owner.is_blocked) == (None, set(), False)
    assert outbox.frames == []


def test_an_empty_flush_sends_nothing() -> None:
    transport, outbox, _ = plain(100)
    outbox.flush()
    assert transport.fake.calls == 0


# A socket without


@pytest.mark.parametrize("room", [0, 1, 2])
def test_what_the_socket_does_not_take_follows_in_order(room: int) -> None:
    transport, outbox, owner = plain(room)
    outbox.frames.append(b"abc")
    outbox.flush()
    assert (bytes(transport.fake.sent), owner.is_blocked, outbox.frames) == (b"abc"[:room], True, [])
    owner.answers.append(b"d")
    owner.qos0.extend([b"e", b"f"])
    owner.answers.extend([b"g", b"h"])
    transport.take()
    assert (bytes(transport.fake.sent), owner.is_blocked, transport.producer) == (b"abcdefgh", False, None)
    transport.fake.room = 9
    owner.answers.append(b"i")
    outbox.flush()
    assert transport.fake.sent.endswith(b"hi")
    assert not owner.is_blocked


@pytest.mark.parametrize("code", [errno.ENOBUFS, errno.EAGAIN, errno.EINTR])
def test_a_passing_error_keeps_the_order(code: int) -> None:
    # ENOBUFS is no BlockingIOError.  What follows it must not overtake.
    transport, outbox, owner = plain(10)
    transport.fake.error = code
    owner.answers.append(b"a")
    outbox.flush()
    transport.fake.error = 0
    owner.answers.append(b"b")
    outbox.flush()
    transport.take()
    assert transport.fake.sent == b"ab"


@pytest.mark.parametrize("code", [errno.ECONNRESET, errno.EPIPE, errno.EBADF])
def test_a_dead_socket_is_for_the_transport_to_find(code: int) -> None:
    transport, outbox, owner = plain(10)
    transport.fake.error = code
    outbox.frames.append(b"a")
    outbox.flush()
    assert transport in transport.clock.writers
    transport.write_once()
    assert transport.disconnected
    outbox.lost()
    owner.wait(60)
    assert owner.stalls == 0


def test_a_flush_while_blocked_goes_behind() -> None:
    transport, outbox, owner = plain()
    outbox.frames.append(b"a")
    outbox.flush()
    owner.answers.append(b"b")
    outbox.frames.append(b"c")  # by somebody who has kept the list
    transport.fake.room = 1
    outbox.flush()
    assert transport.fake.sent == b""
    transport.take()
    assert transport.fake.sent == b"abc"


def test_the_transport_holds_a_chunk_at_most() -> None:
    transport, outbox, owner = plain(10)
    data = bytes(range(256)) * 4096
    outbox.frames.append(data)
    outbox.flush()
    assert outbox.waiting == len(data) - 10 - CHUNK
    while owner.is_blocked:
        assert transport.buffered <= CHUNK
        transport.take(100_000)
    assert bytes(transport.fake.sent) == data


# Bounds


def test_qos0_finds_room_up_to_its_limit() -> None:
    transport, outbox, owner = plain(max_qos0_bytes=1000)
    outbox.frames.append(b"a")
    outbox.flush()
    frame = b"x" * (250 - FRAME_OVERHEAD)
    for _ in range(6):
        owner.qos0.append(frame)
    assert (owner.drops, outbox.waiting) == (2, 4 * len(frame))
    owner.answers.append(b"never dropped")
    assert owner.drops == 2
    transport.take()
    assert bytes(transport.fake.sent) == b"a" + 4 * frame + b"never dropped"
    transport.fake.room = 0
    outbox.frames.append(b"b")
    outbox.flush()
    for _ in range(4):
        owner.qos0.append(frame)
    assert owner.drops == 2  # all that was counted has been given back


def test_many_small_frames_cost_no_more_than_few_large_ones() -> None:
    _, outbox, owner = plain(max_qos0_bytes=100_000)
    outbox.frames.append(b"a")
    outbox.flush()
    for _ in range(10_000):
        owner.qos0.append(b"tiny")
    assert owner.drops == 10_000 - 100_000 // (4 + FRAME_OVERHEAD)


def test_waiting_answers_hold_reading() -> None:
    transport, outbox, owner = plain()
    outbox.frames.append(b"a")
    outbox.flush()
    for _ in range(ANSWERS_LIMIT // 4):
        owner.answers.append(b"acks")
    assert owner.holds == 0
    owner.answers.append(b"acks")
    owner.answers.append(b"acks")
    assert owner.holds == 1
    transport.take()
    assert owner.holds == 0


def test_the_rest_of_a_flush_holds_nothing() -> None:
    # Two peers that flood each other with QoS 0 must not end up both unread.
    transport, outbox, owner = plain()
    outbox.frames.append(bytes(10 * ANSWERS_LIMIT))
    outbox.flush()
    assert owner.holds == 0
    owner.answers.append(b"acks")
    assert owner.holds == 0
    transport.take()
    assert len(transport.fake.sent) == 10 * ANSWERS_LIMIT + 4


# Stalls


def test_a_peer_that_takes_nothing_is_stalled_after_the_timeout() -> None:
    _, outbox, owner = plain(stall_timeout=30)
    outbox.frames.append(b"a")
    outbox.flush()
    owner.wait(30)
    assert owner.stalls == 0
    owner.wait(0.5)
    assert owner.stalls == 1
    owner.wait(100)
    assert owner.stalls == 1


def test_progress_puts_the_stall_off() -> None:
    transport, outbox, owner = plain(stall_timeout=30)
    outbox.frames.append(bytes(10 * CHUNK))
    outbox.flush()
    for _ in range(5):
        owner.wait(29)
        transport.take(CHUNK)
    assert (owner.stalls, owner.is_blocked) == (0, True)
    owner.wait(29)
    assert owner.stalls == 0
    owner.wait(2)
    assert owner.stalls == 1


def test_a_peer_that_reads_again_is_not_stalled() -> None:
    transport, outbox, owner = plain(stall_timeout=30)
    outbox.frames.append(b"a")
    outbox.flush()
    transport.take()
    owner.wait(100)
    assert owner.stalls == 0
    outbox.frames.append(b"b")
    outbox.flush()
    owner.wait(29)
    assert owner.stalls == 0
    owner.wait(2)
    assert owner.stalls == 1


def test_progress_just_before_a_tick_counts_in_full() -> None:
    transport, outbox, owner = plain(stall_timeout=30)
    owner.clock.advance(0.2)
    outbox.frames.append(bytes(10 * CHUNK))
    outbox.flush()
    owner.clock.advance(0.05)
    owner.wheel.advance()
    owner.clock.advance(0.24)  # 0.49, when the wheel still shows 0.25
    transport.take(CHUNK)
    owner.clock.advance(0.01)
    owner.wheel.advance()
    owner.wait(29.75)
    assert (owner.clock.seconds(), owner.stalls) == (30.25, 0)
    owner.wait(0.5)
    assert owner.stalls == 1


def test_being_blocked_often_leaves_one_timer() -> None:
    transport, outbox, owner = plain()
    for _ in range(1000):
        outbox.frames.append(b"a")
        outbox.flush()
        transport.take()
    assert sum(len(timers) for timers in owner.wheel._slots.values()) == 1


def test_a_streaming_transport_is_watched_too() -> None:
    transport, _, owner = full_stream(stall_timeout=30)
    owner.wait(30)
    assert owner.stalls == 0
    owner.wait(0.5)
    assert owner.stalls == 1
    transport.take()
    assert not owner.is_blocked


# Streaming transports


def test_a_streaming_transport_gets_everything_by_write() -> None:
    transport, outbox, owner = streaming()
    assert (transport.producer, transport.streamingProducer) == (outbox, True)
    outbox.frames.extend([b"a", b"b"])
    outbox.flush()
    assert transport.fake.calls == 0
    transport.take()
    assert transport.fake.sent == b"ab"
    assert not owner.is_blocked


def test_a_large_flush_is_cut_for_a_streaming_transport() -> None:
    transport, outbox, owner = streaming()
    data = bytes(range(256)) * 4096
    outbox.frames.append(data)
    outbox.flush()
    assert owner.is_blocked
    while owner.is_blocked:
        assert transport.buffered <= 2 * CHUNK
        transport.take(100_000)
    transport.take()
    assert bytes(transport.fake.sent) == data
    assert transport.producer is outbox


def test_a_large_flush_does_not_block_a_transport_without_bounds() -> None:
    transport, outbox, owner = streaming()
    transport.wire.bufferSize = 1 << 30
    outbox.frames.append(bytes(3 * CHUNK))
    outbox.flush()
    assert (transport.buffered, owner.is_blocked) == (3 * CHUNK, False)


def test_what_is_not_flushed_goes_before_the_backlog() -> None:
    # Something else fills the transport, a WebSocket's pong, while frames wait for the end of the turn.
    transport, outbox, owner = streaming()
    outbox.frames.append(b"a")
    transport.write(b"." * (CHUNK + 1))
    assert (owner.is_blocked, outbox.frames) == (True, [])
    owner.answers.append(b"b")
    transport.take()  # before the flush
    outbox.flush()
    transport.take()
    assert transport.fake.sent.replace(b".", b"") == b"ab"
    assert not owner.is_blocked


# The end


def test_close_sends_what_is_left_and_closes() -> None:
    transport, outbox, owner = plain(100)
    outbox.frames.append(b"bye")
    outbox.close()
    assert transport.fake.sent == b"bye"
    transport.take()
    assert transport.disconnected
    outbox.lost()
    owner.wait(10)


def test_close_while_blocked_sends_everything_first() -> None:
    transport, outbox, owner = plain()
    outbox.frames.append(bytes(3 * CHUNK))
    outbox.flush()
    owner.answers.append(b"bye")
    outbox.close()
    assert transport.producer is None
    transport.take()
    assert bytes(transport.fake.sent) == bytes(3 * CHUNK) + b"bye"
    assert transport.disconnected


def test_close_with_a_full_socket() -> None:
    transport, outbox, _ = plain(1)
    outbox.frames.append(b"bye")
    outbox.close()
    assert transport.producer is None
    transport.take()
    assert (bytes(transport.fake.sent), transport.disconnected) == (b"bye", 1)


def test_close_of_a_paused_streaming_transport() -> None:
    transport, outbox, owner = full_stream()
    owner.answers.append(b"bye")
    outbox.close()
    assert transport.producer is None
    transport.take()
    assert transport.fake.sent.endswith(b"\0bye")
    assert transport.wire.disconnected


def test_a_peer_that_does_not_let_go_is_aborted() -> None:
    transport, outbox, owner = plain()
    outbox.frames.append(b"bye")
    outbox.close()
    outbox.close()
    owner.wait(CLOSE_TIMEOUT)
    assert not transport._aborting
    owner.wait(0.25)
    assert transport._aborting
    transport.clock.advance(0)
    assert transport.disconnected


def test_a_transport_that_is_lost_at_once_is_not_aborted() -> None:
    class Lost(Streaming):
        aborted = False

        def loseConnection(self) -> None:
            outbox.lost()

        def abortConnection(self) -> None:
            self.aborted = True

    transport = Lost()
    _, outbox, owner = made(transport)
    outbox.close()
    owner.wait(5)
    assert not transport.aborted


def test_the_watch_ends_with_the_close() -> None:
    transport, outbox, owner = plain(stall_timeout=30)
    outbox.frames.append(b"a")
    outbox.flush()
    owner.wait(29.5)
    outbox.close()
    owner.wait(1)
    outbox.lost()
    owner.wait(10)
    assert not transport._aborting
    assert owner.stalls == 0


@pytest.mark.parametrize("transport", [Plain, Streaming])
@pytest.mark.parametrize("end", ["close", "lost"])
def test_behind_the_end_nothing_is_sent(transport: Any, end: str) -> None:
    transport, outbox, owner = made(transport())
    getattr(outbox, end)()
    transport.fake.room = 10
    outbox.frames.append(b"late")
    outbox.flush()
    outbox.wait(b"late")
    outbox.wait_or_drop(b"late")
    outbox.flush()
    outbox.resumeProducing()
    outbox.pauseProducing()
    assert (bytes(transport.fake.sent), owner.is_blocked) == (b"", False)
    if end == "close":
        transport.take()
        assert transport.fake.sent == b""


def test_a_loss_within_a_flush() -> None:
    class Breaking(Streaming):
        def write(self, data: bytes) -> None:
            outbox.lost()

    _, outbox, owner = made(Breaking())
    outbox.frames.append(bytes(3 * CHUNK))
    outbox.flush()
    assert (outbox.waiting, owner.is_blocked) == (0, True), "nobody is told of room that is not there"
    owner.wait(60)
    assert owner.stalls == 0


def test_a_transport_that_is_gone_already() -> None:
    transport = Streaming()
    transport.wire.disconnected = 1
    _, outbox, _ = made(transport)
    outbox.stopProducing()
    outbox.lost()


def test_a_loss_while_blocked_stops_the_watch() -> None:
    transport, outbox, owner = plain()
    outbox.frames.append(b"a")
    outbox.flush()
    transport.fake.error = errno.ECONNRESET
    transport.write_once()
    outbox.lost()
    owner.wait(60)
    assert owner.stalls == 0


# Any order of all of it


class AnyOrder(RuleBasedStateMachine):
    """Whatever the socket takes and whenever, what it has taken is the beginning of what was given."""

    transport: Any

    @initialize(is_plain=st.booleans())
    def start(self, is_plain: bool) -> None:
        self.transport, self.outbox, self.owner = made(Plain() if is_plain else Streaming(), max_qos0_bytes=150_000)
        self.is_plain = is_plain
        self.given = bytearray()
        self.count = 0

    def frame(self, size: int) -> bytes:
        self.count += 1
        return (b"%08d" % self.count * (size // 8 + 1))[:size]

    sizes = st.one_of(st.integers(1, 30), st.integers(CHUNK - 3, CHUNK + 3), st.integers(1, 200_000))

    @rule(size=sizes)
    def answer(self, size: int) -> None:
        frame = self.frame(size)
        self.given += frame
        self.owner.answers.append(frame)

    @rule(size=sizes, in_pieces=st.booleans())
    def message(self, size: int, in_pieces: bool) -> None:
        frame, drops = self.frame(size), self.owner.drops
        if in_pieces:
            self.owner.qos0.extend((frame[:1], frame[1:]))
        else:
            self.owner.qos0.append(frame)
        if self.owner.drops == drops:
            self.given += frame

    @rule(room=st.one_of(st.just(0), st.integers(1, 30), st.integers(1, 300_000)))
    def flush(self, room: int) -> None:
        self.transport.fake.room = room
        self.outbox.flush()
        self.transport.fake.room = 0

    @rule()
    def flush_without_buffers(self) -> None:
        self.transport.fake.error = errno.ENOBUFS
        self.outbox.flush()
        self.transport.fake.error = 0

    @rule(size=st.integers(1, 300_000))
    def peer_reads(self, size: int) -> None:
        self.transport.take(size)

    @precondition(lambda self: not self.is_plain)
    @rule(size=st.integers(1, 2 * CHUNK))
    def others_write(self, size: int) -> None:
        self.transport.write(b"." * size)

    @rule(seconds=st.sampled_from([0.25, 31]))
    def wait(self, seconds: float) -> None:
        self.owner.wait(seconds)

    @property
    def taken(self) -> bytes:
        return bytes(self.transport.fake.sent).replace(b".", b"")

    @invariant()
    def in_order(self) -> None:
        assert self.given.startswith(self.taken)

    def teardown(self) -> None:
        if hasattr(self, "outbox"):
            self.flush(0)
            self.transport.take()
            self.flush(1 << 30)
            self.transport.take()
            assert self.taken == self.given
            assert not self.owner.is_blocked
            assert self.owner.holds == 0
            assert self.outbox.waiting == 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
