"""MQTT.js and paho over WebSocket, TLS, and both; one broker with a listener of each kind."""

from __future__ import annotations

import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from tests.interop.broker import HOST, ROOT, WAIT, Broker, eventually, free_port, stop, unique, wait_until_ready
from tests.interop.test_mqttjs import IS_HERE, MqttJsClient, Node, Refused
from tests.net.certificates import Pki

pytestmark = pytest.mark.interop
needs_node = pytest.mark.skipif(not IS_HERE, reason="not installed: node and MQTT.js")

LISTENERS = {"mqtt": "", "ws": "transport = 'websocket'", "mqtts": "", "wss": "transport = 'websocket'"}
LARGE = "x" * 300_000


class Listeners:
    """A broker that runs, its ports by protocol, and the authority to trust."""

    def __init__(self, broker: Broker, ports: dict[str, int], ca: Path) -> None:
        self.broker = broker
        self.ports = ports
        self.ca = ca

    def node_options(self, protocol: str) -> dict[str, Any]:
        options: dict[str, Any] = {"protocol": protocol}
        if protocol in ("ws", "wss"):
            options["path"] = "/mqtt"
        if protocol in ("mqtts", "wss"):
            options["ca"] = self.ca.read_text()
        return options


@pytest.fixture(scope="module")
def _listeners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listeners]:
    directory = tmp_path_factory.mktemp("listeners")
    pki = Pki(directory)
    ports = {protocol: free_port() for protocol in LISTENERS}
    lines = ["[store]", "type = 'memory'"]
    for protocol, more in LISTENERS.items():
        lines += ["[[listener]]", f"endpoint = 'tcp:{ports[protocol]}:interface={HOST}'", more]
        if protocol in ("mqtts", "wss"):
            lines += ["[listener.tls]", f"certificate = '{pki.certificate}'", f"private_key = '{pki.key}'"]
    (directory / "p2pmqtt.toml").write_text("\n".join(lines))
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "p2pmqtt"]
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--config", str(directory / "p2pmqtt.toml")], cwd=ROOT, stdout=output, stderr=output
        )
    try:
        wait_until_ready(process, ports["wss"], log)
        yield Listeners(Broker(process, ports["mqtt"], log), ports, Path(pki.ca))
    finally:
        stop(process)


@pytest.fixture
def listeners(_listeners: Listeners) -> Iterator[Listeners]:
    yield _listeners
    _listeners.broker.check_log()


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.stop()


def js(node: Node, listeners: Listeners, protocol: str, version: int = 4, client_id: str | None = None) -> MqttJsClient:
    return MqttJsClient(
        node, listeners.ports[protocol], version, client_id or unique("js"), **listeners.node_options(protocol)
    )


@needs_node
@pytest.mark.spec("MQTT-6.0.0-4", "MQTT3-6.0.0-4")
@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("protocol", ["ws", "wss", "mqtts"])
def test_mqttjs(node: Node, listeners: Listeners, protocol: str, version: int) -> None:
    client, topic = js(node, listeners, protocol, version), unique()
    assert client.subscribe(topic, 2) == [2]
    for qos in (0, 1, 2):
        client.publish(topic, f"{qos}", qos)
        client.publish(topic, LARGE, qos)
    assert sorted(client.payloads(6)) == sorted(["0", "1", "2", LARGE, LARGE, LARGE])
    client.end()
    client.event("close")


@needs_node
@pytest.mark.parametrize("receiver", LISTENERS)
@pytest.mark.parametrize("sender", LISTENERS)
def test_mqttjs_to_a_client_on_another_listener(node: Node, listeners: Listeners, sender: str, receiver: str) -> None:
    target = unique("target")
    one, other = js(node, listeners, sender, 5), js(node, listeners, receiver, 5, target)
    for qos in (0, 1, 2):
        assert one.publish(f"p2p/{target}/t", f"{qos}", qos)["code"] == 0
    assert other.payloads(3) == ["0", "1", "2"]
    one.end()
    other.end()


@needs_node
def test_mqttjs_is_told_of_a_take_over(node: Node, listeners: Listeners) -> None:
    name = unique()
    first = js(node, listeners, "ws", 5, name)
    second = js(node, listeners, "ws", 5, name)
    assert first.event("disconnect")["code"] == 0x8E
    first.event("close")
    second.end()


@needs_node
def test_mqttjs_at_a_wrong_path(node: Node, listeners: Listeners) -> None:
    with pytest.raises(Refused):
        MqttJsClient(node, listeners.ports["ws"], 4, None, protocol="ws", path="/elsewhere")


@pytest.mark.parametrize("version", [MQTTProtocolVersion.MQTTv311, MQTTProtocolVersion.MQTTv5])
@pytest.mark.parametrize("protocol", ["ws", "wss", "mqtts"])
def test_paho(listeners: Listeners, protocol: str, version: MQTTProtocolVersion) -> None:
    transport: Any = "websockets" if protocol in ("ws", "wss") else "tcp"
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=unique("paho"), protocol=version, transport=transport)
    if protocol in ("wss", "mqtts"):
        client.tls_set_context(ssl.create_default_context(cafile=str(listeners.ca)))
    got: list[bytes] = []
    granted: list[Any] = []
    ended: list[Any] = []
    client.on_message = lambda client, data, message: got.append(bytes(message.payload))
    client.on_subscribe = lambda client, data, mid, codes, properties: granted.append(codes)
    client.on_disconnect = lambda client, data, flags, code, properties: ended.append(code)
    client.connect(HOST, listeners.ports[protocol])
    client.loop_start()
    topic = unique()
    eventually(client.is_connected, "connected")
    client.subscribe(topic, 2)
    eventually(lambda: granted, "SUBACK")
    for qos in (0, 1, 2):
        client.publish(topic, LARGE, qos).wait_for_publish(WAIT)
    eventually(lambda: len(got) == 3, "all messages")
    assert got == [LARGE.encode()] * 3
    client.disconnect()
    eventually(lambda: ended, "closed")
    client.loop_stop()
