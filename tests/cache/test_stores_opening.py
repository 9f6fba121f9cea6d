"""The process's shared caches, by the settings and by URLs."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import llmkit
import llmkit.cache
from llmkit import ConfigurationError, InvalidRequestError
from llmkit.cache import (
    MemoryCache,
    RedisCache,
    SQLiteCache,
    TwoLevelCache,
    cache_result,
    clear_cache,
    close_caches,
    get_cache,
    open_cache,
)
from llmkit.settings import Settings, reload_settings
from tests.cache.servers import RedisServer, in_child

pytestmark = pytest.mark.usefixtures("patient")


def test_without_a_url_it_is_memory() -> None:
    """One cache for the process, of the size and life that the settings say."""
    cache = get_cache()
    assert isinstance(cache, MemoryCache)
    assert (cache.max_entries, cache.ttl) == (1000, 3600.0)
    assert get_cache() is cache
    assert open_cache(None) is open_cache(True) is cache
    assert open_cache(False) is None


def test_all_threads_get_one() -> None:
    """Also those that come together, first."""
    with ThreadPoolExecutor(16) as pool:
        caches = list(pool.map(lambda _: get_cache(), range(64)))
    assert len({id(cache) for cache in caches}) == 1


def test_a_child_begins_with_what_its_parent_had() -> None:
    """Workers that are forked after a warm-up are warm."""
    cache_result("key", 1)

    def child() -> None:
        assert get_cache().get("key") == 1
        assert cache_result("key", 2)

    assert in_child(child) == 0
    assert get_cache().get("key") == 1


def test_a_url_adds_a_second_level(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, redis_server: RedisServer
) -> None:
    """LLMKIT_CACHE_URL, read again by reload_settings, decides what is behind memory."""
    monkeypatch.setenv("LLMKIT_CACHE_URL", f"sqlite:///{tmp_path}/cache.db")
    monkeypatch.setenv("LLMKIT_CACHE_NAMESPACE", "opening")
    monkeypatch.setenv("CACHE_TTL", "60")
    monkeypatch.setenv("CACHE_MAX_ENTRIES", "7")
    reload_settings()
    cache = get_cache()
    assert isinstance(cache, TwoLevelCache)
    assert isinstance(cache.l1, MemoryCache)
    assert isinstance(cache.l2, SQLiteCache)
    assert cache.l2.path == str(tmp_path / "cache.db")
    assert (cache.l1.max_entries, cache.ttl, cache.l2.namespace) == (7, 60.0, "opening")
    assert cache.set("key", 1)

    monkeypatch.setenv("LLMKIT_CACHE_URL", redis_server.url)
    reload_settings()
    other = get_cache()
    assert isinstance(other, TwoLevelCache)
    assert isinstance(other.l2, RedisCache)
    assert other.get("key") is None
    assert cache_result("key", 2, ttl=30)
    assert other.l2.get("key") == 2
    assert clear_cache()
    assert other.l2.get("key") is None
    assert cache.get("key") == 1


def test_the_host_applications_variables_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """REDIS_URL and CACHE_URL are not llmkit's."""
    for name in ("REDIS_URL", "CACHE_URL"):
        monkeypatch.setenv(name, "redis://localhost:1/0")
    reload_settings()
    assert isinstance(get_cache(), MemoryCache)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///relative.db", "{cwd}/relative.db"),
        ("sqlite:////absolute/x y.db", "/absolute/x y.db"),
        ("SQLite:///~/cache.db", "{home}/cache.db"),
    ],
)
def test_paths_of_files(url: str, path: str) -> None:
    """Three slashes for one that is relative to the working directory or to ~, four for others."""
    cache = open_cache(url)
    assert isinstance(cache, TwoLevelCache)
    assert isinstance(cache.l2, SQLiteCache)
    assert cache.l2.path == path.format(cwd=Path.cwd(), home=Path.home())


def test_one_cache_for_each_url_and_namespace(redis_server: RedisServer) -> None:
    """Clients that name the same URL share memory and connections."""
    cache = open_cache(redis_server.url)
    assert open_cache(redis_server.url) is cache
    assert open_cache(redis_server.url, Settings(cache_namespace="other")) is not cache
    assert open_cache(f"{redis_server.url}?x=1") is not cache


def test_a_cache_of_ones_own() -> None:
    """An LLMCache is taken as it is."""
    cache = MemoryCache()
    assert open_cache(cache) is cache


@pytest.mark.parametrize("given", [7, b"redis://", object(), ["redis://"]])
def test_what_is_no_cache(given: Any) -> None:
    """The type is named."""
    with pytest.raises(InvalidRequestError, match=type(given).__name__):
        open_cache(given)


@pytest.mark.parametrize(
    "url",
    [
        *("memory", "ftp://x", "sqlite://", "sqlite:///", "sqlite://x"),
        *("sqlite:///:memory:", "sqlite:///c.db?mode=ro"),
    ],
)
def test_what_is_no_url(url: str) -> None:
    """It is said what was expected."""
    with pytest.raises(ConfigurationError, match="expected"):
        open_cache(url)


def test_a_missing_extra_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who sets LLMKIT_CACHE_URL asked for it."""
    monkeypatch.setenv("LLMKIT_CACHE_URL", "redis://localhost")
    monkeypatch.setitem(sys.modules, "redis", None)
    reload_settings()
    with pytest.raises(ConfigurationError, match="pip install"):
        get_cache()


def test_closed_caches_are_made_anew(tmp_path: Path) -> None:
    """`close_caches` forgets memory, and nothing in stores."""
    url = f"sqlite:///{tmp_path}/cache.db"
    cache = open_cache(url)
    assert cache is not None
    cache.set("key", 1)
    close_caches()
    again = open_cache(url)
    assert again is not None
    assert again is not cache
    found = again.read("key")
    assert found is not None
    assert found.level == "sqlite"


def test_every_name_resolves() -> None:
    """The names that are loaded when they are asked for are those that are promised."""
    for name in llmkit.cache.__all__:
        assert getattr(llmkit.cache, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Cache'"):
        llmkit.cache.Cache  # noqa: B018


def test_a_memory_cache_loads_neither_redis_nor_sqlite(tmp_path: Path) -> None:
    """Start-up pays for what is used."""
    program = """
import sys
from llmkit.cache import get_cache, cache_result
cache_result("key", 1)
loaded = {"redis", "sqlite3", "openai", "asyncio", "ssl", "httpx2"} & set(sys.modules)
assert not loaded, loaded
"""
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(llmkit.__file__).parent.parent)},
    )


def test_a_cache_shows_where_it_is_and_no_password(tmp_path: Path) -> None:
    """A repr, as a notebook prints it, names the levels and the file, and never a URL."""
    shown = repr(open_cache("redis://user:hunter2@127.0.0.1:1/0"))
    assert shown.startswith("TwoLevelCache(MemoryCache(max_entries=1000, ")
    assert "RedisCache(" in shown
    assert "namespace='llmkit'" in shown
    assert "hunter2" not in shown
    assert f"SQLiteCache('{tmp_path}/c.db', " in repr(open_cache(f"sqlite:///{tmp_path}/c.db"))


@pytest.mark.parametrize(
    "url", ["mongodb://user:hunter2@host/", "http://host", "redis", "file:c.db"]
)
def test_an_unknown_url_is_told_all_that_there_are(url: str) -> None:
    """The error names every kind of place, SQLite's file among them, and no password."""
    with pytest.raises(ConfigurationError, match=r"redis://….*redis\+sentinel.*sqlite:///") as told:
        open_cache(url)
    assert "hunter2" not in str(told.value)


def test_a_file_whose_folder_is_missing_gets_one(tmp_path: Path) -> None:
    """A SQLite URL needs no folder made beforehand; where none can be, memory goes on alone."""
    cache = open_cache(f"sqlite:///{tmp_path}/a/b/c.db")
    assert cache is not None
    assert cache.set("k", 1)
    assert (tmp_path / "a" / "b" / "c.db").is_file()
    (tmp_path / "file").write_text("")
    alone = open_cache(f"sqlite:///{tmp_path}/file/b/c.db")
    assert alone is not None
    assert alone.set("k", 1)
    assert alone.get("k") == 1
    assert alone.stats()["levels"]["sqlite"]["errors"] > 0
