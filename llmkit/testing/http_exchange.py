"""HTTP/1.1 as a server speaks it: requests read from a channel, answers put into bytes and sent."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

from llmkit.testing.answer import Answer
from llmkit.testing.channel import Channel
from llmkit.testing.recorded_request import RecordedRequest
from llmkit.testing.wire import Wire, to_json, with_stream_faults

__all__ = [
    "MAX_BODY",
    "MAX_HEAD",
    "BadRequest",
    "ConnectionCut",
    "RawRequest",
    "Response",
    "build_response",
    "read_request",
    "send_response",
]

MAX_HEAD = 256 * 1024
MAX_BODY = 64 * 1024 * 1024

_REASONS = {status.value: status.phrase for status in HTTPStatus} | {529: "Site Overloaded"}


class BadRequest(Exception):
    """What arrived is not a request that the server reads."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ConnectionCut(Exception):
    """The answer asked for the connection's end, and it has been closed."""


class RawRequest(NamedTuple):
    """One HTTP request, in its parts."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    keep_alive: bool


class Response(NamedTuple):
    """One HTTP response, ready to be sent: `pieces` are what a stream sends one by one."""

    head: bytes
    pieces: list[bytes]
    keep_alive: bool


def read_request(channel: Channel) -> RawRequest:
    """Waits for the next request and reads it whole.

    Raises:
        ClientLeft: The client left before the request was complete.
        BadRequest: It can't be read, or is larger than the limits.
    """
    buffer = channel.received
    while (end := buffer.find(b"\r\n\r\n")) < 0:
        if len(buffer) > MAX_HEAD:
            raise BadRequest(431, "the request's head is too large")
        channel.receive()
    head = bytes(buffer[:end]).decode("latin-1")
    del buffer[: end + 4]
    method, target, version, headers = _parse_head(head)
    if headers.get("expect", "").lower() == "100-continue":
        channel.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    if "chunked" in headers.get("transfer-encoding", "").lower():
        body = _read_chunked(channel)
    else:
        body = _take(channel, _content_length(headers))
    parts = urlsplit(target) if "://" in target else urlsplit("http://host" + target)
    connection = headers.get("connection", "").lower()
    keep_alive = "close" not in connection and (version != "HTTP/1.0" or "keep" in connection)
    query = dict(parse_qsl(parts.query, keep_blank_values=True)) if parts.query else {}
    return RawRequest(method, parts.path, query, headers, body, keep_alive)


def _parse_head(head: str) -> tuple[str, str, str, dict[str, str]]:
    first, *lines = head.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest(400, "the request line is not HTTP/1.1")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest(400, "a header line has no colon")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return words[0].upper(), words[1], words[2], headers


def _content_length(headers: dict[str, str]) -> int:
    value = headers.get("content-length", "0")
    if not value.isdigit():
        raise BadRequest(400, "the Content-Length is not a number")
    return int(value)


def _take(channel: Channel, size: int) -> bytes:
    if size > MAX_BODY:
        raise BadRequest(413, "the request's body is too large")
    buffer = channel.received
    while len(buffer) < size:
        channel.receive()
    taken = bytes(buffer[:size])
    del buffer[:size]
    return taken


def _take_line(channel: Channel) -> bytes:
    buffer = channel.received
    while (end := buffer.find(b"\r\n")) < 0:
        if len(buffer) > MAX_HEAD:
            raise BadRequest(400, "a line of the chunked body is too long")
        channel.receive()
    return _take(channel, end + 2)[:-2]


def _read_chunked(channel: Channel) -> bytes:
    body = bytearray()
    while True:
        try:
            size = int(_take_line(channel).partition(b";")[0], 16)
        except ValueError:
            raise BadRequest(400, "the size of a chunk is not a number") from None
        if size == 0:
            break
        if size < 0 or len(body) + size > MAX_BODY:
            raise BadRequest(413, "the request's body is too large")
        body += _take(channel, size + 2)[:-2]
    while _take_line(channel):
        pass  # trailers
    return bytes(body)


def build_response(
    request: RecordedRequest, answer: Answer, wire: Wire, *, keep_alive: bool
) -> Response:
    """Puts an answer into the bytes of a response in the vendor's protocol."""
    if answer.blocked and answer.status == 200 and request.operation == "generate":
        answer = replace(answer, status=wire.blocked_status)
    is_stream = request.stream and request.operation == "generate" and answer.status < 400
    bodies = _bodies(request, answer, wire, is_stream=is_stream)
    if answer.gzip:
        bodies = list(_compressed(bodies))
    is_chunked = is_stream or answer.chunked
    has_body = answer.status >= 200 and answer.status not in (204, 304)
    keep_alive = keep_alive and not answer.close_connection

    headers = {"content-type": wire.stream_type(request) if is_stream else wire.json_type}
    if answer.content_type is not None:
        headers["content-type"] = answer.content_type
    if answer.request_id is not None and wire.request_id_header is not None:
        headers[wire.request_id_header] = answer.request_id
    if answer.gzip:
        headers["content-encoding"] = "gzip"
    if not has_body:
        bodies, is_chunked = [], False
    elif is_chunked:
        headers["transfer-encoding"] = "chunked"
    else:
        headers["content-length"] = str(sum(map(len, bodies)))
    if not keep_alive:
        headers["connection"] = "close"
    headers |= {name.lower(): value for name, value in answer.headers.items()}
    head = _head(answer.status, headers)
    if request.method == "HEAD":
        bodies, is_chunked = [], False
    return Response(head, _chunked(bodies) if is_chunked else bodies, keep_alive)


def _bodies(
    request: RecordedRequest, answer: Answer, wire: Wire, *, is_stream: bool
) -> list[bytes]:
    if isinstance(answer.body, str):
        return [answer.body.encode()]
    if answer.body is not None:
        return [answer.body]
    if answer.status >= 400:
        return [to_json(wire.error(answer))]
    if is_stream:
        return list(with_stream_faults(wire, request, answer, wire.events(request, answer)))
    return [to_json(wire.reply(request, answer))]


def _compressed(bodies: Iterable[bytes]) -> Iterator[bytes]:
    """Compresses so that each piece can be read on its own arrival."""
    compressor = zlib.compressobj(wbits=31)
    held = b""
    for body in bodies:
        if held:
            yield held
        held = compressor.compress(body) + compressor.flush(zlib.Z_SYNC_FLUSH)
    yield held + compressor.flush()


def _chunked(bodies: list[bytes]) -> list[bytes]:
    """One chunk of the transfer encoding for each piece; the last brings the end along."""
    framed = [b"%x\r\n%b\r\n" % (len(body), body) for body in bodies if body] or [b""]
    framed[-1] += b"0\r\n\r\n"
    return framed


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def send_response(channel: Channel, response: Response, answer: Answer) -> None:
    """Sends a response at the answer's pace and with its faults.

    Raises:
        ClientLeft: The client left before the response was complete.
        ConnectionCut: The answer's `cut_after` was reached.
    """
    if answer.delay:
        channel.pause(answer.delay)
    head, room = response.head, _room(answer)
    for index, piece in enumerate(response.pieces or [b""]):
        if index and answer.chunk_delay:
            channel.pause(answer.chunk_delay)
        data = head + piece if index == 0 else piece
        if room is not None and len(data) > room:
            _send_paced(channel, data[:room], answer.drip, is_first=index == 0)
            _stop(channel, answer)
        _send_paced(channel, data, answer.drip, is_first=index == 0)
        if room is not None:
            room -= len(data)


def _room(answer: Answer) -> int | None:
    """How many bytes of the response are sent; None: all."""
    limits = [size for size in (answer.stall_after, answer.cut_after) if size is not None]
    return min(limits, default=None)


def _send_paced(channel: Channel, data: bytes, drip: float | None, *, is_first: bool) -> None:
    if drip is None:
        channel.send(data)
        return
    for position in range(len(data)):
        if position or not is_first:
            channel.pause(drip)
        channel.send(data[position : position + 1])


def _stop(channel: Channel, answer: Answer) -> None:
    """Holds the response for good, or ends the connection in its midst."""
    if answer.stall_after is not None and answer.stall_after == _room(answer):
        channel.pause(None)
    channel.close(reset=answer.reset)
    raise ConnectionCut
