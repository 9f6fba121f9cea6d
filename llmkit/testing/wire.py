"""What the three vendors' wire protocols share."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from llmkit.testing.answer import Answer
from llmkit.testing.recorded_request import RecordedRequest

__all__ = [
    "Event",
    "Wire",
    "argument_pieces",
    "chunks_of",
    "embedding",
    "finish_reason_of",
    "output_tokens_of",
    "text_of",
    "to_json",
    "with_stream_faults",
]

_WORDS = re.compile(r"\s*\S+|\s+\Z")
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class Event(NamedTuple):
    """One event of a stream, as the bytes of its line or lines."""

    kind: Literal["start", "text", "tool", "end"]
    data: bytes


class Wire(Protocol):
    """One vendor's protocol."""

    json_type: str
    malformed_event: bytes
    request_id_header: str | None
    blocked_status: int

    def reply(self, request: RecordedRequest, answer: Answer) -> dict[str, Any]:
        """The body of a plain answer to the request's operation."""

    def stream_type(self, request: RecordedRequest) -> str:
        """The Content-Type of a stream."""

    def events(self, request: RecordedRequest, answer: Answer) -> Iterator[Event]:
        """The events of a streamed answer, without faults."""

    def error(self, answer: Answer) -> dict[str, Any]:
        """The body of an answer whose status is 400 or more."""

    def error_event(self, request: RecordedRequest, answer: Answer) -> bytes:
        """The event that says inside a stream that it failed."""


def to_json(value: object) -> bytes:
    """Writes a value as compact JSON in UTF-8."""
    return _encode(value).encode()


def text_of(answer: Answer) -> str:
    """The whole text of an answer."""
    return answer.text if answer.chunks is None else "".join(answer.chunks)


def chunks_of(answer: Answer) -> Sequence[str]:
    """The text of an answer as a stream splits it."""
    return _WORDS.findall(answer.text) if answer.chunks is None else answer.chunks


def output_tokens_of(answer: Answer) -> int:
    """All generated tokens of an answer, reasoning included; none of a blocked one."""
    if answer.blocked:
        return 0
    if answer.output_tokens is not None:
        return answer.output_tokens
    return len(text_of(answer).split()) + answer.reasoning_tokens


def finish_reason_of(answer: Answer) -> str:
    """Why the model stopped; calling tools counts as a reason of its own."""
    if answer.tool_calls and answer.finish_reason == "stop":
        return "tool_calls"
    return answer.finish_reason


def argument_pieces(arguments: Mapping[str, Any]) -> tuple[str, str]:
    """A tool call's arguments as JSON text in two pieces, as a stream sends them."""
    text = _encode(dict(arguments))
    middle = len(text) // 2
    return text[:middle], text[middle:]


def embedding(text: str, dimensions: int | None = None) -> list[float]:
    """A vector of length 1 that depends only on the text; 8 numbers unless told otherwise."""
    wanted = dimensions or 8
    digest = hashlib.shake_128(text.encode("utf-8", "surrogatepass")).digest(wanted)
    values = [byte - 127.5 for byte in digest]
    length = math.sqrt(sum(value * value for value in values))
    return [value / length for value in values]


def with_stream_faults(
    wire: Wire, request: RecordedRequest, answer: Answer, events: Iterable[Event]
) -> Iterator[bytes]:
    """Puts the events into bytes, with the error and the broken event where the answer wants them.

    Both come after the wanted number of text chunks, or where the text ends when it has fewer.
    """
    error_after, malformed_after = answer.error_event_after, answer.malformed_after
    said = 0

    def is_due(after: int | None, kind: str) -> bool:
        return after is not None and kind != "start" and (said >= after or kind == "end")

    for kind, data in (*events, Event("end", b"")):
        if is_due(malformed_after, kind):
            malformed_after = None
            yield wire.malformed_event
        if is_due(error_after, kind):
            yield wire.error_event(request, answer)
            return
        said += kind == "text"
        if data:
            yield data
