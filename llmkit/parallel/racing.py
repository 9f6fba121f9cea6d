"""A race: several do the same, the first good result counts, and the others really stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from llmkit.breaker import soonest_to_close
from llmkit.errors import AllModelsFailedError, ErrorCode, LLMError
from llmkit.log import get_logger
from llmkit.parallel.arrivals import Arrivals
from llmkit.scope import CallInterrupted, Scope, current_scope
from llmkit.threads import TooManyThreadsError, start

__all__ = ["Racer", "race"]

T = TypeVar("T")

# Seconds for which a race whose time is over waits for the racers to say how far they got: their
# time ended in the same moment. Only what can't be cut, such as a user's own adapter, takes longer.
LAST_WORDS = 0.05


@dataclass(slots=True)
class Racer(Generic[T]):
    """One that takes part.

    Attributes:
        name: What it is called: its model.
        run: Does it, on a thread of its own, inside a Scope of its own, told False; or, after a
            race in which all circuits were open, on the caller's thread, told True: its circuit
            does not count.
        head_start: Seconds after which the next one starts, if this one has not arrived; None
            starts the next one at once.
        provider: Its model's provider, for its errors; None without one.
    """

    name: str
    run: Callable[[bool], T]
    head_start: float | None = None
    provider: str | None = None


@dataclass(slots=True)
class _Arrival(Generic[T]):
    at: int
    result: T | None = None
    error: LLMError | None = None


def race(
    racers: Sequence[Racer[T]],
    is_good: Callable[[T], bool],
    discard: Callable[[T], object] = lambda result: None,
) -> tuple[int, T]:
    """Runs a race inside the current Scope.

    Args:
        racers: At least one, the likeliest winner first.
        is_good: Whether a result wins at once. One that is not good wins only when nobody has a
            better one.
        discard: Called for each result that does not win.

    Returns:
        The winner's number, from 0, and its result. The others have been cut.

    Raises:
        AllModelsFailedError: Nobody had a result.
        LLMError: The only racer failed.
        CallInterrupted: The Scope was cancelled.
    """
    return _Race(racers, is_good, discard).run()


class _Race(Generic[T]):
    def __init__(
        self,
        racers: Sequence[Racer[T]],
        is_good: Callable[[T], bool],
        discard: Callable[[T], object],
    ) -> None:
        self._racers = racers
        self._is_good = is_good
        self._discard = discard
        self._around = current_scope() or Scope()
        self._arrivals: Arrivals[_Arrival[T]] = Arrivals()
        self._scopes: list[Scope] = []
        self._running = 0
        self._errors: dict[int, LLMError] = {}
        self._second_best: tuple[int, T] | None = None

    def run(self) -> tuple[int, T]:
        winner: int | None = None
        try:
            self._start_next()
            winner, result = self._first_good()
            return winner, result
        finally:
            for at, scope in enumerate(self._scopes):
                if at != winner:
                    scope.cancel("another model was faster")
            for rest in self._arrivals.close():
                self._forget(rest)
            if self._second_best is not None and self._second_best[0] != winner:
                self._drop(self._second_best[1])

    def _first_good(self) -> tuple[int, T]:
        good: tuple[int, T] | None = None
        while good is None and self._running:
            try:
                arrival = self._next_arrival()
            except CallInterrupted as interruption:
                if self._around.cancelled:
                    raise
                good = self._hear_last_words(interruption)
                break
            good = self._take_in(arrival)
            if good is None and self._around.remaining() != 0.0:
                self._start_next()
        good = good or self._second_best
        if good is None:
            if self._around.cancelled:  # the racers were quicker to say so
                self._around.check("waiting for the first of several models")
            good = self._ask_in_spite()
        return good

    def _ask_in_spite(self) -> tuple[int, T]:
        """Asks one in spite of its open circuit, if those of all are open."""
        at = soonest_to_close([self._errors.get(at) for at in range(len(self._racers))])
        if at is not None:
            try:
                return at, self._racers[at].run(True)
            except LLMError as error:
                self._errors[at] = error
        raise self._all_failed()

    def _next_arrival(self) -> _Arrival[T] | None:
        """Waits for a racer; returns None when the next one shall start first."""
        newest = self._racers[len(self._scopes) - 1]
        others_wait = len(self._scopes) < len(self._racers)
        return self._arrivals.next(
            self._around,
            "waiting for the first of several models",
            newest.head_start if others_wait else None,
        )

    def _take_in(self, arrival: _Arrival[T] | None) -> tuple[int, T] | None:
        """Notes what a racer brought; returns it if it wins."""
        if arrival is None:
            return None
        self._running -= 1
        if arrival.error is not None:
            self._errors[arrival.at] = arrival.error
            if not self._around.cancelled:
                self._log_failure(arrival.at, arrival.error)
        elif arrival.result is not None:
            if self._is_good(arrival.result):
                return arrival.at, arrival.result
            if self._second_best is None:
                self._second_best = arrival.at, arrival.result
            else:
                self._drop(arrival.result)
        return None

    def _log_failure(self, at: int, error: LLMError) -> None:
        # The breaker has given its warning, once; from then on each race would.
        level = logging.INFO if error.code is ErrorCode.LLM_CIRCUIT_OPEN else logging.WARNING
        get_logger("parallel").log(level, "%s failed in a race: %s", self._racers[at].name, error)

    def _hear_last_words(self, interruption: CallInterrupted) -> tuple[int, T] | None:
        """Takes in what the racers bring whose time has just ended."""
        ends = time.monotonic() + LAST_WORDS
        good: tuple[int, T] | None = None
        while good is None and self._running and (left := ends - time.monotonic()) > 0:
            good = self._take_in(self._arrivals.next(None, "", left))
        for at in range(len(self._scopes)):
            self._errors.setdefault(at, self._error_of(at, interruption))
        return good

    def _error_of(self, at: int, interruption: CallInterrupted) -> LLMError:
        racer = self._racers[at]
        return interruption.to_error(provider=racer.provider, model=racer.name)

    def _start_next(self) -> None:
        """Starts the next racer, and those that it does not get a head start on."""
        while len(self._scopes) < len(self._racers):
            at = len(self._scopes)
            scope = Scope(parent=self._around)
            self._scopes.append(scope)
            try:
                start(lambda at=at, scope=scope: self._take_part(at, scope), "race")  # type: ignore[misc]
                self._running += 1
            except TooManyThreadsError as error:
                self._errors[at] = LLMError.of_code(
                    ErrorCode.LLM_CONNECTION_ERROR, f"no thread can be had: {error}"
                )
                continue
            if self._racers[at].head_start is not None:
                return

    def _take_part(self, at: int, scope: Scope) -> None:
        arrival: _Arrival[T] = _Arrival(at)
        try:
            with scope.entered():
                scope.check("starting")  # it may be over before this thread got going
                arrival.result = self._racers[at].run(False)
        except LLMError as error:
            arrival.error = error
        except CallInterrupted as interruption:
            arrival.error = self._error_of(at, interruption)
        # Whatever else happens on this thread has to reach the caller, or it would wait for ever.
        except BaseException as error:
            get_logger("parallel").warning("%s failed: %r", self._racers[at].name, error)
            arrival.error = LLMError(
                f"{type(error).__name__}: {error}",
                provider=self._racers[at].provider,
                model=self._racers[at].name,
                retryable=False,
            )
            arrival.error.__cause__ = error
        if not self._arrivals.put(arrival):
            self._forget(arrival)
        # The error's traceback knows this frame: together they would wait for the collector.
        del arrival

    def _forget(self, arrival: _Arrival[T]) -> None:
        """Lets go of what came too late: nobody looks at a loser's error and its frames."""
        self._drop(arrival.result)
        if arrival.error is not None:
            arrival.error.__traceback__ = None

    def _drop(self, result: T | None) -> None:
        if result is not None:
            self._discard(result)

    def _all_failed(self) -> LLMError:
        errors = [self._errors[at] for at in sorted(self._errors)]
        if len(self._racers) == 1:
            return errors[0]
        return AllModelsFailedError(
            f"all {len(errors)} models failed:"
            if len(errors) == len(self._racers)
            else f"{len(errors)} of {len(self._racers)} models were asked, and failed:",
            errors=errors,
        )
