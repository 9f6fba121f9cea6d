"""Where results of several threads arrive, and one thread waits for them."""

from __future__ import annotations

import collections
import threading
from typing import Generic, TypeVar

from llmkit.scope import Scope
from llmkit.threads import Flag

__all__ = ["Arrivals"]

T = TypeVar("T")


class Arrivals(Generic[T]):
    """A queue whose reader waits on its Scope, so that a cancel or Ctrl-C ends the wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: collections.deque[T] = collections.deque()
        self._flag: Flag | None = None
        self._closed = False

    def put(self, item: T) -> bool:
        """Adds an item.

        Returns:
            False when nobody waits for it any more; it was not added then.
        """
        with self._lock:
            if self._closed:
                return False
            self._items.append(item)
            if self._flag is not None:
                self._flag.set()
            return True

    def next(self, scope: Scope | None, doing: str, timeout: float | None = None) -> T | None:
        """Waits for the next item.

        Args:
            scope: Bounds the wait; None leaves that to `timeout`.
            doing: What is being waited for, for the error's message.
            timeout: Seconds; None as long as the Scope lasts.

        Returns:
            The item; None when none arrived in time.

        Raises:
            CallInterrupted: The Scope was cancelled, or its time ended.
        """
        with self._lock:
            if self._items:
                return self._items.popleft()
            flag = self._flag = Flag()
        if scope is None:
            flag.wait(timeout)
        else:
            scope.wait(flag, doing, timeout)
        with self._lock:
            self._flag = None
            return self._items.popleft() if self._items else None

    def close(self) -> list[T]:
        """Refuses further items.

        Returns:
            Those that nobody has read.
        """
        with self._lock:
            self._closed = True
            rest = list(self._items)
            self._items.clear()
        return rest
