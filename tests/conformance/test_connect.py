"""CONNECT: what is accepted, what is refused and how (3.1 of MQTT 5.0 and 3.1.1)."""

from __future__ import annotations

import string
from typing import Any

import pytest
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred

from tests.conformance.helpers import (
    CONNECT_HEX,
    V5,
    V31,
    V311,
    World,
    every_version,
    kinds,
    message,
    payloads,
    since_v311,
    subscribe_packet,
)
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.codec.packets import Connack, Connect, Disconnect, Pingreq, Will


def refuse(credentials: Any) -> Any:
    """A login that lets nobody in."""
    raise UnauthorizedLogin


@pytest.mark.spec("MQTT-3.1.4-5", "MQTT3-3.1.4-4")
@every_version
def test_accepted(world: World, version: int) -> None:
    client, connack = world.connect("c", version)
    assert connack.reason_code == 0
    client.send(Pingreq())
    assert not client.is_closed


@pytest.mark.spec("MQTT-3.1.0-1", "MQTT3-3.1.0-1")
@pytest.mark.parametrize(
    "first", ["30 06 0003 612f62 78", "82 06 0001 0001 61 00", "c0 00", "e0 00", "f0 00", "40 02 0001"]
)
def test_nothing_before_connect(world: World, first: str) -> None:
    raw = world.raw()
    assert raw.put(first + CONNECT_HEX[V311]) == b""
    assert raw.is_closed
    assert not world.broker.sessions


@pytest.mark.spec("MQTT-3.1.0-2", "MQTT3-3.1.0-2", "MQTT3-4.8.0-1")
@every_version
def test_a_second_connect_closes(world: World, version: int) -> None:
    raw = world.raw()
    raw.put(CONNECT_HEX[version])
    answer = raw.put(CONNECT_HEX[version])
    assert raw.is_closed
    assert answer[:1] + answer[2:3] == (b"\xe0\x82" if version == V5 else b"")


# Protocol name, version, flags


@pytest.mark.spec("MQTT-3.1.2-1", "MQTT3-3.1.2-1")
@pytest.mark.parametrize("name", [b"MQTS", b"mqtt", b"MQTTX", b"HTTP", b"", b"MQIsdpX"])
@every_version
def test_another_protocol_is_not_ours(world: World, name: bytes, version: int) -> None:
    body = len(name).to_bytes(2, "big") + name + bytes([version, 2, 0, 60]) + b"\0\1a"
    raw = world.raw()
    assert raw.put(bytes([0x10, len(body)]) + body) == b""
    assert raw.is_closed


@pytest.mark.spec("MQTT-3.1.2-2")
@pytest.mark.parametrize("level", [6, 7, 0x7F])
def test_a_version_after_5(world: World, level: int) -> None:
    raw = world.raw()
    assert raw.put(f"10 10 0004 4d515454 {level:02x} 02 003c 00 0003 617474") == b"\x20\x03\x00\x84\x00"
    assert raw.is_closed


@pytest.mark.spec("MQTT3-3.1.2-2", "MQTT3-3.2.2-5")
@pytest.mark.parametrize(
    "name", ["0004 4d515454 00", "0004 4d515454 03", "0006 4d5149736470 04", "0006 4d5149736470 02"]
)
def test_a_level_that_is_none(world: World, name: str) -> None:
    raw = world.raw()
    size = len(bytes.fromhex(name)) + 8
    assert raw.put(f"10 {size:02x} {name} 02 003c 0003 617474") == b"\x20\x02\x00\x01"
    assert raw.is_closed


@pytest.mark.spec("MQTT-3.1.2-3", "MQTT3-3.1.2-3", "MQTT-3.1.4-1", "MQTT3-3.1.4-1")
@every_version
def test_the_reserved_flag(world: World, version: int) -> None:
    data = bytearray(bytes.fromhex(CONNECT_HEX[version]))
    data[data.index(b"\x02\x00\x3c")] |= 1
    raw = world.raw()
    answer = raw.put(bytes(data))
    assert answer == (b"\x20\x03\x00\x81\x00" if version == V5 else b"")
    assert raw.is_closed


@pytest.mark.spec("MQTT-3.1.4-1", "MQTT3-3.1.4-1", "MQTT3-3.2.2-6")
@pytest.mark.parametrize(
    ("version", "sent", "answer"),
    [
        (V311, "10 11 0004 4d515454 04 02 003c 0003 617474 7a7a", b""),
        (V311, "10 0c 0004 4d515454 04 82 003c 0000", b""),
        (V311, "10 13 0004 4d515454 04 42 003c 0003 617474 0002 7077", b""),
        (V5, "10 12 0004 4d515454 05 02 003c 00 0003 617474 7a7a", b"\x20\x03\x00\x81\x00"),
        (V5, "10 13 0004 4d515454 05 02 003c 03 21 0000 0003 617474", b"\x20\x03\x00\x82\x00"),
        (V5, "10 12 0004 4d515454 05 02 003c 02 7f 00 0003 617474", b"\x20\x03\x00\x81\x00"),
    ],
)
def test_a_malformed_connect(world: World, version: int, sent: str, answer: bytes) -> None:
    raw = world.raw()
    assert raw.put(sent + CONNECT_HEX[version]) == answer
    assert raw.is_closed
    assert not world.broker.sessions


# Client identifiers


@pytest.mark.spec("MQTT-3.1.3-5", "MQTT3-3.1.3-5")
@pytest.mark.parametrize(
    "client_id",
    [string.ascii_letters[:23], string.ascii_letters[23:46], string.digits + string.ascii_letters[39:], "a", "0"],
)
@every_version
def test_letters_and_digits_are_a_client_id(world: World, client_id: str, version: int) -> None:
    assert 1 <= len(client_id) <= 23
    assert world.connect(client_id, version)[1].reason_code == 0


@pytest.mark.parametrize("client_id", ["#", "a/b", "a b", "\xe9", "\U0001f600", 24 * "a", 256 * "b"])
@every_version
def test_more_than_the_specification_asks_is_a_client_id(world: World, client_id: str, version: int) -> None:
    assert world.connect(client_id, version)[1].reason_code == 0
    assert client_id in world.broker.sessions


@pytest.mark.spec("MQTT-3.1.3-8", "MQTT3-3.1.3-9", "MQTT3-3.2.2-5")
@pytest.mark.parametrize("client_id", [257 * "a", 129 * "\xe9", "a\nb", "\x1b[31m", "a\x7f", "\x85"])
@every_version
def test_a_client_id_that_is_refused(world: World, client_id: str, version: int) -> None:
    client, connack = world.connect(client_id, version)
    assert connack.reason_code == (0x85 if version == V5 else 2)
    assert client.is_closed


@pytest.mark.spec("MQTT-3.1.3-6", "MQTT-3.1.3-7", "MQTT-3.2.2-16")
@pytest.mark.parametrize("clean_start", [True, False])
def test_an_assigned_client_id(world: World, clean_start: bool) -> None:
    known, assigned = world.join("known"), set()
    for _ in range(20):
        _, connack = world.connect("", clean_start=clean_start)
        assert connack.reason_code == 0
        assert connack.session_present is False
        assigned.add(connack.properties["assigned_client_identifier"])
    assert len(assigned) == 20
    assert set(world.broker.sessions) == {*assigned, "known"}
    assert not known.is_closed


@pytest.mark.spec("MQTT-3.1.3-7")
def test_an_assigned_client_id_is_the_clients_own(world: World) -> None:
    client, connack = world.connect("", properties={"session_expiry_interval": 60})
    client.subscribe("t")
    client.lose()
    again = world.rejoin(connack.properties["assigned_client_identifier"])
    world.join("other").publish("t", b"kept", 1)
    assert payloads(again) == [b"kept"]
    assert "assigned_client_identifier" not in world.connect("mine")[1].properties


@pytest.mark.spec("MQTT3-3.1.3-6")
def test_an_empty_client_id_with_a_clean_session(world: World) -> None:
    clients = [world.join("", V311) for _ in range(3)]
    assert len(world.broker.sessions) == 3
    assert not any(client.is_closed for client in clients)


@pytest.mark.spec("MQTT3-3.1.3-7", "MQTT3-3.1.3-8")
def test_an_empty_client_id_without_a_clean_session(world: World) -> None:
    client, connack = world.connect("", V311, clean_start=False)
    assert connack == Connack(False, 2)
    assert client.is_closed
    assert not world.broker.sessions


@pytest.mark.spec("MQTT-3.1.3-2", "MQTT3-3.1.3-2")
@every_version
def test_the_client_id_names_the_session(world: World, version: int) -> None:
    one, two = world.rejoin("one", version), world.rejoin("two", version)
    one.subscribe("t/1")
    two.subscribe("t/2")
    one.lose()
    two.lose()
    world.join("other").publish("t/1", b"for one", 1)
    assert payloads(world.rejoin("one", version)) == [b"for one"]
    assert payloads(world.rejoin("two", version)) == []


@pytest.mark.spec("MQTT-3.1.3-2", "MQTT3-3.1.3-2")
def test_client_ids_are_compared_by_code_points(world: World) -> None:
    ids = ["a", "A", "\xe9", "e\u0301", "a "]
    clients = [world.join(each) for each in ids]
    assert not any(client.is_closed for client in clients)


# User name, password, will


class Asked:
    """A login that remembers what it was asked."""

    def __init__(self) -> None:
        self.credentials: list[tuple[str, bytes | None, bytes | None]] = []

    def __call__(self, credentials: Any) -> None:
        self.credentials.append((credentials.client_id, credentials.username, credentials.password))


@pytest.mark.spec("MQTT-3.1.2-16", "MQTT-3.1.2-17", "MQTT-3.1.2-18", "MQTT-3.1.2-19", "MQTT-3.1.3-1")
@pytest.mark.spec("MQTT3-3.1.2-18", "MQTT3-3.1.2-19", "MQTT3-3.1.2-20", "MQTT3-3.1.2-21", "MQTT3-3.1.3-1")
@pytest.mark.parametrize("will", [None, Will("w/t", b"bye")])
@pytest.mark.parametrize(("username", "password"), [(None, None), ("u", None), ("u", b"\x00\xff"), ("", b"")])
@every_version
def test_user_name_and_password_are_read(
    version: int, username: str | None, password: bytes | None, will: Will | None
) -> None:
    login = Asked()
    World(login).join("c", version, username=username, password=password, will=will)
    assert login.credentials == [("c", None if username is None else username.encode(), password)]


def test_a_password_alone_is_for_5_0_only() -> None:
    login = Asked()
    world = World(login)
    world.join("c", password=b"token")
    assert login.credentials == [("c", None, b"token")]
    client = world.client("d", V311)
    client.send(Connect("d", V311, password=b"token"))
    assert client.is_closed
    assert client.packets == []


@pytest.mark.spec("MQTT-3.1.4-2", "MQTT-3.2.2-7", "MQTT-4.13.2-1", "MQTT3-3.2.2-5")
@every_version
def test_a_login_that_fails(version: int) -> None:
    client, connack = World(refuse).connect("c", version, username="u", password=b"wrong")
    assert connack.reason_code == (0x86 if version == V5 else 4)
    assert client.is_closed


@pytest.mark.spec("MQTT3-3.2.2-6")
@pytest.mark.parametrize(
    ("code", "return_code"),
    [(0x84, 1), (0x85, 2), (0x88, 3), (0x89, 3), (0x97, 3), (0x9F, 3), (0x86, 4), (0x87, 5), (0x8A, 5), (0x80, None)],
)
def test_every_return_code_of_3_1_1(code: Any, return_code: int | None) -> None:
    def login(credentials: Any) -> None:
        raise MQTTError("no", code)

    client = World(login).client("c", V311)
    client.send(Connect("c", V311))
    assert client.is_closed
    assert client.packets == ([Connack(False, return_code)] if return_code else [])


# What comes behind CONNECT


@pytest.mark.spec("MQTT-3.1.4-6", "MQTT3-3.1.4-5")
@every_version
def test_nothing_behind_a_refused_connect_is_handled(version: int) -> None:
    world = World(lambda credentials: refuse(credentials) if credentials.username else None)
    listener = world.join("listener")
    listener.subscribe("#")
    client = world.client("c", version)
    client.send(Connect("c", version, username="u"), message("t"), subscribe_packet(1, "t"))
    assert kinds(client.packets) == ["Connack"]
    assert client.is_closed
    assert payloads(listener) == []
    assert list(world.broker.sessions) == ["listener"]


@pytest.mark.spec("MQTT-3.2.0-1", "MQTT3-3.2.0-1")
@every_version
def test_packets_behind_connect_in_one_piece(world: World, version: int) -> None:
    client = world.client("c", version)
    client.send(
        Connect("c", version),
        subscribe_packet(1, "t"),
        message("t", b"1"),
        message("t", b"2", 1, 2),
        Pingreq(),
        Disconnect(),
    )
    assert kinds(client.packets) == ["Connack", "Suback", "Message", "Puback", "Message", "Pingresp"] or kinds(
        client.packets
    ) == ["Connack", "Suback", "Message", "Message", "Puback", "Pingresp"]
    assert payloads(client) == [b"1", b"2"]
    assert client.is_closed


@since_v311
def test_packets_behind_a_connect_that_waits_for_its_login(version: int) -> None:
    answer: Deferred[None] = Deferred()
    world = World(lambda credentials: answer)
    client = world.client("c", version)
    client.send(Connect("c", version), subscribe_packet(1, "t"), message("t", b"1"))
    client.send(message("t", b"2"))
    assert client.packets == []
    answer.callback(None)
    assert kinds(client.packets) == ["Connack", "Suback", "Message", "Message"]
    assert payloads(client) == [b"1", b"2"]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@every_version
def test_connect_in_pieces(world: World, version: int, size: int) -> None:
    raw = world.raw()
    data = bytes.fromhex(CONNECT_HEX[version] + "c0 00")
    for start in range(0, len(data), size):
        raw.send_bytes(data[start : start + size])
    answer = raw.got()
    assert answer.startswith(b"\x20")
    assert answer.endswith(b"\xd0\x00")


def test_a_bridge_may_say_so(world: World) -> None:
    for version in (V31, V311):
        client, connack = world.connect(f"c{version}", version, is_bridge=True)
        assert connack.reason_code == 0
        assert not client.is_closed


@every_version
@pytest.mark.parametrize("keep_alive", [0, 1, 65535])
def test_every_keep_alive(world: World, version: int, keep_alive: int) -> None:
    assert not world.join("c", version, keep_alive=keep_alive).is_closed


def test_no_connect_in_time(world: World) -> None:
    silent, slow = world.raw(), world.raw()
    for byte in bytes.fromhex(CONNECT_HEX[V5])[:9]:
        slow.send_bytes(bytes([byte]))
        world.wait(1)
    assert world.broker.stats.connections_open == 2
    world.wait(1.5)
    assert silent.is_closed
    assert slow.is_closed
    assert silent.got() + slow.got() == b""
