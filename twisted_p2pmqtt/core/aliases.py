"""OutgoingAliases: topic aliases towards one 5.0 client (3.3.2.3.4), for topics that it hears more than once."""

from __future__ import annotations

_TOPIC_ALIAS = b"\x23"


class OutgoingAliases:
    """Gives each of the first topics of a connection an alias, up to the client's Topic Alias Maximum.

    An alias is the encoded Topic Alias property.  Whoever encodes a PUBLISH asks for the ``known`` alias of its topic,
    or for the ``next`` free one, and tells with ``set`` that the packet which sets it is on its way.
    """

    __slots__ = ("_by_topic", "_maximum")

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._by_topic: dict[bytes, bytes] = {}

    def known(self, topic: bytes) -> bytes | None:
        """The alias that the client knows for the topic; the topic itself is then left out."""
        return self._by_topic.get(topic)

    def next(self) -> bytes:
        """An alias that is not in use; empty where the client takes no more [MQTT-3.1.2-26] [MQTT-3.1.2-27]."""
        used = len(self._by_topic)  # [MQTT-3.1.2-26] [MQTT-3.1.2-27]
        return _TOPIC_ALIAS + (used + 1).to_bytes(2, "big") if used < self._maximum else b""  # [MQTT-3.3.2-11]

    def set(self, topic: bytes, alias: bytes) -> None:
        """The client learns the alias before any later packet reaches it."""
        self._by_topic[topic] = alias
