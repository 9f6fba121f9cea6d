"""Anthropic's Messages API, by the SDK anthropic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from llmkit.adapters.base import Key
from llmkit.adapters.content_filters import as_mapping
from llmkit.adapters.custom_request import CustomRequestAdapter
from llmkit.adapters.error_table import ANTHROPIC_CLASSES
from llmkit.adapters.wire import ToolCallParts, count_of, text_of
from llmkit.request import Image, Message, Request
from llmkit.tokenizer import TokenCount
from llmkit.types import Completion, ToolCall, Usage

if TYPE_CHECKING:
    import anthropic
    import httpx2

__all__ = ["AnthropicAdapter"]

BASE_URL = "https://api.anthropic.com"

# Sent where neither the call nor the registry knows an answer's longest length: the vendor insists
# on one, and every model since Claude 3.5 can write so much.
FALLBACK_MAX_TOKENS = 8192


class AnthropicAdapter(CustomRequestAdapter):
    """A Claude model.

    Args:
        model: The model's bare name.
        provider: "anthropic".
        api_key: See `BaseLLMAdapter`; likewise the other arguments.
        api_base: The address, with or without `/v1` at its end.
        **kwargs: The other arguments of `BaseLLMAdapter`.
    """

    sdk_module = "anthropic"
    extra = "anthropic"
    error_classes = ANTHROPIC_CLASSES
    finish_words: ClassVar = {
        "end_turn": "stop",
        "stop_sequence": "stop",
        "max_tokens": "length",
        "model_context_window_exceeded": "length",
        "tool_use": "tool_calls",
        "refusal": "content_filter",
    }
    never_takes = frozenset({"seed"})
    key_variable = "ANTHROPIC_API_KEY"
    path = "/v1/messages"
    ping_path = "/v1/models?limit=1"
    end_mark = "message_stop"

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
    def address(self) -> str:
        """Where the model is asked."""
        return self.base_url

    @property
    def base_url(self) -> str:
        """The address that is asked; the SDK adds `/v1` itself."""
        base = self.api_base or self.settings.anthropic_api_base or BASE_URL
        return base.rstrip("/").removesuffix("/v1")

    def _client(self) -> anthropic.Anthropic:
        base_url = self.base_url

        def build(key: str, pool: httpx2.Client) -> anthropic.Anthropic:
            client: anthropic.Anthropic = self._import_sdk().Anthropic(
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

        return self._sdk_client(base_url, build)

    def _say_request(self, request: Request, *, stream: bool) -> dict[str, Any]:
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
        return body

    def _count_exactly(self, request: Request) -> TokenCount:
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [_say_message(message) for message in request.turns],
        }
        if request.system_text:
            body["system"] = request.system_text
        return self._post_for_count(f"{self.path}/count_tokens", body)

    def _read_reply(self, raw: dict[str, Any], headers: Mapping[str, str]) -> Completion:
        blocks = raw["content"]
        return self._put_together(
            raw,
            [text_of(block["text"]) for block in blocks if block["type"] == "text"],
            raw.get("usage") or {},
            tuple(
                ToolCall(text_of(block["id"]), text_of(block["name"]), dict(block["input"]))
                for block in blocks
                if block["type"] == "tool_use"
            ),
            headers,
        )

    def _begin_answer(self) -> _Answer:
        return _Answer(self)

    def _put_together(
        self,
        raw: dict[str, Any],
        texts: list[str],
        usage: Mapping[str, Any],
        calls: tuple[ToolCall, ...],
        headers: Mapping[str, str],
    ) -> Completion:
        details = as_mapping(raw.get("stop_details"))
        category, explanation = details.get("category"), details.get("explanation")
        is_refused = raw.get("stop_reason") == "refusal"
        return self._completion(
            text="".join(texts),
            finish=raw.get("stop_reason"),
            usage=_read_usage(usage),
            calls=calls,
            request_id=headers.get("request-id"),
            raw=raw,
            refusal=category if is_refused and isinstance(category, str) else None,
            explanation=explanation if isinstance(explanation, str) else "",
        )


class _Answer:
    """What a stream's events add up to."""

    def __init__(self, adapter: AnthropicAdapter) -> None:
        self._adapter = adapter
        self._texts: list[str] = []
        self._calls = ToolCallParts()
        self._raw: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self.is_over = False

    @property
    def has_end_mark(self) -> bool:
        return self.is_over

    def add(self, event: Mapping[str, Any]) -> str:
        kind = event["type"]
        if kind == "content_block_delta":
            return self._add_delta(event["index"], event["delta"])
        if kind == "content_block_start":
            block = event["content_block"]
            if block["type"] == "tool_use":
                self._calls.start(event["index"], block["id"], block["name"])
        elif kind == "message_start":
            self._raw.update(event["message"])
            self._usage.update(event["message"].get("usage") or {})
        elif kind == "message_delta":
            self._raw.update(event["delta"])
            # Only what is said anew: the closing figures need not repeat the input's.
            closing = event.get("usage") or {}
            self._usage.update({key: value for key, value in closing.items() if value is not None})
        elif kind == "message_stop":
            self.is_over = True
        return ""

    def _add_delta(self, index: int, delta: Mapping[str, Any]) -> str:
        if delta["type"] == "input_json_delta":
            self._calls.add(index, delta["partial_json"])
        if delta["type"] != "text_delta":
            return ""
        text = text_of(delta["text"])
        self._texts.append(text)
        return text

    def cut_off(self, category: str) -> None:
        self._raw.update(stop_reason="refusal", stop_details={"category": category})
        self._usage.pop("output_tokens", None)  # so far it is only that of the first event
        self.is_over = True

    def completion(self, headers: Mapping[str, str]) -> Completion:
        raw = {**self._raw, "usage": self._usage} if self._usage else self._raw
        return self._adapter._put_together(
            raw, self._texts, self._usage, self._calls.finished(), headers
        )


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
    fresh = count_of(usage, "input_tokens")
    read = count_of(usage, "cache_read_input_tokens")
    written = count_of(usage, "cache_creation_input_tokens")
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=count_of(usage, "output_tokens"),
        cache_read_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=count_of(usage.get("output_tokens_details") or {}, "thinking_tokens"),
    )
