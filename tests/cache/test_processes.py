from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cache import asking
from tests.cache.servers import RedisServer

PROCESSES, THREADS, QUESTIONS = 4, 16, 100


@pytest.fixture
def provider() -> Iterator[asking.Provider]:
    with asking.Provider(delay=0.2) as provider:
        yield provider
        provider.shutdown()


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/cache.db"
    server: RedisServer = request.getfixturevalue("own_server")
    return server.url


def answered(process: subprocess.Popen[str]) -> int:
    """Checks that a process got all its answers; returns how often its store failed it."""
    with process:
        output, _ = process.communicate(timeout=90)
    assert process.returncode == 0
    right, stats = json.loads(output)
    assert right == THREADS * QUESTIONS
    return int(stats["errors"] + stats["skipped"])


def next_at_work(
    running: list[subprocess.Popen[str]], provider: asking.Provider
) -> subprocess.Popen[str]:
    """Waits until one of the processes is in the middle of several calls, whichever is first."""
    limit = time.monotonic() + 20
    while time.monotonic() < limit:
        for process in running:
            if provider.under_way[process.pid] >= 3:
                return process
        time.sleep(0.002)
    raise AssertionError(f"no process makes calls: {provider.under_way}")


def test_four_processes_pay_for_each_question_once(url: str, provider: asking.Provider) -> None:
    """4 processes of 16 threads that ask the same 100 questions at once make 100 calls."""
    provider.delay = 0.1
    running = [asking.start(url, provider, THREADS, QUESTIONS) for _ in range(PROCESSES)]
    for process in running:
        asking.begin(process)
    failures = sum(answered(process) for process in running)
    assert set(provider.asked) == {f"q{n}" for n in range(QUESTIONS)}
    # On a machine so busy that the store was taken to be out of order, calls go on without it.
    assert QUESTIONS <= provider.asked.total() <= QUESTIONS + failures


def test_a_killed_process_costs_no_more_than_its_own_calls(
    url: str, provider: asking.Provider
) -> None:
    """After a SIGKILL in mid-call, only what the killed had asked for itself is asked again."""
    running = [asking.start(url, provider, THREADS, QUESTIONS) for _ in range(PROCESSES)]
    for process in running:
        asking.begin(process)
    for _ in range(2):
        victim = next_at_work(running, provider)
        running.remove(victim)
        with victim:
            victim.kill()
            victim.communicate(timeout=20)
    failures = sum(answered(process) for process in running)
    assert set(provider.asked) == {f"q{n}" for n in range(QUESTIONS)}
    assert provider.lost
    again = sum(
        max(0, times - 1 - provider.lost[question]) for question, times in provider.asked.items()
    )
    assert again <= failures
