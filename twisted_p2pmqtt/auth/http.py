"""WebService: a web service that says whether a user may log in.

It gets a POST of JSON, ``{"username", "password", "client_id", "peer"}``.  200 is yes and any 4xx is no; everything
else, no answer in time included, is nobody's yes: the client is refused and told that the server is not available.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_p2pmqtt.auth.web import AgentLike, fetch
from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.credentials import MQTTCredentials

AT_ONCE = 64
"""Questions on their way; more are refused."""

MAX_ANSWER = 65_536
"""Bytes of the answer's body, which is not read for anything."""

QUIET = 60.0

_log = Logger()


class WebService:
    """Asks ``url`` for each login; ``timeout`` in seconds.  ``agent`` is an ``IAgent``."""

    def __init__(self, url: str, timeout: float, agent: AgentLike, reactor: Any) -> None:
        self._url = url
        self._timeout = timeout
        self._agent = agent
        self._reactor = reactor
        self._asking = 0
        self._logged_at = float("-inf")

    def check(self, credentials: MQTTCredentials) -> Deferred[bool]:
        """What the service says; ``MQTTError`` (Server unavailable) where it says neither yes nor no."""
        try:
            body = _question(credentials)
        except UnicodeDecodeError:  # what JSON cannot say cannot be asked
            raise MQTTError("user name or password is not text", ReasonCode.BAD_USER_NAME_OR_PASSWORD) from None
        if self._asking >= AT_ONCE:
            raise _unavailable()
        self._asking += 1
        answer = fetch(self._agent, self._reactor, b"POST", self._url, self._timeout, MAX_ANSWER, body)
        return answer.addBoth(self._done).addCallbacks(self._judge, self._failed)

    def _done(self, result: Any) -> Any:
        self._asking -= 1
        return result

    def _judge(self, answer: tuple[int, bytes]) -> bool:
        status = answer[0]
        if status == 200:
            return True
        if 400 <= status < 500:
            return False
        self._report(f"the answer is {status}")
        raise _unavailable()

    def _failed(self, failure: Failure) -> bool:
        if not failure.check(CancelledError):
            self._report(f"{failure.type.__name__ if failure.type else ''}: {failure.getErrorMessage()}")
        raise _unavailable()

    def _report(self, reason: str) -> None:
        now = self._reactor.seconds()
        if abs(now - self._logged_at) >= QUIET:
            self._logged_at = now
            _log.error("{url} did not judge a login: {reason}", url=self._url, reason=reason[:512])


def _question(credentials: MQTTCredentials) -> bytes:
    question = {
        "username": (credentials.username or b"").decode(),
        "password": (credentials.password or b"").decode(),
        "client_id": getattr(credentials, "client_id", ""),
        "peer": str(getattr(credentials, "peer", "")),
    }
    return json.dumps(question).encode()


def _unavailable() -> MQTTError:
    return MQTTError("the login service does not answer", ReasonCode.SERVER_UNAVAILABLE)
