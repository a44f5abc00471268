"""JwksKeys: the keys that an identity provider publishes (RFC 7517), fetched and kept.

Fetched when the broker starts, every few minutes, and soon after a token names a key that is not known; never while a
client waits.  Until the first set is here, tokens cannot be judged and clients are told to come again.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import jwt
from twisted.application.service import Service
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.logger import Logger

from twisted_p2pmqtt.auth.jwt import KeysNotYet
from twisted_p2pmqtt.auth.web import AgentLike, fetch

REFRESH_SECONDS = 300.0
RETRY_SECONDS = 10.0
"""After a failure, and at least between two fetches that unknown keys ask for."""
FETCH_TIMEOUT = 10.0
MAX_SIZE = 262_144
MAX_KEYS = 100

_log = Logger()


class JwksKeys(Service):
    """Keys from a URL; fetches while it runs as a service.

    ``agent`` is an ``IAgent``, ``reactor`` an ``IReactorTime``.
    """

    name = "JSON web key set"

    def __init__(self, url: str, algorithms: tuple[str, ...], agent: AgentLike, reactor: Any) -> None:
        self._url = url
        self._algorithms = algorithms
        self._agent = agent
        self._reactor = reactor
        self._keys: list[tuple[str | None, Any]] | None = None
        self._next: Any = None
        self._fetching: Deferred[Any] | None = None
        self._fetched_at = float("-inf")

    def find(self, key_id: str | None) -> list[Any]:
        """The keys with this id, or all for a token that names none.  Raises ``KeysNotYet``."""
        if self._keys is None:
            raise KeysNotYet
        if key_id is None:
            return [key for _, key in self._keys]
        found = [key for known, key in self._keys if known == key_id]
        if not found:
            self._refresh_soon()
        return found

    def startService(self) -> None:
        """Fetch now, and again and again."""
        Service.startService(self)
        self._refresh()

    def stopService(self) -> None:
        """Fetch no more."""
        Service.stopService(self)
        self._cancel()
        fetching, self._fetching = self._fetching, None
        if fetching is not None:
            fetching.cancel()

    def _cancel(self) -> None:
        waiting, self._next = self._next, None
        if waiting is not None and waiting.active():
            waiting.cancel()

    def _refresh_soon(self) -> None:
        if self.running and self._fetching is None and self._next is not None:
            wait = max(0.0, self._fetched_at + RETRY_SECONDS - self._reactor.seconds())
            if self._next.getTime() > self._reactor.seconds() + wait:
                self._cancel()
                self._next = self._reactor.callLater(wait, self._refresh)

    def _refresh(self) -> None:
        self._next = None
        self._fetched_at = self._reactor.seconds()
        fetching = self._fetch()
        if not fetching.called:
            self._fetching = fetching

    @inlineCallbacks
    def _fetch(self) -> Generator[Deferred[Any], Any, None]:
        wait = RETRY_SECONDS
        try:
            status, body = yield fetch(self._agent, self._reactor, b"GET", self._url, FETCH_TIMEOUT, limit=MAX_SIZE)
            if status != 200:
                raise ValueError(f"the answer is {status}")
            self._keys = parse_keys(body, self._algorithms)
            wait = REFRESH_SECONDS
        except Exception as error:  # the old keys stay
            if self.running:
                _log.error("no keys from {url}: {reason}", url=self._url, reason=f"{type(error).__name__}: {error}")
        self._fetching = None
        if self.running:
            self._next = self._reactor.callLater(wait, self._refresh)


def parse_keys(data: bytes, algorithms: tuple[str, ...]) -> list[tuple[str | None, Any]]:
    """Id and key of each usable key; those of kinds that the algorithms do not need are left out.

    ValueError where there is none.
    """
    try:
        entries = json.loads(data)["keys"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError("is no JSON web key set") from error
    keys: list[tuple[str | None, Any]] = []
    for entry in entries[:MAX_KEYS] if isinstance(entries, list) else ():
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or entry.get("kty") == "oct":
            continue  # a secret that is published is none
        key_id = entry.get("kid")
        for algorithm in (entry["alg"],) if "alg" in entry else algorithms:
            key = _key(entry, algorithm) if algorithm in algorithms else None
            if key is not None:
                keys.append((key_id if isinstance(key_id, str) else None, key))
    if not keys:
        raise ValueError(f"holds no key for {', '.join(algorithms)}")
    return keys


def _key(entry: dict[str, Any], algorithm: str) -> Any:
    """The key for this algorithm, None where it is of another kind."""
    try:
        return jwt.PyJWK(entry, algorithm)
    except Exception:  # PyJWT passes on what cryptography raises
        return None
