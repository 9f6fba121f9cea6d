"""A server's end of one connection that notices at any moment when the client leaves."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import sys
import threading
import time

__all__ = ["Channel", "ClientLeft"]

if sys.platform == "win32":
    _Selector = selectors.SelectSelector
else:
    # Has no limit on descriptor numbers, and needs no descriptor of its own.
    _Selector = selectors.PollSelector

_READ_SIZE = 256 * 1024


class ClientLeft(Exception):
    """The connection is at its end: the client left, or `shut()` was called."""


class Channel:
    """A non-blocking connection. One thread uses it; any other may `shut()` it.

    Whatever the client sends while the server waits goes into `received`, so a pipelined request
    is kept and the end of the connection is seen at once, in plain TCP and in TLS alike.

    Args:
        connection: The connected socket, a TLS one before its handshake. The channel owns it.
        limit: How many bytes it holds that nobody has taken; a client that sends more is
            treated as one that left.
    """

    def __init__(self, connection: socket.socket, limit: int) -> None:
        connection.setblocking(False)
        self.received = bytearray()
        self._socket = connection
        self._limit = limit
        self._lock = threading.Lock()
        self._is_open = True
        self._selector = _Selector()
        self._selector.register(connection, selectors.EVENT_READ)

    def shake_hands(self, timeout: float) -> None:
        """Does the TLS handshake, if the socket is a TLS one.

        Raises:
            ClientLeft: It failed, or took longer than `timeout` seconds.
        """
        if not isinstance(self._socket, ssl.SSLSocket):
            return
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._socket.do_handshake()
                return
            except ssl.SSLWantReadError:
                events = selectors.EVENT_READ
            except ssl.SSLWantWriteError:
                events = selectors.EVENT_WRITE
            except (OSError, ValueError) as error:
                raise ClientLeft from error
            if not self._wait(events, deadline - time.monotonic()):
                raise ClientLeft

    def receive(self) -> None:
        """Waits without limit until more has arrived.

        Raises:
            ClientLeft: Nothing more will arrive.
        """
        before = len(self.received)
        while len(self.received) == before:
            if not self._read_arrived():
                self._wait(selectors.EVENT_READ, None)

    def send(self, data: bytes) -> None:
        """Sends all of the data.

        Raises:
            ClientLeft: The client left before all was sent.
        """
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view) :]
                continue
            except (BlockingIOError, ssl.SSLWantWriteError):
                events = selectors.EVENT_READ | selectors.EVENT_WRITE
            except ssl.SSLWantReadError:
                events = selectors.EVENT_READ
            except (OSError, ValueError) as error:
                raise ClientLeft from error
            if self._wait(events, None) & selectors.EVENT_READ:
                self._read_arrived()

    def pause(self, seconds: float | None) -> None:
        """Waits, and watches the client meanwhile.

        Args:
            seconds: How long; None: until the client leaves.

        Raises:
            ClientLeft: The client left during the wait.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while True:
            self._read_arrived()
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return
            self._wait(selectors.EVENT_READ, left)

    def shut(self) -> None:
        """Ends the connection; whoever waits on it gets `ClientLeft`. Safe from any thread."""
        with self._lock, contextlib.suppress(OSError):
            if self._is_open:
                # The base class's method: SSLSocket's own drops the TLS state under its user.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self, *, reset: bool = False) -> None:
        """Frees the socket; with `reset` the client reads "connection reset". Idempotent."""
        with self._lock:
            if not self._is_open:
                return
            self._is_open = False
            if reset:
                with contextlib.suppress(OSError):
                    linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
                    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._selector.close()
            with contextlib.suppress(OSError):
                self._socket.close()

    def _read_arrived(self) -> bool:
        """Takes in all that has arrived; says whether it was anything."""
        arrived = False
        while True:
            try:
                data = self._socket.recv(_READ_SIZE)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return arrived
            except (OSError, ValueError) as error:
                raise ClientLeft from error
            if not data or len(self.received) + len(data) > self._limit:
                raise ClientLeft
            self.received += data
            if len(data) < _READ_SIZE and not isinstance(self._socket, ssl.SSLSocket):
                return True
            arrived = True

    def _wait(self, events: int, timeout: float | None) -> int:
        """Waits until the socket is ready; returns for what, 0 when the time is over."""
        key = self._selector.get_key(self._socket)
        if key.events != events:
            self._selector.modify(self._socket, events)
        ready = self._selector.select(timeout)
        return ready[0][1] if ready else 0
