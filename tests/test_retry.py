from __future__ import annotations

import datetime
import logging
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from llmkit import retry
from llmkit.errors import (
    APIConnectionError,
    AuthenticationError,
    InvalidRequestError,
    LLMError,
    LLMTimeoutError,
    RateLimitError,
)
from llmkit.retry import RetryPolicy, call_with_retries, retry_with_exponential_backoff
from llmkit.scope import CallInterrupted, Scope


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Attempts:
    """Fails with each of the given errors in turn, then answers."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.waits: list[float] = []

    def __call__(self, wait: float = 0.0) -> str:
        self.waits.append(wait)
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@pytest.fixture
def clock() -> Clock:
    return Clock()


def policy(clock: Clock, **changes: Any) -> RetryPolicy:
    return RetryPolicy(**{"sleep": clock.sleep, "rng": lambda: 1.0, **changes})


# --- how long ------------------------------------------------------------------------------------


@given(
    tries=st.integers(1, 2000),
    base=st.floats(0, 1e6),
    cap=st.floats(0, 1e6),
    share=st.floats(0, 1),
)
def test_a_delay_stays_within_the_exponential_bound(
    tries: int, base: float, cap: float, share: float
) -> None:
    """No pause is negative or longer than the cap and base * 2^n, however many tries there were."""
    delay = RetryPolicy(base_delay=base, max_delay=cap, rng=lambda: share).delay(tries, None)
    assert 0 <= delay <= min(cap, base * 2.0 ** min(tries - 1, 1000) if base else 0.0)


def test_delays_are_spread_over_the_whole_bound() -> None:
    """Full jitter: clients that failed together come back spread out, not together."""
    assert [RetryPolicy(rng=lambda: 0.5).delay(tries, None) for tries in (1, 2, 3, 9)] == [
        0.25,
        0.5,
        1.0,
        15.0,
    ]
    delays = {RetryPolicy().delay(3, None) for _ in range(50)}
    assert len(delays) > 40


@given(st.floats(0, 1e9) | st.integers(0, 10**6))
def test_what_the_vendor_asks_for_wins(asked: float) -> None:
    """Retry-After is obeyed to the second, also above the cap and below the exponential delay."""
    for tries in (1, 8):
        assert RetryPolicy().delay(tries, RateLimitError("x", retry_after=asked)) == asked


class ForeignError(Exception):
    """Another library's error, with its own idea of `retry_after`."""

    def __init__(self, retry_after: object) -> None:
        self.retry_after = retry_after


@pytest.mark.parametrize(
    "odd", [-1, -0.5, math.nan, "5", datetime.timedelta(seconds=5), object(), None]
)
def test_an_odd_retry_after_is_no_pause(odd: Any) -> None:
    """A negative pause would wait for ever, and another library's date is no number of seconds."""
    for error in (ForeignError(odd), RateLimitError("x", retry_after=odd)):
        assert RetryPolicy(rng=lambda: 1.0).delay(1, error) == 0.5


# --- how often -----------------------------------------------------------------------------------


def test_it_ends_with_the_first_success(clock: Clock) -> None:
    """Each try is told its wait, and no try is made after one that succeeded."""
    attempts = Attempts(RateLimitError("a"), APIConnectionError("b"))
    assert call_with_retries(attempts, policy(clock)) == "answer"
    assert attempts.waits == [0.0, 0.5, 1.0]
    assert clock.slept == [0.5, 1.0]


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_max_retries_counts_the_tries_after_the_first(clock: Clock, retries: int) -> None:
    """The last error comes out unchanged after exactly 1 + max_retries tries."""
    errors = [RateLimitError(str(number)) for number in range(10)]
    attempts = Attempts(*errors)
    with pytest.raises(RateLimitError) as caught:
        call_with_retries(attempts, policy(clock, max_retries=retries))
    assert caught.value is errors[retries]
    assert len(attempts.waits) == 1 + retries
    assert len(clock.slept) == retries


def test_one_error_raised_every_time_is_counted_every_time(clock: Clock) -> None:
    """A stand-in that raises one and the same instance again and again is still bounded."""
    error = RateLimitError("again")
    attempts = Attempts(*[error] * 10)
    with pytest.raises(RateLimitError) as caught:
        call_with_retries(attempts, policy(clock, max_retries=2))
    assert caught.value is error
    assert len(attempts.waits) == 3


@pytest.mark.parametrize(
    ("error", "worth_it"),
    [
        (RateLimitError("x"), True),
        (LLMTimeoutError("x"), True),
        (RateLimitError("x", retryable=False), False),
        (AuthenticationError("x"), False),
        (AuthenticationError("x", retryable=True), True),
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (OSError(), False),
        (ValueError(), False),
    ],
)
def test_what_is_tried_again_by_default(clock: Clock, error: Exception, worth_it: bool) -> None:
    """Retryable LLMErrors and broken connections, and nothing that a second try can't mend."""
    attempts = Attempts(error)
    if worth_it:
        assert call_with_retries(attempts, policy(clock)) == "answer"
    else:
        with pytest.raises(type(error)):
            call_with_retries(attempts, policy(clock))
        assert len(attempts.waits) == 1


def test_the_policy_judges_each_error_once(clock: Clock) -> None:
    """A predicate that counts or logs sees every failure exactly once."""
    seen: list[str] = []

    def judge(error: BaseException) -> bool:
        seen.append(str(error))
        return True

    call_with_retries(Attempts(ValueError("a"), ValueError("b")), policy(clock, retry_on=judge))
    assert seen == ["a", "b"]


@pytest.mark.parametrize("position", [0, 1, 2])
@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_nothing_swallows_ctrl_c(clock: Clock, position: int, stop: type[BaseException]) -> None:
    """An interrupt ends the loop at any try, even for a policy that retries everything."""
    errors: list[BaseException] = [ValueError()] * position
    attempts = Attempts(*errors, stop(), ValueError())
    with pytest.raises(stop):
        call_with_retries(attempts, policy(clock, retry_on=lambda _: True))
    assert len(attempts.waits) == position + 1


def test_a_pause_is_logged_with_its_reason(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever turns on the log sees why a call took long."""
    with caplog.at_level(logging.INFO, "llmkit"):
        call_with_retries(Attempts(RateLimitError("slow down")), policy(clock))
    assert [record.getMessage() for record in caplog.records] == [
        "try 1 failed (slow down); the next one in 0.50 s"
    ]


# --- inside a deadline ---------------------------------------------------------------------------


@given(
    timeout=st.floats(0.01, 100),
    asked=st.lists(st.none() | st.floats(0, 50), min_size=1, max_size=6),
    lasts=st.floats(0, 5),
)
def test_no_pause_goes_past_the_deadline(
    timeout: float, asked: list[float | None], lasts: float
) -> None:
    """A pause that would reach the deadline isn't begun: the error comes at once."""
    clock = Clock()
    errors: list[LLMError] = [RateLimitError("x", retry_after=each) for each in asked]

    def attempt(_: float) -> str:
        clock.now += lasts
        if errors:
            raise errors.pop(0)
        return "answer"

    with Scope(timeout, clock=clock).entered() as scope:
        deadline = 1000.0 + timeout
        ends: list[float] = []

        def sleep(seconds: float) -> None:
            clock.sleep(seconds)
            ends.append(clock.now)

        try:
            call_with_retries(attempt, policy(clock, sleep=sleep, max_retries=9))
        except RateLimitError:
            assert scope.remaining() is not None
        assert all(end <= deadline for end in ends)


def test_too_long_a_retry_after_fails_at_once(clock: Clock) -> None:
    """With 20 s left and 60 s asked for, the caller gets the rate limit now, not a time-out."""
    attempts = Attempts(RateLimitError("x", retry_after=60))
    with Scope(20, clock=clock).entered(), pytest.raises(RateLimitError):
        call_with_retries(attempts, policy(clock))
    assert clock.slept == []


def test_a_cancel_ends_the_pause() -> None:
    """The default pause is a wait on the Scope, so a cancel from elsewhere ends it."""
    with Scope().entered() as scope:
        scope.cancel("stop")
        with pytest.raises(CallInterrupted, match="stop"):
            retry.pause(60)


def test_outside_a_scope_the_pause_is_an_ordinary_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decorator works in any code, with no Scope around it."""
    slept: list[float] = []
    monkeypatch.setattr("llmkit.retry.time.sleep", slept.append)
    retry.pause(1.5)
    assert slept == [1.5]


# --- the decorator -------------------------------------------------------------------------------


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr("llmkit.retry.time.sleep", seconds.append)
    return seconds


def test_the_decorator_keeps_arguments_name_and_docstring(slept: list[float]) -> None:
    """A decorated function is used like the plain one."""
    attempts = Attempts(ConnectionError())

    @retry_with_exponential_backoff(base_delay=0.0)
    def add(a: int, *, b: int) -> int:
        """Adds."""
        attempts()
        return a + b

    assert add(1, b=2) == 3
    assert (add.__name__, add.__doc__) == ("add", "Adds.")
    assert slept == [0.0]


@pytest.mark.parametrize(
    "retry_on",
    [KeyError, (KeyError, OSError), lambda error: isinstance(error, KeyError)],
    ids=["class", "tuple", "function"],
)
def test_the_decorator_takes_classes_or_a_function(slept: list[float], retry_on: Any) -> None:
    """All documented forms of `retry_on` choose the same errors."""

    def run(*errors: Exception) -> str:
        attempts = Attempts(*errors)
        decorate: Callable[..., Any] = retry_with_exponential_backoff(retry_on=retry_on)
        answer: str = decorate(lambda: attempts())()
        return answer

    assert run(KeyError("x"), KeyError("y")) == "answer"
    with pytest.raises(ValueError, match="x"):
        run(ValueError("x"))
    assert len(slept) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"max_retries": None},
        {"base_delay": "1"},
        {"max_retries": print},
        {"base_delay": -0.1},
        {"base_delay": math.nan},
        {"max_delay": None},
        {"retry_on": [ValueError]},
        {"retry_on": (ValueError, 1)},
        {"retry_on": int},
        {"retry_on": "ValueError"},
    ],
)
def test_the_decorator_refuses_what_cant_be_meant(arguments: dict[str, Any]) -> None:
    """A mistake in the decorator's arguments shows when the module loads, not at 3 in the night."""
    with pytest.raises(InvalidRequestError):
        retry_with_exponential_backoff(**arguments)


def test_success_at_the_first_try_loads_no_tenacity() -> None:
    """Tenacity costs 40 ms to import: only a program that has failures pays for it."""
    code = (
        "import sys; from llmkit.retry import *;"
        "print(call_with_retries(lambda wait: 'answer', RetryPolicy()), 'tenacity' in sys.modules)"
    )
    root = str(Path(retry.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["answer", "False"]
