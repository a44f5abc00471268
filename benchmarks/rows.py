"""The rows of the table, as data: what is sent to which broker, what is read off, and what we want it to be.

The targets and the conditions are those of the performance and durability issues. Each row has sides, measured in turn
in one run; the first is the one judged. A target compares one figure of it with another side's, or with a number alone.
mosquitto has no P2P messages: there each client subscribes to its own P2P topic instead, the way it is done without.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from benchmarks.brokers import BrokerSpec
from benchmarks.frames import V5
from benchmarks.load import LoadSpec

P2P_TOPIC = "p2p/{client}/t"


@dataclasses.dataclass(frozen=True)
class Side:
    """One broker under one load."""

    broker: BrokerSpec
    load: LoadSpec


@dataclasses.dataclass(frozen=True)
class Target:
    """What one figure is to be: `bound` times that of the side `against`, or `bound` itself where that is None.

    `higher`: more is better, and `bound` is the least allowed; else the most allowed. `bound` None: shown, not judged.
    """

    metric: str
    unit: str
    bound: float | None
    against: str | None = "mosquitto"
    higher: bool = True

    def met(self, value: float) -> bool:
        if self.bound is None:
            return True
        return value >= self.bound if self.higher else value <= self.bound

    def __str__(self) -> str:
        return "" if self.bound is None else f"{'>=' if self.higher else '<='} {self.bound:g}"


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    sides: Mapping[str, Side]
    targets: tuple[Target, ...]


OURS, MOSQUITTO = BrokerSpec("ours"), BrokerSpec("mosquitto")
DELIVERED = "delivered_per_s"


def against_mosquitto(load: LoadSpec, *, p2p: bool = False, broker: BrokerSpec = OURS) -> dict[str, Side]:
    """The same load on both; with `p2p`, ours needs no subscription, and mosquitto's clients each make one."""
    theirs = dataclasses.replace(broker, name="mosquitto", store="none" if broker.store == "none" else "persistence")
    if not p2p:
        return {"ours": Side(broker, load), "mosquitto": Side(theirs, load)}
    load = dataclasses.replace(load, topic=P2P_TOPIC)
    subscribed = dataclasses.replace(load, subscribe=P2P_TOPIC)
    return {"ours": Side(broker, load), "mosquitto": Side(theirs, subscribed)}


def delivered(bound: float | None, against: str = "mosquitto") -> Target:
    return Target(DELIVERED, "messages/s", bound, against)


PAIRS = LoadSpec(publishers=10, subscribers=10, size=64, window=2000)
SUBSCRIBED = dataclasses.replace(PAIRS, topic="bench/{j:05d}/t", subscribe="bench/{j:05d}/t")
P2P_BOUNDS = {0: 5.0, 1: 5.0, 2: 4.0}


def _pair_rows() -> list[Row]:
    rows = []
    for qos, bound in P2P_BOUNDS.items():
        sides = against_mosquitto(dataclasses.replace(PAIRS, qos=qos), p2p=True)
        rows.append(Row(f"p2p-qos{qos}", f"P2P, 10 pairs, QoS {qos}", sides, (delivered(bound),)))
    for qos in P2P_BOUNDS:
        sides = against_mosquitto(dataclasses.replace(PAIRS, qos=qos, level=V5), p2p=True)
        rows.append(Row(f"p2p-v5-qos{qos}", f"P2P, 10 pairs, QoS {qos}, 5.0", sides, (delivered(None),)))
    return rows


def _subscription_rows() -> list[Row]:
    """Held against our own P2P row of the same QoS over 3.1.1, which runs beside it; and shown beside that over 5.0."""
    rows = []
    for qos in P2P_BOUNDS:
        own = Side(OURS, dataclasses.replace(PAIRS, topic=P2P_TOPIC, qos=qos))
        for level, word, prefix in ((4, "3.1.1", "sub"), (V5, "5.0", "sub-v5")):
            sides = against_mosquitto(dataclasses.replace(SUBSCRIBED, qos=qos, level=level)) | {"our P2P": own}
            targets: tuple[Target, ...] = (delivered(None), delivered(0.9, "our P2P"))
            if level == V5:
                sides["our P2P, 5.0"] = Side(OURS, dataclasses.replace(own.load, level=V5))
                targets += (delivered(None, "our P2P, 5.0"),)
            rows.append(Row(f"{prefix}-qos{qos}", f"subscriptions, 10 pairs, QoS {qos}, {word}", sides, targets))
    return rows


def _shape_rows() -> list[Row]:
    fan = LoadSpec(publishers=1, subscribers=500, topic="bench/all", subscribe="bench/all", fan=True, window=20_000)
    funnel = LoadSpec(publishers=500, subscribers=1, topic="bench/one", subscribe="bench/one")
    singles = LoadSpec(mode="pairs", publishers=1000, subscribers=1000)
    rows = []
    for qos, bound in ((0, 12.0), (1, 6.0)):
        sides = against_mosquitto(dataclasses.replace(fan, qos=qos))
        rows.append(Row(f"fan-qos{qos}", f"one to 500, QoS {qos}", sides, (delivered(bound),)))
    rows.append(Row("funnel-qos0", "500 to one, QoS 0", against_mosquitto(funnel), (delivered(1.5),)))
    for qos in (0, 1):
        sides = against_mosquitto(dataclasses.replace(singles, qos=qos), p2p=True)
        title = f"P2P, 1,000 pairs, one message each in flight, QoS {qos}"
        rows.append(Row(f"singles-qos{qos}", title, sides, (delivered(1.2),)))
    # Fewer in flight where they are large: what waits for one client stays below our default of 1 MiB.
    for name, size, window, bound in (("4k", 4096, 1000, 1.5), ("64k", 65536, 100, 1.0)):
        load = dataclasses.replace(PAIRS, qos=1, size=size, window=window)
        title = f"P2P, 10 pairs, QoS 1, {size // 1024} KiB"
        rows.append(Row(f"payload-{name}", title, against_mosquitto(load, p2p=True), (delivered(bound),)))
    return rows


def _latency_rows() -> list[Row]:
    rows = []
    for qos in (0, 1):
        load = dataclasses.replace(PAIRS, mode="rate", rate=5000, qos=qos)
        targets = (
            Target("p50_us", "us, p50", 1.3, higher=False),
            Target("p99_us", "us, p99", 1.0, higher=False),
        )
        sides = against_mosquitto(load, p2p=True)
        rows.append(Row(f"latency-qos{qos}", f"P2P, 10 pairs, 5,000 messages/s, QoS {qos}", sides, targets))
    return rows


def _connection_rows() -> list[Row]:
    crowd = LoadSpec(mode="connect", publishers=0, subscribers=0, connections=5000)
    flow = dataclasses.replace(SUBSCRIBED, topic="dev/f{j:05d}/state", subscribe="dev/f{j:05d}/state")
    storm = dataclasses.replace(flow, mode="storm", rate=10_000, connections=10_000)
    return [
        Row(
            "connections",
            "5,000 connections, one subscription each",
            against_mosquitto(crowd),
            (
                Target("connects_per_s", "connects/s", 0.7),
                Target("connection_kib", "KiB each", 5.0, None, higher=False),
            ),
        ),
        Row(
            "storm",
            "10,000 connect and subscribe dev/<id>/#, 10,000 messages/s flow",
            against_mosquitto(storm),
            (
                Target("flow_kept", "% of the flow", 90.0, None),
                Target("p99_ms", "ms, p99", 50.0, None, higher=False),
                Target("connects_per_s", "connects/s", None),
            ),
        ),
    ]


def _burden_rows() -> list[Row]:
    """Our own row with a burden against the same without; topics of one length, so that frames are of one size."""
    plain = Side(OURS, dataclasses.replace(PAIRS, topic="p2p/{client}/t{n:04d}"))
    varied = Side(OURS, dataclasses.replace(plain.load, topics=1000))
    burdened = Side(BrokerSpec("ours", acl=True), varied.load)
    subscribed = Side(OURS, SUBSCRIBED)
    crowded = Side(OURS, dataclasses.replace(SUBSCRIBED, extra_subscriptions=100_000))
    return [
        Row(
            "acl-10k-topics",
            "P2P, 10 pairs, QoS 0, with an ACL file and 10,000 topics",
            {"ours": burdened, "ours without": plain, "ours, same topics": varied},
            (delivered(0.9, "ours without"), delivered(None, "ours, same topics")),
        ),
        Row(
            "subs-100k",
            "10 pairs, QoS 0, 100,000 subscriptions, one matches",
            {"ours": crowded, "ours without": subscribed},
            (delivered(0.9, "ours without"),),
        ),
    ]


def _transport_rows() -> list[Row]:
    rows = []
    for transport, short, word in (("tls", "tls", "TLS"), ("websocket", "ws", "WebSocket")):
        for qos in P2P_BOUNDS:
            load = dataclasses.replace(PAIRS, qos=qos)
            sides = against_mosquitto(load, p2p=True, broker=BrokerSpec("ours", transport=transport))
            title = f"P2P, 10 pairs, QoS {qos}, {word}"
            rows.append(Row(f"{short}-p2p-qos{qos}", title, sides, (delivered(None),)))
    return rows


def _durable_rows() -> list[Row]:
    online = dataclasses.replace(PAIRS, qos=1, persistent=True)
    offline = dataclasses.replace(online, subscribers=1000, offline=True)
    rows = []
    for durability in ("commit", "full"):
        for load, word in ((online, "online"), (offline, "offline")):
            broker = BrokerSpec("ours", store=durability, deep_queues=load.offline)
            title = f"P2P to {load.subscribers:,} {word} persistent clients, QoS 1, durability {durability}"
            target = Target("acked_per_s", "acknowledged/s", 1.0)
            sides = against_mosquitto(load, p2p=True, broker=broker)
            rows.append(Row(f"durable-{word}-{durability}", title, sides, (target,)))
    return rows


def _embeddable_rows() -> list[Row]:
    ours = Side(OURS, dataclasses.replace(PAIRS, topic=P2P_TOPIC))
    rows = []
    for name, bound in (("aedes", 3.0), ("amqtt", 30.0)):
        theirs = Side(BrokerSpec(name), dataclasses.replace(ours.load, subscribe=P2P_TOPIC))
        sides = {"ours": ours, name: theirs}
        rows.append(Row(f"{name}-qos0", f"P2P, 10 pairs, QoS 0, against {name}", sides, (delivered(bound, name),)))
    return rows


def all_rows() -> list[Row]:
    """Every row, in the table's order."""
    return [
        *_pair_rows(),
        *_subscription_rows(),
        *_shape_rows(),
        *_latency_rows(),
        *_connection_rows(),
        *_burden_rows(),
        *_transport_rows(),
        *_durable_rows(),
        *_embeddable_rows(),
    ]
