"""The breaker: who may ask a failing store, and when."""

from __future__ import annotations

import logging
import threading

import pytest

from llmkit.cache.breaker import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    LONGEST_TRY,
    Breaker,
    StoreFailed,
    StoreSkipped,
    StoreTimeout,
)
from tests.cache.servers import Clock


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("the store", clock)


def is_admitted(breaker: Breaker) -> bool:
    try:
        breaker.check()
    except StoreSkipped:
        return False
    return True


def test_after_a_failure_one_at_a_time_tries(breaker: Breaker, clock: Clock) -> None:
    """Nobody asks during the pause; then one does, and the rest go on without."""
    breaker.failed(StoreFailed("gone"))
    assert not is_admitted(breaker)
    clock.now += FIRST_PAUSE
    assert [is_admitted(breaker) for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert [is_admitted(breaker) for _ in range(3)] == [True] * 3
    assert breaker.outages == 1


def test_pauses_grow_to_a_bound(breaker: Breaker, clock: Clock) -> None:
    """A store that stays away is tried ever more rarely, but never less often than that."""
    pauses = []
    breaker.failed(StoreFailed("gone"))
    for _ in range(8):
        begin = clock.now
        while not is_admitted(breaker):
            clock.now += FIRST_PAUSE / 2
        pauses.append(clock.now - begin)
        breaker.failed(StoreFailed("still gone"))
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    assert LONGEST_PAUSE == 5.0
    clock.now += LONGEST_PAUSE
    assert is_admitted(breaker)
    breaker.succeeded()
    breaker.failed(StoreFailed("gone again"))
    clock.now += FIRST_PAUSE
    assert is_admitted(breaker)


def test_a_crowd_of_failures_counts_once(breaker: Breaker, clock: Clock) -> None:
    """64 threads that were under way when the store died don't make its pause endless."""
    for _ in range(64):
        breaker.failed(StoreFailed("gone"))
    clock.now += FIRST_PAUSE
    assert is_admitted(breaker)
    assert breaker.outages == 1


def test_one_late_answer_may_be_chance(breaker: Breaker) -> None:
    """Only two in a row are an outage, and none that had hardly any time counts."""
    breaker.failed(StoreTimeout("late"))
    breaker.succeeded()
    breaker.failed(StoreTimeout("late"))
    breaker.failed(StoreTimeout("no time", chance=True))
    assert not breaker.is_open
    breaker.failed(StoreTimeout("late"))
    assert breaker.is_open


def test_an_interrupted_try_is_followed_by_another(breaker: Breaker, clock: Clock) -> None:
    """Ctrl-C during the one try doesn't close the store for ever."""
    breaker.failed(StoreFailed("gone"))
    clock.now += FIRST_PAUSE
    assert is_admitted(breaker)
    clock.now += LONGEST_TRY
    assert is_admitted(breaker)


def test_an_outage_is_logged_once(
    breaker: Breaker, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A line when it begins, without any password, and a line when it ends."""
    caplog.set_level(logging.DEBUG, "llmkit")
    for _ in range(5):
        breaker.failed(StoreFailed("no way to redis://me:pa55word@host:1/0"))
        clock.now += 10
        is_admitted(breaker)
    breaker.succeeded()
    breaker.succeeded()
    assert [(record.levelname, record.name) for record in caplog.records] == [
        ("WARNING", "llmkit.cache"),
        ("INFO", "llmkit.cache"),
    ]
    assert "pa55word" not in caplog.text
    assert "the store can't be used (no way" in caplog.text


def test_a_signal_handler_may_call_while_its_thread_reports(breaker: Breaker) -> None:
    """A handler that asks a store in the middle of a report doesn't wait for itself."""
    admitted: list[bool] = []

    def interrupted() -> None:
        with breaker._lock:
            breaker.failed(StoreFailed("gone"))
            admitted.append(is_admitted(breaker))

    thread = threading.Thread(target=interrupted, daemon=True)
    thread.start()
    thread.join(5)
    assert admitted == [False]
