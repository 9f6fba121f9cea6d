from __future__ import annotations

import logging
import math
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Context, Decimal, Inexact, localcontext
from typing import Any

import pytest
from hypothesis import given, strategies as st

from llmkit.errors import ErrorCode, LLMTimeoutError, RateLimitError
from llmkit.performance import (
    WINDOW,
    LLMPerformanceTracker,
    get_performance_tracker,
    notify,
)
from llmkit.types import CallRecord, Usage

SUMMARY = {
    "provider": "",
    "requests": 0,
    "successes": 0,
    "failures": 0,
    "cancelled": 0,
    "cache_hits": 0,
    "success_rate": None,
    "avg_latency_ms": None,
    "p50_latency_ms": None,
    "p95_latency_ms": None,
    "prompt_tokens": 0,
    "completion_tokens": 0,
    "total_tokens": 0,
    "cost": Decimal(0),
    "unpriced": 0,
    "errors": {},
    "fallbacks": {},
}


def record(
    code: ErrorCode | None = None,
    latency: float = 1.0,
    usage: Usage | None = None,
    cost: Decimal | None = None,
    model: str = "m",
) -> CallRecord:
    return CallRecord(model, "p", code, 0.0, latency, None, False, usage or Usage(), cost, (), {})


def nearest_rank(latencies: list[float], percent: int) -> float:
    """The smallest value that at least this share of all values doesn't exceed, by counting."""
    return next(
        value
        for value in sorted(latencies)
        if sum(each <= value for each in latencies) * 100 >= percent * len(latencies)
    )


@given(st.lists(st.integers(1, 40).map(float), min_size=1, max_size=120))
def test_percentiles_are_latencies_that_occurred(latencies: list[float]) -> None:
    """The quantiles agree with the definition of the nearest rank, counted by brute force."""
    tracker = LLMPerformanceTracker()
    for latency in latencies:
        tracker(record(latency=latency))
    stats = tracker.get_stats("m")
    assert stats["p50_latency_ms"] == 1000 * nearest_rank(latencies, 50)
    assert stats["p95_latency_ms"] == 1000 * nearest_rank(latencies, 95)
    assert math.isclose(stats["avg_latency_ms"], 1000 * sum(latencies) / len(latencies))


def test_latencies_are_those_of_the_newest_calls() -> None:
    """A slow morning doesn't show in the evening's p95, and memory stays bounded."""
    tracker = LLMPerformanceTracker()
    for latency in [100.0] * 50 + [0.001] * WINDOW:
        tracker(record(latency=latency))
    stats = tracker.get_stats("m")
    assert stats["p95_latency_ms"] == 1.0
    assert stats["avg_latency_ms"] == pytest.approx(1.0)
    assert stats["successes"] == WINDOW + 50


def test_an_unknown_model_has_zeros_and_is_not_noted() -> None:
    """Asking for figures creates none; what nobody knows is None, not zero."""
    tracker = LLMPerformanceTracker()
    assert tracker.get_stats("m") == SUMMARY
    assert tracker.get_stats() == {}


def test_records_are_counted_by_outcome() -> None:
    """Successes, failures and cancelled calls are told apart; a cancel is nobody's failure."""
    tracker = LLMPerformanceTracker()
    tracker(record(usage=Usage(10, 5), cost=Decimal("0.01")))
    tracker(record(usage=Usage(None, 3)))
    tracker(record(ErrorCode.LLM_TIMEOUT))
    tracker(record(ErrorCode.LLM_CANCELLED))
    assert tracker.get_stats("m") == {
        **SUMMARY,
        "provider": "p",
        "requests": 4,
        "successes": 2,
        "failures": 1,
        "cancelled": 1,
        "success_rate": 2 / 3,
        "avg_latency_ms": 1000.0,
        "p50_latency_ms": 1000.0,
        "p95_latency_ms": 1000.0,
        "prompt_tokens": 10,
        "completion_tokens": 8,
        "total_tokens": 18,
        "cost": Decimal("0.01"),
        "unpriced": 1,
        "errors": {"LLM_TIMEOUT": 1, "LLM_CANCELLED": 1},
    }


def test_the_documented_methods_count_like_records() -> None:
    """Code that reports by hand, call by call, gets the same figures."""
    tracker = LLMPerformanceTracker()
    tracker.record_request("m", "p")
    tracker.record_success("m", "p", 250.0, 3, None)
    tracker.record_request("m", "p")
    tracker.record_failure("m", "p", LLMTimeoutError("late"))
    tracker.record_fallback("m", "n", "LLM_TIMEOUT")
    stats = tracker.get_stats("m")
    assert (stats["requests"], stats["successes"], stats["failures"]) == (2, 1, 1)
    assert (stats["p50_latency_ms"], stats["prompt_tokens"], stats["unpriced"]) == (250.0, 3, 1)
    assert stats["fallbacks"] == {"n: LLM_TIMEOUT": 1}
    assert list(tracker.get_stats()) == ["m"]


class HTTPError(Exception):
    """Another library's error, whose `code` is a number."""

    code = 404


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (RateLimitError("x"), "LLM_RATE_LIMIT"),
        (ValueError("x"), "ValueError"),
        (HTTPError("x"), "HTTPError"),
        (SystemExit(3), "SystemExit"),
        ("slow", "slow"),
        (ErrorCode.LLM_TIMEOUT, "LLM_TIMEOUT"),
    ],
)
def test_failures_have_names_that_can_be_grouped(error: object, name: str) -> None:
    """A failure is counted by its code, its class or the given text, never by its message."""
    tracker = LLMPerformanceTracker()
    tracker.record_failure("m", "p", error)
    assert tracker.get_stats("m")["errors"] == {name: 1}


def test_a_fallback_before_the_first_request_leaves_the_provider_open() -> None:
    """The provider is learnt from the first call that says it."""
    tracker = LLMPerformanceTracker()
    tracker.record_fallback("m", "n", "LLM_CIRCUIT_OPEN")
    assert tracker.get_stats("m")["provider"] == ""
    tracker(record())
    assert tracker.get_stats("m")["provider"] == "p"


def test_32_threads_lose_no_count() -> None:
    """Every figure is exact, however many threads report at the same time."""
    tracker = LLMPerformanceTracker()
    success = record(usage=Usage(3, 2), cost=Decimal("0.000001"))
    failure = record(ErrorCode.LLM_TIMEOUT)

    def report(number: int) -> None:
        for _ in range(250):
            tracker(success)
            tracker(failure)
            tracker.record_fallback("m", "n", "x")
            tracker.get_stats()

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(report, range(32)))
    stats = tracker.get_stats("m")
    assert (stats["requests"], stats["successes"], stats["failures"]) == (16000, 8000, 8000)
    assert (stats["prompt_tokens"], stats["completion_tokens"]) == (24000, 16000)
    assert stats["cost"] == Decimal("0.008")
    assert stats["errors"] == {"LLM_TIMEOUT": 8000}
    assert stats["fallbacks"] == {"n: x": 8000}


def test_a_signal_handler_may_call_while_its_thread_counts() -> None:
    """A handler that asks a model, or prints the figures, doesn't wait for itself."""
    tracker = LLMPerformanceTracker()
    seen: list[int] = []

    def interrupted() -> None:
        with tracker._lock:
            tracker(record())
            seen.append(tracker.get_stats("m")["requests"])

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(5)
    assert seen == [1]


def test_money_is_exact_in_any_decimal_context() -> None:
    """An application that rounds its own money to a few digits doesn't round llmkit's sums."""
    tracker = LLMPerformanceTracker()
    with localcontext(Context(prec=3, traps=[Inexact])):
        for cost in ("1234.5", "0.000001", "0.000002"):
            tracker(record(cost=Decimal(cost)))
        assert tracker.get_stats("m")["cost"] == Decimal("1234.500003")


def test_figures_are_copies() -> None:
    """Whoever got figures can change them without changing the tracker's; they pickle, too."""
    tracker = LLMPerformanceTracker()
    tracker(record(ErrorCode.LLM_TIMEOUT))
    stats = tracker.get_stats("m")
    stats["errors"]["LLM_TIMEOUT"] = 99
    assert tracker.get_stats("m")["errors"] == {"LLM_TIMEOUT": 1}
    assert pickle.loads(pickle.dumps(tracker.get_stats())) == tracker.get_stats()
    tracker.reset()
    assert tracker.get_stats() == {}


def test_the_process_has_one_tracker() -> None:
    """All Clients and adapters report to the same one."""
    assert get_performance_tracker() is get_performance_tracker()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="another operating system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_counts_for_itself() -> None:
    """A pre-forking server's workers start at zero and don't wait for the parent's lock."""
    get_performance_tracker()(record())
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        get_performance_tracker()(record(model="n"))
        os.write(writing, ",".join(get_performance_tracker().get_stats()).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 100) == b"n"
    os.close(reading)
    os.close(writing)
    assert list(get_performance_tracker().get_stats()) == ["m"]


def test_a_broken_observer_neither_fails_the_call_nor_silences_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An answer that was paid for reaches its caller; the observer's bug reaches the log."""
    seen: list[Any] = []

    def broken(_: CallRecord) -> None:
        raise ZeroDivisionError

    one = record()
    with caplog.at_level(logging.ERROR, "llmkit"):
        notify([seen.append, broken, seen.append], one)
    assert seen == [one, one]
    assert "ZeroDivisionError" in caplog.text


def test_an_interrupt_inside_an_observer_is_not_swallowed() -> None:
    """Ctrl-C ends the program, wherever it happens to hit."""

    def interrupted(_: CallRecord) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        notify([interrupted], record())
