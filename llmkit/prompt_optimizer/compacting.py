"""Compacting: blanks and repetitions go before anything that says something is cut."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import repeat, takewhile
from typing import NamedTuple

from llmkit.prompt_optimizer.blocks import Block, whole_blocks

__all__ = ["Compact", "compact"]

_WIDE_GAPS = re.compile(r"(?<=\S)[ \t]{2,}+(?=\S)")
_SAME_LINES = re.compile(r"^([^\n]++\n)\1{2,}+", re.MULTILINE)

# Where these occur, wide gaps may be part of a value, of a table or of code.
_MEANINGFUL = re.compile(r'["`|{};=]')

# A repetition shorter than this is not worth a marker.
_WORTH_A_MARKER = 100

# Shorter paragraphs are looked at together, so many characters at once.
_TOGETHER = 1_000


class Compact(NamedTuple):
    """A compacted text.

    Attributes:
        text: The text.
        whitespace: The characters of whitespace that went.
        repeated: The characters of repetitions that went, less those of the markers.
        blocks: The text's code and JSON; None when they have to be found anew.
    """

    text: str
    whitespace: int
    repeated: int
    blocks: list[Block] | None


def compact(text: str) -> Compact:
    """Takes out what says nothing new.

    Blanks at line ends, blank lines beyond one, wide gaps inside lines of prose; lines repeated
    at once, and blocks that stood in the text before, for which a marker remains. Indentation and
    the gaps in code, JSON and tables stay.

    Args:
        text: The text.

    Returns:
        The compacted text, and what went.
    """
    tidy = _without_blank_lines(_without_line_tails(text))
    unrepeated = _SAME_LINES.sub(_one_line, tidy) if "\n" in tidy else tidy
    blocks = whole_blocks(unrepeated)
    pieces, narrowed = _pieces(unrepeated, blocks)
    whitespace = len(text) - len(tidy) + narrowed
    compacted = "".join(pieces)
    repeated = len(text) - len(compacted) - whitespace
    same = len(compacted) == len(unrepeated)
    return Compact(compacted, whitespace, repeated, blocks if same else None)


def _pieces(text: str, blocks: list[Block]) -> tuple[list[str], int]:
    """Returns the blocks with markers for repeated ones, and the blanks that went from them."""
    wide = "  " in text or "\t" in text
    pieces: list[str] = []
    seen: set[str] = set()
    waiting = narrowed = 0
    for start, end, whole in _units(text, blocks):
        piece = text[start:end]
        if end - start > _WORTH_A_MARKER:
            key = piece.strip()
            if key in seen:
                waiting += end - start
                continue
            seen.add(key)
        if waiting:
            pieces.append(_repeat_marker(waiting))
            waiting = 0
        if wide and not whole and not _MEANINGFUL.search(piece):
            piece = _WIDE_GAPS.sub(" ", piece)
            narrowed += end - start - len(piece)
        pieces.append(piece)
    if waiting:
        pieces.append(_repeat_marker(waiting).rstrip("\n"))
    return pieces, narrowed


def _units(text: str, blocks: list[Block]) -> Iterator[tuple[int, int, bool]]:
    """Yields the blocks and the paragraphs between them: start, end, and whether it is a block."""
    gap = "\n\n" if text.count("\n\n") >= text.count("\n\r\n") else "\n\r\n"
    at = 0
    for start, end, _ in blocks:
        if at < start:
            yield from _paragraphs(text, at, start, gap)
        yield start, end, True
        at = end
    yield from _paragraphs(text, at, len(text), gap)


def _paragraphs(text: str, start: int, end: int, gap: str) -> Iterator[tuple[int, int, bool]]:
    """Yields the paragraphs of a part of the text; short ones beside each other count as one."""
    while start < end:
        stop = text.find(gap, start, end)
        if 0 <= stop - start < _WORTH_A_MARKER:
            last = text.rfind(gap, stop, min(start + _TOGETHER, end))
            near = text[start:last].split(gap)
            if max(map(len, near)) >= _WORTH_A_MARKER:
                near = [*takewhile(lambda each: len(each) < _WORTH_A_MARKER, near)]
            # Gaps can overlap, and the last one then begins after the first.
            stop = max(stop, start + sum(map(len, near)) + (len(near) - 1) * len(gap))
        stop = end if stop < 0 else stop + len(gap)
        yield start, stop, False
        start = stop


def _without_line_tails(text: str) -> str:
    for end in ("\r\n", "\n"):
        if f" {end}" in text or f"\t{end}" in text:
            text = end.join(map(str.rstrip, text.split(end), repeat(" \t")))
    return text.rstrip(" \t")


def _without_blank_lines(text: str) -> str:
    for end in ("\n", "\r\n"):
        while 3 * end in text:  # a third goes each time, so the sum of the passes is linear
            text = text.replace(3 * end, 2 * end)
    return text


def _repeat_marker(characters: int) -> str:
    return f"[… {characters:,} characters as above left out …]\n\n"


def _one_line(found: re.Match[str]) -> str:
    line = found[1]
    more = len(found[0]) // len(line) - 1
    if more * len(line) < _WORTH_A_MARKER:
        return found[0]
    return f"{line}[… the line above {more:,} more times …]\n"
