"""Links to a Redis server: redis-py's connections, each operation bounded as a whole.

redis-py bounds every `send` and `recv` by itself, so that a server that drips could hold a caller
for long, and its own retries and time-outs add up to seconds. Here its connections (TCP, TLS, Unix
sockets, AUTH, the protocol) work on a socket that knows when the operation has to be over.
"""

from __future__ import annotations

import socket
import time
from typing import Any

from llmkit.cache.breaker import StoreFailed, StoreTimeout
from llmkit.errors import ConfigurationError

__all__ = ["CONNECTING", "TELLING", "Link", "Refused", "check_installed"]

# Seconds for connecting, TLS and AUTH, on a thread that nobody waits for as long as that.
CONNECTING = 0.9

# An answer that is missing after fewer seconds than this says nothing about the server.
TELLING = 0.1

# Seconds for which what has come already is still read when the time is over.
_GRACE = 0.03

# What a URL may not change: time-outs and retries belong to the cache.
_NOT_FOR_URLS = (
    "socket_timeout",
    "socket_connect_timeout",
    "socket_read_size",
    "retry_on_timeout",
    "retry_on_error",
    "health_check_interval",
    "max_connections",
    "timeout",
    "protocol",
    "legacy_responses",
)


class _Line:
    """A socket of which every operation ends at one moment."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.sock = sock
        self.until = until

    def recv(self, size: int) -> bytes:
        """Receives; TimeoutError when nothing came in time."""
        try:
            self._set_timeout()
            return self.sock.recv(size)
        except TimeoutError:
            # It may have come while this process was busy with other threads.
            return bytes(self._late(self.sock.recv, size))

    def recv_into(self, *arguments: Any) -> int:
        """Receives into a buffer; TimeoutError when nothing came in time."""
        try:
            self._set_timeout()
            return self.sock.recv_into(*arguments)
        except TimeoutError:
            return int(self._late(self.sock.recv_into, *arguments))

    def sendall(self, data: bytes) -> None:
        """Sends; TimeoutError when it can't in time."""
        self._set_timeout()
        self.sock.sendall(data)

    def settimeout(self, seconds: float | None) -> None:
        """Does nothing: the time is set for each operation."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def _set_timeout(self) -> None:
        left = self.until - time.monotonic()
        if left <= 0.0:
            raise TimeoutError("no time is left")
        self.sock.settimeout(left)

    def _late(self, receive: Any, *arguments: Any) -> Any:
        if time.monotonic() > self.until + _GRACE:
            raise TimeoutError("no complete answer in time")
        self.sock.settimeout(0.0)
        try:
            return receive(*arguments)
        except OSError as error:  # nothing there, be it plain or TLS
            raise TimeoutError("no answer in time") from error


class Link:
    """One connection to one server.

    Args:
        options: What `redis.connection.parse_url` makes of a URL.

    Raises:
        StoreFailed: The server can't be reached, or doesn't let us in.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        import redis

        self._errors = (redis.RedisError, OSError, ValueError)
        self._refusals = redis.ResponseError
        self._timeouts = (redis.TimeoutError, TimeoutError)
        self.used_at = 0.0
        self._line: _Line | None = None
        self._connection = self._make(redis, options)
        try:
            self._connection.connect()
        except self._timeouts as error:
            self.close()
            raise StoreTimeout(f"no connection within {CONNECTING:g} s") from error
        except self._errors as error:
            self.close()
            raise StoreFailed(f"{type(error).__name__}: {error}") from error
        except BaseException:  # Ctrl-C and a cut: nobody else has the socket to close it
            self.close()
            raise

    def ask(self, until: float, *command: Any) -> Any:
        """Sends a command and reads its answer.

        Args:
            until: When it has to be over, by `time.monotonic`.
            *command: The command and its arguments.

        Returns:
            The answer, with texts as bytes.

        Raises:
            Refused: The server answered that it won't, in `error`. The link can still be used.
            StoreFailed: Anything else went wrong, and the link is closed.
        """
        begin = time.monotonic()
        line = self._line
        if line is None:
            raise StoreFailed("the connection is closed")
        line.until = until
        self.used_at = begin
        try:
            self._connection.send_command(*command, check_health=False)
            answer = self._connection.read_response()
        except self._refusals as error:
            raise Refused(error) from error
        except self._timeouts as error:
            self.close()
            waited = until - begin
            raise StoreTimeout(f"no answer within {waited:.3f} s", waited < TELLING) from error
        except self._errors as error:
            self.close()
            raise StoreFailed(f"{type(error).__name__}: {error}") from error
        except BaseException:  # Ctrl-C and a cut: the answer may be on its way still
            self.close()
            raise
        return answer

    def is_quiet(self) -> bool:
        """Whether nothing has come without being asked for: an end, or a late answer."""
        if self._line is None:
            return False
        try:
            self._line.sock.settimeout(0.0)
            self._line.sock.recv(1)  # TLS has no MSG_PEEK; what came is unwanted anyway
        except BlockingIOError:
            return True
        except OSError as error:  # that of TLS is of its own kind
            return type(error).__name__ == "SSLWantReadError"
        return False

    def close(self) -> None:
        """Closes the connection; in a forked child only the child's side of it."""
        self._line = None
        try:
            self._connection.disconnect()
        except self._errors:  # it is gone, then
            return

    def _make(self, redis: Any, options: dict[str, Any]) -> Any:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        link = self
        kind: Any = options.get("connection_class", redis.Connection)

        class Bounded(kind):  # type: ignore[misc] # which of redis-py's classes, the URL says
            def _connect(self) -> _Line:
                link._line = _Line(super()._connect(), time.monotonic() + CONNECTING)
                return link._line

        kept = {
            name: value
            for name, value in options.items()
            if name != "connection_class" and name not in _NOT_FOR_URLS
        }
        return Bounded(
            **kept,
            socket_timeout=CONNECTING,
            socket_connect_timeout=CONNECTING / 2,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
            decode_responses=False,
            protocol=2,
        )


class Refused(StoreFailed):
    """The server understood, and said no.

    Args:
        error: redis-py's error, whose class and text say why.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def check_installed() -> None:
    """Raises a `ConfigurationError` with the pip command when redis-py is missing."""
    try:
        import redis  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise ConfigurationError(
            'a cache in Redis needs redis-py: pip install "llmkit[redis]"'
        ) from error
