from __future__ import annotations

import contextvars
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmkit.cache import leases
from llmkit.cache.allowance import Allowance
from llmkit.cache.base import Lock
from llmkit.cache.leases import UNKEPT, Answered, LeasePolicy, answer_once, ask_once
from llmkit.cache.memory import MemoryCache
from llmkit.cache.replies import CacheUse, ReplyCache
from llmkit.cache.sqlite_cache import SQLiteCache
from llmkit.errors import ErrorCode, RateLimitError
from llmkit.scope import CallInterrupted, Scope, current_scope
from llmkit.threads import Flag
from llmkit.types import Completion

LONG = 20.0
LASTING = LeasePolicy(ttl=LONG, first_pause=0.005, lock_every=0.0)
QUICK = LeasePolicy(
    ttl=0.6, renew_every=0.1, first_pause=0.005, longest_pause=0.01, lock_every=0.01
)


class SharedMemory(MemoryCache):
    """A memory that behaves like a store which several processes see, with locks of its own."""

    shared = True

    def __init__(self) -> None:
        super().__init__()
        self.locks: dict[str, tuple[str, float]] = {}
        self.asked: list[str] = []
        self.answer: Lock | None = None
        self.reads = 0

    def fetch(self, key: str, allowance: Allowance | None = None) -> Any:
        self.reads += 1
        return super().fetch(key, allowance)

    def acquire(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> Lock:
        with self._lock:
            self.asked.append(token)
            if self.answer is not None:
                return self.answer
            _, until = self.locks.get(key, ("", 0.0))
            if until > time.monotonic():
                return "held"
            self.locks[key] = (token, time.monotonic() + ttl)
            return "granted"

    def renew(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> bool:
        with self._lock:
            if self.locks.get(key, ("",))[0] != token:
                return False
            self.locks[key] = (token, time.monotonic() + ttl)
            return True

    def release(self, key: str, token: str, allowance: Allowance | None = None) -> bool:
        with self._lock:
            if self.locks.get(key, ("",))[0] == token:
                del self.locks[key]
        return True


class Process:
    """One process's part: flights of its own over a store that others see, too."""

    def __init__(self, store: SharedMemory, policy: LeasePolicy = QUICK) -> None:
        self.store = store
        self.policy = policy
        self.calls = 0
        self.begun = threading.Event()
        self.go = threading.Event()
        self.error: BaseException | None = None
        self.keeps = True

    def ask(self) -> str:
        self.calls += 1
        self.begun.set()
        assert self.go.wait(LONG)
        if self.error is not None:
            raise self.error
        self.store.write("k", "answer" if self.keeps else UNKEPT)
        return "answer"

    def look(self, allowance: Allowance) -> str | None:
        found = self.store.read("k", stale=True)
        if found is None or found.stale:
            return None
        return self.ask() if found.value == UNKEPT else str(found.value)

    def __call__(self) -> str:
        return ask_once(
            self.store,
            "k",
            look=self.look,
            ask=self.ask,
            allowance=Allowance(),
            policy=self.policy,
        )


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def polled(store: SharedMemory, times: int) -> None:
    """Returns when the lock was asked for so often."""
    limit = time.monotonic() + LONG
    while len(store.asked) < times:
        assert time.monotonic() < limit
        time.sleep(0.001)


def test_one_process_asks_and_the_others_read(pool: ThreadPoolExecutor) -> None:
    """Who finds the lock held waits for the value, and takes it."""
    store = SharedMemory()
    one, two, three = Process(store), Process(store), Process(store)
    leading = pool.submit(one)
    assert one.begun.wait(LONG)
    waiting = [pool.submit(two), pool.submit(three)]
    polled(store, 5)
    one.go.set()
    assert {each.result(LONG) for each in (leading, *waiting)} == {"answer"}
    assert (one.calls, two.calls, three.calls) == (1, 0, 0)
    assert store.locks == {}


def test_a_lock_is_renewed_for_as_long_as_the_call_lasts(pool: ThreadPoolExecutor) -> None:
    """A call that takes several times the lock's life is still the only one."""
    store = SharedMemory()
    one, two = Process(store), Process(store)
    leading = pool.submit(one)
    assert one.begun.wait(LONG)
    waiting = pool.submit(two)
    time.sleep(1.5 * QUICK.ttl)  # what is under test is that time passes
    assert not two.begun.is_set()
    one.go.set()
    assert leading.result(LONG) == waiting.result(LONG) == "answer"
    assert two.calls == 0


def test_a_dead_leader_costs_no_more_than_its_locks_life(pool: ThreadPoolExecutor) -> None:
    """A lock that nobody renews is free after its life, and one of the others asks."""
    store = SharedMemory()
    store.acquire("k", "of a process that was killed", QUICK.ttl)
    others = [Process(store), Process(store)]
    for other in others:
        other.go.set()
    began = time.monotonic()
    assert {each.result(LONG) for each in [pool.submit(other) for other in others]} == {"answer"}
    assert time.monotonic() - began > QUICK.ttl / 2
    assert sum(other.calls for other in others) == 1


def test_a_leader_that_fails_leaves_the_lock_to_another(pool: ThreadPoolExecutor) -> None:
    """An error is the leader's own: it gives the lock back, and somebody else asks at once."""
    store = SharedMemory()
    one, two = Process(store), Process(store, LASTING)
    one.error, one.policy = RateLimitError("no"), two.policy
    leading = pool.submit(one)
    assert one.begun.wait(LONG)
    waiting = pool.submit(two)
    polled(store, 3)
    one.go.set()
    two.go.set()
    assert leading.exception(LONG) is one.error
    assert waiting.result(LONG) == "answer"
    assert store.locks == {}


def test_the_value_is_looked_for_once_more_under_the_lock() -> None:
    """An answer written between the look and the lock is not asked for again."""
    store = SharedMemory()
    one = Process(store)
    store.write("k", "written meanwhile")
    assert one() == "written meanwhile"
    assert one.calls == 0
    assert store.locks == {}


def test_a_store_that_cannot_say_holds_nobody_up() -> None:
    """With the store gone the call is made at once, also in the middle of a wait."""
    store = SharedMemory()
    store.answer = "unavailable"
    one = Process(store)
    one.go.set()
    assert one() == "answer"
    assert len(store.asked) == 1


def test_a_store_that_goes_away_ends_the_wait(pool: ThreadPoolExecutor) -> None:
    """Who waits for another process asks by itself as soon as the store fails."""
    store = SharedMemory()
    store.answer = "held"
    one = Process(store)
    one.go.set()
    waiting = pool.submit(one)
    polled(store, 3)
    assert one.calls == 0
    store.answer = "unavailable"
    assert waiting.result(LONG) == "answer"


@pytest.mark.parametrize(
    ("seconds", "passed", "waits"),
    [
        (None, 0, True),
        (12, 0, True),
        (12, 7, True),
        (12, 9, False),
        (1.9, 0, False),
        (3, 1.5, False),
    ],
)
def test_who_has_little_time_left_asks_by_itself(
    seconds: float | None, passed: float, waits: bool
) -> None:
    """Nobody waits into the last third of its time, or with less than the lock may last."""
    now = 0.0
    with Scope(seconds, clock=lambda: now).entered():
        now = passed
        assert LeasePolicy().worth_waiting() is waits


def test_a_waiter_with_little_time_makes_its_call(pool: ThreadPoolExecutor) -> None:
    """In the middle of a wait, too: the call is begun while there is time for it."""
    store = SharedMemory()
    store.answer = "held"
    one = Process(store)
    one.go.set()

    def wait() -> str:
        with Scope(1.5).entered():
            return one()

    began = time.monotonic()
    assert pool.submit(wait).result(LONG) == "answer"
    assert time.monotonic() - began > 0.2
    assert len(store.asked) > 2


def test_a_wait_for_another_process_can_be_cancelled(pool: ThreadPoolExecutor) -> None:
    """A cancel ends the wait."""
    store = SharedMemory()
    store.answer = "held"
    one = Process(store)
    scope = Scope()

    def wait() -> str:
        with scope.entered():
            return one()

    waiting = pool.submit(wait)
    polled(store, 2)
    scope.cancel()
    error = waiting.exception(LONG)
    assert isinstance(error, CallInterrupted)
    assert error.code is ErrorCode.LLM_CANCELLED
    assert one.calls == 0


def test_processes_ask_side_by_side_for_what_is_not_kept(pool: ThreadPoolExecutor) -> None:
    """An answer that may not be cached doesn't make the others wait for each other's calls."""
    store = SharedMemory()
    one, two, three = (Process(store, LASTING) for _ in range(3))
    one.keeps = two.keeps = three.keeps = False
    leading = pool.submit(one)
    assert one.begun.wait(LONG)
    waiting = [pool.submit(two), pool.submit(three)]
    polled(store, 4)
    one.go.set()
    assert two.begun.wait(LONG)
    assert three.begun.wait(LONG)  # though the second has not ended
    two.go.set()
    three.go.set()
    assert {each.result(LONG) for each in (leading, *waiting)} == {"answer"}


def test_a_memory_of_one_process_needs_no_locks() -> None:
    """Where no other process sees the cache nothing is locked, and the answer is asked for."""
    calls: list[int] = []

    def ask() -> Answered:
        calls.append(1)
        return Answered("answer", None)

    store = MemoryCache()
    assert answer_once(store, "k", str, ask) == ("answer", None)
    store.write("k", "kept")
    assert answer_once(store, "k", str, ask) == ("kept", "memory")
    assert calls == [1]


def test_a_wait_counts_as_one_miss(pool: ThreadPoolExecutor) -> None:
    """The looks of those who wait are not misses: the statistics stay those of questions."""
    store = SharedMemory()
    one, two = Process(store), Process(store)
    leading = pool.submit(one)
    assert one.begun.wait(LONG)

    def ask() -> Answered:
        return Answered(two.ask(), None)

    waiting = pool.submit(answer_once, store, "k", str, ask)
    reads = store.reads
    limit = time.monotonic() + LONG
    while store.reads < reads + 4:
        assert time.monotonic() < limit
        time.sleep(0.001)
    one.go.set()
    assert leading.result(LONG) == "answer"
    assert waiting.result(LONG) == ("answer", "memory")
    assert store.stats()["misses"] == 1
    assert store.stats()["hits"] == 1


def test_a_lock_is_renewed_outside_of_any_scope(pool: ThreadPoolExecutor) -> None:
    """The thread that renews serves all calls: the end of one call's time doesn't end its work."""
    leases._renewer.close()  # so that this call starts the thread
    scopes: list[Scope | None] = []

    class Watched(SharedMemory):
        def renew(self, *_: Any, **__: Any) -> bool:
            scopes.append(current_scope())
            return True

    one = Process(Watched())
    with Scope(LONG).entered():
        asked = pool.submit(contextvars.copy_context().run, one)
        limit = time.monotonic() + LONG
        while not scopes:
            assert time.monotonic() < limit
            time.sleep(0.01)
        one.go.set()
        assert asked.result(LONG) == "answer"
    assert set(scopes) == {None}


def test_a_lock_is_given_back_when_the_time_is_over(tmp_path: Path) -> None:
    """A call that ends by its deadline doesn't leave the others waiting for its lock."""
    store = SQLiteCache(tmp_path / "cache.db")
    scope = Scope(0.1)
    with scope.entered(), pytest.raises(CallInterrupted):
        ask_once(
            store,
            "k",
            look=lambda _: None,
            ask=lambda: scope.wait(Flag(), "asking"),
            allowance=Allowance(),
        )
    assert store.acquire("k", "another", 1.0) == "granted"
    store.close()


def test_an_answer_that_is_not_kept_is_no_queue_of_processes(
    pool: ThreadPoolExecutor, tmp_path: Path
) -> None:
    """Those who waited for an answer that was cut off ask side by side, not in turn."""
    stores = [SQLiteCache(tmp_path / "cache.db") for _ in range(3)]
    begun, go = threading.Event(), threading.Event()
    together = threading.Barrier(2)

    def cut(meanwhile: Callable[[], object]) -> Completion:
        begun.set()
        meanwhile()
        return Completion("An", "m", "p", "length")

    def call(store: SQLiteCache, meanwhile: Callable[[], object]) -> Future[Completion]:
        replies = ReplyCache(store)
        return pool.submit(replies.answer, "k", CacheUse(), lambda: cut(meanwhile))

    first = call(stores[0], lambda: go.wait(LONG))
    assert begun.wait(LONG)
    others = [call(store, lambda: together.wait(5)) for store in stores[1:]]
    limit = time.monotonic() + LONG
    while any(store.stats()["misses"] == 0 for store in stores[1:]):
        assert time.monotonic() < limit
        time.sleep(0.005)
    go.set()
    assert [each.result(LONG).text for each in (first, *others)] == ["An"] * 3
    for store in stores:
        store.close()


class Leave(Exception):
    """Takes a forked child out of the call that it was forked in."""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_forked_in_mid_call_leaves_its_parents_lock_alone(tmp_path: Path) -> None:
    """Whoever forks inside of a call still holds the lock when the child has gone."""
    store = SQLiteCache(tmp_path / "cache.db")
    locks: list[Lock] = []

    def ask() -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # 3.12: threads and fork
            child = os.fork()
        if child == 0:  # pragma: no cover - another process
            raise Leave
        os.waitpid(child, 0)
        locks.append(store.acquire("k", "another", 1.0))
        return "answer"

    try:
        asked = ask_once(store, "k", look=lambda _: None, ask=ask, allowance=Allowance())
    except Leave:  # pragma: no cover - another process
        os._exit(0)
    assert asked == "answer"
    locks.append(store.acquire("k", "another", 1.0))
    assert locks == ["held", "granted"]
    store.close()
