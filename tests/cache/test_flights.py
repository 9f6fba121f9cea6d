from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from llmkit.cache.flights import SHARED_CODES, Flights
from llmkit.errors import (
    Attempt,
    ContentFilterError,
    ErrorCode,
    InvalidRequestError,
    LLMError,
    RateLimitError,
)
from llmkit.scope import CallInterrupted, Scope
from llmkit.threads import Flag
from tests.interruption import Interruption

LONG = 20.0


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as pool:
        yield pool


class Work:
    """Something slow that is done once or more: it begins, then waits to be told how it ends."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.calls = 0
        self.begun = threading.Semaphore(0)
        self.ends: dict[int, Callable[[], Any]] = {}
        self.go = threading.Event()

    def __call__(self) -> Any:
        with self.lock:
            self.calls += 1
            number = self.calls
        self.begun.release()
        assert self.go.wait(LONG)
        return self.ends.get(number, lambda: f"answer {number}")()


def waiting(flights: Flights[Any], key: str, count: int) -> None:
    """Returns when so many wait for the flight of a key."""
    limit = time.monotonic() + LONG
    while time.monotonic() < limit:
        flight = flights._flights.get().get(key)
        if flight is not None and len(flight.waiters) >= count:
            return
        time.sleep(0.001)
    raise AssertionError(f"not {count} are waiting")


def crowd(
    pool: ThreadPoolExecutor, flights: Flights[Any], work: Work, count: int
) -> tuple[Future[Any], list[Future[Any]]]:
    """One that leads, and others that wait for it."""
    leader = pool.submit(flights.join, "k", work)
    assert work.begun.acquire(timeout=LONG)
    others = [pool.submit(flights.join, "k", work) for _ in range(count)]
    waiting(flights, "k", count)
    return leader, others


def fail(error: BaseException) -> Callable[[], Any]:
    def raises() -> Any:
        raise error

    return raises


# --- one flight ----------------------------------------------------------------------------------


def test_many_threads_over_many_questions_do_each_once() -> None:
    """64 threads that ask the same 100 questions at once make 100 calls, and all get answers."""
    flights: Flights[str] = Flights()
    answers: dict[str, str] = {}
    calls: list[str] = []
    barrier = threading.Barrier(64)
    seen: list[list[str]] = []

    def lead(key: str) -> str:
        if key in answers:  # as the cache is looked at inside a flight
            return answers[key]
        calls.append(key)
        time.sleep(0.002)
        answers[key] = f"answer to {key}"
        return answers[key]

    def ask_all() -> None:
        barrier.wait(LONG)
        seen.append([flights.join(f"q{n}", lambda n=n: lead(f"q{n}")) for n in range(100)])  # type: ignore[misc]

    threads = [threading.Thread(target=ask_all) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert sorted(calls) == sorted(f"q{n}" for n in range(100))
    assert seen == [[f"answer to q{n}" for n in range(100)]] * 64
    assert len(flights) == 0


def test_those_who_wait_get_what_the_leader_got(pool: ThreadPoolExecutor) -> None:
    """One call is made, and its answer is everyone's."""
    flights: Flights[Any] = Flights()
    work = Work()
    leader, others = crowd(pool, flights, work, 8)
    work.go.set()
    assert {leader.result(LONG), *(other.result(LONG) for other in others)} == {"answer 1"}
    assert work.calls == 1
    assert len(flights) == 0


def test_an_answer_of_none_is_an_answer(pool: ThreadPoolExecutor) -> None:
    """A result of None is shared like any other, not taken for a failure."""
    flights: Flights[Any] = Flights()
    work = Work()
    work.ends[1] = lambda: None
    leader, others = crowd(pool, flights, work, 2)
    work.go.set()
    assert [each.result(LONG) for each in (leader, *others)] == [None] * 3
    assert work.calls == 1


def test_different_keys_do_not_wait_for_each_other(pool: ThreadPoolExecutor) -> None:
    """A slow question holds nobody up who asks another."""
    flights: Flights[Any] = Flights()
    work = Work()
    leader = pool.submit(flights.join, "slow", work)
    assert work.begun.acquire(timeout=LONG)
    assert flights.join("quick", lambda: 5) == 5
    work.go.set()
    leader.result(LONG)


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", sorted(SHARED_CODES))
def test_an_error_of_the_request_itself_is_shared(pool: ThreadPoolExecutor, code: str) -> None:
    """What is wrong with the request is told to all, by one call, and each has its own error."""
    flights: Flights[Any] = Flights()
    work = Work()
    attempt = Attempt("m", "p", ErrorCode(code), 400, 0.0, 0.1, "r1")
    error = LLMError.of_code(code, "no", provider="p", model="m", status=400, attempts=(attempt,))
    error.__cause__ = ValueError("the vendor's")
    work.ends[1] = fail(error)
    leader, others = crowd(pool, flights, work, 3)
    work.go.set()
    assert leader.exception(LONG) is error
    shared = [other.exception(LONG) for other in others]
    assert len({id(each) for each in (error, *shared)}) == 4
    for each in shared:
        assert type(each) is type(error)
        assert isinstance(each, LLMError)
        assert (str(each), each.code, each.status) == (str(error), error.code, 400)
        assert each.__cause__ is error.__cause__
        assert each.attempts == ()  # they were not this call's
    assert error.attempts == (attempt,)
    assert work.calls == 1


def test_the_shared_codes_are_these() -> None:
    """What concerns the leader's key, money, time or luck is never told to others as theirs."""
    kinds = (InvalidRequestError, ContentFilterError)
    assert {kind.default_code for kind in kinds} < SHARED_CODES
    assert ErrorCode.LLM_CONTEXT_LENGTH in SHARED_CODES
    assert len(SHARED_CODES) == 3


@pytest.mark.parametrize(
    "error",
    [
        RateLimitError("slow down"),
        LLMError("no key", code="AUTHENTICATION_ERROR"),
        CallInterrupted(ErrorCode.LLM_CANCELLED, "cancelled"),
        KeyboardInterrupt(),
        SystemExit(1),
        ValueError("a bug"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_after_any_other_failure_one_of_the_others_leads(
    pool: ThreadPoolExecutor, error: BaseException
) -> None:
    """The leader alone fails; of those who waited one makes the second call, for all of them."""
    flights: Flights[Any] = Flights()
    work = Work()
    work.ends[1] = fail(error)
    leader, others = crowd(pool, flights, work, 8)
    work.go.set()
    assert leader.exception(LONG) is error
    assert {other.result(LONG) for other in others} == {"answer 2"}
    assert work.calls == 2
    assert len(flights) == 0


def test_after_two_failed_leaders_each_asks_by_itself(pool: ThreadPoolExecutor) -> None:
    """When a provider is down, those who wait don't fail one after the other."""
    flights: Flights[Any] = Flights()
    work = Work()
    work.ends = {1: fail(RateLimitError("1")), 2: fail(RateLimitError("2"))}
    together = threading.Barrier(7)
    for number in range(3, 10):
        work.ends[number] = lambda: together.wait(LONG)
    leader, others = crowd(pool, flights, work, 8)
    work.go.set()
    assert isinstance(leader.exception(LONG), RateLimitError)
    failed = [other.exception(LONG) for other in others]
    assert failed.count(None) == 7  # who all were in their calls at the same time
    assert work.calls == 9


# --- those who wait ------------------------------------------------------------------------------


def test_each_waiter_keeps_its_own_deadline(pool: ThreadPoolExecutor) -> None:
    """Who has less time than the leader leaves when it is over; the flight goes on without it."""
    flights: Flights[Any] = Flights()
    work = Work()
    leader, others = crowd(pool, flights, work, 1)
    with Scope(0.05).entered(), pytest.raises(CallInterrupted, match="same question") as caught:
        flights.join("k", work)
    assert caught.value.code is ErrorCode.LLM_TIMEOUT
    assert len(flights._flights.get()["k"].waiters) == 1
    work.go.set()
    assert leader.result(LONG) == others[0].result(LONG) == "answer 1"
    assert work.calls == 1


def test_a_waiter_can_be_cancelled(pool: ThreadPoolExecutor) -> None:
    """A cancel wakes who waits for another's answer, at once."""
    flights: Flights[Any] = Flights()
    work = Work()
    leader, _ = crowd(pool, flights, work, 0)
    scope = Scope()

    def wait() -> Any:
        with scope.entered():
            return flights.join("k", work)

    waiter = pool.submit(wait)
    waiting(flights, "k", 1)
    scope.cancel("enough")
    error = waiter.exception(LONG)
    assert isinstance(error, CallInterrupted)
    assert error.message == "enough"
    work.go.set()
    leader.result(LONG)


def test_a_leader_whose_scope_is_cancelled_hands_over(pool: ThreadPoolExecutor) -> None:
    """A cancel ends the leader's call alone: the others get their answer by a second one."""
    flights: Flights[str] = Flights()
    scope = Scope()
    begun = threading.Event()

    def lead() -> str:
        with scope.entered():
            begun.set()
            scope.wait(Flag(), "asking")
            raise AssertionError("the wait ended")

    leader = pool.submit(flights.join, "k", lead)
    assert begun.wait(LONG)
    others = [pool.submit(flights.join, "k", lambda: "second") for _ in range(4)]
    waiting(flights, "k", 4)
    scope.cancel()
    assert isinstance(leader.exception(LONG), CallInterrupted)
    assert [other.result(LONG) for other in others] == ["second"] * 4


def test_outside_of_any_scope_a_cancel_of_everything_ends_the_wait(
    pool: ThreadPoolExecutor,
) -> None:
    """`shutdown()` reaches those, too, who wait without a deadline; they get an LLMError."""
    from llmkit.scope import cancel_all

    flights: Flights[Any] = Flights()
    work = Work()
    leader, others = crowd(pool, flights, work, 1)
    cancel_all("shutting down")
    error = others[0].exception(LONG)
    assert isinstance(error, LLMError)
    assert error.code is ErrorCode.LLM_CANCELLED
    work.go.set()
    leader.result(LONG)


# --- inside of a flight --------------------------------------------------------------------------


def test_a_call_inside_its_own_flight_is_made_by_itself() -> None:
    """Who asks, while asking, the same question again does not wait for itself."""
    flights: Flights[int] = Flights()
    with Scope(LONG).entered():
        assert flights.join("k", lambda: 1 + flights.join("k", lambda: 1)) == 2


def test_a_thread_started_inside_a_flight_does_not_wait_for_it() -> None:
    """A call handed to another thread, in a copy of the context, is still inside of the flight."""
    from llmkit.threads import run_detached

    flights: Flights[int] = Flights()

    def lead() -> int:
        return run_detached(lambda: flights.join("k", lambda: 5), "inner").result(LONG)

    with Scope(LONG).entered():
        assert flights.join("k", lead) == 5


def test_flights_that_need_each_other_do_not_wait_in_a_circle(pool: ThreadPoolExecutor) -> None:
    """A asks b inside of a, B asks a inside of b, also of another cache: both are answered."""
    one: Flights[str] = Flights()
    two: Flights[str] = Flights()
    both = threading.Barrier(2)

    def lead(mine: str, other: Flights[str], key: str) -> str:
        both.wait(LONG)
        return mine + other.join(key, lambda: f"own {key}")

    def ask(first: Flights[str], key: str, second: Flights[str], inner: str) -> str:
        with Scope(LONG).entered():
            return first.join(key, lambda: lead(key, second, inner))

    asked = [pool.submit(ask, one, "a", two, "b"), pool.submit(ask, two, "b", one, "a")]
    answers = sorted(each.result(LONG) for each in asked)
    assert answers in (["aown b", "baown b"], ["abown a", "bown a"])
    assert len(one) == len(two) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_wait_for_its_parents_flights(pool: ThreadPoolExecutor) -> None:
    """The threads that lead are not in the child, which asks by itself; its parent goes on."""
    flights: Flights[Any] = Flights()
    work = Work()
    leader, _ = crowd(pool, flights, work, 1)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: threads and fork
        child = os.fork()
    if child == 0:  # pragma: no cover - another process
        with Scope(LONG).entered():
            os._exit(0 if flights.join("k", lambda: "own") == "own" and not len(flights) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    work.go.set()
    assert leader.result(LONG) == "answer 1"


def test_ctrl_c_leaves_no_flight_behind() -> None:
    """Wherever it strikes who leads, nobody who asks the same later waits for it."""
    for point in itertools.count(1):
        flights: Flights[str] = Flights()
        interruption = Interruption(point, ("/llmkit/cache/flights.py",))
        with contextlib.suppress(KeyboardInterrupt), interruption.armed():
            flights.join("key", lambda: "answer")
        assert len(flights) == 0, point
        if not interruption.has_come:
            assert point > 10
            return
