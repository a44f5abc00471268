"""The reference loop: fixed work in pure Python, the unit that costs are counted in.

A second is another thing on every machine; so are instructions on every Python.  What our hot path does, in about the
same mixture, costs about the same number of these loops everywhere: small objects with slots, calls, dict lookups,
slices, lists that are joined.  It must never change: every recorded figure is a ratio to it.
"""

from __future__ import annotations

DATA = bytes(range(256))
TABLE = {DATA[at : at + 8]: at for at in range(64)}


class Item:
    """Something small, as messages are."""

    __slots__ = ("flags", "key", "value")

    def __init__(self, key: bytes, value: int, flags: int) -> None:
        self.key = key
        self.value = value
        self.flags = flags


class Holder:
    """Something that takes the small ones."""

    __slots__ = ("count", "parts")

    def __init__(self) -> None:
        self.count = 0
        self.parts: list[bytes] = []

    def take(self, item: Item) -> bool:
        """Keep a piece of it."""
        if item.flags & 6 and item.value > 250:
            return False
        self.count += 1
        self.parts.append(item.key)
        return True


def loop(times: int) -> int:
    """So many units of work."""
    data, table, holder = DATA, TABLE, Holder()
    take = holder.take
    for number in range(times):
        at = number & 63
        first = data[at]
        key = data[at : at + 8]
        value = table.get(key)
        if value is not None and first == value:
            take(Item(key, value, first & 15))
        if not at:
            b"".join(holder.parts)
            holder.parts.clear()
    return holder.count
