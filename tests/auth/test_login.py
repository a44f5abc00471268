"""Logging in over MQTT: names and passwords, anonymous clients, client ids, certificates; what each refusal says."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from OpenSSL.crypto import X509
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.auth.helpers import Later, Site, password_text, write
from twisted_p2pmqtt.auth import Access, PasswordFile, Users, make_login
from twisted_p2pmqtt.auth.access import owns_client_id
from twisted_p2pmqtt.auth.certificates import certificate_name
from twisted_p2pmqtt.auth.throttle import FREE_FAILURES
from twisted_p2pmqtt.auth.users import host_of
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.codec.packets import Connack, Connect
from twisted_p2pmqtt.core.credentials import MQTTCredentials
from twisted_p2pmqtt.core.handshake import LOGIN_DEADLINE
from twisted_p2pmqtt.testing import MemoryClient, make_broker, memory_factory

VERSIONS = [3, 4, 5]
RIGHT = {"alice": "secret", "bob": "hunter2"}
ACCEPTED, BAD, DENIED, UNAVAILABLE, BUSY = (0, 0), (0x86, 4), (0x87, 5), (0x88, 3), (0x89, 3)


def code(outcome: tuple[int, int], version: int) -> int:
    """The CONNACK code of an outcome."""
    return outcome[0] if version == 5 else outcome[1]


def connect(site: Site, version: int = 5, client_id: str = "c", **options: Any) -> int:
    return MemoryClient(site.factory, client_id, version).connect(**options).reason_code


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, passwords=RIGHT)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("username", "password", "outcome"),
    [
        ("alice", b"secret", ACCEPTED),
        ("bob", b"hunter2", ACCEPTED),
        ("alice", b"hunter2", BAD),
        ("Alice", b"secret", BAD),
        ("eve", b"secret", BAD),
        ("alice", b"", BAD),
        ("alice", None, BAD),  # AUTH-NOPW
        ("alice", b"secret\0", BAD),
        ("alice", b"\0", BAD),
        ("", b"secret", BAD),
        ("", None, BAD),
        ("alice\n", b"secret", BAD),
        (None, None, DENIED),
    ],
)
@pytest.mark.spec("MQTT-3.1.4-2", "MQTT3-3.2.2-4", "MQTT3-3.2.2-5")
def test_names_and_passwords(
    site: Site, version: int, username: str | None, password: bytes | None, outcome: tuple[int, int]
) -> None:
    client = MemoryClient(site.factory, "c", version)
    connack = client.connect(username=username, password=password)
    assert (connack.reason_code, connack.session_present) == (code(outcome, version), False)
    assert client.is_closed == (outcome != ACCEPTED)
    assert site.broker.stats.internal_errors == site.broker.stats.hook_errors == 0


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("allow_anonymous", [True, False])
def test_nothing_that_is_wrong_becomes_anonymous(tmp_path: Path, version: int, allow_anonymous: bool) -> None:
    site = Site(tmp_path, passwords=RIGHT, allow_anonymous=allow_anonymous)
    assert connect(site, version) == code(ACCEPTED if allow_anonymous else DENIED, version)
    for username, password in [("alice", b"wrong"), ("eve", b"x"), ("alice", None), ("", None), ("", b"")]:
        assert connect(site, version, username=username, password=password) == code(BAD, version)
    if version == 5:  # a password alone, which 3.x does not allow
        assert connect(site, version, password=b"secret") == 0x86
        assert connect(site, version, password=b"") == 0x86


def test_names_that_cannot_be_proved_are_refused(tmp_path: Path) -> None:
    site = Site(tmp_path, acl="topic read #\nuser admin\ntopic #\n", allow_anonymous=True)
    assert connect(site, username="admin", password=b"x") == 0x86
    assert connect(site, username="admin") == 0x86
    assert connect(site) == 0


def test_anonymous_clients_have_the_first_section(tmp_path: Path) -> None:
    site = Site(tmp_path, "topic write in\nuser alice\ntopic out\n", RIGHT, allow_anonymous=True)
    nobody, alice = MemoryClient(site.factory, "n"), MemoryClient(site.factory, "a")
    nobody.connect()
    alice.connect(username="alice", password=b"secret")
    assert [nobody.publish(topic, b"", 1) for topic in ("in", "out")] == [0x10, 0x87]
    assert [alice.publish(topic, b"", 1) for topic in ("in", "out")] == [0x87, 0x10]
    assert nobody.subscribe("in", "out") == [0x87, 0x87]
    assert alice.subscribe("in", "out", "#") == [0x87, 2, 2]


def test_without_an_acl_who_is_in_may_do_everything(site: Site) -> None:
    client = MemoryClient(site.factory, "c")
    client.connect(username="alice", password=b"secret")
    assert client.subscribe("#") == [2]
    assert client.publish("any/topic", b"", 1) == 0
    assert site.broker.list_sessions()[0].username == "alice"


# Client ids


@pytest.mark.parametrize(
    ("username", "client_id", "expected"),
    [
        ("alice", "alice", True),
        *[("alice", f"alice{separator}1", True) for separator in "-_.:/"],
        ("alice", "alice-", True),
        ("alice", "alice1", False),
        ("alice", "alic", False),
        ("alice", "Alice", False),
        ("alice", "bob", False),
        ("alice", "alice@x", False),
        ("alice", "xalice-1", False),
        ("", "-x", False),
        (None, "x", False),
    ],
)
def test_owners_of_client_ids(username: str | None, client_id: str, expected: bool) -> None:
    assert owns_client_id(username, client_id) is expected


@pytest.mark.parametrize("version", VERSIONS)
def test_client_ids_of_others_are_refused(tmp_path: Path, version: int) -> None:
    site = Site(tmp_path, passwords=RIGHT, allow_anonymous=True, client_id_prefix_of_user=True)
    victim = MemoryClient(site.factory, "alice-1")
    victim.connect(username="alice", password=b"secret")
    assert connect(site, version, "alice-1", username="bob", password=b"hunter2") == code(DENIED, version)
    assert connect(site, version, "alice-1") == code(DENIED, version)
    assert not victim.is_closed
    assert connect(site, version, "bob", username="bob", password=b"hunter2") == 0
    if version != 3:  # an id that the broker chooses is nobody's
        assert connect(site, version, "", username="bob", password=b"hunter2") == 0
        assert connect(site, version, "") == 0
    assert connect(site, version, "alice-1", username="alice", password=b"secret") == 0
    assert victim.is_closed, "one's own is another matter"


# Guessing


def guess(site: Site, password: bytes = b"wrong", username: str = "alice") -> MemoryClient:
    client = MemoryClient(site.factory, "guesser")
    client.send(Connect("guesser", username=username, password=password))
    return client


def answered(client: MemoryClient) -> list[int]:
    return [packet.reason_code for packet in client.receive() if isinstance(packet, Connack)]


def test_guesses_are_delayed(site: Site) -> None:
    for _ in range(FREE_FAILURES):
        assert answered(guess(site)) == [0x86]
    slow = guess(site)
    assert answered(slow) == []
    assert not slow.is_closed
    other = guess(site, b"hunter2", "bob")
    assert answered(other) == [0], "others do not wait"
    site.clock.advance(0.5)
    assert answered(slow) == [0x86]
    assert site.runner.count == FREE_FAILURES + 2


def test_the_right_password_waits_too_and_forgives(site: Site) -> None:
    for _ in range(FREE_FAILURES):
        guess(site)
    right = guess(site, b"secret")
    assert answered(right) == []
    site.clock.advance(0.5)
    assert answered(right) == [0]
    assert answered(guess(site)) == [0x86]


def test_a_flood_of_guesses_costs_few_hashes(site: Site) -> None:
    for _ in range(FREE_FAILURES):
        guess(site)
    flood = [guess(site, b"%d" % number) for number in range(200)]
    for _ in range(16):
        site.clock.advance(0.25)
    codes = [answered(client) for client in flood]
    assert all(client.is_closed for client in flood)
    assert codes.count([0x89]) >= 196
    assert all(one in ([0x86], [0x89]) for one in codes)
    assert site.runner.count <= FREE_FAILURES + 4


def test_addresses_have_no_ports() -> None:
    assert [host_of(peer) for peer in ("192.0.2.1:4711", "::1:4711", "UNIXAddress('x')", "", "host")] == [
        "192.0.2.1",
        "::1",
        "UNIXAddress('x')",
        "",
        "host",
    ]


# Hashing that takes its time


class Slow:
    """A broker whose hashing ends when told to."""

    def __init__(self, directory: Path) -> None:
        self.clock = Clock()
        self.broker = make_broker(self.clock)
        self.later = Later()
        passwords = PasswordFile(write(directory, "passwd", password_text(**RIGHT)), self.later)
        self.factory = memory_factory(self.broker, make_login(Access(), Users(passwords)))

    def connect(self, version: int = 5) -> MemoryClient:
        client = MemoryClient(self.factory, "c", version)
        client.send(Connect("c", version, username="alice", password=b"secret"))
        return client


@pytest.fixture
def slow(tmp_path: Path) -> Slow:
    return Slow(tmp_path)


def test_packets_behind_connect_wait_for_the_hash(slow: Slow) -> None:
    client = slow.connect()
    client.send_bytes(bytes.fromhex("c000"))
    assert client.receive() == []
    slow.later.finish()
    assert [type(packet).__name__ for packet in client.receive()] == ["Connack", "Pingresp"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_hash_that_never_ends(slow: Slow, version: int) -> None:
    client = slow.connect(version)
    slow.clock.advance(LOGIN_DEADLINE + 0.5)
    assert answered(client) == [code(UNAVAILABLE, version)]
    assert client.is_closed
    assert slow.later.waiting[0][1].called, "its hash is given up"


def test_a_client_that_leaves_takes_its_hash_along(slow: Slow) -> None:
    client = slow.connect()
    client.lose()
    assert slow.later.waiting[0][1].called
    assert slow.broker.stats.hook_errors == slow.broker.stats.internal_errors == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_too_many_at_once(tmp_path: Path, version: int) -> None:
    class Full:
        def run(self, work: Any, *arguments: object) -> Any:
            raise MQTTError("too many", 0x88)  # type: ignore[arg-type]  # a number will do

    broker = make_broker(Clock())
    passwords = PasswordFile(write(tmp_path, "passwd", password_text(**RIGHT)), Full())
    factory = memory_factory(broker, make_login(Access(), Users(passwords)))
    for username in ("alice", "eve"):
        connack = MemoryClient(factory, "c", version).connect(username=username, password=b"secret")
        assert connack.reason_code == code(UNAVAILABLE, version)


# Certificates


def certificate(*names: tuple[x509.ObjectIdentifier, str], key: ec.EllipticCurvePrivateKey | None = None) -> X509:
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(kind, value) for kind, value in names])
    now = datetime.datetime(2024, 1, 1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(1))
    return X509.from_cryptography(builder.sign(key, SHA256()))


CN, O = NameOID.COMMON_NAME, NameOID.ORGANIZATION_NAME  # noqa: E741  # the standard's own abbreviations


def test_names_in_certificates() -> None:
    alice = certificate((O, "ACME"), (CN, "alice"))
    assert certificate_name(alice, "none") is None
    assert certificate_name(None, "cn") is None
    assert certificate_name(alice, "cn") == "alice"
    assert certificate_name(alice, "subject") == "CN=alice,O=ACME"


@pytest.mark.parametrize(
    "names", [(), ((O, "ACME"),), ((CN, "alice"), (CN, "bob")), ((CN, "alice\0.evil"),), ((CN, "alice\n"),)]
)
def test_certificates_that_name_nobody(names: tuple[Any, ...]) -> None:
    with pytest.raises(UnauthorizedLogin):
        certificate_name(certificate(*names), "cn")


def test_a_certificate_is_a_user(tmp_path: Path) -> None:
    site = Site(tmp_path, "user alice\ntopic #\n", RIGHT)
    login = make_login(site.access, Users(site.passwords), "cn", allow_anonymous=True)
    alice = certificate((CN, "alice"))
    got = login(MQTTCredentials("c", b"bob", b"whatever", "h:1", alice))
    assert got.username == "alice", "not the name in CONNECT"
    assert got.avatar.may_publish("x")
    assert login(MQTTCredentials("c", None, None, "h:1", alice)).username == "alice"
    with pytest.raises(UnauthorizedLogin):
        login(MQTTCredentials("c", None, None, "h:1", certificate((O, "ACME"))))
    # Where certificates are optional, others log in as anywhere.
    failures: list[Any] = []
    waiting: Deferred[Any] = login(MQTTCredentials("c", b"alice", b"wrong", "h:1", None))
    waiting.addErrback(failures.append)
    assert failures[0].check(UnauthorizedLogin)
    assert not login(MQTTCredentials("c", None, None, "h:1", None)).may_publish("x")


def test_a_certificate_is_bound_to_its_client_ids(tmp_path: Path) -> None:
    site = Site(tmp_path, client_id_prefix_of_user=True)
    login = make_login(site.access, None, "cn")
    with pytest.raises(MQTTError) as caught:
        login(MQTTCredentials("bob", None, None, "h:1", certificate((CN, "alice"))))
    assert caught.value.reason_code == 0x87
