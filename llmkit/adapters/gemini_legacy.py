"""Google's Gemini models, by the SDK google-generativeai, which Google no longer looks after.

The SDK words and checks each request; `generativeai_client` sends it over llmkit's connections, and
what comes back is read as `GeminiAdapter` reads it. So deadlines, cancelling, proxies and
certificates are those of every other adapter.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from llmkit.adapters.error_table import BY_STATUS
from llmkit.adapters.gemini import GeminiAdapter
from llmkit.adapters.gemini_safety import read_safety_settings
from llmkit.adapters.generativeai_client import Exchange, GenerativeAIClients
from llmkit.adapters.vendor_error import VendorError
from llmkit.adapters.wire import (
    check_stream_type,
    lay_over,
    read_count,
    read_event,
    read_instead_of_stream,
    read_json,
    sse_events,
)
from llmkit.errors import InvalidRequestError, ProviderError
from llmkit.log import get_logger
from llmkit.process_local import ProcessLocal
from llmkit.request import Request
from llmkit.tokenizer import TokenCount

if TYPE_CHECKING:
    import httpx2

__all__ = ["LegacyGeminiAdapter"]

# Whether this process has been told what the SDK can't do.
_told: ProcessLocal[list[bool]] = ProcessLocal(list)


class LegacyGeminiAdapter(GeminiAdapter):
    """A Gemini model, by google-generativeai 0.8: for programs that can't have google-genai.

    Its types are those of v1beta of the API, in early 2025. It has no seed, no thinking
    (`reasoning_effort`) and no JSON schema of an answer: the first two are left out with a
    warning, or refused with `on_unsupported="error"`; a vendor's parameter that it has no field
    for is an `InvalidRequestError`. `extra_body` is sent as it is, whatever the SDK knows.
    `safety_settings` may have any of the forms that google-generativeai takes.

    Args:
        model: The model's bare name.
        provider: "gemini".
        api_key: See `BaseLLMAdapter`; likewise the other arguments.
        api_base: The address; `/v1` or `/v1beta` at its end chooses the API's version, and without
            either it is v1beta. Not all that the SDK can say is known to v1.
        **kwargs: The other arguments of `BaseLLMAdapter`; `backend`, if given, is
            "google-generativeai".
    """

    backend = "google-generativeai"
    # Of all that google-generativeai installs, what makes requests; `google.generativeai` itself
    # keeps one key for the whole process, and loads what uploads files.
    sdk_module = "google.ai.generativelanguage_v1beta"
    extra = "google-generativeai"
    error_classes: ClassVar = {"GoogleAPIError": BY_STATUS}
    never_takes = frozenset({"seed", "reasoning_effort"})
    usual_version = "v1beta"

    def load_ahead(self) -> None:
        """Begins to import the SDK, without waiting for it."""
        _quieten_import()
        super().load_ahead()

    def _prepare(self) -> None:
        super()._prepare()
        told = _told.get()
        if not told:
            told.append(True)
            get_logger("adapters").warning(
                "Gemini is asked by google-generativeai, which Google has given up: it knows no "
                "seed, no thinking, no JSON schema and none of the API's newer parameters; "
                'pip install "llmkit[gemini]" installs its successor, which is then chosen'
            )

    def _import_sdk(self) -> Any:
        _quieten_import()
        return super()._import_sdk()

    def _exchange(self, service: str) -> Exchange:
        """Returns an exchange with one of the SDK's two services."""
        base_url, version = self._address()

        def build(key: str, pool: httpx2.Client) -> GenerativeAIClients:
            self._import_sdk()
            return GenerativeAIClients(base_url, version, key, pool)

        clients: GenerativeAIClients = self._sdk_client(f"{base_url}/{version}", build)
        return Exchange(clients, service)

    def _message(self, kind: str, fields: Mapping[str, Any]) -> Any:
        """Says a request in one of the SDK's own types.

        Raises:
            InvalidRequestError: The type has no such field, or the value does not fit.
        """
        sdk = self._import_sdk()
        json_format = importlib.import_module("google.protobuf.json_format")
        message = getattr(sdk, kind)()
        try:
            json_format.ParseDict(fields, type(message).pb(message))
        except json_format.ParseError as error:
            raise InvalidRequestError(
                f"google-generativeai can't say this request: {error}; extra_body= sends what "
                "only the vendor knows",
                provider=self.provider,
                model=self.model,
            ) from None
        return message

    def _fields(self, request: Request) -> dict[str, Any]:
        """Says a request as the JSON of the SDK's type."""
        fields = {"model": _path_of(request.model), **self._body(request)}
        known = self._import_sdk().GenerateContentRequest.pb().DESCRIPTOR.fields_by_camelcase_name
        names = {field.name for field in known.values()} | set(known)
        given = dict(request.vendor_parameters)
        for name in ("safety_settings", "safetySettings"):
            if given.get(name) is not None:
                given[name] = read_safety_settings(given[name], self._import_sdk())
        lay_over(fields, {name: value for name, value in given.items() if name in names})
        config = {name: value for name, value in given.items() if name not in names}
        if config:
            lay_over(fields, {"generationConfig": {**fields.get("generationConfig", {}), **config}})
        return fields

    def _send(self, request: Request, *, stream: bool) -> Any:
        message = self._message("GenerateContentRequest", self._fields(request))
        exchange = self._exchange("generative_service")
        exchange.extra_headers, exchange.extra_body = request.extra_headers, request.extra_body
        if not stream:
            return _Reply(exchange.ask("generate_content", message))
        exchange.parameters = {"alt": "sse"}
        return exchange.ask("stream_generate_content", message)

    def _read_events(self, events: Any) -> Iterator[dict[str, Any]]:
        reply: httpx2.Response = events
        whole = read_instead_of_stream(reply)
        if whole is not None:
            self._check_event(whole)
            check_stream_type(reply.headers["content-type"])
        for _, data in sse_events(reply.iter_bytes()):
            event = read_event(data)
            self._check_event(event)
            yield event

    def _check_event(self, event: Mapping[str, Any]) -> None:
        """Raises the error that a reply of status 200 reports."""
        if event.get("error"):
            error = VendorError.from_body(event)
            raise self._to_error(error) or ProviderError(error.message)

    def _count_exactly(self, request: Request) -> TokenCount:
        fields = {"model": _path_of(request.model), **self._body(request)}
        # Unlike google-genai, this SDK counts instructions, too.
        asked = {"model": fields["model"], "generateContentRequest": fields}
        with self._vendor_errors():
            message = self._message("CountTokensRequest", asked)
            reply = _Reply(self._exchange("generative_service").ask("count_tokens", message))
        raw = read_json(reply.body, reply.headers.get("content-type", ""))
        return read_count(raw, "totalTokens")

    def _ping(self) -> None:
        with self._vendor_errors():
            message = self._message("GetModelRequest", {"name": _path_of(self.model)})
            self._exchange("model_service").ask("get_model", message).read()


class _Reply:
    """A whole reply, by the names that `GeminiAdapter` reads."""

    def __init__(self, reply: httpx2.Response) -> None:
        self.body = reply.read()
        self.headers = reply.headers


def _path_of(model: str) -> str:
    """Returns a model's name as it stands in the SDK's URLs."""
    return model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"


def _quieten_import() -> None:
    """Keeps from the user which versions of Python the SDK will give up.

    It says so on import, which is on another thread; `warnings.catch_warnings` would undo what any
    thread changes meanwhile. This filter stays, for the modules of google.api_core alone.
    """
    if LegacyGeminiAdapter.sdk_module not in sys.modules:
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.api_core\.")
