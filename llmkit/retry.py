"""The one owner of retries: exponential backoff with full jitter, obeying the vendor's Retry-After.

The SDKs' own retries are off. A wait never goes past the deadline: when the pause before the next
try would, the error is raised at once.
"""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from llmkit.errors import InvalidRequestError, LLMError
from llmkit.log import brief, get_logger
from llmkit.request.checks import check_whole
from llmkit.scope import current_scope

if TYPE_CHECKING:
    import tenacity

__all__ = ["RetryPolicy", "call_with_retries", "retry_with_exponential_backoff"]

P = ParamSpec("P")
T = TypeVar("T")

RetryOn = Callable[[BaseException], bool] | type[BaseException] | tuple[type[BaseException], ...]


def is_retryable(error: BaseException) -> bool:
    """Says whether a second try may help: a retryable `LLMError`, or a broken connection."""
    if isinstance(error, LLMError):
        return error.retryable
    return isinstance(error, ConnectionError | TimeoutError)


def pause(seconds: float) -> None:
    """Waits, inside the current Scope where there is one."""
    scope = current_scope()
    if scope is None:
        time.sleep(seconds)
    else:
        scope.sleep(seconds)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again, and after how long.

    Attributes:
        max_retries: Tries after the first.
        base_delay: The first pause is a random part of this many seconds; it doubles each time.
        max_delay: No pause is longer, unless the vendor asks for it.
        retry_on: Says whether an error is worth another try.
        sleep: Waits for some seconds.
        rng: Gives numbers from 0 to 1.
    """

    max_retries: int = 3
    base_delay: float = 0.5
    max_delay: float = 30.0
    retry_on: Callable[[BaseException], bool] = is_retryable
    sleep: Callable[[float], None] = pause
    rng: Callable[[], float] = random.random

    def delay(self, tries: int, error: BaseException | None) -> float:
        """Returns the pause after a failure.

        Args:
            tries: How many tries there were, from 1.
            error: The last one's error.

        Returns:
            Seconds: what the vendor asked for, or a random part of the exponential delay.
        """
        asked = getattr(error, "retry_after", None)
        if isinstance(asked, int | float) and asked >= 0:  # foreign errors may hold a date there
            return float(asked)
        # Full jitter keeps clients that failed together from coming back together.
        return self.rng() * min(self.max_delay, self.base_delay * 2.0 ** min(tries - 1, 60))


def call_with_retries(attempt: Callable[[float], T], policy: RetryPolicy) -> T:
    """Calls something until it succeeds, or trying again is no longer worth it.

    Args:
        attempt: Makes one try; it is told the seconds waited before it (0.0 for the first).
        policy: When to try again.

    Returns:
        What `attempt` returned.

    Raises:
        BaseException: The last try's error, unchanged.
    """
    try:
        return attempt(0.0)
    except Exception as error:
        if policy.max_retries < 1 or not policy.retry_on(error):
            raise
        failure: Exception | None = error  # judged already: the policy is not asked twice
    # tenacity takes over only now: most calls succeed at once, and importing it costs 40 ms.
    # The first failure is handed to it as that of its own first try.
    waited = 0.0

    def try_again() -> T:
        if failure is not None:
            raise failure
        return attempt(waited)

    def worth_it(error: BaseException) -> bool:
        nonlocal failure
        if error is failure:
            failure = None
            return True
        # Ctrl-C and the like end the loop, whatever the policy says of everything else.
        return isinstance(error, Exception) and policy.retry_on(error)

    def note_wait(state: tenacity.RetryCallState) -> None:
        nonlocal waited
        waited = state.upcoming_sleep
        get_logger("retry").info(
            "try %d failed (%s); the next one in %.2f s",
            state.attempt_number,
            None if state.outcome is None else state.outcome.exception(),
            waited,
        )

    return _retrying(policy, worth_it, note_wait)(try_again)


def _retrying(
    policy: RetryPolicy,
    worth_it: Callable[[BaseException], bool],
    before_sleep: Callable[[tenacity.RetryCallState], None],
) -> tenacity.Retrying:
    import tenacity

    def wait(state: tenacity.RetryCallState) -> float:
        error = None if state.outcome is None else state.outcome.exception()
        return policy.delay(state.attempt_number, error)

    def stop(state: tenacity.RetryCallState) -> bool:
        scope = current_scope()
        left = None if scope is None else scope.remaining()
        too_late = left is not None and state.upcoming_sleep >= left
        return too_late or state.attempt_number > policy.max_retries

    return tenacity.Retrying(
        stop=stop,
        retry=tenacity.retry_if_exception(worth_it),
        wait=wait,
        sleep=policy.sleep,
        before_sleep=before_sleep,
        reraise=True,
    )


def retry_with_exponential_backoff(
    max_retries: int = 3,
    base_delay: float = 0.5,
    max_delay: float = 30.0,
    retry_on: RetryOn | None = None,
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Makes a decorator that tries a function again when it fails.

    The pauses are random parts of `base_delay`, twice that, four times that, …; an error that
    carries `retry_after` says its pause itself. Inside `llmkit.deadline(…)` no pause goes past the
    deadline.

    Args:
        max_retries: Tries after the first; 0 means none.
        base_delay: Seconds.
        max_delay: Seconds that a pause lasts at most.
        retry_on: The exception classes that are worth another try, or a function that says so;
            None: retryable `LLMError`s, `ConnectionError` and `TimeoutError`.

    Returns:
        The decorator.

    Raises:
        InvalidRequestError: An argument can't be meant.
    """
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
