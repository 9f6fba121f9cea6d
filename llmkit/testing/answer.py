"""What a `ProviderServer` answers, said without any vendor's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

__all__ = ["Answer"]


@dataclass(frozen=True)
class Answer:
    """One scripted answer: what the model says, how it is sent, and what goes wrong on the way.

    Token counts are neutral, so that one `Answer` means the same to every vendor: `input_tokens`
    counts all that was read (tokens read from or written to a prompt cache are part of it),
    `output_tokens` all that was generated (reasoning is part of it). Each vendor's reply then
    counts in its own way: OpenAI gives these totals, Anthropic keeps cached tokens out of its
    `input_tokens`, Gemini keeps thoughts out of its `candidatesTokenCount`.

    Only `text` may be given by position. Durations are seconds, sizes are bytes.

    Raises:
        ValueError: A count, size or duration is negative, or a part is larger than its whole.
    """

    text: str = "Hello from the fake provider."
    """What the model says. Empty together with `tool_calls`: it only calls tools."""

    _: KW_ONLY

    chunks: Sequence[str] | None = None
    """The text as a stream splits it; takes the place of `text`. None: `text`, word by word."""

    finish_reason: str = "stop"
    """Why the model stopped: `stop`, `length`, `tool_calls` or `content_filter`, said in the
    vendor's words. Any other value is sent as it stands. With `tool_calls`, `stop` means
    `tool_calls`."""

    filter_category: str | None = None
    """Why a filter ended the answer (`finish_reason="content_filter"`) or refused the prompt
    (`blocked`), where the vendor says it. OpenAI: in `content_filter_results`, as Azure does, for
    OpenAI itself names none. Anthropic: `stop_details`. Gemini: `safetyRatings`. None: unsaid."""

    blocked: bool = False
    """The prompt is refused, in the vendor's own way, and nothing is answered. OpenAI: status 400
    with the code `content_filter`, as Azure does. Anthropic: an empty message with the stop reason
    `refusal`. Gemini: a `promptFeedback` without candidates."""

    refusal: bool = False
    """The text is a refusal by the model itself. OpenAI has a field for it, `message.refusal`; for
    the others it is a text like any other."""

    input_tokens: int = 7
    """All tokens read, cached ones included; also what the token-counting routes answer."""

    output_tokens: int | None = None
    """All tokens generated, reasoning included. None: the number of words, plus reasoning."""

    cached_tokens: int = 0
    """Tokens read from the vendor's prompt cache, a part of `input_tokens`."""

    cache_write_tokens: int = 0
    """Tokens written to the vendor's prompt cache, a part of `input_tokens`. Gemini's replies have
    no place for them."""

    reasoning_tokens: int = 0
    """Tokens spent on reasoning, a part of `output_tokens`."""

    tool_calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    """The tools that the model calls: name and arguments of each."""

    model: str | None = None
    """The model that the reply names. None: the one that was asked for."""

    status: int = 200
    """The HTTP status. From 400 on the body is the vendor's error body."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """Further response headers. They win over generated ones of the same name."""

    body: bytes | str | None = None
    """Sent word for word instead of a generated body. None: generate it."""

    content_type: str | None = None
    """The Content-Type header. None: what the vendor says."""

    error_code: str | None = None
    """An error's machine-readable code: OpenAI `code`, Anthropic `details.error_code`, Gemini the
    `reason` of an ErrorInfo. None: what goes with the status."""

    error_message: str | None = None
    """An error's text. None: a realistic one."""

    error_type: str | None = None
    """An error's class: OpenAI and Anthropic `type`, Gemini `status`. None: what goes with the
    HTTP status."""

    delay: float = 0.0
    """Seconds before the first byte."""

    chunk_delay: float = 0.0
    """Seconds between two events of a stream."""

    drip: float | None = None
    """Seconds between two bytes: head and body are sent one byte at a time. None: all at once."""

    stall_after: int | None = None
    """Send this many bytes of the response (its head counts), then nothing until the client
    leaves or the server closes. None: never. A response that is no longer arrives whole."""

    cut_after: int | None = None
    """Send this many bytes of the response (its head counts), then close the connection. None:
    never. A response that is no longer arrives whole."""

    reset: bool = False
    """With `cut_after`: close by a TCP reset (the client reads "connection reset by peer") instead
    of an orderly end."""

    end_mark: bool = True
    """False: a stream lacks the vendor's own end, though its HTTP response is complete. OpenAI: no
    chunk with a finish reason, no usage, no `[DONE]`. Anthropic: no `message_delta`, no
    `message_stop`. Gemini: no `finishReason`."""

    error_event_after: int | None = None
    """A stream ends with the vendor's error event after this many chunks of text; `error_code`,
    `error_type` and `error_message` shape it. None: no error."""

    malformed_after: int | None = None
    """A stream has one event that is not JSON after this many chunks of text. None: all are
    sound."""

    chunked: bool = False
    """Send a plain reply with `Transfer-Encoding: chunked`; a stream always is."""

    close_connection: bool = False
    """Say `Connection: close` and close after the answer."""

    gzip: bool = False
    """Compress the body, whatever the client says it accepts."""

    request_id: str | None = "req_fake"
    """Sent as `x-request-id` (OpenAI) or `request-id` (Anthropic); Gemini sends none. None: no such
    header."""

    def __post_init__(self) -> None:
        for name in _NEVER_NEGATIVE:
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"Answer: {name} must not be negative, got {value}")
        if self.cached_tokens + self.cache_write_tokens > self.input_tokens:
            raise ValueError(
                "Answer: cached_tokens and cache_write_tokens are parts of input_tokens "
                f"({self.cached_tokens} + {self.cache_write_tokens} > {self.input_tokens})"
            )
        if self.output_tokens is not None and self.reasoning_tokens > self.output_tokens:
            raise ValueError(
                "Answer: reasoning_tokens is a part of output_tokens "
                f"({self.reasoning_tokens} > {self.output_tokens})"
            )


_NEVER_NEGATIVE = (
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "delay",
    "chunk_delay",
    "drip",
    "stall_after",
    "cut_after",
    "error_event_after",
    "malformed_after",
)
