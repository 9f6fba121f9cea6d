"""A reply as it is stored: JSON, in an order that can be read without reading all of it.

`["llmkit reply", format, [model, provider, …], text, raw]`, where `raw` is the vendor's JSON as a
text: most who get a cached answer never look at it, so it is decoded when they do.
"""

from __future__ import annotations

import copy
import functools
import json
from dataclasses import fields
from decimal import Decimal
from typing import Any, Final, NamedTuple

from llmkit.log import get_logger
from llmkit.types import Completion, ToolCall, Usage

__all__ = ["Facts", "from_text", "from_value", "hit_of", "read_value", "to_text"]

_TAG: Final = "llmkit reply"
_FORMAT: Final = 1
_HEAD: Final = f'["{_TAG}",{_FORMAT},'
_USAGE = tuple(each.name for each in fields(Usage))
_FREE: Final = Decimal(0)

_to_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_decoder = json.JSONDecoder()
_from_json = _decoder.decode
_scan = _decoder.raw_decode
_COUNTS = frozenset({int, type(None)})
_UNREADABLE = (TypeError, ValueError, LookupError, ArithmeticError, RecursionError)
_REMEMBERED_UP_TO = 32_768  # characters


class _Hit(Completion):
    """A Completion from the cache, whose `raw` is decoded when somebody asks for it."""

    __slots__ = ("_raw",)
    __qualname__ = "Completion"  # as it is shown
    __hash__ = None  # type: ignore[assignment]  # as that of every Completion
    _raw: Any

    @property
    def raw(self) -> dict[str, Any]:
        """The vendor's JSON."""
        raw = self._raw
        if type(raw) is tuple:
            times, text = raw
            try:
                for _ in range(times):
                    text = _from_json(text)
            except _UNREADABLE:  # a foreign entry's
                text = None
            self._raw = raw = text if isinstance(text, dict) else {}
        return raw  # type: ignore[no-any-return]

    @raw.setter
    def raw(self, raw: dict[str, Any]) -> None:
        self._raw = raw

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Completion):
            return NotImplemented
        return _facts_of(self) == _facts_of(other)

    def __reduce__(self) -> tuple[Any, ...]:
        return Completion, _facts_of(self)


def _facts_of(reply: Completion) -> tuple[Any, ...]:
    return tuple(getattr(reply, each.name) for each in fields(Completion))


def to_text(reply: Completion) -> str | None:
    """Returns an answer as JSON; None when it has no such form."""
    try:
        usage, cost = reply.usage, reply.cost
        head = [
            reply.model,
            reply.provider,
            reply.finish_reason,
            [getattr(usage, name) for name in _USAGE],
            None if cost is None else str(cost),
            list(reply.warnings),
            reply.request_id,
            [[call.id, call.name, call.arguments] for call in reply.tool_calls],
            reply.content_filter_category,
        ]
        return _to_json([_TAG, _FORMAT, head, reply.text, _raw_text(reply)])
    except (TypeError, ValueError, RecursionError) as error:  # an own adapter's odd `raw`
        get_logger("cache").debug("not cached: the answer can't be written as JSON (%s)", error)
        return None


def _raw_text(reply: Completion) -> str:
    try:
        return _to_json(reply.raw)
    except (TypeError, ValueError):  # an own adapter's: what JSON has no form for becomes a text
        return _to_json(reply.to_dict()["raw"])


def from_text(text: str) -> Completion | None:
    """Reads a value's JSON up to the `raw`; None for whatever `to_text` did not give."""
    facts = _read_again(text) if len(text) <= _REMEMBERED_UP_TO else _read_text(text)
    return None if facts is None else hit_of(facts, "memory")


def from_value(value: Any, level: str) -> Completion | None:
    """Reads a decoded value; None for whatever `to_text` did not give."""
    facts = read_value(value)
    return None if facts is None else hit_of(facts, level)


class Facts(NamedTuple):
    """What a value says; `calls`, the one thing in it that can change, is copied for each hit."""

    text: str
    model: str
    provider: str
    finish_reason: Any
    usage: Usage
    warnings: tuple[str, ...]
    saved_cost: Decimal | None
    request_id: str | None
    calls: list[list[Any]]
    category: Any
    raw: Any


def _read_text(text: str) -> Facts | None:
    if not text.startswith(_HEAD):
        return None
    try:
        head, end = _scan(text, len(_HEAD))
        answer, end = _scan(text, end + 1)
        return _read_facts(head, answer, (2, text[end + 1 : -1]))
    except _UNREADABLE:
        return None


# A memory's text is the same object at each hit, so what it says is found again by its identity.
_read_again = functools.lru_cache(maxsize=256)(_read_text)


def read_value(value: Any) -> Facts | None:
    """Returns what a decoded value says; None for whatever `to_text` did not give."""
    try:
        tag, version, head, answer, raw = value
        if tag != _TAG or version != _FORMAT or type(raw) is not str:
            return None
        return _read_facts(head, answer, (1, raw))
    except _UNREADABLE:
        return None


def _read_facts(head: Any, text: Any, raw: Any) -> Facts:
    model, provider, finish_reason, usage, cost, warnings, request_id, calls, category = head
    if not type(text) is type(model) is type(provider) is str:
        raise TypeError("no text")
    if not _COUNTS.issuperset(map(type, usage)) or type(warnings) is not list:
        raise TypeError("no tokens, or no warnings")
    saved = None if cost is None else Decimal(cost)
    counted = Usage(*usage)
    said = (finish_reason, counted, tuple(warnings), saved, request_id)
    return Facts(text, model, provider, *said, calls, category, raw)


def hit_of(facts: Facts, level: str) -> Completion:
    """Returns a Completion that nobody else holds, found in a cache of this level."""
    text, model, provider, finish_reason, usage, warnings, saved, request_id, *rest = facts
    calls, category, raw = rest
    return _Hit(
        text,
        model,
        provider,
        finish_reason,
        usage,
        _FREE,
        tuple([ToolCall(*call) for call in copy.deepcopy(calls)]) if calls else (),
        (),
        warnings,
        level,
        saved,
        0.0,
        request_id,
        raw,
        category,
    )
