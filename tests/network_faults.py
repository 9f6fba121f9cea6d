"""Networks that fail in ways an HTTP server can't: for tests of deadlines and of proxies.

Each helper is a context manager that gives an address on loopback and frees everything at its end.
"""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import trustme

__all__ = [
    "TLSAuthority",
    "black_hole",
    "connect_proxy",
    "non_reading_server",
    "silent_server",
    "tls_authority",
]

Address = tuple[str, int]

_LOOPBACK = "127.0.0.1"
_SMALL_BUFFER = 4096
_CONNECTS_BY_THEN = 0.1  # seconds; on loopback one that succeeds does so within connect() itself


@contextmanager
def black_hole() -> Iterator[Address]:
    """An address where `connect()` hangs: a listener whose queue is full, so that SYNs are dropped.

    Raises:
        RuntimeError: This system goes on accepting connections.
    """
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind((_LOOPBACK, 0))
        listener.listen(0)
        address = _address_of(listener)
        # Two in a row that hang: one alone could be a slow machine.
        hanging = 0
        for _ in range(64):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
            connected = select.select([], [filler], [], _CONNECTS_BY_THEN)[1]
            hanging = 0 if connected else hanging + 1
            if hanging == 2:
                break
        else:
            raise RuntimeError("the listener's queue never filled up: connect() doesn't hang here")
        yield address


@contextmanager
def silent_server() -> Iterator[Address]:
    """An address that takes connections and never sends a byte: a TLS handshake stalls there."""
    with _unattended_listener() as address:
        yield address


@contextmanager
def non_reading_server() -> Iterator[Address]:
    """An address that takes connections and never reads: a request of some MB blocks in `send`.

    The client's own buffers take about 2 MB on Linux.
    """
    with _unattended_listener(receive_buffer=_SMALL_BUFFER) as address:
        yield address


@contextmanager
def _unattended_listener(receive_buffer: int | None = None) -> Iterator[Address]:
    """The kernel completes connections by itself; nobody accepts them."""
    with socket.socket() as listener:
        if receive_buffer is not None:
            # Connections inherit it; it has to be set before listen().
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        listener.bind((_LOOPBACK, 0))
        listener.listen(128)
        yield _address_of(listener)


@dataclass(frozen=True)
class TLSAuthority:
    """A certificate authority for one test, with a certificate for 127.0.0.1 and localhost."""

    server: ssl.SSLContext
    """For the server: it holds the certificate."""

    client: ssl.SSLContext
    """For the client: it trusts this authority alone."""

    ca_file: Path
    """The authority's certificate as PEM, for `SSL_CERT_FILE` and the like."""


@contextmanager
def tls_authority() -> Iterator[TLSAuthority]:
    """Makes a certificate authority; its file is gone at the end."""
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(_LOOPBACK, "localhost").configure_cert(server)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(client)
    with tempfile.TemporaryDirectory() as directory:
        ca_file = Path(directory) / "ca.pem"
        authority.cert_pem.write_to_path(str(ca_file))
        yield TLSAuthority(server, client, ca_file)


@contextmanager
def connect_proxy(
    log: list[str], *, stall: bool = False, require_auth: tuple[str, str] | None = None
) -> Iterator[Address]:
    """A proxy that tunnels `CONNECT` and forwards plain http:// requests.

    Args:
        log: Gets each target asked for, before it is served or refused: `host:port` of a
            CONNECT, the whole URL of a plain request.
        stall: Take requests and never answer them.
        require_auth: User and password; a request without them gets a 407. None: everyone may.
    """
    proxy = _Proxy(log, stall, require_auth)
    with socket.socket() as listener:
        listener.bind((_LOOPBACK, 0))
        listener.listen(128)
        acceptor = threading.Thread(target=proxy.accept, args=(listener,), daemon=True)
        acceptor.start()
        try:
            yield _address_of(listener)
        finally:
            proxy.close()
            acceptor.join(5)
            proxy.join()


class _Proxy:
    def __init__(self, log: list[str], stall: bool, require_auth: tuple[str, str] | None) -> None:
        self._log = log
        self._stall = stall
        self._credentials = None
        if require_auth is not None:
            pair = ":".join(require_auth).encode()
            self._credentials = "Basic " + base64.b64encode(pair).decode()
        self._closing, self._closing_end = socket.socketpair()
        self._threads: list[threading.Thread] = []

    def accept(self, listener: socket.socket) -> None:
        while self._wait(listener):
            client = listener.accept()[0]
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        self._closing.close()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(5)
        self._closing_end.close()

    def _wait(self, *sockets: socket.socket) -> list[socket.socket]:
        """The sockets that can be read; none of them when the proxy closes."""
        ready = select.select([*sockets, self._closing_end], [], [])[0]
        return [] if self._closing_end in ready else ready

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head, rest = self._read_head(client)
            if not head:
                return
            first, *lines = head.split("\r\n")
            method, target, _ = first.split(" ")
            self._log.append(target)
            headers = [line.partition(":") for line in lines]
            given = {name.lower(): value.strip() for name, _, value in headers}
            if self._stall:
                while self._wait(client) and client.recv(65536):
                    pass
            elif self._credentials not in (None, given.get("proxy-authorization")):
                client.sendall(_REFUSAL)
            elif method == "CONNECT":
                host, _, port = target.rpartition(":")
                self._tunnel(client, (host.strip("[]"), int(port)), None, rest)
            else:
                address, forwarded = _forwarded(method, target, lines)
                self._tunnel(client, address, forwarded, rest)

    def _read_head(self, client: socket.socket) -> tuple[str, bytes]:
        """The request's head, and what arrived behind it; an empty head when there is none."""
        received = b""
        while b"\r\n\r\n" not in received:
            data = client.recv(65536) if self._wait(client) else b""
            if not data:
                return "", b""
            received += data
        head, _, rest = received.partition(b"\r\n\r\n")
        return head.decode("latin-1"), rest

    def _tunnel(
        self, client: socket.socket, address: Address, first: bytes | None, rest: bytes
    ) -> None:
        """Carries bytes both ways until one side ends; `first` None announces a CONNECT tunnel."""
        try:
            upstream = socket.create_connection(address, timeout=5)
        except OSError:
            client.sendall(_UNREACHABLE)
            return
        with upstream:
            upstream.settimeout(None)
            if first is None:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            upstream.sendall((first or b"") + rest)
            peer: Callable[[socket.socket], socket.socket]
            peer = {client: upstream, upstream: client}.__getitem__
            while ready := self._wait(client, upstream):
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    peer(source).sendall(data)


_REFUSAL = (
    b"HTTP/1.1 407 Proxy Authentication Required\r\n"
    b'Proxy-Authenticate: Basic realm="proxy"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
)
_UNREACHABLE = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def _forwarded(method: str, target: str, lines: list[str]) -> tuple[Address, bytes]:
    """Where an absolute-form request goes, and its head as the origin expects it."""
    url = urlsplit(target)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    kept = [
        line
        for line in lines
        if not line.lower().startswith(("proxy-", "connection:", "keep-alive:"))
    ]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""])
    return (url.hostname or "", url.port or 80), head.encode("latin-1")


def _address_of(listener: socket.socket) -> Address:
    host, port = listener.getsockname()
    return host, port
