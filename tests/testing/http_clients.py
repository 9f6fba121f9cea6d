"""Plain HTTP clients for the provider server's tests: no SDK between the test and the wire."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable

from llmkit.testing import ProviderServer

__all__ = [
    "CHAT",
    "SOON",
    "ask",
    "connect",
    "eventually",
    "port_of",
    "question",
    "raw_exchange",
    "text_of",
]

CHAT = "/v1/chat/completions"
SOON = 5.0  # bounds a wait for what comes at once on a quiet machine


def port_of(server: ProviderServer) -> int:
    """The port that the server listens on."""
    return int(server.url.rsplit(":", 1)[1])


def connect(server: ProviderServer) -> http.client.HTTPConnection:
    """A keep-alive connection."""
    return http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=SOON)


def question(stream: bool = False) -> bytes:
    """The body of a chat completion's request."""
    return json.dumps({"model": "m", "messages": [], "stream": stream}).encode()


def ask(
    connection: http.client.HTTPConnection, *, stream: bool = False, path: str = CHAT
) -> tuple[http.client.HTTPResponse, bytes]:
    """Asks for a chat completion and reads the whole response."""
    connection.request("POST", path, question(stream))
    response = connection.getresponse()
    return response, response.read()


def text_of(body: bytes) -> str:
    """What the model says in a chat completion."""
    text: str = json.loads(body)["choices"][0]["message"]["content"]
    return text


def raw_exchange(server: ProviderServer, *, stream: bool = False) -> tuple[bytes, type | None]:
    """What a client reads until the connection ends, and the error that ended it."""
    body = question(stream)
    head = f"POST {CHAT} HTTP/1.1\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", port_of(server)), timeout=SOON) as client:
        client.sendall(head.encode() + body)
        try:
            while data := client.recv(65536):
                received += data
        except OSError as error:
            return received, type(error)
    return received, None


def eventually(holds: Callable[[], bool]) -> bool:
    """Whether it holds soon, for what sets no event."""
    deadline = time.monotonic() + SOON
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
