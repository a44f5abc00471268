"""AUTH packets (MQTT 5.0, sections 3.15 and 4.12), with SCRAM-SHA-256 and with authenticators that misbehave."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.auth.helpers import acl_file, write
from twisted_p2pmqtt.auth import Access, ScramSHA256, make_scram_credential
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.packets import Auth, Connack, Connect, Disconnect, Pingreq, Pingresp, Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.core.handshake import Continue, LoggedIn, Success
from twisted_p2pmqtt.testing import MemoryClient, make_broker, memory_factory

METHOD = "SCRAM-SHA-256"
CONTINUE, RE_AUTHENTICATE = 0x18, 0x19
PASSWORDS = {"alice": "secret", "bob": "hunter2"}
CREDENTIALS = {name: make_scram_credential(password, 2) for name, password in PASSWORDS.items()}


class ScramClient:
    """A client that logs in with SCRAM, step by step."""

    def __init__(self, site: Site, username: str = "alice", password: str = "secret", client_id: str = "c") -> None:
        self.memory = MemoryClient(site.factory, client_id)
        self.become(username, password)

    def become(self, username: str, password: str) -> None:
        self._password = password
        self._bare = f"n={username},r=clientnonce"
        self._server_signature = b""

    @property
    def first(self) -> bytes:
        return f"n,,{self._bare}".encode()

    def final(self, challenge: bytes) -> bytes:
        fields = dict(part.split("=", 1) for part in challenge.decode().split(","))
        salted = hashlib.pbkdf2_hmac("sha256", self._password.encode(), base64.b64decode(fields["s"]), int(fields["i"]))
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        without_proof = f"c=biws,r={fields['r']}"
        message = f"{self._bare},{challenge.decode()},{without_proof}".encode()
        signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
        proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
        self._server_signature = hmac.digest(hmac.digest(salted, b"Server Key", "sha256"), message, "sha256")
        return f"{without_proof},p={base64.b64encode(proof).decode()}".encode()

    def is_proved_by(self, data: bytes) -> bool:
        return data == b"v=" + base64.b64encode(self._server_signature)

    def send_connect(
        self, will: Will | None = None, username: str | None = None, maximum_packet_size: int = 1000
    ) -> None:
        properties = Properties(
            authentication_method=METHOD, authentication_data=self.first, maximum_packet_size=maximum_packet_size
        )
        self.memory.send(Connect(self.memory.client_id, username=username, will=will, properties=properties))

    def send_auth(self, data: bytes, reason_code: int = CONTINUE, method: str = METHOD) -> None:
        self.memory.send(Auth(reason_code, Properties(authentication_method=method, authentication_data=data)))

    def answer(self) -> None:
        """Take the challenge and send the proof."""
        challenge = self.memory.take(Auth)
        assert challenge.reason_code == CONTINUE
        assert challenge.properties["authentication_method"] == METHOD
        self.send_auth(self.final(challenge.properties["authentication_data"]))

    def connect(self, **options: Any) -> Connack:
        self.send_connect(**options)
        self.answer()
        return self.memory.take(Connack)

    def re_authenticate(self) -> list[Packet]:
        self.memory.receive()
        self.send_auth(self.first, RE_AUTHENTICATE)
        self.answer()
        return self.memory.receive()


class Site:
    """A broker with an ACL and authentication methods."""

    def __init__(self, directory: Path, methods: Iterable[Any] = (), prefix: bool = False) -> None:
        self.directory = directory
        self.clock = Clock()
        self.broker = make_broker(self.clock)
        self.acl = acl_file(directory, "topic open\nuser alice\ntopic #\nuser bob\ntopic bob/#\n")
        self.access = Access(self.acl, prefix)
        scram = ScramSHA256(CREDENTIALS, self.access.avatar, iterations=2)
        self.factory = memory_factory(self.broker, methods=[scram, *methods])

    def assert_quiet(self) -> None:
        stats = self.broker.stats
        assert stats.internal_errors == stats.hook_errors == 0


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def closed_with(client: MemoryClient) -> int:
    """The reason code of the DISCONNECT or CONNACK that the client was closed with."""
    assert client.is_closed
    (last,) = [packet for packet in client.receive() if isinstance(packet, Connack | Disconnect)]
    return last.reason_code


@pytest.mark.spec("MQTT-4.12.0-2", "MQTT-4.12.0-5", "MQTT-3.15.2-1")
def test_success(site: Site) -> None:
    client = ScramClient(site)
    connack = client.connect()
    assert connack.reason_code == 0
    assert connack.properties["authentication_method"] == METHOD
    assert client.is_proved_by(connack.properties["authentication_data"])
    assert client.memory.publish("t", b"", 1) == 0x10
    site.assert_quiet()


@pytest.mark.parametrize(("username", "password"), [("alice", "wrong"), ("nobody", "secret")])
@pytest.mark.spec("MQTT-4.12.0-4", "MQTT-3.1.4-2")
def test_wrong_password(site: Site, username: str, password: str) -> None:
    client = ScramClient(site, username, password)
    assert client.connect().reason_code == 0x86
    assert client.memory.is_closed
    assert site.broker.stats.auth_failures == 1
    site.assert_quiet()


@pytest.mark.parametrize("method", ["SCRAM-SHA-1", "", "scram-sha-256", "PLAIN"])
@pytest.mark.spec("MQTT-4.12.0-1")
def test_unknown_method(site: Site, method: str) -> None:
    client = MemoryClient(site.factory, "c")
    assert client.connect(properties=Properties(authentication_method=method)).reason_code == 0x8C
    assert client.is_closed


def test_no_method_logs_in_as_ever(site: Site) -> None:
    connack = MemoryClient(site.factory, "c").connect()
    assert connack.reason_code == 0
    assert "authentication_method" not in connack.properties  # [MQTT-4.12.0-6]


@pytest.mark.parametrize("reason_code", [CONTINUE, RE_AUTHENTICATE])
@pytest.mark.spec("MQTT-4.12.0-6", "MQTT-4.12.0-7")
def test_auth_without_a_method_in_connect(site: Site, reason_code: int) -> None:
    client = MemoryClient(site.factory, "c")
    client.connect()
    client.send(Auth(reason_code, Properties(authentication_method=METHOD)))
    assert closed_with(client) == 0x82
    site.assert_quiet()


@pytest.mark.spec("MQTT-4.12.0-5")
def test_auth_with_another_method(site: Site) -> None:
    client = ScramClient(site)
    client.send_connect()
    client.send_auth(b"x", method="PLAIN")
    assert closed_with(client.memory) == 0x82


@pytest.mark.parametrize("reason_code", [0x00, RE_AUTHENTICATE])
@pytest.mark.spec("MQTT-4.12.0-3")
def test_another_reason_code_in_the_exchange(site: Site, reason_code: int) -> None:
    client = ScramClient(site)
    client.send_connect()
    client.send_auth(b"x", reason_code)
    assert closed_with(client.memory) == 0x82


def test_other_packets_before_the_exchange_is_over(site: Site) -> None:
    client = ScramClient(site)
    client.send_connect()
    client.memory.send(Pingreq())
    assert closed_with(client.memory) == 0x82


def test_auth_before_connect(site: Site) -> None:
    client = ScramClient(site)
    client.send_auth(b"x")
    assert client.memory.is_closed


def test_auth_after_the_exchange(site: Site) -> None:
    client = ScramClient(site)
    client.connect()
    client.send_auth(b"x")
    assert closed_with(client.memory) == 0x82
    site.assert_quiet()


def test_connect_twice(site: Site) -> None:
    client = ScramClient(site)
    client.send_connect()
    client.send_connect()
    assert closed_with(client.memory) == 0x82


def test_a_client_that_does_not_go_on(site: Site) -> None:
    client = ScramClient(site)
    client.send_connect()
    client.memory.receive()
    for _ in range(44):
        site.clock.advance(0.25)
    assert client.memory.is_closed


def test_connect_names_another_user(site: Site) -> None:
    client = ScramClient(site, "bob", "hunter2")
    client.send_connect(username="alice")
    assert closed_with(client.memory) == 0x86


@pytest.mark.spec("MQTT-3.15.2-2", "MQTT-3.15.2-3")
def test_a_small_maximum_packet_size(site: Site) -> None:
    client = ScramClient(site)
    client.send_connect(maximum_packet_size=150)
    (challenge,) = client.memory.packets
    assert isinstance(challenge, Auth)
    assert not challenge.properties.keys() & {"reason_string", "user_properties"}
    assert len(encode(challenge, 5)) <= 150
    client.answer()
    assert client.memory.take(Connack).reason_code == 0


# Rights, wills, client ids


def test_the_will_is_judged_at_connect(site: Site) -> None:
    assert ScramClient(site, "bob", "hunter2").connect(will=Will("alice/x", b"")).reason_code == 0x87
    assert ScramClient(site, "bob", "hunter2").connect(will=Will("bob/x", b"")).reason_code == 0
    assert ScramClient(site, "bob", "hunter2").connect(will=Will("p2p/victim/x", b"")).reason_code == 0x87


def test_client_ids_of_others(tmp_path: Path) -> None:
    site = Site(tmp_path, prefix=True)
    assert ScramClient(site, client_id="bob-1").connect().reason_code == 0x87
    assert ScramClient(site, client_id="alice-1").connect().reason_code == 0
    nameless = ScramClient(site, client_id="")
    assert nameless.connect().reason_code == 0
    assert nameless.re_authenticate()[0].__class__ is Disconnect, "by now the id is known, and it is not alice's"


# Re-authentication


@pytest.mark.spec("MQTT-4.12.1-1")
def test_re_authentication(site: Site) -> None:
    client = ScramClient(site)
    client.connect()
    (auth,) = client.re_authenticate()
    assert isinstance(auth, Auth)
    assert auth.reason_code == 0
    assert auth.properties["authentication_method"] == METHOD
    assert client.is_proved_by(auth.properties["authentication_data"])
    assert client.memory.publish("t", b"", 1) == 0x10
    site.assert_quiet()


def test_the_connection_goes_on_meanwhile(site: Site) -> None:
    client = ScramClient(site)
    client.connect()
    client.send_auth(client.first, RE_AUTHENTICATE)
    client.memory.send(Pingreq())
    client.memory.take(Pingresp)
    client.answer()
    assert client.memory.take(Auth).reason_code == 0


@pytest.mark.parametrize(("username", "password"), [("alice", "wrong"), ("nobody", "x")])
@pytest.mark.spec("MQTT-4.12.1-2", "MQTT-3.14.2-1")
def test_failed_re_authentication(site: Site, username: str, password: str) -> None:
    client = ScramClient(site)
    client.connect()
    client.become(username, password)
    client.memory.receive()
    client.send_auth(client.first, RE_AUTHENTICATE)
    client.answer()
    assert closed_with(client.memory) == 0x87, "0x86 is not for DISCONNECT"
    site.assert_quiet()


def test_rights_are_the_new_users(site: Site) -> None:
    alice = MemoryClient(site.factory, "listener")
    client = ScramClient(site)
    client.connect(will=Will("alice/will", b"bye"))
    client.memory.subscribe("#")
    alice.connect()
    alice.subscribe("#")
    alice.publish("alice/x", b"1")
    assert client.memory.publish("alice/x", b"", 1) == 0
    client.become("bob", "hunter2")
    client.re_authenticate()
    client.memory.messages.clear()
    alice.messages.clear()
    assert client.memory.publish("alice/x", b"", 1) == 0x87
    alice.publish("alice/x", b"2")
    alice.publish("bob/x", b"3")
    assert [message.topic for message in client.memory.messages] == [b"bob/x"]
    client.memory.lose()
    assert [message.topic for message in alice.messages] == [b"alice/x", b"bob/x"], "nor does the old will go out"


# Authenticators that are not ours


class Scripted:
    """An authenticator whose steps are given."""

    method = "SCRIPT"

    def __init__(self, *steps: Any) -> None:
        self._steps = list(steps)

    def begin(self, client_id: str, username: str | None, data: bytes | None) -> Scripted:
        return self

    def proceed(self, data: bytes | None) -> Any:
        step = self._steps.pop(0)
        if isinstance(step, BaseException):
            raise step
        return step


def scripted(tmp_path: Path, *steps: Any) -> tuple[Site, MemoryClient]:
    site = Site(tmp_path, [Scripted(*steps)])
    client = MemoryClient(site.factory, "c")
    client.send(Connect("c", keep_alive=0, properties=Properties(authentication_method="SCRIPT")))
    return site, client


def test_an_authenticator_that_raises(tmp_path: Path) -> None:
    site, client = scripted(tmp_path, ValueError("oops"))
    assert closed_with(client) == 0x87
    assert site.broker.stats.hook_errors == 1


@pytest.mark.parametrize("answer", [None, True, b"ok", object()])
def test_an_authenticator_that_answers_nonsense(tmp_path: Path, answer: object) -> None:
    site, client = scripted(tmp_path, answer)
    assert closed_with(client) == 0x87
    assert site.broker.stats.hook_errors == 1


@pytest.mark.spec("MQTT-4.12.0-4")
def test_an_authenticator_that_never_answers(tmp_path: Path) -> None:
    waiting: Deferred[Any] = Deferred()
    site, client = scripted(tmp_path, waiting)
    site.clock.advance(4.5)
    assert not client.is_closed
    site.clock.advance(1.0)
    assert closed_with(client) == 0x88
    assert waiting.called, "it is cancelled"


def test_an_authenticator_that_never_answers_the_second_time(tmp_path: Path) -> None:
    site, client = scripted(tmp_path, Success(None, None), Deferred())
    client.receive()
    client.send(Auth(RE_AUTHENTICATE, Properties(authentication_method="SCRIPT")))
    site.clock.advance(5.5)
    assert closed_with(client) == 0x87, "0x88 is not for DISCONNECT"


def test_an_authenticator_that_takes_its_time(tmp_path: Path) -> None:
    waiting: Deferred[Any] = Deferred()
    site, client = scripted(tmp_path, waiting, Success(b"done", None))
    site.clock.advance(4.0)
    waiting.callback(Continue(b"more"))
    assert client.take(Auth).properties["authentication_data"] == b"more"
    client.send(Auth(CONTINUE, Properties(authentication_method="SCRIPT", authentication_data=b"x")))
    connack = client.take(Connack)
    assert (connack.reason_code, connack.properties["authentication_data"]) == (0, b"done")
    assert client.subscribe("#") == [2]


def test_a_client_that_leaves_cancels_the_question(tmp_path: Path) -> None:
    waiting: Deferred[Any] = Deferred()
    site, client = scripted(tmp_path, waiting)
    client.lose()
    assert waiting.called
    site.assert_quiet()


def test_what_a_login_found_out_counts_here_too(tmp_path: Path) -> None:
    ended: list[str] = []
    first = LoggedIn(None, lambda: ended.append("first"), "alice", 100.0)
    second = LoggedIn(None, lambda: ended.append("second"), "bob", 200.0)
    site, client = scripted(tmp_path, Success(None, first), Success(None, second))
    assert site.broker.list_sessions()[0].username == "alice"
    client.send(Auth(RE_AUTHENTICATE, Properties(authentication_method="SCRIPT")))
    assert site.broker.list_sessions()[0].username == "bob"
    assert ended == ["first"]
    client.receive()
    site.clock.advance(150.0)
    assert not client.is_closed
    site.clock.advance(51.0)
    assert closed_with(client) == 0x87
    assert ended == ["first", "second"]


def test_reload_while_a_client_is_in(site: Site) -> None:
    client = ScramClient(site)
    client.connect()
    assert client.memory.publish("x", b"", 1) == 0x10
    write(site.directory, "acl", "topic nothing\n")
    site.acl.reload()
    site.broker.forget_routes()
    assert client.memory.publish("x", b"", 1) == 0x87
