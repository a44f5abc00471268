"""One request to a web service, with a bound on its time and on the size of its answer."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

AgentLike = Any
"""``twisted.web.iweb.IAgent``."""

CONNECTIONS = 8
"""Connections to one host that are kept open."""


class AnswerTooLarge(Exception):
    """More bytes than were wanted."""


@implementer(IBodyProducer)
class _Body:
    """A request's body that is there already."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._data)
        return succeed(None)

    def pauseProducing(self) -> None:
        """It is all written."""

    def resumeProducing(self) -> None:
        """The same."""

    def stopProducing(self) -> None:
        """The same."""


class _Reading(Protocol):
    """Collects an answer of at most ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._parts: list[bytes] = []
        self.body: Deferred[bytes] = Deferred(lambda _: self._give_up())

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._limit:
            self._parts.append(data)
        elif not self.body.called:
            self.body.errback(AnswerTooLarge(f"more than {self._limit} bytes"))
            self._give_up()

    def _give_up(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        from twisted.web.client import ResponseDone

        if self.body.called:
            return
        if reason.check(ResponseDone):
            self.body.callback(b"".join(self._parts))
        else:
            self.body.errback(reason)


def make_agent(reactor: Any, timeout: float) -> Agent:
    """An agent with connections of its own; ``timeout`` seconds to connect.  Follows no redirection."""
    pool = HTTPConnectionPool(reactor, persistent=True)
    pool.maxPersistentPerHost = CONNECTIONS
    return Agent(reactor, connectTimeout=timeout, pool=pool)


def fetch(
    agent: AgentLike,
    reactor: IReactorTime,
    method: bytes,
    url: str,
    timeout: float,
    limit: int,
    body: bytes | None = None,
) -> Deferred[tuple[int, bytes]]:
    """Status and body of the answer, all of it within ``timeout`` seconds; fails with whatever went wrong."""
    headers = Headers({b"User-Agent": [b"twisted_p2pmqtt"]})
    if body is not None:
        headers.addRawHeader(b"Content-Type", b"application/json")

    def answered(response: Any) -> Deferred[tuple[int, bytes]]:
        reading = _Reading(limit)
        response.deliverBody(reading)
        return reading.body.addCallback(lambda data: (int(response.code), data))

    def ask() -> Deferred[Any]:
        producer = None if body is None else _Body(body)
        asked: Deferred[Any] = agent.request(method, url.encode("ascii"), headers, producer)
        return asked

    return maybeDeferred(ask).addCallback(answered).addTimeout(timeout, reactor)
