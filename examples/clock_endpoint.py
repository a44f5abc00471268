"""A service of one's own process that clients address like a device: it is asked, and answers, over P2P.

    python examples/clock_endpoint.py [PORT]
    mosquitto_rr -V 5 -p 1883 -i app -t p2p/clock/utc -e p2p/app/time -m '%H:%M' -q 1

Neither side needs a subscription.  A client that may send to ``p2p/clock/#`` may ask; the answer goes to the Response
Topic that it gave.
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import Any

from twisted.internet import endpoints, reactor

from twisted_p2pmqtt import Broker, MemoryStore, Message, MQTTFactory

ZONES = {"utc": timezone.utc, "local": None}


def tell_time(request: Message) -> bytes:
    """The time in the zone that the topic names, in the format that the payload asks for.

    A handler may return a Deferred of its answer instead, or be a coroutine.  What it raises, as here for another zone,
    is logged, and a sender that asked for ``p2p-ack=target`` hears 0x83.
    """
    zone = ZONES[request.topic.decode()]
    return datetime.now(zone).strftime(request.payload.decode()).encode()


def serve(reactor: Any, mqtt: str) -> Broker:
    """Listen at the endpoint string; gives the broker."""
    broker = Broker(reactor, MemoryStore())
    broker.register_endpoint("clock", tell_time)
    endpoints.serverFromString(reactor, mqtt).listen(MQTTFactory(broker, reactor=reactor))
    return broker


if __name__ == "__main__":
    port = sys.argv[1] if len(sys.argv) > 1 else "1883"
    serve(reactor, f"tcp:{port}:interface=127.0.0.1")
    reactor.run()
