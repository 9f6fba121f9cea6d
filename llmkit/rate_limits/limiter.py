"""Limiter: has calls wait for their turn under a rate limit, first come first served.

No thread does the waking: the first in line waits for its own time, and whoever leaves the line
wakes the next one. No lock is held meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from llmkit.errors import RateLimitError
from llmkit.log import get_logger
from llmkit.rate_limits.headers import Left, read_headers
from llmkit.rate_limits.limit import RateLimit
from llmkit.rate_limits.meter import Meter
from llmkit.scope import current_scope
from llmkit.threads import Flag

__all__ = ["Limiter", "LimiterChain", "Place"]

Wait = Callable[[Flag, str, float | None], object]


def wait_in_scope(flag: Flag, doing: str, timeout: float | None) -> None:
    """Waits for a flag, inside the current Scope where there is one."""
    scope = current_scope()
    if scope is None:
        flag.wait(timeout)
    else:
        scope.wait(flag, doing, timeout)


class _Booking:
    """One call's turn with one limiter: in its line, then in its books."""

    __slots__ = ("charged", "delay", "flag", "settled", "taken_at", "tokens")

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.charged = tokens
        self.flag: Flag | None = None  # until it has to wait
        self.delay: float | None = None  # seconds to wait; None until it is called
        self.taken_at: int | None = None
        self.settled = False


class Place:
    """Leave for one request and some tokens; `with` waits for it.

    A block that ends by an exception gives the tokens back (the request was made), unless `used`
    has said something else. One that ends without any word from `used` keeps them as used: for a
    stream, `used` may say it later.
    """

    __slots__ = ("_bookings", "_limiters", "_told", "granted", "tokens")

    def __init__(self, limiters: Sequence[Limiter], tokens: int) -> None:
        self.tokens = max(0, int(tokens))
        # Whether the wait is over: before, nothing was sent, however the block ended.
        self.granted = False
        self._limiters = limiters
        self._bookings: list[_Booking] = []
        self._told = False

    def __enter__(self) -> Place:
        """Waits.

        Raises:
            RateLimitError: The wait would certainly end after the Scope's deadline.
            CallInterrupted: The Scope was cancelled, or its time ended.
        """
        try:
            for limiter in self._limiters:
                booking = _Booking(self.tokens)
                self._bookings.append(booking)
                limiter._book(booking)
        except BaseException:  # Ctrl-C, too: nobody else gives back what is booked
            for limiter, booking in zip(self._limiters, self._bookings, strict=False):
                limiter._undo(booking)
            raise
        self.granted = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._settle(None if error is None or self._told else 0)

    def used(self, tokens: int | None) -> None:
        """Says what the call really used: the rest is given back, or what is missing is taken.

        Args:
            tokens: Sent and received; None when nobody knows, which keeps what was asked for.
        """
        self._told = True
        self._settle(self.tokens if tokens is None else max(0, int(tokens)))

    def _settle(self, tokens: int | None) -> None:
        for limiter, booking in zip(self._limiters, self._bookings, strict=False):
            limiter._settle(booking, booking.charged if tokens is None else tokens)


class Limiter:
    """One rate limit's books, and the line of calls that wait.

    Args:
        limit: What is allowed.
        name: Whose limit it is, for messages.
        clock: Seconds that never run backwards.
        wall_clock: Seconds since the epoch, which vendors' headers name points of.
        wait: Waits for a flag; given the flag, what is being done, and seconds or None.
    """

    def __init__(
        self,
        limit: RateLimit,
        name: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        wait: Wait = wait_in_scope,
    ) -> None:
        self.limit = limit
        self.name = name
        self._clock = clock
        self._wall_clock = wall_clock
        self._wait = wait
        now = clock()
        requests, tokens = limit.requests_per_minute, limit.tokens_per_minute
        self._requests = None if requests is None else Meter(requests, now)
        self._tokens = None if tokens is None else Meter(tokens, now)
        # Reentrant: a signal handler may make a call, and the garbage collector may end a stream.
        self._lock = threading.RLock()
        self._line: deque[_Booking] = deque()
        self._unsettled = 0  # tokens of calls under way, which may give some of them back

    def __repr__(self) -> str:
        return f"Limiter({self.name}, {self.limit}, waiting={self.waiting})"

    @property
    def waiting(self) -> int:
        """How many calls are in line."""
        return len(self._line)

    def place(self, tokens: int = 0) -> Place:
        """Makes a place for one request; entering it waits until there is room.

        Args:
            tokens: How many the call may use, sent and received. More than fits at once is let
                through when nothing else was used for long enough, and what follows waits longer.
        """
        return Place((self,), tokens)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Obeys what the vendor says is left, where that is less than is left here.

        Args:
            headers: A reply's, by their names in lower case.
        """
        requests, tokens = read_headers(headers, self._wall_clock())
        if requests is None and tokens is None:
            return
        with self._lock:
            self._move()
            _lower(self._requests, requests)
            _lower(self._tokens, tokens)

    def _book(self, booking: _Booking) -> None:
        """Waits for a booking's turn and enters it in the books."""
        with self._lock:
            self._move()
            if not self._line and self._delay(booking) <= 0.0:
                self._take(booking)
                return
        doing = f"waiting for llmkit's own limit of {self.limit} for {self.name}"
        try:  # from here on: a booking that Ctrl-C left in line would hold up all others for good
            with self._lock:
                self._move()
                self._refuse_if_hopeless(booking, ahead=len(self._line))
                self._line.append(booking)
            get_logger("rate_limits").debug(doing)
            while (turn := self._try_to_take(booking)) is not None:
                self._wait(turn, doing, booking.delay)
        finally:
            self._leave(booking)

    def _try_to_take(self, booking: _Booking) -> Flag | None:
        """Takes what a booking needs if it is its turn and there is room.

        Returns:
            None when it is taken; else what to wait for, `booking.delay` seconds at most.
        """
        with self._lock:
            booking.flag = turn = Flag()  # what happens from here on can't be missed
            booking.delay = None
            if self._line[0] is booking:
                self._move()
                booking.delay = self._delay(booking)
                if booking.delay <= 0.0:
                    self._take(booking)
                    return None
                self._refuse_if_hopeless(booking, ahead=0)
            return turn

    def _leave(self, booking: _Booking) -> None:
        with self._lock:
            if booking in self._line:
                self._line.remove(booking)
                self._call_first()

    def _call_first(self) -> None:
        flag = self._line[0].flag if self._line else None
        if flag is not None:  # else it has yet to look for itself
            flag.set()

    def _move(self) -> None:
        now = self._clock()
        for meter in (self._requests, self._tokens):
            if meter is not None:
                meter.move_to(now)

    def _delay(self, booking: _Booking) -> float:
        requests = 0.0 if self._requests is None else self._requests.delay(1)
        tokens = 0.0 if self._tokens is None else self._tokens.delay(booking.tokens)
        return max(requests, tokens)

    def _take(self, booking: _Booking) -> None:
        meters = [meter for meter in (self._requests, self._tokens) if meter is not None]
        for meter in meters:
            booking.taken_at = meter.take(1 if meter is self._requests else booking.tokens)
        self._unsettled += booking.tokens

    def _settle(self, booking: _Booking, tokens: int) -> None:
        with self._lock:
            if booking.taken_at is None:
                return
            if not booking.settled:
                booking.settled = True
                self._unsettled -= booking.tokens
            if self._tokens is not None and tokens != booking.charged:
                self._move()
                self._tokens.give_back(booking.charged - tokens, booking.taken_at)
                self._call_first()
            booking.charged = tokens

    def _undo(self, booking: _Booking) -> None:
        """Takes a booking back whole: nothing was sent."""
        with self._lock:
            if booking.taken_at is not None:
                self._settle(booking, 0)
                if self._requests is not None:
                    self._requests.give_back(1, booking.taken_at)
                    self._call_first()
                booking.taken_at = None

    def _refuse_if_hopeless(self, booking: _Booking, ahead: int) -> None:
        """Fails a call at once that could only fail later.

        What is certain: those ahead make a request each. Of their tokens, and of those of calls
        under way, all may come back.

        Raises:
            RateLimitError: The Scope ends before there can be room.
        """
        scope = current_scope()
        left = None if scope is None else scope.remaining()
        if left is None:
            return
        at_least = 0.0
        if self._requests is not None:
            at_least = self._requests.delay(1, ahead=ahead)
        if self._tokens is not None:
            delay = self._tokens.delay(booking.tokens, coming=self._unsettled)
            at_least = max(at_least, delay)
        if at_least > left:
            raise RateLimitError(
                f"llmkit's own limit of {self.limit} for {self.name} has no room for another "
                f"{at_least:.1f} s, and the call has {left:.1f} s left; nothing was sent. It is "
                "not tried again: raise rate_limits=, give the call more time, or name fallbacks",
                retry_after=at_least,
            )


class LimiterChain:
    """Several limits that hold together, such as a model's and its provider's.

    Args:
        limiters: The narrowest first: calls wait in its line, and only its first one in the next.
    """

    def __init__(self, limiters: Sequence[Limiter]) -> None:
        self.limiters = tuple(limiters)

    def __repr__(self) -> str:
        return f"LimiterChain({', '.join(map(repr, self.limiters))})"

    @property
    def waiting(self) -> int:
        """How many calls are in the lines."""
        return sum(limiter.waiting for limiter in self.limiters)

    def place(self, tokens: int = 0) -> Place:
        """Makes a place under each of the limits; see `Limiter.place`."""
        return Place(self.limiters, tokens)

    def learn(self, headers: Mapping[str, str]) -> None:
        """Tells the narrowest limiter, whose model the headers are about; see `Limiter.learn`."""
        self.limiters[0].learn(headers)


def _lower(meter: Meter | None, left: Left | None) -> None:
    if meter is not None and left is not None:
        meter.lower(left.amount, left.wait)
