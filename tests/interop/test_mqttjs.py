"""MQTT.js 5 against the broker, in MQTT 3.1, 3.1.1 and 5.0; ``node/client.js`` runs it under remote control."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.broker import P2P_CASES, WAIT, Broker, unique

NODE = Path(__file__).parent / "node"
IS_HERE = shutil.which("node") is not None and (NODE / "node_modules" / "mqtt").exists()
pytestmark = [pytest.mark.interop, pytest.mark.skipif(not IS_HERE, reason="not installed: node and MQTT.js")]

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
QUIET = 0.25


class Refused(Exception):
    """What MQTT.js gives as an error; ``code`` is the reason or return code where there is one."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.code = error["code"]


class Node:
    """The node process with any number of clients in it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            ["node", "client.js"], cwd=NODE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.events: dict[str, queue.Queue[dict[str, Any]]] = {}
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._calls = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            value = json.loads(line)
            (self._answers if "id" in value else self.events[value["client"]]).put(value)

    def call(self, op: str, **arguments: Any) -> dict[str, Any]:
        """One operation, and its result."""
        self._calls += 1
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"id": self._calls, "op": op, **arguments}) + "\n")
        self.process.stdin.flush()
        while True:
            answer = self._answers.get(timeout=WAIT)
            if answer["id"] == self._calls:  # an earlier one may come late where its caller gave up
                break
        if "error" in answer:
            raise Refused(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def stop(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(WAIT)
        self._thread.join(WAIT)
        self.process.stdout.close()


class MqttJsClient:
    """One client in it, connected."""

    def __init__(self, node: Node, port: int, version: int, client_id: str | None, **options: Any) -> None:
        self._node = node
        self._name = unique()
        self._events = node.events[self._name] = queue.Queue()
        options = {"protocolVersion": version, "clientId": unique("js") if client_id is None else client_id, **options}
        if version == 3:
            options["protocolId"] = "MQIsdp"
        self.connack = self._call("connect", port=port, options=options)

    def _call(self, op: str, **arguments: Any) -> dict[str, Any]:
        return self._node.call(op, client=self._name, **arguments)

    def subscribe(self, topic_filter: str | list[str], qos: int = 0, **options: Any) -> list[int]:
        codes: list[int] = self._call("subscribe", topic=topic_filter, options={"qos": qos, **options})["codes"]
        return codes

    def unsubscribe(self, topic_filter: str) -> list[int]:
        codes: list[int] = self._call("unsubscribe", topic=topic_filter)["codes"]
        return codes

    def publish(self, topic: str, payload: str = "", qos: int = 0, retain: bool = False, **properties: Any) -> Any:
        options = {"qos": qos, "retain": retain, **({"properties": properties} if properties else {})}
        return self._call("publish", topic=topic, payload=payload, options=options)

    def event(self, kind: str = "message") -> dict[str, Any]:
        """The next event of this kind; others before it are passed over."""
        while True:
            event = self._events.get(timeout=WAIT)
            if event["event"] == kind:
                return event

    def payloads(self, count: int) -> list[str]:
        return [self.event()["payload"] for _ in range(count)]

    def assert_quiet(self) -> None:
        time.sleep(QUIET)
        assert not [event for event in list(self._events.queue) if event["event"] == "message"]

    def end(self, **options: Any) -> None:
        """Say DISCONNECT; ``options`` are its reasonCode and properties."""
        self._call("end", options=options)

    def die(self) -> None:
        self._call("die")
        self.event("close")


Connect = Callable[..., MqttJsClient]


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.stop()


@pytest.fixture
def connect(node: Node, broker: Broker) -> Iterator[Connect]:
    """Connects a client to the broker on its defaults, unless told another port; all are closed behind the test."""
    clients: list[MqttJsClient] = []

    def connect(version: int = 5, client_id: str | None = None, port: int = 0, **options: Any) -> MqttJsClient:
        client = MqttJsClient(node, port or broker.port, version, client_id, **options)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.end()


def lasting(version: int) -> dict[str, Any]:
    return {"clean": False, **({"properties": {"sessionExpiryInterval": 300}} if version == 5 else {})}


# --- connect ---------------------------------------------------------------------------------------------------------


@VERSIONS
def test_connects(connect: Connect, version: int) -> None:
    assert connect(version).connack["sessionPresent"] is False
    connect(version, username="anna", password="secret", keepalive=0)
    connect(version, unique("x" * 150), keepalive=65535)


def test_empty_client_id(connect: Connect) -> None:
    connect(4, "")
    assert connect(5, "").connack["properties"]["assignedClientIdentifier"]


@VERSIONS
def test_refused_client_id(connect: Connect, version: int) -> None:
    with pytest.raises(Refused) as refused:
        connect(version, "y" * 300)
    assert refused.value.code == (133 if version == 5 else 2)


def test_announced_limits(connect: Connect) -> None:
    properties = connect().connack["properties"]
    limits = {name: properties[name] for name in ("topicAliasMaximum", "receiveMaximum", "maximumPacketSize")}
    assert limits == {"topicAliasMaximum": 10, "receiveMaximum": 1000, "maximumPacketSize": 1048576}


def test_keep_alive(connect: Connect) -> None:
    clients = [connect(version, keepalive=1) for version in (3, 4, 5)]
    time.sleep(2.2)
    assert [client.subscribe("awake", 1) for client in clients] == [[1]] * 3


@VERSIONS
def test_taken_over(connect: Connect, version: int) -> None:
    name = unique()
    first = connect(version, name)
    connect(version, name)
    if version == 5:
        assert first.event("disconnect")["code"] == 0x8E
    first.event("close")


# --- messages --------------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_qos(connect: Connect, version: int, qos: int) -> None:
    topic = unique()
    subscriber, sender = connect(version), connect(version)
    assert subscriber.subscribe(topic, qos) == [qos]
    for published in (0, 1, 2):
        sender.publish(topic, f"{published}", published)
    heard = [subscriber.event() for _ in range(3)]
    assert sorted((event["payload"], event["qos"]) for event in heard) == [(f"{n}", min(n, qos)) for n in (0, 1, 2)]
    assert not any(event["retain"] or event["dup"] for event in heard)


@VERSIONS
def test_wildcards(connect: Connect, version: int) -> None:
    root = unique()
    client = connect(version)
    assert client.subscribe([f"{root}/+/b", f"{root}/c/#"], 1) == [1, 1]
    for name in ("a/b", "a/b/c", "c", "c/d/e"):
        client.publish(f"{root}/{name}", name)
    assert client.payloads(3) == ["a/b", "c", "c/d/e"]
    client.unsubscribe(f"{root}/c/#")
    client.publish(f"{root}/c", "not heard")
    client.publish(f"{root}/x/b", "heard")
    assert client.payloads(1) == ["heard"]


@VERSIONS
def test_retained(connect: Connect, version: int) -> None:
    topic = unique()
    client = connect(version)
    client.publish(topic, "first", 1, retain=True)
    client.publish(topic, "second", 2, retain=True)
    client.subscribe(topic, 1)
    event = client.event()
    assert (event["payload"], event["retain"], event["qos"]) == ("second", True, 1)
    client.publish(topic, "", 1, retain=True)
    assert client.event()["retain"] is False
    late = connect(version)
    late.subscribe(topic, 1)
    late.assert_quiet()


@VERSIONS
def test_will(connect: Connect, version: int) -> None:
    topic = unique()
    watcher = connect(version)
    watcher.subscribe(topic, 2)
    connect(version, will={"topic": topic, "payload": "orderly", "qos": 1, "retain": False}).end()
    connect(version, will={"topic": topic, "payload": "dead", "qos": 1, "retain": False}).die()
    event = watcher.event()
    assert (event["payload"], event["qos"]) == ("dead", 1)


@VERSIONS
def test_session_with_its_queue(connect: Connect, version: int) -> None:
    name, topic = unique(), unique()
    client = connect(version, name, **lasting(version))
    client.subscribe(topic, 2)
    client.end()
    sender = connect(version)
    for qos in (0, 1, 2):
        sender.publish(topic, f"{qos}", qos)
    client = connect(version, name, **lasting(version))
    assert client.connack["sessionPresent"] or version == 3
    assert sorted(client.payloads(2)) == ["1", "2"]
    client.assert_quiet()
    client.end()
    assert not connect(version, name, clean=True).connack["sessionPresent"]


# --- P2P -------------------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize(("mode", "form"), P2P_CASES)
def test_p2p(connect: Connect, broker_of: Callable[[str], Broker], version: int, mode: str, form: str) -> None:
    port = broker_of(mode).port
    name = unique("dev")
    topic = form.format(client_id=name, topic="sensor/temp")
    listener, sender = connect(version, port=port), connect(version, port=port)
    listener.subscribe("#", 2)
    target = connect(version, name, port, **lasting(version))
    for qos in (0, 1, 2):
        sender.publish(topic, f"{qos}", qos, retain=True)
        event = target.event()
        assert (event["topic"], event["payload"], event["qos"]) == ("sensor/temp", f"{qos}", qos)
        assert event["retain"] is False
    target.end()
    sender.publish(topic, "away", 1)
    assert connect(version, name, port, **lasting(version)).payloads(1) == ["away"]
    sender.publish("all", "end")
    assert listener.event()["topic"] == "all"


def test_v5_p2p_tells_sender_and_target(connect: Connect) -> None:
    name, sender_name = unique("dev"), unique("app")
    target, sender = connect(5, name), connect(5, sender_name)
    answer = sender.publish(f"p2p/{name}/x", "hi", 1)
    assert (answer["code"], answer["properties"]["userProperties"]) == (0, {"p2p-status": "online"})
    assert target.event()["properties"]["userProperties"] == {"p2p-from": sender_name}
    assert sender.publish(f"p2p/{unique()}/x", "hi", 1)["code"] == 0x10
    with pytest.raises(Refused, match="Topic Name invalid"):
        sender.publish("p2p/x", "hi", 1)


# --- 5.0 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_v5_properties(connect: Connect, qos: int) -> None:
    topic = unique()
    subscriber, sender = connect(), connect()
    subscriber.subscribe(topic, 2, properties={"subscriptionIdentifier": 77})
    properties: dict[str, Any] = {
        "payloadFormatIndicator": True,
        "contentType": "a/b",
        "responseTopic": "r/t",
        "correlationData": "c",
        "userProperties": {"k": ["1", "2"], "l": "3"},
    }
    sender.publish(topic, "x", qos, messageExpiryInterval=50, **properties)
    got = subscriber.event()["properties"]
    assert 49 <= got.pop("messageExpiryInterval") <= 50
    assert got.pop("subscriptionIdentifier") == 77
    assert got == properties


def test_v5_topic_aliases_both_ways(connect: Connect) -> None:
    topic = unique()
    subscriber = connect(properties={"topicAliasMaximum": 2})
    sender = connect(autoAssignTopicAlias=True)
    subscriber.subscribe(f"{topic}/#", 1)
    names = ["a", "b", "a", "c", "b", "d", "a", "c"]
    for name in names:
        sender.publish(f"{topic}/{name}", name, 1)
    heard = [subscriber.event() for _ in names]
    assert [event["topic"] for event in heard] == [f"{topic}/{name}" for name in names]  # MQTT.js looks them up


def test_v5_subscribe_options(connect: Connect) -> None:
    topic = unique()
    client, other = connect(), connect()
    client.publish(topic, "kept", 1, retain=True)
    client.subscribe(topic, 1, nl=True, rap=True, rh=2)
    client.publish(topic, "own", 1)
    other.publish(topic, "", 1, retain=True)
    event = client.event()
    assert (event["payload"], event["retain"]) == ("", True)
    client.assert_quiet()


def test_v5_shared_subscription(connect: Connect) -> None:
    topic = unique()
    members, sender = [connect() for _ in range(2)], connect()
    for member in members:
        assert member.subscribe(f"$share/g/{topic}/#", 1) == [1]
    for number in range(10):
        sender.publish(f"{topic}/{number}", f"{number}", 1)
    heard = members[0].payloads(5) + members[1].payloads(5)
    assert sorted(heard) == [f"{number}" for number in range(10)]


def test_v5_request_and_response(connect: Connect) -> None:
    topic, name = unique(), unique()
    service, asker = connect(), connect(5, name, properties={"requestResponseInformation": True})
    assert asker.connack["properties"]["responseInformation"] == f"p2p/{name}"
    service.subscribe(topic, 1)
    asker.publish(topic, "1+1", 1, responseTopic=f"p2p/{name}/sum", correlationData="c7")
    request = service.event()["properties"]
    service.publish(request["responseTopic"], "2", 1, correlationData=request["correlationData"])
    answer = asker.event()
    assert (answer["topic"], answer["payload"], answer["properties"]["correlationData"]) == ("sum", "2", "c7")


def test_v5_message_expiry_and_session_expiry(connect: Connect) -> None:
    name, topic = unique(), unique()
    client = connect(5, name, **lasting(5))
    client.subscribe(topic, 1)
    client.end()
    brief = unique()
    connect(5, brief, clean=False, properties={"sessionExpiryInterval": 1}).end()
    sender = connect()
    sender.publish(topic, "short", 1, messageExpiryInterval=1)
    sender.publish(topic, "long", 1, messageExpiryInterval=60)
    time.sleep(2.2)
    client = connect(5, name, **lasting(5))
    event = client.event()
    assert event["payload"] == "long"
    assert 50 <= event["properties"]["messageExpiryInterval"] <= 58
    assert not connect(5, brief, **lasting(5)).connack["sessionPresent"]
    client.end(reasonCode=0, properties={"sessionExpiryInterval": 0})
    assert not connect(5, name, **lasting(5)).connack["sessionPresent"]


def test_v5_will_delay_and_disconnect_with_will(connect: Connect) -> None:
    topic = unique()
    watcher = connect()
    watcher.subscribe(topic, 1)
    will = {"topic": topic, "payload": "late", "qos": 1, "retain": False, "properties": {"willDelayInterval": 1}}
    start = time.monotonic()
    connect(5, unique(), will=will, **lasting(5)).die()
    assert watcher.payloads(1) == ["late"]
    assert time.monotonic() - start > 0.7
    connect(will={"topic": topic, "payload": "asked for", "qos": 0, "retain": False}).end(reasonCode=4)
    assert watcher.payloads(1) == ["asked for"]


def test_v5_limits_of_the_client(connect: Connect) -> None:
    topic = unique()
    client, sender = connect(properties={"maximumPacketSize": 200, "receiveMaximum": 1}), connect()
    client.subscribe(topic, 2)
    for size in (10, 300, 20, 400, 30):
        sender.publish(topic, "x" * size, 2)
    assert [len(payload) for payload in client.payloads(3)] == [10, 20, 30]


def test_v5_reason_codes(connect: Connect) -> None:
    client = connect()
    assert client.publish(unique(), "x", 1)["code"] == 0x10
    assert client.unsubscribe("never/subscribed") == [0x11]
    assert client.subscribe(["a", "/" * 200, "b"], 1) == [1, 0x97, 1]
    quiet = connect(properties={"requestProblemInformation": False})
    answer = quiet.publish(f"p2p/{unique()}/x", "x", 1)
    assert (answer["code"], answer["properties"]) == (0x10, {})


def test_v5_topic_alias_beyond_the_maximum(connect: Connect) -> None:
    with pytest.raises(Refused, match="out of range"):  # it holds to what CONNACK said
        connect().publish("a", "x", 0, topicAlias=11)
