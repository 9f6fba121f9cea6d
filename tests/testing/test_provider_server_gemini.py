"""The official google-genai SDK reads whatever the provider server sends, whole."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from google import genai
from google.genai import errors as genai_errors, types as genai_types

from llmkit.testing import Answer, ProviderServer
from tests.testing.http_clients import ask, connect

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
def gemini_client(server: ProviderServer) -> Iterator[genai.Client]:
    """The google-genai SDK, pointed at the server."""
    options = genai_types.HttpOptions(base_url=server.base_url("gemini"), timeout=10_000)
    with genai.Client(api_key="dummy", enterprise=False, http_options=options) as client:
        yield client


def gemini_stream(client: genai.Client) -> list[genai_types.GenerateContentResponse]:
    """The chunks of a streamed answer."""
    return list(client.models.generate_content_stream(model="gemini-x", contents="Say something."))


def gemini_reply(client: genai.Client) -> genai_types.GenerateContentResponse:
    """A plain answer."""
    return client.models.generate_content(model="gemini-x", contents="Say something.")


def test_gemini_reads_a_plain_answer(server: ProviderServer, gemini_client: genai.Client) -> None:
    """The google-genai SDK finds text, model and Gemini's way of counting."""
    server.answer = COUNTED
    reply = gemini_reply(gemini_client)
    assert reply.text == "one two three"
    assert reply.model_version == "gemini-x"
    assert reply.candidates is not None
    assert reply.candidates[0].finish_reason is genai_types.FinishReason.STOP
    usage = reply.usage_metadata
    assert usage is not None
    assert usage.prompt_token_count == 100
    assert usage.cached_content_token_count == 40
    assert usage.candidates_token_count == 25
    assert usage.thoughts_token_count == 5
    assert usage.total_token_count == 130
    (request,) = server.requests
    assert (request.vendor, request.model, request.stream) == ("gemini", "gemini-x", False)


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_gemini_reads_a_stream(server: ProviderServer, version: str) -> None:
    """The google-genai SDK reads each chunk, with the answer's counts in the last."""
    server.answer = Answer(chunks=["Hel", "lo \u2603"], finish_reason="length")
    options = genai_types.HttpOptions(base_url=server.url, api_version=version)
    with genai.Client(api_key="dummy", enterprise=False, http_options=options) as client:
        chunks = gemini_stream(client)
    assert [chunk.text for chunk in chunks] == ["Hel", "lo \u2603", ""]
    reasons = [chunk.candidates[0].finish_reason for chunk in chunks if chunk.candidates]
    assert reasons == [None, None, genai_types.FinishReason.MAX_TOKENS]
    assert chunks[-1].usage_metadata is not None
    assert chunks[-1].usage_metadata.total_token_count == 9
    (request,) = server.requests
    assert request.path == f"/{version}/models/gemini-x:streamGenerateContent"
    assert request.stream


def test_gemini_reads_tool_calls(server: ProviderServer, gemini_client: genai.Client) -> None:
    """The google-genai SDK reads tool calls, plain and streamed."""
    server.answer = WEATHER
    streamed = [call for chunk in gemini_stream(gemini_client) for call in _calls(chunk)]
    for calls in (_calls(gemini_reply(gemini_client)), streamed):
        told = [(call.name, call.args) for call in calls]
        assert told == [("weather", {"city": "K\u00f6ln", "days": 3}), ("now", {})]


def _calls(reply: genai_types.GenerateContentResponse) -> list[genai_types.FunctionCall]:
    return reply.function_calls or []


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (400, genai_errors.ClientError, "INVALID_ARGUMENT"),
        (403, genai_errors.ClientError, "PERMISSION_DENIED"),
        (429, genai_errors.ClientError, "RESOURCE_EXHAUSTED"),
        (500, genai_errors.ServerError, "INTERNAL"),
        (503, genai_errors.ServerError, "UNAVAILABLE"),
    ],
)
def test_gemini_raises_its_errors(
    server: ProviderServer,
    gemini_client: genai.Client,
    status: int,
    error: type[genai_errors.APIError],
    told: str,
) -> None:
    """The google-genai SDK makes its own error, with status and message, of each HTTP status."""
    server.answer = Answer(status=status, error_message="no luck")
    with pytest.raises(error) as raised:
        gemini_stream(gemini_client)
    assert (raised.value.code, raised.value.status) == (status, told)
    assert raised.value.message == "no luck"


def test_gemini_errors_carry_google_details(
    server: ProviderServer, gemini_client: genai.Client
) -> None:
    """Reason and retry delay stand where Google puts them."""
    server.answer = Answer(status=429, error_code="QUOTA", headers={"Retry-After": "3"})
    with pytest.raises(genai_errors.ClientError) as raised:
        gemini_reply(gemini_client)
    details = raised.value.details["error"]["details"]
    assert details[0]["reason"] == "QUOTA"
    assert details[1]["retryDelay"] == "3s"


def test_gemini_sees_broken_streams(server: ProviderServer, gemini_client: genai.Client) -> None:
    """The google-genai SDK meets an error event, broken JSON, and a stream without an end."""
    server.script(Answer(error_event_after=1), Answer(malformed_after=1), Answer(end_mark=False))
    with pytest.raises(genai_errors.ServerError) as raised:
        gemini_stream(gemini_client)
    assert (raised.value.code, raised.value.status) == (503, "UNAVAILABLE")
    with pytest.raises(genai_errors.UnknownApiResponseError):
        gemini_stream(gemini_client)
    endless = gemini_stream(gemini_client)
    assert "".join(chunk.text or "" for chunk in endless) == Answer().text
    reasons = {chunk.candidates[0].finish_reason for chunk in endless if chunk.candidates}
    assert reasons == {None}


def test_gemini_reads_the_side_routes(server: ProviderServer, gemini_client: genai.Client) -> None:
    """Models, token counts and embeddings have Gemini's shapes."""
    assert [model.name for model in gemini_client.models.list()] == ["models/fake-model"]
    assert gemini_client.models.get(model="gemini-x").name == "models/gemini-x"
    counted = gemini_client.models.count_tokens(model="gemini-x", contents="Hi")
    assert counted.total_tokens == 7
    texts: list[Any] = ["a", "b"]  # the SDK's own union of lists takes no list[str]
    made = gemini_client.models.embed_content(
        model="gemini-embedding-001",
        contents=texts,
        config=genai_types.EmbedContentConfig(output_dimensionality=3),
    )
    assert made.embeddings is not None
    assert [len(entry.values or []) for entry in made.embeddings] == [3, 3]
    assert made.embeddings[0].values != made.embeddings[1].values
    assert {request.vendor for request in server.requests} == {"gemini"}


@pytest.mark.parametrize(
    ("answer", "events"),
    [
        (Answer(chunks=["a", "b"]), 3),
        (Answer(chunks=["a", "b"], end_mark=False), 2),
        (Answer(chunks=[], end_mark=False), 0),
        (Answer(chunks=["a", "b"], error_event_after=1), 2),
        (Answer(chunks=["a", "b"], error_event_after=0), 1),
    ],
)
def test_gemini_streams_a_json_array_without_sse(
    server: ProviderServer, answer: Answer, events: int
) -> None:
    """A client that asks for no server-sent events gets one JSON array, as from Google."""
    server.answer = answer
    path = "/v1beta/models/gemini-x:streamGenerateContent"
    with contextlib.closing(connect(server)) as connection:
        response, body = ask(connection, path=path)
    assert response.getheader("content-type") == "application/json; charset=UTF-8"
    assert len(json.loads(body)) == events
    assert server.requests[0].stream
