"""The password file: what is refused, what an attempt costs, what is remembered."""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults

from tests.auth.helpers import Here, Later, in_reactor, password_text, write
from twisted_p2pmqtt.auth import BadFile, HashPool, PasswordFile, hash_password
from twisted_p2pmqtt.auth.passwords import REMEMBERED_SECONDS, parse_passwords
from twisted_p2pmqtt.codec.constants import ReasonCode
from twisted_p2pmqtt.codec.errors import MQTTError

GOOD = hash_password(b"secret", 2)


def result(deferred: Deferred[bool]) -> bool:
    """What it has fired with."""
    got: list[bool] = []
    deferred.addCallback(got.append)
    assert got, "has not fired"
    return got[0]


def test_lines() -> None:
    text = f"# users\n\nalice:{GOOD}\r\nBob Smith:{GOOD}  \n#eve:{GOOD}\nü:{GOOD}"
    assert sorted(parse_passwords(text.encode(), "passwd")) == [b"Bob Smith", b"alice", "ü".encode()]


def test_no_users_is_a_good_file() -> None:
    assert parse_passwords(b"", "passwd") == {}


def test_bad_lines_are_all_told() -> None:
    data = (
        f"alice:{GOOD}\nbob\n:{GOOD}\neve:secret\n \nalice:{GOOD}\n".encode() + b"\xff:x\n" + f" # no:{GOOD}\n".encode()
    )
    with pytest.raises(BadFile) as caught:
        parse_passwords(data, "etc/passwd")
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        f"etc/passwd:{number}" for number in (7, 2, 3, 4, 6)
    ]
    assert "secret" not in str(caught.value), "passwords are not for logs"


def test_many_bad_lines_are_counted() -> None:
    with pytest.raises(BadFile) as caught:
        parse_passwords(b"bad\n" * 1000, "passwd")
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1] == "passwd: and 980 more"


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match="cannot be read: No such file"):
        PasswordFile(str(tmp_path / "none"), Here())
    with pytest.raises(BadFile, match="cannot be read"):
        PasswordFile(str(tmp_path), Here())


class TestVerify:
    @pytest.fixture
    def runner(self) -> Here:
        return Here()

    @pytest.fixture
    def passwords(self, tmp_path: Path, runner: Here) -> PasswordFile:
        self.now = 0.0
        path = write(tmp_path, "passwd", password_text(alice="secret", bob="hunter2"))
        return PasswordFile(path, runner, lambda: self.now)

    def test_right_and_wrong(self, passwords: PasswordFile) -> None:
        assert result(passwords.verify(b"alice", b"secret"))
        assert result(passwords.verify(b"bob", b"hunter2"))
        for name, password in [(b"alice", b"hunter2"), (b"alice", b""), (b"Alice", b"secret"), (b"eve", b"secret")]:
            assert not result(passwords.verify(name, password))

    def test_an_unknown_user_costs_a_hash(self, passwords: PasswordFile, runner: Here) -> None:
        assert not result(passwords.verify(b"eve", b"secret"))
        assert runner.count == 1
        assert not result(passwords.verify(b"eve", b"secret"))
        assert runner.count == 2, "what was wrong is not remembered"

    def test_an_unknown_user_costs_one_even_without_users(self, tmp_path: Path, runner: Here) -> None:
        passwords = PasswordFile(write(tmp_path, "empty", ""), runner)
        assert not result(passwords.verify(b"eve", b"secret"))
        assert runner.count == 1

    def test_an_unknown_user_is_not_the_decoy(self, tmp_path: Path, runner: Here) -> None:
        passwords = PasswordFile(write(tmp_path, "one", password_text(alice="secret")), runner)
        assert not result(passwords.verify(b"eve", b"secret")), "alice's password is not eve's"

    def test_what_was_right_is_remembered_for_a_while(self, passwords: PasswordFile, runner: Here) -> None:
        for _ in range(10):
            assert result(passwords.verify(b"alice", b"secret"))
        assert runner.count == 1
        assert not result(passwords.verify(b"alice", b"wrong"))
        assert not result(passwords.verify(b"bob", b"secret"))
        assert runner.count == 3
        self.now = REMEMBERED_SECONDS
        assert result(passwords.verify(b"alice", b"secret"))
        assert runner.count == 4

    def test_names_and_passwords_do_not_run_into_each_other(self, passwords: PasswordFile) -> None:
        assert result(passwords.verify(b"alice", b"secret"))
        assert not result(passwords.verify(b"alices", b"ecret"))

    def test_reload(self, passwords: PasswordFile, tmp_path: Path) -> None:
        assert result(passwords.verify(b"alice", b"secret"))
        write(tmp_path, "passwd", password_text(alice="other"))
        passwords.reload()
        assert not result(passwords.verify(b"alice", b"secret")), "nor is it remembered"
        assert result(passwords.verify(b"alice", b"other"))
        assert not passwords.knows(b"bob")

    def test_reload_of_a_bad_file_keeps_the_old_one(self, passwords: PasswordFile, tmp_path: Path) -> None:
        write(tmp_path, "passwd", "alice:plain\n")
        with pytest.raises(BadFile):
            passwords.reload()
        assert result(passwords.verify(b"alice", b"secret"))
        (tmp_path / "passwd").unlink()
        with pytest.raises(BadFile):
            passwords.reload()
        assert result(passwords.verify(b"bob", b"hunter2"))


class TestWaiting:
    @pytest.fixture
    def later(self) -> Later:
        return Later()

    @pytest.fixture
    def passwords(self, tmp_path: Path, later: Later) -> PasswordFile:
        return PasswordFile(write(tmp_path, "passwd", password_text(alice="secret")), later)

    def test_equal_attempts_share_a_hash(self, passwords: PasswordFile, later: Later) -> None:
        right = [passwords.verify(b"alice", b"secret") for _ in range(100)]
        wrong = passwords.verify(b"alice", b"wrong")
        assert len(later.waiting) == 2
        later.finish()
        assert all(result(deferred) for deferred in right)
        assert not result(wrong)

    def test_one_who_gives_up_leaves_the_others(self, passwords: PasswordFile, later: Later) -> None:
        first, second = passwords.verify(b"alice", b"secret"), passwords.verify(b"alice", b"secret")
        first.addErrback(lambda failure: failure.trap(CancelledError))
        first.cancel()
        later.finish()
        assert result(second)

    def test_work_that_nobody_waits_for_is_given_up(self, passwords: PasswordFile, later: Later) -> None:
        only = passwords.verify(b"alice", b"secret")
        only.addErrback(lambda failure: failure.trap(CancelledError))
        only.cancel()
        assert later.waiting[0][1].called
        again = passwords.verify(b"alice", b"secret")
        later.finish()
        assert result(again)

    def test_a_reload_in_between_decides(self, passwords: PasswordFile, later: Later, tmp_path: Path) -> None:
        waiting = passwords.verify(b"alice", b"secret")
        write(tmp_path, "passwd", password_text(alice="other"))
        passwords.reload()
        later.finish()
        assert not result(waiting)


# The pool, with real threads


@pytest.fixture
def pool() -> HashPool:
    return HashPool(reactor)  # type: ignore[arg-type]  # has the methods used


@in_reactor
async def test_pool_runs_in_threads_of_its_own(pool: HashPool) -> None:
    names = await gatherResults([pool.run(lambda: threading.current_thread().name) for _ in range(8)])
    assert all(name.startswith("p2pmqtt-hash") for name in names)
    assert pool.unfinished == 0
    pool.stopService()


@in_reactor
async def test_pool_has_two_threads_and_a_bounded_queue(pool: HashPool) -> None:
    go_on = threading.Event()
    running = [pool.run(go_on.wait) for _ in range(66)]
    with pytest.raises(MQTTError) as caught:
        pool.run(go_on.wait)
    assert caught.value.reason_code == ReasonCode.SERVER_UNAVAILABLE
    assert sum(thread.name.startswith("p2pmqtt-hash") for thread in threading.enumerate()) == 2
    go_on.set()
    assert all([await one for one in running])
    assert await pool.run(go_on.wait), "there is room again"
    pool.stopService()


@in_reactor
async def test_pool_forgets_what_is_cancelled(pool: HashPool) -> None:
    go_on = threading.Event()
    ran: list[int] = []
    running = [pool.run(go_on.wait) for _ in range(2)]
    waiting = pool.run(ran.append, 1)
    waiting.addErrback(lambda failure: failure.trap(CancelledError) and None)
    waiting.cancel()
    go_on.set()
    for one in running:
        await one
    await pool.run(int)
    assert ran == []
    assert pool.unfinished == 0
    pool.stopService()


@in_reactor
async def test_pool_passes_on_what_is_raised_and_starts_again(pool: HashPool) -> None:
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0)
    pool.stopService()
    assert await pool.run(int) == 0
    pool.stopService()


def test_unknown_and_wrong_take_equally_long(tmp_path: Path) -> None:
    """AUTH-TIMING in small; medians of 40, and generous because other things run here as well."""
    text = "".join(f"user{number}:{hash_password(b'secret', 2000)}\n" for number in range(5))
    passwords = PasswordFile(write(tmp_path, "passwd", text), Here())

    def cost(name: bytes) -> float:
        begin = time.perf_counter()
        assert not result(passwords.verify(name, b"wrong"))
        return time.perf_counter() - begin

    wrong, unknown = [], []
    for number in range(40):
        wrong.append(cost(b"user%d" % (number % 5)))
        unknown.append(cost(b"nobody%d" % number))
    ratio = statistics.median(unknown) / statistics.median(wrong)
    assert 0.7 < ratio < 1.4
