"""What a Client does besides asking models, by the same forms of `model=` as its other methods."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from llmkit import (
    Client,
    InvalidRequestError,
    LLMTimeoutError,
    ModelNotFoundError,
    ProviderError,
    Settings,
    get_adapter,
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


@pytest.mark.parametrize(
    ("observers", "said"), [(print, "observers=<built-in"), (3, "observers=3"), ([3], "has 3")]
)
def test_what_is_no_observer_is_refused(observers: Any, said: str) -> None:
    """One function without brackets is said at once, rather than a TypeError from inside."""
    with pytest.raises(InvalidRequestError, match=said):
        Client("local:", observers=observers)


@pytest.mark.parametrize("nothing", ["", " "])
def test_an_empty_name_is_no_model(
    server: ProviderServer, settings: Settings, nothing: str
) -> None:
    """`os.environ.get("MODEL", "")` does not ask, and pay, a model that nobody has named."""
    client = Client(settings=settings)
    calls: list[Callable[[], object]] = [
        lambda: client.complete("hi", model=nothing),
        lambda: Client(nothing, settings=settings).complete("hi"),
        lambda: client.complete("hi", fallbacks=[nothing]),
        lambda: client.race("hi", ["openai:gpt-4o", nothing]),
    ]
    for call in calls:
        with pytest.raises(InvalidRequestError, match=f"model='{nothing}': expected a name"):
            call()
    assert server.requests == []


def test_none_is_no_model_in_a_list(server: ProviderServer, settings: Settings) -> None:
    """A None among fallbacks or racers does not mean the Client's own model."""
    with pytest.raises(InvalidRequestError, match="None is no model"):
        Client("openai:gpt-4o", fallbacks=[None], settings=settings)  # type: ignore[list-item]
    with pytest.raises(InvalidRequestError, match="None is no model"):
        Client(settings=settings).race("hi", ["openai:gpt-4o", None])  # type: ignore[list-item]
    assert server.requests == []


def test_a_client_can_be_made_of_an_adapter(server: ProviderServer) -> None:
    """An endpoint of one's own, with its address and key, is asked by all of a Client's calls."""
    base = server.base_url("openai")
    own = get_adapter("openai:my-own", api_key=fresh_key(), api_base=base)
    client = Client(own, timeout=20)
    assert client.complete("hi", use_cache=False).model == "my-own"
    with client.stream("hi", use_cache=False) as stream:
        assert "".join(stream.text_stream)
    assert client.count_tokens("hi") >= 1
    assert repr(client) == "Client(model=OpenAIAdapter('my-own', provider='openai'))"
