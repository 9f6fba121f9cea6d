from __future__ import annotations

import datetime
import functools
import logging
import math
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
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
from llmkit.testing import no_sleeping


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


@pytest.mark.parametrize(
    ("asked", "leads_on", "slept"), [(5.0, True, [5.0]), (5.1, True, []), (60.0, False, [60.0])]
)
def test_a_long_pause_is_left_out_where_something_else_is_tried(
    clock: Clock, asked: float, leads_on: bool, slept: list[float]
) -> None:
    """Only an error that leads elsewhere ends the tries, and only if the pause would be long."""
    error = RateLimitError("slow down", retry_after=asked)
    told: list[BaseException] = []

    def elsewhere(failure: BaseException) -> bool:
        told.append(failure)
        return leads_on

    tries = Attempts(error)
    if slept:
        assert call_with_retries(tries, policy(clock, elsewhere=elsewhere)) == "answer"
    else:
        with pytest.raises(
            RateLimitError, match=r"the next model is asked rather than waiting 5\.1"
        ):
            call_with_retries(tries, policy(clock, elsewhere=elsewhere))
    assert clock.slept == slept
    assert told == ([] if asked == 5.0 else [error])


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
    "odd", [-1, -0.5, math.nan, math.inf, "5", datetime.timedelta(seconds=5), object(), None, True]
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


def test_too_long_a_retry_after_fails_at_once(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """With 20 s left and 60 s asked for, the caller gets the rate limit now, not a time-out, and
    the error and the log say why nobody waited.
    """
    error = RateLimitError("slow down", retry_after=60)
    attempts = Attempts(error)
    with (
        caplog.at_level(logging.INFO, "llmkit"),
        Scope(20, clock=clock).entered(),
        pytest.raises(RateLimitError) as caught,
    ):
        call_with_retries(attempts, policy(clock))
    assert clock.slept == []
    assert caught.value is error
    why = "not tried again, because the vendor asks to wait 60.0 s, and 20.0 s are left"
    assert error.message == f"slow down - {why}"
    assert caplog.messages == [f"{why}: slow down"]


def test_the_reason_is_said_once(clock: Clock) -> None:
    """A stand-in that raises one and the same error in every call doesn't make it grow."""
    error = APIConnectionError("gone")
    for _ in range(3):
        with Scope(0.4, clock=clock).entered(), pytest.raises(APIConnectionError):
            call_with_retries(Attempts(error), policy(clock))
    assert error.message == (
        "gone - not tried again, because the next try would come in 0.5 s, and 0.4 s are left"
    )


def test_a_time_that_is_over_needs_no_explanation(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A time-out that took the whole call's time says so itself."""
    error = LLMTimeoutError("the time-out of 2 s ended")

    def attempt(_: float) -> str:
        clock.now += 2
        raise error

    with (
        caplog.at_level(logging.INFO, "llmkit"),
        Scope(2, clock=clock).entered(),
        pytest.raises(LLMTimeoutError),
    ):
        call_with_retries(attempt, policy(clock))
    assert (error.message, caplog.messages) == ("the time-out of 2 s ended", [])


def test_a_cancel_ends_the_pause() -> None:
    """The default pause is a wait on the Scope, so a cancel from elsewhere ends it."""
    with Scope().entered() as scope:
        scope.cancel("stop")
        with pytest.raises(CallInterrupted, match="stop"):
            retry.pause(60)


def test_outside_a_scope_the_pause_is_an_ordinary_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The decorator works in any code, with no Scope around it."""
    slept: list[float] = []
    monkeypatch.setattr("llmkit.retry.pauses.time.sleep", slept.append)
    retry.pause(1.5)
    assert slept == [1.5]


def test_a_pause_longer_than_the_systems_clock_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that asks for the end of time doesn't end in an OverflowError."""
    slept: list[float] = []
    monkeypatch.setattr("llmkit.retry.pauses.time.sleep", slept.append)
    retry.pause(1e300)
    assert 86400 < slept[0] < threading.TIMEOUT_MAX
    with Scope().entered() as scope:
        scope.cancel("stop")
        with pytest.raises(CallInterrupted):
            retry.pause(1e300)


# --- the switch that removes sleeping ------------------------------------------------------------


@pytest.fixture
def awake() -> Iterator[list[float]]:
    """As a user's fixture would have it."""
    with no_sleeping() as pauses:
        yield pauses


def test_without_sleeping_the_waits_are_told_but_not_waited(awake: list[float]) -> None:
    """Each try is told the pause that would have been made before it, at once."""
    attempts = Attempts(RateLimitError("a", retry_after=3600), RateLimitError("b", retry_after=20))
    assert call_with_retries(attempts, RetryPolicy()) == "answer"
    assert attempts.waits == [0.0, 3600.0, 20.0]
    assert awake == [3600.0, 20.0]


def test_without_sleeping_the_deadline_holds_all_the_same(awake: list[float]) -> None:
    """A test sees the failure that production would see, and a cancel, too."""
    with Scope(20).entered() as scope:
        with pytest.raises(RateLimitError):
            call_with_retries(Attempts(RateLimitError("x", retry_after=60)), RetryPolicy())
        scope.cancel("stop")
        with pytest.raises(CallInterrupted, match="stop"):
            retry.pause(1.0)
    assert awake == []


def test_without_sleeping_in_any_thread_until_the_last_block_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The switch is the process's: nested and overlapping blocks count, whatever ends first."""
    slept: list[float] = []
    monkeypatch.setattr("llmkit.retry.pauses.time.sleep", slept.append)
    with ExitStack() as first, ExitStack() as second:
        one = first.enter_context(no_sleeping())
        thread = threading.Thread(target=retry.pause, args=(1.0,))
        thread.start()
        thread.join(10)
        two = second.enter_context(no_sleeping())
        retry.pause(2.0)
        first.close()
        retry.pause(3.0)
        assert (one, two, slept) == ([1.0, 2.0], [2.0, 3.0], [])
    retry.pause(4.0)
    assert slept == [4.0]


def test_many_threads_switch_sleeping_off_and_on() -> None:
    """Blocks that begin and end in many threads at once leave the switch as it was."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(300):
                with no_sleeping() as pauses:
                    retry.pause(3600.0)
                    assert 3600.0 in pauses
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []
    assert not any(thread.is_alive() for thread in threads)
    assert retry.pauses._notes == {}


# --- the decorator -------------------------------------------------------------------------------


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds: list[float] = []
    monkeypatch.setattr("llmkit.retry.pauses.time.sleep", seconds.append)
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


def test_the_decorator_without_brackets_says_so() -> None:
    """The mistake that nearly everybody makes once is named."""
    decorator: Any = retry_with_exponential_backoff
    with pytest.raises(InvalidRequestError, match="is to be called"):
        decorator(lambda: 1)


def test_the_decorator_works_on_methods() -> None:
    """Methods of each kind are tried again, with their own `self` or class."""

    class Service:
        attempts = Attempts(ConnectionError(), ConnectionError(), ConnectionError())

        @retry_with_exponential_backoff(base_delay=0.0)
        def plain(self) -> str:
            return f"{type(self).__name__} {self.attempts()}"

        @classmethod
        @retry_with_exponential_backoff(base_delay=0.0)
        def of_the_class(cls) -> str:
            return f"{cls.__name__} {cls.attempts()}"

        @staticmethod
        @retry_with_exponential_backoff(base_delay=0.0)
        def static() -> str:
            return Service.attempts()

    assert Service().plain() == Service.of_the_class() == "Service answer"
    assert Service.static() == "answer"


def generator() -> Iterator[int]:
    yield 1


async def coroutine() -> None:
    pass


async def asynchronous_generator() -> AsyncIterator[int]:
    yield 1


class CallableGenerator:
    def __call__(self) -> Iterator[int]:
        yield 1


@pytest.mark.parametrize(
    ("function", "word"),
    [
        (generator, "generator is a generator"),
        (functools.partial(generator), "is a generator"),
        (CallableGenerator(), "CallableGenerator is a generator"),
        (coroutine, "coroutine is asynchronous"),
        (asynchronous_generator, "asynchronous"),
        (classmethod(lambda cls: None), "below @classmethod"),
        (5, "no function"),
    ],
    ids=["generator", "partial", "instance", "coroutine", "async generator", "classmethod", "5"],
)
def test_the_decorator_refuses_what_it_cant_try_again(function: Any, word: str) -> None:
    """What fails after the call has returned is out of its reach, and it says so at once."""
    with pytest.raises(InvalidRequestError, match=word):
        retry_with_exponential_backoff()(function)


def test_the_decorator_takes_whatever_can_be_called(slept: list[float]) -> None:
    """Classes, partial functions and instances are tried again like functions."""
    assert retry_with_exponential_backoff()(CallableGenerator)()
    assert retry_with_exponential_backoff()(functools.partial(max, 1))(2) == 2
    assert retry_with_exponential_backoff()(Attempts(ConnectionError()))() == "answer"
    assert len(slept) == 1


def test_success_at_the_first_try_loads_no_tenacity() -> None:
    """Tenacity costs 40 ms to import: only a program that has failures pays for it."""
    code = (
        "import sys; from llmkit.retry import *;"
        "print(call_with_retries(lambda wait: 'answer', RetryPolicy()), 'tenacity' in sys.modules)"
    )
    root = str(Path(retry.__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["answer", "False"]
