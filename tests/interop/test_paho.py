"""paho-mqtt 2 against the broker, in MQTT 3.1, 3.1.1 and 5.0: what all three have.  5.0's own is in test_paho_v5."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.interop.broker import P2P_CASES, Broker, unique
from tests.interop.paho_client import PahoClient

pytestmark = pytest.mark.interop

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
Connect = Callable[..., PahoClient]


@pytest.fixture
def connect(broker: Broker) -> Iterator[Connect]:
    """Connects a client to the broker on its defaults, unless told another port; all are closed behind the test."""
    clients: list[PahoClient] = []

    def connect(client_id: str | None = None, port: int = 0, **more: Any) -> PahoClient:
        client = PahoClient(port or broker.port, unique("paho") if client_id is None else client_id, **more)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


def persistent(version: int) -> dict[str, Any]:
    """CONNECT's options for a session that stays."""
    return {"version": version, "clean": False, **({"SessionExpiryInterval": 300} if version == 5 else {})}


# --- connect ---------------------------------------------------------------------------------------------------------


@VERSIONS
def test_connects_with_a_clean_session(connect: Connect, version: int) -> None:
    name = unique()
    assert not connect(name, version=version).connack.session_present
    assert not connect(name, version=version).connack.session_present


@pytest.mark.parametrize("version", [4, 5])
def test_empty_client_id_gets_one(connect: Connect, version: int) -> None:
    client, other = connect("", version=version), connect("", version=version)
    assert client.connack.code == other.connack.code == 0
    if version == 5:
        assigned = client.connack.get("AssignedClientIdentifier")
        assert assigned
        assert assigned != other.connack.get("AssignedClientIdentifier")


@VERSIONS
def test_long_client_id(connect: Connect, version: int) -> None:
    connect(unique("x" * 200), version=version)


@VERSIONS
def test_refused_client_id(connect: Connect, version: int) -> None:
    client = connect("y" * 300, version=version, expected=None)
    assert client.connack.code == 0x85  # paho gives 3.x return codes by their 5.0 names
    client.end()


@VERSIONS
def test_user_name_and_password_are_taken(connect: Connect, version: int) -> None:
    connect(version=version, username="anna", password="secret")
    connect(version=version, username="anna")


@VERSIONS
def test_taken_over_by_the_same_id(connect: Connect, version: int) -> None:
    name = unique()
    first = connect(name, version=version)
    second = connect(name, version=version)
    assert first.end().code == (0x8E if version == 5 else -1)
    second.subscribe(name)
    second.publish(name, b"still here")
    assert second.receive().payload == b"still here"


def test_keep_alive_holds_idle_clients(connect: Connect) -> None:
    clients = [connect(version=version, keep_alive=1) for version in (3, 4, 5)]
    with pytest.raises(queue.Empty):
        clients[0].end(timeout=2.5)
    assert all(client.ends.empty() for client in clients)
    assert [client.subscribe("still/there").codes for client in clients] == [[0]] * 3


# --- messages --------------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
def test_qos_is_the_lower_of_the_two(connect: Connect, version: int, published: int, granted: int) -> None:
    topic = unique("qos")
    subscriber, publisher = connect(version=version), connect(version=version)
    assert subscriber.subscribe(topic, granted).codes == [granted]
    assert publisher.publish(topic, b"\0payload\xff", published).code == 0
    message = subscriber.receive()
    assert (message.topic, message.payload) == (topic, b"\0payload\xff")
    assert (message.qos, message.retain, message.dup) == (min(published, granted), False, False)
    publisher.publish(topic, b"end", published)
    assert subscriber.receive().payload == b"end"  # and not the first one again


@pytest.mark.parametrize("sender", [3, 4, 5])
@pytest.mark.parametrize("receiver", [3, 4, 5])
def test_versions_understand_each_other(connect: Connect, sender: int, receiver: int) -> None:
    topic = unique("mixed")
    subscriber = connect(version=receiver)
    subscriber.subscribe(topic, 2)
    publisher = connect(version=sender)
    for qos in (0, 1, 2):
        publisher.publish(topic, b"%d" % qos, qos)
    assert subscriber.receive_all(3) == [b"0", b"1", b"2"]


@VERSIONS
@pytest.mark.parametrize("qos", [1, 2])
def test_order_and_large_payloads(connect: Connect, version: int, qos: int) -> None:
    topic = unique("order")
    subscriber, publisher = connect(version=version), connect(version=version)
    subscriber.subscribe(topic, 2)
    payloads = [b"%d " % number + b"x" * (number * 997) for number in range(100)]
    for payload in payloads:
        publisher.client.publish(topic, payload, qos)
    assert subscriber.receive_all(len(payloads)) == payloads


@VERSIONS
def test_wildcards_and_unsubscribe(connect: Connect, version: int) -> None:
    root = unique("wild")
    client = connect(version=version)
    client.subscribe(f"{root}/+/b")
    client.subscribe(f"{root}/c/#")
    for topic in ("a/b", "a/b/c", "c", "c/d/e", "/b"):
        client.publish(f"{root}/{topic}", topic.encode())
    assert client.receive_all(4) == [b"a/b", b"c", b"c/d/e", b"/b"]
    client.unsubscribe(f"{root}/c/#")
    client.publish(f"{root}/c", b"not heard")
    client.publish(f"{root}/z/b", b"heard")
    assert client.receive_all(1) == [b"heard"]


@VERSIONS
def test_retained_message_is_kept_replaced_and_cleared(connect: Connect, version: int) -> None:
    topic = unique("retained")
    publisher = connect(version=version)
    publisher.publish(topic, b"first", 1, retain=True)
    publisher.publish(topic, b"second", 2, retain=True)
    publisher.publish(topic, b"passing", 1)
    subscriber = connect(version=version)
    subscriber.subscribe(topic, 1)
    message = subscriber.receive()
    assert (message.payload, message.retain, message.qos) == (b"second", True, 1)
    publisher.publish(topic, b"third", 1, retain=True)
    message = subscriber.receive()
    assert (message.payload, message.retain) == (b"third", False)
    publisher.publish(topic, b"", 1, retain=True)
    assert subscriber.receive().payload == b""
    late = connect(version=version)
    late.subscribe(topic, 1)
    late.assert_quiet()


# --- wills -----------------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_will_of_a_client_that_dies(connect: Connect, version: int, qos: int) -> None:
    topic = unique("will")
    watcher = connect(version=version)
    watcher.subscribe(topic, 2)
    connect(version=version, will={"topic": topic, "payload": b"gone", "qos": qos, "retain": True}).drop()
    message = watcher.receive()
    assert (message.payload, message.qos) == (b"gone", qos)
    late = connect(version=version)
    late.subscribe(topic, 2)
    assert late.receive().retain
    late.publish(topic, b"", retain=True)


@VERSIONS
def test_no_will_of_a_client_that_says_goodbye(connect: Connect, version: int) -> None:
    topic = unique("will")
    watcher = connect(version=version)
    watcher.subscribe(topic)
    connect(version=version, will={"topic": topic, "payload": b"gone"}).close()
    watcher.assert_quiet()


def test_wills_of_clients_that_fall_silent(connect: Connect) -> None:
    topic = unique("will")
    watcher = connect()
    watcher.subscribe(topic)
    for version in (3, 4, 5):
        silent = connect(version=version, keep_alive=1, will={"topic": topic, "payload": b"%d" % version})
        silent.client.loop_stop()  # no PINGREQ any more
    assert sorted(watcher.receive_all(3)) == [b"3", b"4", b"5"]


# --- sessions --------------------------------------------------------------------------------------------------------


@VERSIONS
def test_session_waits_with_its_messages(connect: Connect, version: int) -> None:
    name, topic = unique(), unique("queue")
    client = connect(name, **persistent(version))
    client.subscribe(topic, 2)
    client.close()
    publisher = connect(version=version)
    for qos in (0, 1, 2):
        publisher.publish(topic, b"%d" % qos, qos)
    client = connect(name, **persistent(version))
    assert client.connack.session_present or version == 3  # 3.1 has no such flag
    assert client.receive_all(2) == [b"1", b"2"]
    client.assert_quiet()


@VERSIONS
def test_clean_session_forgets(connect: Connect, version: int) -> None:
    name, topic = unique(), unique("queue")
    client = connect(name, **persistent(version))
    client.subscribe(topic, 1)
    client.close()
    connect(version=version).publish(topic, b"lost", 1)
    client = connect(name, version=version, clean=True)
    assert not client.connack.session_present
    client.assert_quiet()
    client.close()
    assert not connect(name, **persistent(version)).connack.session_present


@VERSIONS
def test_unacknowledged_messages_come_again(connect: Connect, version: int) -> None:
    name, topic = unique(), unique("again")
    client = connect(name, manual_ack=True, **persistent(version))
    client.subscribe(topic, 1)
    publisher = connect(version=version)
    publisher.publish(topic, b"a", 1)
    publisher.publish(topic, b"b", 1)
    assert not client.receive().dup
    client.drop()
    client = connect(name, **persistent(version))
    messages = [client.receive() for _ in range(2)]
    assert [message.payload for message in messages] == [b"a", b"b"]
    assert messages[0].dup


# --- P2P -------------------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize(("mode", "form"), P2P_CASES)
def test_p2p(connect: Connect, broker_of: Callable[[str], Broker], version: int, mode: str, form: str) -> None:
    port = broker_of(mode).port
    name = unique("dev")
    target = connect(name, port, **persistent(version))
    listener, sender = connect(None, port, version=version), connect(None, port, version=version)
    listener.subscribe("#", 2)
    topic = form.format(client_id=name, topic="sensor/temp")
    for qos in (0, 1, 2):
        answer = sender.publish(topic, b"%d" % qos, qos, retain=qos == 1)
        if version == 5 and qos == 1:  # at QoS 2 it stands in PUBREC, which paho does not show
            assert answer.get("UserProperty") == [("p2p-status", "online")]
        message = target.receive()
        assert (message.topic, message.payload, message.qos) == ("sensor/temp", b"%d" % qos, qos)
        assert not message.retain
    target.close()
    for qos in (0, 1, 2):
        sender.publish(topic, b"away %d" % qos, qos)
    target = connect(name, port, **persistent(version))
    assert target.receive_all(2) == [b"away 1", b"away 2"]
    target.assert_quiet()
    listener.assert_quiet()


@VERSIONS
def test_p2p_to_oneself_and_to_nobody(connect: Connect, version: int) -> None:
    name = unique("dev")
    client = connect(name, version=version)
    answer = client.publish(f"p2p/{unique('nobody')}/x", b"", 1)
    assert answer.code == (0x10 if version == 5 else 0)
    answer = client.publish(f"p2p/{name}", b"malformed", 1)
    assert answer.code == (0x90 if version == 5 else 0)
    client.publish(f"p2p/{name}/me", b"myself", 1)
    assert client.receive().payload == b"myself"


@VERSIONS
def test_p2p_will(connect: Connect, version: int) -> None:
    target_name = unique("dev")
    target = connect(target_name, version=version)
    connect(version=version, will={"topic": f"p2p/{target_name}/bye", "payload": b"gone", "qos": 1}).drop()
    message = target.receive()
    assert (message.topic, message.payload) == ("bye", b"gone")
