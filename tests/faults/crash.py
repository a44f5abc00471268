"""Crash points: places at which a broker kills itself, so that no one has to be lucky to hit them.

    P2PMQTT_CRASH_AT=commit.before:3 python -m tests.faults.crash --nodaemon p2pmqtt ...

runs ``twistd`` with the function that the point names wrapped: SIGKILL before (or after) its third call.  The broker's
own code knows nothing of it.
"""

from __future__ import annotations

import importlib
import os
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

VARIABLE = "P2PMQTT_CRASH_AT"

PLACES = {
    # in the reactor's thread
    "publish": "core.publishing:Publishing.publish",
    "release": "core.publishing:Publishing.release",
    "queue": "core.session:Session._queue",
    "send": "core.session:Session._send",
    "puback": "core.session:Session.puback",
    "pubrec": "core.session:Session.pubrec",
    "pubcomp": "core.session:Session.pubcomp",
    "resume": "core.session:Session.resume",
    "open": "core.registry:SessionRegistry.open",
    "leave": "core.registry:SessionRegistry.leave",
    "end": "core.registry:SessionRegistry.end",
    "will": "core.wills:PendingWill.publish",
    "hold": "core.commits:Commits.hold",
    "start": "core.commits:Commits.start",
    "acknowledge": "core.commits:Commits._release",
    "answer": "core.connection:Connection.put_all",
    "flush": "core.broker:Broker.flush",
    "hand_over": "store.sqlite:SQLiteStore._hand_over",
    "finished": "store.sqlite:SQLiteStore._finished",
    "retain": "store.sqlite:SQLiteStore.retain",
    # in the writer's
    "write": "store.database:Database.write",
    "execute": "store.database:Database.execute",
    "mark": "store.mark:Mark.write",
    # at a start
    "database": "store.database:Database.open",
    "check": "store.database:Database._check",
    "compare": "store.database:Database._compare_mark",
    "records": "core.restore:Restorer.receive",
    "restored": "core.restore:Restorer.finish",
    # at an orderly stop
    "close": "store.database:Database.close",
    "unmark": "store.mark:Mark.remove",
}

AT_START = ("database", "check", "compare", "records", "restored")
AT_STOP = ("close", "checkpoint", "unmark")

STATEMENTS = {
    "begin": "BEGIN",
    "insert": "INSERT OR REPLACE INTO delivery",
    "message": "INSERT OR REPLACE INTO message",
    "session": "INSERT OR REPLACE INTO session",
    "subscription": "INSERT OR REPLACE INTO subscription",
    "received": "INSERT OR REPLACE INTO received",
    "retained": "INSERT OR REPLACE INTO retained",
    "delete": "DELETE FROM delivery",
    "free": "DELETE FROM message",
    "drop": "DELETE FROM session",
    "unsubscribe": "DELETE FROM subscription",
    "forget": "DELETE FROM received",
    "unretain": "DELETE FROM retained",
    "state": "UPDATE delivery",
    "count": "UPDATE meta",
    "commit": "COMMIT",
    "checkpoint": "PRAGMA wal_checkpoint",
}
"""Statements of a transaction, and the one at a stop, by how they begin."""

POINTS = tuple(f"{name}.{when}" for name in (*PLACES, *STATEMENTS) for when in ("before", "after"))

CRUCIAL = (
    "hand_over.after",
    "write.before",
    "begin.after",
    "insert.after",
    "received.after",
    "state.after",
    "forget.after",
    "delete.after",
    "commit.before",
    "commit.after",
    "mark.before",
    "finished.before",
    "acknowledge.before",
    "answer.after",
    "flush.before",
)
"""Points between a promise and its commit, and between the commit and its acknowledgement."""

HESITATION = 0.02
"""Seconds."""

EPITAPH = "killed itself at "


class Crash:
    """SIGKILL at one call of whatever is wrapped; ``place`` is ``name.when``."""

    def __init__(self, place: str, count: int) -> None:
        self._place = place
        self._left = count

    def wrap(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with the crash before or after it."""
        when = self._place.partition(".")[2]

        def wrapper(*arguments: Any, **more: Any) -> Any:
            self._left -= 1
            is_the_one = self._left == 0  # now: the function may call itself
            if is_the_one and when == "before":
                self._die()
            result = function(*arguments, **more)
            if is_the_one:
                self._die()
            return result

        return wrapper

    def _die(self) -> None:
        """As by ``kill -9``, with a last line in the log that tells it from one.  In the writer's thread a moment
        later, so that an acknowledgement that does not wait for its commit has the time to leave."""
        if threading.current_thread() is not threading.main_thread():
            time.sleep(HESITATION)
        os.write(2, f"{EPITAPH}{self._place}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def install(point: str) -> None:
    """Prepare the crash at ``name.when:count``."""
    place, _, count = point.partition(":")
    crash = Crash(place, int(count or 1))
    name = place.partition(".")[0]
    if name in STATEMENTS:
        _install_statement(STATEMENTS[name], crash)
        return
    module_name, _, path = PLACES[name].partition(":")
    owner_name, _, attribute = path.partition(".")
    owner = getattr(importlib.import_module(f"twisted_p2pmqtt.{module_name}"), owner_name)
    setattr(owner, attribute, crash.wrap(getattr(owner, attribute)))


def _install_statement(start: str, crash: Crash) -> None:
    class CrashingConnection(sqlite3.Connection):
        def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
            if not sql.startswith(start):
                return super().execute(sql, *parameters)
            cursor: sqlite3.Cursor = crash.wrap(super().execute)(sql, *parameters)
            return cursor

    connect = sqlite3.connect

    def connecting(*arguments: Any, **more: Any) -> sqlite3.Connection:
        return connect(*arguments, factory=CrashingConnection, **more)

    sqlite3.connect = connecting  # type: ignore[assignment]  # the fault


def main() -> None:
    """``twistd`` with the crash point that the environment names, if any."""
    from twisted.scripts.twistd import run

    point = os.environ.get(VARIABLE)
    if point:
        install(point)
    sys.argv[0] = "twistd"
    run()


if __name__ == "__main__":
    main()
