"""What a broker allows and how it treats P2P messages, as two plain value objects.

The field names are those of the ``[limits]`` and ``[p2p]`` tables of the configuration, so that a reader of either
finds the other; the configuration checks ranges, this module only holds values.  Nothing here knows where the
values came from.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one broker.  Sizes are bytes, times are seconds, rates are per second; 0 means none where it says
    so.
    """

    connect_timeout: float = 10.0  # from accept to an accepted CONNECT, handshakes included
    max_packet_size: int = 1_048_576
    max_qos: int = 2
    retain_available: bool = True
    wildcard_subscriptions: bool = True
    shared_subscriptions: bool = True
    subscription_identifiers: bool = True
    validate_payload_format: bool = False  # is a payload that calls itself UTF-8 looked at?
    receive_maximum: int = 1000  # QoS 1 and 2 that a client may have unacknowledged towards us
    max_inflight: int = 1000  # that we have unacknowledged towards a client
    topic_alias_maximum: int = 10  # aliases that a client may use towards us
    max_queued_messages: int = 1000  # waiting for one session
    max_queued_bytes: int = 1_048_576
    max_total_queued_bytes: int = 536_870_912
    max_qos0_pending_bytes: int = 1_048_576  # waiting for one slow reader
    max_retained_messages: int = 100_000
    max_retained_bytes: int = 268_435_456
    max_subscriptions: int = 1000  # of one client
    max_topic_levels: int = 128
    max_topic_bytes: int = 4096
    max_client_id_bytes: int = 256
    min_keep_alive: int = 0
    max_keep_alive: int = 0  # 0: no cap
    max_session_expiry: int = 604_800
    max_sessions: int = 200_000
    write_stall_timeout: float = 30.0
    connections_per_address: int = 0  # 0: no limit
    connects_per_second_per_address: float = 0.0
    publish_rate: float = 0.0  # messages/s of one client; 0: no limit
    publish_burst: int = 0


@dataclass(frozen=True, slots=True)
class P2POptions:
    """How P2P messages are treated once a router has named their target."""

    deliver_topic: str = "business"  # business | original | reply
    on_malformed: str = "reject"  # reject | publish
    overflow: str = "reject"  # reject | drop_oldest
    max_queued: int = 1000  # P2P messages waiting for one target, within the session's own limits
    stamp_sender: bool = True
    check_receive: bool = False
    hide_presence: bool = False
