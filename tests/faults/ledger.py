"""Ledger: what was promised to whom, and what came of it, by sequence number."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Stream:
    """Numbered messages from one publisher to one receiver."""

    name: str
    topic: str
    qos: int
    sent: int = 0
    acknowledged: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    received: Counter[int] = field(default_factory=Counter)
    order: list[int] = field(default_factory=list)  # numbers by their first arrival
    lost: set[int] = field(default_factory=set)  # told before

    def next_payload(self) -> tuple[int, bytes]:
        """The next number, and the payload that carries it."""
        self.sent += 1
        return self.sent, f"{self.name}:{self.sent}".encode()

    def ended(self, number: int, reason_code: int) -> None:
        """Its exchange is over."""
        (self.acknowledged if reason_code < 0x80 else self.refused).add(number)

    def arrived(self, number: int) -> None:
        """It came."""
        if not self.received[number]:
            self.order.append(number)
        self.received[number] += 1

    def take_lost(self) -> int:
        """How many that were acknowledged have never come, beyond those counted before."""
        lost = self.acknowledged - self.received.keys() - self.lost
        self.lost |= lost
        return len(lost)

    @property
    def twice(self) -> int:
        """How many came more than once, which counts at QoS 2."""
        return sum(count > 1 for count in self.received.values())

    @property
    def disordered(self) -> int:
        """How many came first behind one that was sent later."""
        return sum(later < earlier for earlier, later in zip(self.order, self.order[1:], strict=False))


class Ledger:
    """Every stream, and all else that was promised."""

    def __init__(self) -> None:
        self.streams: dict[str, Stream] = {}
        self.unknown = 0
        # The last retained message of each topic that was acknowledged, and the last that was sent.
        self.retained: dict[str, int] = {}
        self.retained_sent: dict[str, int] = {}
        # Filters that are certainly held, or certainly not; one whose answer was lost is in neither.
        self.subscribed: set[str] = set()
        self.unsubscribed: set[str] = set()
        self.sessions: set[str] = set()
        self.sessions_lost = self.subscriptions_lost = self.subscriptions_kept = self.retained_lost = 0

    def stream(self, name: str, topic: str, qos: int) -> Stream:
        """A new stream."""
        stream = self.streams[name] = Stream(name, topic, qos)
        return stream

    def arrived(self, payload: bytes) -> None:
        """A message of some stream came."""
        name, _, number = payload.decode().partition(":")
        stream = self.streams.get(name)
        if stream is None or not 0 < int(number) <= stream.sent:
            self.unknown += 1
        else:
            stream.arrived(int(number))

    def totals(self) -> dict[str, int]:
        """The table's figures; ``take_lost`` must have been called before."""
        by_qos = {qos: [stream for stream in self.streams.values() if stream.qos == qos] for qos in (1, 2)}
        p2p = [stream for stream in self.streams.values() if stream.topic.startswith("p2p/")]
        return {
            "qos 1 acked": sum(len(stream.acknowledged) for stream in by_qos[1]),
            "qos 1 lost": sum(len(stream.lost) for stream in by_qos[1]),
            "qos 2 acked": sum(len(stream.acknowledged) for stream in by_qos[2]),
            "qos 2 lost": sum(len(stream.lost) for stream in by_qos[2]),
            "qos 2 twice": sum(stream.twice for stream in by_qos[2]),
            "p2p lost": sum(len(stream.lost) for stream in p2p),
            "disordered": sum(stream.disordered for stream in self.streams.values()),
            "sessions lost": self.sessions_lost,
            "subscriptions lost": self.subscriptions_lost + self.subscriptions_kept,
            "retained lost": self.retained_lost,
            "unknown": self.unknown,
        }
