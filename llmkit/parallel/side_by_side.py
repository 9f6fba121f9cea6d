"""Independent operations on a bounded number of threads."""

from __future__ import annotations

import collections
import contextvars
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from llmkit.parallel.arrivals import Arrivals
from llmkit.scope import CallInterrupted, Scope
from llmkit.threads import TooManyThreadsError, start

__all__ = ["side_by_side"]

T = TypeVar("T")


def side_by_side(
    tasks: Sequence[Callable[[], T]],
    workers: int,
    timeout: float | None,
    return_exceptions: bool,
) -> list[T | BaseException]:
    """Runs tasks, some at a time, and cuts those that run when their results no longer count.

    Args:
        tasks: What to do.
        workers: How many at a time.
        timeout: Seconds for all together; None sets no limit.
        return_exceptions: Whether an exception stands in its task's place.

    Returns:
        The results, in the order of the tasks.

    Raises:
        Exception: The first one of a task, unless `return_exceptions`.
        LLMTimeoutError: The time was over first, unless `return_exceptions`.
        TooManyThreadsError: The system has not a single further thread.
    """
    return _SideBySide(tasks, Scope(timeout), return_exceptions).run(workers)


class _SideBySide(Generic[T]):
    def __init__(
        self, tasks: Sequence[Callable[[], T]], scope: Scope, return_exceptions: bool
    ) -> None:
        self._tasks = tasks
        self._scope = scope
        self._return_exceptions = return_exceptions
        self._waiting = collections.deque(range(len(tasks)))
        self._results: dict[int, Any] = {}
        self._arrivals: Arrivals[tuple[int, T | None, BaseException | None]] = Arrivals()

    def run(self, workers: int) -> list[T | BaseException]:
        numbers = range(len(self._tasks))
        try:
            with self._scope.entered():
                self._start(min(workers, len(self._tasks)))
                self._collect()
        except CallInterrupted as interruption:
            if not self._return_exceptions or self._scope.cancelled:
                raise interruption.to_error() from None
            for arrival in self._arrivals.close():
                self._take_in(*arrival)
            for at in numbers:
                self._results.setdefault(at, interruption.to_error())
        finally:
            self._waiting.clear()
            self._scope.cancel("the operations that it belonged to are over")
            self._arrivals.close()
        return [self._results[at] for at in numbers]

    def _start(self, workers: int) -> None:
        # Not an executor's threads: the interpreter's exit would wait for an operation that hangs.
        context = contextvars.copy_context()
        for started in range(workers):
            try:
                start(lambda: self._work(context), "parallel")
            except TooManyThreadsError:
                if not started:
                    raise
                return  # those that there are do all the work

    def _work(self, context: contextvars.Context) -> None:
        while self._waiting:
            try:
                at = self._waiting.popleft()
            except IndexError:  # another thread was faster
                return
            context.copy().run(self._run_one, at)

    def _collect(self) -> None:
        doing = f"running {len(self._tasks)} operations side by side"
        while len(self._results) < len(self._tasks):
            arrival = self._arrivals.next(self._scope, doing)
            if arrival is not None:
                self._take_in(*arrival)
        if self._scope.cancelled:  # the operations were quicker to say so
            self._scope.check(doing)

    def _take_in(self, at: int, result: T | None, error: BaseException | None) -> None:
        if error is None:
            self._results[at] = result
        elif self._goes_on_after(error):
            self._results[at] = error
        else:
            raise error

    def _goes_on_after(self, error: BaseException) -> bool:
        return self._return_exceptions and isinstance(error, Exception)

    def _run_one(self, at: int) -> None:
        result: T | None = None
        failure: BaseException | None = None
        try:
            with Scope(parent=self._scope).entered() as scope:
                scope.check("starting")
                result = self._tasks[at]()
        except CallInterrupted as interruption:
            failure = interruption.to_error()
        except BaseException as error:  # handed to the caller
            failure = error
        if failure is not None and not self._goes_on_after(failure):
            self._waiting.clear()  # at once: this very thread would begin the next one
        self._arrivals.put((at, result, failure))
        # An error's traceback knows this frame: together they would wait for the collector.
        del failure
