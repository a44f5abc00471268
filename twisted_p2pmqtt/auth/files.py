"""Reading the files that say who may do what: whole or not at all, every mistake told with its file and line.

A file that cannot be understood to its last line is refused: a rule that was skipped may be the one that denies.
"""

from __future__ import annotations

from collections.abc import Iterable

MAX_PROBLEMS = 20
"""Mistakes that are told of one file; the rest is counted."""


class BadFile(Exception):
    """A file that cannot be used.  ``problems`` are lines of text, each ``file:line: what is wrong``."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class Problems:
    """The mistakes found in one file so far."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: list[str] = []

    def add(self, line: int, what: str) -> None:
        """Note a mistake."""
        self._found.append(f"{self._path}:{line}: {what}")

    def check(self) -> None:
        """Raise ``BadFile`` if there was any."""
        if len(self._found) > MAX_PROBLEMS:
            more = len(self._found) - MAX_PROBLEMS
            raise BadFile([*self._found[:MAX_PROBLEMS], f"{self._path}: and {more} more"])
        if self._found:
            raise BadFile(self._found)


def read_file(path: str) -> bytes:
    """The file's bytes; ``BadFile`` where it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise BadFile([f"{path}: cannot be read: {error.strerror or error}"]) from error


def numbered_lines(data: bytes, problems: Problems) -> list[tuple[int, str]]:
    """The lines of a UTF-8 text with their numbers, comments (``#`` at column 0) and empty ones left out.

    Lines end with LF or CRLF; only trailing white space is taken off.
    """
    lines = []
    for number, raw in enumerate(data.split(b"\n"), start=1):
        try:
            text = raw.decode("utf-8").rstrip(" \t\r\n\v\f")
        except UnicodeDecodeError:
            problems.add(number, "is not UTF-8")
            continue
        if text and not text.startswith("#"):
            lines.append((number, text))
    return lines
