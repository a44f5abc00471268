"""Code written for RMQTT's P2P plugin, unchanged, with paho-mqtt: MQTT 3.1.1, the prefix form, no SUBSCRIBE.

    twistd -n p2pmqtt --config examples/from_rmqtt.toml      # in one shell
    python examples/from_rmqtt.py [PORT]                     # in another

Needs: pip install 'paho-mqtt>=2'
"""

from __future__ import annotations

import sys
from queue import Queue

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion


def connected(client_id: str, port: int) -> tuple[mqtt.Client, Queue[mqtt.MQTTMessage]]:
    """A 3.1.1 client with its network thread, and the messages that it hears."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id)
    heard: Queue[mqtt.MQTTMessage] = Queue()
    ready: Queue[object] = Queue()
    client.on_connect = lambda client, userdata, flags, code, properties: ready.put(code)
    client.on_message = lambda client, userdata, message: heard.put(message)
    client.connect("127.0.0.1", port)
    client.loop_start()
    ready.get(timeout=10)
    return client, heard


def main(port: int = 1883) -> None:
    """One message to one client."""
    device, heard = connected("device001", port)
    app, _ = connected("app", port)
    app.publish("p2p/device001/sensor/temp", b"23.5", qos=1)
    message = heard.get(timeout=10)
    print(f"device001 heard {message.topic} {message.payload.decode()}")
    for client in (device, app):
        client.disconnect()
        client.loop_stop()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
