"""Handshake: from CONNECT to CONNACK, and MQTT 5.0's AUTH exchanges (3.1, 3.2, 3.15, 4.12).

A CONNECT is judged, its client logs in (perhaps over several AUTH packets, perhaps later), its will is checked, and
then the registry gives it a session.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.internet.defer import Deferred

from twisted_p2pmqtt.codec.constants import ProtocolVersion, ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError, ProtocolViolation, TopicNameInvalid
from twisted_p2pmqtt.codec.packets import Auth, Connack, Connect, Will
from twisted_p2pmqtt.codec.properties import Properties
from twisted_p2pmqtt.core.aliases import OutgoingAliases
from twisted_p2pmqtt.core.connack import allowed_expiry, allowed_keep_alive, announce, refusal_frame
from twisted_p2pmqtt.core.credentials import MQTTCredentials
from twisted_p2pmqtt.core.delivery import DENIED
from twisted_p2pmqtt.core.info import describe
from twisted_p2pmqtt.core.local import CLIENT_ID as BROKER
from twisted_p2pmqtt.core.publisher import ask_right
from twisted_p2pmqtt.core.publishing import Publishing, has_valid_format
from twisted_p2pmqtt.core.wills import PendingWill
from twisted_p2pmqtt.interfaces import IClientAvatar

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.connection import Connection

LOGIN_DEADLINE = 5.0
"""Seconds that a login, or one step of an AUTH exchange, may take."""


class Login(NamedTuple):
    """How clients of one listener log in.

    ``authenticate(credentials)`` gives an ``IClientAvatar``, a ``LoggedIn``, None for a client without limits, or a
    Deferred of one of them; it raises ``LoginFailed`` or an ``MQTTError`` to refuse.  None in its place: each client is
    one without limits.  ``methods`` are ``IEnhancedAuthenticator`` by their method.
    """

    authenticate: Callable[[MQTTCredentials], Any] | None
    methods: dict[str, Any]


class LoggedIn(NamedTuple):
    """An avatar (None: no limits), and what else a login has found out.

    ``logout`` is called when the connection ends.  ``username``, where not None, is who the client was found to be,
    whatever CONNECT said.  ``expires_in`` is the seconds until the connection is closed, None for never.
    """

    avatar: Any
    logout: Callable[[], object] | None = None
    username: str | None = None
    expires_in: float | None = None


class Continue(NamedTuple):
    """An AUTH exchange goes on: ``data`` is the server's next Authentication Data."""

    data: bytes


class Success(NamedTuple):
    """An AUTH exchange is over: ``data`` goes with the last packet where not None; ``avatar`` as a login gives it."""

    data: bytes | None
    avatar: Any


class Over:
    """Stands where a connection's ``Handshake`` was: most clients never send AUTH, so what CONNECT said can go."""

    has_begun = True

    def cancel(self) -> None:
        """There is nothing to cancel."""

    def begin(self, connect: Connect) -> None:
        """Refuse."""
        raise ProtocolViolation("second CONNECT")

    def auth(self, packet: Auth) -> None:
        """Refuse."""
        raise ProtocolViolation("AUTH with another method than CONNECT")  # [MQTT-4.12.0-5] [MQTT-4.12.1-1]


OVER = Over()


class Handshake:
    """One CONNECT, or one re-authentication of a connection that is through with it."""

    __slots__ = ("_asked", "_connect", "_connection", "_exchange", "_login", "has_begun")

    def __init__(self, connection: Connection, login: Login) -> None:
        self._connection: Connection | None = connection
        self._login = login
        self._connect: Connect | None = None
        self._exchange: Any = None
        self._asked: Deferred[Any] | None = None
        self.has_begun = False

    def cancel(self) -> None:
        """The connection is over; answers that still come are ignored."""
        self._connection = None
        asked, self._asked = self._asked, None
        if asked is not None:
            asked.cancel()

    # --- CONNECT -------------------------------------------------------------------------------------------------

    def begin(self, connect: Connect) -> Deferred[Any] | None:
        """Judge a CONNECT and log its client in."""
        connection = self._connection
        assert connection is not None
        self.has_begun = True
        self._connect = connect
        connection.version = connect.version
        properties = connect.properties
        connection.is_explained = bool(properties.get("request_problem_information", 1))  # [MQTT-3.1.2-29]
        connection.max_packet_size = properties.get("maximum_packet_size", 0)
        connection.username = connect.username
        self._judge(connect, connection)
        if "authentication_method" in properties:
            return self._begin_exchange(connect, properties.get("authentication_data"))
        if self._login.authenticate is None:
            self._open(None)
            return None
        username = None if connect.username is None else connect.username.encode()
        credentials = MQTTCredentials(
            connect.client_id, username, connect.password, connection.peer, connection.wire.certificate
        )
        return self._ask(self._login.authenticate, self._logged_in, credentials)

    def _judge(self, connect: Connect, connection: Connection) -> None:
        limits, client_id, version = connection.broker.limits, connect.client_id, connect.version
        if not client_id and (
            version == ProtocolVersion.V31 or (version == ProtocolVersion.V311 and not connect.clean_start)
        ):
            # [MQTT3-3.1.3-8]; 3.1 asks for 1 to 23 characters
            # [MQTT3-3.1.3-7]
            raise MQTTError("an empty client id needs a clean session", ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)
        # [MQTT-3.1.3-5] [MQTT-3.1.3-8] [MQTT3-3.1.3-5] [MQTT3-3.1.3-9]
        if len(client_id.encode()) > limits.max_client_id_bytes or has_control_character(client_id):
            raise MQTTError(
                "client id is too long or holds a control character", ReasonCode.CLIENT_IDENTIFIER_NOT_VALID
            )
        if client_id in connection.broker.endpoints or client_id == BROKER:  # whose word P2P targets take for ours
            raise MQTTError("client id is in use by the server", ReasonCode.CLIENT_IDENTIFIER_NOT_VALID)
        if connect.will is not None:
            self._judge_will(connect.will, connection)

    @staticmethod
    def _judge_will(will: Will, connection: Connection) -> None:
        broker = connection.broker
        if will.qos > broker.limits.max_qos:  # [MQTT-3.2.2-12]
            raise MQTTError("the will's QoS is not supported", ReasonCode.QOS_NOT_SUPPORTED)
        if will.retain and not broker.limits.retain_available:  # [MQTT-3.2.2-13]
            raise MQTTError("retained wills are not supported", ReasonCode.RETAIN_NOT_SUPPORTED)
        if broker.limits.validate_payload_format and not has_valid_format(will.properties, will.payload):
            raise MQTTError("the will's payload is not UTF-8", ReasonCode.PAYLOAD_FORMAT_INVALID)
        route = broker.routes[will.topic.encode()]
        if route.is_malformed:
            raise TopicNameInvalid("the will's topic names no client")
        if route.refusal is DENIED:
            raise MQTTError("the will's topic is not for clients", ReasonCode.NOT_AUTHORIZED)

    def _ask(self, question: Callable[..., Any], then: Callable[[Any], Any], *arguments: Any) -> Deferred[Any] | None:
        """Ask foreign code, now or later, and go on with its answer; what it raises refuses the client."""
        connection = self._connection
        assert connection is not None
        try:
            answer = question(*arguments)
        except MQTTError:
            raise
        except BaseException as error:
            raise self._refusal(error) from None
        if isinstance(answer, CoroutineType):
            answer = Deferred.fromCoroutine(answer)
        if not isinstance(answer, Deferred):
            result: Deferred[Any] | None = then(answer)
            return result
        waiting: Deferred[Any] = Deferred()
        timer = connection.broker.wheel.after(LOGIN_DEADLINE, self._give_up, waiting, answer)
        self._asked = answer

        def fail(failure: Any) -> None:
            self._asked = None
            timer.cancel()
            if not waiting.called:
                waiting.errback(failure.value if failure.check(MQTTError) else self._refusal(failure.value))

        def fire(result: Any) -> None:
            self._asked = None
            timer.cancel()
            if not waiting.called:
                waiting.callback(result)

        answer.addCallbacks(fire, fail)
        answer.addErrback(lambda failure: None)
        return waiting.addCallback(lambda result: None if self._connection is None else then(result))

    @staticmethod
    def _give_up(waiting: Deferred[Any], answer: Deferred[Any]) -> None:
        if not waiting.called:
            waiting.errback(MQTTError("the login took too long", ReasonCode.SERVER_UNAVAILABLE))
            answer.cancel()

    def _refusal(self, error: BaseException) -> MQTTError:
        connection = self._connection
        if connection is not None:
            connection.broker.stats.auth_failures += 1
            if not isinstance(error, LoginFailed):
                connection.broker.guard.report("a login")
        if isinstance(error, UnauthorizedLogin | LoginFailed):  # [MQTT-3.1.4-2] [MQTT-4.12.0-4] [MQTT-4.12.1-2]
            return MQTTError("bad user name or password", ReasonCode.BAD_USER_NAME_OR_PASSWORD)
        return MQTTError("not authorized", ReasonCode.NOT_AUTHORIZED)

    def _logged_in(self, answer: Any, authentication_data: bytes | None = None) -> Deferred[Any] | None:
        connection, connect = self._connection, self._connect
        assert connection is not None
        assert connect is not None
        self._enter(connection, answer)
        if connection.avatar is None or connect.will is None:
            self._open(authentication_data)
            return None
        broker = connection.broker
        right = ask_right(broker.guard, connection.avatar, broker.routes[connect.will.topic.encode()])
        if isinstance(right, Deferred):
            return right.addCallback(self._will_judged, authentication_data)
        self._will_judged(right, authentication_data)
        return None

    def _will_judged(self, answer: bool, authentication_data: bytes | None) -> None:
        if not answer:
            raise MQTTError("the will's topic is not authorized", ReasonCode.NOT_AUTHORIZED)
        self._open(authentication_data)

    @staticmethod
    def _enter(connection: Connection, answer: Any) -> None:
        """The connection is now this avatar's, in the place of the one that it had before a re-authentication."""
        avatar, logout, username, expires_in = answer if isinstance(answer, LoggedIn) else LoggedIn(answer)
        broker = connection.broker
        if avatar is not None and not any(hasattr(avatar, name) for name in IClientAvatar.names()):
            broker.guard.reject("a login", avatar, "an IClientAvatar, None or LoggedIn")
            raise MQTTError("not authorized", ReasonCode.NOT_AUTHORIZED)
        if connection.logout is not None:
            broker.guard.call(connection.logout)
        if connection.login_timer is not None:
            connection.login_timer.cancel()
        connection.logout = logout
        connection.login_timer = None
        if expires_in is not None:
            connection.login_timer = broker.wheel.after(expires_in, connection.close, ReasonCode.NOT_AUTHORIZED)
        if username is not None:
            connection.username = username
        connection.avatar = avatar

    # --- the session ---------------------------------------------------------------------------------------------

    def _open(self, authentication_data: bytes | None) -> None:
        connection, connect = self._connection, self._connect
        if connection is None or connect is None:
            return
        broker = connection.broker
        properties = Properties()
        client_id = connect.client_id or "auto" + secrets.token_hex(9)  # [MQTT-3.1.3-6] [MQTT3-3.1.3-6]
        if not connect.client_id:
            properties["assigned_client_identifier"] = client_id  # [MQTT-3.2.2-16] [MQTT-3.1.3-7]
        interval = allowed_expiry(broker.limits, connect, properties)
        keep_alive = allowed_keep_alive(broker.limits, connect, properties)
        if connect.version == 5:
            announce(broker, connect, client_id, properties)
            if authentication_data is not None:
                properties["authentication_data"] = authentication_data
        else:
            properties = Properties()
        connack = Connack(False, ReasonCode.SUCCESS, properties)  # [MQTT-3.1.4-5] [MQTT3-3.1.4-4]
        if connection.max_packet_size:  # a client that cannot be answered gets no session
            connection.encode_fitting(connack)
        will = None if connect.will is None else PendingWill(broker, client_id, connect.will, connection.avatar)
        is_resumed = broker.registry.open(connection, client_id, connect.clean_start, interval, will)
        self._take_limits(connect, connection)
        session = connection.session
        assert session is not None
        session.attach(connection)
        connection.publishing = Publishing(connection, session)
        connection.accepted(keep_alive)
        broker.stats.connections_accepted += 1
        # [MQTT3-3.2.2-1] [MQTT3-3.2.2-2] [MQTT3-3.2.2-3]
        connack.session_present = is_resumed and connect.version > 3  # [MQTT-3.2.2-2] [MQTT-3.2.2-3]
        frame = connection.encode_fitting(connack)
        if broker.store.pending:
            if is_resumed:  # it was stored long ago, and what waits in it can be had from memory
                refusal, done = frame, lambda has_survived: connection.established(True)
            else:
                refusal = refusal_frame(connect.version, MQTTError("", ReasonCode.QUOTA_EXCEEDED))
                done = connection.established
            broker.commits.hold(connection, frame, refusal, done)
        else:
            connection.put(frame)  # [MQTT-3.2.0-1] [MQTT-3.2.0-2] [MQTT3-3.2.0-1]
            connection.established(True)
        if "authentication_method" not in connect.properties:
            connection.handshake = OVER
        if broker.observers:
            broker.observers.tell("connected", client_id, describe(session))

    @staticmethod
    def _take_limits(connect: Connect, connection: Connection) -> None:
        properties = connect.properties
        maximum = properties.get("topic_alias_maximum", 0)
        if maximum:
            connection.aliases = OutgoingAliases(maximum)
        # [MQTT-3.3.4-9]
        connection.window = min(properties.get("receive_maximum", 65535), connection.broker.limits.max_inflight)
        # Whoever has a limit or an alias of its own is asked for each delivery.
        connection.encoding = 0 if maximum or connection.max_packet_size else (5 if connect.version == 5 else 4)

    # --- AUTH ----------------------------------------------------------------------------------------------------

    def _begin_exchange(self, connect: Connect, data: bytes | None) -> Deferred[Any] | None:
        authenticator = self._login.methods.get(connect.properties["authentication_method"])
        if authenticator is None:  # [MQTT-4.12.0-1]
            raise MQTTError("unknown authentication method", ReasonCode.BAD_AUTHENTICATION_METHOD)
        session = self._connection.session if self._connection is not None else None
        client_id = connect.client_id if session is None else session.client_id
        try:
            self._exchange = authenticator.begin(client_id, connect.username, data)
        except Exception as error:
            raise self._refusal(error) from None
        return self._ask(self._exchange.proceed, self._proceeded, data)

    def _proceeded(self, result: object) -> Deferred[Any] | None:
        connection, connect = self._connection, self._connect
        assert connection is not None
        assert connect is not None
        method = connect.properties["authentication_method"]
        if isinstance(result, Continue):  # [MQTT-4.12.0-2]
            properties = Properties(authentication_method=method, authentication_data=result.data)
            connection.send(Auth(ReasonCode.CONTINUE_AUTHENTICATION, properties))
            return None
        if not isinstance(result, Success):
            connection.broker.guard.reject("an enhanced authenticator", result, "Continue or Success")
            raise MQTTError("not authorized", ReasonCode.NOT_AUTHORIZED)
        self._exchange = None
        session = connection.session
        if session is None:
            return self._logged_in(result.avatar, result.data)
        self._enter(connection, result.avatar)
        session.authorize(connection.avatar)
        connection.broker.registry.judge_will(session, connection.avatar)
        properties = Properties(authentication_method=method)
        if result.data is not None:
            properties["authentication_data"] = result.data
        connection.send(Auth(ReasonCode.SUCCESS, properties))
        return None

    def auth(self, packet: Auth) -> Deferred[Any] | None:
        """An AUTH packet: the next step of an exchange, or the first of a re-authentication."""
        connection, connect = self._connection, self._connect
        if connection is None or connect is None:
            raise ProtocolViolation("AUTH before CONNECT")
        # [MQTT-4.12.0-7]
        if connect.properties.get("authentication_method") != packet.properties.get("authentication_method"):
            raise ProtocolViolation("AUTH with another method than CONNECT")  # [MQTT-4.12.0-5] [MQTT-4.12.1-1]
        data = packet.properties.get("authentication_data")
        if packet.reason_code == ReasonCode.RE_AUTHENTICATE and connection.session is not None:
            return self._begin_exchange(connect, data)
        if packet.reason_code != ReasonCode.CONTINUE_AUTHENTICATION or self._exchange is None:  # [MQTT-4.12.0-3]
            raise ProtocolViolation("AUTH out of turn")
        return self._ask(self._exchange.proceed, self._proceeded, data)


def has_control_character(text: str) -> bool:
    """Does the text hold C0, DEL or C1 characters?"""
    if text.isprintable():  # in C, and so are most
        return False
    return any(character < " " or "\x7f" <= character <= "\x9f" for character in text)
