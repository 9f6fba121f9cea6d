"""Trying one after the other: who is next, for how long, and when it is time to give up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from llmkit.breaker import soonest_to_close
from llmkit.errors import AllModelsFailedError, ErrorCode, InvalidRequestError, LLMError
from llmkit.log import brief, get_logger
from llmkit.scope import CallInterrupted, Scope, current_scope

__all__ = ["FALLBACK_CODES", "Candidate", "FallbackOn", "falls_back_on", "in_turn"]

T = TypeVar("T")
ShouldFallback = Callable[[BaseException], bool]
FallbackOn = ShouldFallback | Iterable[ErrorCode | str] | None
Note = Callable[[str, str, LLMError], object]

# What another model may do better. A refused key or a wrong request is to be mended, not hidden.
FALLBACK_CODES = frozenset(
    {
        ErrorCode.LLM_RATE_LIMIT,
        ErrorCode.LLM_QUOTA_EXCEEDED,
        ErrorCode.LLM_TIMEOUT,
        ErrorCode.LLM_CONNECTION_ERROR,
        ErrorCode.LLM_PROVIDER_ERROR,
        ErrorCode.MODEL_NOT_FOUND,
        ErrorCode.LLM_CONTEXT_LENGTH,
        ErrorCode.LLM_CIRCUIT_OPEN,
    }
)

# The part of the time left that a model may use up while others wait behind it.
SHARE = 2 / 3


def falls_back_on(given: FallbackOn = None) -> ShouldFallback:
    """Reads which failures lead to the next model.

    Args:
        given: Error codes, or a function of an exception; None for `FALLBACK_CODES`, and for broken
            connections and time-outs that are no `LLMError`.

    Returns:
        A function that says so of an exception.

    Raises:
        InvalidRequestError: It is neither, or there is no such code.
    """
    if callable(given) and not isinstance(given, type):
        return given
    try:
        if isinstance(given, type):  # of exceptions, say: calling it would say yes to everything
            raise TypeError
        codes = FALLBACK_CODES if given is None else frozenset(map(ErrorCode, given))
    except (TypeError, ValueError):
        raise InvalidRequestError(
            f"{brief(given)}: expected error codes such as 'LLM_RATE_LIMIT', or a function of an "
            "exception"
        ) from None

    def leads_on(error: BaseException) -> bool:
        if isinstance(error, LLMError):
            return error.code in codes
        return given is None and isinstance(error, ConnectionError | TimeoutError)

    return leads_on


@dataclass(frozen=True, slots=True)
class Candidate(Generic[T]):
    """Something to try, in its turn.

    Attributes:
        name: What it is called.
        window: Returns the size of its context window in tokens; None when unknown.
        ask: Tries it; told whether it has to be tried although its circuit is open.
        provider: Its model's provider, for its errors; None without one.
    """

    name: str
    window: Callable[[], int | None]
    ask: Callable[[bool], T]
    provider: str | None = None


def in_turn(
    candidates: Sequence[Candidate[T]],
    leads_on: ShouldFallback,
    share: float | None = None,
    note: Note | None = None,
) -> tuple[int, T]:
    """Tries candidates one after the other, inside the current Scope.

    Args:
        candidates: At least one.
        leads_on: Which failures lead to the next one.
        share: Seconds for each; None gives each that others wait behind two thirds of the time
            left, and the last one all of it.
        note: Told of each step: the names of who failed and of who is next, and the error.

    Returns:
        The number of the one that managed it, from 0, and its result.

    Raises:
        AllModelsFailedError: Several failed.
        Exception: The only one that was tried failed.
        CallInterrupted: The Scope was cancelled.
    """
    failures: list[tuple[int, Exception]] = []
    waiting = list(range(len(candidates)))
    while waiting:
        at = waiting.pop(0)
        try:
            return at, _try_one(candidates[at], share, others_wait=bool(waiting))
        except Exception as error:
            if _ends_all(error, leads_on):
                raise
            failures.append((at, error))
            failure = _as_llm_error(error, candidates[at].name)
        if not leads_on(failures[-1][1]) or _time_is_over():
            break
        if failure.code is ErrorCode.LLM_CONTEXT_LENGTH:
            waiting = _larger(candidates, waiting, candidates[at].window())
        if waiting:
            _note_step(note, candidates[at].name, candidates[waiting[0]].name, failure)
    soonest = soonest_to_close([error for _, error in failures])
    if soonest is not None and len(failures) == len(candidates):
        at = failures[soonest][0]
        try:
            return at, candidates[at].ask(True)
        except LLMError as error:
            if _ends_all(error, leads_on):
                raise
            failures[soonest] = at, error
    if len(failures) == 1:
        raise failures[0][1]
    raise _all_failed(candidates, failures) from failures[-1][1]


def _try_one(candidate: Candidate[T], share: float | None, others_wait: bool) -> T:
    scope = current_scope()
    left = None if scope is None else scope.remaining()
    if share is None and others_wait and left is not None:
        share = left * SHARE
    try:
        if share is None:
            return candidate.ask(False)
        with Scope(share).entered():
            return candidate.ask(False)
    except CallInterrupted as interruption:
        if scope is not None and scope.cancelled:
            raise
        raise interruption.to_error(provider=candidate.provider, model=candidate.name) from None


def _ends_all(error: Exception, leads_on: ShouldFallback) -> bool:
    """Says whether an error is nobody's failure: a cancel, or a mistake in the program."""
    if isinstance(error, LLMError):
        return error.code is ErrorCode.LLM_CANCELLED
    return not leads_on(error)


def _time_is_over() -> bool:
    scope = current_scope()
    return scope is not None and scope.remaining() == 0.0


def _larger(
    candidates: Sequence[Candidate[Any]], waiting: list[int], window: int | None
) -> list[int]:
    """Leaves out who is known to have no larger window than the one that was too small."""
    if window is None:
        return waiting
    windows = {at: candidates[at].window() for at in waiting}
    return [at for at, size in windows.items() if size is None or size > window]


def _note_step(note: Note | None, failed: str, following: str, error: LLMError) -> None:
    # The breaker has given its warning, once; from then on each call would.
    level = logging.INFO if error.code is ErrorCode.LLM_CIRCUIT_OPEN else logging.WARNING
    get_logger("fallback").log(level, "%s failed, asking %s instead: %s", failed, following, error)
    if note is not None:
        note(failed, following, error)


def _all_failed(
    candidates: Sequence[Candidate[Any]], failures: list[tuple[int, Exception]]
) -> AllModelsFailedError:
    errors = [_as_llm_error(error, candidates[at].name) for at, error in failures]
    models = len(candidates)
    asked = f"all {models}" if len(errors) == models else f"{len(errors)} of {models}"
    return AllModelsFailedError(f"{asked} models failed:", errors=errors)


def _as_llm_error(error: Exception, model: str) -> LLMError:
    if isinstance(error, LLMError):
        return error
    code = ErrorCode.LLM_PROVIDER_ERROR
    if isinstance(error, TimeoutError):
        code = ErrorCode.LLM_TIMEOUT
    elif isinstance(error, ConnectionError):
        code = ErrorCode.LLM_CONNECTION_ERROR
    translated = LLMError.of_code(code, f"{type(error).__name__}: {error}", model=model)
    translated.__cause__ = error
    return translated
