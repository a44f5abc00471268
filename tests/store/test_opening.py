"""Opening a store: what is made, what is refused and how that is told, and what ``--recover`` saves."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.store.lives import Life
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.records import StoreError
from twisted_p2pmqtt.store import database, mark
from twisted_p2pmqtt.store.database import APPLICATION_ID, Database, StoreDamaged
from twisted_p2pmqtt.store.schema_steps import schema_steps


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def populated(path: Path, sessions: int = 3, messages: int = 20, clock: Clock | None = None) -> Life:
    """A broker with something in every table."""
    life = Life(path, clock)
    for number in range(sessions):
        client = life.connected(f"client{number}", expiry=100_000)
        client.subscribe(f"t{number}", "all")
        client.lose()
    for number in range(messages):
        life.broker.publish("all", b"%05d" % number * 20, 1)
        life.broker.publish(f"p2p/client{number % sessions}/t", b"%05d" % number * 20, 2)
        life.broker.publish(
            f"r{number}", b"%05d" % number * 20, 0, retain=True, properties=Properties(content_type="c")
        )
    life.broker.flush()
    return life


def contents(life: Life) -> Any:
    """Everything that a client could notice."""
    return (
        {
            session.client_id: (
                sorted(session.subscriptions),
                [(d.message.topic, d.message.payload, d.qos) for d in session.pending or ()],
                session.expiry_interval,
            )
            for session in life.broker.sessions.values()
        },
        {topic: life.broker.retained.get(topic, 0.0).payload for topic in life.broker.retained.matching("#")},  # type: ignore[union-attr]  # it is there
    )


def refusal(path: Path) -> str:
    """What is told when a broker cannot start on this file; one line."""
    has_log = os.path.exists(f"{path}-wal")
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreError) as caught:
        Life(path)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert text.startswith(f"store {path}: ")
    if before is not None and not has_log:  # with one, closing has written it back
        assert path.read_bytes() == before
    return text


def test_the_files_are_ours_alone(path: Path) -> None:
    umask = os.umask(0)
    try:
        life = populated(path)
    finally:
        os.umask(umask)
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-mark": 0o600}
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        sqlite3.connect(path, timeout=0).execute("SELECT * FROM session")
    life.stop()
    assert [entry.name for entry in path.parent.iterdir()] == ["store.db"]


@pytest.mark.parametrize(("durability", "synchronous"), [("commit", 1), ("full", 2)])
def test_durability(path: Path, durability: str, synchronous: int) -> None:
    life = Life(path, durability=durability)
    assert life.database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert life.database.execute("PRAGMA synchronous").fetchone() == (synchronous,)
    life.stop()


def test_in_use(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCK_TIMEOUT", 0.01)
    life = populated(path)
    with pytest.raises(StoreError, match="in use by another process") as caught:
        Life(path)
    assert not isinstance(caught.value, StoreDamaged)
    with pytest.raises(StoreError, match="in use by another process"):
        Life(path, recover=True)
    life.stop()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match="in use by another process"):
        Life(path)
    other.close()
    assert len(Life(path).broker.sessions) == 3


def test_no_directory(tmp_path: Path) -> None:
    assert "there is no directory" in refusal(tmp_path / "missing" / "store.db")


def test_a_directory_in_its_place(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreError, match="Is a directory"):
        Life(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written(path: Path) -> None:
    populated(path).stop()
    path.parent.chmod(0o500)
    try:
        assert "cannot be written" in refusal(path)
        assert "Permission denied" in refusal(path.with_name("new.db"))
    finally:
        path.parent.chmod(0o700)


@pytest.mark.parametrize("error", ["unable to open database file", "attempt to write a readonly database"])
def test_whatever_cannot_be_written(path: Path, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    populated(path).stop()

    def connect(self: Database) -> None:
        raise sqlite3.OperationalError(error)

    monkeypatch.setattr(Database, "_connect", connect)
    assert f"cannot be written ({error})" in refusal(path)


@pytest.mark.parametrize(("may_write", "told"), [(True, "it is damaged"), (False, "cannot be written")])
def test_an_input_or_output_error(path: Path, may_write: bool, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is also what SQLite says of a log on a read-only file system, where there is nothing to recover."""
    populated(path).stop()

    def connect(self: Database) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(Database, "_connect", connect)
    monkeypatch.setattr(os, "access", lambda name, mode: may_write)
    assert f"{told} (disk I/O error)" in refusal(path)


def spoil_header(path: Path) -> None:
    path.write_bytes(b"x" + path.read_bytes()[1:])


def make_foreign(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE session (id INTEGER PRIMARY KEY)")
    connection.commit()
    connection.close()


def make_newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=77")
    connection.close()


def add_table(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE more (x)")
    connection.close()


def drop_row(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DELETE FROM session WHERE id = (SELECT min(id) FROM session)")
    connection.commit()
    connection.close()


def change_payload(path: Path) -> None:
    data = path.read_bytes()
    assert b"00007000070000700007" in data
    path.write_bytes(data.replace(b"00007000070000700007", b"00007000070000800007"))


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "the file is empty"),
    "text": (lambda path: path.write_bytes(b"sessions = 3\n" * 1000), "it is no SQLite database"),
    "header": (spoil_header, "it is no SQLite database"),
    "foreign": (make_foreign, "it is the database of another program"),
    "newer": (make_newer, "it is of version 77, and this program knows versions 1 to"),
    "tables": (add_table, "its tables are not those of a store"),
    "half": (lambda path: os.truncate(path, path.stat().st_size // 2), "it is damaged"),
    "page": (lambda path: os.truncate(path, path.stat().st_size - 4096), "it is damaged"),
    "session": (drop_row, "it is damaged (a row of a session that is not there)"),
    "payload": (change_payload, "it is damaged (its checksum is wrong)"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged(path: Path, name: str) -> None:
    """Refused, and left as it is; --recover starts with a new one, and keeps the old."""
    damage, text = DAMAGES[name]
    populated(path).stop()
    damage(path)
    told = refusal(path)
    assert text in told
    assert told.endswith("; --recover sets it aside and keeps what is readable")
    damaged = path.read_bytes()
    life = Life(path, recover=True)
    (aside,) = path.parent.glob("store.db.damaged-*Z")
    assert aside.read_bytes() == damaged
    life.broker.publish("all", b"goes on", 1)
    life.killed()


def test_what_recovery_keeps(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    life = populated(path)
    before = contents(life)
    life.stop()
    change_payload(path)
    sessions, retained = contents(Life(path, recover=True))
    assert sessions.keys() == before[0].keys()
    lost = 0
    for client_id, (subscriptions, pending, interval) in before[0].items():
        assert sessions[client_id][0] == subscriptions
        assert sessions[client_id][2] == interval
        assert [one for one in pending if one in sessions[client_id][1]] == sessions[client_id][1]
        lost += len(pending) - len(sessions[client_id][1])
    assert 0 < lost + len(before[1]) - len(retained) <= 5, "only what held the changed bytes"


def test_recovery_of_a_sound_store_changes_nothing(path: Path) -> None:
    life = populated(path)
    before = contents(life)
    life.stop()
    assert contents(Life(path, recover=True)) == before
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["store.db", "store.db-mark", "store.db-wal"]


def test_recovery_reads_the_log_too(path: Path) -> None:
    life = populated(path)
    before = contents(life)
    left = life.left_behind()
    with open(left, "r+b") as file:  # what the log has of this page counts
        file.seek(100)
        file.write(b"\xff" * 200)
    assert contents(Life(left, recover=True)) == before


def test_pages_in_the_middle_that_cannot_be_read(path: Path) -> None:
    life = populated(path, messages=500)
    before = contents(life)
    life.stop()
    size = path.stat().st_size
    with open(path, "r+b") as file:
        for page in range(4, size // 4096, 9):
            file.seek(page * 4096)
            file.write(b"\xa5" * 4096)
    with pytest.raises(StoreDamaged):
        Life(path)
    sessions, retained = contents(Life(path, recover=True))
    kept = sum(len(pending) for _, pending, _ in sessions.values())
    total = sum(len(pending) for _, pending, _ in before[0].values())
    assert total / 2 < kept < total
    for client_id, (_, pending, _) in sessions.items():
        assert [one for one in before[0][client_id][1] if one in pending] == pending, "nothing made up, order kept"
    assert retained.items() <= before[1].items()


# --- the log and the mark --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 0.3, 0.7, 0.95])
def test_a_log_that_was_cut(path: Path, keep: float) -> None:
    left = populated(path).left_behind()
    log = Path(f"{left}-wal")
    os.truncate(log, int(log.stat().st_size * keep))
    assert re.search(r"the last \d+ commits are missing", refusal(left))


def test_a_log_that_is_missing(path: Path) -> None:
    life = populated(path)
    left = life.left_behind()
    os.unlink(f"{left}-wal")
    with pytest.raises(StoreError, match=r"commits are missing|damaged"):
        Life(left)
    Life(left, recover=True)


def test_a_database_that_is_missing(path: Path) -> None:
    left = populated(path).left_behind()
    left.unlink()
    assert "the file is missing, but" in refusal(left)
    assert Life(left, recover=True).broker.list_sessions() == []


def test_commits_lost_by_a_power_failure(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``commit`` the log may end early after one; with ``full`` that would be damage."""
    left = populated(path).left_behind()
    log = Path(f"{left}-wal")
    frame = 24 + 4096
    os.truncate(log, 32 + (log.stat().st_size - 32) // frame // 2 * frame)
    monkeypatch.setattr(mark, "boot_id", lambda: b"another start....")
    with pytest.raises(StoreError, match="commits are missing"):
        Life(left, durability="full")
    assert Life(left).broker.sessions


@pytest.mark.parametrize("spoilt", [b"", b"\0" * 36])
def test_a_mark_that_never_reached_the_disk(path: Path, spoilt: bytes) -> None:
    left = populated(path).left_behind()
    Path(f"{left}-mark").write_bytes(spoilt)
    assert len(Life(left).broker.sessions) == 3


def test_a_damaged_mark(path: Path) -> None:
    left = populated(path).left_behind()
    beside = Path(f"{left}-mark")
    beside.write_bytes(beside.read_bytes()[:-1])
    assert "mark" in refusal(left)


def test_a_mark_behind_the_database(path: Path) -> None:
    """Killed between the commit and the mark."""
    life = populated(path)
    before = Path(f"{path}-mark").read_bytes()
    life.broker.publish("all", b"more", 1)
    life.broker.flush()
    left = life.left_behind()
    assert Path(f"{left}-mark").read_bytes() != before
    Path(f"{left}-mark").write_bytes(before)
    assert Life(left).broker.sessions


def test_without_a_boot_id(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    def no_file(*arguments: Any) -> Any:
        raise FileNotFoundError

    monkeypatch.setattr(mark, "open", no_file, raising=False)
    assert mark.boot_id() == bytes(16)


# --- versions --------------------------------------------------------------------------------------------------------

MORE = "ALTER TABLE session ADD COLUMN note TEXT;"
MOST = "CREATE TABLE more (id INTEGER PRIMARY KEY, x BLOB); INSERT INTO more (x) SELECT client_id FROM session;"


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets the scripts that come after version 1."""

    def set_versions(*more: str) -> None:
        steps = (*schema_steps(), *more)
        monkeypatch.setattr(database, "schema_steps", lambda: steps)

    return set_versions


def test_a_new_store_is_of_the_newest_version(path: Path, versions: Callable[..., None]) -> None:
    versions(MOST)
    life = Life(path)
    assert life.database.execute("PRAGMA user_version").fetchone() == (2,)
    assert life.database.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    life.stop()


def test_upgrade_over_two_versions(path: Path, versions: Callable[..., None]) -> None:
    life = populated(path)
    left = life.left_behind()  # killed, so that the old version's log is still to be read
    versions(MORE, MOST)
    upgraded = Database(str(left))
    upgraded.open()
    assert upgraded.connection is not None
    assert upgraded.connection.execute("PRAGMA user_version").fetchone() == (3,)
    assert upgraded.connection.execute("SELECT count(*) FROM more").fetchone() == (3,)
    upgraded.close()


def test_an_upgrade_that_fails_changes_nothing(path: Path, versions: Callable[..., None]) -> None:
    populated(path).stop()
    versions(MORE + "INSERT INTO nowhere VALUES (1);")
    with pytest.raises(StoreError, match="cannot be brought to version 2"):
        Life(path)
    versions()
    assert len(Life(path).broker.sessions) == 3


def test_scripts_are_numbered() -> None:
    assert len(schema_steps()) >= 1


def test_an_old_sqlite(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 31, 1))
    with pytest.raises(StoreError, match=r"3\.35 or newer is needed"):
        Life(path)


def test_a_crash_while_the_file_is_made(path: Path) -> None:
    path.with_name("store.db-new").write_bytes(b"half of it")
    assert Life(path).broker.list_sessions() == []


@pytest.mark.skipif(sys.platform == "win32", reason="files in use cannot be copied there")
def test_a_large_store_is_not_checked_to_the_end(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    populated(path, messages=300).stop()
    monkeypatch.setattr(database, "CHECK_TIMEOUT", -1.0)
    monkeypatch.setattr(database, "CHECK_STEPS", 10)
    assert len(Life(path).broker.sessions) == 3
    shutil.rmtree(path.parent, ignore_errors=True)
