"""Two levels: the first never knows more than the second, and goes on without it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llmkit.cache import Allowance, LLMCache, Lock, MemoryCache, TwoLevelCache
from llmkit.cache.entry import Entry
from tests.cache.servers import Clock


class Far(MemoryCache):
    """A second level inside this process, to which something may happen during each look-up."""

    level = "far"
    shared = True
    broken = False
    meanwhile: Callable[[], object] | None = None

    def fetch(self, key: str, allowance: Allowance | None = None) -> Entry | None:
        entry = None if self.broken else super().fetch(key)
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            happens()
        return entry

    def keep(self, key: str, entry: Entry, allowance: Allowance | None = None) -> bool:
        return not self.broken and super().keep(key, entry)

    def discard(self, key: str, allowance: Allowance | None = None) -> bool | None:
        return None if self.broken else super().discard(key)

    def acquire(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> Lock:
        return "unavailable" if self.broken else "held"


@pytest.fixture
def far(clock: Clock) -> Far:
    return Far(ttl=100.0, clock=clock, rng=lambda: 1.0)


@pytest.fixture
def near(clock: Clock) -> MemoryCache:
    return MemoryCache(ttl=1e6, clock=clock, rng=lambda: 1.0)


@pytest.fixture
def both(near: MemoryCache, far: Far) -> TwoLevelCache:
    return TwoLevelCache(near, far)


def level(cache: LLMCache, key: str = "key", **options: Any) -> str | None:
    found = cache.read(key, **options)
    return None if found is None else found.level


def test_what_only_the_second_had_is_near_from_then_on(both: TwoLevelCache, far: Far) -> None:
    """A hit in the second level fills the first, and says where it was found."""
    far.set("key", 1)
    assert both.read_near("key") is None
    assert level(both) == "far"
    assert level(both) == "memory"
    assert both.read_near("key") is not None


def test_the_first_never_outlives_the_second(
    both: TwoLevelCache, near: MemoryCache, far: Far, clock: Clock
) -> None:
    """What fills the first level keeps the remaining life, fresh and stale, of the second's."""
    far.write("key", 1, ttl=10, stale_ttl=10)
    clock.now += 6
    assert level(both) == "far"
    clock.now += 5
    assert near.read("key") is None
    assert level(near, stale=True) == "memory"
    assert level(both, stale=True) == "memory"
    clock.now += 10
    assert near.read("key", stale=True) is None


def test_both_levels_are_written_with_one_life(near: MemoryCache, far: Far, clock: Clock) -> None:
    """The default and the spread are the second's, once for both."""
    numbers = iter([0.5])
    far._rng = lambda: next(numbers)
    both = TwoLevelCache(near, far)
    both.set("key", 1)
    lives = [found.expires_at - clock.now for cache in (near, far) if (found := cache.read("key"))]
    assert lives == [95.0, 95.0]


def test_deletes_and_clears_reach_both(both: TwoLevelCache, near: MemoryCache, far: Far) -> None:
    """Nothing comes back from the level behind."""
    removals: list[Callable[[], bool]] = [lambda: both.delete("key"), both.clear]
    for remove in removals:
        both.set("key", 1)
        assert near.get("key") == far.get("key") == 1
        assert remove()
        assert near.get("key") is far.get("key") is None
    far.set("key", 1)
    assert both.delete("key")
    near.set("key", 1)
    assert both.delete("key")
    assert not both.delete("key")


def test_a_change_during_a_look_up_wins(both: TwoLevelCache, far: Far) -> None:
    """What was deleted, cleared or overwritten while a reader had the old value stays so."""
    changes: list[tuple[Callable[[], object], str | None]] = [
        (lambda: both.delete("key"), None),
        (both.clear, None),
        (lambda: both.set("key", "new"), "new"),
    ]
    for change, after in changes:
        far.set("key", "old")
        far.meanwhile = change
        assert both.get("key") == "old"
        assert both.get("key") == after
        both.delete("key")


def test_it_goes_on_without_the_second(both: TwoLevelCache, near: MemoryCache, far: Far) -> None:
    """The first level alone serves and keeps; only what must not be promised is False."""
    both.set("old", 0)
    far.broken = True
    assert both.get("old") == 0
    assert both.set("key", 1)
    assert both.get("key") == 1
    assert both.acquire("key", "mine", 1) == "unavailable"
    assert not both.delete("key")  # it may still be in the second level
    assert both.get("key") is None
    far.broken = False
    assert both.get("key") is None
    assert both.acquire("key", "mine", 1) == "held"


def test_figures_are_shown_for_each_level(both: TwoLevelCache, far: Far) -> None:
    """Together, and apart by the levels' names."""
    far.set("key", 1)
    for _ in range(3):
        both.get("key")
    both.read_near("key")
    both.get("other")
    figures = both.stats()
    assert (figures["hits"], figures["misses"], figures["hit_rate"]) == (4, 1, 0.8)
    assert {name: each["hits"] for name, each in figures["levels"].items()} == {
        "memory": 3,
        "far": 1,
    }
    assert {name: each["misses"] for name, each in figures["levels"].items()} == {
        "memory": 2,
        "far": 1,
    }
