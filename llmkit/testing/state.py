"""Beginning each test like a new process."""

from __future__ import annotations

from llmkit.breaker import reset_breakers
from llmkit.cache import close_caches
from llmkit.performance import get_performance_tracker
from llmkit.rate_limits import reset_rate_limits
from llmkit.retry import reset_retry_budgets

__all__ = ["reset_state"]


def reset_state() -> None:
    """Forgets what the calls of this process have taught it, as between two tests.

    That is: the tracker's figures, open circuits, spent retry budgets, filled rate limits, and the
    answers that `get_cache()` and the caches of Clients' URLs hold in memory. Left as they are:
    stores outside of the process, an `LLMCache` that a test has made itself, settings (see
    `llmkit.reload_settings`) and registered models.
    """
    get_performance_tracker().reset()
    reset_retry_budgets()
    reset_breakers()
    reset_rate_limits()
    close_caches()
