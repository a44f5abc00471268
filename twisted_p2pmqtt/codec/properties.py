"""MQTT 5.0 properties: one table, and the two functions that walk it (section 2.2.2).

In Python a property list is a dict keyed by the specification's names in snake_case; ``user_properties`` and
``subscription_identifiers`` hold lists, in the order of the wire.  ``ALLOWED`` is the specification's table 2-4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn, TypedDict, cast

from twisted_p2pmqtt.codec.constants import PacketType, PropertyId, ReasonCode
from twisted_p2pmqtt.codec.errors import MalformedPacket, ProtocolViolation
from twisted_p2pmqtt.codec.primitives import (
    decode_binary,
    decode_byte,
    decode_string,
    decode_uint16,
    decode_uint32,
    decode_varint,
    encode_binary,
    encode_string,
    encode_varint,
)


class Properties(TypedDict, total=False):
    """Every property by name.  Intervals are seconds, sizes bytes, ``*_available`` and flags 0 or 1."""

    payload_format_indicator: int
    message_expiry_interval: int
    content_type: str
    response_topic: str
    correlation_data: bytes
    subscription_identifiers: list[int]
    session_expiry_interval: int
    assigned_client_identifier: str
    server_keep_alive: int
    authentication_method: str
    authentication_data: bytes
    request_problem_information: int
    will_delay_interval: int
    request_response_information: int
    response_information: str
    server_reference: str
    reason_string: str
    receive_maximum: int
    topic_alias_maximum: int
    topic_alias: int
    maximum_qos: int
    retain_available: int
    user_properties: list[tuple[str, str]]
    maximum_packet_size: int
    wildcard_subscription_available: int
    subscription_identifier_available: int
    shared_subscription_available: int


class SharedProperties(dict[str, Any]):
    """A property list that many messages share, deaf to writes."""

    __slots__ = ()

    # Each in full: a compiled class (setup.py) would not call what is only another name for a method.
    def __setitem__(self, name: str, value: object) -> NoReturn:
        self._refuse()

    def __delitem__(self, name: str) -> NoReturn:
        self._refuse()

    def __ior__(self, other: object) -> NoReturn:  # type: ignore[misc]  # it never returns
        self._refuse()

    def setdefault(self, *args: object) -> NoReturn:
        self._refuse()

    def update(self, *args: object, **more: object) -> NoReturn:
        self._refuse()

    def pop(self, *args: object) -> NoReturn:
        self._refuse()

    def popitem(self) -> NoReturn:
        self._refuse()

    def clear(self) -> NoReturn:
        self._refuse()

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        """A copy is nobody's but its owner's."""
        return dict, (dict(self),)

    def _refuse(self) -> NoReturn:
        raise TypeError("this property list is shared; make one of your own")


NO_PROPERTIES: Properties = cast(Properties, SharedProperties())
"""Those of every packet without properties."""


def copy_properties(properties: Properties) -> Properties:
    """A property list of its own, down to its user properties."""
    copy = Properties(**properties)
    if "user_properties" in copy:
        copy["user_properties"] = list(copy["user_properties"])
    return copy


WILL = 0
"""Stands for the will properties of CONNECT where a packet type is asked for."""


def _decode_pair(data: bytes, pos: int, end: int) -> tuple[tuple[str, str], int]:
    name, pos = decode_string(data, pos, end)
    value, pos = decode_string(data, pos, end)  # [MQTT-1.5.7-1]
    return (name, value), pos


def _encode_pair(pair: tuple[str, str]) -> bytes:
    return encode_string(pair[0]) + encode_string(pair[1])


class Representation(NamedTuple):
    """How one kind of value is read and written."""

    decode: Callable[[bytes, int, int], tuple[Any, int]]
    encode: Callable[[Any], bytes]


BYTE = Representation(decode_byte, lambda value: value.to_bytes(1, "big"))
UINT16 = Representation(decode_uint16, lambda value: value.to_bytes(2, "big"))
UINT32 = Representation(decode_uint32, lambda value: value.to_bytes(4, "big"))
VARINT = Representation(decode_varint, encode_varint)
STRING = Representation(decode_string, encode_string)
BINARY = Representation(decode_binary, encode_binary)
PAIR = Representation(_decode_pair, _encode_pair)


class Property(NamedTuple):
    """One row of the table: its name in ``Properties``, its form, where it may stand, what it may not be."""

    name: str
    representation: Representation
    packets: frozenset[int]
    repeatable: bool = False
    is_flag: bool = False  # only 0 and 1
    not_zero: bool = False


def _in(*packets: int) -> frozenset[int]:
    return frozenset(packets)


_T = PacketType
_ACKS = (_T.PUBACK, _T.PUBREC, _T.PUBREL, _T.PUBCOMP)
_EXPLAINED = (_T.CONNACK, *_ACKS, _T.SUBACK, _T.UNSUBACK, _T.DISCONNECT, _T.AUTH)

TABLE: dict[int, Property] = {
    PropertyId.PAYLOAD_FORMAT_INDICATOR: Property(
        "payload_format_indicator", BYTE, _in(_T.PUBLISH, WILL), is_flag=True
    ),
    PropertyId.MESSAGE_EXPIRY_INTERVAL: Property("message_expiry_interval", UINT32, _in(_T.PUBLISH, WILL)),
    PropertyId.CONTENT_TYPE: Property("content_type", STRING, _in(_T.PUBLISH, WILL)),  # [MQTT-3.3.2-19]
    PropertyId.RESPONSE_TOPIC: Property("response_topic", STRING, _in(_T.PUBLISH, WILL)),  # [MQTT-3.3.2-13]
    PropertyId.CORRELATION_DATA: Property("correlation_data", BINARY, _in(_T.PUBLISH, WILL)),
    PropertyId.SUBSCRIPTION_IDENTIFIER: Property(
        "subscription_identifiers", VARINT, _in(_T.PUBLISH, _T.SUBSCRIBE), repeatable=True, not_zero=True
    ),
    PropertyId.SESSION_EXPIRY_INTERVAL: Property(
        "session_expiry_interval", UINT32, _in(_T.CONNECT, _T.CONNACK, _T.DISCONNECT)
    ),
    PropertyId.ASSIGNED_CLIENT_IDENTIFIER: Property("assigned_client_identifier", STRING, _in(_T.CONNACK)),
    PropertyId.SERVER_KEEP_ALIVE: Property("server_keep_alive", UINT16, _in(_T.CONNACK)),
    PropertyId.AUTHENTICATION_METHOD: Property("authentication_method", STRING, _in(_T.CONNECT, _T.CONNACK, _T.AUTH)),
    PropertyId.AUTHENTICATION_DATA: Property("authentication_data", BINARY, _in(_T.CONNECT, _T.CONNACK, _T.AUTH)),
    PropertyId.REQUEST_PROBLEM_INFORMATION: Property(
        "request_problem_information", BYTE, _in(_T.CONNECT), is_flag=True
    ),
    PropertyId.WILL_DELAY_INTERVAL: Property("will_delay_interval", UINT32, _in(WILL)),
    PropertyId.REQUEST_RESPONSE_INFORMATION: Property(
        "request_response_information", BYTE, _in(_T.CONNECT), is_flag=True
    ),
    PropertyId.RESPONSE_INFORMATION: Property("response_information", STRING, _in(_T.CONNACK)),
    PropertyId.SERVER_REFERENCE: Property("server_reference", STRING, _in(_T.CONNACK, _T.DISCONNECT)),
    PropertyId.REASON_STRING: Property("reason_string", STRING, _in(*_EXPLAINED)),
    PropertyId.RECEIVE_MAXIMUM: Property("receive_maximum", UINT16, _in(_T.CONNECT, _T.CONNACK), not_zero=True),
    PropertyId.TOPIC_ALIAS_MAXIMUM: Property("topic_alias_maximum", UINT16, _in(_T.CONNECT, _T.CONNACK)),
    PropertyId.TOPIC_ALIAS: Property("topic_alias", UINT16, _in(_T.PUBLISH), not_zero=True),
    PropertyId.MAXIMUM_QOS: Property("maximum_qos", BYTE, _in(_T.CONNACK), is_flag=True),
    PropertyId.RETAIN_AVAILABLE: Property("retain_available", BYTE, _in(_T.CONNACK), is_flag=True),
    PropertyId.USER_PROPERTY: Property(
        "user_properties",
        PAIR,
        _in(_T.CONNECT, _T.PUBLISH, WILL, _T.SUBSCRIBE, _T.UNSUBSCRIBE, *_EXPLAINED),
        repeatable=True,
    ),
    PropertyId.MAXIMUM_PACKET_SIZE: Property("maximum_packet_size", UINT32, _in(_T.CONNECT, _T.CONNACK), not_zero=True),
    PropertyId.WILDCARD_SUBSCRIPTION_AVAILABLE: Property(
        "wildcard_subscription_available", BYTE, _in(_T.CONNACK), is_flag=True
    ),
    PropertyId.SUBSCRIPTION_IDENTIFIER_AVAILABLE: Property(
        "subscription_identifier_available", BYTE, _in(_T.CONNACK), is_flag=True
    ),
    PropertyId.SHARED_SUBSCRIPTION_AVAILABLE: Property(
        "shared_subscription_available", BYTE, _in(_T.CONNACK), is_flag=True
    ),
}

_BY_NAME: dict[str, tuple[bytes, Property]] = {
    row.name: (encode_varint(identifier), row) for identifier, row in TABLE.items()
}


def decode_properties(data: bytes, pos: int, end: int, packet: int) -> tuple[Properties, int]:
    """The property list at ``pos`` of a packet of this type (or ``WILL``), and the position behind it.

    An unknown identifier, one of another packet type (2.2.2.2) and bytes that do not fit are malformed; a property that
    stands twice or has a value out of its range is a protocol error (a Topic Alias of 0 has a reason code of its own).
    So is one that a will may not have: the will has no packet type of its own.
    """
    size, pos = decode_varint(data, pos, end)
    if pos + size > end:
        raise MalformedPacket("property length is beyond the packet")
    if not size:
        return NO_PROPERTIES, pos
    end = pos + size
    found: dict[str, Any] = {}
    while pos < end:
        identifier, pos = decode_varint(data, pos, end)
        row = TABLE.get(identifier)
        if row is None:
            raise MalformedPacket(f"unknown property 0x{identifier:02x}")
        if packet not in row.packets:
            wrong = ProtocolViolation if packet == WILL else MalformedPacket
            raise wrong(f"{row.name} is not allowed in this packet")
        value, pos = row.representation.decode(data, pos, end)
        if row.not_zero and not value:
            code = ReasonCode.TOPIC_ALIAS_INVALID if row.name == "topic_alias" else None  # [MQTT-3.3.2-8]
            raise ProtocolViolation(f"{row.name} is zero", code)
        if row.is_flag and value > 1:
            raise ProtocolViolation(f"{row.name} is neither 0 nor 1")
        if row.repeatable:
            found.setdefault(row.name, []).append(value)
        elif row.name in found:
            raise ProtocolViolation(f"{row.name} stands twice")
        else:
            found[row.name] = value
    return found, pos  # type: ignore[return-value]  # the table gives each name its type


def encode_properties(properties: Properties) -> bytes:
    """The property list with its length in front, in the dict's order; ``b"\\0"`` for none."""  # [MQTT-2.2.2-1]
    return encode_varint(len(body)) + body if (body := encode_property_body(properties)) else b"\0"


def encode_property_body(properties: Properties) -> bytes:
    """The properties without the length in front."""
    out = []
    for name, value in properties.items():
        identifier, row = _BY_NAME[name]
        for one in value if row.repeatable else (value,):  # type: ignore[attr-defined]  # a row of a table
            out.append(identifier)
            out.append(row.representation.encode(one))
    return b"".join(out)
