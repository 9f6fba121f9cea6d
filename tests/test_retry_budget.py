from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from llmkit.errors import InvalidRequestError, ProviderError, RateLimitError
from llmkit.retry import (
    RetryBudget,
    RetryPolicy,
    call_with_retries,
    reset_retry_budgets,
    retry_budget,
)
from llmkit.scope import Scope
from tests.virtual_time import VirtualTime

OUTAGE = 60.0


class Clock:
    """Time that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


# --- the bucket ----------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=300))
def test_retries_never_exceed_what_was_put_in(steps: list[tuple[float, bool]]) -> None:
    """From any moment on: what was there, a fifth of the calls, and one retry for each second."""
    clock = Clock()
    budget = RetryBudget(clock=clock)
    began, calls, retries = clock.now, 0, 0
    for passes, is_call in steps:
        clock.now += passes
        if is_call:
            budget.deposit()
            calls += 1
        elif budget.withdraw():
            retries += 1
        assert 0 <= budget.available <= 50.0
        assert retries <= 10 + 0.2 * calls + (clock.now - began) + 1e-6


@given(st.floats(0.01, 0.19))
def test_time_adds_nothing_to_the_share_of_a_busy_program(between: float) -> None:
    """More than five calls a second: a fifth of them is all, not a fifth and one each second."""
    clock = Clock()
    budget = RetryBudget(clock=clock)
    retries = 0
    for _ in range(1000):
        clock.now += between
        budget.deposit()
        while budget.withdraw():
            retries += 1
    assert 0.2 * 1000 <= retries <= 10 + 0.2 * 1000 + 1


def test_time_fills_it_to_the_reserve_and_calls_further(clock: Clock) -> None:
    """A program that slept for an hour has ten retries; one that makes many calls has fifty."""
    budget = RetryBudget(clock=clock)
    assert all(budget.withdraw() for _ in range(10))
    assert not budget.withdraw()
    clock.now += 0.9
    assert not budget.withdraw()
    clock.now += 0.2
    assert budget.withdraw()
    clock.now += 3600
    assert budget.available == 10.0
    assert sum(budget.withdraw() for _ in range(20)) == 10
    for _ in range(1000):
        budget.deposit()
    assert budget.available == pytest.approx(50.0)


def test_a_token_goes_to_one_thread_only() -> None:
    """Threads that ask together never get more retries than there are tokens."""
    budget = RetryBudget(reserve=1000.0, share=0.0, per_second=0.0)
    granted: list[int] = []
    start = threading.Barrier(8)

    def withdraw() -> None:
        start.wait()
        granted.append(sum(budget.withdraw() for _ in range(1000)))

    threads = [threading.Thread(target=withdraw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sum(granted) == 1000


@pytest.mark.parametrize("name", ["share", "reserve", "per_second", "most"])
@pytest.mark.parametrize("number", [-1, float("nan"), "1", True])
def test_a_budget_of_nonsense_is_refused(name: str, number: Any) -> None:
    """A mistake shows where it was made."""
    with pytest.raises(InvalidRequestError, match=name):
        RetryBudget(**{name: number})


def test_a_provider_has_one_budget() -> None:
    """All calls of the process to one provider share it, and no other provider pays for them."""
    assert retry_budget("made-up-1") is retry_budget("made-up-1")
    assert retry_budget("made-up-1") is not retry_budget("made-up-2")
    assert retry_budget("made-up-1").withdraw()
    reset_retry_budgets()
    assert retry_budget("made-up-1").available == 10.0


# --- in the loop of tries ------------------------------------------------------------------------


def failing(errors: list[Exception]) -> Callable[[float], str]:
    def attempt(wait: float) -> str:
        if errors:
            raise errors.pop(0)
        return "answer"

    return attempt


def test_a_single_call_has_all_its_retries(clock: Clock) -> None:
    """A script's first call may fail three times."""
    policy = RetryPolicy(sleep=lambda _: None, budget=RetryBudget(clock=clock))
    errors: list[Exception] = [ProviderError("down")] * 3
    assert call_with_retries(failing(errors), policy) == "answer"


def test_an_empty_budget_ends_the_tries(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """The last error comes at once, and it and the log say why there was no other try."""
    slept: list[float] = []
    budget = RetryBudget(reserve=2.0, per_second=0.0, clock=clock)
    policy = RetryPolicy(sleep=slept.append, budget=budget)
    errors: list[Exception] = [ProviderError(str(number)) for number in range(5)]
    with caplog.at_level("INFO", "llmkit"), pytest.raises(ProviderError) as caught:
        call_with_retries(failing(errors), policy)
    assert caught.value.message.startswith("2 - not tried again, because ")
    assert "retry budget is used up" in caught.value.message
    assert "retry budget is used up" in caplog.messages[-1]
    assert len(slept) == 2


def test_only_a_retry_that_is_made_takes_a_token(clock: Clock) -> None:
    """What can't be tried again, or only after the deadline, leaves the budget to others."""
    budget = RetryBudget(share=0.0, clock=clock)
    hopeless = ProviderError("x", retryable=False)
    late = RateLimitError("x", retry_after=60)
    for error, retries in ((hopeless, 3), (late, 3), (ProviderError("x"), 0)):
        policy = RetryPolicy(max_retries=retries, sleep=lambda _: None, budget=budget)
        with Scope(20, clock=clock).entered(), pytest.raises(type(error)):
            call_with_retries(failing([error]), policy)
    assert budget.available == 10.0


@pytest.mark.parametrize("lasts", [0.02, 0.3, 2.0])
def test_an_outage_meets_no_storm(lasts: float) -> None:
    """A minute in which every try fails, under 32 threads: at most 1.3 tries for each call, also
    when the provider was well and much used before.
    """
    time = VirtualTime()
    budget = RetryBudget(clock=time)
    for _ in range(1000):
        budget.deposit()
    rng = random.Random(4)
    policy = RetryPolicy(sleep=time.sleep, rng=rng.random, budget=budget)
    counts = {"calls": 0, "tries": 0}

    def attempt(_: float) -> str:
        counts["tries"] += 1
        time.sleep(lasts)
        raise ProviderError("down")

    def work() -> None:
        while time.now < 1000.0 + OUTAGE:
            counts["calls"] += 1
            with pytest.raises(ProviderError):
                call_with_retries(attempt, policy)
            if lasts < 0.1:
                time.sleep(0.3)  # what the program does between two calls

    time.run(*[work] * 32)
    assert counts["calls"] >= 500
    assert 1.0 <= counts["tries"] / counts["calls"] <= 1.3
