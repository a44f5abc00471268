"""Room for descriptors, each time in a process of its own, because a table never shrinks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux only")

BEGINNING = """
import os, re, resource
from twisted_p2pmqtt.net.descriptors import default_max_connections, make_room

def size():
    return int(re.search(r"FDSize:\\s+(\\d+)", open("/proc/self/status").read())[1])

def open_files():
    return sorted(int(name) for name in os.listdir("/proc/self/fd"))

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
before, files = size(), open_files()
"""


def run(program: str) -> list[str]:
    """What it prints."""
    command = [sys.executable, "-c", BEGINNING + program]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.split()


def test_the_table_grows_once_and_nothing_stays_open() -> None:
    assert run("make_room(2000); print(before < 2064 <= size(), files == open_files())") == ["True", "True"]


def test_no_more_than_the_limit() -> None:
    assert run("print(default_max_connections()); make_room(1_000_000); print(size())") == ["4032", "4096"]


def test_what_is_open_is_left_alone() -> None:
    program = """
        os.dup2(1, 2063)
        make_room(2000)
        os.write(2063, b"still standard output ")
        os.dup2(1, 4095)  # the last one there may be
        make_room(1_000_000)
        os.write(4095, b"too")
    """
    assert run("if True:" + program) == ["still", "standard", "output", "too"]


def test_a_limit_that_leaves_nothing() -> None:
    program = """
        resource.setrlimit(resource.RLIMIT_NOFILE, (20, hard))
        make_room(1000)
        print(size() == before, files == open_files())
    """
    assert run("if True:" + program) == ["True", "True"]


def test_a_factory_makes_room_when_its_port_listens() -> None:
    program = """
        from twisted.internet import reactor
        from twisted.internet.endpoints import TCP4ServerEndpoint
        from twisted_p2pmqtt import Broker, MemoryStore, MQTTFactory
        factory = MQTTFactory(Broker(reactor, MemoryStore()), max_connections=1500)
        listening = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        listening.addCallback(lambda port: print(before < 1564 <= size()))
        reactor.callWhenRunning(reactor.stop)
        reactor.run()
    """
    assert run("if True:" + program) == ["True"]
