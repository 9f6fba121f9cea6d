"""The rate-limit headers of OpenAI and Anthropic, as their documentation writes them."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, strategies as st

from llmkit.rate_limits.headers import Left, read_headers

NOW = datetime.datetime(2026, 11, 22, 10, 0, tzinfo=datetime.UTC).timestamp()


def openai(what: str, limit: object, remaining: object, reset: object) -> dict[str, str]:
    facts = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{fact}-{what}": str(value) for fact, value in facts.items()}


def anthropic(what: str, limit: object, remaining: object, reset: object) -> dict[str, str]:
    facts = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"anthropic-ratelimit-{what}-{fact}": str(value) for fact, value in facts.items()}


def about(left: Left | None) -> tuple[float, float] | None:
    """What is left, without the dust of rounding."""
    return None if left is None else (left.amount, round(left.wait, 6))


def test_openais() -> None:
    """What is left stands beside the limit and the time until all of it is back."""
    headers = {
        **openai("requests", 60, 59, "1s"),
        **openai("tokens", 150_000, 149_984, "6m0s"),
        "x-request-id": "5",
    }
    requests, tokens = read_headers(headers, NOW)
    assert (about(requests), about(tokens)) == ((59, 1.0), (149_984, 22.5))


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1h2m3.5s", 3723.5),
        ("59.7s", 59.7),
        ("1d", 86400.0),
        ("12", 12.0),
        ("2026-11-22T10:01:00Z", 60.0),
        ("2026-11-22T11:01:00+01:00", 60.0),
        ("2026-11-22T10:01:00", 60.0),
        ("2026-11-22T09:00:00Z", 0.0),  # over, or a clock that is wrong
        ("2126-11-22T10:00:00Z", 0.0),
        ("1763800000", 0.0),  # a point in time, of which nothing is known
        ("2d", 0.0),
        ("soon", 0.0),
        ("", 0.0),
        ("-5s", 0.0),
        ("nan", 0.0),
        ("9" * 400 + "s", 0.0),
        ("s" * 5000, 0.0),
        ("1s" * 5000, 5000.0),
    ],
)
def test_the_time_until_it_is_back(reset: str, seconds: float) -> None:
    """Durations as OpenAI writes them, times as Anthropic does; nonsense is no time at all."""
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": reset}
    assert about(read_headers(headers, NOW)[0]) == (0.0, seconds)


def test_the_first_one_is_back_long_before_the_last() -> None:
    """Groq's requests are those of a day: a whole day's wait would be absurd."""
    requests, _ = read_headers(openai("requests", 14_400, 0, "24h"), NOW)
    assert about(requests) == (0, 6.0)


def test_anthropics() -> None:
    """Names the other way round, and times as points."""
    headers = {
        **anthropic("requests", 50, 49, "2026-11-22T10:00:01Z"),
        **anthropic("tokens", 60_000, 58_000, "2026-11-22T10:00:02Z"),
        **anthropic("input-tokens", 50_000, 49_000, "2026-11-22T10:00:02Z"),
        **anthropic("output-tokens", 10_000, 9_000, "2026-11-22T10:00:06Z"),
    }
    requests, tokens = read_headers(headers, NOW)
    assert (about(requests), about(tokens)) == ((49, 1.0), (58_000, 0.001))


def test_anthropics_parts_count_together() -> None:
    """Input and output have a limit each: their sum is what is left, unless one has nothing."""
    some = anthropic("input-tokens", 50_000, 4_000, "2026-11-22T10:00:50Z")
    more = anthropic("output-tokens", 10_000, 9_000, "2026-11-22T10:00:06Z")
    assert read_headers({**some, **more}, NOW) == (None, Left(13_000, 0.0))
    assert read_headers(more, NOW) == (None, None)
    none = anthropic("input-tokens", 50_000, 0, "2026-11-22T10:01:00Z")
    total = anthropic("tokens", 60_000, 9_000, "2026-11-22T10:00:50Z")
    _, tokens = read_headers({**total, **none, **more}, NOW)
    assert about(tokens) == (0, 0.0012)


@pytest.mark.parametrize("remaining", ["", "-1", "nan", "inf", "1e300", "many", "0x10"])
def test_no_number_is_no_news(remaining: str) -> None:
    """A vendor that says nothing readable is not obeyed."""
    headers = {**openai("requests", 60, remaining, "1s"), **anthropic("tokens", 1, remaining, "")}
    assert read_headers(headers, NOW) == (None, None)


NAMES = [
    *openai("requests", 1, 1, 1),
    *openai("tokens", 1, 1, 1),
    *anthropic("requests", 1, 1, 1),
    *anthropic("tokens", 1, 1, 1),
    *anthropic("input-tokens", 1, 1, 1),
    *anthropic("output-tokens", 1, 1, 1),
]


@given(
    st.dictionaries(
        st.sampled_from(NAMES) | st.text("x-ratelimit", max_size=20),
        st.text(max_size=30) | st.floats().map(str) | st.text("0123456789.msh", max_size=12),
        max_size=20,
    )
)
def test_no_header_breaks_the_reader(headers: dict[str, str]) -> None:
    """Whatever a server sends, what is read can be reckoned with."""
    for left in read_headers(headers, NOW):
        if left is not None:
            assert 0 <= left.amount <= 1e12
            assert 0 <= left.wait <= 86400
