"""Sockets that obey the Scope: the bottom of every HTTP connection that llmkit makes.

httpcore2 hands each socket operation to a network backend. This one gives an operation only the
time that the current Scope has left, read anew for every single operation, and leaves the Scope a
way to end it: `shutdown` on the socket, which wakes a thread that is blocked in it. A socket is
known to the Scope only while one operation blocks on it, so a cancel that comes late can never cut
a connection that went back to its pool.

Outside a Scope the backend keeps httpx2's own time-outs, one per operation.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

import httpcore2

from llmkit.errors import ErrorCode
from llmkit.process_local import ProcessLocal
from llmkit.scope import Scope, current_scope, interruption
from llmkit.threads import Flag, TooManyThreadsError, run_detached

__all__ = ["ScopedBackend"]

T = TypeVar("T")
# getaddrinfo's rows: family, type, protocol, canonical name, address.
_Address = tuple[Any, ...]

# Seconds that a connect is given even when there are none left: with 0 it would not wait at all.
_LEAST_TIME = 0.001


def _cut(sock: socket.socket) -> None:
    # The base class's method: SSLSocket.shutdown() drops its TLS layer first, so that a send in
    # that moment would go out in plain text.
    with contextlib.suppress(OSError):  # not connected: nothing is blocked on it
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _limit(sock: socket.socket, timeout: float | None, doing: str) -> Scope | None:
    """Gives a socket's next operation `timeout` s (None: no limit), or less if the Scope ends."""
    scope = current_scope()
    left = None if scope is None else scope.check(doing)
    sock.settimeout(left if timeout is None or (left is not None and left < timeout) else timeout)
    return scope


def _blocking(
    sock: socket.socket,
    wake: Callable[[], object],
    operation: Callable[[], T],
    timeout: float | None,
    doing: str,
) -> T:
    """Runs one blocking operation on a socket, inside the current Scope.

    Args:
        sock: The socket.
        wake: Ends the operation from another thread.
        operation: What to do.
        timeout: Seconds for this operation alone; None leaves only the Scope's time.
        doing: The operation, for the error's message.

    Returns:
        What the operation returns.

    Raises:
        CallInterrupted: The Scope was cancelled, or its time ended.
        TimeoutError: `timeout` ended first.
        OSError: The operation failed.
    """
    scope = _limit(sock, timeout, doing)
    if scope is None:
        return operation()
    scope.block(wake)
    try:
        result = operation()
    except OSError:
        scope.check(doing)
        raise
    finally:
        scope.unblock(wake)
    if scope.cancelled:
        scope.check(doing)
    return result


class ScopedStream(httpcore2.NetworkStream):
    """One connected socket, plain or TLS."""

    def __init__(self, sock: socket.socket, backend: ScopedBackend) -> None:
        self._sock = sock
        self._backend = backend
        self._wake = functools.partial(_cut, sock)
        backend.sockets.add(sock)  # noted already, unless it is a TLS one

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Reads what is there, at most `max_bytes`; waits `timeout` s at most (None: the Scope)."""
        try:
            return _blocking(
                self._sock,
                self._wake,
                functools.partial(self._sock.recv, max_bytes),
                timeout,
                "reading the reply",
            )
        except TimeoutError as error:
            raise httpcore2.ReadTimeout(str(error)) from error
        except OSError as error:
            raise httpcore2.ReadError(str(error)) from error

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Sends all of `buffer`; each send waits `timeout` s at most (None: the Scope)."""
        view = memoryview(buffer)
        try:
            while view:
                sent = _blocking(
                    self._sock,
                    self._wake,
                    functools.partial(self._sock.send, view),
                    timeout,
                    "sending the request",
                )
                view = view[sent:]
        except TimeoutError as error:
            raise httpcore2.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore2.WriteError(str(error)) from error

    def close(self) -> None:
        """Closes the socket."""
        self._backend.sockets.discard(self._sock)
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore2.NetworkStream:
        """Shakes hands, within the connect time-out and the Scope."""
        if isinstance(self._sock, ssl.SSLSocket):
            self.close()
            raise httpcore2.ConnectError(
                "TLS inside TLS: an https:// proxy can't be used for an https:// address here; "
                "write the proxy as http://"
            )
        limit = self._backend.connect_time(timeout)
        try:
            tls = self._wrap(ssl_context, server_hostname, limit)
            stream = ScopedStream(tls, self._backend)
            try:
                _blocking(tls, stream._wake, tls.do_handshake, limit, "shaking hands (TLS)")
            except BaseException:  # Ctrl-C, too: nobody else has the stream yet
                stream.close()
                raise
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"the TLS handshake took over {limit:g} s") from error
        except (OSError, ValueError) as error:
            raise httpcore2.ConnectError(str(error)) from error
        return stream

    def _wrap(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None, limit: float
    ) -> ssl.SSLSocket:
        """Puts TLS on the socket, which this stream no longer owns afterwards."""
        self._backend.sockets.discard(self._sock)
        # wrap_socket detaches the plain socket, so the TLS one has to be noted before it shakes
        # hands. The system's trust store (macOS, Windows) can only be asked after the handshake,
        # inside wrap_socket: there the handshake obeys the deadline, but not a cancel.
        plain = type(ssl_context) is ssl.SSLContext
        try:
            _limit(self._sock, limit, "shaking hands (TLS)")
            return ssl_context.wrap_socket(
                self._sock, server_hostname=server_hostname, do_handshake_on_connect=not plain
            )
        except BaseException:  # Ctrl-C, too: a socket half wrapped is of no use
            self._sock.close()
            raise

    def get_extra_info(self, info: str) -> Any:
        """Returns what httpcore2 asks about the socket: `ssl_object` or `is_readable`, say."""
        if info == "is_readable":
            # What the pool takes for a connection that ended, it closes instead of using it again.
            return self._backend.retired or _is_readable(self._sock)
        if info == "ssl_object" and isinstance(self._sock, ssl.SSLSocket):
            return self._sock
        if info == "socket":
            return self._sock
        if info == "client_addr":
            return self._sock.getsockname()
        if info == "server_addr":
            return self._sock.getpeername()
        return None


class ScopedBackend(httpcore2.NetworkBackend):
    """Opens connections for a pool.

    Args:
        connect_timeout: Seconds for the look-up, the connect and the TLS handshake, each; the
            Scope's time bounds them together.

    Attributes:
        sockets: All that are open, for `abandon`.
        retired: Whether connections are closed as soon as they are idle, since their pool is.
    """

    def __init__(self, connect_timeout: float) -> None:
        self._connect_timeout = connect_timeout
        self.sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self.retired = False

    def connect_time(self, timeout: float | None) -> float:
        """Returns the seconds to connect in.

        Args:
            timeout: What the request says; None sets no limit.

        Returns:
            The smallest of `timeout`, the pool's connect time-out, and what the Scope has left.
        """
        scope = current_scope()
        left = None if scope is None else scope.remaining()
        limits = (timeout, self._connect_timeout, left)
        return min(limit for limit in limits if limit is not None)

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """Looks the host up and connects to the first of its addresses that answers."""
        limit = self.connect_time(timeout)
        ends = time.monotonic() + limit
        addresses = _resolve(host, port, limit)
        options = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), *(socket_options or ()))
        failure: OSError = OSError(f"{host} has no address")
        for tried, address in enumerate(addresses):
            share = max(ends - time.monotonic(), _LEAST_TIME) / (len(addresses) - tried)
            try:
                return ScopedStream(self._connect(address, share, local_address, options), self)
            except OSError as error:
                failure = error
        if isinstance(failure, TimeoutError):
            raise httpcore2.ConnectTimeout(f"{host}:{port} did not answer") from failure
        raise httpcore2.ConnectError(f"{host}:{port}: {failure}") from failure

    def _connect(
        self,
        address: _Address,
        timeout: float,
        local_address: str | None,
        options: Iterable[httpcore2.SOCKET_OPTION],
    ) -> socket.socket:
        family, kind, protocol, _, where = address
        sock = socket.socket(family, kind, protocol)
        self.sockets.add(sock)  # already now: a fork may come while it connects
        try:
            if local_address is not None:
                sock.bind((local_address, 0))
            for option in options:
                sock.setsockopt(*option)
            wake = functools.partial(_cut, sock)
            connect = functools.partial(sock.connect, where)
            _blocking(sock, wake, connect, timeout, "connecting")
        except BaseException:  # Ctrl-C, too: nobody else has the socket yet
            sock.close()
            raise
        return sock

    def abandon(self) -> None:
        """Closes, in a forked child, the sockets that the parent goes on using.

        `close` and not `shutdown`: the latter would end the parent's connections, too.
        """
        for sock in list(self.sockets):
            sock.close()


def _resolve(host: str, port: int, timeout: float) -> list[_Address]:
    """Looks a host name up; the look-up itself can't be cut, so it runs on a thread of its own."""
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        pass  # a name, not an address
    doing = f"looking up {host}"
    done = Flag()
    try:
        future = _look_up(host, port)
    except TooManyThreadsError as error:
        raise httpcore2.ConnectError(f"{doing}: {error}; the name service seems to hang") from error
    future.add_done_callback(done.set)
    scope = current_scope()
    answered = done.wait(timeout) if scope is None else scope.wait(done, doing, timeout)
    if not answered:
        raise httpcore2.ConnectTimeout(f"{doing} took over {timeout:g} s")
    try:
        return future.result()
    except OSError as error:
        raise httpcore2.ConnectError(f"{doing}: {error}") from error
    except UnicodeError as error:
        message = f"{host!r} is not a host name: {error}"
        raise interruption(ErrorCode.INVALID_REQUEST, message) from error


# Look-ups under way: calls that start together share one, for each host.
_lookups: ProcessLocal[dict[tuple[str, int], Future[list[_Address]]]] = ProcessLocal(dict)


def _look_up(host: str, port: int) -> Future[list[_Address]]:
    running = _lookups.get()
    future = running.get((host, port))
    if future is None or future.done():
        look_up = functools.partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        future = running[host, port] = run_detached(look_up, "resolver")
    return future


def _is_readable(sock: socket.socket) -> bool:
    """Says whether a read would return at once: on an idle connection, that its peer has left."""
    if sock.fileno() < 0:
        return True
    import select

    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLIN)
        return bool(poll.poll(0))
    return bool(select.select([sock], [], [], 0)[0])  # pragma: no cover - Windows
