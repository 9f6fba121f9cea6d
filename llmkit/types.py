"""What calls return (`Completion`, `Chunk`, `Usage`, `ToolCall`), and the record of a call."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from decimal import Decimal
from typing import Any, Literal

from llmkit.errors import Attempt, ErrorCode, ProviderError

__all__ = ["CallRecord", "Chunk", "Completion", "Fallback", "FinishReason", "ToolCall", "Usage"]

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of one call, counted the same way for every vendor.

    None means that the vendor did not say, never zero.

    Attributes:
        input_tokens: All tokens sent, those read from or written to the vendor's cache included.
        output_tokens: All tokens generated, reasoning included.
        cache_read_tokens: The part of the input that the vendor had cached.
        cache_write_tokens: The part of the input that the vendor put into its cache.
        reasoning_tokens: The part of the output that was reasoning.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None

    @property
    def total_tokens(self) -> int | None:
        """Input and output together; None when either is unknown."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that the model wants to be called.

    Attributes:
        id: The vendor's id of the call; "" when it gave none.
        name: The tool's name.
        arguments: Its arguments, read from JSON; a text that is not JSON stands under `"_text"`.
    """

    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer; `str(chunk)` is its text.

    Attributes:
        text: The text that arrived; never empty.
    """

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(slots=True)
class Completion:
    """A model's answer; `str(reply)` is its text.

    It can also be read as a mapping in the shape of the older completion interface:
    `reply["choices"][0]["text"]`, `reply["usage"]["prompt_tokens"]`, `reply["model"]`,
    `reply["provider"]`, `reply["request_time"]` (s). So `in` looks among these names, not in the
    text.

    Attributes:
        text: The answer; "" when the model only called tools.
        model: The model that answered, by its bare name.
        provider: Its provider.
        finish_reason: Why the model stopped: "stop", "length" (`max_tokens` was reached),
            "tool_calls", or "content_filter".
        content_filter_category: Why the answer was refused or cut off for its content, in the
            vendor's own word; None unless the finish reason is "content_filter".
        usage: The tokens, as the vendor counted them.
        cost: What the call cost, in USD; None when the usage is unknown, or the price of
            anything in it, such as a web search by the vendor; `warnings` says what.
        tool_calls: The tools that the model wants to be called.
        attempts: Every HTTP request that was made for this answer, failed ones first.
        warnings: What was left out or translated because the model does not take it, and other
            things to know about this answer.
        cached: Where a cached answer came from ("memory", …); None for a fresh one.
        saved_cost: What a cached answer would have cost, in USD; None for a fresh one.
        latency: Seconds of the whole call, as its user saw it.
        request_id: The vendor's id of the request; None when it gave none.
        raw: The vendor's JSON. For a stream: the top-level fields of its events, later ones
            having replaced earlier ones.
    """

    text: str
    model: str
    provider: str
    finish_reason: FinishReason | None = None
    usage: Usage = field(default_factory=Usage)
    cost: Decimal | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    warnings: tuple[str, ...] = ()
    cached: str | None = None
    saved_cost: Decimal | None = None
    latency: float = 0.0
    request_id: str | None = None
    raw: dict[str, Any] = field(default_factory=dict, repr=False)
    content_filter_category: str | None = None

    def __str__(self) -> str:
        return self.text

    def __getitem__(self, key: str) -> Any:
        try:
            return _DOCUMENTED_KEYS[key](self)
        except KeyError:
            raise KeyError(f"{key!r}; there are {', '.join(_DOCUMENTED_KEYS)}") from None

    def __contains__(self, key: object) -> bool:
        return key in _DOCUMENTED_KEYS

    def __iter__(self) -> Iterator[str]:
        return iter(_DOCUMENTED_KEYS)

    def __len__(self) -> int:
        return len(_DOCUMENTED_KEYS)

    def get(self, key: str, default: Any = None) -> Any:
        """Reads an entry, as `reply[key]` does.

        Args:
            key: One of `keys()`.
            default: What to return for any other.

        Returns:
            The entry, or the default.
        """
        read = _DOCUMENTED_KEYS.get(key)
        return default if read is None else read(self)

    def keys(self) -> Sequence[str]:
        """Returns the names that `reply[…]` knows."""
        return tuple(_DOCUMENTED_KEYS)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain JSON values (money as strings); `from_dict` restores it.

        What JSON has no form for, in the `raw` of an own adapter's answer, becomes its text.
        """
        record: dict[str, Any] = _plain(self)
        return record

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Completion:
        """Restores what `to_dict` gave.

        Args:
            record: The mapping; unknown names are ignored, so that newer versions can be read.

        Returns:
            The completion.

        Raises:
            ValueError: The mapping is not one that `to_dict` gave.
        """
        try:
            facts = _known(cls, record)
            for name in ("text", "model", "provider"):
                if not isinstance(facts[name], str):
                    raise TypeError(f"{name} is not a text")
            facts["usage"] = Usage(**_known(Usage, facts.get("usage", {})))
            facts["tool_calls"] = tuple(
                ToolCall(**_known(ToolCall, call)) for call in facts.get("tool_calls", ())
            )
            facts["attempts"] = tuple(_read_attempt(one) for one in facts.get("attempts", ()))
            facts["warnings"] = tuple(facts.get("warnings", ()))
            for name in ("cost", "saved_cost"):
                if facts.get(name) is not None:
                    facts[name] = Decimal(facts[name])
            return cls(**facts)
        except (TypeError, ValueError, LookupError, ArithmeticError, AttributeError) as error:
            raise ValueError(f"not a completion: {error!r}") from error

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, model: str, provider: str) -> Completion:
        """Reads the mapping that a simple adapter, or a test's stand-in, returned as an answer.

        Args:
            mapping: `{"text": …}` or `{"choices": [{"text": …}]}` or
                `{"choices": [{"message": {"content": …}}]}`, with an optional `usage`
                (`prompt_tokens`/`input_tokens`, `completion_tokens`/`output_tokens`), `model` and
                `finish_reason`.
            model: The model's name, where the mapping does not say it.
            provider: The provider's name, likewise.

        Returns:
            The completion; the mapping itself is its `raw`.

        Raises:
            ProviderError: There is no text in the mapping.
        """
        try:
            choice = (mapping.get("choices") or [{}])[0]
            text = mapping.get("text", choice.get("text"))
            if text is None:
                text = (choice.get("message") or {}).get("content")
            usage = mapping.get("usage") or {}
            counted = Usage(
                input_tokens=_tokens(usage.get("input_tokens", usage.get("prompt_tokens"))),
                output_tokens=_tokens(usage.get("output_tokens", usage.get("completion_tokens"))),
            )
        except (AttributeError, LookupError, TypeError):  # something else than mappings and lists
            text = None
        if not isinstance(text, str):
            raise ProviderError(
                "the adapter's answer has no text: expected {'text': …} or {'choices': "
                f"[{{'text': …}}]}}, got the keys {sorted(map(str, mapping))}",
                provider=provider,
                model=model,
                retryable=False,
            )
        return cls(
            text=text,
            model=mapping.get("model") or model,
            provider=mapping.get("provider") or provider,
            finish_reason=mapping.get("finish_reason", choice.get("finish_reason")) or "stop",
            usage=counted,
            raw=dict(mapping),
        )


def _tokens(count: object) -> int | None:
    return count if isinstance(count, int) and not isinstance(count, bool) else None


def _known(kind: type[Any], record: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(kind)}
    return {name: value for name, value in record.items() if name in names}


# What most of a vendor's JSON is made of.
_PLAIN = frozenset({str, int, bool, type(None)})


def _plain(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, ErrorCode):
        return value.value
    if isinstance(value, str | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return str(value)


def _read_attempt(record: Mapping[str, Any]) -> Attempt:
    facts = _known(Attempt, record)
    code = facts["code"]
    return Attempt(**{**facts, "code": None if code is None else ErrorCode(code)})


def _documented_choices(reply: Completion) -> list[dict[str, Any]]:
    return [
        {
            "index": 0,
            "text": reply.text,
            "message": {"role": "assistant", "content": reply.text},
            "finish_reason": reply.finish_reason,
        }
    ]


def _documented_usage(reply: Completion) -> dict[str, int | None]:
    return {
        "prompt_tokens": reply.usage.input_tokens,
        "completion_tokens": reply.usage.output_tokens,
        "total_tokens": reply.usage.total_tokens,
    }


_DOCUMENTED_KEYS: dict[str, Any] = {
    "choices": _documented_choices,
    "usage": _documented_usage,
    "model": lambda reply: reply.model,
    "provider": lambda reply: reply.provider,
    "request_time": lambda reply: reply.latency,
}


@dataclass(frozen=True, slots=True)
class Fallback:
    """One step of a call from a model that failed to the next one.

    Attributes:
        from_model: The model that failed, by its bare name.
        to_model: The model that was asked instead.
        reason: What went wrong with the first.
    """

    from_model: str
    to_model: str
    reason: ErrorCode


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One logical call, as every observer gets it when the call is over.

    Attributes:
        model: The model that answered, or that was asked last.
        provider: Its provider.
        code: What went wrong; None for a success.
        started_at: Seconds since the epoch.
        latency: Seconds of the whole call; for a stream, until its end.
        first_chunk: Seconds until a stream's first chunk; None for other calls.
        streamed: Whether it was a stream.
        usage: The tokens; all None when the call failed.
        cost: USD; None when unknown.
        attempts: Every HTTP request made.
        metadata: What the caller gave as `metadata`.
        fallbacks: Every step to another model, in their order.
        cached: Where a cached answer came from; None for a fresh one, or none.
    """

    model: str
    provider: str
    code: ErrorCode | None
    started_at: float
    latency: float
    first_chunk: float | None
    streamed: bool
    usage: Usage
    cost: Decimal | None
    attempts: tuple[Attempt, ...]
    metadata: Mapping[str, Any]
    fallbacks: tuple[Fallback, ...] = ()
    cached: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the call gave its answer."""
        return self.code is None
