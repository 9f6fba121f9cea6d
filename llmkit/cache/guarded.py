"""GuardedCache: keeps the bugs of a user's own cache away from calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from llmkit.cache.base import Allowance, Found, LLMCache, Lock
from llmkit.cache.entry import Entry
from llmkit.log import get_logger

__all__ = ["guarded"]

T = TypeVar("T")


def guarded(cache: LLMCache) -> LLMCache:
    """Returns a cache that raises nothing: llmkit's own as they are, others behind a guard."""
    levels = [cache, *(getattr(cache, name) for name in ("l1", "l2") if hasattr(cache, name))]
    if all(type(level).__module__.startswith("llmkit.cache.") for level in levels):
        return cache
    return _GuardedCache(cache)


class _GuardedCache(LLMCache):
    """Passes everything on to a cache; what that raises is logged, and counts as a miss."""

    def __init__(self, cache: LLMCache) -> None:
        super().__init__()
        self.shared = cache.shared
        self._cache = cache
        self._told: set[str] = set()

    def read(
        self, key: str, *, stale: bool = False, allowance: Allowance | None = None
    ) -> Found | None:
        return self._try(None, self._cache.read, key, stale=stale, allowance=allowance)

    def read_near(self, key: str) -> Found | None:
        return self._try(None, self._cache.read_near, key)

    def write(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | None = None,
        stale_ttl: float = 0.0,
        allowance: Allowance | None = None,
    ) -> bool:
        times = {"ttl": ttl, "stale_ttl": stale_ttl}
        return self._try(False, self._cache.write, key, value, **times, allowance=allowance)

    def fetch(self, key: str, allowance: Allowance | None = None) -> Entry | None:
        return self._try(None, self._cache.fetch, key, allowance)

    def keep(self, key: str, entry: Entry, allowance: Allowance | None = None) -> bool:
        return self._try(False, self._cache.keep, key, entry, allowance)

    def discard(self, key: str, allowance: Allowance | None = None) -> bool | None:
        return self._try(None, self._cache.discard, key, allowance)

    def clear(self) -> bool:
        return self._try(False, self._cache.clear)

    def acquire(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> Lock:
        return self._try("unavailable", self._cache.acquire, key, token, ttl, allowance)

    def renew(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> bool:
        return self._try(False, self._cache.renew, key, token, ttl, allowance)

    def release(self, key: str, token: str, allowance: Allowance | None = None) -> bool:
        return self._try(False, self._cache.release, key, token, allowance)

    def _try(self, unavailable: T, do: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        try:
            return do(*arguments, **keywords)
        except Exception:  # a bug in somebody's cache must not cost an answer
            name = f"{type(self._cache).__qualname__}.{do.__name__}"
            if name not in self._told:
                self._told.add(name)
                get_logger("cache").exception("%s failed: calls go on without it", name)
            return unavailable
