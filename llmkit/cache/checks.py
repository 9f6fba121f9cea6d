"""Checks of what a user gives a cache."""

from __future__ import annotations

from typing import Any

from llmkit.errors import InvalidRequestError
from llmkit.log import brief

__all__ = ["MAX_TTL", "check_bound", "check_key", "check_ttl"]

# The most seconds that an entry may be asked to live.
MAX_TTL = 1e9


def check_ttl(ttl: float) -> float:
    """Checks a time to live.

    Args:
        ttl: Seconds.

    Returns:
        The same.

    Raises:
        InvalidRequestError: It is no number above 0, or is beyond `MAX_TTL`.
    """
    if (
        isinstance(ttl, bool)
        or not isinstance(ttl, int | float)
        or not 0 < ttl <= MAX_TTL  # nor NaN
    ):
        raise InvalidRequestError(
            f"a time to live of {brief(ttl)}: expected seconds above 0, at most {MAX_TTL:g}"
        )
    return ttl


def check_bound(name: str, bound: int) -> int:
    """Checks how many entries, or bytes, a cache may hold.

    Args:
        name: The argument's name.
        bound: The bound.

    Returns:
        The same.

    Raises:
        InvalidRequestError: It is no whole number above 0.
    """
    if isinstance(bound, bool) or not isinstance(bound, int) or bound < 1:
        raise InvalidRequestError(f"{name}={brief(bound)}: expected a whole number, 1 or more")
    return bound


def check_key(key: Any) -> str:
    """Checks a cache's key.

    Args:
        key: The key.

    Returns:
        The same.

    Raises:
        InvalidRequestError: It is no text.
    """
    if not isinstance(key, str):
        raise InvalidRequestError(f"a cache's key is a str, not {type(key).__name__}")
    return key
