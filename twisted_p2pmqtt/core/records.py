"""What a store is given and gives back: plain values, times in wall-clock seconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    """An application message; ``expires_at`` None for one that never expires."""

    topic: bytes
    payload: bytes
    qos: int
    properties: Properties
    expires_at: float | None


@dataclass(slots=True)
class DeliveryRecord:
    """A delivery of a session's: ``packet_id`` 0 while it waits, ``is_released`` once PUBREC was received (then
    ``message`` may be None)."""

    sequence: int
    qos: int
    retain: int
    extra: bytes
    is_p2p: bool
    packet_id: int
    is_released: bool
    message: MessageRecord | None


@dataclass(slots=True)
class SessionRecord:
    """A session: ``expires_at`` None while it is connected or where it never expires.

    The collections are filled by ``IStore.restore`` only; ``deliveries`` in the order of their sequence.
    """

    client_id: str
    expiry_interval: int
    expires_at: float | None
    will: Will | None
    subscriptions: list[SubscriptionRecord] = field(default_factory=list)
    deliveries: list[DeliveryRecord] = field(default_factory=list)
    received: list[int] = field(default_factory=list)


@dataclass(slots=True)
class RetainedRecord:
    """A retained message of a topic."""

    topic: str
    message: MessageRecord
