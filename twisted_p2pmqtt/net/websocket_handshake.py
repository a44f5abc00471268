"""The opening handshake of a WebSocket that is to carry MQTT (RFC 6455, 4.2; section 6 of MQTT 5.0 and 3.1.1).

Bytes and headers in, the response's headers out, or ``Refused`` with the status to answer with.  No Twisted, no socket,
no clock: a listener of our own and a resource inside a ``twisted.web`` site ask here alike.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import h11
from wsproto.utilities import generate_accept_token

MAX_HEAD = 8192
"""Bytes that a request's line and headers may have together."""

SUBPROTOCOLS = ("mqtt", "mqttv3.1")
"""What we speak, the preferred first; the second is what clients of MQTT 3.1 offer."""

Headers = list[tuple[bytes, bytes]]


class Refused(Exception):
    """This request does not become a WebSocket.  ``headers`` belong to the answer besides those every one has."""

    def __init__(self, status: int, text: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        super().__init__(text)
        self.status = status
        self.headers = [(b"Content-Type", b"text/plain; charset=utf-8"), *headers]
        self.body = text.encode() + b"\n"

    def response(self) -> bytes:
        """The whole HTTP response; the connection is closed behind it."""
        headers = [*self.headers, (b"Content-Length", b"%d" % len(self.body)), (b"Connection", b"close")]
        return response_head(self.status, headers) + self.body


class Request(NamedTuple):
    """A request's head; the header names are in lower case."""

    method: bytes
    target: bytes
    headers: Headers

    def all(self, name: bytes) -> list[bytes]:
        """The values of every header of this name."""
        return [value for known, value in self.headers if known == name]

    def one(self, name: bytes) -> bytes | None:
        """The value of the only header of this name; None where there is none, or several."""
        values = self.all(name)
        return values[0].strip() if len(values) == 1 else None

    def tokens(self, name: bytes) -> list[str]:
        """The elements of a header that is a list, however many lines it came in."""
        text = b",".join(self.all(name)).decode("latin-1")
        return [token.strip() for token in text.split(",") if token.strip()]


def response_head(status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A response up to its body."""
    lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
    return b"\r\n".join([*lines, *(b"%s: %s" % header for header in headers), b"", b""])


def parse_request(head: bytes) -> Request:
    """The request that a head, up to and with its empty line, makes; ``Refused`` where it makes none."""
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(head)
    try:
        event = parser.next_event()
    except h11.RemoteProtocolError as error:
        raise Refused(error.error_status_hint, "not an HTTP request that is understood here") from error
    if not isinstance(event, h11.Request) or event.http_version < b"1.1":
        raise Refused(400, "not an HTTP/1.1 request")
    return Request(event.method, event.target, list(event.headers))


def is_for(request: Request, path: str) -> bool:
    """Does the request's target name this path?  A query is ignored."""
    target = request.target.partition(b"?")[0]
    return path.encode() in (target, unquote_to_bytes(target))


def accept(request: Request, allowed_origins: Collection[str] = ()) -> Headers:
    """The headers of the 101 response; ``Refused`` where the request is no handshake, or not one for MQTT.

    ``allowed_origins``, in lower case, bind the pages of browsers, which always tell theirs; a client that tells none
    is no page.  Empty: any.  Extensions, compression among them, are never accepted.
    """
    if request.method != b"GET":
        raise Refused(405, "a WebSocket is opened with GET", [(b"Allow", b"GET")])
    upgrade = [token.lower() for token in request.tokens(b"upgrade")]
    if "websocket" not in upgrade or "upgrade" not in [token.lower() for token in request.tokens(b"connection")]:
        raise Refused(426, "this is a WebSocket", [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade")])
    version = request.one(b"sec-websocket-version")
    if version != b"13":
        raise Refused(426 if version else 400, "WebSocket version 13", [(b"Sec-WebSocket-Version", b"13")])
    key = request.one(b"sec-websocket-key")
    if key is None or not _is_key(key):
        raise Refused(400, "Sec-WebSocket-Key is missing or not 16 bytes in base64")
    if request.one(b"host") is None:
        raise Refused(400, "Host is missing")
    # A body would be taken for frames, by us or by a proxy in between.
    if request.all(b"transfer-encoding") or request.one(b"content-length") not in (None, b"0"):
        raise Refused(400, "a handshake has no body")
    _check_origin(request.all(b"origin"), allowed_origins)
    offered = request.tokens(b"sec-websocket-protocol")
    for subprotocol in SUBPROTOCOLS:
        if subprotocol in offered:  # [MQTT-6.0.0-4] [MQTT3-6.0.0-4]
            return [
                (b"Upgrade", b"websocket"),
                (b"Connection", b"Upgrade"),
                (b"Sec-WebSocket-Accept", generate_accept_token(key)),
                (b"Sec-WebSocket-Protocol", subprotocol.encode()),
            ]
    raise Refused(400, "Sec-WebSocket-Protocol must offer mqtt")  # [MQTT-6.0.0-3] [MQTT3-6.0.0-3]


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except binascii.Error:
        return False


def _check_origin(origins: list[bytes], allowed: Collection[str]) -> None:
    if not allowed or not origins:
        return
    if len(origins) > 1 or origins[0].strip().decode("latin-1").lower() not in allowed:
        raise Refused(403, "pages of this origin may not connect")
