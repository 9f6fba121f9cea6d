"""The cache: answers, and any other JSON values, kept in memory and in a store behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmkit.cache.allowance import Allowance
from llmkit.cache.base import Found, LLMCache, Lock
from llmkit.cache.memory import MemoryCache
from llmkit.cache.opening import (
    cache_result,
    clear_cache,
    close_caches,
    generation,
    get_cache,
    open_cache,
)
from llmkit.lazy import lazy_names

if TYPE_CHECKING:
    from llmkit.cache.functions import cached
    from llmkit.cache.redis_cache import RedisCache
    from llmkit.cache.sqlite_cache import SQLiteCache
    from llmkit.cache.two_level import TwoLevelCache

__all__ = [
    "Allowance",
    "Found",
    "LLMCache",
    "Lock",
    "MemoryCache",
    "RedisCache",
    "SQLiteCache",
    "TwoLevelCache",
    "cache_result",
    "cached",
    "clear_cache",
    "close_caches",
    "generation",
    "get_cache",
    "open_cache",
]

# Loaded when they are asked for: most programs need one of them, or none.
_HOMES = {
    "RedisCache": "redis_cache",
    "SQLiteCache": "sqlite_cache",
    "TwoLevelCache": "two_level",
    "cached": "functions",
}
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
