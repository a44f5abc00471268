"""The examples run: each is started or used as its text says, on free ports of the loopback interface."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.interop.broker import HOST, ROOT, free_port, running, stop, wait_until_ready
from tests.interop.commands import needs
from twisted_p2pmqtt import IP2PRouter, P2POptions
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connack, Connect, Disconnect, Puback
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.testing import MemoryClient, P2PRouterTests, make_broker

EXAMPLES = ROOT / "examples"

needs_paho = pytest.mark.skipif(importlib.util.find_spec("paho") is None, reason="not installed: paho-mqtt")


def load(name: str) -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: object) -> str:
    """What the example prints, started as its text says."""
    command = [sys.executable, "-W", "error", f"examples/{name}.py", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, timeout=60, check=True
    ).stdout


@contextlib.contextmanager
def served(directory: Path, start: str, *arguments: str, port: int) -> Iterator[None]:
    """A process that runs this Python text, until it is done with; it may log no traceback."""
    log = directory / "log"
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{EXAMPLES}"}
    with log.open("wb") as output:
        command = [sys.executable, "-W", "error", "-c", start, *arguments]
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output)
    try:
        wait_until_ready(process, port, log)
        yield
    finally:
        stop(process)
    assert "Traceback" not in log.read_text()


class Device:
    """A bare client over TCP."""

    def __init__(self, port: int, client_id: str) -> None:
        self.sock = socket.create_connection((HOST, port), timeout=10)
        self._reader = PacketReader(version=4, from_server=True)
        self._packets: list[Packet] = []
        self.send(Connect(client_id, 4))
        assert self.receive() == Connack(False, 0)

    def send(self, packet: Packet) -> None:
        self.sock.sendall(encode(packet, 4))

    def receive(self) -> Any:
        """The next packet."""
        while not self._packets:
            data = self.sock.recv(4096)
            assert data, "closed"
            self._packets += self._reader.feed(data)
        return self._packets.pop(0)

    def close(self) -> None:
        self.send(Disconnect())
        self.sock.close()


# --- routers ----------------------------------------------------------------------------------------------------------


class TestTenantRouter(P2PRouterTests):
    """As its embedder would test it."""

    addresses = {
        "acme/to/pump7/set/speed": ("acme:pump7", "set/speed"),
        "acme/to/a%2Fb/t": ("acme:a/b", "t"),
        "p2p/to/x/y/to/z": ("p2p:x", "y/to/z"),
    }
    ordinary = ("acme/from/pump7", "acme", "to/x", "acme/to", "acme/tox/y/z")
    malformed = ("acme/to/pump7", "acme/to/pump7/", "acme/to//t", "/to/x/t", "acme/to/")
    has_reply_topics = False  # of any id; those of its own clients are tested below

    def make_router(self) -> IP2PRouter:
        router: IP2PRouter = load("tenant_router").TenantRouter()
        return router


def test_the_tenant_router_in_a_broker() -> None:
    router = load("tenant_router").TenantRouter()
    broker = make_broker(Clock(), router=router, p2p=P2POptions(deliver_topic="reply"))
    pump, app, other = (MemoryClient(broker, name) for name in ("acme:pump7", "acme:app", "other:app"))
    for client in (pump, app, other):
        client.connect()
    other.subscribe("#")
    app.publish("acme/to/pump7/set/speed", b"9", qos=1)
    (heard,) = pump.messages
    assert (heard.topic, heard.payload) == (b"acme/to/app/set/speed", b"9")
    pump.publish(heard.topic.decode(), b"ok", qos=1)
    assert [message.payload for message in app.messages] == [b"ok"]
    assert other.messages == []


class TestAliasRouter(P2PRouterTests):
    addresses = {"to/boiler/set": ("controller-1", "set"), "to/boiler/a/b": ("controller-1", "a/b")}
    ordinary = ("to", "boiler/set", "p2p/boiler/set")
    malformed = ("to/boiler", "to/boiler/", "to/pump/set", "to//set")
    has_reply_topics = False

    def make_router(self) -> IP2PRouter:
        router: IP2PRouter = load("alias_router").AliasRouter({"boiler": "controller-1"})
        return router


def test_the_alias_router() -> None:
    assert run("alias_router").splitlines() == [
        "controller-1 heard [('set', b'60')]",
        "controller-2 heard [('set', b'65')]",
        "to/pump/set: 0x90",
    ]


def test_a_router_by_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES))
    with running(tmp_path, "--p2p-mode", "tenant_router:TenantRouter") as broker:
        pump, app = Device(broker.port, "acme:pump7"), Device(broker.port, "acme:app")
        app.send(Message(b"acme/to/pump7/set/speed", b"9"))
        message = pump.receive()
        assert (message.topic, message.payload) == (b"set/speed", b"9")
        pump.close()
        app.close()
        broker.check_log()


# --- embedded ---------------------------------------------------------------------------------------------------------


def test_the_memory_client_tests() -> None:
    module = load("test_with_memory_client")
    module.test_a_message_reaches_the_device_alone()
    module.test_silence_is_noticed()


def test_the_site_sends_to_a_device(tmp_path: Path) -> None:
    mqtt, http = free_port(), free_port()
    start = (
        "import sys, embedded_site; from twisted.internet import reactor;"
        "embedded_site.serve(reactor, *sys.argv[1:]); reactor.run()"
    )
    strings = [f"tcp:{port}:interface={HOST}" for port in (mqtt, http)]
    with served(tmp_path, start, *strings, port=http):
        device = Device(mqtt, "device001")
        url = f"http://{HOST}:{http}/send/"
        post = f"import urllib.request as r; print(r.urlopen('{url}device001/cmd/x', b'now').read().decode())"
        posted = subprocess.Popen([sys.executable, "-c", post], stdout=subprocess.PIPE, text=True)
        message = device.receive()
        assert (message.topic, message.payload) == (b"cmd/x", b"now")
        device.send(Puback(message.packet_id))
        assert posted.communicate(timeout=20)[0].split() == ["delivered"]
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}nobody/x", b"now", timeout=20)
        assert refused.value.code == 404
        refused.value.close()
        device.close()


XIAOZHI = (
    "import sys, xiaozhi_server; from twisted.internet import reactor;"
    "xiaozhi_server.serve(reactor, sys.argv[1]); reactor.run()"
)


@pytest.mark.parametrize("client_id", ["GID_test@@@00_16_3e_ac_b5_38", "GID_test@@@00_16_3e_ac_b5_38@@@db4ead3e"])
def test_the_xiaozhi_server(tmp_path: Path, client_id: str) -> None:
    port = free_port()
    with served(tmp_path, XIAOZHI, f"tcp:{port}:interface={HOST}", port=port):
        device, other = Device(port, client_id), Device(port, "GID_test@@@11_22_33_44_55_66")
        device.send(Message(b"device-server", b'{"type":"hello","version":3,"transport":"udp"}'))
        answer = device.receive()
        assert answer.topic == b"devices/p2p/00_16_3e_ac_b5_38"
        assert json.loads(answer.payload)["udp"]["port"] == 8884
        other.send(Message(b"device-server", b'{"type":"goodbye","session_id":"s"}'))
        goodbye = other.receive()  # and nothing of the other's
        assert (goodbye.topic, json.loads(goodbye.payload)["type"]) == (b"devices/p2p/11_22_33_44_55_66", "goodbye")
        # A server that is a client of its own, with ids of two parts: the form that the cloud's devices know.
        other.send(Message(f"devices/p2p/{client_id}".encode(), b"{}"))
        assert device.receive().topic == f"devices/p2p/{client_id}".encode()
        device.close()
        other.close()


# --- clients of a broker that runs by itself --------------------------------------------------------------------------


@needs_paho
@pytest.mark.interop
@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("p2p_request_response", "answer 23.5 from thermometer, to question 1"),
        ("from_rmqtt", "device001 heard sensor/temp 23.5"),
        ("from_alibaba", "GID_demo@@@lamp-07 heard on on commands/p2p/..."),
    ],
)
def test_clients(tmp_path: Path, name: str, printed: str) -> None:
    config = EXAMPLES / f"{name}.toml"
    options = ["--config", str(config)] if config.exists() else []
    with running(tmp_path, *options) as broker:
        assert run(name, broker.port).splitlines() == [printed]
        broker.check_log()


CLOCK = (
    "import sys, clock_endpoint; from twisted.internet import reactor;"
    "clock_endpoint.serve(reactor, sys.argv[1]); reactor.run()"
)


@needs("mosquitto_rr")
@pytest.mark.interop
def test_the_clock_as_its_text_says(tmp_path: Path) -> None:
    port = free_port()
    command = (EXAMPLES / "clock_endpoint.py").read_text().split("    mosquitto_rr")[1].splitlines()[0]
    arguments = shlex.split(command.replace("1883", str(port)))
    with served(tmp_path, CLOCK, f"tcp:{port}:interface={HOST}", port=port):
        answer = subprocess.run(["mosquitto_rr", *arguments], stdout=subprocess.PIPE, text=True, timeout=20, check=True)
    assert re.fullmatch(r"\d\d:\d\d\n", answer.stdout)


@needs_paho
@pytest.mark.interop
def test_the_clock_asked_without_a_subscription(tmp_path: Path) -> None:
    from tests.interop.paho_client import PahoClient

    port, wish = free_port(), [("p2p-ack", "target")]
    with served(tmp_path, CLOCK, f"tcp:{port}:interface={HOST}", port=port):
        app = PahoClient(port, "app", 5)
        for zone in ("utc", "local"):
            asked: dict[str, Any] = {"ResponseTopic": f"p2p/app/{zone}", "CorrelationData": b"7", "UserProperty": wish}
            assert app.publish(f"p2p/clock/{zone}", b"%Y", 1, **asked).code == 0
            answer = app.receive()
            assert (answer.topic, len(answer.payload), answer.properties.CorrelationData) == (zone, 4, b"7")
            assert answer.properties.UserProperty == [("p2p-from", "clock")]
        app.close()


@needs_paho
@pytest.mark.interop
def test_a_xiaozhi_device_of_another_make(tmp_path: Path) -> None:
    """3.1.1, as the firmware has it, and without a subscription."""
    from tests.interop.paho_client import PahoClient

    port = free_port()
    with served(tmp_path, XIAOZHI, f"tcp:{port}:interface={HOST}", port=port):
        device = PahoClient(port, "GID_test@@@00_16_3e_ac_b5_38@@@db4ead3e")
        device.publish("device-server", b'{"type":"hello","version":3,"transport":"udp"}')
        hello = device.receive()
        assert (hello.topic, json.loads(hello.payload)["type"]) == ("devices/p2p/00_16_3e_ac_b5_38", "hello")
        device.close()


@needs_paho
@pytest.mark.interop
def test_a_xiaozhi_server_beside_the_broker(tmp_path: Path) -> None:
    """With the configuration of docs/xiaozhi.md and its second way to tell who published."""
    from tests.interop.paho_client import PahoClient

    page = (ROOT / "docs" / "xiaozhi.md").read_text(encoding="utf-8")
    config = tmp_path / "xiaozhi.toml"
    config.write_text(page.split("```toml\n")[1].split("```")[0])
    client_id = "GID_test@@@00_16_3e_ac_b5_38"
    with running(tmp_path, "--config", str(config)) as broker:
        server, device = PahoClient(broker.port, "xiaozhi-server", 5), PahoClient(broker.port, client_id)
        device.publish("device-server/p2p/xiaozhi-server", b"{}")
        request = server.receive()
        assert dict(request.properties.UserProperty) == {"p2p-from": client_id}
        server.publish(f"devices/p2p/{client_id}", b"[]", 1)
        assert device.receive().topic == f"devices/p2p/{client_id}"
        server.close()
        device.close()
        broker.check_log()


def test_every_example_is_here() -> None:
    """Or in the tests of its own subject, for WebSocket."""
    text = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert path.stem in text or path.stem == "websocket_site", path.name
