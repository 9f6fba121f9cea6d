"""What the tests of deadlines share: warm SDKs, trust in a test's own authority, no leaks."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator

import pytest

from llmkit import connection_pool
from llmkit.testing import ProviderServer
from llmkit.threads import detached_count
from tests.deadline.calling import VENDORS, adapter, open_descriptors
from tests.deadline.probe import Probe
from tests.network_faults import TLSAuthority, tls_authority

SETTLES_WITHIN = 5.0  # seconds, for threads and sockets that are ending


@pytest.fixture(scope="session")
def authority() -> Iterator[TLSAuthority]:
    with tls_authority() as authority:
        yield authority


@pytest.fixture(scope="session", autouse=True)
def warm_sdks() -> None:
    """Loads the SDKs, which takes seconds, before any time is measured."""
    with pytest.MonkeyPatch.context() as patch, ProviderServer() as server:
        patch.setattr("llmkit.settings._shared", {})
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            patch.delenv(name, raising=False)
        for vendor in VENDORS:
            adapter(vendor, server.base_url(vendor)).generate("warm up")
            adapter(vendor, server.base_url(vendor)).stream("warm up").close()
    # What is loaded by now stays: each test's own collections need not look at it again.
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_leaks(warm_sdks: None, clean_settings: None) -> Iterator[None]:
    """Holds every test here to the promise that nothing is left behind."""
    connection_pool.cleanup_connection_pools()
    gc.collect()
    threads, descriptors = set(threading.enumerate()), open_descriptors()
    yield
    gate_places = {name: pool["in_use"] for name, pool in connection_pool.health_check().items()}
    assert not any(gate_places.values()), gate_places
    connection_pool.cleanup_connection_pools()
    ends = time.monotonic() + SETTLES_WITHIN
    while time.monotonic() < ends:
        left = set(threading.enumerate()) - threads
        if not left and detached_count() == 0 and open_descriptors() <= descriptors:
            break
        for thread in left:
            thread.join(0.05)
        gc.collect()
    assert set(threading.enumerate()) <= threads
    assert detached_count() == 0
    assert open_descriptors() <= descriptors


@pytest.fixture
def trusted(authority: TLSAuthority, monkeypatch: pytest.MonkeyPatch) -> Iterator[TLSAuthority]:
    """The authority, trusted by this process's one TLS context for the length of a test."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    connection_pool._ssl_context.close()
    yield authority
    connection_pool.cleanup_connection_pools()
    connection_pool._ssl_context.close()


@pytest.fixture(params=["plain", "tls"])
def any_server(request: pytest.FixtureRequest) -> Iterator[ProviderServer]:
    """A provider over plain HTTP, and in a second run over TLS."""
    tls = request.getfixturevalue("trusted").server if request.param == "tls" else None
    with ProviderServer(tls=tls) as server:
        yield server


@pytest.fixture
def probe(monkeypatch: pytest.MonkeyPatch) -> Probe:
    return Probe(monkeypatch)
