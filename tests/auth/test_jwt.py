"""Tokens as passwords: which count, for whom, and until when."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from tests.auth.helpers import Here, acl_file, password_text, write
from tests.auth.test_login import certificate
from twisted_p2pmqtt.auth import Access, BadFile, PasswordFile, Users, make_login
from twisted_p2pmqtt.auth.jwks import JwksKeys, parse_keys
from twisted_p2pmqtt.auth.jwt import KeyFile, KeysNotYet, Tokens
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.codec.packets import Disconnect
from twisted_p2pmqtt.testing import MemoryClient, make_broker, memory_factory

KEY, OTHER_KEY = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))
SECRET = b"a secret that has thirty-two bytes"
RS = ("RS256",)


def public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a good token; None takes one out."""
    wanted = {"sub": "alice", "exp": time.time() + 3600, **changes}
    return {name: value for name, value in wanted.items() if value is not None}


def token(key: Any = KEY, algorithm: str = "RS256", headers: dict[str, Any] | None = None, **changes: Any) -> bytes:
    return jwt.encode(claims(**changes), key, algorithm, headers).encode()


def unsigned(**header: Any) -> bytes:
    """A token without a signature."""
    parts = [json.dumps(part).encode() for part in ({"typ": "JWT", **header}, claims())]
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts) + b"."


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "jwt.pem"
    path.write_bytes(public_pem(KEY))
    return str(path)


@pytest.fixture
def tokens(key_file: str) -> Tokens:
    return Tokens(KeyFile(key_file, RS), RS)


def test_a_good_token(tokens: Tokens) -> None:
    for username in (b"alice", b"", None):
        user = tokens.check(username, token())
        assert user is not None
        assert user.name == "alice"
        assert user.expires_in == pytest.approx(3600, abs=5)


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("another user's", token(sub="bob")),
        ("no subject", token(sub=None)),
        ("an empty subject", token(sub="")),
        ("a subject with control characters", token(sub="alice\n")),
        ("no end", token(exp=None)),
        ("expired", token(exp=time.time() - 10)),
        ("not yet", token(nbf=time.time() + 1000)),
        ("an end that is no number", token(exp="tomorrow")),
        ("another key's", token(OTHER_KEY)),
        ("another algorithm", token(KEY, "RS512")),
        ("unsigned", unsigned(alg="none")),
        ("unsigned, in capitals", unsigned(alg="NONE")),
        ("the right algorithm without a signature", unsigned(alg="RS256")),
        ("an ordinary password", b"secret"),
        ("dots", b"a.b.c"),
        ("two dots", b".."),
        ("no bytes of text", b"\xff\xfe"),
        ("cut", token()[:-1]),
        ("endless", token() + b"A" * 60_000),
    ],
)
def test_bad_tokens(tokens: Tokens, name: str, password: bytes) -> None:
    assert tokens.check(b"alice", password) is None, name


def test_the_public_key_signs_nothing(tokens: Tokens) -> None:
    """The old trick: HS256 with the public key as its secret."""
    header, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "HS256", "typ": "JWT"}, claims())
    )
    import hashlib
    import hmac

    signature = hmac.digest(public_pem(KEY), header + b"." + body, hashlib.sha256)
    forged = header + b"." + body + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")
    assert tokens.check(b"alice", forged) is None


def test_odd_ends_of_signed_tokens(tokens: Tokens) -> None:
    for far in (1e18, 2**63, 10**30):
        user = tokens.check(b"alice", token(exp=far))
        assert user is None or (user.expires_in is not None and 0 < user.expires_in < 1e9)
    ends: list[Any] = [float("inf"), float("nan"), True, [], {}]
    for end in ends:
        assert (
            tokens.check(b"alice", jwt.api_jws.encode(json.dumps(claims(exp=end)).encode(), KEY, "RS256").encode())
            is None
        )


def test_audience(key_file: str) -> None:
    anybody, ours = Tokens(KeyFile(key_file, RS), RS), Tokens(KeyFile(key_file, RS), RS, "mqtt")
    for aud, expected in ((None, False), ("mqtt", True), (["web", "mqtt"], True), ("web", False), ([], False)):
        assert anybody.check(b"alice", token(aud=aud)) is not None
        assert (ours.check(b"alice", token(aud=aud)) is not None) is expected


def test_secrets(tmp_path: Path) -> None:
    path = write(tmp_path, "secret", SECRET.decode() + "\n")
    tokens = Tokens(KeyFile(path, ("HS256",)), ("HS256",))
    assert tokens.check(b"alice", token(SECRET, "HS256")) is not None
    assert tokens.check(b"alice", token(SECRET + b"x", "HS256")) is None


def test_elliptic_curves_and_certificates(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (tmp_path / "ec.pem").write_bytes(public_pem(key))
    tokens = Tokens(KeyFile(str(tmp_path / "ec.pem"), ("ES256",)), ("ES256",))
    assert tokens.check(b"alice", token(key, "ES256")) is not None
    pem = certificate().to_cryptography().public_bytes(Encoding.PEM)
    (tmp_path / "certificate.pem").write_bytes(pem)
    KeyFile(str(tmp_path / "certificate.pem"), ("ES256",))


def test_bad_key_files(tmp_path: Path, key_file: str) -> None:
    private = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for data, algorithm, what in (
        (b"", "RS256", "is no key for RS256"),
        (b"nonsense", "RS256", "is no key for RS256"),
        (public_pem(KEY), "ES256", "is no key for ES256"),
        (private, "RS256", "private key"),
        (b"short\n", "HS256", "at least 32 bytes, this one has 5"),
        (public_pem(KEY), "HS256", "is no key for HS256"),
        (b"-----BEGIN CERTIFICATE-----\nx\n", "RS256", "is no certificate"),
    ):
        path = tmp_path / "bad"
        path.write_bytes(data)
        with pytest.raises(BadFile, match=what) as caught:
            KeyFile(str(path), (algorithm,))
        assert str(caught.value).startswith(str(path))
    with pytest.raises(BadFile, match="cannot be read"):
        KeyFile(str(tmp_path / "none"), RS)


# At login


def site(directory: Path, tokens: Tokens) -> Any:
    """A broker with a password file (alice) and tokens, and an ACL."""
    clock = Clock()
    broker = make_broker(clock)
    passwords = PasswordFile(write(directory, "passwd", password_text(bob="hunter2")), Here())
    acl = acl_file(directory, "user alice\ntopic alice/#\nuser bob\ntopic bob/#\n")
    factory = memory_factory(broker, make_login(Access(acl), Users(passwords, tokens)))
    return clock, factory


def test_a_client_is_who_its_token_says(tmp_path: Path, tokens: Tokens) -> None:
    _, factory = site(tmp_path, tokens)
    client = MemoryClient(factory, "c")
    assert client.connect(password=token()).reason_code == 0, "5.0 allows a password alone"
    assert client.publish("alice/x", b"", 1) == 0x10
    assert client.publish("bob/x", b"", 1) == 0x87
    assert factory.broker.list_sessions()[0].username == "alice"
    assert MemoryClient(factory, "d", 4).connect(username="alice", password=token()).reason_code == 0
    assert MemoryClient(factory, "d", 4).connect(username="eve", password=token()).reason_code == 4


def test_the_password_file_comes_first(tmp_path: Path, tokens: Tokens) -> None:
    _, factory = site(tmp_path, tokens)
    assert MemoryClient(factory, "c").connect(username="bob", password=b"hunter2").reason_code == 0
    assert MemoryClient(factory, "c").connect(username="bob", password=token(sub="bob")).reason_code == 0x86
    assert MemoryClient(factory, "c").connect(username="alice", password=b"hunter2").reason_code == 0x86


@pytest.mark.parametrize("version", [4, 5])
def test_the_connection_ends_with_the_token(tmp_path: Path, tokens: Tokens, version: int) -> None:
    clock, factory = site(tmp_path, tokens)
    client, other = MemoryClient(factory, "c", version), MemoryClient(factory, "d")
    client.connect(username="alice", password=token(exp=time.time() + 100))
    other.connect(username="bob", password=b"hunter2")
    clock.advance(90)
    states = [client.is_closed]
    clock.advance(11)
    states.append(client.is_closed)
    assert states == [False, True]
    if version == 5:
        assert client.take(Disconnect).reason_code == 0x87
    assert not other.is_closed


# Key sets


def jwk(key: Any, **more: Any) -> dict[str, Any]:
    kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
    return {**kind.to_jwk(key.public_key(), as_dict=True), **more}


def key_set(*keys: Any) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


def test_key_sets() -> None:
    elliptic = ec.generate_private_key(ec.SECP256R1())
    data = key_set(
        jwk(KEY, kid="a", alg="RS256", use="sig"),
        jwk(KEY, kid="b", use="enc"),
        jwk(KEY, kid="c", alg="RS512"),
        {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "d"},
        jwk(elliptic, kid="e"),
        "nonsense",
        {"kty": "RSA", "kid": "f"},
        jwk(OTHER_KEY),
    )
    assert [key_id for key_id, _ in parse_keys(data, RS)] == ["a", None]
    assert [key_id for key_id, _ in parse_keys(data, ("RS256", "ES256"))] == ["a", "e", None]


@pytest.mark.parametrize(
    "data", [b"", b"x", b"[]", b"{}", b'{"keys": 1}', b'{"keys": []}', b"[" * 100_000, key_set(jwk(KEY, use="enc"))]
)
def test_no_key_sets(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"is no JSON web key set|holds no key for RS256"):
        parse_keys(data, RS)


class Provider:
    """An agent whose answers are given later."""

    def __init__(self) -> None:
        self.asked: list[Deferred[Any]] = []

    def request(self, method: bytes, uri: bytes, headers: object = None, body: object = None) -> Deferred[Any]:
        assert (method, uri) == (b"GET", b"https://id.example/keys")
        self.asked.append(Deferred())
        return self.asked[-1]

    def answer(self, data: bytes, code: int = 200) -> None:
        class Response:
            def __init__(self) -> None:
                self.code = code

            def deliverBody(self, protocol: Any) -> None:
                from twisted.python.failure import Failure
                from twisted.web.client import ResponseDone

                protocol.dataReceived(data)
                protocol.connectionLost(Failure(ResponseDone()))

        self.asked[-1].callback(Response())


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(provider: Provider, clock: Clock) -> JwksKeys:
    keys = JwksKeys("https://id.example/keys", RS, provider, clock)
    keys.startService()
    return keys


def test_tokens_wait_for_no_fetch(keys: JwksKeys, provider: Provider) -> None:
    tokens = Tokens(keys, RS)
    with pytest.raises(MQTTError) as caught:
        tokens.check(b"alice", token())
    assert caught.value.reason_code == 0x88
    assert tokens.check(b"alice", b"an ordinary password") is None
    provider.answer(key_set(jwk(KEY, kid="a")))
    assert tokens.check(b"alice", token()) is not None
    assert tokens.check(b"alice", token(headers={"kid": "a"})) is not None
    assert tokens.check(b"alice", token(OTHER_KEY, headers={"kid": "a"})) is None


def test_keys_are_fetched_again(keys: JwksKeys, provider: Provider, clock: Clock) -> None:
    provider.answer(key_set(jwk(KEY, kid="a")))
    clock.advance(299)
    assert len(provider.asked) == 1
    clock.advance(1)
    assert len(provider.asked) == 2
    assert len(keys.find("a")) == 1, "the old ones serve meanwhile"
    provider.answer(key_set(jwk(OTHER_KEY, kid="b")))
    assert (len(keys.find("a")), len(keys.find("b"))) == (0, 1)


def test_an_unknown_key_asks_for_a_fetch_but_not_often(keys: JwksKeys, provider: Provider, clock: Clock) -> None:
    provider.answer(key_set(jwk(KEY, kid="a")))
    for _ in range(100):
        assert keys.find("b") == []
    assert len(provider.asked) == 1
    clock.advance(10)
    assert len(provider.asked) == 2
    keys.find("b")
    provider.answer(key_set(jwk(KEY, kid="b")))
    assert len(keys.find("b")) == 1


@pytest.mark.parametrize("failure", ["status", "body", "size", "error", "time"])
def test_failed_fetches_keep_the_old_keys_and_are_tried_again(
    keys: JwksKeys, provider: Provider, clock: Clock, failure: str
) -> None:
    provider.answer(key_set(jwk(KEY, kid="a")))
    clock.advance(300)
    if failure == "status":
        provider.answer(key_set(jwk(OTHER_KEY, kid="b")), 500)
    elif failure == "body":
        provider.answer(b"nonsense")
    elif failure == "size":
        provider.answer(b" " * 300_000)
    elif failure == "error":
        provider.asked[-1].errback(OSError("no route"))
    elif failure == "time":
        clock.advance(10)
        assert provider.asked[-1].called
    assert len(keys.find("a")) == 1
    clock.advance(10)
    assert len(provider.asked) == 3
    provider.answer(key_set(jwk(OTHER_KEY, kid="b")))
    assert len(keys.find("b")) == 1


def test_stopping_ends_it(keys: JwksKeys, provider: Provider, clock: Clock) -> None:
    keys.stopService()
    assert provider.asked[0].called
    assert clock.getDelayedCalls() == []
    with pytest.raises(KeysNotYet):
        keys.find("a")
    keys.startService()
    provider.answer(key_set(jwk(KEY, kid="a")))
    assert len(clock.getDelayedCalls()) == 1
    keys.stopService()
    assert clock.getDelayedCalls() == []
