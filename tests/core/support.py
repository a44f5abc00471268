"""What the tests of the core share: avatars with rights made by hand, clients that log in to them, short words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from tests.store.lives import RECORDING
from twisted_p2pmqtt.codec.decode import Packet
from twisted_p2pmqtt.codec.message import Message
from twisted_p2pmqtt.codec.packets import Puback, Pubrec
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.codec.topics import matches
from twisted_p2pmqtt.core.broker import Broker
from twisted_p2pmqtt.core.credentials import MQTTCredentials
from twisted_p2pmqtt.interfaces import IClientAvatar
from twisted_p2pmqtt.net.protocol import MQTTFactory
from twisted_p2pmqtt.store.memory import MemoryStore
from twisted_p2pmqtt.testing import MemoryClient, memory_factory

LONG = 3600
"""A session expiry interval, in seconds."""


@implementer(IClientAvatar)
class Avatar:
    """Rights as lists of filters that allow; ``publish`` is asked for the canonical name of a P2P topic too."""

    def __init__(
        self, publish: Iterable[str] = (), subscribe: Iterable[str] = ("#",), receive: Iterable[str] = ("#",)
    ) -> None:
        self.publish, self.subscribe, self.receive = list(publish), list(subscribe), list(receive)
        self.asked: list[tuple[str, ...]] = []

    def may_publish(self, topic: str) -> Any:
        self.asked.append(("publish", topic))
        return any(matches(each, topic) for each in self.publish)

    def may_subscribe(self, topic_filter: str) -> Any:
        return "#" in self.subscribe or topic_filter in self.subscribe

    def may_receive(self, topic: str) -> bool:
        self.asked.append(("receive", topic))
        return any(matches(each, topic) for each in self.receive)

    def may_send_to(self, client_id: str, topic: str, canonical: str) -> Any:
        self.asked.append(("send", client_id, topic, canonical))
        return any(matches(each, canonical) for each in self.publish)


def guarded_factory(broker: Broker, avatars: Mapping[str, Any]) -> MQTTFactory:
    """Logins that give each client id its avatar; an id without one may do everything."""

    def login(credentials: MQTTCredentials) -> Any:
        return avatars.get(credentials.client_id)

    return memory_factory(broker, login)


def client(server: Broker | MQTTFactory, client_id: str, version: int = 5, **options: Any) -> MemoryClient:
    """A connected client; ``options`` are those of ``connect``, and ``acknowledges``."""
    made = MemoryClient(server, client_id, version, options.pop("acknowledges", True))
    made.connect(**options)
    return made


def persistent(server: Broker | MQTTFactory, client_id: str, version: int = 5, **options: Any) -> MemoryClient:
    """A connected client whose session outlives its connection."""
    properties: Properties = {"session_expiry_interval": LONG} if version == 5 else {}
    properties.update(options.pop("properties", {}))
    return client(server, client_id, version, clean_start=False, properties=properties, **options)


def offline(server: Broker | MQTTFactory, client_id: str, version: int = 5, **options: Any) -> None:
    """A session that waits for its client."""
    persistent(server, client_id, version, **options).disconnect()


def publish(
    sender: MemoryClient,
    topic: str,
    payload: bytes = b"x",
    qos: int = 1,
    retain: bool = False,
    properties: Properties | None = None,
) -> Puback | Pubrec | None:
    """Publish, and give the PUBACK or PUBREC with its properties, None for QoS 0 or where none came."""
    packet_id = sender.packet_id() if qos else 0
    message = Message(topic.encode(), payload, 0, qos, int(retain), 0, packet_id, properties or Properties())
    sender.send(message)
    if not qos:
        return None
    found = acknowledgements(sender)
    return found[0] if found else None


def acknowledgements(sender: MemoryClient) -> list[Puback | Pubrec]:
    """The PUBACKs and PUBRECs that came, taken out, in order."""
    return [packet for packet in sender.receive() if isinstance(packet, Puback | Pubrec)]


def status(packet: Packet | None) -> str | None:
    """The ``p2p-status`` of an acknowledgement, None where it has none."""
    assert packet is None or isinstance(packet, Puback | Pubrec)
    pairs = dict(packet.properties.get("user_properties", ())) if packet is not None else {}
    return pairs.get("p2p-status")


def heard(receiver: MemoryClient) -> list[tuple[str, bytes]]:
    """Topic and payload of every message that the client got."""
    return [(message.topic.decode(), message.payload) for message in receiver.messages]


def user_properties(message: Message) -> list[tuple[str, str]]:
    """The message's user properties."""
    return list(message.properties.get("user_properties", ()))


def result_of(waiting: Deferred[Any]) -> Any:
    """What a Deferred has fired with; AssertionError where it has not."""
    results: list[Any] = []
    waiting.addCallback(results.append)
    assert results, "the Deferred has not fired"
    return results[0]


def later(clock: Clock, seconds: float, value: Any) -> Deferred[Any]:
    """A Deferred that fires with the value in so many seconds; with a failure where the value is an exception."""
    waiting: Deferred[Any] = Deferred()
    fire: Callable[[Any], None] = waiting.errback if isinstance(value, Exception) else waiting.callback
    clock.callLater(seconds, fire, value)
    return waiting


class SlowStore(MemoryStore):
    """Durable by its own account: it notes what it is told, and a commit ends when the test says so."""

    durable = True

    def __init__(self) -> None:
        self.noted: list[tuple[Any, ...]] = []
        self.commits: list[Deferred[None]] = []
        self.pending = False
        self.available = True
        self._sequence = 0

    def new_sequence(self) -> int:
        self._sequence += 1
        return self._sequence

    def _note(self, what: str) -> Callable[..., None]:
        def note(*arguments: Any) -> None:
            self.pending = True
            self.noted.append((what, *arguments))

        return note

    def __getattribute__(self, name: str) -> Any:
        if name in RECORDING:
            return self._note(name)
        return super().__getattribute__(name)

    def commit(self) -> Any:
        self.pending = False
        waiting: Deferred[None] = Deferred()
        self.commits.append(waiting)
        return waiting

    def finish(self, error: Exception | None = None) -> None:
        """End the commits that were started, in order."""
        commits, self.commits = self.commits, []
        for waiting in commits:
            if error is None:
                waiting.callback(None)
            else:
                self.pending = True
                waiting.errback(error)
