"""Anthropic's Messages API, by the SDK anthropic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmkit.adapters.base import Key
from llmkit.adapters.custom_request import CustomRequestAdapter
from llmkit.adapters.error_table import ANTHROPIC_CLASSES
from llmkit.adapters.wire import (
    drain,
    end_mark_missing,
    read_arguments,
    read_event,
    readable,
    sse_events,
)
from llmkit.errors import ConfigurationError
from llmkit.request import Image, Message, Request
from llmkit.streams import ChunkSource
from llmkit.types import Chunk, Completion, FinishReason, ToolCall, Usage

if TYPE_CHECKING:
    import anthropic
    import httpx2

__all__ = ["AnthropicAdapter"]

BASE_URL = "https://api.anthropic.com"

# Sent where neither the call nor the registry knows an answer's longest length: the vendor insists
# on one, and every model since Claude 3.5 can write so much.
FALLBACK_MAX_TOKENS = 8192

_FINISH: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class AnthropicAdapter(CustomRequestAdapter):
    """A Claude model.

    Args:
        model: The model's bare name.
        provider: "anthropic".
        api_key: See `BaseLLMAdapter`; likewise the other arguments.
        api_base: The address, with or without `/v1` at its end.
        **kwargs: The other arguments of `BaseLLMAdapter`.
    """

    error_classes = ANTHROPIC_CLASSES
    path = "/v1/messages"
    ping_path = "/v1/models?limit=1"

    def __init__(
        self,
        model: str,
        provider: str = "anthropic",
        api_key: Key = None,
        api_base: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, provider, api_key, api_base, **kwargs)

    @property
    def base_url(self) -> str:
        """The address that is asked; the SDK adds `/v1` itself."""
        base = self.api_base or self.settings.anthropic_api_base or BASE_URL
        return base.rstrip("/").removesuffix("/v1")

    def _prepare(self) -> None:
        _import_sdk()
        self._resolve_key("ANTHROPIC_API_KEY", required=True)

    def _client(self) -> anthropic.Anthropic:
        key = self._resolve_key("ANTHROPIC_API_KEY", required=True)
        base_url = self.base_url

        def build(pool: httpx2.Client) -> anthropic.Anthropic:
            client: anthropic.Anthropic = _import_sdk().Anthropic(
                api_key=key,
                base_url=base_url,
                http_client=pool,
                max_retries=0,
                timeout=None,
                open_telemetry=False,
            )
            # The constructor fills them from the environment, whatever it is given; the Request
            # is to be all there is.
            client._custom_headers = {}
            return client

        return self._sdk_client(base_url, key, build)

    def _body(self, request: Request, stream: bool) -> dict[str, Any]:
        limit = request.max_tokens or self.info.max_output_tokens or FALLBACK_MAX_TOKENS
        body: dict[str, Any] = {
            "model": request.model,
            "max_tokens": limit,
            "messages": [_say_message(message) for message in request.turns],
        }
        for name, value in (
            ("system", request.system_text or None),
            ("temperature", request.temperature),
            ("top_p", request.top_p),
            ("stop_sequences", list(request.stop) or None),
            ("stream", stream or None),
        ):
            if value is not None:
                body[name] = value
        if request.reasoning_effort is not None:
            body["output_config"] = {"effort": request.reasoning_effort}
        body.update(request.vendor_parameters)
        body.update(request.extra_body)
        return body

    def _read_reply(self, raw: dict[str, Any], headers: Mapping[str, str]) -> Completion:
        blocks = raw["content"]
        return self._completion(
            raw=raw,
            texts=[_text_of(block["text"]) for block in blocks if block["type"] == "text"],
            calls=tuple(
                ToolCall(block["id"], block["name"], dict(block["input"]))
                for block in blocks
                if block["type"] == "tool_use"
            ),
            usage=raw.get("usage") or {},
            finish=raw.get("stop_reason"),
            headers=headers,
        )

    def _read_stream(self, response: httpx2.Response) -> ChunkSource:
        answer = _StreamedAnswer()
        events = sse_events(response.iter_bytes())
        for _, data in events:
            event = read_event(data)
            if event.get("type") == "error":
                raise self._event_error(event)
            with readable():
                text = answer.add(event)
            if text:
                yield Chunk(text)
            if event.get("type") == "message_stop":
                break
        else:
            raise end_mark_missing("message_stop")
        drain(events)
        with readable():
            return self._completion(
                raw=answer.raw,
                texts=answer.texts,
                calls=answer.tool_calls(),
                usage=answer.usage,
                finish=answer.raw.get("stop_reason"),
                headers=response.headers,
            )

    def _completion(
        self,
        *,
        raw: dict[str, Any],
        texts: list[str],
        calls: tuple[ToolCall, ...],
        usage: Mapping[str, Any],
        finish: str | None,
        headers: Mapping[str, str],
    ) -> Completion:
        warnings: tuple[str, ...] = ()
        if finish == "refusal":
            category = (raw.get("stop_details") or {}).get("category")
            warnings = (f"the model refused to answer{f' ({category})' if category else ''}",)
        elif finish not in _FINISH:
            warnings = (f"the vendor's stop reason is {finish!r}",)
        return Completion(
            text="".join(texts),
            model=self.model,
            provider=self.provider,
            finish_reason=_FINISH.get(finish or ""),
            usage=_read_usage(usage),
            tool_calls=calls,
            warnings=warnings,
            request_id=headers.get("request-id"),
            raw=raw,
        )


class _StreamedAnswer:
    """What a stream's events add up to."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.raw: dict[str, Any] = {}
        self.usage: dict[str, Any] = {}
        self._calls: dict[int, dict[str, str]] = {}

    def add(self, event: Mapping[str, Any]) -> str:
        """Takes one event and returns the text in it."""
        kind = event["type"]
        if kind == "content_block_delta":
            delta = event["delta"]
            if delta["type"] == "text_delta":
                text = _text_of(delta["text"])
                if text:
                    self.texts.append(text)
                return text
            if delta["type"] == "input_json_delta":
                self._calls[event["index"]]["arguments"] += delta["partial_json"]
        elif kind == "content_block_start":
            block = event["content_block"]
            if block["type"] == "tool_use":
                self._calls[event["index"]] = {
                    "id": block["id"],
                    "name": block["name"],
                    "arguments": "",
                }
        elif kind == "message_start":
            self.raw.update(event["message"])
            self.usage.update(event["message"].get("usage") or {})
        elif kind == "message_delta":
            self.raw.update(event["delta"])
            # Only what is said anew: the closing figures need not repeat the input's.
            closing = event.get("usage") or {}
            self.usage.update({key: value for key, value in closing.items() if value is not None})
        return ""

    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(
            read_arguments(call["id"], call["name"], call["arguments"])
            for _, call in sorted(self._calls.items())
        )


def _text_of(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"text is {type(text).__name__}")
    return text


def _say_message(message: Message) -> dict[str, Any]:
    if isinstance(message.content, str):
        return {"role": message.role, "content": message.content}
    return {"role": message.role, "content": [_say_part(part) for part in message.content]}


def _say_part(part: str | Image) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if part.url is not None:
        return {"type": "image", "source": {"type": "url", "url": part.url}}
    source = {"type": "base64", "media_type": part.media_type, "data": part.data}
    return {"type": "image", "source": source}


def _read_usage(usage: Mapping[str, Any]) -> Usage:
    """Reads the tokens; Anthropic counts cached ones beside the input, not inside it."""
    fresh = usage.get("input_tokens")
    read = usage.get("cache_read_input_tokens")
    written = usage.get("cache_creation_input_tokens")
    thinking = (usage.get("output_tokens_details") or {}).get("thinking_tokens")
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=usage.get("output_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=thinking,
    )


def _import_sdk() -> Any:
    try:
        import anthropic
    except ImportError as error:
        raise ConfigurationError(
            'the official SDK is missing: pip install "llmkit[anthropic]"'
        ) from error
    return anthropic
