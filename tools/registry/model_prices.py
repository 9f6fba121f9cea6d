"""Reads the table of model-prices: dated prices, for a cross-check."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .facts import KINDS, Facts, Prices, PriceTable, the_file, usd

_PROVIDERS = {"gemini": "google"}


class ModelPrices:
    """The models of model-prices."""

    name = "model-prices"

    def __init__(self, directory: Path) -> None:
        text = the_file(directory, "model_prices", "snapshot.json").read_text(encoding="utf-8")
        self._prices: Mapping[str, Any] = json.loads(text)["prices"]

    def find(self, provider: str, model: str, day: datetime.date) -> Facts | None:
        """Returns what is said of a model on a day; None when it is not listed."""
        modes = self._prices.get(_PROVIDERS.get(provider, provider), {}).get(model)
        if modes is None:
            return None
        standard = modes.get("standard", ())
        listed = [each["rates"]["valid_from"] for each in standard if each["rates"]]
        return Facts(
            prices=_table(standard, day),
            batch=_table(modes.get("batch", ()), day),
            first_seen=min(listed)[:10] if listed else None,
        )


def _table(intervals: Sequence[Mapping[str, Any]], day: datetime.date) -> PriceTable | None:
    """Reads the last interval that has begun."""
    begun = [each for each in intervals if (each["start"] or "")[:10] <= day.isoformat()]
    rates = begun[-1]["rates"] if begun else None
    if not rates:
        return None
    return PriceTable(
        _prices(rates), {tier["above"]: _prices(tier) for tier in rates.get("tiers", ())}
    )


def _prices(rates: Mapping[str, Any]) -> Prices:
    return {kind: usd(rates[kind]) for kind in KINDS if rates.get(kind) is not None}
