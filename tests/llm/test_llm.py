"""The documented suite: what the module-level interface promises, class by class.

`python -m pytest tests/llm/ -v`, `-k "TestLLMAdapters"` and `-k "not openai_api"` work as
documented. Everything runs against a provider on loopback; the tests with `_api` in their name
need a paid key and say so when they skip.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest
from pytest_mock import MockerFixture

import llmkit
from llmkit import (
    AnthropicAdapter,
    BaseLLMAdapter,
    Completion,
    ErrorCode,
    GeminiAdapter,
    LLMError,
    OpenAIAdapter,
    get_adapter,
    get_llm_factory,
)
from llmkit.connection_pool import cleanup_connection_pools, get_connection_pool, health_check
from llmkit.models import get_model_info, list_available_models
from llmkit.performance import LLMPerformanceTracker, get_performance_tracker
from llmkit.testing import Answer, ProviderServer
from llmkit.tokenizer import count_tokens, get_token_limit


@pytest.fixture
def test_prompt() -> str:
    return "Explain in one sentence why the sky is blue."


@pytest.fixture
def test_messages() -> list[dict[str, str]]:
    return [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Why is the sky blue?"},
        {"role": "assistant", "content": "Because of Rayleigh scattering."},
        {"role": "user", "content": "And at sunset?"},
    ]


def _adapter(model: str, server: ProviderServer) -> BaseLLMAdapter:
    provider: Any = get_model_info(model).provider
    return get_adapter(model, api_key="sk-test-0123456789", api_base=server.base_url(provider))


@pytest.fixture
def openai_adapter(server: ProviderServer) -> BaseLLMAdapter:
    return _adapter("gpt-6-luna", server)


@pytest.fixture
def anthropic_adapter(server: ProviderServer) -> BaseLLMAdapter:
    return _adapter("claude-haiku-5-5", server)


@pytest.fixture
def gemini_adapter(server: ProviderServer) -> BaseLLMAdapter:
    return _adapter("gemini-3.8-flash", server)


@pytest.fixture
def mock_openai_adapter(mocker: MockerFixture) -> BaseLLMAdapter:
    adapter = get_adapter("gpt-6-luna", api_key="sk-test-0123456789")
    mocker.patch.object(
        adapter,
        "_generate_text",
        return_value={
            "choices": [{"text": "A mocked answer."}],
            "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
        },
    )
    return adapter


class TestLLMAdapters:
    """Adapters: made, asked, and failing as documented."""

    @pytest.mark.parametrize(
        ("model", "kind", "provider"),
        [
            ("gpt-6-luna", OpenAIAdapter, "openai"),
            ("claude-haiku-5-5", AnthropicAdapter, "anthropic"),
            ("gemini-3.8-flash", GeminiAdapter, "gemini"),
        ],
    )
    def test_adapter_initialization(
        self, model: str, kind: type[BaseLLMAdapter], provider: str
    ) -> None:
        """A model's name finds its vendor's adapter, which is ready once it has a key."""
        adapter = get_adapter(model, api_key="sk-test-0123456789")

        assert isinstance(adapter, kind)
        assert (adapter.model, adapter.provider) == (model, provider)
        assert not adapter.initialized
        assert adapter.ensure_initialized() is True
        assert adapter.initialized

    def test_initialization_without_key(self) -> None:
        """A missing key is said before any network, with the variable's name."""
        with pytest.raises(LLMError, match="OPENAI_API_KEY") as caught:
            get_adapter("gpt-6-luna").ensure_initialized()

        assert caught.value.code is ErrorCode.CONFIGURATION_ERROR

    def test_openai_text_generation(
        self, openai_adapter: BaseLLMAdapter, server: ProviderServer, test_prompt: str
    ) -> None:
        """An OpenAI model's answer can be read as an object and as the documented mapping."""
        server.answer = Answer("Rayleigh scattering.", input_tokens=11, output_tokens=3)

        reply = openai_adapter.generate(test_prompt, max_tokens=50)

        assert reply.text == reply["choices"][0]["text"] == "Rayleigh scattering."
        assert reply["usage"] == {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}
        assert (reply["model"], reply["provider"]) == ("gpt-6-luna", "openai")
        assert reply["request_time"] == reply.latency > 0
        assert server.requests[0].json["max_completion_tokens"] == 50

    def test_anthropic_text_generation(
        self, anthropic_adapter: BaseLLMAdapter, server: ProviderServer, test_prompt: str
    ) -> None:
        """An Anthropic model answers the same call; its required max_tokens is filled in."""
        server.answer = Answer("Rayleigh scattering.", input_tokens=11, output_tokens=3)

        reply = anthropic_adapter.generate(test_prompt)

        assert reply["choices"][0]["text"] == "Rayleigh scattering."
        assert reply["usage"]["total_tokens"] == 14
        sent = server.requests[0].json["max_tokens"]
        assert sent == get_model_info("claude-haiku-5-5").max_output_tokens

    def test_gemini_text_generation(
        self, gemini_adapter: BaseLLMAdapter, server: ProviderServer, test_prompt: str
    ) -> None:
        """A Gemini model answers the same call."""
        server.answer = Answer("Rayleigh scattering.", input_tokens=11, output_tokens=3)

        reply = gemini_adapter.generate(test_prompt, max_tokens=50)

        assert reply["choices"][0]["text"] == "Rayleigh scattering."
        assert reply["usage"]["total_tokens"] == 14
        assert server.requests[0].json["generationConfig"]["maxOutputTokens"] == 50

    @pytest.mark.parametrize("fixture", ["openai_adapter", "anthropic_adapter", "gemini_adapter"])
    def test_chat_messages(
        self,
        fixture: str,
        request: pytest.FixtureRequest,
        server: ProviderServer,
        test_messages: list[dict[str, str]],
    ) -> None:
        """A conversation reaches every vendor with its system prompt and all its turns."""
        adapter: BaseLLMAdapter = request.getfixturevalue(fixture)

        adapter.generate(test_messages)

        body = server.requests[0].body.decode()
        for message in test_messages:
            assert message["content"] in body

    def test_mocked_generation(self, mock_openai_adapter: BaseLLMAdapter, test_prompt: str) -> None:
        """A test may replace `_generate_text` and return a plain mapping."""
        reply = mock_openai_adapter.generate(test_prompt)

        assert isinstance(reply, Completion)
        assert reply.text == "A mocked answer."
        assert reply.usage.total_tokens == 13

    def test_error_code_of_a_mocked_failure(
        self, mock_openai_adapter: BaseLLMAdapter, mocker: MockerFixture, test_prompt: str
    ) -> None:
        """What is raised says by its code what went wrong, and names the model."""
        failure = LLMError(code="LLM_RATE_LIMIT", message="too many requests", retry_after=0.0)
        generate = mocker.patch.object(mock_openai_adapter, "_generate_text", side_effect=failure)

        with pytest.raises(LLMError) as caught:
            mock_openai_adapter.generate(test_prompt, max_retries=2)

        assert caught.value.code is ErrorCode.LLM_RATE_LIMIT
        assert caught.value.model == "gpt-6-luna"
        assert generate.call_count == len(caught.value.attempts) == 3

    def test_retry_switched_off(
        self, openai_adapter: BaseLLMAdapter, server: ProviderServer, test_prompt: str
    ) -> None:
        """`retry_on_failure=False` sends one request and no more."""
        server.answer = Answer(status=503)

        with pytest.raises(LLMError) as caught:
            openai_adapter.generate(test_prompt, retry_on_failure=False)

        assert caught.value.code is ErrorCode.LLM_PROVIDER_ERROR
        assert len(server.requests) == 1

    def test_generation_with_openai_api(self, test_prompt: str) -> None:
        """The real OpenAI API answers."""
        _ask_for_real("OPENAI_API_KEY", "openai:gpt-6-luna", test_prompt)

    def test_generation_with_anthropic_api(self, test_prompt: str) -> None:
        """The real Anthropic API answers."""
        _ask_for_real("ANTHROPIC_API_KEY", "anthropic:claude-haiku-5-5", test_prompt)

    def test_generation_with_gemini_api(self, test_prompt: str) -> None:
        """The real Gemini API answers."""
        _ask_for_real("GEMINI_API_KEY", "gemini:gemini-3.8-flash", test_prompt)


def _ask_for_real(variable: str, model: str, prompt: str) -> None:
    key = os.environ.get(variable)
    if not key:
        pytest.skip(f"{variable} is not set: a paid key is needed")
    reply = get_adapter(model, api_key=key).generate(prompt, max_tokens=200)
    assert reply.text
    assert reply.usage.total_tokens


class TestLLMConnections:
    """Connection pools: shared, reused, closed."""

    @pytest.fixture(autouse=True)
    def closed_pools(self) -> Iterator[None]:
        cleanup_connection_pools()
        yield
        cleanup_connection_pools()

    def test_connection_pool_reuse(
        self, openai_adapter: BaseLLMAdapter, server: ProviderServer, test_prompt: str
    ) -> None:
        """One provider has one pool, and calls one after the other use one connection."""
        assert get_connection_pool("openai") is get_connection_pool("openai")
        assert get_connection_pool("openai") is not get_connection_pool("anthropic")

        for _ in range(5):
            openai_adapter.generate(test_prompt)

        assert len({request.connection for request in server.requests}) == 1

    def test_own_request_over_the_pool(self, server: ProviderServer) -> None:
        """The pool is an HTTP client that a user can use for requests of their own."""
        response = get_connection_pool("openai").get(f"{server.url}/v1/models")

        assert response.status_code == 200

    def test_pool_health_check(self, openai_adapter: BaseLLMAdapter, test_prompt: str) -> None:
        """The health check counts connections without making one."""
        assert health_check("openai") == {}

        openai_adapter.generate(test_prompt)

        (state,) = health_check("openai").values()
        assert state["status"] == "healthy"
        assert (state["in_use"], state["connections"]) == (0, 1)

    def test_cleanup(
        self, openai_adapter: BaseLLMAdapter, server: ProviderServer, test_prompt: str
    ) -> None:
        """After a clean-up everything still works, over new connections."""
        openai_adapter.generate(test_prompt)
        before = get_connection_pool("openai")

        cleanup_connection_pools()

        assert health_check() == {}
        assert get_connection_pool("openai") is not before
        openai_adapter.generate(test_prompt)
        assert len({request.connection for request in server.requests}) == 2


class TestTokenizing:
    """Token counts and limits."""

    def test_token_counting(self, test_prompt: str, openai_adapter: BaseLLMAdapter) -> None:
        """A count is a plain number that says whether it is an estimate."""
        tokens = count_tokens("gpt-6-luna", test_prompt)

        assert isinstance(tokens, int)
        assert 5 <= tokens <= 20
        assert tokens.estimated
        assert openai_adapter.tokenize(test_prompt) == tokens

    def test_message_counting(self, test_messages: list[dict[str, str]]) -> None:
        """Messages count more than their texts: their framing is counted, too."""
        texts = sum(count_tokens("gpt-6-luna", message["content"]) for message in test_messages)

        assert count_tokens("gpt-6-luna", test_messages) > texts

    def test_token_limit(self) -> None:
        """A model's window is known by its name."""
        assert get_token_limit("gpt-6-luna") == get_model_info("gpt-6-luna")["token_limit"]
        assert (get_token_limit("gpt-6-luna") or 0) > 100_000


class TestModelsAndFactory:
    """The registry and the factory."""

    def test_model_info(self) -> None:
        """What the registry knows can be read as a mapping."""
        info = get_model_info("claude-haiku-5-5")

        assert info["provider"] == "anthropic"
        assert info["token_limit"] >= 200_000

    def test_available_models(self) -> None:
        """Models are listed by what they can do; retired ones are not."""
        models = list_available_models(
            required_capabilities=["vision"], min_token_limit=100_000, provider="openai"
        )

        assert "gpt-6-luna" in models
        assert "gpt-4" not in list_available_models()
        assert all(get_model_info(model).provider == "openai" for model in models)

    def test_unknown_model(self) -> None:
        """A misspelt name is answered with near ones."""
        with pytest.raises(LLMError, match="gpt-6-luna") as caught:
            get_adapter("gpt6-luna")

        assert caught.value.code is ErrorCode.MODEL_NOT_FOUND

    @pytest.mark.parametrize("name", ["openai:gpt-6-luna", "openai/gpt-6-luna", "gpt-6-luna"])
    def test_factory(self, name: str) -> None:
        """The factory takes a model's name in each of its forms."""
        adapter = get_llm_factory()(name)

        assert (adapter.provider, adapter.model) == ("openai", "gpt-6-luna")

    def test_retired_model_is_sent_as_asked(self, server: ProviderServer) -> None:
        """Old code gets an answer, not a riddle: a retired name is sent, with a warning."""
        reply = _adapter("gpt-4", server).generate("Hello")

        assert server.requests[0].model == "gpt-4"
        assert any("shut down" in warning for warning in reply.warnings)


class TestPerformance:
    """The tracker, and latencies as a report."""

    def test_tracker_by_hand(self) -> None:
        """Requests, successes, failures and fallbacks are counted per model."""
        tracker = LLMPerformanceTracker()
        tracker.record_request("gpt-6-luna", "openai")
        tracker.record_success("gpt-6-luna", "openai", 250.0, 100, 50)
        tracker.record_request("gpt-6-luna", "openai")
        tracker.record_failure("gpt-6-luna", "openai", LLMError(code="LLM_TIMEOUT", message="late"))
        tracker.record_fallback("gpt-6-luna", "claude-haiku-5-5", "LLM_TIMEOUT")

        stats = tracker.get_stats("gpt-6-luna")

        assert (stats["requests"], stats["successes"], stats["failures"]) == (2, 1, 1)
        assert stats["success_rate"] == 0.5
        assert stats["avg_latency_ms"] == 250.0
        assert (stats["prompt_tokens"], stats["completion_tokens"]) == (100, 50)
        assert stats["errors"] == {"LLM_TIMEOUT": 1}
        assert stats["fallbacks"] == {"claude-haiku-5-5: LLM_TIMEOUT": 1}

    def test_tracker_sees_calls(
        self, openai_adapter: BaseLLMAdapter, server: ProviderServer, test_prompt: str
    ) -> None:
        """The process's tracker counts every call by itself."""
        server.script(Answer(status=400), Answer("fine", input_tokens=5, output_tokens=1))
        with pytest.raises(LLMError):
            openai_adapter.generate(test_prompt)
        openai_adapter.generate(test_prompt)

        stats = get_performance_tracker().get_stats("gpt-6-luna")

        assert (stats["requests"], stats["successes"], stats["failures"]) == (2, 1, 1)
        assert stats["total_tokens"] == 6

    def test_latency_benchmark(
        self, openai_adapter: BaseLLMAdapter, test_prompt: str, record_property: Any
    ) -> None:
        """Reports the latency of calls against loopback; it asserts no time."""
        latencies = []
        for _ in range(20):
            began = time.perf_counter()
            openai_adapter.generate(test_prompt)
            latencies.append(1000 * (time.perf_counter() - began))

        record_property("median_ms", statistics.median(latencies))
        print(f"median {statistics.median(latencies):.2f} ms, longest {max(latencies):.2f} ms")
        assert (
            len(latencies) == llmkit.get_performance_tracker().get_stats("gpt-6-luna")["requests"]
        )
