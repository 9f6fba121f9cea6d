"""How a library is measured in its process: the orders, the server, the drivers' shape."""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.bench import DRIVERS
from benchmarks.environments import ROOT, Environments, OrderFailed, Worker, driver_of
from benchmarks.fast_server import CHUNKS, build, fast_server, measure_floor
from benchmarks.peers import Calls, Messages
from benchmarks.session import Session, obey

FAKE = """
import os, time
from benchmarks.peers import Calls

def connect(url, timeout=None):
    print("a library that talks")
    def complete(messages):
        if url == "dies":
            os._exit(3)
        if url == "fails":
            raise ValueError("no such model")
        time.sleep(0.001)
        return messages[-1]["content"]
    return Calls(complete)
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with fast_server() as address:
        yield address


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A process whose library is the fake one."""
    (tmp_path / "fake_driver.py").write_text(FAKE)
    variables = {"PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    with Worker(sys.executable, "fake_driver", variables, tmp_path) as process:
        yield process


def session_of(calls: Calls) -> Session:
    session = Session(ModuleType("fake"))
    session.calls = calls
    return session


# --- the protocol ---------------------------------------------------------------------------------


def test_a_worker_measures_what_it_is_told_to(worker: Worker) -> None:
    """Orders and answers go line by line, whatever a library prints in between."""
    assert worker.order("connect", url="") == {}
    measured = worker.order("complete", count=10, messages=3)
    assert set(measured) == {"cpu", "wall"}
    assert measured["wall"] >= 0.001
    at_once = worker.order("threads", threads=4, seconds=0.1)
    assert at_once["rate"] > 0
    assert at_once["failed"] == 0
    assert worker.order("memory", warm=1, count=0)["before"] > 1e6


def test_what_goes_wrong_is_said_and_the_worker_goes_on(worker: Worker) -> None:
    """One figure that a library doesn't have must not cost the others."""
    with pytest.raises(OrderFailed, match="connect first"):
        worker.order("complete")
    worker.order("connect", url="fails")
    with pytest.raises(OrderFailed, match="ValueError: no such model"):
        worker.order("complete")
    assert worker.order("ended")["how"] == "ValueError"
    with pytest.raises(OrderFailed, match="no synchronous stream"):
        worker.order("stream", chunks=1)
    with pytest.raises(OrderFailed, match="no such order: resident"):
        worker.order("resident")


def test_a_library_that_ends_its_process_is_noticed(worker: Worker) -> None:
    """The runner doesn't wait for who has gone, now or at its next order."""
    worker.order("connect", url="dies")
    for _ in range(2):
        with pytest.raises(OrderFailed, match="the process ended"):
            worker.order("complete")


def test_no_two_chats_are_equal() -> None:
    """A cache that is on by default must not answer what is meant to be a call."""
    seen: list[Messages] = []

    def complete(messages: Messages) -> str:
        seen.append(messages)
        return "answer"

    obey(session_of(Calls(complete)), {"do": "complete", "count": 3, "messages": 4})
    assert [len(chat) for chat in seen] == [4, 4, 4]
    assert len({str(chat) for chat in seen}) == 3
    roles = [message["role"] for message in seen[0]]
    assert roles == ["assistant", "user", "assistant", "user"]


def test_answers_that_do_not_come_from_the_cache_are_no_hits() -> None:
    """A cache that is silently off is not measured as one."""

    def late(_: Messages) -> str:
        time.sleep(0.05)
        return "answer"

    answer = obey(session_of(Calls(late)), {"do": "hits", "count": 1, "prompt": "Hi"})
    assert "do not come from the cache" in answer["error"]
    answer = obey(session_of(Calls(lambda _: "answer")), {"do": "hits", "count": 5, "prompt": "Hi"})
    assert answer["ok"]["wall"] < 0.05


@pytest.mark.parametrize("text", ["", "one two"])
def test_an_answer_that_is_not_whole_is_not_measured(text: str) -> None:
    """A library that loses chunks, or answers nothing, is not the faster for it."""
    calls = Calls(lambda _: text, lambda _: [text])
    assert "expected 3 words" in obey(session_of(calls), {"do": "stream", "chunks": 3})["error"]
    assert ("error" in obey(session_of(calls), {"do": "complete"})) == (not text)


# --- the server -----------------------------------------------------------------------------------


def test_the_fast_server_answers_llmkit(url: str) -> None:
    """Its canned answers are whole, plain and streamed."""
    session = Session(driver_of("llmkit"))
    session.connect(url=url)
    assert session.complete(count=2)["wall"] > 0
    assert session.stream(chunks=CHUNKS)["cpu"] > 0


@pytest.mark.parametrize(
    ("target", "streams", "piece"),
    [
        ("/v1/chat/completions", True, b'"content":"word'),
        ("/v1/messages", True, b'"text":"word'),
        ("/v1/models/gemini:streamGenerateContent?alt=sse", False, b'data: {"candidates"'),
    ],
)
def test_a_stream_has_every_piece(target: str, streams: bool, piece: bytes) -> None:
    """CPU is divided by as many chunks as each vendor's stream really has."""
    assert CHUNKS <= build(target, streams).data.count(piece) <= CHUNKS + 2


def test_a_path_says_how_late_it_is_answered(url: str) -> None:
    """Threads, caches and races are measured against a server that takes its time."""
    session = Session(driver_of("llmkit"))
    session.connect(url=f"{url}/delay-50", cache="off")
    session.complete()
    assert session.complete(count=2)["wall"] >= 0.05
    assert build("/delay-1500/v1/chat/completions", False).delay == 1.5


def test_the_floor_is_far_below_a_call(url: str) -> None:
    """The server's own cost is known, and there is some."""
    floor = measure_floor(url, calls=100, connections=4)
    assert 0 < floor.round_trip < 0.05
    assert floor.calls_per_second > 100


# --- the drivers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRIVERS)
def test_every_driver_has_the_one_shape(name: str) -> None:
    """The runner can read a driver without its library, and call each of them alike."""
    driver = driver_of(name)
    assert "==" in driver.PACKAGES[0]
    assert "import " in driver.IMPORT
    parameters = list(inspect.signature(driver.connect).parameters)
    assert parameters[:2] == ["url", "timeout"]
    assert ("cache" in parameters) == hasattr(driver, "CACHES")


def test_an_environment_that_is_there_is_not_built_again(tmp_path: Path) -> None:
    """A second run needs no network; keys and proxies of the user's shell don't reach a library."""
    environments = Environments(tmp_path)
    (tmp_path / "openai").mkdir()
    (tmp_path / "openai" / "packages.json").write_text('["openai==3.54.0"]')
    environments.build("openai")
    assert [each.name for each in (tmp_path / "openai").iterdir()] == ["packages.json"]
    variables = environments.variables("litellm")
    assert {"PYTHONPATH", "HOME", "LITELLM_LOCAL_MODEL_COST_MAP"} <= set(variables)
    assert not any("KEY" in each or "proxy" in each.lower() for each in variables)
