"""Counting tokens sparingly: only what may stay is counted, in few large pieces."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from llmkit.errors import InvalidRequestError

__all__ = [
    "CHARACTERS_PER_TOKEN",
    "SLACK",
    "Counter",
    "check_target",
    "fill",
    "shrinking",
    "text_if_fits",
]

Counter = Callable[[str, str | Sequence[Mapping[str, Any]]], int]

# Prose has about 4 characters to a token, indented code up to 6; a piece of this many is thought
# to be over a target without being counted whole.
CHARACTERS_PER_TOKEN = 8

# A piece that ends inside a word may take a few tokens more than the whole word does.
SLACK = 8


def check_target(target: object) -> int:
    """Checks the number of tokens that was asked for.

    Args:
        target: What the user gave.

    Returns:
        The number.

    Raises:
        InvalidRequestError: It is not a whole number of at least 1.
    """
    if isinstance(target, bool) or not isinstance(target, int) or target < 1:
        raise InvalidRequestError(
            f"target_token_count={target!r:.40}: expected a whole number of at least 1"
        )
    return target


def text_if_fits(
    text: str, target: int, count: Callable[[str], int]
) -> tuple[int | None, int | None]:
    """Looks whether a text fits, counting only its beginning when it is far too long.

    Args:
        text: The text.
        target: The most tokens.
        count: Counts a text's tokens.

    Returns:
        The tokens if it fits, else None; and the tokens of the whole if they were counted.
    """
    if _is_surely_too_long(text, target, count):
        return None, None
    tokens = count(text)
    return (tokens if tokens <= target else None), tokens


def _is_surely_too_long(text: str, target: int, count: Callable[[str], int]) -> bool:
    """Counts a long text piece by piece, for as long as the pieces promise that it is too long."""
    size = CHARACTERS_PER_TOKEN * (target + SLACK)
    if len(text) <= 2 * size:
        return False
    tokens = slack = 0
    for start in range(0, len(text), size):
        tokens += count(text[start : start + size])
        slack += SLACK
        if tokens > target + slack:
            return True
        if tokens * len(text) < 1.25 * (target + slack) * (start + size):
            return False
    return False


def fill(ends: Sequence[int], budget: int, cost: Callable[[int, int], int]) -> tuple[int, int]:
    """Takes pieces from the front for as long as they fit.

    Pieces are counted many at a time; the number is guessed from the characters per token so far,
    so that a text is counted about once, in a handful of calls.

    Args:
        ends: Where each piece ends, in characters, ascending, after a leading 0.
        budget: The most tokens.
        cost: Counts the tokens of the pieces from one index up to another.

    Returns:
        How many pieces fit, and their tokens.
    """
    taken, used, rate = 0, 0, 4.0
    while taken < len(ends) - 1 and used <= budget:
        left = budget - used
        upto = _reach(ends, taken, left * rate * 0.95)
        while True:
            characters = ends[upto] - ends[taken]
            if characters > 2 * CHARACTERS_PER_TOKEN * (left + SLACK):
                tokens = left + 1 + characters // CHARACTERS_PER_TOKEN
            else:
                tokens = cost(taken, upto)
            rate = min(max(characters, 1) / max(tokens, 1), CHARACTERS_PER_TOKEN)
            if tokens <= left:
                break
            if upto == taken + 1:
                return taken, used
            halfway = taken + (upto - taken) // 2
            upto = min(halfway, _reach(ends, taken, left * rate * 0.95))
        taken, used = upto, used + tokens
    return taken, used


def _reach(ends: Sequence[int], taken: int, characters: float) -> int:
    """Returns the last piece that ends within so many characters, at least one further."""
    return max(bisect_right(ends, ends[taken] + characters) - 1, taken + 1)


def shrinking(budget: int) -> Iterator[int]:
    """Yields budgets to try: the whole, a little less, ever smaller ones, and 0 at the end.

    The sum of pieces counted by themselves can be less than the count of the whole, so a result
    has to be tried.

    Args:
        budget: The first; nothing is yielded when it is below 0.
    """
    for share in (0.99, 0.97, 0.9, 0.75):
        if budget <= 0:
            break
        yield budget
        budget = int(budget * share)
    while budget > 0:
        yield budget
        budget //= 2
    if budget == 0:
        yield 0
