"""Tables for people: a line a row, columns aligned."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(rows: Sequence[dict[str, str]]) -> str:
    """The rows under the names of their columns."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)] if rows else []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
