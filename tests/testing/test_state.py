"""The switch that makes a test begin like a new process."""

from __future__ import annotations

import pytest

from llmkit import CircuitOpenError, Client, LLMError, get_adapter, get_performance_tracker
from llmkit.testing import Answer, ProviderServer, reset_state


def test_reset_state_forgets_what_calls_have_taught(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Circuits close, figures are at zero, and no answer is cached any more."""
    monkeypatch.setenv("LLMKIT_CACHE_ENABLED", "yes")
    adapter = get_adapter("gpt-6-luna", api_key="sk-test", api_base=server.base_url("openai"))
    client = Client(max_retries=0)
    assert client.complete("kept", model=adapter).cached is None
    assert client.complete("kept", model=adapter).cached == "memory"
    server.answer = Answer(status=503)
    for number in range(20):
        with pytest.raises(LLMError) as caught:
            client.complete(f"{number}", model=adapter)
    assert isinstance(caught.value, CircuitOpenError)

    reset_state()

    server.answer = Answer("well again")
    assert not get_performance_tracker().get_stats()
    assert client.complete("kept", model=adapter).text == "well again"
