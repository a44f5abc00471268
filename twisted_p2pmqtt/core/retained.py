"""RetainedMessages: the last retained message of each topic, bounded in number and in bytes (3.3.1.3)."""

from __future__ import annotations

from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.core.subscriptions import is_wild
from twisted_p2pmqtt.core.topic_index import TopicIndex


class RetainedMessages:
    """Retained messages by topic name."""

    __slots__ = ("_by_topic", "_index", "_max_bytes", "_max_messages", "_publishers", "size")

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._by_topic: dict[str, Message] = {}
        self._publishers: dict[str, str] = {}
        self._index = TopicIndex()
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self.size = 0

    def __len__(self) -> int:
        return len(self._by_topic)

    def get(self, topic: str, now: float) -> Message | None:
        """The topic's retained message, unless its expiry is over."""
        message = self._by_topic.get(topic)
        if message is not None and message.expires_at is not None and message.expires_at <= now:
            self.remove(topic)
            return None
        return message

    def publisher(self, topic: str) -> str | None:
        """The id of the client that published the topic's message; None where that is not known any more."""
        return self._publishers.get(topic)

    def put(self, topic: str, message: Message, publisher: str | None = None) -> bool:
        """Replace the topic's message; False where the bounds have no room for it.

        ``publisher`` is a client's id, remembered for subscribers with No Local (it does not survive a restart).
        """
        old = self._by_topic.get(topic)
        size = self.size + message.size - (old.size if old is not None else 0)
        if size > self._max_bytes or (old is None and len(self._by_topic) >= self._max_messages):
            return False
        if old is None:
            self._index.add(topic)
        self._by_topic[topic] = message
        if publisher is not None:
            self._publishers[topic] = publisher
        else:
            self._publishers.pop(topic, None)
        self.size = size
        return True

    def remove(self, topic: str) -> bool:
        """Forget the topic's message; False where there was none."""
        old = self._by_topic.pop(topic, None)
        if old is None:
            return False
        self._publishers.pop(topic, None)
        self._index.discard(topic)
        self.size -= old.size
        return True

    def matching(self, topic_filter: str) -> list[str]:
        """The topics with a retained message that the filter matches."""
        if not is_wild(topic_filter):
            return [topic_filter] if topic_filter in self._by_topic else []
        return list(self._index.matching(topic_filter))
