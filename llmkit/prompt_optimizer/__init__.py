"""Makes a prompt fit a number of tokens: compacts first, then cuts, and says what went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

from llmkit.prompt_optimizer.conversation import fit_messages
from llmkit.prompt_optimizer.counting import Counter
from llmkit.prompt_optimizer.report import (
    Compacted,
    Cut,
    Dropped,
    FitReport,
    FittedMessages,
    FittedPrompt,
)
from llmkit.prompt_optimizer.text import fit_prompt
from llmkit.tokenizer import count_tokens

__all__ = [
    "Compacted",
    "Counter",
    "Cut",
    "Dropped",
    "FitReport",
    "FittedMessages",
    "FittedPrompt",
    "fit_messages",
    "fit_prompt",
    "optimize_prompt",
]


@overload
def optimize_prompt(
    prompt: str,
    model: str,
    target_token_count: int,
    preserve_instructions: bool = True,
    *,
    counter: Counter = count_tokens,
) -> str: ...


@overload
def optimize_prompt(
    prompt: Sequence[Mapping[str, Any]],
    model: str,
    target_token_count: int,
    preserve_instructions: bool = True,
    *,
    counter: Counter = count_tokens,
) -> list[dict[str, Any]]: ...


def optimize_prompt(
    prompt: str | Sequence[Mapping[str, Any]],
    model: str,
    target_token_count: int,
    preserve_instructions: bool = True,
    *,
    counter: Counter = count_tokens,
) -> str | list[dict[str, Any]]:
    """Makes a prompt fit a number of tokens; what fits already comes back as it is.

    `fit_prompt` and `fit_messages` do the same and also report what was left out.

    Args:
        prompt: A text, or messages in the OpenAI shape.
        model: The model whose tokens count.
        target_token_count: The most tokens that the result may have, as `counter` counts them.
        preserve_instructions: Whether the instructions around a long middle, and system messages,
            stay whole whatever happens; False lets anything be cut.
        counter: What counts tokens; called like `llmkit.tokenizer.count_tokens`.

    Returns:
        A text for a text, a new list of messages for messages.

    Raises:
        ContextLengthError: What has to stay is longer than the target.
        InvalidRequestError: The prompt or the target is not of the expected kind.
    """
    if isinstance(prompt, str):
        return fit_prompt(
            prompt, model, target_token_count, preserve_instructions, counter=counter
        ).prompt
    return fit_messages(
        prompt, model, target_token_count, preserve_instructions, counter=counter
    ).messages
