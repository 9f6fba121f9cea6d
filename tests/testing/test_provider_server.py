from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmkit.testing import Answer, AnswerSource, ProviderServer, RecordedRequest
from tests.testing.http_clients import (
    CHAT,
    SOON,
    ask,
    connect,
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


def test_script_answers_in_order_then_the_standing_answer(server: ProviderServer) -> None:
    """Scripted answers are used up one per request, and the standing answer comes back."""
    server.answer = Answer("standing")
    server.script(Answer("one"), Answer(status=429, headers={"Retry-After": "1"}), Answer("three"))
    with contextlib.closing(connect(server)) as connection:
        assert text_of(ask(connection)[1]) == "one"
        refused, _ = ask(connection)
        assert (refused.status, refused.getheader("retry-after")) == (429, "1")
        texts = [text_of(ask(connection)[1]) for _ in range(3)]
    assert texts == ["three", "standing", "standing"]


def test_functions_answer_from_the_recorded_request(server: ProviderServer) -> None:
    """A function, standing or scripted, sees the request that it answers."""

    def echo(request: RecordedRequest) -> Answer:
        return Answer(f"{request.model} {request.number}")

    server.answer = echo
    server.script(lambda request: Answer(request.method))
    with contextlib.closing(connect(server)) as connection:
        assert [text_of(ask(connection)[1]) for _ in range(2)] == ["POST", "m 2"]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (lambda request: Answer(request.json["missing"]), "KeyError: 'missing'"),
        (lambda _: "text", "expected an Answer, got str"),
        (Answer(headers={"x-bad": "\u2603"}), "UnicodeEncodeError"),
    ],
)
def test_a_broken_script_is_told_to_the_client(
    server: ProviderServer, source: AnswerSource, told: str
) -> None:
    """A mistake in a test's own script shows as a 500 that names it, not as a hanging client."""
    server.answer = source
    with contextlib.closing(connect(server)) as connection:
        response, body = ask(connection)
    assert response.status == 500
    assert told in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("odd", ["Hello", None, {"status": 429}, [Answer("Hello")]])
def test_what_is_no_answer_is_refused_at_once(server: ProviderServer, odd: Any) -> None:
    """A text in an Answer's place is told in the test's own line, not as a provider's failure."""
    with pytest.raises(TypeError, match="expected Answer"):
        server.script(Answer("first"), odd)
    with pytest.raises(TypeError, match="expected Answer"):
        server.answer = odd


def test_unknown_routes_say_so_and_use_up_no_script(server: ProviderServer) -> None:
    """A wrong path gets a 404 that names it, and leaves the script for the right one."""
    server.script(Answer("kept"))
    with contextlib.closing(connect(server)) as connection:
        response, body = ask(connection, path="/v2/nothing")
        assert response.status == 404
        assert "POST /v2/nothing" in json.loads(body)["error"]["message"]
        connection.request("HEAD", "/")
        assert connection.getresponse().read() == b""
        assert text_of(ask(connection)[1]) == "kept"
    assert [request.vendor for request in server.requests] == [None, None, "openai"]


def test_a_body_that_is_no_json_object_is_a_bad_request(server: ProviderServer) -> None:
    """Broken JSON from a client gets the vendor's 400, as from the real one."""
    with contextlib.closing(connect(server)) as connection:
        connection.request("POST", "/v1/messages", b"{oops")
        response = connection.getresponse()
        assert response.status == 400
        assert json.loads(response.read())["error"]["type"] == "invalid_request_error"
    assert server.requests[0].json is None
    assert server.requests[0].body == b"{oops"


@pytest.mark.parametrize("body", ["<html>caf\u00e9</html>", "<html>caf\u00e9</html>".encode()])
def test_a_given_body_is_sent_word_for_word(server: ProviderServer, body: bytes | str) -> None:
    """A proxy's HTML page or any other body can stand in for the vendor's JSON."""
    server.answer = Answer(
        status=502,
        body=body,
        content_type="text/html",
        headers={"X-Extra": "yes", "X-Request-ID": "own"},
    )
    with contextlib.closing(connect(server)) as connection:
        response, received = ask(connection)
    assert (response.status, received.decode()) == (502, "<html>caf\u00e9</html>")
    assert response.getheader("content-type") == "text/html"
    assert response.getheader("x-extra") == "yes"
    assert response.msg.get_all("x-request-id") == ["own"]


def test_statuses_without_a_body_have_none(server: ProviderServer) -> None:
    """A 204 carries no body, so that the connection stays usable."""
    server.script(Answer(status=204), Answer(status=204, chunked=True))
    with contextlib.closing(connect(server)) as connection:
        assert ask(connection)[1] == b""
        assert ask(connection)[1] == b""
        assert ask(connection)[0].status == 200
    assert server.connections_accepted == 1


@pytest.mark.parametrize("stream", [False, True])
def test_gzip_compresses_plain_and_streamed_bodies(server: ProviderServer, stream: bool) -> None:
    """Compressed answers are sound gzip and say so."""
    server.answer = Answer("a b c", gzip=True)
    with contextlib.closing(connect(server)) as connection:
        response, body = ask(connection, stream=stream)
    assert response.getheader("content-encoding") == "gzip"
    assert b"chatcmpl-fake" in gzip.decompress(body)


def test_compressed_events_can_be_read_as_they_come(server: ProviderServer) -> None:
    """Compression holds no event back until a later one."""
    server.answer = Answer(chunks=["first", "second"], gzip=True, stall_after=600)
    connection = connect(server)
    connection.request("POST", CHAT, question(stream=True))
    response = connection.getresponse()
    inflate = zlib.decompressobj(wbits=31)
    assert b'"role":"assistant"' in inflate.decompress(response.read1())
    response.close()
    connection.close()


def test_chunked_plain_replies_are_framed_soundly(server: ProviderServer) -> None:
    """A plain reply can come without a Content-Length."""
    server.answer = Answer("plain", chunked=True)
    with contextlib.closing(connect(server)) as connection:
        response, body = ask(connection)
        assert response.getheader("transfer-encoding") == "chunked"
        assert response.getheader("content-length") is None
        assert text_of(body) == "plain"


def test_a_stream_has_one_transfer_chunk_per_event(server: ProviderServer) -> None:
    """Each event of a stream is a chunk of its own, as clients of real vendors see them."""
    server.answer = Answer(chunks=["a", "b"])
    received, _ = raw_exchange(server, stream=True)
    chunks = re.findall(rb"\r\n[0-9a-f]+\r\n(data: .*?\n\n)", received, re.DOTALL)
    assert len(chunks) == 5  # role, two texts, finish, [DONE]
    assert received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"cached_tokens": 8}, "parts of input_tokens"),
        ({"output_tokens": 1, "reasoning_tokens": 2}, "part of output_tokens"),
        ({"delay": -1.0}, "delay must not be negative"),
        ({"cut_after": -1}, "cut_after must not be negative"),
    ],
)
def test_answers_that_make_no_sense_are_refused(fields: dict[str, Any], told: str) -> None:
    """Counts that contradict each other are told where they are written."""
    with pytest.raises(ValueError, match=told):
        Answer(**fields)


def test_a_request_is_recorded_whole(server: ProviderServer) -> None:
    """A test can assert on every part of what its client sent."""
    before = time.monotonic()
    with contextlib.closing(connect(server)) as connection:
        connection.request(
            "POST", CHAT + "?a=1&a=2&empty=", question(), {"Authorization": "Bearer sk-secret"}
        )
        connection.getresponse().read()
    (request,) = server.requests
    assert (request.number, request.method, request.path) == (1, "POST", CHAT)
    assert request.query == {"a": "2", "empty": ""}
    assert request.headers["authorization"] == "Bearer sk-secret"
    assert request.body == question()
    assert request.json == {"model": "m", "messages": [], "stream": False}
    assert (request.vendor, request.operation) == ("openai", "generate")
    assert (request.model, request.stream, request.connection) == ("m", False, 1)
    assert before <= request.received_at <= time.monotonic()
    assert request.finished.wait(SOON)
    assert not request.disconnected.is_set()
    assert request.disconnected_at is None


@pytest.mark.parametrize(
    "name", ["Authorization", "X-Api-Key", "x-goog-api-key", "api-key", "Proxy-Authorization"]
)
def test_repr_hides_keys(server: ProviderServer, name: str) -> None:
    """A failing assertion never prints a key."""
    with contextlib.closing(connect(server)) as connection:
        connection.request("POST", CHAT + "?key=sk-secret", question(), {name: "sk-secret"})
        connection.getresponse().read()
    assert "sk-secret" not in repr(server.requests)
    assert CHAT in repr(server.requests)


def test_the_connection_number_proves_reuse(server: ProviderServer) -> None:
    """Requests on one connection carry its number, and others another."""
    with contextlib.closing(connect(server)) as first, contextlib.closing(connect(server)) as other:
        ask(first)
        ask(other)
        ask(first)
        assert server.open_connections == 2
    assert [request.connection for request in server.requests] == [1, 2, 1]
    assert server.connections_accepted == 2


def test_close_connection_ends_keep_alive(server: ProviderServer) -> None:
    """An answer can end the connection it came on, and says so in its head."""
    server.script(Answer(close_connection=True))
    with contextlib.closing(connect(server)) as connection:
        response, _ = ask(connection)
        assert response.getheader("connection") == "close"
        ask(connection)
    assert [request.connection for request in server.requests] == [1, 2]


def test_wait_for_requests_wakes_and_times_out(server: ProviderServer) -> None:
    """A test can wait for a request in flight, and learns how many came when it waits in vain."""
    server.answer = Answer(delay=60)
    thread = threading.Thread(target=raw_exchange, args=(server,))
    thread.start()
    assert len(server.wait_for_requests(1)) == 1
    with pytest.raises(TimeoutError, match="1 of 2 requests"):
        server.wait_for_requests(2, timeout=0.01)
    server.close()
    thread.join(SOON)
    assert not thread.is_alive()


def test_reset_forgets_requests_script_and_answer(server: ProviderServer) -> None:
    """One server can serve many tests without one leaking into the next."""
    server.answer = Answer("old")
    server.script(Answer("older"), Answer("oldest"))
    with contextlib.closing(connect(server)) as connection:
        ask(connection)
        snapshot = server.requests
        server.reset()
        assert server.requests == []
        assert len(snapshot) == 1
        assert text_of(ask(connection)[1]) == Answer().text


def test_chunked_pipelined_and_expecting_requests_are_read(server: ProviderServer) -> None:
    """Whatever HTTP/1.1 framing a client chooses, the body arrives whole."""
    body = question()
    half = len(body) // 2
    chunked = b"%x;x=y\r\n%b\r\n%x\r\n%b\r\n0\r\nTrailer: t\r\n\r\n" % (
        half,
        body[:half],
        len(body) - half,
        body[half:],
    )
    head = f"POST {CHAT} HTTP/1.1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    last = f"POST {CHAT} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    received = b""
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=SOON) as client:
        client.sendall(head.encode() + chunked + last)
        while data := client.recv(65536):
            received += data
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert received.count(b"200 OK") == 2
    assert [request.body for request in server.requests] == [body, body]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 67108865\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 270_000, 431),
    ],
)
def test_unreadable_requests_get_a_status(server: ProviderServer, sent: bytes, status: int) -> None:
    """What is no HTTP, or too large, is refused with a status and no traceback."""
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=SOON) as client:
        client.sendall(sent)
        assert client.recv(65536).startswith(b"HTTP/1.1 %d " % status)
    assert server.requests == []


def test_importing_the_server_loads_no_sdk() -> None:
    """Users test their own apps with it without any vendor's package or HTTP client."""
    script = (
        "import sys\n"
        "sys.path.append('.')\n"
        "import llmkit.testing\n"
        "print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert set(done.stdout.split()) == {"llmkit", "__main__"}
