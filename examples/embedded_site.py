"""A broker inside the process of a ``twisted.web`` site: HTTP in, MQTT out.

    python examples/embedded_site.py
    mosquitto_sub -p 1883 -i device001 -t none
    curl -X POST --data now http://127.0.0.1:8080/send/device001/cmd/reboot

The answer says what became of the message: delivered, queued, no_session, ...
"""

from __future__ import annotations

from typing import Any

from twisted.internet import endpoints, reactor
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from twisted_p2pmqtt import Broker, MemoryStore, MQTTFactory, SendResult


class Send(Resource):
    """POST /send/{client id}/{topic...}: the body goes to that client alone."""

    isLeaf = True

    def __init__(self, broker: Broker) -> None:
        super().__init__()
        self.broker = broker

    def render_POST(self, request: Any) -> int:
        client_id, *topic = (part.decode() for part in request.postpath)

        def answer(result: SendResult) -> None:
            request.setResponseCode(404 if result.status == "no_session" else 200)
            request.write(result.status.encode() + b"\n")
            request.finish()

        sent = self.broker.send_to(client_id, "/".join(topic), request.content.read(), confirm=True)
        sent.addCallback(answer)
        return NOT_DONE_YET


def serve(reactor: Any, mqtt: str, http: str) -> Broker:
    """Listen at both endpoint strings; gives the broker."""
    broker = Broker(reactor, MemoryStore())
    endpoints.serverFromString(reactor, mqtt).listen(MQTTFactory(broker, reactor=reactor))
    root = Resource()
    root.putChild(b"send", Send(broker))
    endpoints.serverFromString(reactor, http).listen(Site(root))
    return broker


if __name__ == "__main__":
    serve(reactor, "tcp:1883:interface=127.0.0.1", "tcp:8080:interface=127.0.0.1")
    reactor.run()
