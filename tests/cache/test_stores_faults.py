"""A Redis that can't hurt: whatever happens to the server in mid-load, no call notices."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from llmkit.cache import Allowance, LLMCache, MemoryCache, RedisCache, TwoLevelCache
from llmkit.scope import Scope
from tests.cache.servers import RedisServer, until
from tests.machine import Lag

# What the cache may cost one call in the worst case.
MOST = 0.3

# Seconds of load before, during and after what happens.
WHILE = 0.4


class Load:
    """Threads that do what a call does with a cache, over and over, and remember the worst."""

    def __init__(self, cache: LLMCache, threads: int = 8) -> None:
        self.cache = cache
        self.slowest = 0.0
        self.lag = 0.0
        self.calls = itertools.count()
        self.errors: list[BaseException] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(n,)) for n in range(threads)]
        self._threads.append(threading.Thread(target=self._watch))

    def _work(self, thread: int) -> None:
        try:
            while not self._stop.is_set():
                self._call(f"{thread} {next(self.calls) % 50}")
                time.sleep(0.001)
        except BaseException as error:  # whatever it is, the test is to show it
            self.errors.append(error)

    def _call(self, key: str) -> None:
        begin = time.monotonic()
        allowance = Allowance()
        found = self.cache.read_near(key) or self.cache.read(key, allowance=allowance)
        if found is None:
            lock = self.cache.acquire(key, "token", 1.0, allowance)
            self.cache.renew(key, "token", 1.0, allowance)
            self.cache.write(key, {"key": key, "text": "x" * 4000}, allowance=allowance)
            if lock == "granted":
                self.cache.release(key, "token", allowance)
        else:
            assert found.value == {"key": key, "text": "x" * 4000}
            self.cache.discard(key, allowance)
        self.slowest = max(self.slowest, time.monotonic() - begin)

    def _watch(self) -> None:
        """Measures for how long this machine lets a ready thread wait."""
        while not self._stop.is_set():
            begin = time.monotonic()
            time.sleep(0.005)
            self.lag = max(self.lag, time.monotonic() - begin - 0.005)

    @contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            time.sleep(WHILE / 2)
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join(10)

    def check(self) -> None:
        assert self.errors == []
        assert next(self.calls) > 100
        # A call waits some times, and each time this machine may let it wait.
        assert self.slowest < MOST + 4 * self.lag


def hits(cache: LLMCache) -> bool:
    """Whether the cache works again."""
    return cache.set("after", 1) and cache.get("after") == 1


def server_is_killed(server: RedisServer) -> Callable[[], object]:
    server.kill()
    return server.start


def server_is_frozen(server: RedisServer) -> Callable[[], object]:
    server.freeze()
    return server.thaw


def server_restarts(server: RedisServer) -> Callable[[], object]:
    server.kill()
    server.start()
    return lambda: None


def password_changes(server: RedisServer) -> Callable[[], object]:
    server.ask("CONFIG", "SET", "requirepass", "another")
    server.ask("CLIENT", "KILL", "TYPE", "normal", password="another")
    return lambda: server.ask("CONFIG", "SET", "requirepass", "", password="another")


def memory_is_full(server: RedisServer) -> Callable[[], object]:
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.ask("CONFIG", "SET", "maxmemory", 1)
    return lambda: server.ask("CONFIG", "SET", "maxmemory", 0)


def connections_are_cut(server: RedisServer) -> Callable[[], object]:
    for _ in range(10):
        server.ask("CLIENT", "KILL", "TYPE", "normal")
    return lambda: None


FAULTS = [
    server_is_killed,
    server_is_frozen,
    server_restarts,
    password_changes,
    memory_is_full,
    connections_are_cut,
]


@pytest.mark.parametrize(
    ("levels", "fault"),
    [*((1, fault) for fault in FAULTS), (2, server_is_killed), (2, server_is_frozen)],
)
def test_a_fault_in_mid_load(
    own_server: RedisServer,
    fault: Callable[[RedisServer], Callable[[], object]],
    levels: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No operation raises, no call takes 0.3 s more, and afterwards hits return by themselves."""
    caplog.set_level(logging.INFO, "llmkit")
    far = RedisCache(own_server.url)
    cache = far if levels == 1 else TwoLevelCache(MemoryCache(), far)
    load = Load(cache)
    with load.running():
        recover = fault(own_server)
        time.sleep(WHILE)
        recover()
        until(lambda: hits(far))
    load.check()
    assert far.stats()["available"]
    # A line or two when it begins, and when it ends; not one for each call.
    assert len(caplog.records) <= 12
    cache.close()


def test_a_dead_port_costs_next_to_nothing(own_server: RedisServer) -> None:
    """After the first failures, calls are as fast as without a cache."""
    cache = RedisCache(own_server.url)
    own_server.kill()
    for _ in range(3):
        cache.get("key")
    begin = time.monotonic()
    for _ in range(200):
        assert cache.get("key") is None
    assert (time.monotonic() - begin) / 200 < 0.005
    assert not cache.stats()["available"]
    assert not cache.clear()
    cache.close()


def test_a_frozen_server_costs_one_caller_at_a_time(own_server: RedisServer) -> None:
    """Once the outage is known, a try now and then is one thread's, and the rest are not held."""
    cache = RedisCache(own_server.url)
    assert cache.set("key", 1)
    own_server.freeze()
    for _ in range(2):
        begin = time.monotonic()
        assert cache.get("key") is None
        assert time.monotonic() - begin < MOST + 0.2
    taken: list[float] = []

    def call() -> None:
        for _ in range(60):
            begin = time.monotonic()
            cache.get("key")
            taken.append(time.monotonic() - begin)
            time.sleep(0.01)

    threads = [threading.Thread(target=call) for _ in range(4)]
    begin = time.monotonic()
    with Lag() as lag:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    span = time.monotonic() - begin
    # The first pause is 0.25 s, the next one 0.5 s, and so on.
    assert sum(each > 0.1 + 2 * lag.worst for each in taken) <= 1 + span / 0.5
    cache.close()


def test_a_deadline_cuts_an_operation_short(own_server: RedisServer) -> None:
    """A call that has 50 ms left doesn't spend 200 on its cache."""
    cache = RedisCache(own_server.url)
    assert cache.set("key", 1)
    own_server.freeze()
    with Lag() as lag, Scope(0.05).entered():
        begin = time.monotonic()
        assert cache.get("key") is None
        taken = time.monotonic() - begin
    assert taken < 0.15 + 2 * lag.worst
    own_server.thaw()
    # So short a wait says nothing about the server.
    assert cache.get("key") == 1
    assert cache.stats()["outages"] == 0
    cache.close()


def test_all_operations_of_a_call_share_one_allowance(own_server: RedisServer) -> None:
    """Ten operations on a hung server cost a call a quarter of a second together."""
    cache = RedisCache(own_server.url)
    assert cache.set("key", 1)
    own_server.freeze()
    allowance = Allowance()
    begin = time.monotonic()
    with Lag() as lag:
        for number in range(10):
            cache.read(str(number), allowance=allowance)
            cache.write(str(number), 1, allowance=allowance)
        taken = time.monotonic() - begin
    assert taken < 0.25 + 0.15 + 2 * lag.worst
    cache.close()


def test_no_password_is_shown(own_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in the log, nor by the objects."""
    caplog.set_level(logging.DEBUG, "llmkit")
    cache = RedisCache(f"redis://:pa55word@127.0.0.1:{own_server.port}/0")
    own_server.ask("CONFIG", "SET", "requirepass", "another")
    assert not cache.set("key", 1)
    own_server.kill()
    assert not cache.set("key", 1)
    assert len(caplog.records) == 1
    shown = caplog.text + repr(cache) + str(cache.stats())
    assert "pa55word" not in shown
    cache.close()


def test_a_full_server_still_serves(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With noeviction, writes fail and hits go on; the log says so once, and when it is over."""
    caplog.set_level(logging.INFO, "llmkit")
    cache = RedisCache(own_server.url)
    assert cache.set("key", 1)
    recover = memory_is_full(own_server)
    assert [cache.set("other", 2) for _ in range(3)] == [False] * 3
    assert cache.get("key") == 1
    assert cache.delete("key")
    recover()
    assert cache.set("other", 2)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert cache.stats()["outages"] == 0
    cache.close()
