"""What a race costs beside its fastest model alone, and how soon its losers are gone.

    python -m benchmarks.race [rounds]

A model that answers after 30 ms races two that take 3,000 ms, over plain HTTP and over TLS; calls
of the fast model alone take turns with the races, so that a busy machine slows down both. Beside
it stands what a thread pool makes of the same race with the official SDK: `FIRST_COMPLETED`, after
which its executor waits for the losers.
"""

from __future__ import annotations

import os
import ssl
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, Literal

from llmkit import Client, get_adapter
from llmkit.testing import Answer, ProviderServer

KEY = "sk-benchmark-0123456789"
FAST, SLOW = 0.03, 3.0
MODELS: dict[Literal["openai", "anthropic", "gemini"], str] = {
    "openai": "gpt-6-luna",
    "anthropic": "claude-haiku-5-5",
    "gemini": "gemini-3.8-flash",
}


def main() -> None:
    """Measures and prints a Markdown table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    theirs = by_threads()
    print("| ms (median, 95 %) | plain | TLS |")
    print("|---|---|---|")
    with trusted() as context:
        measured = [measure(rounds, tls) for tls in (None, context)]
    for name in measured[0]:
        print(f"| {name} | {' | '.join(show(each[name]) for each in measured)} |")
    print()
    print(f"the same race by threads and SDK: {1000 * theirs:,.0f} ms")


def measure(rounds: int, tls: ssl.SSLContext | None) -> dict[str, list[float]]:
    """Returns the seconds of each round, by what was measured."""
    seconds: dict[str, list[float]] = {
        "fast model alone": [],
        "race": [],
        "race, over the fast model alone": [],
        "until the losers' threads are gone": [],
        "until the server saw a loser leave": [],
    }
    with ProviderServer(answer, tls=tls) as server:
        racers = [
            get_adapter(model, vendor, api_key=KEY, api_base=server.base_url(vendor))
            for vendor, model in MODELS.items()
        ]
        client = Client(fallbacks=[], cache=False)
        for _ in range(5):
            client.race("warm up", racers)
        for _ in range(rounds):
            alone = clock(lambda: client.complete("alone", model=racers[0]))
            server.reset()
            server.answer = answer
            race = clock(lambda: client.race("race", racers))
            ended = time.monotonic()
            free = clock(until_free)
            seconds["fast model alone"].append(alone)
            seconds["race"].append(race)
            seconds["race, over the fast model alone"].append(race - alone)
            seconds["until the losers' threads are gone"].append(free)
            for request in server.requests:
                if request.vendor != "openai" and request.disconnected.wait(5):
                    left = (request.disconnected_at or 0.0) - ended
                    seconds["until the server saw a loser leave"].append(max(0.0, left))
    return seconds


def answer(request: Any) -> Answer:
    """The answer of the fast vendor, or of a slow one."""
    return Answer("Hello.", delay=FAST if request.vendor == "openai" else SLOW)


def until_free() -> None:
    """Waits until no racer's thread is left."""
    while any(thread.name == "llmkit-race" for thread in threading.enumerate()):
        time.sleep(0.0002)


def by_threads() -> float:
    """Returns the seconds of the same race as threads and an SDK make it."""
    import openai

    with ProviderServer() as server:
        server.script(*[Answer("Hello.", delay=each) for each in (FAST, SLOW, SLOW)])
        sdk = openai.OpenAI(api_key=KEY, base_url=server.base_url("openai"), max_retries=0)
        chat: Any = [{"role": "user", "content": "Hi"}]

        def call() -> object:
            return sdk.chat.completions.create(model="gpt-6-luna", messages=chat)

        def race() -> None:
            with ThreadPoolExecutor(3) as threads:
                wait([threads.submit(call) for _ in range(3)], return_when=FIRST_COMPLETED)

        return clock(race)


def clock(call: Callable[[], object]) -> float:
    """Returns the seconds that a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def show(seconds: Sequence[float]) -> str:
    """Says the median and the 95th percentile in ms."""
    ordered = sorted(seconds)
    high = ordered[int(len(ordered) * 0.95)]
    return f"{1000 * statistics.median(ordered):.1f}, {1000 * high:.1f}"


@contextmanager
def trusted() -> Iterator[ssl.SSLContext]:
    """Makes a certificate for loopback that this process trusts; gives the server's side."""
    import trustme

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with authority.cert_pem.tempfile() as file:
        os.environ["SSL_CERT_FILE"] = file
        yield context


if __name__ == "__main__":
    main()
