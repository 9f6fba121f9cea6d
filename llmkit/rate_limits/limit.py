"""RateLimit: what a user allows."""

from __future__ import annotations

from dataclasses import dataclass

from llmkit.errors import InvalidRequestError
from llmkit.log import brief

__all__ = ["RateLimit"]

_MOST = 1e12


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How much may be sent in a minute.

    At least one of the two is given. Within the minute it is spread: at most a sixth of it goes out
    at once, the rest at an even pace.

    Attributes:
        requests_per_minute: HTTP requests, further tries included; None sets no limit.
        tokens_per_minute: Tokens sent and received; None sets no limit.

    Raises:
        InvalidRequestError: A number is not positive, or there is none.
    """

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    def __post_init__(self) -> None:
        for name in ("requests_per_minute", "tokens_per_minute"):
            number = getattr(self, name)
            if number is None:
                continue
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise InvalidRequestError(f"{name}={brief(number)}: expected a number")
            if not 0 < number <= _MOST:  # NaN compares false
                raise InvalidRequestError(f"{name}={brief(number)}: expected a number above 0")
        if self.requests_per_minute is None and self.tokens_per_minute is None:
            raise InvalidRequestError("a rate limit needs requests_per_minute or tokens_per_minute")

    def __str__(self) -> str:
        numbers = ((self.requests_per_minute, "requests"), (self.tokens_per_minute, "tokens"))
        return " and ".join(
            f"{number:,.6g} {what}/min" if number < 1e6 else f"{number:,.0f} {what}/min"
            for number, what in numbers
            if number is not None
        )
