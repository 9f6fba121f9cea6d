"""The cache: answers, and any other JSON values, kept in memory and in a store behind it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
