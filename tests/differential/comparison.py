"""What two brokers made of one sequence, put side by side.

``normalised`` takes out what the standards leave open and every broker does its own way: assigned ids, packet
identifiers of the broker's, the order of properties, the capabilities in CONNACK, reason strings and user properties in
acknowledgements, topic aliases from the broker, the order of messages of different topics and of messages against
acknowledgements.  What is left is either the same or a ``Difference``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from tests.differential.player import Heard, Transcript
from tests.differential.sequences import Sequence, Step
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Auth, Connack, Connect, Disconnect, Pubrel, Suback, Subscribe, Unsuback

CAPABILITIES = {
    "receive_maximum",
    "topic_alias_maximum",
    "maximum_packet_size",
    "maximum_qos",
    "retain_available",
    "wildcard_subscription_available",
    "subscription_identifier_available",
    "shared_subscription_available",
    "server_keep_alive",
    "session_expiry_interval",
    "reason_string",
    "user_properties",
}


@dataclass(frozen=True, order=True)
class Publish:
    """A PUBLISH as its receiver sees it; ``properties`` as text, the expiry without what has run off."""

    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    is_same_id: bool  # with DUP: under the packet identifier of the first time?
    identifiers: tuple[int, ...]
    properties: str


@dataclass
class View:
    """What one connection hears in one step: ``flow`` are answers in order, with the close."""

    flow: list[tuple[Any, ...]]
    publishes: list[Publish]
    releases: list[bytes]  # PUBREL, by the payload of their message

    @property
    def code(self) -> int | None:
        """The reason code of the DISCONNECT, or of a CONNACK that refuses."""
        for event in self.flow:
            if event[0] == "DISCONNECT" or (event[0] == "CONNACK" and event[1]):
                return int(event[1])
        return None

    @property
    def is_closed(self) -> bool:
        return ("closed",) in self.flow

    @property
    def answers(self) -> list[tuple[Any, ...]]:
        """The flow without DISCONNECT and close."""
        return [event for event in self.flow if event[0] not in ("DISCONNECT", "closed")]

    def copy(self) -> View:
        return View(list(self.flow), list(self.publishes), list(self.releases))

    def __str__(self) -> str:
        parts = [" ".join(str(part) for part in event) for event in self.flow]
        parts += [str(publish) for publish in self.publishes]
        parts += [f"PUBREL of {payload!r}" for payload in self.releases]
        return "; ".join(parts) or "nothing"


class Normaliser:
    """The views of one client's connections, in the order of the steps."""

    def __init__(self) -> None:
        self._ids: dict[int, tuple[bytes, bytes]] = {}

    def view(self, heard: list[Heard]) -> View:
        view = View([], [], [])
        for one in heard:
            if isinstance(one, str):
                view.flow.append((one,))
            elif isinstance(one, Message):
                view.publishes.append(self._publish(one))
            elif isinstance(one, Pubrel):
                view.releases.append(self._ids.get(one.packet_id, (b"", b"(unknown)"))[1])
            else:
                view.flow.append(_event(one))
        view.publishes.sort(key=lambda publish: publish.topic)
        view.releases.sort()
        return view

    def _publish(self, message: Message) -> Publish:
        properties: dict[str, Any] = dict(message.properties)
        if properties.get("message_expiry_interval", 0) > 90_000:
            properties["message_expiry_interval"] = "nearly all"
        properties.pop("topic_alias", None)
        identifiers = tuple(sorted(properties.pop("subscription_identifiers", ())))
        what = message.topic, message.payload
        is_same = bool(message.dup) and self._ids.get(message.packet_id) == what
        if message.qos:
            self._ids[message.packet_id] = what
        return Publish(
            message.topic,
            message.payload,
            message.qos,
            bool(message.retain),
            bool(message.dup),
            is_same,
            identifiers,
            str(sorted(properties.items())),
        )


def _event(packet: Any) -> tuple[Any, ...]:
    name = type(packet).__name__.upper()
    properties = {key: value for key, value in packet.properties.items() if key not in CAPABILITIES}
    if isinstance(packet, Connack):
        assigned = properties.pop("assigned_client_identifier", None)
        return (name, packet.reason_code, packet.session_present, assigned is not None, str(sorted(properties.items())))
    if isinstance(packet, Suback | Unsuback):
        return (name, packet.packet_id, tuple(packet.reason_codes))
    if isinstance(packet, Disconnect | Auth):
        return (name, packet.reason_code)
    return (name, packet.packet_id, packet.reason_code)


@dataclass
class Difference:
    """One connection in one step that is not the same on both sides."""

    sequence: Sequence
    at: int
    key: tuple[int, int]
    ours: View
    theirs: View

    @property
    def step(self) -> Step:
        return self.sequence.steps[self.at]

    @property
    def is_actor(self) -> bool:
        """Is it the connection on which the step happened?"""
        return self.key[0] == self.step.client

    @property
    def version(self) -> int:
        """The version of the connection that heard something else."""
        return self.sequence.clients[self.key[0]].version

    @property
    def sender_version(self) -> int:
        """The version of the client that took the step."""
        return self.sequence.clients[self.step.client].version

    @property
    def filters(self) -> set[str]:
        """What the connection's client has subscribed to so far, as it was before any mistake."""
        steps = self.sequence.steps[: self.at + 1]
        packets = [step.packet for step in steps if step.client == self.key[0] and isinstance(step.packet, Subscribe)]
        return {request.topic_filter for packet in packets for request in packet.requests}

    @property
    def is_unlimited(self) -> bool:
        """Does the client acknowledge at once, without a Receive Maximum?"""
        steps = [step for step in self.sequence.steps[: self.at + 1] if step.client == self.key[0]]
        connects = [step.packet for step in steps if isinstance(step.packet, Connect)]
        is_limited = any("receive_maximum" in packet.properties for packet in connects)
        return self.sequence.clients[self.key[0]].answers and not is_limited

    def copy(self) -> Difference:
        """The same, with views that may be changed."""
        return replace(self, ours=self.ours.copy(), theirs=self.theirs.copy())

    def __str__(self) -> str:
        return (
            f"step {self.at}, connection {self.key[1]} of client {self.key[0]}\n"
            f"    ours:   {self.ours}\n    theirs: {self.theirs}"
        )


def differences(sequence: Sequence, ours: Transcript, theirs: Transcript) -> Iterator[list[Difference]]:
    """For each step with any, the differences in it."""
    normalisers = [[Normaliser() for _ in sequence.clients] for _ in range(2)]
    for at, (our_step, their_step) in enumerate(zip(ours, theirs, strict=True)):
        found = []
        for key in sorted(our_step.keys() | their_step.keys()):
            view = normalisers[0][key[0]].view(our_step.get(key, []))
            other = normalisers[1][key[0]].view(their_step.get(key, []))
            if view != other:
                found.append(Difference(sequence, at, key, view, other))
        if found:
            yield found
