"""What the tests of logins and rights share: hashing in place, files, and a broker whose clients log in."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any, TypeVar

import pytest_twisted
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from twisted_p2pmqtt.auth import Access, AclFile, PasswordFile, Throttle, Users, hash_password, make_login
from twisted_p2pmqtt.core.limits import Limits, P2POptions
from twisted_p2pmqtt.interfaces import IP2PRouter
from twisted_p2pmqtt.net.protocol import MQTTFactory
from twisted_p2pmqtt.testing import make_broker, memory_factory

T = TypeVar("T")


def in_reactor(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Any]:
    """Run the test with the real reactor."""
    wrapped: Callable[..., Any] = pytest_twisted.ensureDeferred(test)
    return wrapped


class Here:
    """Does the hashing at once, in this thread; counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def run(self, work: Callable[..., T], *arguments: object) -> Deferred[T]:
        self.count += 1
        return succeed(work(*arguments))


class Later:
    """Does the hashing when told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def run(self, work: Callable[..., T], *arguments: object) -> Deferred[T]:
        result: Deferred[T] = Deferred()
        self.waiting.append((lambda: work(*arguments), result))
        return result

    def finish(self) -> None:
        waiting, self.waiting = self.waiting, []
        for work, result in waiting:
            if not result.called:
                result.callback(work())


def write(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.write_text(text)
    return str(path)


def password_text(**passwords: str) -> str:
    return "".join(f"{name}:{hash_password(password.encode(), 2)}\n" for name, password in passwords.items())


def acl_file(directory: Path, text: str) -> AclFile:
    return AclFile(write(directory, "acl", text))


class Site:
    """A broker on a clock; its clients log in with the passwords and the ACL given as text."""

    def __init__(
        self,
        directory: Path,
        acl: str | None = None,
        passwords: dict[str, str] | None = None,
        allow_anonymous: bool = False,
        client_id_prefix_of_user: bool = False,
        router: IP2PRouter | None = None,
        p2p: P2POptions | None = None,
        limits: Limits | None = None,
        methods: Iterable[Any] = (),
    ) -> None:
        self.clock = Clock()
        self.broker = make_broker(self.clock, router=router, p2p=p2p, limits=limits)
        self.directory = directory
        self.acl = None if acl is None else acl_file(directory, acl)
        self.access = Access(self.acl, client_id_prefix_of_user)
        wheel = self.broker.wheel
        self.runner = Here()
        users = None
        if passwords is not None:
            path = write(directory, "passwd", password_text(**passwords))
            self.passwords = PasswordFile(path, self.runner, self.clock.seconds)
            users = Users(self.passwords, throttle=Throttle(lambda: wheel.now, wheel.after))
        self.login = make_login(self.access, users, allow_anonymous=allow_anonymous)
        self.factory: MQTTFactory = memory_factory(self.broker, self.login, methods)

    def change_acl(self, text: str) -> None:
        """Other rules hold from now on, as after a reload."""
        assert self.acl is not None
        write(self.directory, "acl", text)
        self.acl.reload()
        self.broker.forget_routes()
