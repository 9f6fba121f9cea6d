"""Writes the registry down, and says where the sources differ from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from llmkit.models.info import full_name

from .facts import Source
from .litellm import Litellm
from .merge import Difference, Record

_HEAD = ("MODEL", "FACT", "OURS", "SOURCE", "THEIRS", "WHY OURS STAYS")


def to_json(document: Mapping[str, Any]) -> str:
    """Writes a document with one line for each fact, so that a change shows as one line."""
    return _lines(document, depth=3, indent="") + "\n"


def _lines(value: Any, depth: int, indent: str) -> str:
    if not depth or not isinstance(value, Mapping) or not value:
        return json.dumps(value, ensure_ascii=False)
    inner = indent + "  "
    rows = (
        f"{inner}{json.dumps(key, ensure_ascii=False)}: {_lines(item, depth - 1, inner)}"
        for key, item in value.items()
    )
    return "{\n" + ",\n".join(rows) + f"\n{indent}}}"


def difference_table(differences: Sequence[Difference]) -> str:
    """Lays the differences out as a table; "" when there are none."""
    if not differences:
        return ""
    rows = [
        (each.model, each.fact, each.ours or "-", each.source, each.theirs, each.reason or "?")
        for each in differences
    ]
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (_HEAD, *rows)
    )


def unlisted(
    source: Litellm, overrides: Mapping[str, Any], models: Mapping[str, Record]
) -> list[str]:
    """Lists what litellm has and the registry lacks, but for what was left out with a reason.

    Returns:
        Such as "openai: gpt-7", sorted.
    """
    aliases = (
        full_name(record["provider"], alias)
        for record in models.values()
        for alias in record.get("aliases", ())
    )
    known = {*models, *aliases}
    patterns = [re.compile(row["pattern"]) for row in overrides.get("left_out", ())]
    return sorted(
        f"{provider}: {name}"
        for provider in ("openai", "anthropic", "gemini", "groq")
        for name in set(source.models(provider))
        if full_name(provider, name) not in known
        and not any(pattern.search(name) for pattern in patterns)
    )


def cross_check(
    sources: Iterable[Source], overrides: Mapping[str, Any], models: Mapping[str, Record]
) -> Record:
    """Collects what the other sources say of the prices of the most used models.

    Args:
        sources: All but the one that is believed first.
        overrides: The hand-written facts: `most_used` names the models.
        models: The registry's records.

    Returns:
        For each model the base prices of each source that lists it, and `differs`: the written
        reason for each of these prices that the registry doesn't have, such as "litellm input".
    """
    found: Record = {}
    for name in overrides["most_used"]:
        provider = models[name]["provider"]
        ours = models[name]["prices"] or {}
        reason = overrides[provider][name].get("differs")
        row: Record = {}
        differs: Record = {}
        for source in sources:
            facts = source.find(provider, name, overrides["as_of"])
            if facts is None or facts.prices is None:
                continue
            row[source.name] = {kind: f"{price:f}" for kind, price in facts.prices.base.items()}
            for kind, price in facts.prices.base.items():
                if reason and (kind not in ours or Decimal(ours[kind]) != price):
                    differs[f"{source.name} {kind}"] = reason
        found[name] = {**row, "differs": differs} if differs else row
    return {"as_of": overrides["as_of"].isoformat(), "models": found}
