"""The generator of docs/conformance.md, on a small tree of its own; and our own page, sentences and markers."""

import importlib.util
import sys
from pathlib import Path
from textwrap import dedent
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load_page() -> ModuleType:
    """The generator, by its path: whether tests/ can be imported from depends on who runs us."""
    name = "conformance_page"
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "conformance" / "page.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


page = load_page()

SENTENCES_V5 = """
    [sentences]
    "MQTT-3.10.1-1" = { section = "3.10.1", binds = "both", says = "Flags are 0010" }
    "MQTT-3.1.0-1" = { section = "3.1", binds = "client", server_checks = true, says = "CONNECT first" }
    "MQTT-3.2.0-1" = { section = "3.2", binds = "server", says = "CONNACK | AUTH first" }
    "MQTT-4.5.0-2" = { section = "4.5", binds = "client", says = "The client acknowledges" }
"""
SENTENCES_V311 = """
    [sentences]
    "MQTT3-3.2.0-1" = { section = "3.2", binds = "server", says = "CONNACK first" }
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text), encoding="utf-8")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project with five sentences, no code and no tests."""
    write(
        tmp_path,
        {
            "tests/conformance/sentences_v5.toml": SENTENCES_V5,
            "tests/conformance/sentences_v311.toml": SENTENCES_V311,
        },
    )
    return tmp_path


def complete(root: Path) -> None:
    """Give the tree's sentences their tests and two of them their lines."""
    write(
        root,
        {
            "twisted_p2pmqtt/core/session.py": """
                first = "CONNACK"  # [MQTT-3.2.0-1] [MQTT3-3.2.0-1]
                flags = 0b0010  # why it is so [MQTT-3.10.1-1]
                """,
            "tests/core/test_session.py": """
                import pytest

                @pytest.mark.spec("MQTT-3.2.0-1", "MQTT3-3.2.0-1")
                def test_connack(): ...

                @pytest.mark.spec("MQTT-3.10.1-1", "MQTT-3.1.0-1")
                def test_flags(): ...
                """,
        },
    )


def names(root: Path, sentence_id: str) -> list[str]:
    """The tests that carry an id, as path::name."""
    proofs, _ = page.read_tests(root)
    return [f"{proof.path}::{proof.name}" for proof in proofs.get(sentence_id, [])]


def names_in(source: str, root: Path, sentence_id: str = "MQTT-3.2.0-1") -> list[str]:
    """The names of the tests in a module of this source that carry an id."""
    write(root, {"tests/test_one.py": source})
    return [name.removeprefix("tests/test_one.py::") for name in names(root, sentence_id)]


# The page


def test_the_page_lists_every_sentence_once_with_its_code_and_its_tests(tree: Path) -> None:
    complete(tree)
    assert page.main([], tree) == 0
    text = (tree / "docs/conformance.md").read_text(encoding="utf-8")
    test = "[`core/test_session.py::test_connack`](../tests/core/test_session.py)"
    code = "[core/session.py:2](../twisted_p2pmqtt/core/session.py#L2)"
    assert f"| MQTT-3.2.0-1 | CONNACK \\| AUTH first (3.2) | {code} | {test} |\n" in text
    assert f"| MQTT3-3.2.0-1 | CONNACK first (3.2) | {code} | {test} |\n" in text
    assert "| MQTT-4.5.0-2 | The client acknowledges (4.5) |\n" in text.split("## Binds the client only")[1]
    assert text.count("| MQTT") == 5


def test_the_page_begins_with_what_is_covered(tree: Path) -> None:
    complete(tree)
    text = page.render(page.gather(tree))
    assert "- MQTT 5.0: 3 of 3 covered by a test, 2 marked in the code; 1 more bind the client only.\n" in text
    assert "- MQTT 3.1.1: 1 of 1 covered by a test, 1 marked in the code; 0 more bind the client only.\n" in text


def test_the_page_keeps_the_order_of_the_specification(tree: Path) -> None:
    rows = [line for line in page.render(page.gather(tree)).splitlines() if line.startswith("| MQTT")]
    ids = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    assert ids == ["MQTT-3.1.0-1", "MQTT-3.2.0-1", "MQTT-3.10.1-1", "MQTT3-3.2.0-1", "MQTT-4.5.0-2"]


def test_the_page_says_the_same_twice(tree: Path) -> None:
    complete(tree)
    assert page.render(page.gather(tree)) == page.render(page.gather(tree))


def test_what_has_neither_code_nor_test_gets_dashes(tree: Path) -> None:
    assert "| MQTT-3.1.0-1 | CONNECT first (3.1) | — | — |\n" in page.render(page.gather(tree))


# Code


def test_ids_count_in_comments_only(tree: Path) -> None:
    write(
        tree,
        {
            "twisted_p2pmqtt/a.py": '''
                """[MQTT-3.1.0-1] in a docstring is talk."""
                text = "# [MQTT-3.1.0-1]"
                # [MQTT-3.1.0-1] above the line, and MQTT-3.2.0-1 without brackets
                x = 1  # [MQTT-3.1.0-1] [MQTT-3.1.0-1] twice
                ''',
            "twisted_p2pmqtt/.hidden/b.py": "# [MQTT-3.2.0-1]\n",
            "elsewhere/c.py": "# [MQTT-3.2.0-1]\n",
        },
    )
    assert page.read_code(tree) == {"MQTT-3.1.0-1": [("twisted_p2pmqtt/a.py", 4), ("twisted_p2pmqtt/a.py", 5)]}


# Markers


def test_a_marker_on_a_function(tree: Path) -> None:
    assert names_in(
        """
        import pytest
        from pytest import mark

        @pytest.mark.spec("MQTT-3.2.0-1")
        def test_one(): ...

        @mark.spec("MQTT-3.1.0-1", "MQTT-3.2.0-1")
        async def test_two(): ...

        @pytest.mark.spec("MQTT-3.2.0-1")
        def helper(): ...
        """,
        tree,
    ) == ["test_one", "test_two"]


def test_a_marker_on_a_class_or_its_methods(tree: Path) -> None:
    assert names_in(
        """
        import pytest

        @pytest.mark.spec("MQTT-3.2.0-1")
        class TestOne:
            def test_it(self): ...

        class TestTwo:
            pytestmark = pytest.mark.spec("MQTT-3.2.0-1")

        class ThreeTests(TestCase):
            class TestInside:
                @pytest.mark.spec("MQTT-3.2.0-1")
                def test_it(self): ...

            def test_other(self): ...

        @pytest.mark.spec("MQTT-3.2.0-1")
        class Machine(RuleBasedStateMachine): ...

        TestMachine = pytest.mark.spec("MQTT-3.2.0-1")(Machine.TestCase)
        """,
        tree,
    ) == ["TestMachine", "TestOne", "TestTwo", "ThreeTests::TestInside::test_it"]


@pytest.mark.parametrize(
    "pytestmark",
    [
        'pytestmark = pytest.mark.spec("MQTT-3.2.0-1")',
        'pytestmark = [pytest.mark.slow, pytest.mark.spec("MQTT-3.2.0-1")]',
        'pytestmark: Any = (pytest.mark.spec("MQTT-3.2.0-1"),)',
    ],
)
def test_a_marker_on_the_module(tree: Path, pytestmark: str) -> None:
    write(tree, {"tests/test_one.py": f"import pytest\n{pytestmark}\ndef test_it(): ...\n"})
    proofs, problems = page.read_tests(tree)
    assert proofs == {"MQTT-3.2.0-1": [("tests/test_one.py", "", "MQTT-3.2.0-1")]}
    assert problems == []
    assert "[`test_one.py`](../tests/test_one.py)" in page.render(page.gather(tree))


def test_a_marker_on_one_case_of_many(tree: Path) -> None:
    assert names_in(
        """
        import pytest

        FIRST = pytest.mark.spec("MQTT-3.2.0-1")
        CASES = [pytest.param(1, marks=[FIRST, pytest.mark.slow]), 2]

        @pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.spec("MQTT-3.2.0-1"))])
        def test_here(n): ...

        @pytest.mark.parametrize("n", [*CASES, 3])
        def test_behind_names(n): ...

        class TestThese:
            CASES = [pytest.param(1, marks=FIRST)]

            @pytest.mark.parametrize("n", CASES)
            def test_behind_names_of_the_class(self, n): ...

        @FIRST
        def test_behind_a_name(): ...
        """,
        tree,
    ) == ["TestThese::test_behind_names_of_the_class", "test_behind_a_name", "test_behind_names", "test_here"]


def test_a_marker_on_a_test_for_some_platforms(tree: Path) -> None:
    assert names_in(
        """
        if sys.platform != "win32":
            @pytest.mark.spec("MQTT-3.2.0-1")
            def test_posix(): ...
        else:
            @pytest.mark.spec("MQTT-3.2.0-1")
            def test_windows(): ...
        """,
        tree,
    ) == ["test_posix", "test_windows"]


def test_a_test_that_is_skipped_or_fails_proves_nothing(tree: Path) -> None:
    source = """
        @pytest.mark.skip
        @pytest.mark.spec("MQTT-3.2.0-1")
        def test_skipped(): ...

        @pytest.mark.xfail(reason="not yet")
        @pytest.mark.spec("MQTT-3.2.0-1")
        class TestFails:
            @pytest.mark.spec("MQTT-3.2.0-1")
            def test_inside(self): ...
        """
    assert names_in(source, tree) == []
    assert names_in('pytestmark = [pytest.mark.spec("MQTT-3.2.0-1"), pytest.mark.skip("no time")]', tree) == []


def test_only_test_modules_prove_something(tree: Path) -> None:
    marked = '@pytest.mark.spec("MQTT-3.2.0-1")\ndef test_it(): ...\n'
    write(tree, {"tests/wire.py": marked, "tests/interop/node/node_modules/x/test_x.py": marked})
    assert names(tree, "MQTT-3.2.0-1") == []


# The check


def test_a_complete_tree_with_a_fresh_page_passes(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    complete(tree)
    page.main([], tree)
    assert page.main(["--check"], tree) == 0
    assert capsys.readouterr().out == ""


def test_a_sentence_without_a_test_fails(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page.main([], tree)
    assert page.main(["--check"], tree) == 1
    assert capsys.readouterr().out.splitlines() == [
        "MQTT-3.1.0-1: no test (CONNECT first)",
        "MQTT-3.2.0-1: no test (CONNACK | AUTH first)",
        "MQTT-3.10.1-1: no test (Flags are 0010)",
        "MQTT3-3.2.0-1: no test (CONNACK first)",
    ]


def test_an_unknown_id_fails(tree: Path) -> None:
    complete(tree)
    write(
        tree,
        {
            "twisted_p2pmqtt/a.py": "x = 1  # [MQTT-9.9.9-1]\n",
            "tests/test_a.py": 'pytestmark = pytest.mark.spec("3.2.0-1")\n',
            "tests/test_b.py": '@pytest.mark.spec("MQTT3-9.9.9-1")\ndef test_it(): ...\n',
        },
    )
    page.main([], tree)
    assert page.check(tree) == [
        "tests/test_a.py: pytestmark names 3.2.0-1, which no specification has",
        "tests/test_b.py: test_it names MQTT3-9.9.9-1, which no specification has",
        "twisted_p2pmqtt/a.py:1: names MQTT-9.9.9-1, which no specification has",
    ]


@pytest.mark.parametrize("arguments", ["*IDS", "ID", "", 'id="MQTT-3.2.0-1"', 'f"MQTT-{n}"'])
def test_a_marker_that_cannot_be_read_fails(tree: Path, arguments: str) -> None:
    complete(tree)
    write(tree, {"tests/test_a.py": f"@pytest.mark.spec({arguments})\ndef test_it(): ...\n"})
    page.main([], tree)
    assert page.check(tree) == [
        "tests/test_a.py:1: the ids of a spec marker are to be literal strings, one or more",
    ]


def test_a_stale_page_fails(tree: Path) -> None:
    complete(tree)
    stale = ["docs/conformance.md is stale: run python tests/conformance/page.py"]
    assert page.check(tree) == stale
    page.main([], tree)
    assert page.check(tree) == []
    write(tree, {"tests/test_more.py": '@pytest.mark.spec("MQTT-3.1.0-1")\ndef test_more(): ...\n'})
    assert page.check(tree) == stale


# Ours


@pytest.mark.parametrize(("name", "prefix", "count"), [("MQTT 5.0", "MQTT-", 251), ("MQTT 3.1.1", "MQTT3-", 141)])
def test_our_sentences_are_well_formed(name: str, prefix: str, count: int) -> None:
    sentences = page.read_sentences(ROOT / page.SPECIFICATIONS[name])
    assert len(sentences) == count
    for each in sentences:
        chapter = each.id.removeprefix(prefix).split("-")[0].split(".")
        while chapter[-1] == "0":
            chapter.pop()
        assert each.section.split(".")[: len(chapter)] == chapter, each.id
        assert each.binds in {"server", "client", "both"}, each.id
        assert each.binds == "client" or not each.server_checks, each.id
        assert 1 <= len(each.says.split()) <= 15, each.id


@pytest.mark.skipif(not page.REQUIRE_COMPLETE, reason="REQUIRE_COMPLETE is off in tests/conformance/page.py")
def test_our_page_is_complete_and_fresh() -> None:
    assert page.check(ROOT) == []
