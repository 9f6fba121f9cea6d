"""What one source says of one model, in the same words whichever source it is."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

# The kinds of price that the registry knows.
KINDS = ("input", "output", "cache_read", "cache_write")

Prices = dict[str, Decimal]


@dataclass(frozen=True)
class PriceTable:
    """USD per million tokens.

    Attributes:
        base: The prices of a short prompt.
        tiers: The prices of a whole request whose prompt is longer than so many tokens.
    """

    base: Prices
    tiers: dict[int, Prices] = field(default_factory=dict)


@dataclass(frozen=True)
class PriceChange:
    """A change that is announced for a day to come.

    Attributes:
        start: The first day of the new prices.
        prices: The new prices.
        batch: The new prices of batches; None when the source has none.
    """

    start: datetime.date
    prices: PriceTable
    batch: PriceTable | None


@dataclass(frozen=True)
class Facts:
    """What one source says of one model; None means that it says nothing.

    Attributes:
        prices: Prices on the day asked about.
        batch: Prices of the vendor's batch interface on that day.
        changes: Prices announced for later days.
        window: Tokens of prompt and answer together, or of the prompt alone where the source does
            not tell them apart.
        max_output: The longest answer, in tokens.
        flags: The source's own fields, as they are.
        shutdown: When the model stops to be served.
        first_seen: When the source first listed it, as an ISO date; for the order only.
    """

    prices: PriceTable | None = None
    batch: PriceTable | None = None
    changes: tuple[PriceChange, ...] = ()
    window: int | None = None
    max_output: int | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    shutdown: datetime.date | None = None
    first_seen: str | None = None


class Source(Protocol):
    """A published table of models."""

    @property
    def name(self) -> str:
        """The package's name."""

    def find(self, provider: str, model: str, day: datetime.date) -> Facts | None:
        """Returns what the source says of a model on a day; None when it does not list it."""


def usd(price: float | str | Decimal, factor: int = 1) -> Decimal:
    """Reads a price; binary fractions lose the noise in their last digits."""
    exact = Decimal(str(price)) * factor
    return exact.quantize(Decimal("1e-9")).normalize() if exact else Decimal(0)


def the_file(directory: Path, *parts: str) -> Path:
    """Finds a file of an unpacked package, wherever below `directory` it was unpacked.

    Raises:
        FileNotFoundError: There is none, or more than one.
    """
    found = sorted(directory.glob("/".join(("**", *parts))))
    if len(found) != 1:
        raise FileNotFoundError(f"{directory}: {len(found)} files are named {'/'.join(parts)}")
    return found[0]


def version_of(directory: Path, package: str) -> str | None:
    """Reads an unpacked package's version from the name of its dist-info folder."""
    stem = package.replace("-", "_")
    names: Iterable[str] = (path.name for path in directory.glob(f"**/{stem}-*.dist-info"))
    return next((name.removesuffix(".dist-info").rpartition("-")[2] for name in names), None)
