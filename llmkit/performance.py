"""Observers of calls, and the tracker that keeps figures for each model.

An observer is any callable that takes one `CallRecord`. It is told once for each logical call,
when the call is over, on the thread that made it. Only of a stream that was dropped without being
closed it is told later, by whatever ends a call or asks for figures next, or at the process's end:
an object may be dropped in the middle of anything, an observer's own lock included.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Context, Decimal
from typing import Any

from llmkit.errors import ErrorCode, LLMError
from llmkit.log import get_logger
from llmkit.process_local import ProcessLocal
from llmkit.scope import CallInterrupted
from llmkit.types import CallRecord

__all__ = [
    "LLMPerformanceTracker",
    "Observer",
    "get_performance_tracker",
    "notify",
    "notify_later",
]

Observer = Callable[[CallRecord], object]

# Latencies kept for each model, the newest ones: enough for a steady p95.
WINDOW = 1000

_CUT = ErrorCode.LLM_CANCELLED

# Sums of money are exact, whatever decimal context the application has set.
_EXACT = Context(prec=60)


@dataclass
class _Figures:
    """What is counted of one model."""

    provider: str
    requests: int = 0
    successes: int = 0
    failures: int = 0
    cancelled: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Decimal = Decimal(0)
    unpriced: int = 0
    cache_hits: int = 0
    errors: collections.Counter[str] = field(default_factory=collections.Counter)
    fallbacks: collections.Counter[str] = field(default_factory=collections.Counter)
    latencies: collections.deque[float] = field(
        default_factory=lambda: collections.deque(maxlen=WINDOW)
    )


class LLMPerformanceTracker:
    """Counts calls, and times them, by model. Safe to use from any number of threads."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may make a call, or ask for figures.
        self._lock = threading.RLock()
        self._models: dict[str, _Figures] = {}

    def __call__(self, record: CallRecord) -> None:
        """Takes a call's record: the tracker is an observer."""
        with self._lock:
            if record.attempts or record.fallbacks:
                self._add_others(record)
            figures = self._figures(record.model, record.provider)
            figures.requests += 1
            if record.cached:  # its tokens and its cost were counted when it was fresh
                figures.successes += 1
                figures.cache_hits += 1
            elif record.ok:
                self._add_success(
                    figures,
                    _own_latency(record),
                    record.usage.input_tokens,
                    record.usage.output_tokens,
                )
                if record.cost is None:
                    figures.unpriced += 1
                else:
                    figures.cost = _EXACT.add(figures.cost, record.cost)
            else:
                self._add_failure(figures, str(_own_code(record)))

    def record_request(self, model: str, provider: str) -> None:
        """Counts a request that begins; `record_success` or `record_failure` should follow.

        Args:
            model: The model.
            provider: Its provider.
        """
        with self._lock:
            self._figures(model, provider).requests += 1

    def record_success(
        self,
        model: str,
        provider: str,
        latency_ms: float,
        prompt_tokens: int | None,
        completion_tokens: int | None,
    ) -> None:
        """Counts a success.

        Args:
            model: The model.
            provider: Its provider.
            latency_ms: How long it took, in milliseconds.
            prompt_tokens: Tokens sent; None when unknown.
            completion_tokens: Tokens generated; None when unknown.
        """
        with self._lock:
            figures = self._figures(model, provider)
            self._add_success(figures, latency_ms / 1000, prompt_tokens, completion_tokens)
            figures.unpriced += 1

    def record_failure(self, model: str, provider: str, error: object) -> None:
        """Counts a failure.

        Args:
            model: The model.
            provider: Its provider.
            error: What went wrong: an exception, counted by the code of an `LLMError` or by its
                class, or a text.
        """
        if isinstance(error, LLMError):
            name = str(error.code)
        else:
            name = type(error).__name__ if isinstance(error, BaseException) else str(error)
        with self._lock:
            self._add_failure(self._figures(model, provider), name)

    def record_fallback(self, from_model: str, to_model: str, reason: object) -> None:
        """Counts that another model was asked instead of one that failed.

        Args:
            from_model: The model that failed.
            to_model: The model that was asked instead.
            reason: Why: an `ErrorCode`, or a text.
        """
        with self._lock:
            self._add_fallback(from_model, to_model, reason)

    def get_stats(self, model: str | None = None) -> dict[str, Any]:
        """Returns the figures.

        Args:
            model: Of one model; None for all.

        Returns:
            For one model: `provider`, `requests`, `successes`, `failures`, `cancelled`,
            `cache_hits` (of the successes), `success_rate` (0 to 1, of what ended either way; None
            before), `avg_latency_ms`, `p50_latency_ms`, `p95_latency_ms` (of the newest 1,000 fresh
            successes; None without any),
            `prompt_tokens`, `completion_tokens`, `total_tokens`, `cost` (USD, Decimal, of the
            successes whose price is known), `unpriced` (the number of the others, and of the
            races that the model lost: what those cost is unknown), `errors` and
            `fallbacks` (counts). For all: such a dict for each model. An unknown model has zeros.
        """
        _catch_up()
        with self._lock:
            if model is not None:
                return _summary(self._models.get(model) or _Figures(provider=""))
            return {name: _summary(figures) for name, figures in list(self._models.items())}

    def reset(self) -> None:
        """Forgets all figures."""
        _catch_up()
        with self._lock:
            self._models.clear()

    def _figures(self, model: str, provider: str) -> _Figures:
        figures = self._models.get(model)
        if figures is None:
            figures = self._models[model] = _Figures(provider)
        figures.provider = figures.provider or provider  # a fallback is counted without one
        return figures

    def _add_others(self, record: CallRecord) -> None:
        """Counts the models that were asked before the one that answered, or beside it."""
        last = {each.model: each for each in record.attempts if each.model != record.model}
        reasons: dict[str, ErrorCode | None] = {name: each.code for name, each in last.items()}
        for step in record.fallbacks:
            self._add_fallback(step.from_model, step.to_model, step.reason)
            reasons[step.from_model] = step.reason
        if record.ok:  # the same model may have raced itself
            own = [each.code for each in record.attempts if each.model == record.model]
            figures = self._figures(record.model, record.provider)
            figures.requests += own.count(_CUT)
            self._add_lost(figures, own.count(_CUT))
        for model, reason in reasons.items():
            figures = self._figures(model, last[model].provider if model in last else "")
            figures.requests += 1
            if reason not in (_CUT, None):
                self._add_failure(figures, str(reason))
            else:
                self._add_lost(figures, 1)

    @staticmethod
    def _add_lost(figures: _Figures, races: int) -> None:
        figures.cancelled += races
        figures.unpriced += races

    def _add_fallback(self, from_model: str, to_model: str, reason: object) -> None:
        self._figures(from_model, provider="").fallbacks[f"{to_model}: {reason}"] += 1

    @staticmethod
    def _add_success(
        figures: _Figures, seconds: float, input_tokens: int | None, output_tokens: int | None
    ) -> None:
        figures.successes += 1
        figures.latencies.append(seconds)
        figures.input_tokens += input_tokens or 0
        figures.output_tokens += output_tokens or 0

    @staticmethod
    def _add_failure(figures: _Figures, name: str) -> None:
        if name == ErrorCode.LLM_CANCELLED:
            figures.cancelled += 1
        else:
            figures.failures += 1
        figures.errors[name] += 1


_tracker: ProcessLocal[LLMPerformanceTracker] = ProcessLocal(LLMPerformanceTracker, kept=True)


def get_performance_tracker() -> LLMPerformanceTracker:
    """Returns the process's tracker, which sees every call of every Client and adapter.

    It is the same one for as long as the process runs, after `shutdown()`, too; a forked child
    begins with one of its own.
    """
    return _tracker.get()


def notify(observers: Iterable[Observer], record: CallRecord) -> None:
    """Tells every observer about a call, and then of those that `notify_later` has noted.

    Args:
        observers: Whom to tell, in this order.
        record: What happened.
    """
    while True:
        for observer in observers:
            try:
                observer(record)
            # An observer's bug, or its own call in a Scope that has ended, must not turn an answer
            # into an error.
            except (Exception, CallInterrupted):
                get_logger("performance").exception("observer %r failed", observer)
        if not _late:
            return
        try:
            observers, record = _late.popleft()
        except IndexError:  # another thread was faster
            return


def notify_later(observers: Iterable[Observer], record: CallRecord) -> None:
    """Does what `notify` does, with the next call.

    A destructor may call it: it waits for nobody, and runs nothing that others have written.

    Args:
        observers: Whom to tell, in this order.
        record: What happened.
    """
    _process_late.get().append((observers, record))


_Late = collections.deque[tuple[Iterable[Observer], CallRecord]]

_late: _Late = collections.deque()


def _catch_up(late: _Late = _late) -> None:
    """Tells of the calls that `notify_later` has noted."""
    try:
        first = late.popleft()
    except IndexError:
        return
    notify(*first)


# A forked child does not tell of its parent's calls.
_process_late = ProcessLocal(lambda: _late, close=_catch_up, abandon=_Late.clear)


def _own_latency(record: CallRecord) -> float:
    """Returns how long the answering model took, without those that were asked before it."""
    if all(attempt.model == record.model for attempt in record.attempts):
        return record.latency
    own = [each for each in record.attempts if each.model == record.model]
    return sum(each.wait + each.duration for each in own if each.code is not _CUT)


def _own_code(record: CallRecord) -> ErrorCode | None:
    """Returns what went wrong with the model that was asked last."""
    if record.code is ErrorCode.LLM_ALL_MODELS_FAILED and record.attempts:
        return record.attempts[-1].code
    return record.code


def _summary(figures: _Figures) -> dict[str, Any]:
    ended = figures.successes + figures.failures
    ordered = sorted(figures.latencies)
    return {
        "provider": figures.provider,
        "requests": figures.requests,
        "successes": figures.successes,
        "failures": figures.failures,
        "cancelled": figures.cancelled,
        "cache_hits": figures.cache_hits,
        "success_rate": figures.successes / ended if ended else None,
        "avg_latency_ms": 1000 * sum(ordered) / len(ordered) if ordered else None,
        "p50_latency_ms": _percentile(ordered, 50),
        "p95_latency_ms": _percentile(ordered, 95),
        "prompt_tokens": figures.input_tokens,
        "completion_tokens": figures.output_tokens,
        "total_tokens": figures.input_tokens + figures.output_tokens,
        "cost": figures.cost,
        "unpriced": figures.unpriced,
        "errors": dict(figures.errors),
        "fallbacks": dict(figures.fallbacks),
    }


def _percentile(ordered: list[float], percent: int) -> float | None:
    """Returns a percentile in ms by the nearest rank: always a latency that really occurred."""
    if not ordered:
        return None
    rank = -(-percent * len(ordered) // 100)  # rounded up, in whole numbers
    return 1000 * ordered[rank - 1]
