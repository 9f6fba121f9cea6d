from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmkit import process_local
from llmkit.process_local import ProcessLocal, alive, close_all


def test_it_is_built_once_on_first_use() -> None:
    """Making a ProcessLocal costs nothing; all that ask get one and the same instance."""
    built: list[object] = []

    def build() -> object:
        time.sleep(0.01)  # long enough for all threads to ask meanwhile
        built.append(object())
        return built[-1]

    shared: ProcessLocal[object] = ProcessLocal(build)
    assert shared.peek() is None
    with ThreadPoolExecutor(16) as pool:
        instances = list(pool.map(lambda _: shared.get(), range(16)))
    assert len(built) == 1
    assert all(instance is built[0] for instance in instances)
    assert shared.peek() is built[0]


def test_none_is_an_instance_like_any_other() -> None:
    """A builder that gives None isn't called again and again."""
    built: list[None] = []
    shared: ProcessLocal[None] = ProcessLocal(lambda: built.append(None))
    shared.get()
    shared.get()
    assert built == [None]


def test_a_failed_build_is_tried_again() -> None:
    """A missing variable at the first call isn't remembered once it is there."""
    outcomes: list[Exception | int] = [ValueError("not yet"), 7]

    def build() -> int:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    shared = ProcessLocal(build)
    with pytest.raises(ValueError, match="not yet"):
        shared.get()
    assert shared.get() == 7


def test_it_is_closed_once_and_built_anew() -> None:
    """After a close, the next use opens a new instance; closing nothing is nothing."""
    numbers = iter(range(10))
    closed: list[int] = []
    shared = ProcessLocal(lambda: next(numbers), closed.append)
    shared.close()
    assert shared.get() == 0
    shared.close()
    shared.close()
    assert closed == [0]
    assert shared.get() == 1
    shared.close()


def test_close_all_closes_the_others_when_one_fails() -> None:
    """One connection that can't be closed doesn't leave all others open, and isn't hidden."""
    closed: list[str] = []

    def fail(_: str) -> None:
        raise OSError("can't close")

    kept = [
        ProcessLocal(lambda: "a", closed.append),
        ProcessLocal(lambda: "b", fail),
        ProcessLocal(lambda: "c", closed.append),
    ]
    for each in kept:
        each.get()
    with pytest.raises(OSError, match="can't close"):
        close_all()
    assert sorted(closed) == ["a", "c"]
    close_all()


def test_what_is_kept_outlives_closing_all() -> None:
    """Figures can be read after everything was closed, until they themselves are closed."""
    kept: ProcessLocal[list[int]] = ProcessLocal(list, kept=True)
    kept.get().append(1)
    close_all()
    assert kept.get() == [1]
    kept.close()
    assert kept.get() == []


def test_a_close_from_another_thread_waits_for_the_build() -> None:
    """An instance that is being built when everything is closed doesn't stay open unseen."""
    building, go_on = threading.Event(), threading.Event()
    closed: list[int] = []

    def build() -> int:
        building.set()
        go_on.wait(5)
        return 1

    shared = ProcessLocal(build, closed.append)
    with ThreadPoolExecutor(2) as pool:
        got = pool.submit(shared.get)
        building.wait(5)
        closing = pool.submit(shared.close)
        go_on.set()
        assert got.result() == 1
        closing.result()
    assert closed == [1]
    assert shared.peek() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="another operating system")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_builds_its_own_and_closes_nothing_of_the_parents() -> None:
    """The child abandons what it inherited, even if a thread of the parent held the lock."""
    closed: list[int] = []
    abandoned: list[int] = []
    shared = ProcessLocal(os.getpid, closed.append, abandoned.append)
    parent = shared.get()
    held, release = threading.Event(), threading.Event()

    def hold() -> None:
        with shared._lock:
            held.set()
            release.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait(5)
    child = os.fork()
    if child == 0:
        fine = shared.peek() is None and shared.get() == os.getpid() != parent
        shared.close()
        fine = fine and closed == [os.getpid()] and abandoned == [parent]
        os._exit(0 if fine else 1)
    release.set()
    holder.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shared.get() == parent
    shared.close()
    assert (closed, abandoned) == ([parent], [])


def test_everything_is_closed_when_the_interpreter_ends() -> None:
    """A script that never calls shutdown() still closes its connections."""
    code = (
        "from llmkit.process_local import ProcessLocal;"
        "shared = ProcessLocal(lambda: 'it', lambda value: print('closed', value)); shared.get()"
    )
    root = str(Path(process_local.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["closed", "it"]


def test_a_forgotten_instance_is_not_kept_alive() -> None:
    """The list of all instances doesn't grow with each one that was ever made."""
    before = len(process_local._instances)
    for _ in range(10):
        ProcessLocal(object)
    assert len(process_local._instances) == before


def test_what_is_alive_is_listed_while_more_is_made() -> None:
    """Whatever other threads make in this moment, nobody who closes everything is stopped by it."""

    class Growing(weakref.WeakSet[ProcessLocal[int]]):
        def __iter__(self) -> Iterator[ProcessLocal[int]]:
            for at, each in enumerate(super().__iter__()):
                if at == 0 and len(self) < 5:
                    kept.append(ProcessLocal(int))
                    self.add(kept[-1])
                yield each

    kept = [ProcessLocal(int), ProcessLocal(int)]
    assert set(alive(Growing(kept))) == set(kept)
    assert len(kept) == 5
