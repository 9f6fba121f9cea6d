"""What an outage of a provider costs: requests for each call, and how soon its end is noticed.

    python -m benchmarks.outage [seconds]

Thirty-two threads call without pause, with three retries, while the provider fails every call for
a minute; then it is well again. The circuit breaker and the retry budget are those of every
program. The last rows have the breaker off, and a chain whose models are all down.
"""

from __future__ import annotations

import logging
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any
from unittest.mock import patch

from llmkit import BaseLLMAdapter, Client, LLMError, get_adapter
from llmkit.breaker import CircuitBreaker, breaker_for, reset_breakers
from llmkit.retry import reset_retry_budgets
from llmkit.testing import Answer, ProviderServer

THREADS = 32
FAULTS: dict[str, Answer | None] = {
    "503": Answer(status=503),
    "429, Retry-After 0": Answer(status=429, headers={"retry-after": "0"}),
    "hangs, attempt_timeout=2": Answer(delay=600),
    "refuses": None,
}


class Tally:
    """Calls of one kind: how many, how many requests, and how long they took."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.let_through: list[int] = []  # the requests of each call that the circuit let through
        self.answered: list[float] = []  # when, in time.monotonic() seconds

    def run(self, call: Callable[[], Any], over: threading.Event) -> None:
        """Calls until it is over."""
        while not over.is_set():
            began = time.monotonic()
            try:
                attempts = len(call().attempts)
                self.answered.append(time.monotonic())
            except LLMError as error:
                attempts = len(error.attempts)
            self.seconds.append(time.monotonic() - began)
            if attempts:
                self.let_through.append(attempts)


def main() -> None:
    """Measures and prints a Markdown table."""
    outage = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    logging.getLogger("llmkit").setLevel(logging.ERROR)
    print(
        f"| for {outage:g} s | calls | requests | per call | per call let through | median ms "
        "| first answer, s | probe interval, s | llmkit's threads |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for fault, answer in FAULTS.items():
        show(fault, *measure(outage, answer))
    with no_breaker():
        show("503, no breaker", *measure(outage, FAULTS["503"]))
    show("503, a chain of two, both down", *measure(outage, FAULTS["503"], models=2))


def measure(outage: float, answer: Answer | None, models: int = 1) -> tuple[Tally, float, Any]:
    """Returns the outage's calls, the seconds from its end to an answer, and further figures."""
    reset_breakers()
    reset_retry_budgets()
    tally, over = Tally(), threading.Event()
    with ExitStack() as stack:
        servers = [stack.enter_context(ProviderServer()) for _ in range(models)]
        chain = [adapter(server) for server in servers]
        client = Client(max_retries=3, timeout=30)
        client.complete("warm up", model=chain[0], fallbacks=[])
        for server in servers:
            fail(server, answer)

        def call() -> Any:
            return client.complete("hi", model=chain[0], fallbacks=chain[1:], attempt_timeout=2.0)

        threads = [threading.Thread(target=tally.run, args=(call, over)) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        time.sleep(outage)
        interval = breaker_for(chain[0].provider, chain[0].model, chain[0].address)._cool_down
        names = [thread.name for thread in threading.enumerate()]
        extra = sum(name.startswith("llmkit-") and "server" not in name for name in names)
        tally.answered.clear()
        figures = Tally()
        figures.seconds, figures.let_through = list(tally.seconds), list(tally.let_through)
        for server in servers:
            server.answer = Answer("well again")
            server.start()
        healed = time.monotonic()
        while not tally.answered:
            time.sleep(0.005)
        over.set()
        for thread in threads:
            thread.join()
    return figures, tally.answered[0] - healed, (interval, extra)


def show(name: str, tally: Tally, recovery: float, further: tuple[float, int]) -> None:
    """Prints a row."""
    calls, requests = len(tally.seconds), sum(tally.let_through)
    through = requests / len(tally.let_through) if tally.let_through else math.nan
    interval, threads = further
    print(
        f"| {name} | {calls:,} | {requests:,} | {requests / calls:.3f} | {through:.2f} "
        f"| {1000 * statistics.median(tally.seconds):.1f} | {recovery:.2f} | {interval:g} "
        f"| {threads} |",
        flush=True,
    )


def adapter(server: ProviderServer) -> BaseLLMAdapter:
    """The adapter of a model there."""
    return get_adapter(
        "gpt-6-luna",
        "openai",
        api_key="sk-benchmark-0123456789",
        api_base=server.base_url("openai"),
        cache_enabled=False,
    )


def fail(server: ProviderServer, answer: Answer | None) -> None:
    """Begins the outage; None takes the provider away."""
    if answer is None:
        server.close()
    else:
        server.answer = answer


def no_breaker() -> AbstractContextManager[object]:
    """Leaves the retry budget alone with the outage."""
    never = CircuitBreaker(min_calls=10**9)
    return patch("llmkit.pipeline.tries.breaker_for", lambda *_: never)


if __name__ == "__main__":
    main()
