"""A WebSocket client over any transport: a request, and frames made by wsproto or by hand."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable
from typing import Any

from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Pong

KEY = base64.b64encode(bytes(16))
ACCEPT = b"ICX+Yqv66kxgM0FcWaLWlFLwTAI="  # of that key
HEADERS = {
    "Host": "broker.example",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": KEY.decode(),
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Protocol": "mqtt",
}


def request(line: str = "GET /mqtt HTTP/1.1", more: Iterable[str] = (), **changed: str | None) -> bytes:
    """A handshake.  ``changed``: header names with _ for -, None to leave one out; ``more``: lines as they are."""
    headers = {name.lower(): value for name, value in HEADERS.items()}
    for name, value in changed.items():
        if value is None:
            headers.pop(name.replace("_", "-"), None)
        else:
            headers[name.replace("_", "-")] = value
    lines = [line, *(f"{name}: {value}" for name, value in headers.items()), *more, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def frame(opcode: int, payload: bytes = b"", fin: int = 1, rsv: int = 0, mask: bytes | None = b"MASK") -> bytes:
    """One frame, however illegal."""
    size = len(payload)
    masked = 0x80 if mask is not None else 0
    if size < 126:
        length = bytes([masked | size])
    elif size < 65536:
        length = bytes([masked | 126]) + struct.pack("!H", size)
    else:
        length = bytes([masked | 127]) + struct.pack("!Q", size)
    if mask is not None:
        payload = mask + bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))
    return bytes([fin << 7 | rsv << 4 | opcode]) + length + payload


class Frames:
    """What a server sends behind its handshake: ``feed`` it, then look at what has come."""

    def __init__(self) -> None:
        self.connection = Connection(ConnectionType.CLIENT)
        self.messages: list[bytes] = []
        self.pongs: list[bytes] = []
        self.closed: CloseConnection | None = None
        self._is_within = False

    def feed(self, data: bytes) -> None:
        if not data:
            return
        self.connection.receive_data(data)
        for event in self.connection.events():
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, BytesMessage):
            assert event.message_finished or not event.frame_finished, "the server sends no fragments"
            if self._is_within:
                self.messages[-1] += bytes(event.data)
            else:
                self.messages.append(bytes(event.data))
            self._is_within = not event.frame_finished
        elif isinstance(event, Pong):
            self.pongs.append(bytes(event.payload))
        elif isinstance(event, CloseConnection):
            self.closed = event
        else:
            raise AssertionError(event)

    @property
    def data(self) -> bytes:
        return b"".join(self.messages)

    def answer_close(self) -> Any:
        """The client's close frame in answer to the server's."""
        assert self.closed is not None
        return self.connection.send(self.closed.response())
