from __future__ import annotations

import socket
import ssl
import threading
import urllib.request

import httpx2
import pytest

from llmkit.testing import ProviderServer
from tests.network_faults import (
    black_hole,
    connect_proxy,
    non_reading_server,
    silent_server,
    tls_authority,
)


def test_a_black_hole_lets_connect_hang() -> None:
    """Every connect to a black hole runs into its time-out."""
    with black_hole() as address:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.25)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=5)


def test_a_silent_server_stalls_a_tls_handshake() -> None:
    """A silent server takes the connection and answers no handshake."""
    with (
        tls_authority() as tls,
        silent_server() as address,
        socket.create_connection(address, timeout=0.3) as client,
        pytest.raises(TimeoutError),
    ):
        tls.client.wrap_socket(client, server_hostname="localhost")


def test_a_non_reading_server_blocks_a_large_send() -> None:
    """A request of 8 MB never leaves when the server doesn't read."""
    with (
        non_reading_server() as address,
        socket.create_connection(address, timeout=5) as client,
    ):
        client.sendall(b"small requests pass")
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.sendall(b"x" * 8_000_000)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_proxy_serves_both_schemes_and_logs_the_targets(scheme: str) -> None:
    """Plain requests are forwarded, TLS is tunnelled, and the log says for whom."""
    log: list[str] = []
    with (
        tls_authority() as tls,
        ProviderServer(tls=tls.server if scheme == "https" else None) as server,
        connect_proxy(log) as (host, port),
        httpx2.Client(proxy=f"http://{host}:{port}", verify=tls.client, timeout=10) as client,
    ):
        reply = client.post(server.url + "/v1/chat/completions?q=1", json={"model": "m"})
        assert reply.json()["model"] == "m"
        url = server.url + "/v1/chat/completions?q=1"
        assert log == [url if scheme == "http" else url.split("/")[2]]
        (request,) = server.requests
        assert request.query == {"q": "1"}


def test_the_proxy_wants_its_credentials() -> None:
    """Without the right user and password the target is never reached."""
    log: list[str] = []
    with (
        ProviderServer() as server,
        connect_proxy(log, require_auth=("user", "pass word")) as (host, port),
    ):
        url = server.url + "/v1/models"
        with httpx2.Client(proxy=f"http://{host}:{port}", timeout=10) as stranger:
            assert stranger.get(url).status_code == 407
        assert server.requests == []
        with httpx2.Client(proxy=f"http://user:pass%20word@{host}:{port}", timeout=10) as friend:
            assert friend.get(url).status_code == 200
        assert "proxy-authorization" not in server.requests[0].headers
    assert log == [url, url]


def test_a_stalling_proxy_never_answers() -> None:
    """A stalling proxy takes the CONNECT and leaves the client waiting."""
    log: list[str] = []
    with (
        connect_proxy(log, stall=True) as (host, port),
        httpx2.Client(proxy=f"http://{host}:{port}", timeout=0.5) as client,
        pytest.raises(httpx2.TimeoutException),
    ):
        client.get("https://example.invalid/")
    assert log == ["example.invalid:443"]


def test_an_unreachable_target_is_a_bad_gateway() -> None:
    """The proxy itself answers when nobody listens at the target."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        connect_proxy([]) as proxy,
        httpx2.Client(proxy="http://{}:{}".format(*proxy), timeout=10) as client,
    ):
        assert client.get(f"http://127.0.0.1:{port}/").status_code == 502


def test_the_proxy_ends_with_tunnels_open() -> None:
    """Its threads end although clients still hold tunnels and half a request."""
    before = threading.active_count()
    with ProviderServer() as server:
        with connect_proxy([]) as address:
            half = socket.create_connection(address, timeout=5)
            tunnel = socket.create_connection(address, timeout=5)
            target = server.url.removeprefix("http://")
            tunnel.sendall(f"CONNECT {target} HTTP/1.1\r\n\r\n".encode())
            assert tunnel.recv(100).startswith(b"HTTP/1.1 200 ")
        assert tunnel.recv(100) == b""
        half.close()
        tunnel.close()
    assert threading.active_count() == before


def test_the_authority_file_is_trusted_by_others_and_goes_away() -> None:
    """The PEM file serves whoever takes a path, for as long as the block lasts."""
    with tls_authority() as tls, ProviderServer(tls=tls.server) as server:
        context = ssl.create_default_context(cafile=str(tls.ca_file))
        with urllib.request.urlopen(server.url + "/v1/models", context=context, timeout=5) as reply:
            assert reply.status == 200
    assert not tls.ca_file.exists()
