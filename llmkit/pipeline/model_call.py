"""One model's part in a call: its tries, what each may cost, and what comes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from llmkit.breaker import Permit, breaker_for
from llmkit.budget import Held, active_budgets, hold
from llmkit.content_policy import log_violation
from llmkit.cost import cost_of
from llmkit.errors import Attempt, ErrorCode, LLMError, ProviderError
from llmkit.pipeline.fitting import fit_to_model, say_for
from llmkit.pipeline.options import Adapter, CallOptions, Target
from llmkit.request import Request
from llmkit.retry import call_with_retries
from llmkit.scope import CallInterrupted, Scope, current_scope
from llmkit.streams import ChunkSource
from llmkit.types import Chunk, Completion

__all__ = ["Begun", "ModelCall", "code_of", "read_answer", "stand_in"]

T = TypeVar("T")

# Seconds that a try must have lasted for its time-out to say something of the model rather than of
# its caller's haste.
PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class Begun:
    """A stream whose first chunk has arrived.

    Attributes:
        source: The further chunks.
        first: The first one; None when the answer is empty.
        ended: The whole answer, when it was over before its first chunk.
        scope: The stream's time and cancel switch; it holds the open reply.
    """

    source: ChunkSource
    first: Chunk | None
    ended: Completion | None
    scope: Scope


class ModelCall:
    """Asks one model, as often as its retries allow.

    Args:
        adapter: Whom to ask.
        request: What to ask.
        options: How.
        streamed: Whether the answer arrives in pieces.
        warnings: What the user should know already.

    Raises:
        InvalidRequestError: The model does not take what is asked, and `on_unsupported` is
            "error".
    """

    __slots__ = (
        "_asked",
        "_budgets",
        "_history",
        "adapter",
        "failure",
        "held",
        "info",
        "options",
        "request",
        "streamed",
        "warnings",
    )

    def __init__(
        self,
        adapter: Adapter,
        request: Request,
        options: CallOptions,
        *,
        streamed: bool = False,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.adapter = adapter
        self.options = options
        self.streamed = streamed
        self.info = adapter.info  # looked up once: for an unknown model it costs milliseconds
        self.request, said = fit_to_model(request, self.info, adapter.never_takes)
        self.warnings = (*warnings, *said)
        self.held: Held | None = None
        self.failure: LLMError | None = None  # of the last try
        self._asked = self.request
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

    def answer(self, forced: bool = False) -> Completion:
        """Gets an answer, inside the current Scope.

        Args:
            forced: Whether the model is asked although its circuit is open.

        Returns:
            The answer, with its cost and warnings.

        Raises:
            LLMError: The last try's error.
            CallInterrupted: The Scope ended outside of a try.
        """
        reply = self._run(lambda: read_answer(self.adapter, self._generate()), forced)
        if self.held is not None:
            self.held.settle(reply)
        self._complete(reply)
        return reply

    def begin(self, whole: Scope, forced: bool = False) -> Begun:
        """Gets a stream's first chunk, inside the current Scope.

        Args:
            whole: The Scope of the whole stream, around the current one.
            forced: Whether the model is asked although its circuit is open.

        Returns:
            The stream.

        Raises:
            LLMError: The last try's error.
            CallInterrupted: The Scope ended outside of a try.
        """
        # The stream goes on when the current Scope, which bounds its first chunk, is over.
        scope = Scope(parent=whole, holds=True)
        around = current_scope() or whole
        with scope.entered(), scope.bounded_by(around).entered():
            return self._run(lambda: self._begin(scope), forced)

    def end_stream(self, outcome: Completion | LLMError) -> None:
        """Settles what is known only at a stream's end."""
        if self.held is not None:
            self.held.end(outcome)
        attempts, _ = self._history
        if attempts and attempts[-1].code is None:
            last = replace(
                attempts[-1],
                code=outcome.code if isinstance(outcome, LLMError) else None,
                status=outcome.status if isinstance(outcome, LLMError) else None,
                request_id=outcome.request_id,
            )
            self._history = ((*attempts[:-1], last), None)
        if isinstance(outcome, Completion):
            self._complete(outcome)

    def log_violation(self, outcome: Completion | LLMError) -> None:
        """Logs, for review, that the content of this call was refused or filtered."""
        log_violation(
            outcome,
            provider=self.adapter.provider,
            model=self.adapter.model,
            request=self._asked,
            settings=self.adapter.settings,
        )

    def _complete(self, reply: Completion) -> None:
        reply.warnings = (*self.warnings, *reply.warnings)
        if reply.cost is None:
            reply.cost = cost_of(reply.usage, self.info)

    def _generate(self) -> Completion | Mapping[str, object]:
        return self.adapter._generate_text(self.request)  # looked up now: tests replace it

    def _begin(self, scope: Scope) -> Begun:
        source = _read_answer_of(self.adapter, self.adapter._stream_text(self.request))
        if self.held is not None:
            source = self.held.counting(source)
        try:
            return Begun(source, next(source), None, scope)
        except StopIteration as end:
            return Begun(source, None, end.value, scope)
        except BaseException:
            scope.close_held()
            raise

    def _run(self, step: Callable[[], T], forced: bool) -> T:
        """Runs a step, with retries; what a first call needs is got ready inside the Scope, too."""
        try:
            self.adapter.ensure_initialized()
            return call_with_retries(
                lambda wait: self._guarded(step, wait, forced), self.options.retry
            )
        except LLMError as error:  # which may become one of several causes
            error.provider = error.provider or self.adapter.provider
            error.model = error.model or self.adapter.model
            error.attempts = self.attempts
            raise

    def _guarded(self, step: Callable[[], T], wait: float, forced: bool) -> T:
        """Makes one try, if the model's circuit is closed; an open one is not tried again."""
        adapter = self.adapter
        breaker = breaker_for(adapter.provider, adapter.model, adapter.address)
        permit = breaker.enter(force=forced)
        try:
            return self._budgeted(step, wait, permit)
        finally:
            permit.dropped()  # counts only when nothing was sent: no word came before this one

    def _budgeted(self, step: Callable[[], T], wait: float, permit: Permit) -> T:
        """Makes one try, for which the budgets reserve what it may cost: each may be billed."""
        if not self._budgets:
            return self._attempt(step, wait, permit)
        # A try before this one may have been sent with a smaller `max_tokens`.
        self.held = hold(self._asked, self.info, self._budgets, streamed=self.streamed)
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
        timeout = self.options.attempt_timeout
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
            model=self.adapter.model,
            provider=self.adapter.provider,
            code=code,
            status=status,
            wait=wait,
            duration=time.perf_counter() - began,
            request_id=request_id,
        )


def stand_in(request: Request, meant_for: Adapter, target: Target, streamed: bool) -> ModelCall:
    """Makes the part in a call of a model that the request was not written for.

    Args:
        request: The request, as it was meant for another model.
        meant_for: That model.
        target: The one that is asked.
        streamed: Whether the answer arrives in pieces.

    Raises:
        InvalidRequestError: The model does not take what is asked, and `on_unsupported` is
            "error".
    """
    said, warnings = say_for(request, meant_for.provider, target.adapter.info)
    return ModelCall(target.adapter, said, target.options, streamed=streamed, warnings=warnings)


def read_answer(adapter: Adapter, answer: object) -> Completion:
    """Reads what an adapter's `_generate_text`, or a test's stand-in for it, returned.

    Args:
        adapter: The adapter.
        answer: A `Completion`, or a mapping such as `{"text": …}`.

    Returns:
        A completion that nobody else holds.

    Raises:
        ProviderError: It is something else.
    """
    if isinstance(answer, Completion):
        return replace(answer)
    if isinstance(answer, Mapping):
        return Completion.from_mapping(answer, model=adapter.model, provider=adapter.provider)
    raise ProviderError(
        f"_generate_text returned {type(answer).__name__}, expected a Completion or a mapping",
        provider=adapter.provider,
        model=adapter.model,
        retryable=False,
    )


def _read_answer_of(adapter: Adapter, source: ChunkSource) -> ChunkSource:
    """Passes a stream's chunks on, and reads what stands at their end."""
    return read_answer(adapter, (yield from source))


def code_of(error: BaseException) -> ErrorCode:
    """Returns the code that comes nearest to an exception which is not an `LLMError`."""
    if isinstance(error, TimeoutError):
        return ErrorCode.LLM_TIMEOUT
    if isinstance(error, ConnectionError):
        return ErrorCode.LLM_CONNECTION_ERROR
    return ErrorCode.LLM_PROVIDER_ERROR if isinstance(error, Exception) else ErrorCode.LLM_CANCELLED
