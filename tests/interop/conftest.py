"""Fixtures of the interoperability tests: one broker a P2P mode, shared by all tests of a run.

``broker`` is the broker on its defaults; ``broker_of(mode)`` gives that of any mode.  Behind each test the logs of the
brokers that run are looked through for tracebacks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.interop.broker import Broker, running


class _Brokers:
    """Those that run, by P2P mode; one is started when it is first asked for."""

    def __init__(self, start: Callable[[str], Broker]) -> None:
        self._start = start
        self.by_mode: dict[str, Broker] = {}

    def get(self, mode: str) -> Broker:
        if mode not in self.by_mode:
            self.by_mode[mode] = self._start(mode)
        return self.by_mode[mode]


@pytest.fixture(scope="session")
def _brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Brokers]:
    directory = tmp_path_factory.mktemp("brokers")
    with ExitStack() as stack:
        yield _Brokers(lambda mode: stack.enter_context(running(directory, "--p2p-mode", mode)))


@pytest.fixture
def broker_of(_brokers: _Brokers) -> Iterator[Callable[[str], Broker]]:
    """Gives the broker of a P2P mode."""
    yield _brokers.get
    for broker in _brokers.by_mode.values():
        broker.check_log()


@pytest.fixture
def broker(broker_of: Callable[[str], Broker]) -> Broker:
    """The broker on its defaults, which is the prefix mode."""
    return broker_of("prefix")
