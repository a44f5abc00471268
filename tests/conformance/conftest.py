"""Fixtures of the conformance tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.helpers import World


@pytest.fixture
def world() -> World:
    """A broker on its defaults."""
    return World()


@pytest.fixture(autouse=True)
def _no_internal_errors() -> Iterator[None]:
    World.all.clear()
    yield
    for each in World.all:
        assert each.broker.stats.internal_errors == each.expected_errors
