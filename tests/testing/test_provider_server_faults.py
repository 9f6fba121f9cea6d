from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from llmkit.testing import Answer, ProviderServer
from tests.network_faults import tls_authority
from tests.testing.http_clients import (
    CHAT,
    SOON,
    ask,
    connect,
    eventually,
    port_of,
    question,
    raw_exchange,
    text_of,
)


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    """A started server."""
    with ProviderServer() as started:
        yield started


def test_drip_sends_byte_by_byte(server: ProviderServer) -> None:
    """A dripping response takes its pause for every byte, so only a total deadline catches it."""
    server.answer = Answer(body="x" * 100, content_type="t", request_id=None, drip=0.001)
    started = time.monotonic()
    received, _ = raw_exchange(server)
    assert time.monotonic() - started >= (len(received) - 1) * 0.001
    assert received.endswith(b"x" * 100)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("size", [0, 1, 40, 250])
def test_cut_sends_exactly_so_many_bytes(server: ProviderServer, size: int, stream: bool) -> None:
    """A response can break at any byte, head or body, with an orderly end of the connection."""
    server.answer = Answer(cut_after=size)
    received, error = raw_exchange(server, stream=stream)
    assert (len(received), error) == (size, None)
    assert server.requests[0].finished.wait(SOON)
    assert not server.requests[0].disconnected.is_set()


def test_cut_with_reset_breaks_hard(server: ProviderServer) -> None:
    """A reset reaches the client as a connection error."""
    server.answer = Answer(cut_after=40, reset=True)
    received, error = raw_exchange(server)
    assert error is ConnectionResetError
    assert len(received) == 40


def test_a_response_no_longer_than_the_fault_arrives_whole(server: ProviderServer) -> None:
    """Faults beyond the end of a response change nothing."""
    server.answer = Answer(cut_after=1_000_000, stall_after=1_000_000)
    with contextlib.closing(connect(server)) as connection:
        assert text_of(ask(connection)[1]) == Answer().text


@pytest.mark.parametrize("stream", [False, True])
def test_stall_sends_so_many_bytes_then_nothing(server: ProviderServer, stream: bool) -> None:
    """A stalled response keeps the connection open and silent."""
    server.answer = Answer(stall_after=60)
    body = question(stream)
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=SOON) as client:
        client.sendall(
            f"POST {CHAT} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        received = b""
        while len(received) < 60:
            received += client.recv(65536)
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
    assert len(received) == 60


@pytest.fixture(params=["tcp", "tls"])
def watched(request: pytest.FixtureRequest) -> Iterator[tuple[ProviderServer, Any]]:
    """A server, and a function that connects to it: plain and with TLS."""
    with contextlib.ExitStack() as stack:
        tls = None
        if request.param == "tls":
            tls = stack.enter_context(tls_authority())
        server = stack.enter_context(ProviderServer(tls=tls.server if tls else None))

        def connect() -> socket.socket:
            client = socket.create_connection(("127.0.0.1", port_of(server)), timeout=SOON)
            return tls.client.wrap_socket(client, server_hostname="127.0.0.1") if tls else client

        yield server, connect


@pytest.mark.parametrize(
    "answer",
    [
        Answer(delay=60),
        Answer(stall_after=0),
        Answer(stall_after=100),
        Answer(chunk_delay=60),
        Answer(drip=60),
        Answer("x " * 10_000_000),
    ],
    ids=["delay", "stall", "stall in body", "chunk_delay", "drip", "send"],
)
@pytest.mark.parametrize("leave", ["close", "shutdown", "reset"])
def test_a_client_that_leaves_is_seen_at_once(
    watched: tuple[ProviderServer, Any], answer: Answer, leave: str
) -> None:
    """In every kind of wait the server notes within moments that the client has gone."""
    server, connect = watched
    server.answer = answer
    stream = bool(answer.chunk_delay)
    body = question(stream)
    with connect() as client:
        client.sendall(
            f"POST {CHAT} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        )
        (request,) = server.wait_for_requests(1)
        assert not request.disconnected.wait(0.05)
        left_at = time.monotonic()
        if leave == "shutdown":
            socket.socket.shutdown(client, socket.SHUT_RDWR)
        elif leave == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.close()
        else:
            client.close()
        assert request.disconnected.wait(SOON)
    assert request.disconnected_at is not None
    assert request.disconnected_at - left_at < 1
    assert request.finished.wait(SOON)


def test_a_client_that_says_goodbye_in_tls_is_seen() -> None:
    """The end that TLS itself announces counts too, while TCP is still open."""
    with tls_authority() as tls, ProviderServer(Answer(delay=60), tls=tls.server) as server:
        raw = socket.create_connection(("127.0.0.1", port_of(server)), timeout=SOON)
        with tls.client.wrap_socket(raw, server_hostname="127.0.0.1") as client:
            body = question()
            head = f"POST {CHAT} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)
            (request,) = server.wait_for_requests(1)
            with contextlib.suppress(OSError):
                client.unwrap()
            assert request.disconnected.wait(SOON)


def test_a_client_that_leaves_before_its_request_is_whole_is_forgotten(
    server: ProviderServer,
) -> None:
    """Half a request is neither recorded nor held."""
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=SOON) as client:
        client.sendall(f"POST {CHAT} HTTP/1.1\r\nContent-Length: 10\r\n\r\nhalf".encode())
    assert eventually(lambda: server.connections_accepted == 1 and server.open_connections == 0)
    assert server.requests == []
