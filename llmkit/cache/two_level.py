"""TwoLevelCache: a near cache in front of one that processes share."""

from __future__ import annotations

from typing import Any

from llmkit.cache.allowance import Allowance
from llmkit.cache.base import Found, LLMCache, Lock
from llmkit.cache.entry import Entry

__all__ = ["TwoLevelCache"]

# Marks of changes, by a part of the keys each.
_MARKS = 256


class TwoLevelCache(LLMCache):
    """Asks a first cache, then a second one, and keeps in the first what only the second had.

    The first never keeps an entry for longer than the second. When the second can't be used, the
    first goes on by itself. What other processes delete or clear stays in the first until it
    expires.

    Args:
        l1: The first: near and small.
        l2: The second, whose default life, clock and randomness are those of both.
    """

    level = "two-level"

    def __init__(self, l1: LLMCache, l2: LLMCache) -> None:
        super().__init__(ttl=l2.ttl, clock=l2.clock, rng=l2._rng)
        self.l1 = l1
        self.l2 = l2
        self.shared = l2.shared
        # A new object for each change: a reader that fetched from the second level meanwhile sees
        # it, and takes back what it put into the first.
        self._marks = [object()] * _MARKS

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.l1!r}, {self.l2!r})"

    def read_near(self, key: str) -> Found | None:
        """Looks in the first level; see `LLMCache.read_near`."""
        return self.l1.read_near(key)

    def read(
        self, key: str, *, stale: bool = False, allowance: Allowance | None = None
    ) -> Found | None:
        """Looks in both levels; see `LLMCache.read`. `level` names where it was found."""
        found = self.l1.read(key, stale=stale, allowance=allowance)
        if found is not None:
            return found
        mark = self._marks[hash(key) % _MARKS]
        entry = self.l2.fetch(key, allowance)
        found = None if entry is None else self.l2._found(entry, stale)
        self.l2._count_read(found, stale)
        if found is None or entry is None:
            self._count_read(None, stale)
            return None
        self.l1.keep(key, entry)
        if self._marks[hash(key) % _MARKS] is not mark:
            self.l1.discard(key)
        return found

    def fetch(self, key: str, allowance: Allowance | None = None) -> Entry | None:
        """Returns an entry; see `LLMCache.fetch`."""
        return self.l1.fetch(key, allowance) or self.l2.fetch(key, allowance)

    def keep(self, key: str, entry: Entry, allowance: Allowance | None = None) -> bool:
        """Stores an entry in both levels; see `LLMCache.keep`.

        Returns:
            Whether at least one of them kept it.
        """
        kept = []
        for level in (self.l2, self.l1):
            kept.append(level.keep(key, entry, allowance))
            if kept[-1]:
                level.count("writes")
            self._marks[hash(key) % _MARKS] = object()
        return any(kept)

    def discard(self, key: str, allowance: Allowance | None = None) -> bool | None:
        """Removes an entry from both levels; see `LLMCache.discard`."""
        far = self.l2.discard(key, allowance)
        self._marks[hash(key) % _MARKS] = object()
        near = self.l1.discard(key, allowance)
        return None if far is None or near is None else far or near

    def clear(self) -> bool:
        """Clears both levels; see `LLMCache.clear`."""
        far = self.l2.clear()
        self._marks = [object()] * _MARKS
        return self.l1.clear() and far

    def acquire(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> Lock:
        """Asks the second level for a lock; see `LLMCache.acquire`."""
        return self.l2.acquire(key, token, ttl, allowance)

    def renew(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> bool:
        """Holds a lock for longer; see `LLMCache.renew`."""
        return self.l2.renew(key, token, ttl, allowance)

    def release(self, key: str, token: str, allowance: Allowance | None = None) -> bool:
        """Gives a lock back; see `LLMCache.release`."""
        return self.l2.release(key, token, allowance)

    def stats(self) -> dict[str, Any]:
        """Returns figures of both levels together; see `LLMCache.stats`.

        Returns:
            In addition `levels`: the figures of each level by its name. `entries` and `bytes` are
            those of the second.
        """
        own, near, far = super().stats(), self.l1.stats(), self.l2.stats()
        for name in ("hits", "stale_hits", "errors", "skipped"):
            own[name] = near[name] + far[name]
        reads = own["hits"] + own["misses"]
        return {
            **own,
            "hit_rate": own["hits"] / reads if reads else None,
            "entries": far["entries"],
            "bytes": far["bytes"],
            "levels": {self.l1.level: near, self.l2.level: far},
        }

    def close(self) -> None:
        """Closes both levels; see `LLMCache.close`."""
        self.l1.close()
        self.l2.close()
