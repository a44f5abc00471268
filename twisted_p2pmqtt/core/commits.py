"""Commits: nothing that promises survival leaves before the store has committed what it promises.

A frame that must wait is *held* with its connection.  At the end of a turn all that was held joins the commit that was
started then; when it succeeds the frames go out in their order.  When it fails their refusals do.  A frame that has no
refusal (a 3.x acknowledgement, PUBCOMP, SUBACK) is kept for the next attempt: the store goes on trying.  Meanwhile a
3.x connection is not read, for nobody could tell its client that something was refused, and a client that has waited
for ``PATIENCE`` is sent away.

Publishers wait here too: while the store is too far behind, and those of 3.x while it cannot be written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, succeed

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.message import Message

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.connection import Connection
    from twisted_p2pmqtt.core.timers import Timer

PATIENCE = 30.0
"""Seconds that a client waits for a store that cannot be written before its connection is closed."""

Done = Callable[[bool], None]
"""Told whether what a frame promises has survived."""

Held = list[tuple[bytes, bytes, "Done | None"]]
"""Frames for after the commit, each with what goes out in its place when the commit fails (nothing where empty)."""

T = TypeVar("T")
Promises = list[tuple[Deferred[Any], Any, Any]]


class Waiting(NamedTuple):
    """A publisher that waits for the store, with its message."""

    connection: Connection
    message: Message
    go_on: Deferred[Message]
    timer: Timer


class Commits:
    """The held frames of all connections."""

    __slots__ = ("_broker", "_held", "_kept", "_promises", "_stuck", "_under_way", "_waiting")

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._held: dict[Connection, Held] = {}
        self._under_way: dict[Connection, Held] | None = None  # what the commit that was started last will let go
        self._kept: dict[Connection, Held] = {}  # from commits that failed, older than what is held
        self._promises: Promises = []
        self._stuck: dict[Connection, Timer] = {}  # connections with frames that were kept
        self._waiting: list[Waiting] = []

    def covering(self, result: T, failure: T) -> Deferred[T]:
        """A Deferred of ``result`` once what is pending in the store now has survived, of ``failure`` if it does
        not.
        """
        if not self._broker.store.pending:
            return succeed(result)
        promise: Deferred[T] = Deferred()
        self._promises.append((promise, result, failure))
        return promise

    def hold(self, connection: Connection, frame: bytes, refusal: bytes, done: Done | None = None) -> None:
        """Keep the frame until what is pending in the store now has survived.

        Where nothing is, it waits for frames before it, and so joins their commit: perhaps there will be no other.
        """
        held = self._held if self._under_way is None or self._broker.store.pending else self._under_way
        frames = held.get(connection)
        if frames is None:
            frames = held[connection] = []
        frames.append((frame, refusal, done))
        connection.frames_held += 1

    def start(self) -> None:
        """Commit what is pending, with everything held so far."""
        held, self._held = self._held, {}
        if self._kept:
            held = self._with_kept(held)
        promises, self._promises = self._promises, []
        committed = self._broker.store.commit()
        if committed is None:
            self._release(held, promises)
        else:
            self._under_way = held
            committed.addCallbacks(
                lambda result: self._release(held, promises), lambda failure: self._failed(held, promises)
            )

    def _with_kept(self, held: dict[Connection, Held]) -> dict[Connection, Held]:
        kept, self._kept = self._kept, {}
        for connection, frames in held.items():
            kept.setdefault(connection, []).extend(frames)
        return kept

    def _release(self, held: dict[Connection, Held], promises: Promises) -> None:
        self._is_over(held)
        for connection, frames in held.items():
            connection.frames_held -= len(frames)
            connection.put_all([frame for frame, _, _ in frames])
            for _, _, done in frames:
                if done is not None:
                    done(True)
            if connection in self._stuck:
                self._go_on(connection)
        for promise, result, _ in promises:
            promise.callback(result)
        self._let_publish()
        self._broker.schedule_flush()

    def _is_over(self, held: dict[Connection, Held]) -> None:
        if self._under_way is held:
            self._under_way = None

    def _failed(self, held: dict[Connection, Held], promises: Promises) -> None:
        self._is_over(held)
        self._broker.stats.store_failures += 1
        for connection, frames in held.items():
            connection.frames_held -= len(frames)
            for entry in frames:
                frame, refusal, done = entry
                if frame and not refusal:
                    self._keep(connection, entry)
                    continue
                if refusal:
                    connection.put(refusal)
                if done is not None:
                    done(False)
        for promise, _, failure in promises:
            promise.callback(failure)
        self._let_publish()
        self._broker.schedule_flush()  # which asks for the next attempt

    # --- clients that have to wait -------------------------------------------------------------------------------

    def _keep(self, connection: Connection, entry: tuple[bytes, bytes, Done | None]) -> None:
        """The frame joins the next commit; its client waits, but not for ever."""
        if connection.is_closed:
            self._stuck.pop(connection, None)
            return
        self._kept.setdefault(connection, []).append(entry)
        connection.frames_held += 1
        if connection not in self._stuck:
            if connection.version < 5:
                connection.is_stuck = True
                connection.wire.pause()
            self._stuck[connection] = self._broker.wheel.after(PATIENCE, connection.close, ReasonCode.QUOTA_EXCEEDED)

    def _go_on(self, connection: Connection) -> None:
        self._stuck.pop(connection).cancel()
        if connection.is_stuck and not connection.is_closed:
            connection.is_stuck = False
            connection.last_packet = self._broker.wheel.now
            connection.wire.resume()

    def must_wait(self, connection: Connection) -> bool:
        """May this publisher's next message of QoS 1 or 2 not be taken in now?"""
        store = self._broker.store
        return store.congested if store.available else connection.version < 5

    def wait(self, connection: Connection, message: Message) -> Deferred[Message]:
        """A Deferred of the message for when it may be taken in; meanwhile its connection is not read."""
        timer = self._broker.wheel.after(PATIENCE, connection.close, ReasonCode.QUOTA_EXCEEDED)
        waiting = Waiting(connection, message, Deferred(), timer)
        self._waiting.append(waiting)
        return waiting.go_on

    def _let_publish(self) -> None:
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if one.connection.is_closed:
                one.timer.cancel()
            elif self.must_wait(one.connection):
                self._waiting.append(one)
            else:
                one.timer.cancel()
                one.go_on.callback(one.message)
