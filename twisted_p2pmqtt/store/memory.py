"""MemoryStore: nothing survives the process, so there is nothing to record and nothing to wait for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_p2pmqtt.interfaces import IStore


@implementer(IStore)
class MemoryStore:
    """The store of a broker whose sessions live in memory only."""

    durable = False
    pending = False
    available = True
    congested = False

    def restore(self, receive: Callable[[list[Any]], None]) -> Deferred[None]:
        """Nothing."""
        return succeed(None)

    def restore_now(self, receive: Callable[[list[Any]], None]) -> None:
        """Nothing."""

    def commit(self) -> None:
        """Nothing is pending."""

    def close(self) -> Deferred[None]:
        """Nothing to close."""
        return succeed(None)

    def _refuse(self, *arguments: Any) -> Any:
        raise AssertionError("a store that is not durable records nothing")

    new_sequence = save_session = drop_session = save_subscription = drop_subscription = _refuse
    enqueue = sent = released = acknowledge = receive = forget = retain = unretain = _refuse
