"""How an embedder tests: the real broker, in memory, on a ``Clock``; no port and no sleep."""

from __future__ import annotations

from twisted.internet.task import Clock

from twisted_p2pmqtt.codec.packets import Will
from twisted_p2pmqtt.testing import MemoryClient, make_broker


def test_a_message_reaches_the_device_alone() -> None:
    broker = make_broker(Clock())
    device, other, app = (MemoryClient(broker, name) for name in ("device001", "other", "app"))
    for client in (device, other, app):
        client.connect()
    other.subscribe("#")

    assert app.publish("p2p/device001/sensor/temp", b"23.5", qos=1) == 0

    (message,) = device.messages
    assert (message.topic, message.payload) == (b"sensor/temp", b"23.5")
    assert message.properties["user_properties"] == [("p2p-from", "app")]
    assert other.messages == []


def test_silence_is_noticed() -> None:
    clock = Clock()
    broker = make_broker(clock)
    alarms: list[bytes] = []
    broker.subscribe("alarm/#", lambda message: alarms.append(message.payload))
    device = MemoryClient(broker, "device001")
    device.connect(keep_alive=10, will=Will("alarm/device001", b"gone"))

    clock.pump([0.25] * 4 * 16)  # one and a half times the keep-alive, and a little

    assert device.is_closed
    assert alarms == [b"gone"]
