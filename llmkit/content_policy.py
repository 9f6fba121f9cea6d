"""Refused and filtered contents, logged for review.

One line on the logger `llmkit.content_policy`, at WARNING. It says who refused and why, never what
was asked or answered, unless LLMKIT_LOG_CONTENT is on.
"""

from __future__ import annotations

import contextlib

from llmkit.errors import ConfigurationError, ContentFilterError
from llmkit.log import SHORTEST_KEY, get_logger, redact
from llmkit.request import Message, Request
from llmkit.settings import PROVIDERS, Settings
from llmkit.types import Completion

__all__ = ["is_violation", "log_violation"]

# Characters of a prompt or answer that are shown: a line of a log has to stay one that can be read.
LONGEST = 20_000


def is_violation(outcome: object) -> bool:
    """Says whether a call ended by a content filter, the vendor's or one's own.

    Args:
        outcome: What the call ended with.

    Returns:
        True for a `ContentFilterError`, and for a `Completion` that was refused or cut off.
    """
    if isinstance(outcome, Completion):
        return outcome.finish_reason == "content_filter"
    return isinstance(outcome, ContentFilterError)


def log_violation(
    outcome: object, *, provider: str, model: str, request: Request, settings: Settings
) -> None:
    """Logs a call that ended by a content filter; does nothing for any other.

    Args:
        outcome: What the call ended with, a `Completion` or an error.
        provider: Who was asked.
        model: Which model.
        request: What was asked.
        settings: `log_content` says whether the prompt's and the answer's text may be shown; then,
            too, keys are taken out of them.
    """
    if isinstance(outcome, Completion) and is_violation(outcome):
        text, category = outcome.text, outcome.content_filter_category
        where = f"refused or cut off after {len(text)} characters of the answer"
    elif isinstance(outcome, ContentFilterError):
        text, category = "", outcome.category
        where = "refused, nothing was answered"
    else:
        return
    line = (
        f"content filter: {provider}:{model}: {where}; category {category!r}, "
        f"request id {outcome.request_id!r}"
    )
    if settings.log_content:
        prompt = "\n\n".join(_shown(message) for message in request.messages)
        keys = _keys(provider, settings)
        line += f"; prompt {_clean(prompt, keys)}"
        if text:
            line += f"; answer {_clean(text, keys)}"
    get_logger("content_policy").warning("%s", line)


def _shown(message: Message) -> str:
    parts = () if isinstance(message.content, str) else message.content
    images = sum(not isinstance(part, str) for part in parts)
    return f"{message.role}: {message.text}" + (f" [images: {images}]" if images else "")


def _keys(provider: str, settings: Settings) -> list[str]:
    """Finds the keys that may stand in a text, whatever they look like."""
    keys = [settings.api_key(each) for each in PROVIDERS]
    with contextlib.suppress(ConfigurationError):  # what can't be a key
        keys.append(settings.variable(f"{provider.upper()}_API_KEY"))
    return [key for key in keys if isinstance(key, str) and len(key) >= SHORTEST_KEY]


def _clean(text: str, keys: list[str]) -> str:
    """Returns a text as one line, without keys, and shortened."""
    for key in keys:
        text = text.replace(key, "***")
    text = redact(text)
    rest = len(text) - LONGEST
    return repr(text[:LONGEST]) + (f" and {rest} characters more" if rest > 0 else "")
