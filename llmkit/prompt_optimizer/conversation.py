"""Fitting messages: whole turns go from the oldest, then what has to stay is cut inside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

from llmkit.errors import ContextLengthError
from llmkit.prompt_optimizer.compacting import compact
from llmkit.prompt_optimizer.counting import (
    CHARACTERS_PER_TOKEN,
    SLACK,
    Counter,
    check_target,
    fill,
    shrinking,
    text_if_fits,
)
from llmkit.prompt_optimizer.instructions import find_middle
from llmkit.prompt_optimizer.report import (
    Compacted,
    Cut,
    Dropped,
    FitReport,
    FittedMessages,
)
from llmkit.prompt_optimizer.text import Draft, fit_text
from llmkit.prompt_optimizer.turns import (
    SYSTEM_ROLES,
    Conversation,
    Place,
    check_messages,
    read_conversation,
    texts_of,
    with_texts,
)
from llmkit.tokenizer import count_tokens

__all__ = ["fit_messages"]

# What a message takes besides its text, in characters: about 4 tokens.
_FRAME = 16

# What a marker takes, in tokens, with any number in it.
_MARKER = 24


def fit_messages(
    messages: Sequence[Mapping[str, Any]],
    model: str,
    target_token_count: int,
    preserve_instructions: bool = True,
    *,
    counter: Counter = count_tokens,
) -> FittedMessages:
    """Makes a conversation fit a number of tokens and reports what was left out.

    What fits comes back as it is. Otherwise blanks and repetitions inside the messages go first,
    then whole turns from the oldest, a call of tools always together with all of its results. The
    system's messages and the last user's message stay; so does, if possible, the latest message
    (with its tool calls) after it. Where these are too long by themselves, pieces are cut out of
    the middles of the longest, and markers stand in their place.

    Args:
        messages: Mappings in the OpenAI shape. Only texts are cut, never the arguments of calls.
        model: The model whose tokens count.
        target_token_count: The most tokens that the result may have, as `counter` counts them.
        preserve_instructions: Whether the system's messages, and the instructions around a long
            middle in the last user's message, stay character for character; False lets anything
            be cut, and the system's messages go when nothing else helps.
        counter: What counts tokens; called like `llmkit.tokenizer.count_tokens`. It must not count
            less for messages than for a part of them.

    Returns:
        The messages that fit, their tokens, and the report.

    Raises:
        ContextLengthError: What has to stay is longer than the target.
        InvalidRequestError: The messages or the target are not of the expected kind.
    """
    target = check_target(target_token_count)
    given = check_messages(messages)
    fitting = _Fitting(given, model, target, preserve_instructions, counter)
    tokens, before = fitting.count_if_fits()
    if tokens is not None:
        report = FitReport(target, tokens, before)
        return FittedMessages([dict(each) for each in given], tokens, report)
    result = fitting.without_old_turns() or fitting.with_cuts()
    if result is None:
        raise fitting.error()
    return fitting.fitted(result, before)


@dataclass(frozen=True, slots=True)
class _Result:
    """A conversation that fits: what stays, and the texts that were cut."""

    kept: tuple[int, ...]
    tokens: int
    drafts: Mapping[Place, Draft] = field(default_factory=dict)


class _Fitting:
    """The state of one `fit_messages`."""

    def __init__(
        self,
        given: Sequence[Mapping[str, Any]],
        model: str,
        target: int,
        preserve: bool,
        counter: Counter,
    ) -> None:
        self._given = given
        self._model = model
        self._target = target
        self._preserve = preserve
        self._counter = counter
        self._sizes = [_size(message) for message in given]
        self._tidied: dict[int, tuple[Mapping[str, Any], tuple[Compacted, ...]]] = {}

    def count_if_fits(self) -> tuple[int | None, int | None]:
        """Counts all, or only the latest messages when there are far too many.

        Returns:
            As `text_if_fits` does.
        """
        enough = CHARACTERS_PER_TOKEN * (self._target + SLACK)
        sizes = self._sizes
        if sum(sizes) > 2 * enough:
            at, size = len(sizes), 0
            while size < enough:
                at -= 1
                size += sizes[at]
            latest = [_shortened(message, enough) for message in self._given[at:]]
            if self._count(latest) > self._target + SLACK:
                return None, None
        tokens = self._count(self._given)
        return (tokens if tokens <= self._target else None), tokens

    def without_old_turns(self) -> _Result | None:
        """Drops the oldest turns; None when that is not enough."""
        fixed = self._fixed()
        newest_first = self._conversation.units[::-1]
        sizes = [sum(self._sizes[at] for at in unit) for unit in newest_first]
        ends = list(accumulate(sizes, initial=0))
        framing = self._framing()

        def cost(first: int, last: int) -> int:
            kept = sorted(at for unit in newest_first[first:last] for at in unit)
            return self._count(self._tidy_messages(kept)) - framing

        taken = self._count(self._tidy_messages(fixed)) if fixed else framing
        for budget in shrinking(self._target - taken):
            units, _ = fill(ends, budget, cost)
            if self._conversation.latest and not units:
                return None
            kept = sorted([*fixed, *(at for unit in newest_first[:units] for at in unit)])
            tokens = self._count(self._tidy_messages(kept))
            if tokens <= self._target and kept:
                return _Result(tuple(kept), tokens)
        return None

    def with_cuts(self) -> _Result | None:
        """Keeps only what has to stay, and cuts its texts; None when that is not enough."""
        conversation = self._conversation
        newest = conversation.units[-1] if conversation.latest else ()
        user = () if conversation.user is None else (conversation.user,)
        attempts = [(*conversation.system, *user, *newest)]
        if user or not newest:
            attempts.append((*conversation.system, *user))
        if not self._preserve:
            attempts.append(user or newest)
        for kept in filter(None, attempts):
            for spare in (_MARKER, 0):
                try:
                    result = self._cut(tuple(sorted(kept)), spare)
                except ContextLengthError:  # one of the texts: the next attempt keeps less
                    continue
                if result is not None:
                    return result
        return None

    def error(self) -> ContextLengthError:
        """Says what is too long, with the numbers."""
        parts = []
        system = [self._given[at] for at in self._conversation.system]
        user = self._conversation.user
        if system:
            parts.append(f"the system's messages take {self._count(system):,} tokens")
        if user is not None:
            texts = [text for _, text in texts_of(self._given[user])]
            least = self._count(self._skeleton([user]))
            least += sum(self._floor(user, text, 0) for text in texts)
            what = "the instructions in" if self._preserve else "the frame and first words of"
            parts.append(f"{what} the last user's message take {least:,} tokens")
        advice = "; preserve_instructions=False lets them be cut" if self._preserve else ""
        known = ", ".join(parts) or "the frame of the last message alone takes more"
        return ContextLengthError(
            f"{known}, and the target is {self._target:,}{advice}", model=self._model
        )

    def fitted(self, result: _Result, before: int | None) -> FittedMessages:
        """Builds the messages and the report."""
        compacted: list[Compacted] = []
        cut: list[Cut] = []
        for at in result.kept:
            compacted += self._tidy(at)[1]
        for (at, part), draft in result.drafts.items():
            compacted += draft.compacted(at, part)
            cut += draft.cuts(at, part)
        kept = set(result.kept)
        dropped = tuple(
            Dropped(at, message["role"], self._sizes[at] - _FRAME)
            for at, message in enumerate(self._given)
            if at not in kept
        )
        report = FitReport(
            self._target, result.tokens, before, tuple(compacted), dropped, tuple(cut)
        )
        return FittedMessages(self._built(result.kept, result.drafts), result.tokens, report)

    @cached_property
    def _conversation(self) -> Conversation:
        return read_conversation(self._given)

    def _fixed(self) -> list[int]:
        user = self._conversation.user
        return sorted([*self._conversation.system, *(() if user is None else (user,))])

    def _count(self, messages: Sequence[Mapping[str, Any]]) -> int:
        return self._counter(self._model, messages)

    def _count_text(self, text: str) -> int:
        return self._counter(self._model, text)

    def _framing(self) -> int:
        """Returns what a count of messages holds once, however many there are."""
        probe = {"role": "user", "content": ""}
        return max(2 * self._count([probe]) - self._count([probe, probe]), 0)

    def _tidy_messages(self, kept: Sequence[int]) -> list[Mapping[str, Any]]:
        return [self._tidy(at)[0] for at in kept]

    def _tidy(self, at: int) -> tuple[Mapping[str, Any], tuple[Compacted, ...]]:
        """Returns a message with its texts compacted, and the report's entries on it."""
        if at not in self._tidied:
            message = self._given[at]
            entries = []
            texts = {}
            for part, text in texts_of(message) if self._may_change(at) else ():
                start, end = 0, len(text)
                if at == self._conversation.user and self._preserve:
                    start, end = find_middle(text)
                middle = compact(text[start:end])
                if middle.whitespace or middle.repeated:
                    texts[part] = text[:start] + middle.text + text[end:]
                    entries.append(Compacted(middle.whitespace, middle.repeated, at, part))
            self._tidied[at] = with_texts(message, texts) if texts else message, tuple(entries)
        return self._tidied[at]

    def _may_change(self, at: int) -> bool:
        return not (self._preserve and self._given[at]["role"] in SYSTEM_ROLES)

    def _skeleton(self, kept: Sequence[int]) -> list[dict[str, Any]]:
        """Returns messages with every text that may be cut taken out."""
        return [
            with_texts(
                self._given[at],
                {part: "" for part, _ in texts_of(self._given[at]) if self._may_change(at)},
            )
            for at in kept
        ]

    def _cut(self, kept: tuple[int, ...], spare: int) -> _Result | None:
        """Cuts the longest texts; instructions get `spare` tokens more, for a marker."""
        most = self._target - self._count(self._skeleton(kept))
        if most < 0:
            return None
        texts: dict[Place, str] = {
            (at, part): text
            for at in kept
            if self._may_change(at)
            for part, text in texts_of(self._tidy(at)[0])
        }
        needs = [self._need(text, most) for text in texts.values()]
        floors = [
            min(self._floor(at, text, spare), need)
            for ((at, _), text), need in zip(texts.items(), needs, strict=True)
        ]
        for room in shrinking(most):
            limit = _level(room, needs, floors)
            if limit is None:
                return None
            drafts = {}
            for (place, text), need, floor in zip(texts.items(), needs, floors, strict=True):
                share = max(limit, floor)
                if need > share:
                    drafts[place] = self._cut_text(place, text, share)
            tokens = self._count(self._built(kept, drafts))
            if tokens <= self._target:
                return _Result(kept, tokens, drafts)
        return None

    def _cut_text(self, place: Place, text: str, share: int) -> Draft:
        preserve = self._preserve and place[0] == self._conversation.user
        return fit_text(text, share, self._count_text, preserve=preserve, model=self._model)

    def _need(self, text: str, most: int) -> int:
        tokens, _ = text_if_fits(text, most, self._count_text)
        return most + 1 if tokens is None else tokens

    def _floor(self, at: int, text: str, spare: int) -> int:
        """Returns the tokens that a text can't go below."""
        if not self._preserve or at != self._conversation.user:
            return max(self._count_text(""), 1)
        start, end = find_middle(text)
        if start == end:
            return self._count_text(text)
        around = text[:start] + text[end:]
        return max(self._count_text(around) + (spare if around else 0), 1)

    def _built(self, kept: Sequence[int], drafts: Mapping[Place, Draft]) -> list[dict[str, Any]]:
        texts: dict[int, dict[int | None, str]] = {at: {} for at in kept}
        for (at, part), draft in drafts.items():
            texts[at][part] = draft.text
        return [with_texts(self._tidy(at)[0], texts[at]) for at in kept]


def _size(message: Mapping[str, Any]) -> int:
    content = message.get("content")
    if isinstance(content, str):
        return _FRAME + len(content)
    return _FRAME + sum(len(text) for _, text in texts_of(message))


def _shortened(message: Mapping[str, Any], most: int) -> Mapping[str, Any]:
    long = {part: text[:most] for part, text in texts_of(message) if len(text) > most}
    return with_texts(message, long) if long else message


def _level(room: int, needs: Sequence[int], floors: Sequence[int]) -> int | None:
    """Finds the most tokens that each text may have so that all fit; None when floors don't."""

    def total(limit: int) -> int:
        return sum(min(need, max(limit, floor)) for need, floor in zip(needs, floors, strict=True))

    low, high = 0, room + 1
    if total(low) > room:
        return None
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if total(middle) <= room else (low, middle)
    return low
