"""A web server with MQTT inside: pages and MQTT over WebSocket on one port, in one process.

    python examples/websocket_site.py [PORT]

Then open http://127.0.0.1:8080/ in a browser, or connect any MQTT client that speaks WebSocket (here MQTT.js's own) to
``ws://127.0.0.1:8080/mqtt``:

    npx mqtt sub -C ws -h 127.0.0.1 -p 8080 --path /mqtt -t 'site/#'

Needs: pip install 'twisted_p2pmqtt[websocket]'
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import LoopingCall, react
from twisted.web.resource import Resource
from twisted.web.server import Site

from twisted_p2pmqtt import MQTTService

PAGE = b"""<!doctype html>
<title>MQTT inside a web server</title>
<p>This page and <code>/mqtt</code> are served by one Twisted process.
The site publishes its uptime, in seconds, to <code>site/uptime</code>.</p>
"""


class Page(Resource):
    """The page above."""

    def render_GET(self, request: Any) -> bytes:
        request.setHeader("content-type", "text/html; charset=utf-8")
        return PAGE


def make_site(service: MQTTService, origins: list[str]) -> Site:
    """The web site: an ordinary ``twisted.web`` tree, one of whose places is the broker."""
    root = Resource()
    root.putChild(b"", Page())
    # Without allowed_origins any page on the web could connect from its visitors' browsers.
    root.putChild(b"mqtt", service.websocket_resource(allowed_origins=origins, allow_anonymous=True))
    return Site(root)


async def run(reactor: Any, port: str) -> None:
    service = MQTTService(reactor=reactor)  # no port of its own, sessions in memory
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)

    seconds = 0

    def publish_uptime() -> None:
        nonlocal seconds
        service.broker.publish("site/uptime", b"%d" % seconds, retain=True)
        seconds += 1

    LoopingCall(publish_uptime).start(1)
    origins = [f"http://127.0.0.1:{port}", f"http://localhost:{port}"]
    await serverFromString(reactor, f"tcp:{port}:interface=127.0.0.1").listen(make_site(service, origins))
    print(f"http://127.0.0.1:{port}/ and ws://127.0.0.1:{port}/mqtt", flush=True)
    await Deferred()  # until the process is told to end


def main(reactor: Any, port: str = "8080") -> Deferred[None]:
    return Deferred.fromCoroutine(run(reactor, port))


if __name__ == "__main__":
    react(main, sys.argv[1:])
