"""A call that asks several models at once, as one call: one time-out, one record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from llmkit.errors import CancelledError, ErrorCode, InvalidRequestError
from llmkit.log import brief
from llmkit.parallel.racing import Racer, race
from llmkit.performance import get_performance_tracker
from llmkit.pipeline import Begun, LogicalCall, ModelCall, Target, begin_replay, stand_in
from llmkit.request import Request, check_seconds
from llmkit.streams import Stream
from llmkit.types import Completion

__all__ = ["HedgeAfter", "complete_in_race", "stream_in_race"]

T = TypeVar("T")
HedgeAfter = float | str | None

# Successes from which a model's p95 is known, and the seconds that stand in for it before.
ENOUGH = 20
UNMEASURED = 2.0


def complete_in_race(
    targets: Sequence[Target],
    request: Request,
    hedge_after: HedgeAfter = None,
    on_answer: Callable[[int], object] | None = None,
) -> Completion:
    """Asks models at once, and cuts the others when the first has answered.

    Args:
        targets: The models, the likeliest winner first; its options hold for the whole call.
        request: What is asked, as it is meant for the first.
        hedge_after: Seconds after which the next model is asked, too, if there is no answer yet;
            "p95" takes what 95 % of the last one's calls took; None asks all at once.
        on_answer: Told the number of the target that answered.

    Returns:
        The first answer that was not filtered; a filtered one when there is no other.

    Raises:
        LLMError: No model answered.
    """
    parts, call, head_starts = _line_up(targets, request, hedge_after, streamed=False)

    def step() -> tuple[ModelCall, Completion]:
        at, reply = _find_cached(parts) or race(
            _racers(call, parts, head_starts, ModelCall.answer_alone),
            lambda reply: reply.finish_reason != "content_filter",
        )
        if reply.cached is None:
            reply.warnings += _losers(call, parts[at])
        return parts[at], reply

    reply = call.complete(step)
    if on_answer is not None:
        on_answer(parts.index(call.answered_by))
    return reply


def stream_in_race(
    targets: Sequence[Target], request: Request, hedge_after: HedgeAfter = None
) -> Stream:
    """Asks models at once for a stream; the first to deliver a chunk wins.

    Args:
        targets: As in `complete_in_race`.
        request: Likewise.
        hedge_after: Likewise.

    Returns:
        The winner's stream.

    Raises:
        LLMError: No model began one.
    """
    parts, call, head_starts = _line_up(targets, request, hedge_after, streamed=True)

    def begin(part: ModelCall, forced: bool) -> tuple[ModelCall, Begun]:
        return part, part.begin_fresh(call.scope, forced)

    def discard(late: tuple[ModelCall, Begun]) -> None:
        part, begun = late
        begun.scope.cancel("another model was faster")
        begun.scope.close_held()
        part.end_stream(CancelledError("another model was faster"))

    def step() -> tuple[ModelCall, Begun]:
        cached = _find_cached(parts)
        if cached is not None:
            return parts[cached[0]], begin_replay(cached[1], call.scope)
        racers = _racers(call, parts, head_starts, begin)
        _, (part, begun) = race(racers, lambda begun: True, discard)
        part.asides += _losers(call, part)
        return part, begun

    return call.stream(step)


def _line_up(
    targets: Sequence[Target], request: Request, hedge_after: HedgeAfter, streamed: bool
) -> tuple[list[ModelCall], LogicalCall, list[float | None]]:
    options, first = targets[0].options, targets[0].adapter
    head_starts = [_head_start(hedge_after, target.adapter.model) for target in targets]
    parts = [ModelCall(first, request, options, streamed=streamed)]
    parts += [stand_in(parts[0], request, target) for target in targets[1:]]
    return parts, LogicalCall(parts[0], options, request.metadata), head_starts


def _find_cached(parts: Sequence[ModelCall]) -> tuple[int, Completion] | None:
    """Looks once for each model's answer, before any is asked."""
    for at, part in enumerate(parts):
        hit = part.cached()
        if hit is not None:
            return at, hit
    return None


def _racers(
    call: LogicalCall,
    parts: Sequence[ModelCall],
    head_starts: Sequence[float | None],
    run: Callable[[ModelCall, bool], T],
) -> list[Racer[T]]:
    def racer(part: ModelCall, head_start: float | None) -> Racer[T]:
        def take_part(forced: bool) -> T:
            if part not in call.asked:
                call.asked.append(part)
            return run(part, forced)

        return Racer(part.adapter.model, take_part, head_start, part.adapter.provider)

    return [racer(part, head_start) for part, head_start in zip(parts, head_starts, strict=True)]


def _head_start(hedge_after: HedgeAfter, model: str) -> float | None:
    if isinstance(hedge_after, str):
        if hedge_after != "p95":
            raise InvalidRequestError(
                f"hedge_after={brief(hedge_after)}: expected seconds or 'p95'"
            )
        stats = get_performance_tracker().get_stats(model)
        if stats["successes"] - stats["cache_hits"] < ENOUGH:
            return UNMEASURED
        return float(stats["p95_latency_ms"]) / 1000
    return check_seconds("hedge_after", hedge_after)


def _losers(call: LogicalCall, winner: ModelCall) -> tuple[str, ...]:
    """Says whose requests may be billed though they were cut, or answered in vain."""
    lost = [
        part.adapter.model
        for part in call.asked
        if part is not winner
        and any(each.code in (None, ErrorCode.LLM_CANCELLED) for each in part.attempts_if_cut)
    ]
    if not lost:
        return ()
    return (f"{', '.join(lost)} lost the race: what that cost is not known, nor part of `cost`",)
