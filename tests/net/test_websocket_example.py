"""examples/websocket_site.py does what it says."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.broker import ROOT, free_port, stop, wait_until_ready
from tests.net.ws_client import Frames, frame, request
from twisted_p2pmqtt.codec.packets import Connect, Subscribe, SubscriptionRequest
from twisted_p2pmqtt.codec.writer import encode


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """The example runs, and ends when it is told to."""
    port, log = free_port(), tmp_path / "log"
    with log.open("wb") as output:
        command = [sys.executable, "-W", "error", "examples/websocket_site.py", str(port)]
        process = subprocess.Popen(command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, stdout=output, stderr=output)
    try:
        wait_until_ready(process, port, log)
        yield port
    finally:
        stop(process)
    assert log.read_text() == f"http://127.0.0.1:{port}/ and ws://127.0.0.1:{port}/mqtt\n"


def exchange(link: socket.socket, sent: bytes, is_enough: Callable[[bytes], bool]) -> bytes:
    link.sendall(sent)
    received = b""
    while not is_enough(received):
        data = link.recv(65536)
        assert data, received
        received += data
    return received


def test_pages_and_mqtt_on_one_port(port: int) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
        assert b"MQTT inside a web server" in page.read()
    subscribe = encode(Subscribe(1, [SubscriptionRequest("site/#", 0)]), 4)
    with socket.create_connection(("127.0.0.1", port), 10) as link:
        own_page = request(more=[f"Origin: http://localhost:{port}"])
        assert exchange(link, own_page, lambda data: b"\r\n\r\n" in data).startswith(b"HTTP/1.1 101 ")
        frames = Frames()
        link.sendall(frame(2, encode(Connect("visitor", 4), 4)) + frame(2, subscribe))
        while b"site/uptime" not in frames.data:
            frames.feed(link.recv(65536))
    with socket.create_connection(("127.0.0.1", port), 10) as link:
        other_page = request(more=["Origin: https://elsewhere.example"])
        assert exchange(link, other_page, lambda data: b"\r\n\r\n" in data).startswith(b"HTTP/1.1 403 ")
