"""SessionInfo: what may be told of a session, as a plain value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.session import Session


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """One session.  ``version`` is 3, 4 or 5; intervals are seconds; ``peer`` is empty while the client is away."""

    client_id: str
    is_connected: bool
    version: int
    peer: str
    username: str | None
    keep_alive: int
    session_expiry_interval: int
    subscriptions: tuple[str, ...]
    inflight: int
    pending: int


def describe(session: Session) -> SessionInfo:
    """The session as it is now."""
    connection = session.connection
    return SessionInfo(
        client_id=session.client_id,
        is_connected=connection is not None,
        version=session.version,
        peer=connection.peer if connection is not None else "",
        username=connection.username if connection is not None else None,
        keep_alive=connection.keep_alive if connection is not None else 0,
        session_expiry_interval=session.expiry_interval,
        subscriptions=tuple(session.subscriptions),
        inflight=len(session.inflight),
        pending=len(session.pending or ()),
    )
