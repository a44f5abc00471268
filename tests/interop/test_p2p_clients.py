"""P2P between clients of different makes: request and response without SUBSCRIBE, answers from 3.1.1, held PUBACKs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.broker import Broker, eventually, running, unique
from tests.interop.paho_client import QUIET, PahoClient, make_properties
from tests.interop.test_mqttjs import IS_HERE, MqttJsClient, Node, Refused

pytestmark = [pytest.mark.interop, pytest.mark.skipif(not IS_HERE, reason="not installed: node and MQTT.js")]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.stop()


class Clients:
    """Makes clients, and ends them."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._made: list[Any] = []

    def paho(self, port: int, client_id: str, version: int = 5, **options: Any) -> PahoClient:
        made = PahoClient(port, client_id, version, **options)
        self._made.append(made.close)
        return made

    def js(self, port: int, client_id: str, version: int = 5, **options: Any) -> MqttJsClient:
        made = MqttJsClient(self._node, port, version, client_id, **options)
        self._made.append(made.end)
        return made

    def end(self) -> None:
        for end in self._made:
            end()


@pytest.fixture
def clients(node: Node) -> Iterator[Clients]:
    clients = Clients(node)
    yield clients
    clients.end()


def request_topic(mode: str, client_id: str) -> str:
    return f"read/temperature/p2p/{client_id}" if mode == "suffix" else f"p2p/{client_id}/read/temperature"


@pytest.mark.parametrize("mode", ["prefix", "suffix", "both"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_paho_asks_and_mqtt_js_answers(
    clients: Clients, broker_of: Callable[[str], Broker], mode: str, qos: int
) -> None:
    port, app_id, device_id = broker_of(mode).port, unique("app"), unique("dev")
    spy = clients.paho(port, unique("spy"))
    spy.subscribe("#")
    app = clients.paho(port, app_id, RequestResponseInformation=1)
    device = clients.js(port, device_id)
    information = app.connack.get("ResponseInformation")
    assert information == (f"reply/p2p/{app_id}" if mode == "suffix" else f"p2p/{app_id}")
    back = information if mode == "suffix" else f"{information}/reply"
    app.publish(request_topic(mode, device_id), b"?", qos, ResponseTopic=back, CorrelationData=b"c1")
    asked = device.event()
    assert (asked["topic"], asked["payload"], asked["qos"]) == ("read/temperature", "?", qos)
    assert asked["properties"]["userProperties"] == {"p2p-from": app_id}
    properties = asked["properties"]
    device.publish(properties["responseTopic"], "23.5", qos, correlationData=properties["correlationData"])
    answer = app.receive()
    assert (answer.topic, answer.payload, answer.qos) == ("reply", b"23.5", qos)
    assert answer.properties.CorrelationData == b"c1"
    assert answer.properties.UserProperty == [("p2p-from", device_id)]
    spy.assert_quiet()


@pytest.mark.parametrize("mode", ["prefix", "suffix", "both"])
def test_mqtt_js_asks_and_paho_answers(clients: Clients, broker_of: Callable[[str], Broker], mode: str) -> None:
    port, app_id, device_id = broker_of(mode).port, unique("app"), unique("dev")
    app = clients.js(port, app_id, properties={"requestResponseInformation": True})
    device = clients.paho(port, device_id)
    information = app.connack["properties"]["responseInformation"]
    back = information if mode == "suffix" else f"{information}/reply"
    app.publish(request_topic(mode, device_id), "?", 1, responseTopic=back, correlationData="c2")
    asked = device.receive()
    properties = asked.properties
    device.publish(properties.ResponseTopic, b"23.5", 1, CorrelationData=properties.CorrelationData)
    answer = app.event()
    assert (answer["topic"], answer["payload"]) == ("reply", "23.5")
    assert answer["properties"]["correlationData"] == "c2"


@pytest.fixture(scope="module")
def replying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker that delivers on the topic on which an answer reaches the sender."""
    directory: Path = tmp_path_factory.mktemp("reply")
    config = directory / "reply.toml"
    config.write_text('[p2p]\nmode = "both"\ndeliver_topic = "reply"\n')
    with running(directory, "--config", str(config)) as broker:
        yield broker
        broker.check_log()


@pytest.mark.parametrize("version", [3, 4, 5])
@pytest.mark.parametrize("form", ["p2p/{}/state", "state/p2p/{}"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_3_x_client_answers_on_the_topic_on_which_it_heard(
    clients: Clients, replying: Broker, version: int, form: str, qos: int
) -> None:
    """It knows neither properties nor who asked; the topic is enough.  Both ways, and between makes."""
    app_id, device_id = unique("app"), unique("dev")
    app, device = clients.js(replying.port, app_id, 4), clients.paho(replying.port, device_id, version)
    app.publish(form.format(device_id), "?", qos)
    asked = device.receive()
    assert asked.topic == form.format(app_id)
    device.publish(asked.topic, b"ok", qos)
    answer = app.event()
    assert (answer["topic"], answer["payload"]) == (form.format(device_id), "ok")
    app.publish(answer["topic"], "thanks", qos)
    assert device.receive().payload == b"thanks"


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.spec("MQTT-4.6.0-2", "MQTT-4.6.0-3")
def test_an_acknowledgement_is_held_until_the_targets(clients: Clients, broker: Broker, qos: int) -> None:
    target_id = unique("dev")
    target = clients.paho(broker.port, target_id, manual_ack=True)
    sender = clients.paho(broker.port, unique("app"))
    properties = make_properties("PUBLISH", UserProperty=[("p2p-ack", "target")])
    first = sender.client.publish(f"p2p/{target_id}/cmd", b"1", qos, properties=properties)
    later = sender.client.publish(f"p2p/{unique('nobody')}/cmd", b"2", qos)
    message = target.receive()
    time.sleep(QUIET)
    assert sender.publishes.empty()
    target.client.ack(message.mid, message.qos)
    acknowledged = [sender.publishes.get(timeout=5) for _ in range(2)]
    assert [mid for mid, _ in acknowledged] == [first.mid, later.mid]
    if qos == 1:
        assert [answer.code for _, answer in acknowledged] == [0, 0x10]
        assert acknowledged[0][1].get("UserProperty") == [("p2p-status", "delivered")]


def test_a_target_that_does_not_acknowledge_in_time(clients: Clients, broker: Broker) -> None:
    target_id = unique("dev")
    target = clients.paho(broker.port, target_id, manual_ack=True)
    sender = clients.js(broker.port, unique("app"))
    wish = {"p2p-ack": "target", "p2p-timeout": "1"}
    start = time.monotonic()
    with pytest.raises(Refused) as refused:
        sender.publish(f"p2p/{target_id}/cmd", "x", 1, userProperties=wish)
    assert refused.value.code == 0x83
    assert 0.9 < time.monotonic() - start < 4
    assert target.receive().payload == b"x"


def test_a_message_that_waits_for_its_device(clients: Clients, broker: Broker) -> None:
    """Queued for a session that is away, told to the sender, and there when it comes back, with another library."""
    device_id = unique("dev")
    clients.js(broker.port, device_id, properties={"sessionExpiryInterval": 300}).end()
    sender = clients.paho(broker.port, unique("app"))

    def told() -> Any:
        return str(dict(sender.publish(f"p2p/{device_id}/cmd", b"x", 1).get("UserProperty"))["p2p-status"])

    eventually(lambda: told() == "queued", "the session is away")
    back = clients.paho(broker.port, device_id, clean=False, SessionExpiryInterval=300)
    assert back.connack.session_present
    assert back.receive().topic == "cmd"
