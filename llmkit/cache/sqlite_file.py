"""Connections to an SQLite file, shared by threads and never carried over a fork."""

from __future__ import annotations

import collections
import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

from llmkit.cache.breaker import StoreFailed, StoreSkipped, StoreTimeout
from llmkit.process_local import alive

__all__ = ["Connection", "Database"]

# Connections at most: SQLite writes one at a time anyway, and a read takes some 10 µs.
MAX_CONNECTIONS = 8

# Seconds that a fork waits for operations under way to end.
_BEFORE_FORK = 0.3

# Waiting for a lock for less than this says nothing about who holds it.
_TELLING = 0.1

_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})

Identity = tuple[int, int]


class Connection(sqlite3.Connection):
    """A connection that remembers which file it has open, and for how long it waits for locks."""

    identity: Identity = (0, 0)
    patience: int = -1  # ms


class Database:
    """The connections of this process to one file, which is made when it isn't there.

    Args:
        path: The file.
        schema: The SQL that makes its tables, unless they are there.
    """

    def __init__(self, path: str, schema: str) -> None:
        self._path = path
        self._schema = schema
        self._changed = threading.Condition(threading.Lock())
        self._idle: collections.deque[Connection] = collections.deque()
        self._used = 0
        self._forker: int | None = None
        _databases.add(self)

    @contextmanager
    def use(self, until: float) -> Iterator[Connection]:
        """Lends a connection.

        Args:
            until: The moment of `time.monotonic` until which its statements may wait.

        Yields:
            The connection.

        Raises:
            StoreSkipped: All connections are in use.
            StoreFailed: The file can't be used.
        """
        begin = time.monotonic()
        connection = None
        self._enter(until)
        try:
            connection = self._take(until)
            yield connection
        except sqlite3.Error as error:
            # The low byte is the kind of error, whatever the rest says in detail.
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY:
                raise StoreTimeout(str(error), until - begin < _TELLING) from error
            _close(connection)
            connection = None
            raise StoreFailed(f"{type(error).__name__}: {error}") from error
        except OSError as error:
            _close(connection)
            connection = None
            raise StoreFailed(f"{type(error).__name__}: {error}") from error
        except BaseException:  # an interrupt, perhaps in the middle of a transaction
            _close(connection)
            connection = None
            raise
        finally:
            self._leave(connection)

    def close(self) -> None:
        """Closes the connections that nobody uses; the others when they come back."""
        while self._idle:
            with contextlib.suppress(IndexError):  # somebody else took the last one
                _close(self._idle.pop())

    def _enter(self, until: float) -> None:
        # In bounded time: a signal handler may have interrupted the thread that holds the lock.
        if not self._changed.acquire(timeout=max(0.0, until - time.monotonic())):
            raise StoreSkipped("all connections are busy")
        try:
            while self._forker or self._used >= MAX_CONNECTIONS:
                left = until - time.monotonic()
                if left <= 0.0:
                    raise StoreSkipped("all connections are busy")
                self._changed.wait(left)
            self._used += 1
        finally:
            self._changed.release()

    def _leave(self, connection: Connection | None) -> None:
        try:
            if connection is not None:
                if connection.in_transaction:
                    connection.rollback()
                self._idle.append(connection)
        except sqlite3.Error:  # what it was used for has its result, or its own error
            _close(connection)
        finally:
            with self._changed:
                self._used -= 1
                self._changed.notify_all()

    def _take(self, until: float) -> Connection:
        identity = _identity(self._path)
        connection = None
        while connection is None:
            try:
                connection = self._idle.pop()
            except IndexError:
                connection = self._open(until)
                identity = connection.identity
            if connection.identity != identity:  # the file was deleted or replaced
                _close(connection)
                connection = None
        patience = max(1, min(1000, int(1000 * (until - time.monotonic()))))
        if not patience <= connection.patience < patience + 20:
            connection.execute(f"PRAGMA busy_timeout={patience}")
            connection.patience = patience
        return connection

    def _open(self, until: float) -> Connection:
        if _identity(self._path) is None:
            folder = os.path.dirname(self._path)
            if not os.path.isdir(folder):
                os.makedirs(folder, mode=0o700, exist_ok=True)
            # SQLite gives the files beside it the same permissions.
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        while True:
            connection = sqlite3.connect(
                self._path,
                timeout=max(0.0, until - time.monotonic()),
                isolation_level=None,
                check_same_thread=False,
                factory=Connection,
            )
            try:
                connection.identity = _identity(self._path) or (0, 0)
                connection.execute("PRAGMA auto_vacuum=INCREMENTAL")
                connection.execute("PRAGMA journal_mode=WAL")
                # What a killed process has written stays; a power cut may lose the last moments.
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.executescript(self._schema)
                return connection
            except sqlite3.OperationalError as error:
                # SQLite doesn't wait for the switch to WAL, which another process may be making.
                connection.close()
                busy = getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY
                if not busy or until - time.monotonic() < 0.01:
                    raise
                time.sleep(0.005)
            except BaseException:  # nobody else has the connection to close it
                connection.close()
                raise

    # --- forks: SQLite's connections, and the locks that it notes for a process, don't survive them

    def before_fork(self) -> None:
        """Closes all connections, and lets nobody open any."""
        until = time.monotonic() + _BEFORE_FORK
        if not self._changed.acquire(timeout=_BEFORE_FORK):
            return
        self._forker = threading.get_ident()
        while self._used and time.monotonic() < until:
            self._changed.wait(until - time.monotonic())
        self.close()

    def after_fork(self) -> None:
        """Lets others go on, in the parent."""
        if self._forker == threading.get_ident():  # else the lock couldn't be had in time
            self._forker = None
            self._changed.notify_all()
            self._changed.release()

    def in_child(self) -> None:
        """Begins anew, in the child."""
        self._changed = threading.Condition(threading.Lock())
        _inherited.extend(self._idle)  # opened in the very last moment, if there are any
        self._idle.clear()
        self._used = 0
        self._forker = None


def _close(connection: Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):  # it is gone either way
            connection.close()


def _identity(path: str) -> Identity | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


_databases: weakref.WeakSet[Database] = weakref.WeakSet()
# To close a connection that the parent opened would meddle with the parent's locks.
_inherited: list[Connection] = []


class _Forking:
    """Lets one thread fork at a time: two would wait for each other's databases."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forker: int | None = None
        self._held: list[Database] = []

    def begin(self) -> None:
        if self._lock.acquire(timeout=2 * _BEFORE_FORK):
            self._forker = threading.get_ident()
            self._held = alive(_databases)
            for database in self._held:
                database.before_fork()

    def end(self) -> None:
        if self._forker == threading.get_ident():  # else another's fork took too long
            held, self._held = self._held, []
            for database in held:
                database.after_fork()
            self._forker = None
            self._lock.release()


_forking = _Forking()


def _before_fork() -> None:
    _forking.begin()


def _after_fork() -> None:
    _forking.end()


def _in_child() -> None:
    global _forking
    _forking = _Forking()
    for database in list(_databases):
        database.in_child()


# Windows cannot fork and has no such hook. A hook cannot be taken back, hence one for all.
if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
