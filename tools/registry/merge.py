"""Merges what the sources say with what was written by hand into the registry's records."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from llmkit.models.info import full_name

from .abilities import abilities, modalities, reasoning_efforts, refusals
from .facts import KINDS, Facts, PriceChange, Prices, PriceTable, Source

Record = dict[str, Any]

_PROVIDERS = ("openai", "anthropic", "gemini", "groq", "openrouter", "local")
_SNAPSHOT = re.compile(r"-(\d{4})-?(\d{2})-?(\d{2})$")
_HAND_WRITTEN = frozenset(
    {
        *("add", "aliases", "as_of", "batch", "capabilities", "changes", "differs", "drop"),
        *("drop_prices", "efforts", "judged", "like", "limited", "listed", "max_input"),
        *("max_output", "modalities", "no_tiers", "no_window", "prices", "refuses", "released"),
        *("shutdown", "source", "successor", "tiers", "unpriced", "window"),
    }
)


@dataclass(frozen=True)
class Difference:
    """One value in which a source differs from the registry.

    Attributes:
        model: The model.
        fact: Such as "output", "output above 272000" or "batch input".
        ours: The registry's value; None when it has none.
        source: The source's name.
        theirs: The source's value.
        reason: Why the registry's value stays; None when nobody wrote one.
    """

    model: str
    fact: str
    ours: str | None
    source: str
    theirs: str
    reason: str | None


@dataclass(frozen=True)
class Merged:
    """The outcome: the document for models.json, and where the sources differ from it."""

    document: Record
    differences: tuple[Difference, ...]


def merge(sources: Sequence[Source], overrides: Mapping[str, Any]) -> Merged:
    """Makes the registry.

    Args:
        sources: The published tables; where they differ, the first one is believed.
        overrides: The hand-written facts, as `registry_overrides.toml` has them.

    Raises:
        ValueError: The hand-written facts contradict each other, or lack one that is needed.
    """
    day: datetime.date = overrides["as_of"]
    records: dict[str, Record] = {}
    differences: list[Difference] = []
    for provider in _PROVIDERS:
        built = []
        for name, spec in overrides.get(provider, {}).items():
            model = _Model(provider, name, spec, sources, overrides)
            differences.extend(model.differences())
            built.append((model.order(), full_name(provider, name), model.record()))
        records.update((name, record) for _, name, record in sorted(built, key=lambda row: row[0]))
    _check(records, day)
    document = {
        "as_of": day.isoformat(),
        "sources": dict(overrides["sources"]),
        "judgements": list(overrides["judgements"]),
        "capabilities": dict(overrides["capabilities"]),
        "defaults": dict(overrides["defaults"]),
        "models": records,
    }
    return Merged(document, tuple(differences))


def money(price: Decimal) -> str:
    """Writes USD: whole, or with at least two decimals."""
    whole, _, cents = f"{price:f}".partition(".")
    cents = cents.rstrip("0")
    return f"{whole}.{cents:0<2}" if cents else whole


class _Model:
    def __init__(
        self,
        provider: str,
        name: str,
        spec: Mapping[str, Any],
        sources: Sequence[Source],
        overrides: Mapping[str, Any],
    ) -> None:
        if strange := spec.keys() - _HAND_WRITTEN:
            raise ValueError(f"{name}: unknown keys {sorted(strange)}")
        self.provider, self.name, self.spec, self.overrides = provider, name, spec, overrides
        self.day: datetime.date = overrides["as_of"]
        self.aliases: list[str] = list(spec.get("aliases", ()))
        self.told = _ask(sources, provider, (name, *self.aliases), self.day)
        like = (spec["like"],) if "like" in spec else ()
        self.flags: Mapping[str, Any] = {}
        self.facts = [*self.told.values(), *_ask(sources, provider, like, self.day).values()]
        for facts in self.facts:
            self.flags = self.flags or facts.flags
        self.prices = self._own("prices", "tiers") or _choose(
            [facts.prices for facts in self.told.values()], spec
        )
        self.batch = self._own("batch", "") or _choose(
            [facts.batch for facts in self.told.values()], spec
        )
        if spec.get("unpriced"):
            self.prices = self.batch = None

    def _own(self, prices: str, tiers: str) -> PriceTable | None:
        if prices not in self.spec:
            return None
        rows = [dict(row) for row in self.spec.get(tiers, ())]
        return PriceTable(_read(self.spec[prices]), {row.pop("above"): _read(row) for row in rows})

    def order(self) -> tuple[int, Decimal, str]:
        """Sorts newest first; on one day the dearest, then by name."""
        seen = [facts.first_seen for facts in self.told.values() if facts.first_seen]
        day = self._released() or self.spec.get("listed")
        if day is None:
            day = datetime.date.fromisoformat(min(seen, default="1970-01-01"))
        dearest = self.prices.base["input"] if self.prices else Decimal(1_000_000)
        return -day.toordinal(), -dearest, self.name

    def record(self) -> Record:
        """Returns what models.json says of the model; what nobody states is left out."""
        spec, shutdown = self.spec, self._shutdown()
        able = abilities(spec, self.flags, self._refuses())
        if self.prices and "cache_read" not in self.prices.base:
            able.discard("prompt_caching")  # it would cost nothing less: the flag is wrong
        window = self._window()
        record = {
            "provider": self.provider,
            "context_window": window,
            "max_input_tokens": self._max_input(window),
            "max_output_tokens": spec.get("max_output", self._first("max_output")),
            **_written("prices", "price_tiers", self.prices),
            **_written("batch_prices", "batch_price_tiers", self.batch),
            "price_changes": [_written_change(each) for each in self._changes()] or None,
            "modalities": modalities(spec, self.flags, able),
            "capabilities": sorted(able),
            "refuses": self._refuses(),
            "reasoning_efforts": reasoning_efforts(self.provider, spec, self.flags),
            "encoding": self._encoding(),
            "api": self._api(able),
            "released": _iso(self._released()),
            "shutdown": _iso(shutdown),
            "successor": self._successor(),
            "aliases": self.aliases or None,
            "limited_access": spec.get("limited"),
            **_judged(spec),
            "as_of": spec.get("as_of", self.day).isoformat(),
            "source": self._source(),
        }
        if shutdown is not None and "successor" not in spec:
            raise ValueError(f"{self.name}: has an end, but no successor")
        return {key: value for key, value in record.items() if value is not None or key == "prices"}

    def differences(self) -> list[Difference]:
        """Lists where a source's prices or limits differ from the record's."""
        found = []
        window, output = self._window(), self.spec.get("max_output", self._first("max_output"))
        for source, facts in self.told.items():
            rows = [*_compare("", self.prices, facts.prices)]
            rows += _compare("batch ", self.batch, facts.batch)
            if facts.window not in (None, window, self._max_input(window)):
                rows.append(("context window", _text(window), str(facts.window)))
            if facts.max_output not in (None, output):
                rows.append(("longest answer", _text(output), str(facts.max_output)))
            reason = self.spec.get("differs")
            found += [
                Difference(self.name, fact, ours, source, theirs, reason)
                for fact, ours, theirs in rows
            ]
        return found

    def _first(self, fact: str) -> Any:
        values = (getattr(facts, fact) for facts in self.facts)
        return next((value for value in values if value is not None), None)

    def _window(self) -> int | None:
        """Returns the window: the larger number where one source leaves the answer out."""
        if "window" in self.spec or self.spec.get("no_window"):
            window: int | None = self.spec.get("window")
            return window
        return max((facts.window for facts in self.facts if facts.window), default=None)

    def _max_input(self, window: int | None) -> int | None:
        limit: int | None = self.spec.get("max_input", self.flags.get("max_input_tokens"))
        return limit if limit and window and limit < window else None

    def _released(self) -> datetime.date | None:
        if "released" in self.spec:
            released: datetime.date = self.spec["released"]
            return released
        dates = (_SNAPSHOT.search(name) for name in (self.name, *self.aliases))
        return next((datetime.date(*map(int, date.groups())) for date in dates if date), None)

    def _shutdown(self) -> datetime.date | None:
        end: datetime.date | None = self.spec.get("shutdown", self._first("shutdown"))
        return end

    def _successor(self) -> str | None:
        name = self.spec.get("successor")
        return None if name is None else full_name(self.provider, name)

    def _encoding(self) -> str | None:
        rules = (
            rule
            for rule in self.overrides.get("encodings", ())
            if rule["provider"] == self.provider
        )
        found = (rule["encoding"] for rule in rules if re.search(rule["pattern"], self.name))
        return next(found, None)

    def _refuses(self) -> list[str]:
        return refusals(self.provider, self.name, self.spec, self.flags, self.overrides["refusals"])

    def _api(self, able: set[str]) -> str | None:
        if "chat" not in able:
            return None
        return "responses" if self.flags.get("mode") == "responses" else "chat"

    def _changes(self) -> list[PriceChange]:
        if "changes" in self.spec:
            return [
                PriceChange(row["from"], PriceTable(_read(row["prices"])), None)
                for row in self.spec["changes"]
            ]
        return [change for facts in self.told.values() for change in facts.changes]

    def _source(self) -> str:
        parts = [self.spec["source"]] if "source" in self.spec else []
        priced = [name for name, facts in self.told.items() if facts.prices]
        if self.prices and priced and "prices" not in self.spec:
            parts.insert(0, f"prices: {', '.join(priced)}")
        if "litellm" in self.told:
            parts.insert(1, "limits and flags: litellm")
        if "like" in self.spec:
            parts.append(f"limits and flags as {self.spec['like']}")
        if not parts:
            raise ValueError(f"{self.name}: no source is named")
        return "; ".join(parts)


def _ask(
    sources: Sequence[Source], provider: str, names: Sequence[str], day: datetime.date
) -> dict[str, Facts]:
    told = {}
    for source in sources:
        found = (source.find(provider, name, day) for name in names)
        facts = next((each for each in found if each is not None), None)
        if facts is not None:
            told[source.name] = facts
    return told


def _choose(tables: Sequence[PriceTable | None], spec: Mapping[str, Any]) -> PriceTable | None:
    """Takes the first table, and what it lacks from others that agree with it."""
    told = [table for table in tables if table is not None and "input" in table.base]
    if not told:
        return None
    base = dict(told[0].base)
    tiers = {} if spec.get("no_tiers") else _tiers(told)
    for other in told[1:]:
        if not _agree(base, other.base):
            continue
        for kind in KINDS:
            if kind in base or kind not in other.base:
                continue
            base[kind] = other.base[kind]
            for start, prices in other.tiers.items():
                if kind in prices and start in tiers:
                    tiers[start][kind] = prices[kind]
    for kind in spec.get("drop_prices", ()):
        base.pop(kind, None)
    return PriceTable({kind: base[kind] for kind in KINDS if kind in base}, tiers)


def _tiers(told: Sequence[PriceTable]) -> dict[int, Prices]:
    """Takes the first table's tiers; where it has none, those that two others agree on."""
    first, *others = (table.tiers for table in told)
    agreed = len(others) > 1 and others[0] == others[1]
    return {
        start: dict(prices) for start, prices in (first or (others[0] if agreed else {})).items()
    }


def _agree(mine: Prices, other: Prices) -> bool:
    return all(
        mine[kind] == other[kind] for kind in ("input", "output") if kind in {*mine} & {*other}
    )


def _compare(
    label: str, ours: PriceTable | None, theirs: PriceTable | None
) -> list[tuple[str, str | None, str]]:
    if theirs is None:
        return []
    rows = _compare_prices(label, ours.base if ours else {}, theirs.base)
    for start, prices in theirs.tiers.items():
        mine = ours.tiers.get(start, {}) if ours else {}
        rows += _compare_prices(f"{label}above {start} ", mine, prices)
    return rows


def _compare_prices(label: str, ours: Prices, theirs: Prices) -> list[tuple[str, str | None, str]]:
    return [
        (f"{label}{kind}", money(ours[kind]) if kind in ours else None, money(price))
        for kind, price in theirs.items()
        if ours.get(kind) != price
    ]


def _read(prices: Mapping[str, str]) -> Prices:
    return {kind: Decimal(prices[kind]) for kind in KINDS if kind in prices}


def _written(prices: str, tiers: str, table: PriceTable | None) -> Record:
    if table is None:
        return {prices: None}
    record: Record = {prices: {kind: money(price) for kind, price in table.base.items()}}
    rows = [
        {"above_input_tokens": start, **{kind: money(price) for kind, price in tier.items()}}
        for start, tier in sorted(table.tiers.items())
    ]
    return {**record, tiers: rows} if rows else record


def _written_change(change: PriceChange) -> Record:
    record = {
        "from": change.start.isoformat(),
        **_written("prices", "price_tiers", change.prices),
        **_written("batch_prices", "batch_price_tiers", change.batch),
    }
    return {key: value for key, value in record.items() if value is not None}


def _judged(spec: Mapping[str, Any]) -> Record:
    """Reads a judgement: "fast basic", or "medium best coding"."""
    speed, quality, *_ = str(spec.get("judged", "")).split() or (None, None)
    return {"speed": speed, "quality": quality}


def _iso(day: datetime.date | None) -> str | None:
    return day.isoformat() if day else None


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def _check(records: Mapping[str, Record], day: datetime.date) -> None:
    """Makes sure that every successor can be used, and that no name means two models."""
    owners: dict[str, str] = dict.fromkeys(records, "")
    for name, record in records.items():
        for alias in record.get("aliases", ()):
            full = full_name(record["provider"], alias)
            if full in owners:
                raise ValueError(f"{full}: a name of {name} and of {owners[full] or full}")
            owners[full] = name
        successor = record.get("successor")
        if successor is not None:
            end = records.get(successor, {"shutdown": ""}).get("shutdown")
            if end is not None and end <= max(day.isoformat(), record.get("shutdown", "")):
                raise ValueError(f"{name}: its successor {successor} is unknown or ends no later")
