"""One decoder a packet type, for whole packets: ``(body, version) -> packet``.

``body`` is everything behind the fixed header.  PUBLISH and the short acknowledgements never come here from a reader's
loop.  Sections 3.1 to 3.15 of MQTT 5.0; 3.1 and 3.1.1 differ where ``version`` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from twisted_p2pmqtt.codec.constants import PacketType, ReasonCode
from twisted_p2pmqtt.codec.errors import MalformedPacket, ProtocolViolation, UnsupportedVersion
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import (
    Acknowledgement,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Pubacks,
    Pubcomp,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    Will,
)
from twisted_p2pmqtt.codec.primitives import (
    decode_binary,
    decode_byte,
    decode_string,
    decode_uint16,
)
from twisted_p2pmqtt.codec.properties import NO_PROPERTIES, WILL, Properties, decode_properties
from twisted_p2pmqtt.codec.topics import check_response_topic, check_topic_name

Packet = (
    Message
    | Connect
    | Connack
    | Acknowledgement
    | Pubacks
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | Pingreq
    | Pingresp
    | Disconnect
    | Auth
)
"""Everything that a reader may return."""

# By first byte.  [MQTT-2.1.3-1] [MQTT3-2.2.2-1]: a type's flags are fixed, and 2 for PUBREL, SUBSCRIBE and UNSUBSCRIBE
# [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]; PUBLISH is free but for a QoS of 3
# [MQTT-3.3.1-4] [MQTT3-3.3.1-4] and DUP at QoS 0 [MQTT-3.3.1-2] [MQTT3-3.3.1-2].
FLAGS_ARE_LEGAL: list[bool] = [  # [MQTT3-3.6.1-1] [MQTT3-3.8.1-1] [MQTT3-3.10.1-1] [MQTT3-3.14.1-1]
    (first >> 4 == 3 and first & 6 != 6 and not (first & 8 and not first & 6))
    or (first >> 4 not in (0, 3) and first & 15 == (2 if first >> 4 in (6, 8, 10) else 0))
    for first in range(256)
]

PUBLISH_BYTES = frozenset(first for first in range(0x30, 0x40) if FLAGS_ARE_LEGAL[first])

RESENT_BYTES_V31 = (0x6A, 0x8A, 0xAA)
"""PUBREL, SUBSCRIBE and UNSUBSCRIBE with DUP, which only MQTT 3.1 (section 2.1) sets when it sends them again."""

ACKNOWLEDGEMENTS: dict[int, Callable[[int, int, Properties], Acknowledgement]] = {
    0x40: Puback,
    0x50: Pubrec,
    0x62: Pubrel,
    0x70: Pubcomp,
}

_NOT_IN_DISCONNECT = {0x84, 0x85, 0x86, 0x88, 0x8A, 0x91, 0x92}  # 0x8C is allowed by the table of section 2.4 alone
_CODES: dict[int, frozenset[int]] = {
    PacketType.CONNACK: frozenset(  # [MQTT-3.2.2-8]
        {0x00, *range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, *range(0x99, 0x9E), 0x9F}
    ),
    PacketType.PUBACK: frozenset((0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)),  # [MQTT-3.4.2-1]
    PacketType.PUBREC: frozenset((0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)),  # [MQTT-3.5.2-1]
    PacketType.PUBREL: frozenset((0x00, 0x92)),  # [MQTT-3.6.2-1]
    PacketType.PUBCOMP: frozenset((0x00, 0x92)),  # [MQTT-3.7.2-1]
    PacketType.SUBACK: frozenset(  # [MQTT-3.9.3-2]
        (0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2)
    ),
    PacketType.UNSUBACK: frozenset((0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91)),  # [MQTT-3.11.3-2]
    PacketType.DISCONNECT: frozenset(  # [MQTT-3.14.2-1]
        {0x00, 0x04} | {code for code in ReasonCode if code >= 0x80} - _NOT_IN_DISCONNECT
    ),
    PacketType.AUTH: frozenset((0x00, 0x18, 0x19)),  # [MQTT-3.15.2-1]
}
_CODES_V3: dict[int, frozenset[int]] = {
    PacketType.CONNACK: frozenset(range(6)),
    PacketType.SUBACK: frozenset((0x00, 0x01, 0x02, 0x80)),  # [MQTT3-3.9.3-2]
}


def _require_end(pos: int, end: int) -> None:
    if pos != end:
        raise MalformedPacket("packet holds more than its fields")


def _require_code(code: int, packet: PacketType, version: int = 5) -> None:
    if code not in (_CODES if version == 5 else _CODES_V3)[packet]:
        raise ProtocolViolation(f"reason code 0x{code:02x} is not for this packet")


def sniff_version(body: bytes) -> int:
    """The version in which to answer a CONNECT that may be illegal: 5, 4, or 0 where the protocol is not MQTT."""
    if body[:6] == b"\0\4MQTT" and len(body) > 6:
        return 5 if body[6] & 0x7F >= 5 else 4
    return 4 if body[:8] == b"\0\6MQIsdp" else 0


_FLAGS_AND_KEEP_ALIVE = Struct(">BH")


def decode_connect(body: bytes, version: int) -> Connect:
    """Section 3.1; ``version`` is not known before."""
    end = len(body)
    raw_name, pos = decode_binary(body, 0, end)
    level, pos = decode_byte(body, pos, end)
    version = level & 0x7F if level & 0x7F < 5 else level  # the high bit is a 3.x bridge's
    if (raw_name, version) not in ((b"MQTT", 4), (b"MQTT", 5), (b"MQIsdp", 3)):
        if raw_name not in (b"MQTT", b"MQIsdp"):  # [MQTT-3.1.2-1] [MQTT3-3.1.2-1]
            raise MalformedPacket("protocol name is neither MQTT nor MQIsdp")
        raise UnsupportedVersion("protocol version is not 3.1, 3.1.1 or 5.0")  # [MQTT-3.1.2-2] [MQTT3-3.1.2-2]
    if pos + 3 > end:
        raise MalformedPacket("packet ends inside the flags and the keep-alive")
    connect_flags, keep_alive = _FLAGS_AND_KEEP_ALIVE.unpack_from(body, pos)
    pos += 3
    _check_connect_flags(connect_flags, version)
    properties = NO_PROPERTIES
    if version == 5:
        properties, pos = decode_properties(body, pos, end, PacketType.CONNECT)
        if "authentication_data" in properties and "authentication_method" not in properties:
            raise ProtocolViolation("authentication data without a method")
    # [MQTT3-3.1.3-3] [MQTT3-3.1.3-4]
    client_id, pos = decode_string(body, pos, end)  # [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.3-4] [MQTT3-3.1.3-1]
    will = None
    if connect_flags & 0x04:  # [MQTT-3.1.2-9] [MQTT3-3.1.2-9]
        will, pos = _decode_will(body, pos, end, connect_flags, version)
    username = password = None
    is_cut = (
        version == 3 and pos == end
    )  # MQTT 3.1, section 3.1: there the flags may promise more than the packet holds
    if connect_flags & 0x80 and not is_cut:  # [MQTT-3.1.2-17] [MQTT-3.1.3-12] [MQTT3-3.1.2-19] [MQTT3-3.1.3-11]
        username, pos = decode_string(body, pos, end)
        is_cut = version == 3 and pos == end
    if connect_flags & 0x40 and not is_cut:  # [MQTT-3.1.2-19] [MQTT3-3.1.2-21]
        password, pos = decode_binary(body, pos, end)
    _require_end(pos, end)  # [MQTT-3.1.2-16] [MQTT-3.1.2-18] [MQTT3-3.1.2-18] [MQTT3-3.1.2-20]
    clean = bool(connect_flags & 0x02)
    return Connect(
        client_id, version, clean, keep_alive, username, password, will, properties, is_bridge=bool(level & 0x80)
    )


def _check_connect_flags(flags: int, version: int) -> None:
    if flags & 0x01:  # [MQTT-3.1.2-3] [MQTT3-3.1.2-3]
        raise MalformedPacket("reserved CONNECT flag is set")
    if flags & 0x04:
        if flags & 0x18 == 0x18:  # [MQTT-3.1.2-12] [MQTT3-3.1.2-14]
            raise MalformedPacket("will QoS is 3")
    # [MQTT3-3.1.2-13] [MQTT3-3.1.2-15]
    elif flags & 0x38 and version > 3:  # [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT3-3.1.2-11]; 3.1 disregards them
        raise MalformedPacket("will QoS or will retain without a will")
    if version < 5 and flags & 0xC0 == 0x40:  # [MQTT3-3.1.2-22]
        raise MalformedPacket("password without a user name")


def _decode_will(body: bytes, pos: int, end: int, flags: int, version: int) -> tuple[Will, int]:
    properties = NO_PROPERTIES
    if version == 5:
        properties, pos = decode_properties(body, pos, end, WILL)
        if "response_topic" in properties:
            check_response_topic(properties["response_topic"])
    topic, pos = decode_binary(body, pos, end)  # [MQTT-3.1.3-11] [MQTT3-3.1.3-10]
    payload, pos = decode_binary(body, pos, end)
    return Will(check_topic_name(topic), payload, flags >> 3 & 3, bool(flags & 0x20), properties), pos


def decode_connack(body: bytes, version: int) -> Connack:
    """Section 3.2."""
    end = len(body)
    acknowledge_flags, pos = decode_byte(body, 0, end)
    code, pos = decode_byte(body, pos, end)
    if acknowledge_flags > 1:  # [MQTT-3.2.2-1]
        raise MalformedPacket("reserved CONNACK flags are set")
    properties = NO_PROPERTIES
    if version == 5 and body != b"\0\1":  # that is a 3.1.1 server, which knows nothing of 5.0
        _require_code(code, PacketType.CONNACK)
        properties, pos = decode_properties(body, pos, end, PacketType.CONNACK)
    elif version < 5:
        _require_code(code, PacketType.CONNACK, version)
    _require_end(pos, end)
    return Connack(bool(acknowledge_flags), code, properties)


def _packet_id(body: bytes, end: int) -> tuple[int, int]:
    packet_id, pos = decode_uint16(body, 0, end)
    if not packet_id:  # [MQTT-2.2.1-3] [MQTT3-2.3.1-1]
        raise ProtocolViolation("packet identifier is zero")
    return packet_id, pos


def _acknowledgement(
    kind: Callable[[int, int, Properties], Acknowledgement], packet: PacketType
) -> Callable[[bytes, int], Acknowledgement]:
    def decode(body: bytes, version: int) -> Acknowledgement:
        """Sections 3.4 to 3.7: a packet identifier and, in 5.0, perhaps a reason code and properties."""
        end = len(body)
        packet_id, pos = _packet_id(body, end)
        code, properties = 0, NO_PROPERTIES
        if version == 5 and pos < end:
            code, pos = decode_byte(body, pos, end)
            _require_code(code, packet)
            if pos < end:
                properties, pos = decode_properties(body, pos, end, packet)
        _require_end(pos, end)
        return kind(packet_id, code, properties)

    return decode


def decode_subscribe(body: bytes, version: int) -> Subscribe:
    """Section 3.8.  Filters are checked when they are subscribed, each has a code of its own in SUBACK."""
    end = len(body)
    packet_id, pos = _packet_id(body, end)
    properties = NO_PROPERTIES
    if version == 5:
        properties, pos = decode_properties(body, pos, end, PacketType.SUBSCRIBE)
        if len(properties.get("subscription_identifiers", ())) > 1:  # 3.8.2.1.2
            raise ProtocolViolation("subscription identifier stands twice")
    if pos == end:  # [MQTT-3.8.3-2] [MQTT3-3.8.3-3]
        raise ProtocolViolation("SUBSCRIBE without a topic filter")
    requests = []
    while pos < end:
        topic_filter, pos = decode_string(body, pos, end)  # [MQTT-3.8.3-1] [MQTT3-3.8.3-1]
        if pos == end:
            raise MalformedPacket("topic filter without its options")
        requests.append(_subscription_request(topic_filter, body[pos], version))
        pos += 1
    return Subscribe(packet_id, requests, properties)


def _subscription_request(topic_filter: str, options: int, version: int) -> SubscriptionRequest:
    if not topic_filter:  # [MQTT-4.7.3-1] [MQTT3-4.7.3-1]
        raise MalformedPacket("topic filter is empty")
    if options & (0xC0 if version == 5 else 0xFC):  # [MQTT-3.8.3-5] [MQTT3-3.8.3-4]
        raise MalformedPacket("reserved subscription options are set")
    if options & 3 == 3:  # [MQTT3-3.8.3-4]
        raise ProtocolViolation("maximum QoS is 3")
    if options & 0x30 == 0x30:
        raise ProtocolViolation("retain handling is 3")
    return SubscriptionRequest(topic_filter, options & 3, bool(options & 4), bool(options & 8), options >> 4 & 3)


def decode_suback(body: bytes, version: int) -> Suback:
    """Section 3.9."""
    packet_id, pos = _packet_id(body, len(body))
    properties = NO_PROPERTIES
    if version == 5:
        properties, pos = decode_properties(body, pos, len(body), PacketType.SUBACK)
    return Suback(packet_id, _codes(body, pos, PacketType.SUBACK, version), properties)


def _codes(body: bytes, pos: int, packet: PacketType, version: int) -> list[int]:
    """The payload of SUBACK and UNSUBACK: a code for each filter, of which there is one at least."""
    if pos == len(body):
        raise MalformedPacket("acknowledgement without a code")
    for code in body[pos:]:
        _require_code(code, packet, version)
    return list(body[pos:])


def decode_unsubscribe(body: bytes, version: int) -> Unsubscribe:
    """Section 3.10."""
    end = len(body)
    packet_id, pos = _packet_id(body, end)
    properties = NO_PROPERTIES
    if version == 5:
        properties, pos = decode_properties(body, pos, end, PacketType.UNSUBSCRIBE)
    if pos == end:  # [MQTT-3.10.3-2] [MQTT3-3.10.3-2]
        raise ProtocolViolation("UNSUBSCRIBE without a topic filter")
    topic_filters = []
    while pos < end:
        topic_filter, pos = decode_string(body, pos, end)  # [MQTT-3.10.3-1] [MQTT3-3.10.3-1]
        if not topic_filter:  # [MQTT-4.7.3-1] [MQTT3-4.7.3-1]
            raise MalformedPacket("topic filter is empty")
        topic_filters.append(topic_filter)
    return Unsubscribe(packet_id, topic_filters, properties)


def decode_unsuback(body: bytes, version: int) -> Unsuback:
    """Section 3.11."""
    packet_id, pos = _packet_id(body, len(body))
    if version < 5:
        _require_end(pos, len(body))
        return Unsuback(packet_id, [])
    properties, pos = decode_properties(body, pos, len(body), PacketType.UNSUBACK)
    return Unsuback(packet_id, _codes(body, pos, PacketType.UNSUBACK, version), properties)


def decode_pingreq(body: bytes, version: int) -> Pingreq:
    """Section 3.12."""
    _require_end(0, len(body))
    return Pingreq()


def decode_pingresp(body: bytes, version: int) -> Pingresp:
    """Section 3.13."""
    _require_end(0, len(body))
    return Pingresp()


def decode_disconnect(body: bytes, version: int) -> Disconnect:
    """Section 3.14."""
    end, pos, code, properties = len(body), 0, 0, NO_PROPERTIES
    if version == 5 and end:
        code, pos = decode_byte(body, pos, end)
        _require_code(code, PacketType.DISCONNECT)
        if pos < end:
            properties, pos = decode_properties(body, pos, end, PacketType.DISCONNECT)
    _require_end(pos, end)
    return Disconnect(code, properties)


def decode_auth(body: bytes, version: int) -> Auth:
    """Section 3.15."""
    end, pos, code, properties = len(body), 0, 0, NO_PROPERTIES
    if end:
        code, pos = decode_byte(body, pos, end)
        _require_code(code, PacketType.AUTH)
        properties, pos = decode_properties(body, pos, end, PacketType.AUTH)
    _require_end(pos, end)
    if "authentication_method" not in properties:  # 3.15.2.2.2
        raise ProtocolViolation("AUTH without an authentication method")
    return Auth(code, properties)


DECODERS: dict[int, Callable[[bytes, int], Packet]] = {
    PacketType.CONNECT: decode_connect,
    PacketType.CONNACK: decode_connack,
    PacketType.PUBACK: _acknowledgement(Puback, PacketType.PUBACK),
    PacketType.PUBREC: _acknowledgement(Pubrec, PacketType.PUBREC),
    PacketType.PUBREL: _acknowledgement(Pubrel, PacketType.PUBREL),
    PacketType.PUBCOMP: _acknowledgement(Pubcomp, PacketType.PUBCOMP),
    PacketType.SUBSCRIBE: decode_subscribe,
    PacketType.SUBACK: decode_suback,
    PacketType.UNSUBSCRIBE: decode_unsubscribe,
    PacketType.UNSUBACK: decode_unsuback,
    PacketType.PINGREQ: decode_pingreq,
    PacketType.PINGRESP: decode_pingresp,
    PacketType.DISCONNECT: decode_disconnect,
    PacketType.AUTH: decode_auth,
}
"""By packet type; PUBLISH is read by the reader itself."""
