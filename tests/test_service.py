"""The broker as a process: how it says that it cannot start, and how it stops."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.error import CannotListenError

from twisted_p2pmqtt import MQTTService
from twisted_p2pmqtt.codec.packets import Connack, Connect, Disconnect
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.config import ListenerSettings, Settings, StoreSettings

TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile="]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def connect_to(port: int, seconds: float = 20.0) -> socket.socket:
    """A connection to a broker that may still be starting."""
    end = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:  # noqa: PERF203  # until it listens
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def start(port: int, directory: Path) -> subprocess.Popen[bytes]:
    command = [*TWISTD, "p2pmqtt", "--listen", f"tcp:{port}:interface=127.0.0.1", "--store", "memory"]
    return subprocess.Popen(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def broker(port: int, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = start(port, tmp_path)
    connect_to(port).close()
    yield process
    process.kill()
    process.communicate()


def connected(port: int, version: int) -> socket.socket:
    client = connect_to(port)
    client.sendall(encode(Connect(f"v{version}", version), version))
    (connack,) = PacketReader(version=version, from_server=True).feed(client.recv(1000))
    assert isinstance(connack, Connack)
    assert connack.reason_code == 0
    return client


def read_to_end(client: socket.socket) -> bytes:
    out = b""
    while data := client.recv(1000):
        out += data
    client.close()
    return out


def test_sigterm_tells_the_clients_that_can_be_told(broker: subprocess.Popen[bytes], port: int) -> None:
    new, old = connected(port, 5), connected(port, 4)
    began = time.monotonic()
    os.kill(broker.pid, signal.SIGTERM)
    packets = PacketReader(version=5, from_server=True).feed(read_to_end(new))
    assert packets == [Disconnect(0x8B)]
    assert read_to_end(old) == b""
    broker.wait(timeout=10)
    assert time.monotonic() - began < 10


def test_sigterm_does_not_wait_for_who_does_not_read(broker: subprocess.Popen[bytes], port: int) -> None:
    deaf = connected(port, 5)
    os.kill(broker.pid, signal.SIGTERM)
    broker.wait(timeout=10)
    deaf.close()


def test_a_port_in_use_is_said_in_one_line(broker: subprocess.Popen[bytes], port: int, tmp_path: Path) -> None:
    second = start(port, tmp_path)
    out, _ = second.communicate(timeout=20)
    lines = [line for line in out.decode().splitlines() if "cannot listen" in line]
    assert second.returncode == 1
    assert len(lines) == 1
    assert f"cannot listen on tcp:{port}:interface=127.0.0.1: " in lines[0]
    assert b"Traceback" not in out


def test_embedded_a_port_in_use_is_raised_to_the_host(broker: subprocess.Popen[bytes], port: int) -> None:
    listener = ListenerSettings(f"tcp:{port}:interface=127.0.0.1")
    service = MQTTService(Settings(listeners=(listener,), store=StoreSettings("memory")), reactor)
    with pytest.raises(CannotListenError):
        service.privilegedStartService()
