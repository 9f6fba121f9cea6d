"""LangChain: `ChatOpenAI` with `base_url`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.peers import KEY, MODEL, Calls, Messages

PACKAGES = ("langchain-openai==1.7.3",)
IMPORT = "from langchain_openai import ChatOpenAI"
CACHES = ("memory",)


def connect(
    url: str, timeout: float | None = None, cache: str | None = None, store: str = ""
) -> Calls:
    """Makes the calls; `cache` is `memory`, or None for none."""
    from langchain_openai import ChatOpenAI

    if cache:
        from langchain_core.caches import InMemoryCache
        from langchain_core.globals import set_llm_cache

        set_llm_cache(InMemoryCache())
    model: Any = ChatOpenAI(
        model=MODEL, base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=timeout
    )

    def complete(messages: Messages) -> str:
        text: str = model.invoke(messages).content
        return text

    def stream(messages: Messages) -> Iterator[str]:
        for chunk in model.stream(messages):
            yield chunk.content

    return Calls(complete, stream)


def count_tokens(text: str) -> int:
    """Counts by the vocabulary cl100k_base, which has to lie in tiktoken's cache."""
    from langchain_openai import ChatOpenAI

    model: Any = ChatOpenAI(model="gpt-4", api_key=KEY)
    count: int = model.get_num_tokens(text)
    return count
