from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from llmkit.errors import InvalidRequestError
from llmkit.rate_limits import (
    Limiter,
    LimiterChain,
    RateLimit,
    RateLimits,
    choosing,
    read_rate_limits,
    reset_rate_limits,
)

LUNA = {"requests_per_minute": 60, "tokens_per_minute": 90_000}


@pytest.fixture(autouse=True)
def fresh_limiters() -> None:
    reset_rate_limits()


def one(limits: RateLimits, provider: str, model: str, address: str | None = None) -> Limiter:
    limiter = limits.limiter_for(provider, model, address)
    assert isinstance(limiter, Limiter)
    return limiter


# --- what a user writes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["gpt-5.6-sol", "openai:gpt-5.6-sol", "openai/gpt-5.6-sol", "gpt-5.6", "openai:gpt-5.6 "],
)
def test_a_model_may_be_named_in_any_form(name: str) -> None:
    """Bare, with its provider, or by an alias: it is the same model, also for calls by an alias."""
    limits = read_rate_limits({name: LUNA})
    limiter = one(limits, "openai", "gpt-5.6-sol")
    assert limiter is limits.limiter_for("openai", "gpt-5.6")
    assert (limiter.name, limiter.limit) == ("openai:gpt-5.6-sol", RateLimit(60, 90_000))
    for other in (("openai", "gpt-6-luna"), ("openrouter", "gpt-5.6-sol"), ("anthropic", "x")):
        assert limits.limiter_for(*other) is None


@pytest.mark.parametrize("name", ["vllm:own/model:8b", "vllm/own/model:8b"])
def test_a_model_that_nobody_knows_is_named_with_its_provider(name: str) -> None:
    """One's own server has models that are in no registry."""
    limits = read_rate_limits({name: {"requests_per_minute": 5}}, providers=("vllm",))
    assert one(limits, "vllm", "own/model:8b").limit == RateLimit(5)


@pytest.mark.parametrize("name", ["anthropic", "anthropic:"])
def test_a_providers_models_share_its_limit(name: str) -> None:
    """All of a provider's models together, those included that the registry does not know."""
    limits = read_rate_limits({name: RateLimit(tokens_per_minute=10)})
    shared = one(limits, "anthropic", "claude-haiku-5-5")
    assert shared is limits.limiter_for("anthropic", "made-up")
    assert shared.name == "anthropic"
    assert limits.limiter_for("openai", "gpt-6-luna") is None


def test_a_star_is_each_models_own_limit() -> None:
    """Each model has a line of its own, unless it is named."""
    limits = read_rate_limits({"*": {"requests_per_minute": 7}, "gpt-6-luna": LUNA})
    sol, luna = one(limits, "openai", "gpt-6-sol"), one(limits, "openai", "gpt-6-luna")
    assert sol.limit == RateLimit(7)
    assert luna.limit == RateLimit(60, 90_000)
    assert one(limits, "groq", "made-up") is not sol


def test_a_models_limit_and_its_providers_both_hold() -> None:
    """The provider's limit counts all of its models, also those that have one of their own."""
    limits = read_rate_limits({"openai": {"requests_per_minute": 100}, "gpt-6-luna": LUNA})
    both = limits.limiter_for("openai", "gpt-6-luna")
    assert isinstance(both, LimiterChain)
    assert [limiter.name for limiter in both.limiters] == ["openai:gpt-6-luna", "openai"]
    assert both.limiters[1] is limits.limiter_for("openai", "gpt-6-sol")


def test_nothing_given_limits_nothing() -> None:
    """None and an empty mapping are no limits; what was read may be given again."""
    for limits in (read_rate_limits(None), read_rate_limits({})):
        assert not limits
        assert limits.limiter_for("openai", "gpt-6-luna") is None
    limits = read_rate_limits({"openai": LUNA})
    assert limits
    assert read_rate_limits(limits) is limits
    assert repr(limits) == "RateLimits(openai: 60 requests/min and 90,000 tokens/min)"


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ([], "expected a mapping such as"),
        ({"openai": 60}, "expected a mapping with requests_per_minute"),
        ({"openai": {"requests_per_min": 60}}, "requests_per_minute and/or tokens_per_minute"),
        ({"openai": {}}, "'openai': a rate limit needs"),
        ({"openai": {"requests_per_minute": None}}, "a rate limit needs"),
        ({"openai": {"requests_per_minute": 0}}, "requests_per_minute=0: expected a number above"),
        ({"openai": {"tokens_per_minute": -1}}, "tokens_per_minute"),
        ({"openai": {"tokens_per_minute": float("nan")}}, "tokens_per_minute"),
        ({"openai": {"tokens_per_minute": float("inf")}}, "tokens_per_minute"),
        ({"openai": {"tokens_per_minute": "9"}}, "tokens_per_minute"),
        ({"openai": {"tokens_per_minute": True}}, "tokens_per_minute"),
        ({5: LUNA}, "expected a name"),
        ({" ": LUNA}, "expected a name"),
        ({"opnai": LUNA}, "there is no model or provider 'opnai'; openai is near"),
        ({"opnai:gpt-6-luna": LUNA}, "there is no model or provider"),
        ({"gpt-6-lunar": LUNA}, "gpt-6-luna is near"),
        ({"gpt-6-luna": LUNA, "openai:gpt-6-luna": LUNA}, "openai:gpt-6-luna has two limits"),
    ],
)
def test_what_cant_be_meant_is_refused(given: Any, word: str) -> None:
    """A limit that would silently hold for nothing, or not be one, is an error where it stands."""
    with pytest.raises(InvalidRequestError) as caught:
        read_rate_limits(given)
    assert word in caught.value.message


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (RateLimit(60), "60 requests/min"),
        (RateLimit(0.5, 1_234_567), "0.5 requests/min and 1,234,567 tokens/min"),
        (RateLimit(tokens_per_minute=90_000), "90,000 tokens/min"),
    ],
)
def test_a_limit_reads_as_one_would_write_it(limit: RateLimit, text: str) -> None:
    """The errors show the numbers that the user set."""
    assert str(limit) == text


# --- the process's limiters ----------------------------------------------------------------------


def test_clients_share_the_limiters() -> None:
    """A Client made for each view waits in the same line as all others."""
    first = read_rate_limits({"gpt-6-luna": LUNA})
    second = read_rate_limits({"openai:gpt-6-luna": LUNA})
    assert one(first, "openai", "gpt-6-luna") is one(second, "openai", "gpt-6-luna")


def test_another_address_or_limit_is_another_limiter() -> None:
    """One's own server doesn't count for the vendor, and two limits are kept apart."""
    limits = read_rate_limits({"openai": LUNA})
    other = read_rate_limits({"openai": {"requests_per_minute": 61, "tokens_per_minute": 90_000}})
    limiters = {
        id(one(limits, "openai", "gpt-6-luna")),
        id(one(limits, "openai", "gpt-6-luna", "http://localhost:1")),
        id(one(other, "openai", "gpt-6-luna")),
    }
    assert len(limiters) == 3


def test_a_process_keeps_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Model names that come from outside fill no memory."""
    monkeypatch.setattr(choosing, "MAX_LIMITERS", 10)
    monkeypatch.setattr(choosing, "MAX_NAMES", 10)
    limits = read_rate_limits({"*": LUNA})
    for number in range(100):
        assert limits.limiter_for("groq", f"made-up-{number}") is not None
    assert len(choosing._limiters.get()) == 10
    assert len(limits._found) <= 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_starts_anew() -> None:
    """A worker doesn't inherit a lock, or a line, of its parent's threads."""
    limits = read_rate_limits({"openai": LUNA})
    parent = one(limits, "openai", "gpt-6-luna")
    with parent._lock:
        child = os.fork()
        if child == 0:  # pragma: no cover - in the child
            signal.alarm(10)
            fresh = one(limits, "openai", "gpt-6-luna")
            with fresh.place(5):
                os._exit(0 if fresh is not parent else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
