"""How an adapter is found by a name, and what is said when it can't be had."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from llmkit import (
    AnthropicAdapter,
    BaseLLMAdapter,
    Client,
    ConfigurationError,
    GeminiAdapter,
    InvalidRequestError,
    LLMError,
    LocalAdapter,
    ModelNotFoundError,
    OpenAIAdapter,
    Settings,
    get_adapter,
    get_cache,
    get_llm_factory,
)
from llmkit.adapters import PROVIDERS, choose_model
from llmkit.adapters.vendors import OPENAI_COMPATIBLE
from llmkit.testing import Answer, ProviderServer
from tests.adapters.vendor_cases import ANTHROPIC, GEMINI, GROQ, OPENAI, Case

SDKS = {"openai": "openai", "anthropic": "anthropic", "gemini": "google.genai"}


@pytest.mark.parametrize(
    ("name", "provider", "found", "bare"),
    [
        ("gpt-4o", None, "openai", "gpt-4o"),
        ("openai:gpt-4o", None, "openai", "gpt-4o"),
        ("openai/gpt-4o", None, "openai", "gpt-4o"),
        (" openai:gpt-4o ", None, "openai", "gpt-4o"),
        ("gpt-4o", "openai", "openai", "gpt-4o"),
        ("openai:gpt-4o", "openai", "openai", "gpt-4o"),
        ("claude-haiku-4-5", None, "anthropic", "claude-haiku-4-5"),
        ("gemini/gemini-2.5-flash", None, "gemini", "gemini-2.5-flash"),
        ("groq:llama-3.3-70b-versatile", None, "groq", "llama-3.3-70b-versatile"),
        ("openrouter:openai/gpt-4o", None, "openrouter", "openai/gpt-4o"),
        ("openrouter/openai/gpt-4o", None, "openrouter", "openai/gpt-4o"),
        ("openai/gpt-4o", "openrouter", "openrouter", "openai/gpt-4o"),
        ("meta-llama/llama-3:free", "openrouter", "openrouter", "meta-llama/llama-3:free"),
        ("ollama:llama3:8b", None, "ollama", "llama3:8b"),
        ("llama3:8b", "ollama", "ollama", "llama3:8b"),
        ("vllm:Qwen/Qwen3-8B", None, "vllm", "Qwen/Qwen3-8B"),
        ("openai:brand-new-9", None, "openai", "brand-new-9"),
        ("local:", None, "local", "smollm2-135m"),
        ("local:smollm2-135m", None, "local", "smollm2-135m"),
    ],
)
def test_a_name_leads_to_its_provider(
    name: str, provider: str | None, found: str, bare: str
) -> None:
    """Every documented form of a name leads to the provider and the bare name."""
    adapter = get_llm_factory()(name, provider=provider)
    assert (adapter.provider, adapter.model) == (found, bare)
    assert not adapter.initialized


@pytest.mark.parametrize(
    ("name", "provider", "error", "words"),
    [
        ("openai:gpt-4o", "anthropic", InvalidRequestError, ("openai:gpt-4o", "anthropic")),
        ("gemini/gemini-2.5-pro", "anthropic", InvalidRequestError, ("gemini/", "anthropic")),
        ("gpt-4o", "opneai", ConfigurationError, ("opneai", "openai, groq")),
        ("gpt-4oo", None, ModelNotFoundError, ("gpt-4oo", "gpt-4o")),
        ("claude-hiaku-4-5", None, ModelNotFoundError, ("claude-haiku-4-5", "provider")),
        ("", None, InvalidRequestError, ("model",)),
        ("  ", None, InvalidRequestError, ("model",)),
        (None, None, InvalidRequestError, ("model",)),
        ("vllm:", None, InvalidRequestError, ("vllm",)),
    ],
)
def test_a_name_that_leads_nowhere_is_explained(
    name: Any, provider: str | None, error: type[LLMError], words: tuple[str, ...]
) -> None:
    """The error says what is wrong with the name, and what there is instead."""
    with pytest.raises(error) as caught:
        get_adapter(name, provider=provider)
    assert all(word in str(caught.value) for word in words)


def test_the_classes_can_be_made_directly() -> None:
    """Each adapter class needs only a model, and refuses a provider that is none of its own."""
    made: list[BaseLLMAdapter] = [
        OpenAIAdapter("gpt-4o"),
        AnthropicAdapter("claude-haiku-4-5"),
        GeminiAdapter("gemini-2.5-flash"),
        LocalAdapter("smollm2-135m"),
        OpenAIAdapter("llama", "groq"),
    ]
    providers = [adapter.provider for adapter in made]
    assert providers == ["openai", "anthropic", "gemini", "local", "groq"]
    with pytest.raises(ConfigurationError, match="api_base="):
        OpenAIAdapter("x", "somewhere")


@pytest.mark.parametrize(
    "provider", [name for name in PROVIDERS if name not in ("local", "ollama", "vllm")]
)
def test_a_missing_key_is_named(provider: str) -> None:
    """Without a key the error names the variable and the way out, before any network."""
    adapter = get_adapter("some-model", provider=provider)
    for call in (
        adapter.ensure_initialized,
        lambda: adapter.generate("hi"),
        lambda: adapter.stream("hi"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            call()
        assert f"{provider.upper()}_API_KEY" in str(caught.value)
        assert "local:" in str(caught.value)
        assert "api_key= to get_adapter" in str(caught.value)
    assert adapter.health_check()["status"] == "unhealthy"


@pytest.mark.parametrize("provider", ["ollama", "vllm"])
def test_a_server_of_ones_own_needs_no_key(server: ProviderServer, provider: str) -> None:
    """Ollama and vLLM are asked without a key."""
    adapter = get_adapter("m", provider=provider, api_base=server.base_url("openai"))
    assert str(adapter.generate("hi"))
    assert server.requests[0].json == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
    }


@pytest.mark.parametrize("row", OPENAI_COMPATIBLE.values(), ids=lambda row: row.name)
def test_each_row_is_a_whole_vendor(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch, row: Any
) -> None:
    """A row names an address and the variable of its key; settings override it."""
    monkeypatch.setenv(f"{row.name.upper()}_API_BASE", server.base_url("openai"))
    if row.key_variable:
        monkeypatch.setenv(row.key_variable, "warehouse999999sesame")
    adapter = OpenAIAdapter("m", row.name)
    adapter.generate("hi", max_tokens=5)
    request = server.requests[0]
    if row.key_variable:
        assert request.headers["authorization"] == "Bearer warehouse999999sesame"
    assert request.json[row.max_tokens_field] == 5
    assert row.base_url.startswith("https://" if row.key_required else "http://localhost")


@pytest.mark.parametrize("case", [OPENAI, ANTHROPIC, GEMINI, GROQ], ids=lambda case: case.provider)
def test_a_missing_sdk_has_its_pip_command(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch, case: Case
) -> None:
    """Without the SDK the error is the command that installs it, and nothing is sent."""
    module = SDKS[case.wire]
    monkeypatch.setitem(sys.modules, module, None)
    # Left to itself, Gemini would be asked by its older SDK.
    backend = {"backend": "google-genai"} if case is GEMINI else {}
    adapter = case.adapter(server, **backend)
    with pytest.raises(ConfigurationError, match=rf'pip install "llmkit\[{case.wire}\]"'):
        adapter.generate("hi")
    assert server.requests == []


@pytest.mark.parametrize(
    ("base", "path"),
    [
        ("", "/v1/chat/completions"),
        ("/", "/v1/chat/completions"),
        ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"),
        ("/openai/v2", "/openai/v2/chat/completions"),
    ],
)
def test_openais_address_has_several_forms(server: ProviderServer, base: str, path: str) -> None:
    """With or without `/v1` and a slash at its end, and with a path of its own."""
    OPENAI.adapter(server, api_base=server.url + base).generate("hi")
    assert server.requests[0].path == path


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/"])
def test_anthropics_address_has_several_forms(server: ProviderServer, base: str) -> None:
    """With or without `/v1` and a slash at its end."""
    ANTHROPIC.adapter(server, api_base=server.url + base).generate("hi")
    assert server.requests[0].path == "/v1/messages"


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1beta/"])
def test_geminis_address_chooses_the_version(server: ProviderServer, base: str) -> None:
    """`/v1beta` at the end of the address chooses that version of the API; else it is v1."""
    GEMINI.adapter(server, api_base=server.url + base).generate("hi")
    version = "v1beta" if "beta" in base else "v1"
    assert server.requests[0].path == f"/{version}/models/gemini-2.5-flash:generateContent"


@pytest.mark.parametrize(
    "base",
    ["localhost:8000/v1", "ftp://x/v1", "http://", "not an address", "http://[::1", "http://h:x"],
)
@pytest.mark.parametrize("case", [OPENAI, ANTHROPIC, GEMINI], ids=lambda case: case.provider)
def test_an_address_that_is_none_is_explained(
    server: ProviderServer, case: Case, base: str
) -> None:
    """A wrong address is a ConfigurationError, not a connection that is tried four times."""
    with pytest.raises(LLMError) as caught:
        case.adapter(server, api_base=base).generate("hi")
    assert isinstance(caught.value, (ConfigurationError, InvalidRequestError)), repr(caught.value)


@pytest.mark.parametrize("base", [8000, b"http://x", "ftp://x?key=warehouse000000sesame"])
def test_an_address_is_a_text_and_shows_no_key(base: Any) -> None:
    """Something else is refused when the adapter is made, and a key in it is not repeated."""
    with pytest.raises(InvalidRequestError, match="api_base=") as caught:
        get_adapter("gpt-4o", api_key="warehouse000000sesame", api_base=base)
    assert "warehouse" not in str(caught.value)


def test_settings_given_to_an_adapter_count(server: ProviderServer) -> None:
    """Keys and addresses of explicit settings are used, not those of the process."""
    settings = Settings(openai_api_key="warehouse888888sesame", openai_api_base=server.url)
    get_adapter("gpt-4o", settings=settings).generate("hi")
    assert server.requests[0].headers["authorization"] == "Bearer warehouse888888sesame"


@pytest.mark.parametrize("base", [5, b"http://localhost/v1"])
def test_an_address_that_is_no_text_is_refused(base: Any) -> None:
    """It is told in this library's words when the adapter is made."""
    with pytest.raises(InvalidRequestError, match="api_base="):
        get_adapter("openai:gpt-6-luna", api_base=base)


@pytest.mark.parametrize("settings", [{}, {"openai_api_key": "x"}, Settings, "settings"])
def test_settings_of_another_kind_are_refused(settings: Any) -> None:
    """A dict, Django's settings or the class itself are neither overlooked nor a riddle later."""
    with pytest.raises(InvalidRequestError, match=r"settings: expected llmkit.Settings\("):
        get_cache(settings)
    for make in (get_adapter, Client):
        with pytest.raises(InvalidRequestError, match=r"settings: expected llmkit.Settings\("):
            make("openai:gpt-6-luna", settings=settings)


def test_a_retired_model_is_sent_as_asked(server: ProviderServer) -> None:
    """A retired alias goes out unchanged, with a warning; the vendor's 404 names the successor."""
    adapter = ANTHROPIC.adapter(server, provider=None, model="claude-3-haiku-20240307")
    server.script(Answer("still there"), Answer(status=404))
    reply = adapter.generate("hi")
    assert server.requests[0].model == reply.model == "claude-3-haiku-20240307"
    assert any("shut down" in note for note in reply.warnings)
    with pytest.raises(ModelNotFoundError, match="its successor is claude-"):
        adapter.generate("hi")


def test_another_providers_model_of_the_same_name_has_no_price(server: ProviderServer) -> None:
    """OpenAI's price does not hold for a model of that name that somebody else serves."""
    reply = get_adapter("gpt-4o", provider="vllm", api_base=server.base_url("openai")).generate(
        "hi"
    )
    assert reply.cost is None
    assert reply.warnings


def test_a_model_of_the_responses_api_says_so(server: ProviderServer) -> None:
    """A model that chat completions do not serve is refused before any network."""
    with pytest.raises(InvalidRequestError, match="Responses"):
        OPENAI.adapter(server, model="gpt-5.5-pro").generate("hi")
    assert server.requests == []


def test_defaults_of_an_adapter_hold_unless_a_call_says_otherwise(server: ProviderServer) -> None:
    """max_tokens, temperature and top_p of the adapter are sent, and a call's own win."""
    adapter = GROQ.adapter(server, max_tokens=5, temperature=0.1, top_p=0.2)
    adapter.generate("hi")
    list(adapter.stream("hi", temperature=0.0))
    first, second = (request.json for request in server.requests)
    assert (first["max_tokens"], first["temperature"], first["top_p"]) == (5, 0.1, 0.2)
    assert (second["max_tokens"], second["temperature"]) == (5, 0.0)


@pytest.mark.parametrize(
    ("variables", "model"),
    [
        ({"PRIMARY_LLM": "groq:llama"}, "groq:llama"),
        ({"GEMINI_API_KEY": "x" * 20}, "gemini:"),
        ({"GEMINI_API_KEY": "x" * 20, "ANTHROPIC_API_KEY": "x" * 20}, "anthropic:"),
        ({"ANTHROPIC_API_KEY": "x" * 20, "OPENAI_API_KEY": "x" * 20}, "openai:"),
    ],
)
def test_a_model_is_chosen_by_the_keys(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], model: str
) -> None:
    """Without a model the primary one counts, or else the first provider that has a key."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert choose_model().startswith(model)


def test_no_model_and_no_key_are_explained() -> None:
    """With nothing to go by, the error names every way out."""
    with pytest.raises(ConfigurationError, match=r"PRIMARY_LLM.*OPENAI_API_KEY.*local:"):
        choose_model()
