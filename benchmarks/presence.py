"""`python -m benchmarks.presence`: does the time of an acknowledgement tell who is there, where `hide_presence` is on?

One sender asks as an attacker would: QoS 1 over MQTT 5 to a target that is connected, to one that is away, and to an id
that nobody has, in random order, one message at a time over a socket. The target that is connected acknowledges, and a
pause lets the broker finish, before the next question. What is told apart is the median time from `send` to PUBACK.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import socket
import statistics
import sys
import time

from benchmarks import frames
from benchmarks.brokers import LOAD_CORE, BrokerSpec, child_conditions, running

ONLINE, AWAY, NOBODY = "online", "absent", "nobody"
TIMEOUT = 5.0
PAUSE = 0.0002  # seconds in which the broker ends what the last question began
LIMIT = 1.05  # the slowest median to the fastest
PUBACK_SIZE = 4  # hidden, it has neither reason code nor property


class Client:
    """A connection that is read a packet at a time, and closed when its block ends."""

    def __init__(self, port: int, client_id: str, clean: bool = True) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connect = frames.connect(client_id, frames.V5, clean)

    def __enter__(self) -> Client:
        self.socket.sendall(self._connect)
        if self.socket.recv(256)[:1] != bytes((frames.CONNACK,)):
            self.socket.close()
            raise frames.ProtocolError("no CONNACK")
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def read(self, size: int) -> bytes:
        """So many bytes and no more."""
        data = self.socket.recv(size + 1)
        if len(data) != size:
            raise frames.ProtocolError(f"{len(data)} bytes where {size} were due: {data.hex()}")
        return data


@dataclasses.dataclass(frozen=True)
class Times:
    """Nanoseconds from `send` to PUBACK, by target."""

    by_target: dict[str, list[int]]

    @property
    def medians(self) -> dict[str, float]:
        return {name: statistics.median(times) for name, times in self.by_target.items()}

    @property
    def ratio(self) -> float:
        """The slowest median to the fastest."""
        return max(self.medians.values()) / min(self.medians.values())

    def __str__(self) -> str:
        lines = [f"{name:<8}{median / 1000:8.1f} us" for name, median in self.medians.items()]
        lines.append(f"the slowest median is {self.ratio:.3f} times the fastest; at most {LIMIT} is wanted")
        return "\n".join(lines)


def ask(port: int, questions: int, seed: int = 0) -> Times:
    """Measure so many questions a target."""
    received = len(frames.publish("t", b"x" * 64, 1, 1, frames.V5)) + len(b"\x26\0\x08p2p-from\0\x06sender")
    order = [ONLINE, AWAY, NOBODY] * questions
    random.Random(seed).shuffle(order)
    times: dict[str, list[int]] = {ONLINE: [], AWAY: [], NOBODY: []}
    with Client(port, AWAY, clean=False):
        pass
    with Client(port, ONLINE) as online, Client(port, "sender") as sender:
        for number, target in enumerate(order):
            frame = frames.publish(f"p2p/{target}/t", b"x" * 64, 1, number % 1000 + 1, frames.V5)
            begun = time.perf_counter_ns()
            sender.socket.send(frame)
            sender.read(PUBACK_SIZE)
            times[target].append(time.perf_counter_ns() - begun)
            if target == ONLINE:
                message = online.read(received)
                (run,) = frames.cut(message)
                online.socket.send(frames.answer(message, run, frames.PUBACK))
            time.sleep(PAUSE)
    return Times(times)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.presence", description="What the clock tells.")
    parser.add_argument("--questions", type=int, default=20_000, metavar="N", help="of each target (20,000)")
    options = parser.parse_args()
    with running(BrokerSpec(deep_queues=True, hide_presence=True)) as broker, child_conditions(LOAD_CORE):
        times = ask(broker.port, options.questions)
    print(times)
    return int(times.ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
