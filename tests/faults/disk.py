"""Disk full: a broker whose store is on a file system of 1 MiB, and an account of what it acknowledged there.

Messages of 1 KB go to a persistent session that is away, many more than there is room for.  While the disk is full the
broker is asked for all that it shall still do, then killed and started again; then there is room again; at last it is
killed once more, and the session is asked what it has.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.probes import NotAvailable
from tests.faults.peer import Gone, Peer, is_answered
from tests.faults.processes import BrokerProcess, Ours

SIZE = "1m"
ENOUGH = "64m"
PADDING = b"." * 1000
REFUSALS = (0x83, 0x97)
ALARM = "cannot be written"
PATIENCE = 20.0


@contextlib.contextmanager
def small_disk(directory: Path, size: str = SIZE) -> Iterator[Path]:
    """A file system in memory; only root can make one."""
    disk = directory / "disk"
    disk.mkdir()
    _mount(f"size={size},mode=777", disk)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def enlarge(disk: Path) -> None:
    """There is room again."""
    _mount(f"remount,size={ENOUGH}", disk)


def make_read_only(disk: Path) -> None:
    """Nothing can be written any more."""
    _mount("remount,ro", disk)


def _mount(options: str, disk: Path) -> None:
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise NotAvailable(f"a small file system cannot be mounted here: {error}") from error


@dataclass
class Account:
    """One broker's line of the table."""

    name: str
    acknowledged: set[int] = field(default_factory=set)
    refused: int = 0
    kept: set[int] = field(default_factory=set)
    acknowledged_by_old: int = 0  # while full, by 3.1.1
    alarm: float | None = None  # seconds after the first refusal
    qos0: str = "-"
    start_while_full: str = "-"
    normal_after: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def false_acknowledgements(self) -> int:
        """Acknowledged, and gone."""
        return len(self.acknowledged - self.kept)

    @property
    def is_clean(self) -> bool:
        """As it must be with ours."""
        return (
            not self.notes
            and self.false_acknowledgements == 0
            and self.acknowledged_by_old == 0
            and self.refused > 0
            and self.qos0 == "goes on"
            and self.start_while_full == "works"
            and self.alarm is not None
            and self.alarm <= 1
            and self.normal_after is not None
            and self.normal_after <= 5
        )

    def row(self) -> dict[str, str]:
        """For the table."""
        return {
            "broker": self.name,
            "acknowledged": f"{len(self.acknowledged):,}",
            "refused": f"{self.refused:,}",
            "kept": f"{len(self.acknowledged & self.kept):,}",
            "kept though refused": f"{len(self.kept - self.acknowledged):,}",
            "false acks": f"{self.false_acknowledgements:,}",
            "QoS 0 while full": self.qos0,
            "alarm after": _seconds(self.alarm),
            "start while full": self.start_while_full,
            "normal after": _seconds(self.normal_after),
        }


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f} s"


class FullDisk:
    """The trial of one broker."""

    def __init__(self, broker: BrokerProcess, disk: Path) -> None:
        self._broker = broker
        self._disk = disk
        self._last = 0
        self._live: list[bytes] = []
        self._first_refusal: float | None = None
        self._is_ours = isinstance(broker, Ours)
        self.account = Account(broker.name)

    async def run(self, messages: int) -> Account:
        """Publish so many."""
        broker, account = self._broker, self.account
        try:
            await self._starts()
            away = self._away()
            await away.connect()
            await away.subscribe("away")
            await away.disconnect()
            await self._fill(messages)
            if self._is_ours:
                await self._old_version()
            await self._qos0()
            await self._start_again()
            await self._make_room()
            await self._count()
        except (Gone, asyncio.TimeoutError) as error:
            account.notes.append(f"a client was left alone: {error!r}")
        finally:
            broker.kill()
            account.notes += broker.notes
        return account

    async def _starts(self) -> bool:
        self._broker.start()
        return self._broker.wait_until_ready() and await is_answered(self._broker.port)

    def _away(self) -> Peer:
        return Peer(self._broker.port, "away", message=self._arrived)

    async def _publisher(self) -> Peer:
        """Of 5.0, with a session that ends with its connection, so that nothing of it is stored."""
        peer = Peer(self._broker.port, "publisher")
        peer.expiry = 0
        await peer.connect(clean=True)
        return peer

    def _arrived(self, topic: str, payload: bytes, qos: int) -> None:
        self.account.kept.add(int(payload[:6]))

    async def _publish(self, peer: Peer, window: int = 100) -> None:
        self._last = number = self._last + 1
        await peer.publish("away", b"%06d" % number + PADDING, 1, self._ended(number), window=window)

    def _ended(self, number: int) -> Callable[[int], None]:
        def ended(code: int) -> None:
            if code < 0x80:
                self.account.acknowledged.add(number)
                return
            self.account.refused += 1
            self._first_refusal = self._first_refusal or time.monotonic()
            if code not in REFUSALS:
                self.account.notes.append(f"refused with 0x{code:02x}")

        return ended

    async def _fill(self, messages: int) -> None:
        publisher = await self._publisher()
        alarm = asyncio.create_task(self._alarm())
        try:
            for _ in range(messages):
                await self._publish(publisher)
            await publisher.settled()
        finally:
            await alarm
        await publisher.disconnect()

    async def _alarm(self) -> None:
        """Wait until the log tells of it."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._is_ours:
            if ALARM in self._broker.log.read_text(errors="replace"):
                self.account.alarm = max(0.0, time.monotonic() - (self._first_refusal or time.monotonic()))
                return
            await asyncio.sleep(0.05)

    async def _old_version(self) -> None:
        """3.1.1 has no way to refuse: no acknowledgement."""
        peer = Peer(self._broker.port, "old", version=4)
        await peer.connect(clean=True)
        before = len(self.account.acknowledged)
        for _ in range(10):
            await self._publish(peer)
        await asyncio.sleep(2)
        self.account.acknowledged_by_old = len(self.account.acknowledged) - before
        if not peer.is_connected:
            self.account.notes.append("a 3.1.1 publisher was closed at once")
        await peer.drop()

    async def _qos0(self) -> None:
        """From one that is connected to another, whose session does not survive."""
        heard = asyncio.Event()
        reader = Peer(self._broker.port, "reader", version=4, message=lambda topic, payload, qos: heard.set())
        await reader.connect(clean=True)
        await reader.subscribe("live", 0)
        writer = Peer(self._broker.port, "writer", version=4)
        await writer.connect(clean=True)
        writer.publish_qos0("live", b"still here")
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(heard.wait(), 2)
        self.account.qos0 = "goes on" if heard.is_set() else "stops"
        await reader.drop()
        await writer.drop()

    async def _start_again(self) -> None:
        """While the disk is full.  Ours is killed; mosquitto is stopped, so that it saves what it can."""
        if self._is_ours:
            self._broker.kill()
        else:
            self._broker.stop()
        if not await self._starts():
            self.account.start_while_full = "fails"
            return
        publisher = await self._publisher()
        for _ in range(200):
            await self._publish(publisher)
        await publisher.settled()
        await publisher.disconnect()
        await self._qos0()
        self.account.start_while_full = "works"

    async def _make_room(self) -> None:
        """And see how long it takes until a message is acknowledged."""
        enlarge(self._disk)
        if not self._broker.is_running and not await self._starts():
            self.account.notes.append("does not start any more")
            return
        started = time.monotonic()
        peer = await self._publisher()
        before = len(self.account.acknowledged)
        while time.monotonic() - started < PATIENCE:
            await self._publish(peer, window=1)
            await peer.settled()
            if len(self.account.acknowledged) > before:
                self.account.normal_after = time.monotonic() - started
                break
            await asyncio.sleep(0.05)
        await peer.disconnect()

    async def _count(self) -> None:
        """What the session has after another start."""
        self._broker.kill() if self._is_ours else self._broker.stop()
        if not await self._starts():
            self.account.notes.append("does not start any more")
            return
        away = self._away()
        await away.connect()
        last = -1
        while last != len(self.account.kept):
            last = len(self.account.kept)
            await asyncio.sleep(0.5)
        await away.disconnect()
