"""The packets, one slotted class each; PUBLISH is ``message.Message``.

Fields carry the specification's names.  ``properties`` is empty for 3.1 and 3.1.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from twisted_p2pmqtt.codec.constants import ProtocolVersion
from twisted_p2pmqtt.codec.properties import NO_PROPERTIES, Properties


def _none() -> Properties:
    """Every packet without properties shares one empty list (as a plain default Python 3.10 refuses it)."""
    return NO_PROPERTIES


@dataclass(slots=True)
class Will:
    """What CONNECT asks to be published when the connection ends badly (3.1.2.5)."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Properties = field(default_factory=_none)


@dataclass(slots=True)
class Connect:
    """Section 3.1.  ``keep_alive`` is seconds; ``is_bridge`` is the high bit that bridges set in the level byte."""

    client_id: str
    version: int = ProtocolVersion.V5
    clean_start: bool = True
    keep_alive: int = 60
    username: str | None = None
    password: bytes | None = None
    will: Will | None = None
    properties: Properties = field(default_factory=_none)
    is_bridge: bool = False


@dataclass(slots=True)
class Connack:
    """Section 3.2.  ``reason_code`` is a return code 0 to 5 towards 3.x clients."""

    session_present: bool
    reason_code: int
    properties: Properties = field(default_factory=_none)


@dataclass(slots=True)
class Puback:
    """Section 3.4."""

    packet_id: int
    reason_code: int = 0
    properties: Properties = field(default_factory=_none)


@dataclass(slots=True)
class Pubacks:
    """A run of PUBACKs that say nothing but success, as they come from a busy subscriber: two or more."""

    packet_ids: list[int]


@dataclass(slots=True)
class Pubrec:
    """Section 3.5."""

    packet_id: int
    reason_code: int = 0
    properties: Properties = field(default_factory=_none)


@dataclass(slots=True)
class Pubrel:
    """Section 3.6."""

    packet_id: int
    reason_code: int = 0
    properties: Properties = field(default_factory=_none)


@dataclass(slots=True)
class Pubcomp:
    """Section 3.7."""

    packet_id: int
    reason_code: int = 0
    properties: Properties = field(default_factory=_none)


Acknowledgement = Puback | Pubrec | Pubrel | Pubcomp


@dataclass(slots=True)
class SubscriptionRequest:
    """One topic filter of SUBSCRIBE with its options (3.8.3.1)."""

    topic_filter: str
    qos: int = 0
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(slots=True)
class Subscribe:
    """Section 3.8."""

    packet_id: int
    requests: list[SubscriptionRequest]
    properties: Properties = field(default_factory=_none)


@dataclass(slots=True)
class Suback:
    """Section 3.9; one code for each filter, in the order of SUBSCRIBE."""

    packet_id: int
    reason_codes: list[int]
    properties: Properties = field(default_factory=_none)


@dataclass(slots=True)
class Unsubscribe:
    """Section 3.10."""

    packet_id: int
    topic_filters: list[str]
    properties: Properties = field(default_factory=_none)


@dataclass(slots=True)
class Unsuback:
    """Section 3.11; ``reason_codes`` is empty for 3.x."""

    packet_id: int
    reason_codes: list[int]
    properties: Properties = field(default_factory=_none)


@dataclass(slots=True)
class Pingreq:
    """Section 3.12."""


@dataclass(slots=True)
class Pingresp:
    """Section 3.13."""


@dataclass(slots=True)
class Disconnect:
    """Section 3.14."""

    reason_code: int = 0
    properties: Properties = field(default_factory=_none)


@dataclass(slots=True)
class Auth:
    """Section 3.15; 5.0 only."""

    reason_code: int = 0
    properties: Properties = field(default_factory=_none)
