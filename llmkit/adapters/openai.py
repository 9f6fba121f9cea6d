"""OpenAI, and every vendor that speaks its chat protocol (`vendors.py`), by the SDK openai."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from llmkit.adapters.base import Key
from llmkit.adapters.custom_request import CustomRequestAdapter
from llmkit.adapters.error_table import OPENAI_CLASSES
from llmkit.adapters.vendors import OPENAI_COMPATIBLE, Vendor
from llmkit.adapters.wire import (
    drain,
    end_mark_missing,
    read_arguments,
    read_event,
    readable,
    sse_events,
)
from llmkit.errors import ConfigurationError, InvalidRequestError
from llmkit.request import Image, Message, Request
from llmkit.streams import ChunkSource
from llmkit.types import Chunk, Completion, FinishReason, ToolCall, Usage

if TYPE_CHECKING:
    import httpx2
    import openai

__all__ = ["OpenAIAdapter"]

_FINISH: Mapping[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}


class OpenAIAdapter(CustomRequestAdapter):
    """A model that speaks OpenAI's chat protocol.

    Args:
        model: The model's bare name.
        provider: "openai", or another row of `vendors.py`.
        api_key: See `BaseLLMAdapter`; likewise the other arguments.
        api_base: The address; one without a path gets `/v1`.
        **kwargs: The other arguments of `BaseLLMAdapter`.
    """

    error_classes = OPENAI_CLASSES
    path = "/chat/completions"
    ping_path = "/models"
    default_provider: ClassVar[str] = "openai"

    def __init__(
        self,
        model: str,
        provider: str | None = None,
        api_key: Key = None,
        api_base: str | None = None,
        **kwargs: Any,
    ) -> None:
        provider = provider or self.default_provider
        super().__init__(model, provider, api_key, api_base, **kwargs)
        self.vendor = self._find_vendor(provider)

    def _find_vendor(self, provider: str) -> Vendor:
        try:
            return OPENAI_COMPATIBLE[provider]
        except KeyError:
            raise ConfigurationError(
                f"{provider!r} is not among the vendors that speak OpenAI's protocol: "
                f"{', '.join(OPENAI_COMPATIBLE)}; a server of your own is 'openai' with api_base="
            ) from None

    @property
    def base_url(self) -> str:
        """The address that is asked."""
        base = self.api_base or self.settings.variable(f"{self.provider.upper()}_API_BASE")
        base = (base or self.vendor.base_url).rstrip("/")
        return base if base.count("/") > 2 else f"{base}/v1"

    def _prepare(self) -> None:
        _import_sdk()
        self._resolve_key(self.vendor.key_variable, self.vendor.key_required)

    def _client(self) -> openai.OpenAI:
        key = self._resolve_key(self.vendor.key_variable, self.vendor.key_required)
        base_url = self.base_url

        def build(pool: httpx2.Client) -> openai.OpenAI:
            client: openai.OpenAI = _import_sdk().OpenAI(
                api_key=key, base_url=base_url, http_client=pool, max_retries=0, timeout=None
            )
            # The constructor fills these from the environment, whatever it is given; the Request
            # is to be all there is.
            client.organization = client.project = client.admin_api_key = None
            client._custom_headers = {}
            return client

        return self._sdk_client(base_url, key, build)

    def _body(self, request: Request, stream: bool) -> dict[str, Any]:
        if self.info.api == "responses":
            raise InvalidRequestError(
                "only OpenAI's Responses API serves this model, and this version of llmkit speaks "
                "chat completions",
                provider=self.provider,
                model=self.model,
            )
        body: dict[str, Any] = {
            "model": request.model,
            "messages": [self._say_message(message) for message in request.messages],
        }
        for name, value in (
            (self.vendor.max_tokens_field, request.max_tokens),
            ("temperature", request.temperature),
            ("top_p", request.top_p),
            ("stop", list(request.stop) or None),
            ("seed", request.seed),
            ("reasoning_effort", request.reasoning_effort),
        ):
            if value is not None:
                body[name] = value
        if stream:
            body["stream"] = True
            body["stream_options"] = {"include_usage": True}
        body.update(request.vendor_parameters)
        body.update(request.extra_body)
        return body

    def _say_message(self, message: Message) -> dict[str, Any]:
        # Compatible servers know only the older name.
        role = message.role
        if role == "developer" and self.provider != "openai":
            role = "system"
        if isinstance(message.content, str):
            return {"role": role, "content": message.content}
        return {"role": role, "content": [_say_part(part) for part in message.content]}

    def _read_reply(self, raw: dict[str, Any], headers: Mapping[str, str]) -> Completion:
        choice = raw["choices"][0]
        message = choice["message"]
        calls = message.get("tool_calls") or ()
        refusal = message.get("refusal")
        return Completion(
            text=_text_of(message.get("content") or refusal),
            model=self.model,
            provider=self.provider,
            usage=_read_usage(raw.get("usage")),
            tool_calls=tuple(_read_call(call) for call in calls),
            request_id=headers.get("x-request-id"),
            raw=raw,
            **_read_finish(choice.get("finish_reason"), bool(refusal)),
        )

    def _read_stream(self, response: httpx2.Response) -> ChunkSource:
        answer = _StreamedAnswer()
        events = sse_events(response.iter_bytes())
        for _, data in events:
            if data == b"[DONE]":
                break
            event = read_event(data)
            if event.get("error"):
                raise self._event_error(event)
            with readable():
                text = answer.add(event)
            if text:
                yield Chunk(text)
        if answer.finish is None:
            raise end_mark_missing("a finish_reason")
        drain(events)
        with readable():
            return Completion(
                text="".join(answer.texts),
                model=self.model,
                provider=self.provider,
                usage=_read_usage(answer.raw.get("usage")),
                tool_calls=answer.tool_calls(),
                request_id=response.headers.get("x-request-id"),
                raw=answer.raw,
                **_read_finish(answer.finish, answer.refused),
            )


class _StreamedAnswer:
    """What a stream's events add up to."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.raw: dict[str, Any] = {}
        self.finish: str | None = None
        self.refused = False
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, event: Mapping[str, Any]) -> str:
        """Takes one event and returns the text in it."""
        self.raw.update(event)
        choices = event.get("choices")
        if not choices:
            return ""
        choice = choices[0]
        self.finish = choice.get("finish_reason") or self.finish
        delta = choice.get("delta") or {}
        for part in delta.get("tool_calls") or ():
            call = self._calls.setdefault(part.get("index", 0), {"arguments": ""})
            function = part.get("function") or {}
            call["id"] = part.get("id") or call.get("id")
            call["name"] = function.get("name") or call.get("name", "")
            call["arguments"] += function.get("arguments") or ""
        if delta.get("refusal"):
            self.refused = True
        text = _text_of(delta.get("content") or delta.get("refusal"))
        if text:
            self.texts.append(text)
        return text

    def tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(
            read_arguments(call["id"], call["name"], call["arguments"])
            for _, call in sorted(self._calls.items())
        )


def _say_part(part: str | Image) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _text_of(content: object) -> str:
    if content is not None and not isinstance(content, str):
        raise TypeError(f"content is {type(content).__name__}")
    return content or ""


def _read_finish(word: str | None, refused: bool) -> dict[str, Any]:
    if refused:
        return {"finish_reason": "content_filter", "warnings": ("the model refused to answer",)}
    if word is None or word in _FINISH:
        return {"finish_reason": _FINISH.get(word or "")}
    return {"finish_reason": None, "warnings": (f"the vendor's finish reason is {word!r}",)}


def _read_usage(usage: Mapping[str, Any] | None) -> Usage:
    if not usage:
        return Usage()
    prompt = usage.get("prompt_tokens_details") or {}
    output = usage.get("completion_tokens_details") or {}
    return Usage(
        input_tokens=usage.get("prompt_tokens"),
        output_tokens=usage.get("completion_tokens"),
        cache_read_tokens=prompt.get("cached_tokens"),
        cache_write_tokens=prompt.get("cache_write_tokens"),
        reasoning_tokens=output.get("reasoning_tokens"),
    )


def _read_call(call: Mapping[str, Any]) -> ToolCall:
    function = call["function"]
    return read_arguments(call.get("id"), function["name"], function.get("arguments"))


def _import_sdk() -> Any:
    try:
        import openai
    except ImportError as error:
        raise ConfigurationError(
            'the official SDK is missing: pip install "llmkit[openai]"'
        ) from error
    return openai
