"""Gemini's wire protocol: generateContent, embeddings, models, token counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llmkit.testing.answer import Answer
from llmkit.testing.recorded_request import RecordedRequest
from llmkit.testing.wire import (
    Event,
    chunks_of,
    embedding,
    finish_reason_of,
    output_tokens_of,
    text_of,
    to_json,
)

__all__ = ["GeminiWire"]

# Gemini has no word of its own for a stop because of a tool call.
_FINISH_REASONS = {
    "stop": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",
    "content_filter": "SAFETY",
}
# HTTP status: (status, message)
_ERRORS = {
    400: ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    401: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    403: ("PERMISSION_DENIED", "The caller does not have permission."),
    404: ("NOT_FOUND", "The model is not found or is not supported for generateContent."),
    409: ("ABORTED", "The operation was aborted."),
    429: ("RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota)."),
    499: ("CANCELLED", "The operation was cancelled."),
    500: ("INTERNAL", "An internal error has occurred."),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
    504: ("DEADLINE_EXCEEDED", "The service is unable to finish processing in time."),
}


class GeminiWire:
    """Says an `Answer` as the Gemini API does."""

    json_type = "application/json; charset=UTF-8"
    malformed_event = b'data: {"candidates": [{"content"\r\n\r\n'
    request_id_header: str | None = None
    blocked_status = 200

    def reply(self, request: RecordedRequest, answer: Answer) -> dict[str, Any]:
        """The body of a plain answer to the request's operation."""
        match request.operation:
            case "models":
                return {"models": [_model(request, answer)]}
            case "model":
                return _model(request, answer)
            case "count_tokens":
                return _token_count(answer)
            case "embed":
                return {"embedding": _embedding(request.json or {})}
            case "batch_embed":
                each = [_embedding(entry) for entry in (request.json or {}).get("requests", [])]
                return {"embeddings": each}
            case _:
                text = text_of(answer)
                parts = [{"text": text}] if text or not answer.tool_calls else []
                parts += _call_parts(request, answer)
                return _response(request, answer, parts, is_last=True)

    def stream_type(self, request: RecordedRequest) -> str:
        """The Content-Type of a stream."""
        return "text/event-stream" if _is_sse(request) else self.json_type

    def events(self, request: RecordedRequest, answer: Answer) -> Iterator[Event]:
        """The chunks of a streamed answer: SSE, or a JSON array when `alt=sse` wasn't asked."""
        is_sse = _is_sse(request)
        first = True

        def chunk(parts: list[dict[str, Any]], is_last: bool = False) -> bytes:
            nonlocal first
            payload = to_json(_response(request, answer, parts, is_last=is_last))
            framed = _framed(payload, is_sse=is_sse, is_first=first)
            first = False
            return framed

        if not answer.blocked:
            for text in chunks_of(answer):
                yield Event("text", chunk([{"text": text}]))
            if answer.tool_calls:
                yield Event("tool", chunk(_call_parts(request, answer)))
        if answer.end_mark:
            yield Event("end", chunk([{"text": ""}], is_last=True))
        if not is_sse:
            yield Event("end", b"[]" if first else b"]")

    def error(self, answer: Answer) -> dict[str, Any]:
        """The body of an answer whose status is 400 or more."""
        return _error(answer, answer.status)

    def error_event(self, request: RecordedRequest, answer: Answer) -> bytes:
        """The event that says inside a stream that it failed."""
        payload = to_json(_error(answer, 503))
        if _is_sse(request):
            return _framed(payload, is_sse=True, is_first=False)
        is_first = answer.error_event_after == 0 or not chunks_of(answer)
        return _framed(payload, is_sse=False, is_first=is_first) + b"]"


def _is_sse(request: RecordedRequest) -> bool:
    return request.query.get("alt") == "sse" or request.query.get("$alt") == "sse"


def _framed(payload: bytes, *, is_sse: bool, is_first: bool) -> bytes:
    if is_sse:
        return b"data: %b\r\n\r\n" % payload
    return (b"[" if is_first else b",\r\n") + payload


def _response(
    request: RecordedRequest, answer: Answer, parts: list[dict[str, Any]], *, is_last: bool
) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}}
    if is_last:
        reason = finish_reason_of(answer)
        candidate["finishReason"] = _FINISH_REASONS.get(reason, reason)
        if answer.filter_category is not None:
            candidate["safetyRatings"] = _ratings(answer)
    answered: dict[str, Any] = {"candidates": [{**candidate, "index": 0}]}
    if answer.blocked:
        answered = {"promptFeedback": {"blockReason": "SAFETY", "safetyRatings": _ratings(answer)}}
    return {
        **answered,
        "usageMetadata": _usage(answer, is_last=is_last),
        "modelVersion": answer.model or request.model,
        "responseId": f"fake{request.number}",
    }


def _ratings(answer: Answer) -> list[dict[str, Any]]:
    if answer.filter_category is None:
        return []
    return [{"category": answer.filter_category, "probability": "HIGH", "blocked": True}]


def _call_parts(request: RecordedRequest, answer: Answer) -> list[dict[str, Any]]:
    return [
        {"functionCall": {"name": name, "args": dict(arguments), "id": f"{request.number}_{index}"}}
        for index, (name, arguments) in enumerate(answer.tool_calls)
    ]


def _usage(answer: Answer, *, is_last: bool) -> dict[str, Any]:
    """The counts; those of the answer are known only in the last chunk of a stream."""
    usage: dict[str, Any] = {
        "promptTokenCount": answer.input_tokens,
        "totalTokenCount": answer.input_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": answer.input_tokens}],
    }
    if answer.cached_tokens:
        usage["cachedContentTokenCount"] = answer.cached_tokens
        usage["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": answer.cached_tokens}]
    if is_last:
        output_tokens = output_tokens_of(answer)
        usage["candidatesTokenCount"] = output_tokens - answer.reasoning_tokens
        usage["totalTokenCount"] += output_tokens
        if answer.reasoning_tokens:
            usage["thoughtsTokenCount"] = answer.reasoning_tokens
    return usage


def _error(answer: Answer, code: int) -> dict[str, Any]:
    status, message = _ERRORS.get(code, _ERRORS[500 if code >= 500 else 400])
    details: list[dict[str, Any]] = []
    if answer.error_code is not None:
        details.append(
            {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": answer.error_code,
                "domain": "googleapis.com",
                "metadata": {"service": "generativelanguage.googleapis.com"},
            }
        )
    headers = {name.lower(): value for name, value in answer.headers.items()}
    if headers.get("retry-after", "").isdigit():
        wait = headers["retry-after"]
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        details.append({"@type": kind, "retryDelay": f"{wait}s"})
    error = {
        "code": code,
        "message": answer.error_message or message,
        "status": answer.error_type or status,
        "details": details,
    }
    return {"error": error}


def _token_count(answer: Answer) -> dict[str, Any]:
    count: dict[str, Any] = {
        "totalTokens": answer.input_tokens,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": answer.input_tokens}],
    }
    if answer.cached_tokens:
        count["cachedContentTokenCount"] = answer.cached_tokens
    return count


def _embedding(entry: dict[str, Any]) -> dict[str, Any]:
    parts = (entry.get("content") or {}).get("parts") or []
    text = "".join(part.get("text", "") for part in parts)
    config = entry.get("embedContentConfig") or {}
    dimensions = entry.get("outputDimensionality") or config.get("outputDimensionality")
    return {"values": embedding(text, dimensions)}


def _model(request: RecordedRequest, answer: Answer) -> dict[str, Any]:
    name = answer.model or request.model or "fake-model"
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name,
        "inputTokenLimit": 1048576,
        "outputTokenLimit": 65536,
        "supportedGenerationMethods": ["generateContent", "countTokens", "embedContent"],
    }
