"""Flights: concurrent calls of one process for the same thing share one.

The first that asks leads, the others wait, each as long as its own Scope lasts. What the leader
returns is everyone's. When it fails, an error that lies in the request itself is everyone's, too;
after any other the waiters elect a new leader among themselves, because a cancel, a time-out, a
missing key or a full budget is the leader's own affair.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Generic, TypeVar

from llmkit.errors import ErrorCode, LLMError
from llmkit.process_local import ProcessLocal
from llmkit.scope import CallInterrupted, Scope, current_scope
from llmkit.threads import Flag

__all__ = ["SHARED_CODES", "Flights", "wait_in_scope"]

T = TypeVar("T")

SHARED_CODES: Final = frozenset(
    {ErrorCode.INVALID_REQUEST, ErrorCode.LLM_CONTEXT_LENGTH, ErrorCode.LLM_CONTENT_FILTER}
)
"""Errors that everyone gets who asks the same; all others may concern the leader alone."""

# After so many failed leaders each asks by itself: when a provider is down, sixty-four calls that
# wait for each other's failures would take sixty-four times as long as one.
_FAILURES_WATCHED = 2

_DOING = "waiting for another call's answer to the same question"


def wait_in_scope(flag: Flag, doing: str, timeout: float | None = None) -> bool:
    """Waits for a flag inside the current Scope, or outside of any.

    Args:
        flag: The flag.
        doing: What is being waited for, for the error's message.
        timeout: Seconds to wait at most; None as long as the Scope lasts.

    Returns:
        Whether the flag was raised in time.

    Raises:
        CallInterrupted: The Scope around it was cancelled, or its time ended first.
        LLMError: There is no Scope around it, and `cancel_all` ended the wait.
    """
    scope = current_scope()
    if scope is not None:
        return scope.wait(flag, doing, timeout)
    try:
        with Scope().entered() as own:
            return own.wait(flag, doing, timeout)
    except CallInterrupted as interrupted:
        raise interrupted.to_error() from None


class _Flight(Generic[T]):
    """What is done for all who ask the same: who leads, who waits, and how it ended."""

    __slots__ = ("error", "failures", "leader", "result", "waiters", "waits_for")

    def __init__(self, leader: Flag) -> None:
        self.leader = leader
        self.waiters: dict[Flag, None] = {}  # in the order in which they came
        self.failures = 0
        self.result: tuple[T] | None = None
        self.error: LLMError | None = None
        # The flights that something inside of this one waits for.
        self.waits_for: dict[Flag, _Flight[T]] = {}


# The flights that the running code is inside of; threads that it starts inherit them.
_inside: ContextVar[tuple[_Flight[object], ...]] = ContextVar("llmkit_flights", default=())

# One for all Flights, so that what waits for what can be followed from one to the other.
# Reentrant: a signal handler may make a call while its own thread holds the lock.
_lock: ProcessLocal[threading.RLock] = ProcessLocal(threading.RLock)


class Flights(Generic[T]):
    """Concurrent calls for the same key share one. Safe for threads, signals and forks."""

    def __init__(self) -> None:
        self._flights: ProcessLocal[dict[str, _Flight[T]]] = ProcessLocal(dict)

    def __len__(self) -> int:
        """The flights under way."""
        return len(self._flights.get())

    def join(self, key: str, lead: Callable[[], T]) -> T:
        """Does something, unless it is being done: then waits for it.

        Args:
            key: What tells it from other things.
            lead: Does it. A call for the same key inside of it does it by itself.

        Returns:
            What `lead` returned, here or in the call that was waited for: one object for all.

        Raises:
            CallInterrupted: The Scope ended the wait.
            BaseException: What `lead` raised; also what it raised elsewhere, as a copy, when the
                code is one of `SHARED_CODES`.
        """
        flag = Flag()
        with _Part(self, key, flag):
            flight = self._board(key, flag)
            if flight is not None:
                if flight.leader is not flag:
                    wait_in_scope(flag, _DOING)
                with _lock.get():
                    leads = flight.leader is flag  # from the start, or as another's heir
                if leads:
                    return _lead(flight, lead)
        if flight is not None and flight.result is not None:
            return flight.result[0]
        if flight is not None and flight.error is not None:
            raise _copy_of(flight.error) from flight.error.__cause__
        return lead()

    def _board(self, key: str, flag: Flag) -> _Flight[T] | None:
        """Starts a flight, or waits for the one there is; None when that would wait for itself."""
        inside = _inside.get()
        with _lock.get():
            flights = self._flights.get()
            flight = flights.get(key)
            if flight is None:
                flight = flights[key] = _Flight(flag)
                return flight
            if _waits_for_any(flight, inside):
                return None
            flight.waiters[flag] = None
            for outer in inside:
                outer.waits_for[flag] = flight  # type: ignore[assignment]  # of any kind
            return flight

    def _end(self, key: str, flag: Flag) -> None:
        """Ends the part that somebody has in a flight; can be repeated."""
        flights = self._flights.get()
        with _lock.get():
            for outer in _inside.get():
                outer.waits_for.pop(flag, None)
            flight = flights.get(key)
            if flight is None:
                return
            flight.waiters.pop(flag, None)
            if flight.leader is not flag:
                return
            failed = flight.result is None and flight.error is None
            if failed and flight.waiters and flight.failures + 1 < _FAILURES_WATCHED:
                heir = next(iter(flight.waiters))
                heir.set()
                flight.failures, flight.leader = flight.failures + 1, heir
                return
            for waiter in flight.waiters:
                waiter.set()
            del flights[key]


class _Part:
    """The part that somebody has in a flight.

    It ends wherever Ctrl-C comes: a flight that nobody leads would hold up all later calls. Where
    that is the very beginning of `__exit__`, only the error's traceback still holds it.
    """

    __slots__ = ("_flag", "_flights", "_key")

    def __init__(self, flights: Flights[Any], key: str, flag: Flag) -> None:
        self._key = key
        self._flag = flag
        self._flights: Flights[Any] | None = flights

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        flights = self._flights
        if flights is None:
            return
        try:
            flights._end(self._key, self._flag)
        except BaseException:  # Ctrl-C in here
            flights._end(self._key, self._flag)
            raise
        finally:
            self._flights = None

    def __del__(self) -> None:
        if getattr(self, "_flights", None) is not None:  # else it has ended, or was never made
            self.__exit__()


def _lead(flight: _Flight[T], lead: Callable[[], T]) -> T:
    outer = _inside.set((*_inside.get(), flight))  # type: ignore[arg-type]  # of any kind
    try:
        result = lead()
        flight.result = (result,)
        return result
    except LLMError as error:
        if error.code in SHARED_CODES:
            flight.error = _copy_of(error)
        raise
    finally:
        _inside.reset(outer)


def _waits_for_any(flight: _Flight[T], inside: tuple[_Flight[object], ...]) -> bool:
    """Whether a flight is one of those, or can't end before one of them does."""
    seen: set[int] = set()
    ahead = [flight] if inside else []
    while ahead:
        next_one = ahead.pop()
        if any(next_one is each for each in inside):
            return True
        if id(next_one) not in seen:
            seen.add(id(next_one))
            ahead.extend(next_one.waits_for.values())
    return False


def _copy_of(error: LLMError) -> LLMError:
    """A copy without the attempts, which were not those of whom it is raised to."""
    twin = copy.copy(error)
    twin.__cause__ = error.__cause__
    twin.attempts = ()
    return twin
