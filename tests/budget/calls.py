"""Calls for the tests of budgets: a made-up model with round prices, and calls in threads."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Generic, TypeVar

from llmkit.budget import Budget, Held, hold
from llmkit.models import ModelInfo
from llmkit.request import Request
from llmkit.types import Completion, Usage

__all__ = ["INFO", "Background", "ask", "held", "reply", "start_child"]

T = TypeVar("T")

# A dollar for a million tokens of input, ten for output: a prompt of one letter is bounded by 17
# tokens (1 byte, 8 for its message, 8 for the request).
INFO = ModelInfo(
    name="abacus",
    provider="openai",
    context_window=100_000,
    max_output_tokens=10_000,
    prices={"input": Decimal(1), "output": Decimal(10)},
)


def ask(prompt: str = "x", **arguments: Any) -> Request:
    return Request.build(INFO.name, prompt, **arguments)


def held(
    *budgets: Budget, max_tokens: int | None = 100, info: ModelInfo = INFO, streamed: bool = False
) -> Held:
    """What a call of 17 + `max_tokens` tokens holds."""
    return hold(ask(max_tokens=max_tokens), info, budgets, streamed=streamed)


def reply(
    input_tokens: int | None = 17, output_tokens: int | None = 100, text: str = ""
) -> Completion:
    return Completion(text, INFO.name, "openai", usage=Usage(input_tokens, output_tokens))


class Background(Generic[T]):
    """Something that is done in a thread of its own, and what came of it."""

    def __init__(self, task: Callable[[], T]) -> None:
        self._task = task
        self._result: T | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._task()
        except BaseException as error:  # handed to whoever joins
            self.error = error

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def result(self) -> T:
        self._thread.join(10)
        assert self.done
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]  # the task has ended without an error


def start_child(task: Callable[[], None]) -> int:
    """Forks a child that does something and ends with 0, or with 1 when it fails."""
    pid = os.fork()
    if not pid:
        signal.alarm(10)  # a deadlock is a failure, too
        try:
            task()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid
