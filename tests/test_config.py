"""twisted_p2pmqtt.config: what is read, what is refused, and where the reader is sent to mend it."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tomli

from twisted_p2pmqtt import config_keys, config_sources
from twisted_p2pmqtt.config import (
    AuthSettings,
    ConfigError,
    HTTPAuthSettings,
    JWTSettings,
    Limits,
    ListenerSettings,
    Override,
    P2POptions,
    P2PSettings,
    Settings,
    StoreSettings,
    TLSSettings,
    anonymous_allowed,
    load_settings,
    warnings,
)
from twisted_p2pmqtt.core.p2p import PrefixP2PRouter
from twisted_p2pmqtt.service import router_from

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "p2pmqtt.example.toml"
FILES = ("server.pem", "server.key", "ca.pem", "passwd", "acl", "jwt.pem")


class Config:
    """A directory with a configuration and the files that it may name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "p2pmqtt.toml"
        for name in FILES:
            (directory / name).write_text("")

    def load(self, text: str, environ: Mapping[str, str] | None = None, *overrides: Override) -> Settings:
        self.file.write_text(text)
        return load_settings(str(self.file), environ or {}, overrides)

    def problems(self, text: str, environ: Mapping[str, str] | None = None, *overrides: Override) -> list[str]:
        """The problems of a bad configuration, ``p2pmqtt.toml`` for the whole path of the file."""
        with pytest.raises(ConfigError) as caught:
            self.load(text, environ, *overrides)
        assert str(caught.value) == "\n".join(caught.value.problems)
        return [problem.replace(str(self.file), "p2pmqtt.toml") for problem in caught.value.problems]


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(tmp_path)


# Defaults


def test_no_configuration_is_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    expected = dataclasses.replace(Settings(), store=StoreSettings(path=str(tmp_path / "p2pmqtt.db")))
    assert load_settings(None, {}) == expected
    assert expected.listeners == (ListenerSettings("tcp:1883:interface=127.0.0.1"),)


def test_the_example_is_the_defaults() -> None:
    expected = dataclasses.replace(Settings(), store=StoreSettings(path=str(ROOT / "p2pmqtt.db")))
    assert load_settings(str(EXAMPLE), {}) == expected


def test_the_examples_commented_options_are_good_too(config: Config) -> None:
    lines = [re.sub(r"^# (?=\[|\w+ = )", "", line) for line in EXAMPLE.read_text().splitlines()]
    text = "\n".join(line for line in lines if not line.startswith("jwks_url"))
    text = text.replace('client_certificate = "none"', 'client_certificate = "optional"')
    settings = config.load(text)
    assert settings.listeners[0].tls == TLSSettings(
        str(config.directory / "server.pem"),
        str(config.directory / "server.key"),
        str(config.directory / "ca.pem"),
        "optional",
    )
    assert settings.auth.jwt == JWTSettings(("RS256",), str(config.directory / "jwt.pem"), audience="mqtt")
    assert settings.auth.http == HTTPAuthSettings("http://127.0.0.1:8080/auth", 1.0)
    assert settings.auth.password_file == str(config.directory / "passwd")


TABLES: dict[str, tuple[type, Mapping[str, config_keys.Check], set[str]]] = {
    "listener": (ListenerSettings, config_keys.listener_keys(), {"tls"}),
    "listener.tls": (TLSSettings, config_keys.tls_keys("."), set()),
    "p2p": (P2PSettings, {key: config_keys.p2p_keys()[key] for key in ("mode", "marker")}, {"options", "router"}),
    "limits": (Limits, config_keys.limit_keys(), set()),
    "store": (StoreSettings, config_keys.store_keys("."), set()),
    "auth": (AuthSettings, config_keys.auth_keys("."), {"jwt", "http"}),
    "auth.jwt": (JWTSettings, config_keys.jwt_keys("."), set()),
    "auth.http": (HTTPAuthSettings, config_keys.http_keys(), set()),
}


@pytest.mark.parametrize("name", TABLES)
def test_keys_and_settings_have_the_same_names(name: str) -> None:
    settings, checks, tables = TABLES[name]
    assert {field.name for field in dataclasses.fields(settings)} == set(checks) | tables


def test_p2p_options_are_the_rest_of_the_p2p_table() -> None:
    names = {field.name for field in dataclasses.fields(P2POptions)}
    assert names | {"mode", "marker"} == set(config_keys.p2p_keys())


@pytest.mark.parametrize("settings", [Limits(), P2POptions(), ListenerSettings(), StoreSettings()])
def test_defaults_are_allowed(settings: Any) -> None:
    checks = {
        **config_keys.listener_keys(),
        **config_keys.p2p_keys(),
        **config_keys.limit_keys(),
        **config_keys.store_keys(str(ROOT)),
    }
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value is not None:
            checked = checks[field.name](list(value) if isinstance(value, tuple) else value)
            assert os.path.basename(str(checked)) == os.path.basename(str(value))
            assert type(checked) is type(value)


@pytest.mark.parametrize("document", ["p2pmqtt.example.toml", "docs/configuration.md"])
def test_every_key_is_documented(document: str) -> None:
    text = (ROOT / document).read_text()
    for _, checks, tables in TABLES.values():
        for key in {*checks, *tables} - {"options", "router"}:
            assert re.search(rf"\b{key}\b", text), key


def test_the_documents_toml_is_good(config: Config) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/configuration.md").read_text(), re.DOTALL)
    assert blocks
    for block in blocks:
        config.load(block)


# What is read


def test_everything_set(config: Config) -> None:
    settings = config.load(
        """
        [[listener]]
        endpoint = "tcp:0"
        allow_anonymous = true
        max_connections = 5

        [[listener]]
        endpoint = "tcp:8083"
        transport = "websocket"
        websocket_path = "/broker"
        allowed_origins = ["https://example.org", "null"]
        tls = { certificate = "server.pem", private_key = "server.key" }

        [p2p]
        mode = "suffix"
        marker = "to"
        overflow = "drop_oldest"

        [limits]
        max_qos = 1
        connect_timeout = 3

        [store]
        type = "memory"
        durability = "full"

        [auth]
        acl_file = "acl"
        jwt.jwks_url = "https://example.org/keys"
        """
    )
    here = str(config.directory)
    assert settings == Settings(
        listeners=(
            ListenerSettings("tcp:0", allow_anonymous=True, max_connections=5),
            ListenerSettings(
                "tcp:8083",
                "websocket",
                "/broker",
                ("https://example.org", "null"),
                tls=TLSSettings(f"{here}/server.pem", f"{here}/server.key"),
            ),
        ),
        p2p=P2PSettings("suffix", "to", P2POptions(overflow="drop_oldest")),
        limits=Limits(max_qos=1, connect_timeout=3.0),
        store=StoreSettings("memory", f"{here}/p2pmqtt.db", "full"),
        auth=AuthSettings(acl_file=f"{here}/acl", jwt=JWTSettings(jwks_url="https://example.org/keys")),
    )
    assert type(settings.limits.connect_timeout) is float


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().limits.max_qos = 0  # type: ignore[misc]  # frozen


def test_paths_are_meant_from_the_files_directory(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(config.directory.parent)
    settings = config.load('[store]\npath = "x.db"\n[auth]\nacl_file = "../acl"\n'.replace("../", "./"))
    assert settings.store.path == str(config.directory / "x.db")
    assert settings.auth.acl_file == str(config.directory / "acl")
    relative = os.path.relpath(config.file)
    assert load_settings(relative, {}) == settings


RANGES = [
    ("max_packet_size", 64, 268_435_460),
    ("max_qos", 0, 2),
    ("receive_maximum", 1, 65_535),
    ("max_inflight", 1, 65_535),
    ("topic_alias_maximum", 0, 65_535),
    ("max_topic_bytes", 1, 65_535),
    ("max_client_id_bytes", 23, 65_535),
    ("max_keep_alive", 0, 65_535),
    ("max_session_expiry", 0, 4_294_967_295),
]


@pytest.mark.parametrize(("key", "low", "high"), RANGES)
def test_ranges(config: Config, key: str, low: int, high: int) -> None:
    for good in (low, high):
        assert getattr(config.load(f"[limits]\n{key} = {good}").limits, key) == good
    for bad in (low - 1, high + 1):
        expected = f"p2pmqtt.toml:2: limits.{key}: must be a whole number from {low} to {high}, got {bad}"
        assert config.problems(f"[limits]\n{key} = {bad}") == [expected]


# What is refused: the text, and the problem less "p2pmqtt.toml:" before it

REFUSED = [
    ("[limits]\nmax_qos = true", "2: limits.max_qos: must be a whole number from 0 to 2, got true"),
    ("[limits]\nmax_qos = 1.0", "2: limits.max_qos: must be a whole number from 0 to 2, got 1.0"),
    ("[limits]\nmax_qos = '1'", "2: limits.max_qos: must be a whole number from 0 to 2, got '1'"),
    ("[limits]\npublish_rate = nan", "2: limits.publish_rate: must be a number from 0 to 2.14748e+09, got nan"),
    ("[limits]\nconnect_timeout = 0", "2: limits.connect_timeout: must be a number from 0.1 to 3600, got 0"),
    ("[limits]\nconnect_timeout = true", "2: limits.connect_timeout: must be a number from 0.1 to 3600, got true"),
    ("[limits]\nretain_available = 1", "2: limits.retain_available: must be true or false, got 1"),
    ("[limits]\n\nmax_qoss = 1", "3: limits.max_qoss: unknown option 'max_qoss'; did you mean 'max_qos'?"),
    (
        "[store]\nzzz = 1",
        "2: store.zzz: unknown option 'zzz', must be one of type, path, durability",
    ),
    ("[limts]\nmax_qos = 1", "1: limts: unknown table 'limts'; did you mean 'limits'?"),
    ("[listeners]", "1: listeners: unknown table 'listeners'; did you mean 'listener'?"),
    ("[listener]", "1: listener: must be an array of tables, each written [[listener]]"),
    ("listener = [1]", "1: listener.0: must be a table, written [listener.0]"),
    ("limits = 1", "1: limits: must be a table, written [limits]"),
    (
        "[limits]\nmin_keep_alive = 60\nmax_keep_alive = 30",
        "3: limits.max_keep_alive: must be 0 (no cap) or at least min_keep_alive, 60, got 30",
    ),
    (
        "[p2p]\nmode = 'prefx'",
        "2: p2p.mode: must be one of 'off', 'prefix', 'suffix', 'both', or 'package.module:factory', got 'prefx';"
        " did you mean 'prefix'?",
    ),
    (
        "[p2p]\noverflow = 'drop_old'",
        "2: p2p.overflow: must be one of 'reject', 'drop_oldest', got 'drop_old'; did you mean 'drop_oldest'?",
    ),
    (
        "[p2p]\nmode = 'no_such_module_anywhere:make'",
        "2: p2p.mode: cannot import 'no_such_module_anywhere': ModuleNotFoundError: No module named"
        " 'no_such_module_anywhere'",
    ),
    ("[p2p]\nmode = 'os.path:joyn'", "2: p2p.mode: 'os.path' has no 'joyn'; did you mean 'join'?"),
    (
        "[p2p]\nmode = 'os:sep'",
        "2: p2p.mode: 'os:sep' is not callable, must be a class or function that makes an IP2PRouter",
    ),
    ("[store]\npath = 'no/where.db'", "2: store.path: must be in a directory that exists, '{here}/no' does not"),
    ("[store]\npath = '.'", "2: store.path: must be a file, '{here}' is a directory"),
    ("[store]\npath = ''", "2: store.path: must be a string, not empty, got ''"),
    (
        "[auth]\npassword_file = 'passwords'",
        "2: auth.password_file: must be a file that can be read, '{here}/passwords' is not: No such file or directory",
    ),
    (
        "[auth]\nacl_file = '.'",
        "2: auth.acl_file: must be a file that can be read, '{here}' is not: Is a directory",
    ),
    ("[auth]\n[auth.jwt]", "2: auth.jwt: exactly one of key_file and jwks_url must be set"),
    (
        "[auth.jwt]\nkey_file = 'jwt.pem'\njwks_url = 'https://x/'",
        "1: auth.jwt: exactly one of key_file and jwks_url must be set",
    ),
    (
        "[auth.jwt]\nkey_file = 'jwt.pem'\nalgorithms = ['HS256', 'RS256']",
        "3: auth.jwt.algorithms: must be either signatures (RS, ES, PS, EdDSA) or secrets (HS), not both,"
        " got ['HS256', 'RS256']",
    ),
    (
        "[auth.jwt]\nkey_file = 'jwt.pem'\nalgorithms = []",
        "3: auth.jwt.algorithms: must be a list of at least 1, got []",
    ),
    ("[auth.http]\ntimeout = 1", "1: auth.http: url is missing: must be http://... or https://..."),
    ("[auth.http]\nurl = 'ftp://x'", "2: auth.http.url: must be a URL, http://... or https://..., got 'ftp://x'"),
    (
        "[[listener]]\ntransport = 'websockets'",
        "2: listener.0.transport: must be one of 'mqtt', 'websocket', got 'websockets'; did you mean 'websocket'?",
    ),
    (
        "[[listener]]\nwebsocket_path = '/x'",
        "2: listener.0.websocket_path: is allowed only with transport = 'websocket'",
    ),
    (
        "[[listener]]\nallowed_origins = ['http://x']",
        "2: listener.0.allowed_origins: is allowed only with transport = 'websocket'",
    ),
    (
        "[[listener]]\ntransport = 'websocket'\nwebsocket_path = 'mqtt'",
        "3: listener.0.websocket_path: must be a path that starts with / and has no ? or #, got 'mqtt'",
    ),
    (
        "[[listener]]\ntransport = 'websocket'\nallowed_origins = ['http://x/y']",
        "3: listener.0.allowed_origins: must be a list of origins such as 'https://example.org', without a path,"
        " got 'http://x/y'",
    ),
    (
        "[[listener]]\ntransport = 'websocket'\nallowed_origins = 'http://x'",
        "3: listener.0.allowed_origins: must be a list, got 'http://x'",
    ),
    (
        "[[listener]]\nmax_connections = 0",
        "2: listener.0.max_connections: must be a whole number from 1 to 2147483647, got 0",
    ),
    (
        "[[listener]]\nendpoint = 'tcp:1883'\n[[listener]]\nendpoint = 'tcp:port=1883'",
        "4: listener.1.endpoint: each listener must have an endpoint of its own, 'tcp:port=1883' is listener.0's",
    ),
    (
        "[[listener]]\n[[listener]]",
        "2: listener.1.endpoint: each listener must have an endpoint of its own,"
        " 'tcp:1883:interface=127.0.0.1' is listener.0's",
    ),
    (
        "[[listener]]\n[listener.tls]\ncertificate = 'server.pem'",
        "2: listener.0.tls: private_key is missing: certificate and private_key must both be set",
    ),
    (
        "[[listener]]\n[listener.tls]\ncertificate = 'server.pem'\nprivate_key = 'x'",
        "4: listener.0.tls.private_key: must be a file that can be read, '{here}/x' is not: No such file or directory",
    ),
    (
        "[[listener]]\ntls.certificate = 'server.pem'\ntls.private_key = 'server.key'\ntls.client_ca = 'ca.pem'",
        "4: listener.0.tls.client_ca: is allowed only with client_certificate = 'optional' or 'required'",
    ),
    (
        "[[listener]]\ntls.certificate = 'server.pem'\ntls.private_key = 'server.key'\ntls.identity = 'cn'",
        "4: listener.0.tls.identity: is allowed only with client_certificate = 'optional' or 'required'",
    ),
    (
        "[[listener]]\ntls.certificate = 'server.pem'\ntls.private_key = 'server.key'\n"
        "tls.client_certificate = 'required'",
        "4: listener.0.tls.client_certificate: needs client_ca, which says whose certificates count",
    ),
]


@pytest.mark.parametrize(("text", "problem"), REFUSED)
def test_refused(config: Config, text: str, problem: str) -> None:
    assert config.problems(text) == ["p2pmqtt.toml:" + problem.replace("{here}", str(config.directory))]


@pytest.mark.parametrize("marker", ["", "a/b", "+", "a#", "$p2p", "a\\u0000", "a\\n"])
def test_marker_is_one_level(config: Config, marker: str) -> None:
    (problem,) = config.problems(f'[p2p]\nmarker = "{marker}"')
    assert problem.startswith("p2pmqtt.toml:2: p2p.marker: must be one topic level: ")


def test_tls_over_tls_is_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_keys, "check_endpoint", lambda description: None)
    text = "[[listener]]\nendpoint = 'ssl:8883'\ntls = {certificate = 'server.pem', private_key = 'server.key'}"
    expected = "p2pmqtt.toml:3: listener.0.tls: is not allowed with an ssl: endpoint, which is TLS already; use tcp:"
    assert config.problems(text) == [expected]


@pytest.mark.parametrize(
    ("module", "text", "problem"),
    [
        ("wsproto", "[[listener]]\ntransport = 'websocket'", "2: listener.0.transport: needs wsproto, {}[websocket]'"),
        (
            "OpenSSL",
            "[[listener]]\n[listener.tls]\ncertificate = 'server.pem'\nprivate_key = 'server.key'",
            "2: listener.0.tls: needs OpenSSL, {}[tls]'",
        ),
        ("jwt", "[auth.jwt]\nkey_file = 'jwt.pem'", "1: auth.jwt: needs jwt, {}[auth]'"),
    ],
)
def test_missing_extras(config: Config, monkeypatch: pytest.MonkeyPatch, module: str, text: str, problem: str) -> None:
    def find_spec(name: str) -> object:
        return None if name == module else object()

    monkeypatch.setattr("importlib.util.find_spec", find_spec)
    expected = problem.format("which is not installed: pip install 'twisted_p2pmqtt")
    assert config.problems(text) == ["p2pmqtt.toml:" + expected]


def test_all_problems_at_once(config: Config) -> None:
    problems = config.problems(
        "top = 1\n"
        "[[listener]]\n"
        "endpoint = 'tpc:1'\n"
        "[[listener]]\n"
        "endpoint = 'tcp:x'\n"
        "max_conections = 1\n"
        "[limits]\n"
        "max_qos = 7\n"
        "max_inflight = 0\n"
        "[store]\n"
        "type = 'sqlight'\n",
        {"P2PMQTT__P2P__MARKER": "a/b", "P2PMQTT__NOPE": "1"},
        Override(("p2p", "mode"), "postfix", "--p2p-mode"),
    )
    assert [problem.split(": ")[:2] for problem in problems] == [
        ["p2pmqtt.toml:1", "top"],
        ["P2PMQTT__NOPE", "nope"],
        ["p2pmqtt.toml:3", "listener.0.endpoint"],
        ["p2pmqtt.toml:5", "listener.1.endpoint"],
        ["p2pmqtt.toml:6", "listener.1.max_conections"],
        ["P2PMQTT__P2P__MARKER", "p2p.marker"],
        ["--p2p-mode", "p2p.mode"],
        ["p2pmqtt.toml:8", "limits.max_qos"],
        ["p2pmqtt.toml:9", "limits.max_inflight"],
        ["p2pmqtt.toml:11", "store.type"],
    ]


def test_long_values_are_cut(config: Config) -> None:
    (problem,) = config.problems(f"[store]\ntype = '{'x' * 10_000}'")
    assert len(problem) < 300


# Files that are no TOML


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"[limits]\nmax_qos = ", ":2:11: not valid TOML: Invalid value"),
        (b"a = 1\na = 2\n", ":2:6: not valid TOML: Cannot overwrite a value"),
        (b"a = 1\nb = '\xff'\n", ":2: not UTF-8 text, as TOML must be"),
        (b"a = " + b"[" * 100_000, ": not usable: arrays or tables are nested too deeply"),
    ],
)
def test_no_toml(config: Config, data: bytes, problem: str) -> None:
    config.file.write_bytes(data)
    with pytest.raises(ConfigError) as caught:
        load_settings(str(config.file), {"P2PMQTT__LISTENER__5__X": "1"})
    assert caught.value.problems == (str(config.file) + problem,)


def test_no_file(config: Config) -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(str(config.file), {})
    assert caught.value.problems == (f"{config.file}: cannot be read: No such file or directory",)


def test_byte_order_mark_is_no_problem(config: Config) -> None:
    config.file.write_bytes(b"\xef\xbb\xbf[limits]\r\nmax_qos = 1\r\n")
    assert load_settings(str(config.file), {}).limits.max_qos == 1


# Environment and command line


def test_environment_wins_over_the_file(config: Config) -> None:
    settings = config.load(
        "[limits]\nmax_qos = 2\nmax_inflight = 7\n[[listener]]\nendpoint = 'tcp:1'",
        {
            "P2PMQTT__LIMITS__MAX_QOS": "1",
            "P2PMQTT__LISTENER__0__ENDPOINT": "tcp:2883",
            "P2PMQTT__LISTENER__0__ALLOW_ANONYMOUS": "true",
            "P2PMQTT__LISTENER__1__ENDPOINT": "tcp:2884",
            "P2PMQTT__STORE__PATH": "'1'",
            "P2PMQTT__P2P__MARKER": "x\ny = 1",
            "LIMITS__MAX_QOS": "0",
        }
        | {"P2PMQTT__P2P__MARKER": "to"},
    )
    assert settings.limits == Limits(max_qos=1, max_inflight=7)
    assert settings.listeners == (ListenerSettings("tcp:2883", allow_anonymous=True), ListenerSettings("tcp:2884"))
    assert settings.store.path == str(config.directory / "1")
    assert settings.p2p.marker == "to"


def test_environment_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("P2PMQTT__LISTENER__0__ENDPOINT", "tcp:2883")
    assert load_settings().listeners == (ListenerSettings("tcp:2883"),)


def test_environment_list_elements_in_any_order(config: Config) -> None:
    environ = {f"P2PMQTT__LISTENER__{index}__ENDPOINT": f"tcp:{2000 + index}" for index in range(11, -1, -1)}
    assert [listener.endpoint for listener in config.load("", environ).listeners] == [
        f"tcp:{2000 + index}" for index in range(12)
    ]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("LIMITS__MAX_QOS", "3", "limits.max_qos: must be a whole number from 0 to 2, got 3"),
        ("LIMITS__MAX_QOS", "two", "limits.max_qos: must be a whole number from 0 to 2, got 'two'"),
        ("LIMITS__MAX_QOS", "1\n[p2p]", "limits.max_qos: must be a whole number from 0 to 2, got '1\\n[p2p]'"),
        ("LIMITS__MAXQOS", "1", "limits.maxqos: unknown option 'maxqos'; did you mean 'max_qos'?"),
        ("LIMITS", "1", "limits: must be a table, written [limits]"),
        ("LIMITS__0", "1", "limits.0: 0 must be the name of a key: only arrays of tables have numbers"),
        ("LIMITS__MAX_QOS__X", "1", "limits.max_qos.x: 'x' must be in a table, but 1 is none"),
        ("LISTENER__ENDPOINT", "x", "listener.endpoint: 'endpoint' must be the number of an element, counted from 0"),
        (
            "LISTENER__5__ENDPOINT",
            "x",
            "listener.5.endpoint: there are 1 elements, so the number must be from 0 to 1, got 5",
        ),
        ("LISTENER__0__ENDPOINT__X", "1", "listener.0.endpoint.x: 'x' must be in a table, but 'tcp:1' is none"),
    ],
)
def test_environment_errors_name_the_variable(config: Config, name: str, value: str, problem: str) -> None:
    text = "[limits]\nmax_qos = 1\n[[listener]]\nendpoint = 'tcp:1'"
    assert config.problems(text, {f"P2PMQTT__{name}": value})[0] == f"P2PMQTT__{name}: {problem}"


def test_command_line_wins_over_all(config: Config) -> None:
    settings = config.load(
        "[[listener]]\nendpoint = 'tcp:1'\nmax_connections = 5",
        {"P2PMQTT__LISTENER__0__ENDPOINT": "tcp:2"},
        Override(("listener",), [{"endpoint": "tcp:3"}], "--listen"),
    )
    assert settings.listeners == (ListenerSettings("tcp:3"),)


def test_command_line_errors_name_the_option_and_not_the_line_it_replaced(config: Config) -> None:
    text = "[[listener]]\nendpoint = 'tcp:1'"
    problems = config.problems(text, {}, Override(("listener",), [{"endpoint": "tcp"}], "--listen"))
    assert len(problems) == 1
    assert problems[0].startswith("--listen: listener.0.endpoint: not a valid endpoint string")


def test_overrides_leave_other_loads_alone(config: Config) -> None:
    override = Override(("listener",), [{"endpoint": "tcp:3"}], "--listen")
    config.load("", {}, override)
    assert override == Override(("listener",), [{"endpoint": "tcp:3"}], "--listen")
    assert config.load("").listeners == (ListenerSettings(),)


def test_where_falls_back_to_the_table(config: Config) -> None:
    config.file.write_text("\n[limits]\nmax_qos = 1")
    source = config_sources.Source(str(config.file), {})
    assert source.where(("limits", "max_qos")) == f"{config.file}:3"
    assert source.where(("limits", "max_inflight")) == f"{config.file}:2"
    assert source.where(("store", "path")) == str(config.file)
    assert config_sources.Source(None, {}).where(("store", "path")) == "(defaults)"


# Who may come in without credentials

LOOPBACK = ("tcp:1883:interface=127.0.0.1", "tcp6:1883:interface=\\:\\:1", "unix:/run/mqtt")
ELSEWHERE = (
    "tcp:1883",
    "tcp:1883:interface=192.0.2.1",
    "haproxy:tcp:1883:interface=127.0.0.1",
    "systemd:domain=INET:index=0",
)


@pytest.mark.parametrize("endpoint", LOOPBACK)
def test_loopback_is_open_without_auth(endpoint: str) -> None:
    assert anonymous_allowed(ListenerSettings(endpoint), AuthSettings()) is True
    assert anonymous_allowed(ListenerSettings(endpoint), AuthSettings(password_file="passwd")) is False
    assert anonymous_allowed(ListenerSettings(endpoint), AuthSettings(acl_file="acl")) is False


@pytest.mark.parametrize("endpoint", ELSEWHERE)
def test_elsewhere_is_closed(endpoint: str) -> None:
    assert anonymous_allowed(ListenerSettings(endpoint), AuthSettings()) is False


@pytest.mark.parametrize("endpoint", LOOPBACK + ELSEWHERE)
@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("auth", [AuthSettings(), AuthSettings(password_file="passwd")])
def test_what_is_told_wins(endpoint: str, allowed: bool, auth: AuthSettings) -> None:
    assert anonymous_allowed(ListenerSettings(endpoint, allow_anonymous=allowed), auth) is allowed


TLS = TLSSettings("server.pem", "server.key", "ca.pem", "required", "cn")


@pytest.mark.parametrize(
    ("listener", "auth", "warning"),
    [
        (ListenerSettings(), AuthSettings(), None),
        (ListenerSettings("tcp:1883"), AuthSettings(), "nobody can connect"),
        (ListenerSettings(allow_anonymous=False), AuthSettings(), "nobody can connect"),
        (ListenerSettings("tcp:1883"), AuthSettings(acl_file="acl"), "nobody can connect"),
        (ListenerSettings("tcp:1883"), AuthSettings(password_file="passwd"), None),
        (ListenerSettings("tcp:1883"), AuthSettings(http=HTTPAuthSettings("http://x/")), None),
        (ListenerSettings("tcp:1883", tls=TLS), AuthSettings(), None),
        (ListenerSettings("tcp:1883", allow_anonymous=True), AuthSettings(), "anyone who can reach it"),
        (ListenerSettings("tcp:1883", allow_anonymous=True), AuthSettings(acl_file="acl"), None),
        (ListenerSettings("unix:/run/mqtt"), AuthSettings(), None),
    ],
)
def test_warnings(listener: ListenerSettings, auth: AuthSettings, warning: str | None) -> None:
    found = warnings(Settings(listeners=(listener,), auth=auth))
    assert len(found) == (warning is not None)
    assert not found or (warning or "") in found[0]
    assert not found or found[0].startswith(f"listener.0 ({listener.endpoint}): ")


def test_unchecked_systemd_endpoint_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LISTEN_FDS", raising=False)
    listener = ListenerSettings("systemd:domain=INET:index=0")
    (warning,) = warnings(Settings(listeners=(listener,), auth=AuthSettings(password_file="passwd")))
    assert "systemd handed no sockets" in warning


# A router of one's own


ROUTERS = """
from zope.interface import implementer
from twisted_p2pmqtt import IP2PRouter, PrefixP2PRouter

class Routers:
    made = []

    def make():
        Routers.made.append(PrefixP2PRouter())
        return Routers.made[-1]

def nothing():
    pass

def fails():
    return {}["table"]

def needs(table):
    pass

class Undeclared:
    def resolve(self, topic):
        pass

@implementer(IP2PRouter)
class Empty:
    pass

@implementer(IP2PRouter)
class Narrow:
    def resolve(self):
        pass
"""


@pytest.fixture
def routers(config: Config, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A module of the user's, ``my_routers``."""
    (config.directory / "my_routers.py").write_text(ROUTERS)
    monkeypatch.syspath_prepend(str(config.directory))
    yield
    sys.modules.pop("my_routers", None)


@pytest.mark.usefixtures("routers")
def test_router_factory(config: Config) -> None:
    settings = config.load("[p2p]\nmode = 'my_routers:Routers.make'").p2p
    assert settings.mode == "my_routers:Routers.make"
    assert [settings.router] == sys.modules["my_routers"].Routers.made  # called once
    assert router_from(settings) is settings.router
    by_hand = P2PSettings("my_routers:Routers.make")
    assert isinstance(router_from(by_hand), PrefixP2PRouter)


@pytest.mark.usefixtures("routers")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nothing", "makes no IP2PRouter: The object None has failed to implement interface"),
        ("fails", "cannot make a router: KeyError: 'table'"),
        ("needs", "cannot make a router: TypeError: needs() missing 1 required positional argument: 'table'"),
        ("Undeclared", "makes no IP2PRouter: The object <my_routers.Undeclared object at"),
        ("Empty", "makes no IP2PRouter: The object <my_routers.Empty object at"),
        ("Narrow", "makes no IP2PRouter: The object <my_routers.Narrow object at"),
    ],
)
def test_router_factory_that_makes_none(config: Config, name: str, expected: str) -> None:
    mode = f"my_routers:{name}"
    (problem,) = config.problems(f"[p2p]\nmode = '{mode}'")
    assert problem.startswith(f"p2pmqtt.toml:2: p2p.mode: {mode!r} {expected}")
    assert "\n" not in problem
    with pytest.raises(ConfigError, match=f"^p2p.mode: '{mode}' "):
        router_from(P2PSettings(mode))


def test_router_module_that_fails(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    (config.directory / "my_broken_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(config.directory))
    expected = "p2pmqtt.toml:2: p2p.mode: cannot import 'my_broken_module': ZeroDivisionError: division by zero"
    assert config.problems("[p2p]\nmode = 'my_broken_module:make'") == [expected]


def test_tomli_tells_positions() -> None:
    """What the lower bound on tomli is for."""
    with pytest.raises(tomli.TOMLDecodeError) as caught:
        tomli.loads("a =")
    assert (caught.value.lineno, caught.value.colno) == (1, 4)
