from __future__ import annotations

import datetime
from dataclasses import replace
from decimal import Context, Decimal, Inexact, localcontext
from typing import Any

import pytest
from hypothesis import given, strategies as st

from llmkit.cost import cost_of, why_unknown
from llmkit.errors import InvalidRequestError
from llmkit.estimates import estimate_cost
from llmkit.models import ModelInfo, PriceChange, get_model_info
from llmkit.types import Usage


def usd(text: str) -> Decimal:
    return Decimal(text)


def model(tiers: Any = (), **prices: str) -> ModelInfo:
    return ModelInfo(
        "m",
        "p",
        prices={kind: Decimal(price) for kind, price in prices.items()},
        price_tiers=tiers,
    )


@pytest.mark.parametrize(
    ("name", "usage", "cost"),
    [
        # OpenAI: cached tokens are a part of prompt_tokens, reasoning is a part of
        # completion_tokens. 0.10 / 0.50 / read 0.01 / write 0.125 per million.
        # 1,000 * 0.10 + 500 * 0.50 = 100 + 250 = 350
        ("gpt-6-luna", Usage(1000, 500), usd("0.00035")),
        # 200 fresh + 768 read + 32 written: 20 + 7.68 + 4 + 100 * 0.50 = 81.68
        ("gpt-6-luna", Usage(1000, 100, 768, 32), usd("0.00008168")),
        # Reasoning costs nothing further: 100 + 50 = 150
        ("gpt-6-luna", Usage(1000, 100, 0, 0, 64), usd("0.00015")),
        # 272,001 tokens are above 272,000: 272,001 * 0.20 + 10 * 0.75 = 54,400.2 + 7.5
        ("gpt-6-luna", Usage(272_001, 10), usd("0.0544077")),
        ("gpt-6-luna", Usage(272_000, 10), usd("0.027205")),
        # Anthropic: input_tokens excludes cached ones, the adapter adds them; 2 / 10 / 0.10 / 2.50.
        # 100 fresh + 2,000 read + 500 written = 2,600: 200 + 200 + 1,250 + 3,000 = 4,650
        ("claude-sonnet-5-5", Usage(2600, 300, 2000, 500), usd("0.00465")),
        # The dearer tier goes by all input, cached input included: 100,001 > 100,000.
        # 1 * 0.50 + 100,000 * 0.05 + 10 * 2.50 = 0.5 + 5,000 + 25
        ("claude-haiku-5-5", Usage(100_001, 10, 100_000), usd("0.0050255")),
        # Gemini: cached content is a part of the prompt, thoughts are added to the output by the
        # adapter; 0.75 / 3.75 / 0.075. 400 * 0.75 + 600 * 0.075 + 200 * 3.75 = 300 + 45 + 750
        ("gemini-3.8-flash", Usage(1000, 200, 600, None, 150), usd("0.001095")),
        # Embeddings have no output.
        ("text-embedding-3-small", Usage(1_000_000, 0), usd("0.02")),
        # The embedded model is free, which is known, and not the same as unknown.
        ("smollm2-135m", Usage(1000, 1000), usd("0")),
        ("gpt-6-luna", Usage(0, 0), usd("0")),
    ],
)
def test_costs_agree_with_a_calculation_by_hand(name: str, usage: Usage, cost: Decimal) -> None:
    """Each vendor's way of counting ends in the vendor's own bill, to the last digit."""
    assert cost_of(usage, get_model_info(name)) == cost


@pytest.mark.parametrize(
    ("usage", "info"),
    [
        (Usage(), model(input="1", output="1")),
        (Usage(1, None), model(input="1", output="1")),
        (Usage(None, 1), model(input="1", output="1")),
        (Usage(1, 1), ModelInfo("m", "p")),
        (Usage(1, 1), model(input="1")),
        (Usage(1, 1), model(output="1")),
        (Usage(10, 1, 5), model(input="1", output="1")),
        (Usage(10, 1, 0, 5), model(input="1", output="1", cache_read="1")),
        (Usage(10, 1), get_model_info("gpt-6.2-astra")),
        # The tier has no price of its own for what was read from the cache.
        (Usage(200_000, 1, 5), get_model_info("gemini-1.5-pro")),
        # More was cached than there was: some count is wrong, so no sum is right.
        (Usage(10, 1, 8, 8), model(input="1", output="1", cache_read="1", cache_write="1")),
        (Usage(10, -1), model(input="1", output="1")),
    ],
)
def test_what_is_not_known_makes_the_cost_unknown(usage: Usage, info: ModelInfo) -> None:
    """A missing count or a missing price gives None, never a sum that is too low."""
    assert cost_of(usage, info) is None


@pytest.mark.parametrize(
    ("usage", "info", "reason"),
    [
        (Usage(1, None), model(input="1", output="1"), "did not say how many tokens"),
        (Usage(1, 1), ModelInfo("m", "p"), "no price of m"),
        (Usage(10, 1, 8, 8), model(input="1", output="1"), "more cached tokens than tokens"),
        (Usage(10, 1, 5), model(input="1", output="1"), "lacks one of the prices of m"),
        (Usage(10, -1), model(input="1", output="1"), "below zero"),
    ],
)
def test_an_unknown_cost_has_its_reason(usage: Usage, info: ModelInfo, reason: str) -> None:
    """Whoever finds no cost on a reply is told what was missing."""
    assert cost_of(usage, info) is None
    assert reason in why_unknown(usage, info)


@pytest.mark.parametrize("max_tokens", [0, -5, "5", True, 2.5])
def test_no_estimate_of_an_answer_that_cannot_be(max_tokens: Any) -> None:
    """A length that no call would take is an error here, too, not an unknown cost."""
    with pytest.raises(InvalidRequestError, match="max_tokens"):
        estimate_cost("Hi", "gpt-6-luna", max_tokens)


def test_a_price_that_is_not_needed_need_not_be_known() -> None:
    """A model without cache prices is still priced when nothing was cached."""
    assert cost_of(Usage(1, 0, 0, 0), model(input="1")) == usd("0.000001")
    assert cost_of(Usage(1, 1, None, None), model(input="1", output="1")) == usd("0.000002")


def test_the_highest_tier_that_applies_holds_for_the_whole_prompt() -> None:
    """Long prompts are not charged in slices: one price list holds for all of the request."""
    tiers = (
        {"above_input_tokens": 10, "input": Decimal(2), "output": Decimal(0)},
        {"above_input_tokens": 20, "input": Decimal(3), "output": Decimal(0)},
    )
    info = model(tiers, input="1", output="0")
    costs = {tokens: cost_of(Usage(tokens, 1), info) for tokens in (10, 11, 20, 21)}
    assert costs == {
        10: usd("0.00001"),
        11: usd("0.000022"),
        20: usd("0.00004"),
        21: usd("0.000063"),
    }


@given(
    tokens=st.tuples(*[st.integers(0, 10**12)] * 4),
    prices=st.tuples(*[st.decimals(0, 1000, places=6)] * 4),
)
def test_costs_are_exact_for_any_size(
    tokens: tuple[int, int, int, int], prices: tuple[Decimal, Decimal, Decimal, Decimal]
) -> None:
    """No rounding creeps in: the sum equals whole-number arithmetic, even in a rounding context."""
    fresh, read, written, output = tokens
    kinds = ("input", "cache_read", "cache_write", "output")
    info = ModelInfo("m", "p", prices=dict(zip(kinds, prices, strict=True)))
    millionths = sum(
        count * int(price.scaleb(6)) for count, price in zip(tokens, prices, strict=True)
    )
    with localcontext(Context(prec=2, traps=[Inexact])):
        cost = cost_of(Usage(fresh + read + written, output, read, written), info)
    assert cost is not None
    assert int(cost.scaleb(12)) == millionths
    assert cost.scaleb(12) == millionths


def test_an_announced_price_holds_from_its_day_on() -> None:
    """The bill follows a dated price change on the day of the call, tiers and batches included."""
    change = PriceChange(
        datetime.date(2026, 12, 1),
        {"input": usd("4"), "output": usd("20")},
        batch_prices={"input": usd("2"), "output": usd("10")},
    )
    tiers = ({"above_input_tokens": 10, "input": usd("9"), "output": usd("9")},)
    info = replace(model(tiers, input="2", output="10"), price_changes=(change,))
    eve, day = datetime.date(2026, 11, 30), datetime.date(2026, 12, 1)
    assert cost_of(Usage(10, 10), info, eve) == usd("0.00012")
    assert cost_of(Usage(11, 0), info, eve) == usd("0.000099")
    assert cost_of(Usage(11, 0), info, day) == usd("0.000044")
    assert cost_of(Usage(10, 10), info, eve, batch=True) is None
    assert cost_of(Usage(10, 10), info, day, batch=True) == usd("0.00012")
    assert info.priced_on(day).priced_on(day) == info.priced_on(day)
    assert info.priced_on(eve) is info


def test_a_published_change_is_applied() -> None:
    """Google's announced price of gemini-4-argon is charged from its first day, not before."""
    info = get_model_info("gemini-4-argon")
    million = Usage(1_000_000, 0)
    assert cost_of(million, info, datetime.date(2026, 11, 30)) == 2
    assert cost_of(million, info, datetime.date(2026, 12, 1)) == 4


def test_a_batch_costs_what_the_batch_interface_costs() -> None:
    """The lower price of batches counts, with its own tiers for long prompts."""
    info = get_model_info("gpt-6.1-terra")
    assert cost_of(Usage(200_000, 0), info, batch=True) == usd("0.1")
    assert cost_of(Usage(300_000, 0), info, batch=True) == usd("0.3")
    assert cost_of(Usage(200_000, 0), info) == usd("0.2")
