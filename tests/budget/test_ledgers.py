"""What every ledger promises, in memory, in SQLite and in a server that speaks Redis's protocol."""

from __future__ import annotations

import functools
import itertools
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmkit import BudgetExceededError, ConfigurationError, InvalidRequestError
from llmkit.budget import Budget, Ledger, MemoryLedger, StoreBusy, StoreError
from llmkit.budget.amounts import NOTHING, Amount, Limit
from llmkit.budget.budget import open_ledger
from llmkit.budget.redis_ledger import RedisLedger
from llmkit.budget.sqlite_ledger import SQLiteLedger
from tests.budget.calls import held, reply, start_child
from tests.budget.conftest import Clock

_names = (f"tenant {number}" for number in itertools.count())
DIME = Amount(Decimal("0.1"), 10)


class LedgerContract:
    """What every ledger promises; a subclass makes one."""

    @pytest.fixture
    def name(self) -> str:
        """A name that no other test has used: the server lives for the whole session."""
        return next(_names)

    def reserve(
        self, ledger: Ledger, name: str, key: str, amount: Amount = DIME, usd: str | None = "0.25"
    ) -> bool:
        limit = Limit(None if usd is None else Decimal(usd))
        return ledger.reserve(name, key, amount, limit, now=0.0, expires=60.0).granted

    def test_grants_until_the_limit_is_reached(self, ledger: Ledger, name: str) -> None:
        """What is reserved counts against the limit, and a refusal leaves no trace."""
        assert [self.reserve(ledger, name, key) for key in "abc"] == [True, True, False]
        standing = ledger.standing(name, now=1.0)
        assert (standing.reserved, standing.in_flight) == (Amount(Decimal("0.2"), 20), 2)
        assert standing.spent == NOTHING

    def test_limits_tokens_as_well(self, ledger: Ledger, name: str) -> None:
        """Either limit is enough to refuse, and none of them is None."""
        limit = Limit(None, 15)
        granted = [
            ledger.reserve(name, key, DIME, limit, now=0.0, expires=60.0).granted for key in "ab"
        ]
        assert granted == [True, False]
        assert self.reserve(ledger, name, "c", usd=None)

    def test_a_limit_may_be_reached_exactly(self, ledger: Ledger, name: str) -> None:
        """The last cent can be spent: what sums to the limit fits."""
        assert self.reserve(ledger, name, "a", usd="0.1")
        ledger.settle(name, "a", DIME)
        assert not self.reserve(ledger, name, "b", Amount(Decimal("0.000000001")), usd="0.1")

    def test_settling_replaces_the_reservation(self, ledger: Ledger, name: str) -> None:
        """The cost takes the reservation's place, and what was not needed is free again."""
        self.reserve(ledger, name, "a")
        ledger.settle(name, "a", Amount(Decimal("0.04"), 4))
        standing = ledger.standing(name, now=1.0)
        assert (standing.spent, standing.reserved) == (Amount(Decimal("0.04"), 4), NOTHING)
        assert standing.in_flight == 0
        assert [self.reserve(ledger, name, key) for key in "bcd"] == [True, True, False]

    def test_settling_twice_charges_once(self, ledger: Ledger, name: str) -> None:
        """A settlement that is repeated because its answer got lost is not paid twice."""
        self.reserve(ledger, name, "a")
        for _ in range(2):
            ledger.settle(name, "a", DIME)
        assert ledger.standing(name, now=1.0).spent == DIME

    def test_charges_what_was_never_reserved_only_when_told_so(
        self, ledger: Ledger, name: str
    ) -> None:
        """A call that was made while the store was away is charged afterwards."""
        ledger.settle(name, "a", DIME, reserved=False)
        assert ledger.standing(name, now=1.0).spent == DIME

    def test_a_release_of_nothing_does_nothing(self, ledger: Ledger, name: str) -> None:
        """Zero amounts, which Redis's integers are particular about, leave zero."""
        self.reserve(ledger, name, "a", NOTHING)
        ledger.settle(name, "a", NOTHING)
        standing = ledger.standing(name, now=1.0)
        assert (standing.spent, standing.reserved, standing.in_flight) == (NOTHING, NOTHING, 0)

    def test_names_are_separate(self, ledger: Ledger, name: str) -> None:
        """One tenant's calls never touch another's budget."""
        assert self.reserve(ledger, name, "a", usd="0.1")
        assert self.reserve(ledger, f'{name}\'s "neighbour" {{ü}}', "a", usd="0.1")

    def test_a_nano_dollar_is_kept(self, ledger: Ledger, name: str) -> None:
        """The smallest price of a token is neither lost nor rounded, however large the sum is."""
        large = Amount(Decimal("1234567.000000001"), 1)
        self.reserve(ledger, name, "a", large, usd="9000000")
        ledger.settle(name, "a", large)
        self.reserve(ledger, name, "b", Amount(Decimal("0.000000001"), 1), usd="9000000")
        standing = ledger.standing(name, now=1.0)
        assert standing.spent.usd == Decimal("1234567.000000001")
        assert standing.reserved.usd == Decimal("0.000000001")

    def test_many_threads_never_reserve_more_than_there_is(self, ledger: Ledger, name: str) -> None:
        """Each grant is one atomic step, whoever else asks at the same moment."""
        with ThreadPoolExecutor(16) as pool:
            keys = map(str, range(200))
            granted = list(pool.map(lambda key: self.reserve(ledger, name, key, usd="5"), keys))
        assert sum(granted) == 50
        standing = ledger.standing(name, now=1.0)
        assert (standing.reserved.usd, standing.in_flight) == (Decimal("5.0"), 50)


class TestMemoryLedger(LedgerContract):
    @pytest.fixture
    def ledger(self) -> Ledger:
        return MemoryLedger()

    def test_keeps_every_digit(self, ledger: Ledger, name: str) -> None:
        """Nothing is rounded in memory, whatever the application's decimal context says."""
        from decimal import localcontext

        tiny = Amount(Decimal("1E-30"), 0)
        with localcontext() as context:
            context.prec = 3
            for key in ("a", "b", "c"):
                self.reserve(ledger, name, key, tiny, usd="1")
                ledger.settle(name, key, tiny)
            self.reserve(ledger, name, "d", DIME)
            ledger.settle(name, "d", DIME)
        assert ledger.standing(name, now=1.0).spent.usd == Decimal(
            "0.100000000000000000000000000003"
        )

    def test_a_signal_handler_may_call_in_the_midst_of_an_entry(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its call neither waits for the thread that it interrupted, nor gets lost in the books."""
        ledger = MemoryLedger()
        calls: list[Callable[[], object]] = [
            functools.partial(ledger.settle, "n", "b", DIME),
            functools.partial(self.reserve, ledger, "n", "b"),
        ]
        handling: list[bool] = []
        add = Amount.__add__

        def interrupted(one: Amount, other: Amount) -> Amount:
            if calls and not handling:
                handling.append(True)
                calls.pop()()
                handling.clear()
            return add(one, other)

        def work() -> None:
            self.reserve(ledger, "n", "a")
            ledger.settle("n", "a", DIME)

        monkeypatch.setattr(Amount, "__add__", interrupted)
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()
        standing = ledger.standing("n", now=1.0)
        assert (standing.in_flight, standing.spent) == (0, Amount(Decimal("0.2"), 20))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
    def test_a_forked_child_counts_what_its_parent_has_under_way(self) -> None:
        """A child never waits for a call that only its parent can settle, nor spends its share."""
        budget = Budget(usd=1)
        under_way = held(budget)
        pid = os.fork()
        if not pid:  # the child: its exit code is its verdict
            books = budget.account.read()
            fine = books.spent.usd == Decimal("0.001017") and books.in_flight == 0
            del under_way
            os._exit(0 if fine and budget.spent_usd == Decimal("0.001017") else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        under_way.settle(reply())
        assert budget.reserved_usd == 0


class StoreContract(LedgerContract):
    """What a ledger promises that outlives its process."""

    def test_an_expired_reservation_is_charged_in_full(self, ledger: Ledger, name: str) -> None:
        """A killed process's call is neither forgotten nor in the way for ever."""
        self.reserve(ledger, name, "a")
        assert ledger.standing(name, now=59.0).in_flight == 1
        standing = ledger.standing(name, now=60.0)
        assert (standing.spent, standing.reserved, standing.in_flight) == (DIME, NOTHING, 0)

    def test_a_late_settlement_corrects_the_charge(self, ledger: Ledger, name: str) -> None:
        """A call that outlives its reservation is charged its own cost in the end, once."""
        self.reserve(ledger, name, "a")
        self.reserve(ledger, name, "b")
        assert ledger.standing(name, now=61.0).spent == DIME + DIME
        for _ in range(2):
            ledger.settle(name, "a", Amount(Decimal("0.01"), 1))
        assert ledger.standing(name, now=63.0).spent == Amount(Decimal("0.11"), 11)

    def test_expired_ones_are_forgotten_after_a_day(self, ledger: Ledger, name: str) -> None:
        """The books don't grow with every process that dies; what was charged stays charged."""
        self.reserve(ledger, name, "a")
        for now in (61.0, 90_000.0, 90_002.0):  # at the last one, another has just expired
            standing = ledger.standing(name, now=now)
            ledger.reserve(name, str(now), NOTHING, Limit(), now=now, expires=now + 1)
        assert standing.spent == DIME
        ledger.settle(name, "a", NOTHING)
        assert ledger.standing(name, now=90_003.0).spent == DIME

    def test_the_books_outlive_the_connection(self, ledger: Ledger, name: str) -> None:
        """Closing, as `shutdown()` does, forgets nothing; the next use opens it again."""
        self.reserve(ledger, name, "a")
        ledger.close()
        assert ledger.standing(name, now=1.0).in_flight == 1

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
    def test_a_forked_child_shares_the_books(self, ledger: Ledger, name: str) -> None:
        """A child uses a connection of its own, to the same books."""
        self.reserve(ledger, name, "a")
        pid = os.fork()
        if not pid:
            os._exit(0 if self.reserve(ledger, name, "b") else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert ledger.standing(name, now=1.0).in_flight == 2


class TestSQLiteLedger(StoreContract):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Ledger:
        return SQLiteLedger(tmp_path / "budgets.db")

    def test_waits_for_another_process_no_longer_than_asked(
        self, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A process that holds the file delays a call, and is an error only when patience ends."""
        monkeypatch.setattr("llmkit.budget.account.BUSY_PATIENCE", 0.02)
        budget = Budget(usd=1, name="a", store=f"sqlite:///{tmp_path}/b.db", clock=clock)
        held(budget).settle(reply())
        other = sqlite3.connect(tmp_path / "b.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BudgetExceededError, match="locked"):
            held(budget)
        other.execute("ROLLBACK")
        other.close()
        held(budget).settle(reply())
        assert budget.report()["in_flight"] == 0
        budget.account.ledger.close()

    def test_says_what_is_wrong_with_the_file(self, tmp_path: Path) -> None:
        """A path that can't be used is named, not taken for an empty budget."""
        (tmp_path / "text.db").write_text("no database, but a text that is long enough" * 10)
        for path in (tmp_path / "missing" / "b.db", tmp_path / "text.db"):
            with pytest.raises(StoreError, match=path.name):
                SQLiteLedger(path).standing("a", now=0.0)

    def test_says_that_the_file_was_deleted(self, tmp_path: Path) -> None:
        """Books that nobody else can see are not gone on with; `shutdown()` begins new ones."""
        ledger = SQLiteLedger(tmp_path / "b.db")
        self.reserve(ledger, "a", "k")
        for is_replaced in (False, True):
            for file in tmp_path.iterdir():
                file.unlink()
            if is_replaced:
                (tmp_path / "b.db").touch()
            with pytest.raises(StoreError, match="deleted or replaced"):
                self.reserve(ledger, "a", "m")
        ledger.close()
        assert ledger.standing("a", now=1.0).in_flight == 0
        ledger.close()

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
    def test_a_forked_childs_charges_outlive_its_parents_connection(self, ledger: Ledger) -> None:
        """SQLite's locks are not inherited: a parent that closes the file must not take its log."""
        ledger.settle("a", "parent", DIME, reserved=False)
        ready, go = os.pipe(), os.pipe()

        def settle_twice() -> None:
            ledger.settle("a", "child 1", DIME, reserved=False)
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            ledger.settle("a", "child 2", DIME, reserved=False)

        pid = start_child(settle_twice)
        os.read(ready[0], 1)
        ledger.close()
        os.write(go[1], b"x")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert ledger.standing("a", now=1.0).spent == DIME + DIME + DIME
        for end in (*ready, *go):
            os.close(end)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
    @pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
    def test_a_fork_in_the_middle_of_a_transaction_locks_nobody_out(self, ledger: Ledger) -> None:
        """What another thread of the parent holds at that moment, the child would wait for in vain.

        A child that can't settle is told from one that merely meets its parent by the deadline.
        """
        stop = threading.Event()

        def settle(key: str) -> None:
            until = time.monotonic() + 5
            while time.monotonic() < until:
                try:
                    return ledger.settle("a", key, DIME, reserved=False)
                except StoreBusy:
                    stop.wait(0.001)
            raise TimeoutError

        def keep_settling() -> None:
            while not stop.is_set():
                settle(str(time.monotonic_ns()))

        with ThreadPoolExecutor(2) as pool:
            busy = [pool.submit(keep_settling) for _ in range(2)]
            try:
                codes = set()
                for number in range(20):
                    pid = start_child(functools.partial(settle, f"child {number}"))
                    codes.add(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
            finally:
                stop.set()
            for thread in busy:
                thread.result(10)
        assert codes == {0}

    def test_a_relative_path_stays_where_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A later change of the working directory begins no second budget."""
        monkeypatch.chdir(tmp_path)
        ledger = open_ledger("sqlite:///rel.db")
        monkeypatch.chdir("/")
        ledger.settle("a", "k", DIME, reserved=False)
        assert (tmp_path / "rel.db").exists()
        assert open_ledger(f"sqlite:///{tmp_path}/rel.db") is ledger
        ledger.close()


class TestRedisLedger(StoreContract):
    @pytest.fixture
    def ledger(self, redis_url: str) -> Ledger:
        return RedisLedger(redis_url)

    def test_a_server_that_hangs_costs_less_than_a_second(
        self, redis_server: subprocess.Popen[str], redis_url: str, clock: Clock
    ) -> None:
        """A budget that can't be read fails closed and fast, and is not left with a reservation."""
        budget = Budget(usd=1, name=next(_names), store=redis_url, clock=clock)
        assert budget.spent_usd == 0
        redis_server.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(BudgetExceededError, match="can't be read"):
                held(budget)
            assert time.monotonic() - began < 1
        finally:
            redis_server.send_signal(signal.SIGCONT)
        assert budget.report()["in_flight"] == 0
        assert budget.spent_usd == 0

    def test_needs_its_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Without redis-py the pip command is said when the budget is made."""
        monkeypatch.setitem(__import__("sys").modules, "redis", None)
        with pytest.raises(ConfigurationError, match=r'pip install "llmkit\[redis\]"'):
            Budget(usd=1, name="a", store="redis://localhost")


def test_no_password_is_shown() -> None:
    """Neither the repr nor the error of a budget in Redis has the password of its address."""
    budget = Budget(usd=1, name="a", store="redis://:warehouse-sesame@127.0.0.1:1/0")
    with pytest.raises(BudgetExceededError) as caught:
        _ = budget.spent_usd
    assert "sesame" not in f"{budget!r} {caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize("store", ["", "budgets.db", "sqlite://", "mysql://x/y", "redis://", 7])
def test_refuses_a_store_that_is_none(store: str) -> None:
    """A misspelt address is an error at once, not a budget that nobody shares."""
    with pytest.raises(InvalidRequestError, match="store"):
        Budget(usd=1, name="a", store=store)


class _Away(MemoryLedger):
    """A store that is away while it is told to be."""

    def __init__(self) -> None:
        super().__init__()
        self.away = threading.Event()
        self.error: type[BaseException] = StoreError
        self.asked_in_vain = 0

    def __getattribute__(self, name: str) -> Any:
        if name in ("reserve", "settle", "standing") and self.away.is_set():
            self.asked_in_vain += 1
            raise self.error("nobody is there")
        return super().__getattribute__(name)


def test_fails_closed_when_the_store_is_away() -> None:
    """By default nothing is spent that the books can't hold."""
    ledger = _Away()
    budget = Budget(usd=1, name="a", store=ledger)
    ledger.away.set()
    with pytest.raises(BudgetExceededError, match="nobody is there"):
        held(budget)
    with pytest.raises(BudgetExceededError, match="nobody is there"):
        _ = budget.spent_usd


def test_goes_on_when_that_is_allowed_and_charges_later() -> None:
    """With `on_store_error="allow"` the call is made, and what it cost is not forgotten."""
    ledger = _Away()
    budget = Budget(usd=1, name="a", store=ledger, on_store_error="allow")
    ledger.away.set()
    call = held(budget)
    call.settle(reply())
    ledger.away.clear()
    assert budget.spent_usd == Decimal("0.001017")
    assert budget.spent_usd == Decimal("0.001017")


def test_an_outage_is_not_paid_by_every_call() -> None:
    """A store that hangs costs one time-out in a while, not several for each call."""
    ledger = _Away()
    lenient = Budget(usd=1, name="a", store=ledger, on_store_error="allow")
    ledger.away.set()
    for _ in range(10):
        held(lenient).settle(reply())
    assert ledger.asked_in_vain == 1
    lenient.account._away_until = 0.0  # a second later
    held(lenient).settle(reply())
    assert ledger.asked_in_vain > 1
    ledger.away.clear()
    assert lenient.spent_usd == 11 * Decimal("0.001017")


def test_refused_calls_leave_no_work_for_the_first_one_after_an_outage() -> None:
    """Only what may have been reserved has to be released, however many were refused."""
    ledger = _Away()
    budget = Budget(usd=1, name="a", store=ledger)
    ledger.away.set()
    for _ in range(10):
        with pytest.raises(BudgetExceededError):
            held(budget)
    assert ledger.asked_in_vain == 10
    assert len(budget.account._late) == 1
    ledger.away.clear()
    assert budget.report()["in_flight"] == 0


def test_ctrl_c_loses_no_settlement_that_waits_for_the_store() -> None:
    """What is charged late is charged, also when the charging itself is interrupted."""
    ledger = _Away()
    budget = Budget(usd=1, name="a", store=ledger)
    call = held(budget)
    ledger.away.set()
    call.settle(reply())
    ledger.error = KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        _ = budget.spent_usd
    ledger.away.clear()
    assert budget.spent_usd == Decimal("0.001017")


def test_a_reply_is_not_lost_when_the_store_goes_away_meanwhile() -> None:
    """What was paid is handed out; its settlement waits for the store and happens once."""
    ledger = _Away()
    budget = Budget(usd=1, name="a", store=ledger)
    call = held(budget)
    ledger.away.set()
    call.settle(reply(output_tokens=50))
    ledger.away.clear()
    assert budget.spent_usd == Decimal("0.000517")
    assert budget.reserved_usd == 0
