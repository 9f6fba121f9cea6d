"""any-llm: an `AnyLLM` that is made once, as its documentation advises where calls repeat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.peers import KEY, MODEL, Calls, Messages

PACKAGES = ("any-llm-sdk[openai]==1.40.2",)
IMPORT = "from any_llm import AnyLLM"


def connect(url: str, timeout: float | None = None) -> Calls:
    """Makes the calls."""
    from any_llm import AnyLLM

    llm: Any = AnyLLM.create("openai", api_key=KEY, api_base=f"{url}/v1", max_retries=0)
    limits: Any = {} if timeout is None else {"timeout": timeout}

    def complete(messages: Messages) -> str:
        reply = llm.completion(model=MODEL, messages=messages, **limits)
        text: str = reply.choices[0].message.content
        return text

    def stream(messages: Messages) -> Iterator[str]:
        for chunk in llm.completion(model=MODEL, messages=messages, stream=True, **limits):
            if chunk.choices:
                yield chunk.choices[0].delta.content or ""

    return Calls(complete, stream)
