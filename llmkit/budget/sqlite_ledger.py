"""Books in an SQLite file, for the processes of one machine."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

from llmkit.budget.amounts import Amount, Limit, from_nano, nano_above, nano_below
from llmkit.budget.ledger import Ledger, Standing, StoreBusy, StoreError
from llmkit.process_local import ProcessLocal

__all__ = ["SQLiteLedger"]

# How long the books remember that an expired reservation was charged, so that its call, if it does
# settle, corrects the charge.
REMEMBERED = 86_400.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS llmkit_spent (
    name TEXT PRIMARY KEY, nano_usd INTEGER NOT NULL, tokens INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS llmkit_held (
    name TEXT NOT NULL, key TEXT NOT NULL, nano_usd INTEGER NOT NULL, tokens INTEGER NOT NULL,
    expires REAL NOT NULL, charged INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (name, key)
) WITHOUT ROWID;
"""
_CHARGE = """
INSERT INTO llmkit_spent VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET
    nano_usd = nano_usd + excluded.nano_usd, tokens = tokens + excluded.tokens
"""
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


# SQLite must not be inside a fork: the child would share its locks, never see those that another
# thread held at that moment opened, and lose what it wrote once the parent closed the file. So one
# lock for all files is held while a process forks, and no file is open. Reentrant for the sake of
# a signal handler that makes a call.
_taken = threading.RLock()
_ledgers: weakref.WeakSet[SQLiteLedger] = weakref.WeakSet()


class _Database:
    """One connection, which the threads of a process take in turn."""

    def __init__(self, path: Path) -> None:
        # No time-out: who finds the file taken waits in its Scope, not inside SQLite.
        self.connection = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self.connection.execute("PRAGMA journal_mode=WAL")
            # What a killed process has written stays; only a power cut can lose the last moments.
            self.connection.execute("PRAGMA synchronous=NORMAL")
            self.connection.executescript(_SCHEMA)
            self.file = _identity(path)
        except BaseException:  # nobody else has the connection to close it
            self.connection.close()
            raise

    def close(self) -> None:
        with _taken:
            self.connection.close()


class SQLiteLedger(Ledger):
    """Keeps the books in an SQLite file, which is made when it isn't there.

    Args:
        path: The file; its folder must exist. It must be on a local disk: SQLite's write-ahead log
            does not work over a network.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()
        self._database = ProcessLocal(lambda: _Database(self.path), _Database.close)
        _ledgers.add(self)

    def reserve(
        self, name: str, key: str, amount: Amount, limit: Limit, *, now: float, expires: float
    ) -> Standing:
        """Reserves; see `Ledger.reserve`."""
        wanted = (nano_above(amount.usd), amount.tokens)
        most = (None if limit.usd is None else nano_below(limit.usd), limit.tokens)
        with self._transaction() as database:
            spent, reserved, in_flight = _read(database, name, now)
            granted = all(
                bound is None or gone + held + one <= bound
                for bound, gone, held, one in zip(most, spent, reserved, wanted, strict=True)
            )
            if granted:
                database.execute(
                    "INSERT INTO llmkit_held VALUES (?, ?, ?, ?, ?, 0)",
                    (name, key, *wanted, expires),
                )
        return _standing(spent, reserved, in_flight, granted)

    def settle(self, name: str, key: str, spent: Amount, *, reserved: bool = True) -> None:
        """Settles; see `Ledger.settle`."""
        cost = (nano_above(spent.usd), spent.tokens)
        with self._transaction() as database:
            held = database.execute(
                "SELECT nano_usd * charged, tokens * charged FROM llmkit_held"
                " WHERE name = ? AND key = ?",
                (name, key),
            ).fetchone()
            database.execute("DELETE FROM llmkit_held WHERE name = ? AND key = ?", (name, key))
            if held is not None or not reserved:
                usd, tokens = held or (0, 0)
                database.execute(_CHARGE, (name, cost[0] - usd, cost[1] - tokens))

    def standing(self, name: str, *, now: float) -> Standing:
        """Reads; see `Ledger.standing`."""
        with self._transaction() as database:
            return _standing(*_read(database, name, now))

    def close(self) -> None:
        """Closes this process's connection; the next use opens another."""
        self._database.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with _taken:
                database = self._database.get()
                if database.file != _identity(self.path):
                    raise StoreError(
                        f"{self.path} was deleted or replaced while it was in use; a new process,"
                        " or shutdown() in this one, begins new books"
                    )
                connection = database.connection
                if connection.in_transaction:  # Ctrl-C, in the middle of the last one's end
                    connection.execute("ROLLBACK")
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:  # Ctrl-C included: the file would stay locked
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
        except sqlite3.Error as error:
            # The low byte is the kind of error, whatever the rest says in detail.
            kind = getattr(error, "sqlite_errorcode", 0) & 0xFF
            problem = StoreBusy if kind in _BUSY else StoreError
            raise problem(f"{self.path}: {error}") from error


def _identity(path: Path) -> tuple[int, int] | None:
    """Returns what tells a file from another of the same name; None when there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _before_fork() -> None:
    _taken.acquire()
    for ledger in list(_ledgers):
        # What can't be closed is no worse in the child than it is here; the fork must go on.
        with contextlib.suppress(sqlite3.Error):
            ledger.close()


# Windows cannot fork and has no such hook.
if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(
        before=_before_fork, after_in_parent=_taken.release, after_in_child=_taken.release
    )


_Pair = tuple[int, int]


def _read(database: sqlite3.Connection, name: str, now: float) -> tuple[_Pair, _Pair, int]:
    """Returns what is spent and reserved, and how many calls are under way."""
    usd, tokens, expired = database.execute(
        "SELECT coalesce(sum(nano_usd), 0), coalesce(sum(tokens), 0), count(*)"
        " FROM llmkit_held WHERE name = ? AND charged = 0 AND expires <= ?",
        (name, now),
    ).fetchone()
    if expired:
        database.execute(_CHARGE, (name, usd, tokens))
        database.execute(
            "UPDATE llmkit_held SET charged = 1 WHERE name = ? AND charged = 0 AND expires <= ?",
            (name, now),
        )
        database.execute(
            "DELETE FROM llmkit_held WHERE charged = 1 AND expires <= ?", (now - REMEMBERED,)
        )
    spent = database.execute(
        "SELECT nano_usd, tokens FROM llmkit_spent WHERE name = ?", (name,)
    ).fetchone()
    usd, tokens, in_flight = database.execute(
        "SELECT coalesce(sum(nano_usd), 0), coalesce(sum(tokens), 0), count(*)"
        " FROM llmkit_held WHERE name = ? AND charged = 0",
        (name,),
    ).fetchone()
    return spent or (0, 0), (usd, tokens), in_flight


def _standing(spent: _Pair, reserved: _Pair, in_flight: int, granted: bool = False) -> Standing:
    return Standing(
        Amount(from_nano(spent[0]), spent[1]),
        Amount(from_nano(reserved[0]), reserved[1]),
        in_flight,
        granted,
    )
