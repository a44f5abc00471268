"""A broker for real clients: started as users start it, on a free port, and stopped by its process id.

``running(*options)`` is ``twistd -n --pidfile= p2pmqtt`` with a memory store on the loopback interface.  Whoever uses
it calls ``check_log`` afterwards (the fixtures of ``conftest`` do, behind each test): a traceback in the broker's log
fails the test, however well the client was served.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).absolute().parents[2]
HOST = "127.0.0.1"
START_TIMEOUT, STOP_TIMEOUT = 30.0, 15.0
WAIT = 10.0
"""Seconds that any one thing may take before a test gives up on it."""

P2P_FORMS = {
    "prefix": ["p2p/{client_id}/{topic}"],
    "suffix": ["{topic}/p2p/{client_id}"],
    "both": ["p2p/{client_id}/{topic}", "{topic}/p2p/{client_id}"],
}
"""By mode: the topics that lead to a client."""

P2P_CASES = [(mode, form) for mode, forms in P2P_FORMS.items() for form in forms]


class Broker:
    """A broker that accepts connections on ``port`` of the loopback interface."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.port = port
        self.pid = process.pid
        self.log = log
        self._process = process
        self._seen = 0

    def check_log(self) -> None:
        """Fail if the broker has ended, or has logged a traceback since the last look."""
        text = self.log.read_text(errors="replace")
        new, self._seen = text[self._seen :], len(text)
        assert self._process.poll() is None, f"the broker ended with {self._process.returncode}:\n{new[-4000:]}"
        assert "Traceback" not in new, f"the broker logged a traceback:\n{new[-4000:]}"


@contextlib.contextmanager
def running(directory: Path, *options: str, port: int = 0) -> Iterator[Broker]:
    """Our broker while the block runs; ``options`` are p2pmqtt's, ``directory`` takes its log."""
    port = port or free_port()
    log = directory / f"broker-{port}.log"
    # Not the twistd script, which may be another interpreter's.  The empty first entry that -c puts on sys.path is the
    # checkout, so that the plugin is found whether or not the package is installed.
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "p2pmqtt"]
    command += ["--listen", f"tcp:{port}:interface={HOST}", "--store", "memory", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("P2PMQTT__")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_until_ready(process, port, log)
        yield Broker(process, port, log)
    finally:
        stop(process)


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        number: int = sock.getsockname()[1]
        return number


def wait_until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Until the port accepts connections; fails with what the process had to say if it does not come to that."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        assert process.poll() is None, f"ended with {process.returncode}:\n{log.read_text(errors='replace')}"
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 1):
            return
        assert time.monotonic() < deadline, f"neither listens nor ends:\n{log.read_text(errors='replace')}"
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End one process that we started: politely, then not."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_TIMEOUT)


def unique(name: str = "t") -> str:
    """A client id or topic level that no other test uses: the brokers are shared between tests."""
    return f"{name}-{secrets.token_hex(4)}"


def eventually(condition: Callable[[], object], what: str, timeout: float = WAIT) -> None:
    """Wait until ``condition()`` holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        time.sleep(0.01)
