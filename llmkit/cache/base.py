"""LLMCache: JSON values under string keys, and what all its implementations share."""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from llmkit.cache.allowance import Allowance
from llmkit.cache.checks import check_key, check_ttl
from llmkit.cache.entry import Entry, decode_value, encode_value

__all__ = ["DEFAULT_TTL", "Allowance", "Found", "LLMCache", "Lock"]

Lock = Literal["granted", "held", "unavailable"]

# Seconds that an entry lives when nobody says otherwise.
DEFAULT_TTL = 3600.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a cache held under a key.

    Attributes:
        value: The JSON value, decoded for this caller alone.
        level: Where it was: `memory`, `redis` or `sqlite`.
        expires_at: Until when it is fresh, in seconds since the epoch.
        stale: Whether it has expired, and is only within its stale time.
    """

    value: Any
    level: str
    expires_at: float
    stale: bool


class LLMCache(ABC):
    """JSON values under string keys, shared by threads and forks.

    A store that is broken, gone or slow raises nothing: a read is a miss, a write is False, and the
    statistics count it. Values are kept as JSON, so each reader gets an object of its own; tuples
    come back as lists. Entries live between 0.9 and 1.0 times as long as asked for, so that what
    was written together doesn't expire together.

    An implementation of your own gives `fetch`, `keep`, `discard` and `clear`, and calls
    `super().__init__()`.

    Args:
        ttl: Seconds that an entry lives by default.
        clock: Seconds since the epoch: processes compare them.
        rng: Gives numbers from 0 to 1.

    Attributes:
        level: The cache's name in `Found.level`.
        shared: Whether other processes see this cache.
    """

    level: ClassVar[str] = "memory"
    shared: bool = False

    def __init__(
        self,
        *,
        ttl: float = DEFAULT_TTL,
        clock: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.ttl = check_ttl(ttl)
        self.clock = clock
        self._rng = rng
        # Reentrant: a signal handler may make a call.
        self._lock = threading.RLock()
        self._counts = dict.fromkeys(
            ("hits", "misses", "stale_hits", "writes", "errors", "skipped"), 0
        )
        _caches.add(self)

    def __repr__(self) -> str:
        """Shows the place if it has a name; never a URL, which may hold a password."""
        namespace = getattr(self, "namespace", None)
        shown = "" if namespace is None else f"namespace={namespace!r}"
        return f"{type(self).__name__}({shown})"

    # --- for everybody ---------------------------------------------------------------------------

    def get(self, key: str, default: Any = None) -> Any:
        """Reads a value.

        Args:
            key: Its key.
            default: What to return when there is none.

        Returns:
            The value, which belongs to the caller; changing it changes nobody else's.
        """
        found = self.read(check_key(key))
        return default if found is None else found.value

    def set(self, key: str, value: Any, ttl: float | None = None) -> bool:
        """Keeps a value.

        Args:
            key: Its key.
            value: Any JSON value.
            ttl: Seconds that it lives; None takes the cache's default.

        Returns:
            Whether it was kept.

        Raises:
            InvalidRequestError: The value is no JSON value (NaN, infinity and keys other than str
                aren't), or the time is no positive number.
        """
        return self.write(check_key(key), value, ttl=ttl)

    def delete(self, key: str) -> bool:
        """Removes a value.

        Args:
            key: Its key.

        Returns:
            Whether there was one and it is gone; False also when the store can't be reached.
        """
        return self.discard(check_key(key)) is True

    @abstractmethod
    def clear(self) -> bool:
        """Removes all values of this cache's own namespace, and nothing else.

        Returns:
            Whether all are gone; False when the store can't be reached, or took too long.
        """

    def stats(self) -> dict[str, Any]:
        """Returns figures of this process.

        Returns:
            `level`, `hits`, `misses`, `stale_hits`, `writes`, `errors` (operations that failed),
            `skipped` (operations not tried, because the store was failing or no time was left),
            `hit_rate` (0 to 1; None before the first read), and of the cache itself `entries` and
            `bytes` (None when unknown).
        """
        with self._lock:
            counts: dict[str, Any] = dict(self._counts)
        reads = counts["hits"] + counts["misses"]
        rate = counts["hits"] / reads if reads else None
        return {"level": self.level, **counts, "hit_rate": rate, "entries": None, "bytes": None}

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Gives back what the cache holds open; it opens again on its next use."""

    # --- for the machinery -----------------------------------------------------------------------

    def read(
        self, key: str, *, stale: bool = False, allowance: Allowance | None = None
    ) -> Found | None:
        """Looks for a value.

        Args:
            key: Its key.
            stale: Whether a value that has expired will do, if it is within its stale time. Such a
                look-up counts no miss: the one before it did.
            allowance: What the call may spend on shared caches; None lets the operation take 0.2 s.

        Returns:
            The value, or None.
        """
        entry = self.fetch(key, allowance)
        found = None if entry is None else self._found(entry, stale)
        self._count_read(found, stale)
        return found

    def write(
        self,
        key: str,
        value: Any,
        *,
        ttl: float | None = None,
        stale_ttl: float = 0.0,
        allowance: Allowance | None = None,
    ) -> bool:
        """Keeps a value.

        Args:
            key: Its key.
            value: Any JSON value.
            ttl: Seconds for which it is fresh; None takes the cache's default.
            stale_ttl: Seconds for which it is kept after that, for `read(stale=True)`.
            allowance: What the call may spend on shared caches; None lets the operation take 0.2 s.

        Returns:
            Whether it was kept.

        Raises:
            InvalidRequestError: As in `set`.
        """
        return self.write_text(
            key, encode_value(value), ttl=ttl, stale_ttl=stale_ttl, allowance=allowance
        )

    def write_text(
        self,
        key: str,
        text: str,
        *,
        ttl: float | None = None,
        stale_ttl: float = 0.0,
        allowance: Allowance | None = None,
    ) -> bool:
        """Keeps a value that is written as JSON already; see `write`.

        Args:
            key: Its key.
            text: The value's JSON.
            ttl: Seconds for which it is fresh; None takes the cache's default.
            stale_ttl: Seconds for which it is kept after that, for `read(stale=True)`.
            allowance: What the call may spend on shared caches; None lets the operation take 0.2 s.

        Returns:
            Whether it was kept.

        Raises:
            InvalidRequestError: A time is not a positive number.
        """
        kept = self.keep(key, self.entry(text, ttl, stale_ttl), allowance)
        if kept:
            self.count("writes")
        return kept

    def read_near(self, key: str) -> Found | None:
        """Looks for a fresh value where that needs no input, no output and no wait.

        Args:
            key: Its key.

        Returns:
            The value, or None, which counts no miss: `read` is expected to follow.
        """
        return None

    def acquire(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> Lock:
        """Asks for the lock on a key among the processes that see this cache.

        Args:
            key: The key.
            token: Who asks: unique, and not to be guessed.
            ttl: Seconds after which the lock is free again by itself.
            allowance: What the call may spend on shared caches; None lets the operation take 0.2 s.

        Returns:
            `granted` (always, where no other process sees the cache), `held` by somebody, or
            `unavailable` when the store can't say.
        """
        return "granted"

    def renew(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> bool:
        """Holds a lock for longer.

        Args:
            key: The key.
            token: What it was acquired with.
            ttl: Seconds from now.
            allowance: What the call may spend on shared caches; None lets the operation take 0.2 s.

        Returns:
            Whether it is still held under this token.
        """
        return True

    def release(self, key: str, token: str, allowance: Allowance | None = None) -> bool:
        """Gives a lock back, if it is still held under this token.

        Args:
            key: The key.
            token: What it was acquired with.
            allowance: What the call may spend on shared caches; None lets the operation take 0.2 s.

        Returns:
            Whether it is given back, or was not held; False when the store can't be reached.
        """
        return True

    # --- for implementations ---------------------------------------------------------------------

    @abstractmethod
    def fetch(self, key: str, allowance: Allowance | None = None) -> Entry | None:
        """Reads an entry, also one that is stale.

        Args:
            key: Its key.
            allowance: What the call may spend on shared caches; None for the usual.

        Returns:
            The entry; None when there is none, and when the store is broken: that raises nothing.
        """

    @abstractmethod
    def keep(self, key: str, entry: Entry, allowance: Allowance | None = None) -> bool:
        """Stores an entry as it is, in place of any other.

        Args:
            key: Its key.
            entry: The entry.
            allowance: What the call may spend on shared caches; None for the usual.

        Returns:
            Whether it is stored.
        """

    @abstractmethod
    def discard(self, key: str, allowance: Allowance | None = None) -> bool | None:
        """Removes an entry.

        Args:
            key: Its key.
            allowance: What the call may spend on shared caches; None for the usual.

        Returns:
            Whether there was one; None when nobody can say.
        """

    def entry(self, text: str, ttl: float | None = None, stale_ttl: float = 0.0) -> Entry:
        """Makes the entry for a value.

        Args:
            text: The value's JSON.
            ttl: Seconds for which it is fresh; None takes the cache's default.
            stale_ttl: Seconds for which it is kept after that.

        Returns:
            The entry, with a life between 0.9 and 1.0 times the time asked for.

        Raises:
            InvalidRequestError: A time is not a positive number.
        """
        life = self.ttl if ttl is None else check_ttl(ttl)
        fresh = self.clock() + life * (0.9 + 0.1 * self._rng())
        return Entry(text, fresh, fresh + (check_ttl(stale_ttl) if stale_ttl else 0.0))

    def count(self, what: str) -> None:
        """Counts one of what `stats` shows.

        Args:
            what: "hits", "misses", "stale_hits", "writes", "errors" or "skipped".
        """
        with self._lock:
            self._counts[what] += 1

    def _found(self, entry: Entry, stale: bool) -> Found | None:
        now = self.clock()
        if now >= entry.expires_at and not (stale and now < entry.kept_until):
            return None
        try:
            value = decode_value(entry.text)
        except (ValueError, RecursionError):  # RecursionError: nested deeper than this stack allows
            return None
        return Found(value, self.level, entry.expires_at, now >= entry.expires_at)

    def _count_read(self, found: Found | None, stale: bool) -> None:
        if found is not None:
            self.count("stale_hits" if found.stale else "hits")
        elif not stale:
            self.count("misses")

    def _renew(self, was_locked: bool) -> None:  # noqa: B027 - most have nothing to mend
        """Mends, in a forked child, what another thread was changing at the moment of the fork."""


_caches: weakref.WeakSet[LLMCache] = weakref.WeakSet()


def _renew_all_in_child() -> None:
    for cache in list(_caches):
        was_locked = not cache._lock.acquire(blocking=False)
        cache._lock = threading.RLock()
        cache._renew(was_locked)


# Windows cannot fork and has no such hook. A hook cannot be taken back, hence one for all.
if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_renew_all_in_child)
