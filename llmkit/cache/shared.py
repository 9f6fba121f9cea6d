"""What caches outside this process have in common: bounded time, and failures that stay inside."""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable
from typing import Any, TypeVar

from llmkit.cache.allowance import Allowance
from llmkit.cache.base import DEFAULT_TTL, LLMCache
from llmkit.cache.breaker import StoreFailed, StoreSkipped
from llmkit.cache.entry import to_utf8
from llmkit.errors import InvalidRequestError
from llmkit.scope import current_scope

__all__ = ["DEFAULT_NAMESPACE", "OPERATION", "SharedCache", "digest", "plain"]

T = TypeVar("T")

DEFAULT_NAMESPACE = "llmkit"

# Seconds that one operation may take, and below which it isn't worth beginning.
OPERATION = 0.2
TOO_LITTLE = 0.001

# Seconds that a clear may take: an explicit command, often over very many entries.
CLEARING = 30.0


class SharedCache(LLMCache):
    """A cache that other processes see, too.

    Each operation takes at most 0.2 s, never more than the call's `Allowance` and its Scope have
    left, and raises nothing.

    Args:
        namespace: What sets these entries apart from those of others in the same store.
        ttl: Seconds that an entry lives by default.
        clock: Seconds since the epoch.
        rng: Gives numbers from 0 to 1.

    Raises:
        InvalidRequestError: The namespace is no text, or empty.
    """

    shared = True

    def __init__(
        self,
        namespace: str = DEFAULT_NAMESPACE,
        *,
        ttl: float = DEFAULT_TTL,
        clock: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
    ) -> None:
        if not isinstance(namespace, str) or not namespace:
            raise InvalidRequestError(f"namespace={namespace!r}: expected a text")
        try:
            namespace.encode()
        except UnicodeEncodeError:  # such as a variable's bytes that are no UTF-8
            raise InvalidRequestError(f"namespace={namespace!r}: expected a text") from None
        super().__init__(ttl=ttl, clock=clock, rng=rng)
        self.namespace = namespace

    def _attempt(
        self,
        allowance: Allowance | None,
        unavailable: T,
        work: Callable[..., T],
        *arguments: Any,
    ) -> T:
        """Does something with the store in the time there is.

        Args:
            allowance: What the call may spend; None lets the operation take its 0.2 s.
            unavailable: What to return when it can't be done.
            work: What to do: gets the moment until which it may take (of `time.monotonic`), and the
                arguments.
            *arguments: For `work`.

        Returns:
            What `work` returns, or `unavailable`.
        """
        limit = OPERATION
        if allowance is not None:
            limit = min(limit, allowance.left())
        scope = current_scope()
        left = None if scope is None else scope.remaining()
        if left is not None and left < limit:
            limit = left
        if limit < TOO_LITTLE:
            self.count("skipped")
            return unavailable
        begin = 0.0 if allowance is None else allowance.clock()
        try:
            return work(time.monotonic() + limit, *arguments)
        except StoreSkipped:
            self.count("skipped")
        except StoreFailed:
            self.count("errors")
        finally:
            if allowance is not None:
                allowance.spend(allowance.clock() - begin)
        return unavailable

    def _clear(self, work: Callable[[float], bool]) -> bool:
        """Removes everything in this namespace, which may take longer than other operations."""
        scope = current_scope()
        left = None if scope is None else scope.remaining()
        try:
            return work(time.monotonic() + (CLEARING if left is None else min(CLEARING, left)))
        except StoreSkipped:
            self.count("skipped")
        except StoreFailed:
            self.count("errors")
        return False


def digest(key: str) -> bytes:
    """Returns 32 bytes for a key: of one length, and without what the key may tell."""
    return hashlib.sha256(to_utf8(key)).digest()


def plain(name: str) -> str:
    """Writes a name with letters, digits and `._-` alone, so that no other name reads the same."""
    return re.sub(rb"[^\w.-]", lambda each: b"%%%02X" % each[0][0], to_utf8(name)).decode("ascii")
