"""What a call costs, from the vendor's own count of tokens and the registry's prices.

Where a vendor charges for more than that, the cost is unknown. What it says of that in a reply is
taken from the SDKs' documentation of the replies' fields and from the vendors' price lists.
Anthropic's reading of pages (`web_fetch_requests`) costs nothing but tokens. The other vendors that
speak OpenAI's protocol have service tiers that are a matter of speed alone.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from decimal import Context, Decimal
from typing import Any, Final

from llmkit.models import ModelInfo
from llmkit.types import Usage

__all__ = ["cost_of", "find_unpriced", "why_unknown"]

_MILLION = Decimal(1_000_000)

# Not the application's decimal context, which may round to a few digits.
_EXACT = Context(prec=60)


def cost_of(
    usage: Usage, info: ModelInfo, on: datetime.date | None = None, *, batch: bool = False
) -> Decimal | None:
    """Computes the price of a call.

    Args:
        usage: The tokens, as `Usage` counts them: cached ones are part of the input, reasoning is
            part of the output.
        info: The model.
        on: The day of the call, whose prices count; None is today.
        batch: Whether it went through the vendor's batch interface, which has prices of its own.

    Returns:
        USD, exact; None when the usage, the model's prices, or one price that this usage needs is
        unknown, and when the usage contradicts itself.
    """
    if usage.input_tokens is None or usage.output_tokens is None:
        return None
    prices = _prices_for(usage.input_tokens, info.priced_on(on), batch)
    if prices is None:
        return None
    read = usage.cache_read_tokens or 0
    written = usage.cache_write_tokens or 0
    total = Decimal(0)
    for kind, tokens in (
        ("input", usage.input_tokens - read - written),
        ("cache_read", read),
        ("cache_write", written),
        ("output", usage.output_tokens),
    ):
        price = prices.get(kind)
        if tokens < 0 or (tokens and price is None):
            return None
        if tokens and price is not None:
            total = _EXACT.fma(price, tokens, total)
    return _EXACT.divide(total, _MILLION)


def why_unknown(usage: Usage, info: ModelInfo, unpriced: str | None = None) -> str:
    """Says why a call's cost is unknown, in a sentence for the call's warnings.

    Args:
        usage: As in `cost_of`.
        info: As in `cost_of`.
        unpriced: What the vendor charges for besides; None where that is nothing, and `cost_of`
            gives None.

    Returns:
        The sentence.
    """
    if unpriced is not None:
        reason = f"the registry has no price of {unpriced}"
    elif usage.input_tokens is None or usage.output_tokens is None:
        reason = "the vendor did not say how many tokens it took"
    elif info.priced_on().prices is None:
        reason = f"the registry has no price of {info.name}"
    elif usage.input_tokens < (usage.cache_read_tokens or 0) + (usage.cache_write_tokens or 0):
        reason = "the vendor counted more cached tokens than tokens"
    else:
        reason = f"the registry lacks one of the prices of {info.name}, or a count is below zero"
    return f"the call's cost is unknown: {reason}"


def _prices_for(input_tokens: int, info: ModelInfo, batch: bool) -> Mapping[str, Decimal] | None:
    """Returns the prices that hold for a prompt of this length: a long one has others."""
    prices, tiers = info.prices, info.price_tiers
    if batch:
        prices, tiers = info.batch_prices, info.batch_price_tiers
    for tier in tiers:
        if input_tokens > tier["above_input_tokens"]:
            prices = {key: price for key, price in tier.items() if key != "above_input_tokens"}
    return prices


_USUAL_TIERS = frozenset({"default", "standard", "unspecified"})


def find_unpriced(provider: str, raw: Mapping[str, Any]) -> str | None:
    """Looks for what a reply is charged for besides tokens at the registry's prices.

    Args:
        provider: Who answered.
        raw: The vendor's JSON; odd figures in it are passed over.

    Returns:
        The first that is found, in a few words; None for nothing.
    """
    find = _FINDERS.get(provider)
    return None if find is None else find(raw)


def _by_openai(raw: Mapping[str, Any]) -> str | None:
    usage = _mapping(raw.get("usage"))
    for name in ("prompt_tokens_details", "completion_tokens_details"):
        if _mapping(usage.get(name)).get("audio_tokens"):
            return "sound"
    return _tier(raw.get("service_tier"))


def _by_anthropic(raw: Mapping[str, Any]) -> str | None:
    usage = _mapping(raw.get("usage"))
    if _mapping(usage.get("cache_creation")).get("ephemeral_1h_input_tokens"):
        return "caching for an hour"
    if _mapping(usage.get("server_tool_use")).get("web_search_requests"):
        return "web searches"
    if usage.get("inference_geo") == "us":
        return "inference in the US alone"
    if usage.get("speed") == "fast":
        return "the fast mode"
    return _tier(usage.get("service_tier"))


def _by_google(raw: Mapping[str, Any]) -> str | None:
    for candidate in _mappings(raw.get("candidates")):
        grounding = candidate.get("groundingMetadata")
        if grounding is not None and _mapping(grounding).get("webSearchQueries"):
            return "web searches"
    usage = _mapping(raw.get("usageMetadata"))
    for name in ("promptTokensDetails", "candidatesTokensDetails"):
        for count in _mappings(usage.get(name)):
            if count.get("modality") == "AUDIO":
                return "sound"
    return _tier(usage.get("serviceTier"))


_FINDERS: Final[Mapping[str, Callable[[Mapping[str, Any]], str | None]]] = {
    "openai": _by_openai,
    "anthropic": _by_anthropic,
    "gemini": _by_google,
}


def _tier(tier: object) -> str | None:
    if isinstance(tier, str) and tier and tier.lower() not in _USUAL_TIERS:
        return f"the service tier {tier[:40]!r}"
    return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: object) -> list[Mapping[str, Any]]:
    return [each for each in value if isinstance(each, Mapping)] if isinstance(value, list) else []
