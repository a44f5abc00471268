"""Certificates made for one test: an authority, and what it issues."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PEM = serialization.Encoding.PEM


class Identity:
    """A certificate, the chain behind it, and its key."""

    def __init__(self, certificate: x509.Certificate, key: Any, chain: tuple[x509.Certificate, ...] = ()) -> None:
        self.certificate = certificate
        self.key = key
        self.chain = chain

    @property
    def certificate_pem(self) -> bytes:
        return b"".join(one.public_bytes(PEM) for one in (self.certificate, *self.chain))

    def key_pem(self, passphrase: bytes | None = None) -> bytes:
        encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
        if passphrase is not None:
            encryption = serialization.BestAvailableEncryption(passphrase)
        pem: bytes = self.key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, encryption)
        return pem

    def write(self, directory: Path, name: str) -> tuple[str, str]:
        """Write ``name.pem`` and ``name.key``; gives their paths."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        certificate.write_bytes(self.certificate_pem)
        key.write_bytes(self.key_pem())
        return str(certificate), str(key)


def subject(*names: str, organization: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names]
    if organization is not None:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def make(
    name: x509.Name, issuer: Identity | None = None, is_authority: bool = False, days: int = 1, key: Any = None
) -> Identity:
    """A certificate by this issuer, or by itself."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    signer = issuer.key if issuer is not None else key
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.certificate.subject if issuer is not None else name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=2))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        # What strict clients (Python's own from 3.13) want to see.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if is_authority:
        usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
        builder = builder.add_extension(usage, critical=True)
    else:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(signer, hashes.SHA256())
    chain = () if issuer is None or issuer.certificate.issuer == issuer.certificate.subject else (issuer.certificate,)
    return Identity(certificate, key, chain)


class Pki:
    """The files of a server and of its clients, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = make(subject("Test Authority"), is_authority=True)
        self.between = make(subject("Test Authority, between"), self.authority, is_authority=True)
        self.ca, _ = self.authority.write(directory, "ca")
        self.certificate, self.key = make(subject("localhost"), self.between).write(directory, "server")

    def client(self, *names: str, organization: str | None = None, issuer: Identity | None = None) -> tuple[str, str]:
        """The files of a client's certificate with these common names."""
        identity = make(subject(*names, organization=organization), issuer or self.authority)
        return identity.write(self.directory, "client-" + "-".join(names))
