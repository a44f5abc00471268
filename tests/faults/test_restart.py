"""A restart in small; ``python -m tests.faults --restart`` is the long version."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults import __main__ as command
from tests.faults import restart as restarts
from tests.faults.newcomers import Arrival
from tests.faults.restart import MAX_BYTES, MAX_START, restart


@pytest.mark.slow
def test_sessions_and_queues_are_there_soon(tmp_path: Path) -> None:
    result = asyncio.run(restart(tmp_path, sessions=5000, messages=2000, created=1000))
    assert result.delivered == result.messages
    assert result.start < MAX_START
    assert result.arrival.bytes_each < MAX_BYTES


def test_a_store_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    store.write_text("Dear broker, this is not yours.\n" * 100)
    with pytest.raises(RuntimeError, match=r"could not read .*store\.db:\n(.*\n)*.*StoreDamaged"):
        restarts._embedded(store, "on")


def test_a_broker_that_hangs_while_it_reads_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(restarts, "PROBE_TIMEOUT", 0.01)
    with pytest.raises(RuntimeError, match="it had not read"):
        restarts._embedded(tmp_path / "store.db", "on")


@pytest.mark.parametrize("broker", ["ours", "mosquitto", "all"])
def test_only_what_was_asked_for_is_measured(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    class Measured:
        is_clean = False

    class Absent:
        def __init__(self, directory: Path, settings: str) -> None:
            made.append(settings)

    async def measure(*arguments: Any) -> Measured:
        made.append("ours")
        return Measured()

    async def create(*arguments: Any) -> Arrival:
        return Arrival("it", 1, 1.0, 1.0)

    monkeypatch.setattr(command, "restart", measure)
    monkeypatch.setattr(command, "create", create)
    monkeypatch.setattr(command, "Mosquitto", Absent)
    monkeypatch.setattr(command, "Ours", None)  # ``restart`` makes its own
    monkeypatch.setattr(sys, "argv", ["faults", "--restart", "--broker", broker, "--durability", "full"])
    code = command.main()
    ours, others = ["ours"] * (broker != "mosquitto"), ["default", "safest"] * (broker != "ours")
    assert made == ours + others
    assert code == len(ours)
