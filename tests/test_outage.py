"""A provider that fails all calls, under many threads: no storm, no pile-up, a quick recovery."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

import llmkit.pipeline.tries
from llmkit import BaseLLMAdapter, Client, ErrorCode, LLMError
from llmkit.breaker import CircuitBreaker
from llmkit.connection_pool import cleanup_connection_pools, health_check
from llmkit.testing import Answer, ProviderServer
from tests.deadline.calling import Vendor, adapter
from tests.machine import Lag

THREADS = 32
# Requests for each call, whatever fails.
MOST = 1.3
# Seconds from one probe to the next, and what a busy machine may add until an answer is there.
INTERVAL, SLACK = 0.3, 0.5

FAULTS = {
    "503": Answer(status=503),
    "429": Answer(status=429, headers={"retry-after": "0"}),
    "hangs": Answer(delay=30),
    "refuses": None,
}


@dataclass(frozen=True)
class Call:
    """How one call went; times are in `time.monotonic()` seconds."""

    began: float
    ended: float
    attempts: int
    timed_out: int
    code: ErrorCode | None


class Load:
    """Threads that call without pause."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._over = threading.Event()
        self._calls: list[list[Call]] = [[] for _ in range(THREADS)]

    @contextmanager
    def running(self) -> Iterator[Load]:
        threads = [threading.Thread(target=self._run, args=(calls,)) for calls in self._calls]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join(10)
            assert not any(thread.is_alive() for thread in threads)

    @property
    def seconds(self) -> float:
        """From the first call's beginning to the last one's end."""
        calls = self.calls
        return max(call.ended for call in calls) - min(call.began for call in calls)

    @property
    def calls(self) -> list[Call]:
        return [call for calls in self._calls for call in tuple(calls)]

    def wait_for_calls(self, number: int, seconds: float = 15.0) -> None:
        """Waits until so many calls have ended."""
        ends = time.monotonic() + seconds
        while len(self.calls) < number:
            assert time.monotonic() < ends, f"{len(self.calls)} calls in {seconds} s"
            time.sleep(0.01)

    def wait_for_answers(self, since: float, threads: int, seconds: float = 8.0) -> float:
        """Waits until calls of so many threads were answered; returns when the last of them was."""
        ends = time.monotonic() + seconds
        while True:
            firsts = sorted(
                min((each.ended for each in tuple(calls) if _answered(each, since)), default=ends)
                for calls in self._calls
            )
            if firsts[threads - 1] < ends or time.monotonic() > ends:
                return firsts[threads - 1]
            time.sleep(0.01)

    def _run(self, calls: list[Call]) -> None:
        while not self._over.is_set():
            began, code = time.monotonic(), None
            try:
                attempts = self._call().attempts
            except LLMError as error:
                attempts, code = error.attempts, error.code
            timed_out = sum(each.code is ErrorCode.LLM_TIMEOUT for each in attempts)
            calls.append(Call(began, time.monotonic(), len(attempts), timed_out, code))


def _answered(call: Call, since: float) -> bool:
    return call.code is None and call.ended >= since


@pytest.fixture(autouse=True)
def quick_breakers(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Circuits as they are, but for the time until they are probed; and no log of thousands."""
    breakers: dict[Any, CircuitBreaker] = {}

    def breaker_for(*address: Any) -> CircuitBreaker:
        return breakers.setdefault(
            address,
            CircuitBreaker(
                cool_down=INTERVAL,
                longest_cool_down=INTERVAL,
                provider=address[0],
                model=address[1],
            ),
        )

    caplog.set_level("ERROR", "llmkit")
    monkeypatch.setattr(llmkit.pipeline.tries, "breaker_for", breaker_for)


def fail(server: ProviderServer, answer: Answer | None) -> None:
    if answer is None:
        server.close()
    else:
        server.answer = answer


def heal(server: ProviderServer) -> float:
    server.answer = Answer("well again")
    server.start()
    return time.monotonic()


def own_threads() -> list[str]:
    names = [each.name for each in threading.enumerate()]
    return [name for name in names if name.startswith("llmkit-") and "server" not in name]


def hold_to(load: Load, server: ProviderServer | None = None) -> None:
    """Checks what every outage is held to, when its load is over."""
    calls = load.calls
    listed = sum(call.attempts for call in calls)
    assert listed <= MOST * len(calls), (listed, len(calls))
    if server is not None:
        # On a busy machine a try may time out before its request has arrived.
        timed_out = sum(call.timed_out for call in calls)
        assert listed - timed_out <= len(server.requests) <= listed
    assert own_threads() == []
    assert not any(pool["in_use"] for pool in health_check().values())


@pytest.mark.parametrize("fault", FAULTS)
def test_an_outage_makes_no_storm_and_its_end_is_noticed(
    server: ProviderServer, fault: str
) -> None:
    """Few requests for each call however it fails, and answers within one probe of its end."""
    client = Client(fallbacks=[], max_retries=3, timeout=3.0)
    model = adapter("openai", server.base_url("openai"))
    client.complete("warm up", model=model, timeout=30)
    server.reset()
    fail(server, FAULTS[fault])
    # From a second on, a time-out says something of the provider, and not of its caller's haste.
    load = Load(lambda: client.complete("hi", model=model, attempt_timeout=1.0))
    with Lag() as lag, load.running():
        time.sleep(1.6 if fault == "hangs" else 0.8)
        assert len(own_threads()) == 0
        outage = load.calls
        healed = heal(server)
        first = load.wait_for_answers(healed, 1)
        # A call that paused before its last try, or still hangs, comes later.
        everyone = load.wait_for_answers(healed, THREADS)

    assert not any(call.code is None for call in outage)
    assert any(call.code is ErrorCode.LLM_CIRCUIT_OPEN for call in outage)
    assert first - healed <= INTERVAL + SLACK + 2 * lag.worst
    assert everyone - healed <= 4.0
    hold_to(load, None if fault == "refuses" else server)
    # Of the calls that were let through, too, and not only of those that the circuit spared.
    sent = [call.attempts for call in outage if call.attempts]
    assert sum(sent) <= MOST * len(sent) + 10, sent


def test_without_a_circuit_the_retry_budget_holds_back(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retries stay a fifth of the calls even where every call is made."""
    never = CircuitBreaker(min_calls=1_000_000_000)
    monkeypatch.setattr(llmkit.pipeline.tries, "breaker_for", lambda *_: never)
    client = Client(fallbacks=[], max_retries=3, timeout=5.0)
    model = adapter("openai", server.base_url("openai"))
    client.complete("warm up", model=model, timeout=30)
    server.reset()
    server.answer = Answer(status=503)
    with Load(lambda: client.complete("hi", model=model)).running() as load:
        load.wait_for_calls(10 * THREADS)  # so that the budget's reserve is a small part

    hold_to(load, server)


def test_a_healthy_fallback_answers_everybody_at_no_extra_latency(server: ProviderServer) -> None:
    """While the first model is down, the chain answers as fast as its second model alone."""
    healthy = adapter("openai", server.base_url("openai"))
    with ProviderServer(Answer(status=503)) as failing:
        first = adapter("openai", failing.base_url("openai"))
        client = Client(max_retries=3, timeout=5.0)
        client.complete("warm up", model=healthy, fallbacks=[])
        for _ in range(10):  # after which its circuit is open
            client.complete("hi", model=first, fallbacks=[healthy], max_retries=0)
        with Load(_chained(client, healthy)).running() as before:
            before.wait_for_calls(6 * THREADS)
        with Load(_chained(client, first, healthy)).running() as load:
            load.wait_for_calls(6 * THREADS)
        with Load(_chained(client, healthy)).running() as after:
            after.wait_for_calls(6 * THREADS)

        assert not any(call.code for call in load.calls)
        # The machine may have become busier, or less busy, in between.
        chained, direct = _median(load), max(_median(before), _median(after))
        assert chained <= 2 * direct, (chained, direct)
        probes = sum(call.attempts - 1 for call in load.calls)
        assert len(failing.requests) == 10 + probes
        assert probes <= (load.seconds / INTERVAL) + 1


def _chained(client: Client, first: BaseLLMAdapter, *others: BaseLLMAdapter) -> Callable[[], Any]:
    return lambda: client.complete("hi", model=first, fallbacks=others)


def _median(load: Load) -> float:
    return statistics.median(call.ended - call.began for call in load.calls)


@pytest.mark.parametrize("vendor", ["openai", "anthropic"])
def test_a_chain_that_is_down_as_a_whole_makes_no_storm(
    server: ProviderServer, vendor: Vendor
) -> None:
    """All circuits open, one model is asked all the same: once for each call, and rarely again."""
    first = adapter("openai", server.base_url("openai"))
    with ProviderServer(Answer(status=503)) as other:
        second = adapter(vendor, other.base_url(vendor))
        client = Client(max_retries=3, timeout=5.0)
        second.ensure_initialized()  # loads the SDK
        client.complete("warm up", model=first, fallbacks=[], timeout=30)
        server.reset()
        server.answer = Answer(status=503)
        with Load(_chained(client, first, second)).running() as load:
            load.wait_for_calls(8 * THREADS)
            healed = heal(server)
            recovered = load.wait_for_answers(healed, THREADS)

        assert recovered - healed <= 4.0
        calls = [call for call in load.calls if call.ended <= healed]
        requests = sum(call.attempts for call in calls)
        # Until the circuits are open, each call asks both.
        assert requests <= MOST * len(calls) + 2 * THREADS, (requests, len(calls))
    cleanup_connection_pools()
