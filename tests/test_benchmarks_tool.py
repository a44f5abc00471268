"""The benchmarks' load generator counts rightly: frames in pieces, a tiny broker that counts too, and mosquitto.

Nothing here judges a speed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import selectors
import shutil
import socket
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import chart, frames, links, singles
from benchmarks.brokers import BrokerSpec, mosquitto_config, ours_config, running
from benchmarks.load import Load, LoadSpec, run_load
from benchmarks.presence import Times, ask
from benchmarks.probes import NotAvailable, check_acl, check_connection, check_store
from benchmarks.rows import MOSQUITTO, Row, Side, Target, all_rows
from benchmarks.runner import Line, Plan, RowFailed, measure, run_side, start_load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmarks need epoll and /proc")


# A broker of the simplest kind: literal topics, no sessions; it writes in pieces that split frames, and counts.


class Peer:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""
        self.out = b""
        self.level = 0
        self.next_id = 0
        self.unacked = 0


class TinyBroker:
    """`receive_maximum` is told to MQTT 5 clients; `most_unacked` is the most that one of them ever had open.
    `status` stands in acknowledgements behind the packet id; every `loses_every`th delivery is lost."""

    def __init__(self, receive_maximum: int = 0xFFFF, status: bytes = b"", loses_every: int = sys.maxsize) -> None:
        self.receive_maximum = receive_maximum
        self.status = status
        self.loses_every = loses_every
        self.received = self.delivered = self.acked = self.most_unacked = self.lost = 0
        self._random = random.Random(1)
        self._topics: dict[bytes, list[tuple[Peer, int]]] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._selector.register(self._listener, selectors.EVENT_READ)
        self.port: int = self._listener.getsockname()[1]
        self._stop = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> TinyBroker:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            self._selector.unregister(key.fileobj)
            key.fileobj.close()  # type: ignore[union-attr]  # a socket
        self._selector.close()

    def _run(self) -> None:
        while not self._stop:
            for key, _ in self._selector.select(0.01):
                if key.data is None:
                    sock = self._listener.accept()[0]
                    self._selector.register(sock, selectors.EVENT_READ, Peer(sock))
                else:
                    self._read(key.data)
            for key in list(self._selector.get_map().values()):
                if key.data is not None and key.data.out:
                    self._write(key.data)

    def _write(self, peer: Peer) -> None:
        piece = self._random.randrange(1, len(peer.out) + 1)
        peer.sock.settimeout(0.001)
        try:
            peer.out = peer.out[peer.sock.send(peer.out[:piece]) :]
        except TimeoutError:
            return
        except ConnectionError:
            peer.out = b""

    def _read(self, peer: Peer) -> None:
        try:
            data = peer.sock.recv(20_000)
        except ConnectionError:
            data = b""
        if not data:
            self._selector.unregister(peer.sock)
            peer.sock.close()
            peer.out = b""
            return
        data = peer.data + data
        pos = 0
        while (length := frames.read_varint(data, pos + 1)) and length[0] + length[1] <= len(data):
            end = length[0] + length[1]
            self._packet(peer, data[pos], data[length[1] : end])
            pos = end
        peer.data = data[pos:]

    def _packet(self, peer: Peer, first: int, body: bytes) -> None:
        if first == 0x10:
            peer.level = body[6]
            properties = b"\x21" + self.receive_maximum.to_bytes(2, "big") + b"\x22\x00\x0a"
            peer.out += frames.packet(0x20, b"\0\0" + (b"\x06" + properties if peer.level == frames.V5 else b""))
        elif first == 0x82:
            start = 3 if peer.level == frames.V5 else 2
            self._topics.setdefault(body[start + 2 : -1], []).append((peer, body[-1]))
            peer.out += frames.packet(0x90, body[:start] + body[-1:])
        elif first & 0xF0 == 0x30:
            self._publish(peer, first >> 1 & 3, body)
        elif first in (0x40, 0x70):
            self.acked += 1
        elif first == 0x50:
            peer.out += b"\x62\x02" + body[:2]
        elif first == 0x62:
            peer.unacked -= 1
            peer.out += b"\x70\x02" + body[:2]

    def _publish(self, peer: Peer, qos: int, body: bytes) -> None:
        self.received += 1
        end = 2 + int.from_bytes(body[:2], "big")
        topic, packet_id, rest = body[2:end], body[end : end + 2], body[end + (2 if qos else 0) :]
        if qos:
            peer.unacked += 1
            self.most_unacked = max(self.most_unacked, peer.unacked)
            peer.unacked -= qos == 1
            first = 0x40 if qos == 1 else 0x50
            peer.out += frames.packet(first, packet_id + (self.status if peer.level == frames.V5 else b""))
        for target, target_qos in self._topics.get(topic, ()):
            if (self.delivered + self.lost + 1) % self.loses_every == 0:
                self.lost += 1
                continue
            self.delivered += 1
            target.next_id = target.next_id % 0xFFFF + 1
            own_id = target.next_id.to_bytes(2, "big") if min(qos, target_qos) else b""
            target.out += frames.packet(0x30 | min(qos, target_qos) << 1, body[:end] + own_id + rest)


def subscribed(**changes: object) -> LoadSpec:
    spec = LoadSpec(
        publishers=3, subscribers=3, topic="t/{j}", subscribe="t/{j}", window=60, size=20, warm=0.05, time=0.3
    )
    return dataclasses.replace(spec, **changes)  # type: ignore[arg-type]  # of **


def run_against(broker: TinyBroker, spec: LoadSpec) -> tuple[Load, dict[str, float]]:
    load = Load(dataclasses.replace(spec, port=broker.port))
    return load, load.run()


STATUS = b"\0\x17\x26\0\x0ap2p-status\0\x08accepted"  # reason code 0 and a user property


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"qos": 1},
        {"qos": 2},
        {"qos": 1, "level": frames.V5},
        {"qos": 2, "level": frames.V5},
        {"publishers": 5, "subscribers": 1, "topic": "t/0"},
        {"publishers": 1, "subscribers": 5, "topic": "t", "subscribe": "t", "fan": True},
        {"publishers": 1, "subscribers": 5, "topic": "t", "subscribe": "t", "fan": True, "qos": 1},
        {"topics": 4, "topic": "t/{j}", "qos": 1},
        {"size": 300, "qos": 1},
    ],
    ids=str,
)
def test_all_that_is_sent_is_counted_once(changes: dict[str, object]) -> None:
    with TinyBroker(status=STATUS) as broker:
        load, result = run_against(broker, subscribed(**changes))
    assert result["lost"] == 0
    assert load.tally.sent == broker.received > 0
    assert load.tally.delivered == broker.delivered > 0
    assert result["delivered_per_s"] > 0
    if load.spec.qos:
        assert load.tally.acked == broker.received
        assert broker.acked >= broker.delivered - load.spec.window


def test_receive_maximum_of_the_broker_is_kept() -> None:
    with TinyBroker(receive_maximum=7) as broker:
        _, result = run_against(broker, subscribed(qos=2, level=frames.V5, window=3000))
    assert result["lost"] == 0
    assert 1 <= broker.most_unacked <= 7


def test_back_pressure_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # 200 times 64 KiB is more than the sockets hold, so that sending is refused and goes on later.
    kept: list[int] = []
    keep = links.TcpLink._keep

    def keep_and_tell(link: links.TcpLink, data: links.Data, taken: int) -> None:
        kept.append(len(data) - taken)
        keep(link, data, taken)

    monkeypatch.setattr(links.TcpLink, "_keep", keep_and_tell)
    with TinyBroker() as broker:
        load, result = run_against(broker, subscribed(size=65536, publishers=1, subscribers=1, window=200))
    assert max(kept) > 65536
    assert result["lost"] == 0
    assert load.tally.delivered == broker.received == load.tally.sent


@pytest.mark.parametrize("qos", [0, 1])
def test_what_the_broker_loses_is_told(qos: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.load.DRAIN", 1.0)
    with TinyBroker(loses_every=100) as broker:
        _, result = run_against(broker, subscribed(qos=qos, size=4000, window=6000, time=0.1))
    assert result["lost"] == broker.lost > 0


def test_a_storm_keeps_its_rate_and_tells_latencies() -> None:
    with TinyBroker() as broker:
        _, result = run_against(broker, subscribed(mode="storm", rate=200, connections=50, qos=1))
    assert result["lost"] == 0
    assert result["connects_per_s"] > 0
    assert 0 < result["p50_us"] <= result["p99_us"] <= result["max_us"] < 5e6


def test_a_refused_message_ends_the_load() -> None:
    with TinyBroker(status=b"\x97") as broker, pytest.raises(frames.ProtocolError, match="refused"):
        run_against(broker, subscribed(qos=1, level=frames.V5))


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(ConnectionRefusedError):
        run_load(subscribed(port=port))


# Messages that come one at a time


def single(**changes: object) -> LoadSpec:
    spec = LoadSpec(
        publishers=3, subscribers=3, topic="t/{client}", subscribe="t/{client}", size=20, warm=0.05, time=0.3
    )
    return dataclasses.replace(spec, **changes)  # type: ignore[arg-type]  # of **


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("mode", ["pairs", "rate"])
def test_all_single_messages_are_counted_once(mode: str, qos: int) -> None:
    with TinyBroker() as broker:
        result = start_load(single(mode=mode, qos=qos, rate=300, port=broker.port))
    assert result["lost"] == 0
    assert broker.received == broker.delivered > 5
    assert 0 < result["delivered_per_s"] * 0.3 < broker.delivered  # what came before and behind is not counted
    if mode == "rate":
        assert 150 < result["sent_per_s"] < 450
        assert 0 < result["p50_us"] <= result["p99_us"] <= result["max_us"] < 5e6


def test_pairs_have_one_message_in_flight() -> None:
    with TinyBroker(loses_every=50) as broker, pytest.raises(RowFailed, match="nothing for 10 s"):
        start_load(single(mode="pairs", port=broker.port, time=30.0))
    assert broker.lost == 3  # each lost message has ended its pair


def test_single_messages_that_are_lost_are_told() -> None:
    with TinyBroker(loses_every=40) as broker:
        result = start_load(single(mode="rate", rate=300, port=broker.port))
    assert result["lost"] == broker.lost > 0


def test_connections_are_made_and_held() -> None:
    with TinyBroker() as broker:
        result = start_load(single(mode="connect", connections=120, port=broker.port, pid=os.getpid()))
        held = len(broker._topics)
    assert held == 120 + 50  # fifty before, so that what the first connections cost is not counted
    assert result["connects_per_s"] > 0
    assert result["broker_rss_kib"] > 0


def test_single_loads_end_with_a_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with pytest.raises(RowFailed, match=r"refused|closed|reset"):
        start_load(single(mode="pairs", port=port))
    with pytest.raises(RowFailed, match="8 to 4096 bytes"):
        start_load(single(mode="pairs", size=5000, port=port))
    with pytest.raises(RowFailed, match="at most 100 bytes"):
        start_load(single(mode="pairs", subscribe="t" * 101, port=port))


@pytest.mark.parametrize(
    "changes", [{"mode": "storm"}, {"level": frames.V5}, {"topics": 2}, {"topic": "t/{j}"}], ids=str
)
def test_a_load_that_singles_does_not_know_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"singles.c cannot run"):
        singles.command(single(**({"mode": "pairs"} | changes)))


def test_every_row_has_a_load_that_some_generator_knows() -> None:
    modes = set()
    for row in all_rows():
        for side in row.sides.values():
            modes.add(side.load.mode)
            if side.load.mode in singles.MODES:
                assert f"--mode={side.load.mode}" in singles.command(side.load)
    assert modes == {*singles.MODES, "closed", "storm"}


def test_a_mode_that_nobody_knows_is_refused() -> None:
    with TinyBroker() as broker, pytest.raises(ValueError, match="no mode pairs"):
        run_against(broker, single(mode="pairs"))


def test_an_idle_load_is_not_counted_as_busy() -> None:
    with TinyBroker() as broker:
        result = start_load(single(mode="rate", rate=5, port=broker.port, time=0.5))
    assert result["load_cpu"] < 0.15


def test_without_a_compiler_the_row_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    singles.compiled.cache_clear()
    with pytest.raises(NotAvailable, match="C compiler"):
        run_side(Side(BrokerSpec(), single(mode="pairs")), Plan(runs=1))


# Probes


def test_a_feature_that_is_silently_off_is_told(tmp_path: Path) -> None:
    with TinyBroker() as broker:
        check_connection("tcp", broker.port)
        with pytest.raises(NotAvailable, match="ACL"):
            check_acl(broker.port)
    with TinyBroker(status=b"\x87") as broker:
        check_acl(broker.port)
    with pytest.raises(NotAvailable, match="stored"):
        check_store(tmp_path / "store.db")
    (tmp_path / "store.db-wal").write_bytes(b"x")
    check_store(tmp_path / "store.db")


# Frames


def chunks(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    pos = 0
    while pos < len(data):
        size = next(sizes)
        yield data[pos : pos + size]
        pos += size


def test_cut_gives_every_frame_whatever_the_pieces() -> None:
    source = random.Random(2)
    sent = []
    for k in range(300):
        size = source.choice((0, 1, 100, 130, 20_000))
        sent.append(frames.publish(source.choice(("a", "bb")), bytes(size), k % 3, k + 1, frames.V5))
        sent += [b"\x62\x02\0\x01"] * source.randrange(4)
    got: list[bytes] = []
    rest = b""
    for piece in chunks(b"".join(sent), iter(lambda: source.choice((1, 2, 3, 50, 5000, 60_000)), 0)):
        data = rest + piece
        stop = 0
        for run in frames.cut(data):
            got += [data[at : at + run.stride] for at in range(run.start, run.stop, run.stride)]
            stop = run.stop
        rest = data[stop:]
    assert got == sent
    assert not rest


@pytest.mark.parametrize("size", [0, 64, 200, 20_000])
@pytest.mark.parametrize("count", [1, 2, 17])
def test_answer_takes_the_packet_ids_of_a_run(size: int, count: int) -> None:
    data = b"".join(frames.publish("topic", bytes(size), 1, 0xFE + k) for k in range(count)) + b"\x32"
    (run,) = frames.cut(data)
    assert run.frames == count
    assert frames.answer(data, run, frames.PUBACK) == b"".join(
        b"\x40\x02" + (0xFE + k).to_bytes(2, "big") for k in range(count)
    )


def test_failures_are_reason_codes_that_mean_nobody_gets_it() -> None:
    data = b"\x40\x03\0\x01\0\x40\x03\0\x02\x10\x40\x03\0\x03\x97"
    (run,) = frames.cut(data)
    assert frames.failures(data, run) == 2
    plain = b"\x40\x02\0\x01" * 3
    assert frames.failures(plain, next(frames.cut(plain))) == 0


def test_ring_goes_round() -> None:
    ring = frames.Ring([b"aa", b"bb", b"cc"])
    assert [bytes(ring.take(count)) for count in (2, 3, 1)] == [b"aabb", b"ccaabb", b"cc"]
    with pytest.raises(ValueError, match="one size"):
        frames.Ring([b"a", b"bb"])


def test_publish_ring_holds_each_topic_equally() -> None:
    ring = frames.publish_ring(["a", "b", "c"], 8, 1, frames.V311, at_least=16)
    assert ring.length == 18


@pytest.mark.parametrize("value", [0, 127, 128, 16_383, 16_384, 268_435_455])
def test_varint(value: int) -> None:
    raw = frames.varint(value)
    assert frames.read_varint(raw, 0) == (value, len(raw))
    assert frames.read_varint(raw[:-1], 0) is None


def test_receive_maximum_behind_other_properties() -> None:
    properties = b"\x12\0\x02id\x26\0\x01k\0\x01v\x27\0\0\1\0\x25\x01\x21\x01\x02"
    assert frames.receive_maximum(b"\0\0" + bytes((len(properties),)) + properties) == 0x102
    assert frames.receive_maximum(b"\0\0\0") == 0xFFFF


def test_refusals_are_told() -> None:
    with pytest.raises(frames.ProtocolError, match="0x87"):
        frames.check_connack(b"\0\x87")
    with pytest.raises(frames.ProtocolError, match="SUBSCRIBE"):
        frames.check_suback(b"\0\x01\x80", frames.V311)


# Rows, table and chart


def test_rows_are_complete() -> None:
    rows = all_rows()
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert next(iter(row.sides)) == "ours"
        for target in row.targets:
            assert target.against is None or target.against in row.sides
            if target.against and target.bound:
                assert target.met(target.bound)


def a_line(**changes: object) -> Line:
    target = Target("delivered_per_s", "messages/s", 5.0)
    line = Line(
        "p2p-qos0", "P2P", target, "ours", 600.0, "mosquitto", 100.0, 6.0,
        {"ours": (1.0, 0.5), "mosquitto": (1.0, 0.9)}, {"ours": 0, "mosquitto": 3}, {"ours": "1", "mosquitto": "2"},
    )  # fmt: skip
    return dataclasses.replace(line, **changes)  # type: ignore[arg-type]  # of **


def test_line_says_won_or_lost() -> None:
    assert a_line().word == "WON"
    assert a_line(ratio=4.9).word == "LOST"
    assert a_line(ratio=None).word == "LOST"
    absolute = Target("connection_kib", "KiB each", 5.0, None, higher=False)
    assert a_line(target=absolute, value=4.0, ratio=9.0).word == "WON"
    assert a_line(target=absolute, value=6.0, ratio=0.1).word == "LOST"
    assert a_line(target=Target("x", "y", None)).word == ""
    assert "mosquitto lost 3" in command.shown(a_line())


def test_json_and_chart() -> None:
    lines = a_line().as_json() + a_line(target=Target("p99_us", "us", 1.0, higher=False), ratio=2.0).as_json()
    assert [json.loads(line)["broker"] for line in lines] == ["ours", "mosquitto"] * 2
    assert {"row", "broker", "version", "value", "unit", "pass"} <= json.loads(lines[0]).keys()
    bars = chart.read_bars(lines)
    assert [(bar.times, bar.target) for bar in bars] == [(6.0, 5.0), (0.5, 1.0)]
    root = ET.fromstring(chart.draw(bars))  # our own text
    assert root.tag.endswith("svg")


@pytest.mark.parametrize(
    ("error", "word", "code"), [(NotAvailable("no TLS"), "not available", 0), (RowFailed("stalled"), "FAILED", 1)]
)
def test_one_bad_row_does_not_end_the_table(
    error: Exception, word: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(row: Row, plan: Plan, progress: object) -> list[Line]:
        if row.name == "p2p-qos0":
            raise error
        return [a_line()]

    monkeypatch.setattr(command, "measure", fake)
    assert command.run_rows(command.chosen(["p2p-qos[01]"]), Plan(), None) == code
    output = capsys.readouterr().out
    assert f"p2p-qos0                {word}: {error}" in output
    assert "1 won, 0 lost" in output


def test_configurations(tmp_path: Path) -> None:
    plain = mosquitto_config(BrokerSpec("mosquitto"), 21883, tmp_path)
    assert "listener 21883 127.0.0.1" in plain
    assert "persistence false" in plain
    ours = ours_config(BrokerSpec("ours", store="full", acl=True, deep_queues=True), 21883, tmp_path)
    assert 'endpoint = "tcp:21883:interface=127.0.0.1"' in ours
    assert 'durability = "full"' in ours


# A real broker


@pytest.mark.interop
def test_presence_asks_every_kind_of_target_as_often() -> None:
    with running(BrokerSpec(deep_queues=True, hide_presence=True)) as broker:
        times = ask(broker.port, questions=20)
    assert {name: len(each) for name, each in times.by_target.items()} == {"online": 20, "absent": 20, "nobody": 20}


def test_presence_compares_the_slowest_median_with_the_fastest() -> None:
    times = Times({"online": [1000, 1040, 9000], "absent": [1000] * 3, "nobody": [900, 1000, 1100]})
    assert times.ratio == 1.04
    assert "1.040 times" in str(times)


@pytest.mark.interop
def test_presence_fails_where_presence_is_told() -> None:
    with running(BrokerSpec(deep_queues=True)) as broker, pytest.raises(frames.ProtocolError, match="were due"):
        ask(broker.port, questions=20)


@pytest.mark.interop
@pytest.mark.skipif(not (shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")), reason="mosquitto missing")
@pytest.mark.parametrize(
    ("broker", "load"),
    [
        (MOSQUITTO, subscribed()),
        (MOSQUITTO, subscribed(qos=1, level=frames.V5)),
        (MOSQUITTO, subscribed(qos=2)),
        (MOSQUITTO, subscribed(extra_subscriptions=2000)),
        (MOSQUITTO, single(mode="pairs")),
        (MOSQUITTO, single(mode="pairs", qos=1)),
        (MOSQUITTO, single(mode="rate", rate=200)),
        (MOSQUITTO, single(mode="connect", connections=100)),
        (MOSQUITTO, subscribed(mode="storm", connections=100, rate=200)),
        (dataclasses.replace(MOSQUITTO, store="persistence"), subscribed(offline=True, persistent=True, qos=1)),
        (dataclasses.replace(MOSQUITTO, transport="tls"), subscribed(qos=1)),
        (dataclasses.replace(MOSQUITTO, transport="websocket"), subscribed(qos=1)),
        (MOSQUITTO, subscribed(qos=1, size=65536)),
    ],
    ids=lambda value: "-".join(map(str, dataclasses.astuple(value)[:3])),
)
def test_mosquitto(broker: BrokerSpec, load: LoadSpec) -> None:
    try:
        result = run_side(Side(broker, load), Plan(runs=1, seconds=0.3, warm=0.05))
    except NotAvailable as error:
        pytest.skip(str(error))
    assert result["lost"] == 0
    expected = "connects_per_s" if load.connections else "acked_per_s" if load.offline else "delivered_per_s"
    assert result[expected] > 0


@pytest.mark.interop
@pytest.mark.skipif(not (shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")), reason="mosquitto missing")
def test_probes_on_mosquitto() -> None:
    with running(dataclasses.replace(MOSQUITTO, acl=True)) as broker:
        check_acl(broker.port)
        with pytest.raises(NotAvailable, match="tls"):
            check_connection("tls", broker.port)
        with pytest.raises(NotAvailable, match="websocket"):
            check_connection("websocket", broker.port)


@pytest.mark.interop
@pytest.mark.skipif(not (shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")), reason="mosquitto missing")
def test_measure_takes_the_sides_in_turn() -> None:
    side = Side(MOSQUITTO, subscribed())
    row = Row("x", "x", {"ours": side, "mosquitto": side}, (Target("delivered_per_s", "messages/s", 0.01),))
    seen: list[str] = []
    started = time.monotonic()
    (line,) = measure(row, Plan(runs=2, seconds=0.2, warm=0.05), seen.append)
    assert [text.split(": ")[1].split(",")[0] for text in seen] == ["ours", "mosquitto"] * 2
    assert line.word == "WON"
    assert line.ratio is not None
    assert time.monotonic() - started < 60
