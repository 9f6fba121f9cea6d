"""The official anthropic SDK reads whatever the provider server sends, whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from llmkit.testing import Answer, ProviderServer

MESSAGES: list[Any] = [{"role": "user", "content": "Say something."}]
COUNTED = Answer(
    "one two three",
    input_tokens=100,
    output_tokens=30,
    cached_tokens=40,
    cache_write_tokens=10,
    reasoning_tokens=5,
)
WEATHER = Answer("", tool_calls=[("weather", {"city": "K\u00f6ln", "days": 3}), ("now", {})])
SAID_BESIDE_TOOLS = Answer("Looking it up.", tool_calls=[("now", {})])


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    """A started server."""
    with ProviderServer() as started:
        yield started


@pytest.fixture
def anthropic_client(server: ProviderServer) -> Iterator[anthropic.Anthropic]:
    """The anthropic SDK, pointed at the server."""
    with anthropic.Anthropic(
        api_key="dummy", base_url=server.base_url("anthropic"), max_retries=0, timeout=10
    ) as client:
        yield client


def anthropic_message(client: anthropic.Anthropic) -> anthropic.types.Message:
    """A plain answer."""
    return client.messages.create(model="claude-x", max_tokens=50, messages=MESSAGES)


def anthropic_stream(client: anthropic.Anthropic) -> anthropic.types.Message:
    """The message that the SDK puts together from a stream."""
    with client.messages.stream(model="claude-x", max_tokens=50, messages=MESSAGES) as stream:
        return stream.get_final_message()


def test_anthropic_reads_a_plain_answer(
    server: ProviderServer, anthropic_client: anthropic.Anthropic
) -> None:
    """The anthropic SDK finds text, model, request id and Anthropic's way of counting."""
    server.answer = COUNTED
    reply = anthropic_message(anthropic_client)
    assert [block.text for block in reply.content if block.type == "text"] == ["one two three"]
    assert (reply.stop_reason, reply.model) == ("end_turn", "claude-x")
    assert reply._request_id == "req_fake"
    assert reply.usage.input_tokens == 50
    assert reply.usage.cache_read_input_tokens == 40
    assert reply.usage.cache_creation_input_tokens == 10
    assert reply.usage.output_tokens == 30
    assert reply.usage.output_tokens_details is not None
    assert reply.usage.output_tokens_details.thinking_tokens == 5
    assert server.requests[0].vendor == "anthropic"


def test_anthropic_reads_a_stream(
    server: ProviderServer, anthropic_client: anthropic.Anthropic
) -> None:
    """The anthropic SDK puts a stream together to the same message as the plain answer."""
    server.answer = COUNTED
    plain = anthropic_message(anthropic_client)
    streamed = anthropic_stream(anthropic_client)
    assert streamed.model_dump(exclude={"id"}) == plain.model_dump(exclude={"id"})
    assert server.requests[1].stream
    with anthropic_client.messages.stream(
        model="claude-x", max_tokens=50, messages=MESSAGES
    ) as stream:
        assert list(stream.text_stream) == ["one", " two", " three"]


@pytest.mark.parametrize("answer", [WEATHER, SAID_BESIDE_TOOLS])
def test_anthropic_reads_tool_calls(
    server: ProviderServer, anthropic_client: anthropic.Anthropic, answer: Answer
) -> None:
    """The anthropic SDK reads tool calls, plain and put together from a stream."""
    server.answer = answer
    for reply in (anthropic_message(anthropic_client), anthropic_stream(anthropic_client)):
        assert reply.stop_reason == "tool_use"
        told = [(block.name, block.input) for block in reply.content if block.type == "tool_use"]
        assert told == [(name, dict(arguments)) for name, arguments in answer.tool_calls]
        said = [block.text for block in reply.content if block.type == "text"]
        assert said == ([answer.text] if answer.text else [])


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (402, anthropic.APIStatusError, "billing_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.APIStatusError, "overloaded_error"),
    ],
)
def test_anthropic_raises_its_errors(
    server: ProviderServer,
    anthropic_client: anthropic.Anthropic,
    status: int,
    error: type[anthropic.APIStatusError],
    kind: str,
) -> None:
    """The anthropic SDK makes its own error, with type and request id, of each status."""
    server.answer = Answer(status=status, error_message="no luck")
    with pytest.raises(error, match="no luck") as raised:
        anthropic_message(anthropic_client)
    assert raised.value.status_code == status
    assert raised.value.type == kind
    assert raised.value.request_id == "req_fake"
    assert raised.value.body == {
        "type": "error",
        "error": {"type": kind, "message": "no luck"},
        "request_id": "req_fake",
    }


def test_anthropic_tells_spend_limits_by_their_code(
    server: ProviderServer, anthropic_client: anthropic.Anthropic
) -> None:
    """An error code reaches the place where the anthropic SDK looks for it."""
    server.answer = Answer(status=429, error_code="contract_spend_limit_reached")
    with pytest.raises(anthropic.RateLimitError) as raised:
        anthropic_message(anthropic_client)
    assert type(raised.value).__name__ == "ContractSpendLimitReachedError"


def test_anthropic_sees_broken_streams(
    server: ProviderServer, anthropic_client: anthropic.Anthropic
) -> None:
    """The anthropic SDK meets an error event, broken JSON, and a stream without an end."""
    server.script(Answer(error_event_after=0), Answer(malformed_after=99), Answer(end_mark=False))
    with pytest.raises(anthropic.APIStatusError) as raised:
        anthropic_stream(anthropic_client)
    assert (raised.value.status_code, raised.value.type) == (200, "overloaded_error")
    with pytest.raises(json.JSONDecodeError):
        anthropic_stream(anthropic_client)
    assert anthropic_stream(anthropic_client).stop_reason is None


def test_anthropic_reads_the_side_routes(
    server: ProviderServer, anthropic_client: anthropic.Anthropic
) -> None:
    """Models and token counts have Anthropic's shapes."""
    assert [model.id for model in anthropic_client.models.list()] == ["fake-model"]
    assert anthropic_client.models.retrieve("claude-x").lifecycle == "active"
    counted = anthropic_client.messages.count_tokens(model="claude-x", messages=MESSAGES)
    assert counted.input_tokens == 7
    assert {request.vendor for request in server.requests} == {"anthropic"}
