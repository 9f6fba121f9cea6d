"""What the tests of fallback share: SDKs that are loaded, and providers that last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmkit.connection_pool import cleanup_connection_pools
from llmkit.testing import ProviderServer
from tests.deadline.calling import VENDORS, adapter
from tests.network_faults import black_hole


@pytest.fixture(scope="session")
def lasting_servers() -> Iterator[tuple[ProviderServer, ...]]:
    """Three providers for the folder, with each vendor's SDK loaded and its client built.

    Loading them takes seconds, which no test of time-outs shall count.
    """
    with (
        pytest.MonkeyPatch.context() as patch,
        ProviderServer() as one,
        ProviderServer() as two,
        ProviderServer() as three,
    ):
        patch.setattr("llmkit.settings._shared", {})
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            patch.delenv(name, raising=False)
        for server in (one, two, three):
            for vendor in VENDORS:
                adapter(vendor, server.base_url(vendor)).generate("warm up")
        yield one, two, three
    cleanup_connection_pools()


@pytest.fixture
def servers(
    lasting_servers: tuple[ProviderServer, ...], clean_settings: None
) -> Iterator[tuple[ProviderServer, ...]]:
    """The three providers, as new."""
    for server in lasting_servers:
        server.reset()
    yield lasting_servers
    for server in lasting_servers:
        server.reset()


@pytest.fixture(scope="session")
def dead_end() -> Iterator[tuple[str, int]]:
    """An address where `connect()` hangs."""
    with black_hole() as address:
        yield address
