"""Side by side: races, whose losers really stop, and independent work on a bounded pool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from llmkit.adapters import get_adapter
from llmkit.errors import InvalidRequestError
from llmkit.log import brief
from llmkit.parallel.calls import HedgeAfter, complete_in_race, stream_in_race
from llmkit.parallel.side_by_side import side_by_side
from llmkit.pipeline import Target
from llmkit.request import Prompt, check_seconds
from llmkit.request.checks import check_whole
from llmkit.types import Completion

__all__ = [
    "HedgeAfter",
    "complete_in_race",
    "execute_parallel",
    "race_models",
    "stream_in_race",
]

T = TypeVar("T")

# Operations that run at a time, unless said otherwise.
WORKERS = 32


def race_models(
    models: Sequence[str],
    prompt: Prompt,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    additional_params: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    track_metrics: bool = True,
) -> tuple[str, Completion]:
    """Asks several models at once; the first good answer wins, and the others are cut.

    Args:
        models: The models, the likeliest winner first; one may stand there twice.
        prompt: A text, or messages `{"role", "content"}`.
        max_tokens: The longest answer; None leaves it to the vendors.
        temperature: 0 to 2; None sends none.
        top_p: 0 to 1; None sends none.
        additional_params: Anything else that `Client.complete` takes, but `model` and `fallbacks`,
            and `hedge_after`, see `Client.race`; None for nothing else.
        timeout: Seconds for the race; None takes REQUEST_TIMEOUT.
        track_metrics: Whether the performance tracker is told.

    Returns:
        The winner's name as it stands in `models`, and its answer.

    Raises:
        AllModelsFailedError: No model answered.
        LLMError: The request is wrong, or the only model failed.
    """
    if isinstance(models, str) or not models:
        raise InvalidRequestError(f"models={brief(models)}: expected a list of at least one name")
    keywords = dict(additional_params or {})
    hedge_after = keywords.pop("hedge_after", None)
    named = {
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "timeout": timeout,
    }
    keywords.update({name: value for name, value in named.items() if value is not None})
    calls = [(adapter, adapter.read_call(prompt, keywords)) for adapter in map(get_adapter, models)]
    targets = [
        Target(adapter, options._replace(tracked=track_metrics)) for adapter, (_, options) in calls
    ]
    answered: list[int] = []
    reply = complete_in_race(targets, calls[0][1][0], hedge_after, answered.append)
    return models[answered[0]], reply


def execute_parallel(
    operations: Sequence[Callable[[], T]],
    *,
    max_workers: int | None = None,
    timeout: float | None = None,
    return_exceptions: bool = False,
) -> list[T | BaseException]:
    """Runs independent operations side by side.

    Each runs on one of a few threads, in a copy of the caller's context: budgets and deadlines
    around this call hold for it.

    Args:
        operations: Functions without arguments.
        max_workers: How many run at a time; None: up to 32.
        timeout: Seconds for all together; None sets no limit. What runs then is cut where it waits
            for a model; an operation that does something else can't be cut, but nobody waits for it
            any more.
        return_exceptions: Whether an operation's exception stands in its place in the list; False
            raises the first one, and cuts the rest.

    Returns:
        The results, in the order of the operations.

    Raises:
        Exception: The first one that an operation raised, unless `return_exceptions`.
        LLMTimeoutError: The time was over before all were done, unless `return_exceptions`.
        InvalidRequestError: An argument can't be meant.
        TooManyThreadsError: The system has not a single further thread.
    """
    tasks = _checked(operations)
    workers = check_whole("max_workers", max_workers, 1) or min(WORKERS, len(tasks) or 1)
    return side_by_side(tasks, workers, check_seconds("timeout", timeout), return_exceptions)


def _checked(operations: Sequence[Callable[[], T]]) -> list[Callable[[], T]]:
    if not isinstance(operations, Iterable) or isinstance(operations, str):
        raise InvalidRequestError(f"operations={brief(operations)}: expected a list of functions")
    tasks = list(operations)
    for task in tasks:
        if not callable(task):
            raise InvalidRequestError(
                f"operations has {brief(task)}: expected functions without arguments, such as "
                "lambda: client.complete(…)"
            )
    return tasks
