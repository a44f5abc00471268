"""The tables of docs/p2p.md are what the routers and the broker do; the code in docs/embedding.md runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from zope.interface import implementer

from tests.core.support import Avatar, client, guarded_factory, offline, publish, status
from twisted_p2pmqtt import IClientAvatar, IP2PRouter, MalformedP2PTopic, Observer, P2PAddress
from twisted_p2pmqtt.core.delivery import Outcome
from twisted_p2pmqtt.core.limits import P2POptions
from twisted_p2pmqtt.core.local import _STATUS
from twisted_p2pmqtt.core.p2p import make_router
from twisted_p2pmqtt.core.stats import Stats
from twisted_p2pmqtt.testing import MemoryClient, P2PRouterTests, make_broker, memory_factory

DOCS = Path(__file__).resolve().parent.parent / "docs"
P2P = (DOCS / "p2p.md").read_text(encoding="utf-8")


def rows(first_cell: str) -> Iterator[list[str]]:
    """The rows of the table with this head."""
    lines = iter(P2P.splitlines())
    for line in lines:
        if line.startswith(f"| {first_cell} |"):
            break
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_of_topics() -> None:
    seen = 0
    for topics, *cells in rows("topic"):
        for topic in re.findall("`([^`]+)`", topics):
            for mode, cell in zip(("prefix", "suffix", "both"), cells, strict=True):
                try:
                    address = make_router(mode).resolve(topic)
                except MalformedP2PTopic:
                    found = "malformed"
                else:
                    found = "ordinary" if address is None else f"{address.client_id} `{address.topic}`"
                assert found == cell, f"{topic} in {mode} mode"
                seen += 1
    assert seen > 40


def test_the_table_of_outcomes() -> None:
    broker = make_broker(Clock(), p2p=P2POptions(max_queued=1))
    factory = guarded_factory(broker, {"app": Avatar(publish=["p2p/+/t"])})
    client(factory, "online")
    client(factory, "small", properties={"maximum_packet_size": 50})
    offline(factory, "away")
    offline(factory, "full")
    publish(client(factory, "filler"), "p2p/full/t")
    sender = client(factory, "app")
    topics = ["online/t", "away/t", "nobody/t", "x", "online/secret", "full/t", "small/t"]
    for (case, cell, *_), topic in zip(rows("case"), topics, strict=True):
        answer = publish(sender, f"p2p/{topic}", b"x" * 100)
        assert answer is not None
        assert cell.startswith(f"0x{answer.reason_code:02x}"), case
        assert (f"p2p-status={status(answer)}" in cell) == (status(answer) is not None), case
        assert ("reason string" in cell) == ("reason_string" in answer.properties), case


def test_the_table_of_delivered_topics() -> None:
    found = {}
    for deliver, expected, _ in rows("`deliver_topic`"):
        broker = make_broker(Clock(), p2p=P2POptions(deliver_topic=deliver.strip("`")))
        target = client(broker, "device001")
        publish(client(broker, "app"), "p2p/device001/sensor/temp")
        found[f"`{target.messages[0].topic.decode()}`"] = expected
    assert len(found) == 3
    assert all(heard == expected for heard, expected in found.items())


def test_the_names_of_statuses_and_counters() -> None:
    statuses = {cell.strip("`") for cell, *_ in rows("`status`")}
    assert statuses == {*_STATUS.values(), "delivered", "denied"}
    assert all(isinstance(outcome, Outcome) for outcome in _STATUS)
    named = {name for cell, *_ in rows("counter") for name in re.findall("`([a-z0-9_]+)`", cell)}
    named = {f"p2p_dropped{name}" if name.startswith("_") else name for name in named}
    assert named == {name for name in Stats().snapshot() if name.startswith("p2p_")}


# --- docs/embedding.md ------------------------------------------------------------------------------------------------


def code(heading: str) -> list[str]:
    """The Python blocks of a section of docs/embedding.md."""
    text = (DOCS / "embedding.md").read_text(encoding="utf-8")
    section = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def test_logins_and_observers() -> None:
    """The portal lets in whom its checker knows, with the rights of the class above it; presence is published."""
    broker = make_broker(Clock())
    names: dict[str, Any] = {"broker": broker, "implementer": implementer, "IClientAvatar": IClientAvatar}
    names["Observer"] = Observer
    for block in code("Logins and rights") + code("Observers"):
        exec(block, names)
    factory = memory_factory(broker, names["factory"].login.authenticate)
    pump = client(factory, "pump7", username="pump7", password=b"secret")
    refused = MemoryClient(factory, "x")
    assert refused.connect(username="pump7", password=b"guess").reason_code == 0x86
    codes = [publish(pump, topic) for topic in ("dev/pump7/t", "dev/other/t", "p2p/hub/t", "p2p/other/t")]
    assert [answer.reason_code for answer in codes if answer] == [0x10, 0x87, 0x10, 0x87]
    assert broker.retained.matching("presence/#") == ["presence/pump7"]
    pump.disconnect()
    assert broker.retained.matching("presence/#") == []


def test_the_router_of_ones_own() -> None:
    names = {"implementer": implementer, "IP2PRouter": IP2PRouter, "MalformedP2PTopic": MalformedP2PTopic}
    names |= {"P2PAddress": P2PAddress}
    for block in code("A router of your own"):
        exec(block, names)
    suite = names["TestAliasRouter"]()
    assert isinstance(suite, P2PRouterTests)
    tests = [name for name in dir(suite) if name.startswith("test_")]
    assert len(tests) > 8
    for name in tests:
        getattr(suite, name)()


@pytest.mark.parametrize("block", code("Tests"))
def test_the_tests_of_ones_own(block: str) -> None:
    exec(block, {"Clock": Clock, "make_broker": make_broker, "MemoryClient": MemoryClient})
