"""Pooled HTTP clients, one for each provider and address, shared by the whole process.

The SDK of every vendor sends through one of these, and so can you:

    pool = get_connection_pool("openai")
    with llmkit.deadline(20):
        pool.get("https://status.openai.com/api/v2/status.json").json()
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from llmkit.errors import ConfigurationError
from llmkit.process_local import ProcessLocal
from llmkit.settings import get_settings
from llmkit.threads import TooManyThreadsError, run_detached

if TYPE_CHECKING:
    import ssl

    import httpx2

    from llmkit.http_transport import PooledTransport

__all__ = [
    "begin_reading_certificates",
    "cleanup_connection_pools",
    "get_connection_pool",
    "health_check",
]

# Seconds that an idle connection is kept. A web view may come minutes after the one before, and
# the SDKs' own 5 s would make nearly every view shake hands anew; the vendors' front ends keep
# idle connections for several minutes, and one that they closed is noticed before it is used.
KEEPALIVE = 120.0

# Bytes of one reply after decompression. The longest answers of today (128k tokens) take about
# 1 MB; a reply of embeddings some 50 MB.
MAX_BODY = 64 * 1024 * 1024

DEFAULT_POOL_SIZE = 100


class _Pool(NamedTuple):
    client: httpx2.Client
    transport: PooledTransport


class _Pools:
    def __init__(self) -> None:
        # Reentrant: a signal handler may close the pools while its own thread builds one.
        self.lock = threading.RLock()
        self.by_address: dict[tuple[str, str | None], _Pool] = {}
        self.closed = False

    def close(self) -> None:
        with self.lock:
            self.closed = True
            pools = tuple(self.by_address.values())
        for pool in pools:
            # Not the client: a call that has just been given it could no longer send.
            pool.transport.close()

    def abandon(self) -> None:
        for pool in tuple(self.by_address.values()):
            pool.transport.abandon()


def _build_ssl_context() -> ssl.SSLContext:
    import httpx2

    # Reads SSL_CERT_FILE and SSL_CERT_DIR, as Python itself does.
    context = httpx2.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    # httpcore2 sets it anew before every handshake, and OpenSSL forbids to change a context that
    # other threads are using.
    context.set_alpn_protocols = _keep_protocols  # type: ignore[method-assign]
    return context


def _keep_protocols(alpn_protocols: Iterable[str]) -> None:
    pass


# Building one costs about 20 ms, far more than a client or a pool.
_ssl_context: ProcessLocal[ssl.SSLContext] = ProcessLocal(_build_ssl_context)
_pools: ProcessLocal[_Pools] = ProcessLocal(_Pools, _Pools.close, _Pools.abandon)


def begin_reading_certificates() -> None:
    """Begins to build what all pools share, while the caller's thread goes on to import an SDK.

    OpenSSL reads the certificates without holding up other threads, so that it costs no time beside
    an import. What goes wrong is said by whoever needs a pool.
    """
    if _ssl_context.peek() is None:
        with contextlib.suppress(ImportError, TooManyThreadsError):
            # Not on the other thread: two that import at once hold each other up; nor under the
            # lock of what it reads: a shutdown would wait for it.
            import httpx2  # noqa: F401

            run_detached(_ssl_context.get, "certificates")


def get_connection_pool(provider: str, base_url: str | None = None) -> httpx2.Client:
    """Returns the process's HTTP client for a provider, the same object each time.

    It obeys `llmkit.deadline(…)`; outside one, httpx2's time-outs per operation hold
    (`REQUEST_TIMEOUT`, and `CONNECT_TIMEOUT` to connect). Redirects are not followed. Proxies are
    taken from HTTPS_PROXY and NO_PROXY. `cleanup_connection_pools` and `shutdown` close it; don't
    close it yourself.

    Args:
        provider: A provider's name, such as "openai".
        base_url: The address it is used for; None for the provider's own. Each address has its
            own pool, so that a slow one does not use up another's places.

    Returns:
        An `httpx2.Client` that any number of threads may use.

    Raises:
        ConfigurationError: httpx2, which every vendor extra brings, is not installed.
    """
    return _get_pool(provider, base_url).client


def _get_pool(provider: str, base_url: str | None) -> _Pool:
    pools = _pools.get()
    pool = pools.by_address.get((provider, base_url))
    if pool is not None and not pool.client.is_closed:
        return pool
    with pools.lock:
        pool = pools.by_address.get((provider, base_url))
        if pool is None or pool.client.is_closed:
            pool = pools.by_address[provider, base_url] = _build_pool(provider)
        if pools.closed:  # by another thread, just now
            pool.transport.close()
    return pool


def _build_pool(provider: str) -> _Pool:
    try:
        import httpx2
    except ImportError as error:
        raise ConfigurationError(
            "no HTTP client is installed; each vendor's extra brings it, for instance: "
            'pip install "llmkit[openai]"'
        ) from error
    from llmkit.http_transport import PooledTransport

    settings = get_settings()
    transport = PooledTransport(
        size=settings.LLM_PROVIDERS_CONFIG.get(provider, {}).get(
            "connection_pool_size", DEFAULT_POOL_SIZE
        ),
        ssl_context=_ssl_context.get(),
        connect_timeout=settings.connect_timeout,
        keepalive=KEEPALIVE,
        max_body=MAX_BODY,
        # The embedded model is inside this process.
        proxy_for=_no_proxy if provider == "local" else settings.proxy_for,
    )
    client = httpx2.Client(
        transport=transport,
        timeout=httpx2.Timeout(settings.request_timeout, connect=settings.connect_timeout),
        headers={"accept-encoding": "gzip, deflate"},  # what the transport can count
        follow_redirects=False,  # a redirect would carry x-api-key and the like to another host
        trust_env=False,  # no .netrc; proxies and certificates are read above
    )
    return _Pool(client, transport)


def _no_proxy(url: str) -> None:
    return None


def cleanup_connection_pools() -> None:
    """Closes every pool of this process; the next `get_connection_pool` opens a new one.

    Calls that are under way go on to their end, and their connections are closed then.
    """
    _pools.close()


def health_check(provider: str | None = None) -> dict[str, Any]:
    """Says how the pools are doing, without touching the network.

    Args:
        provider: Whose pools; None for all.

    Returns:
        For each pool, by provider (and address, when it is not the provider's own): `status`
        ("healthy", or "saturated" when every place is taken), `size`, `in_use` and `connections`
        (open ones, idle ones included). Pools that were never used are not listed.
    """
    report: dict[str, Any] = {}
    pools = _pools.peek()
    for (name, base_url), pool in tuple(pools.by_address.items()) if pools else ():
        if provider in (None, name):
            gate = pool.transport.gate
            report[name if base_url is None else f"{name} {base_url}"] = {
                "status": "saturated" if gate.in_use >= gate.size else "healthy",
                "size": gate.size,
                "in_use": gate.in_use,
                "connections": pool.transport.connections,
            }
    return report
