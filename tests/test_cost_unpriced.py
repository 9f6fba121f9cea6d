"""A cost is exact or unknown: what no price is known of is never left out of it silently."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest

from llmkit import Client, Settings
from llmkit.cost import find_unpriced
from llmkit.testing import Answer, ProviderServer

HOUR = {"cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 5}}
SEARCHED = {"server_tool_use": {"web_search_requests": 1, "web_fetch_requests": 0}}


@pytest.mark.parametrize(
    ("provider", "raw", "what"),
    [
        ("openai", {"service_tier": "priority"}, "the service tier 'priority'"),
        ("openai", {"service_tier": "flex"}, "the service tier 'flex'"),
        ("openai", {"usage": {"prompt_tokens_details": {"audio_tokens": 9}}}, "sound"),
        ("openai", {"usage": {"completion_tokens_details": {"audio_tokens": 9}}}, "sound"),
        ("anthropic", {"usage": HOUR}, "caching for an hour"),
        ("anthropic", {"usage": SEARCHED}, "web searches"),
        ("anthropic", {"usage": {"inference_geo": "us"}}, "inference in the US alone"),
        ("anthropic", {"usage": {"speed": "fast"}}, "the fast mode"),
        ("anthropic", {"usage": {"service_tier": "priority"}}, "the service tier 'priority'"),
        (
            "gemini",
            {"candidates": [{"groundingMetadata": {"webSearchQueries": ["rain"]}}]},
            "web searches",
        ),
        ("gemini", {"usageMetadata": {"promptTokensDetails": [{"modality": "AUDIO"}]}}, "sound"),
        ("gemini", {"usageMetadata": {"serviceTier": "FLEX"}}, "the service tier 'FLEX'"),
    ],
)
def test_what_has_no_price_is_found(provider: str, raw: Mapping[str, Any], what: str) -> None:
    """Each thing that a vendor charges otherwise than tokens at its list prices is named."""
    assert find_unpriced(provider, raw) == what


@pytest.mark.parametrize(
    ("provider", "raw"),
    [
        ("openai", {"service_tier": "default", "usage": {"prompt_tokens_details": None}}),
        ("openai", {"service_tier": None, "usage": {"prompt_tokens_details": {"audio_tokens": 0}}}),
        ("groq", {"service_tier": "on_demand"}),
        ("anthropic", {"usage": {"service_tier": "standard", "inference_geo": "global"}}),
        ("anthropic", {"usage": {"server_tool_use": {"web_fetch_requests": 3}}}),
        ("gemini", {"candidates": [{"groundingMetadata": {}}], "usageMetadata": {}}),
        ("gemini", {"usageMetadata": {"serviceTier": "standard"}}),
        ("an own one", {"service_tier": "priority"}),
    ],
)
def test_what_is_usual_is_passed_over(provider: str, raw: Mapping[str, Any]) -> None:
    """Figures that mean nothing, or cost nothing, leave the cost as it is."""
    assert find_unpriced(provider, raw) is None


@pytest.mark.parametrize("provider", ["openai", "anthropic", "gemini"])
@pytest.mark.parametrize("odd", [None, 7, "text", [], [[]], [None], {}, {"x": 1}])
def test_odd_figures_break_nothing(provider: str, odd: object) -> None:
    """Beside an answer that was paid for, nonsense in its figures is no reason to lose it."""
    for name in ("usage", "usageMetadata", "candidates", "service_tier"):
        find_unpriced(provider, {name: odd})
    for name in ("cache_creation", "server_tool_use", "prompt_tokens_details", "service_tier"):
        find_unpriced(provider, {"usage": {name: odd}})
    find_unpriced(provider, {"usageMetadata": {"promptTokensDetails": odd, "serviceTier": odd}})
    find_unpriced(provider, {"candidates": [{"groundingMetadata": odd}]})


def test_a_reply_with_a_surcharge_has_no_cost_and_says_why() -> None:
    """The price of a service tier of its own is unknown, so the cost is None, with a warning."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-6-luna",
        "service_tier": "priority",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello!"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }
    with ProviderServer() as server:
        client = Client("gpt-6-luna", settings=settings_for(server))
        server.script(Answer(body=json.dumps(body)), Answer("Hello!"))
        reply = client.complete("hi", service_tier="priority")
        usual = client.complete("hi")
    assert (reply.text, reply.cost, reply.usage.total_tokens) == ("Hello!", None, 7)
    (warning,) = reply.warnings
    assert warning.endswith("the registry has no price of the service tier 'priority'")
    assert usual.cost is not None
    assert not usual.warnings


def test_a_stream_s_closing_figures_count_too() -> None:
    """Anthropic says at a stream's end what was searched: its cost is unknown, as a whole reply's.

    What `raw` says of the usage is what was said last.
    """
    start = {"usage": {"input_tokens": 9, "output_tokens": 1, "service_tier": "standard"}}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1", "role": "assistant", **start}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": "Rain."},
        },
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 3, **SEARCHED},
        },
        {"type": "message_stop"},
    ]
    body = "".join(f"event: {each['type']}\ndata: {json.dumps(each)}\n\n" for each in events)
    with ProviderServer() as server:
        client = Client("claude-haiku-5-5", settings=settings_for(server))
        server.script(Answer(body=body, content_type="text/event-stream"))
        with client.stream("Will it rain?") as stream:
            assert "".join(stream.text_stream) == "Rain."
    reply = stream.completion
    assert reply.cost is None
    assert reply.warnings[-1].endswith("the registry has no price of web searches")
    assert reply.raw["usage"]["output_tokens"] == reply.usage.output_tokens == 3


def settings_for(server: ProviderServer) -> Settings:
    return Settings(
        openai_api_key="sk-test",
        openai_api_base=server.base_url("openai"),
        anthropic_api_key="sk-test",
        anthropic_api_base=server.base_url("anthropic"),
    )
