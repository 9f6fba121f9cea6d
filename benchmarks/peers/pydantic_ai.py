"""Pydantic AI: an `Agent` over a provider with `base_url`, by its synchronous methods.

Each thread has an agent of its own: one that is shared fails in part of the calls (2.68), since
its connections are bound to the event loop of the thread that opened them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from benchmarks.peers import KEY, MODEL, Calls, Messages

PACKAGES = ("pydantic-ai-slim[openai]==2.68.0",)
IMPORT = "from pydantic_ai import Agent"


def connect(url: str, timeout: float | None = None) -> Calls:
    """Makes the calls."""
    from openai import AsyncOpenAI
    from pydantic_ai import Agent, messages as parts
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    limits: Any = None if timeout is None else {"timeout": timeout}
    own = threading.local()

    def agent() -> Any:
        if not hasattr(own, "agent"):
            sdk = AsyncOpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0)
            model = OpenAIChatModel(MODEL, provider=OpenAIProvider(openai_client=sdk))
            own.agent = Agent(model, model_settings=limits)
        return own.agent

    agent()

    def history(messages: Messages) -> list[Any]:
        return [
            parts.ModelRequest(parts=[parts.UserPromptPart(each["content"])])
            if each["role"] == "user"
            else parts.ModelResponse(parts=[parts.TextPart(each["content"])])
            for each in messages[:-1]
        ]

    def complete(messages: Messages) -> str:
        last = messages[-1]["content"]
        text: str = agent().run_sync(last, message_history=history(messages)).output
        return text

    def stream(messages: Messages) -> Iterator[str]:
        last = messages[-1]["content"]
        with agent().run_stream_sync(last, message_history=history(messages)) as answer:
            yield from answer.stream_text(delta=True, debounce_by=None)

    return Calls(complete, stream)
