"""What a `ProviderServer` was asked, and which of a vendor's routes it is."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

__all__ = ["Operation", "RecordedRequest", "Route", "Vendor", "find_route", "parse_json"]

Vendor = Literal["openai", "anthropic", "gemini"]
Operation = Literal["generate", "count_tokens", "embed", "batch_embed", "models", "model"]

_SECRET_HEADERS = frozenset(
    {"authorization", "proxy-authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie"}
)
_SECRET_QUERY = frozenset({"key", "api_key", "access_token"})


@dataclass(eq=False)
class RecordedRequest:
    """One request as it arrived. Its repr hides keys; `headers` and `query` hold them."""

    number: int
    """1 for the server's first request, and so on; `reset()` does not start it anew."""

    method: str
    """The HTTP method, upper case."""

    path: str
    """The path without its query."""

    query: dict[str, str]
    """The query's parameters; of a repeated one the last."""

    headers: dict[str, str]
    """The headers by lower-case name; repeated ones are joined by a comma."""

    body: bytes
    """The body as sent, without transfer encoding."""

    json: Any
    """The body read as JSON; None when it is empty or not JSON."""

    vendor: Vendor | None
    """Whose protocol the path belongs to; None for a path that no vendor has."""

    operation: Operation | None
    """What was asked for; None for a path that no vendor has."""

    model: str | None
    """The model asked for; None when the request names none."""

    stream: bool
    """Whether a stream was asked for."""

    connection: int
    """Which TCP connection it came on: 1 for the server's first, and so on."""

    received_at: float
    """When the request was complete, in `time.monotonic()` seconds."""

    disconnected_at: float | None = None
    """When the client was seen to leave before the answer was complete, in `time.monotonic()`
    seconds; None: it was not."""

    disconnected: threading.Event = field(default_factory=threading.Event)
    """Set when the client is seen to leave before the answer was complete."""

    finished: threading.Event = field(default_factory=threading.Event)
    """Set when the answer is written, or given up."""

    def __repr__(self) -> str:
        headers = _masked(self.headers, _SECRET_HEADERS)
        query = _masked(self.query, _SECRET_QUERY)
        return (
            f"<RecordedRequest {self.number} {self.method} {self.path} query={query} "
            f"vendor={self.vendor} model={self.model} stream={self.stream} "
            f"connection={self.connection} headers={headers} body={len(self.body)} bytes>"
        )


class Route(NamedTuple):
    """Which of a vendor's operations a path is, and the model when the path names it."""

    vendor: Vendor
    operation: Operation
    model: str | None = None
    stream: bool = False


_GEMINI_METHODS: dict[str, tuple[Operation, bool]] = {
    "generateContent": ("generate", False),
    "streamGenerateContent": ("generate", True),
    "countTokens": ("count_tokens", False),
    "embedContent": ("embed", False),
    "batchEmbedContents": ("batch_embed", False),
}
_GEMINI_PATH = re.compile(r"/(?:models|tunedModels)/(?P<model>[^:]+):(?P<method>\w+)\Z")
_MODELS_PATH = re.compile(r"/models(?:/(?P<model>[^:]+))?\Z")
_POST_ROUTES = (
    ("/chat/completions", Route("openai", "generate")),
    ("/v1/messages", Route("anthropic", "generate")),
    ("/messages/count_tokens", Route("anthropic", "count_tokens")),
    ("/responses/input_tokens", Route("openai", "count_tokens")),
    ("/embeddings", Route("openai", "embed")),
)


def find_route(
    method: str, path: str, headers: Mapping[str, str], query: Mapping[str, str]
) -> Route | None:
    """Finds the vendor and the operation that a request is for; None when no vendor has it."""
    if method == "POST":
        for ending, route in _POST_ROUTES:
            if path.endswith(ending):
                return route
        return _gemini_route(path)
    match = _MODELS_PATH.search(path)
    if method != "GET" or match is None:
        return None
    model = match["model"]
    vendor = _vendor_of_models(path, headers, query)
    return Route(vendor, "model" if model else "models", unquote(model) if model else None)


def _gemini_route(path: str) -> Route | None:
    match = _GEMINI_PATH.search(path)
    found = _GEMINI_METHODS.get(match["method"]) if match else None
    if match is None or found is None:
        return None
    operation, stream = found
    return Route("gemini", operation, unquote(match["model"]), stream)


def _vendor_of_models(path: str, headers: Mapping[str, str], query: Mapping[str, str]) -> Vendor:
    """The three vendors share `/v1/models`; what they authenticate with tells them apart."""
    if "anthropic-version" in headers:
        return "anthropic"
    if path.startswith("/v1beta") or "x-goog-api-key" in headers or "key" in query:
        return "gemini"
    return "openai"


def parse_json(body: bytes) -> object:
    """Reads a body as JSON; None when it is empty or not JSON."""
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return None


def _masked(values: Mapping[str, str], secret: frozenset[str]) -> dict[str, str]:
    return {name: "***" if name in secret else value for name, value in values.items()}
