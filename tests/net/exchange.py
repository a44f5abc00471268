"""A broker and its clients on real sockets under a reactor of choice: python -m tests.net.exchange REACTOR DIRECTORY

Run by test_reactors.py, as a process has one reactor.  DIRECTORY has ``ca.pem``, ``server.pem`` and ``server.key``.
Each kind of connection sends P2P messages of every QoS to every other, a large one among them, and one to a reader that
has stopped reading for a while; then the service stops.  Prints ``done`` at last.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

ROUNDS = 20
LARGE = 900_000


async def exchange(reactor: Any, directory: Path) -> None:
    from twisted.internet.endpoints import TCP4ClientEndpoint, UNIXClientEndpoint
    from twisted.internet.task import deferLater

    from tests.net.sockets import KINDS, SocketClient, connected
    from twisted_p2pmqtt import MQTTService
    from twisted_p2pmqtt.config import ListenerSettings, Settings, StoreSettings, TLSSettings

    tls = TLSSettings(str(directory / "server.pem"), str(directory / "server.key"))
    unix = str(directory / f"{type(reactor).__name__}.sock")
    listeners = [
        ListenerSettings(
            f"tcp:{0}:interface=127.0.0.1",
            "websocket" if kind.startswith("websocket") else "mqtt",
            allow_anonymous=True,
            tls=tls if kind.endswith("tls") else None,
        )
        for kind in KINDS
    ]
    listeners.append(ListenerSettings(f"unix:{unix}", allow_anonymous=True))
    service = MQTTService(Settings(listeners=tuple(listeners), store=StoreSettings("memory")), reactor)
    service.startService()

    clients: dict[str, SocketClient] = {}
    ports: list[Any] = service._ports
    for kind, port in zip(KINDS, ports, strict=False):
        name = kind.replace(" ", "-")
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        clients[name] = await connected(reactor, endpoint, kind, str(directory / "ca.pem"), name)
    clients["unix"] = await connected(reactor, UNIXClientEndpoint(reactor, unix), "unix", None, "unix")

    for sender in clients.values():
        for target, receiver in clients.items():
            for qos in (0, 1, 2):
                for number in range(ROUNDS):
                    await sender.publish(f"p2p/{target}/business/{qos}", b"%d" % number, qos)
            await sender.publish(f"p2p/{target}/large", bytes(LARGE), 1)
            await receiver.until(lambda receiver=receiver: len(receiver.messages) == 3 * ROUNDS + 1)  # type: ignore[misc]  # of a default
            got = [(message.topic, message.payload) for message in receiver.messages]
            expected = [(b"business/%d" % qos, b"%d" % number) for qos in (0, 1, 2) for number in range(ROUNDS)]
            assert got == [*expected, (b"large", bytes(LARGE))]
            receiver.messages.clear()

    for target, receiver in clients.items():
        receiver.wire.pauseProducing()
        sender = next(client for client in clients.values() if client is not receiver)
        for number in range(20):
            await sender.publish(f"p2p/{target}/slow", b"%02d" % number + bytes(LARGE), 0)
        await sender.publish("elsewhere", b"", 1)  # behind all that was sent
        receiver.wire.resumeProducing()
        await receiver.publish("elsewhere", b"", 1)  # behind all that waited
        numbers = [int(message.payload[:2]) for message in receiver.messages]
        assert numbers
        assert numbers == sorted(numbers)
        receiver.messages.clear()

    await service.stopService()
    await deferLater(reactor, 0, lambda: None)
    assert service.broker.stats.internal_errors == 0
    for client in clients.values():
        await client.until(lambda client=client: client.is_lost)  # type: ignore[misc]  # of a default


def main(name: str, directory: str) -> int:
    """Install the reactor, run the exchange; gives the exit code."""
    importlib.import_module(f"twisted.internet.{name}reactor").install()
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    failures: list[Any] = []

    def start() -> None:
        running: Any = Deferred.fromCoroutine(exchange(reactor, Path(directory)))
        running.addErrback(failures.append)
        running.addBoth(lambda result: reactor.stop())

    reactor.callWhenRunning(start)
    reactor.run()
    for failure in failures:
        traceback.print_exception(failure.value)
    if not failures:
        print("done")
    return len(failures)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
