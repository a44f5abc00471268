"""Commits: nothing that promises survival leaves before the store has committed what it promises.

A frame that must wait is *held* with its connection.  At the end of a turn all that was held joins the commit that was
started then; when it succeeds the frames go out in their order, when it fails their refusals do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, succeed

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.connection import Connection

Done = Callable[[bool], None]
"""Told whether what a frame promises has survived."""

Held = list[tuple[bytes, bytes, "Done | None"]]
"""Frames for after the commit, each with what goes out in its place when the commit fails (nothing where empty)."""

T = TypeVar("T")
Promises = list[tuple[Deferred[Any], Any, Any]]


class Commits:
    """The held frames of all connections."""

    __slots__ = ("_broker", "_held", "_promises")

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._held: dict[Connection, Held] = {}
        self._promises: Promises = []

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
        """Keep the frame until what is pending in the store now has survived."""
        self._held.setdefault(connection, []).append((frame, refusal, done))
        connection.frames_held += 1

    def start(self) -> None:
        """Commit what is pending, with everything held so far."""
        held, self._held = self._held, {}
        promises, self._promises = self._promises, []
        committed = self._broker.store.commit()
        if committed is None:
            self._release(held, promises, False)
        else:
            committed.addCallbacks(
                lambda result: self._release(held, promises, False), lambda failure: self._failed(held, promises)
            )

    def _failed(self, held: dict[Connection, Held], promises: Promises) -> None:
        self._broker.stats.store_failures += 1
        self._release(held, promises, True)

    def _release(self, held: dict[Connection, Held], promises: Promises, has_failed: bool) -> None:
        for connection, frames in held.items():
            connection.frames_held -= len(frames)
            for frame, refusal, done in frames:
                if out := refusal if has_failed else frame:
                    connection.put(out)
                if done is not None:
                    done(not has_failed)
        for promise, result, failure in promises:
            promise.callback(failure if has_failed else result)
        self._broker.schedule_flush()
