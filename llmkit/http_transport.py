"""The HTTP transport under every SDK: pooled connections behind a gate, replies of bounded size.

Built from the public parts of httpcore2 and httpx2. A place in the gate is held until the reply is
closed; httpcore2's own queue can't be woken.
"""

from __future__ import annotations

import ssl
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import cast

import httpcore2
import httpx2

from llmkit.errors import ErrorCode
from llmkit.gate import Gate, Place
from llmkit.http_connections import Connections, give_up
from llmkit.network import ScopedBackend
from llmkit.reply_headers import tell
from llmkit.scope import current_scope, interruption
from llmkit.threads import Once

__all__ = ["PooledTransport"]


class PooledTransport(httpx2.BaseTransport):
    """Sends requests over pooled connections, one pool per proxy.

    Args:
        size: How many requests may be under way at a time, and how many idle connections are kept,
            by each proxy and directly.
        ssl_context: TLS settings, shared by all pools of the process.
        connect_timeout: Seconds for a look-up, a connect, and a TLS handshake, each.
        keepalive: Seconds that an idle connection is kept.
        max_body: Bytes of one reply's body, after decompression, that are read at most.
        proxy_for: Says which proxy a URL goes through; None for a direct connection.
    """

    def __init__(
        self,
        *,
        size: int,
        ssl_context: ssl.SSLContext,
        connect_timeout: float,
        keepalive: float,
        max_body: int,
        proxy_for: Callable[[str], str | None],
    ) -> None:
        self.gate = Gate(size)
        self.backend = ScopedBackend(connect_timeout)
        self._ssl_context = ssl_context
        self._keepalive = keepalive
        self._max_body = max_body
        self._proxy_for = proxy_for
        self._pools: dict[str | None, Connections] = {}
        self._routes: dict[tuple[bytes, bytes, int | None], Connections] = {}

    @property
    def connections(self) -> int:
        """How many connections are open, idle ones included."""
        pools = tuple(self._pools.values())
        return sum(not connection.is_closed() for pool in pools for connection in pool)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Sends one request and returns the reply with its body unread."""
        pool = self._pool_for(request.url)
        body = _Body(self)
        try:
            return body.begin(pool, request)
        except BaseException as error:  # whatever it is, no place and no connection is lost by it
            body.close()
            if type(error).__module__.partition(".")[0] == "httpcore2":
                raise _to_httpx(error) from error
            raise

    def close(self) -> None:
        """Closes the idle connections, and the others as soon as their requests are through."""
        self.backend.retired = True
        for pool in tuple(self._pools.values()):
            pool.close_idle()

    def abandon(self) -> None:
        """Gives up, in a forked child, the connections that belong to the parent."""
        self.backend.abandon()

    def _pool_for(self, url: httpx2.URL) -> Connections:
        # Asking the environment costs as much as half a request: it is asked once per host.
        host = (url.raw_scheme, url.raw_host, url.port)
        pool = self._routes.get(host)
        if pool is None:
            proxy = self._proxy_for(str(url.copy_with(userinfo=b"", query=None, fragment=None)))
            # setdefault: of two threads that build at once, one pool is kept, still unused.
            pool = self._pools.setdefault(proxy, self._build_pool(proxy))
            self._routes[host] = pool
        return pool

    def _build_pool(self, proxy: str | None) -> Connections:
        route = httpcore2.ConnectionPool(
            ssl_context=self._ssl_context,
            proxy=None if proxy is None else _to_proxy(proxy, self._ssl_context),
            keepalive_expiry=self._keepalive,
            # One shutdown would end every stream on a shared HTTP/2 connection.
            http2=False,
            network_backend=self.backend,
        )
        return Connections(route, most_idle=self.gate.size)


class _Body(httpx2.SyncByteStream):
    """A reply's body: decompressed, counted, and giving its place back when it is closed."""

    def __init__(self, transport: PooledTransport) -> None:
        self._transport = transport
        self._place = Place(transport.gate)
        self._reply: httpcore2.Response | None = None
        self._closed = Once()
        self._read_to_end = False
        self._encoding = b""

    def begin(self, pool: Connections, request: httpx2.Request) -> httpx2.Response:
        """Sends the request whose reply's body this is."""
        if not self._place.take(request.extensions.get("timeout", {}).get("pool")):
            size = self._transport.gate.size
            raise httpx2.PoolTimeout(f"all {size} connections are in use")
        reply = self._reply = pool.handle_request(_to_httpcore(request))
        self._encoding = b", ".join(
            value for name, value in reply.headers if name.lower() == b"content-encoding"
        ).lower()
        tell(reply.headers)
        scope = current_scope()
        if scope is not None:
            scope.hold(self.close)
        return httpx2.Response(
            status_code=reply.status,
            headers=[pair for pair in reply.headers if self.passes_on(pair[0])],
            stream=self,
            extensions=reply.extensions,
        )

    def passes_on(self, header: bytes) -> bool:
        """Says whether a header is shown: none that isn't true of what this body yields."""
        name = header.lower()
        # The client, which all calls share, would send a cookie along with the next ones, whatever
        # their keys; and one that is not ASCII would break them all.
        if name == b"set-cookie":
            return False
        return not (self._encoding and name in (b"content-encoding", b"content-length"))

    def __iter__(self) -> Iterator[bytes]:
        reply = self._reply
        if reply is None or self._closed.happened:
            raise httpx2.StreamClosed
        limit = left = self._transport._max_body
        parts = reply.iter_stream()
        try:
            for part in _decoded(parts, self._encoding, limit):
                left -= len(part)
                if left < 0:
                    message = f"the reply is larger than {limit:,} bytes"
                    raise interruption(ErrorCode.LLM_PROVIDER_ERROR, message, retryable=False)
                yield part
        except (
            httpcore2.TimeoutException,
            httpcore2.NetworkError,
            httpcore2.ProtocolError,
        ) as error:
            raise _to_httpx(error) from error
        self._read_to_end = True

    def close(self) -> None:
        try:
            if self._closed.is_first() and self._reply is not None:
                if self._read_to_end:
                    self._reply.close()
                else:  # perhaps by the garbage collector, in the midst of anything
                    give_up(self._reply)
            self._place.give_back()
        except BaseException:  # Ctrl-C, perhaps just before the place was given back
            self._place.give_back()
            raise


def _decoded(parts: Iterator[bytes], encoding: bytes, limit: int) -> Iterator[bytes]:
    if encoding in (b"", b"identity"):
        return parts
    if encoding in (b"gzip", b"x-gzip", b"deflate"):
        return _inflated(parts, encoding, step=min(limit + 1, 1 << 20))
    raise httpx2.DecodingError(f"the reply is compressed by {encoding.decode('latin-1')!r}")


def _inflated(parts: Iterator[bytes], encoding: bytes, step: int) -> Iterator[bytes]:
    """Decompresses in pieces, so that a small body can't unfold beyond the limit in memory."""
    inflater = None
    try:
        for part in parts:
            if inflater is None:
                inflater = zlib.decompressobj(_window(encoding, part))
            while part:
                yield inflater.decompress(part, step)
                part = inflater.unconsumed_tail
            if inflater.unused_data:
                raise httpx2.DecodingError("the compressed reply goes on behind its own end")
        rest = inflater.flush() if inflater else b""
    except zlib.error as error:
        raise httpx2.DecodingError(f"the reply's compression is broken: {error}") from error
    if inflater and not inflater.eof:
        raise httpx2.RemoteProtocolError("the compressed reply ended early")
    yield rest


def _window(encoding: bytes, start: bytes) -> int:
    """Says in zlib's way which format a body has, judging by its first byte."""
    # Some servers send bare deflate, without zlib's header, whose lower half says 8.
    if encoding == b"deflate" and start[0] & 0x0F != 8:
        return -zlib.MAX_WBITS
    return 32 + zlib.MAX_WBITS  # gzip or zlib, whichever header there is


def _to_httpcore(request: httpx2.Request) -> httpcore2.Request:
    return httpcore2.Request(
        method=request.method,
        url=httpcore2.URL(
            scheme=request.url.raw_scheme,
            host=request.url.raw_host,
            port=request.url.port,
            target=request.url.raw_path,
        ),
        headers=request.headers.raw,
        content=cast("Iterable[bytes]", request.stream),  # a Client's streams are synchronous
        extensions=request.extensions,
    )


def _to_httpx(error: BaseException) -> Exception:
    """Says an error of httpcore2 in httpx2's words: its classes bear the same names."""
    kind = getattr(httpx2, type(error).__name__, httpx2.TransportError)
    return cast("Exception", kind(str(error)))


def _to_proxy(address: str, ssl_context: ssl.SSLContext) -> httpcore2.Proxy:
    url = httpx2.URL(address)
    if url.scheme not in ("http", "https", "socks5", "socks5h"):
        raise interruption(
            ErrorCode.CONFIGURATION_ERROR,
            f"the proxy's scheme {url.scheme!r} is not one of http, https, socks5, socks5h",
        )
    if url.scheme.startswith("socks"):
        try:
            import socksio  # type: ignore[import-not-found]  # noqa: F401  # optional
        except ImportError:
            raise interruption(
                ErrorCode.CONFIGURATION_ERROR, "a SOCKS proxy needs: pip install socksio"
            ) from None
    return httpcore2.Proxy(
        url=httpcore2.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        ),
        auth=(url.username, url.password) if url.userinfo else None,
        ssl_context=ssl_context if url.scheme == "https" else None,
    )
