"""paho-mqtt 2 as the tests want it: blocking calls with a time limit, answers and messages in queues.

The network loop is paho's own thread.  ``PahoClient`` connects when it is made; ``close`` says DISCONNECT, ``drop``
cuts the connection as a client that dies does.
"""

from __future__ import annotations

import queue
import socket
import time
from typing import Any, NamedTuple

import pytest

from tests.interop.broker import HOST, WAIT

mqtt = pytest.importorskip("paho.mqtt.client")
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion  # noqa: E402  # behind importorskip
from paho.mqtt.packettypes import PacketTypes  # noqa: E402  # behind importorskip
from paho.mqtt.properties import Properties  # noqa: E402  # behind importorskip
from paho.mqtt.subscribeoptions import SubscribeOptions  # noqa: E402  # behind importorskip

QUIET = 0.25
"""Seconds in which nothing may come where nothing should."""


class Answer(NamedTuple):
    """Reason codes and 5.0 properties of an answer from the broker."""

    codes: list[int]
    properties: Any = None
    session_present: bool = False

    @property
    def code(self) -> int:
        return self.codes[0]

    def get(self, name: str) -> Any:
        """A property, or None."""
        return getattr(self.properties, name, None)


def make_properties(packet: str, **values: Any) -> Properties:
    """5.0 properties by paho's names; ``UserProperty`` takes a list of pairs."""
    properties = Properties(getattr(PacketTypes, packet))  # type: ignore[no-untyped-call]  # paho's has no types
    for name, value in values.items():
        for one in value if name == "UserProperty" else [value]:
            setattr(properties, name, one)
    return properties


class PahoClient:
    """One client, connected."""

    def __init__(
        self,
        port: int,
        client_id: str = "",
        version: int = 4,
        clean: bool = True,
        keep_alive: int = 60,
        will: dict[str, Any] | None = None,
        manual_ack: bool = False,
        username: str | None = None,
        password: str | None = None,
        expected: int | None = 0,
        **properties: Any,
    ) -> None:
        """``properties`` are CONNECT's; ``expected`` is the CONNACK code that is asserted, None to assert nothing."""
        self.version = version
        self.connacks: queue.Queue[Answer] = queue.Queue()
        self.subacks: queue.Queue[Answer] = queue.Queue()
        self.unsubacks: queue.Queue[Answer] = queue.Queue()
        self.publishes: queue.Queue[tuple[int, Answer]] = queue.Queue()
        self.messages: queue.Queue[Any] = queue.Queue()
        self.ends: queue.Queue[Answer] = queue.Queue()
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=None if version == 5 else clean,
            protocol=MQTTProtocolVersion(version),
            reconnect_on_failure=False,
            manual_ack=manual_ack,
        )
        self._listen()
        if will is not None:
            self.client.will_set(**will)
        if username is not None:
            self.client.username_pw_set(username, password)
        more: dict[str, Any] = {}
        if version == 5:
            more = {"clean_start": clean, "properties": make_properties("CONNECT", **properties)}
        self.client.connect(HOST, port, keepalive=keep_alive, **more)
        self.client.loop_start()
        self.connack = self.connacks.get(timeout=WAIT)
        if expected is not None:
            assert self.connack.code == expected, self.connack

    def _listen(self) -> None:
        client = self.client
        client.on_connect = lambda c, u, flags, code, properties: self.connacks.put(
            Answer([code.value], properties, flags.session_present)
        )
        client.on_subscribe = lambda c, u, mid, codes, properties: self.subacks.put(
            Answer([code.value for code in codes], properties)
        )
        client.on_unsubscribe = lambda c, u, mid, codes, properties: self.unsubacks.put(
            Answer([code.value for code in codes], properties)
        )
        client.on_publish = lambda c, u, mid, code, properties: self.publishes.put(
            (mid, Answer([code.value], properties))
        )
        client.on_disconnect = lambda c, u, flags, code, properties: self.ends.put(
            Answer([code.value if flags.is_disconnect_packet_from_server else -1], properties)
        )
        client.on_message = lambda c, u, message: self.messages.put(message)

    def subscribe(self, topic_filter: str, qos: int = 0, identifier: int = 0, **options: Any) -> Answer:
        """SUBSCRIBE, and its SUBACK; ``options`` are paho's SubscribeOptions."""
        if self.version == 5:
            more = make_properties("SUBSCRIBE", SubscriptionIdentifier=identifier) if identifier else None
            self.client.subscribe(topic_filter, options=SubscribeOptions(qos=qos, **options), properties=more)
        else:
            self.client.subscribe(topic_filter, qos)
        return self.subacks.get(timeout=WAIT)

    def unsubscribe(self, topic_filter: str) -> Answer:
        """UNSUBSCRIBE, and its UNSUBACK."""
        self.client.unsubscribe(topic_filter)
        return self.unsubacks.get(timeout=WAIT)

    def publish(
        self, topic: str, payload: bytes = b"", qos: int = 0, retain: bool = False, **properties: Any
    ) -> Answer:
        """PUBLISH, and what it comes to: PUBACK, PUBREC and PUBCOMP; at QoS 0 that it is sent."""
        more = make_properties("PUBLISH", **properties) if properties else None
        info = self.client.publish(topic, payload, qos, retain, properties=more)
        mid, answer = self.publishes.get(timeout=WAIT)
        assert mid == info.mid
        return answer

    def receive(self, timeout: float = WAIT) -> Any:
        """The next message."""
        return self.messages.get(timeout=timeout)

    def receive_all(self, count: int) -> list[bytes]:
        """The payloads of the next messages."""
        return [self.receive().payload for _ in range(count)]

    def assert_quiet(self) -> None:
        """No message has come, nor comes soon."""
        time.sleep(QUIET)
        heard = [(message.topic, message.payload) for message in list(self.messages.queue)]
        assert not heard

    def end(self, timeout: float = WAIT) -> Answer:
        """Wait for the end of the connection; the DISCONNECT's code, -1 where it was just closed."""
        return self.ends.get(timeout=timeout)

    def drop(self) -> None:
        """Die: the connection closes without a DISCONNECT."""
        sock = self.client.socket()
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
        self.client.loop_stop()

    def close(self, code: int = 0, **properties: Any) -> None:
        """Say DISCONNECT and end the thread; may be called again."""
        if self.client.is_connected():
            if self.version == 5 and (code or properties):
                from paho.mqtt.reasoncodes import ReasonCode

                self.client.disconnect(
                    ReasonCode(PacketTypes.DISCONNECT, identifier=code), make_properties("DISCONNECT", **properties)
                )
            else:
                self.client.disconnect()
        self.client.loop_stop()
