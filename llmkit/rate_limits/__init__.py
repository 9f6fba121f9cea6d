"""Rate limits: requests and tokens per minute that a user allows, kept before anything is sent.

Calls wait for their turn inside their deadline, first come first served; tokens that a call did not
use are given back, and a vendor that says there is less left is obeyed.
"""

from __future__ import annotations

from llmkit.rate_limits.choosing import RateLimits, read_rate_limits, reset_rate_limits
from llmkit.rate_limits.limit import RateLimit
from llmkit.rate_limits.limiter import Limiter, LimiterChain, Place

__all__ = [
    "Limiter",
    "LimiterChain",
    "Place",
    "RateLimit",
    "RateLimits",
    "read_rate_limits",
    "reset_rate_limits",
]
