"""Listeners from settings to sockets: what a port serves, what is told before one opens, PROXY headers, the stop."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import Site

import twisted_p2pmqtt.net
from tests.net.certificates import Pki
from tests.net.sockets import SocketClient, connected
from twisted_p2pmqtt import Limits, MQTTService
from twisted_p2pmqtt.codec.packets import Connect
from twisted_p2pmqtt.codec.writer import encode
from twisted_p2pmqtt.config import ConfigError, ListenerSettings, Settings, StoreSettings, TLSSettings
from twisted_p2pmqtt.net.tls import KEY_UPDATES
from twisted_p2pmqtt.service import tls_contexts
from twisted_p2pmqtt.tap import Options

ANY_PORT = "tcp:0:interface=127.0.0.1"
MEMORY = StoreSettings("memory")


def settings(*listeners: ListenerSettings, **more: Any) -> Settings:
    return Settings(listeners=listeners, store=MEMORY, **more)


class Started:
    """A service that listens, and where."""

    def __init__(self, *listeners: ListenerSettings, **more: Any) -> None:
        self.service = MQTTService(settings(*listeners, **more), reactor)
        self.service.startService()
        ports: Any = self.service._ports
        self.ports: list[Any] = [port.getHost() for port in ports]

    @property
    def peers(self) -> list[str]:
        return [session.connection.peer for session in self.service.broker.sessions.values() if session.connection]

    async def client(self, client_id: str, kind: str = "tcp", ca: str | None = None, index: int = 0) -> SocketClient:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.ports[index].port)
        return await connected(reactor, endpoint, kind, ca, client_id)


# What is wrong


def problems(made: Settings) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        MQTTService(made, Clock())
    return list(caught.value.problems)


def test_every_bad_file_is_told(pki: Pki, tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    good, bad = TLSSettings(pki.certificate, pki.key), TLSSettings(none, pki.certificate)
    assert problems(settings(*(ListenerSettings(ANY_PORT, tls=tls) for tls in (None, bad, good, bad)))) == [
        f"listener.{index}.tls.{problem}"
        for index in (1, 3)
        for problem in (
            f"certificate: {none!r} cannot be read: No such file or directory",
            f"private_key: {pki.certificate!r} holds no private key in PEM form",
        )
    ]


def test_a_check_reads_the_files(pki: Pki, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "p2pmqtt.toml"
    file.write_text(f"[[listener]]\n[listener.tls]\ncertificate='{pki.key}'\nprivate_key='{pki.key}'\n")
    with pytest.raises(SystemExit) as caught:
        cast(Any, Options)().parseOptions(["--config", str(file), "--check"])
    assert caught.value.code == 1
    assert f"listener.0.tls.certificate: {pki.key!r} holds no certificate in PEM form" in capsys.readouterr().err


def test_websocket_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.startswith(("twisted_p2pmqtt.net.websocket", "wsproto.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(twisted_p2pmqtt.net, "websocket", raising=False)
    monkeypatch.setitem(sys.modules, "wsproto", None)
    (problem,) = problems(settings(ListenerSettings(ANY_PORT, "websocket")))
    assert problem == "WebSocket needs wsproto, which is not installed: pip install 'twisted_p2pmqtt[websocket]'"
    with pytest.raises(ConfigError):
        MQTTService(reactor=Clock()).websocket_resource()


def test_tls_without_its_extra(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "OpenSSL", None)
    listener = ListenerSettings(ANY_PORT, tls=TLSSettings(pki.certificate, pki.key))
    (problem,) = problems(settings(listener))
    extra = "pip install 'twisted_p2pmqtt[tls]'"
    assert problem == f"listener.0.tls: needs OpenSSL, which is not installed: {extra}"


def test_listeners_without_tls_need_no_context() -> None:
    assert tls_contexts([ListenerSettings(), ListenerSettings()]) == [None, None]


# What is served


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_one_broker_on_every_kind_of_listener(pki: Pki, tmp_path: Path) -> None:
    tls = TLSSettings(pki.certificate, pki.key)
    started = Started(
        ListenerSettings(ANY_PORT),
        ListenerSettings(ANY_PORT, tls=tls),
        ListenerSettings(ANY_PORT, "websocket", "/elsewhere"),
        ListenerSettings(f"unix:{tmp_path / 'mqtt.sock'}"),
    )
    plain = await started.client("plain")
    secure = await started.client("secure", "tls", pki.ca, 1)
    await secure.publish("p2p/plain/a", b"x", 1)
    await plain.until(lambda: len(plain.messages) == 1)
    assert [client.split(":")[0] for client in started.peers] == ["127.0.0.1"] * 2

    def elsewhere() -> bytes:
        with socket.create_connection(("127.0.0.1", started.ports[2].port), 5) as link:
            link.sendall(b"GET /mqtt HTTP/1.1\r\nHost: x\r\n\r\n")
            return link.recv(100)

    def unix() -> bytes:
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(tmp_path / "mqtt.sock"))
            link.sendall(encode(Connect("unix", 4), 4))
            return link.recv(4)

    assert (await deferToThread(elsewhere)).startswith(b"HTTP/1.1 404 ")
    assert await deferToThread(unix) == b"\x20\2\0\0"
    await started.service.stopService()
    await plain.until(lambda: plain.is_lost)
    await secure.until(lambda: secure.is_lost)


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_the_name_in_a_certificate_is_the_user(pki: Pki) -> None:
    tls = TLSSettings(pki.certificate, pki.key, pki.ca, "required", "cn")
    started = Started(ListenerSettings(ANY_PORT, tls=tls))

    def connect() -> bytes:
        context = ssl.create_default_context(cafile=pki.ca)
        context.load_cert_chain(*pki.client("device"))
        with (
            socket.create_connection(("127.0.0.1", started.ports[0].port), 5) as link,
            context.wrap_socket(link, server_hostname="localhost") as secure,
        ):
            secure.sendall(encode(Connect("c", 4), 4))
            return secure.recv(4)

    assert await deferToThread(connect) == b"\x20\2\0\0"
    await started.service.stopService()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="not installed: openssl")
@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_a_client_that_changes_its_keys_all_the_time_is_aborted(pki: Pki) -> None:
    started = Started(ListenerSettings(ANY_PORT, tls=TLSSettings(pki.certificate, pki.key)))
    (factory,) = started.service.factories

    def change_keys(times: int) -> bool:
        """Is the client still connected, having done so?"""
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{started.ports[0].port}", "-tls1_3"]
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        with subprocess.Popen(command, bufsize=0, stdin=pipe, stdout=pipe, stderr=null) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            while b"Verify return code" not in client.stdout.readline():
                pass
            with contextlib.suppress(BrokenPipeError):
                for _ in range(times):
                    client.stdin.write(b"K\n")  # s_client takes one command at a time
                    time.sleep(0.002)
                    if not factory.connections:
                        break
            is_connected = bool(factory.connections)
            client.kill()
        return is_connected

    assert await deferToThread(change_keys, KEY_UPDATES // 2)
    assert not await deferToThread(change_keys, 20 * KEY_UPDATES)
    await started.service.stopService()


# Behind a proxy


def proxied(port: int, host: str, context: ssl.SSLContext | None = None) -> tuple[bytes, str]:
    """Connect as a proxy would for this host; gives the answer."""
    with socket.create_connection(("127.0.0.1", port), 5) as link:
        link.sendall(f"PROXY TCP4 {host} 127.0.0.1 40000 1883\r\n".encode())
        wire = link if context is None else context.wrap_socket(link, server_hostname="localhost")
        with wire:
            wire.sendall(encode(Connect(host, 4), 4))
            return wire.recv(4), host


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
@pytest.mark.parametrize("is_tls", [False, True])
async def test_behind_a_proxy_the_clients_address_counts(pki: Pki, is_tls: bool) -> None:
    started = Started(
        ListenerSettings(
            f"haproxy:{ANY_PORT}",
            allow_anonymous=True,
            tls=TLSSettings(pki.certificate, pki.key) if is_tls else None,
        ),
        limits=Limits(connections_per_address=1),
    )
    seen: list[str] = []

    class Watch:
        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: None

        def connected(self, client_id: str, session: Any) -> None:
            seen.extend(started.peers)

    watch: Any = Watch()
    started.service.broker.add_observer(watch)
    context = ssl.create_default_context(cafile=pki.ca) if is_tls else None
    port = started.ports[0].port
    for host in ("10.0.0.1", "10.0.0.2"):
        assert (await deferToThread(proxied, port, host, context))[0] == b"\x20\2\0\0"
    assert "10.0.0.1:40000" in seen
    assert "10.0.0.2:40000" in seen
    await started.service.stopService()


# The stop, and sites


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_clients_of_a_site_end_with_the_service() -> None:
    service = MQTTService(reactor=reactor)
    service.startService()
    root = Resource()
    root.putChild(b"mqtt", service.websocket_resource(allow_anonymous=True))
    port: Any = reactor.listenTCP(0, Site(root), interface="127.0.0.1")  # type: ignore[arg-type]  # has the methods used
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    client = await connected(reactor, endpoint, "websocket", None, "c")
    await client.subscribe("a")
    service.broker.publish("a", b"x")
    await client.until(lambda: len(client.messages) == 1)
    await service.stopService()
    await client.until(lambda: client.is_lost)
    await port.stopListening()
    await deferLater(reactor, 0, lambda: None)


@pytest_twisted.ensureDeferred  # type: ignore[untyped-decorator]  # it has no types
async def test_a_sites_clients_log_in_unless_told() -> None:
    service = MQTTService(reactor=reactor)
    service.startService()
    root = Resource()
    root.putChild(b"mqtt", service.websocket_resource())
    port: Any = reactor.listenTCP(0, Site(root), interface="127.0.0.1")  # type: ignore[arg-type]  # has the methods used
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
    with pytest.raises(AssertionError):
        await connected(reactor, endpoint, "websocket", None, "c")
    await service.stopService()
    await port.stopListening()
