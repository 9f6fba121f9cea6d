"""Pooled connections: one request at a time on each, and the one used last is used next.

httpcore2's own pool looks at all its connections, and asks the system about each idle one, twice in
every request: with a hundred threads that is most of what a request costs. It has a queue, too,
which the gate before it leaves empty. Its connections are used here as they are.
"""

from __future__ import annotations

import collections
import contextlib
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import httpcore2

from llmkit.process_local import alive

__all__ = ["Connections", "give_up"]

# Seconds between two looks at the idle connections that are not in use.
SWEEP_EVERY = 1.0


class _Owned:
    """A connection, and whose it is: when nobody has it any more, it is closed.

    So none is lost where Ctrl-C comes between taking it and noting that it was taken.
    """

    __slots__ = ("__weakref__", "connection")

    def __init__(self, connection: httpcore2.ConnectionInterface) -> None:
        self.connection = connection

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError):  # Ctrl-C came before it was made
            self.connection.close()


_Idle = collections.deque[_Owned]


class Connections:
    """The connections that one route makes: direct ones, or those through one proxy.

    Every step rests on single atomic operations of sets and deques, without a lock.

    Args:
        route: Makes the connections; httpcore2's pool, of which nothing else is used.
        most_idle: How many idle ones are kept; for a moment there may be more.
        clock: Seconds that never run backwards.
    """

    def __init__(
        self,
        route: httpcore2.ConnectionPool,
        most_idle: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._route = route
        self._most_idle = most_idle
        self._clock = clock
        self._sweep_at = clock() + SWEEP_EVERY
        self._all: weakref.WeakSet[_Owned] = weakref.WeakSet()
        self._idle: dict[tuple[bytes, bytes, int], _Idle] = {}

    def __iter__(self) -> Iterator[httpcore2.ConnectionInterface]:
        return iter([owned.connection for owned in alive(self._all)])

    def handle_request(self, request: httpcore2.Request) -> httpcore2.Response:
        """Sends a request; its connection is free again when the reply is closed.

        Args:
            request: The request.

        Returns:
            The reply, with its body unread.

        Raises:
            httpcore2.UnsupportedProtocol: The URL is neither http nor https.
            Exception: Another of httpcore2's: there was no connection, or it failed.
        """
        if request.url.scheme not in (b"http", b"https"):
            scheme = request.url.scheme.decode("ascii", "replace")
            raise httpcore2.UnsupportedProtocol(f"{scheme}://: expected http:// or https://")
        origin = request.url.origin
        idle = self._idle.setdefault((origin.scheme, origin.host, origin.port), _Idle())
        if self._clock() >= self._sweep_at:
            self._sweep()
        while True:
            owned = None
            try:
                owned = self._take(idle)
                if owned is None:
                    owned = _Owned(self._route.create_connection(origin))
                    self._all.add(owned)
                reply = owned.connection.handle_request(request)
                body = cast("Iterable[bytes]", reply.stream)
                reply.stream = _PooledBody(body, owned, idle, self)
                return reply
            except httpcore2.ConnectionNotAvailable:  # closed meanwhile; nothing was sent
                self.drop(owned)
            # Ctrl-C, too; as httpcore2 does, but for a tunnel that fails after the proxy agreed.
            except BaseException:
                self.drop(owned)
                raise

    def give_back(self, owned: _Owned, idle: _Idle) -> None:
        """Keeps a connection whose reply is closed, if it can be used again.

        Args:
            owned: The connection.
            idle: Where the idle ones of its origin are.
        """
        connection = owned.connection
        kept = False
        try:
            kept = connection.is_idle() and not connection.has_expired()
            if kept:
                idle.append(owned)
        finally:
            if not kept:  # Ctrl-C included
                self.drop(owned)

    def drop(self, owned: _Owned | None) -> None:
        """Closes a connection, without any lock: perhaps in the midst of anything.

        Args:
            owned: The connection; None does nothing.
        """
        if owned is not None:
            self._all.discard(owned)
            owned.connection.close()

    def close_idle(self) -> None:
        """Closes the connections that nobody uses; one that somebody has just taken is left."""
        for idle in tuple(self._idle.values()):
            with contextlib.suppress(IndexError):
                while True:
                    self.drop(idle.pop())

    def _take(self, idle: _Idle) -> _Owned | None:
        while True:
            try:
                owned = idle.pop()
            except IndexError:
                return None
            try:
                if not owned.connection.is_closed() and not owned.connection.has_expired():
                    return owned
            except BaseException:  # Ctrl-C, perhaps: it is in nobody's hands any more
                self.drop(owned)
                raise
            self.drop(owned)

    def _sweep(self) -> None:
        """Closes the idle connections that have been so for too long, and those too many."""
        self._sweep_at = self._clock() + SWEEP_EVERY
        lines = tuple(self._idle.values())
        for idle in lines:
            with contextlib.suppress(IndexError, ValueError):  # another thread was faster
                while idle[0].connection.has_expired():
                    self._drop_oldest(idle)
        while sum(map(len, lines)) > self._most_idle:
            with contextlib.suppress(IndexError, ValueError):
                self._drop_oldest(max(lines, key=len))

    def _drop_oldest(self, idle: _Idle) -> None:
        oldest = idle[0]
        idle.remove(oldest)
        self.drop(oldest)


class _PooledBody:
    """The body of a reply, whose end frees its connection."""

    def __init__(
        self,
        body: Iterable[bytes],
        owned: _Owned,
        idle: _Idle,
        connections: Connections,
    ) -> None:
        self._body = body
        self._owned = owned
        self._idle = idle
        self._connections = connections

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            self._body.close()  # type: ignore[attr-defined]  # httpcore2's bodies have it
        finally:
            self._connections.give_back(self._owned, self._idle)

    def give_up(self) -> None:
        self._connections.drop(self._owned)


def give_up(reply: httpcore2.Response) -> None:
    """Closes the connection of a reply that is not read to its end: nobody can use it again.

    Args:
        reply: What `Connections.handle_request` returned; not closed yet.
    """
    cast("_PooledBody", reply.stream).give_up()
