"""What the vendors get: the same as from the SDKs' own methods, whatever the environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from google import genai

from llmkit import ConfigurationError, InvalidRequestError
from llmkit.testing import Answer, ProviderServer, RecordedRequest
from tests.adapters.vendor_cases import ANTHROPIC, CASES, GEMINI, GROQ, OPENAI, Case, fresh_key

KEY = "warehouse000000sesame"
MESSAGES: list[Any] = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "ho"},
    {"role": "user", "content": [{"type": "text", "text": "Grüße 🌍"}]},
]
# Set by the HTTP client, or by how each side bounds its time and its compression.
OUR_OWN = {
    "accept-encoding",
    "content-length",
    "x-stainless-read-timeout",
    "x-stainless-timeout",
    "x-stainless-retry-count",
    "x-stainless-raw-response",
    "x-stainless-helper-method",
    "host",
    "connection",
}
# What the installed SDKs read by themselves (a search for `environ` and `getenv` in each).
ENVIRONMENT = {
    "OPENAI_API_KEY": "from-the-environment",
    "OPENAI_ADMIN_KEY": "admin-from-the-environment",
    "OPENAI_ORG_ID": "org-from-the-environment",
    "OPENAI_PROJECT_ID": "project-from-the-environment",
    "OPENAI_WEBHOOK_SECRET": "whsec-from-the-environment",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/from-the-environment",
    "OPENAI_CUSTOM_HEADERS": "X-Environment: yes\nAuthorization: Bearer from-the-environment",
    "OPENAI_API_TYPE": "azure",
    "OPENAI_API_VERSION": "2020-01-01",
    "AZURE_OPENAI_ENDPOINT": "http://127.0.0.1:9/azure",
    "AZURE_OPENAI_API_KEY": "azure-from-the-environment",
    "ANTHROPIC_API_KEY": "from-the-environment",
    "ANTHROPIC_AUTH_TOKEN": "token-from-the-environment",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:9/from-the-environment",
    "ANTHROPIC_CUSTOM_HEADERS": "X-Environment: yes\nX-Api-Key: from-the-environment",
    "ANTHROPIC_PROFILE": "from-the-environment",
    "ANTHROPIC_WEBHOOK_SIGNING_KEY": "whsec-from-the-environment",
    "ANTHROPIC_IDENTITY_TOKEN": "identity-from-the-environment",
    "ANTHROPIC_FEDERATION_RULE_ID": "rule-from-the-environment",
    "ANTHROPIC_ORGANIZATION_ID": "org-from-the-environment",
    "ANTHROPIC_WORKSPACE_ID": "workspace-from-the-environment",
    "ANTHROPIC_OPEN_TELEMETRY": "true",
    "ANTHROPIC_OPEN_TELEMETRY_PROPAGATION": "true",
    "ANTHROPIC_OPEN_TELEMETRY_TRACES_CONTENT_MODE": "full",
    "GOOGLE_API_KEY": "from-the-environment",
    "GEMINI_API_KEY": "from-the-environment",
    "GOOGLE_GENAI_API_KEY": "from-the-environment",
    "GOOGLE_GENAI_ACCESS_TOKEN": "token-from-the-environment",
    "GOOGLE_GENAI_DEFAULT_HEADERS": '{"X-Environment": "yes"}',
    "GOOGLE_GENAI_USE_VERTEXAI": "true",
    "GOOGLE_GENAI_USE_ENTERPRISE": "true",
    "GOOGLE_CLOUD_PROJECT": "project-from-the-environment",
    "GOOGLE_CLOUD_LOCATION": "europe-west1",
    "GOOGLE_GENAI_API_VERSION": "v9",
    "GOOGLE_GENAI_HTTP_CLIENT": "httpx2",
    "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:9/from-the-environment",
    "GOOGLE_VERTEX_BASE_URL": "http://127.0.0.1:9/from-the-environment",
    "GOOGLE_GENAI_CLIENT_MODE": "replay",
    "GOOGLE_GENAI_REPLAY_ID": "from-the-environment",
    "GOOGLE_API_USE_CLIENT_CERTIFICATE": "true",
    "GOOGLE_API_USE_MTLS_ENDPOINT": "always",
    "OTEL_TRACES_EXPORTER": "console",
    "OTEL_PROPAGATORS": "tracecontext,baggage",
    "OTEL_SERVICE_NAME": "from-the-environment",
}


def _essence(request: RecordedRequest, *left_out: str) -> dict[str, Any]:
    hidden = OUR_OWN | set(left_out)
    return {
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "headers": {name: value for name, value in request.headers.items() if name not in hidden},
        "json": request.json,
    }


@pytest.mark.parametrize("stream", [False, True])
def test_openai_gets_what_create_sends(server: ProviderServer, stream: bool) -> None:
    """URL, headers and body are those of `chat.completions.create`."""
    adapter = OPENAI.adapter(server)
    list(adapter.stream(MESSAGES, max_tokens=9)) if stream else adapter.generate(
        MESSAGES, max_tokens=9
    )
    client = openai.OpenAI(api_key=KEY, base_url=server.base_url("openai"), max_retries=0)
    more: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
    with client:
        reply = client.chat.completions.create(
            model="gpt-4o", messages=MESSAGES, max_completion_tokens=9, stream=stream, **more
        )
        if stream:
            list(reply)
    ours, theirs = server.requests
    theirs.json.update({} if stream else {"stream": ours.json.get("stream", False)})
    ours.json.setdefault("stream", False)
    assert _essence(ours) == _essence(theirs)


@pytest.mark.parametrize("stream", [False, True])
def test_anthropic_gets_what_create_sends(server: ProviderServer, stream: bool) -> None:
    """URL, headers and body are those of `messages.create`."""
    adapter = ANTHROPIC.adapter(server)
    arguments: dict[str, Any] = {"max_tokens": 9, "system": "Be brief."}
    list(adapter.stream(MESSAGES, **arguments)) if stream else adapter.generate(
        MESSAGES, **arguments
    )
    client = anthropic.Anthropic(api_key=KEY, base_url=server.url, max_retries=0)
    with client:
        if stream:
            arguments["stream"] = True
        reply = client.messages.create(model="claude-haiku-4-5", messages=MESSAGES, **arguments)
        if stream:
            list(reply)
    ours, theirs = server.requests
    assert _essence(ours) == _essence(theirs)


@pytest.mark.parametrize("stream", [False, True])
def test_gemini_gets_what_generate_content_sends(server: ProviderServer, stream: bool) -> None:
    """URL, headers and body are those of `models.generate_content` with the same settings."""
    adapter = GEMINI.adapter(server, model="gemini-of-tomorrow")
    asked: dict[str, Any] = {
        "max_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "seed": 7,
        "system": "Be brief.",
        "extra_body": {"generationConfig": {"topK": 3}},
        "extra_headers": {"x-team": "blue"},
    }
    list(adapter.stream("hi", **asked)) if stream else adapter.generate("hi", **asked)
    client = genai.Client(api_key=KEY, http_options={"base_url": server.url})
    config: Any = {
        "max_output_tokens": 9,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "seed": 7,
        "system_instruction": "Be brief.",
        "http_options": {
            "extra_body": {"generationConfig": {"topK": 3}},
            "headers": {"x-team": "blue"},
        },
    }
    if stream:
        list(
            client.models.generate_content_stream(
                model="gemini-of-tomorrow", contents="hi", config=config
            )
        )
    else:
        client.models.generate_content(model="gemini-of-tomorrow", contents="hi", config=config)
    ours, theirs = server.requests
    assert _essence(ours) == _essence(theirs)
    client.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.provider)
def test_the_environment_changes_nothing(
    server: ProviderServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    case: Case,
) -> None:
    """Whatever an SDK reads from the environment by itself, the requests stay the same."""

    def ask(key: str) -> list[dict[str, Any]]:
        adapter = case.adapter(server, api_key=key)
        adapter.generate("hi", max_tokens=9)
        list(adapter.stream("hi", max_tokens=9))
        adapter.health_check()
        asked = [
            {**_essence(request, "authorization", "x-api-key", "x-goog-api-key"), "key": True}
            for request in server.requests
        ]
        assert all(case.key_in(request) == key for request in server.requests)
        server.reset()
        return asked

    before = ask(fresh_key())
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ANTHROPIC_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("GOOGLE_GENAI_REPLAYS_DIRECTORY", str(tmp_path))
    # Another key, so that the SDK client is built anew, in this environment.
    assert ask(fresh_key()) == before
    assert len(before) == 3


def test_an_http_client_that_is_missing_is_named(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one variable of google-genai that no argument overrides is named when it can't be met."""
    monkeypatch.setenv("GOOGLE_GENAI_HTTP_CLIENT", "httpx")
    monkeypatch.setattr("google.genai._api_client.httpx", None)
    with pytest.raises(ConfigurationError, match="GOOGLE_GENAI_HTTP_CLIENT"):
        GEMINI.adapter(server, api_key=fresh_key()).generate("hi")


def test_gemini_continues_nothing_by_itself(server: ProviderServer) -> None:
    """The SDK would ask again for CONTINUATION and for tools; here nothing is uncounted."""
    server.answer = Answer("part", finish_reason="CONTINUATION")
    body = (
        b'{"candidates": [{"content": {"parts": [{"text": "part"}]}, "finishReason": '
        b'"CONTINUATION", "continuationToken": "AAAA"}], "usageMetadata": {}}'
    )
    adapter = GEMINI.adapter(server)
    server.answer = Answer(body=body)
    assert any("CONTINUATION" in note for note in adapter.generate("hi").warnings)
    server.answer = Answer(body=b"data: " + body + b"\n\n")
    list(adapter.stream("hi"))
    assert len(server.requests) == 2


def test_a_vendors_parameter_adds_to_ours(server: ProviderServer) -> None:
    """A vendor's own object does not wipe out what llmkit puts into the same object."""
    stream = OPENAI.adapter(server).stream("hi", stream_options={"include_obfuscation": False})
    list(stream)
    assert server.requests[-1].json["stream_options"] == {
        "include_usage": True,
        "include_obfuscation": False,
    }
    assert stream.completion.usage.input_tokens == 7
    adapter = ANTHROPIC.adapter(server, model="claude-opus-5-5")
    adapter.generate("hi", reasoning_effort="low", output_config={"format": {"type": "x"}})
    assert server.requests[-1].json["output_config"] == {"effort": "low", "format": {"type": "x"}}
    GEMINI.adapter(server).generate(
        "hi", reasoning_effort="low", thinking_config={"include_thoughts": True}
    )
    thinking = server.requests[-1].json["generationConfig"]["thinkingConfig"]
    assert thinking == {"thinking_level": "LOW", "include_thoughts": True}


def test_the_first_of_several_answers_counts(server: ProviderServer) -> None:
    """Streams of several answers at once are not mixed into one text (synthetic)."""
    server.answer = Answer(
        body='data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
        'data: {"choices": [{"index": 1, "delta": {"content": "X"}}]}\n\n'
        'data: {"choices": [{"index": 1, "delta": {}, "finish_reason": "length"}]}\n\n'
        'data: {"choices": [{"index": 0, "delta": {"content": "b"}}]}\n\n'
        'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    )
    stream = OPENAI.adapter(server).stream("hi", n=2)
    list(stream)
    assert (stream.completion.text, stream.completion.finish_reason) == ("ab", "stop")
    server.answer = Answer(
        body='data: {"candidates": [{"content": {"parts": [{"text": "a"}]}}]}\n\n'
        'data: {"candidates": [{"index": 1, "content": {"parts": [{"text": "X"}]}}]}\n\n'
        'data: {"candidates": [{"finishReason": "STOP"}], "usageMetadata": {}}\n\n'
    )
    stream = GEMINI.adapter(server).stream("hi", candidate_count=2)
    list(stream)
    assert stream.completion.text == "a"


def test_calls_without_numbers_are_told_apart(server: ProviderServer) -> None:
    """A compatible server that numbers no tool calls begins each with an id (synthetic)."""
    server.answer = Answer(
        body='data: {"choices": [{"delta": {"tool_calls": [{"id": "a", "function": '
        '{"name": "one", "arguments": "{\\"x\\""}}]}}]}\n\n'
        'data: {"choices": [{"delta": {"tool_calls": [{"function": {"arguments": ": 1}"}}]}}]}\n\n'
        'data: {"choices": [{"delta": {"tool_calls": [{"id": "b", "function": '
        '{"name": "two"}}]}, "finish_reason": "tool_calls"}]}\n\n'
    )
    stream = GROQ.adapter(server).stream("hi")
    list(stream)
    calls = stream.completion.tool_calls
    assert [(call.id, call.name, call.arguments) for call in calls] == [
        ("a", "one", {"x": 1}),
        ("b", "two", {}),
    ]


def _delta(index: int, kind: str, **more: str) -> dict[str, Any]:
    delta = {"type": kind, **more}
    return {"type": "content_block_delta", "index": index, "delta": delta}


def test_anthropics_own_tools_do_not_break_a_stream(server: ProviderServer) -> None:
    """Blocks that are none of ours (thinking, server tools) are passed over (synthetic)."""
    blocks: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"usage": {"input_tokens": 3}}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking"}},
        _delta(0, "thinking_delta", thinking="hm"),
        {"type": "content_block_start", "index": 1, "content_block": {"type": "server_tool_use"}},
        _delta(1, "input_json_delta", partial_json="{}"),
        _delta(2, "text_delta", text="found"),
        {"type": "something_new"},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 5},
        },
        {"type": "message_stop"},
    ]
    server.answer = Answer(body="".join(f"data: {json.dumps(block)}\n\n" for block in blocks))
    stream = ANTHROPIC.adapter(server).stream("hi")
    assert list(stream.text_stream) == ["found"]
    assert stream.completion.tool_calls == ()
    assert stream.completion.usage.total_tokens == 8


def test_a_stream_s_raw_makes_up_no_usage(server: ProviderServer) -> None:
    """Where an own server of Anthropic's protocol counts no tokens, `raw` has no usage either."""
    blocks: list[dict[str, Any]] = [
        {"type": "message_start", "message": {"id": "msg_1"}},
        _delta(0, "text_delta", text="found"),
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        {"type": "message_stop"},
    ]
    server.answer = Answer(body="".join(f"data: {json.dumps(block)}\n\n" for block in blocks))
    stream = ANTHROPIC.adapter(server).stream("hi")
    assert "".join(stream.text_stream) == "found"
    assert stream.completion.raw == {"id": "msg_1", "stop_reason": "end_turn"}
    assert stream.completion.usage.total_tokens is None


def test_a_plain_call_asks_for_no_stream(server: ProviderServer) -> None:
    """`stream` in a plain call's body is refused, rather than paid four times for nothing."""
    adapter = OPENAI.adapter(server)
    with pytest.raises(InvalidRequestError, match=r"Client\.stream"):
        adapter.generate("hi", extra_body={"stream": True})
    assert server.requests == []
    assert "".join(adapter.stream("hi", extra_body={"stream": True}).text_stream)
