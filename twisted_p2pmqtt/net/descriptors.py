"""File descriptors: how many this process may have, and room for them.

Linux keeps a process's descriptors in a table that it doubles when it is full.  In a process with more than one thread
each doubling waits until every processor has let go of the old table: milliseconds in which the reactor stands still,
at 256 connections, 512, 1,024 and so on.  ``make_room`` has it done once, before anybody is connected.
"""

from __future__ import annotations

import os
import sys

from twisted.logger import Logger

if sys.platform != "win32":
    import fcntl
    import resource

NOT_FOR_CLIENTS = 64
"""Open files that are kept for the store, the logs and the listening ports themselves."""

WITHOUT_LIMIT = 10_000
"""Connections where the system, Windows, has no limit that could be read."""

ROOM_LIMIT = 65_536
"""Descriptors that room is made for at most: half a megabyte of the kernel's."""

_log = Logger()


def default_max_connections() -> int:
    """The open-file limit, less what is not for clients."""
    if sys.platform == "win32":
        return WITHOUT_LIMIT
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, soft - NOT_FOR_CLIENTS) if soft != resource.RLIM_INFINITY else 1_000_000


def raise_file_limit() -> None:
    """Take as many open files as the system allows this process."""
    if sys.platform == "win32":
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        _log.info("the open-file limit could not be raised")


def make_room(connections: int) -> None:
    """Have the kernel's table grow to so many connections now, as far as the open-file limit and ``ROOM_LIMIT`` go."""
    if sys.platform == "win32":
        return
    highest = min(connections, default_max_connections()) + NOT_FOR_CLIENTS - 1
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            # The lowest one that is free from there on, so that nothing that is open is touched.
            os.close(fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, min(highest, ROOM_LIMIT - 1)))
        finally:
            os.close(null)
    except OSError:
        pass  # a lower limit than this, or all are taken: then the table grows as it needs to
