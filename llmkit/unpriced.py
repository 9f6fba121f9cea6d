"""What a reply is charged for that the registry has no prices of.

Its cost is then unknown, rather than that of its tokens at the usual prices. Sources: the vendors'
price lists, and the replies' fields as their SDKs document them. Anthropic's reading of pages
(`web_fetch_requests`) costs nothing but tokens. The vendors that speak OpenAI's protocol have tiers
that are a matter of speed alone, so they are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

__all__ = ["find_unpriced"]

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
