"""Fitting one text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from llmkit.errors import ContextLengthError, InvalidRequestError
from llmkit.prompt_optimizer.compacting import Compact, compact
from llmkit.prompt_optimizer.counting import Counter, check_target, shrinking, text_if_fits
from llmkit.prompt_optimizer.cutting import Gap, Middle, left_out
from llmkit.prompt_optimizer.instructions import find_middle
from llmkit.prompt_optimizer.report import Compacted, Cut, FitReport, FittedPrompt
from llmkit.tokenizer import count_tokens

__all__ = ["Draft", "fit_prompt", "fit_text"]

_SHORT_MARKER = "[…]"


def fit_prompt(
    prompt: str,
    model: str,
    target_token_count: int,
    preserve_instructions: bool = True,
    *,
    counter: Counter = count_tokens,
) -> FittedPrompt:
    """Makes a text fit a number of tokens and reports what was left out.

    A text that fits comes back as it is. Otherwise blanks and repetitions go first; if that is not
    enough, one piece is cut out of the middle and a marker with its length stands in its place.

    Args:
        prompt: The text.
        model: The model whose tokens count.
        target_token_count: The most tokens that the result may have, as `counter` counts them.
        preserve_instructions: Whether the instructions before and after a long middle stay
            character for character; False lets anything be cut.
        counter: What counts tokens; called like `llmkit.tokenizer.count_tokens`. It must not count
            less for a text than for a part of it.

    Returns:
        The text that fits, its tokens, and the report.

    Raises:
        ContextLengthError: The instructions alone are longer than the target, or so is the first
            character.
        InvalidRequestError: The prompt is not a text, or the target not a whole number from 1.
    """
    target = check_target(target_token_count)
    if not isinstance(prompt, str):
        raise InvalidRequestError(f"prompt: expected a text, got {type(prompt).__name__}")

    def count(text: str) -> int:
        return counter(model, text)

    tokens, before = text_if_fits(prompt, target, count)
    if tokens is not None:
        return FittedPrompt(prompt, tokens, FitReport(target, tokens, before))
    draft = fit_text(prompt, target, count, preserve=preserve_instructions, model=model)
    report = FitReport(
        target,
        draft.tokens,
        before,
        compacted=draft.compacted(),
        cut=draft.cuts(),
    )
    return FittedPrompt(draft.text, draft.tokens, report)


@dataclass(frozen=True, slots=True)
class Draft:
    """One text that was made to fit.

    Attributes:
        text: The text.
        tokens: Its tokens.
        whitespace: Characters of whitespace that went.
        repeated: Characters of repetitions that went.
        left_out: Characters that were cut out.
        at: Where they were.
        marker: What stands there.
    """

    text: str
    tokens: int
    whitespace: int = 0
    repeated: int = 0
    left_out: int = 0
    at: int = 0
    marker: str = ""

    def compacted(
        self, message: int | None = None, part: int | None = None
    ) -> tuple[Compacted, ...]:
        """Returns the report's entry on compacting, if there is one."""
        if not self.whitespace and not self.repeated:
            return ()
        return (Compacted(self.whitespace, self.repeated, message, part),)

    def cuts(self, message: int | None = None, part: int | None = None) -> tuple[Cut, ...]:
        """Returns the report's entry on what was cut out, if there is one."""
        if not self.left_out:
            return ()
        return (Cut(self.left_out, self.at, self.marker, message, part),)


def fit_text(
    text: str, target: int, count: Callable[[str], int], *, preserve: bool, model: str
) -> Draft:
    """Makes a text fit that is known to be too long.

    Args:
        text: The text.
        target: The most tokens; may be 0.
        count: Counts a text's tokens.
        preserve: Whether the instructions stay whole.
        model: For the error.

    Returns:
        What was made of it.

    Raises:
        ContextLengthError: It can't be made to fit.
    """
    start, end = find_middle(text) if preserve else (0, len(text))
    head, tail = text[:start], text[end:]
    middle = compact(text[start:end])
    whitespace, repeated = middle.whitespace, middle.repeated
    if whitespace or repeated:
        smaller = head + middle.text + tail
        tokens, _ = text_if_fits(smaller, target, count)
        if tokens is not None:
            return Draft(smaller, tokens, whitespace, repeated)
    for kept, at, marker, characters in _attempts(head, middle, tail, target, count):
        tokens = count(kept)
        if tokens <= target:
            return Draft(kept, tokens, whitespace, repeated, characters, at, marker)
    if head or tail:
        what = f"the instructions alone take {count(head + tail):,} tokens"
        advice = "; preserve_instructions=False lets them be cut"
    else:
        what, advice = f"not even its beginning, {text[:8]!r}, fits", ""
    raise ContextLengthError(f"{what}, and the target is {target:,}{advice}", model=model)


def _attempts(
    head: str, middle: Compact, tail: str, target: int, count: Callable[[str], int]
) -> Iterator[tuple[str, int, str, int]]:
    """Yields ever shorter results, with the marker's place, the marker, and what was left out."""
    if not middle.text:
        return
    around = count(head) + count(tail) if head or tail else 0
    cuttable = Middle(middle, count)
    for write in (left_out, lambda _: _SHORT_MARKER, lambda _: ""):
        room = target - around - count(write(len(middle.text)))
        for budget in shrinking(max(room, 0)):
            gap = cuttable.gap(budget)
            if head or tail or gap.end - gap.start < len(middle.text):
                yield _assemble(head, middle.text, tail, gap, write)


def _assemble(
    head: str, middle: str, tail: str, gap: Gap, write: Callable[[int], str]
) -> tuple[str, int, str, int]:
    characters = gap.end - gap.start
    before, after = head + middle[: gap.start], middle[gap.end :] + tail
    marker = write(characters) if characters else ""
    if not marker:
        return before + after, len(before), "", characters
    line_end = "\r\n" if before.endswith("\r\n") else "\n"
    own_line = not before or before.endswith("\n")
    if gap.closing:
        before += f"{'' if own_line else line_end}{gap.closing}{line_end}"
    elif not before[-1:].isspace() and before:
        before += " "
    opening = f"{gap.opening}{line_end}" if gap.opening else ""
    if own_line or gap.closing or gap.opening:
        space = line_end if after else ""
    else:
        space = " " if after and not after[0].isspace() else ""
    return before + marker + space + opening + after, len(before), marker, characters
