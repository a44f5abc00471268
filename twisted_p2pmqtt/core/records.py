"""What a store is given and gives back: plain values, times in wall-clock seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from twisted_p2pmqtt.codec.packets import Will
from twisted_p2pmqtt.codec.properties import Properties


class StoreError(Exception):
    """The store cannot be opened or read; the text says why and what to do."""


@dataclass(slots=True)
class SubscriptionRecord:
    """One subscription of a session; the fields are those of ``Subscription``."""

    topic_filter: str
    qos: int
    no_local: bool
    retain_as_published: bool
    identifier: int


@dataclass(slots=True)
class MessageRecord:
    """An application message; ``expires_at`` None for one that never expires.

    A message in several queues is one object here too; ``made`` is for whoever receives it, to remember what it made of
    it.
    """

    topic: bytes
    payload: bytes
    qos: int
    properties: Properties
    expires_at: float | None
    made: Any = None


@dataclass(slots=True)
class DeliveryRecord:
    """A delivery of a session's: ``packet_id`` 0 while it waits, ``is_released`` once PUBREC was received."""

    client_id: str
    sequence: int
    qos: int
    retain: int
    extra: bytes
    is_p2p: bool
    packet_id: int
    is_released: bool
    message: MessageRecord


@dataclass(slots=True)
class SessionRecord:
    """A session: ``left_at`` is when its last connection ended, None while it is connected.

    The collections are filled by ``IStore.restore`` only, and so is ``key``, which is the store's own.
    """

    client_id: str
    expiry_interval: int
    left_at: float | None
    will: Will | None
    subscriptions: list[SubscriptionRecord] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    key: int = 0


@dataclass(slots=True)
class RetainedRecord:
    """A retained message of a topic."""

    topic: str
    message: MessageRecord
