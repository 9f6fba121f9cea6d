"""How busy the machine is, for tests that judge durations."""

from __future__ import annotations

import threading
import time
from types import TracebackType

__all__ = ["Lag"]

TICK = 0.005


class Lag:
    """Measures, as long as it is entered, how late the machine wakes a thread at worst.

    Attributes:
        worst: Seconds, so far.
    """

    def __init__(self) -> None:
        self.worst = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Lag:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _tick(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            time.sleep(TICK)
            self.worst = max(self.worst, time.monotonic() - began - TICK)
