"""The registry: what is known of each model, from which source, as of which day.

The built-in facts stand in `models.json` beside this file and are read on first use. Installed
packages add to them or override them by entry points of the group `llmkit.models`, then the file
that LLMKIT_MODELS_FILE names, then `register_model`; each wins over those before it.
"""

from __future__ import annotations

from typing import Any

from llmkit.errors import InvalidRequestError
from llmkit.models.choosing import (
    find_alternative_model,
    list_available_models,
    not_found,
)
from llmkit.models.info import ModelInfo, PriceChange, split_model_name
from llmkit.models.notices import notices_of
from llmkit.models.reading import UNREADABLE
from llmkit.models.registry import get_registry, remember

__all__ = [
    "ModelInfo",
    "PriceChange",
    "default_model",
    "find_alternative_model",
    "get_model_info",
    "list_available_models",
    "notices_of",
    "register_model",
    "split_model_name",
]


def get_model_info(model: str) -> ModelInfo:
    """Looks a model up.

    Args:
        model: Its name, an alias of it, or either with its provider ("openai:gpt-6-luna",
            "openai/gpt-6-luna", "groq:openai/gpt-oss-120b"). A bare name that several providers
            have means OpenAI's, Anthropic's or Google's own, then the one listed first. A provider
            alone ("local:") means its default model.

    Returns:
        What is known of it. Prices are those of the day of `as_of`; see `ModelInfo.priced_on`.

    Raises:
        ModelNotFoundError: The registry does not know it; the message names near matches.
        InvalidRequestError: It is no text.
        ConfigurationError: LLMKIT_MODELS_FILE, or another setting, can't be read.
    """
    if not isinstance(model, str):
        raise InvalidRequestError(f"model={model!r:.80}: expected a name such as 'gpt-6-luna'")
    known = get_registry()
    info = known.find(model)
    if info is None:
        raise not_found(model, known)
    return info


def register_model(name: str, **facts: Any) -> ModelInfo:
    """Adds a model to this process's registry, or overrides what it says of one.

    Args:
        name: The model's name, with its provider in front ("groq:own-model") or in `provider=`.
            Without either it is a model that the registry knows.
        **facts: Fields of `ModelInfo`; prices as numbers or decimal strings, dates as ISO strings.
            What is left out of a known model stays as it is. `aliases` are further names.

    Returns:
        The model as it is now known.

    Raises:
        InvalidRequestError: A fact's name or value can't be read, or the provider is missing.
        ConfigurationError: LLMKIT_MODELS_FILE, or another setting, can't be read.
    """
    known = get_registry()
    try:
        info = known.put(name, facts)
    except UNREADABLE as error:
        raise InvalidRequestError(f"register_model({name!r}): {error}") from error
    remember(info, facts)
    return info


def default_model(provider: str) -> str | None:
    """Names the model to use when only the provider is known.

    Args:
        provider: The provider.

    Returns:
        The model's bare name; None when the registry names none.
    """
    return get_registry().defaults.get(provider)
