"""A full disk; ``python -m tests.faults --disk-full`` is the long version."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.probes import NotAvailable
from tests.faults.disk import FullDisk, small_disk
from tests.faults.processes import Ours

pytestmark = pytest.mark.slow

MESSAGES = 1500


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    try:
        with small_disk(tmp_path) as disk:
            yield disk
    except NotAvailable as error:
        pytest.skip(str(error))


def test_no_false_acknowledgement(tmp_path: Path, disk: Path) -> None:
    account = asyncio.run(FullDisk(Ours(tmp_path, store=disk), disk).run(MESSAGES))
    assert account.is_clean, (account.row(), account.notes)
    assert account.acknowledged
