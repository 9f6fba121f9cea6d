"""Google's Gemini models, by the SDK google-generativeai, which Google no longer looks after.

The client that this SDK is made of words and checks each request. What it would send by itself,
with tries and time-outs of its own, goes over llmkit's own connections instead, and what comes
back is read as `GeminiAdapter` reads it: deadlines, cancelling, proxies and certificates are
those of every other adapter.
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from llmkit.adapters.error_table import BY_STATUS
from llmkit.adapters.gemini import GeminiAdapter
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

_SERVICES = "google.ai.generativelanguage_v1beta.services"

# Whether this process has been told what the SDK can't do.
_told: ProcessLocal[list[bool]] = ProcessLocal(list)


class LegacyGeminiAdapter(GeminiAdapter):
    """A Gemini model, by google-generativeai 0.8: for programs that can't have google-genai.

    Its types are those of early 2025, and it knows only v1beta of the API. It has no seed, no
    thinking (`reasoning_effort`) and no JSON schema of an answer: the first two are left out with
    a warning, or refused with `on_unsupported="error"`; a vendor's parameter that it has no field
    for is an `InvalidRequestError`. `extra_body` is sent as it is, whatever the SDK knows.

    Args:
        model: The model's bare name.
        provider: "gemini".
        api_key: See `BaseLLMAdapter`; likewise the other arguments.
        api_base: The address; `/v1beta` is asked there, whichever version stands at its end.
        **kwargs: The other arguments of `BaseLLMAdapter`.
    """

    # Of all that google-generativeai installs, what makes requests; `google.generativeai` itself
    # keeps one key for the whole process, and loads what uploads files.
    sdk_module = "google.ai.generativelanguage_v1beta"
    extra = "google-generativeai"
    error_classes: ClassVar = {"GoogleAPIError": BY_STATUS}
    never_takes = frozenset({"seed", "reasoning_effort"})

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

    def _address(self) -> tuple[str, str]:
        return super()._address()[0], "v1beta"

    def _exchange(self, service: str) -> _Exchange:
        """Returns an exchange with one of the SDK's two services."""
        base_url = self.base_url

        def build(key: str, pool: httpx2.Client) -> _Clients:
            self._import_sdk()
            return _Clients(base_url, key, pool)

        clients: _Clients = self._sdk_client(base_url, build)
        return _Exchange(clients, service)

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
        given = request.vendor_parameters
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
        return read_count(read_json(reply.body, reply.headers.get("content-type", "")), "totalTokens")

    def _ping(self) -> None:
        with self._vendor_errors():
            message = self._message("GetModelRequest", {"name": _path_of(self.model)})
            self._exchange("model_service").ask("get_model", message).read()


class _Clients:
    """The SDK's clients for one address and key."""

    def __init__(self, base_url: str, key: str, pool: httpx2.Client) -> None:
        self.key = key
        self.pool = pool
        self._services = {
            service: _rest_client(service, base_url)
            for service in ("generative_service", "model_service")
        }

    def client(self, service: str, session: _Exchange) -> Any:
        """Returns a service's client that sends by a session of its own, at the cost of a copy."""
        client = copy.copy(self._services[service])
        client._session = session
        return client


class _Exchange:
    """One request, sent in place of the session from `requests` that the SDK has by itself."""

    def __init__(self, clients: _Clients, service: str) -> None:
        self._clients = clients
        self._service = service
        self._reply: httpx2.Response | None = None
        self.extra_headers: Mapping[str, str] = {}
        self.extra_body: Mapping[str, Any] = {}
        self.parameters: dict[str, str] = {}

    def ask(self, method: str, message: Any) -> httpx2.Response:
        """Sends one of the SDK's requests; returns the reply, of which nothing was read yet.

        Raises:
            InvalidRequestError: The model's name does not fit into the SDK's URLs.
            Exception: One of google.api_core's, for an error status; or the HTTP client's.
        """
        send = getattr(self._clients.client(self._service, self), method)
        try:
            send(message)  # no retries: they come from the layer above this one in the SDK
        except ValueError as error:
            if self._reply is not None:
                raise
            raise InvalidRequestError(f"the SDK knows no URL for this request: {error}") from None
        assert self._reply is not None
        return self._reply

    def get(self, url: str, **arguments: Any) -> _Nothing:
        """As in `requests`."""
        return self._send("GET", url, **arguments)

    def post(self, url: str, **arguments: Any) -> _Nothing:
        """As in `requests`."""
        return self._send("POST", url, **arguments)

    def _send(
        self, method: str, url: str, *, headers: Mapping[str, str], data: str | None = None, **_: Any
    ) -> _Nothing:
        # Left out: the SDK's parameter that asks for numbers in place of Google's words, and its
        # time-out, for which the Scope stands.
        if self.extra_body:
            body = json.loads(data or "{}")
            lay_over(body, self.extra_body)
            data = json.dumps(body)
        pool = self._clients.pool
        request = pool.build_request(
            method,
            url,
            params=self.parameters,
            # The key isn't known to the SDK, whose log shows all headers that it was given.
            headers={**headers, "x-goog-api-key": self._clients.key, **self.extra_headers},
            content=data,
        )
        self._reply = reply = pool.send(request, stream=True)
        if not reply.is_success:
            reply.read()
            raise _status_error(reply)
        return _Nothing()


class _Nothing:
    """What the SDK gets to read in place of the reply."""

    status_code = 200
    content = b"{}"
    headers: ClassVar[dict[str, str]] = {}

    def iter_content(self, **_: Any) -> Iterator[str]:
        """As in `requests`."""
        return iter(())


class _Reply:
    """A whole reply, by the names that `GeminiAdapter` reads."""

    def __init__(self, reply: httpx2.Response) -> None:
        self.body = reply.read()
        self.headers = reply.headers


def _rest_client(service: str, base_url: str) -> Any:
    """Makes the SDK's client for a service; nothing of the environment gets into it."""
    module = importlib.import_module(f"{_SERVICES}.{service}.transports")
    name = "".join(word.title() for word in service.split("_"))
    credentials = importlib.import_module("google.auth.credentials").AnonymousCredentials()
    return getattr(module, f"{name}RestTransport")(host=base_url, credentials=credentials)


def _status_error(reply: httpx2.Response) -> Exception:
    """Returns the SDK's own error for a reply's status, with the reply's JSON for the tables."""
    exceptions = importlib.import_module("google.api_core.exceptions")
    text = reply.text
    error: Any = exceptions.from_http_status(reply.status_code, text[:1000], response=reply)
    try:
        error.body = json.loads(text)
    except (ValueError, RecursionError):
        error.body = None
    return error  # type: ignore[no-any-return]  # the SDK has no types


def _path_of(model: str) -> str:
    """Returns a model's name as it stands in the SDK's URLs."""
    return model if model.startswith(("models/", "tunedModels/")) else f"models/{model}"


def _quieten_import() -> None:
    """Keeps the SDK's news of the Python versions that it will give up from its user.

    A filter for its modules, because `warnings.catch_warnings` is for one thread only, and the
    SDK is imported on another.
    """
    if LegacyGeminiAdapter.sdk_module not in sys.modules:
        warnings.filterwarnings("ignore", category=FutureWarning, module=r"google\.api_core\.")
