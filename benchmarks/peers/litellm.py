"""LiteLLM: `completion` with `api_base`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.peers import KEY, MODEL, SLOW, Calls, Messages

# The last three are what a hit in its cache imports, though its package doesn't ask for them.
PACKAGES = (
    *("litellm==1.106.2", "diskcache==5.6.3", "redis==8.1.0"),
    *("fastapi", "orjson", "soundfile"),
)
IMPORT = "import litellm"
CACHES = ("memory", "disk", "redis")
# Prices from its own package, for on every import it would try to download newer ones.
ENVIRONMENT = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def connect(
    url: str, timeout: float | None = None, cache: str | None = None, store: str = ""
) -> Calls:
    """Makes the calls; `cache` is `memory`, `disk` or `redis`, and `store` its folder or URL."""
    import litellm

    if cache:
        from litellm.caching.caching import Cache

        kinds: dict[str, dict[str, Any]] = {
            "memory": {"type": "local"},
            "disk": {"type": "disk", "disk_cache_dir": store},
            "redis": {"type": "redis", "url": store},
        }
        litellm.cache = Cache(**kinds[cache])
    common: Any = {
        "api_base": f"{url}/v1",
        "api_key": KEY,
        "max_retries": 0,
        "timeout": timeout,
        **({"caching": True} if cache else {}),
    }
    name = f"openai/{MODEL}"

    def complete(messages: Messages) -> str:
        reply: Any = litellm.completion(model=name, messages=messages, **common)
        text: str = reply.choices[0].message.content
        return text

    def stream(messages: Messages) -> Iterator[str]:
        for chunk in litellm.completion(model=name, messages=messages, stream=True, **common):
            yield chunk.choices[0].delta.content or ""

    def race(messages: Messages) -> str:
        models = [name, f"openai/{SLOW}"]
        reply: Any = litellm.batch_completion_models(models=models, messages=messages, **common)
        text: str = reply.choices[0].message.content
        return text

    return Calls(complete, stream, race)


def count_tokens(text: str) -> int:
    """Counts by the vocabulary cl100k_base."""
    import litellm

    count: int = litellm.token_counter(model="gpt-4", text=text)
    return count
