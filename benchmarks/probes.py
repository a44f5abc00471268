"""Does a broker really do what a row asks of it? A figure for a feature that is silently off would be a lie.

Each probe raises `NotAvailable` where it does not.
"""

from __future__ import annotations

import select
import time
from pathlib import Path

from benchmarks import frames
from benchmarks.links import LinkClosed, open_link

PROBE_TIMEOUT = 5.0
DENIED_TOPIC = "p2p/probe/secret/t"  # by the rules that brokers.py writes
NOT_AUTHORISED = 0x87


class NotAvailable(Exception):
    """This broker is not installed, or does not do what the row asks of it."""


def ask(transport: str, port: int, data: bytes, wanted: int) -> bytes:
    """Send frames on a connection of their own; the body of the first packet of the wanted type."""
    with select.epoll() as epoll:
        link = open_link(transport, port, epoll)
        try:
            link.send(data)
            got = b""
            deadline = time.monotonic() + PROBE_TIMEOUT
            while time.monotonic() < deadline:
                for _, event in epoll.poll(0.1):
                    if event & select.EPOLLOUT:
                        link.on_writable()
                    got += link.receive()
                for run in frames.cut(got):
                    if run.first == wanted:
                        return got[run.start + run.head : run.start + run.stride]
        finally:
            link.close()
    raise TimeoutError(f"no packet of type 0x{wanted:02x}")


def check_connection(transport: str, port: int) -> None:
    """A CONNECT over the transport is answered."""
    try:
        ask(transport, port, frames.connect("probe"), frames.CONNACK)
    except (LinkClosed, OSError) as error:
        raise NotAvailable(f"no MQTT over {transport}: {error}") from error


def check_acl(port: int) -> None:
    """A publish that the ACL file denies is refused."""
    publish = frames.publish(DENIED_TOPIC, b"x", qos=1, packet_id=1, level=frames.V5)
    body = ask("tcp", port, frames.connect("probe", frames.V5) + publish, frames.PUBACK)
    if body[2:3] != bytes((NOT_AUTHORISED,)):
        raise NotAvailable(f"the ACL file is not obeyed: PUBACK {body.hex()} for {DENIED_TOPIC}")


def check_store(path: Path) -> None:
    """After a durable load there is something on the disk."""
    if not any(file.stat().st_size for file in path.parent.glob(path.name + "*")):
        raise NotAvailable("nothing was stored on disk")
