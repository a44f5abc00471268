"""HashPool: two threads of the broker's own for work that is slow on purpose.

The reactor's pool belongs to the host and to its DNS look-ups; a storm of logins must not stop those, nor they a login.
What finds the queue full is refused at once, so that a flood of logins costs what two threads cost and no more.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError

THREADS = 2
QUEUE = 64

T = TypeVar("T")


class HashPool(Service):
    """Runs functions in threads; ``reactor`` brings their results back.  Threads start when first needed.

    Stopping it as a service forgets what has not begun; used again, it starts again.
    """

    name = "password hashing"

    def __init__(self, reactor: IReactorFromThreads, threads: int = THREADS, queue: int = QUEUE) -> None:
        self._reactor = reactor
        self._threads = threads
        self._limit = threads + queue
        self._executor: ThreadPoolExecutor | None = None
        self.unfinished = 0

    def run(self, work: Callable[..., T], *arguments: Any) -> Deferred[T]:
        """What ``work(*arguments)`` gives, from a thread.

        Raises ``MQTTError`` (Server unavailable) where too much waits already.  Cancelling the Deferred takes work
        that has not begun out of the queue.
        """
        if self.unfinished >= self._limit:
            raise MQTTError("too many clients log in at once", ReasonCode.SERVER_UNAVAILABLE)
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="p2pmqtt-hash")
        self.unfinished += 1
        future = self._executor.submit(work, *arguments)

        def forget(cancelled: Deferred[T]) -> None:
            future.cancel()

        result: Deferred[T] = Deferred(forget)
        future.add_done_callback(lambda done: self._reactor.callFromThread(self._finished, done, result))
        return result

    def _finished(self, future: Future[T], result: Deferred[T]) -> None:
        self.unfinished -= 1
        if result.called:  # it was cancelled
            return
        if future.cancelled():
            result.cancel()
            return
        error = future.exception()
        if error is not None:
            result.errback(error)
        else:
            result.callback(future.result())

    def stopService(self) -> None:
        """Let the threads end; waits for none."""
        Service.stopService(self)
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False, cancel_futures=True)
