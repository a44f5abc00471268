"""A restart in small; ``python -m tests.faults --restart`` is the long version."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.faults.restart import MAX_BYTES, MAX_START, restart


@pytest.mark.slow
def test_sessions_and_queues_are_there_soon(tmp_path: Path) -> None:
    result = asyncio.run(restart(tmp_path, sessions=5000, messages=2000, created=1000))
    assert result.delivered == result.messages
    assert result.start < MAX_START
    assert result.arrival.bytes_each < MAX_BYTES
