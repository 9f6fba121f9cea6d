"""The readers of JSON and of server-sent events, on their own: no network, no SDK."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings, strategies as st

from llmkit import ProviderError
from llmkit.adapters.wire import (
    ToolCallParts,
    count_of,
    lay_over,
    read_arguments,
    read_event,
    read_json,
    sse_events,
)

EVENTS = (
    'event: start\r\ndata: {"text": "Grüße 🌍"}\r\n\r\n'
    ": a comment\n\n"
    'data: {"a":\ndata: 1}\n\n'
    "id: 7\nretry: 5\nevent:end\ndata:[DONE]\n\n"
).encode()
READ = [
    (b"start", '{"text": "Grüße 🌍"}'.encode()),
    (b"", b'{"a":\n1}'),
    (b"end", b"[DONE]"),
]


@settings(deadline=None)
@given(st.lists(st.integers(0, len(EVENTS)), max_size=20))
def test_events_do_not_depend_on_how_they_arrive(cuts: list[int]) -> None:
    """However a body is cut, between the bytes of one character too, the events are the same."""
    places = [0, *sorted(cuts), len(EVENTS)]
    pieces = [EVENTS[begin:end] for begin, end in pairwise(places)]
    assert list(sse_events(pieces)) == READ


def test_events_survive_every_single_cut() -> None:
    """Each of the possible places to cut a body in two gives the same events."""
    for place in range(len(EVENTS) + 1):
        assert list(sse_events([EVENTS[:place], EVENTS[place:]])) == READ


def test_a_byte_order_mark_hides_no_event() -> None:
    """The first event counts also behind a mark, wherever the body is cut; else text was lost."""
    marked = b"\xef\xbb\xbf" + EVENTS
    for place in range(len(marked) + 1):
        assert list(sse_events([marked[:place], marked[place:]])) == READ


def test_an_unfinished_event_is_left_out() -> None:
    """What is cut off at the end of a body is no event, wherever the cut is."""
    whole = b"data: 1\n\n"
    for place in range(len(whole)):
        assert list(sse_events([whole[:place]])) == []


def test_a_line_without_end_takes_linear_time() -> None:
    """A hostile line of 16 MB that arrives in small pieces costs no more than reading it."""
    began = time.process_time()
    assert list(sse_events(b"x" * 4096 for _ in range(4096))) == []
    assert time.process_time() - began < 2.0  # quadratic, it took 20 s


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_readers(body: bytes) -> None:
    """Whatever arrives is an object or a ProviderError, and never any other exception."""
    with suppress(ProviderError):
        assert isinstance(read_json(body, ""), dict)
    with suppress(ProviderError):
        assert isinstance(read_event(body), dict)
    for name, data in sse_events([body]):
        assert b"\n" not in name
        assert data == data.strip() or b"\n" in data


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.integers()))
def test_json_is_read_with_and_without_its_type(document: dict[str, int]) -> None:
    """A JSON object is read under any JSON content type, and under none."""
    body = json.dumps(document).encode()
    for kind in ("", "application/json", "application/json; charset=UTF-8", "application/x+JSON"):
        assert read_json(body, kind) == document


def test_an_unreadable_reply_is_shown_in_part() -> None:
    """The error quotes the beginning of what came, not megabytes of it."""
    with pytest.raises(ProviderError) as caught:
        read_json(b"<html>" + b"x" * 1_000_000, "application/json")
    assert "<html>" in caught.value.message
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        (None, {}),
        ("{", {"_text": "{"}),
        ("[1]", {"_text": "[1]"}),
        ("[" * 100_000, {"_text": "[" * 100_000}),
    ],
    ids=range(6),
)
def test_arguments_that_are_no_object_are_kept_as_text(
    text: str | None, arguments: dict[str, object]
) -> None:
    """A model that writes broken JSON does not break the call: its text is under `_text`."""
    assert read_arguments("id", "tool", text).arguments == arguments


def test_tool_calls_are_put_together_by_number() -> None:
    """Pieces of several calls may be mixed, and a piece of a call that never began is ignored."""
    calls = ToolCallParts()
    calls.start(1, "b", "second")
    calls.start(0, "a", None)
    calls.start(0, None, "first")
    calls.add(1, '{"x"')
    calls.add(0, None)
    calls.add(1, ": 2}")
    calls.add(7, "lost")
    assert [(call.id, call.name, call.arguments) for call in calls.finished()] == [
        ("a", "first", {}),
        ("b", "second", {"x": 2}),
    ]


def test_a_count_is_a_whole_number() -> None:
    """A token count of another type is an error, so that no arithmetic fails later on."""
    assert count_of({"n": 0}, "n") == 0
    assert count_of({}, "n") is None
    for wrong in ("7", True, 1.5, [7]):
        with pytest.raises(TypeError):
            count_of({"n": wrong}, "n")


@pytest.mark.parametrize("nonsense", [-1, 10**12 + 1, 10**400], ids=["-1", "trillion", "huge"])
def test_a_count_that_no_reply_can_have_is_unknown(nonsense: int) -> None:
    """No vendor's mistake empties a budget, holds up a rate limit for years, or overflows."""
    assert count_of({"n": nonsense}, "n") is None
    assert count_of({"n": 10**12}, "n") == 10**12


def test_objects_are_laid_over_objects() -> None:
    """A parameter adds to an object of ours and replaces anything else; neither is changed."""
    ours, theirs = {"include_usage": True}, {"deep": {"x": 1}}
    body = {"options": ours, "n": 1}
    lay_over(body, {"options": theirs, "n": {"y": 2}})
    assert body == {"options": {"include_usage": True, "deep": {"x": 1}}, "n": {"y": 2}}
    assert (ours, theirs) == ({"include_usage": True}, {"deep": {"x": 1}})
