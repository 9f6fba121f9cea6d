"""One call's way: what every adapter's call goes through, around the vendor's own step.

    complete(…)    Scope: the deadline and the cancel switch
      recorded     one CallRecord for the observers
        retried    every HTTP request is an Attempt
          budgeted   reserves what the try may cost, and settles
            adapter._generate_text

A stream takes the same way up to its first chunk; afterwards it can only break.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from llmkit.budget import Budget, Held, active_budgets, hold
from llmkit.cost import cost_of
from llmkit.errors import Attempt, ErrorCode, InvalidRequestError, LLMError, ProviderError
from llmkit.models import ModelInfo, notices_of
from llmkit.performance import Observer, get_performance_tracker, notify
from llmkit.request import Request
from llmkit.retry import RetryPolicy, call_with_retries
from llmkit.scope import CallInterrupted, Scope
from llmkit.streams import ChunkSource, Stream
from llmkit.types import CallRecord, Chunk, Completion, Usage

__all__ = ["CallOptions", "complete", "open_stream", "read_answer"]

T = TypeVar("T")


class Adapter(Protocol):
    """What the pipeline knows of an adapter: one model, and the two vendor-specific steps."""

    @property
    def model(self) -> str:
        """The model's bare name."""

    @property
    def provider(self) -> str:
        """Its provider's name."""

    @property
    def info(self) -> ModelInfo:
        """What the registry knows of it."""

    def ensure_initialized(self) -> bool:
        """Gets ready what a first call needs."""

    @property
    def never_takes(self) -> frozenset[str]:
        """Fields of a Request that the vendor has no word for, whatever the model."""

    def _generate_text(self, request: Request) -> Completion | Mapping[str, Any]: ...

    def _stream_text(self, request: Request) -> ChunkSource: ...


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a call is made, as opposed to what it asks.

    Attributes:
        timeout: Seconds for the whole call; None sets no limit (a Scope around it still does).
        attempt_timeout: Seconds for each single try; None: as long as the call may last.
        first_chunk_timeout: Seconds until a stream's first chunk, all tries together; None: no
            limit but `timeout`.
        idle_timeout: Seconds between two chunks of a stream; None: no limit but `timeout`.
        retry: When to try again.
        observers: Who is told about the call, besides the process's tracker.
        budgets: What pays for the call, besides the budgets of the blocks around it.
    """

    timeout: float | None = None
    attempt_timeout: float | None = None
    first_chunk_timeout: float | None = None
    idle_timeout: float | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    observers: Sequence[Observer] = ()
    budgets: Sequence[Budget] = ()


def complete(adapter: Adapter, request: Request, options: CallOptions) -> Completion:
    """Makes one call.

    Args:
        adapter: Whom to ask.
        request: What to ask.
        options: How.

    Returns:
        The answer, with its attempts, cost, latency and warnings.

    Raises:
        LLMError: The call failed, whatever the reason; `attempts` lists what was tried.
    """
    call = _Call(adapter, request, options)
    with call.recorded(), Scope(options.timeout).entered():
        reply = call.run(call.generate, options.attempt_timeout)
    call.finish(reply)
    return reply


def open_stream(adapter: Adapter, request: Request, options: CallOptions) -> Stream:
    """Makes one streamed call, up to its first chunk.

    Args:
        adapter: Whom to ask.
        request: What to ask.
        options: How.

    Returns:
        The stream, which has begun.

    Raises:
        LLMError: There was no first chunk.
    """
    call = _Call(adapter, request, options, streamed=True)
    scope = Scope(options.timeout, holds=True)

    def begin() -> tuple[ChunkSource, Chunk | None, Completion | None]:
        source = _read_answer_of(call.adapter, call.adapter._stream_text(call.request))
        if call.held is not None:
            source = call.held.counting(source)
        try:
            return source, next(source), None
        except StopIteration as end:
            return source, None, end.value
        except BaseException:
            scope.close_held()
            raise

    with (
        call.recorded(),
        scope.entered(),
        Scope(options.first_chunk_timeout, parent=scope).entered(),
    ):
        source, first, ended = call.run(begin, options.attempt_timeout)
    call.first_chunk = time.perf_counter() - call.began
    return Stream(
        source,
        first=first,
        ended=ended,
        scope=scope,
        idle_timeout=options.idle_timeout,
        describe=call.describe,
        on_end=call.finish,
    )


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


class _Call:
    """One logical call while it is under way: its clock, its attempts, its warnings."""

    def __init__(
        self, adapter: Adapter, request: Request, options: CallOptions, streamed: bool = False
    ) -> None:
        self.adapter = adapter
        self.options = options
        self.streamed = streamed
        self.started_at = time.time()
        self.began = time.perf_counter()
        self.first_chunk: float | None = None
        self.attempts: list[Attempt] = []
        self._failure: LLMError | None = None  # of the last try
        self.info = adapter.info  # looked up once: for an unknown model it costs milliseconds
        self.request, self.warnings = _fit_to_model(request, self.info, adapter.never_takes)
        self._budgets = active_budgets(options.budgets)
        self._asked = self.request
        self.held: Held | None = None

    def generate(self) -> Completion:
        """Makes the vendor-specific step, which tests may have replaced."""
        return read_answer(self.adapter, self.adapter._generate_text(self.request))

    def run(self, step: Callable[[], T], attempt_timeout: float | None) -> T:
        """Runs a step, with retries; what a first call needs is got ready inside the Scope, too."""
        self.adapter.ensure_initialized()
        return call_with_retries(
            lambda wait: self._budgeted(step, wait, attempt_timeout), self.options.retry
        )

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Tells the observers if the call fails, after its Scope has been left."""
        try:
            yield
        except LLMError as error:
            self.finish(self.describe(error))
            raise
        except CallInterrupted as interruption:  # outside a try: while it waited for the next
            cut = self.describe(interruption.to_error())
            self.finish(cut)
            raise cut from self._failure
        except BaseException as bug:  # passed on as it is; only the record needs some code
            self.finish(LLMError(repr(bug), code=_code_of(bug)))
            raise

    def describe(self, error: LLMError) -> LLMError:
        """Adds to an error which model it concerns, and what was tried."""
        error.provider = error.provider or self.adapter.provider
        error.model = error.model or self.adapter.model
        error.attempts = tuple(self.attempts)
        return error

    def finish(self, outcome: Completion | LLMError) -> None:
        """Completes the answer's figures and tells the observers."""
        if self.held is not None:
            self.held.end(outcome)
        latency = time.perf_counter() - self.began
        usage, cost, code = Usage(), None, None
        if self.streamed:
            self._amend_attempt(outcome)
        if isinstance(outcome, LLMError):
            code = outcome.code
            outcome.attempts = tuple(self.attempts)
        else:
            outcome.latency = latency
            outcome.attempts = tuple(self.attempts)
            outcome.warnings = (*self.warnings, *outcome.warnings)
            if outcome.cost is None:
                outcome.cost = cost_of(outcome.usage, self.info)
            usage, cost = outcome.usage, outcome.cost
        record = CallRecord(
            model=self.adapter.model,
            provider=self.adapter.provider,
            code=code,
            started_at=self.started_at,
            latency=latency,
            first_chunk=self.first_chunk,
            streamed=self.streamed,
            usage=usage,
            cost=cost,
            attempts=tuple(self.attempts),
            metadata=self.request.metadata,
        )
        notify((get_performance_tracker(), *self.options.observers), record)

    def _amend_attempt(self, outcome: Completion | LLMError) -> None:
        """Adds to a stream's last Attempt what is known only at its end."""
        if self.attempts and self.attempts[-1].code is None:
            self.attempts[-1] = replace(
                self.attempts[-1],
                code=outcome.code if isinstance(outcome, LLMError) else None,
                status=outcome.status if isinstance(outcome, LLMError) else None,
                request_id=outcome.request_id,
            )

    def _budgeted(self, step: Callable[[], T], wait: float, timeout: float | None) -> T:
        """Makes one try, for which the budgets reserve what it may cost: each may be billed."""
        if not self._budgets:
            return self._attempt(step, wait, timeout)
        # A try before this one may have been sent with a smaller `max_tokens`.
        self.held = hold(self._asked, self.info, self._budgets, streamed=self.streamed)
        self.request = self.held.request
        with self.held:
            return self._attempt(step, wait, timeout)

    def _attempt(self, step: Callable[[], T], wait: float, timeout: float | None) -> T:
        """Makes one try and notes it."""
        began = time.perf_counter()
        code: ErrorCode | None = None
        status: int | None = None
        request_id: str | None = None
        try:
            if timeout is None:
                result = step()
            else:
                with Scope(timeout).entered():
                    result = step()
            request_id = getattr(result, "request_id", None)
            return result
        except CallInterrupted as interruption:
            code = interruption.code
            raise interruption.to_error() from None
        except LLMError as error:
            code, status, request_id = error.code, error.status, error.request_id
            self._failure = error
            raise
        except BaseException as error:  # passed on as it is; only the Attempt needs some code
            code = _code_of(error)
            raise
        finally:
            if code is not ErrorCode.CONFIGURATION_ERROR:  # with which nothing was sent
                self.attempts.append(
                    Attempt(
                        model=self.adapter.model,
                        provider=self.adapter.provider,
                        code=code,
                        status=status,
                        wait=wait,
                        duration=time.perf_counter() - began,
                        request_id=request_id,
                    )
                )


def _code_of(error: BaseException) -> ErrorCode:
    """Returns the code that comes nearest to an exception which is not an `LLMError`."""
    if isinstance(error, TimeoutError):
        return ErrorCode.LLM_TIMEOUT
    if isinstance(error, ConnectionError):
        return ErrorCode.LLM_CONNECTION_ERROR
    return ErrorCode.LLM_PROVIDER_ERROR if isinstance(error, Exception) else ErrorCode.LLM_CANCELLED


# Request fields that a model may refuse, and what stands in their place when they are left out.
_REFUSABLE: Mapping[str, Any] = {
    "temperature": None,
    "top_p": None,
    "stop": (),
    "seed": None,
    "reasoning_effort": None,
}


def _fit_to_model(
    request: Request, info: ModelInfo, never_takes: frozenset[str]
) -> tuple[Request, list[str]]:
    """Leaves out what the registry says that the model refuses.

    Returns:
        The request that can be sent, and what its user should know.

    Raises:
        InvalidRequestError: Something would be left out, and `on_unsupported` is "error".
    """
    warnings: list[str] = []
    refused = _refused(request, info, never_takes)
    if refused:
        said = ", ".join(refused.values())
        if request.on_unsupported == "error":
            raise InvalidRequestError(
                f"the model does not take {said}; leave it out, or call with on_unsupported='warn'",
                provider=info.provider,
                model=info.name,
            )
        request = replace(request, **{name: _REFUSABLE[name] for name in refused})
        if request.on_unsupported == "warn":
            warnings.append(f"{info.name} does not take {said}: left out")
    warnings.extend(notices_of(info))
    return request, warnings


def _refused(request: Request, info: ModelInfo, never_takes: frozenset[str]) -> dict[str, str]:
    """Returns the fields that the model refuses, and how each is named to the user."""
    refused = {
        name: name
        for name, nothing in _REFUSABLE.items()
        if (name in info.refuses or name in never_takes) and getattr(request, name) != nothing
    }
    effort, efforts = request.reasoning_effort, info.reasoning_efforts
    if effort is not None and efforts is not None and effort not in efforts:
        known = f"it takes {', '.join(efforts)}" if efforts else "it takes none"
        refused["reasoning_effort"] = f"reasoning_effort={effort!r} ({known})"
    return refused
