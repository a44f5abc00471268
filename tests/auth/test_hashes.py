"""The three forms of hashes, against the real mosquitto_passwd and against hashes made by hand."""

from __future__ import annotations

import builtins
import subprocess
from pathlib import Path
from shutil import which
from typing import Any

import argon2
import pytest

from twisted_p2pmqtt.auth.hashes import hash_password, parse_hash
from twisted_p2pmqtt.auth.passwords import parse_passwords

MOSQUITTO_PASSWD = which("mosquitto_passwd")

# Made by mosquitto_passwd 2.0.11 for the password "secret".
PBKDF2 = (
    "$7$101$Jq28H0hmwvIoSvD2$RPzC0VuB7uooBXdcchSzofrScbkywSFRjbz6w6w+d5kMDcok2BuxijrjSyY5HLJvm3AXFeu7fNwRp0lNwRAvhg=="
)
SHA512 = "$6$5YhvQxbwWLrczrY8$hoN8UsB0UkuV48GgmRdG1aTqE7EnN0xHTCnaud+T+kaIg9RtD9acZ9bP3yZ4dAlvKoGpgRzFZfU9fBv1Y8c9Zw=="

PASSWORDS = ["secret", "pass word", "$7$:", "pässwörd", "x" * 200]


@pytest.mark.parametrize("text", [PBKDF2, SHA512], ids=["pbkdf2", "sha512"])
def test_known_hashes(text: str) -> None:
    hashed = parse_hash(text)
    assert hashed.verify(b"secret")
    for wrong in (b"", b"Secret", b"secret\0", b"secre", b"secret "):
        assert not hashed.verify(wrong)


@pytest.mark.skipif(MOSQUITTO_PASSWD is None, reason="mosquitto_passwd is not installed")
@pytest.mark.parametrize("kind", ["sha512", "sha512-pbkdf2"])
def test_files_of_mosquitto_passwd(tmp_path: Path, kind: str) -> None:
    assert MOSQUITTO_PASSWD is not None
    path = tmp_path / "passwd"
    for number, password in enumerate(PASSWORDS):
        create = ["-c"] if number == 0 else []
        command = [MOSQUITTO_PASSWD, "-H", kind, *create, "-b", str(path), f"user{number}", password]
        subprocess.run(command, check=True, capture_output=True)
    hashes = parse_passwords(path.read_bytes(), "passwd")
    assert len(hashes) == len(PASSWORDS)
    for number, password in enumerate(PASSWORDS):
        hashed = hashes[f"user{number}".encode()]
        assert hashed.verify(password.encode())
        assert not hashed.verify(password.encode() + b"x")


def test_argon2id() -> None:
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    hashed = parse_hash(hasher.hash("secret"))
    assert hashed.verify(b"secret")
    assert not hashed.verify(b"Secret")


def test_argon2id_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_argon2(name: str, *rest: Any, **more: Any) -> Any:
        if name == "argon2":
            raise ImportError(name)
        return real_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without_argon2)
    with pytest.raises(ValueError, match=r"needs argon2-cffi, which is not installed: pip install .*\[auth\]"):
        parse_hash("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNoaGFzaA")


def test_made_here() -> None:
    text = hash_password(b"secret", 3)
    assert text.startswith("$7$3$")
    assert parse_hash(text).verify(b"secret")
    assert text != hash_password(b"secret", 3), "each has a salt of its own"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not hashed"),
        ("secret", "not hashed"),
        ("$5$salt$hash", "not hashed"),
        ("$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA", "not hashed"),
        ("$argon2id$v=19$nonsense", "no .argon2id. hash"),
        ("$6$c2FsdA==", "must be"),
        ("$6$c2FsdA==$aGFzaA==$more", "must be"),
        ("$6$$aGFzaA==", "salt is not base64"),
        ("$6$sa lt$aGFzaA==", "salt is not base64"),
        ("$6$c2FsdA==$!!", "hash is not base64"),
        ("$6$c2FsdA==$", "hash is not base64"),
        ("$6$c2FsdA==$aGFzaA==", "must be 64 bytes, not 4"),
        ("$7$101$c2FsdA==", "must be"),
        (PBKDF2.replace("101", "0"), "iterations"),
        (PBKDF2.replace("101", "-1"), "iterations"),
        (PBKDF2.replace("101", "x"), "iterations"),
        (PBKDF2.replace("101", "\u0661\u0660\u0661"), "iterations"),
        (PBKDF2.replace("101", "99999999999"), "iterations"),
        (PBKDF2.replace("101", ""), "iterations"),
    ],
)
def test_what_is_no_hash(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=what) as caught:
        parse_hash(text)
    assert "aGFzaA" not in str(caught.value), "hashes are not for logs"
