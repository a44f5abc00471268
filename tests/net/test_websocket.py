"""MQTT over WebSocket: frames legal and not, bounds, back-pressure, closing; in memory, on a Clock."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer, ITransport
from zope.interface.verify import verifyObject

from tests.net.fakes import Plain
from tests.net.ws_client import Frames, frame, request
from tests.net.ws_wires import BINARY, CLOSE, CONNACK, CONNECT, PING, PONG, TEXT, WS_PING, WS_PONG, Client, served
from twisted_p2pmqtt import Limits, Message
from twisted_p2pmqtt.codec.packets import Disconnect, Subscribe, SubscriptionRequest
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.core.timers import TICK
from twisted_p2pmqtt.net.outbox import CHUNK, CLOSE_TIMEOUT
from twisted_p2pmqtt.net.websocket import FRAMES_PER_TURN, MAX_FRAME
from twisted_p2pmqtt.testing import MemoryTransport


@pytest.fixture
def client() -> Any:
    client = Client(served())
    client.connect()
    return client


def test_it_provides_what_a_protocol_expects(client: Any) -> None:
    transport = client.protocol._carrier
    assert verifyObject(ITransport, transport)
    assert verifyObject(IConsumer, transport)
    assert verifyObject(IPushProducer, transport)


# Frames


def test_packets_and_answers(client: Any) -> None:
    client.mqtt(PING)
    assert client.read().messages == [PONG]


@pytest.mark.spec("MQTT-6.0.0-2", "MQTT3-6.0.0-2")
@pytest.mark.parametrize("size", [1, 2, 3, 5, 1000])
def test_packets_need_not_begin_with_frames(size: int) -> None:
    client: Any = Client(served())
    stream = CONNECT + PING * 5
    for at in range(0, len(stream), size):
        client.mqtt(stream[at : at + size])
    assert client.read().data == CONNACK + PONG * 5


def test_one_message_of_many_fragments(client: Any) -> None:
    stream = PING * 4
    sent = b"".join(
        frame(BINARY if at == 0 else 0, stream[at : at + 1], fin=at == len(stream) - 1) + frame(WS_PING, b"%d" % at)
        for at in range(len(stream))
    )
    client.send(sent)
    assert client.read().data == PONG * 4
    assert client.frames.pongs == [b"%d" % at for at in range(8)]


def test_payload_is_handed_on_before_its_frame_is_whole(client: Any) -> None:
    sent = frame(BINARY, PING * 1000)
    client.send(sent[:100])
    assert client.read().data == PONG * ((100 - 8) // 2)
    for byte in sent[100:110]:
        client.send(bytes([byte]))
    assert client.read().data == PONG * ((110 - 8) // 2)


def test_one_frame_a_turn(client: Any) -> None:
    client.mqtt(PING, PING)
    client.mqtt(PING)
    assert client.read().messages == [PONG * 3]


def test_a_large_flush_in_frames_of_a_chunk(client: Any) -> None:
    client.mqtt(encode(Subscribe(1, [SubscriptionRequest("a", 0)]), 4))
    client.read().messages.clear()
    client.protocol.factory.mqtt_factory.broker.publish("a", bytes(3 * CHUNK))
    assert [len(message) for message in client.read().messages] == [CHUNK] * 3 + [7]


def test_empty_frames_mean_nothing(client: Any) -> None:
    client.send(frame(BINARY) + frame(BINARY, fin=0) + frame(0) + frame(WS_PONG, b"unasked"))
    client.mqtt(PING)
    assert client.read().data == PONG


ILLEGAL = {
    "text": (frame(TEXT, b"hello"), 1003),
    "text in fragments": (frame(TEXT, b"hello", fin=0), 1003),
    "text, announced": (frame(TEXT, bytes(200_000))[:10], 1003),
    "unmasked": (frame(BINARY, PING, mask=None), 1002),
    "RSV1, as if compressed": (frame(BINARY, PING, rsv=4), 1002),
    "RSV2": (frame(BINARY, PING, rsv=2), 1002),
    "RSV3 of a ping": (frame(WS_PING, b"", rsv=1), 1002),
    "unknown data frame": (frame(3, PING), 1002),
    "unknown control frame": (frame(11), 1002),
    "continuation of nothing": (frame(0, PING), 1002),
    "message within a message": (frame(BINARY, b"", fin=0) + frame(BINARY, b""), 1002),
    "oversize ping": (frame(WS_PING, bytes(126)), 1002),
    "fragmented ping": (frame(WS_PING, b"", fin=0), 1002),
    "length in too many bytes": (b"\x82\xfe\x00\x05" + bytes(9), 1002),
    "length with the top bit": (b"\x82\xff\xff" + bytes(11), 1002),
    "2^63-1 bytes announced": (b"\x82\xff\x7f" + b"\xff" * 7 + bytes(4), 1009),
    "a byte too many announced": (b"\x82\xff" + (MAX_FRAME + 1).to_bytes(8, "big") + bytes(4), 1009),
    "close of one byte": (frame(CLOSE, b"\3"), 1002),
    "close with a code that is never sent": (frame(CLOSE, (1006).to_bytes(2, "big")), 1002),
    "close with a code that does not exist": (frame(CLOSE, (999).to_bytes(2, "big")), 1002),
    "close with text that is none": (frame(CLOSE, b"\3\xe8\xff\xfe"), 1007),
}


@pytest.mark.spec("MQTT-6.0.0-1", "MQTT3-6.0.0-1")
@pytest.mark.parametrize("what", ILLEGAL)
def test_illegal_frames(client: Client, what: str) -> None:
    sent, code = ILLEGAL[what]
    client.send(sent)
    assert client.closed() == code
    assert client.transport.asked_to_close
    client.send(frame(BINARY, PING) + b"\xff" * 100)
    assert client.read().data == b""
    client.wait(CLOSE_TIMEOUT + TICK)
    assert client.is_closed


def test_what_came_before_an_illegal_frame_counts(client: Any) -> None:
    got: list[Message] = []
    client.protocol.factory.mqtt_factory.broker.subscribe("a", got.append)
    client.send(frame(BINARY, encode(Message(b"a", b"x"), 4)) + frame(TEXT, b"hello"))
    client.read()
    assert [message.payload for message in got] == [b"x"]


def test_pings_are_answered(client: Any) -> None:
    client.send(frame(WS_PING, b"") + frame(WS_PING, bytes(125)))
    assert client.read().pongs == [b"", bytes(125)]


def test_an_illegal_packet_closes(client: Any) -> None:
    client.mqtt(b"\0\0")
    assert client.closed() == 1000


# Bounds


def test_many_frames_take_several_turns(client: Any) -> None:
    turns: list[int] = []
    mqtt = client.protocol._carrier.protocol
    receive = mqtt.dataReceived

    def count(data: bytes) -> None:
        turns.append(len(data) // 2)
        receive(data)

    mqtt.dataReceived = count
    client.send(frame(BINARY, PING) * (3 * FRAMES_PER_TURN + 1))
    assert (turns, client.transport.producerState) == ([FRAMES_PER_TURN], "paused")
    assert client.read().data == PONG * (3 * FRAMES_PER_TURN + 1)
    assert (turns, client.transport.producerState) == ([FRAMES_PER_TURN] * 3 + [1], "producing")


def test_many_frames_and_then_more(client: Any) -> None:
    client.send(frame(BINARY, PING) * FRAMES_PER_TURN)
    client.send(frame(BINARY, PING))  # TLS hands on what it has, paused or not
    assert client.protocol._carrier._is_behind
    assert client.read().data == PONG * (FRAMES_PER_TURN + 1)
    client.read()
    assert client.transport.producerState == "producing"


@pytest.mark.parametrize("end", ["lose", "abort", "text"])
def test_an_end_while_frames_are_left(client: Client, end: str) -> None:
    client.send(frame(BINARY, PING) * FRAMES_PER_TURN + (frame(TEXT, b"x") if end == "text" else frame(BINARY, PING)))
    if end == "lose":
        client.transport.peer_closes()
    elif end == "abort":
        client.protocol._carrier.abortConnection()
    client.wait(CLOSE_TIMEOUT + 2 * TICK)
    assert client.is_closed
    assert len(client.clock.calls) == 1, "the ticker's"


def test_an_abort_while_frames_are_read(client: Any) -> None:
    client.protocol._carrier.protocol.dataReceived = lambda data: client.protocol._carrier.abortConnection()
    client.send(frame(BINARY, PING) * (FRAMES_PER_TURN + 1) + frame(TEXT))
    assert (client.is_closed, client.written()) == (True, b"")
    assert len(client.clock.calls) == 1


def test_a_pause_while_frames_are_left(client: Any) -> None:
    client.send(frame(BINARY, PING) * (FRAMES_PER_TURN + 1))
    client.protocol._carrier.protocol.pause()
    assert client.read().data == PONG * FRAMES_PER_TURN
    assert client.transport.producerState == "paused"
    client.protocol._carrier.protocol.resume()
    assert client.read().data == PONG * (FRAMES_PER_TURN + 1)
    assert client.transport.producerState == "producing"


def test_a_ping_flood_at_a_peer_that_does_not_read(client: Any) -> None:
    gate = client.transport.producer
    gate.pauseProducing()
    for number in range(1000):
        client.send(frame(WS_PING, b"%d" % number))
    assert client.written() == b""
    assert len(client.protocol._carrier._pongs) == 1
    gate.resumeProducing()
    assert client.read().pongs == [b"999"]


def test_a_stalled_peer_is_aborted() -> None:
    client: Any = Client(served(Limits(write_stall_timeout=5)))
    client.connect()
    client.transport.producer.pauseProducing()
    client.wait(5)
    assert not client.is_closed
    client.wait(2 * TICK)
    assert client.is_closed


def test_back_pressure_reaches_the_session() -> None:
    factory = served(Limits(max_qos0_pending_bytes=10_000))
    client: Any = Client(factory)
    client.connect()
    client.mqtt(encode(Subscribe(1, [SubscriptionRequest("a", 0)]), 4))
    client.read().messages.clear()
    broker = factory.mqtt_factory.broker
    gate = client.transport.producer
    gate.pauseProducing()
    for number in range(100):
        broker.publish("a", b"%03d" % number + bytes(997))
    client.clock.advance(0)
    assert client.written() == b""
    assert broker.stats.dropped_slow_reader > 80
    gate.resumeProducing()
    taken = 100 - broker.stats.dropped_slow_reader
    assert len(client.read().data) == taken * (1000 + 2 + 3 + 1)
    assert client.frames.data.count(b"\0\1a") == taken


def test_pausing_reaches_the_wire() -> None:
    waiting: list[Deferred[None]] = []

    def login(credentials: Any) -> Deferred[None]:
        waiting.append(Deferred())
        return waiting[0]

    client: Any = Client(served(login=login))
    client.mqtt(CONNECT)
    assert client.transport.producerState == "paused"
    client.send(frame(BINARY, PING) * (FRAMES_PER_TURN + 1))  # was on its way
    client.clock.advance(0)
    assert client.transport.producerState == "paused"
    waiting[0].callback(None)
    assert client.read().data == CONNACK + PONG * (FRAMES_PER_TURN + 1)
    client.read()
    assert client.transport.producerState == "producing"


# Closing


def test_the_peers_close_is_answered(client: Any) -> None:
    client.send(frame(CLOSE, b"\3\xe9going away"))
    assert client.closed() == 1001
    assert client.transport.asked_to_close
    client.wait(CLOSE_TIMEOUT)
    assert not client.is_closed
    client.wait(TICK)
    assert client.is_closed


def test_a_close_without_a_code(client: Any) -> None:
    client.send(frame(CLOSE))
    assert client.closed() == 1005  # wsproto's word for none
    assert client.transport.asked_to_close


def test_our_close_waits_for_the_peers(client: Any) -> None:
    client.mqtt(encode(Disconnect(), 4))
    assert client.closed() == 1000
    assert not client.transport.asked_to_close
    client.mqtt(PING)
    client.send(frame(WS_PING))
    assert client.read().data == b""
    client.send(client.frames.answer_close())
    assert client.transport.asked_to_close
    client.transport.peer_closes()
    client.wait(10)
    assert client.protocol.factory.mqtt_factory.broker.stats.internal_errors == 0


def test_a_peer_that_does_not_answer_our_close_is_aborted(client: Any) -> None:
    client.mqtt(encode(Disconnect(), 4))
    client.wait(CLOSE_TIMEOUT)
    assert not client.is_closed
    client.wait(TICK)
    assert client.is_closed


def test_our_close_is_heard_though_reading_was_held(client: Any) -> None:
    client.protocol._carrier.protocol.pause()
    assert client.transport.producerState == "paused"
    client.protocol._carrier.protocol.connection.close(0x8B)
    assert client.transport.producerState == "producing"
    client.closed()
    client.send(client.frames.answer_close())
    assert client.transport.asked_to_close


def test_disconnect_and_close_in_one(client: Any) -> None:
    client.send(frame(BINARY, encode(Disconnect(), 4)) + frame(CLOSE, b"\3\xe8"))
    assert client.closed() == 1000
    assert client.transport.asked_to_close


def test_garbage_behind_our_close(client: Any) -> None:
    client.mqtt(encode(Disconnect(), 4))
    client.send(b"\xff" * 10)
    assert client.closed() == 1000
    assert client.transport.asked_to_close


def test_a_lost_wire_is_told_once() -> None:
    factory = served()
    client: Any = Client(factory, MemoryTransport)
    client.connect()
    client.transport.abortConnection()
    assert factory.mqtt_factory.connections == set()
    client.wait(100)
    assert factory.mqtt_factory.broker.stats.connections_open == 0


def test_the_peers_address(client: Any) -> None:
    mqtt = client.protocol._carrier.protocol
    assert (mqtt.peer, mqtt.certificate) == ("192.0.2.1:1", None)
    assert mqtt.transport.getHost() == client.transport.getHost()


def test_the_rest_of_a_transport(client: Any) -> None:
    carrier = client.protocol._carrier
    carrier.writeSequence([b"a", b"b"])
    assert client.read().messages == [b"ab"]
    carrier.stopProducing()
    assert client.closed() == 1000
    carrier.write(b"late")
    carrier.loseConnection()
    assert client.written() == b""
    client.wait(CLOSE_TIMEOUT + TICK)
    assert client.is_closed


def test_a_real_transport_takes_it_in_order() -> None:
    """Twisted's own buffering below, a socket that takes a little at a time."""
    factory = served(Limits(max_qos0_pending_bytes=1 << 20))
    protocol = factory.buildProtocol(None)
    wire: Any = Plain(protocol)
    protocol.makeConnection(wire)
    broker = factory.mqtt_factory.broker
    subscribe = encode(Subscribe(1, [SubscriptionRequest("a", 0)]), 4)
    protocol.dataReceived(request() + frame(BINARY, CONNECT) + frame(BINARY, subscribe))
    payloads = [bytes([number]) * 10_000 for number in range(60)]
    for payload in payloads:
        broker.publish("a", payload)
        broker.clock.advance(0)
        assert wire.buffered <= 3 * CHUNK
        wire.take(5_000)
    while wire.buffered:
        wire.take(50_000)
        broker.clock.advance(0)
    frames = Frames()
    frames.feed(bytes(wire.fake.sent).partition(b"\r\n\r\n")[2])
    got = frames.data
    assert broker.stats.dropped_slow_reader == 0
    assert [payload for payload in payloads if payload in got] == payloads
    assert len(got) == 4 + 5 + 60 * (10_000 + 1 + 2 + 3)
