"""Batch: what was recorded between two commits, kept so that what cancels out within it never reaches the disk.

Filled by ``SQLiteStore`` in the reactor's thread; once handed to the writer nobody changes it any more.  So recording
is a dict entry, and all work that is not needed for that waits for the writer.
"""

from __future__ import annotations

from typing import Any

from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.core.records import SessionRecord, SubscriptionRecord

SESSION_ID, DELIVERY, PACKET_ID, IS_RELEASED, EXPIRES_AT = range(5)
"""What an entry of ``Batch.queued`` holds."""


class Batch:
    """Changes by what they concern; of several changes of one thing the last one counts.

    ``queued`` new deliveries by sequence, as lists; one that is over within the batch is taken out again;
    ``awaited`` how many of them were sent at QoS 1 and may soon be over; ``size`` the bytes of their messages.
    ``ended`` sequences of deliveries of earlier batches that are over, ``progress`` (packet id, released) of others.
    ``sessions`` by session id; ``created`` those of them that no earlier batch has; ``dropped`` session ids.
    ``subscriptions`` by session id and filter, None where it goes; ``received`` by session id and packet id, False
    where it goes; ``retained`` by topic the message with its expiry, None where it goes.
    """

    __slots__ = (
        "awaited",
        "created",
        "dropped",
        "ended",
        "progress",
        "queued",
        "received",
        "retained",
        "sessions",
        "size",
        "subscriptions",
    )

    def __init__(self) -> None:
        self.queued: dict[int, list[Any]] = {}
        self.ended: list[int] = []
        self.progress: dict[int, tuple[int, int]] = {}
        self.sessions: dict[int, SessionRecord] = {}
        self.created: set[int] = set()
        self.dropped: set[int] = set()
        self.subscriptions: dict[tuple[int, str], SubscriptionRecord | None] = {}
        self.received: dict[tuple[int, int], bool] = {}
        self.retained: dict[str, tuple[Message, float | None] | None] = {}
        self.awaited = 0
        self.size = 0

    @property
    def is_empty(self) -> bool:
        """Is there nothing to write?"""
        return not (
            self.queued
            or self.ended
            or self.progress
            or self.sessions
            or self.dropped
            or self.subscriptions
            or self.received
            or self.retained
        )
