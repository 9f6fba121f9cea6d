"""Google's Gemini models, by the SDK google-genai."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from llmkit.adapters.base import BaseLLMAdapter, Key
from llmkit.adapters.error_table import GEMINI_CLASSES
from llmkit.adapters.wire import drain, end_mark_missing, read_json, readable
from llmkit.errors import ConfigurationError, ContentFilterError
from llmkit.request import Image, Message, Request
from llmkit.streams import ChunkSource
from llmkit.types import Chunk, Completion, FinishReason, ToolCall, Usage

if TYPE_CHECKING:
    import httpx2
    from google import genai

__all__ = ["GeminiAdapter"]

BASE_URL = "https://generativelanguage.googleapis.com"
API_VERSION = "v1"  # the SDK's own default; aliases such as *-latest need v1beta

_FINISH: Mapping[str, FinishReason] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}


class GeminiAdapter(BaseLLMAdapter):
    """A Gemini model.

    The SDK has no way to send a custom request, so its typed methods are used.

    Args:
        model: The model's bare name.
        provider: "gemini".
        api_key: See `BaseLLMAdapter`; likewise the other arguments.
        api_base: The address; `/v1` or `/v1beta` at its end chooses the API's version.
        **kwargs: The other arguments of `BaseLLMAdapter`.
    """

    error_classes = GEMINI_CLASSES

    def __init__(
        self,
        model: str,
        provider: str = "gemini",
        api_key: Key = None,
        api_base: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(model, provider, api_key, api_base, **kwargs)

    @property
    def base_url(self) -> str:
        """The address that is asked, without the API's version."""
        return self._address()[0]

    def _address(self) -> tuple[str, str]:
        base = (self.api_base or self.settings.gemini_api_base or BASE_URL).rstrip("/")
        for version in ("v1beta", "v1"):
            if base.endswith(f"/{version}"):
                return base.removesuffix(f"/{version}"), version
        return base, API_VERSION

    def _prepare(self) -> None:
        _import_sdk()
        self._resolve_key("GEMINI_API_KEY", required=True)

    def _client(self) -> genai.Client:
        key = self._resolve_key("GEMINI_API_KEY", required=True)
        base_url, version = self._address()

        def build(pool: httpx2.Client) -> genai.Client:
            sdk = _import_sdk()
            client: genai.Client = sdk.Client(
                api_key=key,
                vertexai=False,  # else GOOGLE_GENAI_USE_VERTEXAI would decide
                http_options=sdk.types.HttpOptions(
                    base_url=base_url, api_version=version, httpx_client=pool
                ),
            )
            return client

        return self._sdk_client(f"{base_url}/{version}", key, build)

    def _arguments(self, request: Request, *, stream: bool) -> dict[str, Any]:
        """Says the request in the SDK's words."""
        config: dict[str, Any] = {}
        for name, value in (
            ("system_instruction", request.system_text or None),
            ("max_output_tokens", request.max_tokens),
            ("temperature", request.temperature),
            ("top_p", request.top_p),
            ("stop_sequences", list(request.stop) or None),
            ("seed", request.seed),
            # The vendor's JSON, unparsed; the SDK offers it for plain calls only.
            ("should_return_http_response", None if stream else True),
        ):
            if value is not None:
                config[name] = value
        if request.reasoning_effort is not None:
            config["thinking_config"] = {"thinking_level": request.reasoning_effort.upper()}
        config.update(request.vendor_parameters)
        if request.extra_body or request.extra_headers:
            config["http_options"] = {
                "extra_body": dict(request.extra_body) or None,
                "headers": dict(request.extra_headers) or None,
            }
        contents = [_say_message(message) for message in request.turns]
        return {"model": request.model, "contents": contents, "config": config}

    def _generate_text(self, request: Request) -> Completion:
        with self._vendor_errors():
            arguments = self._arguments(request, stream=False)
            reply = self._client().models.generate_content(**arguments).sdk_http_response
        headers = (reply.headers if reply else None) or {}
        raw = read_json((reply.body if reply else None) or "", _header(headers, "content-type"))
        with readable():
            answer = _Answer(self)
            answer.add(raw)
            return answer.completion()

    def _stream_text(self, request: Request) -> ChunkSource:
        with self._vendor_errors():
            arguments = self._arguments(request, stream=True)
            events = iter(self._client().models.generate_content_stream(**arguments))
            answer = _Answer(self)
            for event in events:
                with readable():
                    text = answer.add(event.model_dump(mode="json", by_alias=True))
                if text:
                    yield Chunk(text)
                if answer.finish is not None and answer.usage:
                    break
            if answer.finish is None:
                raise end_mark_missing("a finish reason")
            drain(events)
        with readable():
            return answer.completion()

    def _ping(self) -> None:
        with self._vendor_errors():
            self._client().models.get(model=self.model)


class _Answer:
    """What the one JSON of a plain reply, or a stream's events, add up to."""

    def __init__(self, adapter: GeminiAdapter) -> None:
        self._adapter = adapter
        self.raw: dict[str, Any] = {}
        self.texts: list[str] = []
        self.calls: list[ToolCall] = []
        self.finish: str | None = None
        self.usage: Mapping[str, Any] = {}

    def add(self, event: Mapping[str, Any]) -> str:
        """Takes one JSON and returns the text in it.

        Raises:
            ContentFilterError: The prompt was blocked, so that there is no answer at all.
        """
        self.raw.update(event)
        self.usage = event.get("usageMetadata") or self.usage
        candidates = event.get("candidates")
        if not candidates:
            blocked = (event.get("promptFeedback") or {}).get("blockReason")
            if blocked:
                raise ContentFilterError(
                    f"the vendor blocked the prompt ({blocked})",
                    category=blocked,
                    provider=self._adapter.provider,
                    model=self._adapter.model,
                )
            if not self.usage or not self.raw.get("candidates"):
                raise KeyError("candidates")
            return ""
        candidate = candidates[0]
        self.finish = candidate.get("finishReason") or self.finish
        parts = (candidate.get("content") or {}).get("parts") or ()
        text = "".join(_texts(parts))
        if text:
            self.texts.append(text)
        for part in parts:
            call = part.get("functionCall")
            if call:
                arguments = dict(call.get("args") or {})
                self.calls.append(ToolCall(call.get("id") or "", call["name"], arguments))
        return text

    def completion(self) -> Completion:
        finish = _FINISH.get(self.finish or "")
        warnings = () if finish else (f"the vendor's finish reason is {self.finish!r}",)
        return Completion(
            text="".join(self.texts),
            model=self._adapter.model,
            provider=self._adapter.provider,
            finish_reason="tool_calls" if self.calls and finish == "stop" else finish,
            usage=_read_usage(self.usage),
            tool_calls=tuple(self.calls),
            warnings=warnings,
            request_id=self.raw.get("responseId"),
            raw=self.raw,
        )


def _texts(parts: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    for part in parts:
        text = part.get("text")
        if text is not None and not part.get("thought"):
            if not isinstance(text, str):
                raise TypeError(f"text is {type(text).__name__}")
            yield text


def _say_message(message: Message) -> dict[str, Any]:
    content = (message.content,) if isinstance(message.content, str) else message.content
    role = "model" if message.role == "assistant" else "user"
    return {"role": role, "parts": [_say_part(part) for part in content]}


def _say_part(part: str | Image) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    if part.url is not None:
        return {"file_data": {"file_uri": part.url}}
    return {"inline_data": {"mime_type": part.media_type, "data": part.data}}


def _read_usage(usage: Mapping[str, Any]) -> Usage:
    """Reads the tokens; Google counts thoughts beside the answer's tokens, not inside them."""
    answer = usage.get("candidatesTokenCount")
    thoughts = usage.get("thoughtsTokenCount")
    known = answer is not None or thoughts is not None
    return Usage(
        input_tokens=usage.get("promptTokenCount"),
        output_tokens=(answer or 0) + (thoughts or 0) if known else None,
        cache_read_tokens=usage.get("cachedContentTokenCount"),
        reasoning_tokens=thoughts,
    )


def _header(headers: Mapping[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name), "")


def _import_sdk() -> Any:
    try:
        from google import genai
    except ImportError as error:
        raise ConfigurationError(
            'the official SDK is missing: pip install "llmkit[gemini]"'
        ) from error
    return genai
