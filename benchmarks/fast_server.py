"""A provider on loopback that is fast enough not to be measured, in a process of its own.

It answers as `llmkit.testing.ProviderServer` does, in the three vendors' protocols, but from bytes
that it builds once for each path: one thread, one select loop, one send for an answer. The first
parts of a path say how late it answers: `/delay-50/v1/chat/completions` after 50 ms.
"""

from __future__ import annotations

import heapq
import itertools
import multiprocessing
import re
import select
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import NamedTuple
from urllib.parse import parse_qsl

from llmkit.testing import Answer, RecordedRequest
from llmkit.testing.http_exchange import build_response
from llmkit.testing.recorded_request import find_route
from llmkit.testing.wire import Wire
from llmkit.testing.wire_anthropic import AnthropicWire
from llmkit.testing.wire_gemini import GeminiWire
from llmkit.testing.wire_openai import OpenAIWire

# How many pieces of text a stream has.
CHUNKS = 400
# How late it is if the model's name says so, in seconds.
SLOW = 3.0

WIRES: dict[str, Wire] = {
    "openai": OpenAIWire(),
    "anthropic": AnthropicWire(),
    "gemini": GeminiWire(),
}
MODELS = {
    "openai": "gpt-6-luna",
    "anthropic": "claude-haiku-5-5",
    "gemini": "gemini-3.8-flash",
}
PLAIN = Answer("An answer of a few words.")
STREAMED = Answer(chunks=[f"word{number} " for number in range(CHUNKS)])

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAMS = re.compile(rb'"stream": ?true')
_DELAY = re.compile(r"/delay-(\d+)/")


class Floor(NamedTuple):
    """What the server itself costs, seen by a client on raw sockets.

    Attributes:
        round_trip: Seconds of one request and its answer on a kept connection, the median.
        calls_per_second: Calls that it answers in a second without a delay.
    """

    round_trip: float
    calls_per_second: float


class Canned(NamedTuple):
    """An answer that is ready to be sent, and after how many seconds."""

    data: bytes
    delay: float


@contextmanager
def fast_server() -> Iterator[str]:
    """Runs the server; yields its address, such as http://127.0.0.1:1234."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs,), daemon=True
    )
    process.start()
    theirs.close()  # so that a server that fails to start ends the wait for its address
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join(10)


def build(target: str, streams: bool) -> Canned:
    """Builds the answer to a path and its query."""
    delay = _DELAY.search(target)
    path, _, query = target.partition("?")
    route = find_route("POST", path, {}, {})
    vendor = (route.vendor if route else None) or "openai"
    streams = streams or bool(route and route.stream)
    request = RecordedRequest(
        number=1,
        method="POST",
        path=path,
        query=dict(parse_qsl(query)),
        headers={},
        body=b"",
        json={},
        vendor=vendor,
        operation="generate",
        model=MODELS[vendor],
        stream=streams,
        connection=1,
        received_at=0.0,
    )
    answer = STREAMED if streams else PLAIN
    response = build_response(request, answer, WIRES[vendor], keep_alive=True)
    data = b"".join((response.head, *response.pieces))
    return Canned(data, int(delay[1]) / 1000 if delay else 0.0)


class _Server:
    """The loop, and what it knows of its connections."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.poll = select.poll()
        self.poll.register(listener, select.POLLIN)
        self.connections: dict[int, tuple[socket.socket, bytearray]] = {}
        self.canned: dict[tuple[bytes, bool], Canned] = {}
        self.due: list[tuple[float, int, int, socket.socket, bytes]] = []
        self.numbers = itertools.count()

    def run(self) -> None:
        """Serves until the process is killed."""
        while True:
            wait = 1000 * (self.due[0][0] - time.monotonic()) if self.due else None
            for descriptor, _ in self.poll.poll(None if wait is None else max(0.0, wait)):
                if descriptor == self.listener.fileno():
                    self.accept()
                elif descriptor in self.connections:
                    self.read(descriptor)
            while self.due and self.due[0][0] <= time.monotonic():
                _, _, descriptor, connection, data = heapq.heappop(self.due)
                self.send(descriptor, connection, data)

    def accept(self) -> None:
        """Takes a connection."""
        connection, _ = self.listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(5)  # for a client that no longer reads
        self.connections[connection.fileno()] = (connection, bytearray())
        self.poll.register(connection, select.POLLIN)

    def read(self, descriptor: int) -> None:
        """Reads what has come, and answers each request that is whole."""
        connection, buffer = self.connections[descriptor]
        try:
            data = connection.recv(1 << 18)
        except OSError:
            data = b""
        if not data:
            self.leave(descriptor)
            return
        buffer += data
        while (end := buffer.find(b"\r\n\r\n") + 4) > 3:
            length = _LENGTH.search(buffer, 0, end)
            whole = end + (int(length[1]) if length else 0)
            if len(buffer) < whole:
                return
            request = bytes(buffer[:whole])
            del buffer[:whole]
            self.answer(descriptor, connection, request, end)

    def answer(self, descriptor: int, connection: socket.socket, request: bytes, end: int) -> None:
        """Answers one request, or notes when it's due."""
        path = request[: request.index(b"\r\n")]
        key = (path, _STREAMS.search(request, end) is not None)
        canned = self.canned.get(key)
        if canned is None:
            canned = self.canned[key] = build(path.split()[1].decode(), key[1])
        delay = SLOW if request.find(b"-slow", end) > 0 else canned.delay
        if delay:
            due = time.monotonic() + delay
            heapq.heappush(self.due, (due, next(self.numbers), descriptor, connection, canned.data))
        else:
            self.send(descriptor, connection, canned.data)

    def send(self, descriptor: int, connection: socket.socket, data: bytes) -> None:
        """Sends an answer to a client that may have left."""
        try:
            connection.sendall(data)
        except OSError:
            if self.connections.get(descriptor, (None,))[0] is connection:
                self.leave(descriptor)

    def leave(self, descriptor: int) -> None:
        """Forgets a connection."""
        self.poll.unregister(descriptor)
        self.connections.pop(descriptor)[0].close()


def _serve(pipe: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        pipe.send(f"http://127.0.0.1:{listener.getsockname()[1]}")
        _Server(listener).run()


def measure_floor(url: str, calls: int = 2000, connections: int = 64) -> Floor:
    """Measures what the server costs, by raw sockets.

    Args:
        url: The server's address.
        calls: How many calls each of the two figures is taken from.
        connections: How many of them are under way at once for the second.
    """
    host, _, port = url.removeprefix("http://").partition(":")
    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
    request = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )
    size = len(build("/v1/chat/completions", False).data)
    sockets = [socket.create_connection((host, int(port))) for _ in range(connections)]
    try:
        for each in sockets:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _exchange([each], request, size)
        trips = [_exchange(sockets[:1], request, size) for _ in range(calls)]
        rounds = max(1, calls // connections)
        seconds = sum(_exchange(sockets, request, size) for _ in range(rounds))
    finally:
        for each in sockets:
            each.close()
    return Floor(statistics.median(trips), rounds * connections / seconds)


def _exchange(sockets: list[socket.socket], request: bytes, size: int) -> float:
    began = time.perf_counter()
    for each in sockets:
        each.sendall(request)
    for each in sockets:
        left = size
        while left > 0:
            left -= len(each.recv(65536)) or left
    return time.perf_counter() - began
