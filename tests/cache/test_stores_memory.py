"""The cache in memory: its bounds, and that it stays within them."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmkit
from llmkit import InvalidRequestError
from llmkit.cache import MemoryCache
from tests.cache.servers import Clock


def test_what_was_used_longest_ago_goes_first() -> None:
    """At most max_entries are kept, and reading one saves it."""
    cache = MemoryCache(3)
    for key in "abc":
        cache.set(key, key)
    assert cache.read_near("a")
    cache.set("d", "d")
    assert [cache.get(key) for key in "abcd"] == ["a", None, "c", "d"]
    assert cache.stats()["entries"] == 3


def test_what_has_expired_goes_before_that(clock: Clock) -> None:
    """A dead entry doesn't push out a living one."""
    cache = MemoryCache(2, clock=clock)
    cache.set("living", 1)
    cache.set("dead", 2, ttl=1)
    clock.now += 2
    cache.set("new", 3)
    assert [cache.get(key) for key in ("living", "dead", "new")] == [1, None, 3]


def test_bytes_are_bounded() -> None:
    """However many entries are allowed, their bytes are counted, keys included."""
    cache = MemoryCache(10**6, 100_000)
    for number in range(300):
        cache.set(f"{number:01000}", "x" * 1000)
        assert cache.stats()["bytes"] <= 100_000
    assert 20 < cache.stats()["entries"] < 100


def test_a_value_that_is_too_large_is_not_kept() -> None:
    """It takes the place of its predecessor, which is out of date, and of nothing else."""
    cache = MemoryCache(10, 10_000)
    assert cache.set("key", "small")
    assert cache.set("other", "small")
    assert not cache.set("key", "x" * 20_000)
    assert (cache.get("key"), cache.get("other")) == (None, "small")
    assert cache.stats()["writes"] == 2


@pytest.mark.parametrize("bound", [0, -1, True, 1.5, None, pytest.param(-(10**5000), id="huge")])
@pytest.mark.parametrize("name", ["max_entries", "max_bytes"])
def test_bounds_are_whole_numbers(name: str, bound: Any) -> None:
    """There is no unbounded cache by mistake."""
    with pytest.raises(InvalidRequestError, match=name):
        MemoryCache(**{name: bound})


def test_looking_near_counts_no_misses() -> None:
    """The full look-up that follows counts them."""
    cache = MemoryCache()
    assert cache.read_near("key") is None
    assert cache.stats()["misses"] == 0
    cache.set("key", 1)
    found = cache.read_near("key")
    assert found is not None
    assert (found.value, found.level, found.stale) == (1, "memory", False)
    assert cache.stats()["hits"] == 1


def test_an_interrupt_leaves_no_disorder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a write empties the cache rather than breaking it."""
    cache = MemoryCache()
    cache.set("key", 1)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(type(cache._entries), "__setitem__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            cache.set("key", 2)
    assert cache.get("key") is None
    assert cache.set("key", 3)
    assert cache.get("key") == 3


class SignallingClock:
    """A clock whose every reading is interrupted by a signal handler."""

    def __init__(self) -> None:
        self.handle: Callable[[], object] | None = None

    def __call__(self) -> float:
        handle, self.handle = self.handle, None
        if handle is not None:
            handle()
            self.handle = handle
        return 1_000_000.0


def test_a_signal_handler_may_call_while_its_thread_is_at_the_entries() -> None:
    """A handler that uses the cache neither waits for the thread it interrupted nor breaks it."""
    clock = SignallingClock()
    cache = MemoryCache(3, clock=clock)
    handled: list[object] = []

    def handle() -> None:
        handled.append((cache.get("a"), cache.set("b", 2), cache.delete("d"), cache.stats()))

    def work() -> None:
        for number in range(20):
            cache.set("a", number)
            cache.set(f"c{number}", number)
            cache.get("b")
            cache.delete("d")

    cache.set("a", 1)
    clock.handle = handle
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(5)
    clock.handle = None
    assert not thread.is_alive()
    assert len(handled) > 80
    assert cache.set("e", 5)
    assert cache.get("e") == 5
    assert cache.stats()["entries"] <= 3


def test_memory_stays_flat(tmp_path: Path) -> None:
    """200,000 different keys, most of which go again, take no more than the first 40,000."""
    program = """
import resource
from llmkit.cache import MemoryCache
cache = MemoryCache(20_000, ttl=3600)
peaks = []
for number in range(200_000):
    if number in (40_000, 199_999):
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    cache.set(f"key {number}", number)
print(peaks[1] - peaks[0], cache.stats()["entries"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(llmkit.__file__).parent.parent)},
    )
    growth, entries = map(int, done.stdout.split())
    assert entries == 20_000
    assert growth < (8_000 if sys.platform == "linux" else 8_000_000)  # kB, bytes on macOS


def test_the_estimate_of_bytes_errs_upwards() -> None:
    """What `stats` shows is at least what the entries take."""
    import tracemalloc

    cache = MemoryCache(10**5)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(5000):
            cache.set(f"{number:064}", f"{number:0500}")
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken <= cache.stats()["bytes"] <= 2 * taken
