"""Go's Paho client as a P2P target, and the trap that docs/p2p.md tells its users of."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.broker import Broker, unique
from tests.interop.commands import Start, backgrounds, needs
from tests.interop.paho_client import PahoClient

pytestmark = [pytest.mark.interop, needs("go")]

SOURCE = Path(__file__).parent / "go"


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The client of ``go/main.go``, built."""
    program = tmp_path_factory.mktemp("go") / "client"
    build = ["go", "build", "-o", str(program), "."]
    subprocess.run(build, cwd=SOURCE, env={**os.environ, "GOTOOLCHAIN": "local"}, timeout=300, check=True)
    return str(program)


@pytest.fixture
def start() -> Iterator[Start]:
    with backgrounds() as start:
        yield start


@pytest.fixture
def sender(broker: Broker) -> Iterator[PahoClient]:
    made = PahoClient(broker.port, unique("app"), 5)
    yield made
    made.close()


def publish(sender: PahoClient, target: str) -> tuple[int, str]:
    """The reason code and the status that the sender hears, once the target has acknowledged or its second is up."""
    wish = [("p2p-ack", "target"), ("p2p-timeout", "1")]
    answer = sender.publish(f"p2p/{target}/cmd/on", b"now", 1, UserProperty=wish)
    return answer.code, dict(answer.get("UserProperty"))["p2p-status"]


def test_with_a_default_handler_it_hears_and_acknowledges(
    broker: Broker, command: str, start: Start, sender: PahoClient
) -> None:
    target = unique("go")
    client = start(command, str(broker.port), target, "handler")
    client.line("connected")
    assert publish(sender, target) == (0, "delivered")
    assert client.line("cmd/on") == "cmd/on now"


def test_without_one_it_never_acknowledges(broker: Broker, command: str, start: Start, sender: PahoClient) -> None:
    target = unique("go")
    client = start(command, str(broker.port), target)
    client.line("connected")
    assert publish(sender, target) == (0x83, "queued")
    client.assert_quiet()
