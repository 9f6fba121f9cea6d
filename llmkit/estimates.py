"""What a call would cost, before it is made."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from llmkit.cost import cost_of
from llmkit.models import get_model_info
from llmkit.request import Prompt
from llmkit.request.checks import check_whole
from llmkit.tokenizer import TokenCount, count_tokens
from llmkit.types import Usage

__all__ = ["CostEstimate", "estimate_cost"]


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """What a call would cost; None means unknown.

    Attributes:
        model: The model's bare name.
        input_tokens: The prompt's; `.estimated` says whether they were guessed.
        output_tokens: The longest answer; None when neither the call nor the registry says it.
        input_usd: USD for the prompt.
        usd: USD for the prompt and an answer of the full length: the most, unless the prompt was
            counted too low.
    """

    model: str
    input_tokens: TokenCount
    output_tokens: int | None
    input_usd: Decimal | None
    usd: Decimal | None


def estimate_cost(prompt: Prompt, model: str, max_tokens: int | None = None) -> CostEstimate:
    """Says what a call would cost. Nothing is sent, and nothing taken from a cache is assumed.

    Args:
        prompt: A text, which is counted as the message that it would be sent as, or messages.
        model: The model that would be asked.
        max_tokens: The longest answer; None takes the model's own maximum.

    Returns:
        The estimate; pictures are not in it.

    Raises:
        ModelNotFoundError: The registry does not know the model.
        InvalidRequestError: The prompt or `max_tokens` can't be meant.
    """
    max_tokens = check_whole("max_tokens", max_tokens, 1)
    info = get_model_info(model)
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    tokens = count_tokens(model, messages)
    longest = info.max_output_tokens
    if max_tokens is not None:
        longest = max_tokens if longest is None else min(max_tokens, longest)
    known = int(tokens)
    return CostEstimate(
        model=info.name,
        input_tokens=tokens,
        output_tokens=longest,
        input_usd=cost_of(Usage(input_tokens=known, output_tokens=0), info),
        usd=cost_of(Usage(input_tokens=known, output_tokens=longest), info),
    )
