"""A hundred ways to damage the files: the broker starts with everything, or says that it cannot; never with a part.

Flipped bytes fall anywhere in the database, its log and its mark; files are cut anywhere, or filled with another's
pages.  After ``--recover`` nothing is there that was not before.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.store.conftest import MEMORY
from tests.store.lives import Life
from tests.store.test_opening import contents, populated
from twisted_p2pmqtt.core.records import StoreError

FLIPPED = 50


@pytest.fixture(scope="module", params=["stopped", "killed", "checkpointed"])
def original(request: pytest.FixtureRequest) -> Iterator[tuple[Path, Any]]:
    """A store, all of it in the database, most of it in the log, or some in either; and its contents."""
    with TemporaryDirectory(prefix="p2pmqtt-test-", dir=MEMORY) as name:
        yield make_original(Path(name), request.param)


def make_original(directory: Path, kind: str, clock: Clock | None = None) -> tuple[Path, Any]:
    life = populated(directory / "store.db", sessions=10, messages=100, clock=clock)
    if kind == "checkpointed":
        life.database.execute("PRAGMA wal_checkpoint").fetchall()
        for number in range(40):
            life.broker.publish("all", b"later %d" % number, 1)
            life.broker.flush()
    before = contents(life)
    if kind == "stopped":
        life.stop()
        return directory / "store.db", before
    return life.left_behind(), before


def copied(original: Path, directory: Path) -> list[Path]:
    copies = []
    for rest in ("", "-wal", "-mark"):
        if Path(f"{original}{rest}").exists():
            shutil.copy(f"{original}{rest}", directory / f"store.db{rest}")
            copies.append(directory / f"store.db{rest}")
    return copies


def flip(files: list[Path], choose: random.Random) -> None:
    sizes = [file.stat().st_size for file in files]
    for file in choose.choices(files, sizes, k=FLIPPED):
        data = bytearray(file.read_bytes())
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
        file.write_bytes(data)


def cut(files: list[Path], choose: random.Random) -> None:
    file = choose.choice(files)
    file.write_bytes(file.read_bytes()[: choose.randrange(file.stat().st_size)])


def mix(files: list[Path], choose: random.Random) -> None:
    """Pages swapped, or overwritten with others: each sound in itself."""
    file = choose.choice(files[:2])
    data = bytearray(file.read_bytes())
    for _ in range(3):
        one, two = (choose.randrange(len(data) // 4096) * 4096 for _ in range(2))
        data[one : one + 4096] = data[two : two + 4096]
    file.write_bytes(data)


@pytest.mark.parametrize("seed", range(35))
def test_never_a_part(original: tuple[Path, Any], tmp_path: Path, seed: int) -> None:
    source, before = original
    choose = random.Random(seed)
    damage = (flip, flip, flip, cut, mix)[seed % 5]
    files = copied(source, tmp_path)
    if source.with_name(source.name + "-wal").exists():
        files.sort(key=lambda file: file.name.endswith("-mark"))
    damage(files, choose)
    path = tmp_path / "store.db"
    refusal = ""
    try:
        life = Life(path)
    except StoreError as error:
        refusal = str(error)
    assert len(refusal.splitlines()) < 2
    if not refusal:
        assert contents(life) == before
        life.store._database.abandon()
    recovered = contents(Life(path, recover=True))
    assert is_part(recovered, before)


def is_part(part: Any, whole: Any) -> bool:
    """Nothing but what was there, in its order."""
    for client_id, (subscriptions, pending, interval) in part[0].items():
        original_subscriptions, original_pending, original_interval = whole[0][client_id]
        if not set(subscriptions) <= set(original_subscriptions) or interval != original_interval:
            return False
        if [one for one in original_pending if one in pending] != pending:
            return False
    return bool(part[1].items() <= whole[1].items())
