"""The only place that starts threads.

All of them are daemons: what can be cut by its Scope, such as a racer, and what can't, such as a
name look-up inside the C library. Nobody has to wait for either, the interpreter's exit included.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import contextvars
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = [
    "MAX_DETACHED",
    "Flag",
    "Once",
    "TooManyThreadsError",
    "detached_count",
    "run_detached",
    "start",
]

T = TypeVar("T")

# A look-up that hangs gives up by itself after some 5 to 30 s (resolv.conf's defaults), so this
# many at once means that the name service is gone.
MAX_DETACHED = 64

# Seconds after which a wait looks whether Ctrl-C has come: CPython on Windows does not react to it
# inside a lock's wait, and elsewhere not if it comes in the very moment in which the wait begins.
_SLICE = 0.1 if sys.platform == "win32" else 1.0

# Seconds that the interpreter's exit gives threads that have just been cut, such as those of a
# race's losers, to end: what they would run later could meet an interpreter half taken apart.
LAST_MOMENT = 0.1

_running: dict[int, threading.Thread] = {}

# One item for each detached task that may still start. No lock, which a fork could leave locked.
_places = collections.deque([True] * MAX_DETACHED)


class TooManyThreadsError(RuntimeError):
    """No further detached task can be started: so many hang, or the system has no more threads."""


def run_detached(task: Callable[[], T], name: str) -> Future[T]:
    """Runs a task that cannot be cut, on a daemon thread, in a copy of the caller's context.

    Args:
        task: What to do.
        name: What the thread is called, behind `llmkit-`.

    Returns:
        A future of the result. Nobody has to wait for it: a task that hangs holds neither the
        caller nor the interpreter's exit.

    Raises:
        TooManyThreadsError: `MAX_DETACHED` tasks are running already, or no thread can be had.
    """
    try:
        _places.pop()
    except IndexError:
        raise TooManyThreadsError(f"{MAX_DETACHED} detached tasks are running") from None
    return start(task, name, on_end=lambda: _places.append(True))


def start(
    task: Callable[[], T], name: str, on_end: Callable[[], object] | None = None
) -> Future[T]:
    """Runs a task on a thread of its own, in a copy of the caller's context.

    Whoever starts it also cuts it, by its Scope. The thread is a daemon, so that even a task which
    can't be cut, such as a user's own adapter that sleeps, does not hold the interpreter's exit.

    Args:
        task: What to do.
        name: What the thread is called, behind `llmkit-`.
        on_end: Called on the thread when the task is over, or at once if it can't be started.

    Returns:
        A future of the result.

    Raises:
        TooManyThreadsError: The system has no more threads.
    """
    future: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            future.set_result(context.run(task))
        except BaseException as error:  # handed to whoever asks for the result
            future.set_exception(error)
        finally:
            _running.pop(id(future), None)
            if on_end is not None:
                on_end()

    thread = _running[id(future)] = threading.Thread(target=run, name=f"llmkit-{name}", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        _running.pop(id(future), None)
        if on_end is not None:
            on_end()
        raise TooManyThreadsError(str(error)) from error
    return future


def detached_count() -> int:
    """Returns how many detached tasks are running now."""
    return MAX_DETACHED - len(_places)


class Once:
    """Tells the first of all that ask from the rest, without a lock."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = [True]

    @property
    def happened(self) -> bool:
        """Whether anybody has asked."""
        return not self._left

    def is_first(self) -> bool:
        """Returns True to the first that asks, in whatever thread, and False ever after."""
        try:
            return self._left.pop()
        except IndexError:
            return False


class Flag:
    """Something that one thread waits for and any other thread, or a signal handler, sets once.

    `threading.Event` takes a lock of its own in `set`, so a signal handler that sets it can wait
    for the very thread it interrupted; this one rests on a single raw lock and can't.
    """

    __slots__ = ("_lock", "_raised")

    def __init__(self) -> None:
        self._raised = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self, *_: object) -> None:
        """Raises the flag; the arguments are there so that it can serve as a callback."""
        self._raised = True
        # Released already, by another setter or by the waiter: nothing left to do.
        with contextlib.suppress(RuntimeError):
            self._lock.release()

    def is_set(self) -> bool:
        """Returns whether the flag was raised."""
        return self._raised

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the flag so that Ctrl-C ends the wait on every system.

        Args:
            timeout: Seconds to wait at most; None waits without end.

        Returns:
            Whether the flag was raised in time.
        """
        left = math.inf if timeout is None else timeout
        ends = time.monotonic() + left
        while not self._raised and left > 0:
            self._lock.acquire(timeout=min(_SLICE, left))
            left = ends - time.monotonic()
        return self._raised


@atexit.register
def _let_end() -> None:
    """Gives threads that were cut their last moment; one that can't be cut holds nothing up."""
    ends = time.monotonic() + LAST_MOMENT
    for thread in tuple(_running.values()):
        if thread.is_alive():  # and not one that somebody is just starting
            thread.join(max(0.0, ends - time.monotonic()))


def _forget_in_child() -> None:
    """A fork leaves the other threads behind, and the child must not count them."""
    _running.clear()
    _places.extend([True] * detached_count())


if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_forget_in_child)
