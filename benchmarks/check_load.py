"""mqload, a load generator in C: beside ours on the same mosquitto, and as the judge of both brokers where it can be.

mqload is not part of this repository; its source is named on the command line and compiled into a temporary directory.
It sends some things otherwise than singles.c does. It bounds the messages in flight over all pairs and not for each, so
that a publisher may be ahead of the others; and it opens connections one after the other, with `connect` waiting.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.brokers import LOAD_CORE, BrokerSpec, child_conditions, running
from benchmarks.load import LoadSpec, Result
from benchmarks.rows import MOSQUITTO, OURS, PAIRS
from benchmarks.runner import LOAD_TIMEOUT, Plan, RowFailed, start_load
from benchmarks.singles import compiled

TOPIC = "bench/mqs{j}/t"  # mqload's own client ids, so that both send frames of the same size
P2P_TOPIC = "p2p/mqs{j}/t"

SINGLES = LoadSpec(publishers=1000, subscribers=1000, window=1000, topic=P2P_TOPIC)
LATENCY = LoadSpec(mode="rate", rate=5000, topic=P2P_TOPIC)
CROWD = LoadSpec(mode="connect", publishers=0, subscribers=5000, topic="dev/{j}", subscribe="dev/{j}/#")

JUDGED = [
    ("1,000 pairs, QoS 0", SINGLES, ("delivered_per_s",)),
    ("1,000 pairs, QoS 1", dataclasses.replace(SINGLES, qos=1), ("delivered_per_s",)),
    ("5,000 messages/s, QoS 0", LATENCY, ("p50_us", "p99_us")),
    ("5,000 messages/s, QoS 1", dataclasses.replace(LATENCY, qos=1), ("p50_us", "p99_us")),
    ("5,000 connections", CROWD, ("connects_per_s",)),
]
"""What single messages and connects come to by mqload's account: a title, the load, and the figures to show."""


def compare(source: Path, plan: Plan, show: Callable[[str], None]) -> None:
    """Print both generators' messages/s for the pairs of each QoS, then what mqload says of both brokers.

    Raises NotAvailable or RowFailed.
    """
    program = compiled(source)
    show(f"{'pairs':<8}{'benchmarks.load':>18}{'mqload':>12}{'ratio':>8}   (messages/s through mosquitto)")
    for qos in (0, 1, 2):
        by_us, by_mqload = _compare_generators(program, qos, plan)
        show(f"{f'QoS {qos}':<8}{by_us:>18,.0f}{by_mqload:>12,.0f}{by_us / by_mqload:>8.2f}")
    show(f"{'by mqload':<42}{'ours':>12}{'mosquitto':>12}{'ratio':>8}")
    for title, load, figures in JUDGED:
        runs = _compare_brokers(program, load, plan)
        for name in figures:
            ours, theirs = [our[name] for our, _ in runs], [their[name] for _, their in runs]
            ratio = statistics.median(our[name] / their[name] for our, their in runs)
            show(
                f"{f'{title}, {name}':<42}{statistics.median(ours):>12,.0f}{statistics.median(theirs):>12,.0f}"
                f"{ratio:>8.2f}"
            )


def _compare_brokers(program: str, load: LoadSpec, plan: Plan) -> list[tuple[Result, Result]]:
    """Ours and mosquitto's figures, a pair for each run."""
    subscribed = load if load.subscribe else dataclasses.replace(load, subscribe=load.topic)
    return [
        (_loaded(program, OURS, plan.apply(load)), _loaded(program, MOSQUITTO, plan.apply(subscribed)))
        for _ in range(plan.runs)
    ]


def _loaded(program: str, spec: BrokerSpec, load: LoadSpec) -> Result:
    with running(spec) as broker:
        return _mqload(program, load, broker.port)


def _compare_generators(program: str, qos: int, plan: Plan) -> tuple[float, float]:
    load = plan.apply(dataclasses.replace(PAIRS, qos=qos, topic=TOPIC, subscribe=TOPIC))
    ours, theirs = [], []
    for _ in range(plan.runs):
        with running(MOSQUITTO) as broker:
            spec = dataclasses.replace(load, port=broker.port, pid=broker.pid)
            ours.append(start_load(spec)["delivered_per_s"])
        theirs.append(_loaded(program, MOSQUITTO, load)["delivered_per_s"])
    return statistics.median(ours), statistics.median(theirs)


def _mqload(program: str, load: LoadSpec, port: int) -> Result:
    options: dict[str, object] = {
        "--port": port, "--pubs": load.publishers, "--subs": load.subscribers, "--qos": load.qos,
        "--topic": load.topic.replace("{j}", "%d"), "--size": load.size, "--window": load.window,
        "--time": load.time, "--warm": load.warm, "--rate": load.rate,
    }  # fmt: skip
    if load.subscribe:
        options["--sub"] = load.subscribe.replace("{j}", "%d")
    command = [program]
    for name, value in options.items():
        command += [name, str(value)]
    if load.mode == "connect":
        command.append("--idle")
    with child_conditions(LOAD_CORE):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LOAD_TIMEOUT)
    if done.returncode:
        raise RowFailed(done.stderr.strip()[-300:])
    result: Result = json.loads(done.stdout)
    return result
