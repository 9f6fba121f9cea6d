"""The registry: what is known of each model, from which source, as of which day.

The facts stand in `models.json` beside this file and are read on first use. `register_model` adds
to them or overrides them for this process.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
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
        raise KeyError(f"{key!r}; there are token_limit, {', '.join(sorted(_FIELDS))}")

    def __contains__(self, key: object) -> bool:
        return key == "token_limit" or key in _FIELDS

    def get(self, key: str, default: Any = None) -> Any:
        """Reads a field by its name, or gives `default`."""
        return self[key] if key in self else default  # noqa: SIM401 - this is `get` itself

    def retired(self, on: datetime.date | None = None) -> bool:
        """Says whether the model is no longer served.

        Args:
            on: The day; None is today.
        """
        return self.shutdown is not None and self.shutdown <= (on or datetime.date.today())


_FIELDS = frozenset(each.name for each in fields(ModelInfo))


def get_model_info(model: str) -> ModelInfo:
    """Looks a model up.

    Args:
        model: Its name, an alias of it, or either with its provider ("openai:gpt-6-luna").

    Returns:
        What is known of it.

    Raises:
        ModelNotFoundError: The registry does not know it; the message names near matches.
    """
    registry = _registry()
    info = registry.find(model)
    if info is None:
        provider, separator, name = model.partition(":")
        info = registry.find(name) if separator else None
        if info is None or info.provider != provider:
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
    enabled = get_settings().enabled_models
    wanted = frozenset(required_capabilities or ())
    return [
        info.name
        for info in _registry().all()
        if (info.name in enabled if enabled is not None else not info.retired())
        and wanted <= info.capabilities
        and (min_token_limit is None or (info.context_window or 0) >= min_token_limit)
        and provider in (None, info.provider)
    ]


def register_model(name: str, **facts: Any) -> ModelInfo:
    """Adds a model to this process's registry, or overrides what it says of one.

    Args:
        name: The model's bare name.
        **facts: Fields of `ModelInfo`; prices as numbers or decimal strings, dates as ISO strings.
            What is left out of a known model stays as it is.

    Returns:
        The model as it is now known.

    Raises:
        InvalidRequestError: A fact's name or value can't be read, or the provider is missing.
    """
    registry = _registry()
    known = registry.find(name)
    record = {**(registry.records.get(known.name, {}) if known else {}), **facts}
    try:
        info = _read(known.name if known else name, record)
    except (TypeError, ValueError, InvalidOperation, AttributeError) as error:
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
        self.records: dict[str, Mapping[str, Any]] = dict(document["models"])
        self.defaults: Mapping[str, str] = document["defaults"]
        self._infos: dict[str, ModelInfo] = {}
        self._aliases = {
            alias: name
            for name, record in self.records.items()
            for alias in record.get("aliases", ())
        }

    def find(self, name: str) -> ModelInfo | None:
        name = self._aliases.get(name, name)
        info = self._infos.get(name)
        if info is None and name in self.records:
            info = self._infos[name] = _read(name, self.records[name])
        return info

    def put(self, info: ModelInfo, record: Mapping[str, Any]) -> None:
        self.records[info.name] = record
        self._infos[info.name] = info

    def all(self) -> list[ModelInfo]:
        infos = (self.find(name) for name in tuple(self.records))
        return [info for info in infos if info is not None]

    def names(self) -> list[str]:
        return [*self.records, *self._aliases]


@functools.cache
def _registry() -> _Registry:
    return _Registry(json.loads(Path(__file__).with_name("models.json").read_bytes()))


def _read(name: str, record: Mapping[str, Any]) -> ModelInfo:
    known = {key: value for key, value in record.items() if key not in _UNUSED}
    strange = known.keys() - _FIELDS
    if strange:
        raise ValueError(f"unknown facts {sorted(strange)}")
    if not isinstance(known.get("provider"), str):
        raise ValueError("provider= is missing")
    for key in ("released", "shutdown"):
        if isinstance(known.get(key), str):
            known[key] = datetime.date.fromisoformat(known[key])
    if known.get("prices") is not None:
        known["prices"] = _read_prices(known["prices"])
    known["price_tiers"] = tuple(
        {"above_input_tokens": tier["above_input_tokens"], **_read_prices(tier)}
        for tier in known.get("price_tiers", ())
    )
    for key in ("capabilities", "refuses"):
        if key in known:
            known[key] = frozenset(known[key])
    if known.get("reasoning_efforts") is not None:
        known["reasoning_efforts"] = tuple(known["reasoning_efforts"])
    return ModelInfo(**{"name": name, **known})


# In the data file, but not yet part of ModelInfo.
_UNUSED = frozenset({"aliases", "max_input_tokens"})


def _read_prices(record: Mapping[str, Any]) -> dict[str, Decimal]:
    return {
        key: Decimal(str(record[key]))
        for key in ("input", "output", "cache_read", "cache_write")
        if key in record
    }


def _not_found(model: str, registry: _Registry) -> str:
    near = difflib.get_close_matches(model, registry.names(), n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}? " if near else ""
    return (
        f"no model {model!r} is known; {hint}A model that is newer than this list can be asked "
        f"for with its provider, as in 'openai:{model.rpartition(':')[2]}'"
    )
