"""Every golden vector, in both directions and against the wrong one."""

import pytest

from tests.wire import EITHER_WAY, OTHER_FORMS, VECTORS, Vector, comparable, read_all
from twisted_p2pmqtt.codec.constants import PacketType, PropertyId
from twisted_p2pmqtt.codec.decode import DECODERS
from twisted_p2pmqtt.codec.errors import ProtocolViolation
from twisted_p2pmqtt.codec.packets import Connect
from twisted_p2pmqtt.codec.properties import TABLE
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import encode


def name(vector: Vector) -> str:
    return vector.name


every_vector = pytest.mark.parametrize("vector", VECTORS, ids=name)


@every_vector
@pytest.mark.spec("MQTT-1.5.4-3", "MQTT3-1.5.3-3")  # one has a BOM for its client id
@pytest.mark.spec("MQTT-2.2.1-2", "MQTT3-2.3.1-5", "MQTT-3.1.3-1", "MQTT3-3.1.3-1")
def test_the_bytes_are_the_packet(vector: Vector) -> None:
    reader = vector.reader()
    packets = reader.feed(vector.data)
    assert reader.error is None
    assert list(map(comparable, packets)) == [comparable(vector.packet)]
    assert not reader.has_partial_packet
    assert reader.version == vector.version


@every_vector
@pytest.mark.spec("MQTT-2.2.2-1", "MQTT-3.2.2-1", "MQTT-1.5.5-1")
def test_the_packet_is_the_bytes(vector: Vector) -> None:
    assert encode(vector.packet, vector.version).hex(" ") == vector.data.hex(" ")


@pytest.mark.parametrize("vector", OTHER_FORMS, ids=name)
def test_another_form_means_the_same(vector: Vector) -> None:
    reader = vector.reader()
    packets = reader.feed(vector.data)
    assert reader.error is None
    assert list(map(comparable, packets)) == [comparable(vector.packet)]
    assert encode(vector.packet, vector.version) != vector.data


@every_vector
def test_byte_by_byte_is_the_same(vector: Vector) -> None:
    reader = vector.reader()
    packets = read_all(reader, *(bytes((byte,)) for byte in vector.data))
    assert reader.error is None
    assert list(map(comparable, packets)) == [comparable(vector.packet)]


@pytest.mark.parametrize("vector", [each for each in VECTORS if each.data[0] >> 4 != PacketType.PUBLISH], ids=name)
def test_the_decoder_alone_gives_the_same_as_the_reader(vector: Vector) -> None:
    assert DECODERS[vector.data[0] >> 4](vector.data[2:], vector.version) == vector.packet


def test_a_packet_that_goes_one_way_is_refused_the_other_way() -> None:
    two_ways = {vector.data for vector in EITHER_WAY} | {bytes.fromhex("e000")}
    for vector in VECTORS:
        kind = PacketType(vector.data[0] >> 4)
        if vector.data in two_ways or kind in (PacketType.DISCONNECT, PacketType.AUTH):
            continue
        reader = PacketReader(version=vector.version, from_server=not vector.from_server)
        assert reader.feed(vector.data) == [], vector.name
        assert isinstance(reader.error, ProtocolViolation), vector.name


def test_there_is_a_vector_for_every_packet_type_version_and_property() -> None:
    kinds = {(vector.version, PacketType(vector.data[0] >> 4)) for vector in VECTORS}
    assert kinds == {
        (version, kind) for version in (3, 4, 5) for kind in PacketType if version == 5 or kind is not PacketType.AUTH
    }
    found = {name for vector in VECTORS for name in getattr(vector.packet, "properties", ())}
    for vector in VECTORS:
        if isinstance(vector.packet, Connect) and vector.packet.will is not None:
            found |= set(vector.packet.will.properties)
    assert found == {row.name for row in TABLE.values()}
    assert len(found) == len(PropertyId) == 27
