"""What of a text is worth little when torn: fenced code and JSON; and where a text may be cut."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Block", "is_boundary", "near_boundary", "whole_blocks"]

# A line that may open a fence or JSON. It begins with a line break, which is what makes the search
# fast.
_OPENING = re.compile(r"\n(?=[ ]{0,3}+(?:```|~~~)|[{\[])")
_FENCE = re.compile(r"[ ]{0,3}+(`{3,}+|~{3,}+)[^\n]*+")
# The rest of a block's last line, and the blank lines after it.
_REST = r"[ \t\r]*+(?:\n|\Z)(?:[ \t\r]*+\n)*+"
_LINE_REST = re.compile(_REST)
_CLOSING_LINE = re.compile(rf"\n[}}\]](?:{_REST})?")
_REGIONAL = "".join(map(chr, range(0x1F1E6, 0x1F200)))
_PAIRS = {"{": "}", "[": "]"}


class Block(NamedTuple):
    """Code between fences, or JSON.

    Attributes:
        start: Where it begins.
        end: Where it ends, the blank lines after it included.
        fence: The line that opens the fence, without its end; "" for JSON.
    """

    start: int
    end: int
    fence: str


def whole_blocks(text: str) -> list[Block]:
    """Finds fenced code and JSON, in linear time.

    JSON is known by its form: a line that begins with a bracket and ends with its partner, or all
    lines from a bracket at a line's beginning to the next closing one there, when the numbers of
    brackets agree. What is never closed is neither.

    Args:
        text: The text.

    Returns:
        The blocks, in their order; everything between them is paragraphs.
    """
    blocks: list[Block] = []
    after = json_from = 0
    fences = "```" in text or "~~~" in text
    for at in _openings(text):
        if at < after:
            continue
        end, fence = 0, None
        if text[at] in _PAIRS:
            if at >= json_from:
                end, json_from = _json_end(text, at)
        elif fences and (fence := _FENCE.match(text, at)):
            end = _fence_end(text, fence)
            fences = end > 0
        if end:
            after = end
            blocks.append(Block(at, end, fence[0].rstrip() if fence else ""))
        elif not fences and json_from == len(text):
            break
    return blocks


def _openings(text: str) -> Iterator[int]:
    """Yields where lines begin that may open a block."""
    yield from (0,) if text.startswith(("{", "[", "`", "~", " ")) else ()
    for found in _OPENING.finditer(text):
        yield found.end()


def _fence_end(text: str, fence: re.Match[str]) -> int:
    """Returns where a fenced block ends; 0 when the fence is never closed."""
    found = _closing(fence[1][:1000]).search(text, fence.start())
    return found.end() if found else 0


@functools.lru_cache
def _closing(signs: str) -> re.Pattern[str]:
    return re.compile(rf"\n[ ]{{0,3}}+{signs}{signs[0]}*+{_REST}")


def _json_end(text: str, begin: int) -> tuple[int, int]:
    """Returns where JSON ends, 0 if it does not; and where it makes sense to look for more."""
    last = _PAIRS[text[begin]]
    line_end = text.find("\n", begin)
    line_end = len(text) if line_end < 0 else line_end
    if text[begin:line_end].rstrip().endswith(last):
        rest = _LINE_REST.match(text, line_end)
        end = rest.end() if rest else line_end
        return end, end
    closing = _CLOSING_LINE.search(text, line_end)
    if closing is None:
        return 0, len(text)
    stop, end = closing.start() + 2, closing.end()
    block = text[begin:stop]
    whole = (
        (end > stop or end == len(text))  # nothing follows on the last line
        and block.endswith(last)
        and block.count("{") == block.count("}")
        and block.count("[") == block.count("]")
    )
    return end if whole else 0, stop


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
