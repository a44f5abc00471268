"""The checker and the realm in a cred portal, alone and with an embedder's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.cred.checkers import AllowAnonymousAccess, ICredentialsChecker, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IAnonymous, IUsernamePassword, UsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import Interface, implementer
from zope.interface.verify import verifyObject

from tests.auth.helpers import Here, acl_file, password_text, write
from twisted_p2pmqtt.auth import Access, OpenAvatar, PasswordFile, Realm, UserChecker, Users
from twisted_p2pmqtt.auth.users import User
from twisted_p2pmqtt.core.credentials import MQTTCredentials
from twisted_p2pmqtt.interfaces import IClientAvatar, IMQTTCredentials
from twisted_p2pmqtt.net.protocol import MQTTFactory, portal_login
from twisted_p2pmqtt.testing import MemoryClient, make_broker, memory_factory

ACL = "topic read public\nuser alice\ntopic alice/#\npattern own/%c\n"


@pytest.fixture
def users(tmp_path: Path) -> Users:
    return Users(PasswordFile(write(tmp_path, "passwd", password_text(alice="secret")), Here()))


def factory(portal: Portal, allow_anonymous: bool = False) -> MQTTFactory:
    return memory_factory(make_broker(Clock()), portal_login(portal, allow_anonymous))


def test_interfaces(users: Users) -> None:
    assert verifyObject(ICredentialsChecker, UserChecker(users))
    assert verifyObject(IRealm, Realm(Access()))


def test_credentials() -> None:
    named, nobody, token = MQTTCredentials("c", b"u", b"p"), MQTTCredentials("c"), MQTTCredentials("c", None, b"token")
    for credentials, expected in ((named, (True, False)), (nobody, (False, True)), (token, (False, False))):
        assert verifyObject(IMQTTCredentials, credentials)
        assert (IUsernamePassword.providedBy(credentials), IAnonymous.providedBy(credentials)) == expected


def test_a_portal_of_ours(users: Users, tmp_path: Path) -> None:
    portal = Portal(Realm(Access(acl_file(tmp_path, ACL))), [UserChecker(users)])
    mqtt = factory(portal)
    client = MemoryClient(mqtt, "c")
    assert client.connect(username="alice", password=b"secret").reason_code == 0
    assert [client.publish(topic, b"", 1) for topic in ("alice/x", "own/c", "own/d")] == [0x10, 0x10, 0x87]
    for username, password, code in (("alice", b"wrong", 0x86), ("alice", None, 0x86), (None, None, 0x87)):
        assert MemoryClient(mqtt, "d").connect(username=username, password=password).reason_code == code
    assert MemoryClient(mqtt, "d").connect(password=b"secret").reason_code == 0x86
    assert mqtt.broker.stats.hook_errors == 0


def test_anonymous_clients(users: Users, tmp_path: Path) -> None:
    realm = Realm(Access(acl_file(tmp_path, ACL)))
    mqtt = factory(Portal(realm, [UserChecker(users), AllowAnonymousAccess()]), allow_anonymous=True)
    client = MemoryClient(mqtt, "c")
    assert client.connect().reason_code == 0
    assert client.subscribe("public", "alice/x", "own/c") == [2, 0x87, 2]
    assert MemoryClient(mqtt, "d").connect(username="alice", password=b"x").reason_code == 0x86
    assert MemoryClient(mqtt, "d").connect(password=b"x").reason_code == 0x86, "a password is not nothing"


def test_without_an_acl(users: Users) -> None:
    client = MemoryClient(factory(Portal(Realm(Access()), [UserChecker(users)])), "c")
    client.connect(username="alice", password=b"secret")
    assert client.subscribe("#") == [2]
    assert client.publish("x", b"", 1) == 0


def test_other_protocols_may_use_the_checker(users: Users) -> None:
    found: list[Any] = []
    UserChecker(users).requestAvatarId(UsernamePassword(b"alice", b"secret")).addBoth(found.append)
    UserChecker(users).requestAvatarId(UsernamePassword(b"alice", b"wrong")).addBoth(found.append)
    assert found[0] == b"alice"
    assert isinstance(found[1], Failure)
    assert found[1].check(UnauthorizedLogin)


def test_other_checkers_may_use_the_realm(tmp_path: Path) -> None:
    checker = InMemoryUsernamePasswordDatabaseDontUse(alice=b"other")
    client = MemoryClient(factory(Portal(Realm(Access(acl_file(tmp_path, ACL))), [checker])), "c")
    assert client.connect(username="alice", password=b"other").reason_code == 0
    assert client.subscribe("alice/#", "public") == [2, 0x87]


def test_tokens_alone(tmp_path: Path) -> None:
    class AnyToken:
        def check(self, username: bytes | None, password: bytes) -> User | None:
            return User("alice") if password == b"token" else None

    portal = Portal(
        Realm(Access(acl_file(tmp_path, ACL))), [UserChecker(Users(tokens=AnyToken()), accepts_tokens=True)]
    )
    mqtt = factory(portal)
    client = MemoryClient(mqtt, "c")
    assert client.connect(password=b"token").reason_code == 0
    assert client.publish("alice/x", b"", 1) == 0x10
    assert MemoryClient(mqtt, "d").connect(password=b"x").reason_code == 0x86


def test_the_realm_has_one_kind_of_avatar() -> None:
    class IOther(Interface):
        pass

    realm = Realm(Access())
    with pytest.raises(NotImplementedError):
        realm.requestAvatar(b"alice", None, IOther)
    interface, avatar, logout = realm.requestAvatar("alice", None, IOther, IClientAvatar)
    assert interface is IClientAvatar
    assert isinstance(avatar, OpenAvatar)
    logout()


def test_an_embedders_own_realm(users: Users) -> None:
    """As docs/authentication.md shows it."""
    ended: list[str] = []

    @implementer(IClientAvatar)
    class Device:
        def __init__(self, name: str, client_id: str) -> None:
            self.name, self.client_id = name, client_id

        def may_publish(self, topic: str) -> bool:
            return topic.startswith(f"{self.name}/")

        def may_subscribe(self, topic_filter: str) -> bool:
            return topic_filter.startswith(f"{self.name}/")

        def may_receive(self, topic: str) -> bool:
            return topic.startswith(f"{self.name}/")

        def may_send_to(self, client_id: str, topic: str, canonical: str) -> bool:
            return client_id.startswith(f"{self.name}-")

    @implementer(IRealm)
    class Devices:
        def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
            return IClientAvatar, Device(avatarId.decode(), mind.client_id), lambda: ended.append(mind.client_id)

    mqtt = factory(Portal(Devices(), [UserChecker(users)]))
    client = MemoryClient(mqtt, "c")
    client.connect(username="alice", password=b"secret")
    assert client.subscribe("alice/#", "#") == [2, 0x87]
    assert [client.publish(topic, b"", 1) for topic in ("alice/x", "p2p/alice-2/x", "p2p/bob/x")] == [0, 0x10, 0x87]
    client.disconnect()
    assert ended == ["c"]
