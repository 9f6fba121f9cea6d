"""Reads a record, as models.json and `register_model` have it, into a ModelInfo."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from llmkit.models.info import FIELDS, ModelInfo, PriceChange

__all__ = ["UNREADABLE", "read_record"]

# What `read_record` raises on a record that can't be read.
UNREADABLE = (TypeError, ValueError, LookupError, ArithmeticError, AttributeError)

_TOKENS = ("context_window", "max_input_tokens", "max_output_tokens")
_DATES = ("released", "shutdown", "as_of")
_LISTS = {"capabilities": frozenset, "refuses": frozenset, "reasoning_efforts": tuple}
_WORDS = ("api", "encoding", "successor", "speed", "quality", "source")
_PRICES = ("input", "output", "cache_read", "cache_write")
_PRICE_LISTS = ("prices", "batch_prices")
_TIER_LISTS = ("price_tiers", "batch_price_tiers")
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
    _check_words("aliases", given.get("aliases", ()))
    _check_plain_facts(facts)
    for key in _DATES:
        if key in facts:
            facts[key] = _read_day(facts[key])
    for key, kind in _LISTS.items():
        if key in facts:
            facts[key] = kind(facts[key])
    if "modalities" in facts:
        facts["modalities"] = {way: tuple(words) for way, words in facts["modalities"].items()}
    facts.update(_read_price_lists(facts))
    if "price_changes" in facts:
        facts["price_changes"] = _read_changes(facts["price_changes"])
    return ModelInfo(name=name, **facts)


def _check_plain_facts(facts: Mapping[str, Any]) -> None:
    """Refuses what would otherwise be taken over as it is."""
    if strange := facts.keys() - (set(FIELDS) - {"name", "known"}):
        raise ValueError(f"unknown facts {sorted(strange)}")
    if not isinstance(facts.get("provider"), str) or not facts["provider"]:
        raise ValueError("provider= is missing")
    for key in _LISTS.keys() & facts.keys():
        _check_words(key, facts[key])
    for key in _WORDS:
        if not isinstance(facts.get(key, ""), str):
            raise ValueError(f"{key}={facts[key]!r}: expected a word")
    if not isinstance(facts.get("limited_access", False), bool):
        raise ValueError(f"limited_access={facts['limited_access']!r}: expected true or false")
    for key in _TOKENS:
        if key in facts and (type(facts[key]) is not int or facts[key] < 1):
            raise ValueError(f"{key}={facts[key]!r}: expected a number of tokens")


def _check_words(key: str, words: Any) -> None:
    if isinstance(words, str) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{key}={words!r}: expected a list of words")


def _read_day(day: Any) -> datetime.date:
    if isinstance(day, datetime.datetime):
        return day.date()
    return day if isinstance(day, datetime.date) else datetime.date.fromisoformat(day)


def _read_price_lists(record: Mapping[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = {
        key: _read_prices(record[key]) for key in _PRICE_LISTS if record.get(key) is not None
    }
    read.update((key, _read_tiers(record[key])) for key in _TIER_LISTS if record.get(key))
    return read


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
        if type(above) is not int:
            raise ValueError(f"above_input_tokens={above!r}: expected a number of tokens")
        read.append({"above_input_tokens": above, **_read_prices(prices)})
    return tuple(sorted(read, key=lambda tier: tier["above_input_tokens"]))


def _read_changes(changes: Iterable[Mapping[str, Any]]) -> tuple[PriceChange, ...]:
    """Returns the changes, the last one last."""
    read: list[PriceChange] = []
    for change in changes:
        if strange := change.keys() - {"from", *_PRICE_LISTS, *_TIER_LISTS}:
            raise ValueError(f"price_changes: unknown facts {sorted(strange)}")
        read.append(PriceChange(_read_day(change["from"]), **_read_price_lists(change)))
    return tuple(sorted(read, key=lambda change: change.start))
