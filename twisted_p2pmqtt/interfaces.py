"""Every interface of the broker: who calls it, when, whether it may raise and whether it may return a Deferred.

This module imports zope and typing only, so anybody may implement an interface without importing the broker.  Code
behind an interface that is called by the broker (routers, avatars, observers, endpoints) is never trusted: an
exception denies or skips and is counted, a Deferred has five seconds, an answer of the wrong type denies.
"""

from __future__ import annotations

from typing import Any

from zope.interface import Attribute, Interface


class MalformedP2PTopic(Exception):
    """Raised by ``IP2PRouter.resolve`` for a topic that has the P2P form and names nobody or nothing."""


class IP2PRouter(Interface):
    """Which topics are point-to-point.  Asked once per topic, before any subscription is matched; the answer is kept
    until ``IBroker.forget_routes``, so ``resolve`` must be a function of the topic alone."""

    def resolve(topic: str) -> Any:
        """Give a ``P2PAddress`` for a P2P topic, None for an ordinary one.

        ``topic`` is a checked topic name (str).  Raises ``MalformedP2PTopic``; any other exception, and any other
        answer, denies the publish, and the topic's next publish asks again.  Synchronous: a Deferred denies.

        A router may have ``response_information(client_id)`` too, a str for the Response Information of CONNACK, and
        may give addresses of a class of its own that has another ``canonical`` or ``reply_topic``.
        ``testing.P2PRouterTests`` holds a router against all that the broker expects of it.
        """


class IBroker(Interface):
    """The broker from Python, in the process that embeds it.  Call from the reactor's thread."""

    def publish(topic: str, payload: bytes, qos: int = 0, retain: bool = False, properties: Any = None) -> Any:
        """Publish as the broker itself, with every right; ``$``-topics are allowed.

        ``payload`` is bytes; ``properties`` a dict in MQTT 5.0's names.  Gives a Deferred of the reason code (int),
        fired when what must survive is stored.  Raises ``MQTTError`` for an illegal topic.
        """

    def subscribe(topic_filter: str, callback: Any, qos: int = 2) -> Any:
        """Call ``callback(message)`` for every message that the filter matches; gives an object with
        ``unsubscribe()``.
        """

    def send_to(
        client_id: str,
        topic: str,
        payload: bytes,
        qos: int = 1,
        properties: Any = None,
        confirm: bool = False,
        timeout: float = 5.0,
    ) -> Any:
        """Send to one client's session, which need not subscribe; gives a Deferred of a ``SendResult``.

        The client hears exactly ``topic``, whatever the P2P options say.  With ``confirm`` (QoS 1 and 2) the Deferred
        fires when the client has acknowledged, or after ``timeout`` seconds, in which case the message stays queued.
        """

    def register_endpoint(client_id: str, handler: Any) -> Any:
        """Serve a client id from Python: ``handler(message)`` gets what clients send to that id over P2P.

        What it returns, bytes or a Deferred of bytes, is published to the message's Response Topic, if the requester
        itself could publish there or the topic is the requester's over P2P; None answers nothing.  Gives an object
        with ``unregister()``; raises ValueError where the id is taken.
        """

    def disconnect(client_id: str, reason_code: int = 0x98, server_reference: str | None = None) -> bool:
        """Close the client's connection, with this reason code for 5.0; True if there was one.

        ``server_reference`` tells a 5.0 client which server to use instead, with reason code 0x9C or 0x9D.
        """

    def list_sessions() -> Any:
        """A list of ``SessionInfo``, one a session, connected or not."""

    def add_observer(observer: Any) -> None:
        """Tell an ``IBrokerObserver`` what happens from now on."""

    def remove_observer(observer: Any) -> None:
        """Stop telling it."""

    def forget_routes() -> None:
        """Ask the router and the rights again for every topic: their rules have changed."""


class ISubscriber(Interface):
    """Whoever can hold a subscription: a session, or a callback of the embedding process."""

    client_id = Attribute("the id of the client that holds it, str")

    def deliver(delivery: Any) -> Any:
        """Take one message; gives the ``Outcome``.  Must not raise."""


class IConnection(Interface):
    """A network connection as its session sees it; implemented by the protocol and by the testing client."""

    sink = Attribute("where encoded frames go: something with append(bytes) and extend(iterable of bytes)")

    def flush() -> None:
        """Send what is in the sink now."""

    def close(reason_code: int) -> None:
        """Tell the peer why, if its version can be told, and close."""


class IClientAvatar(Interface):
    """What one authenticated client may do; the avatar that a cred portal gives for this interface.

    Each question may raise, which denies.  ``may_publish``, ``may_subscribe`` and ``may_send_to`` may return a
    Deferred of bool; the client's later packets wait for it.  Answers are kept for the life of the connection or until
    ``IBroker.forget_routes``.
    """

    def may_publish(topic: str) -> Any:
        """May the client publish to this topic name (str)?  bool or Deferred of bool."""

    def may_subscribe(topic_filter: str) -> Any:
        """May the client subscribe to this filter (str, without ``$share/{name}/``)?  bool or Deferred of bool."""

    def may_receive(topic: str) -> bool:
        """May a message published to this topic (str) be delivered to the client?  bool; asked at delivery."""

    def may_send_to(client_id: str, topic: str, canonical: str) -> Any:
        """May the client send to this target with this business topic?

        ``canonical`` is ``p2p/{client_id}/{topic}`` with the id escaped, the name that rule files use.  bool or
        Deferred of bool.
        """


class IMQTTCredentials(Interface):
    """What a CONNECT brings, for cred checkers that want more than user name and password.

    The credentials object also provides ``twisted.cred.credentials.IUsernamePassword`` when there is a user name, and
    ``IAnonymous`` when there is neither name nor password, so that ordinary checkers work unchanged.
    """

    client_id = Attribute("str; empty where the client wants one assigned")
    username = Attribute("bytes or None")
    password = Attribute("bytes or None")
    peer = Attribute("str: the peer's address as text, host:port")
    certificate = Attribute("the peer's certificate (pyOpenSSL X509) or None")


class IEnhancedAuthenticator(Interface):
    """One authentication method of MQTT 5.0's AUTH exchange (section 4.12), chosen by ``method``."""

    method = Attribute("the Authentication Method's name, str")

    def begin(client_id: str, username: str | None, data: bytes | None) -> Any:
        """Start an exchange for a CONNECT or a re-authentication; ``data`` is bytes or None.

        Gives an exchange object whose ``proceed(data)`` takes the client's next Authentication Data and gives, itself
        or as a Deferred, ``Continue(data)`` or ``Success(data, avatar)``.  The first ``proceed`` is called with
        ``data``.  Raising refuses: cred's ``LoginFailed`` with Bad user name or password, ``MQTTError`` with its own
        code, all else with Not authorized.
        """


class IStore(Interface):
    """Where sessions, queues and retained messages survive.  Called on the reactor's thread; never blocks.

    The recording methods only note what happened; ``commit`` makes all that was noted since the last one survive, as a
    whole or not at all.  Acknowledgements leave after their commit.  Times are given in wall-clock seconds.

    What a failed commit should have made survive is not forgotten: the store tries again by itself until it can, and a
    later commit succeeds only when that has.
    """

    durable = Attribute("bool: False where nothing survives; then nothing is ever recorded")
    pending = Attribute(
        "bool: True while something was recorded, or could not be committed, and no commit is under way"
    )
    available = Attribute("bool: False while commits fail; publishes that must survive are refused meanwhile")
    congested = Attribute("bool: True while the writer is behind; publishers of QoS 1 and 2 are paused meanwhile")

    def restore(receive: Any) -> Any:
        """Open the store and read everything, while the reactor goes on.

        ``receive(records)`` is called in the reactor's thread with lists of at most some hundred records
        (``core.records``): first sessions with their subscriptions, then deliveries in the order of their sequence,
        then retained messages.  Gives a Deferred that fires when all is read, or fails with ``StoreError``.
        """

    def restore_now(receive: Any) -> None:
        """The same before this returns, for a process whose reactor does not run yet.  Raises ``StoreError``."""

    def new_sequence() -> int:
        """A key for a delivery: larger than any before, over all sessions."""

    def save_session(record: Any) -> None:
        """Create or replace the session's own row (``SessionRecord`` without its collections)."""

    def drop_session(client_id: str) -> None:
        """Forget the session, its subscriptions and its received packet ids; ``acknowledge`` ends its deliveries."""

    def save_subscription(client_id: str, record: Any) -> None:
        """Create or replace a ``SubscriptionRecord``."""

    def drop_subscription(client_id: str, topic_filter: str) -> None:
        """Forget it."""

    def enqueue(client_id: str, sequence: int, delivery: Any, packet_id: int, expires_at: float | None) -> None:
        """Note a delivery to a session; ``packet_id`` is 0 while it waits.

        The same message in several queues is one object (``delivery.message``), and is stored once where it was put
        into them in one turn; nothing of it may change any more.  ``expires_at`` is when it does, None for never.
        """

    def sent(client_id: str, sequence: int, packet_id: int) -> None:
        """A waiting delivery got its packet id."""

    def released(client_id: str, sequence: int, packet_id: int) -> None:
        """A QoS 2 delivery was received by the client (PUBREC); PUBREL is owed."""

    def acknowledge(client_id: str, sequence: int) -> None:
        """A delivery is over; one whose commit has not begun is forgotten without having survived."""

    def receive(client_id: str, packet_id: int) -> None:
        """A QoS 2 publish of the client's was taken; a second one with this id is a duplicate until ``forget``."""

    def forget(client_id: str, packet_id: int) -> None:
        """The client released that packet id (PUBREL)."""

    def retain(topic: str, message: Any, expires_at: float | None) -> None:
        """Keep ``message`` as the retained one of ``topic`` (str); times as in ``enqueue``."""

    def unretain(topic: str) -> None:
        """Forget the retained message."""

    def commit() -> Any:
        """Give None where nothing is pending, else a Deferred that fires when everything recorded so far survives, in
        the order of the calls, and fails with ``StoreError`` when it does not for now."""

    def close() -> Any:
        """Commit and close; a Deferred, which fires in any case."""


class ICluster(Interface):
    """Other nodes.  The one implementation here, ``solo``, has none."""

    def start(broker: Any) -> Any:
        """Join; a Deferred."""

    def claim(client_id: str) -> Any:
        """Own the session of this id from now on; a Deferred of None."""

    def release(client_id: str) -> None:
        """Own it no longer."""

    def forward(message: Any, interest: Any) -> None:
        """Hand a message to the nodes that have subscribers for it."""

    def interest(topic_filter: str, wanted: bool) -> None:
        """This node has, or no longer has, a subscriber for the filter."""

    def stop() -> Any:
        """Leave; a Deferred."""


class IBrokerObserver(Interface):
    """Told what happens, after it happened.  All methods are optional: ``Observer`` in the package has empty ones.

    Exceptions are counted and logged, and change nothing.  Synchronous, on the reactor's thread: be quick.
    """

    p2p = Attribute("bool: True to be told of P2P messages too")

    def connected(client_id: str, info: Any) -> None:
        """A CONNECT was accepted; ``info`` is a ``SessionInfo``."""

    def disconnected(client_id: str, reason_code: int) -> None:
        """A connection ended; 0 for a client's own DISCONNECT, 0x80 for a lost connection, else why the broker closed
        it.
        """

    def subscribed(client_id: str, topic_filter: str, qos: int) -> None:
        """A subscription was granted."""

    def unsubscribed(client_id: str, topic_filter: str) -> None:
        """A subscription was removed by the client."""

    def published(client_id: str | None, message: Any) -> None:
        """A message was taken in; ``client_id`` is None for the broker itself."""

    def delivered(client_id: str, message: Any) -> None:
        """A QoS 1 or 2 message was acknowledged by its receiver."""

    def dropped(client_id: str, message: Any, reason: str) -> None:
        """A message for this client was dropped; ``reason`` is the counter's name."""
