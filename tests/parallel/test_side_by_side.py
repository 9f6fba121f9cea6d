"""execute_parallel: independent operations side by side."""

from __future__ import annotations

import contextvars
import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmkit import (
    Budget,
    Client,
    InvalidRequestError,
    LLMError,
    LLMTimeoutError,
    deadline,
    execute_parallel,
)
from llmkit.connection_pool import health_check
from llmkit.errors import CancelledError, ErrorCode
from llmkit.scope import Scope, current_scope
from llmkit.testing import Answer, ProviderServer
from llmkit.threads import Flag, TooManyThreadsError, start
from tests.deadline.calling import VENDORS, adapter, best_of, echo

ROOT = Path(__file__).parents[2]


def threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "llmkit-parallel"]


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    ends = time.monotonic() + seconds
    while not condition() and time.monotonic() < ends:
        time.sleep(0.001)
    return condition()


def sleeping(seconds: float = 30.0) -> Callable[[], object]:
    """An operation that waits as a call does: in its Scope."""

    def operation() -> object:
        scope = current_scope()
        assert scope is not None
        scope.sleep(seconds)
        return "slept"

    return operation


def raising(error: BaseException) -> Callable[[], object]:
    def operation() -> object:
        raise error

    return operation


def test_results_stand_in_the_order_of_the_operations(server: ProviderServer) -> None:
    """Calls of all vendors run side by side, and each answer stands in its operation's place."""
    server.answer = echo
    client = Client()
    adapters = [adapter(vendor, server.base_url(vendor)) for vendor in VENDORS]

    def asking(number: int) -> Callable[[], str]:
        return lambda: client.complete(f"question {number}", model=adapters[number % 3]).text

    answers = execute_parallel([asking(number) for number in range(30)])
    assert answers == [f"question {number}" for number in range(30)]


def test_they_do_run_side_by_side() -> None:
    """Operations that need each other get on: as many run at a time as there are workers."""
    meeting = threading.Barrier(5)
    assert len(execute_parallel([lambda: meeting.wait(10)] * 5, max_workers=5)) == 5
    assert len(execute_parallel([lambda: meeting.wait(10)] * 5)) == 5


@pytest.mark.parametrize(("workers", "most"), [(1, 1), (3, 3), (None, 32)])
def test_no_more_run_at_a_time_than_asked(workers: int | None, most: int) -> None:
    """`max_workers` is a bound, also where it is not given, and no more threads are started."""
    running = peak = seen = 0
    lock = threading.Lock()

    def operation() -> None:
        nonlocal running, peak, seen
        with lock:
            running += 1
            peak, seen = max(peak, running), max(seen, len(threads()))
        time.sleep(0.002)
        with lock:
            running -= 1

    execute_parallel([operation] * 100, max_workers=workers)
    assert 1 <= peak <= most
    assert seen <= most


def test_none_and_falsy_results_are_results() -> None:
    """An operation may return nothing at all."""
    values: list[Any] = [None, 0, "", [], False]
    assert execute_parallel([lambda value=value: value for value in values]) == values  # type: ignore[misc]


def test_an_empty_list_is_done_at_once() -> None:
    """Nothing to do starts no thread."""
    assert execute_parallel([]) == []
    assert execute_parallel([], max_workers=4, timeout=1, return_exceptions=True) == []


def test_the_first_error_cuts_the_rest(server: ProviderServer) -> None:
    """An operation's exception comes out as it is; calls under way are cut, others never begin."""
    server.answer = Answer(delay=30)
    begun: list[int] = []
    model = adapter("openai", server.base_url("openai"))

    def fails() -> object:
        server.wait_for_requests(2)
        raise KeyError("missing")

    def late() -> object:
        begun.append(1)
        return None

    began = time.monotonic()
    with pytest.raises(KeyError, match="missing"):
        execute_parallel(
            [lambda: model.generate("one"), lambda: model.generate("two"), fails, *[late] * 20],
            max_workers=3,
        )
    assert time.monotonic() - began < 5
    assert not begun
    assert all(request.disconnected.wait(5) for request in server.requests)
    assert wait_until(lambda: not threads())
    assert sum(pool["in_use"] for pool in health_check().values()) == 0


def test_each_item_may_have_its_error() -> None:
    """With `return_exceptions` one failure is one item's, and the others go on."""
    error = LLMError.of_code("LLM_RATE_LIMIT", "too many")
    bug = ValueError("a bug")
    results = execute_parallel(
        [lambda: 1, raising(error), raising(bug), lambda: 4], return_exceptions=True
    )
    assert results == [1, error, bug, 4]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt(), SystemExit(3)])
def test_interrupts_are_never_an_item(interrupt: BaseException) -> None:
    """What ends a program ends it, also with `return_exceptions`."""
    with pytest.raises(type(interrupt)):
        execute_parallel([sleeping(), raising(interrupt)], return_exceptions=True)


def test_the_time_out_holds_for_all_together(server: ProviderServer) -> None:
    """At the end of the time, calls are cut; the error comes then and not later."""
    server.answer = Answer(delay=30)
    model = adapter("anthropic", server.base_url("anthropic"))

    def taken() -> float:
        began = time.monotonic()
        with pytest.raises(LLMTimeoutError):
            execute_parallel([lambda: model.generate("hi")] * 4, timeout=0.3)
        return time.monotonic() - began

    assert best_of(8, taken, strict=0.4, loose=3.0) >= 0.3
    assert wait_until(lambda: not threads())
    assert all(request.disconnected.wait(5) for request in server.requests)


def test_what_was_done_in_time_is_kept() -> None:
    """A time-out takes the place of what was not done, and of nothing else."""
    results = execute_parallel(
        [lambda: "done", sleeping(), sleeping(), raising(KeyError()), lambda: "late"],
        max_workers=3,
        timeout=0.3,
        return_exceptions=True,
    )
    assert results[0] == "done"
    assert isinstance(results[1], LLMTimeoutError)
    assert isinstance(results[2], LLMTimeoutError)
    assert isinstance(results[3], KeyError)
    assert results[4] == "late"
    stuck = execute_parallel(
        [sleeping(), lambda: "never begun"], max_workers=1, timeout=0.1, return_exceptions=True
    )
    assert all(isinstance(each, LLMTimeoutError) for each in stuck)


def test_what_can_not_be_cut_is_left_behind() -> None:
    """Nobody waits for an operation that ignores its Scope, nor for its result."""
    released = threading.Event()
    try:
        began = time.monotonic()
        with pytest.raises(LLMTimeoutError):
            execute_parallel([lambda: released.wait(10)] * 2, timeout=0.1)
        assert time.monotonic() - began < 5
    finally:
        released.set()
    assert wait_until(lambda: not threads())


def test_a_block_s_deadline_holds_for_all(server: ProviderServer) -> None:
    """`with deadline(…)` bounds the operations and whoever waits for them."""
    server.answer = Answer(delay=30)
    model = adapter("openai", server.base_url("openai"))
    began = time.monotonic()
    with pytest.raises(LLMTimeoutError), deadline(0.3):
        execute_parallel([lambda: model.generate("hi")] * 2)
    assert 0.3 <= time.monotonic() - began < 5
    assert current_scope() is None


def test_a_cancel_ends_all() -> None:
    """Whoever cancels the Scope around it ends all operations, also with `return_exceptions`."""
    begun = Flag()

    def operation() -> object:
        begun.set()
        return sleeping()()

    with deadline(30) as scope:

        def cancel() -> None:
            begun.wait(10)
            scope.cancel("enough")

        canceller = threading.Thread(target=cancel)
        canceller.start()
        with pytest.raises(CancelledError, match="enough"):
            execute_parallel([operation, sleeping()], return_exceptions=True)
        canceller.join()
    assert wait_until(lambda: not threads())


def test_an_operations_own_time_out_is_its_own() -> None:
    """One operation's deadline is an error of that item, and ends no other."""

    def hurried() -> object:
        with Scope(0.02).entered():
            return sleeping()()

    results = execute_parallel([hurried, sleeping(0.1)], return_exceptions=True)
    assert isinstance(results[0], LLMTimeoutError)
    assert results[1] == "slept"


def test_budgets_around_hold_inside(server: ProviderServer) -> None:
    """A block's budget pays for its operations, on whatever thread they run."""
    server.answer = Answer("yes", input_tokens=10, output_tokens=5)
    model = adapter("openai", server.base_url("openai"))
    with Budget(usd="1") as budget:
        execute_parallel([lambda: model.generate("hi", max_tokens=20)] * 6)
    assert budget.spent_tokens == 6 * 15
    with Budget(tokens=60):
        results = execute_parallel(
            [lambda: model.generate("hi", max_tokens=20)] * 6, max_workers=1, return_exceptions=True
        )
    codes = [getattr(each, "code", None) for each in results]
    assert ErrorCode.LLM_BUDGET_EXCEEDED in codes
    assert codes[0] is None


def test_operations_see_the_callers_context_and_not_each_others() -> None:
    """Each runs in a copy of the caller's context of its own."""
    variable = contextvars.ContextVar("variable", default="nobody's")
    variable.set("the caller's")

    def operation() -> str:
        seen = variable.get()
        variable.set("another operation's")
        return seen

    assert execute_parallel([operation] * 8, max_workers=2) == ["the caller's"] * 8
    assert variable.get() == "the caller's"


def test_it_nests() -> None:
    """An operation may run operations of its own, up to the bound on each level."""

    def inner(number: int) -> list[Any]:
        return execute_parallel([lambda: number, lambda: number + 1], max_workers=2)

    outer = execute_parallel(
        [lambda number=number: inner(number) for number in range(6)],  # type: ignore[misc]
        max_workers=2,
    )
    assert outer == [[number, number + 1] for number in range(6)]


def test_streams_that_operations_opened_go_on(server: ProviderServer) -> None:
    """A stream that was opened side by side with others can be read afterwards."""
    server.answer = Answer(chunks=["a ", "b"], chunk_delay=0.02)
    model = adapter("gemini", server.base_url("gemini"))
    streams: list[Any] = execute_parallel([lambda: model.stream("hi")] * 3)
    assert ["".join(stream.text_stream) for stream in streams] == ["a b"] * 3


def test_it_gets_on_with_fewer_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no more threads, those that there are do all the work."""
    left = 1

    def scarce(task: Callable[[], Any], name: str) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise TooManyThreadsError("can't start new thread")
        return start(task, name)

    # The module, which the function of its name hides.
    module = sys.modules["llmkit.parallel.side_by_side"]
    monkeypatch.setattr(module, "start", scarce)
    numbers = [functools.partial(int, number) for number in range(9)]
    assert execute_parallel(numbers, max_workers=4) == list(range(9))
    with pytest.raises(TooManyThreadsError):
        execute_parallel(numbers, max_workers=4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"operations": print},
        {"operations": "text"},
        {"operations": ["text"]},
        {"operations": [None]},
        {"operations": [print], "max_workers": 0},
        {"operations": [print], "max_workers": 2.5},
        {"operations": [print], "timeout": 0},
        {"operations": [print], "timeout": "5"},
    ],
)
def test_what_can_not_be_meant_is_refused(arguments: dict[str, Any]) -> None:
    """Nothing runs when an argument makes no sense."""
    with pytest.raises(InvalidRequestError):
        execute_parallel(**arguments)


def test_ctrl_c_ends_it_at_once(server: ProviderServer) -> None:
    """The caller gets its KeyboardInterrupt at once; calls are cut, and the exit isn't held."""
    server.answer = Answer(delay=30)
    script = textwrap.dedent(
        f"""
        import time
        from llmkit import execute_parallel, get_adapter
        model = get_adapter(
            "gpt-6-luna", api_key="sk-test", api_base={server.base_url("openai")!r}
        )
        try:
            execute_parallel([lambda: model.generate("hi"), lambda: time.sleep(30)])
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as running:
        assert running.stdout is not None
        (request,) = server.wait_for_requests(1, timeout=30)
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        assert running.stdout.readline() == "interrupted\n"
        assert running.wait(10) == 0
        assert time.monotonic() - began < 5
    assert request.disconnected.wait(5)
