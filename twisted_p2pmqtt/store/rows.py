"""Rows: how sessions, deliveries and messages lie in the tables of ``schema/``, and what tells a damaged row.

A row is the tuple of a table's columns in their order.  Every row carries a CRC-32 over its other columns; ``*_from``
functions check it and raise ``Damaged``.  Columns of type TEXT are read as bytes (``CAST``): a changed byte need not be
UTF-8.  Must not know where rows come from.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from zlib import crc32

from twisted_p2pmqtt.codec.constants import PacketType
from twisted_p2pmqtt.codec.errors import MQTTError
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Will
from twisted_p2pmqtt.codec.primitives import decode_varint, encode_varint
from twisted_p2pmqtt.codec.properties import (
    NO_PROPERTIES,
    WILL,
    Properties,
    decode_properties,
    encode_property_body,
)
from twisted_p2pmqtt.core.records import (
    DeliveryRecord,
    MessageRecord,
    RetainedRecord,
    SessionRecord,
    SubscriptionRecord,
)

Row = tuple[Any, ...]


class Damaged(Exception):
    """The row is not what was written."""


class Table(NamedTuple):
    """A table's name, its columns in order, those of them that are TEXT, and its key (unique with ``key``)."""

    name: str
    columns: tuple[str, ...]
    text: frozenset[str]
    key: tuple[str, ...]

    @property
    def selected(self) -> str:
        """The columns for a SELECT, TEXT as bytes."""
        return ", ".join(f"CAST({name} AS BLOB)" if name in self.text else name for name in self.columns)


def _table(name: str, columns: str, text: str = "", key: str = "id") -> Table:
    return Table(name, tuple(columns.split()), frozenset(text.split()), tuple(key.split()))


SESSION = _table(
    "session",
    "id client_id expiry_interval left_at will_topic will_payload will_qos will_retain will_properties checksum",
    "client_id will_topic",
)
SUBSCRIPTION = _table(
    "subscription",
    "session topic_filter qos no_local retain_as_published identifier checksum",
    "topic_filter",
    "session topic_filter",
)
RECEIVED = _table("received", "session packet_id checksum", key="session packet_id")
MESSAGE = _table("message", "id topic payload rest")
DELIVERY = _table("delivery", "id session state topic message rest")
RETAINED = _table("retained", "topic payload rest", "topic", "topic")

TABLES = (SESSION, SUBSCRIPTION, RECEIVED, MESSAGE, DELIVERY, RETAINED)


def _checksum(*values: bytes | int | float | None) -> int:
    # repr of these types is the same in every version of Python; that of str is not.
    return crc32(repr(values).encode())


_PARTS = struct.Struct(">IB")
_EXPIRY = struct.Struct(">d")
_HAS_EXPIRY = 0x40
_FLAGS = [bytes((flags,)) for flags in range(_HAS_EXPIRY)]
_MASK = 0xFFFFFFFF


def _message_rest(
    key: int, topic: bytes, payload: bytes, qos: int, properties: bytes, expires_at: float | None
) -> bytes:
    if expires_at is None:
        rest = _FLAGS[qos << 4] + properties
    else:
        rest = bytes((qos << 4 | _HAS_EXPIRY,)) + _EXPIRY.pack(expires_at) + properties
    return crc32(payload, crc32(topic + rest, key & _MASK)).to_bytes(4, "big") + rest


def _state(key: int, packet_id: int, is_released: int) -> int:
    # The highest bit makes every state as long as any other in its row, so that changing it moves nothing.
    value = is_released << 16 | packet_id
    return 1 << 46 | ((key * 0x9E3779B1 ^ value * 0x85EBCA77) >> 3 & 0x1FFFFFFF) << 17 | value


# --- to the tables ---------------------------------------------------------------------------------------------------


def session_row(key: int, record: SessionRecord) -> Row:
    """A row of ``session``."""
    client_id, will = record.client_id.encode(), record.will
    left_at = None if record.left_at is None else float(record.left_at)
    if will is None:
        columns: Row = (None, None, None, None, None)
        topic = None
    else:
        topic = will.topic.encode()
        properties = encode_property_body(will.properties)
        columns = (will.topic, will.payload, int(will.qos), int(will.retain), properties)
    checksum = _checksum(key, client_id, record.expiry_interval, left_at, topic, *columns[1:])
    return (key, record.client_id, record.expiry_interval, left_at, *columns, checksum)


def subscription_row(session: int, record: SubscriptionRecord) -> Row:
    """A row of ``subscription``."""
    options = (int(record.qos), int(record.no_local), int(record.retain_as_published), record.identifier)
    return (session, record.topic_filter, *options, _checksum(session, record.topic_filter.encode(), *options))


def received_row(session: int, packet_id: int) -> Row:
    """A row of ``received``."""
    return (session, packet_id, _checksum(session, packet_id))


def message_row(key: int, message: Message, expires_at: float | None) -> Row:
    """A row of ``message``."""
    topic, payload = message.topic, message.payload
    return (key, topic, payload, _message_rest(key, topic, payload, message.qos, message.property_body, expires_at))


def delivery_row(key: int, entry: list[Any]) -> Row:
    """A row of ``delivery`` with its message; ``entry`` as in ``Batch.queued``."""
    session, delivery, packet_id, is_released, expires_at = entry
    message = delivery.message
    topic, payload, properties = message.topic, message.payload, message.encoded_properties()
    flags = delivery.qos | delivery.retain << 2 | delivery.is_p2p << 3 | message.qos << 4
    if expires_at is None:
        rest = _FLAGS[flags] + properties + delivery.extra
    else:
        rest = bytes((flags | _HAS_EXPIRY,)) + _EXPIRY.pack(expires_at) + properties + delivery.extra
    checksum = crc32(payload, crc32(topic + rest, (key ^ session << 7) & _MASK))
    return (key, session, _state(key, packet_id, is_released), topic, payload, checksum.to_bytes(4, "big") + rest)


def shared_row(key: int, entry: list[Any], message: int) -> Row:
    """A row of ``delivery`` whose message has a row of its own."""
    session, delivery, packet_id, is_released, _ = entry
    flags = delivery.qos | delivery.retain << 2 | delivery.is_p2p << 3
    rest = _FLAGS[flags] + b"\0" + delivery.extra
    checksum = crc32(b"%d" % message, crc32(rest, (key ^ session << 7) & _MASK))
    return (key, session, _state(key, packet_id, is_released), None, message, checksum.to_bytes(4, "big") + rest)


def state_row(key: int, packet_id: int, is_released: int) -> Row:
    """What a delivery's state becomes: key, state."""
    return (key, _state(key, packet_id, is_released))


def retained_row(topic: str, message: Message, expires_at: float | None) -> Row:
    """A row of ``retained``."""
    payload = message.payload
    rest = _message_rest(0, topic.encode(), payload, message.qos, message.property_body, expires_at)
    return (topic, payload, rest)


# --- from the tables -------------------------------------------------------------------------------------------------


def _checked(decode: Callable[[Sequence[Any]], Any]) -> Callable[[Sequence[Any]], Any]:
    """What a changed byte may do to a row's types ends in ``Damaged``, like a wrong checksum."""

    def checked(row: Sequence[Any]) -> Any:
        try:
            return decode(row)
        except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, struct.error, MQTTError) as error:
            raise Damaged(str(error)) from None

    return checked


def _compare(checksum: int, computed: int) -> None:
    if checksum != computed:
        raise Damaged("its checksum is wrong")


@_checked
def session_from(row: Sequence[Any]) -> SessionRecord:
    """The record of a ``session`` row, without its collections."""
    _compare(row[-1], _checksum(*row[:-1]))
    key, client_id, interval, left_at, topic, payload, qos, retain, properties, _ = row
    will = None
    if topic is not None:
        will = Will(topic.decode(), payload, qos, bool(retain), _properties(properties, WILL))
    return SessionRecord(client_id.decode(), interval, left_at, will, key=key)


@_checked
def subscription_from(row: Sequence[Any]) -> SubscriptionRecord:
    """The record of a ``subscription`` row."""
    _compare(row[-1], _checksum(*row[:-1]))
    _, topic_filter, qos, no_local, retain_as_published, identifier, _ = row
    return SubscriptionRecord(topic_filter.decode(), qos, bool(no_local), bool(retain_as_published), identifier)


@_checked
def received_from(row: Sequence[Any]) -> int:
    """The packet id of a ``received`` row."""
    _compare(row[-1], _checksum(*row[:-1]))
    packet_id: int = row[1]
    return packet_id


@_checked
def message_from(row: Sequence[Any]) -> MessageRecord:
    """The record of a ``message`` row."""
    return _message_record(*row)


@_checked
def check_delivery(row: Sequence[Any]) -> None:
    """Is this ``delivery`` row sound?"""
    key, session, state, topic, message, rest = row
    if state != _state(key, state & 0xFFFF, state >> 16 & 1):
        raise Damaged("its state is wrong")
    payload = b"%d" % message if topic is None else message
    _compare(
        int.from_bytes(rest[:4], "big"), crc32(payload, crc32((topic or b"") + rest[4:], (key ^ session << 7) & _MASK))
    )


def delivery_from(row: Sequence[Any], client_id: str, message: MessageRecord | None) -> DeliveryRecord:
    """The record of a sound ``delivery`` row; ``message`` is None for one that brings its own."""
    key, _, state, topic, payload, rest = row
    flags, expires_at, start = _head(rest)
    size, start = decode_varint(rest, start, len(rest))
    if message is None:
        properties = _properties(rest[start : start + size], PacketType.PUBLISH)
        message = MessageRecord(topic, payload, flags >> 4 & 3, properties, expires_at)
    extra, is_released = rest[start + size :], bool(state >> 16 & 1)
    return DeliveryRecord(
        client_id, key, flags & 3, flags >> 2 & 1, extra, bool(flags & 8), state & 0xFFFF, is_released, message
    )


@_checked
def retained_from(row: Sequence[Any]) -> RetainedRecord:
    """The record of a ``retained`` row."""
    topic, payload, rest = row
    return RetainedRecord(topic.decode(), _message_record(0, topic, payload, rest))


def _message_record(key: int, topic: bytes, payload: bytes, rest: bytes) -> MessageRecord:
    _compare(int.from_bytes(rest[:4], "big"), crc32(payload, crc32(topic + rest[4:], key & _MASK)))
    flags, expires_at, start = _head(rest)
    return MessageRecord(topic, payload, flags >> 4 & 3, _properties(rest[start:], PacketType.PUBLISH), expires_at)


def _head(rest: bytes) -> tuple[int, float | None, int]:
    """Flags, expiry, and the position behind them."""
    _, flags = _PARTS.unpack_from(rest)
    if not flags & _HAS_EXPIRY:
        return flags, None, 5
    return flags, _EXPIRY.unpack_from(rest, 5)[0], 13


def _properties(body: bytes, packet: int) -> Properties:
    if not body:
        return NO_PROPERTIES
    data = encode_varint(len(body)) + body
    return decode_properties(data, 0, len(data), packet)[0]
