"""When to try again, and after how long."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import NamedTuple

from llmkit.errors import LLMError
from llmkit.retry.budget import RetryBudget
from llmkit.retry.pauses import pause

__all__ = ["LONGEST_BESIDE_OTHERS", "RetryPolicy", "asked_pause", "is_retryable"]

# Seconds that a model is waited for while another one could be asked. The usual pauses are shorter;
# what a vendor asks for after a rate limit may be a minute.
LONGEST_BESIDE_OTHERS = 5.0


def is_retryable(error: BaseException) -> bool:
    """Says whether a second try may help.

    Args:
        error: What the first one failed of.

    Returns:
        True for a retryable `LLMError`, `ConnectionError` and `TimeoutError`; False for all others.
    """
    if isinstance(error, LLMError):
        return error.retryable
    return isinstance(error, ConnectionError | TimeoutError)


def asked_pause(error: BaseException | None) -> float | None:
    """Reads how long an error asks to wait.

    Args:
        error: Any error, of which `retry_after` counts; None when there was none.

    Returns:
        Seconds, 0 or more; None when it doesn't say.
    """
    asked = getattr(error, "retry_after", None)
    # Foreign errors may hold anything there: a date, a text, infinity.
    if isinstance(asked, int | float) and not isinstance(asked, bool):
        return float(asked) if 0 <= asked < math.inf else None
    return None


class RetryPolicy(NamedTuple):
    """When to try again, and after how long.

    Attributes:
        max_retries: Tries after the first.
        base_delay: The first pause is a random part of this many seconds; it doubles each time.
        max_delay: No pause is longer, unless the vendor asks for it.
        retry_on: Says whether an error is worth another try.
        sleep: Waits for some seconds.
        rng: Gives numbers from 0 to 1.
        budget: Has to have something left for a retry; None sets no such limit.
        refusal: Says why a try so many seconds from now would be refused, so that nobody waits for
            it in vain; it returns None where it may be made. None knows of nothing that refuses.
        elsewhere: Says whether something else is tried if an error ends the tries: then nobody
            waits longer than `LONGEST_BESIDE_OTHERS`. None: nothing else is.
    """

    max_retries: int = 3
    base_delay: float = 0.5
    max_delay: float = 30.0
    retry_on: Callable[[BaseException], bool] = is_retryable
    sleep: Callable[[float], None] = pause
    rng: Callable[[], float] = random.random
    budget: RetryBudget | None = None
    refusal: Callable[[float], str | None] | None = None
    elsewhere: Callable[[BaseException], bool] | None = None

    def delay(self, tries: int, error: BaseException | None) -> float:
        """Returns the pause after a failure.

        Args:
            tries: How many tries there were, from 1.
            error: The last one's error.

        Returns:
            Seconds: what the vendor asked for, or a random part of the exponential delay.
        """
        asked = asked_pause(error)
        if asked is not None:
            return asked
        # Full jitter keeps clients that failed together from coming back together.
        return self.rng() * min(self.max_delay, self.base_delay * 2.0 ** min(tries - 1, 60))
