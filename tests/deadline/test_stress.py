"""Many calls at once, half of them cut at random moments."""

from __future__ import annotations

import heapq
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

import llmkit
from llmkit.connection_pool import cleanup_connection_pools, health_check
from llmkit.errors import CancelledError
from llmkit.gate import Gate, Place
from llmkit.scope import CallInterrupted, Scope
from llmkit.testing import Answer, ProviderServer
from llmkit.testing.recorded_request import RecordedRequest
from tests.deadline.calling import VENDORS, Vendor, adapter, echo

CALLS = 2000
THREADS = 32


class Cutter:
    """Cancels Scopes, each at its own moment, on a thread of its own."""

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Scope]] = []
        self._changed = threading.Condition()
        self._over = False

    def cut(self, scope: Scope, after: float) -> None:
        """Cancels a Scope so many seconds from now."""
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + after, id(scope), scope))
            self._changed.notify()

    @contextmanager
    def running(self) -> Iterator[Cutter]:
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield self
        finally:
            with self._changed:
                self._over = True
                self._changed.notify()
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                if self._over:
                    return
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                scope = heapq.heappop(self._due)[2]
            scope.cancel()


def test_half_of_many_calls_are_cut_at_random_moments(any_server: ProviderServer) -> None:
    """Cuts give no wrong answer, no error to others, and leak no place and no connection."""
    rng = random.Random(7)

    def answer(request: RecordedRequest) -> Answer:
        text = echo(request).text
        number = int(text.split()[-1])
        # Those that are to be cut stop somewhere in their head or body, and never end.
        stall_after = number % 250 if number % 2 else None
        return Answer(text, chunked=number % 3 == 0, stall_after=stall_after)

    any_server.answer = answer
    asked = [adapter(vendor, any_server.base_url(vendor), max_retries=0) for vendor in VENDORS]
    # Half are cut for certain, and a quarter may be, at the moment when their answer arrives.
    longest = (0.005, 0.1, None, 0.1)
    plan = [
        None if (most := longest[number % 4]) is None else rng.uniform(0, most)
        for number in range(CALLS)
    ]

    def call(number: int) -> str:
        prompt = f"question {number}"
        cut_after = plan[number]
        with llmkit.deadline(30) as scope:
            if cut_after is not None:
                cutter.cut(scope, cut_after)
            try:
                reply = asked[number % len(asked)].generate(prompt)
            except CancelledError:
                assert cut_after is not None
                return "cut"
        assert reply.text == prompt
        return "answered"

    with Cutter().running() as cutter, ThreadPoolExecutor(THREADS) as threads:
        outcomes = list(threads.map(call, range(CALLS)))

    assert outcomes.count("cut") >= CALLS / 2
    assert outcomes.count("answered") >= CALLS / 4
    pools = health_check().values()
    assert sum(pool["in_use"] for pool in pools) == 0
    assert sum(pool["connections"] for pool in pools) <= THREADS * len(VENDORS)
    cleanup_connection_pools()
    ends = time.monotonic() + 5
    while any_server.open_connections and time.monotonic() < ends:
        time.sleep(0.01)
    assert any_server.open_connections == 0


def test_a_gate_loses_no_place_and_no_turn() -> None:
    """However holders and waiters are cut, all places are free again and nobody waits in vain."""
    gate, inside, lock = Gate(4), [0, 0], threading.Lock()
    rng = random.Random(3)
    plan = [(rng.random() < 0.5, rng.uniform(0, 0.004)) for _ in range(4000)]

    def pass_through(number: int) -> bool:
        is_cut, after = plan[number]
        with Scope(30).entered() as scope:
            if is_cut:
                cutter.cut(scope, after)
            place = Place(gate)
            try:
                assert place.take()
            except CallInterrupted:
                place.give_back()
                assert is_cut
                return False
        with lock:
            inside[0] += 1
            inside[1] = max(inside)
        time.sleep(after / 20)
        with lock:
            inside[0] -= 1
        place.give_back()
        return True

    with Cutter().running() as cutter, ThreadPoolExecutor(64) as threads:
        passed = list(threads.map(pass_through, range(len(plan))))
    assert inside[1] <= 4
    assert gate.in_use == 0
    assert not all(passed)
    places = [Place(gate) for _ in range(5)]
    assert all(place.take(0) for place in places[:4])
    assert not places[4].take(0.01)


def test_a_gate_is_first_come_first_served() -> None:
    """Nobody overtakes in the queue for a connection."""
    gate, order = Gate(1), []
    first = Place(gate)
    assert first.take()

    def pass_through(number: int) -> None:
        place = Place(gate)
        assert place.take(10)
        order.append(number)
        place.give_back()

    waiting = []
    for number in range(8):
        waiting.append(threading.Thread(target=pass_through, args=(number,)))
        waiting[-1].start()
        while gate.waiting <= number:
            time.sleep(0.001)
    first.give_back()
    for thread in waiting:
        thread.join()
    assert order == list(range(8))


def test_pools_may_be_closed_while_calls_are_under_way(any_server: ProviderServer) -> None:
    """Closing the pools in one thread disturbs no call in another."""
    any_server.answer = echo
    asked = adapter("openai", any_server.base_url("openai"), max_retries=0)
    over = threading.Event()

    def close_again_and_again() -> None:
        while not over.is_set():
            cleanup_connection_pools()
            over.wait(0.005)

    closing = threading.Thread(target=close_again_and_again)
    closing.start()
    try:
        with ThreadPoolExecutor(8) as threads:
            prompts = [f"question {number}" for number in range(200)]
            replies = threads.map(lambda prompt: asked.generate(prompt).text, prompts)
            assert list(replies) == prompts
    finally:
        over.set()
        closing.join()


@pytest.mark.parametrize("vendor", VENDORS)
def test_streams_are_cut_at_random_moments(server: ProviderServer, vendor: Vendor) -> None:
    """A cut stream says so, and others come whole."""
    server.answer = Answer(chunks=[f"{number} " for number in range(20)], chunk_delay=0.001)
    asked = adapter(vendor, server.base_url(vendor), max_retries=0)
    whole = "".join(f"{number} " for number in range(20))
    rng = random.Random(5)
    plan = [rng.uniform(0, 0.05) if number % 2 else None for number in range(60)]

    def call(number: int) -> bool:
        cut_after = plan[number]
        with llmkit.deadline(30) as scope:
            if cut_after is not None:
                cutter.cut(scope, cut_after)
            try:
                with asked.stream("hi") as stream:
                    assert "".join(stream.text_stream) == whole
                    return True
            except CancelledError:
                assert cut_after is not None
                return False

    with Cutter().running() as cutter, ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(call, range(len(plan)))) >= len(plan) / 2
