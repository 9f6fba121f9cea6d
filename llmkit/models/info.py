"""ModelInfo: what is known of one model."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any

__all__ = [
    "BARE",
    "FIELDS",
    "QUALITIES",
    "ModelInfo",
    "PriceChange",
    "Prices",
    "Tiers",
    "full_name",
    "split_model_name",
]

Prices = Mapping[str, Decimal]
Tiers = tuple[Mapping[str, Any], ...]

# From the smallest to the largest.
QUALITIES = ("tiny", "basic", "good", "best")

# Their models go by bare names; everybody else's are written with the provider in front.
BARE = frozenset({"openai", "anthropic", "gemini", "local"})


def full_name(provider: str, name: str) -> str:
    """Writes a name so that it leads to this provider's model, wherever a model is asked for.

    Args:
        provider: The provider.
        name: The model's bare name.

    Returns:
        "gpt-6-luna" for OpenAI's, Anthropic's, Google's and the embedded model;
        "groq:openai/gpt-oss-120b" for others', and for names that could be read as having a
        provider in them.
    """
    plain = provider in BARE and ":" not in name and "/" not in name
    return name if plain else f"{provider}:{name}"


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


@dataclass(frozen=True, slots=True)
class PriceChange:
    """Prices that were announced for a day to come.

    Attributes:
        start: The first day on which they hold.
        prices: As `ModelInfo.prices`; None leaves those and their tiers as they are.
        price_tiers: As `ModelInfo.price_tiers`.
        batch_prices: As `ModelInfo.batch_prices`; None leaves those and their tiers as they are.
        batch_price_tiers: As `ModelInfo.batch_price_tiers`.
    """

    start: datetime.date
    prices: Prices | None = None
    price_tiers: Tiers = ()
    batch_prices: Prices | None = None
    batch_price_tiers: Tiers = ()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What is known of one model; None means unknown.

    Can be read as a mapping, too: `info["provider"]`, `info["token_limit"]`.

    Attributes:
        name: The model's bare name.
        provider: Who serves it.
        context_window: Tokens of prompt and answer together.
        max_input_tokens: The longest prompt in tokens, where it is less than the window.
        max_output_tokens: The longest answer in tokens.
        prices: USD per million tokens: "input", "output", "cache_read", "cache_write".
        price_tiers: Prices of long prompts: each with "above_input_tokens" and the prices that
            hold for the whole request beyond it.
        batch_prices: Likewise for the vendor's batch interface.
        batch_price_tiers: Likewise.
        price_changes: Prices announced for later days, in their order; see `priced_on`.
        capabilities: Such as "chat", "streaming", "vision", "tools", "structured_output".
        modalities: "input" and "output", each with words such as "text" and "image".
        refuses: Request parameters that the model answers with an error, or ignores.
        reasoning_efforts: The values of `reasoning_effort` that it takes.
        encoding: The vocabulary of its tokens, as tiktoken calls it ("o200k_base").
        api: "chat", or "responses" for a model that only OpenAI's Responses API serves.
        limited_access: Whether only organisations that the vendor has admitted may use it.
        released: When it came out.
        shutdown: When it stops (or stopped) to be served.
        successor: What to use instead, as a name that `get_adapter` takes.
        speed: "fast", "medium" or "slow": a judgement, from price and family.
        quality: "tiny", "basic", "good" or "best": a judgement likewise.
        as_of: The day on which the facts were true.
        source: Where the facts come from.
        known: False for a model that the registry does not know, but whose provider it does.
    """

    name: str
    provider: str
    context_window: int | None = None
    max_output_tokens: int | None = None
    prices: Prices | None = None
    price_tiers: Tiers = ()
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
    max_input_tokens: int | None = None
    batch_prices: Prices | None = None
    batch_price_tiers: Tiers = ()
    price_changes: tuple[PriceChange, ...] = ()
    modalities: Mapping[str, tuple[str, ...]] | None = None
    encoding: str | None = None
    limited_access: bool = False
    as_of: datetime.date | None = None

    def __getitem__(self, key: str) -> Any:
        if key == "token_limit":
            return self.context_window
        if key in FIELDS:
            return getattr(self, key)
        raise KeyError(f"{key!r}; there are {', '.join(self.keys())}")

    def __contains__(self, key: object) -> bool:
        return key == "token_limit" or key in FIELDS

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def keys(self) -> tuple[str, ...]:
        """Returns the names that `info[…]` knows."""
        return (*FIELDS, "token_limit")

    def get(self, key: str, default: Any = None) -> Any:
        """Reads a field, as `info[key]` does.

        Args:
            key: One of `keys()`.
            default: What to return for any other.

        Returns:
            The field's value, or the default.
        """
        return self[key] if key in self else default  # noqa: SIM401 - this is `get` itself

    @property
    def full_name(self) -> str:
        """The name by which every call finds this very model; see `full_name` the function."""
        return full_name(self.provider, self.name)

    def retired(self, on: datetime.date | None = None) -> bool:
        """Says whether the model is no longer served.

        Args:
            on: The day; None is today.
        """
        return self.shutdown is not None and self.shutdown <= (on or datetime.date.today())

    def priced_on(self, day: datetime.date | None = None) -> ModelInfo:
        """Gives the model with the prices that are in force on a day.

        Args:
            day: The day, in no certain time zone; None is today, by the machine's clock.

        Returns:
            The model with every announced change up to then made; itself when there is none.
        """
        if not self.price_changes:
            return self
        day = day or datetime.date.today()
        changes: dict[str, Any] = {}
        for change in self.price_changes:
            if change.start > day:
                continue
            if change.prices is not None:
                changes.update(prices=change.prices, price_tiers=change.price_tiers)
            if change.batch_prices is not None:
                changes.update(
                    batch_prices=change.batch_prices, batch_price_tiers=change.batch_price_tiers
                )
        later = tuple(each for each in self.price_changes if each.start > day)
        return replace(self, price_changes=later, **changes) if changes else self


FIELDS = tuple(each.name for each in fields(ModelInfo))
