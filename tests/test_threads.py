from __future__ import annotations

import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmkit import threads
from llmkit.threads import (
    MAX_DETACHED,
    Flag,
    Once,
    TooManyThreadsError,
    detached_count,
    run_detached,
)

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def settle() -> None:
    """Waits until the detached tasks have given their places back."""
    deadline = time.monotonic() + 5
    while detached_count() and time.monotonic() < deadline:
        time.sleep(0.001)
    assert detached_count() == 0


@pytest.fixture(autouse=True)
def nothing_left_behind() -> None:
    settle()


def test_a_detached_task_runs_beside_the_caller_in_the_callers_context() -> None:
    """The task sees the caller's Scope, on a named thread that holds no exit."""
    variable.set("mine")

    def task() -> tuple[str, str, bool]:
        variable.set("its own")
        thread = threading.current_thread()
        return variable.get(), thread.name, thread.daemon

    assert run_detached(task, "look-up").result(5) == ("its own", "llmkit-look-up", True)
    assert variable.get() == "mine"
    assert run_detached(variable.get, "x").result(5) == "mine"


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_whatever_a_task_raises_reaches_who_asks(error: type[BaseException]) -> None:
    """No exception dies on the thread, and none ends another thread than the one that asks."""

    def task() -> None:
        raise error

    with pytest.raises(error):
        run_detached(task, "x").result(5)


def test_detached_tasks_are_counted_and_bounded() -> None:
    """A dead name service can't fill the process with threads; places come back."""
    release = threading.Event()
    try:
        futures = [run_detached(release.wait, "hang") for _ in range(MAX_DETACHED)]
        assert detached_count() == MAX_DETACHED
        with pytest.raises(TooManyThreadsError, match="64"):
            run_detached(release.wait, "one too many")
    finally:
        release.set()
    assert all(future.result(5) for future in futures)
    settle()
    assert run_detached(lambda: 1, "again").result(5) == 1


def test_a_thread_that_cant_be_started_keeps_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the system has no more threads, the error says so and the bound isn't used up."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(MAX_DETACHED + 1):
            with pytest.raises(TooManyThreadsError, match="can't start"):
                run_detached(lambda: 1, "x")
    assert detached_count() == 0
    assert run_detached(lambda: 1, "x").result(5) == 1


def test_a_hanging_task_holds_no_exit() -> None:
    """A script ends although a look-up still hangs."""
    code = (
        "import threading; from llmkit.threads import run_detached;"
        "run_detached(threading.Event().wait, 'hang')"
    )
    root = str(Path(threads.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], cwd=root, timeout=10, check=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="another operating system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_all_places() -> None:
    """The parent's hanging tasks don't exist in the child and don't count there."""
    release = threading.Event()
    futures = [run_detached(release.wait, "hang") for _ in range(MAX_DETACHED)]
    child = os.fork()
    if child == 0:
        fine = detached_count() == 0 and run_detached(lambda: 1, "x").result(5) == 1
        os._exit(0 if fine else 1)
    release.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert all(future.result(5) for future in futures)


def test_a_flag_is_seen_whoever_raises_it() -> None:
    """A flag raised before or during a wait ends it; one that isn't raised lets time run out."""
    flag = Flag()
    assert not flag.is_set()
    assert not flag.wait(0)
    assert not flag.wait(0.001)
    threading.Timer(0.01, flag.set).start()
    assert flag.wait(5)
    assert flag.is_set()
    assert flag.wait()
    flag.set("as a callback", 1)
    assert flag.wait(0)
    assert Flag().wait(0.0) is False


def test_a_flag_can_be_raised_by_many_at_once() -> None:
    """Cancels from several threads don't fail and don't lose each other."""
    for _ in range(200):
        flag = Flag()
        with ThreadPoolExecutor(4) as pool:
            raised = [pool.submit(flag.set) for _ in range(3)]
            waiting = pool.submit(flag.wait, 5)
        assert waiting.result()
        assert all(each.exception() is None for each in raised)


def test_a_flag_takes_endless_times() -> None:
    """Infinity is a time-out like any other, not an OverflowError."""
    flag = Flag()
    threading.Timer(0.01, flag.set).start()
    assert flag.wait(float("inf"))


def test_only_one_is_first() -> None:
    """Of any number of threads, exactly one is told that it came first."""
    once = Once()
    assert not once.happened
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: once.is_first(), range(64)))
    assert answers.count(True) == 1
    assert once.happened


@pytest.mark.skipif(sys.platform == "win32", reason="signals to one thread are POSIX's")
def test_ctrl_c_ends_a_wait_that_it_does_not_wake() -> None:
    """One that comes as the wait begins, or to another thread, is seen a moment later."""

    def strike() -> None:
        time.sleep(0.05)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job's may be ignored
    try:
        other = threading.Thread(target=strike)
        other.start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            Flag().wait(30)
        assert time.monotonic() - began < 10
        other.join()
    finally:
        signal.signal(signal.SIGINT, before)
