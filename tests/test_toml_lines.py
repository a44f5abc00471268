"""twisted_p2pmqtt.toml_lines against tomli itself: the same paths, and each on the line where its key stands."""

from __future__ import annotations

import json
from typing import Any

import pytest
import tomli
from hypothesis import given, settings
from hypothesis import strategies as st

from twisted_p2pmqtt.toml_lines import Path, key_lines


def paths_of(value: Any, path: Path = ()) -> set[Path]:
    """The path of everything inside a parsed tree."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: set[Path] = set()
    for step, child in children:
        found |= {(*path, step)} | paths_of(child, (*path, step))
    return found


CASES: list[tuple[str, dict[Path, int]]] = [
    ("", {}),
    ("# nothing", {}),
    ("a = 1", {("a",): 1}),
    ("\n\n  a = 1 # [b]\nc=2", {("a",): 3, ("c",): 4}),
    ("[t]\na = 1\n[u]\na = 2\n", {("t",): 1, ("t", "a"): 2, ("u",): 3, ("u", "a"): 4}),
    ("[t.u]\na = 1", {("t",): 1, ("t", "u"): 1, ("t", "u", "a"): 2}),
    ("[ t . 'u v' ] # x\na = 1", {("t",): 1, ("t", "u v"): 1, ("t", "u v", "a"): 2}),
    ("t.a = 1\nt.b = 2", {("t",): 1, ("t", "a"): 1, ("t", "b"): 2}),
    ('"a.b" = 1\n"c\\u0064" = 2', {("a.b",): 1, ("cd",): 2}),
    (
        "[[l]]\na = 1\n[[l]]\n[l.t]\na = 2\n",
        {("l",): 1, ("l", 0): 1, ("l", 0, "a"): 2, ("l", 1): 3, ("l", 1, "t"): 4, ("l", 1, "t", "a"): 5},
    ),
    (
        "[[l]]\n[[l.m]]\n[[l.m]]\na=1\n[[l]]\n[[l.m]]\n",
        {
            ("l",): 1,
            ("l", 0): 1,
            ("l", 0, "m"): 2,
            ("l", 0, "m", 0): 2,
            ("l", 0, "m", 1): 3,
            ("l", 0, "m", 1, "a"): 4,
            ("l", 1): 5,
            ("l", 1, "m"): 6,
            ("l", 1, "m", 0): 6,
        },
    ),
    ('s = """\nx = 1\n[y]\n"""\na = 1', {("s",): 1, ("a",): 5}),
    ("s = '''\n# \\''' \na = 1", {("s",): 1, ("a",): 3}),
    ('s = """a"""""\na = 1', {("s",): 1, ("a",): 2}),
    ('s = """\\""" """\na = 1', {("s",): 1, ("a",): 2}),
    ('s = "a\\"]#"\na = ""\nb = \'\'\nc = 1', {("s",): 1, ("a",): 2, ("b",): 3, ("c",): 4}),
    ("s = 'a\\'\na = 1", {("s",): 1, ("a",): 2}),
    (
        "l = [ # one\n  1,\n  '],', # two ]\n]\na = 1",
        {("l",): 1, ("l", 0): 2, ("l", 1): 3, ("a",): 5},
    ),
    ("l = []\nm = [[1], []]\n", {("l",): 1, ("m",): 2, ("m", 0): 2, ("m", 0, 0): 2, ("m", 1): 2}),
    (
        "t = { a = 1, b.c = '}' }\nl = [\n{a = 1},\n{}\n]\n",
        {
            ("t",): 1,
            ("t", "a"): 1,
            ("t", "b"): 1,
            ("t", "b", "c"): 1,
            ("l",): 2,
            ("l", 0): 3,
            ("l", 0, "a"): 3,
            ("l", 1): 4,
        },
    ),
    ("d = 1979-05-27 07:32:00\na = +1_0.5e3#x\nb = true", {("d",): 1, ("a",): 2, ("b",): 3}),
    ("a = 1\r\nb = 2\r\n", {("a",): 1, ("b",): 2}),
]


@pytest.mark.parametrize(("text", "lines"), CASES)
def test_lines(text: str, lines: dict[Path, int]) -> None:
    assert key_lines(text) == lines
    assert set(lines) == paths_of(tomli.loads(text)), "the case itself is wrong"


# Any document: keys are k1, k2 ... in the order of the text, so that each name tells on which line it must be found.

scalars = st.one_of(
    st.integers(),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.sampled_from("ab \"'\\#[]{}=,.\n"), max_size=8),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.lists(inner, max_size=3).map(lambda items: dict(enumerate(items)))
    ),
    max_leaves=8,
)
styles = st.sampled_from(["basic", "long", "spread"])
entries = st.lists(st.tuples(st.sampled_from(["pair", "dotted", "table", "tables"]), values, styles), max_size=8)


class Document:
    """Writes TOML, and hands out key names."""

    def __init__(self) -> None:
        self.count = 0
        self.text = ""

    def name(self) -> str:
        self.count += 1
        return f"k{self.count}"

    def value(self, value: Any, style: str) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, str):
            if style == "long":
                body = value.replace("\\", "\\\\").replace('"""', '""\\"')
                return f'"""{body}"""'
            return json.dumps(value)
        if isinstance(value, list):
            gap = " # ],\n" if style == "spread" else " "
            return "[" + gap + "".join(self.value(item, style) + "," + gap for item in value) + "]"
        if isinstance(value, dict):
            # An inline table must not have a line end outside of its strings.
            flat = "long" if style == "long" else "basic"
            return "{" + ", ".join(f"{self.name()} = {self.value(item, flat)}" for item in value.values()) + "}"
        return repr(value)

    def entry(self, kind: str, value: Any, style: str) -> None:
        if kind == "pair":
            self.text += f"{self.name()} = {self.value(value, style)}\n"
        elif kind == "dotted":
            self.text += f"{self.name()} . {self.name()}={self.value(value, style)} # k\n"
        elif kind == "table":
            self.text += f"[{self.name()}.{self.name()}]\n{self.name()} = {self.value(value, style)}\n\n"
        else:
            name = self.name()
            for _ in range(2):
                self.text += f"[[{name}]]\n{self.name()} = {self.value(value, style)}\n[{name}.{self.name()}]\n"


@settings(deadline=None)
@given(entries)
def test_agrees_with_tomli(document: list[tuple[str, Any, str]]) -> None:
    writer = Document()
    for entry in document:
        writer.entry(*entry)
    lines = key_lines(writer.text)
    assert set(lines) == paths_of(tomli.loads(writer.text))
    for path, line in lines.items():
        if isinstance(path[-1], str):
            words = writer.text.split("\n")[line - 1].replace(".", " ").replace("]", " ").replace("[", " ")
            words = words.replace("{", " ").replace("=", " ").replace(",", " ")
            assert path[-1] in words.split(), path
