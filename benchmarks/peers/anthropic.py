"""The official SDK of Anthropic, which llmkit's calls to Claude are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.peers import KEY, Calls, Messages

PACKAGES = ("anthropic==2.12.0",)
IMPORT = "import anthropic"
CLAUDE = "claude-haiku-5-5"


def connect(url: str, timeout: float | None = None) -> Calls:
    """Makes the calls."""
    from anthropic import Anthropic

    limits: Any = {} if timeout is None else {"timeout": timeout}
    client = Anthropic(api_key=KEY, base_url=url, max_retries=0, **limits)
    api: Any = client.messages

    def complete(messages: Messages) -> str:
        text: str = api.create(model=CLAUDE, max_tokens=4096, messages=messages).content[0].text
        return text

    def stream(messages: Messages) -> Iterator[str]:
        with api.stream(model=CLAUDE, max_tokens=4096, messages=messages) as events:
            yield from events.text_stream

    return Calls(complete, stream)
