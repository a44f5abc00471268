"""What docs/authentication.md shows works."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from tests.auth.helpers import password_text, write
from twisted_p2pmqtt.auth.acl import parse_acl
from twisted_p2pmqtt.auth.passwords import parse_passwords
from twisted_p2pmqtt.net.protocol import MQTTFactory, open_login
from twisted_p2pmqtt.testing import make_broker

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "authentication.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


def test_files() -> None:
    passwords, *rules = blocks("")
    assert parse_passwords(passwords.encode(), "passwd")[b"alice"].verify(b"secret")
    assert len(rules) == 2
    for text in rules:
        parse_acl(text.encode(), "acl")


def test_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "passwd", password_text(alice="secret"))
    names: dict[str, Any] = {"broker": make_broker(Clock()), "login": open_login}
    for program in blocks("python"):
        exec(compile(program, "docs/authentication.md", "exec"), names)
        assert isinstance(names.pop("factory"), MQTTFactory)
        names["MQTTFactory"] = MQTTFactory
