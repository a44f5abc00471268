"""Writes docs/conformance.md: what line obeys each normative statement of MQTT 5.0 and 3.1.1, and what test proves it.

    python tests/conformance/page.py            write the page
    python tests/conformance/page.py --check    write nothing; list what is missing, unknown or stale, and exit 1

Three things go in, none of them imported: the statements (sentences_v5.toml and sentences_v311.toml beside this file),
the comments of the package that hold an id in brackets, and the ``spec`` markers of the tests.  ``[MQTT-3.3.1-9]`` is
an id of 5.0; the same numbers mean another sentence in 3.1.1, so that one is ``[MQTT3-3.3.1-9]``.

A marker is found on a function, a class, a ``pytestmark``, a ``pytest.param(..., marks=...)``, or behind a name of the
same module that these use.  Its ids have to be literal strings.  A test marked skip or xfail proves nothing.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TypeGuard

import tomli

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "twisted_p2pmqtt"
PAGE = "docs/conformance.md"
SPECIFICATIONS = {
    "MQTT 5.0": "tests/conformance/sentences_v5.toml",
    "MQTT 3.1.1": "tests/conformance/sentences_v311.toml",
}

REQUIRE_COMPLETE = True
"""Whether our own test suite fails where ``--check`` would."""

_ID_IN_BRACKETS = re.compile(r"\[(MQTT3?-\d+\.\d+\.\d+-\d+)\]")
_NOT_OURS = {"node_modules", "__pycache__"}
_PROVES_NOTHING = {"skip", "xfail"}


class Sentence(NamedTuple):
    """A normative statement.  ``binds`` is server, client or both."""

    id: str
    section: str
    binds: str
    says: str
    server_checks: bool = False

    @property
    def needs_test(self) -> bool:
        return self.binds != "client" or self.server_checks


class Place(NamedTuple):
    """A line of a file; the path is relative to the root, with slashes."""

    path: str
    line: int


class Proof(NamedTuple):
    """A test (``name`` as pytest writes it after the path, empty for a whole module) and an id on it."""

    path: str
    name: str
    id: str


class Evidence(NamedTuple):
    """All that was found in a tree."""

    sentences: Mapping[str, list[Sentence]]  # by the specification's name
    code: Mapping[str, list[Place]]  # by id
    proofs: Mapping[str, list[Proof]]  # by id
    problems: list[str]  # what could not be read


# What the specifications ask


def spec_order(sentence_id: str) -> tuple[int, ...]:
    """MQTT-3.10.4-2 as (3, 10, 4, 2)."""
    return tuple(int(number) for number in re.findall(r"\d+", sentence_id.split("-", 1)[1]))


def read_sentences(path: Path) -> list[Sentence]:
    """The statements of one file, in the order of the specification."""
    table = tomli.loads(path.read_text(encoding="utf-8"))["sentences"]
    return [Sentence(id=key, **table[key]) for key in sorted(table, key=spec_order)]


# What the code says


def python_files(folder: Path) -> list[Path]:
    """Every Python file below a folder that is ours, sorted."""
    below = (path.relative_to(folder) for path in folder.rglob("*.py"))
    ours = (path for path in below if not any(part in _NOT_OURS or part.startswith(".") for part in path.parts))
    return [folder / path for path in sorted(ours, key=lambda path: path.as_posix())]


def ids_in_comments(source: str) -> Iterator[tuple[str, int]]:
    """Every id in a comment of this source, with its line."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            for sentence_id in _ID_IN_BRACKETS.findall(token.string):
                yield sentence_id, token.start[0]


def read_code(root: Path) -> dict[str, list[Place]]:
    """The lines of the package that carry each id."""
    places: dict[str, list[Place]] = {}
    for path in python_files(root / PACKAGE):
        name = path.relative_to(root).as_posix()
        for sentence_id, line in ids_in_comments(path.read_text(encoding="utf-8")):
            place = Place(name, line)
            if place not in places.setdefault(sentence_id, []):
                places[sentence_id].append(place)
    return places


# What the tests prove


class MarkerReader:
    """Finds the ``spec`` markers of one test module, by its syntax tree."""

    def __init__(self, path: str, source: str) -> None:
        self.path = path
        self.tree = ast.parse(source, filename=path)
        classes = [node for node in ast.walk(self.tree) if isinstance(node, ast.ClassDef)]
        bodies = [*(node.body for node in classes), self.tree.body]
        self.values = {name: value for body in bodies for name, value in _assignments(body)}
        self.problems: list[str] = []

    def proofs(self) -> Iterator[Proof]:
        """Every id on the module, its classes and its functions."""
        yield from self._in_body(self.tree.body, [])

    def _in_body(self, body: list[ast.stmt], inside: list[str]) -> Iterator[Proof]:
        """Every id in the body of the module or of a class, and on the module or class itself."""
        module_or_class = _elements(value for name, value in _assignments(body) if name == "pytestmark")
        if _skipped(module_or_class):
            return
        yield from self._marked(inside, module_or_class)
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from self._in_definition(node, [*inside, node.name])
            elif isinstance(node, ast.If | ast.Try | ast.With):  # a test for some platforms, say
                yield from self._in_body([each for each in ast.iter_child_nodes(node) if _is_statement(each)], inside)
        for name, value in _assignments(body):  # TestFlow = pytest.mark.spec("...")(Flow.TestCase)
            if name.startswith("Test") and isinstance(value, ast.Call):
                yield from self._marked([*inside, name], [value.func])

    def _in_definition(
        self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, name: list[str]
    ) -> Iterator[Proof]:
        if _skipped(node.decorator_list):
            return
        if isinstance(node, ast.ClassDef):
            if _has_tests(node):
                yield from self._marked(name, node.decorator_list)
                yield from self._in_body(node.body, name)
        elif node.name.startswith("test"):
            yield from self._marked(name, node.decorator_list)

    def _marked(self, name: list[str], expressions: list[ast.expr]) -> Iterator[Proof]:
        for expression in expressions:
            for sentence_id in self._ids(expression, set()):
                yield Proof(self.path, "::".join(name), sentence_id)

    def _ids(self, expression: ast.expr, seen: set[str]) -> Iterator[str]:
        """The ids of all spec markers in an expression, looking behind the module's names too."""
        for node in ast.walk(expression):
            if isinstance(node, ast.Call) and _is_spec_marker(node.func):
                yield from self._arguments(node)
            elif isinstance(node, ast.Name) and node.id in self.values and node.id not in seen:
                yield from self._ids(self.values[node.id], seen | {node.id})

    def _arguments(self, marker: ast.Call) -> Iterator[str]:
        if not marker.args or marker.keywords:
            self._unreadable(marker)
        for argument in marker.args:
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                yield argument.value
            else:
                self._unreadable(marker)

    def _unreadable(self, marker: ast.Call) -> None:
        problem = f"{self.path}:{marker.lineno}: the ids of a spec marker are to be literal strings, one or more"
        if problem not in self.problems:
            self.problems.append(problem)


def _assignments(body: list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """The names these statements give values, one name at a time."""
    for node in body:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    yield target.id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value


def _has_tests(node: ast.ClassDef) -> bool:
    """Whether pytest finds tests here.  It passes a hypothesis state machine by, and finds its TestCase only."""
    functions = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
    return node.name.startswith("Test") or any(each.name.startswith("test") for each in functions)


def _is_statement(node: ast.AST) -> TypeGuard[ast.stmt]:
    return isinstance(node, ast.stmt)


def _elements(expressions: Iterable[ast.expr]) -> list[ast.expr]:
    """These expressions, and in the place of a list or tuple what is in it."""
    return [
        element for each in expressions for element in (each.elts if isinstance(each, ast.List | ast.Tuple) else [each])
    ]


def _mark_name(node: ast.expr) -> str | None:
    """``skip`` for pytest.mark.skip, called or not, and for mark.skip; None for all that is no marker."""
    function = node.func if isinstance(node, ast.Call) else node
    if not isinstance(function, ast.Attribute):
        return None
    owner = function.value
    owner_name = owner.attr if isinstance(owner, ast.Attribute) else owner.id if isinstance(owner, ast.Name) else None
    return function.attr if owner_name == "mark" else None


def _is_spec_marker(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and _mark_name(function) == "spec"


def _skipped(marks: list[ast.expr]) -> bool:
    return any(_mark_name(mark) in _PROVES_NOTHING for mark in marks)


def read_tests(root: Path) -> tuple[dict[str, list[Proof]], list[str]]:
    """The tests that carry each id, and the markers that cannot be read."""
    proofs: dict[str, list[Proof]] = {}
    problems: list[str] = []
    for path in python_files(root / "tests"):
        if not path.name.startswith("test_"):
            continue
        reader = MarkerReader(path.relative_to(root).as_posix(), path.read_text(encoding="utf-8"))
        for proof in reader.proofs():
            if proof not in proofs.setdefault(proof.id, []):
                proofs[proof.id].append(proof)
        problems += reader.problems
    return {key: sorted(found) for key, found in proofs.items()}, problems


# The page


def gather(root: Path) -> Evidence:
    """Read a whole tree."""
    proofs, problems = read_tests(root)
    sentences = {name: read_sentences(root / path) for name, path in SPECIFICATIONS.items()}
    return Evidence(sentences, read_code(root), proofs, problems)


HEAD = """\
# Conformance

Every numbered normative statement of MQTT 5.0 and of MQTT 3.1.1, the line of ours that obeys it and the tests that
prove it. The words are ours and short; the law is what the OASIS standards say. Ids of 3.1.1 begin with MQTT3-,
because the two standards number different statements alike. MQTT 3.1 numbers none.

This page is generated: `python tests/conformance/page.py` writes it from the statements in `tests/conformance`, from
the comments in the code and from the `spec` markers of the tests.
"""


def render(evidence: Evidence) -> str:
    """The page, as Markdown."""
    parts = [HEAD, "## In short\n", _summary(evidence)]
    for name, sentences in evidence.sentences.items():
        parts += [f"## {name}\n", _evidence_table([each for each in sentences if each.needs_test], evidence)]
    parts += ["## Binds the client only\n", "A server cannot break these, nor has it to notice who does.\n"]
    client_only = [each for sentences in evidence.sentences.values() for each in sentences if not each.needs_test]
    parts.append(_table(["id", "what it says"], [_left_cells(each) for each in client_only]))
    return "\n".join(parts)


def _summary(evidence: Evidence) -> str:
    """Of the statements that bind a server, or whose breach it has to answer: how many are covered."""
    lines = []
    for name, sentences in evidence.sentences.items():
        needed = [each.id for each in sentences if each.needs_test]
        proven = sum(each in evidence.proofs for each in needed)
        in_code = sum(each in evidence.code for each in needed)
        lines.append(
            f"- {name}: {proven} of {len(needed)} covered by a test, {in_code} marked in the code; "
            f"{len(sentences) - len(needed)} more bind the client only."
        )
    return "\n".join(lines) + "\n"


def _evidence_table(sentences: list[Sentence], evidence: Evidence) -> str:
    rows = []
    for each in sentences:
        code = [_code_link(place) for place in evidence.code.get(each.id, [])]
        tests = [_test_link(proof) for proof in evidence.proofs.get(each.id, [])]
        rows.append([*_left_cells(each), "<br>".join(code) or "—", "<br>".join(tests) or "—"])
    return _table(["id", "what it says", "code", "tests"], rows)


def _left_cells(sentence: Sentence) -> list[str]:
    says = sentence.says.replace("|", "\\|")
    return [sentence.id, f"{says} ({sentence.section})"]


def _code_link(place: Place) -> str:
    label = place.path.removeprefix(f"{PACKAGE}/")
    return f"[{label}:{place.line}](../{place.path}#L{place.line})"


def _test_link(proof: Proof) -> str:
    label = proof.path.removeprefix("tests/") + (f"::{proof.name}" if proof.name else "")
    return f"[`{label}`](../{proof.path})"


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


# The check


def findings(evidence: Evidence) -> list[str]:
    """What is missing, unknown or unreadable; the page's own state is not looked at."""
    known = {each.id for sentences in evidence.sentences.values() for each in sentences}
    found = list(evidence.problems)
    for sentences in evidence.sentences.values():
        found += [
            f"{each.id}: no test ({each.says})"
            for each in sentences
            if each.needs_test and each.id not in evidence.proofs
        ]
    for sentence_id in sorted(evidence.proofs.keys() - known):
        found += [
            f"{proof.path}: {proof.name or 'pytestmark'} names {sentence_id}, which no specification has"
            for proof in evidence.proofs[sentence_id]
        ]
    for sentence_id in sorted(evidence.code.keys() - known):
        found += [
            f"{place.path}:{place.line}: names {sentence_id}, which no specification has"
            for place in evidence.code[sentence_id]
        ]
    return found


def stale(root: Path, evidence: Evidence) -> bool:
    """Whether the page is not what would be written now."""
    page = root / PAGE
    return not page.is_file() or page.read_text(encoding="utf-8") != render(evidence)


def check(root: Path) -> list[str]:
    """All findings of a tree, the stale page among them."""
    evidence = gather(root)
    found = findings(evidence)
    if stale(root, evidence):
        found.append(f"{PAGE} is stale: run python tests/conformance/page.py")
    return found


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Write docs/conformance.md, or check it.")
    parser.add_argument("--check", action="store_true", help="write nothing; list what is missing, unknown or stale")
    if parser.parse_args(arguments).check:
        found = check(root)
        for finding in found:
            print(finding)
        return 1 if found else 0
    page = root / PAGE
    page.parent.mkdir(exist_ok=True)
    page.write_text(render(gather(root)), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
