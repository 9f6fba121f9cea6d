"""What a call may cost at worst, known before it is made.

**Input.** Where the tokenizer's count is exact, that is what is reserved. Where it is an estimate,
a bound is taken: a token of a byte-level vocabulary, which OpenAI publishes and the others are
taken to have, stands for at least one byte, so a text has at most as many tokens as bytes in UTF-8
(English prose has about a quarter of that). A budget's `input_margin` takes a multiple of the
estimate instead, where that is less. Added are the framing of each message, whatever else
reaches the model's prompt (tools, schemas, the caller's own fields), and a fixed number for each
picture. It never exceeds the model's context window, beyond which the vendor refuses the request.

**Output.** `max_tokens`, or the model's own maximum; reasoning counts within it for every vendor.

**Prices.** The dearest that the input could meet: of reading, caching and reading from the cache,
in every tier of prices that a prompt of the bound's length reaches.

Not known here, and so not reserved: what a vendor bills besides tokens (a search, a container), a
dearer service tier, caching for longer than the default (Anthropic's hour). The registry has no
prices of them, so such a call's `cost` is None, and what a budget takes is that of its tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from llmkit.budget.amounts import EXACT, Amount, Limit
from llmkit.models import ModelInfo
from llmkit.request import Image, Message, Request
from llmkit.tokenizer import count_tokens

__all__ = ["WorstCase", "worst_case"]

# Framing at most: OpenAI publishes 3 to 4 tokens for each message and 3 for the answer's begin.
PER_MESSAGE = 8
PER_REQUEST = 8

# OpenAI's largest pictures (10,000 patches, times a model's factor); Anthropic's and Google's take
# less. gpt-4o-mini, which counts a picture up to 48,000 times, is the known exception.
PER_IMAGE = 12_000

# What vendors put before the tools: Anthropic publishes up to 804 tokens.
PER_TOOLS = 1024

# The longest answer of a model whose maximum the registry doesn't know.
UNKNOWN_MAXIMUM = 8192

# An answer that was cut off unseen: as much as a fast model writes in that time.
TOKENS_PER_SECOND = 200

_CAPS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens"})
_COUNTS = frozenset({"n", "best_of", "candidate_count", "candidateCount"})

# Fields of a Request whose length is not part of the prompt.
_NOT_PROMPT = frozenset(
    {
        *("model", "messages", "max_tokens", "temperature", "top_p", "stop", "seed"),
        *("reasoning_effort", "extra_headers", "metadata", "on_unsupported"),
    }
)

_MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class WorstCase:
    """What one request to one model may cost at worst.

    Attributes:
        info: The model.
        input_tokens: At most.
        by_bytes: Whether that is mainly a number of bytes, since nobody knows the tokens.
        answers: How many answers are asked for at once; each may have the full length.
        most: The longest answer, in tokens.
        open_ended: Whether the request leaves the answer's length to the budget.
        prices: USD for one token of input and of output; None when they are unknown.
    """

    info: ModelInfo
    input_tokens: int
    by_bytes: bool
    answers: int
    most: int
    open_ended: bool
    prices: tuple[Decimal, Decimal] | None

    @property
    def least(self) -> int:
        """The shortest answer, in tokens, that there must be room for."""
        return 1 if self.open_ended else self.most

    def amount(self, output_tokens: int) -> Amount:
        """Returns what the input and an answer of this length cost; no money without prices."""
        written = output_tokens * self.answers
        usd = Decimal(0)
        if self.prices is not None:
            read, write = self.prices
            usd = EXACT.fma(write, written, EXACT.multiply(read, self.input_tokens))
        return Amount(usd, self.input_tokens + written)

    def affordable(self, limit: Limit) -> int:
        """Returns the longest answer within a limit, no longer than `most`; -1 for none at all."""
        if not limit.holds(self.amount(0)):
            return -1
        left = limit.less(self.amount(0))
        longest = self.most
        if left.tokens is not None:
            longest = min(longest, left.tokens // self.answers)
        if left.usd is not None and self.prices is not None and self.prices[1]:
            price = EXACT.multiply(self.prices[1], self.answers)
            longest = min(longest, int(EXACT.divide_int(left.usd, price)))
        return longest

    def at_these_prices(self, input_tokens: int, output_tokens: int) -> Decimal:
        """Returns what tokens cost at the worst prices, in USD; 0 without prices."""
        if self.prices is None:
            return Decimal(0)
        read, write = self.prices
        return EXACT.fma(write, output_tokens, EXACT.multiply(read, input_tokens))


def worst_case(request: Request, info: ModelInfo, input_margin: float | None = None) -> WorstCase:
    """Finds out what a request may cost at worst.

    Args:
        request: The request.
        info: The model that is asked.
        input_margin: How many times its estimate the input may have, at most; None: as many tokens
            as bytes. An exact count is taken as it is.

    Returns:
        Its bounds and prices.
    """
    bound, by_bytes = _input_tokens(request, info, input_margin)
    own = [request.vendor_parameters, request.extra_body]
    caps = [*_numbers(own, _CAPS)]
    if request.max_tokens is not None:
        caps.append(request.max_tokens)
    if not caps:
        most = _longest_answer(request, info, bound)
    elif info.max_output_tokens is None:
        most = max(caps)
    else:
        most = min(max(caps), info.max_output_tokens)
    return WorstCase(
        info=info,
        input_tokens=bound,
        by_bytes=by_bytes,
        answers=max([1, *_numbers(own, _COUNTS)]),
        most=most,
        open_ended=not caps,
        prices=_worst_prices(bound, info),
    )


def _longest_answer(request: Request, info: ModelInfo, bound: int) -> int:
    """Returns the longest answer that the vendor would let the request ask for."""
    longest = info.max_output_tokens or UNKNOWN_MAXIMUM
    window = info.context_window
    if window is None or bound + longest <= window:
        return longest
    # Some vendors refuse a cap that the window has no room for besides the prompt.
    room = window - count_tokens(request.model, request.messages)
    return min(longest, room) if room > 0 else longest


def _input_tokens(request: Request, info: ModelInfo, margin: float | None) -> tuple[int, bool]:
    """Returns what the input has at most, and whether its bytes were taken for tokens."""
    # Nothing is counted in vain: an estimate of a long prompt takes its time, and isn't used.
    counted = count_tokens(request.model, "")
    if margin is not None or not counted.estimated:
        counted = count_tokens(request.model, request.messages)
    bound, by_bytes = int(counted), False
    if counted.estimated:
        size = sum(_bytes(message.text) for message in request.messages)
        bound = size + PER_MESSAGE * len(request.messages) + PER_REQUEST
        probable = bound if margin is None else math.ceil(counted * margin)
        bound, by_bytes = min(bound, probable), probable >= bound
    bound += sum(map(_other_parts, request.messages)) + _other_fields(request)
    return bound if info.context_window is None else min(bound, info.context_window), by_bytes


def _other_parts(message: Message) -> int:
    """Returns what a message has besides text, in tokens at most."""
    if isinstance(message.content, str):
        return 0
    parts = [part for part in message.content if not isinstance(part, str)]
    return sum(PER_IMAGE if isinstance(part, Image) else _bytes(repr(part)) for part in parts)


def _other_fields(request: Request) -> int:
    """Returns what the rest of the request adds to the prompt, in tokens at most."""
    import json

    tokens = 0
    for each in fields(request):
        value = getattr(request, each.name)
        if value and each.name not in _NOT_PROMPT:
            tokens += _bytes(json.dumps(value, ensure_ascii=False, default=repr))
            names = value if isinstance(value, Mapping) else (each.name,)
            tokens += PER_TOOLS * ("tools" in names)
    return tokens


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _numbers(values: list[Mapping[str, Any]], names: frozenset[str]) -> Iterator[int]:
    """Finds whole numbers under any of some names, however deep, but not inside lists."""
    for value in values:
        for name, inner in value.items():
            if name in names and isinstance(inner, int) and inner > 0:
                yield int(inner)
            elif isinstance(inner, Mapping):
                yield from _numbers([inner], names)


def _worst_prices(input_tokens: int, info: ModelInfo) -> tuple[Decimal, Decimal] | None:
    """Returns the highest prices that the input can meet: USD for a token of input, and of output.

    None when the registry doesn't know them.
    """
    info = info.priced_on()
    if info.prices is None or "input" not in info.prices or "output" not in info.prices:
        return None
    tables: list[Mapping[str, Any]] = [
        info.prices,
        *(tier for tier in info.price_tiers if input_tokens > tier["above_input_tokens"]),
    ]
    kinds = ("input", "cache_read", "cache_write")
    read = max(table[kind] for table in tables for kind in kinds if kind in table)
    write = max(table["output"] for table in tables if "output" in table)
    return EXACT.divide(read, _MILLION), EXACT.divide(write, _MILLION)
