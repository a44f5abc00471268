"""Where settings come from: the TOML file, the environment, the command line - merged into one tree.

Later sources win: file, then environment, then command line.  Every value keeps its origin (``p2pmqtt.toml:7``,
``P2PMQTT__LIMITS__MAX_QOS``, ``--listen``), so that whoever finds a value wrong can say where to mend it.

An environment variable names a key by its path in capitals, the parts set apart by two underscores; array elements by
their index: ``P2PMQTT__LISTENER__0__ENDPOINT=tcp:2883``.  Its text is read as a TOML value, and as a plain string where
it is none, so ``2``, ``true``, ``["a", "b"]`` and ``tcp:2883`` all do what they look like; quotes force a string.

Must not know which keys exist or what they allow: that is for config_keys and config.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import tomli

from .toml_lines import Path, key_lines

ENVIRONMENT_PREFIX = "P2PMQTT__"


class ConfigError(Exception):
    """The configuration cannot be used.  ``problems``: every problem found, one line of text each, at least one."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True)
class Override:
    """One value from outside the file: the path of its key, the value, and what to call its origin in an error."""

    path: Path
    value: object
    origin: str


class Source:
    """The merged tree, where each of its values came from, and the problems found in it so far.

    ``tree``: nested dicts and lists, as tomli gives them.  ``base``: the absolute directory that relative paths in the
    configuration are meant from: the file's own, or the working directory where there is no file.
    """

    def __init__(self, path: str | None, environ: Mapping[str, str], overrides: Iterable[Override] = ()) -> None:
        """Read and merge.  ConfigError where the file cannot be read or is not TOML: there is nothing to go on with."""
        self.problems: list[str] = []
        self.name = "(defaults)" if path is None else path
        self.base = os.getcwd() if path is None else os.path.dirname(os.path.abspath(path))
        text = "" if path is None else _read(path)
        self.tree: dict[str, Any] = _parse(self.name, text)
        self._origins = {place: f"{self.name}:{line}" for place, line in key_lines(text).items()}
        for override in (*environment_overrides(environ), *overrides):
            self._apply(override)

    def problem(self, path: Path, text: str) -> None:
        """Note that the value at ``path`` is wrong; ``text`` says how, and what is allowed."""
        self.problems.append(f"{self.where(path)}: {'.'.join(map(str, path))}: {text}")

    def where(self, path: Path) -> str:
        """The origin of ``path``, or of the nearest table around it that has one (a key that is missing has none)."""
        for length in range(len(path), 0, -1):
            if path[:length] in self._origins:
                return self._origins[path[:length]]
        return self.name

    def _apply(self, override: Override) -> None:
        node: Any = self.tree
        *parents, last = override.path
        try:
            for step, following in zip(parents, override.path[1:], strict=True):
                node = _enter(node, step, [] if isinstance(following, int) else {})
            _enter(node, last, override.value)
            node[last] = override.value
        except _NoSuchPlace as error:
            place = ".".join(map(str, override.path))
            self.problems.append(f"{override.origin}: {place}: {error}")
            return
        # What stood there is gone, and so are its lines.
        depth = len(override.path)
        self._origins = {place: line for place, line in self._origins.items() if place[:depth] != override.path}
        self._origins[override.path] = override.origin


def environment_overrides(environ: Mapping[str, str]) -> list[Override]:
    """The overrides that ``environ`` holds, in an order in which list elements can be appended one after another."""
    found = []
    for name, text in environ.items():
        if name.startswith(ENVIRONMENT_PREFIX):
            parts = name[len(ENVIRONMENT_PREFIX) :].lower().split("__")
            path = tuple(int(part) if part.isascii() and part.isdigit() else part for part in parts)
            found.append(Override(path, _toml_value(text), name))
    return sorted(found, key=lambda override: [f"{p:09}" if isinstance(p, int) else p for p in override.path])


class _NoSuchPlace(Exception):
    """An override names a place that the tree cannot have; the text says why."""


def _enter(node: Any, step: str | int, default: object) -> Any:
    """What is at ``step`` of ``node``, which gets ``default`` there if it has nothing yet."""
    if isinstance(node, dict) and isinstance(step, str):
        return node.setdefault(step, default)
    if isinstance(node, dict):
        raise _NoSuchPlace(f"{step} must be the name of a key: only arrays of tables have numbers")
    if not isinstance(node, list):
        raise _NoSuchPlace(f"{step!r} must be in a table, but {node!r} is none")
    if not isinstance(step, int):
        raise _NoSuchPlace(f"{step!r} must be the number of an element, counted from 0")
    if step > len(node):
        raise _NoSuchPlace(f"there are {len(node)} elements, so the number must be from 0 to {len(node)}, got {step}")
    if step == len(node):
        node.append(default)
    return node[step]


def _toml_value(text: str) -> object:
    try:
        parsed = tomli.loads(f"value = {text}")
    except tomli.TOMLDecodeError:
        return text
    # More than the one key: the text had a line end and went on as TOML.  It was meant as a string.
    return parsed["value"] if len(parsed) == 1 else text


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path}:{line}: not UTF-8 text, as TOML must be"]) from error


def _parse(name: str, text: str) -> dict[str, Any]:
    try:
        return tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ConfigError([f"{name}:{error.lineno}:{error.colno}: not valid TOML: {error.msg}"]) from error
    except RecursionError as error:
        raise ConfigError([f"{name}: not usable: arrays or tables are nested too deeply"]) from error
