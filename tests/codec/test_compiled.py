"""Which codec is under test: as ``P2PMQTT_MYPYC`` says, the compiled modules or none (setup.py)."""

from __future__ import annotations

import importlib
import os
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

INTERPRETED = {"constants", "errors", "message", "packets"}
COMPILED = {"decode", "primitives", "properties", "reader", "topics", "writer"}


@pytest.mark.parametrize("name", sorted(INTERPRETED | COMPILED))
def test_a_module_is_compiled_where_that_was_asked_for(name: str) -> None:
    file = importlib.import_module(f"twisted_p2pmqtt.codec.{name}").__file__
    assert file is not None
    is_wanted = name in COMPILED and os.environ.get("P2PMQTT_MYPYC") == "1"
    assert file.endswith(tuple(EXTENSION_SUFFIXES)) == is_wanted
