"""The connections to an SQLite file: what a failure or a signal leaves behind."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmkit.cache import sqlite_file
from llmkit.cache.breaker import StoreSkipped, StoreTimeout
from llmkit.cache.sqlite_file import Connection, Database

SCHEMA = "CREATE TABLE IF NOT EXISTS t (x)"


def soon(seconds: float = 0.3) -> float:
    return time.monotonic() + seconds


class UnwillingConnection(Connection):
    """A connection that can't roll back."""

    def rollback(self) -> None:
        raise sqlite3.OperationalError("disk I/O error")


def test_a_rollback_that_fails_takes_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed rollback closes its connection, and leaves its place and the caller's error."""
    monkeypatch.setattr(sqlite_file, "Connection", UnwillingConnection)
    database = Database(str(tmp_path / "a.db"), SCHEMA)
    busy = sqlite3.OperationalError("database is locked")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY
    used: list[Connection] = []

    def fail() -> None:
        with database.use(soon()) as connection:
            used.append(connection)
            connection.execute("BEGIN IMMEDIATE")
            raise busy

    with pytest.raises(StoreTimeout):
        fail()
    assert database._used == 0
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        used[0].execute("SELECT 1")


def test_a_signal_handler_never_waits_for_the_thread_that_it_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A handler that uses the cache while its own thread holds the lock goes on without it."""
    database = Database(str(tmp_path / "a.db"), SCHEMA)
    notify = database._changed.notify_all
    seen: list[str] = []

    def handle(*_: object) -> None:
        try:
            with database.use(soon(0.05)):
                seen.append("used")
        except StoreSkipped:
            seen.append("skipped")

    def notify_interrupted() -> None:
        monkeypatch.setattr(database._changed, "notify_all", notify)
        handle()  # as if a signal came here, under the lock
        notify()

    monkeypatch.setattr(database._changed, "notify_all", notify_interrupted)
    thread = threading.Thread(target=lambda: use_once(database), daemon=True)
    thread.start()
    thread.join(5.0)
    assert not thread.is_alive()
    assert seen == ["skipped"]
    assert database._used == 0


def use_once(database: Database) -> None:
    with database.use(soon()):
        pass


def test_a_database_made_during_a_fork_leaves_nothing_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a fork frees what its begin has held, whatever other threads make meanwhile."""

    class Growing(list[Database]):
        """As a WeakSet behaves to which another thread adds in the midst of a look."""

        left = 0

        def __iter__(self) -> Iterator[Database]:
            if self.left:
                self.left -= 1
                raise RuntimeError("Set changed size during iteration")
            return super().__iter__()

    database = Database(str(tmp_path / "a.db"), SCHEMA)
    databases = Growing([database])
    monkeypatch.setattr(sqlite_file, "_databases", databases)
    forking = sqlite_file._Forking()
    databases.left = 1
    forking.begin()
    assert database._forker is not None
    databases.left = 1
    forking.end()
    assert database._forker is None
    assert not forking._lock.locked()
    use_once(database)
