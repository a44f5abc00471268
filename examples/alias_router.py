"""A router with a table that changes: ``to/{alias}/{topic}`` goes to whichever client has that role now.

    python examples/alias_router.py

The boiler room's controller is replaced while everything runs: senders go on publishing to ``to/boiler/...``.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from zope.interface import implementer

from twisted_p2pmqtt import Broker, IP2PRouter, MalformedP2PTopic, P2PAddress
from twisted_p2pmqtt.testing import MemoryClient, make_broker


@implementer(IP2PRouter)
class AliasRouter:
    """``to/boiler/set`` goes to the client that the table gives for ``boiler``."""

    def __init__(self, clients: dict[str, str] | None = None) -> None:
        self.clients = clients or {}
        self.broker: Broker | None = None

    def resolve(self, topic: str) -> P2PAddress | None:
        """The address of a topic whose first level is ``to``; an alias that nobody has is malformed."""
        first, slash, rest = topic.partition("/")
        if first != "to" or not slash:
            return None
        alias, _, business = rest.partition("/")
        if alias not in self.clients or not business:
            raise MalformedP2PTopic(f"nobody is {alias!r}, or no topic is left")
        return P2PAddress(self.clients[alias], business)

    def assign(self, alias: str, client_id: str) -> None:
        """From now on the alias means this client.  The broker keeps a router's answers until it is told otherwise."""
        self.clients[alias] = client_id
        if self.broker is not None:
            self.broker.forget_routes()


def main() -> None:
    """Two controllers one after the other, in memory; with real clients it is the same."""
    router = AliasRouter({"boiler": "controller-1"})
    broker = router.broker = make_broker(Clock(), router=router)
    old, new, app = (MemoryClient(broker, name) for name in ("controller-1", "controller-2", "app"))
    for client in (old, new, app):
        client.connect()
    app.publish("to/boiler/set", b"60", qos=1)
    router.assign("boiler", "controller-2")
    app.publish("to/boiler/set", b"65", qos=1)
    refused = app.publish("to/pump/set", b"1", qos=1)
    for client in (old, new):
        print(client.client_id, "heard", [(message.topic.decode(), message.payload) for message in client.messages])
    print(f"to/pump/set: 0x{refused:02x}")


if __name__ == "__main__":
    main()
