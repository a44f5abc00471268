"""Request and response between two MQTT 5.0 clients without a single SUBSCRIBE, with paho-mqtt.

    twistd -n p2pmqtt                                 # in one shell
    python examples/p2p_request_response.py [PORT]    # in another

The app asks the broker for Response Information, a prefix of topics that reach it, and sends such a topic along with
its question; the thermometer publishes the answer there.  Needs: pip install 'paho-mqtt>=2'
"""

from __future__ import annotations

import sys
from queue import Queue
from typing import Any

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def connected(client_id: str, port: int, on_message: Any) -> tuple[mqtt.Client, Any]:
    """A client with its network thread, and the properties of its CONNACK."""
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id, protocol=MQTTProtocolVersion.MQTTv5)
    connack: Queue[Any] = Queue()
    client.on_connect = lambda client, userdata, flags, code, properties: connack.put(properties)
    client.on_message = on_message
    wish = Properties(PacketTypes.CONNECT)
    wish.RequestResponseInformation = 1
    client.connect("127.0.0.1", port, properties=wish)
    client.loop_start()
    return client, connack.get(timeout=10)


def answer(client: mqtt.Client, userdata: Any, message: Any) -> None:
    """The thermometer's side: what is asked is in the topic, where to answer in the properties."""
    properties = Properties(PacketTypes.PUBLISH)
    properties.CorrelationData = message.properties.CorrelationData
    client.publish(message.properties.ResponseTopic, b"23.5", qos=1, properties=properties)


def main(port: int = 1883) -> None:
    """Ask once, and print the answer."""
    answers: Queue[Any] = Queue()
    thermometer, _ = connected("thermometer", port, answer)
    app, connack = connected("app", port, lambda client, userdata, message: answers.put(message))
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = f"{connack.ResponseInformation}/answer"
    properties.CorrelationData = b"1"
    app.publish("p2p/thermometer/read/temperature", b"", qos=1, properties=properties)
    message = answers.get(timeout=10)
    sender = dict(message.properties.UserProperty)["p2p-from"]
    number = message.properties.CorrelationData.decode()
    print(f"{message.topic} {message.payload.decode()} from {sender}, to question {number}")
    for client in (thermometer, app):
        client.disconnect()
        client.loop_stop()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
