"""Publisher: the sender of a message as the publishing rules see it, and the question of its right to publish."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.defer import Deferred

from twisted_p2pmqtt.codec.properties import (
    NO_PROPERTIES,
    Properties,
    SharedProperties,
    encode_properties,
)

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.guard import Guard
    from twisted_p2pmqtt.core.routes import Route

SENDER = "p2p-from"
"""The user property by which a P2P message names its sender."""


NO_RIGHTS: dict[Route, bool] = {}
"""For a publisher of which nothing is known; never changed."""


class Publisher(Protocol):
    """A session, a will, or the broker's own process (``is_local``, which may do everything).

    ``avatar`` is the ``IClientAvatar`` to ask, None for one that may do everything a client may.
    """

    client_id: str
    is_local: bool
    avatar: Any
    rights: dict[Route, bool]
    """What is known already of ``may_use``."""
    stamp: Stamp | None
    """What names this sender on a P2P message, once it was asked for (``stamp_of``)."""

    def may_use(self, route: Route) -> bool:
        """May it publish along this route?"""


class Stamp:
    """The properties that name a P2P message's sender, and their encoded form with the length in front."""

    __slots__ = ("block", "properties")

    def __init__(self, properties: Properties, block: bytes) -> None:
        self.properties = properties
        self.block = block


def stamp_of(publisher: Publisher) -> Stamp:
    """The publisher's stamp, made now if need be."""
    if publisher.stamp is None:
        properties = cast(Properties, SharedProperties(user_properties=[(SENDER, publisher.client_id)]))
        publisher.stamp = Stamp(properties, encode_properties(properties))
    return publisher.stamp


NO_STAMP = Stamp(NO_PROPERTIES, b"\0")
"""For a message that does not name its sender."""


def ask_right(guard: Guard, avatar: Any, route: Route) -> bool | Deferred[bool]:
    """May this avatar publish along the route?  For a P2P topic that is a question about target and business topic."""
    address = route.address
    if address is not None:
        return guard.ask_later(avatar.may_send_to, address.client_id, address.topic, address.canonical)
    return guard.ask_later(avatar.may_publish, route.name)
