"""A few damaged stores; ``python -m tests.faults --corrupt 100`` is the long version."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.probes import NotAvailable
from tests.faults.corrupt import damage_stores

pytestmark = pytest.mark.slow

SEEDS = 6


def test_whole_or_refused() -> None:
    try:
        result = asyncio.run(damage_stores(SEEDS, lambda text: None))
    except NotAvailable as error:  # the stores are on a file system that can be made read-only
        pytest.skip(str(error))
    assert result.is_clean, (str(result), result.notes)
    assert result.recovered
    assert result.messages_recovered
