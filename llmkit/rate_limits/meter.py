"""Meter: how much of a minute's allowance may be used now, and when more of it.

Two rules hold together:

- The pace, a bucket that refills evenly. It holds a sixth of a minute's worth, so that a few calls
  side by side needn't wait, but a vendor that looks at single seconds doesn't see a whole minute's
  worth in one of them.
- The window: what was used in the last 60 s is never more than a minute's worth. The bucket alone
  would let a minute begin with a full bucket and end 17 % above the limit, or more after a large
  request; a slower bucket that can't would waste as much for good.
"""

from __future__ import annotations

__all__ = ["Meter"]

# Seconds; slots of one second, and one more because the newest and the oldest are parts.
WINDOW = 60
SLOTS = WINDOW + 1

BURST_SHARE = 1 / 6

# Seconds: what is due so soon is due now. Else rounding could have a waiter wake a moment early,
# again and again.
_SOON = 1e-6


class Meter:
    """Counts one kind of thing, requests or tokens. Whoever uses it holds a lock.

    Args:
        per_minute: The allowance.
        now: Seconds on a clock that never runs backwards, as for all methods.
    """

    __slots__ = ("_burst", "_level", "_now", "_per_minute", "_rate", "_second", "_slots", "_used")

    def __init__(self, per_minute: float, now: float) -> None:
        self._per_minute = per_minute
        self._rate = per_minute / 60
        self._burst = max(1.0, per_minute * BURST_SHARE)
        self._level = self._burst  # below 0: a debt
        self._now = now
        # Whole numbers, so that what was added is taken away again without a rest.
        self._slots = [0] * SLOTS
        self._second = int(now // 1)
        self._used = 0

    def move_to(self, now: float) -> None:
        """Lets time pass."""
        if now <= self._now:
            return
        self._level = min(self._burst, self._level + (now - self._now) * self._rate)
        self._now = now
        second = int(now // 1)
        if second != self._second:
            for old in range(max(self._second, second - SLOTS) + 1, second + 1):
                self._used -= self._slots[old % SLOTS]
                self._slots[old % SLOTS] = 0
            self._second = second

    def delay(self, amount: int, *, ahead: int = 0, coming: int = 0) -> float:
        """Returns the seconds until an amount may be used; 0.0 when it may be now.

        What is larger than the bucket may be used when the bucket is full, and leaves a debt; what
        is larger than a minute's worth, when the last minute's is none.

        Args:
            amount: How much.
            ahead: How much others will use first.
            coming: How much others may still give back.
        """
        short = ahead + min(amount, self._burst) - self._level - coming
        delay = max(short / self._rate, self._until_room(ahead + amount, coming))
        return delay if delay > _SOON else 0.0

    def take(self, amount: int) -> int:
        """Uses an amount.

        Returns:
            When that was, for `give_back`.
        """
        self._level -= amount
        self._slots[self._second % SLOTS] += amount
        self._used += amount
        return self._second

    def give_back(self, amount: int, taken_at: int) -> None:
        """Takes back a part of what was used; a negative amount uses more.

        Args:
            amount: How much.
            taken_at: When it was taken.
        """
        self._level = min(self._burst, self._level + amount)
        if taken_at > self._second - SLOTS:
            self._slots[taken_at % SLOTS] -= amount
            self._used -= amount

    def lower(self, left: float, wait: float) -> None:
        """Obeys the vendor where it says that there is less left.

        Args:
            left: What it says is left.
            wait: Seconds until it has one more, where it has none left.
        """
        self._level = min(self._level, left)
        if left < 1.0:
            self._level = min(self._level, 1.0 - min(wait, WINDOW) * self._rate)

    def _until_room(self, amount: int, coming: int) -> float:
        """Returns the seconds until the window has room for an amount."""
        excess = self._used - coming - max(0.0, self._per_minute - amount)
        if excess <= 0:
            return 0.0
        for second in range(self._second - WINDOW, self._second + 1):
            excess -= self._slots[second % SLOTS]
            if excess <= 0:
                return second + SLOTS - self._now
        return 0.0  # more is coming back than was used
