"""The SQLite file: locked, damaged, deleted, read-only, full, and shared by many processes."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import shutil
import sqlite3
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmkit import InvalidRequestError
from llmkit.cache import LLMCache, SQLiteCache
from tests.cache.servers import Clock, in_child, until
from tests.machine import Lag


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def cache(path: Path) -> Iterator[SQLiteCache]:
    cache = SQLiteCache(path)
    yield cache
    cache.close()


def works(cache: LLMCache) -> bool:
    return cache.set("check", 1) and cache.get("check") == 1


# --- the file -------------------------------------------------------------------------------------


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """Answers are nobody else's business, in the file and in those beside it."""
    cache = SQLiteCache(tmp_path / "folder" / "deeper" / "cache.db")
    assert works(cache)
    for path in (tmp_path / "folder" / "deeper").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "folder" / "deeper").stat().st_mode) & 0o077 == 0
    cache.close()


def test_nothing_is_made_before_its_first_use(cache: SQLiteCache, path: Path) -> None:
    """Making the object, and asking for its figures, touches no disk."""
    assert cache.stats()["entries"] is None
    assert not path.exists()
    cache.set("key", 1)
    assert cache.stats()["entries"] == 1
    assert cache.stats()["bytes"] > 0


@pytest.mark.parametrize("beside", [False, True])
def test_a_file_that_is_deleted_is_made_anew(
    cache: SQLiteCache, path: Path, beside: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """With or without the files beside it; nothing is written into the void."""
    cache.set("key", 1)
    for each in path.parent.iterdir():
        if beside or each == path:
            each.unlink()
    assert cache.get("key") is None
    assert works(cache)
    again = SQLiteCache(path)
    assert again.get("check") == 1
    again.close()
    assert caplog.records == []


def test_a_file_that_is_replaced_is_read_anew(cache: SQLiteCache, path: Path) -> None:
    """What lies there now counts, not what lay there when it was opened."""
    cache.set("key", 1)
    other = SQLiteCache(path.with_name("other.db"))
    other.set("key", 2)
    other.close()
    for each in path.parent.glob("cache.db*"):
        each.unlink()
    path.with_name("other.db").rename(path)
    assert cache.get("key") == 2


@pytest.mark.parametrize("what", ["text", "cut off", "a folder", "overwritten"])
def test_a_damaged_file_hurts_nobody(
    path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads miss and writes fail, at hardly any cost; it isn't deleted, and said once."""
    cache = SQLiteCache(path)
    if what == "text":
        path.write_text("somebody's notes, which must not be lost " * 100)
    elif what == "a folder":
        path.mkdir()
    else:
        for number in range(200):
            cache.set(str(number), os.urandom(500).hex())
        cache.close()
        size = path.stat().st_size
        with path.open("r+b") as file:
            if what == "cut off":
                file.truncate(size // 2 + 100)
            else:
                file.seek(100)
                file.write(b"\xff" * (size - 100))
    before = path.read_bytes() if path.is_file() else None
    for _ in range(30):
        cache.set("key", 1)
        cache.get("key")
    begin = time.monotonic()
    for _ in range(50):
        cache.get("key")
    assert (time.monotonic() - begin) / 50 < 0.005
    assert not cache.stats()["available"]
    assert cache.stats()["errors"] > 0
    assert not cache.clear()
    if before is not None and what == "text":
        assert path.read_bytes() == before
    assert 1 <= len(caplog.records) <= 2  # reading and writing, one line each
    cache.close()


def test_it_recovers_when_the_damage_is_mended(path: Path) -> None:
    """Who deletes the damaged file has a cache again within seconds."""
    path.write_text("no database " * 1000)
    cache = SQLiteCache(path)
    assert not works(cache)
    path.unlink()
    until(lambda: works(cache))
    assert cache.stats()["available"]
    cache.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_file_that_may_only_be_read(caplog: pytest.LogCaptureFixture) -> None:
    """Another user's file: no operation raises."""
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o755)
        owner = SQLiteCache(folder / "cache.db")
        owner.set("key", 1)
        owner.close()
        (folder / "cache.db").chmod(0o444)

        def child() -> None:
            if os.getuid() == 0:
                os.setuid(65534)
            folder.chmod(0o555) if os.getuid() == folder.stat().st_uid else None
            cache = SQLiteCache(folder / "cache.db")
            for _ in range(3):
                assert not cache.set("other", 2)
                assert cache.get("key") in (1, None)
                assert cache.delete("key") is False
                assert cache.acquire("key", "token", 1) == "unavailable"
                assert not cache.clear()
            nowhere = SQLiteCache(folder / "folder" / "cache.db")
            assert not nowhere.set("key", 1)
            assert nowhere.get("key") is None

        assert in_child(child) == 0
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_full_disk(cache: SQLiteCache, path: Path) -> None:
    """A write that finds no room is False; what is there can still be read."""
    assert cache.set("key", 1)
    with cache._database.get().use(time.monotonic() + 1) as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages}")
    assert not cache.set("large", os.urandom(50_000).hex())
    assert cache.get("key") == 1


# --- its size -------------------------------------------------------------------------------------


def test_what_has_expired_is_removed(path: Path, clock: Clock) -> None:
    """Now and then, by whoever writes; the stale time counts as life."""
    cache = SQLiteCache(path, clock=clock)
    for number in range(300):
        cache.write(str(number), number, ttl=10, stale_ttl=10)
    cache.write("stale", 1, ttl=10, stale_ttl=1e6)
    clock.now += 30
    for number in range(256):
        cache.set("living", number)
    assert cache.stats()["entries"] == 2
    cache.close()


def test_entries_are_bounded(path: Path) -> None:
    """What would expire first goes first."""
    cache = SQLiteCache(path, max_entries=100)
    for number in range(512):
        cache.set(str(number), number, ttl=1000 + number)
    assert cache.stats()["entries"] == 100
    assert cache.get("511") == 511
    assert cache.get("0") is None
    cache.close()


def test_bytes_are_bounded(path: Path) -> None:
    """The file shrinks again, too."""
    cache = SQLiteCache(path, max_bytes=1_000_000)
    for number in range(400):
        cache.set(str(number), os.urandom(5000).hex(), ttl=1000 + number)
    assert cache.stats()["bytes"] <= 1_200_000
    assert cache.get("399") is not None
    cache.close()
    assert path.stat().st_size <= 2_000_000
    assert cache.clear()
    cache.close()
    assert path.stat().st_size <= 200_000


def test_a_value_larger_than_the_bound_is_not_kept(path: Path) -> None:
    """It is refused before it reaches the disk."""
    cache = SQLiteCache(path, max_bytes=10_000)
    assert not cache.set("key", os.urandom(20_000).hex())
    assert cache.stats()["errors"] == 0
    cache.close()


@pytest.mark.parametrize("bound", [0, True, 1.5])
def test_bounds_are_whole_numbers(path: Path, bound: Any) -> None:
    """There is no unbounded file by mistake."""
    with pytest.raises(InvalidRequestError, match="max_entries"):
        SQLiteCache(path, max_entries=bound)
    with pytest.raises(InvalidRequestError, match="max_bytes"):
        SQLiteCache(path, max_bytes=bound)
    with pytest.raises(InvalidRequestError, match="path"):
        SQLiteCache("")


# --- others at the same file ----------------------------------------------------------------------


def test_a_lock_held_by_another_process_is_waited_for_briefly(
    cache: SQLiteCache, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Reads go on; writes wait for 0.2 s at most, soon not at all, and come back by themselves."""
    caplog.set_level(logging.INFO, "llmkit")
    assert cache.set("key", 1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            begin = time.monotonic()
            assert not cache.set("key", 2)
            assert time.monotonic() - begin < 0.5
            assert cache.get("key") == 1
        with Lag() as lag:
            begin = time.monotonic()
            assert not cache.set("key", 2)
            assert cache.acquire("key", "token", 1) == "unavailable"
            taken = time.monotonic() - begin
        assert taken < 0.1 + 2 * lag.worst
        other.execute("ROLLBACK")
    until(lambda: cache.set("key", 3))
    assert cache.get("key") == 3
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


def _write(path: str, process: int, results: Any) -> None:
    cache = SQLiteCache(path)
    kept = sum(cache.set(f"{process} {number}", [process, number]) for number in range(200))
    found = sum(cache.get(f"{process} {number}") == [process, number] for number in range(200))
    results.put((kept, found, cache.stats()["errors"]))
    cache.close()


def test_many_processes_begin_at_once(path: Path) -> None:
    """They make the file together, lose nothing, and see what the others wrote."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_write, args=(str(path), number, results)) for number in range(3)
    ]
    for process in processes:
        process.start()
    outcomes = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join(10)
    results.close()
    assert outcomes == [(200, 200, 0)] * 3
    cache = SQLiteCache(path)
    assert [cache.get(f"{process} 199") for process in range(3)] == [[n, 199] for n in range(3)]
    assert cache.stats()["entries"] == 600
    cache.close()


def test_no_connection_is_open_during_a_fork(cache: SQLiteCache) -> None:
    """SQLite's locks belong to a process: the child has none, and takes its own."""
    cache.set("key", 1)
    database = cache._database.get()
    assert len(database._idle) == 1
    inherited: list[int] = []

    def child() -> None:
        inherited.append(len(database._idle))
        assert inherited == [0]
        assert cache.get("key") == 1
        assert cache._database.get() is not database

    assert in_child(child) == 0
    assert len(database._idle) == 0
    assert cache.get("key") == 1


def test_a_fork_waits_for_work_that_is_under_way(cache: SQLiteCache) -> None:
    """But not for ever; and those who come meanwhile wait for the fork."""
    database = cache._database.get()
    begun, finish = threading.Event(), threading.Event()

    def work() -> None:
        with database.use(time.monotonic() + 1) as connection:
            connection.execute("SELECT 1")
            begun.set()
            finish.wait(5)

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait(5)
    threading.Timer(0.1, finish.set).start()
    begin = time.monotonic()
    assert in_child(lambda: works(cache) or os._exit(7)) == 0
    assert time.monotonic() - begin >= 0.05
    thread.join()
    assert works(cache)


def test_a_lock_that_is_held_is_told_while_somebody_writes(tmp_path: Path) -> None:
    """Who waits for a lock asks by a read: a file that is written to makes nobody go alone."""
    holder, waiter = (SQLiteCache(tmp_path / "cache.db") for _ in range(2))
    until(lambda: holder.acquire("k", "one", 60.0) == "granted")
    until(lambda: waiter.acquire("k", "two", 60.0) == "held")  # its connection is open now
    with contextlib.closing(sqlite3.connect(tmp_path / "cache.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        until(lambda: waiter.acquire("k", "two", 60.0) == "held")
        assert waiter.stats()["outages"] == 0
        assert waiter.acquire("free", "two", 60.0) == "unavailable"
        writer.execute("COMMIT")
    assert holder.renew("k", "one", 60.0)
    holder.close()
    waiter.close()


def test_a_clock_that_is_put_back_leaves_no_lock_behind(path: Path, clock: Clock) -> None:
    """A dead process's lock from before then isn't held for hours; a living one's is renewed."""
    cache = SQLiteCache(path, clock=clock)
    assert cache.acquire("dead", "one", 2.0) == "granted"
    assert cache.acquire("alive", "one", 2.0) == "granted"
    clock.now -= 7200
    assert cache.renew("alive", "one", 2.0)
    assert cache.acquire("alive", "two", 2.0) == "held"
    assert cache.acquire("dead", "two", 2.0) == "granted"
    assert not cache.renew("dead", "one", 2.0)
    assert cache.acquire("dead", "three", 2.0) == "held"


@pytest.mark.parametrize("value", ["9e999", "-9e999", "'x'", "x'00'"])
@pytest.mark.parametrize("column", ["expires", "kept"])
def test_a_row_without_a_sensible_time_is_a_miss(
    cache: SQLiteCache, path: Path, column: str, value: str
) -> None:
    """Whatever else writes into the file makes no entry that lives forever."""
    assert cache.set("key", 1)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(f"UPDATE llmkit_cache_1 SET {column} = {value}")
    assert cache.read("key", stale=True) is None
    assert cache.set("key", 2)
    assert cache.get("key") == 2


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE llmkit_cache_1 (a, b)",
        "CREATE TABLE llmkit_cache_1 (id INTEGER PRIMARY KEY, namespace, key, expires, kept, body)",
        "CREATE VIEW llmkit_cache_1 AS SELECT 1 AS a",
    ],
)
def test_a_foreign_table_of_the_same_name(path: Path, statement: str) -> None:
    """It is left as it is, and the cache counts as one that can't be used."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(statement)
        before = other.execute("SELECT sql FROM sqlite_master WHERE name = 'llmkit_cache_1'")
        said = before.fetchall()
        cache = SQLiteCache(path)
        assert not cache.set("key", 1)
        assert cache.get("key") is None
        assert not cache.clear()
        assert cache.stats()["errors"] + cache.stats()["skipped"] >= 3
        after = other.execute("SELECT sql FROM sqlite_master WHERE name = 'llmkit_cache_1'")
        assert after.fetchall() == said


@pytest.mark.parametrize("path", [":memory:", "", "a\0b"])
def test_what_is_no_file_is_refused(path: str) -> None:
    """No file of the name `:memory:` comes into being."""
    with pytest.raises(InvalidRequestError, match="path"):
        SQLiteCache(path)


def test_a_namespace_is_a_text(path: Path) -> None:
    """Half a surrogate pair, as of a variable that is no UTF-8, would fail every operation."""
    for namespace in ("", "\udc80"):
        with pytest.raises(InvalidRequestError, match="namespace="):
            SQLiteCache(path, namespace)


def test_many_threads_fork_at_once(cache: SQLiteCache) -> None:
    """Forks beside forks, and beside reads, wait for each other a little, and never for good."""
    assert cache.set("key", 1)
    ended, codes, over = [], [], time.monotonic() + 1.0

    def child() -> None:
        assert cache.get("key") == 1

    def fork() -> None:
        while time.monotonic() < over:
            codes.append(in_child(child))
        ended.append("forks")

    def read() -> None:
        while time.monotonic() < over:
            cache.get("key")
        ended.append("reads")

    threads = [threading.Thread(target=each, daemon=True) for each in (fork, read, fork, read) * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(ended) == len(threads)
    # A child, or a read, that found the file locked for all of its allowance has a miss.
    assert set(codes) <= {0, 1}
    assert 0 in codes
    until(lambda: cache.get("key") == 1, 30)  # it rests for a while after such misses
