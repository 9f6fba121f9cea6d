"""The registry: what is known of each model, from which source, as of which day.

The facts stand in `models.json` beside this file and are read on first use. `register_model` adds
to them or overrides them for this process.
"""

from __future__ import annotations

import datetime
import os.path
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from llmkit.errors import InvalidRequestError, ModelNotFoundError
from llmkit.settings import get_settings

__all__ = [
    "ModelInfo",
    "default_model",
    "get_model_info",
    "list_available_models",
    "register_model",
    "split_model_name",
]

Prices = Mapping[str, Decimal]


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of one model; None means unknown.

    Can be read as a mapping, too: `info["provider"]`, `info["token_limit"]`.

    Attributes:
        name: The model's bare name.
        provider: Who serves it.
        context_window: Tokens of prompt and answer together.
        max_output_tokens: The longest answer.
        prices: USD per million tokens: "input", "output", "cache_read", "cache_write".
        price_tiers: Prices of long prompts: each with "above_input_tokens" and the prices that
            hold for the whole request beyond it.
        capabilities: Such as "chat", "streaming", "vision", "tools", "structured_output".
        refuses: Request parameters that the model answers with an error, or ignores.
        reasoning_efforts: The values of `reasoning_effort` that it takes.
        api: "chat", or "responses" for a model that only OpenAI's Responses API serves.
        released: When it came out.
        shutdown: When it stops (or stopped) to be served.
        successor: What to use instead.
        speed: "fast", "medium" or "slow": a judgement, from price and family.
        quality: "tiny", "basic", "good" or "best": a judgement likewise.
        source: Where the facts come from.
        known: False for a model that the registry does not know, but whose provider it does.
    """

    name: str
    provider: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    prices: Prices | None = None
    price_tiers: tuple[Mapping[str, Any], ...] = ()
    capabilities: frozenset[str] = frozenset({"chat", "streaming"})
    refuses: frozenset[str] = frozenset()
    reasoning_efforts: tuple[str, ...] | None = None
    api: str = "chat"
    released: datetime.date | None = None
    shutdown: datetime.date | None = None
    successor: str | None = None
    speed: str | None = None
    quality: str | None = None
    source: str | None = None
    known: bool = True

    def __getitem__(self, key: str) -> Any:
        if key == "token_limit":
            return self.context_window
        if key in _FIELDS:
            return getattr(self, key)
        raise KeyError(f"{key!r}; there are {', '.join(self.keys())}")

    def __contains__(self, key: object) -> bool:
        return key == "token_limit" or key in _FIELDS

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> tuple[str, ...]:
        """Returns the names that `info[…]` knows."""
        return (*_FIELDS, "token_limit")

    def get(self, key: str, default: Any = None) -> Any:
        """Reads a field by its name, or gives `default`."""
        return self[key] if key in self else default  # noqa: SIM401 - this is `get` itself

    def retired(self, on: datetime.date | None = None) -> bool:
        """Says whether the model is no longer served.

        Args:
            on: The day; None is today.
        """
        return self.shutdown is not None and self.shutdown <= (on or datetime.date.today())


_FIELDS = tuple(each.name for each in fields(ModelInfo))


def get_model_info(model: str) -> ModelInfo:
    """Looks a model up.

    Args:
        model: Its name, an alias of it, or either with its provider ("openai:gpt-6-luna",
            "openai/gpt-6-luna").

    Returns:
        What is known of it.

    Raises:
        ModelNotFoundError: The registry does not know it; the message names near matches.
    """
    registry = _registry()
    info = registry.find_named(model)
    if info is None:
        raise ModelNotFoundError(_not_found(model, registry), model=model)
    return info


def list_available_models(
    required_capabilities: Iterable[str] | None = None,
    min_token_limit: int | None = None,
    provider: str | None = None,
) -> list[str]:
    """Lists the models that can be used now.

    Args:
        required_capabilities: All of these; None asks for none.
        min_token_limit: A context window of at least so many tokens; a model whose window is
            unknown is left out. None asks for none.
        provider: Of this provider only; None for all.

    Returns:
        Bare names, by provider and then in the registry's order (newest first). Where
        ENABLED_MODELS is set, only what it names, retired models included; otherwise all that are
        not retired.
    """
    registry = _registry()
    chosen = get_settings().enabled_models
    enabled = None if chosen is None else [registry.find_named(name) for name in chosen]
    if isinstance(required_capabilities, str):
        required_capabilities = (required_capabilities,)
    wanted = frozenset(required_capabilities or ())
    return [
        info.name
        for info in registry.all()
        if (not info.retired() if enabled is None else info in enabled)
        and wanted <= info.capabilities
        and (min_token_limit is None or (info.context_window or 0) >= min_token_limit)
        and provider in (None, info.provider)
    ]


def register_model(name: str, **facts: Any) -> ModelInfo:
    """Adds a model to this process's registry, or overrides what it says of one.

    Args:
        name: The model's bare name.
        **facts: Fields of `ModelInfo`; prices as numbers or decimal strings, dates as ISO strings.
            What is left out of a known model stays as it is. `aliases` are further names.

    Returns:
        The model as it is now known.

    Raises:
        InvalidRequestError: A fact's name or value can't be read, or the provider is missing.
    """
    registry = _registry()
    known = registry.find(name)
    record = {**(registry.records[known.name] if known else {}), **facts}
    try:
        info = _read(known.name if known else name, record)
    except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
        raise InvalidRequestError(f"register_model({name!r}): {error}") from error
    registry.put(info, record)
    return info


def default_model(provider: str) -> str | None:
    """Returns the model to use when only the provider is known; None when there is none."""
    return _registry().defaults.get(provider)


def split_model_name(model: str, providers: Collection[str]) -> tuple[str | None, str]:
    """Parts a name into provider and bare name.

    Args:
        model: "gpt-6-luna", "openai:gpt-6-luna" or "openai/gpt-6-luna".
        providers: The names that count as a provider's.

    Returns:
        The provider, or None when the name does not say it, and the bare name.
    """
    for separator in ":/":
        provider, found, name = model.partition(separator)
        if found and provider in providers:
            return provider, name
    return None, model


class _Registry:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.records: dict[str, Mapping[str, Any]] = {}
        self.defaults: Mapping[str, str] = document["defaults"]
        self._infos: dict[str, ModelInfo] = {}
        self._aliases: dict[str, str] = {}
        for name, record in document["models"].items():
            self._add(name, record)

    def find(self, name: str) -> ModelInfo | None:
        name = self._aliases.get(name, name)
        info = self._infos.get(name)
        if info is None and name in self.records:
            info = self._infos[name] = _read(name, self.records[name])
        return info

    def find_named(self, model: str) -> ModelInfo | None:
        """Finds a model whose name may say its provider, too."""
        info = self.find(model)
        if info is not None:
            return info
        for separator in ":/":
            provider, _, name = model.partition(separator)
            info = self.find(name)
            if info is not None and info.provider == provider:
                return info
        return None

    def put(self, info: ModelInfo, record: Mapping[str, Any]) -> None:
        self._infos[info.name] = info
        self._add(info.name, record)

    def all(self) -> list[ModelInfo]:
        """Returns all models, by provider; within one, as the file has them."""
        infos = [info for name in tuple(self.records) if (info := self.find(name)) is not None]
        providers = list(dict.fromkeys(info.provider for info in infos))
        return sorted(infos, key=lambda info: providers.index(info.provider))

    def names(self) -> list[str]:
        return [*self.records, *self._aliases]

    def _add(self, name: str, record: Mapping[str, Any]) -> None:
        self.records[name] = record
        for alias in record.get("aliases", ()):
            self._aliases[alias] = name


_shared: dict[str, _Registry] = {}


def _registry() -> _Registry:
    # setdefault is atomic: threads that come here together all get one registry.
    return _shared.get("registry") or _shared.setdefault("registry", _Registry(_read_file()))


def _read_file() -> dict[str, Any]:
    import json

    path = os.path.join(os.path.dirname(__file__), "models.json")
    with open(path, "rb") as file:
        document: dict[str, Any] = json.load(file)
    return document


# In a record, but not part of ModelInfo.
_UNUSED = frozenset({"aliases", "max_input_tokens"})
_TOKENS = frozenset({"context_window", "max_output_tokens"})
_DATES = frozenset({"released", "shutdown"})
_LISTS = {"capabilities": frozenset, "refuses": frozenset, "reasoning_efforts": tuple}
_PRICES = ("input", "output", "cache_read", "cache_write")


def _read(name: str, record: Mapping[str, Any]) -> ModelInfo:
    """Reads a record; one that can't be read is a TypeError, ValueError or the like."""
    given = {key: value for key, value in record.items() if value is not None}
    for key in ("aliases", *_LISTS):
        if isinstance(given.get(key), str):
            raise ValueError(f"{key}={given[key]!r}: expected a list of words")
    facts = {key: value for key, value in given.items() if key not in _UNUSED}
    if strange := facts.keys() - set(_FIELDS):
        raise ValueError(f"unknown facts {sorted(strange)}")
    if not isinstance(facts.get("provider"), str):
        raise ValueError("provider= is missing")
    for key in _TOKENS & facts.keys():
        if not isinstance(facts[key], int) or facts[key] < 1:
            raise ValueError(f"{key}={facts[key]!r}: expected a number of tokens")
    for key in _DATES & facts.keys():
        if not isinstance(facts[key], datetime.date):
            facts[key] = datetime.date.fromisoformat(facts[key])
    for key in _LISTS.keys() & facts.keys():
        facts[key] = _LISTS[key](facts[key])
    if "prices" in facts:
        facts["prices"] = _read_prices(facts["prices"])
    facts["price_tiers"] = _read_tiers(facts.get("price_tiers", ()))
    return ModelInfo(**{"name": name, **facts})


def _read_prices(record: Mapping[str, Any]) -> dict[str, Decimal]:
    if strange := record.keys() - set(_PRICES):
        raise ValueError(f"unknown prices {sorted(strange)}")
    prices = {key: Decimal(str(price)) for key, price in record.items()}
    for key, price in prices.items():
        if not price.is_finite() or price < 0:
            raise ValueError(f"the price {key}={price}: expected USD per million tokens")
    return prices


def _read_tiers(tiers: Iterable[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """Returns the tiers, the one for the longest prompts last."""
    read = []
    for tier in tiers:
        prices = dict(tier)
        above = prices.pop("above_input_tokens")
        read.append({"above_input_tokens": above, **_read_prices(prices)})
    return tuple(sorted(read, key=lambda tier: tier["above_input_tokens"]))


def _not_found(model: str, registry: _Registry) -> str:
    import difflib

    near = difflib.get_close_matches(model.lower(), registry.names(), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    return (
        f"no model {model!r} is known; {hint}A model that is newer than this list can be asked "
        f"for with its provider, as in 'openai:{model.rpartition(':')[2]}'"
    )
