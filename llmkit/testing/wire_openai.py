"""OpenAI's wire protocol: chat completions, embeddings, models, token counts."""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Iterator
from typing import Any

from llmkit.testing.answer import Answer
from llmkit.testing.recorded_request import RecordedRequest
from llmkit.testing.wire import (
    Event,
    argument_pieces,
    chunks_of,
    embedding,
    finish_reason_of,
    output_tokens_of,
    text_of,
    to_json,
)

__all__ = ["OpenAIWire"]

# status: (type, code, message)
_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "Invalid request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Not permitted."),
    404: (
        "invalid_request_error",
        "model_not_found",
        "The model does not exist or you do not have access to it.",
    ),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    500: ("server_error", None, "The server had an error while processing your request."),
    503: ("service_unavailable_error", "server_overloaded", "The server is overloaded."),
}
# code: (type, parameter, message)
_CODES: dict[str, tuple[str, str | None, str]] = {
    "insufficient_quota": (
        "insufficient_quota",
        None,
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "context_length_exceeded": (
        "invalid_request_error",
        "messages",
        "This model's maximum context length is 8192 tokens. However, your messages resulted in "
        "9001 tokens. Please reduce the length of the messages.",
    ),
    "unsupported_parameter": ("invalid_request_error", None, "Unsupported parameter."),
    "content_filter": (
        "invalid_request_error",
        "prompt",
        "The response was filtered due to the prompt triggering a content management policy.",
    ),
    "content_policy_violation": (
        "invalid_request_error",
        None,
        "Your request was rejected as a result of our safety system.",
    ),
}


class OpenAIWire:
    """Says an `Answer` as OpenAI's API does."""

    json_type = "application/json"
    malformed_event = b'data: {"id":"chatcmpl-fake","object":"chat.compl\n\n'
    request_id_header: str | None = "x-request-id"
    blocked_status = 400

    def reply(self, request: RecordedRequest, answer: Answer) -> dict[str, Any]:
        """The body of a plain answer to the request's operation."""
        match request.operation:
            case "embed":
                return _embeddings(request, answer)
            case "models":
                return {"object": "list", "data": [_model(request, answer)]}
            case "model":
                return _model(request, answer)
            case "count_tokens":
                return {"object": "response.input_tokens", "input_tokens": answer.input_tokens}
            case _:
                return _completion(request, answer)

    def stream_type(self, request: RecordedRequest) -> str:
        """The Content-Type of a stream."""
        return "text/event-stream; charset=utf-8"

    def events(self, request: RecordedRequest, answer: Answer) -> Iterator[Event]:
        """The chunks of a streamed chat completion."""
        wants_usage = bool((request.json.get("stream_options") or {}).get("include_usage"))
        base = _envelope(request, answer, "chat.completion.chunk")

        def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
            choice = {
                "index": 0,
                "delta": delta,
                "logprobs": None,
                "finish_reason": finish_reason,
                **(_filter_results(answer) if finish_reason else {}),
            }
            usage = {"usage": None} if wants_usage else {}
            return _event({**base, "choices": [choice], **usage})

        yield Event("start", chunk({"role": "assistant", "content": "", "refusal": None}))
        for text in chunks_of(answer):
            yield Event("text", chunk({"refusal" if answer.refusal else "content": text}))
        for index, call in enumerate(_tool_calls(request, answer)):
            function = {"name": call["function"]["name"], "arguments": ""}
            yield Event(
                "tool",
                chunk({"tool_calls": [{"index": index, **call, "function": function}]}),
            )
            for piece in argument_pieces(answer.tool_calls[index][1]):
                delta = {"index": index, "function": {"arguments": piece}}
                yield Event("tool", chunk({"tool_calls": [delta]}))
        if answer.end_mark:
            yield Event("end", chunk({}, finish_reason_of(answer)))
            if wants_usage:
                yield Event("end", _event({**base, "choices": [], "usage": _usage(answer)}))
            yield Event("end", b"data: [DONE]\n\n")

    def error(self, answer: Answer) -> dict[str, Any]:
        """The body of an answer whose status is 400 or more."""
        fallback = 500 if answer.status >= 500 else 400
        kind, code, message = _ERRORS.get(answer.status, _ERRORS[fallback])
        parameter = None
        if answer.error_code is not None or answer.blocked:
            code = answer.error_code or "content_filter"
            kind, parameter, message = _CODES.get(code, (kind, None, message))
        error: dict[str, Any] = {
            "message": answer.error_message or message,
            "type": answer.error_type or kind,
            "param": parameter,
            "code": code,
        }
        if answer.blocked:
            code = "ResponsibleAIPolicyViolation"
            error["innererror"] = {"code": code, "content_filter_result": _verdicts(answer)}
        return {"error": error}

    def error_event(self, request: RecordedRequest, answer: Answer) -> bytes:
        """The event that says inside a stream that it failed."""
        error = {
            "message": answer.error_message or _ERRORS[500][2],
            "type": answer.error_type or "server_error",
            "param": None,
            "code": answer.error_code,
        }
        return _event({"error": error})


def _event(payload: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % to_json(payload)


def _verdicts(answer: Answer) -> dict[str, Any]:
    """Azure's verdicts: one category that let the content pass, and the answer's that did not."""
    verdicts = {"self_harm": {"filtered": False, "severity": "safe"}}
    if answer.filter_category is not None:
        verdicts[answer.filter_category] = {"filtered": True, "severity": "high"}
    return verdicts


def _filter_results(answer: Answer) -> dict[str, Any]:
    if answer.filter_category is None:
        return {}
    return {"content_filter_results": _verdicts(answer)}


def _envelope(request: RecordedRequest, answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-fake{request.number}",
        "object": kind,
        "created": int(time.time()),
        "model": answer.model or request.model,
        "service_tier": "default",
        "system_fingerprint": None,
    }


def _completion(request: RecordedRequest, answer: Answer) -> dict[str, Any]:
    text = text_of(answer)
    message: dict[str, Any] = {
        "role": "assistant",
        "content": None if answer.refusal or (answer.tool_calls and not text) else text,
        "refusal": text if answer.refusal else None,
        "annotations": [],
    }
    if answer.tool_calls:
        message["tool_calls"] = _tool_calls(request, answer)
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason_of(answer),
        **_filter_results(answer),
    }
    base = _envelope(request, answer, "chat.completion")
    return {**base, "choices": [choice], "usage": _usage(answer)}


def _tool_calls(request: RecordedRequest, answer: Answer) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_fake{request.number}_{index}",
            "type": "function",
            "function": {"name": name, "arguments": "".join(argument_pieces(arguments))},
        }
        for index, (name, arguments) in enumerate(answer.tool_calls)
    ]


def _usage(answer: Answer) -> dict[str, Any]:
    output_tokens = output_tokens_of(answer)
    prompt_details = {"cached_tokens": answer.cached_tokens, "audio_tokens": 0}
    if answer.cache_write_tokens:
        prompt_details["cache_write_tokens"] = answer.cache_write_tokens
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": answer.input_tokens + output_tokens,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {
            "reasoning_tokens": answer.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _model(request: RecordedRequest, answer: Answer) -> dict[str, Any]:
    name = answer.model or request.model or "fake-model"
    return {"id": name, "object": "model", "created": 1735689600, "owned_by": "system"}


def _embeddings(request: RecordedRequest, answer: Answer) -> dict[str, Any]:
    inputs = request.json.get("input", "")
    # A string is one input, and so is one list of token ids.
    if isinstance(inputs, str) or (inputs and isinstance(inputs[0], int)):
        inputs = [inputs]
    in_base64 = request.json.get("encoding_format") == "base64"
    data = []
    for index, value in enumerate(inputs):
        vector = embedding(str(value), request.json.get("dimensions"))
        packed = struct.pack(f"<{len(vector)}f", *vector)
        coded = base64.b64encode(packed).decode() if in_base64 else vector
        data.append({"object": "embedding", "index": index, "embedding": coded})
    usage = {"prompt_tokens": answer.input_tokens, "total_tokens": answer.input_tokens}
    model = answer.model or request.model
    return {"object": "list", "data": data, "model": model, "usage": usage}
