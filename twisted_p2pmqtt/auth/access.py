"""Access: what a client may do once it is known who it is, whatever way that was found out."""

from __future__ import annotations

from typing import Any

from twisted_p2pmqtt.auth.acl import AclAvatar, AclFile
from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError

SEPARATORS = "-_.:/"
"""What may stand between a user name and the rest of a client id."""


class Access:
    """``acl`` is None where everybody who is let in may do everything.

    ``client_id_prefix_of_user``: a client id belongs to the user whose name it is, or whose name and a separator it
    begins with; nobody else gets in with it, and so nobody takes over the session.
    """

    def __init__(self, acl: AclFile | None = None, client_id_prefix_of_user: bool = False) -> None:
        self.acl = acl
        self._is_bound = client_id_prefix_of_user

    def avatar(self, username: str | None, client_id: str) -> Any:
        """The ``IClientAvatar`` of a user, or of an anonymous client (None); None for one without limits.

        Raises ``MQTTError`` (Not authorized) for a client id that is not the user's.  A client that leaves the choice
        of its id to the broker takes nobody's.
        """
        if self._is_bound and client_id and not owns_client_id(username, client_id):
            raise MQTTError("the client id does not begin with the user name", ReasonCode.NOT_AUTHORIZED)
        return None if self.acl is None else AclAvatar(self.acl, username, client_id)


def owns_client_id(username: str | None, client_id: str) -> bool:
    """Is the client id the user's name, or that and a separator and more?"""
    if not username or not client_id.startswith(username):
        return False
    rest = client_id[len(username) :]
    return not rest or rest[0] in SEPARATORS
