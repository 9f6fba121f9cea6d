"""Vendors that speak OpenAI's protocol, one row each."""

from __future__ import annotations

from typing import Any, NamedTuple

from llmkit.errors import ConfigurationError
from llmkit.models.entry_points import declared

__all__ = ["DECLARED_CLASSES", "OPENAI_COMPATIBLE", "Vendor", "find_declared"]


class Vendor(NamedTuple):
    """One vendor.

    Attributes:
        name: The provider's name, as in "groq:openai/gpt-oss-120b".
        base_url: Where it is; `<NAME>_API_BASE` in the settings overrides it.
        key_variable: The setting that holds its key; None when it asks for none.
        key_required: Whether it can't be asked without a key.
        max_tokens_field: What it calls the longest answer.
        counts_tokens: Whether it has OpenAI's endpoint that counts a prompt's tokens.
    """

    name: str
    base_url: str
    key_variable: str | None
    key_required: bool = True
    max_tokens_field: str = "max_tokens"
    counts_tokens: bool = False


OPENAI_COMPATIBLE = {
    vendor.name: vendor
    for vendor in (
        Vendor(
            "openai",
            "https://api.openai.com/v1",
            "OPENAI_API_KEY",
            # `max_tokens` is deprecated, and refused by all models since o1; every chat model
            # takes the newer name.
            max_tokens_field="max_completion_tokens",
            counts_tokens=True,
        ),
        Vendor("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
        Vendor("openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
        Vendor("ollama", "http://localhost:11434/v1", None, key_required=False),
        Vendor("vllm", "http://localhost:8000/v1", "VLLM_API_KEY", key_required=False),
    )
}


# The adapter classes of installed packages, by provider, as far as they were asked for.
DECLARED_CLASSES: dict[str, type[Any]] = {}


def find_declared(provider: str) -> bool:
    """Finds the provider that an installed package declares in the group `llmkit.adapters`.

    The entry point is a `Vendor`, for one that speaks OpenAI's protocol, or a subclass of
    `BaseLLMAdapter`; from now on it stands in OPENAI_COMPATIBLE or in DECLARED_CLASSES.

    Args:
        provider: Its name, which is the entry point's.

    Returns:
        Whether there is one.

    Raises:
        ConfigurationError: What the package declares can't be loaded, or is neither.
    """
    if provider in OPENAI_COMPATIBLE or provider in DECLARED_CLASSES:
        return True
    entry = next((entry for entry in declared("llmkit.adapters") if entry.name == provider), None)
    if entry is None:
        return False
    where = f"the entry point {entry.name!r} of llmkit.adapters ({entry.value})"
    try:
        found = entry.load()
    # A stranger's code may raise anything; whoever asked for this provider gets to know what.
    except Exception as error:
        raise ConfigurationError(f"{where}: {type(error).__name__}: {error}") from error
    if isinstance(found, Vendor):
        if found.name != provider:
            raise ConfigurationError(f"{where}: its vendor is named {found.name!r}")
        OPENAI_COMPATIBLE[provider] = found
    elif isinstance(found, type):
        DECLARED_CLASSES[provider] = found
    else:
        raise ConfigurationError(f"{where}: expected a Vendor or an adapter class")
    return True
