"""Entries outside this process: their form, and what is not one."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from llmkit.cache import LLMCache, RedisCache, SQLiteCache
from llmkit.cache.entry import COMPRESSED_ABOVE, FORMAT, Entry, pack, unpack
from llmkit.cache.shared import plain
from tests.cache.servers import RedisServer

pytestmark = pytest.mark.usefixtures("patient")


@given(text=st.text(st.characters()), moments=st.tuples(st.floats(0, 1e10), st.floats(0, 1e10)))
def test_an_entry_comes_back(text: str, moments: tuple[float, float]) -> None:
    """Whatever the text, also half a surrogate pair."""
    entry = Entry(text, *moments)
    assert unpack(pack(entry)) == entry


def test_large_entries_are_compressed() -> None:
    """Prose takes a part of its size, noise no more than its own, and short texts are left."""
    prose = Entry("a word and another one " * 1000, 1.0, 2.0)
    assert len(pack(prose)) < 500
    assert unpack(pack(prose)) == prose
    short = Entry("a" * COMPRESSED_ABOVE, 1.0, 2.0)
    assert b"aaa" in pack(short)


BOMB = zlib.compress(bytes(40 * 2**20), 9)
FOREIGN = {
    "empty": b"",
    "text": b"somebody else's value",
    "json": b'{"answer": 42}',
    "no head": b"\n{}",
    "older": pack(Entry("1", 9e9, 9e9)).replace(b"[%d," % FORMAT, b"[0,", 1),
    "newer": pack(Entry("1", 9e9, 9e9)).replace(b"[%d," % FORMAT, b"[99,", 1),
    "cut off": pack(Entry('"' + "x" * 5000 + '"', 9e9, 9e9))[:-8],
    "no compression": b"[%d,9e9,9e9,1]\nplain" % FORMAT,
    "no JSON": pack(Entry("{broken", 9e9, 9e9)),
    "no UTF-8": b'[%d,9e9,9e9,0]\n"\xff\xff"' % FORMAT,
    "no time": b'[%d,"a","b",0]\n1' % FORMAT,
    "endless": b"[%d,1e999,1e999,0]\n1" % FORMAT,
    "pickle": b"\x80\x04K\x01.",
    "deep": pack(Entry("[" * 100_000, 9e9, 9e9)),
    "a bomb": b"[%d,9e9,9e9,1]\n" % FORMAT + BOMB,
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_is_no_entry_is_a_miss_in_redis(redis_server: RedisServer, what: str) -> None:
    """Old, foreign, damaged: counted as a miss, and replaced by the next write."""
    cache = RedisCache(redis_server.url, "foreign")
    place = f"{cache._prefix}k:{hashlib.sha256(b'key').hexdigest()}"
    import redis

    with redis.Redis(unix_socket_path=str(redis_server.socket)) as client:
        client.set(place, FOREIGN[what])
    _is_a_miss(cache)
    cache.close()


def test_too_large_values_are_not_kept(redis_server: RedisServer, tmp_path: Path) -> None:
    """A value that could not be read back isn't written either, in text or compressed."""
    noise = os.urandom(5 * 2**20).hex()
    for cache, value in (
        (RedisCache(redis_server.url, "large"), "x" * (33 * 2**20)),
        (RedisCache(redis_server.url, "large"), noise),
        (SQLiteCache(tmp_path / "cache.db"), "x" * (33 * 2**20)),
        (SQLiteCache(tmp_path / "cache.db", max_bytes=2**20), noise),
    ):
        assert not cache.set("key", value)
        assert cache.get("key") is None
        assert cache.stats()["errors"] == 0
        cache.close()


def test_another_type_is_a_miss_in_redis(redis_server: RedisServer) -> None:
    """A list under our key makes the server refuse; nobody notices."""
    cache = RedisCache(redis_server.url, "foreign types")
    redis_server.ask("LPUSH", f"{cache._prefix}k:{hashlib.sha256(b'key').hexdigest()}", "x")
    _is_a_miss(cache)
    cache.close()


ROWS = {
    "no time": ("a", "b", 0, b"1"),
    "no JSON": (9e9, 9e9, 0, b"{broken"),
    "no text": (9e9, 9e9, 0, 7),
    "no UTF-8": (9e9, 9e9, 0, b'"\xff"'),
    "no compression": (9e9, 9e9, 1, b"plain"),
    "cut off": (9e9, 9e9, 1, zlib.compress(b'"' + b"x" * 5000 + b'"')[:-8]),
    "deep": (9e9, 9e9, 0, b"[" * 100_000),
    "a bomb": (9e9, 9e9, 1, BOMB),
}


@pytest.mark.parametrize("what", ROWS)
def test_what_is_no_entry_is_a_miss_in_sqlite(tmp_path: Path, what: str) -> None:
    """A row that somebody else has changed is a miss, and replaced by the next write."""
    cache = SQLiteCache(tmp_path / "cache.db")
    cache.set("key", 1)
    with closing(sqlite3.connect(tmp_path / "cache.db", isolation_level=None)) as other:
        other.execute(
            f"UPDATE llmkit_cache_{FORMAT} SET expires = ?, kept = ?, squeezed = ?, body = ?",
            ROWS[what],
        )
    _is_a_miss(cache)
    cache.close()


def _is_a_miss(cache: LLMCache) -> None:
    assert cache.get("key") is None
    assert cache.stats()["misses"] == 1
    cache.delete("key")
    assert cache.set("key", 2)
    assert cache.get("key") == 2


@given(st.text(), st.text())
def test_names_are_told_apart(one: str, other: str) -> None:
    """No two namespaces are written the same way, and none has a character of a pattern."""
    assert (plain(one) == plain(other)) == (one == other)
    assert not set(plain(one)) & set("*?[]\\:{} \n")


def test_no_key_can_be_read_in_the_store(redis_server: RedisServer, tmp_path: Path) -> None:
    """Keys are digests: a prompt that somebody uses as a key stays here."""
    far = RedisCache(redis_server.url, "secret keys")
    near = SQLiteCache(tmp_path / "cache.db")
    for cache in (far, near):
        cache.set("a secret key", 1)
        cache.acquire("a secret key", "token", 1)
        cache.close()
    assert not [key for key in redis_server.ask("KEYS", "*") if b"secret key" in key.lower()[30:]]
    for path in tmp_path.iterdir():
        assert b"a secret key" not in path.read_bytes()
