"""Cutting a long middle: the parts nearest to either end stay, one marker stands for the rest."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from llmkit.prompt_optimizer.blocks import Block, near_boundary, whole_blocks
from llmkit.prompt_optimizer.compacting import Compact
from llmkit.prompt_optimizer.counting import CHARACTERS_PER_TOKEN, SLACK, fill

__all__ = ["Gap", "Middle", "left_out"]

_BREAKS = re.compile(r"\n(?:[ \t\r]*+\n)++")
_LINES = re.compile(r"\n")
_CLAUSES = re.compile(r"[,;.!?}\]>](?=\s)|[,}\]](?=[\s\"{\[])|[。！？、，；]")  # noqa: RUF001
_WORDS = re.compile(r"(?<=\s)(?=\S)")


def left_out(characters: int) -> str:
    """Returns the marker that stands where something was cut out."""
    return f"[… {characters:,} character{'s' * (characters != 1)} left out …]"


@dataclass(frozen=True, slots=True)
class Gap:
    """What to leave out of a text.

    Attributes:
        start: Where it begins.
        end: Where it ends; equal to `start` when nothing has to go.
        closing: A line that closes the code fence which the gap tore open; "" for none.
        opening: The same for a fence whose end stays while its beginning goes.
    """

    start: int
    end: int
    closing: str = ""
    opening: str = ""


class Middle:
    """A text that can be cut, its code and JSON found once.

    Args:
        compact: The text.
        count: Counts a text's tokens.
    """

    def __init__(self, compact: Compact, count: Callable[[str], int]) -> None:
        self.text = compact.text
        self._count = count
        self._blocks = whole_blocks(self.text) if compact.blocks is None else compact.blocks
        self._counted: dict[tuple[int, int], int] = {}

    def gap(self, budget: int) -> Gap:
        """Finds what to leave out.

        Whole blocks stay, from both ends inwards. Only when much of the budget would be left are
        blocks cut: between paragraphs, lines, clauses, words and characters, in this order; code
        and JSON only when more than half of the budget would be left.

        Args:
            budget: About how many tokens may stay.

        Returns:
            The gap.
        """
        edges = self._edges(2 * CHARACTERS_PER_TOKEN * (budget + SLACK))
        start, end, left = self._narrow(edges, 0, len(self.text), budget, (True, True))
        tears = self._may_tear(start, end, left > budget / 2)
        for cuts, least in _LEVELS:
            if start >= end or left <= 0 or left * least < budget or not any(tears):
                break
            edges = cuts(self.text, start, end, CHARACTERS_PER_TOKEN * left + 64)
            start, end, left = self._narrow(edges, start, end, left, tears)
        return self._whole_characters(start, end, budget)

    def _edges(self, reach: int) -> list[int]:
        """Returns where paragraphs and blocks end, so far from either end of the text."""
        edges: list[int] = []
        for first, last in _windows(0, len(self.text), reach):
            at = first
            near = bisect_right(self._blocks, first, key=lambda block: block.end)
            for start, end, _ in self._blocks[near:]:
                if start >= last:
                    break
                if at < start:
                    edges += [*_ends(_BREAKS, self.text, at, start), start]
                edges.append(end)
                at = end
            if at < last:
                edges += _ends(_BREAKS, self.text, at, last)
        return edges

    def _narrow(
        self, edges: Sequence[int], start: int, end: int, left: int, sides: tuple[bool, bool]
    ) -> tuple[int, int, int]:
        """Keeps what fits before the gap and after it: half of the tokens first, then the rest."""
        front, back = sides
        if front:
            start, used = self._keep(edges, start, end, left // 2 if back else left)
            left -= used
        if back and start < end:
            kept = [-edge for edge in reversed(edges)]
            end, used = self._keep(kept, -end, -start, left)
            end, left = -end, left - used
        if front and back and start < end:
            start, used = self._keep(edges, start, end, left)
            left -= used
        return start, end, left

    def _keep(self, edges: Sequence[int], start: int, end: int, budget: int) -> tuple[int, int]:
        """Moves `start` over the edges towards `end`; both are negative when going backwards."""
        last = min(end, start + 2 * CHARACTERS_PER_TOKEN * (budget + SLACK))
        stops = edges[bisect_right(edges, start) : bisect_right(edges, last)]
        places = [start, *stops] if last < end else [start, *stops[: bisect_left(stops, end)], end]
        taken, used = fill(
            [place - start for place in places],
            budget,
            lambda one, other: self._tokens(places[one], places[other]),
        )
        return places[taken], used

    def _tokens(self, start: int, end: int) -> int:
        """Counts a part of the text, each only once; places are negative as in `_keep`."""
        if start < 0:
            start, end = -end, -start
        if (start, end) not in self._counted:
            self._counted[start, end] = self._count(self.text[start:end])
        return self._counted[start, end]

    def _may_tear(self, start: int, end: int, plenty: bool) -> tuple[bool, bool]:
        """Says whether the block right after `start` and the one right before `end` may be torn."""
        if start >= end:
            return False, False
        after = self._block_at(start)
        before = self._block_at(end - 1)
        return plenty or after is None, plenty or before is None

    def _block_at(self, place: int) -> Block | None:
        before = bisect_right(self._blocks, place, key=lambda block: block.start)
        block = self._blocks[before - 1] if before else None
        return block if block and place < block.end else None

    def _whole_characters(self, start: int, end: int, budget: int) -> Gap:
        if start >= end:
            return Gap(start, start)
        start = near_boundary(self.text, start, -1)
        end = near_boundary(self.text, end, 1)
        if end - start == len(self.text) and budget > 0:
            # Half of a character fitted at either end, but perhaps a whole one does.
            return Gap(near_boundary(self.text, 1, 1), end)
        first, last = self._block_at(start), self._block_at(min(end, len(self.text) - 1))
        torn = first and start > first.start and bool(self.text[start : first.end].strip())
        if last and torn and first is last and end < last.end:
            return Gap(start, end)  # both of its fences stay
        closing = opening = ""
        if first and first.fence and torn:
            sign = first.fence.strip()
            closing = sign[: len(sign) - len(sign.lstrip(sign[0]))]
        if last and last.fence and last.start < end < last.end:
            opening = last.fence
        return Gap(start, end, closing, opening)


def _ends(pattern: re.Pattern[str], text: str, start: int, end: int) -> list[int]:
    return [found.end() for found in pattern.finditer(text, start, end)]


def _breaks(text: str, start: int, end: int, reach: int) -> list[int]:
    return _matches(_BREAKS, text, start, end, reach)


def _lines(text: str, start: int, end: int, reach: int) -> list[int]:
    return _matches(_LINES, text, start, end, reach)


def _clauses(text: str, start: int, end: int, reach: int) -> list[int]:
    return _matches(_CLAUSES, text, start, end, reach)


def _words(text: str, start: int, end: int, reach: int) -> list[int]:
    return _matches(_WORDS, text, start, end, reach)


def _characters(text: str, start: int, end: int, reach: int) -> list[int]:
    step = max(1, min(reach // 512, 32))
    return [
        edge for first, last in _windows(start, end, reach) for edge in range(first, last, step)
    ]


def _matches(pattern: re.Pattern[str], text: str, start: int, end: int, reach: int) -> list[int]:
    return [
        edge
        for first, last in _windows(start, end, reach)
        for edge in _ends(pattern, text, first, last)
    ]


# What a block is cut between, from coarse to fine; and the fewest tokens that must be left for it
# to be worth it: one part in so many of the budget.
_LEVELS = ((_breaks, 8), (_lines, 8), (_clauses, 16), (_words, 16), (_characters, 4))


def _windows(start: int, end: int, reach: int) -> list[tuple[int, int]]:
    """Returns the parts at both ends of a gap that are near enough to be kept."""
    if end - start <= 2 * reach:
        return [(start, end)]
    return [(start, start + reach), (end - reach, end)]
