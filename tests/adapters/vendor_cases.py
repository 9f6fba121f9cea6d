"""The vendors that the adapter contract runs against, and how each says things on the wire."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

from llmkit import BaseLLMAdapter, get_adapter
from llmkit.testing import ProviderServer, RecordedRequest

__all__ = [
    "ANTHROPIC",
    "CASES",
    "GEMINI",
    "GROQ",
    "LEGACY_GEMINI",
    "LOCAL",
    "OPENAI",
    "OPENROUTER",
    "Case",
    "errors_of",
    "fresh_key",
]

_numbers = itertools.count(1)


def fresh_key() -> str:
    """A key that no test has used yet, in a shape that no vendor has: an SDK client of its own."""
    return f"warehouse{next(_numbers):06d}sesame"


@dataclass(frozen=True)
class Case:
    """One provider, and one of its models that takes temperature and has a price (or has none)."""

    provider: str
    model: str
    wire: Literal["openai", "anthropic", "gemini"]
    path: str
    known: bool = True
    backend: str | None = None

    def adapter(self, server: ProviderServer, **arguments: Any) -> BaseLLMAdapter:
        """The provider's adapter, pointed at the server."""
        return get_adapter(
            **{
                "model": self.model,
                "provider": self.provider,
                "api_base": server.base_url(self.wire),
                "api_key": "warehouse000000sesame",
                **({"backend": self.backend} if self.backend else {}),
                **arguments,
            },
        )

    def key_in(self, request: RecordedRequest) -> str:
        """The key that a request carries."""
        if self.wire == "gemini":
            return request.headers["x-goog-api-key"]
        return request.headers["authorization"].removeprefix("Bearer ")


OPENAI = Case("openai", "gpt-4o", "openai", "/v1/chat/completions")
ANTHROPIC = Case("anthropic", "claude-haiku-4-5", "anthropic", "/v1/messages")
GEMINI = Case("gemini", "gemini-2.5-flash", "gemini", "/v1/models/gemini-2.5-flash:generateContent")
LEGACY_GEMINI = Case(
    "gemini",
    "gemini-2.5-flash",
    "gemini",
    "/v1beta/models/gemini-2.5-flash:generateContent",
    backend="google-generativeai",
)
GROQ = Case("groq", "llama-3.3-70b-versatile", "openai", "/v1/chat/completions", known=False)
OPENROUTER = Case("openrouter", "some/model", "openai", "/v1/chat/completions", known=False)
LOCAL = Case("local", "smollm2-135m", "openai", "/v1/chat/completions")
CASES = (OPENAI, ANTHROPIC, GEMINI, LEGACY_GEMINI, GROQ, OPENROUTER, LOCAL)


def errors_of(case: Case) -> dict[int, str]:
    """The codes that an error status has, whatever the body says: the same for every vendor."""
    assert case in CASES
    return {
        400: "INVALID_REQUEST",
        401: "AUTHENTICATION_ERROR",
        402: "LLM_QUOTA_EXCEEDED",
        403: "PERMISSION_DENIED",
        404: "MODEL_NOT_FOUND",
        405: "INVALID_REQUEST",
        407: "CONFIGURATION_ERROR",
        408: "LLM_TIMEOUT",
        409: "INVALID_REQUEST",
        410: "MODEL_NOT_FOUND",
        413: "INVALID_REQUEST",
        415: "INVALID_REQUEST",
        418: "LLM_PROVIDER_ERROR",
        422: "INVALID_REQUEST",
        425: "LLM_PROVIDER_ERROR",
        429: "LLM_RATE_LIMIT",
        431: "INVALID_REQUEST",
        451: "PERMISSION_DENIED",
        499: "LLM_CANCELLED",
        500: "LLM_PROVIDER_ERROR",
        501: "LLM_PROVIDER_ERROR",
        502: "LLM_PROVIDER_ERROR",
        503: "LLM_PROVIDER_ERROR",
        504: "LLM_PROVIDER_ERROR",
        520: "LLM_PROVIDER_ERROR",
        529: "LLM_PROVIDER_ERROR",
    }
