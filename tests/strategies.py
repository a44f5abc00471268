"""Hypothesis strategies for legal packets: ``packets(version, from_server)`` gives any that this peer may send.

Small on purpose: short strings, few entries.  Lengths at the edges have tests of their own.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.message import DUP, RETAIN, Message
from twisted_p2pmqtt.codec.packets import (
    Auth,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
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
from twisted_p2pmqtt.codec.properties import Properties

versions = st.sampled_from((3, 4, 5))
packet_ids = st.integers(1, 65535)
binaries = st.binary(max_size=12)
flags = st.integers(0, 1)
uint16s = st.integers(0, 65535)
uint32s = st.integers(0, 0xFFFFFFFF)
_characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_topic_characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0+#")
texts = st.text(_characters, max_size=8)
topic_names = st.text(_topic_characters, min_size=1, max_size=8)
topic_filters = st.text(_characters, min_size=1, max_size=8)

_VALUES: dict[str, SearchStrategy[Any]] = {
    "payload_format_indicator": flags,
    "message_expiry_interval": uint32s,
    "content_type": texts,
    "response_topic": topic_names,
    "correlation_data": binaries,
    "subscription_identifiers": st.lists(st.integers(1, 268_435_455), min_size=1, max_size=3),
    "session_expiry_interval": uint32s,
    "assigned_client_identifier": texts,
    "server_keep_alive": uint16s,
    "authentication_method": texts,
    "authentication_data": binaries,
    "request_problem_information": flags,
    "will_delay_interval": uint32s,
    "request_response_information": flags,
    "response_information": texts,
    "server_reference": texts,
    "reason_string": texts,
    "receive_maximum": st.integers(1, 65535),
    "topic_alias_maximum": uint16s,
    "topic_alias": st.integers(1, 65535),
    "maximum_qos": flags,
    "retain_available": flags,
    "user_properties": st.lists(st.tuples(texts, texts), min_size=1, max_size=3),
    "maximum_packet_size": st.integers(1, 0xFFFFFFFF),
    "wildcard_subscription_available": flags,
    "subscription_identifier_available": flags,
    "shared_subscription_available": flags,
}
_WHY = "reason_string user_properties"
_AUTHENTICATION = "authentication_method authentication_data"
_OF_MESSAGES = (
    "payload_format_indicator message_expiry_interval content_type response_topic correlation_data user_properties"
)
_OF_CONNECT = (
    "session_expiry_interval receive_maximum maximum_packet_size topic_alias_maximum request_response_information "
    "request_problem_information user_properties"
)
_OF_CONNACK = (
    f"session_expiry_interval receive_maximum maximum_qos retain_available maximum_packet_size topic_alias_maximum "
    f"{_WHY} assigned_client_identifier wildcard_subscription_available subscription_identifier_available "
    f"server_keep_alive shared_subscription_available response_information server_reference {_AUTHENTICATION}"
)

_ACK_CODES: list[int] = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]
_SUBACK_CODES: list[int] = [0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]
_UNSUBACK_CODES: list[int] = [0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]


def properties(version: int, names: str, needed: str = "") -> SearchStrategy[Properties]:
    """Some of these properties and all of the ``needed`` ones; none at all before 5.0."""
    if version < 5:
        return st.just({})
    optional = {name: _VALUES[name] for name in names.split()}
    return st.fixed_dictionaries({name: _VALUES[name] for name in needed.split()}, optional=optional)  # type: ignore[return-value]  # of **


def wills(version: int) -> SearchStrategy[Will]:
    """A will, with the properties that only a will may have."""
    of_will = properties(version, f"{_OF_MESSAGES} will_delay_interval")
    return st.builds(Will, topic_names, binaries, st.integers(0, 2), st.booleans(), of_will)


@st.composite
def connects(draw: st.DrawFn, version: int) -> Connect:
    """A CONNECT: a password needs a user name before 5.0, authentication data a method."""
    username = draw(st.none() | texts)
    password = draw(st.none() | binaries) if version == 5 or username is not None else None
    has_method = version == 5 and draw(st.booleans())
    of_connect = properties(
        version,
        f"{_OF_CONNECT} authentication_data" if has_method else _OF_CONNECT,
        "authentication_method" if has_method else "",
    )
    return Connect(
        draw(texts),
        version,
        draw(st.booleans()),
        draw(uint16s),
        username,
        password,
        draw(st.none() | wills(version)),
        draw(of_connect),
        version < 5 and draw(st.booleans()),
    )


@st.composite
def messages(draw: st.DrawFn, version: int, from_server: bool = False) -> Message:
    """A PUBLISH; without a topic where there is a topic alias."""
    qos = draw(st.integers(0, 2))
    names = f"{_OF_MESSAGES} topic_alias subscription_identifiers" if from_server else f"{_OF_MESSAGES} topic_alias"
    found = draw(properties(version, names))
    topic = b"" if "topic_alias" in found and draw(st.booleans()) else draw(topic_names).encode()
    return Message(
        topic,
        draw(binaries),
        0,
        qos,
        RETAIN * draw(flags),
        DUP * draw(flags) if qos else 0,
        draw(packet_ids) if qos else 0,
        found,
    )


def acknowledgements(version: int) -> SearchStrategy[Packet]:
    """PUBACK, PUBREC, PUBREL and PUBCOMP."""

    def kind(packet: type[Puback | Pubrec | Pubrel | Pubcomp], codes: list[int]) -> SearchStrategy[Packet]:
        if version < 5:
            return st.builds(packet, packet_ids)
        return st.builds(packet, packet_ids, st.sampled_from(codes), properties(version, _WHY))

    released = [0x00, 0x92]
    return kind(Puback, _ACK_CODES) | kind(Pubrec, _ACK_CODES) | kind(Pubrel, released) | kind(Pubcomp, released)


def _lists_of(codes: list[int]) -> SearchStrategy[list[int]]:
    return st.lists(st.sampled_from(codes), min_size=1, max_size=3)


def _client_packets(version: int) -> SearchStrategy[Packet]:
    requests = (
        st.builds(SubscriptionRequest, topic_filters, st.integers(0, 2))
        if version < 5
        else st.builds(
            SubscriptionRequest, topic_filters, st.integers(0, 2), st.booleans(), st.booleans(), st.integers(0, 2)
        )
    )
    one_identifier = st.builds(
        lambda found, number: {**found, "subscription_identifiers": [number]} if number else found,
        properties(version, "user_properties"),
        st.integers(0, 268_435_455) if version == 5 else st.just(0),
    )
    either: SearchStrategy[Packet] = st.one_of(
        st.builds(Subscribe, packet_ids, st.lists(requests, min_size=1, max_size=3), one_identifier),
        st.builds(
            Unsubscribe,
            packet_ids,
            st.lists(topic_filters, min_size=1, max_size=3),
            properties(version, "user_properties"),
        ),
        st.builds(Pingreq),
        st.builds(Disconnect),
    )
    if version < 5:
        return either
    return either | st.builds(
        Disconnect,
        st.sampled_from([0x00, 0x04, 0x80, 0x8C, 0x95]),
        properties(version, f"{_WHY} session_expiry_interval"),
    )


def _server_packets(version: int) -> SearchStrategy[Packet]:
    codes = list(range(6)) if version < 5 else [0x00, 0x80, 0x84, 0x8C, 0x95, 0x9D, 0x9F]
    subacks = [0x00, 0x01, 0x02, 0x80] if version < 5 else _SUBACK_CODES
    unsubacks: SearchStrategy[list[int]] = st.just([]) if version < 5 else _lists_of(_UNSUBACK_CODES)
    either: SearchStrategy[Packet] = st.one_of(
        st.builds(Connack, st.booleans(), st.sampled_from(codes), properties(version, _OF_CONNACK)),
        st.builds(Suback, packet_ids, _lists_of(subacks), properties(version, _WHY)),
        st.builds(Unsuback, packet_ids, unsubacks, properties(version, _WHY)),
        st.builds(Pingresp),
    )
    if version < 5:
        return either
    return either | st.builds(
        Disconnect, st.sampled_from([0x00, 0x8B, 0x9D, 0xA2]), properties(version, f"{_WHY} server_reference")
    )


def packets(version: int, from_server: bool = False) -> SearchStrategy[Packet]:
    """Any packet but CONNECT that this peer may send."""
    own = _server_packets(version) if from_server else _client_packets(version)
    either = own | messages(version, from_server) | acknowledgements(version)
    if version < 5:
        return either
    needed = properties(version, f"{_WHY} authentication_data", "authentication_method")
    return either | st.builds(Auth, st.sampled_from([0x00, 0x18, 0x19]), needed)
