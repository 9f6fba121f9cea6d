"""Reading what comes over the wire: JSON replies and server-sent events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llmkit.adapters.sdk_clients import without_keys
from llmkit.errors import ProviderError
from llmkit.log import get_logger
from llmkit.scope import CallInterrupted, Scope
from llmkit.tokenizer import TokenCount
from llmkit.types import ToolCall

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "ToolCallParts",
    "check_stream_type",
    "count_of",
    "drain",
    "end_mark_missing",
    "lay_over",
    "read_arguments",
    "read_count",
    "read_event",
    "read_instead_of_stream",
    "read_json",
    "read_part",
    "readable",
    "sse_events",
    "text_of",
]

# Seconds that a finished stream may take to end its HTTP message, so that its connection can be
# used again; the message's end normally comes in the same packet.
DRAIN_TIME = 0.05

# Tokens of one reply. More is nonsense, which would empty budgets and hold up rate limits for good.
MOST_TOKENS = 10**12

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


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
    return _read_object(body, "the reply")


def read_instead_of_stream(response: httpx2.Response) -> dict[str, Any] | None:
    """Makes sure that a reply is a stream of events, or reads the JSON that came instead.

    Args:
        response: The reply, whose body has not been read. The pool limits how large it may be.

    Returns:
        None for a stream of events, which can be read now; else the JSON object, an error or the
        whole answer.

    Raises:
        ProviderError: It is neither.
    """
    content_type = response.headers.get("content-type", "")
    try:
        if "json" in content_type.lower():
            return read_json(response.read(), content_type)
        check_stream_type(content_type)
    except BaseException:  # Ctrl-C and a cut included: nobody else has the reply to close it
        response.close()
        raise
    return None


def check_stream_type(content_type: str) -> None:
    """Makes sure that a reply's type is that of a stream of events.

    Args:
        content_type: What the reply says that it is; "" when it doesn't.

    Raises:
        ProviderError: It is something else.
    """
    if content_type and "text/event-stream" not in content_type.lower():
        raise ProviderError(f"the reply is {content_type}, not a stream of events")


def sse_events(parts: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Cuts a body into server-sent events.

    Args:
        parts: The body, in pieces of any size.

    Yields:
        For each event its name (b"" when it has none) and its data. An event that is cut off at
        the end of the body is left out.
    """
    name = b""
    data: list[bytes] = []
    for line in _lines(parts):
        if line.startswith(b"data:"):
            data.append(line[5:].strip())
        elif line.startswith(b"event:"):
            name = line[6:].strip()
        elif not line.strip():
            if data:
                yield name, b"\n".join(data)
            name, data = b"", []


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Cuts a body into its complete lines, in time linear in its length."""
    rest: list[bytes] = []
    is_first = True
    for part in parts:
        rest.append(part)
        if b"\n" in part:
            *lines, last = b"".join(rest).split(b"\n")
            rest = [last]
            if is_first:  # a mark may stand before the first event, which would be lost with it
                is_first, lines[0] = False, lines[0].removeprefix(_BYTE_ORDER_MARK)
            yield from lines


def read_event(data: bytes) -> dict[str, Any]:
    """Reads one event's JSON object.

    Raises:
        ProviderError: It is something else.
    """
    return _read_object(data, "an event of the stream")


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
    """Returns the error for a stream whose body ended before the vendor's own end mark.

    Args:
        mark: What is missing, in words.
    """
    return ProviderError(f"the stream ended without {mark}: the answer is cut off")


# What reading a field raises that is missing or of another type, and, the last, reading JSON that
# is nested beyond reason.
_UNREADABLE = (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError)


def _unreadable(error: Exception, billed: object) -> ProviderError:
    return ProviderError(
        f"the reply does not have the expected form ({type(error).__name__}: {error})",
        retryable=False if billed else None,
    )


def read_part(add: Callable[[Mapping[str, Any]], str], event: dict[str, Any], usage: str) -> str:
    """Adds one event of a stream to an answer: `readable`, without its cost for each chunk.

    Args:
        add: Takes the event and returns the text in it.
        event: The event.
        usage: The name under which an event counts tokens; one that does came whole.

    Returns:
        The text in it.

    Raises:
        ProviderError: A field of the event is missing or mistyped.
    """
    try:
        return add(event)
    except _UNREADABLE as error:
        raise _unreadable(error, event.get(usage)) from error


@contextmanager
def readable(*, billed: object = None) -> Iterator[None]:
    """Turns a missing or mistyped field of a reply into a `ProviderError`.

    Args:
        billed: True, or the tokens that the reply counts, when it came whole: the vendor has done
            its work, and each further try would be billed for what may well be the same.
    """
    try:
        yield
    except _UNREADABLE as error:
        raise _unreadable(error, billed) from error


def text_of(value: object) -> str:
    """Returns a field that is a text, "" for one that is null or missing.

    Raises:
        TypeError: It is something else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {type(value).__name__}")
    return value


def count_of(counts: Mapping[str, Any], name: str) -> int | None:
    """Returns a number of tokens; None when the vendor does not say, or says nonsense.

    Raises:
        TypeError: It is not a number.
    """
    value = counts.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(f"{name} is {type(value).__name__}")
    return value if value is not None and 0 <= value <= MOST_TOKENS else None


def read_count(reply: Mapping[str, Any], name: str) -> TokenCount:
    """Reads the vendor's own count of a prompt's tokens.

    Raises:
        ProviderError: There is none.
    """
    with readable():
        tokens = count_of(reply, name)
        if tokens is None:
            raise KeyError(name)
        return TokenCount(tokens, estimated=False)


def lay_over(body: dict[str, Any], fields: Mapping[str, Any]) -> None:
    """Puts fields into a request's JSON.

    Args:
        body: The JSON, which is changed.
        fields: What goes in, in place of fields of the same names; but an object is laid over an
            object, field by field.
    """
    for name, value in fields.items():
        below = body.get(name)
        if isinstance(below, dict) and isinstance(value, Mapping):
            body[name] = dict(below)
            lay_over(body[name], value)
        else:
            body[name] = value


class ToolCallParts:
    """Tool calls that arrive in pieces, each call under a number of its own."""

    def __init__(self) -> None:
        self._calls: dict[int, tuple[str | None, str, list[str]]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def start(self, index: int, call_id: str | None, name: str | None) -> None:
        """Notes a call's id and name; a later piece may say what an earlier one left out."""
        known_id, known_name, arguments = self._calls.get(index, (None, "", []))
        self._calls[index] = (call_id or known_id, name or known_name, arguments)

    def add(self, index: int, arguments: str | None) -> None:
        """Adds a piece of a call's arguments; of a call that never started it is ignored."""
        if index in self._calls:
            self._calls[index][2].append(text_of(arguments))

    def finished(self) -> tuple[ToolCall, ...]:
        """Returns the whole calls."""
        return tuple(
            read_arguments(call_id, name, "".join(arguments))
            for _, (call_id, name, arguments) in sorted(self._calls.items())
        )


def read_arguments(call_id: str | None, name: str, text: str | None) -> ToolCall:
    """Reads a tool call whose arguments are JSON in a text."""
    try:
        arguments = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        arguments = {"_text": text}
    return ToolCall(id=text_of(call_id), name=text_of(name), arguments=arguments)


def _read_object(body: bytes | str, what: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ProviderError(f"{what} is not JSON ({error}): {_excerpt(body)}") from error
    if not isinstance(document, dict):
        raise ProviderError(f"{what} is not a JSON object: {_excerpt(body)}")
    return document


def _excerpt(body: bytes | str) -> str:
    # More than is shown, so that no key is cut in half before it is recognised.
    start = body[:2000]
    text = start.decode(errors="replace") if isinstance(start, bytes) else start
    return repr(without_keys(text)[:120])
