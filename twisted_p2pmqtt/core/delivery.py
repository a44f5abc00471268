"""What travels through the broker: a Delivery to one subscriber, and the Outcome that its sender is told.

An ``Outcome`` is one of a closed set of objects, so that telling them apart is an identity test and their 5.0
acknowledgement is encoded once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.message import Message, encode_head
from twisted_p2pmqtt.codec.primitives import encode_varint
from twisted_p2pmqtt.codec.properties import NO_PROPERTIES, Properties, encode_properties

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.subscriptions import SharedGroup


PUBACK, PUBREC = b"\x40", b"\x50"

MAX_EXPLAINED = 128
"""Bytes that an acknowledgement with properties has at most."""


class Delivery:
    """A message on its way to one subscriber.

    ``qos`` is what this subscriber gets, ``retain`` the RETAIN flag that it sees, ``extra`` encoded properties of its
    own (subscription identifiers).  ``sequence`` is the store's key within the session, 0 where nothing is stored;
    ``confirmed`` is told what became of it: ``acknowledged`` of the receiver's last reason code, or why it was dropped;
    ``group`` is the shared group that chose this subscriber.  A delivery without any of these is shared by all plain
    subscribers of a message.
    """

    __slots__ = (
        "_halves_v3",
        "_halves_v5",
        "confirmed",
        "extra",
        "group",
        "is_p2p",
        "message",
        "qos",
        "retain",
        "sequence",
    )

    def __init__(self, message: Message, qos: int, retain: int = 0, extra: bytes = b"", is_p2p: bool = False) -> None:
        self.message = message
        self.qos = qos
        self.retain = retain
        self.extra = extra
        self.is_p2p = is_p2p
        self.group: SharedGroup | None = None
        self.sequence = 0
        self.confirmed: Callable[[Outcome], object] | None = None
        self._halves_v3: tuple[bytes, bytes] | None = None
        self._halves_v5: tuple[bytes, bytes] | None = None

    def halves(self, version: int) -> tuple[bytes, bytes]:
        """The PUBLISH before and behind its packet id, for a first sending; kept."""
        message, flags = self.message, self.qos << 1 | self.retain
        if version == 5:
            if self._halves_v5 is None:
                if self.extra:
                    self._halves_v5 = message.halves(5, flags, self.extra)
                else:
                    block = message.property_block
                    if block is None:
                        block = message.encoded_properties() if message.properties else b"\0"
                    tail = block + message.body[message.start :]
                    self._halves_v5 = encode_head(message.topic, flags, 2 + len(tail)), tail
            return self._halves_v5
        if self._halves_v3 is None:
            tail = message.body[message.start :]
            self._halves_v3 = encode_head(message.topic, flags, 2 + len(tail)), tail
        return self._halves_v3

    def copy(self) -> Delivery:
        """The same for one session alone."""
        copy = Delivery(self.message, self.qos, self.retain, self.extra, self.is_p2p)
        copy.group, copy.confirmed = self.group, self.confirmed
        return copy


class Released:
    """Stands in a session's inflight for a QoS 2 delivery that its receiver has; PUBCOMP is awaited."""

    __slots__ = ("confirmed", "sequence")

    def __init__(self, sequence: int = 0, confirmed: Callable[[Outcome], object] | None = None) -> None:
        self.sequence = sequence
        self.confirmed = confirmed


RELEASED = Released()
"""Shared where neither store nor sender waits for the end."""


class Outcome:
    """What became of a publish: a reason code, for P2P perhaps a status, and the sentence that explains it.

    ``puback_head``, ``pubrec_head`` and ``explanation`` stand before and behind the packet id of a 5.0 acknowledgement
    with properties, which is never longer than ``MAX_EXPLAINED``.
    """

    __slots__ = (
        "_bare",
        "_full",
        "explanation",
        "name",
        "puback_head",
        "pubrec_head",
        "reason_code",
        "reason_string",
        "status",
    )

    def __init__(self, name: str, reason_code: ReasonCode, status: str = "", reason_string: str = "") -> None:
        self.name = name
        self.reason_code = reason_code
        self.status = status
        self.reason_string = reason_string
        self._bare = self._tail(NO_PROPERTIES)
        properties: Properties = {}
        if reason_string:
            properties["reason_string"] = reason_string
        if status:
            properties["user_properties"] = [("p2p-status", status)]
        self._full = length, self.explanation = self._tail(properties)
        self.puback_head, self.pubrec_head = PUBACK + length, PUBREC + length

    def _tail(self, properties: Properties) -> tuple[bytes, bytes]:
        """What stands before and behind the packet id, from the remaining length on."""
        if properties:
            rest = bytes((self.reason_code,)) + encode_properties(properties)
        else:
            rest = bytes((self.reason_code,)) if self.reason_code else b""
        return encode_varint(2 + len(rest)), rest

    def acknowledgement(self, first: bytes, packet_id: bytes, is_explained: bool, limit: int) -> bytes:
        """A 5.0 PUBACK or PUBREC (``first``), with properties where they are wanted and fit in ``limit`` bytes."""
        if is_explained:
            length, rest = self._full
            if len(length) + len(rest) + 3 <= limit:  # [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-3]
                return first + length + packet_id + rest
        length, rest = self._bare
        return first + length + packet_id + rest

    def __repr__(self) -> str:
        return f"<Outcome {self.name} 0x{self.reason_code:02x}>"


ACCEPTED = Outcome("accepted", ReasonCode.SUCCESS)
NO_SUBSCRIBERS = Outcome("no_subscribers", ReasonCode.NO_MATCHING_SUBSCRIBERS)
DENIED = Outcome("denied", ReasonCode.NOT_AUTHORIZED)
TOPIC_INVALID = Outcome("topic_invalid", ReasonCode.TOPIC_NAME_INVALID)
QUOTA_EXCEEDED = Outcome("quota", ReasonCode.QUOTA_EXCEEDED)
STORE_UNAVAILABLE = Outcome("store_unavailable", ReasonCode.QUOTA_EXCEEDED, "", "the store takes nothing at present")
PAYLOAD_INVALID = Outcome("payload_invalid", ReasonCode.PAYLOAD_FORMAT_INVALID)

# P2P, the table of section 4 of the project's P2P page
ONLINE = Outcome("online", ReasonCode.SUCCESS, "online")
QUEUED = Outcome("queued", ReasonCode.SUCCESS, "queued")
OFFLINE_QOS0 = Outcome("offline_qos0", ReasonCode.SUCCESS)
NO_SESSION = Outcome("no_session", ReasonCode.NO_MATCHING_SUBSCRIBERS)
TOO_LARGE = Outcome(
    "too_large",
    ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR,
    "",
    "the message is larger than the target's maximum packet size",
)
TIMED_OUT = Outcome(
    "timeout", ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR, "queued", "the target did not acknowledge in time"
)
EXPIRED = Outcome("expired", ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR, "", "the message expired before it was sent")

_ACKNOWLEDGED = {
    code: Outcome(status, ReasonCode(code), status)
    for status, codes in (("delivered", (0x00, 0x10)), ("refused", (0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)))
    for code in codes  # what PUBACK and PUBREC may say (3.4.2.1, 3.5.2.1)
}


def acknowledged(reason_code: int) -> Outcome:
    """What a receiver said of a delivery; a PUBCOMP that knows no such packet means that it has the message."""
    if reason_code == ReasonCode.PACKET_IDENTIFIER_NOT_FOUND:
        reason_code = 0
    return _ACKNOWLEDGED.get(reason_code, _ACKNOWLEDGED[0x80])


class Awaited(Outcome):
    """For now: a P2P message is with its target, and its sender waits ``timeout`` seconds for the acknowledgement.

    ``confirmation`` fires with the final ``Outcome``.
    """

    __slots__ = ("confirmation", "timeout")

    def __init__(self, timeout: float) -> None:
        super().__init__("awaited", ReasonCode.SUCCESS)
        self.timeout = timeout
        self.confirmation: Deferred[Outcome] = Deferred()
