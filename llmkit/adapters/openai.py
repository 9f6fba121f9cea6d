"""OpenAI, and every vendor that speaks its chat protocol (`vendors.py`), by the SDK openai."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from llmkit.adapters.base import Key
from llmkit.adapters.content_filters import category_of_choice
from llmkit.adapters.custom_request import CustomRequestAdapter
from llmkit.adapters.error_table import OPENAI_CLASSES
from llmkit.adapters.vendors import OPENAI_COMPATIBLE, Vendor
from llmkit.adapters.wire import ToolCallParts, count_of, read_arguments, text_of
from llmkit.errors import ConfigurationError, InvalidRequestError, ModelNotFoundError
from llmkit.request import Image, Message, Request
from llmkit.tokenizer import TokenCount
from llmkit.types import Completion, ToolCall, Usage

if TYPE_CHECKING:
    import httpx2
    import openai

__all__ = ["OpenAIAdapter"]

COUNT_PATH = "/responses/input_tokens"


class OpenAIAdapter(CustomRequestAdapter):
    """A model that speaks OpenAI's chat protocol.

    Args:
        model: The model's bare name.
        provider: "openai", or another row of `vendors.py`.
        api_key: See `BaseLLMAdapter`; likewise the other arguments.
        api_base: The address; one without a path gets `/v1`.
        **kwargs: The other arguments of `BaseLLMAdapter`.

    Raises:
        ConfigurationError: `provider` is no such row.
        InvalidRequestError: An argument can't be meant.
    """

    sdk_module = "openai"
    extra = "openai"
    error_classes = OPENAI_CLASSES
    finish_words: ClassVar = {
        "stop": "stop",
        "length": "length",
        "tool_calls": "tool_calls",
        "function_call": "tool_calls",
        "content_filter": "content_filter",
        "refusal": "content_filter",  # Anthropic's word, from servers that translate its protocol
    }
    path = "/chat/completions"
    ping_path = "/models"
    end_mark = "a finish_reason"
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
        self.key_variable = self.vendor.key_variable
        self.key_required = self.vendor.key_required

    def _find_vendor(self, provider: str) -> Vendor:
        try:
            return OPENAI_COMPATIBLE[provider]
        except KeyError:
            raise ConfigurationError(
                f"{provider!r} is not among the vendors that speak OpenAI's protocol: "
                f"{', '.join(OPENAI_COMPATIBLE)}; a server of your own is 'openai' with api_base="
            ) from None

    @property
    def address(self) -> str:
        """Where the model is asked."""
        return self.base_url

    @property
    def base_url(self) -> str:
        """The address that is asked."""
        base = self.api_base or self._configured_base() or self.vendor.base_url
        base = base.rstrip("/")
        return base if base.count("/") > 2 else f"{base}/v1"

    def _configured_base(self) -> str | None:
        if self.provider == "openai":
            return self.settings.openai_api_base
        return self.settings.variable(f"{self.provider.upper()}_API_BASE")

    def _prepare(self) -> None:
        super()._prepare()
        if self.info.api == "responses":
            raise InvalidRequestError(
                "only OpenAI's Responses API serves this model, and this version of llmkit speaks "
                "chat completions",
                provider=self.provider,
                model=self.model,
            )

    def _client(self) -> openai.OpenAI:
        base_url = self.base_url

        def build(key: str, pool: httpx2.Client) -> openai.OpenAI:
            client: openai.OpenAI = self._import_sdk().OpenAI(
                api_key=key, base_url=base_url, http_client=pool, max_retries=0, timeout=None
            )
            # The constructor fills these from the environment, whatever it is given; the Request
            # is to be all there is.
            client.organization = client.project = client.admin_api_key = None
            client._custom_headers = {}
            return client

        return self._sdk_client(base_url, build)

    def _say_request(self, request: Request, *, stream: bool) -> dict[str, Any]:
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
        return body

    def _say_message(self, message: Message) -> dict[str, Any]:
        # Compatible servers know only the older name.
        role = message.role
        if role == "developer" and self.provider != "openai":
            role = "system"
        if isinstance(message.content, str):
            return {"role": role, "content": message.content}
        return {"role": role, "content": [_say_part(part) for part in message.content]}

    def _count_exactly(self, request: Request) -> TokenCount:
        if not self.vendor.counts_tokens:
            return super()._count_exactly(request)
        body = {
            "model": request.model,
            "input": [_say_input(message) for message in request.messages],
        }
        try:
            return self._post_for_count(COUNT_PATH, body)
        except ModelNotFoundError as error:
            if "model" in error.message.lower():
                raise
            raise InvalidRequestError(
                f"{self.base_url} has no endpoint {COUNT_PATH} ({error.message}); exact=False "
                "gives an estimate",
                status=error.status,
                request_id=error.request_id,
            ) from error

    def _read_reply(self, raw: dict[str, Any], headers: Mapping[str, str]) -> Completion:
        choice = raw["choices"][0]
        message = choice["message"]
        refusal = text_of(message.get("refusal"))
        return self._completion(
            text=text_of(message.get("content")) or refusal,
            finish=choice.get("finish_reason"),
            usage=_read_usage(raw.get("usage") or {}),
            calls=tuple(_read_call(call) for call in message.get("tool_calls") or ()),
            request_id=headers.get("x-request-id"),
            raw=raw,
            refusal=self._find_refusal(choice, raw, is_refusal=bool(refusal)),
        )

    def _find_refusal(
        self, choice: Mapping[str, Any], whole: Mapping[str, Any], *, is_refusal: bool
    ) -> str | None:
        """Returns why an answer was filtered or refused; None when it was not, or unsaid."""
        found = None
        if self.finish_words.get(choice.get("finish_reason") or "") == "content_filter":
            found = category_of_choice(choice, whole)
        return found or ("refusal" if is_refusal else None)

    def _begin_answer(self) -> _Answer:
        return _Answer(self)


class _Answer:
    """What a stream's events add up to."""

    is_over = False  # the usage comes after the end mark

    def __init__(self, adapter: OpenAIAdapter) -> None:
        self._adapter = adapter
        self._texts: list[str] = []
        self._calls = ToolCallParts()
        self._raw: dict[str, Any] = {}
        self._finish: str | None = None
        self._verdict: dict[str, Any] = {}
        self._is_refusal = False

    @property
    def has_end_mark(self) -> bool:
        return self._finish is not None

    def add(self, event: Mapping[str, Any]) -> str:
        self._raw.update(event)
        choices = event.get("choices")
        if not choices or choices[0].get("index"):  # of several answers the first one counts
            return ""
        choice = choices[0]
        finish = choice.get("finish_reason")
        if finish or choice.get("content_filter_results"):
            self._finish = finish or self._finish
            self._verdict.update(choice, finish_reason=self._finish)
        delta = choice.get("delta") or {}
        for part in delta.get("tool_calls") or ():
            self._add_call(part)
        refusal = text_of(delta.get("refusal"))
        if refusal:
            self._is_refusal = True
        text = text_of(delta.get("content")) or refusal
        if text:
            self._texts.append(text)
        return text

    def _add_call(self, part: Mapping[str, Any]) -> None:
        index = part.get("index")
        if index is None:  # as some compatible servers do: an id begins another call
            index = len(self._calls) if part.get("id") else len(self._calls) - 1
        function = part.get("function") or {}
        self._calls.start(index, part.get("id"), function.get("name"))
        self._calls.add(index, function.get("arguments"))

    def cut_off(self, category: str) -> None:
        self._finish = "content_filter"
        self._verdict = {"finish_reason": self._finish, "native_finish_reason": category}

    def completion(self, headers: Mapping[str, str]) -> Completion:
        return self._adapter._completion(
            text="".join(self._texts),
            finish=self._finish,
            usage=_read_usage(self._raw.get("usage") or {}),
            calls=self._calls.finished(),
            request_id=headers.get("x-request-id"),
            raw=self._raw,
            refusal=self._adapter._find_refusal(
                self._verdict, self._raw, is_refusal=self._is_refusal
            ),
        )


def _say_part(part: str | Image) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _say_input(message: Message) -> dict[str, Any]:
    """Says a message as the Responses API does, to which the counting endpoint belongs."""
    if isinstance(message.content, str):
        return {"role": message.role, "content": message.content}
    kind = "output_text" if message.role == "assistant" else "input_text"
    parts: list[dict[str, Any]] = []
    for part in message.content:
        if isinstance(part, str):
            parts.append({"type": kind, "text": part})
        else:
            url = _say_part(part)["image_url"]["url"]
            parts.append({"type": "input_image", "image_url": url})
    return {"role": message.role, "content": parts}


def _read_usage(usage: Mapping[str, Any]) -> Usage:
    """Reads the tokens; cached ones are inside the prompt's, reasoning inside the completion's.

    So count OpenAI, Azure, Groq, OpenRouter, DeepSeek, vLLM and llama.cpp. xAI counts reasoning
    beside the completion: there, only the three together make up the total.
    """
    prompt = usage.get("prompt_tokens_details") or {}
    output = usage.get("completion_tokens_details") or {}
    read = count_of(prompt, "cached_tokens")
    if read is None:  # DeepSeek's own field
        read = count_of(usage, "prompt_cache_hit_tokens")
    asked, written = count_of(usage, "prompt_tokens"), count_of(usage, "completion_tokens")
    total, reasoning = count_of(usage, "total_tokens"), count_of(output, "reasoning_tokens")
    if reasoning and None not in (asked, written, total):
        beside = (asked or 0) + (written or 0) + reasoning == total
        written = (written or 0) + (reasoning if beside else 0)
    return Usage(
        input_tokens=asked,
        output_tokens=written,
        cache_read_tokens=read,
        cache_write_tokens=count_of(prompt, "cache_write_tokens"),
        reasoning_tokens=reasoning,
    )


def _read_call(call: Mapping[str, Any]) -> ToolCall:
    function = call["function"]
    return read_arguments(call.get("id"), function["name"], function.get("arguments"))
