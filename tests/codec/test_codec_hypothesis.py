"""The codec under hypothesis: round trips, streams cut anywhere, and bytes that nobody meant."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.strategies import connects, packets, versions
from tests.wire import OTHER_FORMS, VECTORS, comparable, read_all
from tests.wire_refused import REFUSED
from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.decode import DECODERS, Packet, sniff_version
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.codec.properties import WILL, decode_properties
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.codec.topics import check_topic_filter, check_topic_name, split_shared
from twisted_p2pmqtt.codec.writer import encode

few = settings(max_examples=80, deadline=None)
many = settings(max_examples=500, deadline=None)
directions = pytest.mark.parametrize("from_server", [False, True], ids=["from client", "from server"])
every_version = pytest.mark.parametrize("version", [3, 4, 5])


@directions
@every_version
def test_a_packet_written_is_the_packet_read(version: int, from_server: bool) -> None:
    @few
    @given(packets(version, from_server))
    def check(packet: Packet) -> None:
        data = encode(packet, version)
        reader = PacketReader(len(data), version=version, from_server=from_server)
        read = reader.feed(data)
        assert reader.error is None
        assert list(map(comparable, read)) == [comparable(packet)]

    check()


@every_version
def test_a_connect_written_is_the_connect_read(version: int) -> None:
    @few
    @given(connects(version))
    def check(packet: Packet) -> None:
        data = encode(packet, version)
        reader = PacketReader(len(data))
        read = reader.feed(data)
        assert reader.error is None
        assert read == [packet]
        assert sniff_version(data[2 if data[1] < 128 else 3 :]) == max(version, 4)

    check()


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The same bytes in pieces, empty ones among them."""
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@every_version
def test_a_stream_is_the_same_however_it_is_cut(version: int) -> None:
    @few
    @given(st.data())
    def check(data: st.DataObject) -> None:
        sent = [data.draw(connects(version)), *data.draw(st.lists(packets(version), max_size=5))]
        stream = b"".join(encode(packet, version) for packet in sent)
        is_broken = data.draw(st.booleans())
        if is_broken:
            stream += b"\xc1\0\xc0\0"  # what follows the illegal packet is never read
        reader = PacketReader()
        read = read_all(reader, *data.draw(cut(stream)))
        assert list(map(comparable, read)) == list(map(comparable, sent))
        assert (reader.error is not None) == is_broken
        assert not reader.has_partial_packet

    check()


SEEDS = [vector.data for vector in (*VECTORS, *OTHER_FORMS)] + [refused.data for refused in REFUSED]


@st.composite
def almost_packets(draw: st.DrawFn) -> bytes:
    """A known vector with some of its bytes replaced, removed, doubled, or others put in."""
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


streams = st.lists(almost_packets() | st.binary(max_size=20) | st.sampled_from(SEEDS), max_size=4)


@many
@given(streams, st.integers(0, 5).filter(lambda version: version not in (1, 2)), st.booleans())
def test_no_bytes_make_the_reader_raise(chunks: list[bytes], version: int, from_server: bool) -> None:
    reader = PacketReader(version=version, from_server=from_server)
    for chunk in chunks:
        had_error = reader.error is not None
        read = reader.feed(chunk)
        assert not (had_error and read)
        for packet in read:  # what was understood can be said again
            assert encode(packet, reader.version)
    assert reader.error is None or isinstance(reader.error, MQTTError)


@many
@given(streams, versions)
def test_any_cut_gives_the_same_packets_and_the_same_error(chunks: list[bytes], version: int) -> None:
    whole, cut_up = PacketReader(version=version), PacketReader(version=version)
    read_whole = read_all(whole, b"".join(chunks))
    read_cut = read_all(cut_up, *(bytes((byte,)) for byte in b"".join(chunks)))
    assert list(map(comparable, read_whole)) == list(map(comparable, read_cut))
    assert type(whole.error) is type(cut_up.error)
    assert whole.has_partial_packet == cut_up.has_partial_packet


def refusal(function: Callable[..., object], *arguments: object) -> int | None:
    """The reason code of the ``MQTTError`` that the function raises, if it does."""
    try:
        function(*arguments)
    except MQTTError as error:
        return error.reason_code
    return None


@pytest.mark.parametrize("kind", DECODERS, ids=lambda kind: kind.name)
def test_a_decoder_raises_nothing_but_mqtt_errors(kind: int) -> None:
    bodies = [seed[2:] for seed in SEEDS if seed[0] >> 4 == kind]

    @few
    @given(st.sampled_from(bodies), st.binary(max_size=8), st.integers(0, 40), st.integers(0, 8), versions)
    def check(body: bytes, other: bytes, at: int, removed: int, version: int) -> None:
        changed = body[:at] + other + body[at + removed :]
        assert refusal(DECODERS[kind], changed, version) in {None, *ReasonCode}

    check()


@many
@given(st.binary(max_size=40), st.integers(WILL, 15))
def test_properties_raise_nothing_but_mqtt_errors(data: bytes, packet: int) -> None:
    try:
        _, end = decode_properties(data, 0, len(data), packet)
    except MQTTError:
        return
    assert 0 < end <= len(data)


@many
@given(st.binary(max_size=12) | st.text("ab$/+#é", max_size=12).map(str.encode))
def test_topics_raise_nothing_but_mqtt_errors(raw: bytes) -> None:
    text = raw.decode(errors="ignore")
    assert refusal(check_topic_name, raw) in (None, 0x81, 0x90)
    assert refusal(check_topic_filter, text) in (None, 0x8F)
    assert refusal(split_shared, text) in (None, 0x8F)
