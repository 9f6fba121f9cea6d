"""Counting tries and failures over the last seconds."""

from __future__ import annotations

__all__ = ["SlidingWindow"]

# Into how many parts a window is cut; it moves on by one of them at a time.
SLOTS = 10


class SlidingWindow:
    """Counts the tries of the last seconds, at a constant cost: slot by slot, not one by one.

    Args:
        length: The seconds.

    Attributes:
        tries: How many there were, by the last `add` or `move_to`.
        failures: How many of them failed.
    """

    __slots__ = ("_failures", "_slot", "_tries", "_width", "failures", "length", "tries")

    def __init__(self, length: float) -> None:
        self.length = length
        self._width = length / SLOTS
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._tries = [0] * SLOTS
        self._failures = [0] * SLOTS
        self._slot = -SLOTS  # the newest one, counted from the clock's zero
        self.tries = 0
        self.failures = 0

    def move_to(self, now: float) -> None:
        """Leaves out what has become too old.

        Args:
            now: Seconds by the breaker's clock.
        """
        newest = int(now // self._width)
        for slot in range(max(self._slot, newest - SLOTS) + 1, newest + 1):
            place = slot % SLOTS
            self.tries -= self._tries[place]
            self.failures -= self._failures[place]
            self._tries[place] = self._failures[place] = 0
        self._slot = max(self._slot, newest)

    def add(self, now: float, good: bool) -> None:
        """Counts a try.

        Args:
            now: When it ended, in seconds by the breaker's clock.
            good: Whether it was no failure of the provider.
        """
        self.move_to(now)
        place = self._slot % SLOTS
        self._tries[place] += 1
        self.tries += 1
        if not good:
            self._failures[place] += 1
            self.failures += 1
