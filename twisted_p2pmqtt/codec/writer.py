"""Packets to bytes, and the acknowledgements of the hot path as ready bytes.

``encode(packet, version)`` serves every packet in either direction; the broker's hot path uses ``PACKET_ID`` and the
heads below, and ``Message`` makes its own frames.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted_p2pmqtt.codec.constants import PacketType
from twisted_p2pmqtt.codec.decode import Packet
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
from twisted_p2pmqtt.codec.primitives import encode_binary, encode_string, encode_varint
from twisted_p2pmqtt.codec.properties import encode_properties

PACKET_ID: list[bytes] = [number.to_bytes(2, "big") for number in range(65536)]
"""Two bytes for each packet identifier."""

PUBACK_HEAD, PUBREC_HEAD, PUBREL_HEAD, PUBCOMP_HEAD = b"\x40\x02", b"\x50\x02", b"\x62\x02", b"\x70\x02"
"""What stands before the packet identifier of an acknowledgement that says success."""

PINGRESP = b"\xd0\x00"


def _packet(first: int, body: bytes) -> bytes:
    return b"%c%b%b" % (first, encode_varint(len(body)), body)


def encode_connect(packet: Connect, version: int) -> bytes:
    """Section 3.1."""
    flags = 0x02 if packet.clean_start else 0
    payload = [encode_string(packet.client_id)]
    if packet.will is not None:
        flags |= 0x04 | packet.will.qos << 3 | (0x20 if packet.will.retain else 0)
        payload.append(_encode_will(packet.will, version))
    if packet.username is not None:
        flags |= 0x80
        payload.append(encode_string(packet.username))
    if packet.password is not None:
        flags |= 0x40
        payload.append(encode_binary(packet.password))
    name = "MQIsdp" if version == 3 else "MQTT"
    body = [encode_string(name), bytes((version | (0x80 if packet.is_bridge else 0), flags))]
    body.append(packet.keep_alive.to_bytes(2, "big"))
    if version == 5:
        body.append(encode_properties(packet.properties))
    return _packet(0x10, b"".join(body + payload))


def _encode_will(will: Will, version: int) -> bytes:
    properties = encode_properties(will.properties) if version == 5 else b""
    return properties + encode_string(will.topic) + encode_binary(will.payload)


def encode_connack(packet: Connack, version: int) -> bytes:
    """Section 3.2."""
    if version < 5:
        return b"\x20\x02%c%c" % (packet.session_present, packet.reason_code)
    return _packet(0x20, bytes((packet.session_present, packet.reason_code)) + encode_properties(packet.properties))


def encode_publish(packet: Message, version: int) -> bytes:
    """Section 3.3, with the message's own QoS, RETAIN, DUP and packet identifier."""
    head, tail = packet.halves(version, packet.qos << 1 | packet.retain | packet.dup)
    return head + (PACKET_ID[packet.packet_id] if packet.qos else b"") + tail


def _encode_acknowledgement(first: int) -> Callable[[Any, int], bytes]:
    def encode(packet: Acknowledgement, version: int) -> bytes:
        """Sections 3.4 to 3.7, in the shortest form."""
        packet_id = PACKET_ID[packet.packet_id]
        if version < 5 or not (packet.reason_code or packet.properties):
            return b"%c\x02%b" % (first, packet_id)
        if not packet.properties:
            return b"%c\x03%b%c" % (first, packet_id, packet.reason_code)
        return _packet(first, packet_id + bytes((packet.reason_code,)) + encode_properties(packet.properties))

    return encode


def encode_pubacks(packet: Pubacks, version: int) -> bytes:
    """One PUBACK after the other."""
    return b"".join(PUBACK_HEAD + PACKET_ID[packet_id] for packet_id in packet.packet_ids)


def _encode_options(request: SubscriptionRequest) -> bytes:
    return bytes(
        (
            request.qos
            | (4 if request.no_local else 0)
            | (8 if request.retain_as_published else 0)
            | request.retain_handling << 4,
        )
    )


def encode_subscribe(packet: Subscribe, version: int) -> bytes:
    """Section 3.8."""
    body = [PACKET_ID[packet.packet_id]]
    if version == 5:
        body.append(encode_properties(packet.properties))
    body.extend(encode_string(request.topic_filter) + _encode_options(request) for request in packet.requests)
    return _packet(0x82, b"".join(body))


def encode_suback(packet: Suback, version: int) -> bytes:
    """Section 3.9."""
    properties = encode_properties(packet.properties) if version == 5 else b""
    return _packet(0x90, PACKET_ID[packet.packet_id] + properties + bytes(packet.reason_codes))


def encode_unsubscribe(packet: Unsubscribe, version: int) -> bytes:
    """Section 3.10."""
    properties = encode_properties(packet.properties) if version == 5 else b""
    return _packet(0xA2, PACKET_ID[packet.packet_id] + properties + b"".join(map(encode_string, packet.topic_filters)))


def encode_unsuback(packet: Unsuback, version: int) -> bytes:
    """Section 3.11; 3.x has no codes there."""
    if version < 5:
        return b"\xb0\x02" + PACKET_ID[packet.packet_id]
    return _packet(
        0xB0, PACKET_ID[packet.packet_id] + encode_properties(packet.properties) + bytes(packet.reason_codes)
    )


def encode_disconnect(packet: Disconnect, version: int) -> bytes:
    """Section 3.14."""
    if version < 5 or not (packet.reason_code or packet.properties):
        return b"\xe0\x00"
    if not packet.properties:
        return b"\xe0\x01%c" % packet.reason_code
    return _packet(0xE0, bytes((packet.reason_code,)) + encode_properties(packet.properties))


def encode_auth(packet: Auth, version: int) -> bytes:
    """Section 3.15; never empty, for it names its method."""
    return _packet(0xF0, bytes((packet.reason_code,)) + encode_properties(packet.properties))


_ENCODERS: dict[type, Callable[[Any, int], bytes]] = {
    Connect: encode_connect,
    Connack: encode_connack,
    Message: encode_publish,
    Puback: _encode_acknowledgement(PacketType.PUBACK << 4),
    Pubacks: encode_pubacks,
    Pubrec: _encode_acknowledgement(PacketType.PUBREC << 4),
    Pubrel: _encode_acknowledgement(PacketType.PUBREL << 4 | 2),
    Pubcomp: _encode_acknowledgement(PacketType.PUBCOMP << 4),
    Subscribe: encode_subscribe,
    Suback: encode_suback,
    Unsubscribe: encode_unsubscribe,
    Unsuback: encode_unsuback,
    Pingreq: lambda packet, version: b"\xc0\x00",
    Pingresp: lambda packet, version: PINGRESP,
    Disconnect: encode_disconnect,
    Auth: encode_auth,
}


def encode(packet: Packet, version: int) -> bytes:
    """The packet's bytes in this protocol version (3, 4 or 5)."""
    return _ENCODERS[packet.__class__](packet, version)
