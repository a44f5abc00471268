"""The web service that judges logins, over real loopback connections."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.web.client import HTTPConnectionPool
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.auth.helpers import Here, in_reactor, password_text, write
from twisted_p2pmqtt.auth import PasswordFile, Users
from twisted_p2pmqtt.auth.http import AT_ONCE, WebService
from twisted_p2pmqtt.auth.web import make_agent
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.core.credentials import MQTTCredentials

reactor: Any = the_reactor

ALICE = MQTTCredentials("device-1", b"alice", b"s\xc3\xa9cret", "192.0.2.1:4711")


class Judge(Resource):
    """Answers as it is told to, and keeps what it was asked."""

    isLeaf = True

    def __init__(self) -> None:
        Resource.__init__(self)
        self.questions: list[tuple[bytes, bytes | None, Any]] = []
        self.clients: set[tuple[str, int]] = set()
        self.answer: Callable[[Any], Any] = lambda request: b""

    def render(self, request: Any) -> Any:
        content = request.content.read()
        self.questions.append((request.method, request.getHeader(b"content-type"), json.loads(content)))
        self.clients.add((request.client.host, request.client.port))
        return self.answer(request)

    def say(self, status: int, body: bytes = b"") -> None:
        def answer(request: Any) -> bytes:
            request.setResponseCode(status)
            return body

        self.answer = answer


class Loopback:
    """A judge on a port, and what asks it."""

    def __init__(self) -> None:
        self.judge = Judge()
        self.port = reactor.listenTCP(0, Site(self.judge), backlog=2 * AT_ONCE, interface="127.0.0.1")
        self.agent: Any = make_agent(reactor, 0.3)

    def service(self, timeout: float = 0.3, port: int | None = None) -> WebService:
        number = self.port.getHost().port if port is None else port
        return WebService(f"http://127.0.0.1:{number}/auth", timeout, self.agent, reactor)

    async def close(self) -> None:
        pool: HTTPConnectionPool = self.agent._pool
        await pool.closeCachedConnections()
        await self.port.stopListening()


@pytest.fixture
def loopback() -> Iterator[Loopback]:
    here = Loopback()
    yield here
    pytest_twisted.blockon(Deferred.fromCoroutine(here.close()))


async def refusal(asked: Deferred[bool]) -> int:
    with pytest.raises(MQTTError) as caught:
        await asked
    return caught.value.reason_code


@in_reactor
async def test_what_is_asked(loopback: Loopback) -> None:
    assert await loopback.service().check(ALICE) is True
    assert loopback.judge.questions == [
        (
            b"POST",
            b"application/json",
            {"username": "alice", "password": "sécret", "client_id": "device-1", "peer": "192.0.2.1:4711"},
        )
    ]


@in_reactor
async def test_what_is_answered(loopback: Loopback) -> None:
    service = loopback.service()
    for status in (400, 401, 403, 404, 499):
        loopback.judge.say(status, b"whatever")
        assert await service.check(ALICE) is False
    for status in (201, 204, 301, 302, 500, 503, 599):
        loopback.judge.say(status)
        assert await refusal(service.check(ALICE)) == 0x88, status
    loopback.judge.say(200, b"no")
    assert await service.check(ALICE) is True, "the status is what counts"


@in_reactor
async def test_connections_are_used_again(loopback: Loopback) -> None:
    service = loopback.service()
    for _ in range(20):
        assert await service.check(ALICE)
    assert len(loopback.judge.clients) == 1


@in_reactor
async def test_no_answer_in_time(loopback: Loopback) -> None:
    loopback.judge.answer = lambda request: NOT_DONE_YET
    begin = reactor.seconds()
    assert await refusal(loopback.service(0.2).check(ALICE)) == 0x88
    assert reactor.seconds() - begin < 1.0


@in_reactor
async def test_an_answer_that_does_not_end(loopback: Loopback) -> None:
    def answer(request: Any) -> int:
        request.setResponseCode(200)
        request.write(b"x")
        return NOT_DONE_YET

    loopback.judge.answer = answer
    assert await refusal(loopback.service(0.2).check(ALICE)) == 0x88


@in_reactor
async def test_an_answer_that_is_too_large(loopback: Loopback) -> None:
    loopback.judge.say(200, b"x" * 1_000_000)
    assert await refusal(loopback.service(5.0).check(ALICE)) == 0x88


@in_reactor
async def test_nobody_there(loopback: Loopback) -> None:
    closed = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
    port = closed.getHost().port
    await closed.stopListening()
    assert await refusal(loopback.service(port=port).check(ALICE)) == 0x88


@in_reactor
async def test_something_that_is_not_http(loopback: Loopback) -> None:
    class Nonsense(Protocol):
        def connectionMade(self) -> None:
            self.transport.write(b"\x00\x01 nonsense\r\n\r\n")  # type: ignore[union-attr]  # it is connected
            self.transport.loseConnection()  # type: ignore[union-attr]  # it is connected

    port = reactor.listenTCP(0, Factory.forProtocol(Nonsense), interface="127.0.0.1")
    assert await refusal(loopback.service(port=port.getHost().port).check(ALICE)) == 0x88
    await port.stopListening()


@in_reactor
async def test_not_too_many_at_once(loopback: Loopback) -> None:
    waiting: list[Any] = []

    def answer(request: Any) -> int:
        waiting.append(request)
        return NOT_DONE_YET

    loopback.judge.answer = answer
    service = loopback.service(5.0)
    asked = [service.check(ALICE) for _ in range(AT_ONCE)]
    with pytest.raises(MQTTError) as caught:
        service.check(ALICE)
    assert caught.value.reason_code == 0x88
    for _ in range(400):
        if len(waiting) < AT_ONCE:
            await deferLater(reactor, 0.01)
    for request in waiting:
        request.finish()
    assert all([await one for one in asked])
    loopback.judge.say(200)
    assert await service.check(ALICE), "there is room again"


def test_what_json_cannot_say() -> None:
    service = WebService("http://127.0.0.1:1/", 1.0, None, reactor)
    with pytest.raises(MQTTError) as caught:
        service.check(MQTTCredentials("c", b"alice", b"\xff"))
    assert caught.value.reason_code == 0x86


@in_reactor
async def test_a_url_that_cannot_be_asked() -> None:
    for url in ("http://h\u00f6st/", "ftp://host/"):
        assert await refusal(WebService(url, 1.0, make_agent(reactor, 1.0), reactor).check(ALICE)) == 0x88


@in_reactor
async def test_who_is_in_the_password_file_is_not_asked_about(loopback: Loopback, tmp_path: Path) -> None:
    passwords = PasswordFile(write(tmp_path, "passwd", password_text(bob="hunter2")), Here())
    users = Users(passwords, web=loopback.service())
    assert (await users.check(MQTTCredentials("c", b"bob", b"hunter2"))).name == "bob"
    assert loopback.judge.questions == []
    assert (await users.check(ALICE)).name == "alice"
    assert len(loopback.judge.questions) == 1
