"""paho-mqtt 2 against the broker: what only MQTT 5.0 has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.interop.broker import Broker, eventually, unique
from tests.interop.paho_client import PahoClient, make_properties

pytestmark = pytest.mark.interop

Connect = Callable[..., PahoClient]
NEVER = 0xFFFFFFFF


@pytest.fixture
def connect(broker: Broker) -> Iterator[Connect]:
    """Connects a 5.0 client to the broker on its defaults; all are closed behind the test."""
    clients: list[PahoClient] = []

    def connect(client_id: str | None = None, **more: Any) -> PahoClient:
        client = PahoClient(broker.port, unique("paho5") if client_id is None else client_id, version=5, **more)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        client.close()


# --- CONNECT, CONNACK, DISCONNECT ------------------------------------------------------------------------------------


def test_connack_tells_the_limits(connect: Connect) -> None:
    connack = connect(keep_alive=65535).connack
    assert (connack.get("TopicAliasMaximum"), connack.get("ReceiveMaximum")) == (10, 1000)
    assert connack.get("MaximumPacketSize") == 1048576
    for absent in ("AssignedClientIdentifier", "ServerKeepAlive", "MaximumQoS", "RetainAvailable", "ReasonString"):
        assert connack.get(absent) is None


@pytest.mark.parametrize(
    ("code", "connect_options"),
    [
        (0x85, {"client_id": "control\x01character"}),
        (0x85, {"client_id": "z" * 257}),
        (0x8C, {"AuthenticationMethod": "no-such-method"}),
        (0x87, {"will": {"topic": "$SYS/broker", "payload": b"x"}}),
        (0x90, {"will": {"topic": "p2p/nobody", "payload": b"x"}}),
    ],
)
def test_refusals(connect: Connect, code: int, connect_options: dict[str, Any]) -> None:
    client = connect(expected=None, **connect_options)
    assert client.connack.code == code
    client.end()


def test_response_information(connect: Connect) -> None:
    name = unique()
    assert connect(name, RequestResponseInformation=1).connack.get("ResponseInformation") == f"p2p/{name}"
    assert connect(name).connack.get("ResponseInformation") is None


def test_session_expiry_intervals(connect: Connect) -> None:
    name = unique()

    def come_and_go(clean: bool = False, **properties: Any) -> bool:
        client = connect(name, clean=clean, **properties)
        client.close()
        return client.connack.session_present

    assert not come_and_go(True)
    assert not come_and_go(SessionExpiryInterval=300)  # none before: the last one ended with its connection
    assert come_and_go(SessionExpiryInterval=300)
    assert come_and_go(SessionExpiryInterval=1)
    time.sleep(2.2)
    assert not come_and_go(SessionExpiryInterval=NEVER)


def test_session_expiry_is_capped_and_told(connect: Connect) -> None:
    assert connect(SessionExpiryInterval=NEVER).connack.get("SessionExpiryInterval") == 604800


def test_session_expiry_changes_at_disconnect(connect: Connect) -> None:
    name = unique()
    connect(name, clean=False, SessionExpiryInterval=300).close(SessionExpiryInterval=0)
    client = connect(name, clean=False, SessionExpiryInterval=1)
    assert not client.connack.session_present
    client.close(SessionExpiryInterval=300)
    time.sleep(2.2)
    assert connect(name, clean=False).connack.session_present


def test_maximum_packet_size_of_the_client(connect: Connect) -> None:
    topic = unique()
    small, large = connect(MaximumPacketSize=100), connect()
    for client in (small, large):
        client.subscribe(topic, 1)
    large.publish(topic, b"x" * 200, 1)
    large.publish(topic, b"fits", 1)
    assert large.receive_all(2) == [b"x" * 200, b"fits"]
    assert small.receive().payload == b"fits"
    small.assert_quiet()


def test_receive_maximum_of_the_client(connect: Connect) -> None:
    topic = unique()
    slow = connect(manual_ack=True, ReceiveMaximum=2)
    slow.subscribe(topic, 1)
    publisher = connect()
    for number in range(4):
        publisher.publish(topic, b"%d" % number, 1)
    first, second = slow.receive(), slow.receive()
    slow.assert_quiet()
    slow.client.ack(first.mid, 1)
    third = slow.receive()
    slow.assert_quiet()
    slow.client.ack(second.mid, 1)
    slow.client.ack(third.mid, 1)
    assert slow.receive().payload == b"3"


# --- PUBLISH ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_properties_travel_unchanged(connect: Connect, qos: int) -> None:
    topic = unique()
    subscriber, publisher = connect(), connect()
    subscriber.subscribe(topic, 2)
    pairs = [("b", "2"), ("a", "1"), ("b", "2"), ("", "é")]
    publisher.publish(
        topic,
        "text é".encode(),
        qos,
        PayloadFormatIndicator=1,
        MessageExpiryInterval=100,
        ContentType="text/plain",
        ResponseTopic="answers/here",
        CorrelationData=b"\0\xff",
        UserProperty=pairs,
    )
    got = subscriber.receive().properties
    assert (got.PayloadFormatIndicator, got.ContentType, got.ResponseTopic) == (1, "text/plain", "answers/here")
    assert (got.CorrelationData, got.UserProperty) == (b"\0\xff", pairs)
    assert 99 <= got.MessageExpiryInterval <= 100
    assert not hasattr(got, "SubscriptionIdentifier")


def test_topic_aliases_to_the_broker(connect: Connect) -> None:
    topic, other = unique(), unique()
    subscriber, publisher = connect(), connect()
    subscriber.subscribe(topic, 1)
    subscriber.subscribe(other, 1)
    publisher.publish(topic, b"1", 1, TopicAlias=3)
    publisher.publish("", b"2", 0, TopicAlias=3)
    publisher.publish(other, b"3", 1, TopicAlias=3)
    publisher.publish("", b"4", 1, TopicAlias=3)
    messages = [subscriber.receive() for _ in range(4)]
    assert [(m.topic, m.payload) for m in messages] == [(topic, b"1"), (topic, b"2"), (other, b"3"), (other, b"4")]
    assert not any(hasattr(message.properties, "TopicAlias") for message in messages)


def test_topic_aliases_from_the_broker(connect: Connect) -> None:
    topic = unique()
    subscriber, publisher = connect(TopicAliasMaximum=1), connect()
    subscriber.subscribe(f"{topic}/#", 1)
    for name in ("a", "a", "b"):
        publisher.publish(f"{topic}/{name}", b"", 1)
    messages = [subscriber.receive() for _ in range(3)]
    # paho leaves it to its user to look aliases up.
    assert [message.topic for message in messages] == [f"{topic}/a", "", f"{topic}/b"]
    assert [getattr(message.properties, "TopicAlias", 0) for message in messages] == [1, 1, 0]


@pytest.mark.parametrize("alias", [11, 65535])
def test_topic_alias_beyond_the_maximum(connect: Connect, alias: int) -> None:
    client = connect()
    client.client.publish("a", b"", properties=make_properties("PUBLISH", TopicAlias=alias))
    assert client.end().code == 0x94


def test_message_expiry(connect: Connect) -> None:
    name, topic = unique(), unique()
    client = connect(name, clean=False, SessionExpiryInterval=300)
    client.subscribe(topic, 1)
    client.close()
    publisher = connect()
    publisher.publish(topic, b"short", 1, MessageExpiryInterval=1)
    publisher.publish(topic, b"long", 1, MessageExpiryInterval=60)
    publisher.publish(topic, b"endless", 1)
    publisher.publish(f"{topic}/retained", b"short", 1, retain=True, MessageExpiryInterval=1)
    publisher.publish(f"{topic}/kept", b"long", 1, retain=True, MessageExpiryInterval=60)
    time.sleep(2.2)
    client = connect(name, clean=False, SessionExpiryInterval=300)
    message = client.receive()
    assert message.payload == b"long"
    assert 50 <= message.properties.MessageExpiryInterval <= 58
    assert client.receive().payload == b"endless"
    late = connect()
    late.subscribe(f"{topic}/+", 1)
    message = late.receive()
    assert (message.payload, message.retain) == (b"long", True)
    assert 50 <= message.properties.MessageExpiryInterval <= 58
    late.assert_quiet()
    publisher.publish(f"{topic}/kept", b"", 1, retain=True)


def test_request_and_response(connect: Connect) -> None:
    service, asker = connect(), connect()
    service.subscribe("service/add", 1)
    reply_to = unique("reply")
    asker.subscribe(reply_to, 1)
    asker.publish("service/add", b"1+1", 1, ResponseTopic=reply_to, CorrelationData=b"7")
    request = service.receive().properties
    service.publish(request.ResponseTopic, b"2", 1, CorrelationData=request.CorrelationData)
    answer = asker.receive()
    assert (answer.payload, answer.properties.CorrelationData) == (b"2", b"7")


def test_request_and_response_by_p2p(connect: Connect) -> None:
    service, asker = connect(unique("service")), connect(RequestResponseInformation=1)
    service_name = service.client._client_id.decode()
    reply_to = asker.connack.get("ResponseInformation") + "/sum"
    asker.publish(f"p2p/{service_name}/add", b"1+1", 1, ResponseTopic=reply_to, CorrelationData=b"7")
    request = service.receive()
    assert (request.topic, dict(request.properties.UserProperty)["p2p-from"]) == (
        "add",
        asker.client._client_id.decode(),
    )
    service.publish(request.properties.ResponseTopic, b"2", 1, CorrelationData=request.properties.CorrelationData)
    answer = asker.receive()
    assert (answer.topic, answer.payload, answer.properties.CorrelationData) == ("sum", b"2", b"7")


def test_reason_codes(connect: Connect) -> None:
    client = connect()
    assert client.publish(unique(), b"", 1).code == 0x10
    assert client.publish("$SYS/broker/version", b"", 1).code == 0x87
    assert client.publish("p2p/x", b"", 1).code == 0x90
    assert client.publish(f"p2p/{unique()}/x", b"", 1).code == 0x10
    assert client.unsubscribe("never/subscribed").codes == [0x11]
    client.subscribe("a")
    assert client.unsubscribe("a").codes == [0]


def test_problem_information_only_where_wanted(connect: Connect) -> None:
    name = unique()
    connect(name, clean=False, SessionExpiryInterval=300).close()
    for wanted, expected in ((1, [("p2p-status", "queued")]), (0, None)):
        answer = connect(RequestProblemInformation=wanted).publish(f"p2p/{name}/x", b"", 1)
        assert (answer.code, answer.get("UserProperty"), answer.get("ReasonString")) == (0, expected, None)


# --- SUBSCRIBE -------------------------------------------------------------------------------------------------------


def test_subscription_identifiers(connect: Connect) -> None:
    topic = unique()
    client = connect()
    client.subscribe(f"{topic}/+", 1, identifier=268435455)
    client.subscribe(f"{topic}/a", 2, identifier=1)
    client.subscribe(f"{topic}/#", 0)
    client.publish(f"{topic}/a", b"both", 2)
    message = client.receive()
    assert (message.qos, sorted(message.properties.SubscriptionIdentifier)) == (2, [1, 268435455])
    client.publish(f"{topic}/b", b"one", 2)
    message = client.receive()
    assert (message.qos, message.properties.SubscriptionIdentifier) == (1, [268435455])
    client.publish(topic, b"none", 2)
    assert not hasattr(client.receive().properties, "SubscriptionIdentifier")
    client.subscribe(f"{topic}/+", 1)  # again, without
    client.publish(f"{topic}/b", b"", 2)
    assert not hasattr(client.receive().properties, "SubscriptionIdentifier")
    client.assert_quiet()


def test_no_local(connect: Connect) -> None:
    topic = unique()
    client, other = connect(), connect()
    client.subscribe(topic, 1, noLocal=True)
    client.publish(topic, b"own", 1)
    other.publish(topic, b"other's", 1)
    assert client.receive().payload == b"other's"
    client.assert_quiet()


def test_retain_handling(connect: Connect) -> None:
    topic = unique()
    client = connect()
    client.publish(topic, b"kept", 1, retain=True)
    client.subscribe(topic, 1, retainHandling=2)
    client.assert_quiet()
    client.subscribe(topic, 1, retainHandling=1)  # not new
    client.assert_quiet()
    client.subscribe(topic, 1, retainHandling=0)
    assert client.receive().retain
    client.unsubscribe(topic)
    client.subscribe(topic, 1, retainHandling=1)
    assert client.receive().retain
    client.publish(topic, b"", 1, retain=True)


def test_retain_as_published(connect: Connect) -> None:
    topic = unique()
    bridge, plain, publisher = connect(), connect(), connect()
    bridge.subscribe(topic, 1, retainAsPublished=True)
    plain.subscribe(topic, 1)
    publisher.publish(topic, b"", 1, retain=True)
    publisher.publish(topic, b"", 1)
    assert [bridge.receive().retain, bridge.receive().retain] == [True, False]
    assert [plain.receive().retain, plain.receive().retain] == [False, False]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_shared_subscription(connect: Connect, qos: int) -> None:
    topic = unique()
    members = [connect() for _ in range(3)]
    for member in members:
        member.subscribe(f"$share/workers/{topic}/+", 2)
    watcher, publisher = connect(), connect()
    watcher.subscribe(f"{topic}/#", 2)
    for number in range(30):
        publisher.publish(f"{topic}/x", b"%d" % number, qos)
    assert watcher.receive_all(30) == [b"%d" % number for number in range(30)]
    eventually(lambda: sum(member.messages.qsize() for member in members) == 30, "each message to one member")
    assert all(member.messages.qsize() == 10 for member in members)


def test_shared_subscription_prefers_those_who_are_there(connect: Connect) -> None:
    topic = unique()
    away = connect(clean=False, SessionExpiryInterval=300)
    away.subscribe(f"$share/g/{topic}", 1)
    away.close()
    here, publisher = connect(), connect()
    here.subscribe(f"$share/g/{topic}", 1)
    for number in range(4):
        publisher.publish(topic, b"%d" % number, 1)
    assert here.receive_all(4) == [b"0", b"1", b"2", b"3"]


def test_no_retained_messages_for_shared_subscriptions(connect: Connect) -> None:
    topic = unique()
    client = connect()
    client.publish(topic, b"kept", 1, retain=True)
    client.subscribe(f"$share/g/{topic}", 1)
    client.assert_quiet()
    client.publish(topic, b"", 1, retain=True)


# --- wills -----------------------------------------------------------------------------------------------------------


def test_will_delay(connect: Connect) -> None:
    name, topic = unique(), unique()
    watcher = connect()
    watcher.subscribe(topic, 1)
    will = {"topic": topic, "payload": b"gone", "qos": 1}
    will["properties"] = make_properties("WILLMESSAGE", WillDelayInterval=1, ContentType="text/plain")
    connect(name, clean=False, SessionExpiryInterval=300, will=will).drop()
    connect(name, clean=False, SessionExpiryInterval=300, will=will).drop()  # back in time: no first will
    start = time.monotonic()
    message = watcher.receive()
    assert 0.5 < time.monotonic() - start < 4
    assert (message.payload, message.properties.ContentType) == (b"gone", "text/plain")
    assert not hasattr(message.properties, "WillDelayInterval")
    watcher.assert_quiet()


def test_will_with_the_end_of_the_session(connect: Connect) -> None:
    topic = unique()
    watcher = connect()
    watcher.subscribe(topic, 1)
    will = {"topic": topic, "payload": b"gone", "properties": make_properties("WILLMESSAGE", WillDelayInterval=300)}
    connect(will=will).drop()  # Session Expiry Interval 0
    assert watcher.receive().payload == b"gone"


def test_disconnect_with_will(connect: Connect) -> None:
    topic = unique()
    watcher = connect()
    watcher.subscribe(topic, 1)
    connect(will={"topic": topic, "payload": b"asked for"}).close(code=4)
    assert watcher.receive().payload == b"asked for"
