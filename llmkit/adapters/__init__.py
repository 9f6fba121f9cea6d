"""Adapters: one model of one vendor each, thin layers over the official SDKs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llmkit.adapters.base import BaseLLMAdapter, Key
from llmkit.adapters.gemini_backends import BACKENDS
from llmkit.adapters.vendors import DECLARED_CLASSES, OPENAI_COMPATIBLE, find_declared
from llmkit.errors import ConfigurationError, InvalidRequestError
from llmkit.lazy import lazy_names
from llmkit.models import default_model, get_model_info, split_model_name
from llmkit.settings import Settings, get_settings

if TYPE_CHECKING:
    from llmkit.adapters.anthropic import AnthropicAdapter
    from llmkit.adapters.gemini import GeminiAdapter
    from llmkit.adapters.gemini_legacy import LegacyGeminiAdapter
    from llmkit.adapters.local import LocalAdapter
    from llmkit.adapters.openai import OpenAIAdapter

__all__ = [
    "PROVIDERS",
    "AnthropicAdapter",
    "BaseLLMAdapter",
    "GeminiAdapter",
    "LegacyGeminiAdapter",
    "LocalAdapter",
    "OpenAIAdapter",
    "choose_model",
    "get_adapter",
    "get_llm_factory",
]

# Each vendor's file is loaded on its first use: most programs need one.
_HOMES = {
    "OpenAIAdapter": "openai",
    "AnthropicAdapter": "anthropic",
    "GeminiAdapter": "gemini",
    "LegacyGeminiAdapter": "gemini_legacy",
    "LocalAdapter": "local",
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)

_CLASS_NAMES = {
    **dict.fromkeys(OPENAI_COMPATIBLE, "OpenAIAdapter"),
    "anthropic": "AnthropicAdapter",
    "gemini": "GeminiAdapter",
    "local": "LocalAdapter",
}
PROVIDERS = tuple(_CLASS_NAMES)

# Whose key decides, in this order, when no model is named anywhere.
_PREFERRED = ("openai", "anthropic", "gemini")


def get_adapter(
    model: str,
    provider: str | None = None,
    api_key: Key = None,
    api_base: str | None = None,
    timeout: float | None = None,
    max_retries: int | None = None,
    cache_enabled: bool | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    **kwargs: Any,
) -> BaseLLMAdapter:
    """Makes the adapter for a model. Nothing is sent, and no SDK is loaded.

    Args:
        model: "gpt-6-luna", "openai:gpt-6-luna" or "openai/gpt-6-luna".
        provider: The provider, where the name does not say it; None asks the registry.
        api_key: A key, or a function that returns it; None takes it from the settings.
        api_base: The provider's address; None takes it from the settings, or the vendor's own.
        timeout: Seconds for a whole call; None takes REQUEST_TIMEOUT.
        max_retries: Tries after the first; None takes LLM_RETRY_MAX_ATTEMPTS.
        cache_enabled: Whether calls that don't say `use_cache` use the cache; None: they do, unless
            the settings turn it off.
        max_tokens: The longest answer, where a call does not say.
        temperature: Likewise.
        top_p: Likewise.
        **kwargs: `settings`, `backend`, or what an adapter's own class takes. `backend` is for
            Gemini: the SDK "google-genai", or "google-generativeai", which Google has given up;
            None takes the second one only where it alone is installed.

    Returns:
        The adapter.

    Raises:
        ModelNotFoundError: The name has no provider, and the registry does not know it.
        InvalidRequestError: The name and `provider` contradict each other; or there is no such
            backend.
        ConfigurationError: There is no such provider.
    """
    found, name = _find_provider(model, provider)
    kind: Callable[..., BaseLLMAdapter] | None = DECLARED_CLASSES.get(found)
    if kind is None:
        kind = __getattr__(_CLASS_NAMES[found])
        if found != "gemini" and (backend := kwargs.pop("backend", None)) is not None:
            raise InvalidRequestError(
                f"backend={backend!r:.100}: gemini has {' and '.join(BACKENDS)}, {found} has no "
                "choice"
            )
    return kind(
        name,
        provider=found,
        api_key=api_key,
        api_base=api_base,
        timeout=timeout,
        max_retries=max_retries,
        cache_enabled=cache_enabled is not False,
        max_tokens=max_tokens,
        temperature=temperature,
        top_p=top_p,
        **kwargs,
    )


def get_llm_factory() -> Callable[..., BaseLLMAdapter]:
    """Returns the function that makes adapters: `get_adapter`."""
    return get_adapter


def choose_model(settings: Settings | None = None) -> str:
    """Chooses the model for a call that names none.

    Args:
        settings: None takes the process's settings.

    Returns:
        PRIMARY_LLM, or else the default model of the first of openai, anthropic and gemini that
        has a key.

    Raises:
        ConfigurationError: There is neither.
    """
    settings = settings or get_settings()
    if settings.primary_llm:
        return settings.primary_llm
    for provider in _PREFERRED:
        name = default_model(provider)
        if name is not None and settings.api_key(provider):
            return f"{provider}:{name}"
    raise ConfigurationError(
        "no model is named and no key is set: pass model=, or set PRIMARY_LLM, or one of "
        "OPENAI_API_KEY, ANTHROPIC_API_KEY and GEMINI_API_KEY (in the environment or in .env). "
        "Without any key, the embedded model can be asked: model='local:'"
    )


def _find_provider(model: str, provider: str | None) -> tuple[str, str]:
    if not isinstance(model, str) or not model.strip():
        raise InvalidRequestError(f"model={model!r}: expected a name such as 'openai:gpt-6-luna'")
    providers = set(PROVIDERS)
    said = provider or model.strip().partition(":")[0]
    if provider is not None or (":" in model and find_declared(said)):
        _require_provider(said)
        providers.add(said)
    named, name = split_model_name(model.strip(), providers)
    # A router's model names have a vendor in front that is a provider here, too:
    # get_adapter("openai/gpt-6-luna", provider="openrouter").
    if provider is not None and named not in (None, provider):
        if provider in OPENAI_COMPATIBLE and model.strip().startswith(f"{named}/"):
            return provider, model.strip()
        raise InvalidRequestError(f"model={model!r} contradicts provider={provider!r}")
    found = provider or named or get_model_info(name).provider
    _require_provider(found)
    if not name:
        name = default_model(found) or ""
    if not name:
        raise InvalidRequestError(f"model={model!r}: which of {found}'s models?")
    # It may become part of a URL.
    if not name.isprintable() or ".." in name or set(name) & set(" ?#%\\"):
        raise InvalidRequestError(f"model={model!r}: no model has such a name")
    return found, name


def _require_provider(provider: str) -> None:
    """Makes sure that there is such a provider, here or in an installed package."""
    if provider not in PROVIDERS and not find_declared(provider):
        raise ConfigurationError(
            f"there is no provider {provider!r}; there are {', '.join(PROVIDERS)}"
        )
    if provider in OPENAI_COMPATIBLE:
        _CLASS_NAMES.setdefault(provider, "OpenAIAdapter")
