"""Circuit breakers: a model that fails again and again is left alone for a while.

One for each provider, model and address. While most of its tries fail, a breaker is open: calls
fail at once, or fall back at no cost, and the provider gets room to recover. After a cool-down it
is half open: one try, the probe, finds out whether the model answers again.

A breaker has its lock for the moment of counting only, never while a call is under way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from llmkit.breaker.sliding_window import SlidingWindow
from llmkit.errors import CircuitOpenError, ErrorCode, InvalidRequestError, LLMError
from llmkit.log import brief, get_logger
from llmkit.process_local import ProcessLocal

__all__ = [
    "FAILURE_CODES",
    "CircuitBreaker",
    "Permit",
    "breaker_for",
    "counts",
    "reset_breakers",
    "soonest_to_close",
]

State = Literal["closed", "open", "half_open"]

# What says that the provider is not well. The rest is the request's, the key's or the account's
# own fault, and would be the same with a provider in the best of health.
FAILURE_CODES = frozenset(
    {
        ErrorCode.LLM_TIMEOUT,
        ErrorCode.LLM_CONNECTION_ERROR,
        ErrorCode.LLM_PROVIDER_ERROR,
        ErrorCode.LLM_RATE_LIMIT,
    }
)

# Breakers that a process keeps; model names may come from a program's own users.
MAX_BREAKERS = 1024


def counts(code: ErrorCode | None) -> bool:
    """Says whether what a try ended with counts as a failure of the provider.

    Args:
        code: The error's code; None when there was no error.
    """
    return code in FAILURE_CODES


class Permit:
    """Leave to make one try; how that ended is told to it once, later words don't count.

    One that is never told anything does no harm: a probe's place is free again after a cool-down.
    `CircuitBreaker.enter` makes it.

    Args:
        breaker: Whom it tells.
        epoch: How often the breaker had opened or closed when the try began.
        kind: Why the try may be made: a "call" through a closed breaker, a "probe" of an open one,
            or "forced".
    """

    __slots__ = ("_breaker", "_epoch", "_kind", "_settled")

    def __init__(self, breaker: CircuitBreaker, epoch: int, kind: _Kind) -> None:
        self._breaker = breaker
        self._epoch = epoch
        self._kind = kind
        self._settled = False

    def succeeded(self) -> None:
        """The model answered."""
        self._breaker._settle(self, True)

    def failed(self) -> None:
        """The provider failed."""
        self._breaker._settle(self, False)

    def dropped(self) -> None:
        """The try says nothing of the provider: it was cancelled, or failed by its own fault."""
        self._breaker._settle(self, None)

    def ended(self, code: ErrorCode | None) -> None:
        """Tells by the error's code how the try ended.

        Args:
            code: The code; None when there was no error.
        """
        if code is None:
            self.succeeded()
        elif counts(code):
            self.failed()
        else:
            self.dropped()


# A try while the breaker is closed, the one that finds out, or one that is made all the same.
_Kind = Literal["call", "probe", "forced"]


class CircuitBreaker:
    """Watches one model's tries.

    Args:
        failure_share: It opens when this part of the tries of a window failed, from 0 to 1.
        min_calls: Tries of a window below which it never opens.
        window: Seconds back from now of which the tries count.
        cool_down: Seconds from opening to the first probe; they double with each probe that fails.
        longest_cool_down: Seconds that they double to at most.
        provider: Whose model it is, for the error; None when it is nobody's.
        model: The model, likewise.
        clock: Seconds that never run backwards.

    Raises:
        InvalidRequestError: A number can't be meant.
    """

    def __init__(
        self,
        failure_share: float = 0.5,
        min_calls: int = 10,
        window: float = 30.0,
        cool_down: float = 5.0,
        *,
        longest_cool_down: float = 60.0,
        provider: str | None = None,
        model: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not 0 < failure_share <= 1:
            raise InvalidRequestError(
                f"failure_share={brief(failure_share)}: expected a number above 0, at most 1"
            )
        for name, number in (
            ("min_calls", min_calls),
            ("window", window),
            ("cool_down", cool_down),
            ("longest_cool_down", longest_cool_down),
        ):
            if not 0 < number < float("inf"):
                raise InvalidRequestError(f"{name}={brief(number)}: expected a positive number")
        self.provider = provider
        self.model = model
        self._failure_share = failure_share
        self._min_calls = min_calls
        self._window = SlidingWindow(window)
        self._first_cool_down = cool_down
        self._longest_cool_down = max(cool_down, longest_cool_down)
        self._cool_down = cool_down
        self._clock = clock
        # Reentrant: a signal handler may make a call.
        self._lock = threading.RLock()
        self._epoch = 0  # goes up whenever it opens or closes
        self._half_opens_at: float | None = None  # None while it is closed
        self._opened_for = ""
        self._probe: Permit | None = None
        self._probe_expires = 0.0

    def __repr__(self) -> str:
        return f"CircuitBreaker({self.provider}:{self.model}, {self.state})"

    @property
    def state(self) -> State:
        """Whether it lets every try through, none, or one that finds out."""
        half_opens_at = self._half_opens_at
        if half_opens_at is None:
            return "closed"
        return "open" if self._clock() < half_opens_at else "half_open"

    def refusal(self, after: float = 0.0) -> str | None:
        """Says why no try will be let through for a while; None when one may be.

        Args:
            after: Seconds from now of which it is asked.
        """
        with self._lock:
            if self._half_opens_at is None:
                return None
            left = self._half_opens_at - self._clock()
            return self._refusal(left, probed=False).message if left > after else None

    def enter(self, *, force: bool = False) -> Permit:
        """Asks for leave to make a try. Whoever gets it tells the permit how the try ended.

        Args:
            force: Whether the try is to be made in any case, as when nothing else is left to ask.
                Its success closes the breaker; its failure changes nothing, unless it was the time
                for a probe.

        Returns:
            The permit.

        Raises:
            CircuitOpenError: The breaker is open, or another try is finding out; `retry_after` is
                the time left.
        """
        if self._half_opens_at is None:
            return Permit(self, self._epoch, "call")
        with self._lock:
            if self._half_opens_at is None:  # closed just now
                return Permit(self, self._epoch, "call")
            now = self._clock()
            left = self._time_left(now)
            if left <= 0.0:
                self._probe = Permit(self, self._epoch, "probe")
                self._probe_expires = now + self._cool_down
                return self._probe
            if force:
                return Permit(self, self._epoch, "forced")
            refusal = self._refusal(left, probed=now >= self._half_opens_at)
        raise refusal

    def figures(self) -> dict[str, Any]:
        """Returns `state`, `opens_in` (seconds), and the window's `tries` and `failures`."""
        with self._lock:
            now = self._clock()
            self._window.move_to(now)
            return {
                "state": self.state,
                "opens_in": self._time_left(now),
                "tries": self._window.tries,
                "failures": self._window.failures,
            }

    def _time_left(self, now: float) -> float:
        if self._half_opens_at is None:
            return 0.0
        ends = self._half_opens_at if self._probe is None else self._probe_expires
        return max(0.0, ends - now)

    def _refusal(self, left: float, *, probed: bool) -> CircuitOpenError:
        if probed:
            when = f"one try is finding out whether it answers again; {left:.1f} s on, another may"
        else:
            when = f"it is not asked for another {left:.1f} s"
        return CircuitOpenError(
            f"{self._opened_for}, so {when}; meanwhile only other models can answer: fallbacks=, "
            "or a race",
            provider=self.provider,
            model=self.model,
            retry_after=left,
        )

    def _settle(self, permit: Permit, good: bool | None) -> None:
        with self._lock:
            if permit._settled:
                return
            permit._settled = True
            if permit is self._probe:
                self._probe = None
            before = self._epoch
            if good is None:
                return
            if self._half_opens_at is not None:
                self._judge(permit, good)
            # What began before it opened or closed tells of another time.
            elif permit._epoch == self._epoch:
                self._count(good)
            changed, opened_for = self._epoch != before, self._opened_for
        if changed:
            self._report(opened_for)

    def _judge(self, permit: Permit, good: bool) -> None:
        """Looks at a try that ended while the breaker was open."""
        if permit._kind == "call":
            return
        if good:
            self._half_opens_at = None
            self._opened_for = ""
            self._cool_down = self._first_cool_down
            self._window.clear()
            self._epoch += 1
        elif permit._kind == "probe" and permit._epoch == self._epoch:
            self._cool_down = min(2 * self._cool_down, self._longest_cool_down)
            self._open()

    def _count(self, good: bool) -> None:
        window = self._window
        window.add(self._clock(), good)
        if (
            not good
            and window.tries >= self._min_calls
            and window.failures >= self._failure_share * window.tries
        ):
            self._opened_for = (
                f"{window.failures} of its {window.tries} tries of the last "
                f"{window.length:g} s failed"
            )
            self._open()

    def _open(self) -> None:
        self._half_opens_at = self._clock() + self._cool_down
        self._probe = None
        self._epoch += 1

    def _report(self, opened_for: str) -> None:
        log, name = get_logger("breaker"), f"{self.provider}:{self.model}"
        if opened_for:
            log.warning("%s: %s; not asked for %.1f s", name, opened_for, self._cool_down)
        else:
            log.info("%s answers again", name)


_Address = tuple[str, str, str | None]
_breakers: ProcessLocal[dict[_Address, CircuitBreaker]] = ProcessLocal(dict)


def breaker_for(provider: str, model: str, address: str | None = None) -> CircuitBreaker:
    """Returns the breaker that all calls of this process to a model share.

    Args:
        provider: The model's provider.
        model: Its bare name.
        address: The base URL it is asked at; None for the provider's own.
    """
    breakers = _breakers.get()
    key = (provider, model, address)
    breaker = breakers.get(key)
    if breaker is None:
        if len(breakers) >= MAX_BREAKERS:
            _make_room(breakers)
        # setdefault: threads that come here together all get the same one.
        breaker = breakers.setdefault(key, CircuitBreaker(provider=provider, model=model))
    return breaker


def soonest_to_close(errors: Sequence[BaseException | None]) -> int | None:
    """Finds whom to ask where nobody may be asked: better one try than none.

    Args:
        errors: What each of several models failed of; None for one that did not fail.

    Returns:
        The number, from 0, of the one whose circuit closes first; None unless there are several
        and the circuits of all are open.
    """
    waits = [
        error.retry_after or 0.0
        for error in errors
        if isinstance(error, LLMError) and error.code is ErrorCode.LLM_CIRCUIT_OPEN
    ]
    if len(errors) < 2 or len(waits) < len(errors):
        return None
    return waits.index(min(waits))


def reset_breakers() -> None:
    """Forgets all breakers of this process, as between two tests."""
    _breakers.close()


def _make_room(breakers: dict[_Address, CircuitBreaker]) -> None:
    """Forgets the oldest breaker, of those that are closed if there are any."""
    entries = tuple(breakers.items())
    closed = (key for key, breaker in entries if breaker.state == "closed")
    breakers.pop(next(closed, entries[0][0]), None)
