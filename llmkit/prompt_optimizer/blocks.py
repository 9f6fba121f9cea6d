"""The blocks of a text: paragraphs, fenced code, JSON; and where a text may be cut."""

from __future__ import annotations

import re
import unicodedata
from typing import NamedTuple

__all__ = ["Block", "is_boundary", "near_boundary", "split_blocks"]

# Blank lines, or the break before a line that may open a fence or JSON. It begins with a line
# break, which is what makes the search fast.
_MARKS = re.compile(r"\n(?:(?:[ \t\r]*+\n)++|(?=[ ]{0,3}+(?:```|~~~)|[{\[]))")
_FENCE = re.compile(r"[ ]{0,3}+(`{3,}+|~{3,}+)[^\n]*+")
_LINE_REST = re.compile(r"[ \t\r]*+(?:\n|\Z)(?:[ \t\r]*+\n)*+")
_CLOSING_LINE = re.compile(r"\n[}\]]")
_REGIONAL = "".join(map(chr, range(0x1F1E6, 0x1F200)))
_PAIRS = {"{": "}", "[": "]"}


class Block(NamedTuple):
    """A part of a text; the blocks of a text put together are the text.

    Attributes:
        start: Where it begins.
        end: Where it ends, the blank lines after it included.
        whole: Whether it is code between fences or JSON, which is worth little when torn.
        fence: The line that opens the fence, without its end; "" for everything else.
    """

    start: int
    end: int
    whole: bool = False
    fence: str = ""


def split_blocks(text: str) -> list[Block]:
    """Splits a text into its blocks, in linear time.

    JSON is known by its form: a line that begins with a bracket and ends with its partner, or all
    lines from a bracket at a line's beginning to the next closing one there, when the numbers of
    brackets agree. What is never closed is read as paragraphs.

    Args:
        text: The text.

    Returns:
        The blocks, in their order.
    """
    blocks: list[Block] = []
    start = at = json_from = 0
    fences = True
    while True:
        end, fence = 0, None
        first = text[at : at + 1]
        if first in ("{", "[") and at >= json_from:
            end, json_from = _json_end(text, at)
        elif first in ("`", "~", " ") and fences and (fence := _FENCE.match(text, at)):
            end = _fence_end(text, fence)
            fences = end > 0
        if end:
            if start < at:
                blocks.append(Block(start, at))
            rest = _LINE_REST.match(text, end)
            start = rest.end() if rest else end
            blocks.append(Block(at, start, True, fence[0].rstrip() if fence else ""))
            at = start
            continue
        mark = _MARKS.search(text, at)
        if mark is None:
            break
        at = mark.end()
        if at - mark.start() > 1:
            blocks.append(Block(start, at))
            start = at
    if start < len(text):
        blocks.append(Block(start, len(text)))
    return blocks


def _fence_end(text: str, fence: re.Match[str]) -> int:
    """Returns where a fenced block ends; 0 when the fence is never closed."""
    sign, length = fence[1][0], min(len(fence[1]), 1000)
    closing = re.compile(rf"\n[ ]{{0,3}}+{sign}{{{length},}}+[ \t\r]*+(?=\n|\Z)")
    found = closing.search(text, fence.start())
    return found.end() if found else 0


def _json_end(text: str, begin: int) -> tuple[int, int]:
    """Returns where JSON ends, 0 if it does not; and where it makes sense to look for more."""
    line_end = text.find("\n", begin)
    line_end = len(text) if line_end < 0 else line_end
    if text[begin:line_end].rstrip().endswith(_PAIRS[text[begin]]):
        return line_end, line_end
    closing = _CLOSING_LINE.search(text, line_end)
    if closing is None:
        return 0, len(text)
    end = closing.end()
    balanced = all(
        text.count(one, begin, end) == text.count(other, begin, end)
        for one, other in _PAIRS.items()
    )
    own = text[end - 1] == _PAIRS[text[begin]] and _LINE_REST.match(text, end)
    return (end if balanced and own else 0), end


def near_boundary(text: str, at: int, step: int) -> int:
    """Moves a place to cut so that no character, as a reader sees it, is torn.

    Args:
        text: The text.
        at: Where it would be cut.
        step: -1 to move towards the beginning, 1 towards the end.

    Returns:
        The nearest place that tears nothing; `at` itself when there is none within 64 code points.
    """
    for moved in range(at, min(max(at + 64 * step, 0), len(text)) + step, step):
        if is_boundary(text, moved):
            return moved
    return at


def is_boundary(text: str, at: int) -> bool:
    """Says whether a cut between two code points tears no character as a reader sees it.

    A short form of Unicode's grapheme clusters: marks and joiners, modifiers of emoji, flags,
    Korean syllables, surrogates and Windows line ends are kept together.
    """
    if at <= 0 or at >= len(text):
        return True
    before, after = text[at - 1], text[at]
    if before < "\u0300" and after < "\u0300":
        return not (before == "\r" and after == "\n")
    return not (
        before == "\u200d"
        or _extends(after)
        or ("\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff")
        or ("\u1100" <= before <= "\u115f" and ("\u1100" <= after <= "\u11ff" or _korean(after)))
        or ("\u1160" <= after <= "\u11ff" and (_korean(before) or "\u1160" <= before <= "\u11ff"))
        or (_flag(after) and _flags_before(text, at) % 2 == 1)
    )


def _extends(sign: str) -> bool:
    return (
        sign == "\u200d"
        or "\U0001f3fb" <= sign <= "\U0001f3ff"
        or "\U000e0020" <= sign <= "\U000e007f"
        or unicodedata.category(sign).startswith("M")
    )


def _korean(sign: str) -> bool:
    return "\uac00" <= sign <= "\ud7a3"


def _flag(sign: str) -> bool:
    return sign in _REGIONAL


def _flags_before(text: str, at: int) -> int:
    """Counts the regional indicators right before a place; two of them make a flag."""
    before = text[:at]
    return at - len(before.rstrip(_REGIONAL))
