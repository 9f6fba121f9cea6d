"""Budgets that many share: threads, processes, and any order of events."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmkit import (
    BaseLLMAdapter,
    BudgetExceededError,
    LLMError,
    ProviderError,
    RateLimitError,
    get_adapter,
)
from llmkit.budget import Budget, Held, hold
from llmkit.budget.amounts import Amount
from llmkit.budget.worst_case import WorstCase, worst_case
from llmkit.errors import ErrorCode
from llmkit.request import Request
from llmkit.scope import CallInterrupted, Scope
from llmkit.testing import Answer, ProviderServer, RecordedRequest
from tests.budget.calls import INFO, ask, held, reply
from tests.budget.conftest import Clock

LIMIT = Amount(Decimal("0.01"), 4000)


class AnyOrder(RuleBasedStateMachine):
    """Calls that begin and end in any order, without waiting: a denied one goes away."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.budget = Budget(LIMIT.usd, LIMIT.tokens, clock=self.clock)
        self.calls: list[tuple[Held, int]] = []
        self.spent = Decimal(0)
        self.tokens = 0

    @rule(max_tokens=st.none() | st.integers(1, 900))
    def begin(self, max_tokens: int | None) -> None:
        call = Held(ask(max_tokens=max_tokens), self.case(max_tokens), [self.budget.account], False)
        try:
            with Scope(1e-9).entered():
                call.acquire()
        except BudgetExceededError:
            # Refused: even with all others settled for nothing, there would be no room.
            books = self.budget.account.read()
            least = self.case(max_tokens).amount(max_tokens or 1)
            assert not self.budget.account.limit.less(books.spent).holds(least)
        except CallInterrupted:  # it would have waited
            assert self.calls
        else:
            cap = call.request.max_tokens
            assert cap is not None
            self.calls.append((call, cap))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        call, cap = self.take(data)
        read, written = data.draw(st.integers(0, 17)), data.draw(st.integers(0, cap))
        call.settle(reply(read, written))
        self.charge(read, written)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), seconds=st.floats(0, 10))
    def cancel(self, data: st.DataObject, seconds: float) -> None:
        call, _ = self.take(data)
        self.clock.now += seconds
        before = self.budget.spent_tokens
        call.fail(LLMError.of_code(ErrorCode.LLM_CANCELLED, "cancelled"))
        self.charge(17, self.budget.spent_tokens - before - 17)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def refuse(self, data: st.DataObject) -> None:
        self.take(data)[0].fail(RateLimitError("slow down"))

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        self.take(data)
        self.charge(17, self.budget.spent_tokens - self.tokens - 17)

    def take(self, data: st.DataObject) -> tuple[Held, int]:
        return self.calls.pop(data.draw(st.integers(0, len(self.calls) - 1)))

    def case(self, max_tokens: int | None) -> WorstCase:
        return worst_case(ask(max_tokens=max_tokens), INFO)

    def charge(self, read: int, written: int) -> None:
        self.spent += read * Decimal("0.000001") + written * Decimal("0.00001")
        self.tokens += read + written

    @invariant()
    def never_more_than_the_limit(self) -> None:
        books = self.budget.account.read()
        assert self.budget.account.limit.holds(books.spent + books.reserved)
        assert books.in_flight == len(self.calls)

    @invariant()
    def every_digit_is_right(self) -> None:
        assert self.budget.account.read().spent == Amount(self.spent, self.tokens)

    def teardown(self) -> None:
        self.calls.clear()
        books = self.budget.account.read()
        assert (books.reserved.tokens, books.in_flight) == (0, 0)
        assert books.reserved.usd == 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


class Workload:
    """Calls of the real SDK to a server that counts what they cost."""

    def __init__(self, server: ProviderServer, budget: Budget, calls: int, seed: int) -> None:
        self.budget = budget
        self.calls = calls
        self.numbers = itertools.count()
        self.cost = Decimal(0)
        self.lock = threading.Lock()
        self.rng = random.Random(seed)
        self.server = server
        server.answer = self.answer
        self.adapter: BaseLLMAdapter = get_adapter(
            "gpt-6-luna",
            api_key="warehouse000000sesame",
            api_base=server.base_url("openai"),
            max_retries=0,
        )
        self.options = self.adapter.read_options(timeout=20)
        self.refusals: list[tuple[Amount, Amount]] = []

    def answer(self, request: RecordedRequest) -> Answer:
        """Writes up to `max_tokens` (1,000 at most), often all of it; fails now and then."""
        cap = request.json["max_completion_tokens"]
        with self.lock:
            if self.rng.random() < 0.1:
                return Answer(status=500)
            usual = min(cap, 1000)
            written = self.rng.choice([usual, self.rng.randint(1, usual)])
            read = self.rng.randint(1, 17)
            self.cost += read * Decimal("0.0000001") + written * Decimal("0.0000005")
        return Answer("x", input_tokens=read, output_tokens=written)

    def ask(self, request: Request) -> None:
        """Makes one call under the budget."""
        with hold(request, self.adapter.info, [self.budget]) as call:
            call.settle(self.adapter.run(call.request, self.options))

    def one(self, max_tokens: int | None) -> str:
        """One call; says how it ended."""
        request = Request.build("gpt-6-luna", "x", max_tokens=max_tokens)
        try:
            with Scope(20).entered():
                self.ask(request)
        except BudgetExceededError:
            # Spent never shrinks, so the room that there is now was there when it was refused.
            least = worst_case(request, self.adapter.info).amount(max_tokens or 1)
            assert self.budget.account.read().spent.usd + least.usd > self.limit
            return "refused"
        except ProviderError:
            return "failed"
        return "answered"

    @property
    def limit(self) -> Decimal:
        assert self.budget.account.limit.usd is not None
        return self.budget.account.limit.usd

    def run(self, caps: list[int | None]) -> list[str]:
        with ThreadPoolExecutor(64) as pool:
            return list(pool.map(self.one, itertools.islice(itertools.cycle(caps), self.calls)))


@pytest.mark.parametrize("caps", [[1000], [None, 200, 4000], [None]], ids=repr)
def test_64_threads_spend_no_more_than_there_is_and_all_of_it(
    server: ProviderServer, caps: list[int | None]
) -> None:
    """Against the server's own count: never a cent too much, nor a refusal of what had room."""
    workload = Workload(server, Budget(usd="0.05"), calls=400, seed=7)
    ends = workload.run(caps)
    assert workload.cost == workload.budget.spent_usd <= workload.limit
    assert workload.budget.reserved_usd == 0
    assert ends.count("answered") > 20
    if "refused" in ends:  # then the budget is used up, but for less than one more call
        dearest = max(cap or 1 for cap in caps) * Decimal("0.0000005") + Decimal("0.000003")
        assert workload.limit - workload.cost < dearest
    else:
        assert len(server.requests) == 400


def test_a_cancelled_call_keeps_an_estimate_and_frees_the_rest(server: ProviderServer) -> None:
    """A racer that lost has its request at the vendor: it is charged, and its reservation gone."""
    budget = Budget(usd=1)
    workload = Workload(server, budget, calls=1, seed=1)
    server.answer = Answer(delay=30.0)
    scope = Scope(20)

    def lose() -> None:
        with scope.entered(), pytest.raises(LLMError) as caught:
            workload.ask(Request.build("gpt-6-luna", "x", max_tokens=1000))
        assert caught.value.code is ErrorCode.LLM_CANCELLED

    with ThreadPoolExecutor(1) as pool:
        racer = pool.submit(lose)
        server.wait_for_requests(1)
        worst = budget.reserved_usd
        scope.cancel()
        racer.result(10)
    assert 17 * Decimal("0.0000001") < budget.spent_usd < worst
    assert budget.reserved_usd == 0


def test_a_refused_connection_costs_nothing(server: ProviderServer) -> None:
    """Nobody listened, so nobody bills; seen through the real SDK's chain of errors."""
    budget = Budget(usd=1)
    workload = Workload(server, budget, calls=1, seed=1)
    server.close()
    with pytest.raises(LLMError, match="refused"):
        workload.ask(Request.build("gpt-6-luna", "x", max_tokens=1000))
    assert budget.account.read().spent == Amount()


def test_the_phases_before_sending_are_called_as_the_budget_expects() -> None:
    """The network's words for them are matched by text: a change there must be noticed here."""
    import inspect

    import llmkit.gate
    import llmkit.network
    from llmkit.budget.held import _BEFORE_SENDING

    source = inspect.getsource(llmkit.network) + inspect.getsource(llmkit.gate)
    for phase in _BEFORE_SENDING:
        assert f'"{phase.removeprefix(" ended while ")}' in source


# What each process does: 16 threads make 50 calls, and it says what they cost.
SHARER = """
import random, sys
from concurrent.futures import ThreadPoolExecutor
from llmkit import BudgetExceededError, Scope
from llmkit.budget import Budget
from tests.budget.calls import held, reply

budget = Budget(usd="0.05", name=sys.argv[2], store=sys.argv[1])
rng = random.Random(int(sys.argv[3]))

def one(number):
    read, written = rng.randint(1, 17), rng.randint(1, 100)
    try:
        with Scope(20).entered():
            held(budget).settle(reply(read, written))
    except BudgetExceededError:
        return 0
    return read + 10 * written

with ThreadPoolExecutor(16) as pool:
    print(sum(pool.map(one, range(50))))
"""

# Makes a reservation and says so; then it waits to be killed.
VICTIM = """
import sys
from llmkit.budget import Budget
from tests.budget.calls import held

call = held(Budget(usd="0.002", name=sys.argv[2], store=sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


@pytest.fixture(params=["sqlite_url", "redis_url"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """One for each test: the server lives for the whole session."""
    found: str = request.node.name
    return found


def test_processes_share_a_budget_without_overspending(url: str, name: str) -> None:
    """Three processes with 16 threads each spend one budget to its end, and not a nano beyond."""
    sharers = [start(SHARER, url, name, str(seed)) for seed in range(3)]
    micro_usd = sum(int(sharer.communicate(timeout=30)[0]) for sharer in sharers)
    budget = Budget(usd="0.05", name=name, store=url)
    assert budget.spent_usd == micro_usd * Decimal("0.000001")
    assert Decimal("0.05") - Decimal("0.001017") < budget.spent_usd <= Decimal("0.05")
    assert budget.reserved_usd == 0
    budget.account.ledger.close()


def test_a_killed_process_is_charged_and_blocks_nobody_for_ever(url: str, name: str) -> None:
    """After kill -9 its reservation counts as under way, and once it expires as spent."""
    ahead = Clock()
    budget = Budget(usd="0.002", name=name, store=url, clock=ahead)
    victim = start(VICTIM, url, name)
    assert victim.stdout is not None
    assert victim.stdout.readline() == "held\n"
    victim.kill()
    victim.communicate()
    ahead.now = time.time()
    assert budget.report()["in_flight"] == 1
    assert budget.remaining_usd == Decimal("0.000983")
    ahead.now += 2 * 3600
    assert budget.report()["in_flight"] == 0
    assert budget.spent_usd == Decimal("0.001017")
    with pytest.raises(BudgetExceededError):
        held(budget)
    held(budget, max_tokens=90).settle(reply())
    budget.account.ledger.close()


def test_waits_for_another_process_to_settle(
    url: str, name: str, waiting: threading.Semaphore
) -> None:
    """Nobody tells this process that another one has settled: who is first in line looks."""
    mine = Budget(usd="0.0015", name=name, store=url)
    theirs = Budget(usd="0.0015", name=name, store=url)
    first = held(theirs)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(lambda: held(mine))
        assert waiting.acquire(timeout=5)
        first.settle(reply(output_tokens=1))
        second.result(5).settle(reply(output_tokens=1))
    assert mine.spent_usd == 2 * Decimal("0.000027")
    mine.account.ledger.close()


@given(amounts=st.lists(st.tuples(st.integers(0, 17), st.integers(0, 100)), max_size=30))
def test_sums_are_exact(amounts: list[tuple[int, int]]) -> None:
    """However many calls there are, their sum has no rounding error at all."""
    budget = Budget(usd=100)
    for read, written in amounts:
        held(budget).settle(reply(read, written))
    micro = sum(read + 10 * written for read, written in amounts)
    assert budget.spent_usd == Decimal(micro).scaleb(-6)
