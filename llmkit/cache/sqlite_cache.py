"""SQLiteCache: the cache in a file, for the processes of one machine."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from llmkit.cache.allowance import Allowance
from llmkit.cache.base import DEFAULT_TTL, Lock
from llmkit.cache.breaker import Breaker, StoreFailed
from llmkit.cache.checks import check_bound
from llmkit.cache.entry import FORMAT, Entry, squeeze, stretch
from llmkit.cache.shared import DEFAULT_NAMESPACE, SharedCache, digest
from llmkit.cache.sqlite_file import Connection, Database
from llmkit.errors import InvalidRequestError
from llmkit.process_local import ProcessLocal

__all__ = ["SQLiteCache"]

T = TypeVar("T")

# Expired and surplus entries are looked for after so many writes of a process, or after it wrote
# this part of the bytes that the file may have; and removed so many at a time.
TIDY_EVERY = 256
TIDY_PART = 16
_BATCH = 200

# A lock that has so many times its life before it is from before the clock was put back.
_LONGEST = 10

_ENTRIES = f"llmkit_cache_{FORMAT}"
_LOCKS = f"llmkit_locks_{FORMAT}"
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS {_ENTRIES} (
    id INTEGER PRIMARY KEY, namespace TEXT NOT NULL, key BLOB NOT NULL, expires REAL NOT NULL,
    kept REAL NOT NULL, squeezed INTEGER NOT NULL, body BLOB NOT NULL, UNIQUE (namespace, key)
);
CREATE INDEX IF NOT EXISTS {_ENTRIES}_kept ON {_ENTRIES} (kept);
CREATE TABLE IF NOT EXISTS {_LOCKS} (
    namespace TEXT NOT NULL, key BLOB NOT NULL, token TEXT NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID;
"""
_FETCH = f"SELECT expires, kept, squeezed, body FROM {_ENTRIES} WHERE namespace = ? AND key = ?"
_KEEP = f"""
INSERT INTO {_ENTRIES} (namespace, key, expires, kept, squeezed, body) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (namespace, key) DO UPDATE SET expires = excluded.expires, kept = excluded.kept,
    squeezed = excluded.squeezed, body = excluded.body
"""
_DISCARD = f"DELETE FROM {_ENTRIES} WHERE namespace = ? AND key = ?"
_CLEAR = f"""
DELETE FROM {_ENTRIES} WHERE id IN (SELECT id FROM {_ENTRIES} WHERE namespace = ? LIMIT {_BATCH})
"""
_EXPIRE = f"""
DELETE FROM {_ENTRIES} WHERE id IN (SELECT id FROM {_ENTRIES} WHERE kept <= ? LIMIT {_BATCH})
"""
_EVICT = f"DELETE FROM {_ENTRIES} WHERE id IN (SELECT id FROM {_ENTRIES} ORDER BY kept LIMIT ?)"
_ACQUIRE = f"""
INSERT INTO {_LOCKS} VALUES (?, ?, ?, ?) ON CONFLICT (namespace, key) DO UPDATE SET
    token = excluded.token, until = excluded.until WHERE until <= ? OR until > ?
"""
_HELD = f"SELECT 1 FROM {_LOCKS} WHERE namespace = ? AND key = ? AND until > ? AND until <= ?"
_RENEW = f"""
UPDATE {_LOCKS} SET until = ? WHERE namespace = ? AND key = ? AND token = ? AND until > ?
"""
_RELEASE = f"DELETE FROM {_LOCKS} WHERE namespace = ? AND key = ? AND token = ?"


class SQLiteCache(SharedCache):
    """Keeps values in an SQLite file, for all processes of one machine.

    A file that is locked, damaged, read-only or gone costs each call a quarter of a second at most,
    and soon nothing. One that was deleted is made anew; one that is damaged has to be deleted by
    its owner, for llmkit doesn't delete files.

    Args:
        path: The file, which is made (mode 0600) when it isn't there, and its folder, too. It must
            be on a local disk: SQLite's write-ahead log does not work over a network.
        namespace: What sets these entries apart from those of others in the same file.
        max_entries: Values that the file holds, of all namespaces together. What would expire first
            goes first. It is looked after every 256 writes of a process.
        max_bytes: Bytes that they may take in the file, looked after in the same way. A value above
            32 MB is not kept.
        ttl: Seconds that a value lives by default.
        clock: Seconds since the epoch.
        rng: Gives numbers from 0 to 1.

    Raises:
        InvalidRequestError: The path is empty, a bound is no positive whole number, or the
            namespace is no text, or empty.
    """

    level = "sqlite"

    def __init__(
        self,
        path: str | Path,
        namespace: str = DEFAULT_NAMESPACE,
        *,
        max_entries: int = 100_000,
        max_bytes: int = 2**30,
        ttl: float = DEFAULT_TTL,
        clock: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
    ) -> None:
        if not str(path) or "\0" in str(path):
            raise InvalidRequestError("path: expected a file's name")
        if str(path) == ":memory:":
            raise InvalidRequestError("path=':memory:': for a cache in memory take MemoryCache()")
        super().__init__(namespace, ttl=ttl, clock=clock, rng=rng)
        self.path = os.path.abspath(os.path.expanduser(path))
        self.max_entries = check_bound("max_entries", max_entries)
        self.max_bytes = check_bound("max_bytes", max_bytes)
        self._database = ProcessLocal(lambda: Database(self.path, _SCHEMA), Database.close)
        self._untidy = self._untidy_bytes = 0
        self._renew(False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r}, namespace={self.namespace!r})"

    def fetch(self, key: str, allowance: Allowance | None = None) -> Entry | None:
        """Returns an entry; see `LLMCache.fetch`."""
        row = self._attempt(allowance, None, self._run, self._reading, _one, _FETCH, self._at(key))
        if row is None:
            return None
        expires, kept, squeezed, body = row
        try:
            entry = Entry(stretch(body, squeezed), float(expires), float(kept))
        except (AttributeError, TypeError, ValueError):  # somebody else's row, of other types
            return None
        return entry if isfinite(entry.expires_at) and isfinite(entry.kept_until) else None

    def keep(self, key: str, entry: Entry, allowance: Allowance | None = None) -> bool:
        """Stores an entry; see `LLMCache.keep`."""
        try:
            body, squeezed = squeeze(entry.text)
        except ValueError:
            return False
        if len(body) > self.max_bytes:
            return False
        values = (*self._at(key), entry.expires_at, entry.kept_until, int(squeezed), body)
        return self._attempt(allowance, False, self._keep, values)

    def discard(self, key: str, allowance: Allowance | None = None) -> bool | None:
        """Removes an entry; see `LLMCache.discard`."""
        gone = self._write(allowance, _DISCARD, self._at(key))
        return None if gone is None else gone > 0

    def clear(self) -> bool:
        """Removes all values of this namespace; see `LLMCache.clear`."""
        return self._clear(self._clear_all)

    def acquire(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> Lock:
        """Asks for a lock; see `LLMCache.acquire`."""
        return self._attempt(allowance, "unavailable", self._acquire, self._at(key), token, ttl)

    def renew(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> bool:
        """Holds a lock for longer; see `LLMCache.renew`."""
        now = self.clock()
        return bool(self._write(allowance, _RENEW, (now + ttl, *self._at(key), token, now)))

    def release(self, key: str, token: str, allowance: Allowance | None = None) -> bool:
        """Gives a lock back; see `LLMCache.release`."""
        return self._write(allowance, _RELEASE, (*self._at(key), token)) is not None

    def stats(self) -> dict[str, Any]:
        """Returns figures; see `LLMCache.stats`.

        Returns:
            In addition `available` (whether the file is used at present) and `outages`. `entries`
            and `bytes` are those of the whole file.
        """
        breakers = (self._reading, self._writing)
        figures = {
            **super().stats(),
            "available": not any(breaker.is_open for breaker in breakers),
            "outages": sum(breaker.outages for breaker in breakers),
        }
        until = time.monotonic() + 1.0
        try:
            if os.path.exists(self.path):
                with self._database.get().use(until) as connection:
                    figures["entries"], figures["bytes"] = _measure(connection)
        except StoreFailed:
            return figures
        return figures

    def close(self) -> None:
        """Closes this process's connections; the next use opens others."""
        self._database.close()

    def _at(self, key: str) -> tuple[str, bytes]:
        return self.namespace, digest(key)

    def _write(
        self, allowance: Allowance | None, statement: str, values: tuple[Any, ...]
    ) -> int | None:
        """Returns how many rows a statement changed; None when it couldn't be done."""
        work = (self._run, self._writing, _changed, statement, values)
        changed: int | None = self._attempt(allowance, None, *work)
        return changed

    def _run(
        self,
        until: float,
        breaker: Breaker,
        result: Callable[[sqlite3.Cursor], T],
        statement: str,
        values: tuple[Any, ...],
    ) -> T:
        breaker.check()
        try:
            with self._database.get().use(until) as connection:
                answer = result(connection.execute(statement, values))
        except StoreFailed as error:
            breaker.failed(error)
            raise
        breaker.succeeded()
        return answer

    def _acquire(self, until: float, at: tuple[str, bytes], token: str, ttl: float) -> Lock:
        # A file has one writer at a time: who can't get the lock is told so by a read, which waits
        # for nobody. Who may get it gets it by one statement, whatever that read has seen.
        now = self.clock()
        longest = now + _LONGEST * ttl
        if self._run(until, self._reading, _one, _HELD, (*at, now, longest)) is not None:
            return "held"
        values = (*at, token, now + ttl, now, longest)
        return "granted" if self._run(until, self._writing, _changed, _ACQUIRE, values) else "held"

    def _keep(self, until: float, values: tuple[Any, ...]) -> bool:
        self._run(until, self._writing, _changed, _KEEP, values)
        self._untidy += 1
        self._untidy_bytes += len(values[-1])
        if self._untidy >= TIDY_EVERY or self._untidy_bytes * TIDY_PART > self.max_bytes:
            self._untidy = self._untidy_bytes = 0
            try:
                self._tidy(until)
            except StoreFailed:  # next time, then: the entry is kept
                self.count("errors")
        return True

    def _tidy(self, until: float) -> None:
        """Removes what has expired, and what is too much, as far as the time allows."""
        now = self.clock()
        with self._database.get().use(until) as connection:
            connection.execute(f"DELETE FROM {_LOCKS} WHERE until <= ?", (now,))
            while time.monotonic() < until:
                if connection.execute(_EXPIRE, (now,)).rowcount < _BATCH:
                    break
            while time.monotonic() < until:
                entries, used = _measure(connection)
                surplus = entries - self.max_entries
                if used > self.max_bytes:
                    surplus = max(surplus, entries // TIDY_PART, 1)
                if surplus <= 0 or not entries:
                    break
                connection.execute(_EVICT, (min(surplus, _BATCH),))
            # As a script: `execute` would end after the first page.
            connection.executescript(f"PRAGMA incremental_vacuum({10 * _BATCH})")

    def _clear_all(self, until: float) -> bool:
        while True:
            step = min(until, time.monotonic() + 2.0)
            if time.monotonic() >= step:
                return False
            if self._run(step, self._writing, _changed, _CLEAR, (self.namespace,)) < _BATCH:
                break
        with self._database.get().use(min(until, time.monotonic() + 2.0)) as connection:
            connection.executescript("PRAGMA incremental_vacuum")
        return True

    def _renew(self, was_locked: bool) -> None:
        self._reading = Breaker(f"the cache's file {self.path}")
        self._writing = Breaker(f"writing to the cache's file {self.path}")


def _one(cursor: sqlite3.Cursor) -> Any:
    row = cursor.fetchone()
    cursor.close()  # ends the read: an open one would hold back the write-ahead log's end
    return row


def _changed(cursor: sqlite3.Cursor) -> int:
    return cursor.rowcount


def _measure(connection: Connection) -> tuple[int, int]:
    """Returns how many entries a file has, and how many bytes they and all else take in it."""
    (entries,) = connection.execute(f"SELECT count(*) FROM {_ENTRIES}").fetchone()
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    return entries, (pages - free) * size
