"""P2P messages and rights: the abuse cases P01 to P04, P09 and P10 of the reliability page, with real rule files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.auth.helpers import Site
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connect, Puback, Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.limits import P2POptions
from twisted_p2pmqtt.core.p2p import BothP2PRouter
from twisted_p2pmqtt.testing import MemoryClient

USERS = {"sender": "s", "dev1": "1", "dev2": "2"}
VERSIONS = [3, 4, 5]


def site(directory: Path, acl: str, **options: Any) -> Site:
    return Site(directory, acl, USERS, router=BothP2PRouter(), p2p=P2POptions(**options))


def client(here: Site, name: str, version: int = 5, **options: Any) -> MemoryClient:
    """A user's client, logged in; its client id is the user's name."""
    made = MemoryClient(here.factory, name, version, options.pop("acknowledges", True))
    assert made.connect(username=name, password=USERS[name].encode(), **options).reason_code == 0
    return made


def outcome(sender: MemoryClient, topic: str, qos: int) -> int:
    """What a 5.0 sender hears; 3.x and QoS 0 hear nothing of a refusal."""
    code = sender.publish(topic, b"x", qos)
    return code if sender.version == 5 and qos else 0x87


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("qos", [0, 1, 2])
class TestSending:
    def test_p01_denied_unless_allowed(self, tmp_path: Path, version: int, qos: int) -> None:
        here = site(tmp_path, "user dev1\ntopic #\n")
        target, sender = client(here, "dev1"), client(here, "sender", version)
        target.subscribe("#")
        assert outcome(sender, "p2p/dev1/x", qos) == 0x87
        assert target.messages == []
        assert here.broker.stats.p2p_dropped_denied == 1

    def test_p02_the_business_topic_is_not_enough(self, tmp_path: Path, version: int, qos: int) -> None:
        here = site(tmp_path, "user sender\ntopic write sensor/temp\nuser dev1\ntopic #\n")
        target, sender = client(here, "dev1"), client(here, "sender", version)
        for topic in ("p2p/dev1/sensor/temp", "sensor/temp/p2p/dev1"):
            assert outcome(sender, topic, qos) == 0x87
        assert target.messages == []

    def test_p03_a_target_is_one_target(self, tmp_path: Path, version: int, qos: int) -> None:
        here = site(tmp_path, "user sender\ntopic write p2p/dev1/#\n")
        one, two, sender = client(here, "dev1"), client(here, "dev2"), client(here, "sender", version)
        for topic in ("p2p/dev2/x", "x/p2p/dev2", "p2p/dev2/p2p/dev1/x", "dev1/x/p2p/dev2"):
            assert outcome(sender, topic, qos) == 0x87, topic
        assert two.messages == []
        assert one.messages == []
        for topic in ("p2p/dev1/x", "x/p2p/dev1"):
            sender.publish(topic, b"x", qos)
        assert [message.topic for message in one.messages] == [b"x", b"x"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.spec("MQTT-3.1.4-6", "MQTT3-3.1.4-5")
def test_p01_not_logged_in(tmp_path: Path, version: int) -> None:
    here = site(tmp_path, "topic #\n")
    target = MemoryClient(here.factory, "dev1", version)
    target.send(Message(b"p2p/dev1/x", b""))
    assert target.is_closed
    assert here.broker.stats.messages_received == 0
    # and behind a CONNECT that is refused
    wrong = MemoryClient(here.factory, "sender", version)
    wrong.send(Connect("sender", version, username="sender", password=b"wrong"), Message(b"p2p/dev1/x", b""))
    assert wrong.is_closed
    assert here.broker.stats.messages_received == 0


def test_who_may_be_sent_to_depends_on_nothing_else(tmp_path: Path) -> None:
    """Denied comes before unknown, offline and full."""
    here = site(tmp_path, "user sender\ntopic write p2p/dev1/#\n", max_queued=0)
    sender = client(here, "sender")
    client(here, "dev2", properties=Properties(session_expiry_interval=100)).lose()
    assert [sender.publish(f"p2p/{target}/x", b"", 1) for target in ("dev1", "dev2", "nobody")] == [0x10, 0x87, 0x87]


def test_reading_a_target_is_not_sending_to_it(tmp_path: Path) -> None:
    here = site(tmp_path, "user sender\ntopic read p2p/#\ntopic write p2p/dev1/cmd\n")
    sender = client(here, "sender")
    assert [sender.publish(f"p2p/dev1/{topic}", b"", 1) for topic in ("cmd", "cmd/x", "other")] == [0x10, 0x87, 0x87]


def test_one_deny_governs_both_forms(tmp_path: Path) -> None:
    here = site(tmp_path, "user sender\ntopic write #\ntopic deny p2p/+/admin/#\npattern deny p2p/dev2/#\n")
    sender = client(here, "sender")
    allowed = {"p2p/dev1/x": 0x10, "x/p2p/dev1": 0x10}
    denied = dict.fromkeys(("p2p/dev1/admin/x", "admin/x/p2p/dev1", "admin/p2p/dev1", "p2p/dev2/x", "x/p2p/dev2"), 0x87)
    for topic, code in {**allowed, **denied}.items():
        assert sender.publish(topic, b"", 1) == code, topic


def test_ids_are_escaped_in_rules(tmp_path: Path) -> None:
    here = site(tmp_path, "user sender\ntopic write p2p/a%2Fb/x\ntopic write p2p/c/x\n")
    sender = client(here, "sender")
    for topic, code in {
        "p2p/a%2Fb/x": 0x10,
        "p2p/a%2fb/x": 0x10,
        "x/p2p/a%2Fb": 0x10,
        "p2p/a/b/x": 0x87,
        "p2p/a%252Fb/x": 0x87,
        "p2p/%63/x": 0x87,  # not one of the escapes: the client `%63`
    }.items():
        assert sender.publish(topic, b"", 1) == code, topic


# P04: the target's own right


RECEIVING = {
    "not allowed": "user dev1\ntopic read other\n",
    "denied under allow": "user dev1\ntopic read #\ntopic deny sensor/#\n",
    "denied by pattern": "user dev1\ntopic read #\npattern deny sensor/+\n",
}
SENDER = "user sender\ntopic write #\n"
AWAY = Properties(session_expiry_interval=1000)


@pytest.mark.parametrize("rules", RECEIVING)
@pytest.mark.parametrize("qos", [0, 1, 2])
class TestReceiving:
    def test_p04_live(self, tmp_path: Path, rules: str, qos: int) -> None:
        here = site(tmp_path, SENDER + RECEIVING[rules], check_receive=True)
        target, sender = client(here, "dev1"), client(here, "sender")
        sender.publish("p2p/dev1/sensor/temp", b"", qos)
        assert target.messages == []
        assert here.broker.stats.p2p_dropped_denied == 1
        sender.publish("p2p/dev1/other", b"", qos)
        assert [message.topic for message in target.messages] == [b"other"]

    def test_p04_off_unless_set(self, tmp_path: Path, rules: str, qos: int) -> None:
        here = site(tmp_path, SENDER + RECEIVING[rules])
        target, sender = client(here, "dev1"), client(here, "sender")
        sender.publish("p2p/dev1/sensor/temp", b"", qos)
        assert [message.topic for message in target.messages] == [b"sensor/temp"]


@pytest.mark.parametrize("rules", RECEIVING)
@pytest.mark.parametrize("qos", [1, 2])
class TestReceivingLater:
    def test_p04_replay(self, tmp_path: Path, rules: str, qos: int) -> None:
        here = site(tmp_path, SENDER + "user dev1\ntopic read #\n", check_receive=True)
        client(here, "dev1", properties=AWAY).lose()
        sender = client(here, "sender")
        for topic in ("sensor/temp", "other", "sensor/x"):
            sender.publish(f"p2p/dev1/{topic}", b"", qos)
        here.change_acl(SENDER + RECEIVING[rules])
        target = client(here, "dev1", clean_start=False)
        assert [message.topic for message in target.messages] == [b"other"]
        assert here.broker.stats.dropped_not_authorized == 2

    def test_p04_resend(self, tmp_path: Path, rules: str, qos: int) -> None:
        here = site(tmp_path, SENDER + "user dev1\ntopic read #\n", check_receive=True)
        target = client(here, "dev1", properties=AWAY, acknowledges=False)
        sender = client(here, "sender")
        for topic in ("sensor/temp", "other"):
            sender.publish(f"p2p/dev1/{topic}", b"", qos)
        assert len(target.messages) == 2
        target.lose()
        here.change_acl(SENDER + RECEIVING[rules])
        target = client(here, "dev1", clean_start=False, acknowledges=False)
        assert [(message.topic, bool(message.dup)) for message in target.messages] == [(b"other", True)]
        assert here.broker.stats.dropped_not_authorized == 1
        if qos == 1:
            target.send(Puback(target.messages[0].packet_id))
            assert not here.broker.sessions["dev1"].inflight


# P09: wills


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("topic", ["p2p/dev1/x", "x/p2p/dev1"])
class TestWills:
    def test_p09_judged_at_connect(self, tmp_path: Path, version: int, topic: str) -> None:
        here = site(tmp_path, "user sender\ntopic write x\n")
        target = client(here, "dev1")
        sender = MemoryClient(here.factory, "sender", version)
        connack = sender.connect(username="sender", password=b"s", will=Will(topic, b""))
        assert connack.reason_code == (0x87 if version == 5 else 5)
        assert sender.is_closed
        assert target.messages == []

    def test_p09_judged_when_it_fires(self, tmp_path: Path, version: int, topic: str) -> None:
        here = site(tmp_path, "user sender\ntopic write p2p/dev1/#\n")
        target = client(here, "dev1")
        for change, expected in ((None, 1), ("user sender\ntopic write x\n", 1)):
            sender = client(here, "sender", version, will=Will(topic, b"bye"))
            if change is not None:
                here.change_acl(change)
            sender.lose()
            assert len(target.messages) == expected
        assert here.broker.stats.p2p_dropped_denied == 1


# P10: aliases


def test_p10_an_alias_is_no_right(tmp_path: Path) -> None:
    here = site(tmp_path, "user sender\ntopic write p2p/dev1/#\n")
    target, sender = client(here, "dev1"), client(here, "sender")

    def publish(topic: bytes) -> int:
        sender.send(Message(topic, b"x", 0, 1, 0, 0, 1, Properties(topic_alias=1)))
        return sender.take(Puback).reason_code

    assert publish(b"p2p/dev1/x") == 0
    assert publish(b"") == 0
    here.change_acl("user sender\ntopic write p2p/dev2/#\n")
    assert publish(b"") == 0x87
    assert len(target.messages) == 2
    here.change_acl("user sender\ntopic write p2p/dev1/#\n")
    assert publish(b"") == 0
    assert len(target.messages) == 3


def test_own_inbox_by_pattern(tmp_path: Path) -> None:
    """The rule of docs/authentication.md: a device answers whom it is told to, and commands only itself."""
    here = site(
        tmp_path, "user dev1\ntopic write p2p/+/answer/#\npattern readwrite p2p/%c/#\nuser sender\ntopic write p2p/#\n"
    )
    device, app = client(here, "dev1"), client(here, "sender")
    assert app.publish("p2p/dev1/cmd", b"", 1) == 0
    assert device.publish("p2p/sender/answer/1", b"", 1) == 0
    assert device.publish("p2p/sender/cmd", b"", 1) == 0x87
    assert device.publish("p2p/dev1/note", b"", 1) == 0
