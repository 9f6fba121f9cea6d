"""Reading what comes over the wire: JSON replies and server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmkit.errors import ProviderError
from llmkit.log import get_logger, redact
from llmkit.scope import CallInterrupted, Scope
from llmkit.types import ToolCall

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "check_event_stream",
    "drain",
    "end_mark_missing",
    "read_arguments",
    "read_event",
    "read_json",
    "readable",
    "sse_events",
]

# Seconds that a finished stream may take to end its HTTP message, so that its connection can be
# used again; the message's end normally comes in the same packet.
DRAIN_TIME = 0.05


def read_json(body: bytes | str, content_type: str) -> dict[str, Any]:
    """Reads a reply's JSON object.

    Args:
        body: The whole body.
        content_type: What the reply says that it is; "" when it doesn't.

    Returns:
        The object.

    Raises:
        ProviderError: It is something else.
    """
    if content_type and "json" not in content_type.lower():
        raise ProviderError(f"the reply is {content_type}, not JSON: {_excerpt(body)}")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProviderError(f"the reply is not JSON ({error}): {_excerpt(body)}") from error
    if not isinstance(document, dict):
        raise ProviderError(f"the reply is not a JSON object: {_excerpt(body)}")
    return document


def check_event_stream(response: httpx2.Response) -> None:
    """Makes sure that a reply is a stream of events.

    Raises:
        ProviderError: It says that it is something else.
    """
    content_type = response.headers.get("content-type", "")
    if content_type and "text/event-stream" not in content_type.lower():
        response.close()
        raise ProviderError(f"the reply is {content_type}, not a stream of events")


def sse_events(parts: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Cuts a body into server-sent events.

    Args:
        parts: The body, in pieces of any size.

    Yields:
        For each event its name (b"" when it has none) and its data. An event that is cut off at
        the end of the body is left out.
    """
    rest = b""
    name = b""
    data: list[bytes] = []
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].strip())
            elif line.startswith(b"event:"):
                name = line[6:].strip()
            elif not line.strip():
                if data:
                    yield name, b"\n".join(data)
                name, data = b"", []


def read_event(data: bytes) -> dict[str, Any]:
    """Reads one event's JSON object.

    Raises:
        ProviderError: It is something else.
    """
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProviderError(f"an event of the stream is not JSON: {_excerpt(data)}") from error
    if not isinstance(event, dict):
        raise ProviderError(f"an event of the stream is not a JSON object: {_excerpt(data)}")
    return event


def drain(events: Iterator[object]) -> None:
    """Reads a finished stream's HTTP message to its end, so that its connection serves again.

    Gives up after `DRAIN_TIME`, or when anything goes wrong: the answer is complete already, and
    only the connection is lost.
    """
    try:
        with Scope(DRAIN_TIME).entered():
            for _ in events:
                pass
    except (CallInterrupted, Exception) as error:
        get_logger("adapters").debug("a finished stream did not end its reply: %r", error)


def end_mark_missing(mark: str) -> ProviderError:
    """Returns the error for a stream whose body ended before the vendor's own end mark."""
    return ProviderError(f"the stream ended without {mark}: the answer is cut off")


@contextmanager
def readable() -> Iterator[None]:
    """Turns a missing or mistyped field of a reply into a `ProviderError`."""
    try:
        yield
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ProviderError(
            f"the reply does not have the expected form ({type(error).__name__}: {error})"
        ) from error


def read_arguments(call_id: str | None, name: str, text: str | None) -> ToolCall:
    """Reads a tool call whose arguments are JSON in a text."""
    try:
        arguments = json.loads(text) if text else {}
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        arguments = {"_text": text}
    return ToolCall(id=call_id or "", name=name, arguments=arguments)


def _excerpt(body: bytes | str) -> str:
    text = body[:120].decode(errors="replace") if isinstance(body, bytes) else body[:120]
    return repr(redact(text))
