"""Connack: what a client is told when it connects (3.2): what is limited here, what of its wishes is granted, or why it
is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted_p2pmqtt.codec.constants import RETURN_CODE_OF_REASON, ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError, ServerRedirect
from twisted_p2pmqtt.codec.packets import Connack, Connect
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.codec.writer import encode

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.broker import Broker
    from twisted_p2pmqtt.core.limits import Limits

# Section 3.2.2.2; anything else that goes wrong before CONNACK is told as an unspecified error.
_CONNACK_CODES = frozenset((*range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F))


def refusal_frame(version: int, error: MQTTError) -> bytes:
    """The CONNACK that refuses; nothing where the version has no code for it, or is not known (0)."""
    code = error.reason_code
    if version == 5:
        properties = Properties()
        if isinstance(error, ServerRedirect):
            properties["server_reference"] = error.server_reference
        return encode(Connack(False, code if code in _CONNACK_CODES else ReasonCode.UNSPECIFIED_ERROR, properties), 5)
    if version and code in RETURN_CODE_OF_REASON:  # [MQTT-3.2.2-6] [MQTT3-3.2.2-4] [MQTT3-3.2.2-6]
        return encode(Connack(False, RETURN_CODE_OF_REASON[code]), 4)
    return b""


def allowed_expiry(limits: Limits, connect: Connect, properties: Properties) -> int:
    """The session expiry interval in seconds; noted in CONNACK's ``properties`` where it is less than was asked for."""
    cap = limits.max_session_expiry
    if connect.version < 5:
        return 0 if connect.clean_start else cap
    wanted = connect.properties.get("session_expiry_interval", 0)
    if wanted > cap:
        properties["session_expiry_interval"] = cap
    return min(wanted, cap)


def allowed_keep_alive(limits: Limits, connect: Connect, properties: Properties) -> int:
    """The keep-alive in seconds, 0 for none; noted in CONNACK's ``properties`` where it is not what was asked for."""
    keep_alive = connect.keep_alive
    if limits.max_keep_alive and (keep_alive == 0 or keep_alive > limits.max_keep_alive):
        keep_alive = limits.max_keep_alive
    elif 0 < keep_alive < limits.min_keep_alive:
        keep_alive = limits.min_keep_alive
    if keep_alive != connect.keep_alive:
        properties["server_keep_alive"] = keep_alive  # [MQTT-3.2.2-22]
    return keep_alive


def announce(broker: Broker, connect: Connect, client_id: str, properties: Properties) -> None:
    """Note what a client must know of this server's limits (3.2.2.3), and what it asked to be told."""
    limits = broker.limits
    properties["topic_alias_maximum"] = limits.topic_alias_maximum
    properties["receive_maximum"] = limits.receive_maximum
    properties["maximum_packet_size"] = limits.max_packet_size
    if limits.max_qos < 2:
        properties["maximum_qos"] = limits.max_qos  # [MQTT-3.2.2-9]
    if not limits.retain_available:
        properties["retain_available"] = 0
    if not limits.wildcard_subscriptions:
        properties["wildcard_subscription_available"] = 0
    if not limits.subscription_identifiers:
        properties["subscription_identifier_available"] = 0
    if not limits.shared_subscriptions:
        properties["shared_subscription_available"] = 0
    if connect.properties.get("request_response_information"):  # [MQTT-3.1.2-28]
        information = getattr(broker.router, "response_information", None)
        if information is not None:
            answer = broker.guard.call(information, client_id)
            if isinstance(answer, str):
                properties["response_information"] = answer
    method = connect.properties.get("authentication_method")  # [MQTT-4.12.0-6]
    if method is not None:
        properties["authentication_method"] = method
