"""What the tests of races share: those of deadlines have made it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from llmkit.testing import ProviderServer
from tests.deadline.conftest import (
    any_server,
    authority,
    no_leaks,
    trusted,
    warm_sdks,
)

__all__ = ["any_server", "authority", "no_leaks", "second_server", "trusted", "warm_sdks"]


@pytest.fixture
def second_server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture(autouse=True)
def settled(no_leaks: None) -> Iterator[None]:
    """Lets losers that were cut a moment ago end, before anybody counts what is left."""
    yield
    for thread in threading.enumerate():
        if thread.name in ("llmkit-race", "llmkit-parallel"):
            thread.join(5)
