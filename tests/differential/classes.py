"""The known classes of differences from mosquitto, each with the sentence that decides it.

Two kinds.  A ``Shade`` is a difference behind which both brokers are in the same state: it takes itself out of the two
views of one connection, and what is left is compared on.  A ``Parting`` is one behind which they are not: one broker
has refused what the other took, or holds another session; the rest of the sequence says nothing any more.

docs/differences.md is written from this module: ``python -m tests.differential --page``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from tests.differential.comparison import Difference, Publish, View
from tests.differential.mutations import FLIPPED
from tests.differential.sequences import Step
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connect, Disconnect, Subscribe, Unsubscribe
from twisted_p2pmqtt.codec.properties import NO_PROPERTIES, Properties


class Shade(NamedTuple):
    """``soften`` changes the views where the class applies."""

    name: str
    soften: Callable[[Difference], None]


class Parting(NamedTuple):
    """``matches`` is asked for the difference of the connection that took the step, or else for any of the step."""

    name: str
    matches: Callable[[Difference], bool]


# --- shades ----------------------------------------------------------------------------------------------------------


def _is_refusal(event: tuple[Any, ...]) -> bool:
    return bool(event[0] == "DISCONNECT" or (event[0] == "CONNACK" and event[1] != 0))


def _drop_refusal(view: View) -> None:
    view.flow = [event for event in view.flow if not _is_refusal(event)]


def _both_closed(difference: Difference) -> bool:
    return difference.ours.is_closed and difference.theirs.is_closed


def _takeover(difference: Difference) -> None:
    is_older = difference.step.kind == "open" and difference.is_actor
    if is_older and _both_closed(difference) and difference.ours.code == 0x8E and difference.theirs.code is None:
        _drop_refusal(difference.ours)


def _told(difference: Difference) -> None:
    if _both_closed(difference) and difference.ours.code is not None and difference.theirs.code is None:
        _drop_refusal(difference.ours)


def _code(difference: Difference) -> None:
    ours, theirs = difference.ours.code, difference.theirs.code
    if _both_closed(difference) and ours is not None and theirs is not None and ours != theirs:
        _drop_refusal(difference.ours)
        _drop_refusal(difference.theirs)


def _not_told(difference: Difference) -> None:
    is_connack = any(event[0] == "CONNACK" for event in difference.theirs.flow)
    if _both_closed(difference) and difference.step.is_mutated and is_connack and difference.ours.code is None:
        _drop_refusal(difference.theirs)


def _same_codes(difference: Difference, names: tuple[str, ...], ours: int, theirs: int) -> None:
    """Where an acknowledgement has this code in ours and that one in theirs, give ours theirs."""
    flow = difference.ours.flow
    for at, event in enumerate(flow):
        if event[0] in names and event[2] == ours and (event[0], event[1], theirs) in difference.theirs.flow:
            flow[at] = (event[0], event[1], theirs)


def _no_subscribers(difference: Difference) -> None:
    _same_codes(difference, ("PUBREC", "PUBACK"), 0x10, 0)


def _unknown_pubrel(difference: Difference) -> None:
    _same_codes(difference, ("PUBCOMP",), 0x92, 0)


def _overlap(difference: Difference) -> None:
    """Copies of one message as one; what the copies say is compared no further where they are not the same."""
    ours, theirs = difference.ours, difference.theirs
    if ours.publishes == theirs.publishes or len(difference.filters) < 2:
        return
    ours.publishes, theirs.publishes = _merged(ours.publishes), _merged(theirs.publishes)
    released = {publish.payload for publish in ours.publishes + theirs.publishes}
    for view in (ours, theirs):
        view.releases = [payload for payload in view.releases if payload not in released]


def _merged(publishes: list[Publish]) -> list[Publish]:
    found = {(p.topic, p.payload, p.properties): p for p in publishes}
    return [
        replace(p, qos=0, retain=False, dup=False, is_same_id=False, identifiers=()) for _, p in sorted(found.items())
    ]


def _shared_retained(difference: Difference) -> None:
    packet = difference.step.packet
    if difference.is_actor and isinstance(packet, Subscribe) and not difference.step.is_mutated:
        if any(request.topic_filter.startswith("$share/") for request in packet.requests):
            ours, theirs = difference.ours, difference.theirs
            theirs.publishes = [p for p in theirs.publishes if not p.retain or p in ours.publishes]
            payloads = {publish.payload for publish in theirs.publishes if publish.qos == 2}
            theirs.releases = [one for one in theirs.releases if one in payloads or one in ours.releases]


SHADES = [
    Shade("takeover-told", _takeover),
    Shade("refusal-told", _told),
    Shade("refusal-code", _code),
    Shade("refusal-not-told", _not_told),
    Shade("no-subscribers", _no_subscribers),
    Shade("unknown-pubrel", _unknown_pubrel),
    Shade("shared-retained", _shared_retained),
    Shade("overlap", _overlap),
]

# --- partings --------------------------------------------------------------------------------------------------------


def _we_refuse(difference: Difference) -> bool:
    return difference.ours.is_closed and not difference.theirs.is_closed


def _they_refuse(difference: Difference) -> bool:
    return difference.theirs.is_closed and not difference.ours.is_closed


def _same_flow(difference: Difference, *shades: Callable[[Difference], None]) -> bool:
    """Is the flow the same, but for these shades?"""
    probe = difference.copy()
    for soften in shades:
        soften(probe)
    return probe.ours.flow == probe.theirs.flow


def _earlier(difference: Difference) -> list[Step]:
    """What the connection's client did before."""
    return [step for step in difference.sequence.steps[: difference.at] if step.client == difference.key[0]]


def _bad_filter(difference: Difference) -> bool:
    ours, theirs = ([e for e in view.flow if e[0] == "SUBACK"] for view in (difference.ours, difference.theirs))
    is_answered = any({0x80, 0x8F} & set(event[2]) for event in ours)
    return difference.theirs.is_closed and is_answered and not theirs


def _empty_filter(difference: Difference) -> bool:
    packet = difference.step.packet
    is_empty = isinstance(packet, Subscribe) and any(not request.topic_filter for request in packet.requests)
    return _we_refuse(difference) and is_empty


def _share_filter(difference: Difference) -> bool:
    refused = difference.ours.code == 0x82 or any(e[0] == "SUBACK" and 0x80 in e[2] for e in difference.ours.flow)
    return b"$share" in difference.step.data and isinstance(difference.step.packet, Subscribe) and refused


def _reserved_topic(difference: Difference) -> bool:
    packet = difference.step.packet
    if isinstance(packet, Connect):
        return packet.will is not None and packet.will.topic.startswith("$")
    if any(publish.topic.startswith(b"$") for publish in difference.theirs.publishes):
        return True
    return isinstance(packet, Message) and (packet.topic.startswith(b"$") or "topic b'$" in difference.step.mistake)


def _control_character(difference: Difference) -> bool:
    return _they_refuse(difference) and difference.step.mistake.startswith("byte ")


def _wrong_way(difference: Difference) -> bool:
    return _we_refuse(difference) and difference.step.mistake.startswith("its first byte made")


def _reserved_flags(difference: Difference) -> bool:
    return _we_refuse(difference) and difference.step.mistake.startswith(FLIPPED)


def _malformed_disconnect(difference: Difference) -> bool:
    """Did the connection before end so, and does the session exist on one side only?"""
    earlier = _earlier(difference)
    was_malformed = bool(earlier) and isinstance(earlier[-1].packet, Disconnect) and earlier[-1].is_mutated
    return was_malformed and difference.step.kind == "open" and difference.is_actor


def _dup_qos0(difference: Difference) -> bool:
    return _we_refuse(difference) and difference.step.data[:1] in (b"\x38", b"\x39")


def _identifier(difference: Difference) -> bool:
    return isinstance(difference.step.packet, Message) and "property: identifier" in difference.step.mistake


def _extra_bytes(difference: Difference) -> bool:
    return _we_refuse(difference) and "added at its end" in difference.step.mistake


def _released_later(difference: Difference) -> bool:
    """Does a QoS 2 message wait for its PUBREL, or get it now?  Then only what is passed on may differ."""
    steps = difference.sequence.steps[: difference.at + 1]
    waiting = any(s.data[:1] and s.data[0] & 0xF6 == 0x34 and not s.text.endswith("and PUBREL") for s in steps)
    return waiting and _same_flow(difference, _no_subscribers, _unknown_pubrel, _told)


def _second_connect(difference: Difference) -> bool:
    """A second CONNECT, now or earlier: is there still a session, for its client or for what others publish?  Is there
    a will, heard or retained?
    """
    if any(event[0] == "CONNACK" for event in difference.ours.flow):
        return any(map(_is_second_connect, _earlier(difference)))
    was_twice = any(map(_is_second_connect, difference.sequence.steps[: difference.at + 1]))
    is_missed = isinstance(difference.step.packet, Message) and _same_flow(difference, _fewer_subscribers)
    return was_twice and (is_missed or (_same_flow(difference) and _only_wills_differ(difference)))


def _only_wills_differ(difference: Difference) -> bool:
    steps = difference.sequence.steps[: difference.at + 1]
    wills = {s.packet.will.payload for s in steps if isinstance(s.packet, Connect) and s.packet.will is not None}
    heard = {p.payload for p in difference.ours.publishes} ^ {p.payload for p in difference.theirs.publishes}
    return bool(heard) and heard <= wills


def _is_second_connect(step: Step) -> bool:
    return "a CONNECT behind" in step.mistake or step.mistake.endswith("made 0x10")


def _fewer_subscribers(difference: Difference) -> None:
    _same_codes(difference, ("PUBREC", "PUBACK"), 0, 0x10)


def _no_local_retained(difference: Difference) -> bool:
    packet = difference.step.packet
    is_subscribe = difference.is_actor and isinstance(packet, Subscribe) and any(r.no_local for r in packet.requests)
    return is_subscribe and difference.ours.flow == difference.theirs.flow


def _resubscribed(difference: Difference) -> bool:
    """A filter subscribed to twice, with other options."""
    packets = [step.packet for step in _earlier(difference) if isinstance(step.packet, Subscribe)]
    requests = [request for packet in packets for request in packet.requests]
    kinds = {(request.topic_filter, request.no_local, request.retain_as_published) for request in requests}
    ours, theirs = ([replace(p, retain=False) for p in view.publishes] for view in (difference.ours, difference.theirs))
    is_retain_alone = ours == theirs and difference.ours.flow == difference.theirs.flow
    return (difference.is_actor or is_retain_alone) and len(kinds) > len({kind[0] for kind in kinds})


def _will_at_takeover(difference: Difference) -> bool:
    """Is it a will that is heard on one side only, and was there a takeover, now or before?"""
    opened = [step.client for step in difference.sequence.steps[: difference.at + 1] if step.kind == "open"]
    return _only_wills_differ(difference) and len(opened) > len(set(opened))


def _disconnect_will(difference: Difference) -> bool:
    packet = difference.step.packet
    return isinstance(packet, Disconnect) and packet.reason_code >= 0x80 and not difference.is_actor


def _authentication_data(difference: Difference) -> bool:
    return _we_refuse(difference) and "data without method" in difference.step.mistake


def _flag_value(difference: Difference) -> bool:
    packet = difference.step.packet
    is_flag = isinstance(packet, Message) and "payload_format_indicator" in packet.properties
    is_changed = is_flag and difference.step.mistake.startswith("byte ")
    return difference.ours.is_closed and (is_changed or "flag of 2" in difference.step.mistake)


def _half_subscribed(difference: Difference) -> bool:
    """Had the client a SUBSCRIBE refused that began well?"""
    was_refused = any(step.is_mutated and isinstance(step.packet, Subscribe) for step in _earlier(difference))
    return was_refused and _same_flow(difference, _no_subscribers)


def _limits(difference: Difference) -> Properties:
    """What the connection's client said in its last CONNECT."""
    packets = [step.packet for step in _earlier(difference) if isinstance(step.packet, Connect)]
    return packets[-1].properties if packets else NO_PROPERTIES


def _packet_size(difference: Difference) -> bool:
    is_same = _same_flow(difference, _no_subscribers)
    return "maximum_packet_size" in _limits(difference) and is_same and bool(difference.filters)


def _receive_maximum(difference: Difference) -> bool:
    """Did the client acknowledge what it was not sent?"""
    has_strayed = any("for nothing" in step.text for step in _earlier(difference))
    is_more = len(difference.theirs.publishes) > len(difference.ours.publishes)
    is_limited = "receive_maximum" in _limits(difference)
    return has_strayed and is_limited and is_more and _same_flow(difference, _no_subscribers)


def _response_topic(difference: Difference) -> bool:
    return "wild response topic" in difference.step.mistake and difference.ours.is_closed


def _unsubscribed_filter(difference: Difference) -> bool:
    packet = difference.step.packet
    if not isinstance(packet, Unsubscribe):
        return False
    return "filter" in difference.step.mistake or any(map(_is_no_filter, packet.topic_filters))


def _is_no_filter(text: str) -> bool:
    levels = text.split("/")
    return any(len(level) > 1 and {"+", "#"} & set(level) for level in levels) or "#" in levels[:-1]


PARTINGS = [
    Parting("bad-filter", _bad_filter),
    Parting("empty-filter", _empty_filter),
    Parting("share-filter", _share_filter),
    Parting("reserved-topic", _reserved_topic),
    Parting("control-character", _control_character),
    Parting("wrong-way", _wrong_way),
    Parting("dup-qos0", _dup_qos0),
    Parting("reserved-flags", _reserved_flags),
    Parting("identifier-in-publish", _identifier),
    Parting("extra-bytes", _extra_bytes),
    Parting("released-later", _released_later),
    Parting("second-connect", _second_connect),
    Parting("no-local-retained", _no_local_retained),
    Parting("resubscribed", _resubscribed),
    Parting("will-at-takeover", _will_at_takeover),
    Parting("response-topic", _response_topic),
    Parting("unsubscribed-filter", _unsubscribed_filter),
    Parting("disconnect-will", _disconnect_will),
    Parting("authentication-data", _authentication_data),
    Parting("flag-value", _flag_value),
    Parting("half-subscribed", _half_subscribed),
    Parting("malformed-disconnect", _malformed_disconnect),
    Parting("receive-maximum", _receive_maximum),
    Parting("packet-size", _packet_size),
]


def judge(found: list[Difference]) -> tuple[list[str], list[Difference], bool]:
    """The classes of a step's differences, those that nobody has judged, and whether the brokers part here."""
    names: list[str] = []
    unknown: list[Difference] = []
    is_parting = False
    for difference in found:
        softened = difference.copy()
        own = []
        for shade in SHADES:
            before = softened.ours.copy(), softened.theirs.copy()
            shade.soften(softened)
            if (softened.ours, softened.theirs) != before:
                own.append(shade.name)
        if softened.ours == softened.theirs:
            names += own
            # Where the client counts what it has not acknowledged, more copies are another state.
            is_parting = is_parting or ("overlap" in own and not difference.is_unlimited)
        else:
            unknown.append(difference)
    if unknown:
        for parting in PARTINGS:
            if any(parting.matches(difference) for difference in unknown):
                return [*names, parting.name], [], True
    return names, unknown, is_parting
