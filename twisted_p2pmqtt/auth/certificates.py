"""The user name in a client's certificate.

That the certificate is good was settled by TLS, before a byte of MQTT came; here it is only read.
"""

from __future__ import annotations

from typing import Any

from twisted.cred.error import UnauthorizedLogin

NONE, CN, SUBJECT = "none", "cn", "subject"


def certificate_name(certificate: Any, identity: str) -> str | None:
    """The user that the certificate (pyOpenSSL X509, or None) names; None where it is not asked, or there is none.

    ``identity``: "none", "cn" (the subject's one common name) or "subject" (all of it, as RFC 4514 writes it).  Raises
    ``UnauthorizedLogin`` for a certificate that does not say who it is: such a client is nobody, not just anybody.
    """
    if identity == NONE or certificate is None:
        return None
    from cryptography.x509.oid import NameOID

    subject = certificate.to_cryptography().subject
    if identity == SUBJECT:
        name = subject.rfc4514_string()
    else:
        names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        name = names[0].value if len(names) == 1 else ""
    if not isinstance(name, str) or not name or any(c < " " or "\x7f" <= c <= "\x9f" for c in name):
        raise UnauthorizedLogin("the client's certificate names no user")
    return name
