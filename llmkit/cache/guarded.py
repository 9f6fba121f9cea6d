"""GuardedCache: keeps the bugs of a user's own cache away from calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from llmkit.cache.allowance import Allowance
from llmkit.cache.base import Found, LLMCache, Lock
from llmkit.cache.entry import Entry, decode_value, encode_value
from llmkit.errors import InvalidRequestError
from llmkit.log import get_logger

__all__ = ["guarded"]

T = TypeVar("T")


def guarded(cache: LLMCache) -> LLMCache:
    """Returns a cache that raises nothing: llmkit's own as they are, others behind a guard."""
    levels = [cache, *(getattr(cache, name) for name in ("l1", "l2") if hasattr(cache, name))]
    if all(type(level).__module__.startswith("llmkit.cache.") for level in levels):
        return cache
    # One for each cache: who shares it shares its flights, too.
    guard: LLMCache = vars(cache).setdefault("_guard", _GuardedCache(cache))
    return guard


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
        found = self._try(None, self._cache.read, key, stale=stale, allowance=allowance)
        return self._checked(found, Found, "read")

    def read_near(self, key: str) -> Found | None:
        return self._checked(self._try(None, self._cache.read_near, key), Found, "read_near")

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

    def write_text(
        self,
        key: str,
        text: str,
        *,
        ttl: float | None = None,
        stale_ttl: float = 0.0,
        allowance: Allowance | None = None,
    ) -> bool:
        # A `write` of its own may change what is kept, such as seal it, and its `read` undo that.
        value = decode_value(text)
        return self.write(key, value, ttl=ttl, stale_ttl=stale_ttl, allowance=allowance)

    def fetch(self, key: str, allowance: Allowance | None = None) -> Entry | None:
        return self._checked(self._try(None, self._cache.fetch, key, allowance), Entry, "fetch")

    def keep(self, key: str, entry: Entry, allowance: Allowance | None = None) -> bool:
        return self._try(False, self._cache.keep, key, entry, allowance)

    def discard(self, key: str, allowance: Allowance | None = None) -> bool | None:
        return self._try(None, self._cache.discard, key, allowance)

    def clear(self) -> bool:
        return self._try(False, self._cache.clear)

    def acquire(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> Lock:
        lock: Lock = self._try("unavailable", self._cache.acquire, key, token, ttl, allowance)
        # Who is told anything else would wait for nobody.
        return lock if lock in ("granted", "held") else "unavailable"

    def renew(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> bool:
        return self._try(False, self._cache.renew, key, token, ttl, allowance)

    def release(self, key: str, token: str, allowance: Allowance | None = None) -> bool:
        return self._try(False, self._cache.release, key, token, allowance)

    def _try(self, unavailable: T, do: Callable[..., T], *arguments: Any, **keywords: Any) -> T:
        try:
            return do(*arguments, **keywords)
        except Exception:  # a bug in somebody's cache must not cost an answer
            self._tell(do.__name__, "failed", exc_info=True)
            return unavailable

    def _checked(self, found: T | None, kind: type[T], name: str) -> T | None:
        """Returns what was found, if it is of the kind that it should be."""
        if found is None:
            return None
        if not isinstance(found, kind):
            self._tell(name, f"returned a {type(found).__name__}, expected a {kind.__name__}")
            return None
        if isinstance(found, Found):
            try:
                encode_value(found.value)
            except InvalidRequestError as error:
                self._tell(name, f"found something else than it was given ({error})")
                return None
        return found

    def _tell(self, name: str, what: str, exc_info: bool = False) -> None:
        """Logs the first failure of each operation."""
        name = f"{type(self._cache).__qualname__}.{name}"
        if name not in self._told:
            self._told.add(name)
            told = "%s %s: calls go on without it"
            get_logger("cache").error(told, name, what, exc_info=exc_info)
