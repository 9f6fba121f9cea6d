"""Breaker: stops asking a store that doesn't answer, and finds out when it does again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from llmkit.log import get_logger, redact

__all__ = ["Breaker", "StoreFailed", "StoreSkipped", "StoreTimeout"]

# Seconds without a question after a failure: the first time, and at most. Each further failure
# doubles them, so a store that is gone costs one short try every few seconds.
FIRST_PAUSE = 0.25
LONGEST_PAUSE = 5.0

# One late answer may be chance, or this process's own load; two in a row are not.
TIMEOUTS = 2

# A try that is neither successful nor failed after so many seconds was interrupted.
LONGEST_TRY = 2.0


class StoreSkipped(Exception):
    """The store was not asked: it is failing, or no time is left."""


class StoreFailed(Exception):
    """The store can't be reached or can't be used; the message says why, without any key."""


class StoreTimeout(StoreFailed):
    """The store did not answer in time.

    Args:
        message: What was waited for.
        chance: Whether it had so little time that this says nothing about it.
    """

    def __init__(self, message: str, chance: bool = False) -> None:
        super().__init__(message)
        self.chance = chance


class Breaker:
    """Lets questions through while a store answers.

    After a failure nobody asks for a while, then one caller at a time tries; when that succeeds,
    everybody asks again. An outage is logged once when it begins, and once when it ends.

    Args:
        name: What the log calls the store; without any secret.
        clock: Seconds that never run backwards.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.outages = 0
        self._clock = clock
        self._lock = threading.RLock()  # a signal handler may make a call
        self._open = False
        self._trying = False
        self._timeouts = 0
        self._pause = 0.0
        self._next_try = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the store is taken to be out of order."""
        return self._open

    def check(self) -> None:
        """Says whether the store may be asked now.

        Raises:
            StoreSkipped: It may not. Else whoever asks must report `succeeded` or `failed`.
        """
        if not self._open:
            return
        with self._lock:
            now = self._clock()
            if not self._open:
                return
            if now < self._next_try:
                raise StoreSkipped(f"{self.name} is out of order")
            self._trying = True
            self._next_try = now + LONGEST_TRY

    def succeeded(self) -> None:
        """Notes that the store answered."""
        if not self._open:
            if self._timeouts:
                self._timeouts = 0
            return
        with self._lock:
            if not self._trying:  # asked before the outage began
                return
            self._open = self._trying = False
            self._timeouts, self._pause = 0, 0.0
        get_logger("cache").info("%s answers again", self.name)

    def failed(self, error: StoreFailed) -> None:
        """Notes that the store did not answer, or not with what it should.

        Args:
            error: What happened.
        """
        with self._lock:
            begins = not self._open
            if begins and isinstance(error, StoreTimeout):
                self._timeouts += not error.chance
                if self._timeouts < TIMEOUTS:
                    return
            if not begins and not self._trying:  # asked before the outage began
                return
            self._open, self._trying = True, False
            self._pause = min(2 * self._pause or FIRST_PAUSE, LONGEST_PAUSE)
            self._next_try = self._clock() + self._pause
            self.outages += begins
        if begins:
            get_logger("cache").warning(
                "%s can't be used (%s): calls go on without it, and it is tried again by itself",
                self.name,
                redact(str(error)),
            )
