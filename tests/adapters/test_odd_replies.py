"""Replies that are not as asked, but not useless either; and what vendors count differently."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from llmkit import ProviderError, StreamInterruptedError
from llmkit.testing import Answer, ProviderServer
from llmkit.types import Usage
from tests.adapters.vendor_cases import ANTHROPIC, GEMINI, GROQ, OPENAI, OPENROUTER, Case


@pytest.mark.parametrize("case", [OPENAI, ANTHROPIC, OPENROUTER], ids=lambda case: case.provider)
def test_an_answer_instead_of_a_stream_is_taken(server: ProviderServer, case: Case) -> None:
    """A server that does not stream is not asked again, which would be billed again (synthetic)."""
    body = {
        "choices": [{"message": {"content": "all of it"}, "finish_reason": "stop"}],
        "content": [{"type": "text", "text": "all of it"}],
        "stop_reason": "end_turn",
    }
    server.answer = Answer(body=json.dumps(body), content_type="application/json")
    for _ in range(2):
        stream = case.adapter(server).stream("hi")
        assert list(stream.text_stream) == ["all of it"]
        assert (stream.completion.text, stream.completion.finish_reason) == ("all of it", "stop")
        assert any("instead of streaming" in note for note in stream.completion.warnings)
    assert len({request.connection for request in server.requests}) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_word_that_googles_sdk_does_not_know(server: ProviderServer, stream: bool) -> None:
    """The SDK warns of it where its types read a stream; warnings made errors are LLMErrors.

    Only a stream with the SDK's own parameters goes through the SDK's types.
    """
    server.answer = Answer("x", finish_reason="MOONSET")
    adapter = GEMINI.adapter(server)
    if stream:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            streamed = adapter.stream("hi", top_k=3)
            assert list(streamed.text_stream) == ["x"]
        assert any("MOONSET" in note for note in streamed.completion.warnings)
        assert any("MOONSET" in str(warning.message) for warning in caught)
        server.answer = Answer("", finish_reason="MOONSET")
        with pytest.raises(ProviderError, match="MOONSET") as refused:
            adapter.stream("hi", top_k=3)
        assert len(refused.value.attempts) == 1
        server.answer = Answer("x", finish_reason="MOONSET")
        raw = adapter.stream("hi")
        assert list(raw.text_stream) == ["x"]
        assert any("MOONSET" in note for note in raw.completion.warnings)
    else:
        assert any("MOONSET" in note for note in adapter.generate("hi").warnings)


# vendor, what it says of its tokens, what that means
COUNTED: dict[str, tuple[Case, dict[str, Any], Usage]] = {
    "docs.x.ai, prompt-caching/usage-and-pricing": (
        OPENAI,
        {
            "prompt_tokens": 125,
            "completion_tokens": 48,
            "total_tokens": 173,
            "prompt_tokens_details": {"text_tokens": 125, "cached_tokens": 98},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
        Usage(125, 48, 98, None, 0),
    ),
    "synthetic, after docs.cloud.google.com on Grok: reasoning beside the completion": (
        OPENAI,
        {
            "prompt_tokens": 10,
            "completion_tokens": 50,
            "total_tokens": 260,
            "completion_tokens_details": {"reasoning_tokens": 200},
        },
        Usage(10, 250, None, None, 200),
    ),
    "synthetic: reasoning inside the completion": (
        OPENAI,
        {
            "prompt_tokens": 10,
            "completion_tokens": 250,
            "total_tokens": 260,
            "completion_tokens_details": {"reasoning_tokens": 200},
        },
        Usage(10, 250, None, None, 200),
    ),
    "synthetic: no total": (
        OPENAI,
        {
            "prompt_tokens": 10,
            "completion_tokens": 250,
            "completion_tokens_details": {"reasoning_tokens": 200},
        },
        Usage(10, 250, None, None, 200),
    ),
    "synthetic, after docs.stigg.io on DeepSeek": (
        OPENAI,
        {
            "prompt_tokens": 30,
            "completion_tokens": 9,
            "total_tokens": 39,
            "prompt_cache_hit_tokens": 20,
            "prompt_cache_miss_tokens": 10,
            "completion_tokens_details": {"reasoning_tokens": 4},
        },
        Usage(30, 9, 20, None, 4),
    ),
    "synthetic, after github.com/vercel/ai pull request 17118: Groq": (
        GROQ,
        {
            "queue_time": 0.01,
            "prompt_tokens": 30,
            "completion_tokens": 9,
            "total_tokens": 39,
            "prompt_tokens_details": {"cached_tokens": 20},
            "completion_tokens_details": {"reasoning_tokens": 4},
        },
        Usage(30, 9, 20, None, 4),
    ),
    "openrouter.ai/docs/use-cases/usage-accounting": (
        OPENROUTER,
        {
            "completion_tokens": 2,
            "completion_tokens_details": {"reasoning_tokens": 0},
            "cost": 0.95,
            "cost_details": {"upstream_inference_cost": 19},
            "prompt_tokens": 194,
            "prompt_tokens_details": {
                "cached_tokens": 0,
                "cache_write_tokens": 100,
                "audio_tokens": 0,
            },
            "total_tokens": 196,
        },
        Usage(194, 2, 0, 100, 0),
    ),
    "the SDK's description of total_token_count: Google's own tools": (
        GEMINI,
        {
            "promptTokenCount": 10,
            "cachedContentTokenCount": 4,
            "candidatesTokenCount": 7,
            "toolUsePromptTokenCount": 100,
            "thoughtsTokenCount": 3,
            "totalTokenCount": 120,
        },
        Usage(110, 10, 4, None, 3),
    ),
}


@pytest.mark.parametrize("source", COUNTED)
def test_tokens_mean_the_same_for_all(server: ProviderServer, source: str) -> None:
    """Input includes cached tokens and output includes reasoning, however the vendor counts."""
    case, usage, meant = COUNTED[source]
    body = {
        "choices": [{"message": {"content": "x"}, "finish_reason": "stop"}],
        "candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}],
        "usage": usage,
        "usageMetadata": usage,
    }
    server.answer = Answer(body=json.dumps(body))
    assert case.adapter(server).generate("hi").usage == meant


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("case", [GROQ, OPENROUTER], ids=lambda case: case.provider)
def test_reasoning_is_not_the_answer(server: ProviderServer, case: Case, field: str) -> None:
    """The thoughts that some vendors send beside the answer stay out of its text (synthetic)."""
    message = {"content": "42", field: "Let me think."}
    body = {"choices": [{"message": message, "finish_reason": "stop"}]}
    server.answer = Answer(body=json.dumps(body))
    reply = case.adapter(server).generate("hi")
    assert reply.text == "42"
    assert reply.raw["choices"][0]["message"][field] == "Let me think."
    events: list[dict[str, Any]] = [
        {"choices": [{"delta": {field: "Let me think."}, "finish_reason": None}]},
        {"choices": [{"delta": {"content": "42"}, "finish_reason": None}]},
        {"choices": [{"delta": {}, "finish_reason": "stop"}]},
    ]
    server.answer = Answer(body="".join(f"data: {json.dumps(event)}\n\n" for event in events))
    assert list(case.adapter(server).stream("hi").text_stream) == ["42"]


@pytest.mark.parametrize("odd", [5, True, ["x"], {"x": 1}], ids=repr)
@pytest.mark.parametrize("field", ["id", "name"])
@pytest.mark.parametrize("case", [OPENAI, ANTHROPIC, GEMINI], ids=lambda case: case.provider)
def test_a_tool_calls_id_and_name_are_texts(
    server: ProviderServer, case: Case, field: str, odd: Any
) -> None:
    """What a program looks a tool up by is a text for every vendor, or the reply an error."""
    call = {"id": "c", "name": "f", "args": {}, "input": {}, field: odd}
    function = {"name": call["name"], "arguments": "{}"}
    message = {"content": "x", "tool_calls": [{"id": call["id"], "function": function}]}
    body = {
        "choices": [{"message": message, "finish_reason": "stop"}],
        "content": [{"type": "tool_use", **call}],
        "stop_reason": "tool_use",
        "candidates": [{"content": {"parts": [{"functionCall": call}]}, "finishReason": "STOP"}],
    }
    server.answer = Answer(body=json.dumps(body))
    with pytest.raises(ProviderError, match="expected a text"):
        case.adapter(server, max_retries=0).generate("hi")


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_id_is_a_text(server: ProviderServer, stream: bool) -> None:
    """Google's stands in the body, where it could be anything."""
    body = {
        "candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 1},
        "responseId": ["no", "text"],
    }
    adapter = GEMINI.adapter(server, max_retries=0)
    if not stream:
        server.answer = Answer(body=json.dumps(body))
        with pytest.raises(ProviderError, match="expected a text"):
            adapter.generate("hi")
        return
    server.answer = Answer(body=f"data: {json.dumps(body)}\n\n")
    with pytest.raises(StreamInterruptedError, match="expected a text"):
        list(adapter.stream("hi"))
