"""Importing the package is cheap, and pulls in nothing that only some brokers need."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.brokers import ROOT
from benchmarks.startup import import_cost
from tests.benchmarks.measuring import LIMIT, import_share, recorded_import_share

ROUNDS = 4
ONLY_WHERE_USED = {
    "argon2",
    "jwt",
    "sqlite3",
    "twisted.web",
    "twisted_p2pmqtt.auth",
    "twisted_p2pmqtt.net.websocket",
    "twisted_p2pmqtt.store.sqlite",
    "wsproto",
}

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="the measurement needs sched_setaffinity")


@on_linux
def test_importing_costs_what_it_did() -> None:
    limit = LIMIT * recorded_import_share()
    best = import_share()
    for _ in range(ROUNDS):
        if best <= limit:
            break
        best = min(best, import_share())
    assert best <= limit


@on_linux
def test_what_only_some_brokers_need_is_not_imported() -> None:
    assert ONLY_WHERE_USED.isdisjoint(import_cost().modules)


def modules_after(code: str) -> set[str]:
    command = [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return set(done.stdout.split())


def test_the_plugin_imports_nothing_of_ours() -> None:
    modules = modules_after("import twisted.plugins.p2pmqtt_plugin")
    assert not [name for name in modules if name.startswith("twisted_p2pmqtt")]


def test_an_embedder_may_choose_the_reactor_after_the_import() -> None:
    assert "twisted.internet.reactor" not in modules_after("import twisted_p2pmqtt, twisted_p2pmqtt.tap")
