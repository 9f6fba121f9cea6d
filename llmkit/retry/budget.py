"""The retry budget: keeps retries a small share of the calls while a provider is down.

Four tries for each call would be four times the traffic, just when the provider has least room
for it. So each call pays a part of a retry into its provider's bucket, and each retry takes a
whole one out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from llmkit.errors import InvalidRequestError
from llmkit.log import brief
from llmkit.process_local import ProcessLocal

__all__ = ["RetryBudget", "reset_retry_budgets", "retry_budget"]


class RetryBudget:
    """A bucket of tokens, of which each retry takes one.

    Args:
        share: Tokens that each call's first try puts in: how many retries there are for each call,
            in the long run.
        reserve: Tokens at the start. Time alone fills the bucket up to here, too.
        per_second: Tokens that time puts in, where calls put in less: they let a program that
            calls rarely try again as often as it may.
        most: Tokens that the bucket holds; None for five times the reserve. It bounds the retries
            that a busy program makes at once when its provider goes down.
        clock: Seconds that never run backwards.

    Raises:
        InvalidRequestError: A number is negative or not a number.
    """

    __slots__ = (
        "_clock",
        "_lock",
        "_most",
        "_per_second",
        "_reserve",
        "_share",
        "_since",
        "_tokens",
    )

    def __init__(
        self,
        share: float = 0.2,
        reserve: float = 10.0,
        per_second: float = 1.0,
        *,
        most: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        numbers = {"share": share, "reserve": reserve, "per_second": per_second}
        for name, number in (numbers if most is None else {**numbers, "most": most}).items():
            if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
                raise InvalidRequestError(f"{name}={brief(number)}: expected a number, 0 or more")
        self._share = share
        self._reserve = reserve
        self._per_second = per_second
        self._most = max(reserve, 5 * reserve if most is None else most)
        self._clock = clock
        self._tokens = float(reserve)
        self._since = clock()  # the last deposit
        # Reentrant: a signal handler may make a call.
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"RetryBudget(available={self.available:.1f})"

    @property
    def available(self) -> float:
        """How many tokens there are now."""
        with self._lock:
            return self._with(self._brought(self._clock()))

    def deposit(self) -> None:
        """Pays in for a call's first try."""
        with self._lock:
            now = self._clock()
            # What the call brings or what the time since the call before has brought, not both:
            # else slow calls in an outage would have more retries than their share.
            self._tokens = max(
                min(self._most, self._tokens + self._share), self._with(self._brought(now))
            )
            self._since = now

    def withdraw(self) -> bool:
        """Takes a token for a retry.

        Returns:
            Whether there was one.
        """
        with self._lock:
            brought = self._brought(self._clock())
            available = self._with(brought)
            if available < 1.0:
                return False
            # Time goes on counting from the last deposit, so what did not fit is left out here.
            self._tokens = min(self._tokens, available - brought) - 1.0
            return True

    def _brought(self, now: float) -> float:
        return self._per_second * (now - self._since)

    def _with(self, brought: float) -> float:
        return max(self._tokens, min(self._reserve, self._tokens + brought))


_budgets: ProcessLocal[dict[str, RetryBudget]] = ProcessLocal(dict)


def retry_budget(provider: str) -> RetryBudget:
    """Returns the retry budget that all calls of this process to a provider share.

    Args:
        provider: The provider's name.
    """
    budgets = _budgets.get()
    budget = budgets.get(provider)
    # setdefault: threads that come here together all get the same one.
    return budgets.setdefault(provider, RetryBudget()) if budget is None else budget


def reset_retry_budgets() -> None:
    """Makes all retry budgets of this process full again, as between two tests."""
    _budgets.close()
