"""Wire: what a connection asks of whatever carries its bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol


class Wire(Protocol):
    """What carries a connection.  ``sink`` is where frames wait for ``flush``; both may change while blocked."""

    sink: Any

    @property
    def peer(self) -> str:
        """The peer's address, as text."""

    @property
    def certificate(self) -> Any:
        """The peer's certificate, or None."""

    def flush(self) -> None:
        """Send what is in the sink."""

    def close(self) -> None:
        """Send what is in the sink, as far as the peer takes it soon, and close; ``Connection.lost`` follows."""

    def pause(self) -> None:
        """Read no more for now."""

    def resume(self) -> None:
        """Read again."""


class Discarding:
    """The sink of a connection that is over."""

    def __bool__(self) -> bool:
        return True

    def append(self, frame: bytes) -> None:
        """Drop it."""

    def extend(self, frames: Iterable[bytes]) -> None:
        """Drop them."""


DISCARDING = Discarding()
