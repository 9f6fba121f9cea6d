"""Time for many threads that passes only while all of them wait: simulations without waiting."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable

__all__ = ["VirtualTime"]

_PATIENCE = 30.0


class VirtualTime:
    """A clock whose `sleep` returns, thread by thread, in the order of the times slept until."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._lock = threading.Lock()
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, threading.Event]] = []
        self._awake = 0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Waits until the time is there, of which this thread's sleep is a part."""
        turn = threading.Event()
        with self._lock:
            heapq.heappush(self._sleepers, (self.now + seconds, next(self._order), turn))
            self._awake -= 1
            self._wake_next()
        if not turn.wait(_PATIENCE):
            raise TimeoutError("the simulation stands still")

    def run(self, *tasks: Callable[[], object]) -> None:
        """Runs each task on a thread of its own, one at a time, to the end."""
        failures: list[BaseException] = []

        def run(task: Callable[[], object]) -> None:
            try:
                self.sleep(0.0)
                task()
            except BaseException as failure:
                failures.append(failure)
            finally:
                with self._lock:
                    self._awake -= 1
                    self._wake_next()

        self._awake = len(tasks)
        threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_PATIENCE)
        if failures:
            raise failures[0]

    def _wake_next(self) -> None:
        if self._awake == 0 and self._sleepers:
            self.now, _, turn = heapq.heappop(self._sleepers)
            self._awake = 1
            turn.set()
