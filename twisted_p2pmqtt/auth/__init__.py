"""Who may connect, and what they may do: files, tokens, web services and certificates, behind one kind of login.

Takes plain arguments; ``assembly.Authentication`` puts everything together as the configuration has it.  What needs an
optional dependency (``jwt``, ``jwks``) or twisted.web (``http``) is imported only where it is used.
"""

from __future__ import annotations

from twisted_p2pmqtt.auth.access import Access
from twisted_p2pmqtt.auth.acl import AclAvatar, AclFile, OpenAvatar
from twisted_p2pmqtt.auth.assembly import Authentication
from twisted_p2pmqtt.auth.files import BadFile
from twisted_p2pmqtt.auth.hashes import hash_password
from twisted_p2pmqtt.auth.login import make_login
from twisted_p2pmqtt.auth.passwords import PasswordFile
from twisted_p2pmqtt.auth.pool import HashPool
from twisted_p2pmqtt.auth.realm import Realm, UserChecker
from twisted_p2pmqtt.auth.scram import ScramCredential, ScramSHA256, make_scram_credential
from twisted_p2pmqtt.auth.throttle import Throttle
from twisted_p2pmqtt.auth.users import User, Users

__all__ = [
    "Access",
    "AclAvatar",
    "AclFile",
    "Authentication",
    "BadFile",
    "HashPool",
    "OpenAvatar",
    "PasswordFile",
    "Realm",
    "ScramCredential",
    "ScramSHA256",
    "Throttle",
    "User",
    "UserChecker",
    "Users",
    "hash_password",
    "make_login",
    "make_scram_credential",
]
