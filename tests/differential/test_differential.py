"""The differential run in small, and the page that lists its classes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tomli

from tests.differential import page
from tests.differential.classes import PARTINGS, SHADES
from tests.differential.run import MOSQUITTO, brokers
from tests.differential.sequences import generate

SENTENCES = Path(__file__).parents[1] / "conformance"


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.skipif(MOSQUITTO is None, reason="not installed: mosquitto")
def test_a_hundred_sequences(tmp_path: Path) -> None:
    with brokers(tmp_path) as run:
        unknown = [str(verdict) for number in range(100) if (verdict := run.compare(1, number)).unknown]
        run.check()
    assert not unknown, "\n".join(unknown)
    assert run.counts["refusal-told"]  # the sequences do reach what is illegal


def test_sequences_depend_on_seed_and_number_alone() -> None:
    assert str(generate(7, 3)) == str(generate(7, 3))
    assert str(generate(7, 3)) != str(generate(8, 3))


def test_the_page_is_fresh() -> None:
    assert not page.is_stale(), "write it: python -m tests.differential --page"


def test_the_page_has_every_class_and_no_other() -> None:
    assert [shade.name for shade in SHADES] == list(page.AS_COMPARED)
    assert [parting.name for parting in PARTINGS] == list(page.PARTED)


def test_the_sentences_exist() -> None:
    known: set[str] = set()
    for name in ("sentences_v5.toml", "sentences_v311.toml"):
        known |= set(tomli.loads((SENTENCES / name).read_text())["sentences"])
    rows = [*page.AS_COMPARED.values(), *page.PARTED.values()]
    named = {name for row in rows for name in re.findall(r"MQTT3?-\d[\d.]+-\d+", row.decides)}
    assert named
    assert named <= known
