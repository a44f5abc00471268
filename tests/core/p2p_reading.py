"""A naive reading of section 3 of the P2P page, which owes nothing to the routers: rule by rule, over the levels."""

from __future__ import annotations

ORDINARY, MALFORMED = "ordinary", "malformed"

_ESCAPES = {"%2F": "/", "%2B": "+", "%23": "#", "%25": "%"}


def read(mode: str, marker: str, topic: str, is_client: bool = True) -> object:
    """``ORDINARY``, ``MALFORMED``, or the client id and the business topic."""
    levels = topic.split("/")
    if mode in ("prefix", "both") and levels[0] == marker and len(levels) >= 2:
        client_id, business = levels[1], "/".join(levels[2:])
    elif mode in ("suffix", "both") and len(levels) >= 2 and levels[-2] == marker:
        client_id, business = levels[-1], "/".join(levels[:-2])
    else:
        return ORDINARY
    if not client_id or not business or (business.startswith("$") and is_client):
        return MALFORMED
    return read_id(client_id), business


def read_id(level: str) -> str:
    """Left to right: one of the four escapes, or one character."""
    out, at = "", 0
    while at < len(level):
        character = _ESCAPES.get(level[at : at + 3].upper())
        out += character or level[at]
        at += 3 if character else 1
    return out
