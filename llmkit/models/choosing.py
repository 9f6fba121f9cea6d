"""Which models can do what is asked, and which one to use instead of another."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

from llmkit.errors import InvalidRequestError, ModelNotFoundError
from llmkit.log import brief, get_logger
from llmkit.models.entry_points import declared
from llmkit.models.info import QUALITIES, ModelInfo, split_model_name
from llmkit.models.notices import SOON
from llmkit.models.registry import Registry, get_registry
from llmkit.settings import Settings, get_settings

__all__ = ["KEYLESS", "find_alternative_model", "list_available_models", "not_found"]

# Served on the user's own machine, by whoever started it: nobody has to configure a key.
KEYLESS = frozenset({"local", "ollama", "vllm"})

# What decides whether a request can be answered at all. The rest is about cost ("prompt_caching"),
# style ("coding") or parameters that are left out with a warning ("sampling").
_ESSENTIAL = frozenset(
    {
        *("audio", "chat", "embeddings", "pdf", "streaming"),
        *("structured_output", "tools", "video", "vision"),
    }
)
# Finding near matches takes time in proportion to the name's length.
_LONGEST_NAME = 100


def list_available_models(
    required_capabilities: Iterable[str] | None = None,
    min_token_limit: int | None = None,
    provider: str | None = None,
    *,
    max_input_price: Decimal | float | str | None = None,
    configured_only: bool = False,
) -> list[str]:
    """Lists the models that can be used now.

    Args:
        required_capabilities: All of these; None asks for none. A word that no model has is logged.
        min_token_limit: A context window of at least so many tokens; a model whose window is
            unknown is left out. None asks for none.
        provider: Of this provider only; None for all.
        max_input_price: At most so many USD per million tokens of input today; a model whose price
            is unknown is left out. None asks for none.
        configured_only: Leaves out providers whose key is not set.

    Returns:
        Names that `get_adapter` takes as they are, by provider and then in the registry's order
        (newest first). Where ENABLED_MODELS is set, only what it names, retired models included;
        otherwise all that are not retired. Models of limited access, and those that only the
        Responses API serves, are among them.

    Raises:
        InvalidRequestError: An argument is not of its kind.
        ConfigurationError: A setting can't be read.
    """
    known, settings = get_registry(), get_settings()
    wanted = _words(required_capabilities, known)
    ceiling = None if max_input_price is None else _price(max_input_price)
    if not isinstance(min_token_limit, int | None):
        raise InvalidRequestError(f"min_token_limit={min_token_limit!r}: expected whole tokens")
    return [
        info.full_name
        for info in _usable(known, settings)
        if wanted <= info.capabilities
        and (min_token_limit is None or (info.context_window or 0) >= min_token_limit)
        and provider in (None, info.provider)
        and (ceiling is None or _costs_at_most(info, ceiling))
        and (not configured_only or _is_configured(info.provider, settings))
    ]


def find_alternative_model(
    model: str,
    required_capabilities: Iterable[str] | None = None,
    exclude: Iterable[str] = (),
    *,
    min_token_limit: int | None = None,
    configured_only: bool = False,
) -> str | None:
    """Finds a model to use instead of another.

    For embeddings that means new vectors for everything: those of two models can't be compared.

    It can do what is required, its window is known to be large enough, and it can be had: not
    retired, open to everybody, served by an interface that this version speaks, and named in
    ENABLED_MODELS where that is set. Among those, in this order: the successor that the registry
    names; a model that doesn't end within 60 days; one of the same provider; the nearest quality,
    rather better than worse; the nearest price (input and output together, today); the registry's
    order. Equal questions get equal answers.

    Args:
        model: The model to replace: known, or unknown of a known provider ("openai:brand-new-9").
        required_capabilities: All of these; None means the model's own, as far as they decide
            whether a request can be answered: chat, embeddings, streaming, tools,
            structured_output, vision, pdf, audio, video.
        exclude: Models that were tried already, by any of their names.
        min_token_limit: Tokens that the context window has at least; None means as many as that of
            `model`, where it is known.
        configured_only: Leaves out providers whose key is not set. Those that run on the user's
            own machine need none.

    Returns:
        A name that `get_adapter` takes as it is; None when there is no such model.

    Raises:
        ModelNotFoundError: Nothing is known of the model, not even its provider.
        ConfigurationError: A setting can't be read.
    """
    known = get_registry()
    info = known.find(model) or _unknown(model, known)
    if info is None:
        raise not_found(model, known)
    words = _words(required_capabilities, known)
    wanted = info.capabilities & _ESSENTIAL if required_capabilities is None else words
    window = info.context_window if min_token_limit is None else min_token_limit
    settings = get_settings()
    tried = {info.full_name, *_full_names(exclude, known)}
    fit = [
        other
        for other in _usable(known, settings)
        if wanted <= other.capabilities
        and (window is None or (other.context_window or 0) >= window)
        and not (other.retired() or other.limited_access or other.api == "responses")
        and other.full_name not in tried
        and (not configured_only or _is_configured(other.provider, settings))
    ]
    if not fit:
        return None
    first = _preferred(info, known)
    return min(fit, key=lambda other: _distance(other, info, first)).full_name


def not_found(model: str, known: Registry) -> ModelNotFoundError:
    """Makes the error for a name that the registry does not know, with near matches.

    Args:
        model: The name.
        known: The registry.
    """
    import difflib

    if default := known.defaults.get(model):
        said = f"{model!r} is a provider, not a model; {model + ':'!r} asks its {default}"
        return ModelNotFoundError(said, model=model)
    provider, bare = _known_provider(model, known)
    names = [*known.names(provider)]
    near = difflib.get_close_matches(bare.lower()[:_LONGEST_NAME], names, n=3, cutoff=0.5)
    hint = f"; did you mean {', '.join(near)}?" if near else "."
    if provider:
        said = f"the registry lists no model {bare!r:.100} of {provider}"
        advice = "A call can ask for it all the same; its limits and prices are unknown"
    else:
        owner = known.find(near[0]) if near else None
        example = f"{owner.provider if owner else 'openai'}:{bare.rpartition(':')[2]}"
        said = f"no model {model!r:.100} is known"
        advice = (
            "A model that is newer than this list can be asked for with its provider, as in "
            f"{example!r:.100}"
        )
    return ModelNotFoundError(f"{said}{hint} {advice}", model=model)


def _usable(known: Registry, settings: Settings) -> list[ModelInfo]:
    chosen = settings.enabled_models
    if chosen is None:
        return [info for info in known.all() if not info.retired()]
    enabled = {info.full_name for name in chosen if (info := known.find(name)) is not None}
    return [info for info in known.all() if info.full_name in enabled]


def _words(words: Iterable[str] | None, known: Registry) -> frozenset[str]:
    """Reads capabilities; says in the log which of them no model has."""
    try:
        wanted = frozenset((words,) if isinstance(words, str) else words or ())
    except TypeError as error:
        raise InvalidRequestError(f"required_capabilities={words!r}: expected words") from error
    able = known.capabilities() if wanted else frozenset()
    for word in sorted(map(str, wanted - able)):
        get_logger("models").warning(
            "no model has the capability %r; there are %s", word, ", ".join(sorted(able))
        )
    return wanted


def _price(price: Decimal | float | str) -> Decimal:
    try:
        read = Decimal(str(price))
    except (InvalidOperation, ValueError):  # the latter for a very large int
        read = Decimal("nan")
    if read.is_nan():
        raise InvalidRequestError(
            f"max_input_price={brief(price)}: expected USD per million tokens"
        )
    return read


def _costs_at_most(info: ModelInfo, ceiling: Decimal) -> bool:
    price = (info.priced_on().prices or {}).get("input")
    return price is not None and price <= ceiling


def _is_configured(provider: str, settings: Settings) -> bool:
    return provider in KEYLESS or bool(settings.api_key(provider))


def _full_names(names: Iterable[str], known: Registry) -> list[str]:
    names = (names,) if isinstance(names, str) else names
    return [info.full_name for name in names if (info := known.find(name)) is not None]


def _unknown(model: str, known: Registry) -> ModelInfo | None:
    """Returns what can be said of a model that only its provider is known of; None for others."""
    provider, name = _known_provider(model, known)
    return ModelInfo(name, provider, known=False) if provider and name else None


def _known_provider(model: str, known: Registry) -> tuple[str | None, str]:
    """Parts a name into a provider that there is, here or in an installed package, and the rest."""
    providers = {*known.providers(), *KEYLESS}
    providers.update(entry.name for entry in declared("llmkit.adapters"))
    return split_model_name(model, providers)


def _preferred(info: ModelInfo, known: Registry) -> list[str]:
    """Returns the successor and its own successors; of an unknown model, the provider's default."""
    if not info.known:
        default = known.defaults.get(info.provider)
        return [] if default is None else _full_names([default], known)
    chain: list[str] = []
    following = known.find(info.successor) if info.successor else None
    while following is not None and following.full_name not in chain:
        chain.append(following.full_name)
        following = known.find(following.successor) if following.successor else None
    return chain


def _distance(other: ModelInfo, info: ModelInfo, first: list[str]) -> tuple[object, ...]:
    """Says how far a model is from another; the smallest is the best."""
    rank = first.index(other.full_name) if other.full_name in first else len(first)
    ends = other.shutdown is not None and other.shutdown - datetime.date.today() <= SOON
    worse, step = 0, 0
    if info.quality in QUALITIES:
        level = QUALITIES.index(other.quality) if other.quality in QUALITIES else -1
        step = level - QUALITIES.index(info.quality)
        worse = step < 0
    price, own = _total(other), _total(info)
    apart = abs(price - own) if price is not None and own is not None else Decimal(0)
    return rank, ends, other.provider != info.provider, worse, abs(step), price is None, apart


def _total(info: ModelInfo) -> Decimal | None:
    prices = info.priced_on().prices or {}
    return prices["input"] + prices["output"] if {"input", "output"} <= prices.keys() else None
