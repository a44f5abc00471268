"""make_login: how clients of one listener log in, from all that is configured.

In this order: the client's certificate, where the listener takes names from it; then user name and password; then, for
clients that bring neither, anonymous access.  Each is final: a name that cannot be proved, or a password that is wrong,
never makes an anonymous client.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred

from twisted_p2pmqtt.auth.access import Access
from twisted_p2pmqtt.auth.certificates import NONE, certificate_name
from twisted_p2pmqtt.auth.users import User, Users
from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.core.credentials import MQTTCredentials
from twisted_p2pmqtt.core.handshake import LoggedIn


def make_login(
    access: Access,
    users: Users | None = None,
    identity: str = NONE,
    allow_anonymous: bool = False,
) -> Callable[[MQTTCredentials], Any]:
    """A callable for ``MQTTFactory(login=...)``: gives a ``LoggedIn`` or a Deferred of one, raises to refuse.

    ``users`` None: no way to check a password, so a client that brings a name or a password is refused.  ``identity``:
    "none", or what of a client's certificate is its user name, "cn" or "subject".  What an anonymous client may do is
    the ACL's first section, or everything without an ACL.
    """

    def admitted(user: User, client_id: str) -> LoggedIn:
        avatar = access.avatar(user.name, client_id)
        return LoggedIn(avatar, username=user.name, expires_in=user.expires_in)

    def authenticate(credentials: MQTTCredentials) -> Any:
        client_id = credentials.client_id
        name = certificate_name(credentials.certificate, identity)
        if name is not None:
            return admitted(User(name), client_id)
        if credentials.username is None and credentials.password is None:
            if not allow_anonymous:
                raise MQTTError("anonymous clients are not allowed here", ReasonCode.NOT_AUTHORIZED)
            return access.avatar(None, client_id)
        if users is None:
            raise UnauthorizedLogin("no users are configured here")
        known: Deferred[User] = users.check(credentials)
        return known.addCallback(admitted, client_id)

    return authenticate
