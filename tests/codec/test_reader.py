"""PacketReader: where it stops, what it keeps, when it refuses, and what that costs."""

from inspect import isfunction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire import FROM_CLIENT, VECTORS, comparable, read_all
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.errors import MalformedPacket, PacketTooLarge, ProtocolViolation, TopicNameInvalid
from twisted_p2pmqtt.codec.message import DUP, Message
from twisted_p2pmqtt.codec.packets import Connect, Pingreq, Puback, Pubacks, Subscribe
from twisted_p2pmqtt.codec.primitives import encode_varint
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.writer import encode

CONNECT = bytes.fromhex("10 0e 0004 4d515454 04 02 003c 0002 6331")
SUBSCRIBE = bytes.fromhex("82 08 000a 0003 612f62 01")
PING = b"\xc0\0"
PUBLISH_X = bytes.fromhex("30 06 0003 612f62 78")


def kinds(packets: list[Packet]) -> list[type]:
    return [type(packet) for packet in packets]


def halted(reader: PacketReader) -> bool:
    """A function, or mypy takes the attribute for constant."""
    return reader.is_halted


def publish(size: int) -> bytes:
    """A QoS 0 PUBLISH to ``a`` with this many bytes of payload."""
    return b"\x30" + encode_varint(3 + size) + b"\0\1a" + bytes(size)


# Behind a CONNECT


def test_it_stops_behind_a_connect() -> None:
    reader = PacketReader()
    assert not halted(reader)
    assert kinds(reader.feed(CONNECT + SUBSCRIBE + PING)) == [Connect]
    assert halted(reader)
    assert reader.version == 4
    assert kinds(reader.feed(b"")) == [Subscribe, Pingreq]
    assert not halted(reader)
    assert not reader.has_partial_packet


def test_what_follows_a_connect_is_judged_by_the_limit_set_meanwhile() -> None:
    reader = PacketReader(max_packet_size=64)
    assert kinds(reader.feed(CONNECT + publish(100) + PING)) == [Connect]
    reader.max_packet_size = 1000
    assert kinds(reader.feed(PING)) == [Message, Pingreq, Pingreq]
    reader.max_packet_size = 64
    assert reader.feed(publish(100)) == []
    assert isinstance(reader.error, PacketTooLarge)


def test_a_connect_alone_leaves_nothing() -> None:
    reader = PacketReader()
    assert kinds(reader.feed(CONNECT)) == [Connect]
    assert halted(reader)
    assert not reader.has_partial_packet
    assert reader.feed(b"") == []
    assert not halted(reader)
    assert kinds(reader.feed(PING)) == [Pingreq]


@pytest.mark.spec("MQTT-3.1.0-1", "MQTT3-3.1.0-1", "MQTT-3.1.0-2", "MQTT3-3.1.0-2")
def test_connect_comes_first_and_once() -> None:
    for vector in FROM_CLIENT:
        reader = PacketReader()
        if isinstance(vector.packet, Connect):
            assert kinds(read_all(reader, vector.data)) == [Connect]
            assert reader.feed(vector.data[:1]) == []  # its first byte is enough
        else:
            assert reader.feed(vector.data[:1]) == []
        assert isinstance(reader.error, ProtocolViolation), vector.name


# Holding back


def test_what_is_held_is_read_by_the_next_feed() -> None:
    reader = PacketReader(version=4)
    reader.hold(PING + SUBSCRIBE[:3])
    reader.hold(SUBSCRIBE[3:])
    reader.hold(PUBLISH_X[:4])
    assert reader.has_partial_packet
    assert kinds(reader.feed(b"")) == [Pingreq, Subscribe]
    assert reader.has_partial_packet
    assert kinds(reader.feed(PUBLISH_X[4:])) == [Message]
    assert not reader.has_partial_packet


def test_holding_within_a_packet() -> None:
    reader = PacketReader(version=4)
    assert reader.feed(PUBLISH_X[:3]) == []
    reader.hold(PUBLISH_X[3:] + PING)
    assert kinds(reader.feed(PING)) == [Message, Pingreq, Pingreq]


# Errors


def test_packets_before_an_error_are_given_and_none_after_it() -> None:
    reader = PacketReader(version=4)
    assert kinds(reader.feed(PING + PUBLISH_X + b"\xc1\0" + PING)) == [Pingreq, Message]
    error = reader.error
    assert isinstance(error, MalformedPacket)
    assert reader.feed(PING) == []
    assert reader.error is error
    assert not reader.has_partial_packet


def test_packets_smuggled_in_a_packet_that_may_not_be_so_long() -> None:
    for outer in (b"\xc0\6", b"\x40\6", b"\xe0\6"):
        reader = PacketReader(version=4)
        assert reader.feed(outer + bytes.fromhex("3004 0001 61 78")) == []
        assert isinstance(reader.error, MalformedPacket)


PUBLISH_FIRST = {0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3A, 0x3B, 0x3C, 0x3D}  # no DUP at QoS 0, no QoS 3
LEGAL_FIRST = {
    3: PUBLISH_FIRST | {0x40, 0x50, 0x62, 0x6A, 0x70, 0x82, 0x8A, 0xA2, 0xAA, 0xC0, 0xE0},
    4: PUBLISH_FIRST | {0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0},
    5: PUBLISH_FIRST | {0x40, 0x50, 0x62, 0x70, 0x82, 0xA2, 0xC0, 0xE0, 0xF0},
    0: {0x10},
}


@pytest.mark.parametrize("version", LEGAL_FIRST)
def test_an_illegal_first_byte_is_refused_alone(version: int) -> None:
    legal = set()
    for first in range(256):
        reader = PacketReader(version=version)
        assert reader.feed(bytes((first,))) == []
        assert reader.has_partial_packet == (reader.error is None)
        if reader.error is None:
            legal.add(first)
    assert legal == LEGAL_FIRST[version]


# Sizes


@pytest.mark.parametrize("size", [0, 123, 124, 125, 16_379, 16_380, 16_381, 100_000])
@pytest.mark.spec("MQTT-3.2.2-15")
def test_the_size_is_judged_at_the_fixed_header(size: int) -> None:
    data = publish(size)
    header = data[: -3 - size]
    for limit, is_legal in ((len(data), True), (len(data) - 1, False)):
        whole = PacketReader(limit, version=4)
        assert len(whole.feed(data)) == is_legal
        by_byte = PacketReader(limit, version=4)
        for byte in header:
            assert by_byte.feed(bytes((byte,))) == []
        at_once = PacketReader(limit, version=4)
        assert at_once.feed(header) == []
        for reader in (by_byte, at_once):  # nothing of the body has come, and nothing is kept of what is too large
            assert reader.has_partial_packet == is_legal
        for reader in (whole, by_byte, at_once):
            assert isinstance(reader.error, PacketTooLarge) != is_legal


def test_the_size_is_judged_before_connect_too() -> None:
    reader = PacketReader(64)
    assert reader.feed(bytes.fromhex("10 ffffff7f")) == []
    assert isinstance(reader.error, PacketTooLarge)
    assert not reader.has_partial_packet


def test_every_packet_type_is_judged_by_its_size() -> None:
    for vector in VECTORS:
        reader = vector.reader(max_packet_size=len(vector.data) - 1)
        assert reader.feed(vector.data) == [], vector.name
        assert isinstance(reader.error, PacketTooLarge), vector.name


def test_the_largest_packet_there_is_is_waited_for() -> None:
    reader = PacketReader(version=4)
    assert reader.feed(bytes.fromhex("30 ffffff7f 0001 61")) == []
    assert reader.error is None
    assert reader.has_partial_packet
    smaller = PacketReader(268_435_459, version=4)
    assert smaller.feed(bytes.fromhex("30 ffffff7f")) == []
    assert isinstance(smaller.error, PacketTooLarge)


# Costs


class CountingReader(PacketReader):
    """Counts the bytes that are looked at, and those that are kept."""

    __slots__ = ("copied",)

    def __init__(self, version: int) -> None:
        super().__init__(version=version)
        self.copied = 0

    def _read(self, data: bytes, pos: int, packets: list[Packet]) -> None:
        self.copied += len(data) - pos
        super()._read(data, pos, packets)

    def _keep(self, rest: bytes, missing: int) -> None:
        self.copied += len(rest)
        super()._keep(rest, missing)


counted = pytest.mark.skipif(not isfunction(PacketReader.feed), reason="a compiled class has no subclasses here")


@counted
@pytest.mark.parametrize("chunk", [1, 7, 64, 1024])
def test_a_large_packet_in_small_pieces_costs_as_much_as_in_one(chunk: int) -> None:
    data = publish(50_000)
    reader = CountingReader(4)
    packets = [packet for at in range(0, len(data), chunk) for packet in reader.feed(data[at : at + chunk])]
    assert kinds(packets) == [Message]
    assert reader.copied < len(data) + 2 * chunk + 20  # read whole once; before, its header and the first chunk only


@counted
def test_many_small_packets_in_small_pieces_cost_a_few_times_their_length() -> None:
    data = 500 * PUBLISH_X
    for chunk in (1, 2, 3, 7, 9, 100):
        reader = CountingReader(4)
        packets = [packet for at in range(0, len(data), chunk) for packet in reader.feed(data[at : at + chunk])]
        assert len(packets) == 500
        assert reader.copied <= 4 * len(data)


@counted
def test_a_thousand_packets_in_one_piece_are_looked_at_once() -> None:
    reader = CountingReader(4)
    assert len(reader.feed(1000 * PUBLISH_X)) == 1000
    assert reader.copied == 1000 * len(PUBLISH_X)


# Topics


class Topic:
    """One that is known."""

    def __init__(self, is_forwarded: bool = True) -> None:
        self.is_forwarded = is_forwarded


def test_known_topics_are_not_checked_again() -> None:
    sent = bytes.fromhex("30 06 0003 612f2b 78")
    (packet,) = PacketReader(known_topics={b"a/+": Topic()}, version=4).feed(sent)
    assert isinstance(packet, Message)
    assert packet.topic == b"a/+"
    reader = PacketReader(known_topics={b"a/b": Topic()}, version=4)
    assert kinds(reader.feed(PUBLISH_X)) == [Message]
    assert reader.feed(sent) == []
    assert isinstance(reader.error, TopicNameInvalid)


# Subscription identifiers of a client


@pytest.mark.parametrize(
    ("sent", "properties"),
    [
        ("32 09 0001 61 0001 02 0b 01 78", {}),
        ("34 0a 0001 61 0001 03 0b 8001 78", {}),
        ("32 0d 0001 61 0001 06 0b 01 03 0001 74 78", {"content_type": "t"}),
    ],
)
def test_one_is_taken_off_a_message_that_would_come_back(sent: str, properties: Properties) -> None:
    reader = PacketReader(version=5)
    (packet,) = reader.feed(bytes.fromhex(sent))
    assert isinstance(packet, Message)
    assert packet.properties == properties
    assert packet.payload == b"x"
    assert reader.error is None


@pytest.mark.parametrize("sent", ["30 07 0001 61 02 0b 01 78", "32 0b 0001 61 0001 04 0b 01 0b 02 78"])
@pytest.mark.spec("MQTT-3.3.4-6")
def test_any_other_is_refused(sent: str) -> None:
    reader = PacketReader(version=5)
    assert reader.feed(bytes.fromhex(sent)) == []
    assert isinstance(reader.error, ProtocolViolation)


def test_every_frame_of_a_batch_is_its_own_packet() -> None:
    wanted = [vector for vector in FROM_CLIENT if vector.version == 4 and not isinstance(vector.packet, Connect)]
    reader = PacketReader()
    packets = read_all(reader, CONNECT + b"".join(vector.data for vector in wanted))
    assert list(map(comparable, packets[1:])) == [comparable(vector.packet) for vector in wanted]
    assert kinds(packets)[0] is Connect
    assert reader.error is None


# Runs of PUBACK


def puback(packet_id: int) -> bytes:
    return b"\x40\2" + packet_id.to_bytes(2, "big")


@pytest.mark.parametrize("version", [4, 5])
def test_a_run_of_pubacks_is_one_packet(version: int) -> None:
    reader = PacketReader(version=version)
    assert reader.feed(puback(1) + puback(513) + puback(65535) + PING) == [Pubacks([1, 513, 65535]), Pingreq()]
    assert reader.feed(puback(7) + PING + puback(8)) == [Puback(7), Pingreq(), Puback(8)]


def test_a_run_of_pubacks_ends_before_what_is_none() -> None:
    reader = PacketReader(version=5)
    explained = b"\x40\3\0\x09\x10"
    assert reader.feed(puback(1) + puback(2) + explained + puback(3)) == [Pubacks([1, 2]), Puback(9, 0x10), Puback(3)]
    assert reader.feed(puback(4) + puback(5) + puback(6)[:3]) == [Pubacks([4, 5])]
    assert reader.feed(puback(6)[3:]) == [Puback(6)]
    assert reader.error is None


@pytest.mark.spec("MQTT-2.2.1-3", "MQTT3-2.3.1-1")
def test_a_run_of_pubacks_does_not_hide_an_illegal_one() -> None:
    reader = PacketReader(version=4)
    assert reader.feed(puback(1) + puback(2) + puback(0) + puback(3)) == [Pubacks([1, 2])]
    assert isinstance(reader.error, ProtocolViolation)


def seen(packet: Packet) -> object:
    """What there is to see of a packet."""
    if not isinstance(packet, Message):
        return packet
    names = ("topic", "payload", "qos", "retain", "dup", "packet_id", "properties", "expires_at")
    return [*(getattr(packet, name) for name in names), packet.frame(4), packet.frame(5)]


# Bursts that begin alike

FIRST_BYTES = st.sampled_from((0x30, 0x30, 0x31, 0x32, 0x32, 0x33, 0x34, 0x3A, 0x3B))
BURST_TOPICS = st.sampled_from((b"t", b"t", b"u", b"v", b"w", b"t/t", b"#", b"\xff", b""))


@st.composite
def bursts(draw: st.DrawFn) -> tuple[int, list[bytes]]:
    """Messages of one publisher that resemble each other more or less, an illegal one among them perhaps."""
    version = draw(st.sampled_from((4, 5)))
    packets = []
    for _ in range(draw(st.integers(1, 8))):
        first, topic = draw(FIRST_BYTES), draw(BURST_TOPICS)
        body = len(topic).to_bytes(2, "big") + topic
        if first & 6:
            body += draw(st.sampled_from((0, 1, 2, 0x3000))).to_bytes(2, "big")
        if version == 5:
            body += draw(st.sampled_from((b"\0", b"\0", b"\0", b"\x02\x01\x01", b"\x02\x01")))
        body += draw(st.sampled_from((b"", b"x", b"y", b"z", b"xy", b"\0" * 200, b"0\5\0\1t0\5")))
        packets.append(bytes((first,)) + encode_varint(len(body)) + body)
    return version, packets


@given(bursts(), st.booleans())
def test_a_burst_in_one_piece_is_what_its_packets_are(burst: tuple[int, list[bytes]], is_forwarded: bool) -> None:
    version, packets = burst
    reader = PacketReader(version=version, known_topics={b"t": Topic(is_forwarded), b"u": Topic(not is_forwarded)})
    apart = PacketReader(version=version)
    expected = [seen(packet) for data in packets for packet in apart.feed(data)]
    assert [seen(packet) for packet in reader.feed(b"".join(packets))] == expected
    assert type(reader.error) is type(apart.error)


@pytest.mark.parametrize("is_forwarded", [False, True])
@pytest.mark.parametrize("retain", [0, 1])
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("version", [4, 5])
def test_a_burst_to_many_topics_goes_on_as_long_as_they_are_alike(
    version: int, qos: int, retain: int, is_forwarded: bool
) -> None:
    def packet(topic: bytes, number: int = 7, **differs: object) -> bytes:
        dup, packet_id = (DUP, number) if qos else (0, 0)
        message = Message(topic, b"payload", qos=qos, retain=retain, dup=dup, packet_id=packet_id)
        for name, value in differs.items():
            setattr(message, name, value)
        return encode(message, version)

    alike = [packet(b"t%d" % number, number) for number in range(1, 6)]
    ends = {
        "another flag": packet(b"t6", retain=1 - retain),
        "a wildcard": packet(b"t#"),
        "no UTF-8": packet(b"\xff\xff"),
        "another size": packet(b"t6", body=b"load"),
        "half a packet": packet(b"t6")[:-1],
    }
    if qos:
        ends["no identifier"] = packet(b"t6", 0)
    if version == 5:  # and a payload that is shorter by as much
        ends["properties"] = packet(b"t6")[:-8] + b"\x02\x01\x01load!"
    for end in ends.values():
        data = [*alike, end, *alike]
        known = {b"t%d" % number: Topic(is_forwarded) for number in (1, 2, 3)}
        reader, apart = PacketReader(version=version, known_topics=known), PacketReader(version=version)
        expected = [seen(one) for each in data for one in apart.feed(each)]
        assert [seen(one) for one in reader.feed(b"".join(data))] == expected
        assert type(reader.error) is type(apart.error)


@pytest.mark.parametrize("version", [4, 5])
def test_a_burst_ends_where_its_last_packet_is_not_whole(version: int) -> None:
    packet = encode(Message(b"t", b"payload", qos=1, packet_id=7), version)
    reader = PacketReader(version=version)
    assert len(reader.feed(packet * 3 + packet[:-1])) == 3
    assert [seen(one) for one in reader.feed(packet[-1:])] == [seen(one) for one in reader.feed(packet)]


@pytest.mark.parametrize("then", ["00 0900 78797a", "02 0100 78797a", "02 0b07 78797a"])
def test_a_burst_is_not_begun_by_a_message_whose_identifier_was_taken_off(then: str) -> None:
    first = bytes.fromhex("32 0c 0003 612f62 0007 02 0b05 78797a")
    second = bytes.fromhex(f"32 0c 0003 612f62 0007 {then}")
    assert len(first) == len(second)
    apart = PacketReader(version=5)
    expected = [seen(packet) for data in (first, second) for packet in apart.feed(data)]
    assert [seen(packet) for packet in PacketReader(version=5).feed(first + second)] == expected


def test_what_is_held_from_before_a_connect_is_read_up_to_it() -> None:
    reader = PacketReader()
    reader.hold(CONNECT[:5])
    assert kinds(reader.feed(CONNECT[5:] + PING)) == [Connect]
    assert reader.is_halted
    assert kinds(reader.feed(b"")) == [Pingreq]
