"""Directories in memory: hundreds of small databases are made here, and none of them needs a disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Instead of pytest's own."""
    with tempfile.TemporaryDirectory(prefix="p2pmqtt-test-", dir=MEMORY) as name:
        yield Path(name)
