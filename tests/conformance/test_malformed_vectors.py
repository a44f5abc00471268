"""The byte vectors of ``vectors_88`` over a connection in memory: in one piece, and in small ones."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pytest
from twisted.logger import globalLogPublisher

from tests.conformance.helpers import V5, Raw, World, payloads
from tests.conformance.vectors_88 import C4, C5, VECTORS, Vector
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.packets import Suback, Will
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.testing import MemoryClient

PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"


@pytest.fixture(autouse=True)
def _nothing_is_logged() -> Iterator[None]:
    events: list[Any] = []
    observer: Any = events.append
    globalLogPublisher.addObserver(observer)
    yield
    globalLogPublisher.removeObserver(observer)
    assert events == []


def words(packets: list[Packet]) -> list[str]:
    """The packets as ``Vector.outcome`` has them."""

    def word(packet: Packet) -> str:
        code = getattr(packet, "reason_code", 0) or getattr(packet, "reason_codes", [0])[0]
        return type(packet).__name__.lower() + (f":{code:02x}" if code else "")

    counted = ((each, len(list(group))) for each, group in groupby(map(word, packets)))
    return [each if count == 1 else f"{each}*{count}" for each, count in counted]


def outcome(raw: Raw, vector: Vector) -> str:
    """What has come back, behind the CONNACK of an accepted prefix."""
    reader = PacketReader(version=vector.version, from_server=True)
    packets = reader.feed(raw.got())
    assert reader.error is None
    if vector.data.startswith((bytes.fromhex(C4), bytes.fromhex(C5))):
        assert words(packets[:1]) == ["connack"]
        del packets[0]
    if raw.is_closed:
        state = "close"
    else:
        assert raw.put(PINGREQ) == PINGRESP
        state = "open"
    return " ".join([*words(packets), state])


def attack(vector: Vector, size: int) -> tuple[str, MemoryClient]:
    """Send the vector, so many bytes at a time, to a broker with one other client; gives the outcome and that one."""
    world = World(**vector.limits)
    canary = world.join("canary")
    canary.subscribe("#")
    raw = world.raw()
    data = vector.data
    for start in range(0, len(data), size):
        raw.send_bytes(data[start : start + size])
    return outcome(raw, vector), canary


def test_every_vector_is_there() -> None:
    expected = {"A": 16, "B": 29, "C": 23, "D": 18, "E": 5, "F": 4}
    assert [each.id for each in VECTORS] == [
        f"{letter}{number:02d}" for letter, count in expected.items() for number in range(1, count + 1)
    ]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.id)
def test_in_one_piece(vector: Vector) -> None:
    came, canary = attack(vector, len(vector.data))
    assert came == vector.outcome
    published = {"C19": 20, "C20": 1}.get(vector.id, 0)
    assert payloads(canary) == published * [b"x"]
    canary.publish("alive", b"1")
    assert payloads(canary)[-1:] == [b"1"]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("vector", [each for each in VECTORS if len(each.sent) < 200], ids=lambda vector: vector.id)
def test_in_small_pieces(vector: Vector, size: int) -> None:
    assert attack(vector, size)[0] == vector.outcome


@pytest.mark.parametrize("vector", [each for each in VECTORS if len(each.sent) > 200], ids=lambda vector: vector.id)
def test_in_segments(vector: Vector) -> None:
    assert attack(vector, 1448)[0] == vector.outcome


@pytest.mark.parametrize(("name", "header"), [("A04", 5), ("C18", 17 + 1 + 5), ("B28", 4)])
def test_the_size_is_judged_at_the_header(name: str, header: int) -> None:
    """Nothing of a packet that is too large is waited for, let alone kept."""
    vector = next(each for each in VECTORS if each.id == name)
    raw = World().raw()
    raw.send_bytes(vector.data[:header])
    assert outcome(raw, vector) == vector.outcome


def test_of_10000_filters_the_first_1000_are_granted(world: World) -> None:
    vector = next(each for each in VECTORS if each.id == "D18")
    client: MemoryClient = world.client("", 4)
    client.send_bytes(vector.data)
    assert client.take(Suback).reason_codes == 1000 * [0] + 9000 * [0x80]


def test_the_will_of_f03_fires(world: World) -> None:
    listener = world.join("listener")
    listener.subscribe("w")
    world.join("c", 4, will=Will("w", b"bye")).send_bytes(b"\xe1\x00")
    assert payloads(listener) == [b"bye"]


def test_a_client_id_of_wildcards_is_no_wildcard(world: World) -> None:
    """B12, B13: P2P reaches such an id by its escaped form, and no other client."""
    other, odd = world.join("other"), world.join("#", V5)
    sender = world.join("sender")
    assert sender.publish("p2p/%23/t", b"x", 1) == 0
    assert payloads(odd) == [b"x"]
    assert payloads(other) == []
