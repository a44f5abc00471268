"""That the ledger can tell what is lost, what comes twice, and what comes out of order; and the account, too."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from tests.faults.clients import Clients
from tests.faults.ledger import DELETION, Ledger, Retained, Source, bad
from tests.faults.lives import Lives
from tests.faults.processes import Ours


def made(qos: int, *numbers: int) -> tuple[Ledger, Source]:
    """A ledger with one source for two receivers, who are promised these."""
    ledger = Ledger()
    source = ledger.source("both", "both/1", qos, "online", "away")
    for number in numbers:
        assert source.next_payload() == (number, b"both:%d" % number)
        source.ended(number, 0)
    return ledger, source


def arrive(ledger: Ledger, receiver: str, *numbers: int) -> None:
    for number in numbers:
        ledger.arrived(receiver, b"both:%d" % number)


def found(ledger: Ledger) -> dict[str, int]:
    """What is wrong, after it was given up to wait."""
    for stream in ledger.streams:
        stream.take_lost()
    return bad(ledger.totals())


@pytest.mark.parametrize("qos", [1, 2])
def test_all_that_was_promised_has_come(qos: int) -> None:
    ledger, _ = made(qos, 1, 2, 3)
    arrive(ledger, "online", 1, 2, 3)
    arrive(ledger, "away", 1, 2, 3)
    assert not found(ledger)
    assert not list(ledger.faults())
    assert ledger.totals()[f"qos {qos} acked"] == 6


@pytest.mark.parametrize("qos", [1, 2])
def test_what_one_of_two_receivers_misses_is_lost_once(qos: int) -> None:
    ledger, _ = made(qos, 1, 2, 3)
    arrive(ledger, "online", 1, 2, 3)
    arrive(ledger, "away", 1, 3)
    assert found(ledger) == found(ledger) == {f"qos {qos} lost": 1}
    assert list(ledger.faults()) == ["lost: both to away [2] of 3"]


def test_what_was_refused_or_not_answered_is_not_promised() -> None:
    ledger, source = made(1)
    source.next_payload()
    source.next_payload()
    source.ended(1, 0x97)
    assert not found(ledger)
    arrive(ledger, "away", 1, 2)  # nor is it forbidden
    assert not found(ledger)


def test_p2p_counts_in_a_column_of_its_own_too() -> None:
    ledger = Ledger()
    source = ledger.source("p2p2", "p2p/away/t2", 2, "away")
    number, _ = source.next_payload()
    source.ended(number, 0)
    assert found(ledger) == {"qos 2 lost": 1, "p2p lost": 1}


@pytest.mark.parametrize(("qos", "expected"), [(1, {}), (2, {"qos 2 twice": 1})])
def test_twice_is_wrong_at_qos_2_alone(qos: int, expected: dict[str, int]) -> None:
    ledger, _ = made(qos, 1, 2)
    arrive(ledger, "online", 1, 2, 2, 2)
    arrive(ledger, "away", 1, 2)
    assert found(ledger) == expected
    assert list(ledger.faults()) == ["twice: both to online [2] of 2"] * (qos == 2)


def test_the_first_arrivals_have_an_order() -> None:
    ledger, _ = made(1, 1, 2, 3)
    arrive(ledger, "online", 1, 2, 1, 3)  # 1 again, as QoS 1 may
    arrive(ledger, "away", 2, 1, 3)
    assert found(ledger) == {"disordered": 1}


@pytest.mark.parametrize(("receiver", "payload"), [("other", b"both:1"), ("away", b"both:2"), ("away", b"none:1")])
def test_what_nobody_sent_to_this_receiver_is_unknown(receiver: str, payload: bytes) -> None:
    ledger, _ = made(1, 1)
    arrive(ledger, "online", 1)
    arrive(ledger, "away", 1)
    ledger.arrived(receiver, payload)
    assert found(ledger) == {"unknown": 1}


def change(retained: Retained, until: int) -> None:
    """So many changes, all acknowledged."""
    while retained.sent < until:
        number, payload = retained.next_payload()
        assert bool(payload) == bool(number % DELETION)
        retained.ended(number, 0)


def test_what_a_retained_message_may_be() -> None:
    retained = Retained()
    assert retained.allows(0)
    assert not retained.allows(1)
    change(retained, 2)
    assert [number for number in range(6) if retained.allows(number)] == [2]
    retained.next_payload()  # without an answer: either way
    assert [number for number in range(6) if retained.allows(number)] == [2, 3]
    change(retained, DELETION)
    assert [number for number in range(6) if retained.allows(number)] == [0, 4]
    change(retained, DELETION + 1)
    assert not retained.allows(0)
    retained.take_lost()
    assert retained.allows(0)
    change(retained, DELETION + 2)
    assert not retained.allows(0)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("sessions_lost", "sessions lost"),
        ("sessions_kept", "sessions lost"),
        ("subscriptions_lost", "subscriptions lost"),
        ("subscriptions_kept", "subscriptions lost"),
        ("retained_lost", "retained lost"),
    ],
)
def test_what_comes_back_is_as_wrong_as_what_goes(name: str, column: str) -> None:
    ledger = Ledger()
    setattr(ledger, name, 2)
    assert bad(ledger.totals()) == {column: 2}


SUBSCRIPTIONS = "DELETE FROM subscription WHERE session IN (SELECT id FROM session WHERE client_id LIKE 'session%')"


async def account_after(broker: Ours, statement: str) -> dict[str, int]:
    """Clients at work, a kill, this done to the store, a start; what the account finds."""
    lives = Lives(broker, seed=1)
    try:
        await lives.begin()
        await lives.live(1.0)
        assert lives.result.ledger.subscribers
        if statement:
            with sqlite3.connect(broker.store) as connection:
                connection.execute(statement)
            connection.close()
        else:
            for path in broker.directory.glob("store.db*"):
                path.unlink()
        await lives.account()
    finally:
        broker.kill()
    assert not lives.result.notes
    return bad(lives.result.ledger.totals())


def test_the_account_of_a_broker_that_forgets_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clients, "_come_and_go", Clients._listen)  # so that something waits for the one that is away
    wrong = asyncio.run(account_after(Ours(tmp_path), ""))
    assert {"qos 1 lost", "qos 2 lost", "p2p lost", "sessions lost", "subscriptions lost", "retained lost"} <= {*wrong}


def test_the_account_of_a_broker_that_forgets_some_subscriptions(tmp_path: Path) -> None:
    """Of the sessions that clients have made, all else being there."""
    wrong = asyncio.run(account_after(Ours(tmp_path), SUBSCRIPTIONS))
    assert list(wrong) == ["subscriptions lost"]
