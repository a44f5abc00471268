"""The byte vectors of ``vectors_88`` on real sockets: TCP, TLS, WebSocket, and WebSocket over TLS."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tests.conformance.test_malformed_vectors import PINGREQ, PINGRESP, words
from tests.conformance.vectors_88 import C4, C5, VECTORS, Vector
from tests.net.certificates import Pki
from tests.net.sockets import KINDS, trusting
from tests.net.ws_client import Frames, frame, request
from twisted_p2pmqtt import Limits, MQTTService
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.config import ListenerSettings, Settings, StoreSettings, TLSSettings

ENOUGH = 40_000
"""Bytes to send of a packet that is refused at its header: what comes behind would only meet a closed socket."""


class Attacker(Protocol):
    """Sends a vector, and keeps what comes back."""

    def __init__(self, is_websocket: bool) -> None:
        self._frames = Frames() if is_websocket else None
        self._head: bytes | None = b"" if is_websocket else None
        self._data = b""
        self._vector: Vector | None = None
        self.over: Deferred[str] = Deferred()

    def connectionMade(self) -> None:
        if self._frames is not None:
            self.write_raw(request())

    def write_raw(self, data: bytes) -> None:
        """Bytes to the transport."""
        self.transport.write(data)  # type: ignore[union-attr]  # it is connected

    def write(self, data: bytes) -> None:
        """Bytes of MQTT."""
        self.write_raw(data if self._frames is None else frame(2, data))

    def attack(self, vector: Vector) -> Deferred[str]:
        """Begin; fires with the outcome."""
        self._vector = vector
        if self._head is None:
            self._send(vector)
        return self.over.addTimeout(10, reactor)

    def _send(self, vector: Vector) -> None:
        if vector.outcome.endswith("open"):
            self.write(vector.data)
            self.write(PINGREQ)
        else:
            self.write(vector.data[: ENOUGH if vector.id in ("B28", "C18") else None])

    def dataReceived(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            assert head.split()[1] == b"101"
            self._head = None
            assert self._vector is not None
            self._send(self._vector)
        if self._frames is None:
            self._data += data
        else:
            self._frames.feed(data)
            self._data = b"".join(self._frames.messages)
            if self._frames.closed is not None:
                self.transport.loseConnection()  # type: ignore[union-attr]  # it is connected
        assert self._vector is not None
        if self._vector.outcome.endswith("open") and self._data.endswith(PINGRESP):
            self._data = self._data[: -len(PINGRESP)]
            self._end("open")
            self.transport.abortConnection()  # type: ignore[union-attr]  # it is connected

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end("close")

    def _end(self, state: str) -> None:
        if self.over.called:
            return
        assert self._vector is not None
        reader = PacketReader(version=self._vector.version, from_server=True)
        packets = reader.feed(self._data)
        assert reader.error is None
        if self._vector.data.startswith((bytes.fromhex(C4), bytes.fromhex(C5))):
            assert words(packets[:1]) == ["connack"]
            del packets[0]
        self.over.callback(" ".join([*words(packets), state]))


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """A server's certificate and who signed it."""
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.mark.parametrize("kind", KINDS)
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_every_vector(kind: str, pki: Pki) -> None:
    listener = ListenerSettings(
        "tcp:0:interface=127.0.0.1",
        "websocket" if kind.startswith("websocket") else "mqtt",
        allow_anonymous=True,
        tls=TLSSettings(pki.certificate, pki.key) if kind.endswith("tls") else None,
    )
    came: dict[str, str] = {}
    for limits in ({}, {"receive_maximum": 20}, {"validate_payload_format": True}):
        some = [vector for vector in VECTORS if vector.limits == limits]
        settings = Settings(listeners=(listener,), store=StoreSettings("memory"), limits=Limits(**limits))
        service = MQTTService(settings, reactor)
        service.startService()
        canary: list[object] = []
        service.broker.subscribe("#", canary.append)
        ports: Any = service._ports
        for vector in some:
            endpoint: Any = TCP4ClientEndpoint(reactor, "127.0.0.1", ports[0].getHost().port)
            if kind.endswith("tls"):
                endpoint = trusting(endpoint, pki.ca)
            attacker = Attacker(kind.startswith("websocket"))
            await connectProtocol(endpoint, attacker)
            came[vector.id] = await attacker.attack(vector)
        assert len(canary) == sum({"C19": 20, "C20": 1}.get(vector.id, 0) for vector in some)
        assert service.broker.stats.internal_errors == 0
        await service.stopService()
    assert came == {vector.id: vector.outcome for vector in VECTORS}
