"""MQTT over WebSocket inside a ``twisted.web`` site, in memory, on a Clock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock
from twisted.web.http import HTTPChannel
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.net.ws_client import ACCEPT, Frames, frame, request
from tests.net.ws_wires import BINARY, CLOSE, CONNACK, CONNECT, PING, PONG, Slow
from twisted_p2pmqtt.core.timers import TICK
from twisted_p2pmqtt.net.websocket import WebSocketResource
from twisted_p2pmqtt.testing import MemoryTransport, make_broker, memory_factory


class Channel:
    """An HTTP connection to a site that has a WebSocket at /mqtt, and its MQTT factory."""

    def __init__(self, origins: tuple[str, ...] = (), **arguments: Any) -> None:
        self.clock = Clock()
        self.mqtt_factory = cast(Any, memory_factory(make_broker(self.clock), **arguments))
        self.mqtt_factory.doStop()
        root = Resource()
        root.putChild(b"mqtt", WebSocketResource(self.mqtt_factory, origins))
        self.site: Any = Site(root, reactor=self.clock)
        self.site.noisy = False
        self.site.doStart()
        self.protocol: Any = self.site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        self.protocol.callLater = self.clock.callLater
        self.transport: Any = Slow(lambda reason: self.protocol.connectionLost(reason))
        self.transport.peerAddr = IPv4Address("TCP", "192.0.2.1", 1)
        self.protocol.makeConnection(self.transport)
        self.frames = Frames()

    def send(self, data: bytes) -> bytes:
        self.protocol.dataReceived(data)
        self.clock.advance(0)
        written: bytes = self.transport.value()
        self.transport.clear()
        return written


@pytest.fixture
def channel() -> Iterator[Channel]:
    channel = Channel()
    yield channel
    channel.site.doStop()


def test_the_private_name_that_a_site_needs() -> None:
    """``HTTPChannel._networkProducer`` is where the channel is registered as producer: we take its place."""
    channel: Any = HTTPChannel()
    channel.timeOut = None
    transport: Any = MemoryTransport(channel.connectionLost)
    channel.makeConnection(transport)
    assert channel._networkProducer is transport
    assert (transport.producer, transport.streaming) == (channel, True)
    channel._networkProducer.unregisterProducer()
    assert transport.producer is None


def test_a_websocket_inside_a_site(channel: Channel) -> None:
    head = channel.send(request())
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"Sec-WebSocket-Accept: " + ACCEPT in head
    channel.frames.feed(channel.send(frame(BINARY, CONNECT)))
    channel.frames.feed(channel.send(frame(BINARY, PING)))
    assert channel.frames.data == CONNACK + PONG
    (mqtt,) = channel.mqtt_factory.connections
    assert mqtt.peer == "192.0.2.1:1"
    channel.transport.peer_closes()
    assert channel.mqtt_factory.connections == set()


def test_a_site_hands_on_what_came_with_the_request(channel: Channel) -> None:
    answer = channel.send(request() + frame(BINARY, CONNECT))
    channel.frames.feed(answer.partition(b"\r\n\r\n")[2])
    assert channel.frames.data == CONNACK


def test_a_sites_timeout_is_over_with_the_handshake(channel: Channel) -> None:
    channel.send(request())
    channel.send(frame(BINARY, CONNECT))
    for _ in range(1000):
        channel.clock.advance(TICK)
    assert not channel.transport.disconnecting


def test_time_goes_by_while_somebody_is_connected_to_a_site(channel: Channel) -> None:
    assert channel.mqtt_factory._ticker._users == 0
    channel.send(request())
    assert channel.mqtt_factory._ticker._users == 1
    for _ in range(60):
        channel.clock.advance(TICK)
    assert channel.transport.is_closed, "no CONNECT came"
    assert channel.mqtt_factory._ticker._users == 0


def test_back_pressure_inside_a_site(channel: Channel) -> None:
    channel.send(request())
    channel.send(frame(BINARY, CONNECT))
    (mqtt,) = channel.mqtt_factory.connections
    channel.transport.producer.pauseProducing()
    assert mqtt.connection.is_blocked
    channel.transport.producer.resumeProducing()
    assert not mqtt.connection.is_blocked


def test_the_end_of_a_request_that_became_a_websocket(channel: Channel) -> None:
    ended: list[object] = []
    resource = channel.site.resource.children[b"mqtt"]
    render = resource.render

    def watched(request: Any) -> Any:
        request.notifyFinish().addErrback(ended.append)
        return render(request)

    resource.render = watched
    channel.send(request())
    channel.send(frame(BINARY, CONNECT))
    channel.frames.feed(channel.send(frame(CLOSE)))
    assert channel.frames.closed is not None
    assert channel.transport.asked_to_close
    channel.transport.peer_closes()
    assert len(ended) == 1
    for _ in range(20):
        channel.clock.advance(TICK)
    assert channel.mqtt_factory.broker.stats.internal_errors == 0


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(sec_websocket_protocol="x"), 400),
        (request(upgrade=None), 426),
        (request(sec_websocket_version="8"), 426),
        (request("POST /mqtt HTTP/1.1", more=["Content-Length: 0"]), 405),
        (request("GET /mqtt HTTP/1.0"), 426),
        (request(more=["Origin: https://evil.example"]), 403),
        (request("GET /mqtt/x HTTP/1.1"), 404),
        (request("GET /mqtt/ HTTP/1.1"), 101),
    ],
)
def test_a_site_refuses(sent: bytes, status: int) -> None:
    channel = Channel(("https://good.example",))
    answer = channel.send(sent)
    assert int(answer.split()[1]) == status
    assert not channel.transport.asked_to_close or b"HTTP/1.0" in sent
    if status == 405:
        assert b"\r\nAllow: GET\r\n" in answer
    channel.site.doStop()
    channel.transport.peer_closes()


def test_limits_hold_inside_a_site() -> None:
    channel = Channel(max_connections=0)
    assert channel.send(request()) == b""
    assert channel.transport.asked_to_close
    channel.site.doStop()
    channel.transport.peer_closes()
