"""The opening handshake of a WebSocket on a port of its own: what is accepted, refused, bounded; all in memory."""

from __future__ import annotations

import pytest

from tests.net.ws_client import ACCEPT, frame, request
from tests.net.ws_wires import BINARY, CONNACK, CONNECT, Wire, served
from twisted_p2pmqtt.core.timers import TICK
from twisted_p2pmqtt.net.outbox import CLOSE_TIMEOUT
from twisted_p2pmqtt.net.websocket_handshake import MAX_HEAD


@pytest.mark.spec("MQTT-6.0.0-4", "MQTT3-6.0.0-4")
def test_the_answer() -> None:
    wire = Wire(served())
    wire.send(request())
    head, _, rest = wire.written().partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + ACCEPT,
        b"Sec-WebSocket-Protocol: mqtt",
    ]
    assert rest == b""


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("mqtt", b"mqtt"),
        ("mqttv3.1", b"mqttv3.1"),
        ("graphql-ws, mqttv3.1 ,mqtt", b"mqtt"),
        ("MQTT", None),
        ("mqtt2", None),
        ("", None),
        (None, None),
    ],
)
def test_the_subprotocol(offered: str | None, chosen: bytes | None) -> None:
    wire = Wire(served())
    wire.send(request(sec_websocket_protocol=offered))
    assert wire.status() == (101 if chosen else 400)
    assert chosen is None or b"Sec-WebSocket-Protocol: " + chosen + b"\r\n" in wire.head


def test_the_subprotocol_in_several_lines() -> None:
    wire = Wire(served())
    wire.send(request(sec_websocket_protocol="one", more=["Sec-WebSocket-Protocol: mqtt"]))
    assert wire.status() == 101


def test_no_extension_is_accepted() -> None:
    wire = Wire(served())
    wire.send(request(more=["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"]))
    assert wire.status() == 101
    assert b"xtensions" not in wire.head


REFUSED = [
    (request("GET / HTTP/1.1"), 404),
    (request("GET /mqtt/ HTTP/1.1"), 404),
    (request("GET /mqttx HTTP/1.1"), 404),
    (request("POST /mqtt HTTP/1.1"), 405),
    (request("HEAD /mqtt HTTP/1.1"), 405),
    (request("GET /mqtt HTTP/1.0"), 400),
    (request(upgrade=None), 426),
    (request(upgrade="h2c"), 426),
    (request(connection=None), 426),
    (request(connection="close"), 426),
    (request(host=None), 400),
    (request(host="a", more=["Host: b"]), 400),
    (request(sec_websocket_version="12"), 426),
    (request(sec_websocket_version=None), 400),
    (request(sec_websocket_version="13", more=["Sec-WebSocket-Version: 12"]), 400),
    (request(sec_websocket_key=None), 400),
    (request(sec_websocket_key="short"), 400),
    (request(sec_websocket_key="AAAA"), 400),
    (request(sec_websocket_key="A" * 22 + "=="), 101),
    (request(sec_websocket_key="A" * 22 + "!=="), 400),
    (request(more=["Sec-WebSocket-Key: " + "A" * 22 + "=="]), 400),
    (request(more=["Content-Length: 5"]), 400),
    (request(more=["Content-Length: 0"]), 101),
    (request(more=["Content-Length: 0", "Content-Length: 5"]), 400),
    (request(more=["Transfer-Encoding: chunked"]), 400),
    (request(more=["Transfer-Encoding: chunked", "Content-Length: 5"]), 400),
    (request(more=["Transfer-Encoding: gzip"]), 501),
    (request(more=["Smuggled : x"]), 400),
    (request(more=["Bad\0: x"]), 400),
    (request("GET /mqtt"), 400),
    (b"\x10\x0d\0\4MQTT\4\2\0\x3c\0\1a\r\n\r\n", 400),
    (b"\r\n\r\n", 400),
    (request("GET /mqtt?token=x HTTP/1.1"), 101),
    (request("GET /mq%74t HTTP/1.1"), 101),
    (request(upgrade="WebSocket", connection="upgrade"), 101),
]


@pytest.mark.parametrize(("sent", "status"), REFUSED)
def test_requests(sent: bytes, status: int) -> None:
    factory = served()
    wire = Wire(factory)
    wire.send(sent)
    assert wire.status() == status
    stats = factory.mqtt_factory.broker.stats
    assert (wire.transport.asked_to_close, stats.connections_refused) == ((True, 1) if status != 101 else (False, 0))
    if status != 101:
        wire.send(request())
        assert wire.written() == b"", "there is one request a connection"


def test_a_refusal_says_what_is_wanted() -> None:
    wire = Wire(served())
    wire.send(request(upgrade=None))
    assert wire.status() == 426
    assert b"\r\nUpgrade: websocket\r\n" in wire.head
    assert b"\r\nConnection: close\r\n" in wire.head
    wire = Wire(served())
    wire.send(request(sec_websocket_version="8"))
    assert wire.status() == 426
    assert b"\r\nSec-WebSocket-Version: 13\r\n" in wire.head


@pytest.mark.parametrize(
    ("allowed", "origins", "status"),
    [
        ((), ["https://evil.example"], 101),
        (("https://good.example",), ["https://good.example"], 101),
        (("https://Good.example",), ["https://GOOD.example"], 101),
        (("https://good.example",), [], 101),  # no browser
        (("https://good.example",), ["https://evil.example"], 403),
        (("https://good.example",), ["https://good.example.evil.example"], 403),
        (("https://good.example",), ["http://good.example"], 403),
        (("https://good.example",), ["https://good.example:8443"], 403),
        (("https://good.example",), ["null"], 403),
        (("https://good.example",), [""], 403),
        (("null",), ["null"], 101),
        (("https://good.example",), ["https://good.example", "https://evil.example"], 403),
    ],
)
def test_origins(allowed: tuple[str, ...], origins: list[str], status: int) -> None:
    wire = Wire(served(origins=allowed))
    wire.send(request(more=[f"Origin: {origin}" for origin in origins]))
    assert wire.status() == status


def test_a_handshake_in_single_bytes_with_frames_behind_it() -> None:
    factory = served()
    wire = Wire(factory)
    for byte in request():
        wire.send(bytes([byte]))
    assert wire.status() == 101
    wire = Wire(factory)
    wire.send(request() + frame(BINARY, CONNECT))
    factory.mqtt_factory.broker.clock.advance(0)
    wire.frames.feed(wire.written().partition(b"\r\n\r\n")[2])
    assert wire.frames.data == CONNACK


@pytest.mark.parametrize("size", [MAX_HEAD - 1, MAX_HEAD, MAX_HEAD + 1, 100_000])
@pytest.mark.parametrize("is_whole", [True, False])
def test_a_head_is_bounded(size: int, is_whole: bool) -> None:
    wire = Wire(served())
    head = request(more=["X: "])
    head = head[:-4] + b"x" * (size - len(head)) + (b"\r\n\r\n" if is_whole else b"xxxx")
    wire.send(head)
    if is_whole:
        assert wire.status() == (101 if size <= MAX_HEAD else 431)
    elif size >= MAX_HEAD:
        assert wire.status() == 431
    else:
        assert (wire.written(), wire.transport.asked_to_close) == (b"", False)


@pytest.mark.parametrize("sent", [b"", request()[:-1], request()])
def test_the_connect_timeout_includes_the_handshake(sent: bytes) -> None:
    factory = served()
    wire = Wire(factory)
    clock = factory.mqtt_factory.broker.clock
    for byte in sent or b"":
        wire.send(bytes([byte]))
        clock.advance(8 / len(sent))
    for _ in range(round((10 - clock.seconds()) / TICK)):
        clock.advance(TICK)
    assert not wire.transport.disconnecting
    clock.advance(TICK)
    clock.advance(TICK)
    if sent == request():
        wire.frames.feed(wire.written().partition(b"\r\n\r\n")[2])
        assert wire.frames.closed is not None
    else:
        assert wire.transport.asked_to_close
    for _ in range(round(CLOSE_TIMEOUT / TICK) + 1):
        clock.advance(TICK)
    assert wire.is_closed
    assert factory.mqtt_factory.connections == set()


def test_limits_hold_from_accept() -> None:
    factory = served(max_connections=1)
    first, second = Wire(factory), Wire(factory)
    assert (first.transport.disconnecting, second.transport.asked_to_close) == (False, True)
    second.send(request())
    assert second.written() == b""


def test_time_goes_by_while_the_port_listens() -> None:
    factory = served()
    clock = factory.mqtt_factory.broker.clock
    factory.mqtt_factory.doStop()
    assert clock.calls == []
    factory.doStart()
    assert len(clock.calls) == 1
    factory.doStop()
    assert clock.calls == []
