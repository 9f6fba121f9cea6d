"""Rate limits around calls: what is waited for, given back, learnt, and never sent."""

from __future__ import annotations

import time

import pytest

from llmkit import Client, InvalidRequestError, RateLimitError, Settings
from llmkit.testing import Answer, ProviderServer

KEY = "sk-test-0123456789"
MODEL = "gpt-6-luna"


def limited(server: ProviderServer, **limits: int) -> Client:
    settings = Settings(openai_api_key=KEY, openai_api_base=server.base_url("openai"))
    return Client(MODEL, settings=settings, rate_limits={MODEL: limits})


def test_a_call_without_room_in_its_time_fails_at_once(server: ProviderServer) -> None:
    """What could only fail later fails now, as a rate limit, and nothing is sent."""
    client = limited(server, requests_per_minute=1)
    client.complete("hi")
    began = time.perf_counter()
    with pytest.raises(RateLimitError, match="own limit") as caught:
        client.complete("hi", timeout=5)

    assert time.perf_counter() - began < 2
    assert len(server.requests) == 1
    assert caught.value.model == MODEL
    assert caught.value.attempts == ()
    assert "vendor" not in caught.value.message


def test_a_fallback_is_asked_where_there_is_no_room(server: ProviderServer) -> None:
    """A model whose limit is used up hands over to the next one."""
    client = limited(server, requests_per_minute=1)
    client.complete("hi")
    assert client.complete("hi", timeout=5, fallbacks=["gpt-6-sol"]).model == "gpt-6-sol"


def test_tokens_that_were_not_used_are_given_back(server: ProviderServer) -> None:
    """A call is charged what it used, not what it might have used: complete calls and streams."""
    server.answer = Answer("word")
    client = limited(server, tokens_per_minute=6000)
    for _ in range(5):
        client.complete("hi", max_tokens=900, timeout=1)
    for _ in range(5):
        with client.stream("hi", max_tokens=900, first_chunk_timeout=1) as stream:
            list(stream)
    assert len(server.requests) == 10


def test_the_vendors_headers_are_obeyed(server: ProviderServer) -> None:
    """When the vendor says that nothing is left, the next call waits, whatever we counted."""
    server.answer = Answer(
        "fine",
        headers={"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "30s"},
    )
    client = limited(server, requests_per_minute=600)
    client.complete("hi")
    with pytest.raises(RateLimitError, match="own limit"):
        client.complete("hi", timeout=2)


def test_a_limit_that_cannot_be_meant_is_refused_when_the_client_is_made() -> None:
    """A misspelt limit is said at once, not in the thousandth call."""
    with pytest.raises(InvalidRequestError, match="rate_limits"):
        Client(MODEL, rate_limits={MODEL: {"request_per_minute": 60}})
