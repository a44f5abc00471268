"""Code written for Alibaba Cloud's P2P model, unchanged but for the address, with paho-mqtt.

    twistd -n p2pmqtt --config examples/from_alibaba.toml    # in one shell
    python examples/from_alibaba.py [PORT]                   # in another

Client ids are ``{group id}@@@{device id}``; a device hears what is published to ``{parent topic}/p2p/{client id}``, on
that very topic, and subscribes to nothing.  Needs: pip install 'paho-mqtt>=2'
"""

from __future__ import annotations

import sys
from queue import Queue

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

GROUP, PARENT_TOPIC = "GID_demo", "commands"


def connected(device_id: str, port: int) -> tuple[mqtt.Client, Queue[mqtt.MQTTMessage]]:
    """A client as the cloud's examples make it, and the messages that it hears."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, f"{GROUP}@@@{device_id}")
    heard: Queue[mqtt.MQTTMessage] = Queue()
    ready: Queue[object] = Queue()
    client.on_connect = lambda client, userdata, flags, code, properties: ready.put(code)
    client.on_message = lambda client, userdata, message: heard.put(message)
    client.connect("127.0.0.1", port)
    client.loop_start()
    ready.get(timeout=10)
    return client, heard


def main(port: int = 1883) -> None:
    """A command to a lamp, and what the lamp sees."""
    lamp, heard = connected("lamp-07", port)
    server, _ = connected("server", port)
    server.publish(f"{PARENT_TOPIC}/p2p/{GROUP}@@@lamp-07", b"on", qos=1)
    message = heard.get(timeout=10)
    parent, p2p, client_id = message.topic.split("/")  # as devices written for the cloud take it apart
    print(f"{client_id} heard {message.payload.decode()} on {parent}/{p2p}/...")
    for client in (lamp, server):
        client.disconnect()
        client.loop_stop()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
