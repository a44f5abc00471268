"""Logins as the settings describe them: which listener takes whom, and what keeps a service from being made at all."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.internet import reactor as the_reactor
from twisted.internet.task import Clock, deferLater

from tests.auth.helpers import in_reactor, password_text, write
from tests.auth.test_login import CN, certificate
from twisted_p2pmqtt.codec.packets import Connack, Connect
from twisted_p2pmqtt.config import (
    AuthSettings,
    ConfigError,
    HTTPAuthSettings,
    JWTSettings,
    ListenerSettings,
    Settings,
    StoreSettings,
    TLSSettings,
    load_settings,
)
from twisted_p2pmqtt.service import MQTTService, check_files
from twisted_p2pmqtt.tap import Options
from twisted_p2pmqtt.testing import MemoryClient

MEMORY = StoreSettings(type="memory")


def service(auth: AuthSettings, *listeners: ListenerSettings, reactor: Any = None) -> MQTTService:
    return MQTTService(Settings(listeners=listeners, store=MEMORY, auth=auth), reactor or Clock())


@pytest.fixture
def here(tmp_path: Path) -> Path:
    write(tmp_path, "passwd", password_text(alice="secret"))
    write(tmp_path, "acl", "topic read public/#\nuser alice\ntopic alice/#\n")
    return tmp_path


def auth(directory: Path, *parts: str) -> AuthSettings:
    return AuthSettings(
        password_file=str(directory / "passwd") if "passwords" in parts else None,
        acl_file=str(directory / "acl") if "acl" in parts else None,
        http=HTTPAuthSettings("http://127.0.0.1:1/") if "http" in parts else None,
    )


# Who gets in where: each kind of listener, with and without [auth], and what allow_anonymous says


LISTENERS = {
    "loopback": ("tcp:0:interface=127.0.0.1", True),
    "loopback 6": ("tcp6:0:interface=\\:\\:1", True),
    "unix": ("unix:mqtt.sock", True),
    "everywhere": ("tcp:0", False),
    "an address": ("tcp:0:interface=192.0.2.1", False),
    "behind a proxy": ("haproxy:tcp:0:interface=127.0.0.1", False),
}


@pytest.mark.parametrize("transport", ["mqtt", "websocket"])
@pytest.mark.parametrize("says", [None, True, False])
@pytest.mark.parametrize("parts", [(), ("passwords",), ("acl",), ("passwords", "acl"), ("http",)], ids=str)
@pytest.mark.parametrize("kind", LISTENERS)
def test_anonymous_clients_by_listener(
    here: Path, kind: str, parts: tuple[str, ...], says: bool | None, transport: str
) -> None:
    endpoint, is_local = LISTENERS[kind]
    made = service(auth(here, *parts), ListenerSettings(endpoint, transport, allow_anonymous=says))
    (factory,) = made.factories
    is_expected = says if says is not None else is_local and not parts
    for version, refusal in ((5, 0x87), (4, 5)):
        client = MemoryClient(factory, "c", version)
        assert client.connect().reason_code == (0 if is_expected else refusal)
    if is_expected:
        client = MemoryClient(factory, "d")
        client.connect()
        assert client.subscribe("public/x", "alice/x") == ([2, 0x87] if "acl" in parts else [2, 2])
    # Who claims to be somebody gets in only where nobody is asked at all.
    named = MemoryClient(factory, "e")
    named.send(Connect("e", username="mallory", password=b"x"))
    is_open = is_expected and not parts
    codes = [packet.reason_code for packet in named.receive() if isinstance(packet, Connack)]
    assert codes == [0] if is_open else 0 not in codes


def test_each_listener_has_its_own_answer(here: Path) -> None:
    made = service(
        auth(here, "passwords"),
        ListenerSettings("tcp:0:interface=127.0.0.1", allow_anonymous=True),
        ListenerSettings("tcp:0"),
    )
    assert [MemoryClient(factory, "c").connect().reason_code for factory in made.factories] == [0, 0x87]


def test_a_websocket_resource_logs_in_as_well(here: Path) -> None:
    made = service(auth(here, "passwords"))
    made.websocket_resource()
    assert MemoryClient(made.factories[-1], "c").connect().reason_code == 0x87


def test_a_login_of_the_embedders_own_replaces_it(here: Path) -> None:
    settings = Settings(listeners=(ListenerSettings("tcp:0"),), store=MEMORY, auth=auth(here, "passwords"))
    made = MQTTService(settings, Clock(), login=lambda credentials: None)
    assert MemoryClient(made.factories[0], "c").connect().reason_code == 0


@pytest.mark.parametrize("identity", ["none", "cn", "subject"])
def test_certificates(here: Path, identity: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (here / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    alice = certificate((CN, "alice"), key=key)
    (here / "cert.pem").write_bytes(alice.to_cryptography().public_bytes(Encoding.PEM))
    tls = TLSSettings(str(here / "cert.pem"), str(here / "key.pem"), str(here / "cert.pem"), "optional", identity)
    made = service(auth(here, "acl"), ListenerSettings("tcp:0", tls=tls))
    expected = {"none": (0x87, [])}.get(identity, (0, [0x10 if identity == "cn" else 0x87]))
    client = MemoryClient(made.factories[0], "c")
    client.transport.getPeerCertificate = lambda: alice
    assert client.connect().reason_code == expected[0]
    if not client.is_closed:
        assert [client.publish("alice/x", b"", 1)] == expected[1]
        (info,) = made.broker.list_sessions()
        assert info.username == ("alice" if identity == "cn" else "CN=alice")
    assert MemoryClient(made.factories[0], "d").connect().reason_code == 0x87, "without a certificate"


# Real threads


@in_reactor
async def test_passwords_and_threads(here: Path) -> None:
    reactor: Any = the_reactor
    made = service(auth(here, "passwords", "acl"), ListenerSettings("tcp:0"), reactor=reactor)
    clients = []
    for username, password in (("alice", b"secret"), ("alice", b"wrong"), ("eve", b"secret")):
        client = MemoryClientOnReactor(made.factories[0], username + password.decode())
        client.send(Connect(client.client_id, 4, username=username, password=password))
        clients.append(client)
    for _ in range(300):
        await deferLater(reactor, 0.01)
        codes = [packet.reason_code for client in clients for packet in client.seen() if isinstance(packet, Connack)]
        if len(codes) == 3:
            break
    assert codes == [0, 4, 4]
    await made.stopService()


class MemoryClientOnReactor(MemoryClient):
    """A client of a broker whose turns are the real reactor's."""

    def __init__(self, factory: Any, client_id: str) -> None:
        super().__init__(factory, client_id, 4)

    def _turn(self) -> None:
        data = self.transport.value()
        self.transport.clear()
        for packet in self._reader.feed(data):
            self._take(packet)

    def seen(self) -> list[Any]:
        self._turn()
        return self._packets


# CFG-FAILCLOSED: what cannot be understood is not served


def problems(directory: Path, **files: str) -> list[str]:
    """What keeps a service with these files from being made."""
    values: dict[str, Any] = {}
    for name, text in files.items():
        values[name] = str(directory / "none") if text == "(none)" else write(directory, name, text)
    key = values.pop("jwt_key", None)
    settings = AuthSettings(**values, jwt=JWTSettings(key_file=key) if key is not None else None)
    with pytest.raises(ConfigError) as caught:
        service(settings, ListenerSettings("tcp:0:interface=127.0.0.1"))
    with pytest.raises(ConfigError) as checked:
        check_files(Settings(auth=settings))
    assert checked.value.problems == caught.value.problems
    return [problem.removeprefix(f"{directory}/") for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"password_file": "(none)"}, ["none: cannot be read"]),
        ({"password_file": "alice:secret\n"}, ["password_file:1: user 'alice': password is not hashed"]),
        ({"password_file": "alice\n"}, ["password_file:1: must be a user name"]),
        ({"password_file": "\nalice:$7$0$YQ==$YQ==\n"}, ["password_file:2: user 'alice': is no $7$ hash"]),
        ({"acl_file": "(none)"}, ["none: cannot be read"]),
        ({"acl_file": "topic read #\ntopc write #\n"}, ["acl_file:2: must begin with user, topic or pattern"]),
        ({"acl_file": "user\n"}, ["acl_file:1: user: the name is missing"]),
        ({"acl_file": "topic read a/#/b\n"}, ["acl_file:1: topic: 'a/#/b' is no topic filter"]),
        ({"jwt_key": "nonsense"}, ["jwt_key: is no key for RS256"]),
        (
            {"password_file": "x\ny\n", "acl_file": "z\n", "jwt_key": ""},
            ["password_file:1: ", "password_file:2: ", "acl_file:1: ", "jwt_key: "],
        ),
    ],
)
def test_files_that_keep_it_from_starting(here: Path, files: dict[str, str], expected: list[str]) -> None:
    found = problems(here, **files)
    assert len(found) == len(expected)
    for problem, begin in zip(found, expected, strict=True):
        assert problem.startswith(begin)


def test_empty_files_let_nobody_in_and_allow_nothing(here: Path) -> None:
    write(here, "passwd", "")
    write(here, "acl", "")
    (factory,) = service(auth(here, "passwords", "acl"), ListenerSettings("tcp:0", allow_anonymous=True)).factories
    client = MemoryClient(factory, "c")
    client.connect()
    assert client.subscribe("#", "a") == [0x87, 0x87]
    assert client.publish("a", b"", 1) == 0x87
    assert client.publish("p2p/c/a", b"", 1) == 0x87


def test_urls_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"auth.http.url: must be ASCII"):
        service(AuthSettings(http=HTTPAuthSettings("http://hö.st/")))
    with pytest.raises(ConfigError, match=r"auth.jwt.jwks_url: must be ASCII"):
        service(AuthSettings(jwt=JWTSettings(jwks_url="https://hö.st/")))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"auth.http.url: needs OpenSSL.*twisted_p2pmqtt\[tls\]"):
        service(AuthSettings(http=HTTPAuthSettings("https://host/")))
    with pytest.raises(ConfigError, match=r"auth.jwt: needs jwt.*twisted_p2pmqtt\[auth\]"):
        service(AuthSettings(jwt=JWTSettings(key_file="x")))


def test_check_reads_the_files(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write(here, "p2pmqtt.toml", "[auth]\npassword_file = 'passwd'\nacl_file = 'acl'\n")

    def check() -> object:
        with pytest.raises(SystemExit) as caught:
            Options().parseOptions(["--check", "-c", config])  # type: ignore[no-untyped-call]  # Twisted's has no types
        return caught.value.code

    assert check() == 0
    assert "auth: passwords, ACL" in capsys.readouterr().out
    write(here, "passwd", "alice:secret\n")
    write(here, "acl", "topic read #\nallow all\n")
    assert check() == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split(": ")[0] for line in captured.err.splitlines()] == [f"{here}/passwd:1", f"{here}/acl:2"]


# Tokens and key sets as settings


def test_tokens_by_settings(here: Path) -> None:
    secret = "a secret that has thirty-two bytes"
    write(here, "secret", secret + "\n")
    text = "[auth.jwt]\nalgorithms = ['HS256']\nkey_file = 'secret'\naudience = 'mqtt'\n"
    settings = load_settings(write(here, "p2pmqtt.toml", text), {})
    (factory,) = service(settings.auth, ListenerSettings("tcp:0")).factories
    good = jwt.encode({"sub": "alice", "exp": 2**33, "aud": "mqtt"}, secret).encode()
    other = jwt.encode({"sub": "alice", "exp": 2**33}, secret).encode()
    assert MemoryClient(factory, "c").connect(username="alice", password=good).reason_code == 0
    assert MemoryClient(factory, "c").connect(username="alice", password=other).reason_code == 0x86


def test_tokens_before_the_keys_are_here() -> None:
    made = service(AuthSettings(jwt=JWTSettings(jwks_url="http://127.0.0.1:1/")), ListenerSettings("tcp:0"))
    token = jwt.encode({"sub": "alice", "exp": 2**33}, "s" * 32).encode()
    assert MemoryClient(made.factories[0], "c").connect(password=token).reason_code == 0x88
    assert MemoryClient(made.factories[0], "c").connect(username="alice", password=b"x").reason_code == 0x86


@pytest.mark.parametrize("flag", [True, False])
def test_client_id_prefix_of_user(here: Path, flag: bool) -> None:
    settings = AuthSettings(password_file=str(here / "passwd"), client_id_prefix_of_user=flag)
    made = service(settings, ListenerSettings("tcp:0", allow_anonymous=True))
    client = MemoryClient(made.factories[0], "alice-1")
    assert client.connect().reason_code == (0x87 if flag else 0)
    with contextlib.suppress(AssertionError):
        client.disconnect()
