"""The decorator that tries any function again."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from llmkit.errors import InvalidRequestError
from llmkit.log import brief
from llmkit.request.checks import check_whole
from llmkit.retry.attempts import call_with_retries
from llmkit.retry.policy import RetryPolicy, is_retryable

__all__ = ["retry_with_exponential_backoff"]

P = ParamSpec("P")
T = TypeVar("T")

RetryOn = Callable[[BaseException], bool] | type[BaseException] | tuple[type[BaseException], ...]


def retry_with_exponential_backoff(
    max_retries: int = 3,
    base_delay: float = 0.5,
    max_delay: float = 30.0,
    retry_on: RetryOn | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Makes a decorator that tries a function again when it fails.

    The pauses are random parts of `base_delay`, twice that, four times that, …; an error that
    carries `retry_after` says its pause itself. Inside `llmkit.deadline(…)` no pause goes past the
    deadline. Methods are decorated like functions (`@staticmethod` and `@classmethod` go above).

    Args:
        max_retries: Tries after the first; 0 means none.
        base_delay: Seconds.
        max_delay: Seconds that a pause lasts at most.
        retry_on: The exception classes that are worth another try, or a function that says so;
            None: retryable `LLMError`s, `ConnectionError` and `TimeoutError`.

    Returns:
        The decorator. It refuses generators and coroutines: calling one only makes it, and what
        fails comes later.

    Raises:
        InvalidRequestError: An argument can't be meant.
    """
    if callable(max_retries):  # the function itself: the brackets are missing
        raise InvalidRequestError(
            "retry_with_exponential_backoff is to be called: @retry_with_exponential_backoff()"
        )
    for name, seconds in (("base_delay", base_delay), ("max_delay", max_delay)):
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
            raise InvalidRequestError(f"{name}={brief(seconds)}: expected seconds, 0 or more")
    retries = check_whole("max_retries", max_retries, 0)
    if retries is None:
        raise InvalidRequestError("max_retries=None: expected a whole number")
    policy = RetryPolicy(
        max_retries=retries,
        base_delay=base_delay,
        max_delay=max_delay,
        retry_on=_predicate(retry_on),
    )

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        _check_function(function)

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
            return call_with_retries(lambda _: function(*args, **kwargs), policy)

        return wrapper

    return decorate


def _predicate(retry_on: RetryOn | None) -> Callable[[BaseException], bool]:
    if retry_on is None:
        return is_retryable
    if isinstance(retry_on, type | tuple):
        kinds = retry_on if isinstance(retry_on, tuple) else (retry_on,)
        if all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
            return lambda error: isinstance(error, kinds)
    elif callable(retry_on):
        return retry_on
    raise InvalidRequestError(
        f"retry_on={brief(retry_on)}: expected exception classes, or a function of an exception"
    )


def _check_function(function: Callable[..., object]) -> None:
    """Makes sure that whatever fails in a function fails while it is called."""
    if not callable(function):
        raise InvalidRequestError(
            f"retry_with_exponential_backoff: {brief(function)} is no function; "
            "it goes below @classmethod and @property"
        )
    name = getattr(function, "__qualname__", type(function).__qualname__)
    # An instance is called by its class's method.
    method = None if isinstance(function, type) else type(function).__call__
    for called in (function, method):
        if inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
            raise InvalidRequestError(
                f"retry_with_exponential_backoff: {name} is asynchronous, and llmkit is not"
            )
        if inspect.isgeneratorfunction(called):
            raise InvalidRequestError(
                f"retry_with_exponential_backoff: {name} is a generator, whose call does nothing "
                "yet that could fail; decorate a function that returns a list, or the one that "
                "fetches the next item"
            )
