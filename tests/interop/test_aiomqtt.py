"""aiomqtt, the asyncio client, against the broker: MQTT 3.1, 3.1.1 and 5.0, each test in an event loop of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.interop.broker import HOST, P2P_CASES, WAIT, Broker, unique

aiomqtt = pytest.importorskip("aiomqtt")
from paho.mqtt.packettypes import PacketTypes  # noqa: E402  # behind importorskip
from paho.mqtt.properties import Properties  # noqa: E402  # behind importorskip
from paho.mqtt.subscribeoptions import SubscribeOptions  # noqa: E402  # behind importorskip

pytestmark = pytest.mark.interop

QUIET = 0.25
PROTOCOLS = {3: aiomqtt.ProtocolVersion.V31, 4: aiomqtt.ProtocolVersion.V311, 5: aiomqtt.ProtocolVersion.V5}
VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine in a loop of its own, and not for ever."""
    asyncio.run(asyncio.wait_for(test, 3 * WAIT))


def made(packet: int, **values: Any) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]  # paho's has no types
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


def client(port: int, name: str = "", version: int = 4, clean: bool = True, **more: Any) -> Any:
    """A client, to be entered; ``more`` are aiomqtt's options and, in CamelCase, CONNECT properties."""
    properties = {key: more.pop(key) for key in list(more) if key[0].isupper()}
    if version == 5:
        more.update(clean_start=clean, properties=made(PacketTypes.CONNECT, **properties))
    else:
        more.update(clean_session=clean)
    return aiomqtt.Client(
        HOST, port, identifier=name or unique("aio"), protocol=PROTOCOLS[version], timeout=WAIT, **more
    )


async def receive(connected: Any) -> Any:
    """The next message."""
    return await asyncio.wait_for(anext(connected.messages), WAIT)


async def assert_quiet(connected: Any) -> None:
    """No message comes soon."""
    await asyncio.sleep(QUIET)
    assert not len(connected.messages)


# --- connect ---------------------------------------------------------------------------------------------------------


@VERSIONS
def test_many_clients_in_one_loop(broker: Broker, version: int) -> None:
    async def test() -> None:
        topic = unique()
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(client(broker.port, version=version)) for _ in range(10)]
            await asyncio.gather(*(connected.subscribe(topic, 1) for connected in clients))
            await asyncio.gather(*(one.publish(topic, b"%d" % number, 1) for number, one in enumerate(clients)))
            for connected in clients:
                heard = sorted([(await receive(connected)).payload for _ in range(10)])
                assert heard == [b"%d" % number for number in range(10)]

    run(test())


@VERSIONS
def test_refused_client_id(broker: Broker, version: int) -> None:
    async def test() -> None:
        with pytest.raises(aiomqtt.MqttError, match=r"(?i)identifier"):
            async with client(broker.port, "y" * 300, version):
                pass

    run(test())


@VERSIONS
def test_user_name_and_password(broker: Broker, version: int) -> None:
    async def test() -> None:
        async with client(broker.port, version=version, username="anna", password="secret") as connected:
            await connected.publish("a", b"")

    run(test())


@VERSIONS
def test_idle_with_a_short_keep_alive(broker: Broker, version: int) -> None:
    async def test() -> None:
        async with client(broker.port, version=version, keepalive=1) as connected:
            await connected.subscribe("idle")
            await asyncio.sleep(1.8)
            await connected.publish("idle", b"awake")
            assert (await receive(connected)).payload == b"awake"

    run(test())


@VERSIONS
def test_taken_over(broker: Broker, version: int) -> None:
    async def test() -> None:
        name = unique()
        with pytest.raises(aiomqtt.MqttError):
            async with client(broker.port, name, version) as first, client(broker.port, name, version):
                await receive(first)

    run(test())


# --- messages --------------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_in_order(broker: Broker, version: int, qos: int) -> None:
    async def test() -> None:
        topic = unique()
        async with client(broker.port, version=version) as subscriber, client(broker.port, version=version) as sender:
            granted = await subscriber.subscribe(topic, qos)
            assert [getattr(code, "value", code) for code in granted] == [qos]
            for number in range(50):
                await sender.publish(topic, b"%d" % number, qos)
            for number in range(50):
                message = await receive(subscriber)
                assert (message.payload, message.qos) == (b"%d" % number, qos)

    run(test())


@VERSIONS
def test_retained(broker: Broker, version: int) -> None:
    async def test() -> None:
        topic = unique()
        async with client(broker.port, version=version) as connected:
            await connected.publish(topic, b"kept", 1, retain=True)
            await connected.subscribe(f"{topic}/#", 1)
            message = await receive(connected)
            assert (message.payload, message.retain, message.qos) == (b"kept", True, 1)
            await connected.publish(topic, b"", 1, retain=True)
            assert not (await receive(connected)).retain
            await connected.unsubscribe(f"{topic}/#")
            await connected.subscribe(topic)
            await assert_quiet(connected)

    run(test())


async def die(port: int, version: int, will: Any, **properties: Any) -> None:
    """Connect, and be cut off: leaving the block raises, for there is no connection left to say DISCONNECT on."""
    async with client(port, version=version, will=will, **properties) as dying:
        dying._client.socket().shutdown(socket.SHUT_RDWR)
        await receive(dying)


@VERSIONS
def test_will(broker: Broker, version: int) -> None:
    async def test() -> None:
        topic = unique()
        will = aiomqtt.Will(topic, b"gone", 1)
        async with client(broker.port, version=version) as watcher:
            await watcher.subscribe(topic, 1)
            async with client(broker.port, version=version, will=will):
                pass
            await assert_quiet(watcher)
            with pytest.raises(aiomqtt.MqttError):
                await die(broker.port, version, will)
            assert (await receive(watcher)).payload == b"gone"

    run(test())


@VERSIONS
def test_session_with_its_queue(broker: Broker, version: int) -> None:
    async def test() -> None:
        name, topic = unique(), unique()
        lasting = {"SessionExpiryInterval": 300} if version == 5 else {}
        async with client(broker.port, name, version, False, **lasting) as connected:
            await connected.subscribe(topic, 2)
        async with client(broker.port, version=version) as sender:
            for number in range(5):
                await sender.publish(topic, b"%d" % number, 2)
            await sender.publish(topic, b"lost", 0)
        async with client(broker.port, name, version, False, **lasting) as connected:
            assert [(await receive(connected)).payload for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
            await assert_quiet(connected)
        async with client(broker.port, name, version, True) as connected:
            await connected.publish(topic, b"forgotten", 1)
            await assert_quiet(connected)

    run(test())


# --- P2P -------------------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize(("mode", "form"), P2P_CASES)
def test_p2p(broker_of: Callable[[str], Broker], version: int, mode: str, form: str) -> None:
    port = broker_of(mode).port

    async def test() -> None:
        name = unique("dev")
        topic = form.format(client_id=name, topic="sensor/temp")
        lasting = {"SessionExpiryInterval": 300} if version == 5 else {}
        async with AsyncExitStack() as stack:
            listener = await stack.enter_async_context(client(port, version=version))
            sender = await stack.enter_async_context(client(port, version=version))
            await listener.subscribe("#", 2)
            async with client(port, name, version, False, **lasting) as target:
                for qos in (0, 1, 2):
                    await sender.publish(topic, b"%d" % qos, qos)
                    message = await receive(target)
                    assert (str(message.topic), message.payload, message.qos) == ("sensor/temp", b"%d" % qos, qos)
            await sender.publish(topic, b"away", 2)
            async with client(port, name, version, False, **lasting) as target:
                assert (await receive(target)).payload == b"away"
            await sender.publish("last", b"")
            assert str((await receive(listener)).topic) == "last"

    run(test())


# --- 5.0 -------------------------------------------------------------------------------------------------------------


def test_v5_properties_and_aliases(broker: Broker) -> None:
    async def test() -> None:
        topic = unique()
        pairs = [("k", "1"), ("k", "2")]
        async with client(broker.port, version=5) as subscriber, client(broker.port, version=5) as sender:
            await subscriber.subscribe(topic, 1)
            properties = made(
                PacketTypes.PUBLISH,
                TopicAlias=10,
                ContentType="a/b",
                ResponseTopic="r",
                CorrelationData=b"\1\2",
                PayloadFormatIndicator=1,
                MessageExpiryInterval=9,
                UserProperty=pairs,
            )
            await sender.publish(topic, b"1", 1, properties=properties)
            await sender.publish("", b"2", 1, properties=made(PacketTypes.PUBLISH, TopicAlias=10))
            got = (await receive(subscriber)).properties
            assert (got.ContentType, got.ResponseTopic, got.CorrelationData) == ("a/b", "r", b"\1\2")
            assert (got.PayloadFormatIndicator, got.UserProperty) == (1, pairs)
            assert 8 <= got.MessageExpiryInterval <= 9
            message = await receive(subscriber)
            assert (str(message.topic), message.payload) == (topic, b"2")

    run(test())


def test_v5_subscribe_options(broker: Broker) -> None:
    async def test() -> None:
        topic = unique()
        async with client(broker.port, version=5) as connected, client(broker.port, version=5) as other:
            await connected.publish(topic, b"kept", 1, retain=True)
            options = SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True, retainHandling=2)
            identifier = made(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=7)
            await connected.subscribe(topic, options=options, properties=identifier)
            await connected.publish(topic, b"own", 1)
            await other.publish(topic, b"", 1, retain=True)
            message = await receive(connected)
            assert (message.payload, message.retain, message.properties.SubscriptionIdentifier) == (b"", True, [7])
            await assert_quiet(connected)

    run(test())


def test_v5_shared_subscription(broker: Broker) -> None:
    async def test() -> None:
        topic = unique()
        async with AsyncExitStack() as stack:
            members = [await stack.enter_async_context(client(broker.port, version=5)) for _ in range(2)]
            sender = await stack.enter_async_context(client(broker.port, version=5))
            for member in members:
                await member.subscribe(f"$share/g/{topic}", 1)
            for number in range(10):
                await sender.publish(topic, b"%d" % number, 1)
            heard: list[bytes] = []
            for member in members:  # Python 3.10 knows no comprehension of comprehensions that wait
                heard += [(await receive(member)).payload for _ in range(5)]
            assert sorted(heard) == [b"%d" % number for number in range(10)]

    run(test())


def test_v5_message_expiry(broker: Broker) -> None:
    async def test() -> None:
        name, topic = unique(), unique()
        async with client(broker.port, name, 5, False, SessionExpiryInterval=300) as connected:
            await connected.subscribe(topic, 1)
        async with client(broker.port, version=5) as sender:
            for payload, interval in ((b"short", 1), (b"long", 100)):
                await sender.publish(
                    topic, payload, 1, properties=made(PacketTypes.PUBLISH, MessageExpiryInterval=interval)
                )
        await asyncio.sleep(2.1)
        async with client(broker.port, name, 5, False, SessionExpiryInterval=300) as connected:
            assert (await receive(connected)).payload == b"long"
            await assert_quiet(connected)

    run(test())


def test_v5_will_with_the_end_of_the_session(broker: Broker) -> None:
    async def test() -> None:
        topic = unique()
        properties = made(PacketTypes.WILLMESSAGE, WillDelayInterval=300, ContentType="text/plain")
        will = aiomqtt.Will(topic, b"gone", 1, properties=properties)
        async with client(broker.port, version=5) as watcher:
            await watcher.subscribe(topic, 1)
            with pytest.raises(aiomqtt.MqttError):
                await die(broker.port, 5, will, SessionExpiryInterval=2)
            await assert_quiet(watcher)
            message = await receive(watcher)
            assert (message.payload, message.properties.ContentType) == (b"gone", "text/plain")

    run(test())


def test_v5_refused_subscription(broker: Broker) -> None:
    async def test() -> None:
        async with client(broker.port, version=5) as connected:
            codes = await connected.subscribe([("a", SubscribeOptions(qos=2)), ("/" * 200, SubscribeOptions(qos=1))])
            assert [code.value for code in codes] == [2, 0x97]  # deeper than it may be here

    run(test())
