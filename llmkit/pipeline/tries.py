"""The tries of one model in a call: each is guarded, budgeted, timed and noted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from llmkit.breaker import CircuitBreaker, Permit, breaker_for
from llmkit.budget import active_budgets
from llmkit.errors import Attempt, CircuitOpenError, ErrorCode, LLMError
from llmkit.models import ModelInfo
from llmkit.pipeline.options import Adapter, CallOptions
from llmkit.reply_headers import heard_by
from llmkit.request import Request
from llmkit.retry import call_with_retries, retry_budget
from llmkit.scope import CallInterrupted, Scope, current_scope
from llmkit.tokenizer import count_tokens
from llmkit.types import Completion

if TYPE_CHECKING:
    from llmkit.budget import Held
    from llmkit.rate_limits import Place

__all__ = ["Tries", "code_of"]

T = TypeVar("T")

# Seconds that a try must have lasted for its time-out to say something of the model rather than of
# its caller's haste.
PATIENCE = 1.0

# Seconds for a model below which those for the next one, half as many, may not do for loading an
# SDK, too: that takes one or two, and several on a busy machine.
LITTLE_TIME = 10.0

# Tokens of an answer that nobody has set a limit to, as the rate limits reckon with it beforehand.
TYPICAL_ANSWER = 1000


class Tries:
    """Makes one HTTP request after the other, as often as the retries allow.

    Args:
        adapter: Whom to ask.
        info: What is known of the model.
        request: What to ask.
        options: How.
        streamed: Whether the answer arrives in pieces.

    Attributes:
        request: What is sent; a budget may have set its `max_tokens`.
        held: What the last try holds of its budgets; None without any.
        failure: The last error of a try; None before.
    """

    __slots__ = (
        "_adapter",
        "_asked",
        "_budgets",
        "_estimate",
        "_history",
        "_info",
        "_options",
        "_place",
        "_streamed",
        "failure",
        "held",
        "request",
    )

    def __init__(
        self,
        adapter: Adapter,
        info: ModelInfo,
        request: Request,
        options: CallOptions,
        streamed: bool,
    ) -> None:
        self.request = self._asked = request
        self.held: Held | None = None
        self.failure: LLMError | None = None
        self._adapter = adapter
        self._info = info
        self._options = options
        self._streamed = streamed
        self._place: Place | None = None
        self._estimate: int | None = None
        self._budgets = active_budgets(options.budgets)
        # The tries so far, and when the one under way began with what wait before it. One
        # attribute, so that another thread never sees half of a change.
        self._history: tuple[tuple[Attempt, ...], tuple[float, float] | None] = ((), None)

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """Every try that has ended."""
        return self._history[0]

    def attempts_if_cut(self) -> tuple[Attempt, ...]:
        """Every try, one that is under way as cancelled: a racer that has lost."""
        attempts, current = self._history
        if current is None:
            return attempts
        since, wait = current
        return (*attempts, self._attempted(since, wait, code=ErrorCode.LLM_CANCELLED))

    def end_stream(self, outcome: Completion | LLMError) -> None:
        """Settles what is known only at a stream's end."""
        if self.held is not None:
            self.held.end(outcome)
        if self._place is not None:
            used = outcome.usage.total_tokens if isinstance(outcome, Completion) else None
            self._place.used(used)
        self.note_end(outcome)

    def note_end(self, outcome: Completion | LLMError) -> None:
        """Notes how a stream ended with the try that began it; takes no lock."""
        attempts, _ = self._history
        if attempts and attempts[-1].code is None:
            last = replace(
                attempts[-1],
                code=outcome.code if isinstance(outcome, LLMError) else None,
                status=outcome.status if isinstance(outcome, LLMError) else None,
                request_id=outcome.request_id,
            )
            self._history = ((*attempts[:-1], last), None)

    def run(self, step: Callable[[], T], forced: bool) -> T:
        """Runs a step, with retries; what a first call needs is got ready inside the Scope, too.

        Args:
            step: Makes one HTTP request, of `request`.
            forced: Whether it is made although the model's circuit is open; once, then.

        Returns:
            What the step returned.

        Raises:
            LLMError: The last try's error.
            CallInterrupted: The Scope ended outside of a try.
        """
        try:
            self._adapter.ensure_initialized()
            self._load_ahead()
            policy = self._options.retry._replace(
                budget=retry_budget(self._adapter.provider),
                refusal=self._breaker().refusal,
            )
            result = call_with_retries(lambda wait: self._guarded(step, wait, forced), policy)
            self._forget_failure()
            return result
        except LLMError as error:
            last = self.failure
            if isinstance(error, CircuitOpenError) and last is not None:
                # It has opened while the call paused between tries: what those failed of says more.
                last.message += f" - not tried again, because {error.message}"
                self._describe(last)
                raise last from last.__cause__
            self._describe(error)
            raise

    def _load_ahead(self) -> None:
        """Has the next model's SDK loaded while this one is asked, if there is little time for it.

        Not before, when it would hold up this one; and where there is time enough, the next one
        can load it by itself when it is asked, which it seldom is.
        """
        following = self._options.following
        if following is None:
            return
        scope = current_scope()
        left = None if scope is None else scope.remaining()
        if left is not None and left < LITTLE_TIME:
            following.load_ahead()

    def _describe(self, error: LLMError) -> None:
        """Names the model and the tries in an error: it may become one of several causes."""
        error.provider = error.provider or self._adapter.provider
        error.model = error.model or self._adapter.model
        error.attempts = self.attempts

    def _forget_failure(self) -> None:
        """Lets go of what an earlier try's frames hold, such as what a stream has reserved."""
        error: BaseException | None = self.failure
        self.failure = None
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            error.__traceback__ = None
            error = error.__cause__ or error.__context__

    def _guarded(self, step: Callable[[], T], wait: float, forced: bool) -> T:
        """Makes one try, if the model's circuit is closed; an open one is not tried again."""
        # Forced once, not for each retry: a chain that is down as a whole would be stormed.
        permit = self._breaker().enter(force=forced and self.failure is None)
        try:
            return self._limited(step, wait, permit)
        finally:
            permit.dropped()  # counts only when nothing was sent: no word came before this one

    def _breaker(self) -> CircuitBreaker:
        adapter = self._adapter
        return breaker_for(adapter.provider, adapter.model, adapter.address)

    def _limited(self, step: Callable[[], T], wait: float, permit: Permit) -> T:
        """Makes one try when the rate limits have room for it."""
        adapter, limits = self._adapter, self._options.rate_limits
        limiter = None
        if limits is not None:
            limiter = limits.limiter_for(adapter.provider, adapter.model, adapter.address)
        if limiter is None:
            return self._budgeted(step, wait, permit)
        with limiter.place(self._tokens()) as place, heard_by(limiter.learn):
            result = self._budgeted(step, wait, permit)
            if isinstance(result, Completion):
                place.used(result.usage.total_tokens)
            else:
                self._place = place  # whose tokens are known at the stream's end
            return result

    def _tokens(self) -> int:
        """Returns about how many tokens a try uses, sent and received."""
        if self._estimate is None:
            sent = count_tokens(self._info.full_name, self.request.messages)
            self._estimate = sent + (self.request.max_tokens or TYPICAL_ANSWER)
        return self._estimate

    def _budgeted(self, step: Callable[[], T], wait: float, permit: Permit) -> T:
        """Makes one try, for which the budgets reserve what it may cost: each may be billed."""
        if not self._budgets:
            return self._attempt(step, wait, permit)
        from llmkit.budget import hold

        # A try before this one may have been sent with a smaller `max_tokens`.
        self.held = hold(self._asked, self._info, self._budgets, streamed=self._streamed)
        self.request = self.held.request
        with self.held:
            return self._attempt(step, wait, permit)

    def _attempt(self, step: Callable[[], T], wait: float, permit: Permit) -> T:
        """Makes one try and notes it."""
        began = time.perf_counter()
        self._history = (self._history[0], (began, wait))
        code: ErrorCode | None = None
        status: int | None = None
        request_id: str | None = None
        timeout = self._options.attempt_timeout
        try:
            if timeout is None:
                result = step()
            else:
                with Scope(timeout).entered():
                    result = step()
            request_id = getattr(result, "request_id", None)
            permit.succeeded()
            return result
        except CallInterrupted as interruption:
            code = interruption.code
            if code is not ErrorCode.LLM_TIMEOUT or time.perf_counter() - began >= PATIENCE:
                permit.ended(code)
            if code is ErrorCode.LLM_TIMEOUT:
                self.failure = interruption.to_error()  # one that holds no frames
            raise interruption.to_error() from None
        except LLMError as error:
            code, status, request_id = error.code, error.status, error.request_id
            self.failure = error
            permit.ended(code)
            raise
        except BaseException as error:  # passed on as it is; only the Attempt needs some code
            code = code_of(error)
            raise
        finally:
            attempts = self._history[0]
            if code is not ErrorCode.CONFIGURATION_ERROR:  # with which nothing was sent
                attempts = (*attempts, self._attempted(began, wait, code, status, request_id))
            self._history = (attempts, None)

    def _attempted(
        self,
        began: float,
        wait: float,
        code: ErrorCode | None,
        status: int | None = None,
        request_id: str | None = None,
    ) -> Attempt:
        return Attempt(
            model=self._adapter.model,
            provider=self._adapter.provider,
            code=code,
            status=status,
            wait=wait,
            duration=time.perf_counter() - began,
            request_id=request_id,
        )


def code_of(error: BaseException) -> ErrorCode:
    """Returns the code that comes nearest to an exception which is not an `LLMError`."""
    if isinstance(error, TimeoutError):
        return ErrorCode.LLM_TIMEOUT
    if isinstance(error, ConnectionError):
        return ErrorCode.LLM_CONNECTION_ERROR
    return ErrorCode.LLM_PROVIDER_ERROR if isinstance(error, Exception) else ErrorCode.LLM_CANCELLED
