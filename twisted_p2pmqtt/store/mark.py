"""Mark: a small file beside the database that says how many transactions there have been.

SQLite replays its write-ahead log up to the first frame that is missing or damaged, and says nothing about what stood
behind it.  So after each commit its number is written here too (a write into the page cache: 1.5 us), and at the next
start the two are compared: a database that is behind its mark has lost commits.  Whether the machine was started anew
in between tells a power failure, after which ``durability = "commit"`` promises nothing, from damage.  An orderly stop
takes the mark away.
"""

from __future__ import annotations

import contextlib
import os
from hashlib import blake2b
from struct import Struct
from zlib import crc32

_FORM = Struct(">8s16sQ")
_MAGIC = b"p2pmqtt1"


class MarkDamaged(Exception):
    """The mark is not what was written."""


def boot_id() -> bytes:
    """What is the same until the machine is started anew, or zeros where the system does not tell; 16 bytes."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:
            return blake2b(file.read(), digest_size=16).digest()
    except OSError:
        return bytes(16)


class Mark:
    """The mark of the database at ``path``."""

    def __init__(self, path: str) -> None:
        self.path = path + "-mark"
        self._boot = boot_id()
        self._file = -1

    def read(self) -> tuple[int, bool] | None:
        """The number of the last commit, and whether the machine has run ever since; None where there is no mark.

        Raises ``MarkDamaged``.  A mark that never reached the disk (empty, or zeros) counts as none.
        """
        try:
            with open(self.path, "rb") as file:
                data = file.read(256)
        except FileNotFoundError:
            return None
        if not data.strip(b"\0"):
            return None
        body, checksum = data[: _FORM.size], data[_FORM.size :]
        if len(body) < _FORM.size or checksum != crc32(body).to_bytes(4, "big"):
            raise MarkDamaged(f"{self.path} is damaged")
        magic, boot, commits = _FORM.unpack(body)
        if magic != _MAGIC:
            raise MarkDamaged(f"{self.path} is damaged")
        return commits, boot == self._boot and boot != bytes(16)

    def write(self, commits: int) -> None:
        """Say that there have been so many.  Raises ``OSError``."""
        if self._file < 0:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
        body = _FORM.pack(_MAGIC, self._boot, commits)
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, body + crc32(body).to_bytes(4, "big"))

    def close(self) -> None:
        """Leave it as it is."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def remove(self) -> None:
        """Take it away."""
        self.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)
