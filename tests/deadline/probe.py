"""Sees what calls block on, so that a test can act at that very moment."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import pytest

from llmkit.scope import Scope

STANDS_STILL = 0.05  # seconds after which an operation on loopback counts as blocked
PATIENCE = 10.0


class Probe:
    """Watches every operation that a Scope is told of."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.on_unblock: Callable[[Scope], object] | None = None
        self._changed = threading.Condition()
        self._blocked: dict[object, float] = {}
        block, unblock = Scope.block, Scope.unblock

        def watched_block(scope: Scope, wake: Callable[[], object]) -> None:
            block(scope, wake)
            with self._changed:
                self.count += 1
                self._blocked[wake] = time.monotonic()
                self._changed.notify_all()

        def watched_unblock(scope: Scope, wake: Callable[[], object]) -> None:
            unblock(scope, wake)
            with self._changed:
                self._blocked.pop(wake, None)
            if self.on_unblock is not None:
                self.on_unblock(scope)

        monkeypatch.setattr(Scope, "block", watched_block)
        monkeypatch.setattr(Scope, "unblock", watched_unblock)

    def wait_until_stuck(self, operations: int = 1) -> None:
        """Waits until so many operations block and don't get on."""
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends:
            with self._changed:
                now = time.monotonic()
                stuck = [since for since in self._blocked.values() if now - since >= STANDS_STILL]
                if len(stuck) >= operations:
                    return
                self._changed.wait(STANDS_STILL / 5)
        raise TimeoutError("nothing blocks")

    def wait_for_more(self, operations: int) -> None:
        """Waits until so many further operations have begun."""
        with self._changed:
            goal = self.count + operations
            if not self._changed.wait_for(lambda: self.count >= goal, PATIENCE):
                raise TimeoutError("no further operations")


def signal_main_thread(probe: Probe, number: int, operations: int = 1) -> None:
    """Sends the main thread a signal once so many operations are stuck."""
    probe.wait_until_stuck(operations)
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, number)
