"""Fallback: when a model fails in a way in which another need not, the next one is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from llmkit.adapters import get_adapter
from llmkit.errors import InvalidRequestError, ModelNotFoundError
from llmkit.fallback.calls import complete_in_turn, stream_in_turn
from llmkit.fallback.selecting import STRATEGIES, select_models
from llmkit.fallback.turns import FALLBACK_CODES, Candidate, FallbackOn, falls_back_on, in_turn
from llmkit.log import brief
from llmkit.models import get_model_info
from llmkit.pipeline import Target
from llmkit.request import Prompt, check_seconds
from llmkit.scope import CallInterrupted, Scope
from llmkit.types import Completion

__all__ = [
    "FALLBACK_CODES",
    "STRATEGIES",
    "FallbackOn",
    "complete_in_turn",
    "execute_llm_with_fallback",
    "execute_with_fallbacks",
    "falls_back_on",
    "select_models",
    "stream_in_turn",
]

T = TypeVar("T")


def execute_with_fallbacks(
    primary: str,
    fallbacks: Sequence[str],
    operation: Callable[[str], T],
    *,
    should_fallback: FallbackOn = None,
    timeout: float | None = None,
) -> tuple[str, T]:
    """Does something with the first of some models that manages it.

    Args:
        primary: The model that is tried first.
        fallbacks: The models to try after it, in this order.
        operation: Does the work of one model, given its name. While others wait behind it, it runs
            under a deadline of two thirds of the time left. llmkit's own calls keep to that; what
            else it waits for can't be cut, and what it returns late still counts.
        should_fallback: Which failures lead to the next model: error codes, or a function of an
            exception; None for those that another model need not have (`FALLBACK_CODES`).
        timeout: Seconds for all models together; None sets no limit.

    Returns:
        The name of the model that managed it, and what `operation` returned.

    Raises:
        AllModelsFailedError: Several models failed; `.errors` says how.
        InvalidRequestError: An argument can't be meant.
        Exception: The only model that was tried failed.
    """
    if isinstance(fallbacks, str) or not isinstance(fallbacks, Iterable):
        raise InvalidRequestError(f"fallbacks={brief(fallbacks)}: expected a list of models")
    names = [primary, *fallbacks]
    leads_on = falls_back_on(should_fallback)
    with Scope(check_seconds("timeout", timeout)).entered():
        try:
            at, result = in_turn([_named(name, operation) for name in names], leads_on)
        except CallInterrupted as interruption:
            raise interruption.to_error() from None
    return names[at], result


def execute_llm_with_fallback(
    prompt: Prompt,
    requested_model: str | None = None,
    *,
    task_context: Mapping[str, Any] | None = None,
    strategy: str = "default",
    **kwargs: Any,
) -> tuple[str, Completion]:
    """Asks the models that `select_models` chooses, one after the other.

    Args:
        prompt: A text, or messages `{"role", "content"}`.
        requested_model: The model to ask first; None leaves it to `select_models`.
        task_context: See `select_models`.
        strategy: See `select_models`.
        **kwargs: Anything that `Client.complete` takes, but `model` and `fallbacks`, which
            `select_models` chooses.

    Returns:
        The name of the model that answered, and its answer.

    Raises:
        LLMError: Whatever went wrong; `AllModelsFailedError` when several models failed.
    """
    primary, others = select_models(requested_model, task_context, strategy)
    names = [primary, *others]
    calls = [(adapter, adapter.read_call(prompt, kwargs)) for adapter in map(get_adapter, names)]
    targets = [Target(adapter, options) for adapter, (_, options) in calls]
    answered: list[int] = []
    reply = complete_in_turn(targets, calls[0][1][0], falls_back_on(), answered.append)
    return names[answered[0]], reply


def _named(name: str, operation: Callable[[str], T]) -> Candidate[T]:
    def window() -> int | None:
        try:
            return get_model_info(name).context_window
        except ModelNotFoundError:
            return None

    return Candidate(name, window, lambda forced: operation(name))
