"""That the harness tells of a broker that hangs, ends by itself, or throws its clients out."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from socket import create_server
from typing import Any

import pytest

from tests.faults import peer, processes
from tests.faults.kills import KillLoop
from tests.faults.lives import Lives, Over, Result
from tests.faults.peer import Gone, Peer
from tests.faults.processes import BrokerProcess, Ours

HANG = "import time; time.sleep(600)"
LEAVE = "import sys; sys.exit(3)"
LEAVE_AT_WORK = """\
import os, threading
from tests.faults.crash import main
threading.Timer(2, os._exit, (3,)).start()
main()
"""
LISTEN = "import socket, time; server = socket.create_server(('127.0.0.1', {port})); time.sleep(600)"
BE_DEAF = """\
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""


class Faulty(Ours):
    """From its so manieth start on another program than it should be."""

    def __init__(self, directory: Path, program: str, first: int) -> None:
        super().__init__(directory)
        self._program = program.format(port=self.port) if "{port}" in program else program
        self._good_starts = first - 1
        self._hangs = program in (HANG, LISTEN)

    def command(self) -> list[str]:
        command = super().command()
        if self._good_starts:
            self._good_starts -= 1
            return command
        if self._hangs:
            processes.START_TIMEOUT = peer.TIMEOUT = 0.5
        return [sys.executable, "-c", self._program, *command[3:]]


class Script(BrokerProcess):
    """A program that is no broker at all."""

    program = BE_DEAF

    def command(self) -> list[str]:
        return [sys.executable, "-c", self.program]


@pytest.fixture(autouse=True)
def _timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they were, whatever a broker does to them."""
    monkeypatch.setattr(processes, "START_TIMEOUT", processes.START_TIMEOUT)
    monkeypatch.setattr(processes, "STOP_TIMEOUT", processes.STOP_TIMEOUT)
    monkeypatch.setattr(peer, "TIMEOUT", peer.TIMEOUT)


def lived(lives: Lives, life: Callable[[], Coroutine[Any, Any, None]]) -> list[str]:
    """The notes after this; the broker is ended."""
    try:
        asyncio.run(life())
    finally:
        lives.broker.kill()
    return lives.result.notes


def killed(broker: Ours, kills: int = 10) -> Result:
    """What a loop without crash points finds."""
    result = asyncio.run(KillLoop(broker, seed=1, longest=0.3).run(kills, (), lambda text: None))
    assert not broker.is_running
    return result


@pytest.mark.parametrize("program", [HANG, LISTEN])
def test_a_broker_that_hangs_at_a_restart(tmp_path: Path, program: str) -> None:
    result = killed(Faulty(tmp_path, program, first=2))
    assert result.kills == 1
    assert not result.is_clean
    assert any(note.startswith("after 1 kills, at a start: waited in vain") for note in result.notes), result.notes
    assert "killed 1 times, not 10" in result.notes


def test_a_broker_that_hangs_at_its_first_start(tmp_path: Path) -> None:
    result = killed(Faulty(tmp_path, HANG, first=1))
    assert result.kills == 0
    assert any("at a start: waited in vain" in note for note in result.notes), result.notes


def test_a_start_that_fails(tmp_path: Path) -> None:
    result = killed(Faulty(tmp_path, LEAVE, first=2))
    assert result.kills == 1
    assert any(note.startswith("it ended with 3, which nobody had told it") for note in result.notes), result.notes


def test_a_start_to_a_crash_point_that_fails_is_no_kill(tmp_path: Path) -> None:
    async def start() -> None:
        await lives.begin()
        with pytest.raises(Over):
            await lives.start_to_crash("commit.before", 1)

    lives = Lives(Faulty(tmp_path, LEAVE, first=2), seed=1)
    (note,) = lived(lives, start)
    assert lives.result.kills == 0
    assert not lives.died_at("commit.before")
    assert note.startswith("it ended with 3, which nobody had told it")


def test_an_end_at_work_that_nobody_caused_is_no_kill(tmp_path: Path) -> None:
    async def live() -> None:
        await lives.begin()
        await lives.live(30)

    async def end() -> None:
        with pytest.raises(Over):
            await live()

    lives = Lives(Faulty(tmp_path, LEAVE_AT_WORK, first=1), seed=1)
    notes = lived(lives, end)
    assert lives.result.kills == 0
    assert any(note.startswith("it ended with 3, which nobody had told it") for note in notes), notes


def test_a_kill_is_one_and_a_stop_is_none(tmp_path: Path) -> None:
    async def live() -> None:
        await lives.begin()
        await lives.live(0.1, is_stopped=True)
        assert lives.result.kills == 0
        await lives.start()
        await lives.live(0.1)
        assert lives.result.kills == 1
        assert not await lives.start_to_crash("restored.before", 1)
        assert lives.died_at("restored.before")

    lives = Lives(Ours(tmp_path), seed=1)
    assert not lived(lives, live)
    assert lives.result.kills == 2
    assert lives.result.is_clean


def test_a_stop_that_hangs(tmp_path: Path) -> None:
    broker = Script(tmp_path)
    broker.start()
    deadline = time.monotonic() + 10
    while not broker.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    processes.STOP_TIMEOUT = 0.1
    broker.stop()
    assert not broker.is_running
    assert not broker.was_killed
    assert not broker.has_ended_well
    (note,) = broker.notes
    assert note.startswith("SIGTERM had not ended it")


def test_a_client_that_the_living_broker_throws_out(tmp_path: Path) -> None:
    async def live() -> None:
        await lives.begin()
        life = asyncio.create_task(lives.live(1.0))
        await asyncio.sleep(0.5)
        intruder = Peer(lives.broker.port, "publisher2")
        await intruder.connect()  # whose client id is taken
        await life
        await intruder.drop()

    lives = Lives(Ours(tmp_path), seed=1)
    (note,) = lived(lives, live)
    assert lives.result.kills == 1
    assert note.startswith("_publish 2 was cut off")


@pytest.fixture
def babble() -> Iterator[int]:
    """The port of one that answers a CONNECT with what is not MQTT."""

    def serve() -> None:
        connection, _ = server.accept()
        with closing(connection):
            connection.recv(1024)
            connection.sendall(b"\0" * 16)
            connection.recv(1024)

    with closing(create_server(("127.0.0.1", 0))) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


def test_what_a_client_cannot_read(tmp_path: Path, babble: int) -> None:
    async def connect() -> None:
        online = lives._clients.online
        online.port = babble
        with pytest.raises(Gone) as info:
            await online.connect()
        assert "AssertionError" in str(info.value)
        assert online._reading is not None
        with pytest.raises(AssertionError):
            await online._reading
        lives._clients.note_failures()
        lives._clients.note_failures()

    lives = Lives(Ours(tmp_path), seed=1)
    (note,) = lived(lives, connect)
    assert note.startswith("online could not read what came: AssertionError")
