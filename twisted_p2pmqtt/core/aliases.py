"""OutgoingAliases: topic aliases towards one 5.0 client (3.3.2.3.4), for topics that it hears more than once."""

from __future__ import annotations

_TOPIC_ALIAS = b"\x23"


class OutgoingAliases:
    """Gives each of the first topics of a connection an alias, up to the client's Topic Alias Maximum."""

    __slots__ = ("_by_topic", "_maximum")

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._by_topic: dict[bytes, bytes] = {}

    def shorten(self, topic: bytes) -> tuple[bytes, bytes]:
        """The topic to put into the packet and the encoded Topic Alias property that goes with it (either may be
        empty).
        """
        known = self._by_topic.get(topic)
        if known is not None:
            return b"", known
        if len(self._by_topic) >= self._maximum:  # [MQTT-3.1.2-26] [MQTT-3.1.2-27]
            return topic, b""
        alias = _TOPIC_ALIAS + (len(self._by_topic) + 1).to_bytes(2, "big")
        self._by_topic[topic] = alias
        return topic, alias
