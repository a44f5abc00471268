"""Both brokers, and a run of sequences against them."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.differential.classes import judge
from tests.differential.comparison import Difference, differences
from tests.differential.player import Player, Transcript, is_alive
from tests.differential.sequences import Sequence, generate
from tests.interop.broker import HOST, Broker, free_port, running, stop, wait_until_ready

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def mosquitto(directory: Path) -> Iterator[int]:
    """Mosquitto while the block runs, without its bounds on queues; gives its port."""
    assert MOSQUITTO is not None, "mosquitto is not installed"
    port = free_port()
    config, log = directory / "mosquitto.conf", directory / "mosquitto.log"
    lines = [f"listener {port} {HOST}", "allow_anonymous true", "persistence false", "sys_interval 0"]
    lines += ["max_inflight_messages 0", "max_queued_messages 0", "set_tcp_nodelay true", "log_type error"]
    config.write_text("\n".join(lines) + "\n")
    directory.chmod(0o755)  # started by root, mosquitto becomes a user of its own
    with log.open("wb") as output:
        process = subprocess.Popen(
            [MOSQUITTO, "-c", str(config)], stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_until_ready(process, port, log)
        yield port
    finally:
        stop(process)


@dataclass
class Verdict:
    """What the comparison of one sequence came to: known classes, and differences that nobody has judged."""

    sequence: Sequence
    names: list[str] = field(default_factory=list)
    examples: dict[str, list[Difference]] = field(default_factory=dict)
    unknown: list[Difference] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n".join([str(self.sequence), *(str(difference) for difference in self.unknown)])


class Run:
    """Sequences against both brokers; ``counts`` are of classes."""

    def __init__(self, ours: Broker, their_port: int) -> None:
        self._broker = ours
        self._players = Player(ours.port), Player(their_port)
        self.counts: Counter[str] = Counter()
        self.steps = 0

    def compare(self, seed: int, number: int) -> Verdict:
        """One sequence.  One with an unknown difference is played again with care, in case it was bad timing."""
        sequence = generate(seed, number)
        verdict = self._compare(sequence, False)
        if verdict.unknown:
            verdict = self._compare(sequence, True)
        self.counts.update(verdict.names)
        self.steps += len(sequence.steps)
        return verdict

    def check(self) -> None:
        """Do both brokers still serve, and has ours logged no traceback?  AssertionError if not."""
        self._broker.check_log()
        for player in self._players:
            assert is_alive(player.port), f"no broker answers on port {player.port}"

    def _compare(self, sequence: Sequence, is_careful: bool) -> Verdict:
        transcripts: list[Transcript] = [[], []]
        errors: list[BaseException] = []

        def play(which: int) -> None:
            try:
                transcripts[which] = self._players[which].play(sequence, is_careful)
            except BaseException as error:
                errors.append(error)

        theirs = threading.Thread(target=play, args=(1,))
        theirs.start()
        play(0)
        theirs.join()
        if errors:
            raise errors[0]
        verdict = Verdict(sequence)
        for found in differences(sequence, *transcripts):
            names, unknown, is_parting = judge(found)
            verdict.names += names
            for name in names:
                verdict.examples.setdefault(name, found)
            verdict.unknown = unknown
            if unknown or is_parting:
                break
        return verdict


@contextlib.contextmanager
def brokers(directory: Path) -> Iterator[Run]:
    """A run against fresh brokers."""
    with running(directory) as ours, mosquitto(directory) as their_port:
        yield Run(ours, their_port)
