"""QoS 0, 1 and 2 on both sides, step by step: identifiers, acknowledgements, resending (2.2.1, 4.3, 4.4).

What happens when connections are lost at any step is ``test_qos_machine``'s.
"""

from __future__ import annotations

import pytest

from tests.conformance.helpers import (
    CONNECT_HEX,
    V5,
    V31,
    V311,
    World,
    ask,
    every_version,
    kinds,
    message,
    payloads,
)
from twisted_p2pmqtt.codec.message import DUP, Message
from twisted_p2pmqtt.codec.packets import Disconnect, Puback, Pubcomp, Pubrec, Pubrel
from twisted_p2pmqtt.testing import MemoryClient


def silent(world: World, version: int = V5, client_id: str = "s", **properties: int) -> MemoryClient:
    """A client with a lasting session and a subscription to ``t``; it acknowledges only what the test makes it."""
    client = world.rejoin(client_id, version, acknowledges=False, **properties)
    client.subscribe("t")
    return client


def publish(world: World, payload: bytes, qos: int) -> None:
    """Somebody else publishes."""
    world.join("p").publish("t", payload, qos)


# The client as a sender


@pytest.mark.spec("MQTT-3.3.4-1", "MQTT-4.3.2-4", "MQTT-2.2.1-5")
@pytest.mark.spec("MQTT3-3.3.4-1", "MQTT3-4.3.2-2", "MQTT3-2.3.1-6")
@pytest.mark.parametrize("packet_id", [1, 2, 255, 256, 65535])
@every_version
def test_qos_1_is_answered_by_puback(world: World, version: int, packet_id: int) -> None:
    silent(world)
    client = world.join("c", version)
    client.send(message("t", qos=1, packet_id=packet_id))
    assert client.receive() == [Puback(packet_id)]


@pytest.mark.spec("MQTT-3.3.4-1", "MQTT3-3.3.4-1")
@every_version
def test_qos_0_is_not_answered(world: World, version: int) -> None:
    client = world.join("c", version)
    client.send(message("t"))
    assert client.receive() == []


@pytest.mark.spec("MQTT-3.3.4-1", "MQTT-4.3.3-8", "MQTT-4.3.3-11", "MQTT-2.2.1-5")
@pytest.mark.spec("MQTT3-3.3.4-1", "MQTT3-4.3.3-2", "MQTT3-2.3.1-6")
@pytest.mark.parametrize("packet_id", [1, 2, 255, 256, 65535])
@every_version
def test_qos_2_is_answered_by_pubrec_and_pubcomp(world: World, version: int, packet_id: int) -> None:
    silent(world)
    client = world.join("c", version)
    client.send(message("t", qos=2, packet_id=packet_id))
    assert client.receive() == [Pubrec(packet_id)]
    client.send(Pubrel(packet_id))
    assert client.receive() == [Pubcomp(packet_id)]


@pytest.mark.spec("MQTT-4.3.2-5", "MQTT3-4.3.2-2")
@pytest.mark.parametrize("dup", [False, True])
@every_version
def test_after_puback_the_same_id_is_a_new_message(world: World, version: int, dup: bool) -> None:
    listener = world.join("listener")
    listener.subscribe("t")
    client = world.join("c", version)
    client.send(message("t", b"1", 1, 5))
    client.send(message("t", b"2", 1, 5, dup))
    assert payloads(listener) == [b"1", b"2"]
    assert client.receive() == [Puback(5), Puback(5)]


@pytest.mark.spec("MQTT-4.3.3-10", "MQTT3-4.3.3-2")
@pytest.mark.parametrize("dup", [False, True])
@every_version
def test_a_repeated_qos_2_publish_is_delivered_once(world: World, version: int, dup: bool) -> None:
    listener = world.join("listener")
    listener.subscribe("t")
    client = world.join("c", version)
    client.send(message("t", b"1", 2, 5))
    client.send(*(message("t", b"1", 2, 5, dup) for _ in range(10)))
    assert client.receive() == [Pubrec(5)] * 11
    client.send(Pubrel(5), Pubrel(5))
    assert [each.packet_id for each in client.receive() if isinstance(each, Pubcomp)] == [5, 5]
    assert payloads(listener) == [b"1"]


@pytest.mark.spec("MQTT-4.3.3-12", "MQTT3-4.3.3-2")
@pytest.mark.parametrize("dup", [False, True])
@every_version
def test_after_pubcomp_the_same_id_is_a_new_message(world: World, version: int, dup: bool) -> None:
    listener = world.join("listener")
    listener.subscribe("t")
    client = world.join("c", version)
    for payload in (b"1", b"2"):
        client.send(message("t", payload, 2, 5, dup), Pubrel(5))
    assert payloads(listener) == [b"1", b"2"]


@pytest.mark.spec("MQTT-4.3.3-9")
def test_after_a_refusing_pubrec_the_same_id_is_a_new_message(world: World) -> None:
    listener = world.join("listener")
    listener.subscribe("t")
    client = world.join("c")
    client.send(message("$x", b"1", 2, 5))
    assert client.take(Pubrec).reason_code == 0x87
    client.send(message("t", b"2", 2, 5))
    assert payloads(listener) == [b"2"]
    client.send(Pubrel(5))
    assert client.take(Pubcomp) == Pubcomp(5)


@pytest.mark.spec("MQTT-4.3.3-11", "MQTT3-4.3.3-2")
@every_version
def test_an_unknown_pubrel_is_answered_all_the_same(world: World, version: int) -> None:
    client = world.join("c", version)
    client.send(Pubrel(9))
    assert client.receive() == [Pubcomp(9, 0x92 if version == V5 else 0)]


@every_version
def test_ids_of_the_two_directions_are_apart(world: World, version: int) -> None:
    client = silent(world, version, "c")
    publish(world, b"from the server", 2)
    packet_id = client.take(Message).packet_id
    client.send(message("up", b"from the client", 2, packet_id))
    assert client.receive() == [Pubrec(packet_id, 0x10 if version == V5 else 0)]
    client.send(Pubrel(packet_id), Pubrec(packet_id))
    assert kinds(client.receive()) == ["Pubcomp", "Pubrel"]
    client.send(Pubcomp(packet_id))
    assert world.broker.sessions["c"].inflight == {}


# The server as a sender


@pytest.mark.spec("MQTT-2.2.1-4", "MQTT-4.3.2-1", "MQTT-4.3.2-2", "MQTT-4.3.3-1", "MQTT-4.3.3-2")
@pytest.mark.spec("MQTT3-2.3.1-4", "MQTT3-4.3.2-1", "MQTT3-4.3.3-1")
@pytest.mark.parametrize("qos", [1, 2])
@every_version
def test_every_message_has_an_id_of_its_own(world: World, version: int, qos: int) -> None:
    client = silent(world, version)
    for number in range(50):
        publish(world, b"%d" % number, qos)
    got = client.messages
    assert len({each.packet_id for each in got}) == 50
    assert all(1 <= each.packet_id <= 65535 and each.qos == qos and each.dup == 0 for each in got)


@pytest.mark.spec("MQTT-2.2.1-4", "MQTT3-2.3.1-4")
@pytest.mark.slow
def test_ids_go_round_and_those_in_use_are_left_out() -> None:
    world = World(max_inflight=65535)
    client = silent(world, V5, receive_maximum=65535)
    publisher = world.join("p")
    publisher.send(*(message("t", b"", 1, 1) for _ in range(9)))
    first = [each.packet_id for each in client.receive() if isinstance(each, Message)]
    kept = [first[0], *first[4:7]]
    client.send(*(Puback(each) for each in first if each not in kept))
    for _ in range(70):
        publisher.send(*(message("t", b"", 1, 1) for _ in range(1000)))
        got = [each.packet_id for each in client.receive() if isinstance(each, Message)]
        assert not set(got) & {0, *kept}
        assert len(set(got)) == 1000
        client.send(*(Puback(each) for each in got))
    assert set(world.broker.sessions["s"].inflight) == set(kept)


@pytest.mark.spec("MQTT-4.3.2-3", "MQTT-4.4.0-1", "MQTT-3.3.1-1")
@pytest.mark.spec("MQTT3-4.3.2-1", "MQTT3-4.4.0-1", "MQTT3-3.3.1-1")
@every_version
def test_qos_1_is_sent_again_until_its_puback(world: World, version: int) -> None:
    client = silent(world, version)
    publish(world, b"1", 1)
    first = client.take(Message)
    for _ in range(3):
        client.lose()
        client = world.rejoin("s", version, acknowledges=False)
        again = client.take(Message)
        assert (again.packet_id, again.payload, again.qos, again.dup) == (first.packet_id, b"1", 1, DUP)
    client.send(Puback(first.packet_id))
    client.lose()
    assert world.rejoin("s", version).messages == []


@pytest.mark.spec("MQTT-4.3.3-3", "MQTT-4.3.3-4", "MQTT-4.3.3-5", "MQTT-4.3.3-6", "MQTT-4.4.0-1", "MQTT-2.2.1-5")
@pytest.mark.spec("MQTT3-4.3.3-1", "MQTT3-4.4.0-1", "MQTT3-3.3.1-1", "MQTT3-2.3.1-6")
@every_version
def test_qos_2_is_sent_again_until_pubrec_and_then_pubrel_until_pubcomp(world: World, version: int) -> None:
    client = silent(world, version)
    publish(world, b"1", 2)
    packet_id = client.take(Message).packet_id
    for _ in range(2):
        client.lose()
        client = world.rejoin("s", version, acknowledges=False)
        again = client.take(Message)
        assert (again.packet_id, again.qos, again.dup) == (packet_id, 2, DUP)
        assert client.receive() == []
    client.send(Pubrec(packet_id))
    assert client.receive() == [Pubrel(packet_id)]
    for _ in range(2):
        client.lose()
        client = world.rejoin("s", version, acknowledges=False)
        assert client.receive() == [Pubrel(packet_id)]
    client.send(Pubcomp(packet_id))
    client.lose()
    assert world.rejoin("s", version).receive() == []


@pytest.mark.spec("MQTT-4.4.0-1", "MQTT3-4.4.0-1")
@pytest.mark.parametrize("qos", [1, 2])
@every_version
def test_nothing_is_sent_again_while_the_connection_lasts(world: World, version: int, qos: int) -> None:
    client = silent(world, version)
    publish(world, b"1", qos)
    if qos == 2:
        client.send(Pubrec(client.take(Message).packet_id))
    client.receive()
    world.wait(3600)
    assert client.receive() == []


@pytest.mark.spec("MQTT-4.4.0-1", "MQTT3-4.4.0-1")
@every_version
def test_what_is_sent_again_keeps_its_order_and_comes_before_what_is_new(world: World, version: int) -> None:
    client = silent(world, version)
    for number in range(1, 7):
        publish(world, b"%d" % number, 1 + number % 2)
    client.send(Puback(client.messages[1].packet_id))
    client.lose()
    publish(world, b"7", 1)
    client = world.rejoin("s", version)
    assert payloads(client) == [b"1", b"3", b"4", b"5", b"6", b"7"]
    assert [bool(each.dup) for each in client.messages] == [True] * 5 + [False]


@pytest.mark.spec("MQTT-4.4.0-2", "MQTT-4.3.3-4")
@pytest.mark.parametrize("code", [0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99])
@pytest.mark.parametrize("qos", [1, 2])
def test_a_refused_message_is_not_sent_again(world: World, qos: int, code: int) -> None:
    client = silent(world)
    publish(world, b"1", qos)
    packet_id = client.take(Message).packet_id
    client.send(Puback(packet_id, code) if qos == 1 else Pubrec(packet_id, code))
    assert client.receive() == []  # no PUBREL either
    client.lose()
    assert world.rejoin("s").receive() == []


@every_version
def test_a_repeated_pubrec_is_answered_again(world: World, version: int) -> None:
    client = silent(world, version)
    publish(world, b"1", 2)
    packet_id = client.take(Message).packet_id
    client.send(Pubrec(packet_id), Pubrec(packet_id))
    assert client.receive() == [Pubrel(packet_id), Pubrel(packet_id)]


@every_version
def test_unknown_acknowledgements(world: World, version: int) -> None:
    client = silent(world, version, "c")
    client.receive()
    client.send(Puback(9), Pubcomp(9))
    assert client.receive() == []
    client.send(Pubrec(9))
    assert client.receive() == [Pubrel(9, 0x92 if version == V5 else 0)]
    assert not client.is_closed
    assert world.broker.stats.acknowledgements_unknown == 3


@every_version
def test_the_packet_id_of_an_unknown_pubrec_is_in_use_until_its_pubcomp(world: World, version: int) -> None:
    client = silent(world, version)
    client.send(Pubrec(1))
    client.take(Pubrel)
    publish(world, b"1", 2)
    assert client.take(Message).packet_id == 2
    client.send(Pubcomp(1))  # the answer to the PUBREL
    assert not client.is_closed
    client.send(Pubrec(2), Pubcomp(2))
    assert client.receive() == [Pubrel(2)]
    assert next(iter(world.broker.sessions.values())).inflight == {}


@every_version
def test_an_unknown_pubrec_that_comes_twice(world: World, version: int) -> None:
    client = silent(world, version)
    client.send(Pubrec(1), Pubrec(1))
    assert [type(each) for each in client.receive()] == [Pubrel, Pubrel]
    client.send(Pubcomp(1))
    publish(world, b"1", 2)
    client.send(Pubcomp(1))  # for the other PUBREL, and not for the message
    assert client.take(Message).packet_id != 1
    assert not client.is_closed


def test_a_refusal_is_not_answered_whatever_is_known_of_its_message(world: World) -> None:
    client = silent(world, V5)
    client.send(Pubrec(5, 0x80), Pubrec(5), Pubrec(5, 0x80))
    assert client.receive() == [Pubrel(5, 0x92)]


def test_an_unknown_pubrec_while_the_clients_own_window_is_full(world: World) -> None:
    silent(world)
    for _ in range(4):
        publish(world, b"1", 1)
    client = silent(world, receive_maximum=2)
    client.send(Puback(client.messages[0].packet_id), Pubrec(99), Pubcomp(99))
    assert not client.is_closed
    assert len(client.messages) == 3


def test_unknown_pubrecs_are_kept_as_far_as_the_limit_goes() -> None:
    world = World(max_inflight=3)
    client = silent(world, V5)
    client.send(*(Pubrec(packet_id) for packet_id in range(7, 10)))
    publish(world, b"waits", 1)
    assert client.receive() == [Pubrel(packet_id, 0x92) for packet_id in range(7, 10)]
    client.send(Pubcomp(8, 0x92))
    assert client.take(Message).payload == b"waits"
    client.send(Pubrec(10))
    assert client.is_closed
    assert client.take(Disconnect).reason_code == 0x82


@pytest.mark.spec("MQTT-4.13.1-1", "MQTT3-4.8.0-1")
@pytest.mark.parametrize(("qos", "answer"), [(2, Puback(1)), (1, Pubrec(1)), (2, Pubcomp(1))])
@every_version
def test_an_acknowledgement_of_another_kind(
    world: World, version: int, qos: int, answer: Puback | Pubrec | Pubcomp
) -> None:
    client = silent(world, version)
    publish(world, b"1", qos)
    client.send(answer)
    assert client.is_closed
    assert [each.reason_code for each in client.packets if isinstance(each, Disconnect)] == [0x82] * (version == V5)


# The QoS that a subscription was granted


@pytest.mark.spec("MQTT-3.8.4-8", "MQTT3-3.8.4-6")
@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
@every_version
def test_the_lower_qos_counts(world: World, version: int, published: int, granted: int) -> None:
    client = world.join("s", version)
    client.subscribe(ask("t", granted))
    publish(world, b"x", published)
    assert [each.qos for each in client.messages] == [min(published, granted)]
    assert bool(client.messages[0].packet_id) is (min(published, granted) > 0)


@pytest.mark.spec("MQTT-2.2.1-3", "MQTT3-2.3.1-1")
@pytest.mark.parametrize(
    "sent",
    ["32 06 0001 74 0000 {} 78", "34 06 0001 74 0000 {} 78", "82 06 0000 {} 0001 74 00", "a2 05 0000 {} 0001 74"],
)
@pytest.mark.parametrize("version", [V31, V311, V5])
def test_packet_id_zero(world: World, version: int, sent: str) -> None:
    raw = world.raw()
    raw.put(CONNECT_HEX[version])
    data = bytearray(bytes.fromhex(sent.format("00" if version == V5 else "")))
    data[1] = len(data) - 2
    answer = raw.put(bytes(data))
    assert raw.is_closed
    assert answer[:1] + answer[2:3] == (b"\xe0\x82" if version == V5 else b"")
