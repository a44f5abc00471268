"""mosquitto_pub, mosquitto_sub and mosquitto_rr, which is libmosquitto, against the broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.broker import HOST, P2P_CASES, Broker, unique
from tests.interop.commands import Background, Start, backgrounds, needs, run

pytestmark = [pytest.mark.interop, needs("mosquitto_pub", "mosquitto_sub", "mosquitto_rr")]

VERSIONS = pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
V5 = ("-V", "mqttv5")
FORMAT = "%t %q%r %p"
Pub = Callable[..., str]
Sub = Callable[..., Background]


@pytest.fixture
def start() -> Iterator[Start]:
    with backgrounds() as start:
        yield start


@pytest.fixture
def pub(broker: Broker) -> Pub:
    """Runs mosquitto_pub to its end."""

    def pub(*arguments: str, port: int = 0, code: int = 0, stdin: str = "") -> str:
        command = ["mosquitto_pub", "-h", HOST, "-p", str(port or broker.port)]
        return run(*command, *arguments, code=code, stdin=stdin)

    return pub


@pytest.fixture
def sub(broker: Broker, start: Start) -> Sub:
    """Starts mosquitto_sub, and gives it once its subscriptions hold."""

    def sub(*arguments: str, port: int = 0, form: str = FORMAT) -> Background:
        command = ["mosquitto_sub", "-h", HOST, "-p", str(port or broker.port), "-d", "-F", "=" + form]
        subscriber = start(*command, *arguments)
        subscriber.line("Subscribed (mid")
        return subscriber

    return sub


def heard(subscriber: Background, count: int = 1) -> list[str]:
    """The next messages; the other lines are what -d has to tell."""
    return [line[1:] for line in subscriber.lines(count, "=")]


# --- connect ---------------------------------------------------------------------------------------------------------


@VERSIONS
def test_connects_with_and_without_an_id(pub: Pub, version: str) -> None:
    pub("-V", version, "-t", "a", "-m", "b", "-i", unique())
    if version != "mqttv31":
        pub("-V", version, "-t", "a", "-m", "b", "-q", "2")
    pub("-V", version, "-t", "a", "-m", "b", "-i", unique(), "-u", "anna", "-P", "secret", "-k", "65535")


def test_assigned_id(pub: Pub) -> None:
    assert "Client auto" in pub("-V", "mqttv5", "-d", "-t", "a", "-m", "b")


@VERSIONS
def test_refused_id(pub: Pub, version: str) -> None:
    printed = pub("-V", version, "-t", "a", "-m", "b", "-i", "y" * 300, code=-1)
    assert ("Client Identifier not valid" if version == "mqttv5" else "identifier rejected") in printed


def test_keep_alive(sub: Sub) -> None:
    versions = ("mqttv31", "mqttv311", "mqttv5")
    for subscriber in [sub("-V", version, "-t", "none", "-k", "5", "-i", unique()) for version in versions]:
        subscriber.line("received PINGRESP")


# --- messages --------------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_lines_in_order(pub: Pub, sub: Sub, version: str, qos: int) -> None:
    topic = unique()
    subscriber = sub("-V", version, "-t", f"{topic}/#", "-q", str(qos), "-i", unique(), form="%p")
    lines = [f"line {number}" for number in range(200)]
    pub("-V", version, "-t", f"{topic}/a", "-q", str(qos), "-l", "-i", unique(), stdin="\n".join(lines) + "\n")
    assert heard(subscriber, 200) == lines


@VERSIONS
def test_qos_granted_and_delivered(pub: Pub, sub: Sub, version: str) -> None:
    topic = unique()
    low, high = (sub("-V", version, "-t", topic, "-q", qos, "-i", unique()) for qos in "12")
    for qos in "012":
        pub("-V", version, "-t", topic, "-q", qos, "-m", qos, "-i", unique())
    assert heard(low, 3) == [f"{topic} 00 0", f"{topic} 10 1", f"{topic} 10 2"]
    assert heard(high, 3) == [f"{topic} 00 0", f"{topic} 10 1", f"{topic} 20 2"]


def test_large_payload(pub: Pub, sub: Sub, tmp_path: Path) -> None:
    topic = unique()
    subscriber = sub("-t", topic, "-q", "1", form="%l")
    file = tmp_path / "payload"
    file.write_bytes(bytes(range(256)) * 3000)
    pub("-t", topic, "-q", "2", "-f", str(file))
    assert heard(subscriber) == ["768000"]


@VERSIONS
def test_retained(pub: Pub, sub: Sub, version: str) -> None:
    topic = unique()
    for payload in ("first", "second"):
        pub("-V", version, "-t", topic, "-q", "1", "-r", "-m", payload, "-i", unique())
    assert heard(sub("-V", version, "-t", topic, "-q", "1", "-i", unique())) == [f"{topic} 11 second"]
    sub("-V", version, "-t", topic, "--remove-retained", "-i", unique()).line("received PUBACK")
    late = sub("-V", version, "-t", topic, "-i", unique())
    pub("-V", version, "-t", topic, "-m", "new", "-i", unique())
    assert heard(late) == [f"{topic} 00 new"]


@VERSIONS
def test_will(pub: Pub, sub: Sub, version: str) -> None:
    topic = unique()
    watcher = sub("-V", version, "-t", topic, "-q", "2", "-i", unique())
    will = ("-V", version, "-i", unique(), "--will-topic", topic, "--will-qos", "2", "--will-payload")
    pub("-t", "none", "-m", "x", *will, "orderly")
    sub("-t", "none", *will, "killed").kill()
    assert heard(watcher) == [f"{topic} 20 killed"]


def test_v5_disconnect_with_will(sub: Sub) -> None:
    topic = unique()
    watcher = sub(*V5, "-t", topic)
    sub(*V5, "-t", "none", "--will-topic", topic, "--will-payload", "asked for").stop()  # its answer to SIGTERM
    assert heard(watcher) == [f"{topic} 00 asked for"]


@VERSIONS
def test_session_with_its_queue(pub: Pub, sub: Sub, version: str) -> None:
    name, topic = unique(), unique()
    lasting = ("-V", version, "-i", name, "-c", "-t", topic, "-q", "2")
    sub(*lasting).stop()
    for qos in "012":
        pub("-V", version, "-t", topic, "-q", qos, "-m", qos, "-i", unique())
    assert heard(sub(*lasting), 2) == [f"{topic} 10 1", f"{topic} 20 2"]


@VERSIONS
def test_unsubscribe(pub: Pub, sub: Sub, version: str) -> None:
    topic = unique()
    subscriber = sub("-V", version, "-t", f"{topic}/#", "-t", f"{topic}/b", "-U", f"{topic}/#", "-i", unique())
    subscriber.line("received UNSUBACK")
    for name in "ab":
        pub("-V", version, "-t", f"{topic}/{name}", "-m", name, "-i", unique())
    assert heard(subscriber) == [f"{topic}/b 00 b"]


# --- P2P -------------------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize(("mode", "form"), P2P_CASES)
def test_p2p(pub: Pub, sub: Sub, broker_of: Callable[[str], Broker], version: str, mode: str, form: str) -> None:
    port = broker_of(mode).port
    name = unique("device")
    topic = form.format(client_id=name, topic="sensor/temp")
    listener = sub("-V", version, "-t", "#", "-i", unique(), "-q", "2", port=port)
    lasting = ("-V", version, "-t", "none", "-i", name, "-c")
    target = sub(*lasting, port=port)
    for qos in "012":
        pub("-V", version, "-t", topic, "-m", "23.5", "-q", qos, "-r", "-i", unique(), port=port)
    assert heard(target, 3) == [f"sensor/temp {qos}0 23.5" for qos in "012"]
    target.stop()
    pub("-V", version, "-t", topic, "-m", "away", "-q", "1", "-i", unique(), port=port)
    assert heard(sub(*lasting, port=port)) == ["sensor/temp 10 away"]
    pub("-V", version, "-t", "all", "-m", "end", "-i", unique(), port=port)
    assert heard(listener) == ["all 00 end"]


def test_p2p_tells_the_sender(pub: Pub) -> None:
    arguments = ("-V", "mqttv5", "-d", "-q", "1", "-m", "x")
    assert "RC:16" in pub(*arguments, "-t", f"p2p/{unique()}/x")
    assert "RC:144" in pub(*arguments, "-t", "p2p/x")


# --- request and response --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["mqttv311", "mqttv5"])
def test_request_and_response(pub: Pub, sub: Sub, start: Start, broker: Broker, version: str) -> None:
    topic, reply_to = unique("ask"), unique("reply")
    service = sub("-V", version, "-t", topic, form="%R;%D;%p")
    asker = start(
        *("mosquitto_rr", "-h", HOST, "-p", str(broker.port), "-V", version, "-t", topic, "-e", reply_to),
        *("-m", "1+1", "-q", "1", "-W", "8"),
        *(("-D", "publish", "correlation-data", "x7") if version == "mqttv5" else ()),
    )
    response_topic, correlation, question = heard(service)[0].split(";")
    assert question == "1+1"
    if version == "mqttv5":
        assert (response_topic, correlation) == (reply_to, "x7")
        pub("-V", version, "-t", response_topic, "-m", "2", "-D", "publish", "correlation-data", correlation)
    else:
        pub("-V", version, "-t", reply_to, "-m", "2")
    assert asker.line() == "2"
    assert asker.wait() == 0


# --- 5.0 -------------------------------------------------------------------------------------------------------------


def test_v5_properties(pub: Pub, sub: Sub) -> None:
    topic = unique()
    subscriber = sub(*V5, "-t", topic, form="%C;%F;%E;%R;%D;%P;%p")
    properties = {
        "content-type": "a/b",
        "payload-format-indicator": "1",
        "message-expiry-interval": "100",
        "response-topic": "r/t",
        "correlation-data": "c",
    }
    more = [text for name, value in properties.items() for text in ("-D", "publish", name, value)]
    more += ["-D", "publish", "user-property", "k", "1", "-D", "publish", "user-property", "k", "2"]
    pub(*V5, "-t", topic, "-m", "x", *more)
    content, form, expiry, response, correlation, pairs, payload = heard(subscriber)[0].split(";")
    assert (content, form, response, correlation, payload) == ("a/b", "1", "r/t", "c", "x")
    assert 99 <= int(expiry) <= 100
    assert pairs.split() == ["k:1", "k:2"]


def test_v5_topic_alias(pub: Pub, sub: Sub) -> None:
    topic = unique()
    subscriber = sub(*V5, "-t", topic)
    pub(*V5, "-t", topic, "-D", "publish", "topic-alias", "7", "-l", stdin="a\nb\nc\n")
    assert heard(subscriber, 3) == [f"{topic} 00 {name}" for name in "abc"]


def test_v5_shared_subscription(pub: Pub, sub: Sub) -> None:
    topic = unique()
    members = [sub(*V5, "-t", f"$share/g/{topic}", "-q", "1", form="%p") for _ in range(2)]
    pub(*V5, "-t", topic, "-q", "1", "-l", stdin="".join(f"{number}\n" for number in range(20)))
    assert sorted(heard(members[0], 10) + heard(members[1], 10)) == sorted(map(str, range(20)))


def test_v5_session_and_message_expiry(pub: Pub, sub: Sub) -> None:
    short, long, topic = unique(), unique(), unique()
    for name, interval in ((short, "1"), (long, "60")):
        sub(*V5, "-c", "-x", interval, "-i", name, "-t", topic, "-q", "1").stop()
    for payload, interval in (("short", "1"), ("long", "60")):
        pub(*V5, "-t", topic, "-q", "1", "-m", payload, "-D", "publish", "message-expiry-interval", interval)
    time.sleep(2.2)
    assert heard(sub(*V5, "-c", "-x", "60", "-i", long, "-t", topic, "-q", "1")) == [f"{topic} 10 long"]
    sub(*V5, "-c", "-x", "60", "-i", short, "-t", topic, "-q", "1").assert_quiet("=")


def test_v5_will_delay(sub: Sub) -> None:
    topic = unique()
    watcher = sub(*V5, "-t", topic)
    will = ("--will-topic", topic, "--will-payload", "late", "-D", "will", "will-delay-interval", "1")
    start = time.monotonic()
    sub(*V5, "-t", "none", "-x", "60", *will).kill()
    assert heard(watcher) == [f"{topic} 00 late"]
    assert time.monotonic() - start > 0.7


def test_v5_limits_of_the_client(pub: Pub, sub: Sub) -> None:
    topic = unique()
    limits = ("-D", "connect", "maximum-packet-size", "200", "-D", "connect", "receive-maximum", "1")
    subscriber = sub(*V5, "-t", topic, "-q", "1", *limits, form="%l")
    pub(*V5, "-t", topic, "-q", "1", "-l", stdin="".join("x" * size + "\n" for size in (10, 300, 20, 400, 30)))
    assert heard(subscriber, 3) == ["10", "20", "30"]


def test_v5_reason_codes(pub: Pub, start: Start, broker: Broker) -> None:
    assert "RC:16" in pub(*V5, "-d", "-t", unique(), "-m", "x", "-q", "1")
    assert "RC:135" in pub(*V5, "-d", "-t", "$SYS/x", "-m", "x", "-q", "1")
    subscriber = start("mosquitto_sub", "-h", HOST, "-p", str(broker.port), *V5, "-d", "-t", "/" * 200, "-t", "b")
    subscriber.line("Subscribed (mid: 1): 151, 0")
