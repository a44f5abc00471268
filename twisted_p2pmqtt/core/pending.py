"""Pending: what waits in a session for its client, in order, within the limits of queues."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from twisted_p2pmqtt.core.delivery import Delivery

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.limits import Limits
    from twisted_p2pmqtt.core.stats import Stats

EXPIRED_EVERY = 1.0
"""Seconds between two searches of a full queue for what has expired in it."""


class Pending(deque[Delivery]):
    """Deliveries in the order in which they go out, oldest first; ``bytes`` and ``p2p`` are counted along.

    Whoever takes deliveries out tells their senders; nothing here does.
    """

    __slots__ = ("_limits", "_looked_for_expired", "_stats", "bytes", "p2p")

    def __init__(self, limits: Limits, stats: Stats) -> None:
        super().__init__()
        self._limits = limits
        self._stats = stats
        self._looked_for_expired = float("-inf")
        self.bytes = 0
        self.p2p = 0

    def add(self, delivery: Delivery) -> None:
        """Put it at the end."""
        self.append(delivery)
        size = delivery.message.size
        self.bytes += size
        self._stats.queued_bytes += size
        self.p2p += delivery.is_p2p

    def take(self) -> Delivery:
        """The oldest."""
        delivery = self.popleft()
        self._forget(delivery)
        return delivery

    def take_all(self) -> list[Delivery]:
        """Everything."""
        return self._take_out(list(self))

    def has_room(self, size: int, fewer: int = 0) -> bool:
        """Does one more of so many bytes fit, if there were ``fewer`` in it?"""
        limits = self._limits
        return (
            len(self) - fewer < limits.max_queued_messages
            and self.bytes + size <= limits.max_queued_bytes
            and self._stats.queued_bytes + size <= limits.max_total_queued_bytes
        )

    def take_expired(self, now: float) -> list[Delivery]:
        """What has expired; nothing where that was looked for just now."""
        if not self or now < self._looked_for_expired + EXPIRED_EVERY:
            return []
        self._looked_for_expired = now
        return self._take_out([one for one in self if _is_expired(one, now)])

    def take_oldest_p2p(self, size: int, max_queued: int) -> list[Delivery]:
        """The oldest P2P messages, as many as must go for one more of this size; none where that would not help."""
        freed, oldest = 0, []
        for delivery in self:
            if delivery.is_p2p:
                oldest.append(delivery)
                freed += delivery.message.size
                if self.p2p - len(oldest) < max_queued and self.has_room(size - freed, len(oldest)):
                    return self._take_out(oldest)
        return []

    def _take_out(self, deliveries: list[Delivery]) -> list[Delivery]:
        if deliveries:
            gone = set(map(id, deliveries))
            left = [one for one in self if id(one) not in gone]
            self.clear()
            self.extend(left)
        for delivery in deliveries:
            self._forget(delivery)
        return deliveries

    def _forget(self, delivery: Delivery) -> None:
        size = delivery.message.size
        self.bytes -= size
        self._stats.queued_bytes -= size
        self.p2p -= delivery.is_p2p


def _is_expired(delivery: Delivery, now: float) -> bool:
    expires_at = delivery.message.expires_at
    return expires_at is not None and expires_at <= now
