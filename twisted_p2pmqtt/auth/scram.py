"""SCRAM-SHA-256 over MQTT 5.0's AUTH exchange: RFC 5802 and RFC 7677, without channel binding.

The client proves that it knows the password without sending it, and the server that it knows the user:

    CONNECT        n,,n=user,r=NONCE
    AUTH           r=NONCE+ours,s=salt,i=iterations
    AUTH           c=biws,r=NONCE+ours,p=proof
    CONNACK        v=signature

What is stored cannot be used to log in (``make_scram_credential``); hashes of password files are another matter and do
not serve here.  An unknown user goes through the same exchange, with a salt that never changes, and fails at its end.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import stringprep
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from twisted.cred.error import UnauthorizedLogin
from zope.interface import implementer

from twisted_p2pmqtt.core.handshake import Continue, Success
from twisted_p2pmqtt.interfaces import IEnhancedAuthenticator

METHOD = "SCRAM-SHA-256"

ITERATIONS = 100_000
"""Of new credentials, computed by the client at each login: small devices may want fewer, not below 4096."""

SALT_SIZE = 16

_NONCE_CHARACTERS = frozenset(chr(c) for c in range(0x21, 0x7F) if chr(c) != ",")


class ScramCredential(NamedTuple):
    """What the server stores of a password (RFC 5802, section 3)."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes


def make_scram_credential(password: str, iterations: int = ITERATIONS, salt: bytes | None = None) -> ScramCredential:
    """The credential of a password.  ValueError for a password that SASLprep forbids.  Blocks."""
    salt = os.urandom(SALT_SIZE) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, iterations)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return ScramCredential(salt, iterations, hashlib.sha256(client_key).digest(), server_key)


@implementer(IEnhancedAuthenticator)
class ScramSHA256:
    """The method for ``MQTTFactory(methods=[...])``.

    ``credentials`` are by user name (prepared by ``saslprep``).  ``avatar(username, client_id)`` gives what a login
    gives, an ``IClientAvatar``, a ``LoggedIn`` or None, and may raise to refuse: ``Access.avatar`` does.  ``secret``
    makes the salts of unknown users: keep it, and they stay the same when the broker restarts; ``iterations`` is what
    they are told.
    """

    method = METHOD

    def __init__(
        self,
        credentials: Mapping[str, ScramCredential],
        avatar: Callable[[str, str], Any],
        secret: bytes | None = None,
        iterations: int = ITERATIONS,
        nonce: Callable[[], str] = secrets.token_urlsafe,
    ) -> None:
        self._credentials = credentials
        self._avatar = avatar
        self._secret = os.urandom(32) if secret is None else secret
        self._iterations = iterations
        self._nonce = nonce

    def begin(self, client_id: str, username: str | None, data: bytes | None) -> ScramExchange:
        """One client's exchange.  A user name in CONNECT must be the one of the exchange."""
        return ScramExchange(self, client_id, username)

    def find(self, username: str) -> tuple[ScramCredential, bool]:
        """The user's credential and True, or a made-up one and False."""
        known = self._credentials.get(username)
        if known is not None:
            return known, True
        salt = hmac.digest(self._secret, username.encode(), "sha256")[:SALT_SIZE]
        return ScramCredential(salt, self._iterations, os.urandom(32), os.urandom(32)), False

    def nonce(self) -> str:
        """The server's part of a nonce."""
        return self._nonce()

    def avatar(self, username: str, client_id: str) -> Any:
        """What the user may do."""
        return self._avatar(username, client_id)


class ScramExchange:
    """Client-first message, server-first, client-final, server-final."""

    def __init__(self, method: ScramSHA256, client_id: str, username: str | None) -> None:
        self._method = method
        self._client_id = client_id
        self._claimed = username
        self._username = ""
        self._header = b""
        self._first = ""
        self._full_nonce = ""
        self._step = 0
        self._credential: ScramCredential | None = None
        self._is_known = False

    def proceed(self, data: bytes | None) -> Continue | Success:
        """The client's next message; ``UnauthorizedLogin`` for one that is wrong."""
        step, self._step = self._step, self._step + 1
        if step == 0:
            return Continue(self._answer_first(_text(data)).encode())
        credential, self._credential = self._credential, None
        if credential is None:
            raise UnauthorizedLogin("SCRAM: the exchange is over")
        return self._judge(_text(data), credential)

    def _answer_first(self, text: str) -> str:
        binding, authorize_as, bare, *_ = [*text.split(",", 2), "", "", ""]
        # `y`: the client could bind to the channel and believes, rightly, that we cannot.
        if binding not in ("n", "y"):
            raise UnauthorizedLogin("SCRAM: channel binding is not supported")
        name, nonce, *_ = [*_attributes(bare, "nr"), "", ""]
        if not nonce or not set(nonce) <= _NONCE_CHARACTERS:
            raise UnauthorizedLogin("SCRAM: malformed nonce")
        self._username = _prepared(_unescape(name))
        if authorize_as and authorize_as != "a=" + name:
            raise UnauthorizedLogin("SCRAM: nobody logs in for another")
        if self._claimed and _prepared(self._claimed) != self._username:
            raise UnauthorizedLogin("SCRAM: another user name than CONNECT's")
        credential, self._is_known = self._method.find(self._username)
        self._credential = credential
        self._header = f"{binding},{authorize_as},".encode()
        self._full_nonce = nonce + self._method.nonce()
        salt = base64.b64encode(credential.salt).decode()
        answer = f"r={self._full_nonce},s={salt},i={credential.iterations}"
        self._first = f"{bare},{answer}"
        return answer

    def _judge(self, text: str, credential: ScramCredential) -> Success:
        without_proof, _, proof_text = text.rpartition(",p=")
        binding, nonce, *_ = [*_attributes(without_proof, "cr"), "", ""]
        message = f"{self._first},{without_proof}".encode()
        proof = _base64(proof_text)
        signature = hmac.digest(credential.stored_key, message, "sha256")
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=False))
        is_proved = hmac.compare_digest(hashlib.sha256(client_key).digest(), credential.stored_key)
        is_whole = len(proof) == len(signature) and nonce == self._full_nonce and _base64(binding) == self._header
        if not (is_proved and is_whole and self._is_known):
            raise UnauthorizedLogin("SCRAM: wrong proof")
        verifier = base64.b64encode(hmac.digest(credential.server_key, message, "sha256"))
        return Success(b"v=" + verifier, self._method.avatar(self._username, self._client_id))


def _text(data: bytes | None) -> str:
    try:
        text = (data or b"").decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text or "\0" in text:
        raise UnauthorizedLogin("SCRAM: malformed message")
    return text


def _attributes(text: str, names: str) -> list[str]:
    """The values of ``n=...,r=...``, which must come in this order; extensions that may be ignored follow them."""
    parts = text.split(",")
    if len(parts) < len(names):
        raise UnauthorizedLogin("SCRAM: malformed message")
    for part, name in zip(parts, names, strict=False):
        if part[:2] != name + "=":  # `m=`, an extension that must be understood, too
            raise UnauthorizedLogin("SCRAM: malformed message")
    return [part[2:] for part in parts[: len(names)]]


def _unescape(name: str) -> str:
    """``=2C`` and ``=3D`` are comma and equals sign; no other ``=`` may stand in a name."""
    head, *parts = name.split("=")
    text = head
    for part in parts:
        if part[:2] not in ("2C", "3D"):
            raise UnauthorizedLogin("SCRAM: malformed user name")
        text += {"2C": ",", "3D": "="}[part[:2]] + part[2:]
    return text


def _prepared(name: str) -> str:
    try:
        prepared = saslprep(name)
    except ValueError:
        prepared = ""
    if not prepared:
        raise UnauthorizedLogin("SCRAM: malformed user name")
    return prepared


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode(), validate=True)
    except (binascii.Error, ValueError):
        return b""


def saslprep(text: str) -> str:
    """The text as RFC 4013 prepares user names and passwords for comparison; ValueError for what it forbids."""
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c
        for c in text
        if stringprep.in_table_c12(c) or not stringprep.in_table_b1(c)
    )
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    forbidden = (
        stringprep.in_table_a1,
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
    )
    if any(is_forbidden(c) for c in prepared for is_forbidden in forbidden):
        raise ValueError("holds a character that user names and passwords may not hold")
    if any(stringprep.in_table_d1(c) for c in prepared):  # right to left
        if any(stringprep.in_table_d2(c) for c in prepared):
            raise ValueError("mixes directions of writing")
        if not (stringprep.in_table_d1(prepared[0]) and stringprep.in_table_d1(prepared[-1])):
            raise ValueError("begins or ends in another direction of writing")
    return prepared
