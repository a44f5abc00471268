"""Where each key of a TOML text stands: key path -> line number.

tomli tells the line of a syntax error, but once a text parses it keeps no positions, and a configuration error without
its line is half an error.  So this module walks a text *that tomli has already accepted* and notes where keys, table
headers and array elements begin.  Because the text is known to be valid, the walk needs no error handling and reads no
values: it only has to know where a value ends.  A path is what leads to the value in the parsed tree, table names and
array indices alike: ``("listener", 0, "tls", "certificate")``.

Knows nothing of the configuration's own names, and imports the standard library and tomli only.
"""

from __future__ import annotations

import tomli

Path = tuple[str | int, ...]


def key_lines(text: str) -> dict[Path, int]:
    """Map the path of every key, table and array element in ``text`` to its line, counted from 1.

    ``text`` must be valid TOML; for anything else the result is undefined.  A table that only dotted keys or longer
    headers imply has the line of the first of them.
    """
    return _Walk(text.replace("\r\n", "\n")).run()


class _Walk:
    """One pass over one text.  ``pos`` only grows; every method leaves it just behind what it is named after."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.pos = 0
        self.lines: dict[Path, int] = {}
        self.array_lengths: dict[Path, int] = {}  # of the arrays of tables written [[so]]

    def run(self) -> dict[Path, int]:
        table: Path = ()
        self.skip_blank()
        while self.pos < len(self.text):
            if self.text.startswith("[", self.pos):
                table = self.header()
            else:
                self.pair(table)
            self.skip_blank()
        return self.lines

    def header(self) -> Path:
        """``[a.b]`` or ``[[a.b]]``; gives the path of the table that it opens."""
        start, is_array = self.pos, self.text.startswith("[[", self.pos)
        self.pos += 2 if is_array else 1
        names = self.key()
        self.pos += 2 if is_array else 1
        path: Path = ()
        for depth, name in enumerate(names):
            path += (name,)
            self.note(path, start)
            if path not in self.array_lengths and not (is_array and depth == len(names) - 1):
                continue
            if is_array and depth == len(names) - 1:
                self.array_lengths[path] = self.array_lengths.get(path, 0) + 1
            # A header that goes through an array of tables speaks of its last element.
            path += (self.array_lengths[path] - 1,)
            self.note(path, start)
        return path

    def pair(self, table: Path) -> None:
        """``a.b = value``"""
        start, path = self.pos, table
        for name in self.key():
            path += (name,)
            self.note(path, start)
        self.pos += 1  # the equals sign
        self.skip_space()
        self.value(path)

    def key(self) -> list[str]:
        """A dotted key, each part bare or quoted; leaves the walk at what follows it: ``=`` or ``]``."""
        parts: list[str] = []
        while True:
            self.skip_space()
            start = self.pos
            if self.text[self.pos] in "\"'":
                self.string()
                parts.append(_unquoted(self.text[start : self.pos]))
            else:
                while self.text[self.pos] not in " \t.=]":
                    self.pos += 1
                parts.append(self.text[start : self.pos])
            self.skip_space()
            if self.text[self.pos] != ".":
                return parts
            self.pos += 1

    def value(self, path: Path) -> None:
        opening = self.text[self.pos]
        if opening in "\"'":
            self.string()
        elif opening == "[":
            self.array(path)
        elif opening == "{":
            self.inline_table(path)
        else:  # a number, a date, a boolean
            while self.pos < len(self.text) and self.text[self.pos] not in ",]}#\n":
                self.pos += 1

    def array(self, path: Path) -> None:
        index = 0
        while self.next_item("]"):
            self.note((*path, index), self.pos)
            self.value((*path, index))
            index += 1

    def inline_table(self, path: Path) -> None:
        while self.next_item("}"):
            self.pair(path)

    def next_item(self, closing: str) -> bool:
        """Step over the opening bracket or the comma, whichever stands here; False once ``closing`` is behind us."""
        self.skip_blank()
        if self.text[self.pos] != closing:
            self.pos += 1
            self.skip_blank()
        if self.text[self.pos] != closing:
            return True
        self.pos += 1
        return False

    def string(self) -> None:
        quote = self.text[self.pos]
        closing = quote * 3 if self.text.startswith(quote * 3, self.pos) else quote
        self.pos += len(closing)
        while not self.text.startswith(closing, self.pos):
            self.pos += 2 if quote == '"' and self.text[self.pos] == "\\" else 1
        self.pos += len(closing)
        # A multi-line string may end in one or two quotes of its own: """a""""" is a"".
        while len(closing) == 3 and self.text.startswith(quote, self.pos):
            self.pos += 1

    def skip_space(self) -> None:
        while self.pos < len(self.text) and self.text[self.pos] in " \t":
            self.pos += 1

    def skip_blank(self) -> None:
        """Spaces, line ends and comments."""
        while self.pos < len(self.text) and self.text[self.pos] in " \t\n#":
            if self.text[self.pos] == "#":
                end = self.text.find("\n", self.pos)
                self.pos = len(self.text) if end < 0 else end
            else:
                self.pos += 1

    def note(self, path: Path, start: int) -> None:
        if path not in self.lines:
            self.lines[path] = self.text.count("\n", 0, start) + 1


def _unquoted(key: str) -> str:
    """The name that a quoted key stands for; tomli knows the escapes."""
    return next(iter(tomli.loads(f"{key} = 0")))
