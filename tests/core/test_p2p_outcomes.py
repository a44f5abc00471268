"""What the sender hears: the table of section 4 of the P2P page, each row by version and QoS."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from twisted.internet.task import Clock

from tests.core.support import Avatar, client, guarded_factory, heard, offline, publish, status
from twisted_p2pmqtt.codec.packets import Puback, Pubrec
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.limits import Limits, P2POptions
from twisted_p2pmqtt.net.protocol import MQTTFactory
from twisted_p2pmqtt.testing import MemoryClient, make_broker

VERSIONS, QOS = (3, 4, 5), (0, 1, 2)
BIG = b"x" * 500


class Row(NamedTuple):
    """A row: what is sent where, the code and ``p2p-status`` of QoS 1 and 2, the counter that moves at each QoS."""

    name: str
    topic: str
    code: int
    status: str | None
    counter: str
    counter_qos0: str = ""
    payload: bytes = b"x"
    reason: bool = False


ROWS = [
    Row("online", "p2p/online/t", 0x00, "online", "p2p_delivered"),
    Row("queued", "p2p/offline/t", 0x00, "queued", "p2p_queued", "p2p_dropped_qos0_offline"),
    Row("unknown", "p2p/nobody/t", 0x10, None, "p2p_dropped_unknown"),
    Row("malformed", "p2p/online", 0x90, None, "p2p_dropped_malformed"),
    Row("malformed id", "p2p//t", 0x90, None, "p2p_dropped_malformed"),
    Row("reserved", "p2p/online/$SYS/t", 0x90, None, "p2p_dropped_malformed"),
    Row("denied", "p2p/online/secret", 0x87, None, "p2p_dropped_denied"),
    Row("denied, unknown", "p2p/nobody/secret", 0x87, None, "p2p_dropped_denied"),
    Row("full", "p2p/full/t", 0x97, None, "p2p_dropped_quota", "p2p_dropped_qos0_offline"),
    Row("too large", "p2p/small/t", 0x83, None, "p2p_dropped_too_large", "", BIG, True),
]

HIDDEN = {"online", "queued", "unknown"}
"""The rows that ``hide_presence`` makes one."""


def scene(options: P2POptions) -> tuple[MQTTFactory, dict[str, MemoryClient]]:
    """A broker with a connected, an offline, a full and a small target; ``sender`` may not say `secret`."""
    broker = make_broker(Clock(), p2p=options, limits=Limits(max_queued_messages=3))
    factory = guarded_factory(broker, {"sender": Avatar(publish=["p2p/+/t", "p2p/+/$SYS/#"])})
    small: Properties = {"maximum_packet_size": 100}
    targets = {"online": client(factory, "online"), "small": client(factory, "small", properties=small)}
    offline(factory, "offline")
    offline(factory, "full")
    filler = client(factory, "filler")
    for _ in range(3):
        publish(filler, "p2p/full/t")
    return factory, targets


@pytest.mark.parametrize("qos", QOS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
@pytest.mark.parametrize("hide", [False, True], ids=["open", "hide_presence"])
@pytest.mark.spec("MQTT-3.3.4-1", "MQTT3-3.3.5-2", "MQTT-4.3.2-4", "MQTT3-4.3.2-2")
def test_table_of_section_4(row: Row, version: int, qos: int, hide: bool) -> None:
    factory, targets = scene(P2POptions(hide_presence=hide))
    stats = factory.broker.stats
    sender = client(factory, "sender", version)
    everybody = client(factory, "everybody")
    everybody.subscribe("#", "+/+/+", "t", "secret")
    counter = (row.counter_qos0 if qos == 0 else "") or row.counter
    before = getattr(stats, counter)
    answer = publish(sender, row.topic, row.payload, qos)
    assert getattr(stats, counter) == before + 1
    assert heard(everybody) == []
    arrived = [message for target in targets.values() for message in heard(target)]
    assert arrived == ([("t", b"x")] if row.name == "online" else [])
    assert not sender.is_closed
    if qos == 0:
        assert answer is None
        return
    assert isinstance(answer, (Puback, Pubrec)[qos - 1])
    is_hidden = hide and row.name in HIDDEN
    if version < 5:
        assert (answer.reason_code, answer.properties) == (0, {})
    else:
        assert answer.reason_code == (0 if is_hidden else row.code)
        assert status(answer) == (None if is_hidden else row.status)
        assert ("reason_string" in answer.properties) == row.reason


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.spec("MQTT-3.1.2-29")
def test_no_explanations_for_whoever_wants_none(qos: int) -> None:
    factory, _ = scene(P2POptions())
    sender = client(factory, "other", properties={"request_problem_information": 0})
    for row in ROWS:
        if "denied" not in row.name:
            answer = publish(sender, row.topic, row.payload, qos)
            assert answer is not None
            assert (answer.reason_code, answer.properties) == (row.code, {})


@pytest.mark.parametrize("qos", [1, 2])
@pytest.mark.spec("MQTT-3.4.2-2", "MQTT-3.4.2-3", "MQTT-3.5.2-2", "MQTT-3.5.2-3")
def test_no_explanations_where_they_do_not_fit(qos: int) -> None:
    """The PUBACK with ``p2p-status=online`` has 27 bytes."""
    factory, _ = scene(P2POptions())
    for limit, expected in ((27, "online"), (26, None)):
        sender = client(factory, f"to{limit}", properties={"maximum_packet_size": limit})
        answer = publish(sender, "p2p/online/t", qos=qos)
        assert answer is not None
        assert (answer.reason_code, status(answer)) == (0, expected)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", QOS)
def test_a_target_whose_window_is_shut_gets_it_later(version: int, qos: int) -> None:
    """Connected, but with as much unacknowledged as it takes: QoS 1 and 2 wait, QoS 0 does not."""
    broker = make_broker(Clock())
    slow = client(broker, "slow", properties={"receive_maximum": 1}, acknowledges=False)
    sender = client(broker, "sender", version)
    publish(sender, "p2p/slow/t", b"1")
    answer = publish(sender, "p2p/slow/t", b"2", qos)
    assert [message.payload for message in slow.messages] == ([b"1"] if qos else [b"1", b"2"])
    if qos and version == 5:
        assert status(answer) == "queued"
    slow.send(Puback(slow.messages[0].packet_id))
    assert [message.payload for message in slow.messages] == [b"1", b"2"]


@pytest.mark.parametrize("mode", ["reject", "publish"])
@pytest.mark.parametrize("qos", QOS)
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("topic", ["p2p/x", "p2p/x/", "p2p//t", "p2p/", "p2p//"])
def test_malformed_by_policy(mode: str, qos: int, version: int, topic: str) -> None:
    """``publish`` is RMQTT's behaviour: an ordinary topic, retained message and all."""
    broker = make_broker(Clock(), p2p=P2POptions(on_malformed=mode))
    other, sender = client(broker, "other"), client(broker, "sender", version)
    other.subscribe("p2p/#")
    publish(sender, topic, b"x", qos, retain=True)
    assert heard(other) == ([(topic, b"x")] if mode == "publish" else [])
    assert len(broker.retained) == (mode == "publish")
    assert broker.stats.p2p_dropped_malformed == (mode == "reject")


@pytest.mark.parametrize("mode", ["reject", "publish"])
def test_a_reserved_business_topic_is_never_published(mode: str) -> None:
    broker = make_broker(Clock(), p2p=P2POptions(on_malformed=mode))
    other, sender, dev = (client(broker, name) for name in ("other", "sender", "dev"))
    other.subscribe("#", "$SYS/#")
    for topic in ("p2p/dev/$SYS/x", "p2p/dev/$share/g/x", "p2p/dev/$"):
        answer = publish(sender, topic)
        assert answer is not None
        assert answer.reason_code == 0x90
    assert heard(other) == heard(dev) == []
