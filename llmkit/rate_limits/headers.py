"""What the vendors' rate-limit headers say is left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Left", "read_headers"]

# Neither a limit nor a pause of a rate limit comes near these: the header means something else.
_MOST = 1e12
_LONGEST = 86400.0

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = r"(\d+(?:\.\d+)?)(ms|s|m|h|d)"
_DURATION = re.compile(rf"(?:{_PART})+", re.ASCII)
_PARTS = re.compile(_PART, re.ASCII)


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of one limit.

    Attributes:
        amount: Requests or tokens.
        wait: Seconds until the vendor has one more, where none is left; 0.0 when it doesn't say.
    """

    amount: float
    wait: float


def read_headers(headers: Mapping[str, str], now: float) -> tuple[Left | None, Left | None]:
    """Reads a reply's headers.

    Args:
        headers: By their names in lower case.
        now: Seconds since the epoch.

    Returns:
        What is left of the requests and of the tokens; None where the vendor does not say, or says
        nothing that can be meant.
    """
    told: dict[str, dict[str, str]] = {}
    for name, value in headers.items():
        if name.startswith("x-ratelimit-"):  # OpenAI's: x-ratelimit-remaining-tokens
            fact, _, what = name[12:].partition("-")
            told.setdefault(what, {})[fact] = value
        elif name.startswith("anthropic-ratelimit-"):  # anthropic-ratelimit-tokens-remaining
            what, _, fact = name[20:].rpartition("-")
            told.setdefault(what, {})[fact] = value
    if not told:
        return None, None
    lefts = {what: _read_left(facts, now) for what, facts in told.items()}
    return lefts.get("requests"), _tokens_left(lefts)


def _tokens_left(lefts: Mapping[str, Left | None]) -> Left | None:
    """Adds up Anthropic's separate limits: where one of them has nothing left, nothing is."""
    parts = [left for what in ("input-tokens", "output-tokens") if (left := lefts.get(what))]
    empty = [left for left in parts if left.amount < 1.0]
    if empty:
        return max(empty, key=lambda left: left.wait)
    total = lefts.get("tokens")
    if total is not None or len(parts) < 2:
        return total
    return Left(sum(left.amount for left in parts), 0.0)


def _read_left(facts: Mapping[str, str], now: float) -> Left | None:
    amount = _read_number(facts.get("remaining", ""))
    if amount is None:
        return None
    limit = _read_number(facts.get("limit", ""))
    # The reset is when all of it is back, at an even pace: the first one comes much earlier.
    reset = _read_pause(facts.get("reset", ""), now)
    missing = 1.0 if limit is None else max(1.0, limit - amount)
    return Left(amount, reset / missing)


def _read_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number <= _MOST else None


def _read_pause(text: str, now: float) -> float:
    """Reads "6m0s", "20ms", a number of seconds, or a point in time; 0.0 when it is none."""
    if _DURATION.fullmatch(text):
        pause = sum(float(number) * _UNITS[unit] for number, unit in _PARTS.findall(text))
    else:
        number = _read_number(text)
        pause = _until(text, now) if number is None else number
    return pause if 0 <= pause <= _LONGEST else 0.0


def _until(text: str, now: float) -> float:
    import datetime  # not with every `import llmkit.rate_limits`

    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return moment.timestamp() - now
    except (ValueError, OverflowError):
        return 0.0
