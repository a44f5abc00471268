"""MQTTCredentials: what a CONNECT brings to a cred portal."""

from __future__ import annotations

import hmac
from typing import Any

from twisted.cred.credentials import IAnonymous, IUsernamePassword
from zope.interface import alsoProvides, implementer

from twisted_p2pmqtt.interfaces import IMQTTCredentials


@implementer(IMQTTCredentials)
class MQTTCredentials:
    """Client id, user name and password (bytes or None), the peer's address as text, its certificate or None.

    Provides ``IUsernamePassword`` too where there is a user name, ``IAnonymous`` where there is neither name nor
    password, so ordinary checkers work unchanged.
    """

    def __init__(
        self,
        client_id: str,
        username: bytes | None = None,
        password: bytes | None = None,
        peer: str = "",
        certificate: Any = None,
    ) -> None:
        self.client_id = client_id
        self.username = username
        self.password = password
        self.peer = peer
        self.certificate = certificate
        if username is not None:
            alsoProvides(self, IUsernamePassword)
        elif password is None:
            alsoProvides(self, IAnonymous)  # 5.0 allows a password alone, a token perhaps: that is not nobody

    def checkPassword(self, password: bytes) -> bool:  # cred's name
        """Is this the password?  In constant time; no password is never right."""
        if self.password is None:
            return False
        return hmac.compare_digest(self.password, password)
