"""The threads of a server: one that accepts, one for each connection, all ended by `close()`."""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
import time
from collections.abc import Callable

from llmkit.testing.channel import Channel, ClientLeft
from llmkit.testing.http_exchange import MAX_BODY, MAX_HEAD, ConnectionCut

__all__ = ["Listening"]

_HANDSHAKE_TIMEOUT = 10.0
_JOIN_TIMEOUT = 1.0


class Listening:
    """One listening socket with its threads: one that accepts and one for each connection.

    Args:
        listener: The listening socket, from now on this object's.
        tls: A server-side context; None: plain TCP.
        accept: Called for each new connection; returns its number.
        serve: Called in the connection's thread with the channel, the number, and an event that
            is set when the connections end because `close()` wants it.
    """

    def __init__(
        self,
        listener: socket.socket,
        tls: ssl.SSLContext | None,
        accept: Callable[[], int],
        serve: Callable[[Channel, int, threading.Event], None],
    ) -> None:
        self._listener = listener
        self._tls = tls
        self._accept = accept
        self._serve = serve
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._connections: dict[Channel, threading.Thread] = {}
        self._bell, self._listener_bell = socket.socketpair()
        listener.setblocking(False)
        self._thread = threading.Thread(
            target=self._run, name="llmkit-provider-server", daemon=True
        )
        self._thread.start()

    def open_connections(self) -> int:
        """How many connections are open now."""
        with self._lock:
            return len(self._connections)

    def close(self) -> None:
        """Ends all threads; waits about a second for them at most."""
        self._closing.set()
        self._bell.close()
        deadline = time.monotonic() + _JOIN_TIMEOUT
        self._thread.join(_JOIN_TIMEOUT)
        with self._lock:
            connections = dict(self._connections)
        for channel in connections:
            channel.shut()
        for thread in connections.values():
            # An answer function may close its own server.
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        with (
            self._listener as listener,
            self._listener_bell as bell,
            selectors.DefaultSelector() as selector,
        ):
            selector.register(listener, selectors.EVENT_READ)
            selector.register(bell, selectors.EVENT_READ)
            while not self._closing.is_set():
                selector.select()
                self._accept_waiting(listener)

    def _accept_waiting(self, listener: socket.socket) -> None:
        try:
            while not self._closing.is_set():
                self._open(listener.accept()[0])
        except BlockingIOError:
            pass  # all are in
        except OSError:
            # The client is gone again, or the process is out of descriptors for a while.
            self._closing.wait(0.01)

    def _open(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection = self._tls.wrap_socket(
                    connection, server_side=True, do_handshake_on_connect=False
                )
            channel = Channel(connection, MAX_HEAD + MAX_BODY)
        except (OSError, ValueError):  # gone before it was looked at
            connection.close()
            return
        number = self._accept()
        thread = threading.Thread(
            target=self._run_connection,
            args=(channel, number),
            name=f"llmkit-provider-server-{number}",
            daemon=True,
        )
        with self._lock:
            self._connections[channel] = thread
        thread.start()

    def _run_connection(self, channel: Channel, number: int) -> None:
        try:
            channel.shake_hands(_HANDSHAKE_TIMEOUT)
            self._serve(channel, number, self._closing)
        except (ClientLeft, ConnectionCut):
            pass
        finally:
            channel.close()
            with self._lock:
                del self._connections[channel]
