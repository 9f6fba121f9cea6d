"""Circuit breakers in calls: how they open, whom they spare, and how a chain goes round them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import llmkit.pipeline.tries
from llmkit import AllModelsFailedError, CallRecord, CircuitOpenError, Client, ErrorCode, Settings
from llmkit.breaker import breaker_for
from llmkit.errors import BudgetExceededError, InvalidRequestError, LLMTimeoutError, ProviderError
from llmkit.pipeline import ModelCall
from llmkit.retry import retry_budget
from llmkit.scope import Scope
from llmkit.testing import Answer, ProviderServer, no_sleeping

KEY = "sk-test-0123456789"


@pytest.fixture
def second_server() -> Iterator[ProviderServer]:
    with ProviderServer() as server:
        yield server


@pytest.fixture
def settings(server: ProviderServer, second_server: ProviderServer) -> Settings:
    return Settings(
        openai_api_key=KEY,
        openai_api_base=server.base_url("openai"),
        anthropic_api_key=KEY,
        anthropic_api_base=second_server.base_url("anthropic"),
    )


def open_circuit(client: Client, model: str) -> None:
    for _ in range(10):
        with pytest.raises(ProviderError):
            client.complete("hi", model=model, max_retries=0, fallbacks=[])


def test_an_open_circuit_costs_no_request(server: ProviderServer, settings: Settings) -> None:
    """A model that failed ten times running is left alone: no request, no retry, no wait."""
    server.answer = Answer(status=500)
    client = Client("gpt-6-luna", settings=settings)
    open_circuit(client, "gpt-6-luna")
    with pytest.raises(CircuitOpenError) as caught:
        client.complete("hi")

    assert len(server.requests) == 10
    assert caught.value.attempts == ()
    assert caught.value.model == "gpt-6-luna"
    assert 0 < (caught.value.retry_after or 0) <= 5
    # Another model of the same vendor is not concerned, nor is the same model elsewhere.
    server.answer = Answer("fine")
    assert client.complete("hi", model="gpt-6-sol").text == "fine"


def test_a_chain_goes_round_an_open_circuit(server: ProviderServer, settings: Settings) -> None:
    """The next model is asked at once, and the record says why."""
    server.answer = Answer(status=500)
    records: list[CallRecord] = []
    client = Client(
        "gpt-6-luna",
        fallbacks=["claude-haiku-5-5"],
        settings=settings,
        observers=[records.append],
    )
    open_circuit(client, "gpt-6-luna")
    reply = client.complete("hi")

    assert reply.model == "claude-haiku-5-5"
    assert [attempt.model for attempt in reply.attempts] == ["claude-haiku-5-5"]
    assert [step.reason for step in records[-1].fallbacks] == [ErrorCode.LLM_CIRCUIT_OPEN]


def test_when_all_circuits_are_open_one_is_tried(
    server: ProviderServer, second_server: ProviderServer, settings: Settings
) -> None:
    """A chain never fails without asking: the model whose circuit closes first is tried."""
    client = Client("gpt-6-luna", fallbacks=["claude-haiku-5-5"], settings=settings)
    server.answer = second_server.answer = Answer(status=500)
    open_circuit(client, "claude-haiku-5-5")
    open_circuit(client, "gpt-6-luna")
    asked = len(server.requests), len(second_server.requests)
    second_server.answer = Answer("back again")
    reply = client.complete("hi")

    assert reply.text == "back again"  # its circuit opened first
    assert (len(server.requests), len(second_server.requests)) == (asked[0], asked[1] + 1)
    assert breaker_for("anthropic", "claude-haiku-5-5", second_server.base_url("anthropic"))


def test_when_all_circuits_are_open_and_the_try_fails_all_is_said(
    server: ProviderServer, second_server: ProviderServer, settings: Settings
) -> None:
    """The forced try's own failure reaches the caller, beside the open circuits."""
    client = Client("gpt-6-luna", fallbacks=["claude-haiku-5-5"], settings=settings)
    server.answer = second_server.answer = Answer(status=500)
    open_circuit(client, "gpt-6-luna")
    open_circuit(client, "claude-haiku-5-5")
    with pytest.raises(AllModelsFailedError) as caught:
        client.complete("hi", max_retries=0)

    assert len(server.requests) == 11
    codes = [error.code for error in caught.value.errors]
    assert codes == [ErrorCode.LLM_PROVIDER_ERROR, ErrorCode.LLM_CIRCUIT_OPEN]


def test_a_callers_haste_opens_no_circuit(server: ProviderServer, settings: Settings) -> None:
    """Time-outs of a fraction of a second say nothing of the model."""
    client = Client("gpt-6-luna", settings=settings)
    client.complete("hi")  # loads the SDK
    server.answer = Answer("slow", delay=5)
    for _ in range(12):
        with pytest.raises(LLMTimeoutError):
            client.complete("hi", timeout=0.05)
    server.answer = Answer("fine")
    assert client.complete("hi").text == "fine"


def test_what_is_no_failure_of_the_provider_opens_no_circuit(
    server: ProviderServer, settings: Settings
) -> None:
    """Wrong requests and empty budgets are not held against the model."""
    client = Client("gpt-6-luna", settings=settings)
    server.answer = Answer(status=400)
    for _ in range(12):
        with pytest.raises(InvalidRequestError):
            client.complete("hi")
    server.answer = Answer("fine")
    with client.budget(tokens=1):
        for _ in range(12):
            with pytest.raises(BudgetExceededError):
                client.complete("hi")
    assert client.complete("hi").text == "fine"


def test_a_circuit_that_opens_between_tries_does_not_hide_their_failure(
    server: ProviderServer, settings: Settings
) -> None:
    """Whoever's tries open the circuit is told what they failed of, and that it is open now."""
    server.answer = Answer(status=500)
    client = Client("gpt-6-luna", settings=settings)
    with no_sleeping():
        for _ in range(2):
            with pytest.raises(ProviderError):
                client.complete("hi")  # four tries each
        with pytest.raises(ProviderError, match="not tried again") as caught:
            client.complete("hi")

    assert [attempt.status for attempt in caught.value.attempts] == [500, 500]
    assert len(server.requests) == 10


def test_nobody_pauses_before_a_try_that_an_open_circuit_would_refuse(
    server: ProviderServer, settings: Settings
) -> None:
    """The call whose failure opens the circuit fails, or falls back, at once."""
    server.answer = Answer(status=500)
    client = Client("gpt-6-luna", settings=settings)
    for _ in range(9):
        with pytest.raises(ProviderError):
            client.complete("hi", max_retries=0)
    with no_sleeping() as pauses, pytest.raises(ProviderError) as caught:
        client.complete("hi", max_retries=3)

    assert pauses == []
    assert "not tried again, because 10 of its 10 tries" in caught.value.message
    assert len(server.requests) == 10


def test_a_forced_try_is_made_once(
    server: ProviderServer, second_server: ProviderServer, settings: Settings
) -> None:
    """While a whole chain is down, each call sends one request: forcing is not repeated."""
    client = Client("gpt-6-luna", fallbacks=["claude-haiku-5-5"], settings=settings)
    server.answer = second_server.answer = Answer(status=500)
    open_circuit(client, "gpt-6-luna")
    open_circuit(client, "claude-haiku-5-5")
    asked = len(server.requests) + len(second_server.requests)
    with no_sleeping() as pauses:
        for _ in range(5):
            with pytest.raises(AllModelsFailedError, match="not tried again"):
                client.complete("hi", max_retries=3)

    assert pauses == []
    assert len(server.requests) + len(second_server.requests) == asked + 5


def test_calls_that_an_open_circuit_refuses_pay_for_no_retries(
    server: ProviderServer, settings: Settings
) -> None:
    """The retry budget is a part of what was sent, not of what was asked for."""
    server.answer = Answer(status=500)
    client = Client("gpt-6-luna", settings=settings)
    open_circuit(client, "gpt-6-luna")
    before = retry_budget("openai").available
    for _ in range(20):
        with pytest.raises(CircuitOpenError):
            client.complete("hi")
    assert retry_budget("openai").available < before + 1  # time alone fills it up to the reserve


def test_a_circuit_that_opens_does_not_hide_a_time_out(
    server: ProviderServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try that took too long is what the caller is told of, not the circuit that it opened."""
    monkeypatch.setattr(llmkit.pipeline.tries, "PATIENCE", 0.0)
    client = Client("gpt-6-luna", settings=settings)
    client.complete("warm up")
    server.answer = Answer(delay=30)
    for _ in range(9):
        with pytest.raises(LLMTimeoutError):
            client.complete("hi", attempt_timeout=0.05, max_retries=0)
    breaker = breaker_for("openai", "gpt-6-luna", server.base_url("openai"))
    assert breaker.state == "open"
    monkeypatch.setattr(breaker, "refusal", lambda after: None)  # it opens only in the pause
    with no_sleeping(), pytest.raises(LLMTimeoutError, match="not tried again") as caught:
        _forced(client)
    assert [attempt.code for attempt in caught.value.attempts] == [ErrorCode.LLM_TIMEOUT]


def _forced(client: Client) -> None:
    adapter = client._asking.adapter(None)
    request, options = adapter.read_call("hi", {"attempt_timeout": 0.05, "max_retries": 3})
    call = ModelCall(adapter, request, options, streamed=False)
    with Scope(5).entered():
        call.answer(forced=True)
