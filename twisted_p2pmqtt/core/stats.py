"""Plain integer counters; the hot path adds to them, whoever reports takes a ``snapshot``."""

from __future__ import annotations


class Stats:
    """Counts since the broker was made.

    ``messages_*`` count application messages, ``dropped_*`` deliveries that were not made, by reason; ``p2p_*``
    the point-to-point part of it.
    """

    __slots__ = (
        "acknowledgements_unknown",
        "auth_failures",
        "connections_accepted",
        "connections_open",
        "connections_refused",
        "dropped_expired",
        "dropped_not_authorized",
        "dropped_offline_qos0",
        "dropped_queue_full",
        "dropped_slow_reader",
        "dropped_too_large",
        "hook_errors",
        "internal_errors",
        "malformed_packets",
        "messages_delivered",
        "messages_queued",
        "messages_received",
        "messages_retained",
        "p2p_delivered",
        "p2p_dropped_denied",
        "p2p_dropped_malformed",
        "p2p_dropped_oldest",
        "p2p_dropped_qos0_offline",
        "p2p_dropped_quota",
        "p2p_dropped_too_large",
        "p2p_dropped_unknown",
        "p2p_queued",
        "p2p_retain_ignored",
        "queued_bytes",
        "sessions_expired",
        "sessions_taken_over",
        "stalled_connections",
        "store_failures",
        "wills_published",
    )

    acknowledgements_unknown: int
    auth_failures: int
    connections_accepted: int
    connections_open: int
    connections_refused: int
    dropped_expired: int
    dropped_not_authorized: int
    dropped_offline_qos0: int
    dropped_queue_full: int
    dropped_slow_reader: int
    dropped_too_large: int
    hook_errors: int
    internal_errors: int
    malformed_packets: int
    messages_delivered: int
    messages_queued: int
    messages_received: int
    messages_retained: int
    p2p_delivered: int
    p2p_dropped_denied: int
    p2p_dropped_malformed: int
    p2p_dropped_oldest: int
    p2p_dropped_qos0_offline: int
    p2p_dropped_quota: int
    p2p_dropped_too_large: int
    p2p_dropped_unknown: int
    p2p_queued: int
    p2p_retain_ignored: int
    queued_bytes: int
    sessions_expired: int
    sessions_taken_over: int
    stalled_connections: int
    store_failures: int
    wills_published: int

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, 0)

    @property
    def p2p_received(self) -> int:
        """P2P messages taken from senders: each ended in exactly one of these."""
        return (
            self.p2p_delivered
            + self.p2p_queued
            + self.p2p_dropped_denied
            + self.p2p_dropped_malformed
            + self.p2p_dropped_qos0_offline
            + self.p2p_dropped_quota
            + self.p2p_dropped_too_large
            + self.p2p_dropped_unknown
        )

    def snapshot(self) -> dict[str, int]:
        """Every counter by name."""
        counters = {name: getattr(self, name) for name in self.__slots__}
        return {**counters, "p2p_received": self.p2p_received}
