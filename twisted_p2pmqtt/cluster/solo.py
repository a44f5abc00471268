"""SoloCluster: a broker without other nodes; every method is done at once."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from twisted_p2pmqtt.interfaces import ICluster


@implementer(ICluster)
class SoloCluster:
    """One node, which owns every session and hears of every subscription by itself."""

    def start(self, broker: Any) -> Deferred[None]:
        """Nobody to join."""
        return succeed(None)

    def claim(self, client_id: str) -> Deferred[None]:
        """Nobody else can own it."""
        return succeed(None)

    def release(self, client_id: str) -> None:
        """Nobody waits for it."""

    def forward(self, message: Any, interest: Any) -> None:
        """Nobody else subscribes."""

    def interest(self, topic_filter: str, wanted: bool) -> None:
        """Nobody to tell."""

    def stop(self) -> Deferred[None]:
        """Nobody to leave."""
        return succeed(None)
