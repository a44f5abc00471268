"""Topic names, topic filters and shared subscriptions: section 4.7 and 4.8.2.

Names and filters are checked here and nowhere else.  Text is data: no regular expression, no recursion.
"""

from __future__ import annotations

from twisted_p2pmqtt.codec.errors import ProtocolViolation, TopicFilterInvalid, TopicNameInvalid
from twisted_p2pmqtt.codec.primitives import decode_text

SHARE_PREFIX = "$share/"


def check_topic_name(raw: bytes) -> str:
    """The text of a topic name; wildcards and the empty name raise ``TopicNameInvalid``, bad UTF-8 is malformed."""
    name = decode_text(raw)
    if not name:  # [MQTT-4.7.3-1] [MQTT3-4.7.3-1]
        raise TopicNameInvalid("topic name is empty")
    if "+" in name or "#" in name:  # [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT3-3.3.2-2] [MQTT3-4.7.1-1]
        raise TopicNameInvalid("topic name holds a wildcard")
    return name


def check_topic_filter(topic_filter: str) -> None:
    """Raise ``TopicFilterInvalid`` unless the wildcards stand where they may, and the filter is not empty."""
    if not topic_filter:  # [MQTT-4.7.3-1] [MQTT3-4.7.3-1]
        raise TopicFilterInvalid("topic filter is empty")
    if "#" not in topic_filter and "+" not in topic_filter:
        return
    levels = topic_filter.split("/")
    last = len(levels) - 1
    for at, level in enumerate(levels):
        if "#" in level and (level != "#" or at != last):  # [MQTT-4.7.1-1] [MQTT3-4.7.1-2]
            raise TopicFilterInvalid("'#' is not alone in the last level")
        if "+" in level and level != "+":  # [MQTT-4.7.1-2] [MQTT3-4.7.1-3]
            raise TopicFilterInvalid("'+' is not alone in its level")


def split_shared(topic_filter: str) -> tuple[str | None, str]:
    """``$share/{ShareName}/{filter}`` apart, or ``(None, topic_filter)`` for an ordinary one."""
    if not topic_filter.startswith(SHARE_PREFIX) and topic_filter != "$share":
        return None, topic_filter
    share_name, slash, rest = topic_filter[len(SHARE_PREFIX) :].partition("/")
    if not share_name or "+" in share_name or "#" in share_name:  # [MQTT-4.8.2-1] [MQTT-4.8.2-2]
        raise TopicFilterInvalid("share name is empty or holds a wildcard")
    if not slash or not rest:  # [MQTT-4.8.2-2]
        raise TopicFilterInvalid("shared subscription without a topic filter")
    return share_name, rest


def check_response_topic(topic: str) -> None:
    """A Response Topic is a topic name, so it holds no wildcard."""
    if "+" in topic or "#" in topic:  # [MQTT-3.3.2-14]
        raise ProtocolViolation("response topic holds a wildcard")


def matches(topic_filter: str, topic: str) -> bool:
    """Does the filter match the topic name, by the letter of section 4.7?  For single questions; trees serve many."""
    if topic.startswith("$") and topic_filter[:1] in ("+", "#"):  # [MQTT-4.7.2-1] [MQTT3-4.7.2-1]
        return False
    wanted, levels = topic_filter.split("/"), topic.split("/")  # as they are  [MQTT-4.7.3-4] [MQTT3-4.7.3-4]
    for at, level in enumerate(wanted):
        if level == "#":
            return True  # at the parent already: `sport/#` matches `sport` too
        if at >= len(levels) or level not in ("+", levels[at]):
            return False
    return len(wanted) == len(levels)
