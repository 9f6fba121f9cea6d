"""Connections: shared, kept, proxied, closed, and left alone by forks."""

from __future__ import annotations

import gc
import json
import os
import signal
import ssl
import sys
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import llmkit
from llmkit import connection_pool
from llmkit.connection_pool import cleanup_connection_pools, get_connection_pool, health_check
from llmkit.errors import APIConnectionError
from llmkit.network import ScopedBackend
from llmkit.testing import Answer, ProviderServer
from llmkit.threads import detached_count, run_detached
from tests.deadline.calling import VENDORS, Background, Vendor, adapter, echo
from tests.deadline.states import FOREVER, STALLED
from tests.network_faults import TLSAuthority, black_hole, connect_proxy


@pytest.mark.parametrize("vendor", VENDORS)
def test_calls_share_one_connection(any_server: ProviderServer, vendor: Vendor) -> None:
    """Each further call costs no handshake, whichever adapter makes it."""
    for _ in range(5):
        adapter(vendor, any_server.base_url(vendor)).generate("hi")
    assert any_server.connections_accepted == 1


def test_idle_connections_outlive_a_quiet_minute() -> None:
    """A web application's next view, a minute later, finds the connection open."""
    assert connection_pool.KEEPALIVE >= 60


def test_a_connection_that_the_provider_closed_is_not_used(any_server: ProviderServer) -> None:
    """A provider that closes an idle connection costs no failed attempt."""
    asked = adapter("openai", any_server.base_url("openai"), max_retries=0)
    asked.generate("hi")
    any_server.close()
    any_server.start()
    assert len(asked.generate("hi").attempts) == 1


def test_one_tls_context_serves_all_pools(
    trusted: TLSAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Building a TLS context costs more than a pool, so there is one."""
    built: list[ssl.SSLContext] = []
    build = connection_pool._ssl_context._build

    def count() -> ssl.SSLContext:
        built.append(build())
        return built[-1]

    monkeypatch.setattr(connection_pool._ssl_context, "_build", count)
    with ProviderServer(tls=trusted.server) as server:
        for vendor in VENDORS:
            adapter(vendor, server.base_url(vendor)).generate("hi")
    assert len(built) == 1


def test_a_certificate_of_an_unknown_authority_is_refused(authority: TLSAuthority) -> None:
    """Without trust there is no call."""
    with ProviderServer(tls=authority.server) as server:
        with pytest.raises(APIConnectionError, match="certificate"):
            adapter("openai", server.base_url("openai")).generate("hi", max_retries=0)
        assert server.requests == []


@pytest.mark.parametrize("vendor", VENDORS)
def test_sdk_clients_are_built_once(
    server: ProviderServer, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that come together at the start share one SDK client."""
    import anthropic
    import openai
    from google import genai

    kind: Any = {"openai": openai.OpenAI, "anthropic": anthropic.Anthropic, "gemini": genai.Client}
    kind = kind[vendor]
    built = []
    construct = kind.__init__

    def count(self: Any, *arguments: Any, **options: Any) -> None:
        built.append(self)
        construct(self, *arguments, **options)

    monkeypatch.setattr(kind, "__init__", count)
    together = threading.Barrier(8)

    def call(_: int) -> None:
        together.wait()
        adapter(vendor, server.base_url(vendor)).generate("hi")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(call, range(8)))
    assert len(built) == 1


def test_pools_open_again_after_they_were_closed(server: ProviderServer) -> None:
    """Nobody has to restart anything after `cleanup_connection_pools` or `shutdown`."""
    asked = adapter("openai", server.base_url("openai"))
    asked.generate("hi")
    pool = get_connection_pool("openai")
    assert get_connection_pool("openai") is pool
    for close in (cleanup_connection_pools, llmkit.shutdown, llmkit.shutdown):
        close()
        assert health_check() == {}
    assert get_connection_pool("openai") is not pool
    asked.generate("hi")
    assert server.connections_accepted == 2


def test_closing_the_pools_closes_idle_connections_at_once(server: ProviderServer) -> None:
    """Idle connections end with the pools, the busy ones with their calls."""
    asked = adapter("openai", server.base_url("openai"))
    answering = threading.Event()

    def hold(request: object) -> Answer:
        answering.wait(FOREVER)
        return Answer("to the end")

    server.script(Answer("idle"), hold)
    busy = [Background(lambda: asked.generate("hi").text) for _ in range(2)]
    server.wait_for_requests(2)
    wait_for(lambda: [pool["in_use"] for pool in health_check().values()] == [1])
    cleanup_connection_pools()
    wait_for(lambda: server.open_connections == 1)
    answering.set()
    assert sorted(call.outcome().result for call in busy) == ["idle", "to the end"]
    wait_for(lambda: server.open_connections == 0)


def test_a_pool_that_somebody_closed_is_replaced(server: ProviderServer) -> None:
    """A user's `with get_connection_pool(…)` does not end the calls of everybody else."""
    asked = adapter("openai", server.base_url("openai"))
    asked.generate("hi")
    get_connection_pool("openai", server.base_url("openai")).close()
    assert asked.generate("hi").text


def test_a_full_pool_is_reported(server: ProviderServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """`health_check` tells a pool whose places are all taken."""
    monkeypatch.setenv("OPENAI_CONNECTION_POOL_SIZE", "1")
    asked = adapter("openai", server.base_url("openai"))
    server.answer = STALLED
    stream = asked.stream("hi")
    (pool,) = health_check("openai").values()
    assert (pool["status"], pool["in_use"], pool["connections"]) == ("saturated", 1, 1)
    stream.close()
    (pool,) = health_check("openai").values()
    assert (pool["status"], pool["in_use"], pool["connections"]) == ("healthy", 0, 0)


ENVIRONMENT = {
    "OPENAI_ORG_ID": "org-1",
    "OPENAI_PROJECT_ID": "project-1",
    "OPENAI_CUSTOM_HEADERS": "x-smuggled: 1",
    "OPENAI_BASE_URL": "http://127.0.0.1:9",
    "OPENAI_ADMIN_KEY": "sk-admin",
    "ANTHROPIC_CUSTOM_HEADERS": "x-smuggled: 1",
    "ANTHROPIC_AUTH_TOKEN": "token",
    "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
    "GOOGLE_GENAI_USE_VERTEXAI": "true",
    "GOOGLE_CLOUD_PROJECT": "project-1",
    "GOOGLE_CLOUD_LOCATION": "nowhere",
    "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:9",
}


@pytest.mark.parametrize("vendor", VENDORS)
def test_the_sdks_environment_changes_nothing_on_the_wire(
    server: ProviderServer, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a shell happens to export for an SDK can't redirect or charge our calls."""

    def headers() -> dict[str, str]:
        llmkit.shutdown()
        adapter(vendor, server.base_url(vendor)).generate("hi")
        return {**server.requests[-1].headers, "path": server.requests[-1].path}

    before = headers()
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    assert headers() == before


@pytest.mark.parametrize("vendor", VENDORS)
def test_proxies_are_taken_from_the_environment(
    vendor: Vendor, trusted: TLSAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY leads a call through a CONNECT tunnel, which is kept for the next call."""
    asked: list[str] = []
    with ProviderServer(tls=trusted.server) as server, connect_proxy(asked) as (host, port):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{host}:{port}")
        for _ in range(2):
            adapter(vendor, server.base_url(vendor)).generate("hi")
        assert asked == [server.url.removeprefix("https://")]


def test_no_proxy_exempts_a_host(trusted: TLSAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_PROXY is obeyed for an address, a name and a network."""
    asked: list[str] = []
    with ProviderServer(tls=trusted.server) as server, connect_proxy(asked) as (host, port):
        monkeypatch.setenv("HTTPS_PROXY", f"http://{host}:{port}")
        for exempt in ("127.0.0.1", "other.test,127.0.0.0/8", "*"):
            cleanup_connection_pools()
            monkeypatch.setenv("NO_PROXY", exempt)
            adapter("openai", server.base_url("openai")).generate("hi")
        assert asked == []


def test_a_plain_address_goes_through_http_proxy(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTP_PROXY forwards calls to http:// addresses."""
    asked: list[str] = []
    with connect_proxy(asked) as (host, port):
        monkeypatch.setenv("HTTP_PROXY", f"http://{host}:{port}")
        assert adapter("openai", server.base_url("openai")).generate("hi").text
        cleanup_connection_pools()
    assert asked == [server.base_url("openai") + "/chat/completions"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_may_want_a_password(
    scheme: str, trusted: TLSAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """User and password in the proxy's URL reach the proxy, and a wrong one is said."""
    tls = trusted.server if scheme == "https" else None
    with (
        ProviderServer(tls=tls) as server,
        connect_proxy([], require_auth=("user", "p@ss word")) as (host, port),
    ):
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://user:p%40ss%20word@{host}:{port}")
        assert adapter("openai", server.base_url("openai")).generate("hi").text
        cleanup_connection_pools()
        monkeypatch.setenv(f"{scheme.upper()}_PROXY", f"http://user:wrong@{host}:{port}")
        with pytest.raises(llmkit.LLMError, match="407") as caught:
            adapter("openai", server.base_url("openai")).generate("hi", max_retries=0)
        assert "wrong" not in str(caught.value)
        assert len(server.requests) == 1


def test_a_proxy_of_an_unknown_kind_is_a_configuration_error(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy URL that can't work is named, not retried."""
    monkeypatch.setenv("HTTP_PROXY", "ftp://127.0.0.1:9")
    with pytest.raises(llmkit.ConfigurationError, match="ftp"):
        adapter("openai", server.base_url("openai")).generate("hi")
    with pytest.raises(llmkit.ConfigurationError, match="ftp"):
        get_connection_pool("openai").get(server.url)


def test_a_host_that_is_no_name_is_an_invalid_request() -> None:
    """An address that can't be looked up is the caller's error, and not tried again."""
    with pytest.raises(llmkit.LLMError) as caught:
        adapter("openai", f"http://{'a' * 64}.test/v1").generate("hi")
    assert len(caught.value.attempts) <= 1


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")


def in_a_child(task: Callable[[], Any]) -> Any:
    """Runs a task in a forked child and returns its result; a warning there is an error."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads: on purpose
        child = os.fork()
    if child == 0:
        signal.alarm(20)  # a child that hangs fails its test
        complaints: list[str] = []
        sys.unraisablehook = lambda unraisable: complaints.append(repr(unraisable.exc_value))
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                result = task()
                gc.collect()
            complaints += [str(warning.message) for warning in caught]
            report = {"result": result, "complaints": complaints}
        except BaseException as error:
            report = {"result": repr(error), "complaints": complaints}
        os.write(writing, json.dumps(report).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        report = json.load(pipe)
    os.waitpid(child, 0)
    assert report["complaints"] == []
    return report["result"]


@forks
@pytest.mark.parametrize("vendor", VENDORS)
def test_parent_and_child_both_go_on_after_a_fork(
    any_server: ProviderServer, vendor: Vendor
) -> None:
    """A fork in the midst of keep-alive garbles no request, in the parent or in the child."""
    any_server.answer = echo
    asked = adapter(vendor, any_server.base_url(vendor), max_retries=0)
    asked.generate("before")

    def calls() -> list[str]:
        with ThreadPoolExecutor(4) as threads:
            return list(threads.map(lambda n: asked.generate(f"child {n}").text, range(12)))

    assert in_a_child(calls) == [f"child {number}" for number in range(12)]
    assert asked.generate("after").text == "after"
    before, *of_child, after = any_server.requests
    assert before.connection == after.connection
    assert before.connection not in {request.connection for request in of_child}


@forks
def test_a_fork_while_another_thread_calls(any_server: ProviderServer) -> None:
    """A child that ends takes nothing from a call, or a look-up, under way in the parent."""
    any_server.answer = echo
    asked = adapter("openai", any_server.base_url("openai"), max_retries=0)
    over = threading.Event()
    # A fork in the midst of a handshake can leave one of OpenSSL's own locks locked in the child.
    connected = threading.Barrier(4)

    def call_on() -> int:
        calls = 0
        while not over.is_set():
            assert asked.generate(f"parent {calls}").text == f"parent {calls}"
            calls += 1
            if calls == 1:
                connected.wait(10)
        return calls

    looking_up = run_detached(over.wait, "resolver")
    parents = [Background(call_on) for _ in range(3)]
    try:
        connected.wait(10)
        for _ in range(3):
            text, running = in_a_child(lambda: (asked.generate("child").text, detached_count()))
            assert text == "child"
            assert running == 0
    finally:
        over.set()
    looking_up.result()
    assert all(parent.outcome().result > 0 for parent in parents)


@forks
def test_a_fork_in_the_midst_of_a_stream(server: ProviderServer) -> None:
    """A child may drop the stream it inherited; the parent reads its own to the end."""
    server.answer = Answer("one two three", chunk_delay=0.05)
    streams = [adapter("openai", server.base_url("openai")).stream("hi")]
    first = next(streams[0]).text

    def drop() -> str:
        streams.pop().close()
        return "dropped"

    assert in_a_child(drop) == "dropped"
    assert first + "".join(streams[0].text_stream) == "one two three"


@forks
def test_a_child_inherits_no_connecting_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A socket that was connecting when the process forked is closed in the child, too."""
    with black_hole() as (host, port):
        connecting = Background(
            lambda: adapter("openai", f"http://{host}:{port}/v1").generate("hi", timeout=0.5)
        )
        backends = wait_for(
            lambda: [b for b in gc.get_objects() if isinstance(b, ScopedBackend) and b.sockets]
        )
        (sock,) = backends[0].sockets
        assert in_a_child(sock.fileno) == -1
        del backends, sock
        connecting.outcome()


def wait_for(condition: Callable[[], Any]) -> Any:
    """Waits until something is so, and returns it."""
    ends = time.monotonic() + 5
    while not (result := condition()):
        assert time.monotonic() < ends, "it never came to be"
        time.sleep(0.005)
    return result
