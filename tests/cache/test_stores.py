"""What every cache promises: in memory, in SQLite, in Redis, and on two levels."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from llmkit import InvalidRequestError
from llmkit.cache import (
    Allowance,
    LLMCache,
    MemoryCache,
    RedisCache,
    SQLiteCache,
    TwoLevelCache,
)
from llmkit.scope import Scope
from tests.cache.servers import Clock, RedisServer, in_child, until

_namespaces = (f"test {number}" for number in itertools.count())

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@pytest.mark.usefixtures("patient")
class CacheContract:
    """What every cache promises; a subclass makes one."""

    @pytest.fixture
    def namespace(self) -> str:
        """A namespace that no other test has used: the server lives for the whole session."""
        return next(_namespaces)

    @pytest.fixture
    def make(self, namespace: str) -> Callable[..., LLMCache]:
        raise NotImplementedError

    @pytest.fixture
    def cache(self, make: Callable[..., LLMCache], clock: Clock) -> Iterator[LLMCache]:
        cache = make(ttl=100.0, clock=clock, rng=lambda: 1.0)
        yield cache
        cache.close()

    # --- values ---------------------------------------------------------------------------------

    def test_what_was_set_is_found_until_it_is_deleted(self, cache: LLMCache) -> None:
        """The four operations that everybody uses do what their names say."""
        assert cache.get("key") is None
        assert cache.get("key", default=3) == 3
        assert cache.set("key", {"answer": [1, "zwei", None]})
        assert cache.get("key") == {"answer": [1, "zwei", None]}
        assert cache.set("key", "another")
        assert cache.get("key", default=3) == "another"
        assert cache.delete("key")
        assert not cache.delete("key")
        assert cache.get("key") is None

    def test_null_is_a_value(self, cache: LLMCache) -> None:
        """A kept None is told from nothing."""
        assert cache.set("key", None)
        assert cache.get("key", default=3) is None
        found = cache.read("key")
        assert found is not None
        assert found.value is None

    @given(value=JSON, key=st.text(st.characters()))
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,  # many values through one cache
            HealthCheck.differing_executors,  # each subclass has its own examples
        ],
    )
    def test_any_json_value_comes_back(self, cache: LLMCache, key: str, value: Any) -> None:
        """Under any key, any JSON value comes back equal and of the same types."""
        assert cache.set(key, value)
        found = cache.get(key, default=math)
        assert repr(found) == repr(value)
        assert cache.delete(key)

    def test_large_values_come_back(self, cache: LLMCache) -> None:
        """Compression changes nothing, whether it helps or not."""
        noise = os.urandom(30_000).hex()
        assert cache.set("repeated", "prose, " * 10_000)
        assert cache.set("noise", noise)
        assert cache.get("repeated") == "prose, " * 10_000
        assert cache.get("noise") == noise

    def test_a_value_belongs_to_who_asked_for_it(self, cache: LLMCache) -> None:
        """Neither the writer's object nor a reader's is shared with anybody."""
        value = {"list": [1]}
        cache.set("key", value)
        value["list"].append(2)
        cache.get("key")["list"].append(3)
        assert cache.get("key") == {"list": [1]}

    @pytest.mark.parametrize(
        "value", [math.nan, [math.inf], {1: 2}, {"a": {None: 1}}, object(), {1}, b"bytes"]
    )
    def test_what_is_no_json_is_refused(self, cache: LLMCache, value: Any) -> None:
        """A value that would come back as something else is an error of the caller."""
        with pytest.raises(InvalidRequestError, match="JSON"):
            cache.set("key", value)
        endless: list[Any] = []
        endless.append(endless)
        with pytest.raises(InvalidRequestError, match="JSON"):
            cache.set("key", endless)
        assert cache.get("key") is None

    @pytest.mark.parametrize(
        "ttl", [0, -1.0, math.nan, math.inf, True, "60", pytest.param(10**5000, id="huge")]
    )
    def test_a_life_is_a_positive_time(self, cache: LLMCache, ttl: Any) -> None:
        """Nothing is kept for ever or for no time by mistake."""
        with pytest.raises(InvalidRequestError, match="time to live"):
            cache.set("key", 1, ttl)

    def test_a_key_is_a_text(self, cache: LLMCache) -> None:
        """Keys of other types are refused in each operation."""
        key: Any = 7
        for operation in (cache.get, cache.delete, lambda key: cache.set(key, 1)):
            with pytest.raises(InvalidRequestError, match="key"):
                operation(key)

    # --- time -----------------------------------------------------------------------------------

    def test_an_entry_lives_for_its_own_time(self, cache: LLMCache, clock: Clock) -> None:
        """The default and a time of its own are kept to the second."""
        cache.set("short", 1, ttl=10)
        cache.set("default", 2)
        clock.now += 9.9
        assert (cache.get("short"), cache.get("default")) == (1, 2)
        clock.now += 0.2
        assert (cache.get("short"), cache.get("default")) == (None, 2)
        clock.now += 90
        assert cache.get("default") is None

    def test_writing_again_begins_a_new_life(self, cache: LLMCache, clock: Clock) -> None:
        """The time of the last write counts, be it longer or shorter."""
        cache.set("longer", 1, ttl=10)
        cache.set("longer", 2, ttl=50)
        cache.set("shorter", 1, ttl=50)
        cache.set("shorter", 2, ttl=10)
        clock.now += 20
        assert (cache.get("longer"), cache.get("shorter")) == (2, None)

    def test_lives_are_spread(self, make: Callable[..., LLMCache], clock: Clock) -> None:
        """Between 0.9 and 1.0 of what was asked for, by the given randomness."""
        numbers = iter([0.0, 0.5, 1.0])
        cache = make(ttl=100.0, clock=clock, rng=lambda: next(numbers))
        for key in "abc":
            cache.set(key, key)
        lives = [found.expires_at - clock.now for key in "abc" if (found := cache.read(key))]
        assert lives == pytest.approx([90.0, 95.0, 100.0])
        cache.close()

    def test_stale_entries_are_for_those_who_ask(self, cache: LLMCache, clock: Clock) -> None:
        """After its life an entry is kept for its stale time, and found only with stale=True."""
        cache.write("key", "old", ttl=10, stale_ttl=20)
        found = cache.read("key", stale=True)
        assert found is not None
        assert not found.stale
        clock.now += 15
        assert cache.read("key") is None
        assert cache.read_near("key") is None
        assert cache.get("key") is None
        found = cache.read("key", stale=True)
        assert found is not None
        assert (found.value, found.stale) == ("old", True)
        assert found.expires_at == pytest.approx(clock.now - 5)
        clock.now += 16
        assert cache.read("key", stale=True) is None

    # --- figures --------------------------------------------------------------------------------

    def test_it_counts(self, cache: LLMCache, clock: Clock) -> None:
        """Hits, misses, stale hits and writes, and the rate of the first two."""
        assert cache.stats()["hit_rate"] is None
        cache.get("key")
        cache.write("key", 1, ttl=10, stale_ttl=20)
        cache.get("key")
        cache.read("key")
        clock.now += 15
        cache.read("key", stale=True)
        cache.read("other", stale=True)
        figures = cache.stats()
        assert {
            name: figures[name]
            for name in ("hits", "misses", "stale_hits", "writes", "errors", "skipped", "hit_rate")
        } == {
            "hits": 2,
            "misses": 1,
            "stale_hits": 1,
            "writes": 1,
            "errors": 0,
            "skipped": 0,
            "hit_rate": 2 / 3,
        }

    # --- clearing -------------------------------------------------------------------------------

    def test_clearing_leaves_nothing(self, cache: LLMCache) -> None:
        """Everything goes, also what doesn't fit into one batch."""
        for number in range(1100):
            cache.set(str(number), number)
        assert cache.clear()
        assert not any(cache.get(str(number)) for number in range(1100))
        assert cache.set("key", 1)
        assert cache.get("key") == 1

    # --- locks ----------------------------------------------------------------------------------

    def test_a_lock_is_granted(self, cache: LLMCache) -> None:
        """Who is alone gets it, may keep it, and gives it back."""
        assert cache.acquire("key", "mine", 10) == "granted"
        assert cache.renew("key", "mine", 10)
        cache.release("key", "mine")
        assert cache.acquire("key", "mine", 10) == "granted"
        cache.release("key", "mine")

    # --- threads and forks ----------------------------------------------------------------------

    def test_threads_share_it(self, cache: LLMCache) -> None:
        """No thread ever sees another key's value or half a value, and all counts are right."""

        def work(number: int) -> None:
            for turn in range(60):
                key = str((number + turn) % 7)
                found = cache.get(key)
                assert found is None or found == {"key": key, "text": key * 2000}
                assert cache.set(key, {"key": key, "text": key * 2000})

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
        figures = cache.stats()
        assert figures["writes"] == figures["hits"] + figures["misses"] == 8 * 60

    def test_a_child_goes_on_with_it(self, cache: LLMCache) -> None:
        """After a fork both sides read and write; what is shared is seen by both."""
        cache.set("parent", 1)

        def child() -> None:
            assert cache.get("parent") == 1
            assert cache.set("child", 2)
            assert cache.get("child") == 2
            assert cache.acquire("key", "child's", 10) == "granted"

        assert in_child(child) == 0
        assert cache.get("parent") == 1
        assert cache.get("child") == (2 if cache.shared else None)
        assert cache.acquire("key", "mine", 10) == ("held" if cache.shared else "granted")
        assert cache.set("parent", 3)
        assert cache.get("parent") == 3

    def test_forks_in_the_middle_of_work(self, cache: LLMCache) -> None:
        """Whatever other threads were doing with it at the moment of a fork, the child works."""
        stop = threading.Event()

        def work() -> None:
            while not stop.is_set():
                cache.set("busy", "x" * 3000)
                assert cache.get("busy") == "x" * 3000

        def child() -> None:
            assert cache.set("child", 2)
            assert cache.get("child") == 2

        with ThreadPoolExecutor(3) as pool:
            working = [pool.submit(work) for _ in range(3)]
            try:
                outcomes = [in_child(child) for _ in range(6)]
            finally:
                stop.set()
            for each in working:
                each.result()
        assert outcomes == [0] * 6
        assert cache.stats()["errors"] == 0

    def test_it_opens_again_after_closing(self, cache: LLMCache) -> None:
        """`close` gives things back; it isn't an end."""
        cache.set("key", 1)
        cache.close()
        assert cache.get("key") == 1

    def test_nothing_warns_or_logs_while_all_is_well(
        self, cache: LLMCache, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The log is for outages."""
        cache.set("key", 1)
        cache.get("key")
        assert caplog.records == []


class SharedContract(CacheContract):
    """What every cache promises that other processes see, too."""

    @pytest.mark.parametrize(
        ("own", "other"), [("app", "app:k"), ("app", "ap"), ("*", "x"), ("a?", "ab"), ("é", "e")]
    )
    def test_clearing_touches_its_own_namespace_alone(
        self, make: Callable[..., LLMCache], namespace: str, own: str, other: str
    ) -> None:
        """Whatever the names look like: neither a common beginning nor a pattern makes them one."""
        mine, theirs = (make(namespace=f"{namespace} {name}") for name in (own, other))
        mine.set("key", "mine")
        theirs.set("key", "theirs")
        assert (mine.get("key"), theirs.get("key")) == ("mine", "theirs")
        assert mine.clear()
        assert (mine.get("key"), theirs.get("key")) == (None, "theirs")
        for cache in (mine, theirs):
            cache.close()

    def test_others_see_what_was_written(self, make: Callable[..., LLMCache], clock: Clock) -> None:
        """Two objects, as in two processes, are one cache."""
        mine, theirs = (make(clock=clock) for _ in range(2))
        assert mine.shared
        mine.set("key", 1)
        assert theirs.get("key") == 1
        assert theirs.delete("key")
        assert theirs.get("key") is None
        for cache in (mine, theirs):
            cache.close()

    def test_one_at_a_time_holds_a_lock(self, cache: LLMCache) -> None:
        """It is released and renewed only by the token that holds it."""
        assert cache.acquire("key", "mine", 10) == "granted"
        assert cache.acquire("key", "theirs", 10) == "held"
        assert cache.acquire("other key", "theirs", 10) == "granted"
        assert not cache.renew("key", "theirs", 10)
        cache.release("key", "theirs")
        assert cache.acquire("key", "theirs", 10) == "held"
        assert cache.renew("key", "mine", 10)
        cache.release("key", "mine")
        assert not cache.renew("key", "mine", 10)
        assert cache.acquire("key", "theirs", 10) == "granted"

    def test_a_lock_ends_by_itself(self, cache: LLMCache, clock: Clock) -> None:
        """Who died with a lock costs the others no more than its time."""
        assert cache.acquire("key", "mine", 0.05) == "granted"
        clock.now += 0.06  # SQLite's locks go by this clock, Redis's by the server's own
        until(lambda: cache.acquire("key", "theirs", 10) == "granted", 2.0)
        assert not cache.renew("key", "mine", 10)
        assert cache.acquire("key", "mine", 10) == "held"

    def test_one_of_many_gets_a_lock(self, cache: LLMCache) -> None:
        """However many ask at the same moment."""
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: cache.acquire("key", str(n), 10), range(8)))
        assert sorted(answers) == ["granted"] + ["held"] * 7

    def test_a_clear_leaves_locks_alone(self, cache: LLMCache) -> None:
        """An administrator's clear doesn't let a second leader in."""
        cache.acquire("key", "mine", 10)
        assert cache.clear()
        assert cache.acquire("key", "theirs", 10) == "held"

    def test_nothing_is_asked_without_time(self, cache: LLMCache) -> None:
        """A call that has used up its allowance, or its Scope, skips shared caches."""
        assert cache.set("key", 1)
        far = cache.l2 if isinstance(cache, TwoLevelCache) else cache
        spent = Allowance(0.0)
        assert far.read("key", allowance=spent) is None
        assert not far.write("key", 2, allowance=spent)
        assert far.discard("key", allowance=spent) is None
        assert far.acquire("key", "mine", 10, allowance=spent) == "unavailable"
        with Scope(0.0).entered():
            assert far.get("key") is None
            assert not far.clear()
        assert far.stats()["skipped"] == 5
        assert far.get("key") == 1

    def test_operations_take_from_the_allowance(self, cache: LLMCache) -> None:
        """One budget bounds all operations of a call together."""
        far = cache.l2 if isinstance(cache, TwoLevelCache) else cache
        ticks = itertools.count()
        allowance = Allowance(0.25, clock=lambda: 0.1 * next(ticks))
        assert far.write("key", 1, allowance=allowance)
        assert allowance.left() == pytest.approx(0.15)
        assert far.read("key", allowance=allowance)
        far.read("key", allowance=allowance)
        assert allowance.left() == 0.0
        assert far.read("key", allowance=allowance) is None


class TestMemory(CacheContract):
    @pytest.fixture
    def make(self, namespace: str) -> Callable[..., LLMCache]:
        return lambda **options: MemoryCache(5000, **options)


class TestSQLite(SharedContract):
    @pytest.fixture
    def make(self, namespace: str, tmp_path: Path) -> Callable[..., LLMCache]:
        path = tmp_path / "cache.db"
        return lambda **options: SQLiteCache(path, **{"namespace": namespace, **options})


class TestRedis(SharedContract):
    @pytest.fixture
    def make(self, namespace: str, redis_server: RedisServer) -> Callable[..., LLMCache]:
        url = redis_server.url
        return lambda **options: RedisCache(url, **{"namespace": namespace, **options})


class _TwoLevels(SharedContract):
    def test_others_see_what_was_written(self, make: Callable[..., LLMCache], clock: Clock) -> None:
        """Two objects are one cache, but for what the first level of the other still holds."""
        mine, theirs = (make(clock=clock) for _ in range(2))
        assert mine.shared
        mine.set("key", 1)
        assert theirs.get("key") == 1
        for cache in (mine, theirs):
            cache.close()


class TestMemoryBeforeRedis(_TwoLevels):
    @pytest.fixture
    def make(self, namespace: str, redis_server: RedisServer) -> Callable[..., LLMCache]:
        def make(namespace: str = namespace, **options: Any) -> LLMCache:
            near = {name: each for name, each in options.items() if name != "rng"}
            far = RedisCache(redis_server.url, namespace, **options)
            return TwoLevelCache(MemoryCache(5000, **near), far)

        return make


class TestMemoryBeforeSQLite(_TwoLevels):
    @pytest.fixture
    def make(self, namespace: str, tmp_path: Path) -> Callable[..., LLMCache]:
        def make(namespace: str = namespace, **options: Any) -> LLMCache:
            near = {name: each for name, each in options.items() if name != "rng"}
            far = SQLiteCache(tmp_path / "cache.db", namespace, **options)
            return TwoLevelCache(MemoryCache(5000, **near), far)

        return make
