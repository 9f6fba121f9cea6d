"""The words that vendors have for why they refused or filtered a content.

Each function returns the most specific that is said, several joined by ", ", and None where
nothing is: what a vendor's filter reports beside its verdict must not break the call.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "FILTER_TEXT",
    "as_mapping",
    "blocked_ratings",
    "category_of_choice",
    "category_of_error",
    "category_of_feedback",
]

# Refusals that are said in no other way: the codes beside these texts are those of any wrong
# request. Anthropic ("Output blocked by content filtering policy"), OpenAI's reasoning models
# ("Invalid prompt: your prompt was flagged as potentially violating our usage policy"), DeepSeek.
FILTER_TEXT = re.compile(
    r"blocked by (content filtering policy)|flagged as potentially violating our (usage policy)"
    r"|(content exists risk)",
    re.IGNORECASE,
)

# Longer is no category.
_LONGEST = 200

# OpenRouter's stable words among its `error_type`s; the others are no refusals.
_ROUTERS_WORDS = frozenset({"content_policy_violation", "refusal"})


def as_mapping(value: object) -> Mapping[str, Any]:
    """Returns a mapping as it is, and an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def category_of_error(error: Mapping[str, Any]) -> str | None:
    """Finds the category in an error's JSON: in Azure's inner error, or in OpenRouter's metadata.

    Args:
        error: The inner object, with `code` and `message`.
    """
    # Azure OpenAI and Azure's other models spell it differently.
    inner = as_mapping(error.get("innererror") or error.get("inner_error"))
    found = _filtered(inner.get("content_filter_result") or inner.get("content_filter_results"))
    if found is not None:
        return found
    metadata = as_mapping(error.get("metadata"))
    if "flagged_input" in metadata or error.get("code") == 403:
        found = _joined(_as_list(metadata.get("reasons")))
    kind = metadata.get("error_type")
    return found or (kind if isinstance(kind, str) and kind in _ROUTERS_WORDS else None)


def category_of_choice(choice: Mapping[str, Any], whole: Mapping[str, Any]) -> str | None:
    """Finds why an answer in OpenAI's protocol was filtered.

    Args:
        choice: The answer: Azure's verdicts stand in it, and OpenRouter's word of the vendor
            behind it.
        whole: The JSON around it: OpenAI's moderation and Azure's verdicts on the prompt.
    """
    for verdicts in (choice.get("content_filter_results"), choice.get("content_filter_result")):
        found = _filtered(verdicts)
        if found is not None:
            return found
    moderation = as_mapping(whole.get("moderation"))
    prompts = _as_list(whole.get("prompt_filter_results"))
    native = choice.get("native_finish_reason")
    return (
        _flagged(moderation.get("output"))
        or _flagged(moderation.get("input"))
        or _joined(_filtered(as_mapping(p).get("content_filter_results")) for p in prompts)
        or (native if isinstance(native, str) and native else None)
    )


def category_of_feedback(feedback: object) -> str | None:
    """Finds why Gemini blocked a prompt; None when it did not."""
    told = as_mapping(feedback)
    reason = told.get("blockReason")
    if not reason:
        return None
    return blocked_ratings(told.get("safetyRatings")) or str(reason)


def _filtered(verdicts: object) -> str | None:
    """Finds the categories that filtered a content, among Azure's verdicts for all of them."""
    return _joined(
        name
        for name, verdict in as_mapping(verdicts).items()
        if any(as_mapping(each).get("filtered") is True for each in (verdict, *_as_list(verdict)))
    )


def _flagged(moderated: object) -> str | None:
    """Finds the categories that OpenAI's moderation flagged."""
    return _joined(
        name
        for result in _as_list(as_mapping(moderated).get("results"))
        for name, is_flagged in as_mapping(as_mapping(result).get("categories")).items()
        if is_flagged is True
    )


def blocked_ratings(ratings: object) -> str | None:
    """Finds the categories for which Gemini blocked a content, among its ratings."""
    return _joined(
        rating.get("category")
        for rating in map(as_mapping, _as_list(ratings))
        if rating.get("blocked") is True
    )


def _as_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _joined(words: Iterable[object]) -> str | None:
    texts = dict.fromkeys(word for word in words if isinstance(word, str) and word)
    return ", ".join(texts)[:_LONGEST] or None
