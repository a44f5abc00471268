"""A TLS client in memory: the standard library's, connected to a factory's protocol, on a Clock."""

from __future__ import annotations

import ssl
from typing import Any

from twisted.internet.address import IPv4Address

from twisted_p2pmqtt.core.timers import TICK
from twisted_p2pmqtt.testing import MemoryTransport


def client_context(ca: str, certificate: tuple[str, str] | None = None, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca)
    if certificate is not None:
        context.load_cert_chain(*certificate)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class Wire(MemoryTransport):
    """One that does not close by itself, and is aborted behind the turn, as real ones are."""

    clock: Any

    def abortConnection(self) -> None:
        self.clock.callLater(0, MemoryTransport.abortConnection, self)

    def loseConnection(self) -> None:
        self.disconnecting = True

    def peer_closes(self) -> None:
        MemoryTransport.loseConnection(self)


class TLSClient:
    """One connection; ``received`` is what came through TLS."""

    def __init__(self, factory: Any, context: ssl.SSLContext, clock: Any, transport: Any = None, session: Any = None):
        self.clock = clock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls: Any = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost", session=session)
        self.server: Any = factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        self.transport: Any = transport
        if transport is None:
            self.transport = Wire(lambda reason: self.server.connectionLost(reason))
            self.transport.clock = clock
        self.transport.peerAddr = IPv4Address("TCP", "192.0.2.1", 1)
        self.server.makeConnection(self.transport)
        self.received = b""
        self.is_ended = False  # by the server's close_notify

    def turn(self) -> None:
        """Carry bytes both ways until there are none."""
        while True:
            self.clock.advance(0)
            to_server, to_client = self.outgoing.read(), self.take()
            if not to_server and not to_client:
                return
            if to_server and not self.transport.disconnecting:
                self.server.dataReceived(to_server)
            self.incoming.write(to_client)
            self.read()

    def take(self) -> bytes:
        data: bytes = self.transport.value()
        self.transport.clear()
        return data

    def read(self) -> None:
        try:
            while not self.is_ended:
                data = self.tls.read(65536)
                self.received += data
                if not data:
                    self.is_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.is_ended = True

    def handshake(self) -> None:
        for _ in range(10):
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                to_server = self.outgoing.read()
                if not self.transport.disconnecting:
                    self.server.dataReceived(to_server)
                self.incoming.write(self.take())
        self.turn()  # a refused client certificate shows only here: TLS 1.3 tells it behind the handshake

    def send(self, data: bytes) -> None:
        self.tls.write(data)
        self.turn()

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.clock.advance(TICK)
