"""TLS listeners: files, versions, client certificates, ALPN, deadlines, back-pressure, the end; all in memory."""

from __future__ import annotations

import ssl
import warnings
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import x25519
from OpenSSL import SSL
from twisted.internet.task import Clock

from tests.net.certificates import Pki, make, subject
from tests.net.fakes import Plain
from tests.net.tls_client import TLSClient, client_context
from tests.net.ws_client import Frames, frame, request
from tests.net.ws_wires import BINARY, CONNACK, CONNECT, PING, PONG
from twisted_p2pmqtt import Limits
from twisted_p2pmqtt.codec.packets import Disconnect, Subscribe, SubscriptionRequest
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.core.timers import TICK
from twisted_p2pmqtt.net.outbox import CHUNK, CLOSE_TIMEOUT
from twisted_p2pmqtt.net.tls import TLSFilesError, over_tls, server_context
from twisted_p2pmqtt.net.websocket import WebSocketFactory
from twisted_p2pmqtt.testing import make_broker, memory_factory


class Server:
    """A broker's factory, under TLS."""

    def __init__(
        self, context: Any, limits: Limits | None = None, is_websocket: bool = False, **arguments: Any
    ) -> None:
        self.clock = Clock()
        self.broker = make_broker(self.clock, limits=limits)
        self.mqtt_factory = memory_factory(self.broker, **arguments)
        self.factory = over_tls(context, WebSocketFactory(self.mqtt_factory) if is_websocket else self.mqtt_factory)
        self.factory._clock = self.clock

    def client(self, context: ssl.SSLContext, **more: Any) -> Any:
        """A client, its handshake still to come."""
        return TLSClient(self.factory, context, self.clock, **more)

    def connected(self, context: ssl.SSLContext, **more: Any) -> Any:
        client = self.client(context, **more)
        client.handshake()
        client.send(CONNECT)
        assert client.received == CONNACK
        client.received = b""
        return client

    @property
    def connection(self) -> Any:
        (protocol,) = self.mqtt_factory.connections
        return protocol


@pytest.fixture
def server(pki: Pki) -> Server:
    return Server(server_context(pki.certificate, pki.key))


@pytest.fixture
def trusting(pki: Pki) -> ssl.SSLContext:
    """A client that knows the authority and shows no certificate."""
    return client_context(pki.ca)


# Versions and protocols


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_mqtt_over_tls(server: Server, trusting: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    trusting.minimum_version = trusting.maximum_version = version
    client = server.connected(trusting)
    client.send(PING)
    assert (client.received, client.tls.version()) == (PONG, version.name.replace("_", "."))


def test_older_versions_are_refused(server: Server, trusting: ssl.SSLContext) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        trusting.minimum_version = trusting.maximum_version = ssl.TLSVersion.TLSv1_1
    trusting.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(ssl.SSLError):
        server.client(trusting).handshake()


@pytest.mark.parametrize(
    ("offered", "chosen"), [(("mqtt",), "mqtt"), (("x-other", "mqtt"), "mqtt"), ((), None), (("h2",), ssl.SSLError)]
)
def test_alpn(server: Server, pki: Pki, offered: tuple[str, ...], chosen: Any) -> None:
    client = server.client(client_context(pki.ca, alpn=offered))
    if chosen is ssl.SSLError:
        with pytest.raises(ssl.SSLError):
            client.handshake()
    else:
        client.handshake()
        assert client.tls.selected_alpn_protocol() == chosen


def test_renegotiation_is_refused(server: Server, trusting: ssl.SSLContext) -> None:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    peer = SSL.Connection(context, None)
    peer.set_connect_state()
    client = server.client(trusting)

    def exchange() -> None:
        for _ in range(5):
            try:
                peer.do_handshake()
            except SSL.WantReadError:
                pass
            try:
                client.server.dataReceived(peer.bio_read(65536))
            except SSL.WantReadError:
                pass
            data = client.take()
            if data:
                peer.bio_write(data)

    exchange()
    assert peer.get_state_string() == b"SSL negotiation finished successfully"
    peer.renegotiate()
    with pytest.raises(SSL.Error, match="no renegotiation"):
        exchange()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_that_comes_back_with_its_session(pki: Pki, version: ssl.TLSVersion) -> None:
    # With client certificates OpenSSL fails such a handshake unless sessions are off, or have a context.
    server = Server(server_context(pki.certificate, pki.key, pki.ca, "required"))
    context = client_context(pki.ca, pki.client("device"))
    context.minimum_version = context.maximum_version = version
    first = server.connected(context)
    second = server.connected(context, session=first.tls.session)
    assert second.server.getPeerCertificate() is not None


# Client certificates


def common_names(server: Server) -> list[str]:
    certificate = server.connection.certificate
    return [] if certificate is None else [name.value for name in certificate.to_cryptography().subject]


@pytest.mark.parametrize("wanted", ["optional", "required"])
def test_a_good_client_certificate(pki: Pki, wanted: str) -> None:
    server = Server(server_context(pki.certificate, pki.key, pki.ca, wanted))
    server.connected(client_context(pki.ca, pki.client("device")))
    assert common_names(server) == ["device"]


def test_no_client_certificate_where_it_is_optional(pki: Pki, trusting: ssl.SSLContext) -> None:
    server = Server(server_context(pki.certificate, pki.key, pki.ca, "optional"))
    server.connected(trusting)
    assert server.connection.certificate is None


def test_no_client_certificate_is_asked_for(pki: Pki, server: Server) -> None:
    server.connected(client_context(pki.ca, pki.client("device")))
    assert server.connection.certificate is None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ("required", None),
        ("required", "of nobody"),
        ("required", "of another"),
        ("required", "expired"),
        ("optional", "of nobody"),
        ("optional", "of another"),
        ("optional", "expired"),
    ],
)
def test_a_bad_client_certificate(
    pki: Pki, tmp_path: Path, wanted: str, shown: str | None, version: ssl.TLSVersion
) -> None:
    server = Server(server_context(pki.certificate, pki.key, pki.ca, wanted))
    files = None
    if shown == "of nobody":
        files = make(subject("device")).write(tmp_path, "own")
    elif shown == "of another":
        files = make(subject("device"), make(subject("Test Authority"), is_authority=True)).write(tmp_path, "other")
    elif shown == "expired":
        files = make(subject("device"), pki.authority, days=-1).write(tmp_path, "expired")
    context = client_context(pki.ca, files)
    context.minimum_version = context.maximum_version = version
    client = server.client(context)
    with pytest.raises(ssl.SSLError):
        client.handshake()
    assert client.transport.disconnecting
    assert client.received == b""


# Files


def problems(*files: Any) -> list[tuple[str, str]]:
    with pytest.raises(TLSFilesError) as caught:
        server_context(*files)
    return list(caught.value.problems)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    missing, folder = str(tmp_path / "none"), str(tmp_path)
    assert problems(missing, folder, missing, "required") == [
        ("certificate", f"{missing!r} cannot be read: No such file or directory"),
        ("private_key", f"{folder!r} cannot be read: Is a directory"),
        ("client_ca", f"{missing!r} cannot be read: No such file or directory"),
    ]


def test_files_that_hold_something_else(pki: Pki, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    assert problems(pki.key, pki.certificate, str(empty), "optional") == [
        ("certificate", f"{pki.key!r} holds no certificate in PEM form"),
        ("private_key", f"{pki.certificate!r} holds no private key in PEM form"),
        ("client_ca", f"{str(empty)!r} holds no certificate in PEM form"),
    ]


def test_files_that_are_broken(pki: Pki, tmp_path: Path) -> None:
    certificate, key = tmp_path / "certificate", tmp_path / "key"
    certificate.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    key.write_bytes(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    (first, second) = problems(str(certificate), str(key))
    assert first[1].startswith(f"{str(certificate)!r} holds a certificate that cannot be read: ")
    assert second[1].startswith(f"{str(key)!r} holds a private key that cannot be read: ")


def test_a_key_with_a_passphrase(pki: Pki, tmp_path: Path) -> None:
    identity = make(subject("localhost"), pki.authority)
    certificate, key = identity.write(tmp_path, "server")
    Path(key).write_bytes(identity.key_pem(b"secret"))
    assert problems(certificate, key) == [
        ("private_key", f"{key!r} is encrypted; it must be a key without a passphrase")
    ]


def test_the_key_of_another_certificate(pki: Pki, tmp_path: Path) -> None:
    _, other = make(subject("other")).write(tmp_path, "other")
    assert problems(pki.certificate, other) == [
        ("private_key", f"{other!r} is not the key of the first certificate in {pki.certificate!r}")
    ]


def test_the_order_of_a_chain_matters(pki: Pki, tmp_path: Path) -> None:
    blocks = Path(pki.certificate).read_bytes().split(b"-----END CERTIFICATE-----\n")
    turned = tmp_path / "turned.pem"
    turned.write_bytes(b"-----END CERTIFICATE-----\n".join([blocks[1], blocks[0], blocks[2]]))
    ((name, _),) = problems(str(turned), pki.key)
    assert name == "private_key"


def test_a_key_that_tls_refuses(pki: Pki, tmp_path: Path) -> None:
    key = x25519.X25519PrivateKey.generate()  # which cannot sign
    certificate, path = make(subject("localhost"), pki.authority, key=key).write(tmp_path, "server")
    ((name, text),) = problems(certificate, path)
    assert (name, text.startswith(f"{certificate!r} is of no use for TLS: ")) == ("certificate", True)


def test_an_authority_is_needed_to_judge_clients(pki: Pki) -> None:
    assert problems(pki.certificate, pki.key, None, "required") == [
        ("client_ca", "is needed where client_certificate is 'required'")
    ]


# Deadlines


def hello(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("sent", ["nothing", "half", "hello", "garbage"])
def test_the_connect_timeout_includes_the_handshake(server: Server, trusting: ssl.SSLContext, sent: str) -> None:
    client = server.client(trusting)
    first = hello(trusting)
    client.wait(5)
    data = {"nothing": b"", "half": first[: len(first) // 2], "hello": first, "garbage": b"\x16\x03\x01\x40\0\1"}[sent]
    for byte in data:
        client.server.dataReceived(bytes([byte]))
    client.wait(5)
    if not client.transport.disconnecting:  # garbage may be found out earlier
        assert server.mqtt_factory.connections
        client.wait(2 * TICK)
    client.wait(CLOSE_TIMEOUT)
    assert client.transport.is_closed
    assert server.mqtt_factory.connections == set()
    assert server.broker.stats.internal_errors == 0


def test_the_connect_timeout_behind_the_handshake(server: Server, trusting: ssl.SSLContext) -> None:
    client = server.client(trusting)
    client.wait(9)
    client.handshake()
    client.wait(1 + TICK)
    client.turn()
    assert client.is_ended
    client.wait(CLOSE_TIMEOUT + TICK)
    assert client.transport.is_closed


def test_plain_mqtt_at_a_tls_port(server: Server, trusting: ssl.SSLContext) -> None:
    client = server.client(trusting)
    client.server.dataReceived(CONNECT)
    assert client.transport.disconnecting


def test_limits_hold_from_accept(pki: Pki, trusting: ssl.SSLContext) -> None:
    server = Server(server_context(pki.certificate, pki.key), max_connections=1)
    first, second = server.client(trusting), server.client(trusting)
    server.clock.advance(0)
    assert not first.transport.is_closed
    assert second.transport.is_closed


# The end


def test_our_end_is_told(server: Server, trusting: ssl.SSLContext) -> None:
    client = server.connected(trusting)
    server.broker.disconnect("c")
    client.turn()
    assert client.is_ended
    assert not client.transport.disconnecting
    client.tls.unwrap()
    client.turn()
    assert client.transport.disconnecting
    client.transport.peer_closes()
    client.wait(5)
    assert server.broker.stats.internal_errors == 0


def test_a_peer_that_does_not_answer_our_end_is_aborted(server: Server, trusting: ssl.SSLContext) -> None:
    client = server.connected(trusting)
    client.send(encode(Disconnect(), 4))
    client.wait(CLOSE_TIMEOUT)
    assert not client.transport.is_closed
    client.wait(TICK)
    assert client.transport.is_closed


def test_a_lost_wire(server: Server, trusting: ssl.SSLContext) -> None:
    client = server.connected(trusting)
    client.transport.abortConnection()
    server.clock.advance(0)
    assert server.mqtt_factory.connections == set()
    client.wait(5)
    assert server.broker.stats.internal_errors == 0


# Back-pressure


class Buffered(Plain):
    """Twisted's TCP transport below TLS, with a peer that reads when it is told to."""

    def value(self) -> bytes:
        return bytes(self.fake.sent)

    def clear(self) -> None:
        self.fake.sent.clear()


def slow_reader(pki: Pki, limits: Limits) -> tuple[Server, Any, Any]:
    """A subscriber to ``a`` that reads no more."""
    server = Server(server_context(pki.certificate, pki.key), limits)
    wire: Any = Buffered()
    wire.fake.room = 1 << 30
    client = server.client(client_context(pki.ca), transport=wire)
    wire.protocol = client.server
    take = client.take

    def take_now() -> bytes:
        wire.take()
        wire.fake.room = 1 << 30
        data: bytes = take()
        return data

    client.take = take_now
    client.handshake()
    client.send(CONNECT)
    client.send(encode(Subscribe(1, [SubscriptionRequest("a", 0)]), 4))
    assert client.received == CONNACK + b"\x90\3\0\1\0"
    client.received = b""
    wire.fake.room = 0
    return server, client, wire


def publish(server: Server, count: int, size: int) -> None:
    for number in range(count):
        server.broker.publish("a", b"%04d" % number + bytes(size))
        server.clock.advance(0)


def test_a_slow_reader_costs_so_much_and_no_more(pki: Pki) -> None:
    server, client, wire = slow_reader(pki, Limits(max_qos0_pending_bytes=100_000))
    publish(server, 1000, 1000)
    protocol = server.connection
    assert protocol.connection.is_blocked
    assert wire.buffered < 2 * CHUNK
    assert protocol.outbox.waiting <= 100_000
    dropped = server.broker.stats.dropped_slow_reader
    assert dropped > 700
    client.turn()
    assert len(client.received) == (1000 - dropped) * (1004 + 6)
    assert not protocol.connection.is_blocked
    client.send(PING)
    assert client.received.endswith(PONG)


def test_a_large_message_in_order(pki: Pki) -> None:
    server, client, wire = slow_reader(pki, Limits())
    server.broker.publish("a", bytes(range(256)) * 3000)
    server.clock.advance(0)
    assert wire.buffered < 2 * CHUNK
    client.turn()
    assert client.received[7:] == bytes(range(256)) * 3000


def test_a_stalled_peer_is_aborted(pki: Pki) -> None:
    server, client, wire = slow_reader(pki, Limits(write_stall_timeout=5))
    publish(server, 200, 1000)
    client.wait(5)
    assert not wire._aborting
    client.wait(2 * TICK)
    assert wire._aborting
    assert server.broker.stats.stalled_connections == 1


@pytest.mark.parametrize("how", ["close_notify", "garbage"])
def test_a_full_wire_closes_when_the_peer_ends_tls(pki: Pki, how: str) -> None:
    # Twisted asks the transport to close while our producer is registered and paused: that alone never ends.
    server, client, wire = slow_reader(pki, Limits())
    publish(server, 400, 1000)
    assert server.connection.connection.is_blocked
    if how == "garbage":
        client.server.dataReceived(b"\x17\x03\x03\x00\x10" + bytes(16))
    else:
        with pytest.raises(ssl.SSLError):
            client.tls.unwrap()
        client.server.dataReceived(client.outgoing.read())
    assert wire.disconnecting
    wire.take()
    wire.clock.advance(0)
    assert wire.disconnected
    assert server.mqtt_factory.connections == set()


# WebSocket over TLS


def test_websocket_over_tls(pki: Pki) -> None:
    context = server_context(pki.certificate, pki.key, pki.ca, "required", [b"http/1.1"])
    server = Server(context, is_websocket=True)
    client = server.client(client_context(pki.ca, pki.client("browser"), alpn=("http/1.1",)))
    client.handshake()
    assert client.tls.selected_alpn_protocol() == "http/1.1"
    client.send(request())
    head, _, rest = client.received.partition(b"\r\n\r\n")
    assert (head.split()[1], rest) == (b"101", b"")
    client.received = b""
    client.send(frame(BINARY, CONNECT))
    frames = Frames()
    frames.feed(client.received)
    assert frames.data == CONNACK
    assert common_names(server) == ["browser"]


def test_the_connect_timeout_of_websocket_over_tls(pki: Pki, trusting: ssl.SSLContext) -> None:
    server = Server(server_context(pki.certificate, pki.key), is_websocket=True)
    clients = [server.client(trusting) for _ in range(3)]
    clients[1].handshake()
    clients[2].handshake()
    clients[2].send(request()[:-2])
    clients[0].wait(10)
    assert len(server.mqtt_factory.connections) == 3
    clients[0].wait(CLOSE_TIMEOUT + 2 * TICK)
    assert server.mqtt_factory.connections == set()
