from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from llmkit import breaker
from llmkit.breaker import (
    FAILURE_CODES,
    CircuitBreaker,
    Permit,
    breaker_for,
    counts,
    reset_breakers,
)
from llmkit.breaker.sliding_window import SlidingWindow
from llmkit.errors import CircuitOpenError, ErrorCode, InvalidRequestError


class Clock:
    """Time that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def fresh_breakers() -> None:
    reset_breakers()


def made(clock: Clock, **changes: Any) -> CircuitBreaker:
    return CircuitBreaker(provider="openai", model="gpt-6-luna", clock=clock, **changes)


def opened(clock: Clock, **changes: Any) -> CircuitBreaker:
    """A breaker that has just opened."""
    breaker = made(clock, **changes)
    while breaker.state == "closed":
        breaker.enter().failed()
    return breaker


# --- opening -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("good", "bad", "state"),
    [(0, 9, "closed"), (0, 10, "open"), (5, 5, "open"), (6, 5, "closed"), (100, 99, "closed")],
)
def test_it_opens_when_half_of_ten_tries_or_more_failed(
    clock: Clock, good: int, bad: int, state: str
) -> None:
    """A few failures, or many among more successes, are no reason to give a model up."""
    breaker = made(clock)
    for _ in range(good):
        breaker.enter().succeeded()
    for _ in range(bad):
        breaker.enter().failed()
    assert breaker.state == state


def test_old_failures_dont_count(clock: Clock) -> None:
    """Failures of more than a window ago have no part in it, those within it have."""
    breaker = made(clock)
    for _ in range(9):
        breaker.enter().failed()
    clock.now += 26
    assert breaker.figures() == {"state": "closed", "opens_in": 0.0, "tries": 9, "failures": 9}
    clock.now += 4.1
    breaker.enter().failed()
    assert breaker.figures()["failures"] == 1
    assert breaker.state == "closed"


@given(
    st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=200),
    st.floats(0.1, 100),
)
def test_the_window_counts_what_is_in_it(steps: list[tuple[float, bool]], length: float) -> None:
    """The slots hold every try of nine tenths of a window, and none from before a whole one."""
    window = SlidingWindow(length)
    tries: list[tuple[float, bool]] = []
    now = 1000.0
    for passes, good in steps:
        now += passes
        window.add(now, good)
        tries.append((now, good))
        for count, bad in ((window.tries, (True, False)), (window.failures, (False,))):
            sure = sum(g in bad and now - at < 0.9 * length * 0.999 for at, g in tries)
            possible = sum(g in bad and now - at <= length * 1.001 for at, g in tries)
            assert sure <= count <= possible


def test_cancelled_tries_and_the_users_faults_say_nothing(clock: Clock) -> None:
    """Neither a hundred cancelled races nor a wrong key open a circuit, nor keep one closed."""
    breaker = made(clock)
    for _ in range(100):
        breaker.enter().dropped()
    assert breaker.figures()["tries"] == 0


def test_a_try_counts_once(clock: Clock) -> None:
    """Of several words about the same try the first one counts."""
    breaker = made(clock)
    permit = breaker.enter()
    permit.succeeded()
    permit.failed()
    permit.dropped()
    assert breaker.figures() == {"state": "closed", "opens_in": 0.0, "tries": 1, "failures": 0}


@pytest.mark.parametrize("code", [None, *ErrorCode])
def test_only_the_providers_faults_count(clock: Clock, code: ErrorCode | None) -> None:
    """Timeout, connection, 5xx and rate limit are the provider's; the rest says nothing of it."""
    expected = {"LLM_TIMEOUT", "LLM_CONNECTION_ERROR", "LLM_PROVIDER_ERROR", "LLM_RATE_LIMIT"}
    assert expected == FAILURE_CODES
    assert counts(code) == (code in expected)
    breaker = made(clock)
    breaker.enter().ended(code)
    figures = breaker.figures()
    assert figures["failures"] == (code in expected)
    assert figures["tries"] == (code is None or code in expected)


# --- open ----------------------------------------------------------------------------------------


def test_an_open_circuit_says_what_happened_and_until_when(clock: Clock) -> None:
    """The error has the model, the reason, the time left, and what to do; it isn't retried."""
    breaker = opened(clock)
    clock.now += 1.5
    with pytest.raises(CircuitOpenError) as caught:
        breaker.enter()
    error = caught.value
    assert str(error) == (
        "openai:gpt-6-luna: 10 of its 10 tries of the last 30 s failed, so it is not asked for "
        "another 3.5 s; meanwhile only other models can answer: fallbacks=, or a race"
    )
    assert error.retry_after == pytest.approx(3.5)
    assert not error.retryable
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert breaker.figures()["opens_in"] == pytest.approx(3.5)


def test_opening_and_closing_are_logged_once(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator sees when a model was given up and when it came back, not each refused call."""
    with caplog.at_level("INFO", "llmkit"):
        breaker = opened(clock)
        for _ in range(5):
            with pytest.raises(CircuitOpenError):
                breaker.enter()
        clock.now += 5
        breaker.enter().succeeded()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "openai:gpt-6-luna: 10 of its 10 tries of the last 30 s failed; not asked for 5.0 s",
        ),
        ("INFO", "openai:gpt-6-luna answers again"),
    ]


def test_what_began_before_it_opened_tells_nothing_after(clock: Clock) -> None:
    """Calls that were under way when it opened neither close it, nor open it again later."""
    breaker = made(clock)
    old = [breaker.enter() for _ in range(40)]
    for permit in old[:10]:
        permit.failed()
    assert breaker.state == "open"
    old[10].succeeded()
    assert breaker.state == "open"
    clock.now += 5
    breaker.enter().succeeded()
    for permit in old[11:]:
        permit.failed()
    assert breaker.figures() == {"state": "closed", "opens_in": 0.0, "tries": 0, "failures": 0}


# --- half open -----------------------------------------------------------------------------------


def test_one_probe_finds_out(clock: Clock) -> None:
    """After the cool-down one try is let through, the others are not until it has ended."""
    breaker = opened(clock)
    clock.now += 5
    assert (breaker.state, breaker.figures()["opens_in"]) == ("half_open", 0.0)
    probe = breaker.enter()
    for _ in range(3):
        with pytest.raises(CircuitOpenError, match="one try is finding out") as caught:
            breaker.enter()
        assert caught.value.retry_after == breaker.figures()["opens_in"] == 5.0
    probe.succeeded()
    assert breaker.state == "closed"
    for _ in range(9):
        breaker.enter().failed()
    assert breaker.state == "closed"  # it starts anew


def test_the_cool_down_doubles_up_to_a_minute_and_starts_anew(clock: Clock) -> None:
    """The longer a model is down, the more rarely it is asked; one that was back is new again."""
    breaker = opened(clock)
    waits = []
    for _ in range(6):
        waits.append(breaker.figures()["opens_in"])
        clock.now += breaker.figures()["opens_in"]
        breaker.enter().failed()
    assert waits == [5, 10, 20, 40, 60, 60]
    clock.now += breaker.figures()["opens_in"]
    breaker.enter().succeeded()
    while breaker.state == "closed":
        breaker.enter().failed()
    assert breaker.figures()["opens_in"] == 5


def test_a_dropped_probe_frees_its_place(clock: Clock) -> None:
    """A probe that was cancelled, or had a fault of its own, lets the next one try at once."""
    breaker = opened(clock)
    clock.now += 5
    breaker.enter().dropped()
    assert breaker.figures()["opens_in"] == 0.0
    breaker.enter().succeeded()
    assert breaker.state == "closed"


def test_a_lost_probe_blocks_for_one_cool_down(clock: Clock) -> None:
    """A thread that died with the probe in hand doesn't keep the model away for good."""
    breaker = opened(clock)
    clock.now += 5
    lost = breaker.enter()
    clock.now += 4.9
    with pytest.raises(CircuitOpenError):
        breaker.enter()
    clock.now += 0.2
    second = breaker.enter()
    with pytest.raises(CircuitOpenError):
        breaker.enter()
    lost.dropped()  # it was slow, not lost; the second one's place stays taken
    with pytest.raises(CircuitOpenError):
        breaker.enter()
    second.succeeded()
    assert breaker.state == "closed"


def test_a_slow_probe_that_succeeds_closes(clock: Clock) -> None:
    """Answers may take longer than a cool-down: a success counts whenever it comes."""
    breaker = opened(clock)
    clock.now += 5
    slow = breaker.enter()
    clock.now += 6
    breaker.enter().failed()
    assert breaker.figures()["opens_in"] == 10
    slow.succeeded()
    assert breaker.state == "closed"


def test_of_two_probes_only_one_failure_doubles(clock: Clock) -> None:
    """Probes that overlap, as with slow time-outs, count as one time that it was not back."""
    breaker = opened(clock)
    clock.now += 5
    first = breaker.enter()
    clock.now += 5
    second = breaker.enter()
    first.failed()
    assert breaker.figures()["opens_in"] == 10
    second.failed()
    assert breaker.figures()["opens_in"] == 10


def test_a_forced_try_is_always_let_through(clock: Clock) -> None:
    """When every model is open one of them is asked all the same; its failures prolong nothing."""
    breaker = opened(clock)
    for _ in range(5):
        breaker.enter(force=True).failed()
    assert breaker.figures()["opens_in"] == 5
    clock.now += 5
    probe = breaker.enter(force=True)  # its time has come: it is the probe
    with pytest.raises(CircuitOpenError):
        breaker.enter()
    breaker.enter(force=True).dropped()
    probe.failed()
    assert breaker.figures()["opens_in"] == 10
    breaker.enter(force=True).succeeded()
    assert breaker.state == "closed"


@pytest.mark.parametrize("down", [1.0, 7.0, 60.0, 300.0])
def test_recovery_is_found_within_one_probe_interval(clock: Clock, down: float) -> None:
    """From the moment that the provider is back it takes one cool-down, at most a minute, until
    calls get through again, and meanwhile nearly none of them is sent.
    """
    breaker = made(clock)
    began, tries = clock.now, 0
    interval = 5.0
    while True:
        healthy = clock.now >= began + down
        if not healthy and breaker.state != "closed":
            interval = breaker._cool_down
        try:
            permit = breaker.enter()
        except CircuitOpenError:
            pass
        else:
            tries += 1
            if healthy:
                permit.succeeded()
            else:
                permit.failed()
        if healthy and breaker.state == "closed":
            break
        clock.now += 0.05
    assert clock.now - (began + down) <= interval + 0.1 <= 60.1
    assert tries <= 10 + 5 + down / 60 + 1


# --- threads, processes --------------------------------------------------------------------------


def in_threads(work: Callable[[], object], count: int) -> None:
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def test_of_many_threads_one_gets_the_probe(clock: Clock) -> None:
    """However many threads come at the end of the cool-down, one try is sent."""
    breaker = opened(clock)
    clock.now += 5
    start = threading.Barrier(32)
    permits: list[Permit] = []

    def come() -> None:
        start.wait()
        with contextlib.suppress(CircuitOpenError):
            permits.append(breaker.enter())

    in_threads(come, 32)
    assert len(permits) == 1


def test_no_count_is_lost_between_threads(clock: Clock) -> None:
    """Tries that end in many threads at once are all counted."""
    breaker = made(clock, failure_share=1.0)

    def work() -> None:
        for _ in range(500):
            breaker.enter().succeeded()
            breaker.enter().failed()

    in_threads(work, 8)
    assert breaker.figures() == {
        "state": "closed",
        "opens_in": 0.0,
        "tries": 8000,
        "failures": 4000,
    }


def test_calls_under_way_dont_wait_for_each_other(clock: Clock) -> None:
    """A hanging call holds no lock: others enter and end meanwhile."""
    breaker = made(clock)
    hanging = breaker.enter()
    in_threads(lambda: breaker.enter().succeeded(), 4)
    hanging.failed()
    assert breaker.figures()["tries"] == 5


def test_a_signal_handler_may_call_in_the_middle_of_counting(clock: Clock) -> None:
    """A handler that asks a model while its own thread counts doesn't wait for itself."""
    breaker = made(clock)
    with breaker._lock:
        breaker.enter().succeeded()
    assert breaker.figures()["tries"] == 1


@settings(max_examples=200)
@given(st.data())
def test_no_order_of_events_blocks_it_for_good(data: st.DataObject) -> None:
    """Whatever is settled, lost, forced or late: after a minute without news a try is let
    through, and its success closes the breaker.
    """
    clock = Clock()
    breaker = made(clock, min_calls=2)
    permits: list[Permit] = []
    for _ in range(data.draw(st.integers(0, 40))):
        match data.draw(st.sampled_from(["enter", "force", "pass", "good", "bad", "drop"])):
            case "pass":
                clock.now += data.draw(st.floats(0, 40))
            case "enter" | "force" as how:
                if breaker.figures()["opens_in"] == 0.0 or how == "force":
                    permits.append(breaker.enter(force=how == "force"))
                else:
                    with pytest.raises(CircuitOpenError):
                        breaker.enter()
            case how if permits:
                permit = permits.pop(data.draw(st.integers(0, len(permits) - 1)))
                {"good": permit.succeeded, "bad": permit.failed, "drop": permit.dropped}[how]()
        assert 0 <= breaker.figures()["opens_in"] <= 60
    clock.now += 60.0
    assert breaker.figures()["opens_in"] == 0.0
    breaker.enter().succeeded()
    assert breaker.state == "closed"


# --- the process's breakers ----------------------------------------------------------------------


def test_each_model_at_each_address_has_its_own() -> None:
    """A model that is down at one address is asked at another, and other models are asked, too."""
    keys = [
        ("openai", "gpt-6-luna", None),
        ("openai", "gpt-6-luna", "http://a/v1"),
        ("openai", "gpt-6-sol", None),
        ("groq", "gpt-6-luna", None),
    ]
    assert len({id(breaker_for(*key)) for key in keys}) == len(keys)
    assert all(breaker_for(*key) is breaker_for(*key) for key in keys)


def test_a_process_keeps_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Model names that come from outside don't fill the memory; what is open is kept longest."""
    monkeypatch.setattr(breaker, "MAX_BREAKERS", 10)
    bad = breaker_for("openai", "bad")
    for _ in range(10):
        bad.enter().failed()
    for number in range(100):
        breaker_for("openai", f"model-{number}")
    assert len(breaker._breakers.get()) == 10
    assert breaker_for("openai", "bad") is bad


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_starts_anew() -> None:
    """A worker doesn't inherit a lock that another thread of its parent held."""
    parent = breaker_for("openai", "gpt-6-luna")
    with parent._lock:
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            signal.alarm(10)
            fresh = breaker_for("openai", "gpt-6-luna")
            fresh.enter().succeeded()
            os._exit(0 if fresh is not parent else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"failure_share": 0},
        {"failure_share": 1.1},
        {"min_calls": 0},
        {"window": float("nan")},
        {"cool_down": -1.0},
        {"longest_cool_down": float("inf")},
    ],
)
def test_nonsense_is_refused(clock: Clock, changes: dict[str, Any]) -> None:
    """A breaker that could never open, or never close, isn't made."""
    with pytest.raises(InvalidRequestError, match=next(iter(changes))):
        made(clock, **changes)
