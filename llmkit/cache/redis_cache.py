"""RedisCache: the cache in a server that speaks Redis's protocol."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any

from llmkit.cache.allowance import Allowance
from llmkit.cache.base import DEFAULT_TTL, Lock
from llmkit.cache.breaker import StoreFailed
from llmkit.cache.entry import FORMAT, Entry, pack, unpack
from llmkit.cache.redis_link import Refused, check_installed
from llmkit.cache.redis_servers import find_servers
from llmkit.cache.shared import DEFAULT_NAMESPACE, SharedCache, digest, plain
from llmkit.log import get_logger, redact
from llmkit.process_local import ProcessLocal

__all__ = ["RedisCache"]

# Bytes (compressed) above which a value is not kept: it would not come back in the time there is.
LARGEST = 4 * 2**20

# Keys looked at per step of a clear, and the seconds that a step may take.
_BATCH = 500
_STEP = 2.0

_RENEW = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then"
    " return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0"
)
_RELEASE = (
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"
)


class RedisCache(SharedCache):
    """Keeps values in a server that speaks Redis's protocol, for processes anywhere.

    A server that is gone, hung, restarting, full or locked to us costs each call a quarter of a
    second at most and soon nothing: it is left alone for a while (up to 5 s), then one caller at a
    time tries whether it answers again. It should evict by itself (`maxmemory-policy allkeys-lru`,
    say). The clocks of the machines that share it should agree within seconds. Values above 4 MB
    (compressed) are not kept.

    Args:
        url: `redis://user:password@host:6379/0`, `rediss://…` (TLS), `unix:///socket`, with the
            options of redis-py's URLs (`ssl_ca_certs=…` and so on; its time-outs and retries have
            no effect); `redis+cluster://host:7000,host:7001` or
            `redis+sentinel://host:26379,host:26379/service/0` (`sentinel_username=`,
            `sentinel_password=` where the Sentinels ask for them), or `rediss+…` for TLS.
        namespace: What sets these entries apart from those of others in the same server.
        ttl: Seconds that a value lives by default.
        clock: Seconds since the epoch.
        rng: Gives numbers from 0 to 1.

    Raises:
        ConfigurationError: The URL can't be read, or redis-py is not installed.
        InvalidRequestError: The namespace is no text, or empty.
    """

    level = "redis"

    def __init__(
        self,
        url: str,
        namespace: str = DEFAULT_NAMESPACE,
        *,
        ttl: float = DEFAULT_TTL,
        clock: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
    ) -> None:
        check_installed()
        super().__init__(namespace, ttl=ttl, clock=clock, rng=rng)
        find_servers(url)  # whether it can be read
        self._servers = ProcessLocal(
            lambda: find_servers(url),
            lambda servers: servers.close(),
            lambda servers: servers.abandon(),
        )
        self._prefix = f"llmkit:cache:{FORMAT}:{plain(namespace)}:"
        self._refusing: set[str] = set()

    def fetch(self, key: str, allowance: Allowance | None = None) -> Entry | None:
        """Returns an entry; see `LLMCache.fetch`."""
        data = self._attempt(allowance, None, self._ask, key, "GET")
        if type(data) is not bytes:  # None, or of a server that is out of its mind
            return None
        try:
            return unpack(data)
        except (ValueError, RecursionError):  # not ours, or of another version
            return None

    def keep(self, key: str, entry: Entry, allowance: Allowance | None = None) -> bool:
        """Stores an entry; see `LLMCache.keep`."""
        life = math.ceil(1000 * (entry.kept_until - self.clock()))
        try:
            data = pack(entry)
        except ValueError:
            return False
        if life <= 0 or len(data) > LARGEST:
            return False
        done = self._attempt(allowance, None, self._ask, key, "SET", data, "PX", life)
        return done is not None

    def discard(self, key: str, allowance: Allowance | None = None) -> bool | None:
        """Removes an entry; see `LLMCache.discard`."""
        gone = self._attempt(allowance, None, self._ask, key, "UNLINK")
        return gone > 0 if isinstance(gone, int) else None

    def clear(self) -> bool:
        """Removes all values of this namespace; see `LLMCache.clear`.

        It looks through all keys of the server, in small steps, for 30 s at most (or what the Scope
        has left).
        """
        return self._clear(self._clear_all)

    def acquire(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> Lock:
        """Asks for a lock; see `LLMCache.acquire`."""
        life = math.ceil(1000 * ttl)
        return self._attempt(allowance, "unavailable", self._acquire, key, token, life)

    def renew(self, key: str, token: str, ttl: float, allowance: Allowance | None = None) -> bool:
        """Holds a lock for longer; see `LLMCache.renew`."""
        life = math.ceil(1000 * ttl)
        return self._attempt(allowance, 0, self._run, _RENEW, key, token, life) == 1

    def release(self, key: str, token: str, allowance: Allowance | None = None) -> bool:
        """Gives a lock back; see `LLMCache.release`."""
        return self._attempt(allowance, None, self._run, _RELEASE, key, token) is not None

    def stats(self) -> dict[str, Any]:
        """Returns figures; see `LLMCache.stats`.

        Returns:
            In addition `available` (whether the servers are asked at present) and `outages`.
        """
        servers = self._servers.peek()
        breakers = [] if servers is None else servers.breakers()
        return {
            **super().stats(),
            "available": not any(breaker.is_open for breaker in breakers),
            "outages": sum(breaker.outages for breaker in breakers),
        }

    def close(self) -> None:
        """Closes this process's connections; the next use opens others."""
        self._servers.close()

    def _ask(self, until: float, key: str, command: str, *arguments: Any) -> Any:
        place = f"{self._prefix}k:{digest(key).hex()}"
        return self._told(
            command, self._servers.get().ask, until, place, command, place, *arguments
        )

    def _acquire(self, until: float, key: str, token: str, life: int) -> Lock:
        place = self._lock_place(key)
        command = ("SET", place, token, "NX", "PX", life)
        # Not a second time: the first may have been heard, and its own lock would be in the way.
        done = self._told("SET", self._servers.get().ask, until, place, *command, again=False)
        return "held" if done is None else "granted"

    def _run(self, until: float, script: str, key: str, *arguments: Any) -> Any:
        place = self._lock_place(key)
        command = ("EVAL", script, 1, place, *arguments)
        return self._told("EVAL", self._servers.get().ask, until, place, *command)

    def _lock_place(self, key: str) -> str:
        return f"{self._prefix}l:{digest(key).hex()}"

    def _told(self, command: str, ask: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """Asks, and logs the first of a row of refusals, and its end."""
        try:
            answer = ask(*arguments, **more)
        except Refused as error:
            if command not in self._refusing:
                self._refusing.add(command)
                get_logger("cache").warning(
                    "the cache's server refuses %s (%s): calls go on without it",
                    command,
                    redact(str(error)),
                )
            raise
        if command in self._refusing:
            self._refusing.discard(command)
            get_logger("cache").info("the cache's server accepts %s again", command)
        return answer

    def _clear_all(self, until: float) -> bool:
        servers = self._servers.get()
        for server in servers.all(min(until, time.monotonic() + _STEP)):
            cursor: Any = 0
            while True:
                found = server.ask(
                    self._step(until),
                    "SCAN",
                    cursor,
                    "MATCH",
                    f"{self._prefix}k:*",
                    "COUNT",
                    _BATCH,
                )
                cursor, keys = _read_scan(found)
                for some in [keys] if servers.many_keys else [[key] for key in keys]:
                    if some:
                        server.ask(self._step(until), "UNLINK", *some)
                if cursor == 0:
                    break
        return True

    @staticmethod
    def _step(until: float) -> float:
        now = time.monotonic()
        if now >= until:
            raise StoreFailed("clearing took too long")
        return min(until, now + _STEP)


def _read_scan(found: Any) -> tuple[int, list[Any]]:
    """Reads what a server answers to SCAN: where to go on, and the keys that it has found."""
    try:
        cursor, keys = found
        return int(cursor), list(keys)
    except (TypeError, ValueError) as error:
        raise StoreFailed(f"an answer to SCAN of another kind: {error}") from error
