"""The one owner of retries: exponential backoff with full jitter, obeying the vendor's Retry-After.

The SDKs' own retries are off. A wait never goes past the deadline: when the pause before the next
try would, the error is raised at once. Nor do retries add to an outage: beyond a fifth of the
calls, a provider's retry budget is empty.
"""

from __future__ import annotations

from llmkit.retry.attempts import call_with_retries
from llmkit.retry.budget import RetryBudget, reset_retry_budgets, retry_budget
from llmkit.retry.decorator import retry_with_exponential_backoff
from llmkit.retry.pauses import no_sleeping, pause
from llmkit.retry.policy import RetryPolicy, is_retryable

__all__ = [
    "RetryBudget",
    "RetryPolicy",
    "call_with_retries",
    "is_retryable",
    "no_sleeping",
    "pause",
    "reset_retry_budgets",
    "retry_budget",
    "retry_with_exponential_backoff",
]
