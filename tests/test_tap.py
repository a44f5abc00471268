"""twisted_p2pmqtt.tap: the command line, parsed as twistd does it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from twisted.application.service import IService, IServiceMaker, Service
from twisted.internet import reactor
from twisted.plugin import getPlugins
from twisted.python import usage

from twisted_p2pmqtt import __version__
from twisted_p2pmqtt.config import ConfigError, Settings, load_settings
from twisted_p2pmqtt.tap import Options, makeService, report


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with nothing in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def parsed(*arguments: str) -> Options:
    options = Options()  # type: ignore[no-untyped-call]  # Twisted's has no types
    options.parseOptions(list(arguments))  # type: ignore[no-untyped-call]  # Twisted's has no types
    return options


def exit_code(*arguments: str) -> object:
    with pytest.raises(SystemExit) as caught:
        parsed(*arguments)
    return caught.value.code


def endpoints(options: Options) -> list[str]:
    return [listener.endpoint for listener in options.settings.listeners]


def test_no_options_are_the_defaults(directory: Path) -> None:
    settings = parsed().settings
    assert settings == load_settings(None, {})
    assert settings.store.path == str(directory / "p2pmqtt.db")


def test_options_win_over_the_file(directory: Path) -> None:
    (directory / "etc").mkdir()
    config = directory / "etc" / "p2pmqtt.toml"
    config.write_text("[[listener]]\nendpoint='tcp:1'\n[p2p]\nmode='off'\nmarker='to'\n[store]\npath='a.db'\n")
    options = parsed("-c", str(config))
    assert endpoints(options) == ["tcp:1"]
    assert options.settings.store.path == str(directory / "etc" / "a.db")

    options = parsed("--config", str(config), "--listen", "tcp:2", "-l", "unix:x", "--p2p-mode=both", "--store=memory")
    assert endpoints(options) == ["tcp:2", "unix:x"]
    assert (options.settings.p2p.mode, options.settings.p2p.marker) == ("both", "to")
    assert options.settings.store.type == "memory"

    options = parsed("--config", str(config), "--store-path", "b.db")
    assert options.settings.store.path == str(directory / "b.db"), "meant from where the command is given"


def test_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("P2PMQTT__LIMITS__MAX_QOS", "1")
    assert parsed().settings.limits.max_qos == 1


@pytest.mark.parametrize("check", [(), ("--check",)])
def test_bad_configuration_is_told_and_exits(
    directory: Path, capsys: pytest.CaptureFixture[str], check: tuple[str, ...]
) -> None:
    config = directory / "p2pmqtt.toml"
    config.write_text("[limits]\nmax_qos = 3\n[limts]\n")
    assert exit_code("-c", "p2pmqtt.toml", "--listen", "tpc:1", "--store-path=", *check) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.split(": ")[:2] for line in captured.err.splitlines()] == [
        ["p2pmqtt.toml:3", "limts"],
        ["--listen", "listener.0.endpoint"],
        ["p2pmqtt.toml:2", "limits.max_qos"],
        ["--store-path", "store.path"],
    ]


def test_check_tells_what_it_found(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--check", "-l", "tcp:1883", "-l", "unix:mqtt.sock") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.splitlines() == [
        "The configuration is good.",
        "listener.0: tcp:1883: mqtt, anonymous clients refused",
        "listener.1: unix:mqtt.sock: mqtt, anonymous clients allowed",
        "p2p: prefix, marker 'p2p'",
        f"store: sqlite at {directory / 'p2pmqtt.db'}, commit",
        "auth: none",
        "warning: listener.0 (tcp:1883): nobody can connect: anonymous clients are refused and no users are configured;"
        " set allow_anonymous = true or configure [auth]",
    ]
    assert list(directory.iterdir()) == [], "a check leaves nothing behind"


def test_report_of_everything(directory: Path) -> None:
    for name in ("cert.pem", "key.pem", "ca.pem", "passwd", "acl"):
        (directory / name).write_text("")
    (directory / "p2pmqtt.toml").write_text(
        "[[listener]]\nendpoint='tcp:1'\ntransport='websocket'\n"
        "[listener.tls]\ncertificate='cert.pem'\nprivate_key='key.pem'\nclient_ca='ca.pem'\n"
        "client_certificate='optional'\n"
        "[store]\ntype='memory'\n[auth]\npassword_file='passwd'\nacl_file='acl'\n[auth.http]\nurl='http://x/'\n"
    )
    assert report(load_settings("p2pmqtt.toml", {})) == [
        "The configuration is good.",
        "listener.0: tcp:1: websocket at /mqtt, TLS, client certificate optional, anonymous clients refused",
        "p2p: prefix, marker 'p2p'",
        "store: memory",
        "auth: passwords, ACL, HTTP",
    ]


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"twisted_p2pmqtt {__version__}\n"


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--help") == 0
    out = capsys.readouterr().out
    for option in (
        "-c, --config=",
        "-l, --listen=",
        "--p2p-mode=",
        "--store=",
        "--store-path=",
        "--check",
        "--recover",
        "--version",
    ):
        assert option in out


def test_unknown_option_is_a_usage_error() -> None:
    with pytest.raises(usage.UsageError):
        parsed("--lisen", "tcp:1")


def test_plugin_is_found() -> None:
    (maker,) = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "p2pmqtt"]
    assert maker.options is Options
    assert maker.makeService is makeService


def service_module(monkeypatch: pytest.MonkeyPatch, made: list[tuple[Settings, object, bool]]) -> None:
    """Put a stand-in where tap finds the service: what a real one does is tested elsewhere."""

    class MQTTService(Service):
        @classmethod
        def from_settings(cls, settings: Settings, reactor: object, recover: bool) -> MQTTService:
            made.append((settings, reactor, recover))
            if settings.limits.max_qos == 0:
                raise ConfigError(["acl:1: not a rule", "acl:2: not a rule"])
            return cls()

    module = ModuleType("twisted_p2pmqtt.service")
    module.MQTTService = MQTTService  # type: ignore[attr-defined]  # a stand-in module
    monkeypatch.setitem(sys.modules, "twisted_p2pmqtt.service", module)


def test_make_service(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Settings, object, bool]] = []
    service_module(monkeypatch, made)
    options = parsed("--listen", "tcp:0")
    assert IService.providedBy(makeService(options))
    recovering = parsed("--recover")
    makeService(recovering)
    assert made == [(options.settings, reactor, False), (recovering.settings, reactor, True)]


def test_make_service_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    service_module(monkeypatch, [])
    monkeypatch.setenv("P2PMQTT__LIMITS__MAX_QOS", "0")
    with pytest.raises(SystemExit) as caught:
        makeService(parsed())
    assert caught.value.code == 1
    assert capsys.readouterr().err == "acl:1: not a rule\nacl:2: not a rule\n"
