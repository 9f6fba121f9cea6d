"""What the tests of the adapters share: one server for all, and retries that don't wait."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

import llmkit.adapters.call_reader
from llmkit.retry import RetryPolicy
from llmkit.testing import ProviderServer


@pytest.fixture(scope="session")
def lasting_server() -> Iterator[ProviderServer]:
    """One server for the folder: an SDK client is built for each address, at up to 60 ms."""
    with ProviderServer() as server:
        yield server


@pytest.fixture
def server(lasting_server: ProviderServer) -> Iterator[ProviderServer]:
    """The server, as new."""
    lasting_server.reset()
    yield lasting_server
    lasting_server.reset()


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which are noted instead of waited; the random part is all of it."""
    noted: list[float] = []
    policy = functools.partial(RetryPolicy, sleep=noted.append, rng=lambda: 1.0)
    monkeypatch.setattr(llmkit.adapters.call_reader, "RetryPolicy", policy)
    return noted


@pytest.fixture(autouse=True)
def patience(endless_patience: None) -> None:
    """However often a test's provider fails, it is asked again."""
