"""The fixtures of the documented suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from llmkit import BaseLLMAdapter, LLMCache, get_adapter
from llmkit.cache import MemoryCache, RedisCache, SQLiteCache, TwoLevelCache
from llmkit.testing import ProviderServer
from tests.cache.conftest import patient, redis_server
from tests.cache.servers import Clock, RedisServer
from tests.llm.fakes import KEY, adapter_at, mapping

__all__ = ["patient", "redis_server"]


@pytest.fixture
def test_prompt() -> str:
    return "Explain in one sentence why the sky is blue."


@pytest.fixture
def test_messages() -> list[dict[str, str]]:
    return [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "Why is the sky blue?"},
        {"role": "assistant", "content": "Because of Rayleigh scattering."},
        {"role": "user", "content": "And at sunset?"},
    ]


@pytest.fixture
def openai_adapter(server: ProviderServer) -> BaseLLMAdapter:
    return adapter_at("gpt-6-luna", server)


@pytest.fixture
def anthropic_adapter(server: ProviderServer) -> BaseLLMAdapter:
    return adapter_at("claude-haiku-5-5", server)


@pytest.fixture
def gemini_adapter(server: ProviderServer) -> BaseLLMAdapter:
    return adapter_at("gemini-3.8-flash", server)


@pytest.fixture
def mock_openai_adapter(mocker: MockerFixture) -> BaseLLMAdapter:
    adapter = get_adapter("gpt-6-luna", api_key=KEY)
    mocker.patch.object(adapter, "_generate_text", return_value=mapping("A mocked answer."))
    return adapter


@pytest.fixture
def mock_anthropic_adapter(mocker: MockerFixture) -> BaseLLMAdapter:
    adapter = get_adapter("claude-haiku-5-5", api_key=KEY)
    mocker.patch.object(adapter, "_generate_text", return_value=mapping("Another mocked answer."))
    return adapter


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["sqlite", "redis"])
def llm_cache(
    request: pytest.FixtureRequest,
    redis_server: RedisServer,
    tmp_path: Path,
    clock: Clock,
    patient: None,
) -> Iterator[LLMCache]:
    """Memory in front of a store that processes share; time stands still, and no life is shorter.

    Both kinds of store have to behave alike, and with a real Redis behind it.
    """

    def longest() -> float:
        return 1.0

    far: LLMCache
    if request.param == "sqlite":
        far = SQLiteCache(tmp_path / "cache.db", clock=clock, rng=longest)
    else:
        far = RedisCache(redis_server.url, clock=clock, rng=longest)
    cache = TwoLevelCache(MemoryCache(clock=clock, rng=longest), far)
    yield cache
    cache.clear()
    cache.close()
