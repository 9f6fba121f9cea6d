"""A call as its user sees it, whatever models it asks: one time-out, one record."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from llmkit.content_policy import is_violation
from llmkit.errors import RETRYABLE_CODES, AllModelsFailedError, Attempt, ErrorCode, LLMError
from llmkit.log import get_logger
from llmkit.performance import Observer, get_performance_tracker, notify, notify_later
from llmkit.pipeline.model_call import Begun, ModelCall, begin_replay
from llmkit.pipeline.options import CallOptions
from llmkit.pipeline.tries import code_of
from llmkit.scope import CallInterrupted, Scope
from llmkit.streams import Stream
from llmkit.types import CallRecord, Completion, Fallback, Usage

__all__ = ["LogicalCall"]

T = TypeVar("T")

# With these, besides the codes that are worth a second try, an expired answer is better than none.
_OUTAGES = frozenset(
    {
        ErrorCode.LLM_ALL_MODELS_FAILED,
        ErrorCode.LLM_CIRCUIT_OPEN,
        ErrorCode.LLM_QUOTA_EXCEEDED,
    }
)

_NO_USAGE = Usage()


class LogicalCall:
    """One call while it is under way: its clock, and the models that it asks.

    Args:
        first: The model that is asked first.
        options: How the whole call is made.
        metadata: The caller's notes, for the observers.

    Attributes:
        asked: Every model that was asked, in the order in which that began.
        fallbacks: Every step from one model to the next.
        answered_by: The model whose answer the call ended with; set when it has one.
        scope: The whole call's time and cancel switch.
    """

    __slots__ = (
        "_began",
        "_first_chunk",
        "_metadata",
        "_options",
        "_started_at",
        "_streamed",
        "answered_by",
        "asked",
        "fallbacks",
        "scope",
    )

    def __init__(self, first: ModelCall, options: CallOptions, metadata: Mapping[str, Any]) -> None:
        self.asked = [first]
        self.fallbacks: list[Fallback] = []
        self._options = options
        self._metadata = metadata
        self._streamed = first.streamed
        self._started_at = time.time()
        self._began = time.perf_counter()
        self._first_chunk: float | None = None
        self.answered_by: ModelCall
        self.scope: Scope

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every HTTP request that was made, of whatever model; of a racer that lost, as cut."""
        return tuple(attempt for each in self.asked for attempt in each.attempts_if_cut)

    def take(self, hit: Completion) -> Completion:
        """Ends the call with an answer that was found at once: there is nothing to wait for."""
        self._finish(hit, self.asked[0])
        return hit

    def complete(self, step: Callable[[], tuple[ModelCall, Completion]]) -> Completion:
        """Runs what gets the answer.

        Args:
            step: Gets it, inside the call's Scope, and says which model gave it.

        Returns:
            The answer, with its attempts and latency.

        Raises:
            LLMError: There is none; `attempts` lists what was tried.
        """
        self.scope = Scope(self._options.timeout)

        def get() -> tuple[ModelCall, Completion]:
            try:
                with self.scope.entered():
                    return step()
            except (LLMError, CallInterrupted) as error:
                return self._stale_instead(error)

        answering, reply = self._recorded(get)
        self.answered_by = answering
        self._finish(reply, answering)
        return reply

    def stream(self, step: Callable[[], tuple[ModelCall, Begun]]) -> Stream:
        """Runs what gets a stream's first chunk.

        Args:
            step: Gets it, inside the call's Scope, and says which model gave it.

        Returns:
            The stream, which has begun.

        Raises:
            LLMError: There was no first chunk.
        """
        self.scope = Scope(self._options.timeout)
        until_first = Scope(self._options.first_chunk_timeout, parent=self.scope)

        def begin() -> tuple[ModelCall, Begun]:
            try:
                with self.scope.entered(), until_first.entered():
                    return step()
            except (LLMError, CallInterrupted) as error:
                stale, reply = self._stale_instead(error)
                return stale, begin_replay(reply, self.scope)

        answering, begun = self._recorded(begin)
        self._first_chunk = time.perf_counter() - self._began

        def end(outcome: Completion | LLMError) -> None:
            answering.end_stream(outcome)
            self._finish(outcome, answering)

        pid = os.getpid()

        def drop(error: LLMError) -> None:
            if pid == os.getpid():  # a forked child's copy is not its to tell of
                answering.note_end(error)
                self._finish(error, answering, tell=notify_later)

        return Stream(
            begun.source,
            first=begun.first,
            ended=begun.ended,
            scope=begun.scope,
            idle_timeout=self._options.idle_timeout,
            describe=lambda error: self._describe(error, answering),
            on_end=end,
            on_drop=drop,
        )

    def _stale_instead(self, error: LLMError | CallInterrupted) -> tuple[ModelCall, Completion]:
        """Finds an expired answer to give instead of an error that is not the request's own."""
        if error.code in RETRYABLE_CODES or error.code in _OUTAGES:
            for part in self.asked:
                stale = part.cached_stale()
                if stale is not None:
                    get_logger("cache").warning("an expired answer is given, because: %s", error)
                    return part, stale
        raise error

    def _recorded(self, step: Callable[[], T]) -> T:
        """Tells the observers if a step fails, after the call's Scope has been left."""
        try:
            return step()
        except LLMError as error:
            self._finish(self._describe(error, self.asked[-1]), self.asked[-1])
            raise
        except CallInterrupted as interruption:  # outside a try: while it waited for the next
            last = self.asked[-1]
            cut = self._describe(interruption.to_error(), last)
            self._finish(cut, last)
            raise cut from last.failure
        except BaseException as bug:  # passed on as it is; only the record needs some code
            self._finish(LLMError(repr(bug), code=code_of(bug)), self.asked[-1])
            raise

    def _describe(self, error: LLMError, concerned: ModelCall) -> LLMError:
        """Adds to an error which model it concerns, and what was tried."""
        if not isinstance(error, AllModelsFailedError):  # which concerns them all
            error.provider = error.provider or concerned.adapter.provider
            error.model = error.model or concerned.adapter.model
        error.attempts = self.attempts
        return error

    def _finish(
        self,
        outcome: Completion | LLMError,
        concerned: ModelCall,
        tell: Callable[[Iterable[Observer], CallRecord], object] = notify,
    ) -> None:
        """Completes the answer's figures and tells the observers."""
        latency = time.perf_counter() - self._began
        outcome.attempts = attempts = self.attempts
        code, usage, cost, cached = None, _NO_USAGE, None, None
        if isinstance(outcome, LLMError):
            code = outcome.code
        else:
            outcome.latency = latency
            usage, cost, cached = outcome.usage, outcome.cost, outcome.cached
        if is_violation(outcome):
            concerned.log_violation(outcome)
        record = CallRecord(
            model=concerned.adapter.model,
            provider=concerned.adapter.provider,
            code=code,
            started_at=self._started_at,
            latency=latency,
            first_chunk=self._first_chunk,
            streamed=self._streamed,
            usage=usage,
            cost=cost,
            attempts=attempts,
            metadata=self._metadata,
            fallbacks=tuple(self.fallbacks),
            cached=cached,
        )
        tracker = (get_performance_tracker(),) if self._options.tracked else ()
        tell((*tracker, *self._options.observers), record)
