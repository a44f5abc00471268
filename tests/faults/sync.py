"""Sync: does every acknowledgement leave after the disk has synced the commit that covers it?

The broker runs under strace, which tells what it received, each frame that it wrote into the database's log, each sync
and all that it sent.  strace prints the beginning of a call before the call happens, and its end after it has, so this
order is proof, whatever the threads do:

- PUBACK and PUBREC: the page with the message's own payload was written into the log, then the frame that completes its
  transaction, then a sync began and returned, then the send began.
- PUBCOMP: PUBREL was received, then a transaction was completed that was not begun, then a sync began and returned,
  then the send began.

The targets are away, or connected and silent, so that every message has to be written.

The same trace tells what a disk has when the power fails: what was written before the last sync, and of what was
written since as much as it pleases.  Such disks are made at many moments, and the store is opened on each.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from benchmarks.probes import NotAvailable
from tests.faults.peer import Peer, is_answered
from tests.faults.processes import Ours
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Connect, Puback, Pubacks, Pubcomp, Pubrec, Pubrel
from twisted_p2pmqtt.codec.reader import PacketReader
from twisted_p2pmqtt.core.records import DeliveryRecord, StoreError
from twisted_p2pmqtt.store.sqlite import SQLiteStore
from twisted_p2pmqtt.store.writer import DirectWriter

SENDS = ("sendto", "sendmsg", "write", "writev")
RECEIVES = ("recvfrom", "recvmsg", "read", "readv")
SYNCS = ("fdatasync", "fsync")
CALLS = (*SENDS, *RECEIVES, *SYNCS, "pwrite64")
LONGEST_STRING = 1 << 20

FRAME_HEADER = 24
"""Bytes before each page in SQLite's log; bytes 4 to 7 are not zero where the page completes a transaction."""

PAYLOAD = re.compile(rb"message-\d{6}")
NEVER = 1 << 62

_LINE = re.compile(r"(\d+) +(<\.\.\. \w+ resumed>)?(.*)")
_CALL = re.compile(r"(\w+)\(\d+<([^>]*)>")
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"(\.\.\.)?')
_RESULT = re.compile(r"(?:, (\d+) ?)?\) += (-?\d+)")


class Call(NamedTuple):
    """A system call on a file or socket: begun where ``result`` is None, else ended."""

    thread: str
    name: str
    target: str
    data: bytes
    result: int | None
    offset: int = 0


def calls(lines: Iterator[str]) -> Iterator[Call]:
    """What strace wrote: the beginning and the end of each call, in order."""
    begun: dict[str, str] = {}
    for line in lines:
        matched = _LINE.match(line)
        if matched is None:
            continue
        thread, is_resumed, text = matched.groups()
        if is_resumed:
            text = begun.pop(thread) + text
        elif text.endswith("<unfinished ...>"):
            text = begun[thread] = text.removesuffix("<unfinished ...>")
        call = _CALL.match(text)
        if call is None:
            continue
        data = b"".join(map(_bytes, _STRING.finditer(text)))
        if not is_resumed:
            yield Call(thread, call[1], call[2], data, None)
        if result := _RESULT.search(text, max(text.rfind(", "), 0)):
            yield Call(thread, call[1], call[2], data, int(result[2]), int(result[1] or 0))


def _bytes(string: re.Match[str]) -> bytes:
    if string[2]:
        raise ValueError("strace has cut a string short")
    return string[1].encode().decode("unicode_escape").encode("latin-1")


@dataclass
class Client:
    """What the broker received on one socket and has not acknowledged."""

    received: PacketReader = field(default_factory=PacketReader)
    sent: PacketReader | None = None
    payloads: dict[int, bytes] = field(default_factory=dict)  # by packet id
    released: dict[int, int] = field(default_factory=dict)  # by packet id the first transaction that may cover it
    synced_before: int = 0  # transactions that were synced when the send that goes on now began


@dataclass
class Audit:
    """Follows one trace.  Transactions are counted from 1, in the order of the log."""

    acknowledgements: int = 0
    in_order: int = 0
    power_cuts: int = 0
    survived: int = 0
    promised: set[bytes] = field(default_factory=set)  # payloads of PUBACK and PUBREC
    _transactions: int = 0
    _synced: int = 0
    _is_last_frame: bool = False
    _unfinished: set[bytes] | None = None  # payloads in the transaction that is being written
    _transaction_of: dict[bytes, int] = field(default_factory=dict)
    _syncing: dict[str, int] = field(default_factory=dict)
    _clients: dict[str, Client] = field(default_factory=dict)

    @property
    def is_clean(self) -> bool:
        """Was every acknowledgement in order, and does it survive?"""
        return 0 < self.in_order == self.acknowledgements and self.survived == self.power_cuts

    def __str__(self) -> str:
        return (
            f"{self.survived} of {self.power_cuts} power cuts survived with all that was acknowledged\n"
            f"{self.in_order:,} of {self.acknowledgements:,} acknowledgements after their commit's sync"
        )

    def take(self, call: Call) -> None:
        """The next call."""
        if call.target.startswith("socket:"):
            client = self._clients.setdefault(call.target, Client())
            if call.name in RECEIVES and call.result is not None:
                self._received(client, call.data)
            elif call.name in SENDS and call.result is None:
                client.synced_before = self._synced
            elif call.name in SENDS and call.result is not None and call.result > 0:
                self._sent(client, call.data[: call.result])
        elif call.target.endswith("-wal"):
            if call.name in SYNCS:
                self._sync(call)
            elif call.name == "pwrite64" and call.result == len(call.data):
                self._write(call.data)

    def _write(self, data: bytes) -> None:
        if len(data) == FRAME_HEADER:
            self._is_last_frame = any(data[4:8])
            self._unfinished = self._unfinished or set()
        elif self._unfinished is not None:
            self._unfinished.update(PAYLOAD.findall(data))
            if self._is_last_frame:
                self._transactions += 1
                for payload in self._unfinished:
                    self._transaction_of.setdefault(payload, self._transactions)
                self._unfinished = None

    def _sync(self, call: Call) -> None:
        if call.result is None:
            self._syncing[call.thread] = self._transactions
        elif call.result == 0:
            self._synced = max(self._synced, self._syncing[call.thread])

    def _received(self, client: Client, data: bytes) -> None:
        for packet in client.received.feed(data):
            if isinstance(packet, Connect):
                client.sent = PacketReader(version=packet.version, from_server=True)
            elif isinstance(packet, Message) and packet.qos:
                client.payloads[packet.packet_id] = packet.payload
            elif isinstance(packet, Pubrel):
                begun = self._unfinished is not None
                client.released[packet.packet_id] = self._transactions + 1 + begun

    def _sent(self, client: Client, data: bytes) -> None:
        if client.sent is None:
            return
        for packet in client.sent.feed(data):
            if isinstance(packet, Pubacks):
                for packet_id in packet.packet_ids:
                    self._promised(client, packet_id)
            elif isinstance(packet, Puback | Pubrec) and packet.reason_code < 0x80:
                self._promised(client, packet.packet_id)
            elif isinstance(packet, Pubcomp):
                self._judge(client, client.released[packet.packet_id])

    def _promised(self, client: Client, packet_id: int) -> None:
        payload = client.payloads[packet_id]
        self.promised.add(payload)
        self._judge(client, self._transaction_of.get(payload, NEVER))

    def _judge(self, client: Client, transaction: int) -> None:
        self.acknowledgements += 1
        self.in_order += transaction <= client.synced_before


class DiskImage:
    """What the disk certainly has of the store's files, and what it may have."""

    def __init__(self, store: Path, base: bytes) -> None:
        self._files = {str(store): bytearray(base), f"{store}-wal": bytearray()}
        self._written: list[Call] = []
        self._syncing: dict[str, list[Call]] = {}
        self._choose = random.Random(0)

    def take(self, call: Call) -> None:
        """The next call."""
        if call.target not in self._files:
            return
        if call.name == "pwrite64" and call.result == len(call.data):
            self._written.append(call)
        elif call.name in SYNCS and call.result is None:
            self._syncing[call.thread] = [write for write in self._written if write.target == call.target]
        elif call.name in SYNCS:
            synced = self._syncing.pop(call.thread)
            for write in synced:
                apply(write, self._files[write.target])
            self._written = [write for write in self._written if write not in synced]

    def survives(self, directory: Path, promised: set[bytes]) -> bool:
        """Has a store opened on such a disk all of these?"""
        files = {name: bytearray(data) for name, data in self._files.items()}
        for write in self._written:
            if self._choose.random() < 0.5:
                apply(write, files[write.target])
        with TemporaryDirectory(dir=directory) as name:
            path = Path(name) / "store.db"
            for rest, data in zip(("", "-wal"), files.values(), strict=True):
                Path(f"{path}{rest}").write_bytes(data)
            store = SQLiteStore(str(path), "full", writer=DirectWriter())
            found: set[bytes] = set()
            try:
                store.restore_now(
                    lambda records: found.update(
                        record.message.payload for record in records if isinstance(record, DeliveryRecord)
                    )
                )
            except StoreError:
                return False
            store.close()
        return promised <= found


def apply(write: Call, file: bytearray) -> None:
    """Do to the file what the call did."""
    file.extend(bytes(max(0, write.offset - len(file))))
    file[write.offset : write.offset + len(write.data)] = write.data


async def publish(port: int, messages: int) -> list[int]:
    """Half of them at QoS 1 and half at QoS 2, to a P2P target that is away and to a silent one; gives the reason
    codes.
    """
    away, silent = Peer(port, "away"), Peer(port, "silent")
    silent.acknowledges = False
    await away.connect()
    await away.disconnect()
    await silent.connect()
    publishers = Peer(port, "publisher1", version=4), Peer(port, "publisher2")
    codes: list[int] = []

    async def work(qos: int, peer: Peer) -> None:
        await peer.connect()
        for number in range(qos - 1, messages, 2):
            target = "away" if number % 4 < 2 else "silent"
            await peer.publish(f"p2p/{target}/t", b"message-%06d" % number, qos, codes.append)
        await peer.settled()
        await peer.disconnect()

    await asyncio.gather(*(work(qos, peer) for qos, peer in enumerate(publishers, 1)))
    await silent.disconnect()
    return codes


def audit(directory: Path, durability: str, messages: int, cuts: int) -> Audit:
    """Run the broker under strace, have so many messages acknowledged, and follow its trace; cut the power so often."""
    strace = shutil.which("strace")
    if strace is None:
        raise NotAvailable("strace is not installed")
    trace = directory / "trace"
    wrapper: tuple[Any, ...] = (strace, "-f", "-y", "-x", "-s", LONGEST_STRING, "-o", trace, "-e", ",".join(CALLS))
    broker = Ours(directory, durability)
    broker.start(wrapper=tuple(map(str, wrapper)))
    try:
        if not (broker.wait_until_ready() and asyncio.run(is_answered(broker.port))):
            raise NotAvailable(f"strace cannot follow a process here:\n{broker.last_words()}")
        base = broker.store.read_bytes()
        codes = asyncio.run(publish(broker.port, messages))
    finally:
        broker.stop_traced()
    assert not broker.notes, broker.notes
    assert len(codes) == messages
    assert max(codes) < 0x80, codes
    at_least_once = (messages + 1) // 2
    acknowledgements = at_least_once + 2 * (messages - at_least_once)
    result, disk = Audit(), DiskImage(broker.store, base)
    with trace.open(encoding="ascii") as lines:
        for call in calls(lines):
            result.take(call)
            disk.take(call)
            if result.acknowledgements * cuts // acknowledgements > result.power_cuts:
                result.power_cuts += 1
                result.survived += disk.survives(directory, result.promised)
    assert result.acknowledgements == acknowledgements, "the trace is not whole"
    return result
