"""Text that strangers chose, made fit for a log line."""

from __future__ import annotations

MAX_LOGGED = 128
"""Characters of one string that the log shows."""


def for_log(text: str) -> str:
    """The text in quotes, with everything but printable ASCII escaped, cut where it is long."""
    quoted = ascii(text[:MAX_LOGGED])
    return quoted if len(text) <= MAX_LOGGED else quoted + "..."
