"""Google's Gemini models, by the SDK google-genai."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from llmkit.adapters.base import Key
from llmkit.adapters.error_table import GEMINI_CLASSES
from llmkit.adapters.gemini_answer import GeminiAnswer
from llmkit.adapters.gemini_backends import adapter_class
from llmkit.adapters.vendor_adapter import VendorAdapter
from llmkit.adapters.vendor_error import VendorError
from llmkit.adapters.wire import (
    check_stream_type,
    drain,
    end_mark_missing,
    lay_over,
    read_count,
    read_event,
    read_json,
    read_part,
    readable,
)
from llmkit.errors import ConfigurationError, InvalidRequestError, ProviderError
from llmkit.request import Image, Message, Request
from llmkit.streams import ChunkSource
from llmkit.tokenizer import TokenCount
from llmkit.types import Chunk, Completion

if TYPE_CHECKING:
    import httpx2
    from google import genai
    from google.genai import types

__all__ = ["GeminiAdapter"]

BASE_URL = "https://generativelanguage.googleapis.com"

# Names that stand in the URL as they are; what the SDK makes of others is left to it.
_PLAIN_NAME = re.compile(r"\w+([.-]\w+)*", re.ASCII)


class GeminiAdapter(VendorAdapter):
    """A Gemini model.

    A request that is all in this library's words is sent by the step in which the SDK's typed
    methods end: what these do before and after costs more than the request itself, and most of
    it once per message. One with the SDK's own parameters goes by the typed methods.

    Args:
        model: The model's bare name.
        provider: "gemini".
        api_key: See `BaseLLMAdapter`; likewise the other arguments.
        api_base: The address; `/v1` or `/v1beta` at its end chooses the API's version.
        backend: The SDK: "google-genai", or "google-generativeai", which Google has given up and
            which makes a `LegacyGeminiAdapter`; None takes the second one only where it alone is
            installed.
        **kwargs: The other arguments of `BaseLLMAdapter`.

    Raises:
        InvalidRequestError: There is no such backend, or it is another one than the class's.
    """

    # The SDK's name on PyPI.
    backend: ClassVar[str] = "google-genai"
    # The API's version where the address has none: the SDK's own default. Aliases such as *-latest
    # need v1beta.
    usual_version: ClassVar[str] = "v1"

    sdk_module = "google.genai"
    extra = "gemini"
    error_classes = GEMINI_CLASSES
    finish_words: ClassVar = {
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
        "ESCALATION": "content_filter",
    }
    key_variable = "GEMINI_API_KEY"

    def __new__(
        cls,
        model: str = "",
        provider: str = "gemini",
        api_key: Key = None,
        api_base: str | None = None,
        *,
        backend: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """Chooses the class by the backend; a copy or a pickle names no model and keeps its own."""
        kind: type[Self] = adapter_class(backend) if model and cls is GeminiAdapter else cls
        return super().__new__(kind)

    def __init__(
        self,
        model: str,
        provider: str = "gemini",
        api_key: Key = None,
        api_base: str | None = None,
        *,
        backend: str | None = None,
        **kwargs: Any,
    ) -> None:
        if backend not in (None, self.backend):
            raise InvalidRequestError(
                f"backend={backend!r:.100}: {type(self).__name__} asks by {self.backend}",
                provider=provider,
                model=model,
            )
        super().__init__(model, provider, api_key, api_base, **kwargs)

    @property
    def address(self) -> str:
        """Where the model is asked, with the API's version."""
        return "/".join(self._address())

    @property
    def base_url(self) -> str:
        """The address that is asked, without the API's version."""
        return self._address()[0]

    def _address(self) -> tuple[str, str]:
        base = (self.api_base or self.settings.gemini_api_base or BASE_URL).rstrip("/")
        for version in ("v1beta", "v1"):
            if base.endswith(f"/{version}"):
                return base.removesuffix(f"/{version}"), version
        return base, self.usual_version

    def _client(self) -> genai.Client:
        base_url, version = self._address()

        def build(key: str, pool: httpx2.Client) -> genai.Client:
            sdk = self._import_sdk()
            try:
                client: genai.Client = sdk.Client(
                    api_key=key,
                    # Left out, the environment would decide these two.
                    vertexai=False,
                    debug_config=sdk.client.DebugConfig(
                        client_mode=None, replays_directory=None, replay_id=None
                    ),
                    http_options=sdk.types.HttpOptions(
                        base_url=base_url, api_version=version, httpx_client=pool
                    ),
                )
            except ImportError as error:  # GOOGLE_GENAI_HTTP_CLIENT, which no argument overrides
                raise ConfigurationError(f"google-genai can't be used: {error}") from error
            return client

        return self._sdk_client(f"{base_url}/{version}", build)

    def _arguments(self, request: Request, *, stream: bool) -> dict[str, Any]:
        """Says the request in the SDK's words."""
        config: dict[str, Any] = {
            # Else the SDK would send further requests by itself.
            "automatic_continuation": False,
            "automatic_function_calling": {"disable": True},
        }
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
        lay_over(config, request.vendor_parameters)
        options = self._http_options(request)
        if options is not None:
            config["http_options"] = options
        return {
            "model": request.model,
            "contents": [_say_message(message) for message in request.turns],
            # Checked here, so that what fails to fit later on can only be the vendor's reply.
            "config": self._import_sdk().types.GenerateContentConfig(**config),
        }

    def _body(self, request: Request) -> dict[str, Any]:
        """Says the request in Google's own JSON, as the SDK's typed methods would send it."""
        body: dict[str, Any] = {"contents": [_say_message(message) for message in request.turns]}
        if request.system_text:
            body["systemInstruction"] = {"parts": [{"text": request.system_text}], "role": "user"}
        effort = request.reasoning_effort
        config = {
            name: value
            for name, value in (
                ("temperature", request.temperature),
                ("topP", request.top_p),
                ("maxOutputTokens", request.max_tokens),
                ("stopSequences", list(request.stop) or None),
                ("seed", request.seed),
                ("thinkingConfig", {"thinkingLevel": effort.upper()} if effort else None),
            )
            if value is not None
        }
        if config:
            body["generationConfig"] = config
        return body

    def _http_options(self, request: Request) -> types.HttpOptions | None:
        """Returns what a request adds to its body and headers; None for nothing."""
        if not request.extra_body and not request.extra_headers:
            return None
        options: types.HttpOptions = self._import_sdk().types.HttpOptions(
            extra_body=dict(request.extra_body) or None,
            headers=dict(request.extra_headers) or None,
        )
        return options

    def _send(self, request: Request, *, stream: bool) -> Any:
        """Sends a request; returns the SDK's reply, or an iterator of such for a stream."""
        client = self._client()
        if request.vendor_parameters or not _PLAIN_NAME.fullmatch(request.model):
            arguments = self._arguments(request, stream=stream)
            if stream:
                return client.models.generate_content_stream(**arguments)
            return client.models.generate_content(**arguments).sdk_http_response
        path = f"models/{request.model}:"
        path += "streamGenerateContent?alt=sse" if stream else "generateContent"
        send = client._api_client.request_streamed if stream else client._api_client.request
        return send("post", path, self._body(request), self._http_options(request))

    def _generate_text(self, request: Request) -> Completion:
        with self._vendor_errors():
            reply = self._send(request, stream=False)
        headers = (reply.headers if reply else None) or {}
        raw = read_json((reply.body if reply else None) or "", _header(headers, "content-type"))
        if raw.get("error"):
            error = VendorError.from_body(raw)
            raise self._to_error(error) or ProviderError(error.message)
        with readable(billed=raw.get("usageMetadata")):
            answer = GeminiAnswer(self)
            answer.add(raw)
            return answer.completion()

    def _stream_text(self, request: Request) -> ChunkSource:
        with self._vendor_errors():
            events = self._read_events(self._send(request, stream=True))
            answer = GeminiAnswer(self)
            for event in events:
                text = read_part(answer.add, event, "usageMetadata")
                if text:
                    yield Chunk(text)
                if answer.finish is not None and answer.usage:
                    break
        if answer.finish is None:
            raise end_mark_missing("a finish reason")
        drain(events)
        with readable(billed=True):
            return answer.completion()

    def _count_exactly(self, request: Request) -> TokenCount:
        # The SDK refuses system instructions here, so they are counted as a turn of the user's,
        # whose framing may differ by a few tokens.
        contents: list[Any] = [_say_message(message) for message in request.messages]
        with readable(), self._vendor_errors():
            reply = self._client().models.count_tokens(model=request.model, contents=contents)
        count = read_count({"totalTokens": reply.total_tokens}, "totalTokens")
        return TokenCount(count, estimated=bool(request.system_text))

    def _read_events(self, events: Iterator[Any]) -> Iterator[dict[str, Any]]:
        """Reads a stream's events; whatever the SDK makes of one that is not Google's JSON.

        It puts U+FFFD for bytes that are not UTF-8, as nothing here can tell from the model's own.
        """
        while True:
            with readable():
                try:
                    event = next(events, None)
                except Warning as warning:  # a filter of Python's makes warnings errors
                    raise ProviderError(
                        f"a warning of the SDK's ended the stream: {warning}; let it pass, by "
                        "warnings.filterwarnings('ignore', module='google.genai')",
                        retryable=False,
                    ) from warning
                if event is None:
                    return
                typed = getattr(event, "sdk_http_response", None)
                headers = (typed or event).headers or {}
                check_stream_type(_header(headers, "content-type"))
                if typed is None:
                    fields = read_event(event.body)
                else:
                    fields = event.model_dump(mode="json", by_alias=True, exclude_none=True)
            yield fields

    def _ping(self) -> None:
        with self._vendor_errors():
            self._client().models.get(model=self.model)


def _say_message(message: Message) -> dict[str, Any]:
    content = (message.content,) if isinstance(message.content, str) else message.content
    role = "model" if message.role == "assistant" else "user"
    return {"role": role, "parts": [_say_part(part) for part in content]}


def _say_part(part: str | Image) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part}
    if part.url is not None:
        return {"fileData": {"fileUri": part.url}}
    return {"inlineData": {"mimeType": part.media_type, "data": part.data}}


def _header(headers: Mapping[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name), "")
