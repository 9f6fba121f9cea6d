"""Leases: of all processes that see a cache, one asks, and the others wait for what it writes.

The one that asks holds a lock in the cache, for two seconds at a time, and renews it for as long as
it is at work: were it killed, the others wait no longer than that. They look every now and then,
for the value first, then for the lock. Nobody waits who would have too little time left for a call
of its own, and nobody waits for a cache that can't be reached.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, TypeVar

from llmkit.cache.allowance import Allowance
from llmkit.cache.base import Found, LLMCache, Lock
from llmkit.cache.flights import Flights, wait_in_scope
from llmkit.log import get_logger
from llmkit.process_local import ProcessLocal
from llmkit.scope import current_scope
from llmkit.threads import Flag, TooManyThreadsError, run_detached

__all__ = ["UNKEPT", "Answered", "LeasePolicy", "answer_once", "ask_once", "flights_of"]

T = TypeVar("T")

UNKEPT: Final = "llmkit: answered, and not kept"
"""Stands for a moment in the place of a value that is not to be kept, so that other processes ask
side by side instead of one after the other."""


_DOING = "waiting for another process's answer to the same question"

# Seconds from which a look counts as slow: many looks of a millisecond are no reason to give up.
_SLOW = 0.05

# Seconds that giving back a lock may take: it is free after its life in any case.
_TO_RELEASE = 0.05


class LeasePolicy(NamedTuple):
    """How one process waits for another.

    Attributes:
        ttl: Seconds after which the lock of a process that was killed is free.
        renew_every: Seconds between two renewals.
        first_pause: Seconds before the first look for the other's value; each further pause is
            half as long again.
        longest_pause: Seconds that a pause lasts at most.
        lock_every: Seconds between two tries to get the lock: a look is a read, which holds nobody
            up, while a lock is a write, and SQLite has one writer at a time.
        least_share: The part of its time that a call keeps for asking by itself.
        rng: Gives numbers from 0 to 1.
    """

    ttl: float = 2.0
    renew_every: float = 0.7
    first_pause: float = 0.02
    longest_pause: float = 0.2
    lock_every: float = 0.3
    least_share: float = 1 / 3
    rng: Callable[[], float] = random.random

    def worth_waiting(self) -> bool:
        """Whether the current Scope has time to wait for another process."""
        scope = current_scope()
        left = None if scope is None else scope.remaining()
        if scope is None or left is None:
            return True
        return left > self.ttl and left > (scope.timeout or 0.0) * self.least_share


class Answered(NamedTuple):
    """What a flight brings home.

    Attributes:
        value: What was read or asked for, which all who waited share: nobody may change it.
        level: The cache that it came from; None when it was asked for just now.
    """

    value: Any
    level: str | None


# Those to each cache, whoever uses it: also two clients ask a question only once.
_flights: weakref.WeakKeyDictionary[LLMCache, Flights[Answered]] = weakref.WeakKeyDictionary()


def answer_once(
    cache: LLMCache,
    key: str,
    read: Callable[[Any], Any],
    ask: Callable[[], Answered],
    allowance: Allowance | None = None,
) -> Answered:
    """Looks for a value, and asks for it once in all threads and processes if there is none.

    Args:
        cache: Where it may be, and where `ask` writes it.
        key: Its key.
        read: Makes of a JSON value what is shared by all who wait; None for a value of a foreign
            kind, which counts as none.
        ask: Gets it afresh.
        allowance: What this call may spend on shared caches; None for the usual.

    Returns:
        The value.

    Raises:
        CallInterrupted: The Scope ended a wait.
        BaseException: What `ask` raised.
    """
    allowance = allowance or Allowance()
    found = cache.read(key, allowance=allowance)
    if found is not None and found.value != UNKEPT:
        value = read(found.value)
        if value is not None:
            return Answered(value, found.level)

    def use(found: Found | None) -> Answered | None:
        if found is None or found.stale:
            return None
        if found.value == UNKEPT:
            return ask()
        value = read(found.value)
        return None if value is None else Answered(value, found.level)

    def look(allowance: Allowance) -> Answered | None:
        # As if a stale value would do: then only the first look counts as a miss.
        return use(cache.read(key, stale=True, allowance=allowance))

    def lead() -> Answered:
        # Another flight may have landed since that first look. Where processes share the cache
        # they look once more under their lock; until then, what is near will do.
        answered = use(cache.read_near(key)) if cache.shared else look(allowance)
        if answered is not None:
            return answered
        return ask_once(cache, key, look=look, ask=ask, allowance=allowance)

    return flights_of(cache).join(key, lead)


def flights_of(cache: LLMCache) -> Flights[Answered]:
    """Returns the flights of this process to a cache."""
    flights = _flights.get(cache)
    return _flights.setdefault(cache, Flights()) if flights is None else flights


def ask_once(
    cache: LLMCache,
    key: str,
    *,
    look: Callable[[Allowance], T | None],
    ask: Callable[[], T],
    allowance: Allowance,
    policy: LeasePolicy | None = None,
) -> T:
    """Asks, unless another process that sees the cache does: then waits for what that one writes.

    Args:
        cache: What the processes share.
        key: What is asked.
        look: Looks for what another process has written.
        ask: Asks, and writes.
        allowance: What this call may spend on shared caches. Each look while it waits has its own,
            since a cache that fails ends the wait; what a slow one took is taken from here.
        policy: How to wait; None for the usual way.

    Returns:
        What was found or asked.
    """
    if not cache.shared:
        return ask()
    policy = policy or LeasePolicy()
    left_behind = _renewer.get().take_back(cache, key)
    token = left_behind or os.urandom(12).hex()
    pause, since_lock = policy.first_pause, policy.lock_every
    whole = allowance
    while True:
        if since_lock >= policy.lock_every:
            lock = _acquire(cache, key, token, policy.ttl, allowance, bool(left_behind))
            since_lock = 0.0
            if lock == "granted":
                with _held(cache, key, token, allowance, policy):
                    found = look(allowance)  # written between our last look and the lock
                    return ask() if found is None else found
            if lock == "unavailable":
                return ask()
        if not policy.worth_waiting():
            return ask()
        wait_in_scope(Flag(), _DOING, pause)
        since_lock += pause
        pause = min(pause * (1.25 + 0.5 * policy.rng()), policy.longest_pause)
        allowance = Allowance()
        full = allowance.left()
        found = look(allowance)
        if found is not None:
            return found
        took = full - allowance.left()
        if took > _SLOW:
            whole.spend(took)
            since_lock = policy.lock_every  # which says whether the cache still works


def _acquire(
    cache: LLMCache, key: str, token: str, ttl: float, allowance: Allowance, left_behind: bool
) -> Lock:
    """Asks for a lock, which may be the one that was left behind under this token."""
    lock = cache.acquire(key, token, ttl, allowance)
    if lock == "held" and left_behind and cache.renew(key, token, ttl, allowance):
        return "granted"
    return lock


@contextlib.contextmanager
def _held(
    cache: LLMCache, key: str, token: str, allowance: Allowance, policy: LeasePolicy
) -> Iterator[None]:
    """Keeps a lock alive inside the block, and gives it back at the end."""
    process = os.getpid()
    renewer = _renewer.get()
    try:
        renewer.add(token, _Lease(cache, key, policy))
        yield
    finally:
        if os.getpid() == process:  # the lock is not that of a child forked in between
            renewer.remove(token)
            # Outside of the Scope, which may have no time left: the others would wait for nothing.
            short = Allowance(min(allowance.left(), _TO_RELEASE))
            if not contextvars.Context().run(cache.release, key, token, short):
                renewer.leave_behind(token, _Lease(cache, key, policy))


class _Lease(NamedTuple):
    cache: LLMCache
    key: str
    policy: LeasePolicy


class _Renewer:
    """Renews all locks of this process, on one thread that ends when there are none."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may make a call, too
        self._leases: dict[str, _Lease] = {}
        self._left_behind: dict[tuple[int, str], tuple[str, float]] = {}
        self._running = False
        self._nap, self._pause = Flag(), 0.0

    def add(self, token: str, lease: _Lease) -> None:
        """Renews a lock from now on."""
        with self._lock:
            self._leases[token] = lease
            starts, self._running = not self._running, True
            if lease.policy.renew_every < self._pause:
                self._nap.set()
        if starts:
            try:
                # In an empty context: this call's Scope would end the renewals of all others.
                contextvars.Context().run(run_detached, self._run, "lock-renewer")
            except TooManyThreadsError as error:
                self._running = False
                get_logger("cache").warning("locks on cached questions are not renewed: %s", error)

    def remove(self, token: str) -> None:
        """Renews a lock no longer."""
        with self._lock:
            self._leases.pop(token, None)

    def leave_behind(self, token: str, lease: _Lease) -> None:
        """Notes a lock that could not be given back: nobody here is to wait for its end."""
        now = time.monotonic()
        with self._lock:
            over = [each for each, (_, until) in self._left_behind.items() if until <= now]
            for each in over:
                del self._left_behind[each]
            # It may have been renewed a moment ago, by a clock that is not ours.
            until = now + 2 * lease.policy.ttl
            self._left_behind[id(lease.cache), lease.key] = token, until

    def take_back(self, cache: LLMCache, key: str) -> str | None:
        """Returns the token of a lock that was left behind; None when there is none."""
        with self._lock:
            token, _ = self._left_behind.pop((id(cache), key), (None, 0.0))
            return token

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._leases:
                    self._running = False
                    return
                self._pause = min(lease.policy.renew_every for lease in self._leases.values())
                nap = self._nap = Flag()
            nap.wait(self._pause)
            with self._lock:
                leases = dict(self._leases)
            for token, lease in leases.items():
                try:
                    lease.cache.renew(lease.key, token, lease.policy.ttl, Allowance())
                except Exception:  # a foreign cache's bug must not end the renewals of the others
                    get_logger("cache").exception("a lock on a cached question was not renewed")


_renewer: ProcessLocal[_Renewer] = ProcessLocal(_Renewer)
