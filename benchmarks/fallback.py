"""How soon a call with a time-out of 2 s is answered when its first model is faulty.

    python -m benchmarks.fallback [time-out]

The first model drips, hangs, refuses the connection, limits us for a minute, or lies behind an
address that swallows the connect; the second is healthy. The last column has two faulty ones: the
error has to come with the end of the time.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Literal

from llmkit import BaseLLMAdapter, Client, LLMError, get_adapter
from llmkit.testing import Answer, ProviderServer

KEY = "sk-benchmark-0123456789"
MODELS: dict[Literal["openai", "anthropic", "gemini"], str] = {
    "openai": "gpt-6-luna",
    "anthropic": "claude-haiku-5-5",
    "gemini": "gemini-3.8-flash",
}
FAULTS = {
    "drips": Answer("Hello.", drip=0.05),
    "hangs": Answer(delay=600),
    "429, Retry-After 60": Answer(status=429, headers={"retry-after": "60"}),
    "refuses": None,
    "black hole": None,
}


def main() -> None:
    """Measures and prints a Markdown table."""
    timeout = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    client = Client(timeout=timeout, cache=False)
    print(f"| first model, timeout={timeout:g} | {' | '.join(MODELS)} | both faulty |")
    print("|---|---|---|---|---|")
    with ProviderServer() as healthy, ProviderServer() as faulty, dead_end() as hole:
        for vendor in MODELS:
            adapter(vendor, healthy.url).generate("warm up")
        for fault, answer in FAULTS.items():
            faulty.answer = answer or Answer()
            where = {"refuses": nobody(), "black hole": hole}.get(fault, faulty.url)
            others = dict(zip(MODELS, [*MODELS][1:] + [*MODELS][:1], strict=True))
            cells = [
                clock(client, [adapter(vendor, where), adapter(others[vendor], healthy.url)])
                for vendor in MODELS
            ]
            cells.append(clock(client, [adapter("openai", where), adapter("anthropic", where)]))
            print(f"| {fault} | {' | '.join(cells)} |", flush=True)


def adapter(vendor: Literal["openai", "anthropic", "gemini"], url: str) -> BaseLLMAdapter:
    """The adapter of a vendor's model, which is asked at an address."""
    base = f"{url}/v1" if vendor == "openai" else url
    return get_adapter(MODELS[vendor], vendor, api_key=KEY, api_base=base)


def clock(client: Client, chain: Sequence[BaseLLMAdapter]) -> str:
    """Makes a call; says its seconds and how it ended."""
    began = time.perf_counter()
    try:
        reply = client.complete("Hi", model=chain[0], fallbacks=chain[1:])
        how = f"{reply.provider}, {len(reply.attempts)} requests"
    except LLMError as error:
        how = type(error).__name__
    return f"{time.perf_counter() - began:.2f} s ({how})"


def nobody() -> str:
    """An address at which nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@contextmanager
def dead_end() -> Iterator[str]:
    """An address where `connect()` hangs: a listener whose queue is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        hanging = 0
        while hanging < 2:
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            hanging = 0 if select.select([], [filler], [], 0.25)[1] else hanging + 1
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


if __name__ == "__main__":
    main()
