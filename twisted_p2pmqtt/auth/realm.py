"""The same logins for a twisted.cred portal, to go with an embedder's own checkers and realms.

    users = Users(PasswordFile("passwd", HashPool(reactor)))
    portal = Portal(Realm(Access(AclFile("acl"))), [UserChecker(users)])
    MQTTFactory(broker, portal_login(portal))

A portal is asked for an ``IClientAvatar``; other checkers and realms of the host's own fit in the same places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import ANONYMOUS, ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from zope.interface import implementer

from twisted_p2pmqtt.auth.access import Access
from twisted_p2pmqtt.auth.acl import OpenAvatar
from twisted_p2pmqtt.auth.users import User, Users
from twisted_p2pmqtt.interfaces import IClientAvatar, IMQTTCredentials


@implementer(ICredentialsChecker)
class UserChecker:
    """Checks any ``IUsernamePassword``, MQTT's or another protocol's.  The avatar id is the user name in bytes.

    ``accepts_tokens``: check MQTT's credentials without a user name too, for tokens that are the whole of it.
    """

    def __init__(self, users: Users, accepts_tokens: bool = False) -> None:
        self._users = users
        self.credentialInterfaces = (IUsernamePassword, IMQTTCredentials) if accepts_tokens else (IUsernamePassword,)

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes | tuple[()]]:  # cred's name
        """Who this is; fails with ``UnauthorizedLogin``."""
        return self._users.check(credentials).addCallback(_avatar_id)


@implementer(IRealm)
class Realm:
    """Gives avatars by what an ``Access`` allows."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def requestAvatar(  # cred's name
        self, avatarId: Any, mind: Any, *interfaces: Any
    ) -> tuple[Any, Any, Callable[[], None]]:
        """An ``IClientAvatar``.  ``mind`` is the client's ``IMQTTCredentials``, as ``portal_login`` hands it over.

        NotImplementedError where another kind of avatar is asked for.
        """
        if IClientAvatar not in interfaces:
            raise NotImplementedError("this realm has avatars of MQTT clients only")
        username = None if avatarId is ANONYMOUS or avatarId == () else _text(avatarId)
        avatar = self._access.avatar(username, getattr(mind, "client_id", ""))
        return IClientAvatar, OpenAvatar() if avatar is None else avatar, _nothing


def _avatar_id(user: User) -> bytes | tuple[()]:
    return user.name.encode()


def _text(avatar_id: str | bytes) -> str:
    return avatar_id.decode() if isinstance(avatar_id, bytes) else avatar_id


def _nothing() -> None:
    """Nothing ends with the connection."""
