"""Newcomers: clients that come for the first time, subscribe, and go; what they leave is a session each."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.load import broker_rss
from tests.faults.processes import BrokerProcess
from twisted_p2pmqtt.codec.packets import Connect, Disconnect, Suback, Subscribe, SubscriptionRequest
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.codec.writer import encode

AT_ONCE = 64
TIMEOUT = 20.0
EXPIRY = 604_800

CONNACK_REASON = 3
"""Where the reason code is in CONNACK, whatever follows it."""

SUBSCRIBE, DISCONNECT = 1, encode(Disconnect(), 5)
SUBACK = encode(Suback(SUBSCRIBE, [1]), 5)


@dataclass
class Arrival:
    """How fast sessions were made, and what each costs in resident memory."""

    name: str
    sessions: int
    per_second: float
    bytes_each: float

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.sessions:,} sessions made, {self.per_second:,.0f} a second,"
            f" {self.bytes_each / 1024:.1f} KiB each"
        )


async def arrive(broker: BrokerProcess, sessions: int) -> Arrival:
    """Have a broker that is ready make the sessions."""
    assert broker.process is not None
    # Encoded before, so that the broker is what is measured.
    frames = [_frames(number) for number in range(sessions)]
    left, before, started = iter(frames), broker_rss(broker.process.pid), time.monotonic()
    await asyncio.gather(*(_come_and_go(broker.port, left) for _ in range(AT_ONCE)))
    elapsed = time.monotonic() - started
    return Arrival(broker.name, sessions, sessions / elapsed, (broker_rss(broker.process.pid) - before) / sessions)


def _frames(number: int) -> tuple[bytes, bytes]:
    client_id = f"session{number}"
    connect = Connect(client_id, 5, False, 60, None, None, None, Properties(session_expiry_interval=EXPIRY))
    return encode(connect, 5), encode(Subscribe(SUBSCRIBE, [SubscriptionRequest(f"site/{number}/#", 1)]), 5)


async def _come_and_go(port: int, left: Iterator[tuple[bytes, bytes]]) -> None:
    """One client after another; raises ``RuntimeError`` where one is not served."""
    loop = asyncio.get_running_loop()
    for connect, subscribe in left:
        with socket.socket() as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, ("127.0.0.1", port))
            await loop.sock_sendall(connection, connect)
            connack = await asyncio.wait_for(loop.sock_recv(connection, 1024), TIMEOUT)
            await loop.sock_sendall(connection, subscribe)
            suback = await asyncio.wait_for(loop.sock_recv(connection, 1024), TIMEOUT)
            if connack[CONNACK_REASON : CONNACK_REASON + 1] != b"\0" or suback != SUBACK:
                raise RuntimeError(f"a newcomer heard {connack.hex(' ')}, {suback.hex(' ')}")
            await loop.sock_sendall(connection, DISCONNECT)
