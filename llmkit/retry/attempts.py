"""The loop of tries."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from llmkit.errors import CircuitOpenError, LLMError
from llmkit.log import get_logger
from llmkit.retry.policy import LONGEST_BESIDE_OTHERS, RetryPolicy, asked_pause
from llmkit.scope import current_scope

if TYPE_CHECKING:
    import tenacity

__all__ = ["call_with_retries"]

T = TypeVar("T")


def call_with_retries(attempt: Callable[[float], T], policy: RetryPolicy) -> T:
    """Calls something until it succeeds, or trying again is no longer worth it.

    Args:
        attempt: Makes one try; it is told the seconds waited before it (0.0 for the first).
        policy: When to try again.

    Returns:
        What `attempt` returned.

    Raises:
        BaseException: The last try's error. Where it was worth another try that was not made, an
            `LLMError`'s message says why.
    """
    try:
        result = attempt(0.0)
        _pay_in(policy)
        return result
    except Exception as error:
        # Where a circuit is open nothing was sent. Else those who are refused would pay for many
        # retries of the few who are not.
        if not isinstance(error, CircuitOpenError):
            _pay_in(policy)
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


def _pay_in(policy: RetryPolicy) -> None:
    if policy.budget is not None:
        policy.budget.deposit()


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
        if state.attempt_number > policy.max_retries or left == 0.0:
            return True  # needs no explanation
        error = None if state.outcome is None else state.outcome.exception()
        obstacle = _obstacle(policy, error, state.upcoming_sleep, left)
        if obstacle is not None:
            _explain(error, obstacle)
        return obstacle is not None

    return tenacity.Retrying(
        stop=stop,
        retry=tenacity.retry_if_exception(worth_it),
        wait=wait,
        sleep=policy.sleep,
        before_sleep=before_sleep,
        reraise=True,
    )


def _obstacle(
    policy: RetryPolicy, error: BaseException | None, pause: float, left: float | None
) -> str | None:
    """Says what stands in the way of another try; None when nothing does."""
    if left is not None and pause >= left:
        asked = asked_pause(error) is not None
        wish = "the vendor asks to wait" if asked else "the next try would come in"
        return f"{wish} {pause:.1f} s, and {left:.1f} s are left"
    elsewhere = policy.elsewhere if pause > LONGEST_BESIDE_OTHERS else None
    if elsewhere is not None and error is not None and elsewhere(error):
        return f"the next model is asked rather than waiting {pause:.1f} s"
    refusal = None if policy.refusal is None else policy.refusal(pause)
    if refusal is not None:
        return refusal
    if policy.budget is not None and not policy.budget.withdraw():
        return "so many calls fail that the retry budget is used up"
    return None


def _explain(error: BaseException | None, obstacle: str) -> None:
    # Some say it themselves, and a test's stand-in may raise the same error again and again.
    if isinstance(error, LLMError) and "not tried again" in error.message:
        return
    get_logger("retry").info("not tried again, because %s: %s", obstacle, str(error))
    if isinstance(error, LLMError):
        error.message += f" - not tried again, because {obstacle}"
