"""Our load generator beside mqload, one written in C, on the same mosquitto: are both limited by the broker alone?

mqload is not part of this repository; its source is named on the command line and compiled into a temporary directory.
It also loads both brokers with what singles.c sends more strictly: 1,000 pairs with 1,000 messages in flight over all,
so that a publisher may be ahead of the others.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

from benchmarks.brokers import LOAD_CORE, BrokerSpec, child_conditions, running
from benchmarks.load import LoadSpec
from benchmarks.rows import MOSQUITTO, OURS, PAIRS
from benchmarks.runner import LOAD_TIMEOUT, Plan, RowFailed, start_load
from benchmarks.singles import compiled

TOPIC = "bench/mqs{j}/t"  # mqload's own client ids, so that both send frames of the same size


def compare(source: Path, plan: Plan, show: Callable[[str], None]) -> None:
    """Print both generators' messages/s for the pairs of each QoS. Raises NotAvailable or RowFailed."""
    program = compiled(source)
    show(f"{'pairs':<8}{'benchmarks.load':>18}{'mqload':>12}{'ratio':>8}   (messages/s through mosquitto)")
    for qos in (0, 1, 2):
        ours, theirs = _compare_one(program, qos, plan)
        show(f"{f'QoS {qos}':<8}{ours:>18,.0f}{theirs:>12,.0f}{ours / theirs:>8.2f}")
    show(f"{'1,000 pairs':<14}{'ours':>12}{'mosquitto':>12}{'ratio':>8}   (messages/s by mqload)")
    for qos in (0, 1):
        ours, theirs, ratio = _compare_brokers(program, qos, plan)
        show(f"{f'QoS {qos}':<14}{ours:>12,.0f}{theirs:>12,.0f}{ratio:>8.2f}")


def _compare_brokers(program: str, qos: int, plan: Plan) -> tuple[float, float, float]:
    p2p = LoadSpec(publishers=1000, subscribers=1000, window=1000, qos=qos, topic="p2p/mqs{j}/t")
    sides = {OURS: p2p, MOSQUITTO: dataclasses.replace(p2p, subscribe=p2p.topic)}
    rates: dict[BrokerSpec, list[float]] = {OURS: [], MOSQUITTO: []}
    for _ in range(plan.runs):
        for spec, load in sides.items():
            with running(spec) as broker:
                rates[spec].append(_mqload(program, plan.apply(load), broker.port))
    ratio = statistics.median(ours / theirs for ours, theirs in zip(rates[OURS], rates[MOSQUITTO], strict=True))
    return statistics.median(rates[OURS]), statistics.median(rates[MOSQUITTO]), ratio


def _compare_one(program: str, qos: int, plan: Plan) -> tuple[float, float]:
    load = plan.apply(dataclasses.replace(PAIRS, qos=qos, topic=TOPIC, subscribe=TOPIC))
    ours, theirs = [], []
    for _ in range(plan.runs):
        with running(MOSQUITTO) as broker:
            spec = dataclasses.replace(load, port=broker.port, pid=broker.pid)
            ours.append(start_load(spec)["delivered_per_s"])
        with running(MOSQUITTO) as broker:
            theirs.append(_mqload(program, load, broker.port))
    return statistics.median(ours), statistics.median(theirs)


def _mqload(program: str, load: LoadSpec, port: int) -> float:
    options = {
        "--port": port, "--pubs": load.publishers, "--subs": load.subscribers, "--topic": load.topic.format(j="%d"),
        "--qos": load.qos, "--size": load.size, "--window": load.window, "--time": load.time, "--warm": load.warm,
    }  # fmt: skip
    if load.subscribe:
        options["--sub"] = load.subscribe.format(j="%d")
    command = [program]
    for name, value in options.items():
        command += [name, str(value)]
    with child_conditions(LOAD_CORE):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LOAD_TIMEOUT)
    if done.returncode:
        raise RowFailed(done.stderr.strip()[-300:])
    return float(json.loads(done.stdout)["delivered_per_s"])
