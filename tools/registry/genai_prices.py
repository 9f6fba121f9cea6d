"""Reads the table of genai-prices.

It is a Python file of nothing but constructor calls. It is parsed, not run: building the registry
needs neither that package's dependencies nor trust in its code.
"""

from __future__ import annotations

import ast
import datetime
import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from .facts import KINDS, Facts, PriceChange, PriceTable, the_file

_PROVIDERS = {"gemini": "google"}
_BATCH = {"processing": "batch"}
_FIELDS = {f"{kind}_mtok": kind for kind in KINDS}


@dataclass(frozen=True)
class _Call:
    """One constructor call of the file: `kind(**fields)`."""

    kind: str
    fields: dict[str, Any]

    def get(self, name: str) -> Any:
        return self.fields.get(name)


class GenaiPrices:
    """The models of genai-prices, by the provider's name there."""

    name = "genai-prices"

    def __init__(self, directory: Path) -> None:
        text = the_file(directory, "genai_prices", "data.py").read_text(encoding="utf-8")
        self._models = {
            provider.get("id"): provider.get("models") for provider in _read_module(text)
        }

    def find(self, provider: str, model: str, day: datetime.date) -> Facts | None:
        """Returns what is said of a model on a day; None when it is not listed."""
        entries: Iterable[_Call] = self._models.get(_PROVIDERS.get(provider, provider), ())
        entry = next((each for each in entries if _matches(each.get("match"), model)), None)
        if entry is None:
            return None
        return Facts(
            prices=_prices_on(entry, day),
            batch=_batch_on(entry, day),
            changes=tuple(
                PriceChange(start, prices, _batch_on(entry, start))
                for start in _later_days(entry, day)
                if (prices := _prices_on(entry, start)) is not None
            ),
            window=entry.get("context_window"),
        )


def _read_module(text: str) -> list[_Call]:
    for node in ast.parse(text).body:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            providers: list[_Call] = _value(node.value)
            return providers
    raise ValueError("genai-prices: data.py has no list of providers")


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.List):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Attribute):
        return ast.unparse(node)
    if not isinstance(node, ast.Call):
        return ast.literal_eval(node)
    kind = ast.unparse(node.func)
    if kind == "Decimal":
        return Decimal(_value(node.args[0]))
    if kind == "datetime.date":
        return datetime.date(*(_value(item) for item in node.args))
    return _Call(kind, {each.arg: _value(each.value) for each in node.keywords if each.arg})


def _matches(clause: _Call, text: str) -> bool:
    """Says whether a name is meant by the source's own matching rule, which ignores case."""
    text = text.lower()
    [wanted] = clause.fields.values()
    match clause.kind:
        case "ClauseOr":
            return any(_matches(each, text) for each in wanted)
        case "ClauseAnd":
            return all(_matches(each, text) for each in wanted)
        case "ClauseEquals":
            return bool(text == wanted.lower())
        case "ClauseStartsWith":
            return text.startswith(wanted.lower())
        case "ClauseEndsWith":
            return text.endswith(wanted.lower())
        case "ClauseContains":
            return wanted.lower() in text
        case "ClauseRegex":
            return re.search(wanted, text) is not None
    raise ValueError(f"genai-prices: unknown clause {clause.kind}")


def _conditions(entry: _Call) -> list[_Call]:
    prices = entry.get("prices")
    return prices if isinstance(prices, list) else [_Call("ConditionalPrice", {"prices": prices})]


def _starts(condition: _Call) -> datetime.date | None:
    """Returns the first day of a condition; one that goes by the time of day never starts."""
    constraint: _Call | None = condition.get("constraint")
    if constraint is None:
        return datetime.date.min
    start: datetime.date | None = constraint.get("start_date")
    return start


def _holds(condition: _Call, day: datetime.date) -> bool:
    start = _starts(condition)
    return start is not None and start <= day


def _later_days(entry: _Call, day: datetime.date) -> list[datetime.date]:
    starts = (_starts(condition) for condition in _conditions(entry))
    return sorted({start for start in starts if start is not None and start > day})


def _prices_on(entry: _Call, day: datetime.date) -> PriceTable | None:
    conditions = _conditions(entry)
    holding = [each for each in conditions if _holds(each, day)] or conditions[:1]
    return _table(holding[-1].get("prices").fields) if holding else None


def _batch_on(entry: _Call, day: datetime.date) -> PriceTable | None:
    """Returns the batch prices: the first variant that holds and names a price decides it."""
    variants = [each for each in entry.get("price_variants") or () if each.get("when") == _BATCH]
    fields: dict[str, Any] = {}
    for variant in variants:
        if _holds(variant, day):
            fields = {**variant.get("prices").fields, **fields}
    return _table(fields)


def _table(fields: dict[str, Any]) -> PriceTable | None:
    """Reads prices; a price without tiers beside one with tiers holds for long prompts, too."""
    told = {kind: fields[name] for name, kind in _FIELDS.items() if fields.get(name) is not None}
    if not told:
        return None
    base = {kind: _base(price) for kind, price in told.items()}
    starts = {tier.get("start") for price in told.values() for tier in _tiers(price)}
    return PriceTable(
        base, {start: {kind: _at(told[kind], start) for kind in told} for start in sorted(starts)}
    )


def _base(price: Any) -> Decimal:
    base: Decimal = price.get("base") if isinstance(price, _Call) else price
    return base


def _tiers(price: Any) -> list[_Call]:
    tiers: list[_Call] = price.get("tiers") if isinstance(price, _Call) else []
    return tiers


def _at(price: Any, start: int) -> Decimal:
    reached = [tier for tier in _tiers(price) if tier.get("start") <= start]
    last = max(reached, key=lambda tier: int(tier.get("start")), default=None)
    return _base(price) if last is None else Decimal(last.get("price"))
