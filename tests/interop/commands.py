"""Clients that are commands: run to their end, or in the background with their output line by line."""

from __future__ import annotations

import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.interop.broker import WAIT

QUIET = 0.3
"""Seconds in which nothing may be printed where nothing should."""


def needs(*names: str) -> pytest.MarkDecorator:
    """Skips the tests where one of these commands is not installed."""
    missing = [name for name in names if shutil.which(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def run(*command: str, code: int = 0, stdin: str = "") -> str:
    """Run a command to its end, and give what it prints; fails unless it exits so (a negative code: with any but 0)."""
    done = subprocess.run(
        command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=2 * WAIT, check=False
    )
    is_right = done.returncode != 0 if code < 0 else done.returncode == code
    assert is_right, f"{command} exited with {done.returncode}:\n{done.stdout}"
    return done.stdout


class Background:
    """A command that runs; its output is read by a thread."""

    def __init__(self, *command: str) -> None:
        self.command = command
        self.process = subprocess.Popen(  # into a pipe these clients print by blocks, unless stdbuf tells otherwise
            ["stdbuf", "-oL", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._unread: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self, containing: str = "", timeout: float = WAIT) -> str:
        """The next line that holds this text; those before it can still be asked for."""
        deadline = time.monotonic() + timeout
        for line in self._unread:
            if containing in line:
                self._unread.remove(line)
                return line
        while True:
            try:
                new = self._lines.get(timeout=max(0, deadline - time.monotonic()))
            except queue.Empty:
                new = None
            assert new is not None, f"{self.command} printed no {containing!r}; left: {self._unread}"
            if containing in new:
                return new
            self._unread.append(new)

    def lines(self, count: int, containing: str = "") -> list[str]:
        """So many of them."""
        return [self.line(containing) for _ in range(count)]

    def assert_quiet(self, containing: str = "") -> None:
        """No further line that holds this text, neither now nor soon."""
        time.sleep(QUIET)
        while not self._lines.empty():
            self._unread.append(self._lines.get() or "(it has ended)")
        unexpected = [line for line in self._unread if containing in line]
        assert not unexpected

    def wait(self) -> int:
        """Until it ends by itself; its exit code."""
        return self.process.wait(WAIT)

    def kill(self) -> None:
        """End it without giving it a chance to say goodbye."""
        self.process.kill()
        self.stop()

    def stop(self) -> None:
        """End it by SIGTERM, upon which these clients say goodbye; may be called again."""
        if self.process.poll() is None:
            time.sleep(0.02)  # mosquitto_sub's signal handler can wait for ever for what it was just printing
            self.process.terminate()
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(WAIT)
        self._thread.join(WAIT)
        assert self.process.stdout is not None
        self.process.stdout.close()


Start = Callable[..., Background]


@contextmanager
def backgrounds() -> Iterator[Start]:
    """Gives a function that starts a command in the background; what still runs in the end is killed."""
    with ExitStack() as stack:

        def start(*command: str) -> Background:
            process = Background(*command)
            stack.callback(process.kill)
            return process

        yield start
