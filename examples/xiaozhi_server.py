"""The MQTT side of a self-hosted server for XiaoZhi ESP32 devices, with the broker inside.

    python examples/xiaozhi_server.py [PORT]

A device is told in its OTA answer: its client id, ``GID_test@@@{mac}`` or ``GID_test@@@{mac}@@@{uuid}``, with ``_`` for
``:`` in the MAC; to publish to ``device-server``; to listen on ``devices/p2p/{mac}``.  It subscribes to nothing.  Here
its ``hello`` is answered with where its audio goes; what a real server does then is not MQTT.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from uuid import uuid4

from twisted.internet import endpoints, reactor

from twisted_p2pmqtt import Broker, MemoryStore, Message, MQTTFactory, Observer, P2POptions, SuffixP2PRouter

AUDIO = {"server": "127.0.0.1", "port": 8884, "encryption": "aes-128-ctr"}


def listening_topic(client_id: str) -> str:
    """The topic on which a device with this client id expects to hear."""
    return f"devices/p2p/{client_id.split('@@@')[1]}"


class Conversations(Observer):
    """Hears what devices publish to ``device-server``, and knows from whom: the topic is the same for all."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker

    def published(self, client_id: str | None, message: Message) -> None:
        """One JSON message of a device."""
        if client_id is None or message.topic != b"device-server":
            return
        request = json.loads(message.payload)
        if request.get("type") == "hello":
            answer = {"type": "hello", "transport": "udp", "session_id": str(uuid4()), "udp": AUDIO}
            self.tell(client_id, answer)
        elif request.get("type") == "goodbye":
            self.tell(client_id, {"type": "goodbye", "session_id": request.get("session_id")})

    def tell(self, client_id: str, answer: dict[str, Any]) -> None:
        """To that device alone, on the topic on which it listens."""
        self.broker.send_to(client_id, listening_topic(client_id), json.dumps(answer).encode(), qos=0)


def serve(reactor: Any, mqtt: str) -> Broker:
    """Listen at the endpoint string; gives the broker."""
    # A server that is a client of its own publishes to devices/p2p/{client id}: suffix form, heard as published.
    broker = Broker(reactor, MemoryStore(), SuffixP2PRouter(), p2p=P2POptions(deliver_topic="original"))
    broker.add_observer(Conversations(broker))
    endpoints.serverFromString(reactor, mqtt).listen(MQTTFactory(broker, reactor=reactor))
    return broker


if __name__ == "__main__":
    port = sys.argv[1] if len(sys.argv) > 1 else "1883"
    serve(reactor, f"tcp:{port}:interface=127.0.0.1")
    reactor.run()
