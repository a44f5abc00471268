"""PINGREQ, and the Keep Alive (3.12, 3.1.2.10)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.helpers import CONNECT_HEX, TICK, V5, V31, V311, World, every_version, message
from twisted_p2pmqtt.codec.packets import Disconnect, Pingreq, Pingresp


@pytest.mark.spec("MQTT-3.12.4-1", "MQTT3-3.12.4-1")
@every_version
def test_pingreq_is_answered(world: World, version: int) -> None:
    raw = world.raw()
    raw.put(CONNECT_HEX[version])
    assert raw.put("c0 00") == b"\xd0\x00"
    assert raw.put("c0 00 c0 00 c0 00") == b"\xd0\x00" * 3


@pytest.mark.parametrize("sent", ["c1 00", "c8 00", "c0 01 00"])
@every_version
def test_an_illegal_pingreq(world: World, version: int, sent: str) -> None:
    raw = world.raw()
    raw.put(CONNECT_HEX[version])
    answer = raw.put(sent)
    assert raw.is_closed
    assert answer[:3:2] == (b"\xe0\x81" if version == V5 else b"")


@pytest.mark.spec("MQTT-3.1.2-22", "MQTT-3.2.2-22", "MQTT3-3.1.2-24")
@pytest.mark.parametrize("keep_alive", [1, 10, 60])
@every_version
def test_silence_ends_the_connection_after_one_and_a_half_keep_alives(
    world: World, version: int, keep_alive: int
) -> None:
    client = world.join("c", version, keep_alive=keep_alive)
    world.wait(1.5 * keep_alive - TICK)
    assert client.packets == []
    world.wait(3 * TICK)
    assert client.is_closed
    assert [each.reason_code for each in client.packets if isinstance(each, Disconnect)] == [0x8D] * (version == V5)


@pytest.mark.spec("MQTT-3.1.2-22", "MQTT3-3.1.2-24")
@every_version
def test_every_packet_puts_it_off(world: World, version: int) -> None:
    client = world.join("c", version, keep_alive=10)
    for packet in (Pingreq(), message("t"), message("t", qos=1, packet_id=1), Pingreq()):
        world.wait(14)
        assert not client.is_closed
        client.send(packet)
    world.wait(16)
    assert client.is_closed


@pytest.mark.spec("MQTT-3.1.2-22", "MQTT3-3.1.2-24")
@every_version
def test_half_a_packet_does_not(world: World, version: int) -> None:
    client = world.join("c", version, keep_alive=10)
    for byte in b"\x30\x7f\x00\x01":
        world.wait(4)
        client.send_bytes(bytes([byte]))
    assert client.is_closed


@pytest.mark.spec("MQTT-3.1.2-22", "MQTT3-3.1.2-24")
@every_version
def test_what_the_server_sends_does_not(world: World, version: int) -> None:
    client = world.join("c", version, keep_alive=10)
    client.subscribe("t")
    for _ in range(4):
        world.wait(4)
        world.join("p").publish("t", b"x")
    assert client.is_closed


@every_version
def test_keep_alive_0_is_no_keep_alive(world: World, version: int) -> None:
    client = world.join("c", version, keep_alive=0)
    world.wait(1_000_000)
    client.send(Pingreq())
    assert client.take(Pingresp) == Pingresp()


@every_version
def test_the_longest_keep_alive(world: World, version: int) -> None:
    client = world.join("c", version, keep_alive=65535)
    world.wait(65535 * 1.5 - 1)
    assert not client.is_closed
    world.wait(2)
    assert client.is_closed


@pytest.mark.spec("MQTT-3.2.2-22")
@pytest.mark.parametrize(
    ("limits", "asked", "lasts"),
    [
        ({"max_keep_alive": 10}, 60, 15),
        ({"max_keep_alive": 10}, 0, 15),
        ({"max_keep_alive": 60}, 10, 15),
        ({"min_keep_alive": 20}, 10, 30),
    ],
)
@pytest.mark.parametrize("version", [V31, V311, V5])
def test_the_servers_keep_alive_is_the_one_that_counts(
    version: int, limits: dict[str, Any], asked: int, lasts: float
) -> None:
    world = World(**limits)
    client = world.join("c", version, keep_alive=asked)
    world.wait(lasts - 1)
    assert not client.is_closed
    world.wait(1.5)
    assert client.is_closed
