"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import llmkit.pipeline.tries
import llmkit.settings
from llmkit.breaker import CircuitBreaker
from llmkit.retry import RetryBudget
from llmkit.testing import ProviderServer, reset_state

# A busy machine makes examples slow: that is no fault of the code under test.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

# Whatever a developer's shell holds, no test may see it: a real key would reach a real vendor.
_HOST_VARIABLES = (
    "OPENAI_",
    "ANTHROPIC_",
    "GEMINI_",
    "GOOGLE_",
    "GROQ_",
    "OPENROUTER_",
    "VLLM_",
    "OLLAMA_",
    "LLM_",
    "LLMKIT_",
    "CACHE_",
)
_HOST_NAMES = (
    "PRIMARY_LLM",
    "FALLBACK_LLM",
    "ENABLED_MODELS",
    "REQUEST_TIMEOUT",
    "CONNECT_TIMEOUT",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
)


@pytest.fixture(autouse=True)
def clean_settings(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    import os

    paid = request.node.name.endswith(("openai_api", "anthropic_api", "gemini_api"))
    for name in list(os.environ):
        if not paid and (name in _HOST_NAMES or name.startswith(_HOST_VARIABLES)):
            monkeypatch.delenv(name)
    # No `.env` of the checkout either.
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd", numbered=True))
    monkeypatch.setattr(llmkit.settings, "_shared", {})
    # A test that asks twice means it; those of the cache turn it on.
    monkeypatch.setenv("LLMKIT_CACHE_ENABLED", "no")


@pytest.fixture(autouse=True)
def fresh_figures() -> None:
    """What one test's calls have taught the process changes nothing for the next."""
    reset_state()


@pytest.fixture
def endless_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """No circuit opens, and no retry budget ends: for tests of what each single call does."""
    breaker, budget = CircuitBreaker(min_calls=1_000_000_000), RetryBudget(reserve=1e9)
    monkeypatch.setattr(llmkit.pipeline.tries, "breaker_for", lambda *_: breaker)
    monkeypatch.setattr(llmkit.pipeline.tries, "retry_budget", lambda _: budget)


@pytest.fixture
def server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


# Tests that may be skipped, by a part of their name, and why. With LLMKIT_PINNED_SKIPS set, as in
# continuous integration, any other skip fails the run: a test that never runs protects nothing.
PINNED_SKIPS = {
    "openai_api": "needs a paid key",
    "anthropic_api": "needs a paid key",
    "gemini_api": "needs a paid key",
}


def pytest_sessionfinish(session: pytest.Session) -> None:
    import os

    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("LLMKIT_PINNED_SKIPS"):
        return
    skipped = [report.nodeid for report in reporter.stats.get("skipped", ())]
    unpinned = [node for node in skipped if not any(part in node for part in PINNED_SKIPS)]
    if unpinned:
        reporter.write_line(f"skips outside the pinned list: {', '.join(unpinned)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
