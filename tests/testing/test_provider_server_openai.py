"""The official openai SDK reads whatever the provider server sends, whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

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


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    """A started server."""
    with ProviderServer() as started:
        yield started


@pytest.fixture
def openai_client(server: ProviderServer) -> Iterator[openai.OpenAI]:
    """The openai SDK, pointed at the server."""
    with openai.OpenAI(
        api_key="dummy", base_url=server.base_url("openai"), max_retries=0, timeout=10
    ) as client:
        yield client


def stream_chunks(
    client: openai.OpenAI, *, with_usage: bool = False
) -> Iterator[ChatCompletionChunk]:
    """The chunks of a streamed answer, as they come."""
    options: Any = {"stream_options": {"include_usage": True}} if with_usage else {}
    yield from client.chat.completions.create(
        model="gpt-x", messages=MESSAGES, stream=True, **options
    )


def test_openai_reads_a_plain_answer(server: ProviderServer, openai_client: openai.OpenAI) -> None:
    """The openai SDK finds text, model, request id and OpenAI's way of counting."""
    server.answer = COUNTED
    reply = openai_client.chat.completions.create(model="gpt-x", messages=MESSAGES)
    assert reply.choices[0].message.content == "one two three"
    assert reply.choices[0].message.tool_calls is None
    assert (reply.object, reply.model, reply._request_id) == (
        "chat.completion",
        "gpt-x",
        "req_fake",
    )
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == 100
    assert reply.usage.completion_tokens == 30
    assert reply.usage.total_tokens == 130
    assert reply.usage.prompt_tokens_details is not None
    assert reply.usage.prompt_tokens_details.cached_tokens == 40
    assert reply.usage.prompt_tokens_details.cache_write_tokens == 10
    assert reply.usage.completion_tokens_details is not None
    assert reply.usage.completion_tokens_details.reasoning_tokens == 5
    (request,) = server.requests
    assert (request.vendor, request.model, request.stream) == ("openai", "gpt-x", False)


def test_openai_reads_a_stream(server: ProviderServer, openai_client: openai.OpenAI) -> None:
    """The openai SDK reads each chunk, and usage only when it asked for it."""
    server.answer = Answer(chunks=["Hel", "lo \u2603"], finish_reason="length", model="gpt-other")
    chunks = list(stream_chunks(openai_client))
    texts = [chunk.choices[0].delta.content for chunk in chunks]
    assert texts == ["", "Hel", "lo \u2603", None]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "length"
    assert {chunk.model for chunk in chunks} == {"gpt-other"}
    assert {chunk.usage for chunk in chunks} == {None}

    counted = list(stream_chunks(openai_client, with_usage=True))
    assert counted[-1].choices == []
    assert counted[-1].usage is not None
    assert counted[-1].usage.total_tokens == 9
    assert server.requests[0].stream


def test_openai_reads_tool_calls(server: ProviderServer, openai_client: openai.OpenAI) -> None:
    """The openai SDK reads tool calls, plain and put together from a stream."""
    server.answer = WEATHER
    reply = openai_client.chat.completions.create(model="gpt-x", messages=MESSAGES)
    assert reply.choices[0].finish_reason == "tool_calls"
    assert reply.choices[0].message.content is None
    plain = reply.choices[0].message.tool_calls
    assert plain is not None
    with openai_client.chat.completions.stream(model="gpt-x", messages=MESSAGES) as stream:
        streamed = stream.get_final_completion().choices[0].message.tool_calls
    assert streamed is not None
    for calls in (plain, streamed):
        told = [
            (call.function.name, json.loads(call.function.arguments))
            for call in calls
            if call.type == "function"
        ]
        assert told == [("weather", {"city": "K\u00f6ln", "days": 3}), ("now", {})]
    assert len({call.id for call in [*plain, *streamed]}) == 4


@pytest.mark.parametrize(
    ("answer", "error", "code", "kind"),
    [
        (Answer(status=400), openai.BadRequestError, None, "invalid_request_error"),
        (Answer(status=401), openai.AuthenticationError, "invalid_api_key", None),
        (Answer(status=404), openai.NotFoundError, "model_not_found", None),
        (Answer(status=429), openai.RateLimitError, "rate_limit_exceeded", "requests"),
        (
            Answer(status=429, error_code="insufficient_quota"),
            openai.RateLimitError,
            "insufficient_quota",
            "insufficient_quota",
        ),
        (
            Answer(status=400, error_code="context_length_exceeded"),
            openai.BadRequestError,
            "context_length_exceeded",
            "invalid_request_error",
        ),
        (Answer(status=500), openai.InternalServerError, None, "server_error"),
        (Answer(status=599, error_type="own"), openai.InternalServerError, None, "own"),
    ],
)
def test_openai_raises_its_errors(
    server: ProviderServer,
    openai_client: openai.OpenAI,
    answer: Answer,
    error: type[openai.APIStatusError],
    code: str | None,
    kind: str | None,
) -> None:
    """The openai SDK makes its own error, with code, type and request id, of each status."""
    server.answer = answer
    with pytest.raises(error) as raised:
        list(stream_chunks(openai_client))
    assert raised.value.status_code == answer.status
    assert raised.value.code == code
    assert kind in (None, raised.value.type)
    assert raised.value.request_id == "req_fake"


def test_openai_sees_broken_streams(server: ProviderServer, openai_client: openai.OpenAI) -> None:
    """The openai SDK meets an error event, broken JSON, and a stream without an end."""
    server.script(
        Answer(error_event_after=2, error_message="went wrong"),
        Answer(malformed_after=1),
        Answer(chunks=["a", "b"], end_mark=False),
    )
    heard: list[str | None] = []
    with pytest.raises(openai.APIError, match="went wrong"):
        heard.extend(chunk.choices[0].delta.content for chunk in stream_chunks(openai_client))
    assert heard == ["", "Hello", " from"]
    with pytest.raises(json.JSONDecodeError):
        list(stream_chunks(openai_client))
    endless = list(stream_chunks(openai_client, with_usage=True))
    assert [chunk.choices[0].finish_reason for chunk in endless] == [None, None, None]


def test_openai_reads_the_side_routes(server: ProviderServer, openai_client: openai.OpenAI) -> None:
    """Models, token counts and embeddings have OpenAI's shapes."""
    assert [model.id for model in openai_client.models.list()] == ["fake-model"]
    assert openai_client.models.retrieve("gpt-x").id == "gpt-x"
    counted = openai_client.responses.input_tokens.count(model="gpt-x", input="Hi")
    assert counted.input_tokens == 7
    make = openai_client.embeddings.create
    packed = make(model="e", input=["a", "b", "a"]).data
    plain = make(model="e", input="a", encoding_format="float").data[0].embedding
    assert [entry.index for entry in packed] == [0, 1, 2]
    assert packed[0].embedding == packed[2].embedding != packed[1].embedding
    assert packed[0].embedding == pytest.approx(plain, abs=1e-6)
    assert sum(value * value for value in plain) == pytest.approx(1)
    assert len(make(model="e", input=[1, 2, 3], dimensions=3).data[0].embedding) == 3
    assert {request.vendor for request in server.requests} == {"openai"}
