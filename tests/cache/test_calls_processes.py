"""Processes whose Clients ask the same questions at once."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmkit.testing import Answer, ProviderServer
from llmkit.testing.recorded_request import RecordedRequest
from tests.cache.asking_client import Asker
from tests.cache.client_calls import file_at
from tests.cache.servers import RedisServer, until

PROCESSES, THREADS, QUESTIONS, DELAY = 4, 16, 100, 0.2

# Seconds in which an answer gets from the provider into the cache, on a busy machine.
ON_ITS_WAY = 0.6


@pytest.fixture(params=["sqlite", "redis"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return file_at(tmp_path / "cache.db")
    server: RedisServer = request.getfixturevalue("own_server")
    return server.url


@pytest.fixture
def askers(server: ProviderServer, cache: str) -> Iterator[list[Asker]]:
    """Processes that are ready, and wait to be told to begin."""
    askers = [Asker(cache, server.url, THREADS, QUESTIONS) for _ in range(PROCESSES)]
    for asker in askers:
        asker.wait_until_ready()
    server.reset()
    server.answer = lambda request: Answer(f"answer to {question_of(request)}", delay=DELAY)
    yield askers
    for asker in askers:
        asker.kill()


def question_of(request: RecordedRequest) -> str:
    return str(request.json["messages"][-1]["content"])


def failures_of(asker: Asker) -> int:
    """Checks that a process got all its answers; returns how often its store failed it."""
    right, stats = asker.result()
    assert right == THREADS * QUESTIONS
    return int(stats["errors"] + stats["skipped"])


def test_each_question_is_paid_for_once(server: ProviderServer, askers: list[Asker]) -> None:
    """4 processes of 16 threads that ask the same 100 questions at once send 100 requests."""
    server.answer = lambda request: Answer(f"answer to {question_of(request)}", delay=0.1)
    for asker in askers:
        asker.begin()
    failures = sum(map(failures_of, askers))
    asked = Counter(map(question_of, server.requests))
    assert len(asked) == QUESTIONS
    # On a machine so busy that the store was taken to be out of order, calls go on without it.
    assert QUESTIONS <= asked.total() <= QUESTIONS + failures


def test_killed_leaders_cost_no_more_than_their_own_calls(
    server: ProviderServer, askers: list[Asker]
) -> None:
    """After a SIGKILL in mid-call, only what the killed had under way is asked again."""
    for asker in askers:
        asker.begin()
    killed: list[tuple[Asker, float]] = []
    running = list(askers)
    for _ in range(2):
        asker = next_at_work(server, running)
        running.remove(asker)
        asker.kill()
        killed.append((asker, time.monotonic() - DELAY - ON_ITS_WAY))
    failures = sum(map(failures_of, running))
    # Only now: what was sent just before a kill may have arrived after it.
    lost = {
        each.number
        for asker, since in killed
        for each in sent_by(server, asker)
        if each.received_at > since
    }
    asked = Counter(map(question_of, server.requests))
    assert len(asked) == QUESTIONS
    assert lost
    others = Counter(question_of(each) for each in server.requests if each.number not in lost)
    assert sum(times - 1 for times in others.values()) <= failures
    assert asked.total() <= QUESTIONS + len(lost) + failures


def next_at_work(server: ProviderServer, askers: list[Asker]) -> Asker:
    """Waits until one of them is in the middle of several calls, whichever is first."""
    found: list[Asker] = []

    def look() -> list[Asker]:
        found.extend(asker for asker in askers if under_way(server, asker) >= 3)
        return found

    until(look)
    return found[0]


def sent_by(server: ProviderServer, asker: Asker) -> list[RecordedRequest]:
    name = asker.authorization
    return [each for each in server.requests if each.headers["authorization"] == name]


def under_way(server: ProviderServer, asker: Asker) -> int:
    return sum(not each.finished.is_set() for each in sent_by(server, asker))
