from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from llmkit.errors import ErrorCode, RateLimitError
from llmkit.rate_limits import Limiter, LimiterChain, Place, RateLimit
from llmkit.scope import CallInterrupted, Scope
from tests.rate_limits.crank import Crank, eventually

JOIN = 20.0


@pytest.fixture
def crank() -> Crank:
    return Crank()


def made(
    crank: Crank, requests: float | None = None, tokens: float | None = None, **changes: Any
) -> Limiter:
    limit = RateLimit(requests, tokens)
    return Limiter(limit, "openai:gpt-6-luna", clock=crank, wait=crank.wait, **changes)


class Call:
    """One call on a thread of its own, which enters a place and leaves it when told to."""

    def __init__(
        self,
        limiter: Limiter | LimiterChain,
        tokens: int = 0,
        *,
        timeout: float | None = None,
        log: list[Any] | None = None,
        name: object = None,
        used: int | None = None,
    ) -> None:
        self.place = limiter.place(tokens)
        self.scope = Scope(timeout)
        self.error: BaseException | None = None
        self._used = used
        self._log = log
        self._name = name
        self._line = limiter.waiting
        self._limiter = limiter
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            with self.scope.entered(), self.place:
                if self._log is not None:
                    self._log.append(self._name)
                if self._used is not None:
                    self.place.used(self._used)
        except BaseException as error:
            self.error = error

    def in_line(self) -> Call:
        """Waits until it stands in line."""
        eventually(lambda: self._limiter.waiting > self._line)
        return self

    def join(self) -> None:
        self.thread.join(JOIN)
        assert not self.thread.is_alive()


def drive(crank: Crank, limiter: Limiter) -> None:
    """Turns the clock from one waiter's time to the next, until the line is empty."""
    for _ in range(1000):
        eventually(
            lambda: (
                crank.idle == limiter.waiting
                and (not limiter.waiting or crank.next_due() is not None)
            )
        )
        due = crank.next_due()
        if due is None:
            return
        crank.turn_to(due)
    raise AssertionError("the line does not get shorter")


def is_as_new(limiter: Limiter, crank: Crank) -> bool:
    """Whether nothing is left behind: no line, no waiter, no tokens of calls under way."""
    return limiter.waiting == 0 and crank.waiting == 0 and limiter._unsettled == 0


# --- letting through -----------------------------------------------------------------------------


def test_what_fits_is_let_through_at_once(crank: Crank) -> None:
    """A sixth of a minute's worth needs no waiting, on any thread, in or outside of a Scope."""
    limiter = made(crank, requests=60, tokens=6000)
    for _ in range(5):
        with limiter.place(100) as place:
            place.used(100)
    with Scope(5).entered():
        for _ in range(5):
            with limiter.place(100):
                pass
    assert limiter._requests is not None
    assert limiter._requests.delay(1) == 1.0
    assert is_as_new(limiter, crank)


def test_the_next_one_waits_for_its_time(crank: Crank) -> None:
    """With the bucket empty a call waits exactly as long as the limit says, and not a thread more
    is used.
    """
    limiter = made(crank, requests=60)
    for _ in range(10):
        with limiter.place():
            pass
    call = Call(limiter).in_line()
    eventually(lambda: crank.next_due() is not None)
    assert crank.next_due() == pytest.approx(1001.0)
    crank.turn(0.999)
    time.sleep(0.02)
    assert not call.place.granted
    crank.turn(0.002)
    call.join()
    assert call.place.granted
    assert is_as_new(limiter, crank)


def test_by_the_real_clock_outside_of_a_scope() -> None:
    """The decorated script without any deadline waits, too, and goes on by itself."""
    limiter = Limiter(RateLimit(requests_per_minute=600), "x")
    for _ in range(100):
        with limiter.place():
            pass
    began = time.monotonic()
    for _ in range(3):
        with limiter.place():
            pass
    assert 0.2 <= time.monotonic() - began < 5


def test_first_come_first_served(crank: Crank) -> None:
    """A large request is not overtaken by small ones that would fit, nor by later calls."""
    limiter = made(crank, tokens=6000)
    with limiter.place(900) as place:
        place.used(900)
    log: list[str] = []
    calls = [
        Call(limiter, tokens, log=log, name=name).in_line()
        for name, tokens in (("large", 1000), ("small", 50), ("tiny", 1))
    ]
    drive(crank, limiter)
    for call in calls:
        call.join()
    assert log == ["large", "small", "tiny"]
    assert is_as_new(limiter, crank)


def test_64_threads_get_what_is_allowed_in_their_order(crank: Crank) -> None:
    """Each thread comes through, in the order of arrival, and in no minute more than allowed."""
    limiter = made(crank, requests=120, tokens=60_000)
    rng = random.Random(7)
    log: list[tuple[int, int]] = []
    amounts = [rng.randint(1, 3000) for _ in range(64)]
    times: dict[int, float] = {}

    class Log(list[Any]):
        def append(self, item: Any) -> None:
            times[item[0]] = crank.now
            log.append(item)

    calls = []
    for number, tokens in enumerate(amounts):
        before = limiter.waiting
        call = Call(limiter, tokens, log=Log(), name=(number, tokens))
        eventually(lambda: limiter.waiting > before or call.place.granted)  # noqa: B023 - at once
        calls.append(call)
    drive(crank, limiter)
    for call in calls:
        call.join()
        assert call.error is None
    # Those that needn't wait ran side by side, and wrote their lines as it came.
    assert [number for number, _ in log if times[number] > 1000.0] == sorted(
        number for number in times if times[number] > 1000.0
    )
    for number, begin in times.items():
        within = [n for n, at in times.items() if begin <= at < begin + 59.99]
        assert len(within) <= 120, number
        assert sum(amounts[n] for n in within) <= 60_000
    assert sum(amounts) * 60 / 60_000 - 10 <= crank.now - 1000.0 <= sum(amounts) * 60 / 60_000
    assert is_as_new(limiter, crank)


def test_many_threads_by_the_real_clock() -> None:
    """Without any help from a test: all come through, no wake-up is missed, nobody is too early."""
    limiter = Limiter(RateLimit(requests_per_minute=3000, tokens_per_minute=300_000), "x")
    came: list[float] = []
    rng = random.Random(3)

    def work() -> None:
        for _ in range(9):
            with limiter.place(rng.randint(1, 200)) as place:
                came.append(time.monotonic())
                place.used(100)

    began = time.monotonic()
    threads = [threading.Thread(target=work, daemon=True) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN)
    assert len(came) == 64 * 9
    # Five hundred at once, the rest at fifty a second.
    assert max(came) - began >= 1.5
    assert (limiter.waiting, limiter._unsettled) == (0, 0)


# --- tokens that come back -----------------------------------------------------------------------


def tokens_free(limiter: Limiter) -> float:
    limiter._move()
    assert limiter._tokens is not None
    return limiter._tokens._level


def test_unused_tokens_are_given_back(crank: Crank) -> None:
    """What a call reserved for a long answer that came out short is there for the next one."""
    limiter = made(crank, tokens=6000)
    with limiter.place(900) as place:
        assert tokens_free(limiter) == 100
        place.used(30)
    assert tokens_free(limiter) == 970


def test_more_than_expected_is_taken(crank: Crank) -> None:
    """An answer that was longer than reckoned with is not for free."""
    limiter = made(crank, tokens=6000)
    with limiter.place(100) as place:
        place.used(1500)
    assert tokens_free(limiter) == -500


def test_a_call_of_unknown_use_keeps_what_it_asked_for(crank: Crank) -> None:
    """Where nobody knows what was used, the reservation stands."""
    limiter = made(crank, tokens=6000)
    with limiter.place(300):
        pass
    with limiter.place(300) as place:
        place.used(None)
    assert tokens_free(limiter) == 400
    assert is_as_new(limiter, crank)


def test_a_failed_call_gives_its_tokens_back_but_not_its_request(crank: Crank) -> None:
    """A 429 or a cancel used no tokens, but it was a request."""
    limiter = made(crank, requests=60, tokens=6000)
    cancel = CallInterrupted(ErrorCode.LLM_CANCELLED, "x")
    for error in (RateLimitError("x"), KeyboardInterrupt(), cancel):
        with pytest.raises(type(error)), limiter.place(300):
            raise error
    assert tokens_free(limiter) == 1000
    assert limiter._requests is not None
    assert limiter._requests._level == 7
    assert is_as_new(limiter, crank)


def test_a_failed_call_that_said_what_it_used_has_used_it(crank: Crank) -> None:
    """A time-out after the whole prompt was read is paid for, if the call says so."""
    limiter = made(crank, tokens=6000)
    place = limiter.place(300)

    def call() -> None:
        with place:
            place.used(200)
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        call()
    assert tokens_free(limiter) == 800


def test_a_stream_says_later_what_it_used(crank: Crank) -> None:
    """The block ends with the first chunk; the tokens are known at the end."""
    limiter = made(crank, tokens=6000)
    with limiter.place(900) as place:
        pass
    assert tokens_free(limiter) == 100
    place.used(500)
    place.used(400)
    assert tokens_free(limiter) == 600
    assert is_as_new(limiter, crank)


def test_tokens_that_come_back_call_the_next_one(crank: Crank) -> None:
    """Whoever waits for room gets it as soon as there is some, not when time would bring it."""
    limiter = made(crank, tokens=6000)
    with limiter.place(900) as holder:
        call = Call(limiter, 500).in_line()
        eventually(lambda: crank.waiting == 1)
        holder.used(100)
        call.join()
    assert call.place.granted
    assert crank.now == 1000.0


def test_used_before_entering_says_nothing(crank: Crank) -> None:
    """A place that was never entered has nothing to give back."""
    limiter = made(crank, tokens=6000)
    limiter.place(900).used(5)
    assert tokens_free(limiter) == 1000


# --- waits that end otherwise --------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_cancelled_wait_leaves_nothing_behind(crank: Crank, position: int) -> None:
    """Wherever it stands in line, a cancelled call is gone at once, has used nothing, and those
    behind it move up.
    """
    limiter = made(crank, requests=60, tokens=6000)
    with limiter.place(1000) as place:
        place.used(1000)
    log: list[int] = []
    calls = [Call(limiter, 500, log=log, name=number).in_line() for number in range(3)]
    eventually(lambda: crank.waiting == 3)
    calls[position].scope.cancel("stop")
    calls[position].join()
    error = calls[position].error
    assert isinstance(error, CallInterrupted)
    assert error.code is ErrorCode.LLM_CANCELLED
    assert not calls[position].place.granted
    drive(crank, limiter)
    for call in calls:
        call.join()
    assert log == [number for number in range(3) if number != position]
    assert limiter._requests is not None
    assert limiter._tokens is not None
    assert (limiter._requests._used, limiter._tokens._used) == (3, 2000)
    assert is_as_new(limiter, crank)


def test_ctrl_c_ends_a_wait(crank: Crank) -> None:
    """The main thread, outside of any Scope, is out of the line at once when the user gives up."""
    limiter = made(crank, requests=60)
    for _ in range(10):
        with limiter.place():
            pass

    def interrupt() -> None:
        eventually(lambda: crank.waiting == 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    place = limiter.place()
    with pytest.raises(KeyboardInterrupt), place:
        pytest.fail("it was let through")
    thread.join(JOIN)
    assert not place.granted
    assert is_as_new(limiter, crank)


def test_the_deadline_ends_a_wait(crank: Crank) -> None:
    """A wait that might have ended in time, but did not, is a time-out that says for what."""
    limiter = made(crank, tokens=6000)
    with limiter.place(1000):  # may come back, so that nothing is certain
        call = Call(limiter, 1000, timeout=0.1).in_line()
        call.join()
    assert isinstance(call.error, CallInterrupted)
    assert call.error.code is ErrorCode.LLM_TIMEOUT
    assert "waiting for llmkit's own limit of 6,000 tokens/min for openai:gpt" in call.error.message
    assert is_as_new(limiter, crank)


def refused(limiter: Limiter, tokens: int, timeout: float) -> RateLimitError:
    with (
        Scope(timeout).entered(),
        pytest.raises(RateLimitError) as caught,
        limiter.place(tokens) as place,
    ):
        pytest.fail(f"{place} was let through")
    return caught.value


def test_a_hopeless_wait_is_not_begun(crank: Crank) -> None:
    """A call that can't be let through before its deadline fails at once, so that it can fall back;
    it says how long it would take, that it is our own limit, and that nothing was sent.
    """
    limiter = made(crank, requests=6, tokens=60_000)
    with limiter.place(100):
        pass
    error = refused(limiter, 100, timeout=5)
    assert error.retry_after == pytest.approx(10.0)
    assert error.message.startswith(
        "llmkit's own limit of 6 requests/min and 60,000 tokens/min for openai:gpt-6-luna has no "
        "room for another 10.0 s, and the call has 5.0 s left; nothing was sent."
    )
    assert "not tried again" in error.message  # so that nobody adds what a vendor asks for
    assert is_as_new(limiter, crank)


def test_tokens_that_may_come_back_are_hoped_for(crank: Crank) -> None:
    """Only what is certain is refused: calls under way may give back all of their tokens."""
    limiter = made(crank, tokens=6000)
    with limiter.place(1000):
        waiting = Call(limiter, 500, timeout=1).in_line()
        waiting.scope.cancel()
        waiting.join()
    assert refused(limiter, 500, timeout=1).retry_after == pytest.approx(5.0)


def test_those_ahead_make_a_wait_hopeless(crank: Crank) -> None:
    """In a long line each one ahead will make a request: a late-comer with little time is told."""
    limiter = made(crank, requests=60)
    for _ in range(10):
        with limiter.place():
            pass
    calls = [Call(limiter).in_line() for _ in range(5)]
    assert refused(limiter, 0, timeout=5.5).retry_after == pytest.approx(6.0)
    patient = Call(limiter, timeout=30).in_line()
    for call in (*calls, patient):
        call.scope.cancel()
        call.join()
    assert is_as_new(limiter, crank)


def test_a_wait_that_becomes_hopeless_ends(crank: Crank) -> None:
    """When the vendor says that there is nothing for a long time, the first in line needn't wait
    for its deadline to know.
    """
    limiter = made(crank, requests=60)
    for _ in range(10):
        with limiter.place():
            pass
    call = Call(limiter, timeout=20).in_line()
    eventually(lambda: crank.waiting == 1)
    limiter.learn(openai(requests=(10, 0, "10m0s")))
    crank.turn(1.0)
    call.join()
    assert isinstance(call.error, RateLimitError)
    assert call.error.retry_after == pytest.approx(59.0)
    assert is_as_new(limiter, crank)


def test_random_ends_of_random_calls_leave_the_books_right() -> None:
    """Calls that succeed, fail, are cancelled or refused, all mixed on many threads: at the end
    nobody stands in line, and the books show what was used.
    """
    limiter = Limiter(RateLimit(60_000, 3_000_000), "x")
    used: list[int] = []
    rng = random.Random(11)

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(25):
            scope = Scope(rng.choice([None, 0.001, 0.05, 1.0]))
            if rng.random() < 0.2:
                scope.cancel()
            place = limiter.place(rng.randint(0, 2000))
            try:
                with scope.entered(), place:
                    if rng.random() < 0.3:
                        raise ValueError("x")
                    place.used(rng.randint(0, 2000))
            except (ValueError, RateLimitError, CallInterrupted):
                pass
            used.append(sum(booking.charged for booking in place._bookings if place.granted))

    threads = [threading.Thread(target=work, args=(rng.random(),), daemon=True) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(JOIN)
    assert len(used) == 32 * 25
    assert (limiter.waiting, limiter._unsettled) == (0, 0)
    assert limiter._tokens is not None
    assert limiter._tokens._used == sum(used)


# --- what the vendor says ------------------------------------------------------------------------


def openai(**told: tuple[int, int, str]) -> Mapping[str, str]:
    return {
        f"x-ratelimit-{fact}-{what}": str(value)
        for what, facts in told.items()
        for fact, value in zip(("limit", "remaining", "reset"), facts, strict=True)
    }


def test_a_vendor_with_less_left_is_obeyed(crank: Crank) -> None:
    """Another process uses the same account: its use is seen in the headers, and waited for."""
    limiter = made(crank, requests=600, tokens=60_000)
    limiter.learn(openai(requests=(600, 50, "55s"), tokens=(60_000, 2_000, "58s")))
    assert limiter._requests is not None
    assert (limiter._requests._level, tokens_free(limiter)) == (50, 2000)
    limiter.learn(openai(requests=(600, 599, "100ms"), tokens=(60_000, 59_000, "1s")))
    assert (limiter._requests._level, tokens_free(limiter)) == (50, 2000)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-ratelimit-remaining-requests": "none"},
        {"x-ratelimit-remaining-requests": "-5", "x-ratelimit-remaining-tokens": "nan"},
        {"anthropic-ratelimit-tokens-remaining": "inf", "x-ratelimit-": "1", "content-type": "x"},
    ],
)
def test_nonsense_teaches_nothing(crank: Crank, headers: dict[str, str]) -> None:
    """A proxy's odd headers don't stop the program."""
    limiter = made(crank, requests=600, tokens=60_000)
    limiter.learn(headers)
    assert limiter._requests is not None
    assert (limiter._requests._level, tokens_free(limiter)) == (100, 10_000)


def test_only_what_is_limited_is_learnt(crank: Crank) -> None:
    """A user who limits only requests is not slowed down for tokens, and the reverse."""
    headers = openai(requests=(600, 0, "60s"), tokens=(60_000, 0, "60s"))
    for limiter in (made(crank, requests=600), made(crank, tokens=60_000)):
        limiter.learn(headers)
    assert tokens_free(limiter) == 0


# --- several limits together ---------------------------------------------------------------------


def test_a_chain_waits_for_each_of_its_limits(crank: Crank) -> None:
    """A model's limit and its provider's both hold, and both are given back to."""
    model = made(crank, tokens=6000)
    provider = made(crank, requests=60, tokens=12_000)
    chain = LimiterChain((model, provider))
    with chain.place(900) as place:
        assert (tokens_free(model), tokens_free(provider)) == (100, 1100)
        place.used(100)
    assert (tokens_free(model), tokens_free(provider)) == (900, 1900)
    with pytest.raises(ValueError, match="x"), chain.place(500):
        raise ValueError("x")
    assert (tokens_free(model), tokens_free(provider)) == (900, 1900)
    chain.learn(openai(tokens=(6000, 10, "59s")))
    assert (tokens_free(model), tokens_free(provider)) == (10, 1900)


@pytest.mark.parametrize("how", ["cancel", "refuse"])
def test_a_wait_for_the_second_limit_that_fails_gives_the_first_back(
    crank: Crank, how: str
) -> None:
    """Nothing was sent, so the model's limit has lost neither tokens nor a request."""
    model = made(crank, requests=600, tokens=6000)
    provider = made(crank, requests=6)
    with provider.place():
        pass
    chain = LimiterChain((model, provider))
    call = Call(chain, 500, timeout=None if how == "cancel" else 1.0)
    if how == "cancel":
        eventually(lambda: chain.waiting == 1)
        call.scope.cancel()
    call.join()
    assert isinstance(call.error, CallInterrupted if how == "cancel" else RateLimitError)
    assert not call.place.granted
    assert model._requests is not None
    assert model._tokens is not None
    assert (model._requests._level, tokens_free(model)) == (100, 1000)
    assert (model._requests._used, model._tokens._used) == (0, 0)
    assert is_as_new(model, crank)
    assert is_as_new(provider, crank)


def test_a_signal_handler_may_call_while_its_thread_books(crank: Crank) -> None:
    """A handler that asks a model in the middle of the books doesn't wait for itself."""
    limiter = made(crank, requests=60)
    with limiter._lock, limiter.place():
        pass
    assert is_as_new(limiter, crank)


def test_nothing_is_held_while_a_call_is_under_way(crank: Crank) -> None:
    """Calls side by side neither wait for each other's end nor for those in line."""
    limiter = made(crank, requests=60)
    done: list[Place] = []
    with limiter.place():
        threads = [
            threading.Thread(target=lambda: done.append(limiter.place().__enter__()), daemon=True)
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(JOIN)
    assert len(done) == 4


def test_its_repr_names_the_limit(crank: Crank) -> None:
    """Whoever looks at it sees whose limit it is, and how many wait."""
    limiter = made(crank, requests=60, tokens=90_000)
    assert repr(LimiterChain([limiter])) == (
        "LimiterChain(Limiter(openai:gpt-6-luna, 60 requests/min and 90,000 tokens/min, waiting=0))"
    )
