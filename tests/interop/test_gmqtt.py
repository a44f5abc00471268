"""gmqtt, an asyncio client with an MQTT implementation of its own, against the broker: MQTT 3.1.1 and 5.0.

It shares no code with paho; it resolves the broker's topic aliases, acknowledges late where asked to, and answers with
reason codes of its user's.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest

from tests.interop.broker import HOST, P2P_CASES, WAIT, Broker, unique

gmqtt = pytest.importorskip("gmqtt")
from gmqtt.mqtt.handler import MQTTConnectError  # noqa: E402  # behind importorskip

# gmqtt leaves transports open where a connection was refused or lost.
pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")]

QUIET = 0.25
VERSIONS = pytest.mark.parametrize("version", [4, 5])


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Whatever gmqtt leaves open is collected here, and not in somebody else's test."""
    yield
    gc.collect()


class Heard(NamedTuple):
    """A message as gmqtt gives it; properties hold a list of values each."""

    topic: str
    payload: bytes
    qos: int
    properties: dict[str, Any]


class GmqttClient:
    """gmqtt's callbacks as queues."""

    def __init__(self, name: str, clean: bool, answer: Callable[[bytes], int], **options: Any) -> None:
        self.messages: asyncio.Queue[Heard] = asyncio.Queue()
        self.subacks: asyncio.Queue[tuple[int, ...]] = asyncio.Queue()
        self.unsubacks: asyncio.Queue[tuple[int, ...]] = asyncio.Queue()
        self.ends: asyncio.Queue[bytes] = asyncio.Queue()
        self.connack: dict[str, Any] = {}
        self._answer = answer
        self.session_present = False
        self.client = gmqtt.Client(name, clean_session=clean, **options)
        self.client.set_config({"reconnect_retries": 0})
        self.client.on_connect = self._connected
        self.client.on_message = self._heard
        self.client.on_subscribe = lambda client, mid, codes, properties: self.subacks.put_nowait(codes)
        self.client.on_unsubscribe = lambda client, mid, codes: self.unsubacks.put_nowait(codes)
        self.client.on_disconnect = lambda client, packet, exc=None: self.ends.put_nowait(packet)

    def _connected(self, client: Any, session_present: int, code: int, properties: dict[str, Any]) -> None:
        self.session_present, self.connack = bool(session_present), properties

    async def _heard(self, client: Any, topic: str, payload: bytes, qos: int, properties: dict[str, Any]) -> int:
        """The reason code for the acknowledgement, where the client is not to acknowledge at once."""
        self.messages.put_nowait(Heard(topic, payload, qos, properties))
        return self._answer(payload)

    async def subscribe(self, topic_filter: Any, qos: int = 0, **options: Any) -> tuple[int, ...]:
        self.client.subscribe(topic_filter, qos, **options)
        return await asyncio.wait_for(self.subacks.get(), WAIT)

    async def unsubscribe(self, topic_filter: str) -> tuple[int, ...]:
        self.client.unsubscribe(topic_filter)
        return await asyncio.wait_for(self.unsubacks.get(), WAIT)

    async def publish(self, topic: str, payload: bytes = b"", qos: int = 0, **options: Any) -> None:
        """Publish; at QoS 1 and 2 until it is acknowledged."""
        self.client.publish(topic, payload, qos, **options)
        await asyncio.wait_for(self.client._persistent_storage.wait_empty(), WAIT)

    async def receive(self) -> Heard:
        return await asyncio.wait_for(self.messages.get(), WAIT)

    async def receive_all(self, count: int) -> list[bytes]:
        return [(await self.receive()).payload for _ in range(count)]

    async def assert_quiet(self) -> None:
        await asyncio.sleep(QUIET)
        assert self.messages.empty()


@asynccontextmanager
async def client(
    port: int,
    name: str = "",
    version: int = 5,
    clean: bool = True,
    keep_alive: int = 60,
    answer: Callable[[bytes], int] = lambda payload: 0,
    **options: Any,
) -> AsyncIterator[GmqttClient]:
    """A client while the block runs; in CONNECT ``options`` are 5.0 properties by gmqtt's names."""
    connected = GmqttClient(name or unique("gmqtt"), clean, answer, **options)
    await asyncio.wait_for(connected.client.connect(HOST, port, keepalive=keep_alive, version=version), WAIT)
    try:
        yield connected
    finally:
        await asyncio.wait_for(connected.client.disconnect(), WAIT)


async def die(connected: GmqttClient) -> None:
    """Cut the connection without a DISCONNECT."""
    connected.client._is_active = False  # and do not come back
    connected.client._connection._transport.abort()
    await asyncio.wait_for(connected.ends.get(), WAIT)


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine in a loop of its own, and not for ever."""
    asyncio.run(asyncio.wait_for(test, 3 * WAIT))


def lasting(version: int) -> dict[str, Any]:
    return {"clean": False, "version": version, **({"session_expiry_interval": 300} if version == 5 else {})}


# --- connect ---------------------------------------------------------------------------------------------------------


@VERSIONS
def test_refused(broker: Broker, version: int) -> None:
    async def test() -> None:
        with pytest.raises(MQTTConnectError, match="code 133" if version == 5 else "code 2"):
            async with client(broker.port, "y" * 300, version):
                pass

    run(test())


@VERSIONS
def test_keep_alive(broker: Broker, version: int) -> None:
    async def test() -> None:
        async with client(broker.port, version=version, keep_alive=1) as connected:
            await asyncio.sleep(2.2)
            assert await connected.subscribe("awake", 1) == (1,)

    run(test())


def test_announced_limits(broker: Broker) -> None:
    async def test() -> None:
        async with client(broker.port) as connected:
            assert connected.connack["topic_alias_maximum"] == [10]
            assert connected.connack["receive_maximum"] == [1000]
            assert connected.connack["maximum_packet_size"] == [1048576]

    run(test())


# --- messages --------------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_messages_in_order(broker: Broker, version: int, qos: int) -> None:
    async def test() -> None:
        topic = unique()
        async with client(broker.port, version=version) as subscriber, client(broker.port, version=version) as sender:
            assert await subscriber.subscribe(topic, qos) == (qos,)
            for number in range(300):
                sender.client.publish(topic, b"%d" % number, qos)
            assert await subscriber.receive_all(300) == [b"%d" % number for number in range(300)]

    run(test())


@VERSIONS
def test_several_filters_and_unsubscribe(broker: Broker, version: int) -> None:
    async def test() -> None:
        topic = unique()
        async with client(broker.port, version=version) as connected:
            filters = [gmqtt.Subscription(f"{topic}/+", qos=1), gmqtt.Subscription(f"{topic}/a/b", qos=2)]
            assert await connected.subscribe(filters) == (1, 2)
            await connected.publish(f"{topic}/a/b", b"deep", 2)
            await connected.publish(f"{topic}/c", b"flat", 2)
            heard = [await connected.receive(), await connected.receive()]
            assert sorted((message.payload, message.qos) for message in heard) == [(b"deep", 2), (b"flat", 1)]
            if version == 5:  # gmqtt looks for codes in a 3.1.1 UNSUBACK, too
                assert await connected.unsubscribe(f"{topic}/+") == (0,)
                assert await connected.unsubscribe(f"{topic}/+") == (0x11,)
                await connected.publish(f"{topic}/c", b"", 1)
                await connected.assert_quiet()

    run(test())


@VERSIONS
def test_retained(broker: Broker, version: int) -> None:
    async def test() -> None:
        topic = unique()
        async with client(broker.port, version=version) as connected:
            await connected.publish(topic, b"kept", 2, retain=True)
            await connected.subscribe(topic, 1)
            message = await connected.receive()
            assert (message.payload, message.qos) == (b"kept", 1)
            await connected.publish(topic, b"", 1, retain=True)
            assert (await connected.receive()).payload == b""
        async with client(broker.port, version=version) as connected:
            await connected.subscribe(topic, 1)
            await connected.assert_quiet()

    run(test())


@VERSIONS
def test_will(broker: Broker, version: int) -> None:
    async def test() -> None:
        topic = unique()
        will = gmqtt.Message(topic, b"gone", qos=1)
        async with client(broker.port, version=version) as watcher:
            await watcher.subscribe(topic, 1)
            async with client(broker.port, version=version, will_message=will):
                pass
            await watcher.assert_quiet()
            async with client(broker.port, version=version, will_message=will) as dying:
                await die(dying)
            assert (await watcher.receive()).payload == b"gone"

    run(test())


@VERSIONS
def test_session_with_its_queue(broker: Broker, version: int) -> None:
    async def test() -> None:
        name, topic = unique(), unique()
        async with client(broker.port, name, **lasting(version)) as connected:
            assert not connected.session_present
            await connected.subscribe(topic, 2)
        async with client(broker.port, version=version) as sender:
            for qos in (0, 1, 2):
                await sender.publish(topic, b"%d" % qos, qos)
        async with client(broker.port, name, **lasting(version)) as connected:
            assert connected.session_present
            assert await connected.receive_all(2) == [b"1", b"2"]
            await connected.assert_quiet()
        async with client(broker.port, name, version) as connected:
            assert not connected.session_present

    run(test())


# --- P2P -------------------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize(("mode", "form"), P2P_CASES)
def test_p2p(broker_of: Callable[[str], Broker], version: int, mode: str, form: str) -> None:
    port = broker_of(mode).port

    async def test() -> None:
        name = unique("dev")
        topic = form.format(client_id=name, topic="sensor/temp")
        async with client(port, version=version) as listener, client(port, version=version) as sender:
            await listener.subscribe("#", 2)
            async with client(port, name, **lasting(version)) as target:
                for qos in (0, 1, 2):
                    await sender.publish(topic, b"%d" % qos, qos, retain=True)
                    message = await target.receive()
                    assert (message.topic, message.payload, message.qos) == ("sensor/temp", b"%d" % qos, qos)
                    assert message.properties["retain"] == 0
            await sender.publish(topic, b"away", 1)
            async with client(port, name, **lasting(version)) as target:
                assert await target.receive_all(1) == [b"away"]
            await listener.assert_quiet()

    run(test())


# --- 5.0 -------------------------------------------------------------------------------------------------------------


def test_v5_properties(broker: Broker) -> None:
    async def test() -> None:
        topic = unique()
        async with client(broker.port) as subscriber, client(broker.port) as sender:
            await subscriber.subscribe(topic, 1, subscription_identifier=300)
            pairs = [("k", "1"), ("k", "2")]
            await sender.publish(
                topic,
                b"x",
                1,
                content_type="a/b",
                response_topic="r/t",
                correlation_data=b"\0\1",
                payload_format_id=1,
                message_expiry_interval=50,
                user_property=pairs,
            )
            got = (await subscriber.receive()).properties
            assert (got["content_type"], got["response_topic"]) == (["a/b"], ["r/t"])
            assert (got["correlation_data"], got["payload_format_id"]) == ([b"\0\1"], [1])
            assert (got["user_property"], got["subscription_identifier"]) == (pairs, [300])
            assert 49 <= got["message_expiry_interval"][0] <= 50

    run(test())


def test_v5_aliases_from_the_broker(broker: Broker) -> None:
    async def test() -> None:
        topic = unique()
        async with client(broker.port, topic_alias_maximum=2) as subscriber, client(broker.port) as sender:
            await subscriber.subscribe(f"{topic}/#", 1)
            names = ["a", "b", "a", "c", "b", "c", "a"]
            for name in names:
                await sender.publish(f"{topic}/{name}", b"", 1)
            heard = [await subscriber.receive() for _ in names]
            assert [message.topic for message in heard] == [f"{topic}/{name}" for name in names]
            aliases = [message.properties.get("topic_alias", [0])[0] for message in heard]
            assert max(aliases) <= 2
            assert aliases[0]
            assert aliases[0] == aliases[2]

    run(test())


def test_v5_aliases_to_the_broker(broker: Broker) -> None:
    async def test() -> None:
        topic = unique()
        async with client(broker.port) as subscriber, client(broker.port) as sender:
            await subscriber.subscribe(topic, 1)
            await sender.publish(topic, b"1", 1, topic_alias=1)
            await sender.publish("", b"2", 1, topic_alias=1)
            assert [(await subscriber.receive()).topic for _ in range(2)] == [topic, topic]

    run(test())


def test_v5_alias_out_of_range(broker: Broker) -> None:
    async def test() -> None:
        async with client(broker.port) as sender:
            sender.client._is_active = False
            sender.client.publish("a", b"", topic_alias=11)
            assert (await asyncio.wait_for(sender.ends.get(), WAIT))[:1] == b"\x94"

    run(test())


def test_v5_subscribe_options(broker: Broker) -> None:
    async def test() -> None:
        topic = unique()
        async with client(broker.port) as connected, client(broker.port) as other:
            await connected.publish(topic, b"kept", 1, retain=True)
            options = {"no_local": True, "retain_as_published": True, "retain_handling_options": 2}
            await connected.subscribe(topic, 1, **options)
            await connected.publish(topic, b"own", 1)
            await other.publish(topic, b"", 1, retain=True)
            message = await connected.receive()
            assert (message.payload, message.properties["retain"]) == (b"", 1)
            await connected.assert_quiet()

    run(test())


def test_v5_shared_subscription(broker: Broker) -> None:
    async def test() -> None:
        topic = unique()
        async with client(broker.port) as one, client(broker.port) as two, client(broker.port) as sender:
            for member in (one, two):
                assert await member.subscribe(f"$share/g/{topic}", 2) == (2,)
            for number in range(10):
                await sender.publish(topic, b"%d" % number, 2)
            heard = await one.receive_all(5) + await two.receive_all(5)
            assert sorted(heard) == [b"%d" % number for number in range(10)]

    run(test())


def test_v5_shared_subscription_outlives_its_member(broker: Broker) -> None:
    async def test() -> None:
        topic = unique()
        async with client(broker.port) as one, client(broker.port) as sender:
            await one.subscribe(f"$share/g/{topic}", 1)
            async with client(broker.port) as two:
                await two.subscribe(f"$share/g/{topic}", 1)
            for number in range(4):
                await sender.publish(topic, b"%d" % number, 1)
            assert await one.receive_all(4) == [b"0", b"1", b"2", b"3"]

    run(test())


@pytest.mark.parametrize("qos", [1, 2])
def test_v5_receiver_refuses(broker: Broker, qos: int) -> None:
    """A PUBACK or PUBREC of 0x80 and above ends the delivery; the message does not come again."""

    async def test() -> None:
        name, topic = unique(), unique()
        options = {**lasting(5), "optimistic_acknowledgement": False, "receive_maximum": 1}
        answers = {b"bad": 0x99}
        async with client(broker.port) as sender:
            async with client(
                broker.port, name, answer=lambda payload: answers.get(payload, 0), **options
            ) as connected:
                await connected.subscribe(topic, qos)
                for payload in (b"bad", b"good", b"bad", b"good"):
                    await sender.publish(topic, payload, qos)
                assert await connected.receive_all(4) == [b"bad", b"good", b"bad", b"good"]
                await connected.assert_quiet()
            async with client(broker.port, name, **options) as connected:
                assert connected.session_present
                await connected.assert_quiet()

    run(test())


def test_v5_message_expiry(broker: Broker) -> None:
    async def test() -> None:
        name, topic = unique(), unique()
        async with client(broker.port, name, **lasting(5)) as connected:
            await connected.subscribe(topic, 1)
        async with client(broker.port) as sender:
            await sender.publish(topic, b"short", 1, message_expiry_interval=1)
            await sender.publish(topic, b"long", 1, message_expiry_interval=60)
        await asyncio.sleep(2.1)
        async with client(broker.port, name, **lasting(5)) as connected:
            message = await connected.receive()
            assert message.payload == b"long"
            assert 50 <= message.properties["message_expiry_interval"][0] <= 58

    run(test())


def test_v5_session_expiry_at_disconnect(broker: Broker) -> None:
    async def test() -> None:
        name = unique()
        async with client(broker.port, name, **lasting(5)) as connected:
            await connected.client.disconnect(session_expiry_interval=0)
        async with client(broker.port, name, **lasting(5)) as connected:
            assert not connected.session_present

    run(test())


def test_v5_will_with_properties(broker: Broker) -> None:
    async def test() -> None:
        topic = unique()
        will = gmqtt.Message(topic, b"gone", qos=1, will_delay_interval=1, content_type="a/b")
        async with client(broker.port) as watcher:
            await watcher.subscribe(topic, 1)
            async with client(broker.port, will_message=will, **lasting(5)) as dying:
                await die(dying)
            message = await watcher.receive()
            assert (message.payload, message.properties["content_type"]) == (b"gone", ["a/b"])
            assert "will_delay_interval" not in message.properties

    run(test())
