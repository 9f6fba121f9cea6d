"""What a call reserves, waits for, and is charged in the end."""

from __future__ import annotations

import functools
import gc
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from llmkit import (
    APIConnectionError,
    BudgetExceededError,
    InvalidRequestError,
    LLMError,
    LLMTimeoutError,
    ProviderError,
    RateLimitError,
    Scope,
    StreamInterruptedError,
)
from llmkit.budget import Budget, Held, MemoryLedger, Standing, active_budgets, hold
from llmkit.budget.amounts import NOTHING, Amount
from llmkit.errors import ErrorCode
from llmkit.scope import CallInterrupted
from llmkit.streams import ChunkSource
from llmkit.threads import Once
from llmkit.types import Chunk, Usage
from tests.budget.calls import INFO, Background, ask, held, reply, start_child
from tests.budget.conftest import Clock

# What one call of 17 + 100 tokens reserves, and what 17 tokens of input cost.
CALL = Decimal("0.001017")
INPUT = Decimal("0.000017")


def spent_on(error: BaseException, clock: Clock, seconds: float = 0.0, **arguments: Any) -> Decimal:
    """What a call is charged that fails after some seconds."""
    budget = Budget(usd=1, clock=clock)
    call = held(budget, **arguments)
    clock.now += seconds
    call.__exit__(type(error), error, None)
    assert budget.reserved_usd == 0
    return budget.spent_usd


def test_reserves_before_and_settles_after() -> None:
    """While a call runs its worst case is reserved; then only what it did cost is spent."""
    budget = Budget(usd=1, tokens=1000)
    answer = reply(10, 20)
    with hold(ask(max_tokens=100), INFO, [budget]) as call:
        assert (budget.reserved_usd, budget.reserved_tokens) == (CALL, 117)
        assert (budget.remaining_usd, budget.remaining_tokens) == (1 - CALL, 883)
        call.settle(answer)
    assert (budget.spent_usd, budget.spent_tokens) == (Decimal("0.00021"), 30)
    assert budget.account.read().reserved == NOTHING
    assert answer.warnings == ()


def test_takes_the_cost_that_the_reply_names() -> None:
    """A router that says its own price is believed before the registry."""
    budget = Budget(usd=1)
    answer = reply()
    answer.cost = Decimal("0.0005")
    held(budget).settle(answer)
    assert budget.spent_usd == Decimal("0.0005")


def test_without_max_tokens_it_sends_what_is_affordable() -> None:
    """The answer is capped at what the budget holds, and a warning says so."""
    budget = Budget(usd="0.005017")
    call = held(budget, max_tokens=None)
    assert call.request.max_tokens == 500
    assert budget.remaining_usd == 0
    answer = reply(output_tokens=500)
    answer.warnings = ("another",)
    call.settle(answer)
    assert list(answer.warnings) == [
        "no max_tokens was given: the budget allows for an answer of 500 tokens",
        "another",
    ]


def test_tokens_cap_an_answer_as_well() -> None:
    """A budget of tokens needs no price, and the tighter of two limits counts."""
    unknown = replace(INFO, prices=None)
    assert held(Budget(tokens=117), max_tokens=None, info=unknown).request.max_tokens == 100
    assert held(Budget(usd=1, tokens=67), max_tokens=None).request.max_tokens == 50
    unbounded = held(Budget(usd=9), max_tokens=None)
    assert (unbounded.request.max_tokens, unbounded.warnings) == (10_000, ())
    unsaid = held(Budget(usd=9), max_tokens=None, info=replace(INFO, max_output_tokens=None))
    assert "an answer of 8192 tokens" in unsaid.warnings[0]


def test_refuses_what_never_fits() -> None:
    """Nothing is sent and nothing is spent, and the error says what would be needed."""
    budget = Budget(usd="0.001", name="tenant 7")
    with pytest.raises(BudgetExceededError) as caught:
        held(budget)
    assert str(caught.value) == (
        "openai:abacus: the budget 'tenant 7' has no room: up to 17 tokens of input and an answer"
        " of 100 tokens take $0.001017 of $0.001 left ($0.001 in all)"
    )
    assert not caught.value.retryable
    assert budget.account.read() == Standing()
    with pytest.raises(BudgetExceededError, match="shortest answer take 18 tokens of 17 left") as e:
        held(Budget(tokens=17), max_tokens=None)
    assert "17 tokens of input (one for each byte; input_margin= reserves less)" in str(e.value)


def test_a_call_waits_for_others_to_settle(waiting: threading.Semaphore) -> None:
    """What does not fit beside a running call is made after it, not refused."""
    budget = Budget(usd="0.0015")
    first = held(budget)
    second = Background(lambda: held(budget))
    assert waiting.acquire(timeout=5)
    assert not second.done
    first.settle(reply(output_tokens=10))
    second.result().settle(reply(output_tokens=10))
    assert budget.spent_usd == 2 * Decimal("0.000117")


def test_a_waiting_call_is_refused_once_the_others_have_spent_it(
    waiting: threading.Semaphore,
) -> None:
    """The wait ends as soon as it is in vain, not at the deadline."""
    budget = Budget(usd="0.0015")
    first = held(budget)
    others = [Background(lambda: held(budget)) for _ in range(3)]
    for _ in others:
        assert waiting.acquire(timeout=5)
    first.settle(reply())
    for other in others:
        with pytest.raises(BudgetExceededError):
            other.result()
    assert budget.spent_usd == CALL


def test_what_can_never_fit_does_not_wait(waiting: threading.Semaphore) -> None:
    """A call larger than all that is left is refused at once, also when others stand in line."""
    budget = Budget(usd="0.0015")
    first = held(budget)
    with pytest.raises(BudgetExceededError):
        held(budget, max_tokens=500)
    second = Background(lambda: held(budget))
    assert waiting.acquire(timeout=5)
    with pytest.raises(BudgetExceededError):
        held(budget, max_tokens=500)
    first.settle(reply(output_tokens=1))
    second.result().settle(reply())


def test_waits_no_longer_than_its_deadline(waiting: threading.Semaphore) -> None:
    """The wait is part of the call's time, and a cancel ends it; nothing is left behind."""
    budget = Budget(usd="0.0015")
    first = held(budget)
    with Scope(0.02).entered(), pytest.raises(CallInterrupted, match="waiting for the budget"):
        held(budget)
    scope = Scope()

    def ask_in_scope() -> Held:
        with scope.entered():
            return held(budget)

    waiting.acquire()
    second = Background(ask_in_scope)
    assert waiting.acquire(timeout=5)
    scope.cancel()
    with pytest.raises(CallInterrupted, match="cancelled"):
        second.result()
    assert budget.account.first_in_line() is None
    first.settle(reply())
    assert budget.spent_usd == CALL


def test_first_come_first_served(waiting: threading.Semaphore) -> None:
    """A small call does not overtake a large one for ever: who waits longest is next."""
    budget = Budget(usd="0.002")
    order: list[int] = []

    def take(max_tokens: int) -> None:
        call = held(budget, max_tokens=max_tokens)
        order.append(max_tokens)
        call.settle(reply(output_tokens=0))

    first = held(budget)
    calls = []
    for size in (150, 10, 20, 30):
        calls.append(Background(functools.partial(take, size)))
        assert waiting.acquire(timeout=5)
    first.settle(reply(output_tokens=0))
    for call in calls:
        call.result()
    assert order[0] == 150
    assert sorted(order) == [10, 20, 30, 150]


def test_who_gives_up_lets_the_next_one_in(waiting: threading.Semaphore) -> None:
    """A large call whose time ends in line does not hold up the small one behind it."""
    budget = Budget(usd="0.002")
    first = held(budget)
    scope = Scope()

    def large() -> Held:
        with scope.entered():
            return held(budget, max_tokens=150)

    blocked = Background(large)
    assert waiting.acquire(timeout=5)
    small = Background(lambda: held(budget, max_tokens=10))
    assert waiting.acquire(timeout=5)
    scope.cancel()
    small.result().settle(reply())
    with pytest.raises(CallInterrupted):
        blocked.result()
    first.settle(reply())


def test_an_open_answer_is_not_cut_to_nothing_while_others_run(
    waiting: threading.Semaphore,
) -> None:
    """With 50 tokens' room beside a running call it waits for more; alone it takes what is left."""
    budget = Budget(usd="0.00955")
    first = held(budget, max_tokens=900)
    second = Background(lambda: held(budget, max_tokens=None))
    assert waiting.acquire(timeout=5)
    first.settle(reply(output_tokens=100))
    call = second.result()
    assert call.request.max_tokens == 851
    call.settle(reply(output_tokens=842))
    assert held(budget, max_tokens=None).request.max_tokens == 7


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequestError("a field is wrong", status=400),
        RateLimitError("slow down", status=429),
        ProviderError("overloaded", status=529),
        LLMError.of_code(ErrorCode.LLM_CIRCUIT_OPEN, "open"),
        LLMError.of_code(ErrorCode.CONFIGURATION_ERROR, "no key"),
        LLMTimeoutError("the time-out of 1 s ended while connecting"),
        LLMTimeoutError("the time-out of 1 s ended while waiting for one of 100 connections"),
        ConnectionRefusedError("nobody listens"),
    ],
    ids=repr,
)
def test_what_the_vendor_never_worked_on_costs_nothing(error: Exception, clock: Clock) -> None:
    """A refusal by status, and a call that never left, free the reservation whole."""
    assert spent_on(error, clock, 5.0) == 0


def test_a_connection_that_was_never_made_costs_nothing(clock: Clock) -> None:
    """Told from one that broke on the way by the HTTP client's own error behind it."""
    import httpx2

    error = APIConnectionError("no connection")
    error.__cause__ = ValueError("the SDK's")
    error.__cause__.__cause__ = httpx2.ConnectError("refused")
    assert spent_on(error, clock) == 0
    broken = APIConnectionError("the connection broke")
    broken.__cause__ = httpx2.ReadError("reset")
    broken.__context__ = ConnectionRefusedError("an earlier try's")
    assert spent_on(broken, clock) == INPUT


@pytest.mark.parametrize(
    "error",
    [
        LLMTimeoutError("the time-out of 1 s ended while reading the reply"),
        LLMError.of_code(ErrorCode.LLM_CANCELLED, "the call was cancelled"),
        CallInterrupted(ErrorCode.LLM_CANCELLED, "another model was faster"),
        ProviderError("not JSON"),
        ProviderError("a gateway gave up", status=504),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_what_the_vendor_may_bill_is_charged_by_estimate(
    error: BaseException, clock: Clock
) -> None:
    """Input, and 200 tokens for each second; never more than was reserved."""
    assert spent_on(error, clock) == INPUT
    assert spent_on(error, clock, 0.25) == INPUT + 50 * Decimal("0.00001")
    assert spent_on(error, clock, 3600.0) == CALL


def test_a_reply_without_usage_is_charged_by_estimate(clock: Clock) -> None:
    """Unknown is never zero: the input's bound, and a token for each byte of the answer."""
    budget = Budget(usd=1, clock=clock)
    call = held(budget)
    clock.now += 60
    call.settle(reply(None, None, "üben"))
    assert (budget.spent_usd, budget.spent_tokens) == (INPUT + 5 * Decimal("0.00001"), 22)


def test_usage_whose_price_is_unclear_is_charged_at_the_worst(clock: Clock) -> None:
    """Cached tokens without a price of their own don't make the call free."""
    budget = Budget(usd=1, clock=clock)
    answer = reply(10, 10)
    answer.usage = replace(answer.usage, cache_read_tokens=5)
    held(budget).settle(answer)
    assert budget.spent_usd == Decimal("0.00011")


def test_a_surprise_is_charged_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """A vendor that bills more than the worst case is believed, and the log says so."""
    budget = Budget(usd="0.002")
    held(budget).settle(reply(output_tokens=300))
    assert budget.spent_usd == Decimal("0.003017")
    assert budget.remaining_usd == Decimal("-0.001017")
    assert caplog.messages == [
        "abacus cost more than its worst case: $0.003017 and 317 tokens"
        " instead of $0.001017 and 117"
    ]
    held(Budget(usd=1)).settle(reply(50, 1))  # more tokens, but no more money
    assert len(caplog.messages) == 1
    with pytest.raises(BudgetExceededError, match=r"of -\$0\.001017 left"):
        held(budget)


@pytest.mark.parametrize(
    "usage", [Usage(-17, 100), Usage(17, -100), Usage(-1, -1)], ids=lambda usage: str(usage)[:40]
)
def test_a_count_below_zero_is_no_income(usage: Usage, clock: Clock) -> None:
    """What a vendor cannot mean counts as not said: the budget never grows by a call."""
    budget = Budget(usd=1, clock=clock)
    answer = reply(text="abc")
    answer.usage = usage
    held(budget).settle(answer)
    assert budget.spent_usd == INPUT + 3 * Decimal("0.00001")
    assert budget.spent_tokens == 20


@pytest.mark.parametrize("cost", ["NaN", "sNaN", "Infinity", "-5"])
def test_a_cost_that_is_no_amount_is_not_believed(cost: str) -> None:
    """An adapter's own figure is taken only if it can be one; else the usage tells the cost."""
    budget = Budget(usd=1)
    answer = reply()
    answer.cost = Decimal(cost)
    held(budget).settle(answer)
    assert budget.spent_usd == CALL
    assert budget.reserved_usd == 0


@pytest.mark.parametrize("store", [None, "sqlite_url", "redis_url"])
def test_an_absurd_usage_uses_the_budget_up_and_breaks_nothing(
    store: str | None, request: pytest.FixtureRequest
) -> None:
    """A number that no store could hold is charged as the largest that each can."""
    address = None if store is None else request.getfixturevalue(store)
    budget = Budget(usd=1, tokens=10_000, name="absurd", store=address)
    held(budget).settle(reply(10**30, 10**30))
    report = budget.report()
    assert report["spent_usd"] > 9_000_000
    assert report["spent_tokens"] == 2**53
    assert (report["reserved_usd"], report["in_flight"]) == (0, 0)
    with pytest.raises(BudgetExceededError):
        held(budget)
    budget.account.ledger.close()


class Stream:
    """Chunks in the way of an adapter, and whether they were given up."""

    def __init__(self, *texts: str, error: LLMError | None = None) -> None:
        self.texts, self.error, self.closed = texts, error, False

    def source(self) -> ChunkSource:
        try:
            for text in self.texts:
                yield Chunk(text)
        except GeneratorExit:
            self.closed = True
            raise
        if self.error is not None:
            raise self.error
        return reply(output_tokens=3)


def test_a_stream_settles_at_its_end() -> None:
    """What is reserved stays so while chunks come, and its usage is charged."""
    budget = Budget(usd=1)
    call = held(budget, streamed=True)
    source = call.counting(Stream("a", "b").source())
    assert [next(source).text, next(source).text] == ["a", "b"]
    assert budget.reserved_usd == CALL
    with pytest.raises(StopIteration) as end:
        next(source)
    call.end(end.value.value)
    assert budget.spent_usd == Decimal("0.000047")
    assert budget.reserved_usd == 0


def test_a_broken_stream_costs_its_input_and_what_arrived(clock: Clock) -> None:
    """Also when a status says that the vendor failed in the middle: text was written."""
    budget = Budget(usd=1, clock=clock)
    call = held(budget, streamed=True)
    error = StreamInterruptedError("broke", status=529)
    clock.now += 9
    with pytest.raises(StreamInterruptedError):
        list(call.counting(Stream("abc", "de", error=error).source()))
    call.end(error)
    assert budget.spent_usd == INPUT + 5 * Decimal("0.00001")


def test_a_reasoning_models_thoughts_are_estimated(clock: Clock) -> None:
    """What it wrote unseen before its first word is billed as well."""
    thinker = replace(INFO, capabilities=frozenset({"reasoning"}))
    budget = Budget(usd=1, clock=clock)
    call = held(budget, streamed=True, info=thinker)
    clock.now += 0.25
    call.note("a")
    clock.now += 60
    call.end(StreamInterruptedError("broke"))
    assert budget.spent_tokens == 17 + 50 + 1


def test_a_stream_that_is_dropped_unread_leaves_no_reservation(
    waiting: threading.Semaphore,
) -> None:
    """The collector charges what arrived, and wakes the call that waits for it."""
    budget = Budget(usd="0.0015")
    stream = Stream("abc", "def")
    call = held(budget, streamed=True)
    source = call.counting(stream.source())
    next(source)
    second = Background(lambda: held(budget))
    assert waiting.acquire(timeout=5)
    del call, source
    second.result().settle(reply(output_tokens=0))
    assert stream.closed
    assert budget.spent_usd == 2 * INPUT + 3 * Decimal("0.00001")


def test_what_only_the_collector_would_find_is_not_waited_for(
    waiting: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream that was dropped, but hangs on a traceback, doesn't stop the calls behind it."""
    monkeypatch.setattr("llmkit.budget.account.GLANCE", 0.05)
    budget = Budget(usd="0.0015")
    cycle: list[Any] = [held(budget, streamed=True)]
    cycle.append(cycle)
    del cycle
    gc.disable()
    try:
        second = Background(lambda: held(budget))
        assert waiting.acquire(timeout=5)
        second.result().settle(reply(output_tokens=0))
    finally:
        gc.enable()
    assert budget.spent_usd == 2 * INPUT


def test_the_collector_takes_no_lock() -> None:
    """A call that is collected while this very thread holds the books' locks blocks nobody."""
    ledger = MemoryLedger()
    budget = Budget(usd=1, name="a", store=ledger)
    call = held(budget, streamed=True)
    cycle: list[Any] = [call]
    cycle.append(cycle)
    del call, cycle
    done = threading.Event()

    def collect() -> None:
        with ledger._lock:
            gc.collect()
        done.set()

    threading.Thread(target=collect, daemon=True).start()
    assert done.wait(5)
    assert budget.account.read() == Standing(Amount(INPUT, 17))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_childs_copy_of_a_call_settles_nothing(sqlite_url: str) -> None:
    """The parent's stream is the parent's to charge, also when the child closes its copy first."""
    budget = Budget(usd=1, name="a", store=sqlite_url)
    call = held(budget, streamed=True)

    def close() -> None:
        call.end(StreamInterruptedError("closed"))
        assert budget.report()["in_flight"] == 1

    child = start_child(close)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    call.end(reply())
    assert budget.spent_usd == CALL
    budget.account.ledger.close()


def test_ends_once() -> None:
    """A stream that is closed from another thread at its very end is charged once."""
    budget = Budget(usd=1)
    call = held(budget, streamed=True)
    answer = reply(output_tokens=3)
    for outcome in (answer, LLMError("late"), answer):
        call.end(outcome)
    assert budget.spent_usd == Decimal("0.000047")


def test_nested_budgets_all_count() -> None:
    """A call fits into each budget around it or into none, and is charged to each."""
    outer, inner = Budget(usd=1), Budget(usd="0.002")
    with outer, inner, inner:
        budgets = active_budgets()
        assert budgets == (inner, outer)
        held(*budgets).settle(reply())
        with pytest.raises(BudgetExceededError):
            held(*active_budgets(), max_tokens=200)
    assert active_budgets() == ()
    assert outer.spent_usd == inner.spent_usd == CALL
    assert outer.reserved_usd == 0


def test_an_outer_budget_reserves_no_more_than_the_inner_one_allows() -> None:
    """A request's small budget inside a tenant's large one doesn't hold all of the latter."""
    inner, middle, outer = Budget(usd="0.05"), Budget(usd="0.003017"), Budget(usd="0.005017")
    call = held(inner, middle, outer, max_tokens=None)
    assert call.request.max_tokens == 300
    assert {each.reserved_usd for each in (inner, middle, outer)} == {Decimal("0.003017")}
    call.settle(reply())
    assert {each.spent_usd for each in (inner, middle, outer)} == {CALL}


def test_waiting_for_one_budget_holds_nothing_of_another(waiting: threading.Semaphore) -> None:
    """Two budgets that are each other's bottleneck can't lock each other."""
    outer, inner = Budget(usd=1), Budget(usd="0.0015")
    first = held(inner)
    second = Background(lambda: held(inner, outer))
    assert waiting.acquire(timeout=5)
    assert outer.reserved_usd == 0
    first.settle(reply(output_tokens=0))
    second.result().settle(reply())
    tight = held(outer, max_tokens=9_800)
    third = Background(lambda: held(Budget(usd=1), Budget(usd=1), outer, max_tokens=9_800))
    fourth = Background(lambda: None)
    tight.settle(reply())
    third.result().settle(reply())
    fourth.result()


def test_the_same_books_count_once() -> None:
    """A standing budget that is also entered is charged once; the innermost limit holds."""
    ledger = MemoryLedger()
    standing = Budget(usd=5, name="tenant", store=ledger)
    with Budget(usd=1, name="tenant", store=ledger) as inner, Budget(usd=1) as other:
        assert active_budgets([standing]) == (other, inner)
        held(*active_budgets([standing])).settle(reply())
    assert standing.spent_usd == CALL


def test_threads_of_ones_own_are_told_by_wrap() -> None:
    """A pool's thread has no context of its caller: `wrap` puts it into the budget."""

    def found_by(_: int) -> tuple[Budget, ...]:
        return active_budgets()

    with ThreadPoolExecutor(2) as pool, Budget(usd=1) as budget:
        assert list(pool.map(found_by, range(2))) == [(), ()]
        found = list(pool.map(budget.wrap(found_by), range(2)))
        assert found == [(budget,), (budget,)]
        assert list(pool.map(found_by, range(2))) == [(), ()]


def test_a_call_that_its_block_does_not_pay_is_told_of(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The likeliest mistake, a pool inside the block, is said once, at the first such call."""
    monkeypatch.setattr("llmkit.budget.blocks._told", Once())
    with ThreadPoolExecutor(1) as older, ThreadPoolExecutor(1) as newer:
        older.submit(active_budgets).result()
        with Budget(usd=1, name="block") as budget:
            with budget:
                pass
            for paid in (older.submit(active_budgets), newer.submit(budget.wrap(active_budgets))):
                paid.result()
            assert caplog.messages == []  # a server's other thread, and one that was told
            for _ in range(2):
                newer.submit(active_budgets).result()
        assert len(caplog.messages) == 1
        assert "not paid by the budget 'block'" in caplog.text
        monkeypatch.setattr("llmkit.budget.blocks._told", Once())
        newer.submit(active_budgets).result()
    assert len(caplog.messages) == 1  # nobody is in a block any more


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_forked_copy_of_a_budget_is_told_of(
    caplog: pytest.LogCaptureFixture, sqlite_url: str
) -> None:
    """Each process spends a budget in memory anew: said once in each, and not of a store."""
    copied, shared = Budget(usd=1), Budget(usd=1, name="a", store=sqlite_url)
    held(copied).settle(reply())

    def call_twice() -> None:
        for _ in range(2):
            held(copied, shared).settle(reply())
        assert [message.split(" was made")[0] for message in caplog.messages] == ["the budget"]

    child = start_child(call_twice)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    held(copied).settle(reply())
    assert caplog.messages == []
    shared.account.ledger.close()


def test_a_budget_in_a_store_can_be_handed_to_another_process(sqlite_url: str) -> None:
    """Pickled it is the same budget, options and all; one in memory says why it can't be."""
    budget = Budget(
        "0.5", 5000, name="a", store=sqlite_url, on_store_error="allow", input_margin=1.5
    )
    held(budget).settle(reply())
    again: Budget = pickle.loads(pickle.dumps(budget))
    assert again.report() == budget.report()
    assert pickle.dumps(again) == pickle.dumps(budget)
    with pytest.raises(InvalidRequestError, match="store="):
        pickle.dumps(Budget(usd=1))
    budget.account.ledger.close()


def test_the_most_cautious_margin_holds() -> None:
    """A budget that wants no risk isn't overruled by another one around the call."""
    text = "word " * 200
    bytewise, risky, riskier = (Budget(tokens=5000, input_margin=each) for each in (None, 2, 1.5))

    def reserved(*budgets: Budget) -> int:
        call = hold(ask(text, max_tokens=1), INFO, budgets)
        tokens = budgets[0].reserved_tokens
        call.fail(RateLimitError("slow down"))
        return tokens

    assert reserved(bytewise) == reserved(risky, bytewise) == 1017
    assert reserved(riskier) < reserved(risky) == reserved(riskier, risky) < 700


def test_an_unknown_price_is_refused_warned_of_or_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What can't be counted is never counted as free without the user's word for it."""
    unknown = replace(INFO, prices=None)
    with pytest.raises(BudgetExceededError, match="price of abacus is unknown"):
        held(Budget(usd=1), info=unknown)
    warned, ignored = (
        Budget(usd=1, on_unknown_price="warn"),
        Budget(usd=1, on_unknown_price="ignore"),
    )
    answer = reply()
    call = held(ignored, warned, info=unknown, max_tokens=None)
    assert call.request.max_tokens is None
    call.settle(answer)
    assert answer.warnings == (
        "the price of abacus is unknown: the budget does not count its money",
    )
    assert answer.warnings[0] in caplog.text
    assert warned.account.read().spent == Amount(Decimal(0), 117)
    named = reply()
    named.cost = Decimal("0.1")
    held(ignored, info=unknown).settle(named)
    assert (named.warnings, ignored.spent_usd) == ((), Decimal("0.1"))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"usd": -1},
        {"usd": True},
        {"usd": "a dollar"},
        {"usd": float("nan")},
        pytest.param({"usd": 10**5000}, id="huge"),
        {"usd": float("inf")},
        {"tokens": -1},
        {"tokens": 1.5},
        {"usd": 1, "name": ""},
        {"usd": 1, "store": "sqlite:///b.db"},
        {"usd": 1, "on_unknown_price": "maybe"},
        {"usd": 1, "on_store_error": "maybe"},
        {"usd": 1, "input_margin": 0.5},
        {"usd": 1, "input_margin": "1.5"},
    ],
    ids=repr,
)
def test_refuses_what_cannot_be_meant(arguments: dict[str, Any]) -> None:
    """A limit that is no limit is an error when the budget is made, not when money is gone."""
    with pytest.raises(InvalidRequestError):
        Budget(**arguments)


def test_shows_itself() -> None:
    """Its repr and its report say in plain figures where it stands."""
    budget = Budget(usd=0.1, tokens=2000, name="tenant 7")
    held(budget).settle(reply())
    call = held(budget)
    assert repr(budget) == (
        "<Budget 'tenant 7' $0.001017 and 117 tokens of $0.10 and 2,000 tokens spent>"
    )
    assert repr(Budget(tokens=5)) == "<Budget 0 tokens of 5 tokens spent>"
    assert budget.report() == {
        "name": "tenant 7",
        "limit_usd": Decimal("0.1"),
        "spent_usd": CALL,
        "reserved_usd": CALL,
        "remaining_usd": Decimal("0.097966"),
        "limit_tokens": 2000,
        "spent_tokens": 117,
        "reserved_tokens": 117,
        "remaining_tokens": 1766,
        "in_flight": 1,
    }
    call.fail(RateLimitError("slow down"))
