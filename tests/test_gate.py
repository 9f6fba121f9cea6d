"""The gate under interrupts: wherever Ctrl-C strikes, no place is lost."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Callable

import pytest

from llmkit.connection_pool import cleanup_connection_pools, health_check
from llmkit.gate import Gate
from llmkit.testing import ProviderServer
from tests.deadline.calling import adapter
from tests.interruption import Interruption

WITHIN = ("/llmkit/gate.py", "/llmkit/http_transport.py", "/llmkit/http_connections.py")


def interrupted_everywhere(step: Callable[[], object], whole: Callable[[], None]) -> int:
    """Runs a step again and again, and strikes one instruction later each time.

    Args:
        step: What is interrupted.
        whole: Asserts, after each, that nothing was lost.

    Returns:
        How many moments there were.
    """
    for point in range(1, 20_000):
        interruption = Interruption(point, WITHIN)
        with contextlib.suppress(KeyboardInterrupt), interruption.armed():
            step()
        if not interruption.has_come:
            return point
        whole()
    raise AssertionError("the step never ended")


def test_ctrl_c_at_any_moment_loses_no_place() -> None:
    """Between any two instructions of taking and giving back, a place is somebody's."""
    gate = Gate(2)

    def pass_through() -> None:
        place = gate.enter()
        assert place is not None
        place.leave()

    def is_whole() -> None:
        assert gate.in_use == 0

    assert interrupted_everywhere(pass_through, is_whole) > 5


def test_ctrl_c_at_any_moment_of_giving_back_leaves_nobody_waiting() -> None:
    """Who waits gets the place, wherever the one that gives it back is interrupted."""
    gate = Gate(1)

    def hand_over() -> None:
        place = gate.enter()
        assert place is not None
        got: list[object] = []
        waiter = threading.Thread(target=lambda: got.append(gate.enter(10)))
        waiter.start()
        while not gate._waiting:
            time.sleep(0.0005)
        try:
            place.leave()
        except KeyboardInterrupt:
            place.leave()
            raise
        finally:
            waiter.join()
            assert got != [None]

    def is_whole() -> None:
        assert gate.in_use == 0

    assert interrupted_everywhere(hand_over, is_whole) > 8


# A connection may be lost at a handful of moments: its socket is closed with its pool.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_at_any_moment_of_a_call_leaves_nothing_taken(server: ProviderServer) -> None:
    """A call that is interrupted anywhere on its way to a connection and back holds no place."""
    asked = adapter("openai", server.base_url("openai"), max_retries=0)
    asked.generate("Warm up")

    def is_whole() -> None:
        (pool,) = health_check().values()
        assert pool["in_use"] == 0

    assert interrupted_everywhere(lambda: asked.generate("Hi"), is_whole) > 50
    assert server.open_connections <= 6
    cleanup_connection_pools()
    gc.collect()
