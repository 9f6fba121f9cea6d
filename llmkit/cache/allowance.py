"""Allowance: the time that a call may spend on shared caches."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Allowance"]


class Allowance:
    """The seconds that all work on shared caches may cost one call together.

    Every operation on a cache outside this process takes its time from here; when nothing is left,
    such caches are skipped.

    Args:
        seconds: How many.
        clock: Seconds that never run backwards.
    """

    __slots__ = ("_left", "clock")

    def __init__(self, seconds: float = 0.25, clock: Callable[[], float] = time.monotonic) -> None:
        self._left = seconds
        self.clock = clock

    def left(self) -> float:
        """Returns the seconds that are left; 0.0 when none are."""
        return self._left

    def spend(self, seconds: float) -> None:
        """Takes the time that an operation took.

        Args:
            seconds: How long; more than is left leaves none.
        """
        self._left = max(0.0, self._left - seconds)
