"""The states in which a call can block: one context manager for each."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from llmkit.testing import Answer, ProviderServer
from tests.deadline.calling import Background, adapter
from tests.deadline.probe import Probe
from tests.network_faults import (
    TLSAuthority,
    black_hole,
    connect_proxy,
    non_reading_server,
    silent_server,
)

FOREVER = 30.0
# More than the buffers of both ends of a connection on loopback take in.
LARGE_PROMPT = "x" * 12_000_000

# A stream whose first chunk arrives, and whose second does not, in any vendor's protocol.
STALLED = Answer(chunks=["x" * 5000, "y" * 5000], stall_after=8000)


@dataclass
class Blocked:
    """A call that will block.

    Attributes:
        call: Makes it, with the adapter's arguments that a test wants to add.
        wait: Returns once it blocks.
        server: The provider that has the request by then; None when it never gets there.
    """

    call: Callable[..., object]
    wait: Callable[[], None]
    server: ProviderServer | None = None


@dataclass
class Stage:
    """What a state needs from its test."""

    monkeypatch: pytest.MonkeyPatch
    probe: Probe
    tls: TLSAuthority | None

    @property
    def scheme(self) -> str:
        return "http" if self.tls is None else "https"

    def blocked_at(self, address: tuple[str, int], prompt: str = "hi") -> Blocked:
        """A call to an address where it blocks for good."""
        base_url = f"{self.scheme}://{address[0]}:{address[1]}/v1"

        def call(**arguments: Any) -> object:
            return adapter("openai", base_url, **arguments).generate(prompt)

        return Blocked(call, self.probe.wait_until_stuck)

    def server(self, answer: Answer) -> ProviderServer:
        return ProviderServer(answer, tls=self.tls.server if self.tls else None)


State = Callable[[Stage], AbstractContextManager[Blocked]]


@contextmanager
def resolving(stage: Stage) -> Iterator[Blocked]:
    """The name service does not answer."""
    released = threading.Event()
    getaddrinfo = socket.getaddrinfo

    def hang(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "slow.test" and not options.get("flags"):
            released.wait(FOREVER)
            raise socket.gaierror(socket.EAI_AGAIN, "the test is over")
        return getaddrinfo(host, *arguments, **options)

    stage.monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        yield stage.blocked_at(("slow.test", 9))
    finally:
        released.set()


@contextmanager
def connecting(stage: Stage) -> Iterator[Blocked]:
    """The provider's host drops our packets."""
    with black_hole() as address:
        yield stage.blocked_at(address)


@contextmanager
def shaking_hands(stage: Stage) -> Iterator[Blocked]:
    """The provider accepts the connection and says nothing."""
    with silent_server() as address:
        yield stage.blocked_at(address)


@contextmanager
def sending(stage: Stage) -> Iterator[Blocked]:
    """The provider does not read our request."""
    with ExitStack() as stack:
        if stage.tls is None:
            address = stack.enter_context(non_reading_server())
        else:
            address = stack.enter_context(_non_reading_tls_server(stage.tls))
        yield stage.blocked_at(address, LARGE_PROMPT)


@contextmanager
def waiting(stage: Stage) -> Iterator[Blocked]:
    """The provider thinks."""
    with stage.server(Answer(delay=FOREVER)) as server:

        def call(**arguments: Any) -> object:
            return adapter("openai", server.base_url("openai"), **arguments).generate("hi")

        def wait() -> None:
            server.wait_for_requests(1)
            stage.probe.wait_until_stuck()

        yield Blocked(call, wait, server)


@contextmanager
def dripping(stage: Stage) -> Iterator[Blocked]:
    """The reply arrives byte by byte."""
    with stage.server(Answer(drip=0.01)) as server:

        def call(**arguments: Any) -> object:
            return adapter("openai", server.base_url("openai"), **arguments).generate("hi")

        def wait() -> None:
            server.wait_for_requests(1)
            stage.probe.wait_for_more(5)

        yield Blocked(call, wait, server)


@contextmanager
def queueing(stage: Stage) -> Iterator[Blocked]:
    """Another call has the pool's only place."""
    stage.monkeypatch.setenv("OPENAI_CONNECTION_POOL_SIZE", "1")
    with stage.server(Answer(delay=FOREVER)) as server:
        base_url = server.base_url("openai")
        first = Background(lambda: adapter("openai", base_url, max_retries=0).generate("first"))
        server.wait_for_requests(1)

        def call(**arguments: Any) -> object:
            return adapter("openai", base_url, **arguments).generate("second")

        yield Blocked(call, lambda: stage.probe.wait_until_stuck(2))
        assert [request.json["messages"][0]["content"] for request in server.requests] == ["first"]
        server.close()
        first.outcome()


@contextmanager
def asking_the_proxy(stage: Stage) -> Iterator[Blocked]:
    """The proxy takes our CONNECT and does not answer."""
    asked: list[str] = []
    with connect_proxy(asked, stall=True) as (host, port):
        stage.monkeypatch.setenv("HTTPS_PROXY", f"http://{host}:{port}")
        yield stage.blocked_at(("far.test", 443))
        assert asked == ["far.test:443"]


@contextmanager
def shaking_hands_through_a_proxy(stage: Stage) -> Iterator[Blocked]:
    """Behind the proxy, the provider does not answer our handshake."""
    with silent_server() as address, connect_proxy([]) as (host, port):
        stage.monkeypatch.setenv("HTTPS_PROXY", f"http://{host}:{port}")
        yield stage.blocked_at(address)


@contextmanager
def waiting_behind_a_proxy(stage: Stage) -> Iterator[Blocked]:
    """Behind the proxy, the provider thinks."""
    with connect_proxy([]) as (host, port), waiting(stage) as blocked:
        stage.monkeypatch.setenv("HTTPS_PROXY", f"http://{host}:{port}")
        yield blocked


@contextmanager
def streaming(stage: Stage) -> Iterator[Blocked]:
    """A stream's next chunk does not come."""
    with stage.server(STALLED) as server:
        base_url = server.base_url("openai")

        def call(**arguments: Any) -> object:
            timeout = arguments.pop("timeout", None)
            with adapter("openai", base_url, **arguments).stream("hi", timeout=timeout) as stream:
                return [chunk.text for chunk in stream]

        def wait() -> None:
            server.wait_for_requests(1)
            stage.probe.wait_until_stuck()

        yield Blocked(call, wait, server)


@contextmanager
def _non_reading_tls_server(authority: TLSAuthority) -> Iterator[tuple[str, int]]:
    """An address that shakes hands and then reads nothing."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(FOREVER)

        def serve() -> None:
            while True:
                connection = listener.accept()[0]
                if over.is_set():
                    connection.close()
                    return
                thread = threading.Thread(target=hold, args=(connection,), daemon=True)
                thread.start()

        def hold(connection: socket.socket) -> None:
            with authority.server.wrap_socket(connection, server_side=True):
                over.wait(FOREVER)

        acceptor = threading.Thread(target=serve, daemon=True)
        acceptor.start()
        try:
            yield listener.getsockname()
        finally:
            over.set()
            socket.create_connection(listener.getsockname()).close()
            acceptor.join()


PLAIN: tuple[State, ...] = (
    resolving,
    connecting,
    sending,
    waiting,
    dripping,
    queueing,
    streaming,
)
TLS: tuple[State, ...] = (
    shaking_hands,
    sending,
    waiting,
    dripping,
    queueing,
    streaming,
    asking_the_proxy,
    shaking_hands_through_a_proxy,
    waiting_behind_a_proxy,
)
