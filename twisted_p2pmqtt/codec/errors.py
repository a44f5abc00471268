"""What goes wrong on the wire, each error with the reason code to answer with.

Any layer raises these; one place in the protocol turns them into a DISCONNECT or CONNACK (5.0) or a close (3.x).
"""

from __future__ import annotations

from twisted_p2pmqtt.codec.constants import ReasonCode


class MQTTError(Exception):
    """A packet or an act that the protocol does not allow.

    ``reason_code`` is what the peer is told, ``reason_string`` the sentence that may go with it (no client data).
    """

    reason_code = ReasonCode.UNSPECIFIED_ERROR

    def __init__(self, reason_string: str, reason_code: ReasonCode | None = None) -> None:
        super().__init__(reason_string)
        self.reason_string = reason_string
        if reason_code is not None:
            self.reason_code = reason_code


class MalformedPacket(MQTTError):
    """Bytes that cannot be parsed (section 1.2)."""

    reason_code = ReasonCode.MALFORMED_PACKET


class ProtocolViolation(MQTTError):
    """A packet that parses and is not allowed here (section 1.2, Protocol Error)."""

    reason_code = ReasonCode.PROTOCOL_ERROR


class PacketTooLarge(MQTTError):
    """A packet over the announced Maximum Packet Size."""

    reason_code = ReasonCode.PACKET_TOO_LARGE


class UnsupportedVersion(MQTTError):
    """A CONNECT whose protocol name or level this server does not speak."""

    reason_code = ReasonCode.UNSUPPORTED_PROTOCOL_VERSION


class ServerRedirect(MQTTError):
    """The client is to use another server (4.11): ``server_reference`` names it, as ``host:port`` as a rule."""

    def __init__(self, server_reference: str, permanently: bool = False) -> None:
        code = ReasonCode.SERVER_MOVED if permanently else ReasonCode.USE_ANOTHER_SERVER
        super().__init__("use another server", code)
        self.server_reference = server_reference


class TopicNameInvalid(MQTTError):
    """A topic name that is well formed and not acceptable."""

    reason_code = ReasonCode.TOPIC_NAME_INVALID


class TopicFilterInvalid(MQTTError):
    """A topic filter that is well formed and not acceptable."""

    reason_code = ReasonCode.TOPIC_FILTER_INVALID
