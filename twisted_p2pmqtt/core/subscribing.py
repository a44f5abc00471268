"""SUBSCRIBE and UNSUBSCRIBE: judge each filter, hold the subscriptions, answer (3.8 to 3.11)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, gatherResults, succeed

from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError, ProtocolViolation, TopicFilterInvalid
from twisted_p2pmqtt.codec.packets import Suback, Subscribe, SubscriptionRequest, Unsuback, Unsubscribe
from twisted_p2pmqtt.codec.topics import check_topic_filter, split_shared
from twisted_p2pmqtt.core.records import SubscriptionRecord
from twisted_p2pmqtt.core.subscriptions import (
    NO_LOCAL,
    QOS,
    RETAIN_AS_PUBLISHED,
    Subscription,
    identifier_of,
    is_wild,
    make_subscription,
)

if TYPE_CHECKING:
    from twisted_p2pmqtt.core.connection import Connection
    from twisted_p2pmqtt.core.limits import Limits
    from twisted_p2pmqtt.core.session import Session

_GRANTED = (ReasonCode.SUCCESS, ReasonCode.GRANTED_QOS_1, ReasonCode.GRANTED_QOS_2)

FAILURE = 0x80
"""The one SUBACK code of 3.1.1 that refuses; in 5.0 the lowest of them."""


def subscribe(connection: Connection, session: Session, packet: Subscribe) -> Deferred[Any] | None:
    """Act on SUBSCRIBE; a Deferred while rights are being asked."""
    limits = connection.broker.limits
    identifiers = packet.properties.get("subscription_identifiers")
    if identifiers and not limits.subscription_identifiers:
        raise MQTTError("no subscription identifiers here", ReasonCode.SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED)
    judged = [_judge(limits, request, connection.version) for request in packet.requests]
    if connection.avatar is None:
        _answer(connection, session, packet, judged, [True] * len(judged))
        return None
    ask, may_subscribe = connection.broker.guard.ask_later, connection.avatar.may_subscribe
    answers = [False if isinstance(matched, int) else ask(may_subscribe, matched) for matched in judged]
    if not any(isinstance(answer, Deferred) for answer in answers):
        _answer(connection, session, packet, judged, answers)
        return None
    waiting = [answer if isinstance(answer, Deferred) else succeed(answer) for answer in answers]
    gathered: Deferred[Any] = gatherResults(waiting)
    return gathered.addCallback(lambda rights: _answer(connection, session, packet, judged, rights))


def _judge(limits: Limits, request: SubscriptionRequest, version: int) -> str | int:
    """The filter without its share name, or the reason code that refuses it whatever the client's rights."""
    try:
        share_name, matched = split_shared(request.topic_filter)
    except TopicFilterInvalid as error:  # [MQTT-4.8.2-1] [MQTT-4.8.2-2]
        if version == 5:
            raise ProtocolViolation(error.reason_string) from None
        return FAILURE  # 3.x knows no shares, so the filter breaks no rule of its own
    try:
        check_topic_filter(matched)
    except TopicFilterInvalid as error:
        return error.reason_code
    if share_name is not None:
        if request.no_local:  # [MQTT-3.8.3-4]
            raise ProtocolViolation("No Local on a shared subscription")
        if not limits.shared_subscriptions:
            return ReasonCode.SHARED_SUBSCRIPTIONS_NOT_SUPPORTED
    if not limits.wildcard_subscriptions and is_wild(matched):  # [MQTT3-3.8.3-2]
        return ReasonCode.WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED
    if matched.count("/") >= limits.max_topic_levels or len(matched.encode()) > limits.max_topic_bytes:
        return ReasonCode.QUOTA_EXCEEDED
    return matched


def _answer(
    connection: Connection, session: Session, packet: Subscribe, judged: list[str | int], rights: list[Any]
) -> None:
    if connection.is_closed:
        return
    broker = connection.broker
    identifier = (packet.properties.get("subscription_identifiers") or [0])[0]
    codes: list[int] = []
    replays = []
    for request, matched, right in zip(packet.requests, judged, rights, strict=True):
        if isinstance(matched, int):
            codes.append(matched)
        elif right is not True:
            codes.append(ReasonCode.NOT_AUTHORIZED)
        elif (
            request.topic_filter not in session.subscriptions
            and len(session.subscriptions) >= broker.limits.max_subscriptions
        ) or (session.is_durable and not broker.store.available):
            codes.append(ReasonCode.QUOTA_EXCEEDED)
        else:
            qos = min(request.qos, broker.limits.max_qos)  # [MQTT-3.2.2-10]
            codes.append(_GRANTED[qos])  # [MQTT-3.8.4-7]
            subscription = make_subscription(qos, request.no_local, request.retain_as_published, identifier)
            is_new = _hold(session, request.topic_filter, subscription)
            if session.replay is not None:
                session.replay.forget(request.topic_filter)
            is_shared = matched != request.topic_filter
            # [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
            if not is_shared and (request.retain_handling == 0 or (request.retain_handling == 1 and is_new)):
                replays.append((matched, subscription))
    if connection.version < 5 and max(codes) > FAILURE:
        codes = [min(code, FAILURE) for code in codes]
    frame = connection.encode_fitting(Suback(packet.packet_id, codes))
    promises_nothing = min(codes) >= FAILURE
    # [MQTT-2.2.1-6] [MQTT-3.8.4-2] [MQTT-3.9.3-1] [MQTT3-2.3.1-7] [MQTT3-3.8.4-1] [MQTT3-3.8.4-2] [MQTT3-3.8.4-4]
    # [MQTT3-3.8.4-5] [MQTT3-3.9.3-1]
    connection.respond(frame, frame if promises_nothing else b"")  # [MQTT-3.8.4-1] [MQTT-3.8.4-5] [MQTT-3.8.4-6]
    for topic_filter, subscription in replays:
        broker.replay(session, topic_filter, subscription)


def _hold(session: Session, topic_filter: str, subscription: Subscription) -> bool:
    broker = session.broker
    is_new = broker.subscribe_filter(session, topic_filter, subscription)
    if session.is_durable:
        broker.store.save_subscription(
            session.client_id,
            SubscriptionRecord(
                topic_filter,
                subscription & QOS,
                bool(subscription & NO_LOCAL),
                bool(subscription & RETAIN_AS_PUBLISHED),
                identifier_of(subscription),
            ),
        )
    if broker.observers:
        broker.observers.tell("subscribed", session.client_id, topic_filter, subscription & QOS)
    return is_new


def unsubscribe(connection: Connection, session: Session, packet: Unsubscribe) -> None:
    """Act on UNSUBSCRIBE: filters are compared character by character [MQTT-3.10.4-1] [MQTT3-3.10.4-1]."""
    broker = connection.broker
    codes = []
    for topic_filter in packet.topic_filters:
        # [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-3] [MQTT3-3.10.4-1] [MQTT3-3.10.4-2] [MQTT3-3.10.4-3]
        if not broker.unsubscribe_filter(session, topic_filter):
            codes.append(ReasonCode.NO_SUBSCRIPTION_EXISTED)
            continue
        if session.replay is not None:
            session.replay.forget(topic_filter)
        if session.is_durable:
            broker.store.drop_subscription(session.client_id, topic_filter)
        if broker.observers:
            broker.observers.tell("unsubscribed", session.client_id, topic_filter)
        codes.append(ReasonCode.SUCCESS)
    # [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT3-3.10.4-5] [MQTT3-3.10.4-6]
    connection.send(Unsuback(packet.packet_id, list(codes)))  # [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT3-3.10.4-4]
