"""A Redis that breaks while a Client's calls are under way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from llmkit import Client
from llmkit.cache import RedisCache
from llmkit.testing import Answer, ProviderServer
from llmkit.testing.recorded_request import RecordedRequest
from tests.cache.client_calls import KEY, OTHER, make_client
from tests.cache.servers import RedisServer, until
from tests.machine import Lag

THREADS, QUESTIONS = 8, 24

# What a call may take longer than one without a cache, in seconds, and what the scheduler may add
# on a machine that is busy with other things.
MORE = 0.3
SLACK = 0.2


class Load:
    """Threads that ask a few questions over and over, with the cache and, in turns, without."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.failures: list[BaseException] = []
        self.cached: list[float] = []
        self.plain: list[float] = []
        self.hits = 0
        self._over = threading.Event()

    def _ask(self, number: int) -> None:
        at = number
        while not self._over.is_set():
            at += 1
            for use, times in ((True, self.cached), (False, self.plain)):
                began = time.monotonic()
                try:
                    reply = self.client.complete(f"Question {at % QUESTIONS}", use_cache=use)
                except BaseException as error:  # whatever it is, it is told
                    self.failures.append(error)
                    return
                times.append(time.monotonic() - began)
                self.hits += reply.cached is not None

    @contextmanager
    def running(self) -> Iterator[Load]:
        threads = [threading.Thread(target=self._ask, args=(3 * n,)) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join(20)

    def goes_on(self, seconds: float) -> None:
        """Waits, and sees that answers have come meanwhile."""
        before = len(self.cached)
        time.sleep(seconds)
        until(lambda: self.failures or len(self.cached) > before + THREADS)

    def hits_come(self) -> None:
        """Waits until hits come from the store again."""
        before = self.hits
        until(lambda: self.failures or self.hits > before + THREADS)


def kill(server: RedisServer) -> Callable[[], object]:
    server.kill()
    return server.start


def freeze(server: RedisServer) -> Callable[[], object]:
    server.freeze()
    return server.thaw


def restart(server: RedisServer) -> Callable[[], object]:
    server.kill()
    server.start()
    return lambda: None


def lock_out(server: RedisServer) -> Callable[[], object]:
    server.ask("CONFIG", "SET", "requirepass", "changed")
    server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes", password="changed")
    return lambda: server.ask("CONFIG", "SET", "requirepass", "", password="changed")


def fill(server: RedisServer) -> Callable[[], object]:
    server.ask("FLUSHALL")  # so that there is something to be written
    server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    server.ask("CONFIG", "SET", "maxmemory", "1")
    return lambda: server.ask("CONFIG", "SET", "maxmemory", "0")


@pytest.mark.parametrize("fault", [kill, freeze, restart, lock_out, fill])
def test_a_fault_in_mid_load(
    server: ProviderServer, own_server: RedisServer, fault: Callable[[RedisServer], Any]
) -> None:
    """No call fails, none is 0.3 s slower than without a cache, and hits come back."""
    client = make_client(server, cache=RedisCache(own_server.url))
    for n in range(QUESTIONS):
        client.complete(f"Question {n}")
    with Lag() as lag, Load(client).running() as load:
        load.hits_come()
        mend = fault(own_server)
        load.goes_on(0.6)
        mend()
        load.hits_come()
    assert load.failures == []
    assert max(load.cached) <= max(load.plain) + MORE + SLACK + lag.worst


def test_memory_in_front_goes_on(server: ProviderServer, own_server: RedisServer) -> None:
    """With default settings, hits in memory don't notice that Redis is gone, nor do others fail."""
    client = make_client(server, cache=own_server.url)
    client.complete("Before")
    own_server.kill()
    began = time.monotonic()
    assert [client.complete("Before").cached for _ in range(100)] == ["memory"] * 100
    assert time.monotonic() - began < 1
    assert client.complete("After").cached is None
    assert client.complete("After").cached == "memory"
    own_server.start()
    until(lambda: client.complete("Back", use_cache="refresh") and own_server.ask("DBSIZE"))


class Freezing(RedisCache):
    """Freezes its server before a certain operation."""

    def __init__(self, server: RedisServer, before: int) -> None:
        super().__init__(server.url)
        self.server = server
        self.before = before
        self.done = 0
        self.spent = 0.0

    def _attempt(self, allowance: Any, unavailable: Any, work: Any, *arguments: Any) -> Any:
        self.done += 1
        if self.done == self.before:
            self.server.freeze()
        began = time.monotonic()
        try:
            return super()._attempt(allowance, unavailable, work, *arguments)
        finally:
            self.spent += time.monotonic() - began


# Looking, locking, looking under the lock, keeping, unlocking.
OPERATIONS = range(1, 6)


def test_the_operations_of_a_call(server: ProviderServer, own_server: RedisServer) -> None:
    """A miss costs five operations, and a hit one: the tests below freeze each of them."""
    cache = Freezing(own_server, before=0)
    client = make_client(server, cache=cache)
    cache.read("warm up")
    cache.done = 0
    client.complete("Why?")
    assert cache.done == len(OPERATIONS)
    client.complete("Why?")
    assert cache.done == len(OPERATIONS) + 1


@pytest.mark.parametrize("before", OPERATIONS)
@pytest.mark.parametrize("timeout", [0.6, 30])
def test_a_server_that_freezes_at_any_moment(
    server: ProviderServer, own_server: RedisServer, before: int, timeout: float
) -> None:
    """Whatever is being asked of a frozen server, the call has its answer in time."""
    client = make_client(server, cache=Freezing(own_server, before))
    client.complete("Warm up: the SDK, and its connection", use_cache=False)
    with Lag() as lag:
        began = time.monotonic()
        assert client.complete("Why?", timeout=timeout).cached is None
        took = time.monotonic() - began
    assert took < min(timeout, MORE + SLACK) + lag.worst


def test_a_lock_that_was_left_behind_holds_up_nobody(
    server: ProviderServer, own_server: RedisServer
) -> None:
    """Who could not give its lock back, for the server was frozen, does not wait for itself."""
    cache = RedisCache(own_server.url)
    client = make_client(server, cache=cache)

    def answer(request: RecordedRequest) -> Answer:
        own_server.freeze()
        until(lambda: cache.get("anything") or not cache.stats()["available"])
        return Answer("Yes.")

    server.script(answer)
    assert client.complete("Why?").cached is None
    own_server.thaw()
    until(lambda: cache.set("thawed", True))
    assert len(own_server.ask("KEYS", "*:l:*")) == 1
    began = time.monotonic()
    assert client.complete("Why?").cached is None
    assert time.monotonic() - began < MORE + SLACK
    assert own_server.ask("KEYS", "*:l:*") == []
    assert client.complete("Why?").cached == "redis"


def test_a_stream_from_a_frozen_server(server: ProviderServer, own_server: RedisServer) -> None:
    """Streams spend no more on a frozen cache than calls do, from their beginning to their end."""
    client = make_client(server, cache=RedisCache(own_server.url))
    client.complete("Warm up")
    own_server.freeze()
    began = time.monotonic()
    with client.stream("Why?") as stream:
        assert "".join(stream.text_stream)
    assert time.monotonic() - began < MORE + SLACK


def test_a_race_with_a_frozen_server(server: ProviderServer, own_server: RedisServer) -> None:
    """All racers together spend what one call may."""
    client = make_client(server, cache=RedisCache(own_server.url))
    client.complete("Warm up")
    client.complete("Warm up", model=OTHER)
    own_server.freeze()
    began = time.monotonic()
    assert client.race("Why?", [OTHER, OTHER, OTHER]).text
    assert time.monotonic() - began < MORE + SLACK


def test_a_wait_for_another_process_ends_with_the_call(
    server: ProviderServer, redis_server: RedisServer
) -> None:
    """Who waits for the lock of a killed process asks by itself before its time is over."""
    cache = RedisCache(redis_server.url, "left-locked")
    client = make_client(server, cache=cache)
    server.answer = Answer("Yes.")
    key: list[str] = []

    class Noting(RedisCache):
        def acquire(self, name: str, *arguments: Any) -> Any:
            key.append(name)
            return super().acquire(name, *arguments)

    make_client(server, cache=Noting(redis_server.url, "left-locked")).complete("Why?")
    cache.clear()
    assert cache.acquire(key[0], "somebody else's", 60.0) == "granted"
    began = time.monotonic()
    assert client.complete("Why?", timeout=3).cached is None
    assert time.monotonic() - began < 3
    cache.release(key[0], "somebody else's")


def test_a_server_that_freezes_while_another_process_is_awaited(
    server: ProviderServer, own_server: RedisServer
) -> None:
    """A look that takes long leaves that much less for keeping the answer."""
    keys: list[str] = []

    class Noting(RedisCache):
        def acquire(self, name: str, *arguments: Any) -> Any:
            keys.append(name)
            return super().acquire(name, *arguments)

    noting = Noting(own_server.url)
    make_client(server, cache=noting).complete("Why?")
    assert noting.clear()
    assert noting.acquire(keys[0], "somebody else's", 60.0) == "granted"
    cache = Freezing(own_server, before=3)
    assert make_client(server, cache=cache).complete("Why?").cached is None
    assert cache.done > 3
    assert cache.spent < 0.4


def test_no_key_gets_into_redis(server: ProviderServer, own_server: RedisServer) -> None:
    """The provider's API key is in no key, no value and no lock of the server."""
    seen: list[bytes] = []

    def look() -> None:
        for key in own_server.ask("KEYS", "*"):
            seen.extend((key, own_server.ask("GET", key)))

    def answer(request: Any) -> Answer:
        assert KEY in repr(request.headers)
        look()  # while the lock is held
        return Answer("Yes. " * 500)

    server.answer = answer
    client = make_client(server, cache=own_server.url)
    client.complete("Why?")
    client.complete("Why not?", model=OTHER, metadata={"key": KEY})
    look()
    assert len(seen) > 4
    from llmkit.cache.entry import unpack

    for piece in seen:
        assert KEY.encode() not in piece
        if piece.startswith(b"["):
            assert KEY not in unpack(piece).text
