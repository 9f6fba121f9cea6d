"""MemoryCache: the cache inside this process."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkit.cache.allowance import Allowance
from llmkit.cache.base import DEFAULT_TTL, Found, LLMCache
from llmkit.cache.checks import check_bound
from llmkit.cache.entry import Entry, decode_value

if TYPE_CHECKING:
    from cachetools import TLRUCache

__all__ = ["MemoryCache"]

# Bytes of the objects around a key and a text (measured, see tests/cache/test_stores_memory.py).
_OVERHEAD = 450


class _Kept(NamedTuple):
    """An entry and what it weighs with its key, in bytes."""

    entry: Entry
    weight: int


def _kept_until(key: str, kept: _Kept, now: float) -> float:
    return kept.entry.kept_until


def _weight(kept: _Kept) -> int:
    return kept.weight


class MemoryCache(LLMCache):
    """Keeps values in this process's memory; who forks hands the child a copy.

    What was not used for longest goes first when there are too many, and whatever has expired goes
    before that.

    Args:
        max_entries: Values that it holds at most.
        max_bytes: Bytes that these may take, with their keys and the objects around them. A value
            that is larger by itself is not kept.
        ttl: Seconds that a value lives by default.
        clock: Seconds since the epoch.
        rng: Gives numbers from 0 to 1.

    Raises:
        InvalidRequestError: A bound is not a positive whole number.
    """

    level = "memory"

    def __init__(
        self,
        max_entries: int = 1000,
        max_bytes: int = 64 * 2**20,
        *,
        ttl: float = DEFAULT_TTL,
        clock: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(ttl=ttl, clock=clock, rng=rng)
        self.max_entries = check_bound("max_entries", max_entries)
        self.max_bytes = check_bound("max_bytes", max_bytes)
        self._busy = False
        self._entries = self._empty()

    def __repr__(self) -> str:
        bounds = f"max_entries={self.max_entries}, max_bytes={self.max_bytes}"
        return f"{type(self).__name__}({bounds}, ttl={self.ttl:g})"

    def read_near(self, key: str) -> Found | None:
        """Looks for a fresh value; see `LLMCache.read_near`."""
        entry = self.fetch(key)
        if entry is None or self.clock() >= entry.expires_at:
            return None
        self.count("hits")
        try:
            return Found(decode_value(entry.text), "memory", entry.expires_at, False)
        except RecursionError:  # nested deeper than this stack allows
            return None

    def fetch(self, key: str, allowance: Allowance | None = None) -> Entry | None:
        """Returns an entry; see `LLMCache.fetch`."""
        with self._lock:
            if self._busy:  # so this is a signal handler, whose own thread is at the entries
                return None
            try:
                self._busy = True
                return self._entries[key].entry
            except KeyError:
                return None
            finally:
                self._busy = False

    def keep(self, key: str, entry: Entry, allowance: Allowance | None = None) -> bool:
        """Stores an entry; see `LLMCache.keep`."""
        weight = sys.getsizeof(key) + sys.getsizeof(entry.text) + _OVERHEAD
        with self._lock:
            if self._busy:  # as in `fetch`
                return False
            try:
                self._busy = True
                try:
                    self._entries[key] = _Kept(entry, weight)
                except ValueError:  # larger than all that may be kept
                    self._entries.pop(key, None)
                    return False
                if len(self._entries) > self.max_entries:
                    self._entries.popitem()
                return key in self._entries
            except BaseException:  # an interrupt in between would leave it in disorder
                self._entries = self._empty()
                raise
            finally:
                self._busy = False

    def discard(self, key: str, allowance: Allowance | None = None) -> bool | None:
        """Removes an entry; see `LLMCache.discard`."""
        with self._lock:
            if self._busy:  # as in `fetch`
                return None
            try:
                self._busy = True
                return self._entries.pop(key, None) is not None
            finally:
                self._busy = False

    def clear(self) -> bool:
        """Removes everything; see `LLMCache.clear`."""
        with self._lock:
            self._entries = self._empty()
        return True

    def stats(self) -> dict[str, Any]:
        """Returns figures; see `LLMCache.stats`. `bytes` is an estimate that errs upwards."""
        with self._lock:
            entries, size = len(self._entries), int(self._entries.currsize)
        return {**super().stats(), "entries": entries, "bytes": size}

    def _empty(self) -> TLRUCache[str, _Kept]:
        from cachetools import TLRUCache

        return TLRUCache(self.max_bytes, _kept_until, timer=self.clock, getsizeof=_weight)

    def _renew(self, was_locked: bool) -> None:
        if was_locked:
            self._entries, self._busy = self._empty(), False
