"""The sample clients of Eclipse Paho C against the broker: paho_c_* (asynchronous) and paho_cs_* (synchronous library).

They connect with a clean session always, so persistent sessions are the other clients' matter.  The package's
MQTTAsync_* and MQTTClient_* samples have a public broker's address compiled in and cannot be pointed at this one; they
are built on the same two libraries.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.broker import HOST, P2P_CASES, Broker, unique
from tests.interop.commands import Background, Start, backgrounds, needs, run

pytestmark = [pytest.mark.interop, needs("paho_c_pub", "paho_c_sub", "paho_cs_pub", "paho_cs_sub")]

VERSIONS = pytest.mark.parametrize("version", ["31", "311", "5"])
LIBRARIES = pytest.mark.parametrize("library", ["paho_c", "paho_cs"])
PAIRS = pytest.mark.parametrize(("library", "version"), [("paho_c", "31"), ("paho_cs", "311"), ("paho_c", "5")])
Pub = Callable[..., str]
Sub = Callable[..., Background]


@pytest.fixture
def start() -> Iterator[Start]:
    with backgrounds() as start:
        yield start


@pytest.fixture
def pub(broker: Broker) -> Pub:
    """Runs paho_c_pub or paho_cs_pub to its end, and gives what it prints."""

    def pub(library: str, version: str, *arguments: str, client_id: str = "", port: int = 0) -> str:
        address = ("-h", HOST, "-p", str(port or broker.port), "-i", client_id or unique())
        return run(f"{library}_pub", *address, "-V", version, "-v", "--trace", "protocol", *arguments)

    return pub


@pytest.fixture
def sub(broker: Broker, start: Start) -> Sub:
    """Starts paho_c_sub or paho_cs_sub, and gives it once it is subscribed."""

    def sub(library: str, version: str, *arguments: str, client_id: str = "", port: int = 0) -> Background:
        address = ("-h", HOST, "-p", str(port or broker.port), "-i", client_id or unique())
        subscriber = start(f"{library}_sub", *address, "-V", version, "-v", "--trace", "protocol", *arguments)
        subscriber.line("<- SUBACK")
        return subscriber

    return sub


@LIBRARIES
@VERSIONS
def test_qos(sub: Sub, start: Start, broker: Broker, library: str, version: str) -> None:
    topic = unique()
    subscriber = sub(library, version, "-t", f"{topic}/+", "-q", "2")
    address = ("-h", HOST, "-p", str(broker.port), "-V", version, "--trace", "protocol")
    for qos, last in (("0", "-> PUBLISH"), ("1", "<- PUBACK"), ("2", "<- PUBCOMP")):
        start(f"{library}_pub", *address, "-i", unique(), "-t", f"{topic}/{qos}", "-q", qos, "-m", qos).line(last)
        assert f"qos: {qos} retained: 0 payload len(1): {qos}" in subscriber.line("<- PUBLISH")
        subscriber.line(f"{topic}/{qos}\t{qos}")
    subscriber.line("<- PUBREL")


@PAIRS
def test_ids(pub: Pub, library: str, version: str) -> None:
    assert "CONNACK rc: 0" in pub(library, version, "-t", "a", "-m", "b", "-u", "anna", "-P", "secret")
    assert "CONNACK rc: 0" in pub(library, version, "-t", "a", "-m", "b", client_id=unique("x" * 100))


@LIBRARIES
@VERSIONS
def test_refused_id(start: Start, broker: Broker, library: str, version: str) -> None:
    address = ("-h", HOST, "-p", str(broker.port), "-i", "y" * 300)
    client = start(f"{library}_pub", *address, "-V", version, "-t", "a", "-m", "b")
    assert f"error code {133 if version == '5' else 2}" in client.line("Connect failed")


@LIBRARIES
def test_wildcards_and_a_file(pub: Pub, sub: Sub, library: str, tmp_path: Path) -> None:
    version, topic = "311", unique()
    file = tmp_path / "payload"
    file.write_text("x" * 100_000)
    subscriber = sub(library, version, "-t", f"{topic}/+/b/#", "-q", "2")
    for name in ("a/c", "a/b", "a/b/c"):
        pub(library, version, "-t", f"{topic}/{name}", "-q", "1", "-f", str(file))
    lines = [subscriber.line("<- PUBLISH") for _ in range(2)]
    assert all("qos: 1 retained: 0 payload len(100000)" in line for line in lines)
    subscriber.line(f"{topic}/a/b\t")
    subscriber.line(f"{topic}/a/b/c\t")
    subscriber.assert_quiet(f"{topic}/a/c")


@PAIRS
def test_retained(pub: Pub, sub: Sub, library: str, version: str) -> None:
    topic = unique()
    pub(library, version, "-t", topic, "-q", "1", "-r", "-m", "kept")
    subscriber = sub(library, version, "-t", topic, "-q", "1")
    assert "qos: 1 retained: 1 payload len(4): kept" in subscriber.line("<- PUBLISH")
    pub(library, version, "-t", topic, "-q", "1", "-r", "-n")
    assert "retained: 0 payload len(0)" in subscriber.line("<- PUBLISH")
    sub(library, version, "-t", topic).assert_quiet("<- PUBLISH")


@PAIRS
def test_will(pub: Pub, sub: Sub, library: str, version: str) -> None:
    topic = unique()
    watcher = sub(library, version, "-t", topic, "-q", "2")
    will = ("--will-topic", topic, "--will-qos", "1", "--will-payload")
    pub(library, version, "-t", "none", "-m", "x", *will, "orderly")
    sub(library, version, "-t", "none", *will, "killed").kill()
    assert "qos: 1 retained: 0 payload len(6): killed" in watcher.line("<- PUBLISH")


@LIBRARIES
def test_keep_alive(sub: Sub, library: str) -> None:
    clients = [sub(library, version, "-t", "none", "-k", "1") for version in ("31", "311", "5")]
    for client in clients:
        client.line("<- PINGRESP")
        client.line("<- PINGRESP")


def test_taken_over(pub: Pub, sub: Sub) -> None:
    name = unique()
    first = sub("paho_c", "5", "-t", "none", client_id=name)
    pub("paho_c", "5", "-t", "none", "-m", "x", client_id=name)
    first.line("<- DISCONNECT")


@pytest.mark.parametrize(("mode", "form"), P2P_CASES)
def test_p2p(pub: Pub, sub: Sub, broker_of: Callable[[str], Broker], mode: str, form: str) -> None:
    port = broker_of(mode).port
    name = unique("device")
    topic = form.format(client_id=name, topic="sensor/temp")
    listener = sub("paho_c", "5", "-t", "#", port=port)
    target = sub("paho_c", "311", "-t", "none", client_id=name, port=port)
    for qos, version in enumerate(("31", "311", "5")):
        pub("paho_cs", version, "-t", topic, "-q", f"{qos}", "-r", "-m", "23.5", port=port)
        assert f"qos: {qos} retained: 0 payload len(4): 23.5" in target.line("<- PUBLISH")
        target.line("sensor/temp\t23.5")
    listener.assert_quiet("<- PUBLISH")


@LIBRARIES
def test_v5_properties(pub: Pub, sub: Sub, library: str) -> None:
    topic = unique()
    subscriber = sub(library, "5", "-t", topic, "-q", "1")
    pub(library, "5", "-t", topic, "-q", "1", "-m", "x", "--user-property", "key", "value", "--message-expiry", "50")
    subscriber.line("Property name USER_PROPERTY key key value value")
    assert subscriber.line("MESSAGE_EXPIRY_INTERVAL").split()[-1] in ("49", "50")


@LIBRARIES
def test_v5_message_expiry(pub: Pub, sub: Sub, library: str) -> None:
    topic = unique()
    for name, interval in (("short", "1"), ("long", "100")):
        pub(library, "5", "-t", f"{topic}/{name}", "-q", "1", "-r", "-m", name, "--message-expiry", interval)
    time.sleep(2.1)
    subscriber = sub(library, "5", "-t", f"{topic}/#", "-q", "1")
    subscriber.line(f"{topic}/long\tlong")
    subscriber.assert_quiet(f"{topic}/short")


@LIBRARIES
def test_v5_shared_subscription(pub: Pub, sub: Sub, library: str) -> None:
    topic = unique()
    members = [sub(library, "5", "-t", f"$share/g/{topic}", "-q", "1") for _ in range(2)]
    for number in range(4):
        pub(library, "5", "-t", topic, "-q", "1", "-m", f"{number}")
    for member in members:
        member.lines(2, "<- PUBLISH")
        member.assert_quiet("<- PUBLISH")
