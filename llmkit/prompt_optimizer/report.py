"""What a fitted prompt is, and the report of what went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Compacted", "Cut", "Dropped", "FitReport", "FittedMessages", "FittedPrompt"]


@dataclass(frozen=True, slots=True)
class Compacted:
    """A text that lost characters but nothing that it says.

    Attributes:
        whitespace: Characters of blanks and blank lines that went.
        repeated: Characters of repeated lines and blocks that went; a marker stands for them.
        message: The message's index in what was given; None for a text.
        part: The index of the part of its content; None when the content is one text.
    """

    whitespace: int
    repeated: int
    message: int | None = None
    part: int | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """A message that went as a whole.

    Attributes:
        message: Its index in what was given.
        role: Its role.
        characters: The characters of its text.
    """

    message: int
    role: str
    characters: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A piece that was cut out of a text.

    Attributes:
        characters: How many characters went, counted after compacting.
        at: Where in the resulting text the piece's marker begins, or would.
        marker: What stands in its place; "" where not even a marker fitted.
        message: The message's index in what was given; None for a text.
        part: The index of the part of its content; None when the content is one text.
    """

    characters: int
    at: int
    marker: str
    message: int | None = None
    part: int | None = None


@dataclass(frozen=True, slots=True)
class FitReport:
    """What was done to make a prompt fit; everything empty when it fitted already.

    Attributes:
        target: The most tokens that were allowed.
        tokens: The tokens of the result.
        tokens_before: The tokens of what was given; None when counting it to its end was not
            necessary to see that it is too long.
        compacted: The texts that were compacted.
        dropped: The messages that went, in their order.
        cut: The pieces that were cut out of texts.
    """

    target: int
    tokens: int
    tokens_before: int | None = None
    compacted: tuple[Compacted, ...] = ()
    dropped: tuple[Dropped, ...] = ()
    cut: tuple[Cut, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether the result differs from what was given."""
        return bool(self.compacted or self.dropped or self.cut)


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """A text that fits.

    Attributes:
        prompt: The text.
        tokens: Its tokens, as the counter counted them.
        report: What was left out.
    """

    prompt: str
    tokens: int
    report: FitReport

    def __str__(self) -> str:
        return self.prompt


@dataclass(frozen=True, slots=True)
class FittedMessages:
    """Messages that fit.

    Attributes:
        messages: The messages, each a new dict, in their order.
        tokens: Their tokens, as the counter counted them, framing included.
        report: What was left out.
    """

    messages: list[dict[str, Any]]
    tokens: int
    report: FitReport
