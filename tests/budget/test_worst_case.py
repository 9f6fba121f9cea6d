"""What is reserved before a call: never less than it can cost."""

from __future__ import annotations

import base64
import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st

import llmkit.budget.worst_case
from llmkit import get_model_info, list_available_models
from llmkit.budget.amounts import Amount, Limit
from llmkit.budget.worst_case import PER_IMAGE, PER_TOOLS, UNKNOWN_MAXIMUM, worst_case
from llmkit.cost import cost_of
from llmkit.models import ModelInfo
from llmkit.tokenizer import TokenCount, count_tokens
from llmkit.types import Usage
from tests.budget.calls import INFO, ask

PRICED = [name for name in list_available_models() if get_model_info(name).prices]


def test_a_text_has_no_more_tokens_than_bytes() -> None:
    """The estimate of a text never undercounts, in no script, and neither does its framing."""
    for text in ("a" * 1000, "ünïcödé", "漢字", "👩‍👩‍👧‍👦", "0x1f " * 99):
        bound = worst_case(ask(text, max_tokens=1), INFO).input_tokens
        assert bound == len(text.encode()) + 16


def test_an_exact_count_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a real tokenizer counts, the budget reserves no margin."""
    exact = TokenCount(5, estimated=False)
    monkeypatch.setattr(llmkit.budget.worst_case, "count_tokens", lambda *_: exact)
    for margin in (None, 3.0):
        case = worst_case(ask("many, many words", max_tokens=1), INFO, margin)
        assert (case.input_tokens, case.by_bytes) == (5, False)


def test_a_margin_takes_a_multiple_of_the_estimate() -> None:
    """Where it is less than the bytes; with a real tokenizer there is nothing to add."""
    request = ask("word " * 200, max_tokens=1)
    estimate = count_tokens(INFO.name, request.messages)
    case = worst_case(request, INFO, 1.5)
    assert (case.input_tokens, case.by_bytes) == (math.ceil(estimate * 1.5), False)
    assert worst_case(request, INFO, 50) == worst_case(request, INFO)
    assert worst_case(request, INFO).by_bytes


def test_counts_what_reaches_the_prompt_besides_the_messages() -> None:
    """Tools and schemas that are sent as own parameters cost input, too."""
    plain = worst_case(ask(max_tokens=1), INFO).input_tokens
    tools = {"tools": [{"name": "clock", "description": "d" * 500}]}
    request = ask(max_tokens=1, extra_body=tools)
    assert worst_case(request, INFO).input_tokens > plain + 500 + PER_TOOLS
    request = replace(ask(max_tokens=1), vendor_parameters={"schema": "s" * 500})
    assert worst_case(request, INFO).input_tokens > plain + 500


def test_counts_pictures_by_number_not_by_size() -> None:
    """A picture is bounded as a picture: its base64 would look like a million tokens."""
    data = base64.b64encode(bytes(30_000)).decode()
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
    prompt: Any = [{"role": "user", "content": [{"type": "text", "text": "x"}, picture]}]
    assert worst_case(ask(prompt, max_tokens=1), INFO).input_tokens == 17 + PER_IMAGE


def test_the_input_is_never_larger_than_the_window() -> None:
    """What the vendor would refuse is not reserved for."""
    assert worst_case(ask("x" * 200_000, max_tokens=1), INFO).input_tokens == 100_000


@pytest.mark.parametrize(
    ("arguments", "most", "open_ended"),
    [
        ({"max_tokens": 50}, 50, False),
        ({"max_tokens": 50_000}, 10_000, False),
        ({}, 10_000, True),
        ({"extra_body": {"max_completion_tokens": 700}}, 700, False),
        ({"max_tokens": 50, "extra_body": {"max_tokens": 700}}, 700, False),
        ({"extra_body": {"generationConfig": {"maxOutputTokens": 700}}}, 700, False),
        ({"extra_body": {"tools": {"max_tokens": {"type": "integer"}}}}, 10_000, True),
    ],
)
def test_the_answer_is_bounded_by_what_is_sent_and_by_the_model(
    arguments: dict[str, Any], most: int, open_ended: bool
) -> None:
    """Whichever way a limit is said, the longest answer that it allows is reserved."""
    case = worst_case(ask(**arguments), INFO)
    assert (case.most, case.open_ended) == (most, open_ended)


def test_an_open_answer_leaves_room_for_the_prompt() -> None:
    """Vendors refuse a cap that the window can't hold besides the prompt."""
    narrow = replace(INFO, context_window=2000)
    request = ask("word " * 1000)
    assert worst_case(request, narrow).most == 2000 - count_tokens(INFO.name, request.messages)
    assert worst_case(ask(), replace(INFO, max_output_tokens=None)).most == UNKNOWN_MAXIMUM


def test_several_answers_cost_several_times() -> None:
    """`n=3` triples the output, not the input."""
    case = worst_case(ask(max_tokens=100, extra_body={"n": 3}), INFO)
    assert case.amount(100) - case.amount(0) == Amount(Decimal("0.003"), 300)
    room = case.amount(66)
    assert case.affordable(Limit(room.usd, None)) == 66
    assert case.affordable(Limit(None, room.tokens + 2)) == 66


def test_long_prompts_are_reserved_at_their_dearer_price() -> None:
    """A prompt that may reach a tier is reserved as if it did, answer included."""
    info = replace(
        INFO,
        price_tiers=(
            {"above_input_tokens": 100, "input": Decimal(2), "output": Decimal(15)},
            {"above_input_tokens": 5000, "input": Decimal(9), "output": Decimal(99)},
        ),
    )
    case = worst_case(ask("x" * 84, max_tokens=10), info)
    assert case.amount(10).usd == Decimal("0.0002")
    case = worst_case(ask("x" * 85, max_tokens=10), info)
    assert case.amount(10).usd == 101 * Decimal("0.000002") + Decimal("0.00015")


def test_writing_to_the_vendors_cache_is_reserved() -> None:
    """A vendor may charge more for input that it caches, and does so unasked."""
    assert INFO.prices is not None
    info = replace(INFO, prices={**INFO.prices, "cache_write": Decimal("1.25")})
    assert worst_case(ask(max_tokens=10), info).amount(0).usd == Decimal("0.00002125")


@given(
    name=st.sampled_from(PRICED),
    length=st.integers(1, 400_000),
    output=st.integers(1, 200_000),
    parts=st.tuples(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1)),
)
def test_no_usage_within_the_bounds_costs_more_than_the_worst_case(
    name: str, length: int, output: int, parts: tuple[float, float, float]
) -> None:
    """For each model of the registry: the reservation covers every split of cached and new."""
    info = get_model_info(name)
    case = worst_case(ask("x" * length, max_tokens=output), info)
    read = int(case.input_tokens * parts[0])
    cached = int(read * parts[1])
    known = info.prices or {}
    usage = Usage(
        read,
        case.most,
        cached if "cache_read" in known else None,
        int((read - cached) * parts[2]) if "cache_write" in known else None,
    )
    cost = cost_of(usage, info)
    assert cost is None or cost <= case.amount(case.most).usd


@given(
    usd=st.decimals(0, 2, places=9),
    tokens=st.none() | st.integers(0, 20_000),
    answers=st.integers(1, 4),
)
def test_what_is_affordable_fits_and_one_more_token_does_not(
    usd: Decimal, tokens: int | None, answers: int
) -> None:
    """The cap is neither a token too long for the budget nor one too short."""
    case = worst_case(ask(extra_body={"n": answers}), INFO)
    limit = Limit(usd, tokens)
    longest = case.affordable(limit)
    if longest >= 0:
        assert limit.holds(case.amount(longest))
    if longest < case.most:
        assert not limit.holds(case.amount(longest + 1))


def test_a_model_with_half_a_price_has_none() -> None:
    """Unknown is unknown: a missing price is never taken for zero."""
    for prices in (None, {}, {"input": Decimal(1)}, {"output": Decimal(1)}):
        assert worst_case(ask(), ModelInfo("m", "openai", prices=prices)).prices is None
