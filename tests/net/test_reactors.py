"""The whole broker under each of Twisted's reactors, in a process each: see exchange.py for what it does."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.net.certificates import Pki

ROOT = Path(__file__).parents[2]
REACTORS = {"epoll": hasattr(select, "epoll"), "poll": hasattr(select, "poll"), "select": True, "asyncio": True}


@pytest.mark.parametrize("reactor", REACTORS)
def test_every_kind_of_connection_under(reactor: str, pki: Pki) -> None:
    if not REACTORS[reactor]:
        pytest.skip("not on this platform")
    command = [sys.executable, "-W", "error", "-m", "tests.net.exchange", reactor, str(pki.directory)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
