"""Counting by the vendors' own endpoints, over real sockets with the real SDKs."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llmkit import (
    AnthropicAdapter,
    BaseLLMAdapter,
    ConfigurationError,
    GeminiAdapter,
    Image,
    InvalidRequestError,
    LLMError,
    LLMTimeoutError,
    Message,
    ModelNotFoundError,
    ProviderError,
    get_adapter,
)
from llmkit.adapters.local import local_server_url
from llmkit.request import Prompt
from llmkit.testing import Answer, ProviderServer
from llmkit.tokenizer import count_tokens
from tests.adapters.vendor_cases import (
    ANTHROPIC,
    GEMINI,
    GROQ,
    LOCAL,
    OPENAI,
    OPENROUTER,
    Case,
)

COUNTING = (OPENAI, ANTHROPIC, GEMINI, LOCAL)
MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": ["Ho"]},
    {"role": "user", "content": ["What is it?", Image(url="https://h/a.png")]},
]
SENT: dict[str, dict[str, Any]] = {
    "openai": {
        "input": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Ho"}]},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is it?"},
                    {"type": "input_image", "image_url": "https://h/a.png"},
                ],
            },
        ],
    },
    "anthropic": {
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "text", "text": "Ho"}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image", "source": {"type": "url", "url": "https://h/a.png"}},
                ],
            },
        ],
    },
    "gemini": {
        "contents": [
            {"role": "user", "parts": [{"text": "Be brief."}]},
            {"role": "user", "parts": [{"text": "Hi"}]},
            {"role": "model", "parts": [{"text": "Ho"}]},
            {
                "role": "user",
                "parts": [{"text": "What is it?"}, {"fileData": {"file_uri": "https://h/a.png"}}],
            },
        ],
    },
}

every_vendor = pytest.mark.parametrize("case", COUNTING, ids=lambda case: case.provider)


def failure(adapter: BaseLLMAdapter, **arguments: Any) -> LLMError:
    """The error of a count that must fail."""
    with pytest.raises(LLMError) as caught:
        adapter.count_tokens("Hi", exact=True, **arguments)
    assert (caught.value.provider, caught.value.model) == (adapter.provider, adapter.model)
    return caught.value


@every_vendor
def test_the_vendors_own_count(case: Case, server: ProviderServer) -> None:
    """One request to the counting endpoint, and its number is marked as no estimate."""
    server.script(Answer(input_tokens=123))
    count = case.adapter(server).count_tokens("Hi there", exact=True)
    assert (int(count), count.estimated) == (123, False)
    (request,) = server.requests
    assert request.operation == "count_tokens"


@every_vendor
def test_the_whole_prompt_is_sent(case: Case, server: ProviderServer) -> None:
    """Instructions, turns and pictures are all counted, in the endpoint's own words."""
    case.adapter(server).count_tokens(MESSAGES, exact=True)
    sent = server.requests[0].json
    assert {name: sent[name] for name in SENT[case.wire]} == SENT[case.wire]
    assert set(sent) - set(SENT[case.wire]) <= {"model"}


def test_googles_count_with_instructions_is_marked(server: ProviderServer) -> None:
    """Google's SDK counts no instructions; sent as a turn, they make the count an estimate."""
    adapter = GEMINI.adapter(server)
    assert adapter.count_tokens("Hi", exact=True).estimated is False
    assert adapter.count_tokens("Hi", system="Be brief.", exact=True).estimated is True


@every_vendor
def test_failures_are_those_of_calls(case: Case, server: ProviderServer) -> None:
    """A status has the code it has in a call, and what is worth it is tried again."""
    adapter = case.adapter(server)
    for status, code in ((401, "AUTHENTICATION_ERROR"), (400, "INVALID_REQUEST")):
        server.script(Answer(status=status))
        assert failure(adapter).code == code
    server.reset()
    server.script(Answer(status=503), Answer(status=429), Answer(input_tokens=9))
    assert adapter.count_tokens("Hi", exact=True) == 9
    assert len(server.requests) == 3
    server.script(Answer(status=503))
    assert failure(adapter, max_retries=0).code == "LLM_PROVIDER_ERROR"


@every_vendor
def test_the_time_out_holds(case: Case, server: ProviderServer) -> None:
    """A server that does not answer is given up when the time is over."""
    server.answer = Answer(delay=5)
    began = time.monotonic()
    assert isinstance(failure(case.adapter(server), timeout=0.3), LLMTimeoutError)
    assert time.monotonic() - began < 2


@every_vendor
def test_an_answer_without_a_number_is_the_vendors_fault(
    case: Case, server: ProviderServer
) -> None:
    """A reply of another form is a ProviderError, not a count of nothing."""
    server.answer = Answer(body=b'{"object": "something"}')
    assert isinstance(failure(case.adapter(server), max_retries=0), ProviderError)
    server.answer = Answer(body="<html>hello</html>", content_type="text/html")
    assert isinstance(failure(case.adapter(server), max_retries=0), ProviderError)


@pytest.mark.parametrize("case", [GROQ, OPENROUTER], ids=lambda case: case.provider)
def test_a_vendor_without_the_endpoint_says_so(case: Case, server: ProviderServer) -> None:
    """Nothing is sent to a vendor that is known not to count."""
    error = failure(case.adapter(server))
    assert isinstance(error, InvalidRequestError)
    assert f"{case.provider} has no endpoint that counts tokens" in error.message
    assert server.requests == []


def test_a_server_of_ones_own_without_the_endpoint_is_explained(server: ProviderServer) -> None:
    """A 404 that is not about the model is said to be about the endpoint."""
    server.script(Answer(status=404, error_code="not_found", error_message="Not Found"))
    error = failure(OPENAI.adapter(server))
    assert isinstance(error, InvalidRequestError)
    assert "has no endpoint /responses/input_tokens (" in error.message
    assert error.status == 404
    server.script(Answer(status=404))
    assert isinstance(failure(OPENAI.adapter(server)), ModelNotFoundError)


@every_vendor
def test_checks_before_any_network(case: Case, server: ProviderServer) -> None:
    """A prompt that can't be meant is refused before anything is sent."""
    adapter = case.adapter(server)
    prompts: tuple[Prompt, ...] = ("", [], [{"role": "user", "content": 5}])
    for prompt in prompts:
        with pytest.raises(InvalidRequestError):
            adapter.count_tokens(prompt, exact=True)
    assert server.requests == []


def test_a_missing_key_is_said() -> None:
    """Asking the vendor needs a key; an estimate doesn't."""
    adapter = get_adapter("claude-haiku-4-5")
    assert adapter.count_tokens("Hi there").estimated is True
    assert isinstance(failure(adapter), ConfigurationError)


def test_without_asking_it_is_the_tokenizers_count(server: ProviderServer) -> None:
    """By default nothing is sent, and instructions count as the message that they become."""
    adapter = OPENAI.adapter(server)
    system, user = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}
    assert adapter.count_tokens("Hi") == adapter.tokenize("Hi") == 1
    assert adapter.count_tokens([user]) == count_tokens(adapter.model, [user])
    prompts: tuple[Prompt, ...] = ("Hi", [user], (Message("user", "Hi"),))
    for prompt in prompts:
        both = adapter.count_tokens(prompt, system="Be brief.")
        assert both == count_tokens(adapter.model, [system, user])
    assert server.requests == []


@pytest.mark.parametrize("route", ["openai", "anthropic"])
def test_a_real_model_counts_what_it_then_reads(route: str) -> None:
    """The embedded server's count is that of the call's own usage, by both of its protocols."""
    adapter: BaseLLMAdapter = get_adapter("local:")
    if route == "anthropic":
        adapter = AnthropicAdapter("smollm2-135m", api_base=local_server_url(), api_key="none")
    for prompt in ("Hi there", "<|im_end|> привет 🎉" * 20):
        counted = adapter.count_tokens(prompt, system="Be kind.", exact=True)
        reply = adapter.generate(prompt, system="Be kind.", max_tokens=1)
        assert counted == reply.usage.input_tokens
        assert counted.estimated is False


def test_gemini_is_asked_through_its_sdk() -> None:
    """The class exists for users of either spelling."""
    assert isinstance(get_adapter("gemini:"), GeminiAdapter)
