"""Instances that belong to a process: built once, rebuilt after a fork, closed together.

Connection pools, SDK clients and the like are shared by all threads of a process, must never be
used by two processes, and have to be closed at the end. `ProcessLocal` holds one such instance.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

__all__ = ["ProcessLocal", "alive", "close_all"]

T = TypeVar("T")

_UNBUILT: Any = object()
_instances: weakref.WeakSet[ProcessLocal[Any]] = weakref.WeakSet()
# What a child inherited stays referenced, so that no destructor runs in the child: it could wait
# for a lock that a thread of the parent held at the moment of the fork.
_inherited: list[Any] = []


class ProcessLocal(Generic[T]):
    """One instance per process, built on first use.

    Args:
        build: Makes the instance; called under a lock, once per process.
        close: Ends the instance in the process that built it; None when nothing is to be done.
        abandon: Gives up, in a forked child, what the parent built (without disturbing the
            parent); None when nothing is to be done.
        kept: Whether `close_all` leaves the instance as it is: for figures, which hold nothing open
            and are read at the end.
    """

    def __init__(
        self,
        build: Callable[[], T],
        close: Callable[[T], object] | None = None,
        abandon: Callable[[T], object] | None = None,
        *,
        kept: bool = False,
    ) -> None:
        self._build = build
        self._close = close
        self._abandon = abandon
        self.kept = kept
        self._lock = threading.RLock()
        self._value: T = _UNBUILT
        _instances.add(self)

    def get(self) -> T:
        """Returns this process's instance, building it if need be."""
        value = self._value
        if value is not _UNBUILT:
            return value
        with self._lock:
            if self._value is _UNBUILT:
                self._value = self._build()
            return self._value

    def peek(self) -> T | None:
        """Returns this process's instance, or None when nothing was built yet."""
        value = self._value
        return None if value is _UNBUILT else value

    def close(self) -> None:
        """Ends this process's instance; the next `get` builds a new one."""
        with self._lock:
            value, self._value = self._value, _UNBUILT
        if value is not _UNBUILT and self._close is not None:
            self._close(value)

    def _forget_in_child(self) -> None:
        value, self._value = self._value, _UNBUILT
        self._lock = threading.RLock()
        if value is not _UNBUILT:
            _inherited.append(value)
            if self._abandon is not None:
                self._abandon(value)


def alive(instances: weakref.WeakSet[T]) -> list[T]:
    """Returns what is in a set, whatever other threads add to it meanwhile.

    Args:
        instances: The set.
    """
    while True:
        with contextlib.suppress(RuntimeError):  # one was added in this moment
            return list(instances)


def close_all() -> None:
    """Closes what this process has built, but for what is kept; each is built anew when used."""
    with contextlib.ExitStack() as closing:  # closes the others, too, when one fails
        for instance in alive(_instances):
            if not instance.kept:
                closing.callback(instance.close)


def _forget_all_in_child() -> None:
    for instance in list(_instances):
        instance._forget_in_child()


# Windows cannot fork and has no such hook. A hook cannot be taken back, hence one for all.
if hasattr(os, "register_at_fork"):  # pragma: no branch
    os.register_at_fork(after_in_child=_forget_all_in_child)
atexit.register(close_all)
