"""Point-to-point routing: which topics name a client, and what the client is then sent.

The three forms are those of RMQTT's plugin and of Alibaba Cloud's model, section 3 of the project's P2P page.  A router
is a pure function of the topic, so its answer is kept with the topic's route.  Nothing here knows sessions: a router
says who is meant, the broker delivers.
"""

from __future__ import annotations

from typing import NamedTuple

from zope.interface import implementer

from twisted_p2pmqtt.interfaces import IP2PRouter, MalformedP2PTopic

_ESCAPES = {"2f": "/", "2b": "+", "23": "#", "25": "%"}

PREFIX, SUFFIX = "prefix", "suffix"


class P2PAddress(NamedTuple):
    """A target and what it is to hear: ``client_id`` unescaped, ``topic`` the business topic, ``form`` as published."""

    client_id: str
    topic: str
    form: str = PREFIX
    marker: str = "p2p"

    @property
    def canonical(self) -> str:
        """The one name under which rights are asked, whatever form was used."""
        return f"{self.marker}/{escape_client_id(self.client_id)}/{self.topic}"

    def reply_topic(self, sender: str) -> str:
        """The topic on which an answer reaches ``sender``, in the form that the sender used."""
        if self.form == SUFFIX:
            return f"{self.topic}/{self.marker}/{escape_client_id(sender)}"
        return f"{self.marker}/{escape_client_id(sender)}/{self.topic}"


def escape_client_id(client_id: str) -> str:
    """The id as one topic level: ``%``, ``/``, ``+`` and ``#`` as ``%25``, ``%2F``, ``%2B`` and ``%23``."""
    if not any(character in client_id for character in "%/+#"):
        return client_id
    return client_id.replace("%", "%25").replace("/", "%2F").replace("+", "%2B").replace("#", "%23")


def unescape_client_id(level: str) -> str:
    """The id that the level names; a ``%`` that begins none of the four escapes stands for itself."""
    if "%" not in level:
        return level
    head, *parts = level.split("%")
    out = [head]
    for part in parts:
        character = _ESCAPES.get(part[:2].lower())
        out.append("%" + part if character is None else character + part[2:])
    return "".join(out)


@implementer(IP2PRouter)
class PrefixP2PRouter:
    """``p2p/{clientid}/{topic}``."""

    def __init__(self, marker: str = "p2p") -> None:
        self.marker = marker
        self._start = marker + "/"

    def resolve(self, topic: str) -> P2PAddress | None:
        """The address that the topic names, None for an ordinary topic; raises ``MalformedP2PTopic``."""
        if not topic.startswith(self._start):
            return None
        level, _, business = topic[len(self._start) :].partition("/")
        return _address(level, business, PREFIX, self.marker)

    def response_information(self, client_id: str) -> str:
        """The beginning of topics on which answers reach the client (CONNACK Response Information)."""
        return f"{self.marker}/{escape_client_id(client_id)}"


@implementer(IP2PRouter)
class SuffixP2PRouter:
    """``{topic}/p2p/{clientid}``."""

    def __init__(self, marker: str = "p2p") -> None:
        self.marker = marker

    def resolve(self, topic: str) -> P2PAddress | None:
        """The address that the topic names, None for an ordinary topic; raises ``MalformedP2PTopic``."""
        rest, slash, level = topic.rpartition("/")
        if not slash:
            return None
        business, slash, marker = rest.rpartition("/")
        if marker != self.marker:
            return None
        return _address(level, business, SUFFIX, self.marker)

    def response_information(self, client_id: str) -> str:
        """A topic on which answers reach the client (CONNACK Response Information)."""
        return f"reply/{self.marker}/{escape_client_id(client_id)}"


@implementer(IP2PRouter)
class BothP2PRouter:
    """Either form; a topic that begins as the prefix form is never read as the suffix form."""

    def __init__(self, marker: str = "p2p") -> None:
        self.marker = marker
        self._prefix = PrefixP2PRouter(marker)
        self._suffix = SuffixP2PRouter(marker)

    def resolve(self, topic: str) -> P2PAddress | None:
        """The address that the topic names, None for an ordinary topic; raises ``MalformedP2PTopic``."""
        return self._prefix.resolve(topic) or self._suffix.resolve(topic)

    def response_information(self, client_id: str) -> str:
        """As the prefix form has it."""
        return self._prefix.response_information(client_id)


@implementer(IP2PRouter)
class NoP2PRouter:
    """``mode = "off"``: every topic is ordinary."""

    def resolve(self, topic: str) -> None:
        """None."""
        return


def _address(level: str, business: str, form: str, marker: str) -> P2PAddress:
    if not level:
        raise MalformedP2PTopic("P2P topic without a client id")
    if not business:
        raise MalformedP2PTopic("P2P topic without a business topic")
    return P2PAddress(unescape_client_id(level), business, form, marker)


def make_router(mode: str, marker: str = "p2p") -> IP2PRouter:
    """The router for ``mode``: off, prefix, suffix or both; ValueError for any other."""
    if mode == "off":
        return NoP2PRouter()
    makers = {"prefix": PrefixP2PRouter, "suffix": SuffixP2PRouter, "both": BothP2PRouter}
    if mode not in makers:
        raise ValueError(f"P2P mode {mode!r} is none of off, prefix, suffix, both")
    router: IP2PRouter = makers[mode](marker)
    return router
