"""What the tests of cached calls share: Clients whose cache is on, and a provider to ask."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmkit import Client, Settings
from llmkit.cache import SQLiteCache
from llmkit.testing import Answer, ProviderServer
from llmkit.testing.recorded_request import RecordedRequest
from tests.cache.servers import until

KEY = "sk-test-0123456789abcdefABCDEF"
MODEL = "gpt-6-luna"
OTHER = "claude-haiku-5-5"

__all__ = ["KEY", "MODEL", "OTHER", "counted", "file_at", "make_client", "settings_for"]


def settings_for(server: ProviderServer, **fields: Any) -> Settings:
    """Settings under which all three vendors are the server, and the cache is on."""
    given: dict[str, Any] = {
        "openai_api_key": KEY,
        "openai_api_base": server.base_url("openai"),
        "anthropic_api_key": KEY,
        "anthropic_api_base": server.base_url("anthropic"),
        "gemini_api_key": KEY,
        "gemini_api_base": server.base_url("gemini"),
        "cache_enabled": True,
    }
    return Settings(**{**given, **fields})


def make_client(server: ProviderServer, **arguments: Any) -> Client:
    """A Client that asks the server, without retries, and with the cache on."""
    fields = arguments.pop("fields", {})
    given = {"model": MODEL, "max_retries": 0, "settings": settings_for(server, **fields)}
    return Client(**{**given, **arguments})


def file_at(path: Path) -> str:
    """The URL of a cache's file that is there: to make it may take a busy disk too long."""
    cache = SQLiteCache(path)
    until(lambda: cache.set("made", True))
    until(lambda: cache.delete("made"))
    cache.close()
    return f"sqlite:///{path}"


def counted(text: str = "answer", **facts: Any) -> Callable[[RecordedRequest], Answer]:
    """Answers that are told apart by their numbers: `answer 1`, `answer 2` and so on."""
    given: list[None] = []

    def answer(request: RecordedRequest) -> Answer:
        given.append(None)
        return Answer(f"{text} {len(given)}", **facts)

    return answer
