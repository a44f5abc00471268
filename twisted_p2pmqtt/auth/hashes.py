"""Hashes of passwords in the forms that mosquitto's password files hold: ``$6$``, ``$7$`` and ``$argon2id$``.

    $6$salt$hash               SHA-512 of password and salt; mosquitto 1.x
    $7$iterations$salt$hash    PBKDF2 with HMAC-SHA-512; mosquitto 2.0
    $argon2id$v=19$m=,t=,p=$   Argon2id as a PHC string; mosquitto 2.1; needs argon2-cffi

Salt and hash are base64.  ``verify`` takes its time on purpose and belongs in a thread (``HashPool``).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from typing import Any, Protocol

PBKDF2_ITERATIONS = 210_000
"""For new hashes; what OWASP asks for with SHA-512."""

MAX_ITERATIONS = 10_000_000
"""More would take seconds for each login: a slip of the pen."""

_SHA512_SIZE = 64


class PasswordHash(Protocol):
    """One stored hash."""

    def verify(self, password: bytes) -> bool:
        """Is this the password?  Compared in constant time; blocks for as long as the hash takes."""


class Sha512Hash:
    """``$6$``."""

    __slots__ = ("_digest", "_salt")

    def __init__(self, salt: bytes, digest: bytes) -> None:
        self._salt = salt
        self._digest = digest

    def verify(self, password: bytes) -> bool:
        """See ``PasswordHash``."""
        return hmac.compare_digest(hashlib.sha512(password + self._salt).digest(), self._digest)


class Pbkdf2Hash:
    """``$7$``."""

    __slots__ = ("_digest", "_iterations", "_salt")

    def __init__(self, iterations: int, salt: bytes, digest: bytes) -> None:
        self._iterations = iterations
        self._salt = salt
        self._digest = digest

    def verify(self, password: bytes) -> bool:
        """See ``PasswordHash``."""
        digest = hashlib.pbkdf2_hmac("sha512", password, self._salt, self._iterations)
        # HMAC pads its key with NUL, so that NULs behind the right password would be right too.
        return hmac.compare_digest(digest, self._digest) and b"\0" not in password


class Argon2Hash:
    """``$argon2id$``."""

    __slots__ = ("_library", "_text")

    def __init__(self, text: str) -> None:
        """ValueError where the text is no such hash, or argon2-cffi is not installed."""
        try:
            import argon2
        except ImportError:
            needs = "argon2-cffi, which is not installed: pip install 'twisted_p2pmqtt[auth]'"
            raise ValueError(f"an $argon2id$ hash needs {needs}") from None
        try:
            argon2.extract_parameters(text)
        except argon2.exceptions.InvalidHashError:
            raise ValueError("is no $argon2id$ hash: parameters, salt or hash are malformed") from None
        self._library: Any = argon2
        self._text = text.encode()

    def verify(self, password: bytes) -> bool:
        """See ``PasswordHash``."""
        argon2 = self._library
        try:
            return bool(argon2.low_level.verify_secret(self._text, password, argon2.Type.ID))
        except argon2.exceptions.VerifyMismatchError:
            return False


def parse_hash(text: str) -> PasswordHash:
    """The hash that the text spells; ValueError saying what is wrong with it, never quoting it."""
    if text.startswith("$argon2id$"):
        return Argon2Hash(text)
    parts = text.split("$")
    if text.startswith("$6$"):
        if len(parts) != 4:
            raise ValueError("is no $6$ hash: must be $6$salt$hash")
        return Sha512Hash(_base64(parts[2], "salt"), _digest(parts[3]))
    if text.startswith("$7$"):
        if len(parts) != 5:
            raise ValueError("is no $7$ hash: must be $7$iterations$salt$hash")
        return Pbkdf2Hash(_iterations(parts[2]), _base64(parts[3], "salt"), _digest(parts[4]))
    raise ValueError("password is not hashed as $6$, $7$ or $argon2id$; mosquitto_passwd makes such hashes")


def _iterations(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9) or not 1 <= int(text) <= MAX_ITERATIONS:
        raise ValueError(f"is no $7$ hash: iterations must be a whole number from 1 to {MAX_ITERATIONS}")
    return int(text)


def _base64(text: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text.encode(), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data:
        raise ValueError(f"{what} is not base64")
    return data


def _digest(text: str) -> bytes:
    digest = _base64(text, "hash")
    if len(digest) != _SHA512_SIZE:
        raise ValueError(f"hash must be {_SHA512_SIZE} bytes, not {len(digest)}")
    return digest


def hash_password(password: bytes, iterations: int = PBKDF2_ITERATIONS, salt: bytes | None = None) -> str:
    """A ``$7$`` hash for a password file.  Blocks."""
    salt = os.urandom(12) if salt is None else salt
    digest = hashlib.pbkdf2_hmac("sha512", password, salt, iterations)
    return f"$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
