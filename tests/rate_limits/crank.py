"""A clock that a test turns by hand, while threads wait on it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from llmkit.rate_limits.limiter import wait_in_scope
from llmkit.threads import Flag

__all__ = ["Crank", "eventually"]

PATIENCE = 10.0


class Crank:
    """Time that passes when it is told to; `wait` is for a Limiter."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._lock = threading.Lock()
        self._waiting: dict[Flag, float | None] = {}

    def __call__(self) -> float:
        return self.now

    def wait(self, flag: Flag, doing: str, timeout: float | None) -> None:
        """Waits for a flag, or until the time is there; inside the Scope, by the real clock."""
        with self._lock:
            self._waiting[flag] = None if timeout is None else self.now + timeout
        try:
            wait_in_scope(flag, doing, PATIENCE)
            if not flag.is_set():
                raise TimeoutError("nobody called the waiter, and no test turned the clock")
        finally:
            with self._lock:
                del self._waiting[flag]

    @property
    def waiting(self) -> int:
        """How many threads wait."""
        return len(self._waiting)

    @property
    def idle(self) -> int:
        """How many threads wait and have not been called yet."""
        with self._lock:
            return sum(not flag.is_set() for flag in self._waiting)

    def next_due(self) -> float | None:
        """Returns when the next waiter's time is there."""
        with self._lock:
            return min((due for due in self._waiting.values() if due is not None), default=None)

    def turn_to(self, now: float) -> None:
        """Lets time pass."""
        with self._lock:
            self.now = now
            due = [
                flag for flag, until in self._waiting.items() if until is not None and until <= now
            ]
        for flag in due:
            flag.set()

    def turn(self, seconds: float) -> None:
        """Lets time pass."""
        self.turn_to(self.now + seconds)


def eventually(condition: Callable[[], bool]) -> None:
    """Waits until something is so, which other threads are about to bring about."""
    ends = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > ends:
            raise TimeoutError("it does not come about")
        time.sleep(0.0005)
