"""The documented suite: what the module-level interface promises, class by class.

`python -m pytest tests/llm/ -v`, `--cov=llmkit`, `-k "not openai_api"` and `-k "TestLLMCache"` work
as documented. Everything runs against a provider on loopback, or with a replaced `_generate_text`;
the tests with `_api` in their name need a paid key and say so when they skip.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from pytest_mock import MockerFixture

from llmkit import (
    AllModelsFailedError,
    AnthropicAdapter,
    BaseLLMAdapter,
    Completion,
    ErrorCode,
    GeminiAdapter,
    LLMError,
    OpenAIAdapter,
    Request,
    cached,
    get_adapter,
    get_llm_factory,
    initialize_llm_module,
    reload_settings,
    shutdown,
)
from llmkit.cache import (
    Allowance,
    LLMCache,
    MemoryCache,
    TwoLevelCache,
    cache_result,
    clear_cache,
    close_caches,
    get_cache,
)
from llmkit.cache.entry import Entry
from llmkit.connection_pool import cleanup_connection_pools, get_connection_pool, health_check
from llmkit.fallback import execute_llm_with_fallback, execute_with_fallbacks, select_models
from llmkit.models import (
    find_alternative_model,
    get_model_info,
    list_available_models,
    register_model,
)
from llmkit.parallel import execute_parallel, race_models
from llmkit.performance import LLMPerformanceTracker, get_performance_tracker
from llmkit.prompt_optimizer import optimize_prompt
from llmkit.retry import retry_with_exponential_backoff
from llmkit.settings import get_settings
from llmkit.testing import Answer, ProviderServer
from llmkit.testing.recorded_request import RecordedRequest
from llmkit.tokenizer import count_tokens, get_token_limit
from tests.cache.servers import Clock, free_port
from tests.llm.fakes import (
    KEY,
    Stuck,
    adapter_at,
    factory_of,
    fake_error_operation,
    fake_success_operation,
    fake_timeout_operation,
    mapping,
)


def _ask_for_real(variable: str, model: str, prompt: str) -> None:
    key = os.environ.get(variable)
    if not key:
        pytest.skip(f"{variable} is not set: a paid key is needed")
    reply = get_adapter(model, api_key=key).generate(prompt, max_tokens=200)
    assert reply.text
    assert reply.usage.total_tokens


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
        adapter = get_adapter(model, api_key=KEY)

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

    def test_adapter_defaults(self, server: ProviderServer, test_prompt: str) -> None:
        """What the adapter was made with holds, unless a call says otherwise."""
        adapter = adapter_at("gpt-4o", server, max_tokens=50, temperature=0.5, top_p=0.9)

        adapter.generate(test_prompt)
        adapter.generate(test_prompt, max_tokens=20, temperature=0.0, stop_sequences=["END"])

        names = ("max_completion_tokens", "temperature", "top_p", "stop")
        assert [[each.json.get(name) for name in names] for each in server.requests] == [
            [50, 0.5, 0.9, None],
            [20, 0.0, 0.9, ["END"]],
        ]

    @pytest.mark.parametrize("fixture", ["openai_adapter", "anthropic_adapter", "gemini_adapter"])
    @pytest.mark.parametrize(
        ("status", "code"),
        [
            (400, ErrorCode.INVALID_REQUEST),
            (401, ErrorCode.AUTHENTICATION_ERROR),
            (403, ErrorCode.PERMISSION_DENIED),
            (404, ErrorCode.MODEL_NOT_FOUND),
            (429, ErrorCode.LLM_RATE_LIMIT),
            (500, ErrorCode.LLM_PROVIDER_ERROR),
        ],
    )
    def test_error_codes(
        self,
        status: int,
        code: ErrorCode,
        fixture: str,
        request: pytest.FixtureRequest,
        server: ProviderServer,
        test_prompt: str,
    ) -> None:
        """The same thing that went wrong has the same code with every vendor."""
        adapter: BaseLLMAdapter = request.getfixturevalue(fixture)
        server.answer = Answer(status=status)

        with pytest.raises(LLMError) as caught:
            adapter.generate(test_prompt, max_retries=0)

        error = caught.value
        assert (error.code, error.status) == (code, status)
        assert (error.provider, error.model) == (adapter.provider, adapter.model)
        assert KEY not in f"{error!r} {error} {adapter!r}"

    def test_time_out(
        self, openai_adapter: BaseLLMAdapter, server: ProviderServer, test_prompt: str
    ) -> None:
        """A time-out is for the whole call: it ends a provider that doesn't answer."""
        openai_adapter.generate(test_prompt)  # loads the SDK
        server.answer = Answer(delay=30)

        began = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            openai_adapter.generate(test_prompt, timeout=0.3)

        assert isinstance(caught.value, LLMError)
        assert caught.value.code is ErrorCode.LLM_TIMEOUT
        assert time.monotonic() - began < 15

    @pytest.mark.parametrize("fixture", ["openai_adapter", "anthropic_adapter", "gemini_adapter"])
    def test_health_check(
        self, fixture: str, request: pytest.FixtureRequest, server: ProviderServer
    ) -> None:
        """Whether a model can be asked is found out for free, and told without an exception."""
        adapter: BaseLLMAdapter = request.getfixturevalue(fixture)

        healthy = adapter.health_check()
        server.answer = Answer(status=401)
        unhealthy = adapter.health_check()

        assert (healthy["status"], healthy["error"]) == ("healthy", None)
        assert (healthy["provider"], healthy["model"]) == (adapter.provider, adapter.model)
        assert unhealthy["status"] == "unhealthy"
        assert unhealthy["error"]
        assert all(each.operation != "generate" for each in server.requests)

    def test_closed_adapter(self, openai_adapter: BaseLLMAdapter, test_prompt: str) -> None:
        """Closing an adapter takes nothing from others, and it opens again when it is used."""
        other = get_adapter("gpt-6-luna", api_key=KEY, api_base=openai_adapter.api_base)
        with openai_adapter:
            openai_adapter.generate(test_prompt)
        assert not openai_adapter.initialized

        assert other.generate(test_prompt).text
        assert openai_adapter.generate(test_prompt).text
        assert openai_adapter.initialized

    def test_own_adapter(self, test_prompt: str) -> None:
        """An adapter of one's own is a class with `_generate_text`, and gets all the rest."""

        class EchoAdapter(BaseLLMAdapter):
            def _generate_text(self, request: Request) -> dict[str, Any]:
                return mapping(f"{request.messages[-1].content} ({request.temperature})")

        class Unfinished(BaseLLMAdapter):
            pass

        reply = EchoAdapter("echo-1", "own", temperature=0.5).generate(test_prompt)

        assert reply.text == f"{test_prompt} (0.5)"
        assert (reply.model, reply.provider, len(reply.attempts)) == ("echo-1", "own", 1)
        with pytest.raises(TypeError, match="_generate_text"):
            Unfinished("echo-1", "own")  # type: ignore[abstract]

    def test_generation_with_openai_api(self, test_prompt: str) -> None:
        """The real OpenAI API answers."""
        _ask_for_real("OPENAI_API_KEY", "openai:gpt-6-luna", test_prompt)

    def test_generation_with_anthropic_api(self, test_prompt: str) -> None:
        """The real Anthropic API answers."""
        _ask_for_real("ANTHROPIC_API_KEY", "anthropic:claude-haiku-5-5", test_prompt)

    def test_generation_with_gemini_api(self, test_prompt: str) -> None:
        """The real Gemini API answers."""
        _ask_for_real("GEMINI_API_KEY", "gemini:gemini-3.8-flash", test_prompt)


class TestLLMFallbackAndParallel:
    """The next model when one fails; several at once; trying again."""

    def test_fallback_mechanism_mocked(
        self,
        mock_openai_adapter: BaseLLMAdapter,
        mock_anthropic_adapter: BaseLLMAdapter,
        mocker: MockerFixture,
        monkeypatch: pytest.MonkeyPatch,
        test_prompt: str,
    ) -> None:
        """When the first model is overloaded, the next one's answer comes back under its name."""
        monkeypatch.setenv("FALLBACK_LLM", "claude-haiku-5-5")
        reload_settings()
        failure = LLMError(code="LLM_PROVIDER_ERROR", message="overloaded")
        first = mocker.patch.object(mock_openai_adapter, "_generate_text", side_effect=failure)
        factory = mocker.patch(
            "llmkit.fallback.get_adapter",
            side_effect=factory_of(mock_openai_adapter, mock_anthropic_adapter),
        )

        model_used, reply = execute_llm_with_fallback(test_prompt, "gpt-6-luna", max_retries=0)

        assert model_used == reply.model == "claude-haiku-5-5"
        assert reply.text == "Another mocked answer."
        assert [call.args[0] for call in factory.call_args_list] == [
            "gpt-6-luna",
            "claude-haiku-5-5",
        ]
        assert first.call_count == 1
        assert [(each.model, each.code) for each in reply.attempts] == [
            ("gpt-6-luna", ErrorCode.LLM_PROVIDER_ERROR),
            ("claude-haiku-5-5", None),
        ]
        assert get_performance_tracker().get_stats("gpt-6-luna")["fallbacks"] == {
            "claude-haiku-5-5: LLM_PROVIDER_ERROR": 1
        }

    def test_no_fallback_when_the_first_answers(
        self,
        mock_openai_adapter: BaseLLMAdapter,
        mock_anthropic_adapter: BaseLLMAdapter,
        mocker: MockerFixture,
        monkeypatch: pytest.MonkeyPatch,
        test_prompt: str,
    ) -> None:
        """A second model is not asked, nor paid, while the first one does its work."""
        monkeypatch.setenv("FALLBACK_LLM", "claude-haiku-5-5")
        reload_settings()
        mocker.patch(
            "llmkit.fallback.get_adapter",
            side_effect=factory_of(mock_openai_adapter, mock_anthropic_adapter),
        )
        second: Any = mock_anthropic_adapter._generate_text

        model_used, reply = execute_llm_with_fallback(test_prompt, "gpt-6-luna")

        assert (model_used, reply.text) == ("gpt-6-luna", "A mocked answer.")
        assert second.call_count == 0

    @pytest.mark.parametrize(
        ("status", "code"),
        [(401, ErrorCode.AUTHENTICATION_ERROR), (400, ErrorCode.INVALID_REQUEST)],
    )
    def test_no_fallback_from_a_mistake(
        self,
        status: int,
        code: ErrorCode,
        openai_adapter: BaseLLMAdapter,
        anthropic_adapter: BaseLLMAdapter,
        server: ProviderServer,
        mocker: MockerFixture,
        monkeypatch: pytest.MonkeyPatch,
        test_prompt: str,
    ) -> None:
        """A refused key or a wrong request is shown, and not hidden behind another model."""
        monkeypatch.setenv("FALLBACK_LLM", "claude-haiku-5-5")
        reload_settings()
        mocker.patch(
            "llmkit.fallback.get_adapter", side_effect=factory_of(openai_adapter, anthropic_adapter)
        )
        server.script(Answer(status=status))

        with pytest.raises(LLMError) as caught:
            execute_llm_with_fallback(test_prompt, "gpt-6-luna")

        assert caught.value.code is code
        assert len(server.requests) == 1

    def test_fallback_over_the_wire(
        self, server: ProviderServer, monkeypatch: pytest.MonkeyPatch, test_prompt: str
    ) -> None:
        """With nothing but settings, a rate limit at one vendor leads to another's model."""
        for variable, value in {
            "OPENAI_API_KEY": KEY,
            "OPENAI_API_BASE": server.base_url("openai"),
            "ANTHROPIC_API_KEY": KEY,
            "ANTHROPIC_API_BASE": server.base_url("anthropic"),
            "PRIMARY_LLM": "gpt-6-luna",
            "FALLBACK_LLM": "claude-haiku-5-5",
        }.items():
            monkeypatch.setenv(variable, value)
        reload_settings()
        server.script(Answer(status=429), Answer("Rayleigh scattering."))

        model_used, reply = execute_llm_with_fallback(test_prompt, max_retries=0)

        assert (model_used, reply.text) == ("claude-haiku-5-5", "Rayleigh scattering.")
        assert [request.vendor for request in server.requests] == ["openai", "anthropic"]

    @pytest.mark.parametrize("fails", [fake_error_operation, fake_timeout_operation])
    def test_execute_with_fallbacks(self, fails: Callable[[str], str]) -> None:
        """Any work can be handed from model to model, until one of them does it."""
        asked = []

        def operation(model: str) -> str:
            asked.append(model)
            return fake_success_operation(model) if model == "claude-haiku-5-5" else fails(model)

        model_used, result = execute_with_fallbacks(
            "gpt-6-luna", ["gemini-3.8-flash", "claude-haiku-5-5", "gpt-6-sol"], operation
        )

        assert (model_used, result) == ("claude-haiku-5-5", "answer of claude-haiku-5-5")
        assert asked == ["gpt-6-luna", "gemini-3.8-flash", "claude-haiku-5-5"]

    def test_all_models_failed(self) -> None:
        """When nobody manages it, every cause is shown, in the order of the models."""
        operations = {"gpt-6-luna": fake_error_operation, "gpt-6-sol": fake_timeout_operation}

        with pytest.raises(AllModelsFailedError) as caught:
            execute_with_fallbacks(
                "gpt-6-luna", ["gpt-6-sol"], lambda model: operations[model](model)
            )

        assert caught.value.code is ErrorCode.LLM_ALL_MODELS_FAILED
        assert [error.code for error in caught.value.errors] == [
            ErrorCode.LLM_PROVIDER_ERROR,
            ErrorCode.LLM_TIMEOUT,
        ]
        assert "the vendor is down" in str(caught.value)
        assert "no answer in time" in str(caught.value)

    def test_should_fallback(self) -> None:
        """The caller may decide which failures lead on; others come out as they are."""
        late = [ErrorCode.LLM_TIMEOUT]

        def too_late(model: str) -> str:
            return fake_timeout_operation(model) if model == "a" else fake_success_operation(model)

        used, _ = execute_with_fallbacks("a", ["b"], too_late, should_fallback=late)
        with pytest.raises(LLMError) as caught:
            execute_with_fallbacks("a", ["b"], fake_error_operation, should_fallback=late)

        assert used == "b"
        assert caught.value.code is ErrorCode.LLM_PROVIDER_ERROR
        assert caught.value.model == "a"

    def test_race_models_mocked(
        self,
        mock_openai_adapter: BaseLLMAdapter,
        mock_anthropic_adapter: BaseLLMAdapter,
        mocker: MockerFixture,
        test_prompt: str,
    ) -> None:
        """The first answer wins under its model's name, and who lost is cut in the middle."""
        stuck = Stuck()
        mocker.patch.object(mock_openai_adapter, "_generate_text", side_effect=stuck)

        def answer_once_both_run(request: Request) -> dict[str, Any]:
            assert stuck.was_asked.wait(10)
            return mapping("The winner's answer.")

        mocker.patch.object(
            mock_anthropic_adapter, "_generate_text", side_effect=answer_once_both_run
        )
        factory = mocker.patch(
            "llmkit.parallel.get_adapter",
            side_effect=factory_of(mock_openai_adapter, mock_anthropic_adapter),
        )
        models = ["gpt-6-luna", "claude-haiku-5-5"]

        winner, reply = race_models(models, test_prompt, max_tokens=50, timeout=20)

        assert [call.args[0] for call in factory.call_args_list] == models
        assert (winner, reply.text) == ("claude-haiku-5-5", "The winner's answer.")
        assert stuck.was_cut.wait(10)

    def test_race_survives_a_failure(
        self,
        openai_adapter: BaseLLMAdapter,
        anthropic_adapter: BaseLLMAdapter,
        server: ProviderServer,
        mocker: MockerFixture,
        test_prompt: str,
    ) -> None:
        """An error that comes first doesn't win; only when all have failed is there an error."""
        mocker.patch(
            "llmkit.parallel.get_adapter", side_effect=factory_of(openai_adapter, anthropic_adapter)
        )
        models = ["gpt-6-luna", "claude-haiku-5-5"]
        server.answer = lambda request: (
            Answer(status=400) if request.vendor == "openai" else Answer("fine", delay=0.1)
        )
        winner, _ = race_models(models, test_prompt)
        server.answer = Answer(status=400)
        with pytest.raises(AllModelsFailedError) as caught:
            race_models(models, test_prompt)

        assert winner == "claude-haiku-5-5"
        assert [error.model for error in caught.value.errors] == models

    def test_race_parameters(
        self,
        openai_adapter: BaseLLMAdapter,
        server: ProviderServer,
        mocker: MockerFixture,
        test_prompt: str,
    ) -> None:
        """What is asked of the racers is what the caller said; untracked races leave no figures."""
        mocker.patch("llmkit.parallel.get_adapter", side_effect=factory_of(openai_adapter))

        race_models(
            ["gpt-6-luna"],
            test_prompt,
            max_tokens=50,
            additional_params={"stop": ["END"]},
            track_metrics=False,
        )

        sent = server.requests[0].json
        assert (sent["max_completion_tokens"], sent["stop"]) == (50, ["END"])
        assert get_performance_tracker().get_stats("gpt-6-luna")["requests"] == 0

    def test_race_cuts_the_connection(
        self,
        openai_adapter: BaseLLMAdapter,
        anthropic_adapter: BaseLLMAdapter,
        server: ProviderServer,
        mocker: MockerFixture,
        test_prompt: str,
    ) -> None:
        """The provider of a model that lost sees its client leave, long before it would answer."""
        mocker.patch(
            "llmkit.parallel.get_adapter", side_effect=factory_of(openai_adapter, anthropic_adapter)
        )

        def answer(request: RecordedRequest) -> Answer:
            server.wait_for_requests(2, timeout=10)
            return Answer("late", delay=30) if request.vendor == "openai" else Answer("first")

        server.answer = answer

        winner, _ = race_models(["gpt-6-luna", "claude-haiku-5-5"], test_prompt)

        assert winner == "claude-haiku-5-5"
        (loser,) = [request for request in server.requests if request.vendor == "openai"]
        assert loser.disconnected.wait(10)

    def test_execute_parallel(self) -> None:
        """Operations run at the same time, and their results keep the order of the list."""
        together = threading.Barrier(3)

        def operation(name: str) -> str:
            together.wait(10)  # which one alone, or two, would never get past
            return fake_success_operation(name)

        results = execute_parallel([lambda n=n: operation(n) for n in "abc"])  # type: ignore[misc]

        assert results == ["answer of a", "answer of b", "answer of c"]

    def test_execute_parallel_with_failures(self) -> None:
        """The first exception is raised, unless each shall stand in its operation's place."""
        operations = [
            lambda: fake_success_operation("a"),
            lambda: fake_error_operation("b"),
            lambda: fake_success_operation("c"),
        ]

        first, failure, last = execute_parallel(operations, return_exceptions=True)
        with pytest.raises(LLMError, match="the vendor is down"):
            execute_parallel(operations)

        assert (first, last) == ("answer of a", "answer of c")
        assert isinstance(failure, LLMError)
        assert failure.code is ErrorCode.LLM_PROVIDER_ERROR

    def test_retry_decorator(self) -> None:
        """A function is tried again while its failure may pass, and so often and no more."""
        tries: list[str] = []

        @retry_with_exponential_backoff(max_retries=2, base_delay=0.0)
        def work(fails: int, code: str) -> int:
            tries.append(code)
            if len(tries) <= fails:
                raise LLMError(code=code, message="not yet")
            return len(tries)

        assert work(2, "LLM_RATE_LIMIT") == 3
        tries.clear()
        with pytest.raises(LLMError, match="not yet"):
            work(3, "LLM_RATE_LIMIT")
        assert len(tries) == 3
        tries.clear()
        with pytest.raises(LLMError, match="not yet"):
            work(1, "AUTHENTICATION_ERROR")
        assert len(tries) == 1


class TestLLMCache:
    """The cache: values by hand, and answers that are not paid for twice."""

    @pytest.fixture(autouse=True)
    def cache_on(
        self, clean_settings: None, monkeypatch: pytest.MonkeyPatch, fresh_figures: None
    ) -> Iterator[None]:
        """Here the cache is on, as it is for users."""
        monkeypatch.delenv("LLMKIT_CACHE_ENABLED")
        yield
        close_caches()

    def test_cache_hit_miss(self, llm_cache: LLMCache) -> None:
        """What was set is found, what was not is None, and the figures say how often."""
        assert llm_cache.get("greeting") is None
        assert llm_cache.set("greeting", {"text": "Hello", "tokens": [1, 2]})
        assert llm_cache.get("greeting") == {"text": "Hello", "tokens": [1, 2]}
        assert llm_cache.get("other", default="nothing") == "nothing"

        stats = llm_cache.stats()
        assert (stats["hits"], stats["misses"], stats["hit_rate"]) == (1, 2, 1 / 3)

    def test_cache_expiry(self, llm_cache: LLMCache, clock: Clock) -> None:
        """An entry lives as long as was asked for, and no longer."""
        llm_cache.set("brief", 1, ttl=60)
        llm_cache.set("lasting", 2)

        clock.now += 59
        assert llm_cache.get("brief") == 1
        clock.now += 2
        assert llm_cache.get("brief") is None
        assert llm_cache.get("lasting") == 2

    def test_cache_delete_and_clear(self, llm_cache: LLMCache) -> None:
        """One entry goes, or all."""
        for key in "abc":
            llm_cache.set(key, key)

        assert llm_cache.delete("a") is True
        assert llm_cache.delete("a") is False
        assert [llm_cache.get(key) for key in "abc"] == [None, "b", "c"]
        assert llm_cache.clear() is True
        assert [llm_cache.get(key) for key in "abc"] == [None, None, None]

    def test_cached_values_are_copies(self, llm_cache: LLMCache) -> None:
        """Who changes what was found, or what was set, changes it for nobody else."""
        value = {"list": [1]}
        llm_cache.set("key", value)
        value["list"].append(2)
        llm_cache.get("key")["list"].append(3)

        assert llm_cache.get("key") == {"list": [1]}

    def test_two_levels(self, llm_cache: LLMCache, clock: Clock) -> None:
        """Another process finds a value in the shared level once, and then in its own memory."""
        assert isinstance(llm_cache, TwoLevelCache)
        llm_cache.set("shared", "value")
        other = TwoLevelCache(MemoryCache(clock=clock), llm_cache.l2)

        levels = [found.level for _ in range(2) if (found := other.read("shared"))]

        assert levels == [llm_cache.l2.level, "memory"]

    def test_answer_is_cached(
        self, openai_adapter: BaseLLMAdapter, server: ProviderServer, test_prompt: str
    ) -> None:
        """An equal question costs one request; another one, or other parameters, its own."""
        server.answer = Answer("Rayleigh scattering.", input_tokens=11, output_tokens=3)

        first, second = (openai_adapter.generate(test_prompt) for _ in range(2))

        assert (first.cached, second.cached) == (None, "memory")
        assert second.text == first.text == "Rayleigh scattering."
        assert second.usage == first.usage
        assert second.saved_cost == first.cost is not None
        assert len(server.requests) == 1
        openai_adapter.generate(test_prompt + " Please.")
        openai_adapter.generate(test_prompt, max_tokens=50)
        assert len(server.requests) == 3

    def test_cache_switched_off(
        self, openai_adapter: BaseLLMAdapter, server: ProviderServer, test_prompt: str
    ) -> None:
        """`use_cache=False` asks anew and keeps nothing; "refresh" asks anew and replaces."""
        server.script(Answer("one"), Answer("two"), Answer("three"))

        texts = [
            openai_adapter.generate(test_prompt, use_cache=use_cache).text
            for use_cache in (None, False, None, "refresh", True)
        ]

        assert texts == ["one", "two", "one", "three", "three"]

    def test_failure_is_not_cached(
        self, openai_adapter: BaseLLMAdapter, server: ProviderServer, test_prompt: str
    ) -> None:
        """After an error, or an answer that was cut off, the next call asks again."""
        server.script(Answer(status=400), Answer("cut o", finish_reason="length"), Answer("whole"))

        with pytest.raises(LLMError):
            openai_adapter.generate(test_prompt)
        texts = [openai_adapter.generate(test_prompt).text for _ in range(3)]

        assert texts == ["cut o", "whole", "whole"]

    def test_cache_by_hand(self) -> None:
        """The module's functions work on one cache, that of the process."""
        assert get_cache() is get_cache()
        assert cache_result("key", {"value": 1}, ttl=60) is True
        assert get_cache().get("key") == {"value": 1}
        assert clear_cache() is True
        assert get_cache().get("key") is None

    def test_dead_store(
        self,
        openai_adapter: BaseLLMAdapter,
        monkeypatch: pytest.MonkeyPatch,
        test_prompt: str,
    ) -> None:
        """Without its Redis the cache goes on in memory: no call fails, none is asked twice."""
        monkeypatch.setenv("LLMKIT_CACHE_URL", f"redis://127.0.0.1:{free_port()}/0")
        reload_settings()
        adapter = get_adapter("gpt-6-luna", api_key=KEY, api_base=openai_adapter.api_base)

        assert cache_result("key", "value")
        assert get_cache().get("key") == "value"
        assert [adapter.generate(test_prompt).cached for _ in range(2)] == [None, "memory"]
        assert get_cache().stats()["errors"] > 0

    def test_own_cache(self) -> None:
        """A cache of one's own, from four methods, does what the documented interface says."""

        class DictCache(LLMCache):
            def __init__(self) -> None:
                super().__init__()
                self.entries: dict[str, Entry] = {}

            def fetch(self, key: str, allowance: Allowance | None = None) -> Entry | None:
                return self.entries.get(key)

            def keep(self, key: str, entry: Entry, allowance: Allowance | None = None) -> bool:
                self.entries[key] = entry
                return True

            def discard(self, key: str, allowance: Allowance | None = None) -> bool:
                return self.entries.pop(key, None) is not None

            def clear(self) -> bool:
                self.entries.clear()
                return True

        cache = DictCache()
        calls: list[str] = []

        @cached(cache=cache)
        def work(name: str) -> str:
            calls.append(name)
            return fake_success_operation(name)

        with pytest.raises(TypeError, match="abstract"):
            LLMCache()  # type: ignore[abstract]

        assert cache.set("key", [1, 2])
        assert cache.get("key") == [1, 2]
        assert cache.delete("key")
        assert cache.get("key") is None
        assert [work("a") for _ in range(3)] == ["answer of a"] * 3
        assert calls == ["a"]


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
        """Messages count more than their texts: the framing of each and of the answer counts, too.

        By OpenAI's published recipe: 3 tokens and its role's one for each message, 3 for the reply.
        """
        texts = sum(count_tokens("gpt-4o", message["content"]) for message in test_messages)

        assert count_tokens("gpt-4o", test_messages) == texts + 4 * len(test_messages) + 3

    def test_token_limit(self) -> None:
        """A model's window is known by its name."""
        assert get_token_limit("gpt-6-luna") == get_model_info("gpt-6-luna")["token_limit"]
        assert (get_token_limit("gpt-6-luna") or 0) > 100_000

    def test_exact_count(self) -> None:
        """With the vocabulary on disk a count is the model's own, and so it says."""
        tokens = count_tokens("gpt-4o", "Hello, world!")

        assert (tokens, tokens.estimated) == (4, False)

    @pytest.mark.parametrize("model", ["claude-haiku-5-5", "gemini-3.8-flash", "nobody-knows-1"])
    def test_estimated_count(self, model: str, test_prompt: str) -> None:
        """Tokens of a vocabulary that is not public are estimated, in proportion to the text."""
        tokens = count_tokens(model, test_prompt)

        assert tokens.estimated
        assert 5 <= tokens <= 20
        assert 8 * tokens < count_tokens(model, test_prompt * 10) < 12 * tokens
        assert count_tokens(model, "") == 0

    def test_prompt_optimizing(self) -> None:
        """A prompt that is too long comes back as long as it may be, its instructions whole."""
        middle = "The sky scatters short waves more than long ones. " * 200
        prompt = f"Answer in one word.\n\n{middle}\n\nWhat colour is the sky?"

        short = optimize_prompt(prompt, "gpt-4o", 200)

        assert count_tokens("gpt-4o", prompt) > 2000
        assert 100 < count_tokens("gpt-4o", short) <= 200
        assert short.startswith("Answer in one word.")
        assert short.endswith("What colour is the sky?")
        messages = [{"role": "user", "content": prompt}]
        assert count_tokens("gpt-4o", optimize_prompt(messages, "gpt-4o", 200)) <= 200
        assert optimize_prompt("Hello", "gpt-4o", 200) == "Hello"


class TestModelsAndFactory:
    """The registry and the factory."""

    def test_model_info(self) -> None:
        """What the registry knows can be read as a mapping."""
        info = get_model_info("claude-haiku-5-5")

        assert info["provider"] == "anthropic"
        assert info["token_limit"] >= 200_000

    def test_available_models(self) -> None:
        """Models are listed by provider, by what they can do and hold; retired ones are not."""
        every = list_available_models()
        infos = {model: get_model_info(model) for model in every}
        seeing = [model for model in every if "vision" in infos[model].capabilities]
        large = [model for model in every if (infos[model].context_window or 0) >= 500_000]
        both = list_available_models(
            required_capabilities=["vision"], min_token_limit=500_000, provider="openai"
        )

        assert list_available_models(required_capabilities=["vision"]) == seeing
        assert list_available_models(min_token_limit=500_000) == large
        assert both == [
            model for model in seeing if model in large and infos[model].provider == "openai"
        ]
        assert 0 < len(both) < len(seeing) < len(every) > len(large)
        assert "gpt-6-luna" in both
        assert "gpt-4" not in every

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
        reply = adapter_at("gpt-4", server).generate("Hello")

        assert server.requests[0].model == "gpt-4"
        assert any("shut down" in warning for warning in reply.warnings)

    def test_alternative_model(self) -> None:
        """What stands in for a model can do what it could, and is none that was tried."""
        other = find_alternative_model("gpt-6-luna")
        assert other is not None
        third = find_alternative_model("gpt-6-luna", ["vision"], exclude=[other])
        assert third is not None

        assert len({"gpt-6-luna", other, third}) == 3
        assert "vision" in get_model_info(third).capabilities
        assert find_alternative_model("gpt-6-luna", ["telepathy"]) is None

    def test_register_model(self, server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
        """A model that the registry did not know can be looked up, listed and asked."""
        monkeypatch.setattr("llmkit.models.registry._shared", {})  # forgets it afterwards
        name = "own-model-for-a-test"
        register_model(f"openai:{name}", context_window=4321, prices={"input": "1", "output": "2"})
        server.answer = Answer("Hello", input_tokens=1_000_000, output_tokens=500_000)

        reply = adapter_at(name, server).generate("Hello")

        assert get_token_limit(name) == get_model_info(name)["token_limit"] == 4321
        assert name in list_available_models(provider="openai", min_token_limit=4321)
        assert name not in list_available_models(min_token_limit=4322)
        assert server.requests[0].model == name
        assert reply.cost == 2

    def test_select_models(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Models are chosen from those that have a key, by what the settings and the task say."""
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        reload_settings()
        by_key = select_models()
        cheapest, *_ = select_models(strategy="cheapest")
        monkeypatch.setenv("PRIMARY_LLM", "gpt-6-sol")
        monkeypatch.setenv("FALLBACK_LLM", "gpt-6-luna,claude-haiku-5-5")
        reload_settings()

        assert {get_model_info(name).provider for name in (by_key[0], *by_key[1])} == {"openai"}
        assert select_models() == ("gpt-6-sol", ["gpt-6-luna", "claude-haiku-5-5"])
        assert select_models("gpt-4o")[0] == "gpt-4o"
        price = _price(cheapest)
        assert price == min(
            _price(name)
            for name in list_available_models(("chat",), provider="openai")
            if get_model_info(name).prices and get_model_info(name).api == "chat"
        )

    def test_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Settings are read by their documented names, and show no key."""
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("PRIMARY_LLM", "claude-haiku-5-5")
        monkeypatch.setenv("REQUEST_TIMEOUT", "17")
        settings = reload_settings()

        assert settings is get_settings()
        assert (settings.PRIMARY_LLM, settings.REQUEST_TIMEOUT) == ("claude-haiku-5-5", 17.0)
        assert settings.LLM_PROVIDERS_CONFIG["openai"]["api_key"] == KEY
        assert KEY not in f"{settings!r} {settings.LLM_PROVIDERS_CONFIG!r}"

    def test_initialize_and_shutdown(
        self, server: ProviderServer, monkeypatch: pytest.MonkeyPatch, test_prompt: str
    ) -> None:
        """The start says what can be asked; after the end everything opens anew."""
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_API_BASE", server.base_url("openai"))
        monkeypatch.setenv("ENABLED_MODELS", "gpt-6-luna,claude-haiku-5-5")
        reload_settings()

        report = initialize_llm_module()
        assert report["providers"] == ["openai"]
        assert report["models"] == ["gpt-6-luna"]
        assert "ANTHROPIC_API_KEY" in report["warnings"][0]
        adapter = get_adapter("gpt-6-luna")
        adapter.generate(test_prompt)
        pool = get_connection_pool("openai")
        shutdown()
        assert health_check() == {}
        assert adapter.generate(test_prompt).text
        assert get_connection_pool("openai") is not pool
        assert len({request.connection for request in server.requests}) == 2


def _price(name: str) -> Decimal:
    prices = get_model_info(name).priced_on().prices or {}
    return prices.get("input", Decimal("Infinity")) + prices.get("output", Decimal("Infinity"))


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
        openai_adapter.generate(test_prompt)  # loads the SDK
        latencies = []
        for _ in range(20):
            began = time.perf_counter()
            openai_adapter.generate(test_prompt)
            latencies.append(1000 * (time.perf_counter() - began))

        record_property("median_ms", statistics.median(latencies))
        print(f"median {statistics.median(latencies):.2f} ms, longest {max(latencies):.2f} ms")
        assert get_performance_tracker().get_stats("gpt-6-luna")["requests"] == 1 + len(latencies)

    def test_cache_performance(
        self, llm_cache: LLMCache, openai_adapter: BaseLLMAdapter, record_property: Any
    ) -> None:
        """Reports what a cached value costs on each level; it asserts no time."""
        assert isinstance(llm_cache, TwoLevelCache)
        answer = openai_adapter.generate("Hello").to_dict()
        levels: dict[str, LLMCache] = {"memory": llm_cache.l1, llm_cache.l2.level: llm_cache.l2}
        llm_cache.set("answer", answer)
        for level, cache in levels.items():
            latencies = []
            for _ in range(200):
                began = time.perf_counter()
                value = cache.get("answer")
                latencies.append(1e6 * (time.perf_counter() - began))
                assert value == answer
            record_property(f"{level}_median_us", statistics.median(latencies))
            print(f"{level}: median {statistics.median(latencies):.1f} us")
            assert cache.stats()["hits"] == 200
