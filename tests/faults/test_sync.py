"""The order of sync and acknowledgement, in small; ``python -m tests.faults --sync`` is the long version."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.faults.sync import audit

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("strace") is None, reason="not installed: strace")]

MESSAGES, CUTS = 400, 5


def test_full_syncs_before_it_acknowledges(tmp_path: Path) -> None:
    result = audit(tmp_path, "full", MESSAGES, CUTS)
    assert result.is_clean, str(result)


def test_commit_does_not_and_that_is_seen(tmp_path: Path) -> None:
    result = audit(tmp_path, "commit", MESSAGES, CUTS)
    assert not result.is_clean
    assert result.in_order == result.survived == 0
    assert result.power_cuts == CUTS
