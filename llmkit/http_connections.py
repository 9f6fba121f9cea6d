"""Pooled connections: one request at a time on each, and the one used last is used next.

httpcore2's own pool looks at all its connections, and asks the system about each idle one, twice in
every request: with a hundred threads that is most of what a request costs. It has a queue, too,
which the gate before it leaves empty. Its connections are used here as they are.
"""

from __future__ import annotations

import collections
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import httpcore2

__all__ = ["Connections"]

# Seconds between two looks at the idle connections that are not in use.
SWEEP_EVERY = 1.0

_Idle = collections.deque[httpcore2.ConnectionInterface]


class Connections:
    """The connections that one route makes: direct ones, or those through one proxy.

    Every step rests on single atomic operations of lists and deques, without a lock.

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
        self._all: list[httpcore2.ConnectionInterface] = []
        self._idle: dict[tuple[bytes, bytes, int], _Idle] = {}

    def __iter__(self) -> Iterator[httpcore2.ConnectionInterface]:
        return iter(tuple(self._all))

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
            connection = None
            try:
                if idle:
                    try:
                        connection = idle[0]
                        # Not `popleft`: with Ctrl-C behind it, what it returns would be lost.
                        idle.remove(connection)
                    except (IndexError, ValueError):  # another thread was faster
                        connection = None
                        continue
                    if connection.is_closed() or connection.has_expired():
                        self._drop(connection)
                        continue
                else:
                    connection = self._route.create_connection(origin)
                    self._all.append(connection)
                reply = connection.handle_request(request)
                body = cast("Iterable[bytes]", reply.stream)
                reply.stream = _Turn(body, connection, idle, self)
                return reply
            except httpcore2.ConnectionNotAvailable:  # closed meanwhile; nothing was sent
                self._drop(connection)
            except BaseException:
                # As httpcore2 does, but for a tunnel that fails after the proxy has agreed to it.
                self._drop(connection)
                raise

    def give_back(self, connection: httpcore2.ConnectionInterface, idle: _Idle) -> None:
        """Keeps a connection whose reply is closed, if it can be used again.

        Args:
            connection: The connection.
            idle: Where the idle ones of its origin are.
        """
        kept = False
        try:
            kept = connection.is_idle() and not connection.has_expired()
            if kept:
                idle.appendleft(connection)
        finally:
            if not kept:  # Ctrl-C included
                self._drop(connection)

    def close_idle(self) -> None:
        """Closes the connections that nobody uses; one that somebody has just taken is left."""
        for idle in tuple(self._idle.values()):
            with contextlib.suppress(IndexError):
                while True:
                    self._drop(idle.pop())

    def _sweep(self) -> None:
        """Closes the idle connections that have been so for too long, and those too many."""
        self._sweep_at = self._clock() + SWEEP_EVERY
        lines = tuple(self._idle.values())
        for idle in lines:
            with contextlib.suppress(IndexError, ValueError):  # another thread was faster
                while idle[-1].has_expired():
                    self._drop_oldest(idle)
        for connection in self:
            # Ctrl-C, between two steps, took it out of everybody's hands.
            if connection.is_idle() and connection.has_expired():
                self._drop(connection)
        while sum(map(len, lines)) > self._most_idle:
            with contextlib.suppress(IndexError, ValueError):
                self._drop_oldest(max(lines, key=len))

    def _drop_oldest(self, idle: _Idle) -> None:
        oldest = idle[-1]
        idle.remove(oldest)
        self._drop(oldest)

    def _drop(self, connection: httpcore2.ConnectionInterface | None) -> None:
        if connection is not None:
            with contextlib.suppress(ValueError):  # dropped by another thread already
                self._all.remove(connection)
            connection.close()


class _Turn:
    """The body of a reply, whose end frees its connection."""

    def __init__(
        self,
        body: Iterable[bytes],
        connection: httpcore2.ConnectionInterface,
        idle: _Idle,
        connections: Connections,
    ) -> None:
        self._body = body
        self._connection = connection
        self._idle = idle
        self._connections = connections

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        try:
            self._body.close()  # type: ignore[attr-defined]  # httpcore2's bodies have it
        finally:
            self._connections.give_back(self._connection, self._idle)
