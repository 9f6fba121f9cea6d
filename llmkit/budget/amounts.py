"""Amounts of money and tokens, and the limits they are held against: exact, never a float."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal

__all__ = [
    "EXACT",
    "NOTHING",
    "Amount",
    "Limit",
    "countable",
    "from_nano",
    "nano_above",
    "nano_below",
    "shown",
]

# Not the application's decimal context, which may round to a few digits.
EXACT = Context(prec=100)

_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class Amount:
    """What a call takes, or several calls together.

    Attributes:
        usd: Money, in USD.
        tokens: Input and output together.
    """

    usd: Decimal = _ZERO
    tokens: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(EXACT.add(self.usd, other.usd), self.tokens + other.tokens)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(EXACT.subtract(self.usd, other.usd), self.tokens - other.tokens)


NOTHING = Amount()

# The largest number, of nano-USD and of tokens, that every store counts exactly.
_MOST = 2**53


@dataclass(frozen=True, slots=True)
class Limit:
    """How much there may be, or how much is left; None sets no limit.

    Attributes:
        usd: Money, in USD.
        tokens: Input and output together.
    """

    usd: Decimal | None = None
    tokens: int | None = None

    def holds(self, amount: Amount) -> bool:
        """Says whether an amount is within the limit."""
        return (self.usd is None or amount.usd <= self.usd) and (
            self.tokens is None or amount.tokens <= self.tokens
        )

    def less(self, amount: Amount) -> Limit:
        """Returns what is left of the limit after an amount; less than nothing is possible."""
        return Limit(
            None if self.usd is None else EXACT.subtract(self.usd, amount.usd),
            None if self.tokens is None else self.tokens - amount.tokens,
        )


def nano_above(usd: Decimal) -> int:
    """Returns USD as whole nano-USD (10⁻⁹), rounded up: an expense never looks smaller."""
    return int(EXACT.scaleb(usd, 9).to_integral_value(ROUND_CEILING, EXACT))


def nano_below(usd: Decimal) -> int:
    """Returns USD as whole nano-USD, rounded down: a limit never looks larger."""
    return int(EXACT.scaleb(usd, 9).to_integral_value(ROUND_FLOOR, EXACT))


def from_nano(nano: int) -> Decimal:
    """Returns nano-USD as USD."""
    return EXACT.scaleb(Decimal(nano), -9) if nano else _ZERO  # not "0E-9"


def countable(usd: Decimal, tokens: int) -> Amount:
    """Returns an amount that any store can count: nine million USD and 2⁵³ tokens at most."""
    return Amount(min(usd, from_nano(_MOST)), min(tokens, _MOST))


def shown(usd: Decimal) -> str:
    """Returns an amount as people write it: `$1.00`, `$0.0125`."""
    text = f"{usd.copy_abs():f}"
    whole, _, cents = text.partition(".")
    return f"{'-' if usd < 0 else ''}${whole}.{cents.rstrip('0'):0<2}"
