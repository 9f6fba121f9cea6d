"""A process that asks the same questions as others at once, through a Client."""

from __future__ import annotations

import os
import threading
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

__all__ = ["Asker"]

# Started once, with what takes long to import; each asker is a fork of it.
_context: Any = get_context("forkserver")
_context.set_forkserver_preload(["openai", "redis", "llmkit.testing", __name__])


class Asker:
    """A process that waits to be told to begin.

    Args:
        cache: The cache's URL.
        provider: The provider's.
        threads: How many threads ask.
        questions: How many questions each of them asks.
    """

    def __init__(self, cache: str, provider: str, threads: int, questions: int) -> None:
        self._pipe, theirs = _context.Pipe()
        arguments = (theirs, cache, provider, threads, questions)
        self.process = _context.Process(target=_ask_all, args=arguments)
        self.process.start()
        theirs.close()

    @property
    def authorization(self) -> str:
        """How a provider knows this process: its API key is no part of a question."""
        return f"Bearer {_key_of(self.process.pid)}"

    def wait_until_ready(self) -> None:
        assert self._pipe.poll(60)
        assert self._pipe.recv() == "ready"

    def begin(self) -> None:
        self._pipe.send("go")

    def result(self) -> tuple[int, dict[str, Any]]:
        """Returns how many right answers there were, and the figures of the cache."""
        assert self._pipe.poll(60)
        right, stats = self._pipe.recv()
        self.process.join(20)
        return right, stats

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.join(20)


def _key_of(pid: int) -> str:
    return f"sk-process-{pid}-0123456789"


def _ask_all(pipe: Connection, cache: str, provider: str, threads: int, questions: int) -> None:
    """Asks all questions in each of some threads, each beginning with another one."""
    from llmkit import Client, Settings
    from llmkit.cache import get_cache

    settings = Settings(
        openai_api_key=_key_of(os.getpid()),
        openai_api_base=f"{provider}/v1",
        cache_enabled=True,
        cache_url=cache,
    )
    client = Client("gpt-6-luna", settings=settings, timeout=60)
    client.complete("warm up: connections and modules", use_cache=False)
    store = get_cache(settings)
    store.get("warm up")
    right: list[bool] = []

    def run(number: int) -> None:
        first = (number * 37 + os.getpid() * 11) % questions
        for n in range(questions):
            question = f"question {(first + n) % questions}"
            right.append(client.complete(question).text == f"answer to {question}")

    pipe.send("ready")
    pipe.recv()
    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    pipe.send((right.count(True), store.stats()))
