"""twisted_p2pmqtt.endpoint_strings: any endpoint string is understood, and nothing is opened."""

from __future__ import annotations

import datetime
import socket
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from twisted_p2pmqtt import endpoint_strings
from twisted_p2pmqtt.endpoint_strings import ListenAddress, check_endpoint, known_kinds, listen_address


@pytest.mark.parametrize(
    ("description", "address", "local"),
    [
        ("tcp:1883", ListenAddress("tcp", "", 1883), False),
        ("tcp:1883:interface=127.0.0.1", ListenAddress("tcp", "127.0.0.1", 1883), True),
        ("tcp:1883:127.8.9.1", ListenAddress("tcp", "127.8.9.1", 1883), True),
        ("tcp:port=1883:interface=localhost", ListenAddress("tcp", "localhost", 1883), True),
        ("tcp:1883:interface=0.0.0.0", ListenAddress("tcp", "0.0.0.0", 1883), False),
        ("tcp:1883:interface=192.0.2.1", ListenAddress("tcp", "192.0.2.1", 1883), False),
        ("tcp:1883:interface=\\:\\:1", ListenAddress("tcp", "::1", 1883), True),
        ("tcp6:1883", ListenAddress("tcp", "::", 1883), False),
        ("tcp6:1883:interface=\\:\\:1", ListenAddress("tcp", "::1", 1883), True),
        ("unix:/run/mqtt.sock:mode=600", ListenAddress("unix", "/run/mqtt.sock", None), True),
    ],
)
def test_address(description: str, address: ListenAddress, local: bool) -> None:
    check_endpoint(description)
    assert listen_address(description) == address
    assert address.is_local is local


@pytest.mark.parametrize(
    "description", ["haproxy:tcp:1883:interface=127.0.0.1", "stdio:", "systemd:domain=INET:name=x"]
)
def test_address_that_cannot_be_known(description: str) -> None:
    check_endpoint(description)
    assert listen_address(description) is None


@pytest.mark.parametrize(
    ("description", "reason"),
    [
        ("tpc:1883", "unknown endpoint type 'tpc', must be one of .*; did you mean 'tcp'\\?"),
        ("1883", "unknown endpoint type '1883'"),
        ("tcp", "not a valid endpoint string"),
        ("tcp:mqtt", "not a valid endpoint string: .*mqtt"),
        ("tcp:1883:interfaces=::1", "not a valid endpoint string"),
        ("tcp:70000", "port must be from 0 to 65535, got 70000"),
        ("tcp:-1", "port must be from 0 to 65535, got -1"),
        ("ssl:8883:privateKey=/nowhere/x.pem", "not a valid endpoint string: .*/nowhere/x.pem"),
        ("haproxy:", "not a valid endpoint string"),
    ],
)
def test_bad_strings(description: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_endpoint(description)
    address = listen_address(description)
    assert address is None or address.port in (70000, -1)


def self_signed() -> bytes:
    """A private key and its certificate, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def test_address_of_twisteds_own_tls_endpoint(tmp_path: Path) -> None:
    (tmp_path / "server.pem").write_bytes(self_signed())
    description = f"ssl:8883:privateKey={tmp_path}/server.pem:interface=127.0.0.1"
    check_endpoint(description)
    assert listen_address(description) == ListenAddress("tcp", "127.0.0.1", 8883)


def test_systemd_is_looked_up_under_systemd_only(monkeypatch: pytest.MonkeyPatch) -> None:
    check_endpoint("systemd:domain=INET:index=0")
    monkeypatch.setenv("LISTEN_FDS", "1")
    with pytest.raises(ValueError, match="not a valid endpoint string"):
        check_endpoint("systemd:domain=INET:index=0")


def test_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a socket was made")

    monkeypatch.setattr(socket, "socket", refuse)
    check_endpoint("tcp:1883")
    assert listen_address("tcp:1883") == ListenAddress("tcp", "", 1883)


def test_plugins_are_never_told_to_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    class Plugin:
        prefix = "evil"

        def parseStreamServer(self, *args: object) -> object:
            raise AssertionError("asked for an endpoint to listen on")

    monkeypatch.setattr(endpoint_strings, "getPlugins", lambda interface: [Plugin()])
    assert "evil" in known_kinds()
    assert listen_address("evil:1") is None
