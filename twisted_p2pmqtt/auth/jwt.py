"""Tokens: JSON Web Tokens as passwords (RFC 7519).

A token must be signed by a configured key with a configured algorithm, and say who (``sub``) and until when (``exp``);
then its bearer is that user, until then.  Needs PyJWT, the extra ``auth``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import jwt

from twisted_p2pmqtt.auth.files import BadFile, read_file
from twisted_p2pmqtt.auth.users import User
from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError

MIN_SECRET = 32
"""Bytes of a secret for HS256 and its kin: one that can be guessed signs anything."""

MAX_EXPIRES_IN = 10 * 365 * 86400.0


class KeysNotYet(Exception):
    """The keys are not here yet."""


class Keys(Protocol):
    """Whose signatures count."""

    def find(self, key_id: str | None) -> list[Any]:
        """The keys that may have signed, for PyJWT.  Raises ``KeysNotYet``."""


class KeyFile:
    """One key from a file: a public key or certificate as PEM, or for HS256 and its kin a secret, its last line end
    left out.
    """

    def __init__(self, path: str, algorithms: tuple[str, ...]) -> None:
        """``BadFile`` where the file holds no key for one of the algorithms."""
        data = read_file(path)
        if algorithms[0].startswith("HS"):
            data = data.removesuffix(b"\n").removesuffix(b"\r")
            if len(data) < MIN_SECRET:
                raise BadFile([f"{path}: a secret must have at least {MIN_SECRET} bytes, this one has {len(data)}"])
        elif b"PRIVATE KEY-----" in data:
            raise BadFile([f"{path}: holds a private key; the broker needs the public one only"])
        elif b"-----BEGIN CERTIFICATE-----" in data:
            data = _key_of_certificate(data, path)
        for name in algorithms:
            _check_key(name, data, path)
        self._key = data

    def find(self, key_id: str | None) -> list[Any]:
        """The one key, whatever the token calls it."""
        return [self._key]


def _check_key(algorithm: str, data: bytes, path: str) -> None:
    try:
        jwt.get_algorithm_by_name(algorithm).prepare_key(data)
    except Exception as error:  # PyJWT passes on what cryptography raises
        raise BadFile([f"{path}: is no key for {algorithm}: {str(error) or type(error).__name__}"]) from error


def _key_of_certificate(data: bytes, path: str) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
    from cryptography.x509 import load_pem_x509_certificate

    try:
        key = load_pem_x509_certificate(data).public_key()
    except ValueError as error:
        raise BadFile([f"{path}: is no certificate: {error}"]) from error
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Tokens:
    """Judges tokens.  ``algorithms`` are the only ones that count, whatever a token says of itself.

    ``audience``: None, or whom a token must be made for (``aud``).  ``wall`` is seconds since the epoch.
    """

    def __init__(
        self,
        keys: Keys,
        algorithms: tuple[str, ...],
        audience: str | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._keys = keys
        self._algorithms = list(algorithms)
        self._audience = audience
        self._wall = wall

    def check(self, username: bytes | None, password: bytes) -> User | None:
        """Whose token this is; None where it is no good one, or another's than the user name says.

        Raises ``MQTTError`` (Server unavailable) while the keys are not here.  An empty user name, or none, says
        nothing.
        """
        try:
            header = jwt.get_unverified_header(password)
        except Exception:
            return None  # an ordinary password
        try:
            keys = self._keys.find(header.get("kid"))
        except KeysNotYet:
            raise MQTTError("the keys that sign tokens are not here yet", ReasonCode.SERVER_UNAVAILABLE) from None
        for key in keys:
            claims = self._claims(password, key)
            if claims is not None:
                return self._user(claims, username)
        return None

    def _claims(self, token: bytes, key: Any) -> dict[str, Any] | None:
        options: Any = {"require": ["exp", "sub"], "verify_aud": self._audience is not None}
        try:
            return jwt.decode(token, key, algorithms=self._algorithms, audience=self._audience, options=options)
        except Exception:  # whatever is wrong with it, and a signed oddity may raise what no library foresaw
            return None

    def _user(self, claims: dict[str, Any], username: bytes | None) -> User | None:
        name = claims["sub"]
        if not isinstance(name, str) or not name or any(c < " " or "\x7f" <= c <= "\x9f" for c in name):
            return None
        if username and username != name.encode("utf-8", "surrogatepass"):
            return None
        return User(name, min(max(0.0, int(claims["exp"]) - self._wall()), MAX_EXPIRES_IN))
