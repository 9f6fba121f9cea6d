"""Which part of a prompt says what to do, and which is the long middle that it is about."""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["find_middle"]

# Longer than this is not instructions but something to work on (characters, lines).
_MOST = 4_000
_LONGEST_LINE = 600
_LONGEST_PROSE = 1_200
_MOST_PROSE_LINES = 8

_ITEM = re.compile(r"\s*+(?:[-*+•‣◦·]|\(?(?:\d{1,3}|[A-Za-z])[.)])\s+\S")
_FENCE = re.compile(r" {0,3}(?:```|~~~)")
_CODE = re.compile(
    r"""
    (?:[ ]{4}|\t)\s*\S
    | .*[{};]\s*$
    | \s*[})\]<] | [{\["'@] | \#(?:include|define|!) | // | /\*
    | (?:async\ )?(?:def|class|fn|func|function)\s+\w+\s*[(:{<]
    | import\s+[\w.*]+(?:\s+as\s+\w+)?\s*$
    | from\s+\S+\s+import\b
    | (?:const|let|var)\s+\w+\s*[=:]
    | (?:public|private|protected|static)\s+\w+\s+\w+\s*[(={]
    | [\w.\[\]]+\s*(?:[-+*/|&]?=|:=)\s*\S
    | [\w.]+\([^)]*\)\s*$
    | return\b[^.?!]*$
    | (?:if|for|while|with|elif)\s.*[()=<>\[\]_].*:\s*$
    | (?:try|else|finally):\s*$
    """,
    re.VERBOSE,
)
_CUE = re.compile(
    r"\W*+(?:please|now|then|also|finally|in\ your\ answer)?,?\s*+"
    r"(?:you\ (?:are|must|should|shall|may|will)|your\ (?:task|job|answer|role)|do(?:\ not)?|don't|"
    r"never|always|make\ sure|provide|focus|answer|respond|reply|return|output|explain|analy[sz]e|"
    r"summari[sz]e|describe|translate|review|compare|extract|classify|rewrite|list|write|use|"
    r"ensure|follow|consider|include|avoid|keep|limit|format|task|instructions?|rules?|"
    r"requirements?|note|important|remember|specifically|based\ on|given|think|be)\b",
    re.IGNORECASE,
)
_BREAK = re.compile(r"\n(?:[ \t\r]*+\n)++")


def find_middle(text: str) -> tuple[int, int]:
    """Finds the long middle between the leading and the trailing instructions.

    By form, without understanding: the first and the last paragraph, and from there inwards
    lists, lines that end with a colon or a question mark, and short paragraphs that begin the way
    requests do (in English; elsewhere the other signs have to do);
    fenced or unfenced code, JSON and long runs of lines end the search. At most about 1,000 tokens
    on either side count as instructions.

    Args:
        text: The prompt.

    Returns:
        Where the middle begins and ends. It is the whole text when this is a single paragraph
        without a list, and empty when all of the text is instructions.
    """
    start = _leading(text)
    end = _trailing(text)
    if start < end:
        return start, end
    if not _BREAK.search(text.strip()) and not any(map(_ITEM.match, text.splitlines())):
        return 0, len(text)
    return len(text), len(text)


def _leading(text: str) -> int:
    """Returns where the leading instructions end."""
    window = text[: 3 * _MOST]
    kept = 0
    for start, end in _paragraphs(window):
        lines = window[start:end].splitlines(keepends=True)
        taken = _lines_of_instructions(lines, first=start == 0)
        size = sum(map(len, lines[:taken]))
        if start == 0 and size > _MOST:
            taken, size = 1, len(lines[0])
        if not taken or start + size > _MOST:
            break
        kept = start + size
        if taken < len(lines):
            break
    return kept


def _trailing(text: str) -> int:
    """Returns where the trailing instructions begin."""
    offset = max(len(text) - 3 * _MOST, 0)
    window = text[offset:]
    kept = len(window)
    for start, end in reversed(list(_paragraphs(window))):
        lines = window[start:end].splitlines(keepends=True)
        taken = _last_lines_of_instructions(lines, last=end == len(window))
        size = sum(map(len, lines[len(lines) - taken :]))
        if end == len(window) and size > _MOST:
            taken, size = 1, len(lines[-1])
        if not taken or len(window) - (end - size) > _MOST:
            break
        kept = end - size
        if taken < len(lines):
            break
    return offset + kept


def _paragraphs(window: str) -> Iterator[tuple[int, int]]:
    start = 0
    for gap in _BREAK.finditer(window):
        if gap.end() < len(window):
            yield start, gap.end()
            start = gap.end()
    if start < len(window):
        yield start, len(window)


def _lines_of_instructions(lines: list[str], *, first: bool) -> int:
    """Counts the lines at a paragraph's beginning that belong to the leading instructions."""
    taken = 0
    for line in lines:
        if _is_material(line) and not (taken and _continues(line, lines[taken - 1])):
            break
        announced = bool(taken) and lines[taken - 1].rstrip().endswith(":")
        if announced and line.strip() and not _instructs(line):
            break
        taken += 1
    if first:
        return taken if _is_short(lines[:taken]) else min(taken, 1)
    return taken if _is_short(lines[:taken]) and any(map(_instructs, lines[:taken])) else 0


def _last_lines_of_instructions(lines: list[str], *, last: bool) -> int:
    """Counts the lines at a paragraph's end that belong to the trailing instructions."""
    taken = 0
    for at in range(len(lines) - 1, -1, -1):
        if _is_material(lines[at]) and not (at and _continues(lines[at], lines[at - 1])):
            break
        taken += 1
    found = lines[len(lines) - taken :]
    if last:
        return taken if _is_short(found) else min(taken, 1)
    return taken if _is_short(found) and any(map(_instructs, found)) else 0


def _is_material(line: str) -> bool:
    """Says whether a line looks like code or data rather than like a sentence to the model."""
    if not line.strip():
        return False
    if len(line) > _LONGEST_LINE or _FENCE.match(line):
        return True
    return not _ITEM.match(line) and _CODE.match(line) is not None


def _continues(line: str, before: str) -> bool:
    """Says whether a line goes on with the list item above it."""
    return line[:1] in " \t" and (_ITEM.match(before) is not None or before[:1] in " \t")


def _instructs(line: str) -> bool:
    return bool(_ITEM.match(line) or line.rstrip().endswith((":", "?")) or _CUE.match(line))


def _is_short(lines: list[str]) -> bool:
    """Says whether the lines without lists are few enough to be instructions."""
    prose = [line for line in lines if line.strip() and not _ITEM.match(line)]
    return len(prose) <= _MOST_PROSE_LINES and sum(map(len, prose)) <= _LONGEST_PROSE
