"""Encoding: a PUBLISH as one client alone gets it: what is left of its expiry, its topic alias, its limit of size.

A delivery that all receivers of a protocol version get alike keeps its encoded form itself (``Delivery.halves``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.properties import Properties

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.connection import Connection
    from twisted_p2pmqtt.core.delivery import Delivery


def encode_for(connection: Connection, delivery: Delivery, flags: int) -> tuple[bytes, bytes]:
    """The PUBLISH before and behind its packet id, with these header flags (QoS << 1, RETAIN, DUP)."""
    message = delivery.message
    if connection.version < 5:
        return message.halves(4, flags)
    if message.expires_at is None and connection.aliases is None:
        return message.halves(5, flags, delivery.extra)
    own = Message(message.topic, message.payload, properties=message.properties)
    if message.expires_at is not None:  # [MQTT-3.3.2-6]
        left = max(0, -int(-(message.expires_at - connection.broker.wheel.now) // 1))
        own.properties = Properties(**message.properties)
        own.properties["message_expiry_interval"] = min(left, message.properties["message_expiry_interval"])
    if connection.aliases is None:
        return own.halves(5, flags, delivery.extra)
    return _encode_aliased(connection, delivery, own, flags)


def _encode_aliased(connection: Connection, delivery: Delivery, own: Message, flags: int) -> tuple[bytes, bytes]:
    aliases = connection.aliases
    assert aliases is not None
    topic = own.topic
    alias = aliases.known(topic)
    if alias is not None:
        own.topic = b""
        return own.halves(5, flags, delivery.extra + alias)
    # A new alias is set only by a packet that is sure to go out before all that follow: not by one that may be
    # dropped (a blocked socket), nor by one that waits for its commit, nor where its three bytes are too many.
    if not connection.is_blocked and not (delivery.sequence and delivery.qos == 2) and (alias := aliases.next()):
        halves = own.halves(5, flags, delivery.extra + alias)
        if fits(connection, halves, flags):
            aliases.set(topic, alias)
            return halves
    return own.halves(5, flags, delivery.extra)


def fits(connection: Connection, halves: tuple[bytes, bytes], flags: int) -> bool:
    """Does the client take a PUBLISH of these halves?"""
    limit = connection.max_packet_size
    return not limit or len(halves[0]) + len(halves[1]) + (2 if flags & 6 else 0) <= limit
