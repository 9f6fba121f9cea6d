"""What a Client does besides asking models, by the same forms of `model=` as its other methods."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llmkit import (
    Client,
    InvalidRequestError,
    LLMTimeoutError,
    ModelNotFoundError,
    ProviderError,
    Settings,
)
from llmkit.testing import Answer, ProviderServer
from tests.adapters.vendor_cases import ANTHROPIC, OPENAI, fresh_key


@pytest.fixture
def settings(server: ProviderServer) -> Settings:
    """Settings by which OpenAI is asked at the server."""
    return Settings(
        primary_llm="openai:gpt-4o",
        openai_api_key=fresh_key(),
        openai_api_base=server.base_url("openai"),
    )


@pytest.mark.parametrize("method", ["count_tokens", "health_check", "stream"])
def test_a_model_is_said_in_the_same_way_everywhere(method: str) -> None:
    """The annotation of `model=` is that of `complete`: a name, an adapter, or None."""
    said = getattr(Client, method).__annotations__["model"]
    assert said == Client.complete.__annotations__["model"] == "str | BaseLLMAdapter | None"


def test_tokens_are_counted_for_each_form_of_a_model(
    server: ProviderServer, settings: Settings
) -> None:
    """A name, an adapter of the user's own, and the Client's own model all lead to a count."""
    client = Client(settings=settings)
    for model in (None, "gpt-4o", "openai:gpt-4o", ANTHROPIC.adapter(server)):
        assert client.count_tokens("Why is the sky blue?", model=model) > 3
        assert client.count_tokens("hi", model=model, exact=True).estimated is False
    assert [request.vendor for request in server.requests] == [*["openai"] * 3, "anthropic"]


def test_a_clients_limits_hold_for_the_counts_of_own_adapters(server: ProviderServer) -> None:
    """The Client's time-out and retries hold as in `complete`; a call's own time-out goes first."""
    server.answer = Answer(status=503)
    with pytest.raises(ProviderError):
        Client(max_retries=0).count_tokens("hi", model=OPENAI.adapter(server), exact=True)
    assert len(server.requests) == 1
    server.answer = Answer(delay=30)
    for client, timeout in ((Client(timeout=0.2), None), (Client(timeout=60), 0.2)):
        began = time.monotonic()
        with pytest.raises(LLMTimeoutError):
            client.count_tokens("hi", model=OPENAI.adapter(server), exact=True, timeout=timeout)
        assert time.monotonic() - began < 10


def test_health_is_checked_for_each_form_of_a_model(
    server: ProviderServer, settings: Settings
) -> None:
    """The report names the model that was meant, its pools and its circuit."""
    client = Client(settings=settings)
    own = ANTHROPIC.adapter(server)
    for model, name in ((None, "gpt-4o"), ("openai:gpt-4o", "gpt-4o"), (own, own.model)):
        report = client.health_check(model)
        assert (report["status"], report["model"], report["circuit"]) == ("healthy", name, "closed")
        assert all(pool.startswith(report["provider"]) for pool in report["pools"])
        assert report["pools"]


def test_a_model_that_can_not_be_meant_is_refused(settings: Settings) -> None:
    """As by `complete`: it is an error, and not a report of ill health."""
    client = Client(settings=settings)
    wrong: Any
    for wrong, kind in ((3, InvalidRequestError), ("no-such-model", ModelNotFoundError)):
        with pytest.raises(kind):
            client.count_tokens("hi", model=wrong)
        with pytest.raises(kind):
            client.health_check(wrong)
