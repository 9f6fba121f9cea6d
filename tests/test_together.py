"""Everything at once, for some seconds; `python -m tests.together` does it by hand, for longer."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

import llmkit.pipeline.tries
from llmkit import Budget, Client, ErrorCode
from llmkit.breaker import CircuitBreaker
from llmkit.connection_pool import cleanup_connection_pools
from tests.deadline.calling import open_descriptors
from tests.together import WAYS, Together, annotate, left_behind, living_scopes, provider_process

THREADS, SECONDS = 32, 5.0


def test_no_answer_is_lost_or_crossed_and_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever comes together: the right answer or an LLMError, in time, and all is given back."""
    caplog.set_level("CRITICAL", "llmkit")
    monkeypatch.setenv("LLMKIT_CACHE_ENABLED", "yes")
    breakers: dict[str, CircuitBreaker] = {}

    def breaker_for(provider: str, model: str, address: str | None) -> CircuitBreaker:
        breaker = CircuitBreaker(cool_down=0.3, longest_cool_down=0.3)
        return breakers.setdefault(f"{provider}:{model} {address}", breaker)

    monkeypatch.setattr(llmkit.pipeline.tries, "breaker_for", breaker_for)
    budgets = [Budget(tokens=10**12), Budget(usd=10**6)]
    limits = {"openai": {"requests_per_minute": 3000, "tokens_per_minute": 10**7}}
    clients = [
        Client(middleware=[annotate], budget=budgets[0], rate_limits=limits),
        Client(cache=f"sqlite:///{tmp_path}/cache.db", budget=budgets[1]),
    ]
    with provider_process() as url:
        together = Together(url, THREADS, clients)
        together.warm_up()
        cleanup_connection_pools()
        gc.collect()
        descriptors, scopes = open_descriptors(), living_scopes()
        together.run(SECONDS)
        together.calm()
        left = left_behind(budgets, scopes)
        cleanup_connection_pools()
        gc.collect()

    assert together.wrong == []
    assert left == []
    assert open_descriptors() <= descriptors + THREADS  # a connection of each thread to SQLite
    asked = [breaker for name, breaker in breakers.items() if url in name]
    assert [breaker.state for breaker in asked] == ["closed"] * 3
    ended = {(way, how in ("answered", "left")) for way, how in together.outcomes}
    assert {(way, True) for way in WAYS} <= ended
    codes = {how for _, how in together.outcomes}
    assert {ErrorCode.LLM_TIMEOUT, ErrorCode.LLM_CANCELLED} <= codes
    assert any(how.startswith("from ") for how in codes)
