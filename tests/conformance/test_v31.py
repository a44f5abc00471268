"""What 3.1 and 3.1.1 do their own way: codes, closes, and what they know nothing of (issue list of 3.x rules)."""

from __future__ import annotations

import pytest

from tests.conformance.helpers import CONNECT_HEX, V31, V311, World, ask, message, payloads
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connack, Connect, Puback, Pubrec, Pubrel

before_v5 = pytest.mark.parametrize("version", [V31, V311])


def test_an_empty_client_id_is_not_for_3_1(world: World) -> None:
    for clean_start in (True, False):
        client = world.client("", V31)
        client.send(Connect("", V31, clean_start))
        assert client.receive() == [Connack(False, 2)]
        assert client.is_closed


def test_a_client_of_3_1_may_promise_a_user_name_and_not_send_it(world: World) -> None:
    """MQTT 3.1, section 3.1: the remaining length takes precedence over the flags."""
    for flags, rest in (("82", ""), ("c2", ""), ("c2", "0001 75")):
        raw = world.raw()
        size = 17 + len(bytes.fromhex(rest))
        assert raw.put(f"10 {size:02x} 0006 4d5149736470 03 {flags} 003c 0003 617474 {rest}") == b"\x20\x02\x00\x00"


def test_a_client_of_3_1_may_set_dup_on_what_it_sends_again(world: World) -> None:
    """MQTT 3.1, section 2.1; 3.1.1 and 5.0 close."""
    for version, is_legal in ((V31, True), (V311, False)):
        for sent, answer in (
            ("8a 06 0001 0001 74 00", "90 03 0001 00"),
            ("aa 05 0001 0001 74", "b0 02 0001"),
            ("6a 02 0001", "70 02 0001"),
        ):
            raw = world.raw()
            raw.put(CONNECT_HEX[version])
            assert raw.put(sent) == (bytes.fromhex(answer) if is_legal else b"")
            assert raw.is_closed is not is_legal


@before_v5
def test_acknowledgements_have_no_reason_codes(world: World, version: int) -> None:
    raw = world.raw()
    raw.put(CONNECT_HEX[version])
    assert raw.put("32 06 0001 74 0001 78") == b"\x40\x02\x00\x01"
    assert raw.put("34 06 0001 74 0002 78") == b"\x50\x02\x00\x02"
    assert raw.put("62 02 0002") == b"\x70\x02\x00\x02"
    assert raw.put("62 02 0002") == b"\x70\x02\x00\x02"
    assert raw.put("50 02 0003") == b"\x62\x02\x00\x03"
    assert raw.put("82 06 0004 0001 74 01") == b"\x90\x03\x00\x04\x01"
    assert raw.put("a2 05 0005 0001 74") == b"\xb0\x02\x00\x05"
    assert raw.put("a2 05 0006 0001 74") == b"\xb0\x02\x00\x06"


@before_v5
def test_refused_filters_are_0x80(world: World, version: int) -> None:
    assert world.join("c", version).subscribe("a/#/b", "a+", "ok") == [0x80, 0x80, 2]


@pytest.mark.spec("MQTT3-3.3.5-2")
@before_v5
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_publish_that_is_not_permitted_is_acknowledged_as_usual(version: int, qos: int) -> None:
    class Mute:
        """May not publish."""

        def may_publish(self, topic: str) -> bool:
            return False

        def may_receive(self, topic: str) -> bool:
            return True

    world = World(lambda credentials: Mute() if credentials.client_id == "mute" else None)
    listener = world.join("listener")
    listener.subscribe("t")
    client = world.join("mute", version)
    assert client.publish("t", b"x", qos) == 0
    assert not client.is_closed
    assert payloads(listener) == []


@before_v5
def test_a_full_queue_is_not_told(version: int) -> None:
    world = World(max_queued_messages=0, max_inflight=1)
    listener = world.join("s", acknowledges=False)
    listener.subscribe("t")
    client = world.join("c", version)
    assert [client.publish("t", b"x", qos) for qos in (1, 2, 1)] == [0, 0, 0]


@before_v5
def test_subscription_options_of_5_0_are_illegal(world: World, version: int) -> None:
    for options in ("04", "08", "10", "20", "ff"):
        raw = world.raw()
        raw.put(CONNECT_HEX[version])
        assert raw.put(f"82 06 0001 0001 74 {options}") == b""
        assert raw.is_closed


@before_v5
def test_auth_is_illegal(world: World, version: int) -> None:
    raw = world.raw()
    raw.put(CONNECT_HEX[version])
    assert raw.put("f0 00") == b""
    assert raw.is_closed


@pytest.mark.spec("MQTT3-4.4.0-1")
@before_v5
def test_inflight_messages_are_sent_again_on_reconnect_only(world: World, version: int) -> None:
    client = world.rejoin("s", version, acknowledges=False)
    client.subscribe(ask("t", 2))
    publisher = world.join("p")
    publisher.publish("t", b"1", 1)
    publisher.publish("t", b"2", 2)
    first = client.messages
    client.receive()
    world.wait(3600)
    assert client.receive() == []
    client.lose()

    client = world.rejoin("s", version, acknowledges=False)
    again = [each for each in client.receive() if isinstance(each, Message)]
    assert [(each.packet_id, each.payload, each.dup) for each in again] == [
        (each.packet_id, each.payload, 8) for each in first
    ]
    client.send(Puback(again[0].packet_id), Pubrec(again[1].packet_id))
    assert client.receive() == [Pubrel(again[1].packet_id)]


@before_v5
def test_a_will_of_3_1_without_its_flag_is_disregarded(world: World, version: int) -> None:
    """3.1 disregards Will QoS and Will RETAIN where the Will Flag is 0; 3.1.1 forbids them."""
    data = bytearray(bytes.fromhex(CONNECT_HEX[version]))
    data[data.index(b"\x02\x00\x3c")] = 0x2A
    raw = world.raw()
    assert raw.put(bytes(data)) == (b"\x20\x02\x00\x00" if version == V31 else b"")
    assert raw.is_closed is (version == V311)


@before_v5
def test_versions_talk_to_each_other(world: World, version: int) -> None:
    old, new = world.join("old", version), world.join("new")
    old.subscribe("t")
    new.subscribe("t")
    old.send(message("t", b"from old", 2, 1), Pubrel(1))
    new.publish("t", b"from new", 2, properties={"content_type": "x"})
    assert payloads(old) == payloads(new) == [b"from old", b"from new"]
