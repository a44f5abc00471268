"""Writes docs/differences.md: every known class of differences from mosquitto, and the sentence that decides it.

python -m tests.differential --page           write the page
python -m tests.differential --page --check   write nothing; exit 1 where the page is stale
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).absolute().parents[2]
PAGE = ROOT / "docs" / "differences.md"

FIRST_LINES = """\
# Differences from mosquitto

`python -m tests.differential --sequences 2000 --seed 1` plays generated packet sequences, legal and illegal ones of
several MQTT 3.1.1 and 5.0 clients, to this broker and to mosquitto (Debian's package, 2.0.11), and compares packet by
packet what each client hears. Every difference belongs to one of the classes below; for any other the command prints
the sequence and exits with 1. Another seed gives other sequences; `--show CLASS` prints an example.

Compared without regard to what each broker chooses for itself: assigned client ids, packet identifiers from the broker,
the order of properties, the capabilities in CONNACK, reason strings and user properties of acknowledgements, topic
aliases from the broker, and the order of messages of different topics. The sequences keep clear of `p2p/...` topics,
which are P2P messages here and ordinary ones in mosquitto.

This page is generated: `python -m tests.differential --page`. Sentence ids are those of [conformance](conformance.md).
"""


class Row(NamedTuple):
    """One class: what each broker does, and what decides."""

    ours: str
    theirs: str
    decides: str


AS_COMPARED = {
    "takeover-told": Row(
        "the older connection of a client id gets DISCONNECT 0x8E",
        "it is closed without a word",
        "MQTT-3.1.4-3",
    ),
    "refusal-told": Row(
        "a 5.0 client is told by CONNACK or DISCONNECT why its connection ends",
        "it is closed without a word",
        "Server's choice: CONNACK MAY (MQTT-3.1.4-1), DISCONNECT SHOULD be sent before the close (4.13.2)",
    ),
    "refusal-code": Row(
        "the code that the packet's own section names: 0x82 for what is called a Protocol Error there (no topic "
        "filter, packet identifier 0, reserved or contradicting options), 0x90 for a topic name with a wildcard, 0x94 "
        "for a topic alias out of range, 0x84 in the form of 5.0 for a protocol level above 5",
        "0x81 for most of what does not decode, 0x82 for wildcards in topic names, CONNACK 0x01 in the form of 3.1.1 "
        "for an unknown level",
        "MQTT-4.13.1-1 asks for the close; 4.13 lets the sender name the more specific code of section 2.4",
    ),
    "refusal-not-told": Row(
        "a CONNECT of 3.x that is malformed is answered by the close alone",
        "CONNACK 0x02, where what could be read of it has no client id",
        "MQTT3-3.1.4-1",
    ),
    "no-subscribers": Row(
        "0x10 in PUBACK and PUBREC where nobody gets the message, the publisher's own No Local subscription counted as "
        "nobody",
        "0x10 in PUBACK only, and not where there is such a subscription",
        "Server's choice: a server that knows of no matching subscribers MAY use 0x10 (3.4.2.1, 3.5.2.1)",
    ),
    "unknown-pubrel": Row(
        "a PUBREL for a packet identifier that is not in use gets PUBCOMP 0x92",
        "PUBCOMP 0x00",
        "Table 3-7 of 3.7.2.1 has 0x92 for it; no sentence demands it",
    ),
    "shared-retained": Row(
        "a new shared subscription brings no retained messages",
        "it does",
        "3.3.1.3 speaks of new non-shared subscriptions, 4.8.2 rules it out",
    ),
    "overlap": Row(
        "overlapping subscriptions of a client bring it one copy, at the highest QoS and with all identifiers; a "
        "shared subscription counts by itself",
        "a copy for each subscription, or one at the QoS of whichever is found first",
        "MQTT-3.3.4-2, MQTT-3.3.4-4, MQTT3-3.3.5-1; further copies are the server's choice (3.3.4)",
    ),
}

PARTED = {
    "bad-filter": Row(
        "SUBSCRIBE with a misplaced wildcard is answered for that filter: 0x8F in SUBACK, 0x80 before 5.0",
        "the connection is closed, with DISCONNECT 0x81 in 5.0",
        "MQTT-3.8.4-6 and MQTT-3.8.4-7 (each filter has its code, 0x8F among them); MQTT-4.7.1-1 binds the client. The "
        "server's choice",
    ),
    "empty-filter": Row(
        "SUBSCRIBE with an empty topic filter is malformed",
        "empty filters are passed over before 5.0, and have no code in SUBACK",
        "MQTT-4.7.3-1, MQTT3-4.7.3-1",
    ),
    "share-filter": Row(
        "a filter that begins as a shared one and is none is a Protocol Error in 5.0, and refused in SUBACK before; No "
        "Local on a shared subscription is a Protocol Error",
        "`$share//a`, `$share/+/a` and, before 5.0, any of them is accepted; so is No Local",
        "MQTT-4.8.2-1, MQTT-4.8.2-2, MQTT-3.8.3-4; 3.1.1 knows no shared subscriptions, and may refuse any filter",
    ),
    "reserved-topic": Row(
        "clients cannot publish to topics that begin with `$`: 0x87, and CONNACK 0x87 or 0x05 for such a will",
        "`$SYS` and `$share` are refused by closing; any other is an ordinary topic",
        "4.7.2: a server SHOULD prevent clients from using such topic names to exchange messages",
    ),
    "control-character": Row(
        "control characters in strings are accepted",
        "malformed",
        "Server's choice: a receiver MAY treat them as malformed (1.5.4; MQTT 3.1.1, 1.5.3)",
    ),
    "wrong-way": Row(
        "CONNACK, SUBACK, UNSUBACK and PINGRESP from a client end its connection",
        "some of them are passed over",
        "4.13 (data that the protocol does not allow at this point is a Protocol Error), MQTT3-4.8.0-1",
    ),
    "dup-qos0": Row("DUP at QoS 0 is malformed", "accepted", "MQTT-3.3.1-2, MQTT3-3.3.1-2"),
    "reserved-flags": Row(
        "any reserved flag of a fixed header that is set is malformed",
        "not looked at in PUBACK, PUBREC and PUBCOMP, and in some of 3.1.1's packets",
        "MQTT-2.1.3-1, MQTT3-2.2.2-2",
    ),
    "identifier-in-publish": Row(
        "a client's PUBLISH with a Subscription Identifier: at QoS 0 DISCONNECT 0x82, else accepted with the "
        "identifier taken off",
        "accepted or refused by its value",
        "MQTT-3.3.4-6",
    ),
    "extra-bytes": Row(
        "bytes behind the last field make a packet malformed",
        "they are passed over in acknowledgements of 3.1.1",
        "MQTT3-4.8.0-1; the Remaining Length of these packets is 2 (MQTT 3.1.1, 3.4.1 to 3.7.1)",
    ),
    "released-later": Row(
        "a QoS 2 message is passed on when it comes",
        "when its PUBREL comes",
        "Server's choice: 4.3.3 shows both ways",
    ),
    "second-connect": Row(
        "the connection that ends by a second CONNECT leaves its session and its will as any other",
        "the session is gone, and so is the will",
        "MQTT-3.1.0-2 asks for the close; the session ends as its expiry interval says (3.1.2.11.2), the will is "
        "published (MQTT-3.1.2-8, MQTT3-3.1.2-8)",
    ),
    "no-local-retained": Row(
        "a No Local subscription does not bring what the same client id has retained",
        "it does",
        "MQTT-3.8.3-3",
    ),
    "resubscribed": Row(
        "subscribing again with the same filter replaces No Local and Retain As Published, too",
        "they stay as they were",
        "MQTT-3.8.4-3",
    ),
    "will-at-takeover": Row(
        "the older connection's will is published when its client id is taken over (5.0: unless it is delayed), and "
        "not to the connection that is just being closed",
        "not where the session goes on, and to itself where it ends",
        "MQTT-3.1.2-8, MQTT3-3.1.2-8",
    ),
    "response-topic": Row("a Response Topic with a wildcard is a Protocol Error", "passed on", "MQTT-3.3.2-14"),
    "unsubscribed-filter": Row(
        "UNSUBSCRIBE of a filter that nobody could subscribe to: 0x11, and UNSUBACK before 5.0",
        "the connection is closed, or it is accepted",
        "MQTT-3.10.4-1; the server's choice for filters that are none",
    ),
    "disconnect-will": Row(
        "DISCONNECT with any code but 0x00 leaves the will to be published",
        "only with 0x04",
        "MQTT-3.14.4-3 and MQTT-3.1.2-10 remove it for 0x00 alone",
    ),
    "authentication-data": Row(
        "Authentication Data without a method is a Protocol Error",
        "accepted",
        "3.1.2.11.10",
    ),
    "flag-value": Row(
        "a Payload Format Indicator that is neither 0 nor 1 is a Protocol Error",
        "accepted",
        "3.3.2.3.2 gives the two values",
    ),
    "half-subscribed": Row(
        "a SUBSCRIBE that is malformed subscribes to nothing",
        "the filters before the mistake are subscribed, and stay in the session",
        "MQTT-4.13.1-1 asks for the close; the rest is the server's choice",
    ),
    "malformed-disconnect": Row(
        "a DISCONNECT that is malformed changes nothing: the session keeps its expiry interval",
        "its Session Expiry Interval counts",
        "MQTT-4.13.1-1 asks for the close; the rest is the server's choice",
    ),
    "receive-maximum": Row(
        "an acknowledgement of nothing opens no window",
        "a further message is sent, and more are on their way than the client's Receive Maximum",
        "MQTT-3.3.4-9",
    ),
    "packet-size": Row(
        "the client's Maximum Packet Size counts the whole packet; a message too large takes no place of its Receive "
        "Maximum",
        "packets of up to two bytes more are sent; a message too large may leave less room for others",
        "MQTT-3.1.2-24 (2.1.4: the packet size is the total number of bytes), MQTT-3.1.2-25",
    ),
}


def text() -> str:
    """The whole page."""
    parts = [FIRST_LINES]
    for title, rows in (
        ("Told differently", AS_COMPARED),
        ("Done differently", PARTED),
    ):
        parts.append(f"\n## {title}\n\n| class | here | mosquitto | decided by |\n| --- | --- | --- | --- |\n")
        parts += [f"| {name} | {row.ours} | {row.theirs} | {row.decides} |\n" for name, row in rows.items()]
    return "".join(parts)


def is_stale() -> bool:
    """Is the page another than ``text`` would write?"""
    return not PAGE.exists() or PAGE.read_text() != text()


def write() -> None:
    """Write it."""
    PAGE.write_text(text())
