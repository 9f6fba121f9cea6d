"""A call that asks models one after the other, as one call: one time-out, one record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

from llmkit.errors import ContentFilterError, LLMError
from llmkit.fallback.turns import Candidate, ShouldFallback, in_turn
from llmkit.pipeline import (
    Adapter,
    Begun,
    CallOptions,
    LogicalCall,
    ModelCall,
    Target,
    stand_in,
)
from llmkit.request import Request
from llmkit.streams import Stream
from llmkit.types import Completion, Fallback

__all__ = ["complete_in_turn", "stream_in_turn"]

T = TypeVar("T")


def complete_in_turn(
    targets: Sequence[Target],
    request: Request,
    leads_on: ShouldFallback,
    on_answer: Callable[[int], object] | None = None,
) -> Completion:
    """Asks models one after the other.

    Args:
        targets: The models; the first one's options hold for the whole call.
        request: What is asked, as it is meant for the first.
        leads_on: Which failures lead to the next model.
        on_answer: Told the number of the target that answered.

    Returns:
        The answer of the first model that gave one.

    Raises:
        LLMError: None did.
    """
    chain = _Chain(targets, request, leads_on, streamed=False)

    def ask(model_call: ModelCall, forced: bool) -> Completion:
        reply = model_call.answer(forced)
        # Some vendors refuse by an error, others in an answer; the last model's answer is kept.
        if reply.finish_reason == "content_filter" and not chain.is_last(model_call):
            refused = ContentFilterError(
                "the answer was refused or cut off for its content",
                provider=model_call.adapter.provider,
                model=model_call.adapter.model,
                request_id=reply.request_id,
                attempts=model_call.attempts,
            )
            if leads_on(refused):
                raise refused
        return reply

    reply = chain.call.complete(lambda: chain.run(ask))
    if on_answer is not None:
        on_answer(chain.number_of(chain.call.answered_by))
    return reply


def stream_in_turn(targets: Sequence[Target], request: Request, leads_on: ShouldFallback) -> Stream:
    """Asks models one after the other, until one has sent its first chunk.

    Args:
        targets: As in `complete_in_turn`.
        request: Likewise.
        leads_on: Likewise.

    Returns:
        The stream of the first model that began one.

    Raises:
        LLMError: None did.
    """
    chain = _Chain(targets, request, leads_on, streamed=True)

    def begin(model_call: ModelCall, forced: bool) -> Begun:
        return model_call.begin(chain.call.scope, forced)

    return chain.call.stream(lambda: chain.run(begin))


class _Chain:
    """The models of one call; each takes part from when it is its turn."""

    def __init__(
        self, targets: Sequence[Target], request: Request, leads_on: ShouldFallback, streamed: bool
    ) -> None:
        targets = _linked(targets, leads_on)
        options = targets[0].options
        first = ModelCall(targets[0].adapter, request, options, streamed=streamed)
        self.call = LogicalCall(first, options, request.metadata)
        self._targets = targets
        self._request = request
        self._leads_on = leads_on
        self._parts = {0: first}

    def number_of(self, model_call: ModelCall) -> int:
        """Returns which of the targets a model is, from 0."""
        return next(at for at, part in self._parts.items() if part is model_call)

    def is_last(self, model_call: ModelCall) -> bool:
        """Says whether nobody can be asked after this model."""
        return self._parts.get(len(self._targets) - 1) is model_call

    def run(self, ask: Callable[[ModelCall, bool], T]) -> tuple[ModelCall, T]:
        candidates = [self._candidate(at, ask) for at in range(len(self._targets))]
        share = self._targets[0].options.attempt_timeout if len(candidates) > 1 else None
        return in_turn(candidates, self._leads_on, share, self._note)[1]

    def _candidate(
        self, at: int, ask: Callable[[ModelCall, bool], T]
    ) -> Candidate[tuple[ModelCall, T]]:
        adapter = self._targets[at].adapter

        def window() -> int | None:
            return adapter.info.context_window

        def take_part(forced: bool) -> tuple[ModelCall, T]:
            model_call = self._part(at)
            return model_call, ask(model_call, forced)

        return Candidate(adapter.model, window, take_part, adapter.provider)

    def _part(self, at: int) -> ModelCall:
        if at not in self._parts:
            model_call = stand_in(self._parts[0], self._request, self._targets[at])
            self._parts[at] = model_call
            self.call.asked.append(model_call)
        return self._parts[at]

    def _note(self, failed: str, following: str, error: LLMError) -> None:
        self.call.fallbacks.append(Fallback(failed, following, error.code))


def _linked(targets: Sequence[Target], leads_on: ShouldFallback) -> list[Target]:
    """Tells each target which one follows, and after which errors."""

    def link(options: CallOptions, following: Adapter) -> CallOptions:
        retry = options.retry._replace(elsewhere=leads_on)
        return options._replace(following=following, retry=retry)

    linked = [
        target._replace(options=link(target.options, following.adapter))
        for target, following in pairwise(targets)
    ]
    return [*linked, targets[-1]]
