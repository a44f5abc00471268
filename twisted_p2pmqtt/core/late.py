"""Late acknowledgements: those that wait for the target of a P2P message, and those that must not overtake them.

PUBACKs leave in the order of their PUBLISH packets, and so do PUBRECs (4.6); the two kinds do not wait for each other.
A connection has a ``Line`` for a kind once it has asked for a target's acknowledgement; one that never does pays a
test for None.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

Done = Callable[[bool], None]
"""Told whether what an acknowledgement promises has survived."""


class Late:
    """One acknowledgement in line.

    It leaves once its ``frame`` is known, the commit of what it promises is over (``is_covered``), and all before it
    have left; then ``done`` is told.  ``refusal`` takes the frame's place where the commit fails, empty for one that
    promises nothing.
    """

    __slots__ = ("done", "frame", "has_survived", "is_covered", "packet_id", "refusal")

    def __init__(self, packet_id: int, frame: bytes, refusal: bytes, done: Done) -> None:
        self.packet_id = packet_id
        self.frame = frame
        self.refusal = refusal
        self.done = done
        self.is_covered = False
        self.has_survived = True


class Line(deque[Late]):
    """The late acknowledgements of one connection and kind, in the order of their PUBLISH packets."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        super().__init__()
        self._put = put

    def join(self, packet_id: int, frame: bytes, refusal: bytes, done: Done) -> Late:
        """Stand at the end, with a frame or, where the target has yet to say what it will be, without."""
        late = Late(packet_id, frame, refusal, done)
        self.append(late)
        return late

    def holds(self, packet_id: int) -> bool:
        """Does an acknowledgement of this packet stand in line?"""
        return any(late.packet_id == packet_id for late in self)

    def answer(self, late: Late, frame: bytes) -> None:
        """This is what it says.  The target has the message or the queue does: nothing is refused any more."""
        late.frame = frame
        late.refusal = b""
        self._advance()

    def cover(self, late: Late, has_survived: bool) -> None:
        """The commit is over."""
        late.is_covered = True
        if not has_survived and late.refusal:
            late.frame = late.refusal
            late.has_survived = False
        self._advance()

    def _advance(self) -> None:
        while self and self[0].frame and self[0].is_covered:
            late = self.popleft()
            self._put(late.frame)
            late.done(late.has_survived)
