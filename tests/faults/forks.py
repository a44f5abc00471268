"""Forks: a broker that is forked from a process that has imported it already, and so starts in a tenth of the time.

What a start of ``python -m tests.faults.crash`` costs is Python's imports, 0.3 s of processor time, and loops of
thousands of kills would do little else.  From then on it is the same: ``twistd`` reads its options, binds its ports,
opens the store.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import IO

from benchmarks.brokers import ROOT
from tests.faults import crash
from tests.faults.processes import Ours

POLL = 0.005
"""Seconds."""

MAX_FILES = 4096

MODULES = ("twisted.scripts.twistd", "twisted.internet.epollreactor", "twisted_p2pmqtt.tap")
"""What a broker imports, and with it nearly all else; none of them makes the reactor."""


class Fork:
    """A child that runs ``function`` with ``output`` for its own; as ``subprocess.Popen`` to those who wait for it."""

    stderr: IO[bytes] | None = None

    def __init__(self, function: Callable[[], object], output: IO[bytes]) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(function, output.fileno())

    @staticmethod
    def _become(function: Callable[[], object], output: int) -> None:
        """Keep nothing of the parent's but its modules."""
        status = 1
        try:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.closerange(3, MAX_FILES)
            signal.set_wakeup_fd(-1)
            function()
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else int(error.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def poll(self) -> int | None:
        """Its exit code, minus the signal that ended it; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.  Raises ``subprocess.TimeoutExpired``."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if deadline is not None and time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("fork", timeout or 0)
            time.sleep(POLL)
        return code

    def send_signal(self, sig: int) -> None:
        """As ``Popen.send_signal``."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Forked(Ours):
    """``twistd p2pmqtt``, forked."""

    def _spawn(
        self, environment: dict[str, str], output: IO[bytes], wrapper: tuple[str, ...], extra: tuple[str, ...]
    ) -> Fork:
        assert not wrapper
        for module in MODULES:
            importlib.import_module(module)
        assert "twisted.internet.reactor" not in sys.modules, "each broker makes its own"
        arguments = self.command()[2:]

        def run() -> None:
            os.chdir(ROOT)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = [*arguments, *extra]
            crash.main()

        return Fork(run, output)
