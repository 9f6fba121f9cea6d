from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from llmkit import Client
from llmkit.testing import Answer, ProviderServer
from tests.network_faults import tls_authority
from tests.testing.http_clients import (
    CHAT,
    SOON,
    ask,
    connect,
    port_of,
    question,
    text_of,
)


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    """A started server."""
    with ProviderServer() as started:
        yield started


def own_threads() -> list[threading.Thread]:
    """The threads of all provider servers in this process."""
    return [t for t in threading.enumerate() if t.name.startswith("llmkit-provider-server")]


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::"])
def test_only_loopback_is_served(host: str) -> None:
    """A fake provider is never reachable from outside."""
    with pytest.raises(ValueError, match="loopback only"):
        ProviderServer(host=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_addresses_name_the_host_and_port(host: str) -> None:
    """The URL and each vendor's base URL are what a client needs."""
    server = ProviderServer(host=host)
    with pytest.raises(RuntimeError, match="before start"):
        _ = server.url
    if host == "::1" and not _has_ipv6():
        return
    with server:
        assert re.fullmatch(rf"http://\[?{re.escape(host)}\]?:\d+", server.url)
        assert server.base_url("openai") == server.url + "/v1"
        assert server.base_url("anthropic") == server.base_url("gemini") == server.url
        with pytest.raises(ValueError, match="not 'cohere'"):
            server.base_url("cohere")  # type: ignore[arg-type] # what the test is about


@pytest.mark.parametrize("model", ["gpt-6-luna", "claude-haiku-5-5", "gemini-3.8-flash"])
def test_its_environment_puts_it_in_every_vendors_place(
    server: ProviderServer, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that is given the variables asks this server, whichever vendor it means."""
    monkeypatch.setenv("OPENAI_API_KEY", "real")  # and never sends a real key there
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    server.answer = Answer("from loopback")
    assert Client(model).complete("Hi").text == "from loopback"
    assert server.requests[-1].model == model
    assert "real" not in str(server.requests[-1].headers)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def test_close_is_immediate_in_every_wait_and_leaves_no_thread() -> None:
    """Closing never waits for a scripted delay, and nothing goes on running."""
    others = own_threads()  # of a test session's own servers
    server = ProviderServer().start()
    waits = [Answer(delay=60), Answer(stall_after=0), Answer(drip=60), Answer(chunk_delay=60)]
    server.script(*waits)
    clients = []
    for _ in waits:
        clients.append(connect(server))
        clients[-1].request("POST", CHAT, question(stream=True))
    clients.append(connect(server))
    clients[-1].connect()
    requests = server.wait_for_requests(len(waits))
    assert len(own_threads()) >= len(others) + len(waits)
    started = time.monotonic()
    server.close()
    assert time.monotonic() - started < 1
    assert set(own_threads()) <= set(others)
    assert server.open_connections == 0
    for request in requests:
        assert request.finished.is_set()
        assert not request.disconnected.is_set()
    for client in clients:
        client.close()
    server.close()


def test_a_closed_server_comes_back_on_its_port(server: ProviderServer) -> None:
    """A test can take a provider away and bring it back."""
    url = server.url
    server.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port_of(server)), timeout=SOON).close()
    assert server.start().url == url
    with contextlib.closing(connect(server)) as connection:
        assert ask(connection)[0].status == 200


def test_starting_twice_is_harmless(server: ProviderServer) -> None:
    """`start()` on a running server changes nothing."""
    url = server.url
    assert server.start().url == url
    assert server.start() is server


def test_tls_is_spoken_and_a_stalled_handshake_holds_nothing() -> None:
    """HTTPS works, a plain client is dropped, and a silent one keeps neither others nor close."""
    with tls_authority() as tls:
        with ProviderServer(Answer("secure"), tls=tls.server) as server:
            assert server.url.startswith("https://")
            address = ("127.0.0.1", port_of(server))
            silent = socket.create_connection(address, timeout=SOON)
            with socket.create_connection(address, timeout=SOON) as plain:
                plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
                with contextlib.suppress(ConnectionResetError):
                    while plain.recv(4096):
                        pass
            connection = http.client.HTTPSConnection(*address, timeout=SOON, context=tls.client)
            with contextlib.closing(connection):
                assert text_of(ask(connection)[1]) == "secure"
            strict = ssl.create_default_context()
            stranger = http.client.HTTPSConnection(*address, timeout=SOON, context=strict)
            with contextlib.closing(stranger), pytest.raises(ssl.SSLCertVerificationError):
                ask(stranger)
            started = time.monotonic()
        assert time.monotonic() - started < 1
        silent.close()


def test_many_clients_at_once_get_their_own_answers(server: ProviderServer) -> None:
    """Concurrent connections are served side by side and never get each other's answer."""
    server.answer = lambda request: Answer(request.json["messages"])
    wrong: list[object] = []

    def client(number: int) -> None:
        with contextlib.closing(connect(server)) as connection:
            for turn in range(10):
                said = f"{number} {turn}"
                connection.request("POST", CHAT, json.dumps({"messages": said}))
                heard = text_of(connection.getresponse().read())
                if heard != said:
                    wrong.append((said, heard))

    threads = [threading.Thread(target=client, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert len(server.requests) == 640
    assert [request.number for request in server.requests] == list(range(1, 641))
