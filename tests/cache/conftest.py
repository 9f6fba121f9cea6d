"""What the tests of caches share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmkit.cache import close_caches
from tests.cache.servers import Clock, RedisServer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def usual_caches(clean_settings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Here the cache is on, as it is for users."""
    monkeypatch.delenv("LLMKIT_CACHE_ENABLED")
    yield
    close_caches()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Operations may take long, for tests that are not about time: a busy machine fails none."""
    monkeypatch.setattr("llmkit.cache.shared.OPERATION", 10.0)
    monkeypatch.setattr("llmkit.cache.redis_link.CONNECTING", 10.0)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One server for all tests that leave it as they found it."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A server for one test alone, which may do to it what it likes."""
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    if server.process is not None:
        server.thaw()
    server.kill()
