"""What an error ends: one connection, with its code, and nothing else (4.8 of 3.1.1, 4.13 of 5.0)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from tests.conformance.helpers import CONNECT_HEX, V5, World, every_version, message, payloads
from tests.wire_refused import AFTER_CONNECT, Refused
from twisted_p2pmqtt.codec.packets import Disconnect
from twisted_p2pmqtt.testing import MemoryClient


@pytest.fixture
def logged() -> Any:
    """Everything that is logged meanwhile."""
    events: list[Any] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    yield events
    globalLogPublisher.removeObserver(observer)


IN_SESSION = [each for each in AFTER_CONNECT if each.version != 3]


@pytest.mark.spec("MQTT-4.13.1-1", "MQTT-4.13.2-1", "MQTT-2.1.3-1", "MQTT3-4.8.0-1", "MQTT3-2.2.2-2", "MQTT3-1.5.3-1")
@pytest.mark.parametrize("refused", IN_SESSION, ids=lambda refused: refused.name)
def test_every_illegal_packet_closes(world: World, logged: list[Any], refused: Refused) -> None:
    """With the code that says why in 5.0, without a word in 3.x; nothing of it is published, nobody else is touched."""
    listener = world.join("listener")
    listener.subscribe("#")
    raw = world.raw()
    raw.put(CONNECT_HEX[refused.version])
    answer = raw.put(refused.data + message_bytes(refused.version))
    assert raw.is_closed
    assert answer[:3:2] == (bytes([0xE0, refused.reason_code]) if refused.version == V5 else b"")
    assert payloads(listener) == []
    assert not listener.is_closed
    assert logged == []
    assert world.broker.tree.count == 1


def message_bytes(version: int) -> bytes:
    """A legal PUBLISH."""
    return bytes.fromhex("30 05 0001 61 00 78" if version == V5 else "30 04 0001 61 78")


@pytest.mark.spec("MQTT3-4.8.0-2", "MQTT-4.13.2-1")
@every_version
def test_an_error_of_ours_closes_too(world: World, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transient error while a packet is being handled; it is logged, counted, and ends that connection alone."""

    def fail(*arguments: Any) -> None:
        raise MemoryError

    client, other = world.join("c", version), world.join("other", version)
    other.subscribe("t")
    monkeypatch.setattr(type(world.broker), "publish_message", fail)
    client.send(message("t", b"lost", 1, 1))
    monkeypatch.undo()
    world.expected_errors = 1
    assert client.is_closed
    assert [each.reason_code for each in client.receive() if isinstance(each, Disconnect)] == [0x80] * (version == V5)
    world.join("p").publish("t", b"goes on", 1)
    assert payloads(other) == [b"goes on"]


@every_version
def test_what_came_before_the_error_is_handled(world: World, version: int) -> None:
    client = world.join("c", version)
    client.subscribe("t")
    client.send_bytes(
        b"".join(bytes.fromhex("30 05 0001 74 00 31" if version == V5 else "30 04 0001 74 31") for _ in range(3))
        + b"\xc1\x00"
    )
    assert payloads(client) == [b"1", b"1", b"1"]
    assert client.is_closed


def test_nothing_is_handled_when_the_connection_is_gone(world: World) -> None:
    listener = world.join("listener")
    listener.subscribe("#")
    client: MemoryClient = world.join("c")
    client.send_bytes(b"\xc1\x00")
    client.protocol.dataReceived(message_bytes(V5))
    assert payloads(listener) == []
