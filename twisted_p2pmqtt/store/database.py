"""Database: the SQLite file: opened, checked, written a batch at a time, closed.  Blocks; for one thread at a time.

The file is ours alone while it is open (``locking_mode=EXCLUSIVE``): two brokers on one file would spoil each other's
queues, and without the shared-memory index of a shared one SQLite opens it on a full disk, too.  ``synchronous=NORMAL``
survives a killed process, ``FULL`` syncs the log before each commit returns.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from time import monotonic
from typing import Any

from twisted.logger import Logger

from twisted_p2pmqtt.core.records import StoreError
from twisted_p2pmqtt.store.batch import Batch
from twisted_p2pmqtt.store.mark import Mark, MarkDamaged
from twisted_p2pmqtt.store.reading import read_everything
from twisted_p2pmqtt.store.rows import Damaged
from twisted_p2pmqtt.store.schema_steps import schema_steps
from twisted_p2pmqtt.store.statements import Holders, Statement, statements_of

APPLICATION_ID = 0x7032704D
"""Stands in the file's header: "p2pM"."""

MINIMUM_SQLITE = (3, 35, 0)

LOCK_TIMEOUT = 5.0
"""Seconds to wait for another process to close the file: a broker that is being restarted."""

CHECK_TIMEOUT = 10.0
"""Seconds that the check of the file's structure may take; the rows' checksums are compared in any case."""

CHECK_STEPS = 100_000
"""Of SQLite's virtual machine, between two looks at the clock."""

PAGE = 4096

CHECKPOINT_PAGES = 4000
"""Pages in the log at which it is written back, 16 MiB; a queue's rows are mostly gone again by then."""

MAX_REASON = 150
"""Characters of what is wrong that are told; SQLite may quote what it read."""

READING_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What a damaged file may raise: the module sqlite3 decodes what SQLite says of it."""

_MAGIC = b"SQLite format 3\0"
_log = Logger()


class StoreDamaged(StoreError):
    """The file is damaged, foreign, or of a newer version: what ``--recover`` is for."""


class Database:
    """The file at ``path``, and its mark.  ``durability`` is ``commit`` or ``full``."""

    def __init__(self, path: str, durability: str = "commit") -> None:
        self.path = os.path.abspath(path)
        self._synchronous = {"commit": "NORMAL", "full": "FULL"}[durability]
        self._mark = Mark(self.path)
        self._holders = Holders()
        self._commits = 0
        self._prepared: tuple[Batch, list[Statement]] | None = None
        self.connection: sqlite3.Connection | None = None

    # --- opening -------------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the file, made now if there is none, and check it.  Raises ``StoreError``."""
        if sqlite3.sqlite_version_info < MINIMUM_SQLITE:
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed")
        directory = os.path.dirname(self.path)
        if not os.path.isdir(directory):
            raise StoreError(f"store {self.path}: there is no directory {directory}")
        try:
            if self._is_new():
                self._create()
            self._connect()
        except READING_ERRORS as error:
            self.abandon()
            raise self._explained(error) from error
        except OSError as error:
            self.abandon()
            raise StoreError(f"store {self.path}: {error.strerror}") from error
        except StoreError:
            self.abandon()
            raise

    def damaged(self, what: str) -> StoreDamaged:
        """The error that says so, and what to do; in one line."""
        what = " ".join(ascii(what)[1:-1].replace("\\n", " ").split())
        if len(what) > MAX_REASON:
            what = what[:MAX_REASON] + "..."
        return StoreDamaged(f"store {self.path}: {what}; --recover sets it aside and keeps what is readable")

    def _explained(self, error: Exception) -> StoreError:
        text = str(error)
        if "locked" in text:
            return StoreError(f"store {self.path}: it is in use by another process")
        is_refused = "unable to open" in text or "readonly" in text
        if isinstance(error, sqlite3.OperationalError) and (is_refused or not self._is_writable()):
            return StoreError(f"store {self.path}: cannot be written ({text})")
        if isinstance(error, sqlite3.OperationalError) and "full" in text:
            return StoreError(f"store {self.path}: {text}")
        return self.damaged(f"it is damaged ({text})")

    def _is_writable(self) -> bool:
        """What SQLite says of a read-only file system may be "disk I/O error"."""
        return os.access(self.path, os.W_OK) and os.access(os.path.dirname(self.path), os.W_OK)

    def _is_new(self) -> bool:
        """Is there no file yet?  Raises ``StoreDamaged`` for one that can be no store of ours."""
        try:
            with open(self.path, "rb") as file:
                head = file.read(len(_MAGIC))
        except FileNotFoundError:
            for rest in (self.path + "-wal", self._mark.path):
                if os.path.exists(rest):
                    raise self.damaged(f"the file is missing, but {rest} is there") from None
            return True
        if not head:
            raise self.damaged("the file is empty")
        if head != _MAGIC:
            raise self.damaged("it is no SQLite database")
        return False

    def _create(self) -> None:
        """Make it aside and move it here, so that there is a whole file or none."""
        made = self.path + "-new"
        for name in (made, made + "-journal"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
        make_database(made)
        os.rename(made, self.path)

    def _connect(self) -> None:
        connection = self.connection = sqlite3.connect(
            self.path, timeout=LOCK_TIMEOUT, isolation_level=None, check_same_thread=False, cached_statements=600
        )
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        self._identify(connection)
        mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
        if mode != "wal":
            raise StoreError(f"store {self.path}: its file system cannot hold a write-ahead log")
        connection.execute(f"PRAGMA synchronous={self._synchronous}")
        connection.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        connection.execute("PRAGMA cache_size=-16000")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA secure_delete=OFF")
        connection.execute("BEGIN IMMEDIATE")  # takes the lock, and fails where nothing can be written
        connection.execute("ROLLBACK")
        self._upgrade(connection)
        self._check(connection)
        self._compare_mark(connection)

    def _identify(self, connection: sqlite3.Connection) -> None:
        (identity,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if identity != APPLICATION_ID:
            raise self.damaged("it is the database of another program")
        known = len(schema_steps())
        if not 0 < version <= known:
            raise self.damaged(f"it is of version {version}, and this program knows versions 1 to {known}")

    def _upgrade(self, connection: sqlite3.Connection) -> None:
        """Bring an older schema up to date, one version a transaction."""
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        for number, step in enumerate(schema_steps()[version:], version + 1):
            _log.info("upgrading {path} to version {number}", path=self.path, number=number)
            try:
                connection.executescript(f"BEGIN IMMEDIATE;{step}PRAGMA user_version={number};COMMIT;")
            except sqlite3.Error as error:
                self._roll_back()
                raise StoreError(f"store {self.path}: cannot be brought to version {number}: {error}") from error

    def _check(self, connection: sqlite3.Connection) -> None:
        if schema_of(connection) != schema_of(pattern()):
            raise self.damaged("its tables are not those of a store")
        deadline = monotonic() + CHECK_TIMEOUT
        connection.set_progress_handler(lambda: int(monotonic() > deadline), CHECK_STEPS)
        try:
            (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError as error:
            if "interrupted" not in str(error):
                raise
            _log.warn("{path} is large: its structure was not checked to the end", path=self.path)
            return
        finally:
            connection.set_progress_handler(None, 0)
        if found != "ok":
            raise self.damaged(f"it is damaged ({found})")

    def _compare_mark(self, connection: sqlite3.Connection) -> None:
        row = connection.execute("SELECT commits FROM meta WHERE id = 0").fetchone()
        if row is None or not isinstance(row[0], int):
            raise self.damaged("it is damaged (no count of commits)")
        self._commits = row[0]
        try:
            mark = self._mark.read()
        except MarkDamaged as error:
            raise self.damaged(f"its mark, {error}") from None
        if mark is not None and mark[0] > self._commits:
            missing = mark[0] - self._commits
            if mark[1] or self._synchronous == "FULL":
                raise self.damaged(f"the last {missing} commits are missing from it or its log")
            _log.critical(
                "{path} lacks its last {missing} commits: the machine went down, and durability is 'commit'",
                path=self.path,
                missing=missing,
            )
        with contextlib.suppress(OSError):  # on a full disk
            self._mark.write(self._commits)

    # --- use -----------------------------------------------------------------------------------------------------

    def read(self) -> Iterator[list[Any]]:
        """Every record, in lists as ``IStore.restore`` gives them.  Raises ``StoreDamaged``."""
        assert self.connection is not None
        self._holders = Holders()
        try:
            yield from read_everything(self.connection, self._holders)
        except (*READING_ERRORS, Damaged) as error:
            raise self.damaged(f"it is damaged ({error})") from error

    def next_key(self) -> int:
        """The smallest number that is larger than the key of any session, delivery or message."""
        assert self.connection is not None
        tables = ("session", "delivery", "message")
        columns = ", ".join(f"(SELECT max(id) FROM {name})" for name in tables)
        return 1 + max(key or 0 for key in self.connection.execute(f"SELECT {columns}").fetchone())

    def write(self, batch: Batch) -> None:
        """One transaction; raises ``sqlite3.Error``, and then nothing of it is there.  May be tried again."""
        assert self.connection is not None
        if self._prepared is None or self._prepared[0] is not batch:
            self._prepared = batch, statements_of(batch, self._holders)
        self.execute(self._prepared[1])
        self._prepared = None

    def execute(self, statements: list[Statement]) -> None:
        """Run the statements in one transaction, and count it."""
        connection = self.connection
        assert connection is not None
        commits = self._commits + 1
        try:
            connection.execute("BEGIN IMMEDIATE")
            for sql, parameters in statements:
                connection.execute(sql, parameters)
            connection.execute("UPDATE meta SET commits = ? WHERE id = 0", (commits,))
            connection.execute("COMMIT")
        except sqlite3.Error:
            self._roll_back()
            raise
        self._commits = commits
        with contextlib.suppress(OSError):  # it is committed all the same
            self._mark.write(commits)

    def _roll_back(self) -> None:
        assert self.connection is not None
        with contextlib.suppress(sqlite3.Error):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")

    # --- the end -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Write the log back and close; what was committed is safe even where that fails."""
        connection, self.connection = self.connection, None
        if connection is None:
            return
        is_whole = True
        try:
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            is_whole = not busy
        except sqlite3.Error:
            is_whole = False
        connection.close()
        if is_whole:
            self._mark.remove()
        else:
            self._mark.close()

    def abandon(self) -> None:
        """Close it as it is."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()
        self._mark.close()


def make_database(path: str) -> None:
    """A new store without anything in it, for its owner's eyes only."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    os.chmod(path, 0o600)  # whatever the umask
    steps = schema_steps()
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA page_size={PAGE}")
        connection.execute("PRAGMA synchronous=FULL")
        connection.executescript(
            f"BEGIN; PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={len(steps)};"
            + "".join(steps)
            + "COMMIT;"
        )
    finally:
        connection.close()


def pattern() -> sqlite3.Connection:
    """A database with the tables as they should be."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript("".join(schema_steps()))
    return connection


def schema_of(connection: sqlite3.Connection) -> list[Any]:
    """What it says its tables are."""
    return connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name").fetchall()
