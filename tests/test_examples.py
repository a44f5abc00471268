"""The examples run: each is started or used as its text says."""

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType

import pytest
from twisted.internet.task import Clock

from twisted_p2pmqtt import IP2PRouter, MalformedP2PTopic
from twisted_p2pmqtt.codec.packets import Connack, Connect, Disconnect, Puback
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.testing import MemoryClient, make_broker

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tenant_router() -> None:
    router = load("tenant_router").TenantRouter()
    assert IP2PRouter.providedBy(router)
    broker = make_broker(Clock(), router=router)
    pump, app = MemoryClient(broker, "acme:pump7"), MemoryClient(broker, "acme:app")
    pump.connect()
    app.connect()
    app.publish("acme/to/pump7/set/speed", b"9", qos=1)
    assert [(message.topic, message.payload) for message in pump.messages] == [(b"set/speed", b"9")]
    assert router.resolve("acme/from/pump7") is None
    with pytest.raises(MalformedP2PTopic):
        router.resolve("acme/to/pump7")


def test_the_memory_client_tests() -> None:
    module = load("test_with_memory_client")
    module.test_a_message_reaches_the_device_alone()
    module.test_silence_is_noticed()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def connect_to(port: int, seconds: float = 20.0) -> socket.socket:
    end = time.monotonic() + seconds
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except OSError:  # noqa: PERF203  # the broker is starting
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def test_the_site_sends_to_a_device() -> None:
    mqtt, http = free_port(), free_port()
    start = (
        "import sys; sys.path.insert(0, sys.argv[1]); import embedded_site; from twisted.internet import reactor;"
        "embedded_site.serve(reactor, *sys.argv[2:]); reactor.run()"
    )
    strings = [f"tcp:{port}:interface=127.0.0.1" for port in (mqtt, http)]
    process = subprocess.Popen([sys.executable, "-c", start, str(EXAMPLES), *strings])
    try:
        device = connect_to(mqtt)
        device.sendall(encode(Connect("device001", 4), 4))
        reader = PacketReader(version=4, from_server=True)
        assert reader.feed(device.recv(100)) == [Connack(False, 0)]
        url = f"http://127.0.0.1:{http}/send/"
        posted = subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"import urllib.request as r; print(r.urlopen('{url}device001/cmd/x', b'now').read())",
            ],
            stdout=subprocess.PIPE,
        )
        (message,) = reader.feed(device.recv(100))
        device.sendall(encode(Puback(message.packet_id), 4))  # type: ignore[union-attr]
        out, _ = posted.communicate(timeout=20)
        assert out == b"b'delivered\\n'\n"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{url}nobody/x", b"now", timeout=20)
        assert refused.value.code == 404
        refused.value.close()
        device.sendall(encode(Disconnect(), 4))
        device.close()
    finally:
        process.terminate()
        process.wait(timeout=20)
