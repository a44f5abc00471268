"""SCRAM-SHA-256: the example of RFC 7677, and everything that is no such exchange."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.cred.error import UnauthorizedLogin
from zope.interface.verify import verifyObject

from twisted_p2pmqtt.auth import ScramSHA256, make_scram_credential
from twisted_p2pmqtt.auth.scram import METHOD, ScramExchange, saslprep
from twisted_p2pmqtt.core.handshake import Continue, Success
from twisted_p2pmqtt.interfaces import IEnhancedAuthenticator

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
CLIENT_NONCE, SERVER_NONCE = "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
FIRST = f"n,,n=user,r={CLIENT_NONCE}"
CHALLENGE = f"r={CLIENT_NONCE}{SERVER_NONCE},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
FINAL = f"c=biws,r={CLIENT_NONCE}{SERVER_NONCE},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
VERIFIER = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

CREDENTIALS = {
    "user": make_scram_credential("pencil", 4096, SALT),
    "a,b=c": make_scram_credential("x", 4096, SALT),
}


def method(**options: Any) -> ScramSHA256:
    return ScramSHA256(
        CREDENTIALS, lambda username, client_id: (username, client_id), nonce=lambda: SERVER_NONCE, **options
    )


def begin(username: str | None = None) -> ScramExchange:
    return method().begin("client", username, None)


def test_it_is_an_authenticator() -> None:
    assert verifyObject(IEnhancedAuthenticator, method())
    assert method().method == METHOD == "SCRAM-SHA-256"


def test_the_example_of_rfc_7677() -> None:
    exchange = begin()
    assert exchange.proceed(FIRST.encode()) == Continue(CHALLENGE.encode())
    assert exchange.proceed(FINAL.encode()) == Success(VERIFIER.encode(), ("user", "client"))


def test_names_are_escaped() -> None:
    answer = begin().proceed(b"n,,n=a=2Cb=3Dc,r=x")
    assert isinstance(answer, Continue)
    assert answer.data.endswith(b"i=4096")


@pytest.mark.parametrize("claimed", [None, "", "user"])
def test_connect_may_name_the_user_too(claimed: str | None) -> None:
    assert begin(claimed).proceed(FIRST.encode()) == Continue(CHALLENGE.encode())


def test_connect_may_not_name_another_user() -> None:
    with pytest.raises(UnauthorizedLogin):
        begin("admin").proceed(FIRST.encode())


@pytest.mark.parametrize("header", ["n,,", "y,,", "n,a=user,"])
def test_other_headers(header: str) -> None:
    exchange = begin()
    assert exchange.proceed((header + FIRST[3:]).encode()) == Continue(CHALLENGE.encode())
    with pytest.raises(UnauthorizedLogin):  # c= must be this very header
        exchange.proceed(FINAL.replace("biws", "cCws").encode())


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"\xff",
        b"n",
        b"n,,",
        b"n,,n=user",
        b"n,,r=x,n=user",
        b"n,,n=,r=x",
        b"n,,n=user,r=",
        b"n,,n=user,r=\x7f",
        "n,,n=user,r=ü".encode(),
        b"n,,n=us=er,r=x",
        b"n,,n=us\0er,r=x",
        b"n,,n=us\x01er,r=x",
        b"n,,m=ext,n=user,r=x",
        b"n,a=admin,n=user,r=x",
        b"n,admin,n=user,r=x",
        b"p=tls-unique,,n=user,r=x",
        b"x,,n=user,r=x",
        b",,n=user,r=x",
    ],
)
def test_malformed_first_messages(data: bytes | None) -> None:
    with pytest.raises(UnauthorizedLogin):
        begin().proceed(data)


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"\xff",
        FINAL.replace("p=dH", "p=eH").encode(),
        FINAL.rpartition("=")[0].encode(),
        FINAL.rpartition(",p=")[0].encode() + b",p=",
        FINAL.rpartition(",p=")[0].encode() + b",p=dHzb",
        FINAL.rpartition(",p=")[0].encode(),
        FINAL.replace("biws", "eSws").encode(),
        FINAL.replace("biws", "").encode(),
        FINAL.replace("c=biws,", "").encode(),
        FINAL.replace("k0,", "k1,").encode(),
        FINAL.replace(SERVER_NONCE, "").encode(),
        FIRST.encode(),
    ],
)
def test_wrong_final_messages(data: bytes | None) -> None:
    exchange = begin()
    exchange.proceed(FIRST.encode())
    with pytest.raises(UnauthorizedLogin):
        exchange.proceed(data)
    with pytest.raises(UnauthorizedLogin):  # and there is one attempt
        exchange.proceed(FINAL.encode())


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_arbitrary_bytes_are_refused(first: bytes, final: bytes) -> None:
    exchange = begin()
    try:
        exchange.proceed(first)
        exchange.proceed(final)
    except UnauthorizedLogin:
        return
    raise AssertionError("that was no proof")


def test_unknown_users_look_like_any_other() -> None:
    secret = b"s" * 32
    challenges = []
    for _ in range(2):  # the same after a restart, if the secret is kept
        exchange = method(secret=secret, iterations=4096).begin("client", None, None)
        answer = exchange.proceed(FIRST.replace("n=user", "n=nobody").encode())
        assert isinstance(answer, Continue)
        challenges.append(answer.data)
        with pytest.raises(UnauthorizedLogin):
            exchange.proceed(FINAL.encode())
    assert challenges[0] == challenges[1]
    known = CHALLENGE.encode().split(b",")
    unknown = challenges[0].split(b",")
    assert unknown[0] == known[0]
    assert unknown[2] == known[2]
    assert unknown[1] != known[1]
    assert len(unknown[1]) == len(known[1])


def test_nobody_can_prove_an_unknown_user() -> None:
    """Not even with the made-up keys in hand."""
    authenticator = method()
    exchange = authenticator.begin("client", None, None)
    exchange.proceed(FIRST.replace("n=user", "n=nobody").encode())
    exchange._credential = CREDENTIALS["user"]
    salted = hashlib.pbkdf2_hmac("sha256", b"pencil", SALT, 4096)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    without_proof = FINAL.rpartition(",p=")[0]
    message = f"{exchange._first},{without_proof}".encode()
    signature = hmac.digest(hashlib.sha256(client_key).digest(), message, "sha256")
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True))).decode()
    with pytest.raises(UnauthorizedLogin):
        exchange.proceed(f"{without_proof},p={proof}".encode())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("I\xadX", "IX"), ("user", "user"), ("USER", "USER"), ("\xaa", "a"), ("\u2168", "IX"), ("a\u00a0b", "a b")],
)
def test_saslprep_examples_of_rfc_4013(text: str, expected: str) -> None:
    assert saslprep(text) == expected


@pytest.mark.parametrize("text", ["\x07", "\u0627\x31", "\u0627a\u0627", "\ue000", "\u0221"])
def test_saslprep_forbids(text: str) -> None:
    with pytest.raises(ValueError, match=r"holds|mixes|begins"):
        saslprep(text)


def test_credentials_have_salts_of_their_own() -> None:
    first, second = make_scram_credential("x", 1), make_scram_credential("x", 1)
    assert first.salt != second.salt
    assert first.stored_key != second.stored_key
