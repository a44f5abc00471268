"""Ledger: what was promised to whom, and what came of it, by sequence number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

DELETION = 4
"""Every fourth change of a retained message takes it away."""

TOLD = 10
"""Numbers that are told of those that are missing."""


@dataclass
class Stream:
    """Numbered messages from one publisher to one receiver."""

    topic: str
    qos: int
    acknowledged: set[int] = field(default_factory=set)
    received: Counter[int] = field(default_factory=Counter)
    order: list[int] = field(default_factory=list)  # numbers by their first arrival
    lost: set[int] = field(default_factory=set)  # told before

    def arrived(self, number: int) -> None:
        """It came."""
        if not self.received[number]:
            self.order.append(number)
        self.received[number] += 1

    @property
    def missing(self) -> set[int]:
        """The numbers that were acknowledged and have not come, beyond those that are counted as lost."""
        return self.acknowledged - self.received.keys() - self.lost

    def take_lost(self) -> None:
        """What has not come by now is lost."""
        self.lost |= self.missing

    @property
    def twice(self) -> int:
        """How many came more than once, which counts at QoS 2."""
        return sum(count > 1 for count in self.received.values())

    @property
    def disordered(self) -> int:
        """How many came first behind one that was sent later."""
        return sum(later < earlier for earlier, later in zip(self.order, self.order[1:], strict=False))


class Source:
    """Where numbered messages come from; a stream of them goes to each of its receivers."""

    def __init__(self, name: str, topic: str, qos: int, receivers: tuple[str, ...]) -> None:
        self.name = name
        self.topic = topic
        self.qos = qos
        self.streams = {receiver: Stream(topic, qos) for receiver in receivers}
        self.sent = 0

    def next_payload(self) -> tuple[int, bytes]:
        """The next number, and the payload that carries it."""
        self.sent += 1
        return self.sent, f"{self.name}:{self.sent}".encode()

    def ended(self, number: int, reason_code: int) -> None:
        """Its exchange is over, and where it was acknowledged it is promised to every receiver."""
        if reason_code < 0x80:
            for stream in self.streams.values():
                stream.acknowledged.add(number)


class Retained:
    """A topic's retained message; the number of the last change that was acknowledged, and of the last that was sent.

    A change whose answer was lost may have happened or not.
    """

    def __init__(self) -> None:
        self.acknowledged = self.sent = 0

    def next_payload(self) -> tuple[int, bytes]:
        """The next change, and the payload that makes it: the number, or nothing, which takes the message away."""
        self.sent += 1
        return self.sent, b"%d" % self.sent if self.sent % DELETION else b""

    def ended(self, number: int, reason_code: int) -> None:
        """The exchange is over."""
        if reason_code < 0x80:
            self.acknowledged = max(number, self.acknowledged)

    def take_lost(self) -> None:
        """It was not what it had to be, which is counted once: no change before the next is held to."""
        self.acknowledged = 0

    @property
    def may_be_absent(self) -> bool:
        """Is there a deletion among the changes that may have been the last?"""
        return any(number % DELETION == 0 for number in range(self.acknowledged, self.sent + 1))

    def allows(self, found: int) -> bool:
        """May this be what it is now?  0 is none."""
        return self.may_be_absent if not found else self.acknowledged <= found <= self.sent


class Ledger:
    """Every stream, and all else that was promised."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}
        self.unknown = 0
        self.retained: dict[str, Retained] = {}
        # Filters that are certainly held, or certainly not; one whose answer was lost is in neither.
        self.subscribed: set[str] = set()
        self.unsubscribed: set[str] = set()
        # Sessions that are certainly there, or certainly not any more.
        self.sessions: set[str] = set()
        self.ended: set[str] = set()
        self.subscribers: set[str] = set()  # those of ``sessions`` that were made with a subscription
        self.sessions_lost = self.sessions_kept = 0
        self.subscriptions_lost = self.subscriptions_kept = self.retained_lost = 0

    def source(self, name: str, topic: str, qos: int, *receivers: str) -> Source:
        """A new source."""
        source = self.sources[name] = Source(name, topic, qos, receivers)
        return source

    def arrived(self, receiver: str, payload: bytes) -> None:
        """A message of some stream came."""
        name, _, number = payload.decode().partition(":")
        source = self.sources.get(name)
        if source is None or receiver not in source.streams or not 0 < int(number) <= source.sent:
            self.unknown += 1
        else:
            source.streams[receiver].arrived(int(number))

    @property
    def streams(self) -> list[Stream]:
        """All of all sources."""
        return [stream for source in self.sources.values() for stream in source.streams.values()]

    def faults(self) -> Iterator[str]:
        """For people: what was lost or came twice, and whose it was."""
        for source in self.sources.values():
            for receiver, stream in source.streams.items():
                twice = {number for number, count in stream.received.items() if count > 1 and stream.qos == 2}
                for what, numbers in (("lost", stream.lost), ("twice", twice)):
                    if numbers:
                        yield f"{what}: {source.name} to {receiver} {sorted(numbers)[:TOLD]} of {source.sent}"

    def totals(self) -> dict[str, int]:
        """The table's figures; ``take_lost`` must have been called before.  A message to two receivers counts twice."""
        streams = self.streams
        by_qos = {qos: [stream for stream in streams if stream.qos == qos] for qos in (1, 2)}
        p2p = [stream for stream in streams if stream.topic.startswith("p2p/")]
        return {
            "qos 1 acked": sum(len(stream.acknowledged) for stream in by_qos[1]),
            "qos 1 lost": sum(len(stream.lost) for stream in by_qos[1]),
            "qos 2 acked": sum(len(stream.acknowledged) for stream in by_qos[2]),
            "qos 2 lost": sum(len(stream.lost) for stream in by_qos[2]),
            "qos 2 twice": sum(stream.twice for stream in by_qos[2]),
            "p2p lost": sum(len(stream.lost) for stream in p2p),
            "disordered": sum(stream.disordered for stream in streams),
            "sessions lost": self.sessions_lost + self.sessions_kept,
            "subscriptions lost": self.subscriptions_lost + self.subscriptions_kept,
            "retained lost": self.retained_lost,
            "unknown": self.unknown,
        }


def bad(totals: dict[str, int]) -> dict[str, int]:
    """The figures that must be 0 and are not."""
    return {name: count for name, count in totals.items() if count and not name.endswith("acked")}
