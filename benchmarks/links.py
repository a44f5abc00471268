"""Non-blocking byte streams for the load generator: plain TCP, TLS and WebSocket, all with the same five methods.

A link sends what the socket takes at once, keeps the rest, and asks epoll to be told when there is room. It knows
nothing of MQTT. System calls are few: one `recv` per wake-up, one `send` per piece. OSError goes up to whoever runs the
load: a connection that breaks ends it.
"""

from __future__ import annotations

import base64
import errno
import os
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable

# Below the 128 KiB from which on malloc asks the kernel for every buffer.
RECEIVE_SIZE = 120_000
CONNECT_TIMEOUT = 20.0

Data = bytes | memoryview


class LinkClosed(Exception):
    """The broker closed the connection."""


class TcpLink:
    """One connected socket. `backlog` is what it has not taken yet; while that is not empty, sending more is unwise."""

    __slots__ = ("backlog", "fd", "sock", "_epoll", "_recv", "_send")

    def __init__(self, sock: socket.socket, epoll: select.epoll) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.backlog: deque[Data] = deque()
        self._epoll = epoll
        # Looked up once: these two are most of what the load generator does.
        self._recv: Callable[[int], bytes] = sock.recv
        self._send: Callable[[Data], int] = sock.send
        sock.setblocking(False)
        epoll.register(self.fd, select.EPOLLIN)

    def send(self, data: Data) -> None:
        if self.backlog:
            self.backlog.append(data)
            return
        try:
            taken = self._send(data)
        except BlockingIOError:
            taken = 0
        if taken < len(data):
            self._keep(data, taken)

    def on_writable(self) -> None:
        """Send the backlog as far as it goes."""
        while self.backlog:
            data = self.backlog[0]
            try:
                taken = self._send(data)
            except BlockingIOError:
                return
            if taken < len(data):
                self.backlog[0] = memoryview(data)[taken:]
                return
            self.backlog.popleft()
        self._epoll.modify(self.fd, select.EPOLLIN)

    def receive(self) -> bytes:
        """What has arrived, perhaps nothing."""
        try:
            data = self._recv(RECEIVE_SIZE)
        except BlockingIOError:
            return b""
        if not data:
            raise LinkClosed("end of stream")
        return data

    def close(self) -> None:
        self._epoll.unregister(self.fd)
        self.sock.close()

    def _keep(self, data: Data, taken: int) -> None:
        self.backlog.append(memoryview(data)[taken:])
        self._epoll.modify(self.fd, select.EPOLLIN | select.EPOLLOUT)


class TlsLink(TcpLink):
    """TLS over the same socket. OpenSSL hands out one record at a time and may hold bytes that epoll cannot see, so it
    is read until it wants more."""

    __slots__ = ()
    sock: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket, epoll: select.epoll) -> None:
        super().__init__(sock, epoll)
        self._send = self._send_records

    def receive(self) -> bytes:
        pieces: list[bytes] = []
        try:
            while True:
                piece = self._recv(RECEIVE_SIZE)
                if not piece:
                    raise LinkClosed("end of stream")
                pieces.append(piece)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return b"".join(pieces)

    def _send_records(self, data: Data) -> int:
        """OpenSSL takes one record, 16 KiB, at a time."""
        taken = 0
        try:
            while taken < len(data):
                taken += self.sock.send(memoryview(data)[taken:])
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        return taken


class WebSocketLink(TcpLink):
    """MQTT in binary WebSocket messages, one per `send`. The mask is four zero bytes: legal, and it leaves the bytes as
    they are (RFC 6455 section 5.3), so that frames encoded before the run can be sent."""

    __slots__ = ("_rest",)

    def __init__(self, sock: socket.socket, epoll: select.epoll) -> None:
        super().__init__(sock, epoll)
        self._rest = b""

    def send(self, data: Data) -> None:
        super().send(_websocket_head(0x82, len(data)) + bytes(data))

    def receive(self) -> bytes:
        data = self._rest + super().receive()
        pieces: list[bytes] = []
        pos = 0
        while True:
            frame = _websocket_frame(data, pos)
            if frame is None:
                break
            opcode, start, stop = frame
            if opcode in (0, 2):
                pieces.append(data[start:stop])
            elif opcode == 9:
                super().send(_websocket_head(0x8A, stop - start) + data[start:stop])
            elif opcode == 8:
                raise LinkClosed(f"WebSocket close {data[start:stop]!r}")
            pos = stop
        self._rest = data[pos:]
        return b"".join(pieces)


def _websocket_head(first: int, length: int) -> bytes:
    if length < 126:
        size = bytes((0x80 | length,))
    elif length < 1 << 16:
        size = b"\xfe" + length.to_bytes(2, "big")
    else:
        size = b"\xff" + length.to_bytes(8, "big")
    return bytes((first,)) + size + b"\0\0\0\0"


def _websocket_frame(data: bytes, pos: int) -> tuple[int, int, int] | None:
    """(opcode, start, stop of the content) of the server's frame at `pos`, or None while it is incomplete."""
    if len(data) - pos < 2:
        return None
    length = data[pos + 1] & 0x7F
    extra = {126: 2, 127: 8}.get(length, 0)
    start = pos + 2 + extra
    if extra:
        length = int.from_bytes(data[pos + 2 : start], "big")
    if len(data) < start + length:
        return None
    return data[pos] & 0x0F, start, start + length


def _websocket_handshake(sock: socket.socket, host: str) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        f"GET /mqtt HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n".encode()
    )
    # Byte by byte up to the empty line: what follows it belongs to the WebSocket. Once per connection, never measured.
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        if not byte or len(head) > 8192:
            raise LinkClosed(f"WebSocket handshake: {head[:80]!r}")
        head += byte
    if b" 101 " not in head.split(b"\r\n", 1)[0]:
        raise LinkClosed(f"WebSocket handshake: {head[:80]!r}")


def _tls_context() -> ssl.SSLContext:
    """No verification: the certificate was made for this run, and checking it is not what is measured."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def open_link(transport: str, port: int, epoll: select.epoll, host: str = "127.0.0.1") -> TcpLink:
    """A link that can be written to. Over TLS and WebSocket it blocks until their handshakes are done.

    Plain TCP never blocks: a broker whose accept queue is full drops the SYN, the kernel tries again a second later,
    and only this connection may wait for that. Until it stands, what is sent goes to the backlog.
    """
    if transport == "tcp":
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        error = sock.connect_ex((host, port))
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error))
        return TcpLink(sock, epoll)
    sock = socket.create_connection((host, port), CONNECT_TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        if transport == "tls":
            return TlsLink(_tls_context().wrap_socket(sock, server_hostname=host), epoll)
        _websocket_handshake(sock, f"{host}:{port}")
        return WebSocketLink(sock, epoll)
    except BaseException:
        sock.close()
        raise
