"""Brokers as processes of their own, on a directory that stays when they are killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Protocol

from benchmarks.brokers import ROOT, free_port
from benchmarks.probes import NotAvailable
from tests.faults.crash import EPITAPH, VARIABLE

START_TIMEOUT = 30.0
STOP_TIMEOUT = 20.0
"""Seconds that a signal has to end it."""


class Process(Protocol):
    """What ``subprocess.Popen`` can that is needed here."""

    pid: int

    @property
    def stderr(self) -> IO[bytes] | None:
        """What it says, where somebody listens."""

    def poll(self) -> int | None:
        """Its exit code once it has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for that."""

    def send_signal(self, sig: int) -> None:
        """Send it one, unless it has ended."""

    def kill(self) -> None:
        """SIGKILL."""


class BrokerProcess:
    """One broker: ``start``, ``kill``, and again, on one port and one directory.  Its output goes to ``log``.

    ``notes`` tell of each end that neither a signal of ours nor its crash point explains, and of a signal that did not
    end it.
    """

    name = "broker"
    has_p2p = False
    keeps_wills = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.log = directory / "log"
        self.process: Process | None = None
        self.notes: list[str] = []
        self.was_killed = False  # its last life was ended by SIGKILL: ours, or that of its crash point
        self.has_ended_well = True  # its last life was, or was stopped in order
        self._crash_point = ""
        self._signals: list[int] = []  # what this life was sent while it ran
        self._log_start = 0  # bytes of the log that earlier lives have written
        directory.chmod(0o777)  # mosquitto, started by root, becomes a user of its own

    def command(self) -> list[str]:
        """What to run."""
        raise NotImplementedError

    def start(self, crash_at: str = "", wrapper: tuple[str, ...] = (), extra: tuple[str, ...] = ()) -> None:
        """Start it, and end the life before if that has not been; it may not be ready yet."""
        self.kill()
        self._crash_point = crash_at.partition(":")[0]
        self._signals = []
        environment = {key: value for key, value in os.environ.items() if not key.startswith("P2PMQTT_")}
        if crash_at:
            environment[VARIABLE] = crash_at
        with self.log.open("ab") as output:
            self._log_start = output.tell()
            self.process = self._spawn(environment, output, wrapper, extra)

    def _spawn(
        self, environment: dict[str, str], output: IO[bytes], wrapper: tuple[str, ...], extra: tuple[str, ...]
    ) -> Process:
        return subprocess.Popen(
            [*wrapper, *self.command(), *extra],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.PIPE if extra else output,
            start_new_session=bool(wrapper),
        )

    def wait_until_ready(self) -> bool:
        """Wait until it accepts connections; False where it has ended instead."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if not self.is_running:
                return False
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return True
            time.sleep(0.01)
        raise TimeoutError(f"{self.name} was not ready after {START_TIMEOUT:.0f} s")

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def has_crashed(self) -> bool:
        """Has it come to the crash point with which it was started?"""
        if not self._crash_point:
            return False
        return f"{EPITAPH}{self._crash_point}\n" in self._said()

    def exit_code(self) -> int | None:
        """Of the process, which is about to end; None where it does not."""
        assert self.process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(STOP_TIMEOUT)
        return None

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if process.poll() is None:
            self._signals.append(number)
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(number)
        try:
            self._judge(process.wait(STOP_TIMEOUT))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.was_killed = self.has_ended_well = False
            name = signal.Signals(number).name
            self.notes.append(f"{name} had not ended it after {STOP_TIMEOUT:.0f} s:\n{self.last_words()}")
        if process.stderr is not None:
            process.stderr.close()

    def _judge(self, code: int) -> None:
        """Has it ended as it was told?  In order is with 0, or with the signal that it was sent."""
        self.was_killed = code == -signal.SIGKILL and (signal.SIGKILL in self._signals or self.has_crashed)
        self.has_ended_well = self.was_killed or (signal.SIGTERM in self._signals and code in (0, -signal.SIGTERM))
        if not self.has_ended_well:
            self.notes.append(f"it ended with {code}, which nobody had told it:\n{self.last_words()}")

    def last_words(self) -> str:
        """The end of its log, since it was started last."""
        return "\n".join(self._said().splitlines()[-15:])

    def _said(self) -> str:
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")


class Ours(BrokerProcess):
    """``twistd p2pmqtt`` with the SQLite store, in the directory ``store`` if that is given."""

    has_p2p = True
    keeps_wills = True

    def __init__(self, directory: Path, durability: str = "commit", store: Path | None = None) -> None:
        super().__init__(directory)
        self.name = f"ours, {durability}"
        self.store = (store or directory) / "store.db"
        self.config = directory / "p2pmqtt.toml"
        self._pid = directory / "pid"
        self.config.write_text(
            f'[[listener]]\nendpoint = "tcp:{self.port}:interface=127.0.0.1"\nallow_anonymous = true\n'
            f'[store]\ntype = "sqlite"\npath = "{self.store}"\ndurability = "{durability}"\n'
            "[limits]\nmax_queued_messages = 1000000\nmax_queued_bytes = 1000000000\n[p2p]\nmax_queued = 1000000\n"
        )

    def stop_traced(self) -> None:
        """SIGTERM to the broker itself where it runs in a wrapper, which ends with it."""
        if self.process is not None and self._pid.exists():
            self._signals.append(signal.SIGTERM)
            os.kill(int(self._pid.read_text()), signal.SIGTERM)
            try:
                self.process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.notes.append(f"SIGTERM had not ended it after {STOP_TIMEOUT:.0f} s:\n{self.last_words()}")
        self.kill()

    def command(self) -> list[str]:
        self._pid.unlink(missing_ok=True)
        options = ["--nodaemon", f"--pidfile={self._pid}", "p2pmqtt", "--config", str(self.config)]
        return [sys.executable, "-m", "tests.faults.crash", *options]


class Mosquitto(BrokerProcess):
    """As its package sets it up (``default``), or told to save after every change (``safest``)."""

    def __init__(self, directory: Path, settings: str = "default", store: Path | None = None) -> None:
        super().__init__(directory)
        self.name = f"mosquitto, {settings}"
        self.config = directory / "mosquitto.conf"
        executable = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
        if executable is None:
            raise NotAvailable("mosquitto is not installed")
        self.executable = executable
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous true", "log_type error"]
        lines += ["max_queued_messages 0", "max_inflight_messages 0"]
        lines += ["persistence true", f"persistence_location {store or directory}/"]
        if settings == "safest":
            lines += ["autosave_interval 1", "autosave_on_changes true"]
        self.config.write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        return [self.executable, "-c", str(self.config)]
