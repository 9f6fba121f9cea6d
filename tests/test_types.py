from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st

from llmkit.errors import Attempt, ErrorCode, ProviderError
from llmkit.types import CallRecord, Chunk, Completion, ToolCall, Usage

counts = st.none() | st.integers(0, 2**53)
texts = st.text()
names = st.text(max_size=8)
money = st.none() | st.decimals(min_value=0, allow_nan=False, allow_infinity=False, places=9)
seconds = st.floats(0, 1e6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(names, json_values, max_size=4)
usages = st.builds(Usage, counts, counts, counts, counts, counts)
attempts = st.builds(
    Attempt,
    model=names,
    provider=names,
    code=st.none() | st.sampled_from(ErrorCode),
    status=st.none() | st.integers(100, 599),
    wait=seconds,
    duration=seconds,
    request_id=st.none() | names,
)
completions = st.builds(
    Completion,
    text=texts,
    model=names,
    provider=names,
    finish_reason=st.sampled_from([None, "stop", "length", "tool_calls", "content_filter"]),
    usage=usages,
    cost=money,
    tool_calls=st.lists(st.builds(ToolCall, names, names, json_objects), max_size=2).map(tuple),
    attempts=st.lists(attempts, max_size=2).map(tuple),
    warnings=st.lists(texts, max_size=2).map(tuple),
    cached=st.none() | st.just("memory"),
    saved_cost=money,
    latency=seconds,
    request_id=st.none() | names,
    raw=json_objects,
)


@given(completions)
def test_a_completion_survives_json(reply: Completion) -> None:
    """What a cache or a journal wrote is read back as the same completion, field by field."""
    restored = Completion.from_dict(json.loads(json.dumps(reply.to_dict(), allow_nan=False)))
    assert restored == reply
    assert Completion.from_dict(reply.to_dict()) == reply
    for name in ("cost", "saved_cost"):
        assert str(getattr(restored, name)) == str(getattr(reply, name))


@given(completions)
def test_to_dict_shares_nothing_and_leaves_nothing_out(reply: Completion) -> None:
    """Changing the dict can't change the answer, and every field is in it."""
    record = reply.to_dict()
    assert set(record) == {each.name for each in dataclasses.fields(Completion)}
    before = copy.deepcopy(reply)
    record["raw"]["new"] = 1
    record["usage"]["input_tokens"] = -1
    for call in record["tool_calls"]:
        call["arguments"]["new"] = 1
    assert reply == before


def test_to_dict_turns_what_json_has_no_form_for_into_text() -> None:
    """An own adapter's odd values can't break a cache: `to_dict` is JSON whatever `raw` holds."""
    raw = {
        "when": datetime(2026, 1, 2, tzinfo=UTC),
        "money": Decimal("0.10"),
        "pair": (1, {2: float("nan")}),
        "code": ErrorCode.LLM_TIMEOUT,
        "object": ValueError("x"),
    }
    record = Completion("t", "m", "p", raw=raw).to_dict()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["raw"]["money"] == "0.10"
    assert record["raw"]["pair"] == [1, {"2": "nan"}]
    assert record["raw"]["code"] == "LLM_TIMEOUT"


@given(json_values)
def test_from_dict_of_something_else_is_a_value_error(value: Any) -> None:
    """A damaged cache entry can be told from a bug: only ValueError comes out."""
    try:
        reply = Completion.from_dict(value)
    except ValueError:
        return
    assert isinstance(reply.text, str)


@pytest.mark.parametrize(
    "damage",
    [
        {"text": None},
        {"model": 3},
        {"usage": None},
        {"usage": [1]},
        {"attempts": [{"model": "m"}]},
        {"attempts": [3]},
        {
            "attempts": [
                {**dataclasses.asdict(Attempt("m", "p", None, None, 0, 0, None)), "code": 1}
            ]
        },
        {"tool_calls": [{"id": "1"}]},
        {"tool_calls": 5},
        {"cost": "much"},
        {"saved_cost": []},
    ],
)
def test_each_damaged_field_is_a_value_error(damage: dict[str, Any]) -> None:
    """No kind of damage inside a field gets out as another exception, or unnoticed."""
    record = Completion("t", "m", "p").to_dict()
    with pytest.raises(ValueError, match="not a completion"):
        Completion.from_dict({**record, **damage})
    del record["text"]
    with pytest.raises(ValueError, match="text"):
        Completion.from_dict(record)


def test_from_dict_reads_what_a_newer_version_wrote() -> None:
    """Unknown names are ignored at every depth, so that a shared cache survives an upgrade."""
    reply = Completion(
        "t",
        "m",
        "p",
        usage=Usage(1, 2),
        tool_calls=(ToolCall("1", "f", {}),),
        attempts=(Attempt("m", "p", ErrorCode.LLM_TIMEOUT, None, 0.0, 1.0, None),),
    )
    record = reply.to_dict()
    for part in (record, record["usage"], record["tool_calls"][0], record["attempts"][0]):
        part["of_tomorrow"] = 1
    assert Completion.from_dict(record) == reply


def test_a_completion_reads_like_the_documented_mapping() -> None:
    """The documented keys, `get`, `in`, `keys`, `dict()` and `**` work; nothing else is a key."""
    reply = Completion("Hi", "m", "p", finish_reason="stop", usage=Usage(3, 4), latency=0.5)
    assert reply["choices"][0]["text"] == "Hi"
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": "Hi"}
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    assert (reply["model"], reply["provider"], reply["request_time"]) == ("m", "p", 0.5)
    names = ["choices", "usage", "model", "provider", "request_time"]
    assert list(reply) == list(reply.keys()) == names
    assert len(reply) == 5
    assert dict(reply) == {**reply} == {name: reply[name] for name in names}
    assert "usage" in reply
    assert "text" not in reply
    assert reply.get("model") == "m"
    assert (reply.get("text"), reply.get("text", 1)) == (None, 1)
    with pytest.raises(KeyError, match="there are choices, usage"):
        reply["text"]


def test_an_empty_answer_is_true_and_its_text_empty() -> None:
    """`if reply:` asks whether there is an answer, not whether it has text."""
    reply = Completion("", "m", "p")
    assert reply
    assert str(reply) == f"{reply}" == ""
    assert str(Chunk("a")) == "a"


def test_raw_stays_out_of_the_repr() -> None:
    """Printing an answer in a notebook doesn't print the vendor's whole JSON."""
    assert "vendor" not in repr(Completion("t", "m", "p", raw={"vendor": 1}))


@given(usages)
def test_unknown_tokens_are_never_zero(usage: Usage) -> None:
    """The total is known only when both of its parts are."""
    if usage.input_tokens is None or usage.output_tokens is None:
        assert usage.total_tokens is None
    else:
        assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert Usage().total_tokens is None
    assert Usage(0, 0).total_tokens == 0


@given(completions)
def test_completions_pickle_and_compare(reply: Completion) -> None:
    """Answers cross process pools."""
    assert pickle.loads(pickle.dumps(reply)) == reply


def test_frozen_parts_stay_frozen() -> None:
    """Nobody who is shown a record or a chunk can change it for the others."""
    record = CallRecord("m", "p", None, 0.0, 1.0, None, False, Usage(), None, (), {})
    assert record.ok
    assert not dataclasses.replace(record, code=ErrorCode.LLM_TIMEOUT).ok
    for part, name in ((record, "model"), (Usage(), "input_tokens"), (Chunk("a"), "text")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, name, None)


# --- what own adapters return ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "mapping",
    [
        {"text": "Hi"},
        {"choices": [{"text": "Hi"}]},
        {"choices": [{"message": {"content": "Hi"}}]},
        {"text": None, "choices": [{"message": {"role": "assistant", "content": "Hi"}}]},
        {"text": "Hi", "choices": [], "usage": None, "model": None, "provider": None},
    ],
)
def test_a_mapping_is_read_in_each_of_its_forms(mapping: dict[str, Any]) -> None:
    """An own adapter, or a test's stand-in, may answer in any of the usual shapes."""
    reply = Completion.from_mapping(mapping, model="m", provider="p")
    assert (reply.text, reply.model, reply.provider, reply.finish_reason) == (
        "Hi",
        "m",
        "p",
        "stop",
    )
    assert reply.usage == Usage()
    assert reply.raw == mapping


def test_a_mapping_says_more_than_the_text() -> None:
    """Usage, model and the reason to stop are taken where they are given, in either naming."""
    for usage in (
        {"prompt_tokens": 1, "completion_tokens": 2},
        {"input_tokens": 1, "output_tokens": 2},
    ):
        reply = Completion.from_mapping(
            {"choices": [{"text": "", "finish_reason": "length"}], "usage": usage, "model": "x"},
            model="m",
            provider="p",
        )
        assert (reply.text, reply.model, reply.finish_reason) == ("", "x", "length")
        assert reply.usage == Usage(1, 2)


@given(json_objects | st.fixed_dictionaries({"choices": json_values, "usage": json_values}))
def test_a_mapping_without_text_is_a_provider_error(mapping: dict[str, Any]) -> None:
    """Whatever an own adapter returns is an answer, or one clear error that is not tried again."""
    try:
        outcome: Any = Completion.from_mapping(mapping, model="m", provider="p").text
    except ProviderError as error:
        outcome = error
    assert isinstance(outcome, str) or (not outcome.retryable and "no text" in outcome.message)
