"""TLS for a listener: a context from PEM files, and the factory that puts TLS under another.

Endpoint strings (``ssl:``, ``tls:``) cannot ask for client certificates nor offer ALPN, so a listener with TLS is a
plain endpoint whose factory is wrapped here; that way TLS also runs behind a PROXY header and on Unix sockets.

What the files hold is checked when the context is made, before a port opens: ``TLSFilesError`` names every problem.  A
peer that never finishes its handshake is dropped at the MQTT connect timeout: the protocol above TLS exists from accept
on.

Needs pyOpenSSL and cryptography, the extra ``tls``, but only when it is used.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

NONE, OPTIONAL, REQUIRED = "none", "optional", "required"
"""Whether a client has to show a certificate.  One that it does show must be good, or the handshake fails."""


KEY_UPDATES = 100
"""How often a client may change its keys within a minute."""


class TLSFilesError(ValueError):
    """The files make no TLS server.  ``problems``: pairs of the setting's name and a text, at least one."""

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{name}: {text}" for name, text in self.problems))


def server_context(
    certificate: str,
    private_key: str,
    client_ca: str | None = None,
    client_certificate: str = NONE,
    protocols: Iterable[bytes] = (b"mqtt",),
) -> Any:
    """A ``CertificateOptions`` for a server.

    The first three are names of PEM files: our certificate with those between it and the root, its key without a
    passphrase, and the authorities whose client certificates count.  ``protocols`` are offered by ALPN.

    Raises ``TLSFilesError``, and ImportError where pyOpenSSL is not installed.
    """
    from OpenSSL import SSL
    from twisted.internet.ssl import CertificateOptions, TLSVersion

    problems: list[tuple[str, str]] = []
    chain = _certificates("certificate", certificate, problems)
    key = _private_key("private_key", private_key, problems)
    if client_ca is not None:
        _certificates("client_ca", client_ca, problems)
    if chain and key is not None and chain[0].public_key() != key.public_key():
        problems.append(("private_key", f"{private_key!r} is not the key of the first certificate in {certificate!r}"))
    if client_certificate != NONE and client_ca is None:
        problems.append(("client_ca", f"is needed where client_certificate is {client_certificate!r}"))
    if problems:
        raise TLSFilesError(problems)
    # Twisted's choice of ciphers, modes and the like; the files go to OpenSSL as they are.
    options = CertificateOptions(raiseMinimumTo=TLSVersion.TLSv1_2, acceptableProtocols=list(protocols))
    context = options.getContext()  # made once, for every connection
    # A client that asks for new keys again and again costs more than it pays: TLS 1.2 by a handshake, 1.3 by KeyUpdate.
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    context.set_info_callback(_watch)
    try:
        context.use_certificate_chain_file(certificate)
        context.use_privatekey_file(private_key)
    except SSL.Error as error:  # a key too weak, or of a kind that is not for TLS
        raise TLSFilesError([("certificate", f"{certificate!r} is of no use for TLS: {_reason(error)}")]) from error
    if client_certificate != NONE:
        assert client_ca is not None
        context.load_verify_locations(client_ca)
        context.load_client_ca(client_ca.encode())
        must = SSL.VERIFY_FAIL_IF_NO_PEER_CERT if client_certificate == REQUIRED else 0
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE | must, _is_good)
    return options


def _is_good(connection: Any, certificate: Any, error: int, depth: int, is_good: int) -> bool:
    return bool(is_good)  # as OpenSSL judges it


def _watch(connection: Any, where: int, value: int) -> None:
    """OpenSSL tells of its steps; behind the handshake only KeyUpdate makes any."""
    protocol = connection.get_app_data()
    if protocol is not None and connection.get_state_string() == b"TLSv1.3 read client key update":
        protocol.key_updated()


def over_tls(context: Any, factory: Any, clock: Any = None) -> Any:
    """A factory for a port whose connections speak TLS and then what ``factory`` speaks.

    The same for every Twisted (``wrapServerTLS`` is new), and without the buffering that Twisted adds: an outbox writes
    once a turn anyway, and wants to hear at once that there is no room.
    """
    from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol

    class TLSProtocol(TLSMemoryBIOProtocol):
        _key_updates = 0
        _counted_from = 0.0

        def makeConnection(self: Any, transport: Any) -> None:
            TLSMemoryBIOProtocol.makeConnection(self, transport)
            self.getHandle().set_app_data(self)

        def key_updated(self) -> None:
            now = time.monotonic()
            if now - self._counted_from > 60:
                self._counted_from, self._key_updates = now, 0
            self._key_updates += 1

        def dataReceived(self: Any, data: bytes) -> None:
            TLSMemoryBIOProtocol.dataReceived(self, data)
            if self._key_updates > KEY_UPDATES:
                self.abortConnection()
            # The peer has ended TLS, or broken it: then the transport was told to close, but it never does while a
            # producer is registered and paused.
            elif getattr(self.transport, "disconnecting", False):
                self.unregisterProducer()

    wrapped = TLSMemoryBIOFactory(context, False, factory, clock)
    wrapped.protocol = TLSProtocol
    return wrapped


def _read(name: str, path: str, problems: list[tuple[str, str]]) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        problems.append((name, f"{path!r} cannot be read: {error.strerror}"))
        return None


def _certificates(name: str, path: str, problems: list[tuple[str, str]]) -> list[Any]:
    from cryptography.x509 import load_pem_x509_certificates

    data = _read(name, path, problems)
    if data is None:
        return []
    if b"-----BEGIN CERTIFICATE-----" not in data:
        problems.append((name, f"{path!r} holds no certificate in PEM form"))
        return []
    try:
        return list(load_pem_x509_certificates(data))
    except ValueError as error:
        problems.append((name, f"{path!r} holds a certificate that cannot be read: {_reason(error)}"))
        return []


def _private_key(name: str, path: str, problems: list[tuple[str, str]]) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _read(name, path, problems)
    if data is None:
        return None
    if b"PRIVATE KEY-----" not in data:
        problems.append((name, f"{path!r} holds no private key in PEM form"))
        return None
    try:
        return load_pem_private_key(data, None)
    except TypeError:
        problems.append((name, f"{path!r} is encrypted; it must be a key without a passphrase"))
    except (ValueError, UnsupportedAlgorithm) as error:
        problems.append((name, f"{path!r} holds a private key that cannot be read: {_reason(error)}"))
    return None


def _reason(error: Exception) -> str:
    """The error in a line of at most 200 characters; OpenSSL's are lists of tuples."""
    last: Any = error.args[0] if error.args else ""
    while isinstance(last, list | tuple) and last:
        last = last[-1]
    text = str(last) or type(error).__name__
    return " ".join(text.split())[:200]
