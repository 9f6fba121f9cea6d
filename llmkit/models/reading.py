"""Reads a record, as models.json and `register_model` have it, into a ModelInfo."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from llmkit.models.info import FIELDS, QUALITIES, ModelInfo, PriceChange

__all__ = ["UNREADABLE", "read_record"]

# What `read_record` raises on a record that can't be read.
UNREADABLE = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError)

_TOKENS = ("context_window", "max_input_tokens", "max_output_tokens")
_WORDS = ("api", "encoding", "successor", "speed", "quality", "source")
_CHOICES = {
    "api": ("chat", "responses"),
    "speed": ("fast", "medium", "slow"),
    "quality": QUALITIES,
}
_PRICES = ("input", "output", "cache_read", "cache_write")
# In a record, but not facts of a ModelInfo.
_OTHER = frozenset({"aliases"})


def read_record(name: str, record: Mapping[str, Any]) -> ModelInfo:
    """Reads a record.

    Args:
        name: The model's bare name.
        record: Fields of `ModelInfo` by their names, prices as numbers or decimal strings, dates
            as dates or ISO strings; None means unknown. Its `aliases` are checked and left out.

    Returns:
        The model.

    Raises:
        UNREADABLE: One of these, with a message that names the fact.
    """
    given = {key: value for key, value in record.items() if value is not None}
    facts = {key: value for key, value in given.items() if key not in _OTHER}
    _named("aliases", _read_words, given.get("aliases", ()))
    _check_plain_facts(facts)
    for key, read in _READERS.items():
        if key in facts:
            facts[key] = _named(key, read, facts[key])
    return ModelInfo(name=name, **facts)


def _named(key: str, read: Callable[[Any], Any], value: Any) -> Any:
    """Reads a value; an error names the fact."""
    try:
        return read(value)
    except UNREADABLE as error:
        raise ValueError(f"{key}={value!r:.80}: {error}") from error


def _check_plain_facts(facts: Mapping[str, Any]) -> None:
    """Refuses what would otherwise be taken over as it is."""
    if strange := facts.keys() - (set(FIELDS) - {"name", "known"}):
        raise ValueError(f"unknown facts {sorted(strange)}")
    if not isinstance(facts.get("provider"), str) or not facts["provider"]:
        raise ValueError("provider= is missing")
    for key in _WORDS:
        if not isinstance(facts.get(key, ""), str):
            raise ValueError(f"{key}={facts[key]!r}: expected a word")
    for key, words in _CHOICES.items():
        if facts.get(key, words[0]) not in words:
            raise ValueError(f"{key}={facts[key]!r}: expected one of {', '.join(words)}")
    if not isinstance(facts.get("limited_access", False), bool):
        raise ValueError(f"limited_access={facts['limited_access']!r}: expected true or false")
    for key in _TOKENS:
        if key in facts and (type(facts[key]) is not int or facts[key] < 1):
            raise ValueError(f"{key}={facts[key]!r}: expected a number of tokens")


def _read_words(words: Any) -> tuple[str, ...]:
    if isinstance(words, str | Mapping) or not isinstance(words, Iterable):
        raise TypeError("expected a list of words")
    read = tuple(words)
    if not all(isinstance(word, str) for word in read):
        raise TypeError("expected a list of words")
    return read


def _read_modalities(modalities: Any) -> dict[str, tuple[str, ...]]:
    _check_table(modalities)
    return {way: _read_words(words) for way, words in modalities.items()}


def _read_day(day: Any) -> datetime.date:
    if isinstance(day, datetime.datetime):
        return day.date()
    if isinstance(day, datetime.date):
        return day
    try:
        return datetime.date.fromisoformat(day)
    except (TypeError, ValueError):
        raise ValueError("expected a day such as 2027-01-31") from None


def _check_table(value: Any) -> None:
    if not isinstance(value, Mapping):
        raise TypeError("expected a table")


def _read_prices(record: Any) -> dict[str, Decimal]:
    _check_table(record)
    if strange := record.keys() - set(_PRICES):
        raise ValueError(f"unknown prices {sorted(strange)}")
    return {key: _named(key, _read_price, price) for key, price in record.items()}


def _read_price(price: Any) -> Decimal:
    try:
        read = Decimal(str(price))
    except ArithmeticError:
        read = Decimal("nan")
    if not read.is_finite() or read < 0:
        raise ValueError("expected USD per million tokens")
    return read


def _read_tiers(tiers: Iterable[Any]) -> tuple[Mapping[str, Any], ...]:
    """Returns the tiers, the one for the longest prompts last."""
    read = []
    for tier in tiers:
        _check_table(tier)
        prices = dict(tier)
        above = prices.pop("above_input_tokens", None)
        if type(above) is not int:
            raise ValueError(f"above_input_tokens={above!r}: expected a number of tokens")
        read.append({"above_input_tokens": above, **_read_prices(prices)})
    return tuple(sorted(read, key=lambda tier: tier["above_input_tokens"]))


def _read_changes(changes: Iterable[Any]) -> tuple[PriceChange, ...]:
    """Returns the changes, the last one last."""
    read: list[PriceChange] = []
    for change in changes:
        _check_table(change)
        lists = {key: value for key, value in change.items() if key != "from" and value is not None}
        if strange := lists.keys() - _PRICE_READERS.keys():
            raise ValueError(f"unknown facts {sorted(strange)}")
        start = _named("from", _read_day, change.get("from"))
        read.append(
            PriceChange(
                start,
                **{key: _named(key, _PRICE_READERS[key], value) for key, value in lists.items()},
            )
        )
    return tuple(sorted(read, key=lambda change: change.start))


_PRICE_READERS: Mapping[str, Callable[[Any], Any]] = {
    "prices": _read_prices,
    "batch_prices": _read_prices,
    "price_tiers": _read_tiers,
    "batch_price_tiers": _read_tiers,
}
_READERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("released", "shutdown", "as_of"), _read_day),
    **dict.fromkeys(("capabilities", "refuses"), lambda words: frozenset(_read_words(words))),
    "reasoning_efforts": _read_words,
    "modalities": _read_modalities,
    **_PRICE_READERS,
    "price_changes": _read_changes,
}
