"""Between a CONNECT that names an Authentication Method and its CONNACK: AUTH or DISCONNECT, nothing else (3.1.2.11.9).

The exchanges themselves are proven in ``tests/auth``.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.helpers import World, message, payloads, subscribe_packet
from twisted_p2pmqtt import Continue, Success
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.packets import Auth, Connack, Connect, Disconnect, Pingreq, Puback, Pubrel, Unsubscribe, Will
from twisted_p2pmqtt.testing import MemoryClient

METHOD: Any = {"authentication_method": "two steps"}


class TwoSteps:
    """A method that wants to hear ``yes``."""

    method = "two steps"

    def begin(self, client_id: str, username: str | None, data: bytes | None) -> TwoSteps:
        """Every exchange is the same."""
        return self

    def proceed(self, data: bytes | None) -> Continue | Success:
        """Ask until it is said."""
        return Success(None, None) if data == b"yes" else Continue(b"well?")


def answer(data: bytes) -> Auth:
    """The client goes on."""
    properties: Any = {**METHOD, "authentication_data": data}
    return Auth(0x18, properties)


def asked(will: Will | None = None) -> tuple[World, MemoryClient]:
    """A client that has been asked to go on."""
    world = World(methods=[TwoSteps()])
    client = world.client("c")
    client.send(Connect("c", properties=METHOD, will=will))
    assert client.take(Auth).reason_code == 0x18
    return world, client


@pytest.mark.spec("MQTT-3.1.2-30")
@pytest.mark.parametrize(
    "packet",
    [
        message("t", b"early"),
        message("t", b"early", 1, 1),
        subscribe_packet(1, "t"),
        Unsubscribe(1, ["t"]),
        Pingreq(),
        Puback(1),
        Pubrel(1),
    ],
    ids=lambda packet: type(packet).__name__,
)
def test_any_other_packet_is_refused(packet: Packet) -> None:
    world, client = asked()
    listener = world.join("listener")
    listener.subscribe("t")
    client.send(packet, answer(b"yes"))
    assert client.receive() == [Connack(False, 0x82)]
    assert client.is_closed
    assert payloads(listener) == []
    assert list(world.broker.sessions) == ["listener"]


@pytest.mark.spec("MQTT-3.1.2-30")
def test_auth_goes_on() -> None:
    _, client = asked()
    client.send(answer(b"no"))
    assert client.take(Auth).reason_code == 0x18
    client.send(answer(b"yes"), Pingreq())
    assert [type(each).__name__ for each in client.receive()] == ["Connack", "Pingresp"]


@pytest.mark.spec("MQTT-3.1.2-30", "MQTT-3.14.0-1")
@pytest.mark.parametrize("code", [0, 4, 0x80])
def test_disconnect_gives_up(code: int) -> None:
    world, client = asked(Will("t", b"no session, no will"))
    listener = world.join("listener")
    listener.subscribe("t")
    client.send(Disconnect(code))
    assert client.is_closed
    assert client.receive() == []
    assert payloads(listener) == []
