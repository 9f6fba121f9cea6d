"""What a call costs, in function calls: a regression fails here without a clock.

A function call is one of a function of llmkit, or of a builtin by one. The ceilings are a few per
cent above what was measured; who gets below one by more than that lowers it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import llmkit
from llmkit import Client
from llmkit.cache import MemoryCache, RedisCache, SQLiteCache
from llmkit.testing import Answer, ProviderServer
from tests.cache.client_calls import file_at, make_client
from tests.cache.servers import RedisServer

HOME = str(Path(llmkit.__file__).parent)
PROMPT = "What is known of this? " * 87
ANSWER = "A sentence of the answer. " * 158

# By the kind of cache that has the answer.
HITS = {"memory": 103, "sqlite": 192, "redis": 204}
# By the model that is asked, and whether its answer is cached in memory meanwhile.
FRESH = {
    ("gpt-6-luna", False): 490,
    ("gpt-6-luna", True): 594,
    ("claude-haiku-5-5", False): 508,
    ("gemini-3.8-flash", False): 512,
}


# By the model that is asked: for each message of a chat, and for each chunk of a streamed answer.
# Those that the SDK makes are counted, too; a chunk that comes in a packet of its own costs some 30
# more than were measured here.
MESSAGE = {"gpt-6-luna": 22, "claude-haiku-5-5": 31, "gemini-3.8-flash": 27}
CHUNK = {"gpt-6-luna": 205, "claude-haiku-5-5": 200, "gemini-3.8-flash": 290}


def calls_of(step: Callable[[], object], repeats: int = 5, within: str = HOME) -> int:
    """Counts the function calls of a step; of several runs, those of the one with the fewest."""
    counts = []
    for _ in range(repeats):
        made = 0

        def note(frame: FrameType, event: str, _: Any) -> None:
            nonlocal made
            if event in ("call", "c_call") and frame.f_code.co_filename.startswith(within):
                made += 1

        before = sys.getprofile()
        sys.setprofile(note)
        try:
            step()
        finally:
            sys.setprofile(before)
        counts.append(made)
    return min(counts)


def check(made: int, ceiling: int) -> None:
    assert made <= ceiling, f"{made} function calls, and at most {ceiling} were expected"


@pytest.mark.parametrize("level", HITS)
def test_a_hit_stays_cheap(
    server: ProviderServer, request: pytest.FixtureRequest, tmp_path: Path, level: str
) -> None:
    """A cached answer costs no more function calls than when it was last measured."""
    cache: Any
    if level == "memory":
        cache = MemoryCache()
    elif level == "sqlite":
        file_at(tmp_path / "cache.db")
        cache = SQLiteCache(tmp_path / "cache.db")
    else:
        redis_server = RedisServer(tmp_path)
        request.addfinalizer(redis_server.kill)
        cache = RedisCache(redis_server.url)
    server.answer = Answer(ANSWER)
    client = make_client(server, cache=cache)
    client.complete(PROMPT)
    assert client.complete(PROMPT).cached == level
    check(calls_of(lambda: client.complete(PROMPT)), HITS[level])
    assert len(server.requests) == 1


@pytest.mark.parametrize(("model", "cached"), FRESH)
def test_a_fresh_call_stays_cheap(server: ProviderServer, model: str, cached: bool) -> None:
    """A call that is sent costs no more function calls of llmkit's own than when last measured."""
    client = make_client(server, model=model, cache=cached)
    numbers = iter(range(100))

    def ask(client: Client = client) -> None:
        client.complete(f"Question {next(numbers)}")

    for _ in range(3):
        ask()
    check(calls_of(ask), FRESH[model, cached])


@pytest.mark.parametrize("model", MESSAGE)
def test_a_long_chat_stays_cheap(server: ProviderServer, model: str) -> None:
    """A message costs few function calls: an SDK's typed method walks its type hints for each."""
    client = make_client(server, model=model, cache=False)

    def ask(messages: int) -> None:
        client.complete([{"role": "user", "content": "What is known of this?"}] * messages)

    ask(1)
    short, long = (calls_of(functools.partial(ask, many), within="") for many in (1, 101))
    check((long - short) // 100, MESSAGE[model])


@pytest.mark.parametrize("model", CHUNK)
def test_a_streamed_chunk_stays_cheap(server: ProviderServer, model: str) -> None:
    """A chunk costs few function calls."""
    client = make_client(server, model=model, cache=False)

    def read(words: int) -> int:
        server.answer = Answer(" ".join(["word"] * words))
        return sum(1 for _ in client.stream("What is known of this?"))

    assert (read(10), read(110)) == (10, 110)
    short, long = (calls_of(functools.partial(read, many), within="") for many in (10, 110))
    check((long - short) // 100, CHUNK[model])
