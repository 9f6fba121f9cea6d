"""A real language model through both of its routes: real tokens, real usage, real errors."""

from __future__ import annotations

import pytest

from llmkit import (
    AnthropicAdapter,
    BaseLLMAdapter,
    Client,
    ContextLengthError,
    Image,
    InvalidRequestError,
    get_adapter,
)
from llmkit.adapters.local import CONTEXT, SLOTS, local_server_url


@pytest.fixture(scope="module", params=["openai route", "anthropic route"])
def adapter(request: pytest.FixtureRequest) -> BaseLLMAdapter:
    """The embedded model, by each of the two protocols that its server speaks."""
    if request.param == "openai route":
        return get_adapter("local:")
    return AnthropicAdapter("smollm2-135m", api_base=local_server_url(), api_key="none-needed")


def test_it_answers(adapter: BaseLLMAdapter) -> None:
    """A real model writes a text, and counts its tokens."""
    reply = adapter.generate("Say hello.", system="You are helpful.", max_tokens=12)
    assert reply.text.strip()
    assert reply.finish_reason in ("stop", "length")
    assert reply.usage.input_tokens is not None
    assert reply.usage.input_tokens > 5
    assert reply.usage.output_tokens is not None
    assert 0 < reply.usage.output_tokens <= 12


def test_it_streams(adapter: BaseLLMAdapter) -> None:
    """The chunks of a real stream add up to its completion, usage included."""
    stream = adapter.stream("Count to ten.", system="You are helpful.", max_tokens=12)
    chunks = list(stream.text_stream)
    assert len(chunks) > 1
    assert "".join(chunks) == stream.completion.text
    assert stream.completion.usage.output_tokens is not None
    assert 0 < stream.completion.usage.output_tokens <= 12


def test_it_says_when_its_window_is_full(adapter: BaseLLMAdapter) -> None:
    """A real overflow is a ContextLengthError, in a complete call and in a stream."""
    prompt = "word " * (CONTEXT // SLOTS + 500)
    for call in (adapter.generate, adapter.stream):
        with pytest.raises(ContextLengthError) as caught:
            call(prompt, max_tokens=5)
        assert caught.value.status == 400


def test_it_stops_where_it_is_told(adapter: BaseLLMAdapter) -> None:
    """A length that is reached is the finish reason `length`."""
    reply = adapter.generate("Tell me a long story.", max_tokens=3, temperature=0.0)
    assert reply.finish_reason == "length"


def test_it_is_healthy() -> None:
    """The health check reaches the embedded server."""
    assert get_adapter("local:").health_check()["status"] == "healthy"


def test_it_refuses_pictures_at_once() -> None:
    """What it can't read is a wrong request, rather than a failure that is tried four times."""
    picture = Image(url="http://127.0.0.1:1/a.png")
    with pytest.raises(InvalidRequestError, match=r"local:smollm2-135m: .*no pictures"):
        Client("local:").complete([{"role": "user", "content": ["What is this?", picture]}])
