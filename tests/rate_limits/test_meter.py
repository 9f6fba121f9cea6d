from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st

from llmkit.rate_limits.meter import Meter

START = 1000.3


def used_within(events: list[tuple[float, int]], seconds: float) -> float:
    """The most that was used within any span of so many seconds."""
    most, first, total = 0, 0, 0
    for at, amount in events:
        total += amount
        while events[first][0] <= at - seconds:
            total -= events[first][1]
            first += 1
        most = max(most, total)
    return most


@settings(max_examples=300)
@given(
    per_minute=st.integers(1, 5000),
    steps=st.lists(
        st.tuples(st.floats(0, 20), st.floats(0.001, 1), st.booleans(), st.floats(0, 1)),
        max_size=120,
    ),
)
def test_no_minute_has_more_than_a_minutes_worth(
    per_minute: int, steps: list[tuple[float, float, bool, float]]
) -> None:
    """In any 60 s, wherever they begin, what is used stays within the limit: small and large
    amounts, bursts and pauses, and with unused parts given back at any time later.
    """
    now = START
    meter = Meter(per_minute, now)
    events: list[tuple[float, int]] = []
    for passes, share, wait, unused in steps:
        now += passes
        meter.move_to(now)
        amount = max(1, round(share * per_minute))
        if wait:
            now += meter.delay(amount)
            meter.move_to(now)
        if meter.delay(amount) == 0.0:
            taken_at = meter.take(amount)
            given_back = int(unused * amount)
            now += passes / 3
            meter.move_to(now)
            meter.give_back(given_back, taken_at)
            events.append((now - passes / 3, amount - given_back))
        # The microsecond within which something is due now.
        assert used_within(events, 60 - 1e-4) <= per_minute


@given(
    per_minute=st.integers(6, 5000),
    steps=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 1)), max_size=120),
)
def test_no_span_has_more_than_the_bucket_and_its_refill(
    per_minute: int, steps: list[tuple[float, float]]
) -> None:
    """A vendor that looks at single seconds sees a sixth of a minute's worth at once, then an even
    pace.
    """
    now = START
    meter = Meter(per_minute, now)
    events: list[tuple[float, int]] = []
    for passes, share in steps:
        now += passes
        meter.move_to(now)
        amount = max(1, int(share * per_minute / 6))
        if meter.delay(amount) == 0.0:
            meter.take(amount)
            events.append((now, amount))
    for first in range(len(events)):
        total = 0
        for at, amount in events[first:]:
            total += amount
            assert total <= per_minute / 6 + (at - events[first][0]) * per_minute / 60 + 1e-3


@settings(max_examples=300)
@given(
    per_minute=st.floats(0.1, 1e6),
    steps=st.lists(st.tuples(st.floats(0, 100), st.floats(0, 3)), max_size=30),
)
def test_a_wait_is_as_long_as_it_says(per_minute: float, steps: list[tuple[float, float]]) -> None:
    """Whoever waits for the time that he was told gets what he waited for; with nothing else going
    on nobody waits longer than it takes to work off what was used.
    """
    now = START
    meter = Meter(per_minute, now)
    total = 0
    for passes, share in steps:
        now += passes
        meter.move_to(now)
        amount = int(share * per_minute)
        total += amount
        delay = meter.delay(amount)
        assert 0 <= delay <= 61 + (total + 1) * 60 / per_minute
        now += delay
        meter.move_to(now)
        assert meter.delay(amount) == 0.0
        meter.take(amount)


@pytest.mark.parametrize("per_minute", [6, 60, 600, 90_000])
@pytest.mark.parametrize("share", [1 / 600, 1 / 20, 1 / 4])
def test_the_whole_limit_can_be_used(per_minute: int, share: float) -> None:
    """Over ten busy minutes the calls get what the user allowed: keeping the rule wastes little."""
    now = START
    meter = Meter(per_minute, now)
    amount = max(1, int(share * per_minute))
    total = 0
    while now < START + 600:
        meter.take(amount)
        total += amount
        now += meter.delay(amount)
        meter.move_to(now)
    waste = 0.03 if amount < per_minute / 6 else 0.06
    assert total >= 10 * per_minute * (1 - waste) - amount


def test_what_is_larger_than_the_bucket_waits_for_a_full_one_and_leaves_a_debt() -> None:
    """A long prompt isn't refused for its size; those after it wait until it is worked off."""
    meter = Meter(600, START)
    assert meter.delay(300) == 0.0
    meter.take(300)
    assert meter.delay(1) == pytest.approx((300 - 100 + 1) / 10)
    meter.move_to(START + 10)
    assert meter.delay(300) == pytest.approx(20)


def test_what_is_larger_than_a_minutes_worth_waits_for_an_empty_minute() -> None:
    """Even a request beyond the limit is sent once, when the vendor has room for it if ever."""
    meter = Meter(60, START)
    meter.take(1)
    meter.move_to(START + 30)
    assert 29 <= meter.delay(1000) <= 32
    meter.move_to(START + 61)
    assert meter.delay(1000) == 0.0


def test_what_comes_back_makes_room_at_once() -> None:
    """Unused tokens count neither for the pace nor for the minute."""
    meter = Meter(600, START)
    taken_at = meter.take(600)
    assert meter.delay(100) > 50
    meter.give_back(590, taken_at)
    assert meter.delay(90) == 0.0
    meter.move_to(START + 9)
    assert meter.delay(100) == 0.0


def test_using_more_than_was_taken_makes_others_wait() -> None:
    """An answer longer than was reckoned is paid for by those who come after."""
    meter = Meter(600, START)
    taken_at = meter.take(10)
    meter.give_back(-190, taken_at)
    assert meter.delay(1) == pytest.approx(10.1)
    assert meter.delay(500) > 50


def test_what_comes_back_after_its_minute_fills_the_bucket_only() -> None:
    """A stream that ends minutes later doesn't make room in a minute that it had no part in."""
    meter = Meter(60, START)
    old = meter.take(50)
    meter.move_to(START + 100)
    for _ in range(10):
        meter.take(1)
    meter.give_back(50, old)
    assert meter.delay(1) == 0.0  # the pace
    assert meter.delay(55) > 50  # the minute
    meter.move_to(START + 200)
    assert meter.delay(60) == 0.0


def test_the_vendor_can_only_lower() -> None:
    """A vendor with more left changes nothing; one with less makes calls wait at our own pace, or
    at its own if that is slower.
    """
    meter = Meter(600, START)
    meter.lower(1e9, 0.0)
    assert meter.delay(100) == 0.0
    assert meter.delay(101) == 0.0  # larger than the bucket, which is full
    meter.lower(40, 0.0)
    assert meter.delay(40) == 0.0
    assert meter.delay(60) == pytest.approx(2.0)
    meter.lower(0, 5.0)
    assert meter.delay(1) == pytest.approx(5.0)
    meter.lower(0, 1e9)
    assert meter.delay(1) == pytest.approx(60.0)
    meter.move_to(START + 90)
    assert meter.delay(100) == 0.0


def test_a_clock_that_stands_still_or_steps_back_changes_nothing() -> None:
    """Two threads may read the clock in one order and come in the other."""
    meter = Meter(60, START)
    meter.take(10)
    before = meter.delay(5)
    meter.move_to(START)
    meter.move_to(START - 5)
    assert meter.delay(5) == before
