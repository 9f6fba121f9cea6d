"""Reads litellm's table of models: prices, limits, and flags of what a model can do."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .facts import KINDS, Facts, Prices, PriceTable, the_file, usd

_NAMES = {
    "input": "input_cost_per_token",
    "output": "output_cost_per_token",
    "cache_read": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
}
_FILE = ("litellm", "model_prices_and_context_window_backup.json")
_MODES = ("chat", "responses", "embedding")
_TIER = re.compile(rf"(?:{'|'.join(_NAMES.values())})_above_(\d+)k_tokens")


class Litellm:
    """The models of litellm's table."""

    name = "litellm"

    def __init__(self, directory: Path) -> None:
        text = the_file(directory, *_FILE).read_text(encoding="utf-8")
        self._entries: Mapping[str, Mapping[str, Any]] = json.loads(text)

    def find(self, provider: str, model: str, day: datetime.date) -> Facts | None:
        """Returns what is said of a model; the table knows no days."""
        for key in (f"{provider}/{model}", model):
            entry = self._entries.get(key, {})
            if entry.get("litellm_provider") == provider:
                return Facts(
                    prices=_table(entry),
                    batch=_table(entry, "_batches"),
                    window=entry.get("max_input_tokens"),
                    max_output=entry.get("max_output_tokens"),
                    flags=entry,
                    shutdown=_date(entry.get("deprecation_date")),
                )
        return None

    def models(self, provider: str) -> Iterator[str]:
        """Lists the bare names of a provider's chat and embedding models."""
        for key, entry in self._entries.items():
            if entry.get("litellm_provider") == provider and entry.get("mode") in _MODES:
                yield key.removeprefix(f"{provider}/")


def _date(text: str | None) -> datetime.date | None:
    return datetime.date.fromisoformat(text) if text else None


def _table(entry: Mapping[str, Any], suffix: str = "") -> PriceTable | None:
    base = _prices(entry, suffix)
    if "input" not in base:
        return None
    found = (_TIER.fullmatch(key.removesuffix(suffix)) for key in entry if key.endswith(suffix))
    starts = sorted({int(each[1]) for each in found if each})
    tiers = {start * 1000: _prices(entry, f"_above_{start}k_tokens{suffix}") for start in starts}
    return PriceTable(base, tiers)


def _prices(entry: Mapping[str, Any], suffix: str) -> Prices:
    told = {kind: entry.get(_NAMES[kind] + suffix) for kind in KINDS}
    return {kind: usd(price, 1_000_000) for kind, price in told.items() if price is not None}
