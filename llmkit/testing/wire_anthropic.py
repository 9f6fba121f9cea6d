"""Anthropic's wire protocol: messages, models, token counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from llmkit.testing.answer import Answer
from llmkit.testing.recorded_request import RecordedRequest
from llmkit.testing.wire import (
    Event,
    argument_pieces,
    chunks_of,
    finish_reason_of,
    output_tokens_of,
    text_of,
    to_json,
)

__all__ = ["AnthropicWire"]

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
# status: (type, message)
_ERRORS = {
    400: ("invalid_request_error", "messages: at least one message is required"),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low to access the Anthropic API."),
    403: ("permission_error", "Your API key does not have permission to use this resource."),
    404: ("not_found_error", "The requested resource could not be found."),
    409: ("conflict_error", "The request conflicts with the resource's state."),
    413: ("request_too_large", "Request exceeds the maximum size."),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
    500: ("api_error", "Internal server error"),
    504: ("timeout_error", "The request timed out."),
    529: ("overloaded_error", "Overloaded"),
}


class AnthropicWire:
    """Says an `Answer` as Anthropic's API does."""

    json_type = "application/json"
    malformed_event = b'event: content_block_delta\ndata: {"type":"content_block_del\n\n'
    request_id_header: str | None = "request-id"
    blocked_status = 200

    def reply(self, request: RecordedRequest, answer: Answer) -> dict[str, Any]:
        """The body of a plain answer to the request's operation."""
        match request.operation:
            case "models":
                model = _model(request, answer)
                name = model["id"]
                return {"data": [model], "has_more": False, "first_id": name, "last_id": name}
            case "model":
                return _model(request, answer)
            case "count_tokens":
                return {"input_tokens": answer.input_tokens}
            case _:
                return _message(request, answer)

    def stream_type(self, request: RecordedRequest) -> str:
        """The Content-Type of a stream."""
        return "text/event-stream; charset=utf-8"

    def events(self, request: RecordedRequest, answer: Answer) -> Iterator[Event]:
        """The events of a streamed message."""
        start = {
            **_message(request, answer),
            "content": [],
            "stop_reason": None,
            "stop_details": None,
            "usage": {**_usage(answer), "output_tokens": 1},
        }
        yield Event("start", _event("message_start", message=start))
        for index, block in enumerate(_content(request, answer)):
            yield from _block_events(index, block, answer)
        if answer.end_mark:
            delta = {
                "stop_reason": _stop_reason(answer),
                "stop_sequence": None,
                "stop_details": _stop_details(answer),
            }
            yield Event("end", _event("message_delta", delta=delta, usage=_delta_usage(answer)))
            yield Event("end", _event("message_stop"))

    def error(self, answer: Answer) -> dict[str, Any]:
        """The body of an answer whose status is 400 or more."""
        kind, message = _ERRORS.get(answer.status, _ERRORS[500 if answer.status >= 500 else 400])
        return _error(answer, kind, message)

    def error_event(self, request: RecordedRequest, answer: Answer) -> bytes:
        """The event that says inside a stream that it failed."""
        body = _error(answer, *_ERRORS[529])
        return b"event: error\ndata: %b\n\n" % to_json(body)


def _event(kind: str, **fields: object) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), to_json({"type": kind, **fields}))


def _error(answer: Answer, kind: str, message: str) -> dict[str, Any]:
    error: dict[str, Any] = {
        "type": answer.error_type or kind,
        "message": answer.error_message or message,
    }
    if answer.error_code is not None:
        error["details"] = {"error_code": answer.error_code}
    return {"type": "error", "error": error, "request_id": answer.request_id}


def _message(request: RecordedRequest, answer: Answer) -> dict[str, Any]:
    return {
        "id": f"msg_fake{request.number}",
        "type": "message",
        "role": "assistant",
        "model": answer.model or request.model,
        "content": _content(request, answer),
        "stop_reason": _stop_reason(answer),
        "stop_sequence": None,
        "stop_details": _stop_details(answer),
        "usage": _usage(answer),
    }


def _content(request: RecordedRequest, answer: Answer) -> list[dict[str, Any]]:
    if answer.blocked:
        return []
    text = text_of(answer)
    blocks: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    for index, (name, arguments) in enumerate(answer.tool_calls):
        tool_id = f"toolu_fake{request.number}_{index}"
        blocks.append({"type": "tool_use", "id": tool_id, "name": name, "input": dict(arguments)})
    return blocks


def _block_events(index: int, block: dict[str, Any], answer: Answer) -> Iterator[Event]:
    before: Literal["start", "tool"] = "tool" if index else "start"
    is_text = block["type"] == "text"
    empty = {**block, "text": ""} if is_text else {**block, "input": {}}
    yield Event(before, _event("content_block_start", index=index, content_block=empty))
    if index == 0:
        yield Event("start", _event("ping"))
    deltas = _text_deltas(answer) if is_text else _input_deltas(block)
    for delta in deltas:
        data = _event("content_block_delta", index=index, delta=delta)
        yield Event("text" if is_text else "tool", data)
    yield Event("tool", _event("content_block_stop", index=index))


def _text_deltas(answer: Answer) -> Iterator[dict[str, str]]:
    for text in chunks_of(answer):
        yield {"type": "text_delta", "text": text}


def _input_deltas(block: dict[str, Any]) -> Iterator[dict[str, str]]:
    for piece in ("", *argument_pieces(block["input"])):
        yield {"type": "input_json_delta", "partial_json": piece}


def _stop_reason(answer: Answer) -> str:
    reason = "content_filter" if answer.blocked else finish_reason_of(answer)
    return _STOP_REASONS.get(reason, reason)


def _stop_details(answer: Answer) -> dict[str, Any] | None:
    if _stop_reason(answer) != "refusal":
        return None
    return {"type": "refusal", "category": answer.filter_category, "explanation": None}


def _usage(answer: Answer) -> dict[str, Any]:
    written = answer.cache_write_tokens
    return {
        **_delta_usage(answer),
        "cache_creation": {
            "ephemeral_5m_input_tokens": written,
            "ephemeral_1h_input_tokens": 0,
        },
        "service_tier": "standard",
    }


def _delta_usage(answer: Answer) -> dict[str, Any]:
    cached, written = answer.cached_tokens, answer.cache_write_tokens
    usage: dict[str, Any] = {
        "input_tokens": answer.input_tokens - cached - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": cached,
        "output_tokens": output_tokens_of(answer),
    }
    if answer.reasoning_tokens:
        usage["output_tokens_details"] = {"thinking_tokens": answer.reasoning_tokens}
    return usage


def _model(request: RecordedRequest, answer: Answer) -> dict[str, Any]:
    name = answer.model or request.model or "fake-model"
    return {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": "2025-01-01T00:00:00Z",
        "lifecycle": "active",
    }
