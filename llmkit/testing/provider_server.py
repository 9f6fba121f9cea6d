"""A server on loopback that speaks OpenAI's, Anthropic's and Gemini's wire protocols."""

from __future__ import annotations

import ipaddress
import itertools
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TypeAlias

from llmkit.testing.answer import Answer
from llmkit.testing.channel import Channel, ClientLeft
from llmkit.testing.http_exchange import (
    BadRequest,
    RawRequest,
    build_response,
    read_request,
    send_response,
)
from llmkit.testing.listening import Listening
from llmkit.testing.recorded_request import RecordedRequest, Vendor, find_route, parse_json
from llmkit.testing.wire import Wire
from llmkit.testing.wire_anthropic import AnthropicWire
from llmkit.testing.wire_gemini import GeminiWire
from llmkit.testing.wire_openai import OpenAIWire

__all__ = ["AnswerSource", "ProviderServer"]

AnswerSource: TypeAlias = Answer | Callable[[RecordedRequest], Answer]
"""An answer, or a function that makes one for the recorded request."""

_BACKLOG = 512

_WIRES: dict[Vendor | None, Wire] = {
    "openai": OpenAIWire(),
    "anthropic": AnthropicWire(),
    "gemini": GeminiWire(),
    None: OpenAIWire(),
}


class ProviderServer:
    """A fake provider for tests: real sockets, the vendors' protocols, scripted answers and faults.

    It serves all three vendors at once and tells them apart by path. It accepts any key. It
    listens from `start()` (or entering the `with` block) to `close()` (or leaving it), and every
    method may be called from any thread.

    ```python
    with ProviderServer() as server:
        server.script(Answer(status=429, headers={"retry-after": "1"}), Answer("Hello"))
        client = OpenAI(base_url=server.base_url("openai"), api_key="any")
    ```

    Args:
        answer: What it answers to every request that no script covers; None: `Answer()`.
        tls: A server-side context to speak HTTPS with; None: plain HTTP.
        host: The loopback address to listen on.
        port: The port to listen on; 0: a free one.

    Raises:
        ValueError: The host is not a loopback address.
    """

    def __init__(
        self,
        answer: AnswerSource | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
        if not address.is_loopback:
            raise ValueError(f"ProviderServer listens on loopback only, not on {host}")
        self._family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        self._host, self._address, self._port = host, str(address), port
        self._tls = tls
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._starting = threading.Lock()
        self._numbers = itertools.count(1)
        self._requests: list[RecordedRequest] = []
        self._script: deque[AnswerSource] = deque()
        self._standing: AnswerSource = Answer() if answer is None else answer
        self._listening: Listening | None = None
        self._accepted = 0

    def start(self) -> ProviderServer:
        """Starts listening; does nothing when it listens already.

        After a `close()` it listens again on the same port, so that a test can take a provider
        away and bring it back.

        Returns:
            The server itself.

        Raises:
            OSError: The port is taken.
        """
        with self._starting:
            if self._listening is None:
                listener = socket.socket(self._family)
                try:
                    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    listener.bind((self._address, self._port))
                    listener.listen(_BACKLOG)
                except BaseException:  # Ctrl-C, too: nobody else has the socket yet
                    listener.close()
                    raise
                self._port = listener.getsockname()[1]
                self._listening = Listening(listener, self._tls, self._accept, self._serve)
        return self

    def close(self) -> None:
        """Stops listening, ends every connection and its thread. Idempotent.

        Clients in the middle of an answer see their connection end. What was recorded stays. Only
        a thread inside a test's own answer function can outlive this call, which waits about a
        second for it.
        """
        with self._starting:
            listening, self._listening = self._listening, None
            if listening is not None:
                listening.close()

    def __enter__(self) -> ProviderServer:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where it listens, such as `http://127.0.0.1:8080`.

        Raises:
            RuntimeError: It was never started.
        """
        if self._port == 0:
            raise RuntimeError("ProviderServer has no address before start() or its `with` block")
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'http' if self._tls is None else 'https'}://{host}:{self._port}"

    def base_url(self, vendor: Vendor) -> str:
        """Gives what the vendor's SDK takes as its base URL.

        Args:
            vendor: `openai`, `anthropic` or `gemini`.

        Returns:
            The URL, with `/v1` for OpenAI.

        Raises:
            ValueError: There is no such vendor.
        """
        if vendor not in _WIRES:
            raise ValueError(f"ProviderServer speaks openai, anthropic and gemini, not {vendor!r}")
        return self.url + "/v1" if vendor == "openai" else self.url

    def environment(self) -> dict[str, str]:
        """Returns the variables that make llmkit ask this server instead of every vendor.

            os.environ.update(server.environment())  # before anything reads the settings
            subprocess.run(command, env={**os.environ, **server.environment()})

        Settings that were read before don't change: `llmkit.reload_settings()` reads them again.
        An HTTP_PROXY in the environment would be asked for this server, too, as for any other.

        Raises:
            RuntimeError: It was never started.
        """
        variables = {}
        for vendor in ("openai", "anthropic", "gemini"):
            variables[f"LLMKIT_{vendor.upper()}_API_KEY"] = "fake"
            variables[f"LLMKIT_{vendor.upper()}_API_BASE"] = self.base_url(vendor)
        return variables

    @property
    def answer(self) -> AnswerSource:
        """What it answers to every request that no script covers; may be set at any time."""
        with self._lock:
            return self._standing

    @answer.setter
    def answer(self, answer: AnswerSource) -> None:
        _check_source(answer)
        with self._lock:
            self._standing = answer

    def script(self, *answers: AnswerSource) -> None:
        """Adds answers, one for each coming request in order; then the standing answer again.

        Args:
            *answers: Answers, or functions of the recorded request. Such a function that raises
                makes a 500 whose message names the error.

        Raises:
            TypeError: One is something else, such as a text.
        """
        for answer in answers:
            _check_source(answer)
        with self._lock:
            self._script.extend(answers)

    def reset(self) -> None:
        """Forgets the requests, the script and the standing answer; connections stay open."""
        with self._lock:
            self._requests.clear()
            self._script.clear()
            self._standing = Answer()

    @property
    def requests(self) -> list[RecordedRequest]:
        """The requests so far in the order of their arrival; a new list each time."""
        with self._lock:
            return list(self._requests)

    def wait_for_requests(self, n: int, timeout: float = 5.0) -> list[RecordedRequest]:
        """Waits until at least n requests have arrived (not: been answered).

        Args:
            n: How many.
            timeout: Seconds to wait at most.

        Returns:
            All requests so far.

        Raises:
            TimeoutError: Fewer have arrived in that time.
        """
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self._requests) >= n, timeout):
                raise TimeoutError(f"{len(self._requests)} of {n} requests after {timeout} s")
            return list(self._requests)

    @property
    def open_connections(self) -> int:
        """How many connections are open now."""
        listening = self._listening
        return 0 if listening is None else listening.open_connections()

    @property
    def connections_accepted(self) -> int:
        """How many connections it has accepted since it was made."""
        with self._lock:
            return self._accepted

    def _accept(self) -> int:
        """Counts a new connection; returns its number."""
        with self._lock:
            self._accepted += 1
            return self._accepted

    def _serve(self, channel: Channel, connection: int, is_closing: threading.Event) -> None:
        """Answers one request after the other until the connection ends."""
        keep_alive = True
        while keep_alive:
            try:
                raw = read_request(channel)
            except BadRequest as error:
                refusal = Answer(status=error.status, error_message=str(error))
                request = _recorded(RawRequest("", "", {}, {}, b"", False), connection)
                response = build_response(request, refusal, _WIRES[None], keep_alive=False)
                send_response(channel, response, refusal)
                return
            request = _recorded(raw, connection)
            with self._arrived:
                request.number = next(self._numbers)
                self._requests.append(request)
                self._arrived.notify_all()
            try:
                keep_alive = self._reply(channel, request, raw.keep_alive)
            except ClientLeft:
                if not is_closing.is_set():
                    request.disconnected_at = time.monotonic()
                    request.disconnected.set()
                raise
            finally:
                request.finished.set()

    def _reply(self, channel: Channel, request: RecordedRequest, keep_alive: bool) -> bool:
        """Answers a request; returns whether the connection stays open."""
        wire = _WIRES[request.vendor]
        try:
            answer = self._answer_to(request)
            response = build_response(request, answer, wire, keep_alive=keep_alive)
        except Exception as error:  # a test's own function or values: the client gets to see it
            message = f"The scripted answer raised {type(error).__name__}: {error}"
            answer = Answer(status=500, error_message=message)
            response = build_response(request, answer, wire, keep_alive=keep_alive)
        send_response(channel, response, answer)
        return response.keep_alive

    def _answer_to(self, request: RecordedRequest) -> Answer:
        if request.operation is None:
            message = f"ProviderServer has no route {request.method} {request.path}"
            return Answer(status=404, error_code="unknown_route", error_message=message)
        if request.method == "POST" and not isinstance(request.json, dict):
            return Answer(status=400, error_message="The body is not a JSON object.")
        with self._lock:
            source = self._script.popleft() if self._script else self._standing
        if isinstance(source, Answer):
            return source
        answer = source(request)
        if not isinstance(answer, Answer):
            raise TypeError(f"expected an Answer, got {type(answer).__name__}")
        return answer


def _recorded(raw: RawRequest, connection: int) -> RecordedRequest:
    route = find_route(raw.method, raw.path, raw.headers, raw.query)
    body = parse_json(raw.body)
    fields = body if isinstance(body, dict) else {}
    in_path = route is not None and route.vendor == "gemini"
    return RecordedRequest(
        number=0,  # given in the order of arrival
        method=raw.method,
        path=raw.path,
        query=raw.query,
        headers=raw.headers,
        body=raw.body,
        json=body,
        vendor=route.vendor if route else None,
        operation=route.operation if route else None,
        model=route.model if route and route.model else fields.get("model"),
        stream=route.stream if route and in_path else fields.get("stream") is True,
        connection=connection,
        received_at=time.monotonic(),
    )


def _check_source(answer: object) -> None:
    if not isinstance(answer, Answer) and not callable(answer):
        raise TypeError(
            f"expected Answer(…), or a function of a request, got {answer!r:.80}"
            + (": write Answer(…)" if isinstance(answer, str) else "")
        )
