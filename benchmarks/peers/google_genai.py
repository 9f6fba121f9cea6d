"""The official SDK of Google, which llmkit's calls to Gemini are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.peers import KEY, Calls, Messages

PACKAGES = ("google-genai==3.4.0",)
IMPORT = "from google import genai"
GEMINI = "gemini-3.8-flash"
ROLES = {"user": "user", "assistant": "model"}


def connect(url: str, timeout: float | None = None) -> Calls:
    """Makes the calls."""
    from google import genai

    options = genai.types.HttpOptions(
        base_url=url, timeout=None if timeout is None else round(1000 * timeout)
    )
    client = genai.Client(api_key=KEY, vertexai=False, http_options=options)

    def contents(messages: Messages) -> Any:
        return [
            {"role": ROLES[each["role"]], "parts": [{"text": each["content"]}]} for each in messages
        ]

    def complete(messages: Messages) -> str:
        reply = client.models.generate_content(model=GEMINI, contents=contents(messages))
        return reply.text or ""

    def stream(messages: Messages) -> Iterator[str]:
        chunks = client.models.generate_content_stream(model=GEMINI, contents=contents(messages))
        for chunk in chunks:
            yield chunk.text or ""

    return Calls(complete, stream)
