"""Keywords of a call: misspelt ones are refused, a vendor's own go through."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from llmkit.errors import InvalidRequestError
from llmkit.log import brief

__all__ = ["KNOWN_KEYWORDS", "check_spelling"]

# The keywords of Client.complete and Client.stream: what an unknown one may be a misspelling of.
KNOWN_KEYWORDS = (
    "model",
    "messages",
    "prompt",
    "system",
    "max_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "reasoning_effort",
    "timeout",
    "attempt_timeout",
    "first_chunk_timeout",
    "idle_timeout",
    "max_retries",
    "fallbacks",
    "tools",
    "tool_choice",
    "response_model",
    "cache_prompt",
    "use_cache",
    "cache_ttl",
    "stale_ttl",
    "cache_truncated",
    "on_unsupported",
    "metadata",
    "extra_body",
    "extra_headers",
    "api_key",
    "base_url",
    "hedge_after",
)
# Parts of the interface that this version does not have; sent to a vendor they would do something
# else than what is meant.
_NOT_YET = frozenset(
    {
        "tools",
        "tool_choice",
        "response_model",
        "cache_prompt",
    }
)
_ADDRESS = "give api_base= to get_adapter(…), or openai_api_base= and the like to Settings(…)"
_MISPLACED = {
    "api_key": "give it to get_adapter(…), or openai_api_key= and the like to Settings(…)",
    "base_url": _ADDRESS,
    "api_base": _ADDRESS,
    "messages": "give the messages as the first argument, `prompt`",
    "stream": "call Client.stream(…)",
    "hedge_after": "call Client.race(…) or Client.race_stream(…)",
    # What other libraries call ours: a vendor would refuse it, or overlook it in silence.
    **dict.fromkeys(("retries", "num_retries", "max_retry"), "max_retries= is meant"),
    "cache": "use_cache= says whether the cache is used",
    "deadline": "timeout= is meant, or a block `with llmkit.deadline(…)`",
    "budget": "give it to Client(…), or open a block `with client.budget(…)`",
    **dict.fromkeys(
        ("fallback_on", "middleware", "observers", "rate_limits", "settings"),
        "give it to Client(…)",
    ),
}
_ANYHOW = " (what is really meant for the vendor can be sent by extra_body)"
# Vendors' own parameters that happen to look like one of ours: Anthropic's `speed`, OpenRouter's
# `models`, Groq's `reasoning_format`.
_GENUINE = frozenset({"models", "reasoning_format", "speed"})

# How much alike a misspelling and what was meant are: "sytem" and "system" are 0.91, "top_k" and
# "top_p", both genuine, 0.80.
_ALIKE = 0.84


def check_spelling(keywords: Iterable[object] | None) -> None:
    """Refuses keywords that are meant for llmkit, but that it does not have.

    Args:
        keywords: The names of those that would go to the vendor; what has no names, or others than
            texts, is for others to refuse.

    Raises:
        InvalidRequestError: One is misspelt, misplaced, or not part of this version.
    """
    for keyword in keywords if isinstance(keywords, Iterable) else ():
        problem = _problem(keyword) if isinstance(keyword, str) else None
        if problem:
            raise InvalidRequestError(problem)


@functools.lru_cache(maxsize=256)
def _problem(keyword: str) -> str | None:
    if keyword in _NOT_YET:
        return (
            f"{keyword}= is not part of this version of llmkit; "
            "what the vendor itself understands can be sent by extra_body"
        )
    if keyword in _MISPLACED:
        return f"{keyword}= is not a parameter here: {_MISPLACED[keyword]}{_ANYHOW}"
    if keyword in _GENUINE:
        return None
    import difflib

    if keyword in KNOWN_KEYWORDS:
        return f"{keyword}= is not a parameter of this call"
    written = keyword.lower().replace("-", "_")
    near = difflib.get_close_matches(written, KNOWN_KEYWORDS, n=1, cutoff=_ALIKE)
    if not near:
        return None
    return f"{brief(keyword)} is not a known keyword; did you mean {near[0]}=?{_ANYHOW}"
