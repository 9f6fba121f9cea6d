from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest

from llmkit import Budget, BudgetExceededError, Client, LLMError, Settings
from llmkit.models import get_model_info
from llmkit.testing import Answer, ProviderServer, RecordedRequest

MODEL = "openai:gpt-6-luna"


@pytest.fixture
def settings(server: ProviderServer) -> Settings:
    return Settings(openai_api_key="sk-test-0123456789", openai_api_base=server.base_url("openai"))


@pytest.fixture
def client(settings: Settings) -> Client:
    return Client(model=MODEL, settings=settings)


def test_a_block_pays_for_its_calls_and_streams(client: Client, server: ProviderServer) -> None:
    """What the replies cost is what the block has spent, streams included; other calls are free."""
    server.answer = Answer("Hello there.", input_tokens=100, output_tokens=50)

    with client.budget(usd="0.01") as budget:
        plain = client.complete("Hi", max_tokens=60)
        with client.stream("Hi", max_tokens=60) as stream:
            assert "".join(stream.text_stream) == "Hello there."
    client.complete("Hi", max_tokens=60)

    assert plain.cost is not None
    assert budget.spent_usd == 2 * plain.cost
    assert budget.spent_tokens == 300
    assert budget.reserved_usd == 0


def test_a_call_that_does_not_fit_is_refused_before_it_is_sent(
    client: Client, server: ProviderServer
) -> None:
    """The worst case decides, and a refusal costs nothing."""
    with client.budget(usd="0.000001") as budget, pytest.raises(BudgetExceededError) as caught:
        client.complete("Hi", max_tokens=1000)

    assert caught.value.model == "gpt-6-luna"
    assert server.requests == []
    assert budget.spent_usd == 0


def test_without_max_tokens_the_affordable_is_sent(client: Client, server: ProviderServer) -> None:
    """An open-ended call is capped at what the budget allows, and its user is told."""
    with client.budget(usd="0.001"):
        reply = client.complete("Hi")

    assert 1 <= server.requests[0].json["max_completion_tokens"] < 2000
    assert any("budget" in warning for warning in reply.warnings)


def test_every_try_is_paid(client: Client, server: ProviderServer) -> None:
    """A try that the vendor may have billed counts, though a later one gave the answer."""
    server.script(Answer(cut_after=150), Answer("Fine.", input_tokens=5, output_tokens=1))

    with client.budget(usd="0.01") as budget:
        reply = client.complete("Hi", max_tokens=10, timeout=20)

    assert len(reply.attempts) == 2
    assert reply.cost is not None
    assert budget.spent_usd > reply.cost
    assert budget.reserved_usd == 0


def test_a_standing_budget_holds_for_every_call_of_a_client(
    settings: Settings, server: ProviderServer
) -> None:
    """`Client(budget=…)` needs no block, and holds in any thread."""
    server.answer = Answer("Hi", input_tokens=1000, output_tokens=1000)
    budget = Budget(usd="0.0015")
    client = Client(model=MODEL, settings=settings, budget=budget)
    with ThreadPoolExecutor(1) as pool:
        calls = [pool.submit(client.complete, "Hi", max_tokens=1000) for _ in range(4)]
    errors = [call.exception() for call in calls]

    assert errors[0] is None
    assert isinstance(errors[-1], BudgetExceededError)
    assert budget.spent_usd <= Decimal("0.0015")


def test_sixty_four_workers_spend_it_all_and_not_a_cent_more(
    client: Client, server: ProviderServer
) -> None:
    """Calls side by side neither overspend nor are refused while there was room for them."""
    prices = get_model_info("gpt-6-luna").prices
    assert prices is not None
    spent = Decimal(0)
    lock = threading.Lock()

    def answer(request: RecordedRequest) -> Answer:
        nonlocal spent
        tokens = random.Random(request.number).randint(1, 200)
        with lock:
            spent += (prices["input"] * 12 + prices["output"] * tokens) / 1_000_000
        return Answer("x", input_tokens=12, output_tokens=tokens)

    server.answer = answer
    with client.budget(usd="0.01") as budget, ThreadPoolExecutor(64) as pool:
        ask = budget.wrap(lambda: client.complete("Hi there", max_tokens=200, timeout=60))
        outcomes = [pool.submit(ask) for _ in range(400)]
        refused = [
            error for one in outcomes if isinstance(error := one.exception(), BudgetExceededError)
        ]
        others = [one for one in outcomes if isinstance(one.exception(), LLMError)]

    assert len(others) == len(refused)
    assert spent == budget.spent_usd <= Decimal("0.01")
    # A refused call's worst case (its 200 tokens, and its input at one token per byte) had no room.
    worst = (prices["input"] * 40 + prices["output"] * 200) / 1_000_000
    assert not refused or budget.spent_usd > Decimal("0.01") - worst
