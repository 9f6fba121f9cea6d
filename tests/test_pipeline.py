from __future__ import annotations

import contextvars
import itertools
import math
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmkit import (
    BaseLLMAdapter,
    CallRecord,
    Chunk,
    Client,
    ConfigurationError,
    ErrorCode,
    InvalidRequestError,
    LLMError,
    LLMTimeoutError,
    RateLimitError,
    Scope,
    Settings,
    StreamInterruptedError,
    deadline,
    get_adapter,
    shutdown,
)
from llmkit.connection_pool import cleanup_connection_pools, get_connection_pool, health_check
from llmkit.errors import CancelledError
from llmkit.request import Request
from llmkit.scope import current_scope
from llmkit.testing import Answer, ProviderServer

ROOT = Path(__file__).parent.parent
KEY = "sk-test-0123456789"


@pytest.mark.parametrize("model", ["gpt-6-luna", "claude-haiku-5-5", "gemini-3.8-flash"])
def test_the_deadline_holds_while_an_sdk_is_loaded(model: str) -> None:
    """A first call's time-out counts the seconds that importing the vendor's SDK takes."""
    program = (
        "import time\n"
        "from llmkit import get_adapter, LLMTimeoutError\n"
        f"adapter = get_adapter({model!r}, api_key={KEY!r}, api_base='http://127.0.0.1:9')\n"
        "began = time.perf_counter()\n"
        "try:\n"
        "    adapter.generate('hi', timeout=0.05)\n"
        "except LLMTimeoutError as error:\n"
        "    print(time.perf_counter() - began, error.attempts)\n"
    )
    best = 9.9
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        taken, _, attempts = done.stdout.partition(" ")
        assert attempts.strip() == "()"  # nothing was sent
        best = min(best, float(taken))
        if best < 0.15:
            break
    assert best < 0.3


def test_observers_run_outside_the_dead_scope(server: ProviderServer) -> None:
    """An observer may use the network after a time-out, and its failure never hides the error."""
    statuses: list[int] = []

    def observer(record: CallRecord) -> None:
        statuses.append(get_connection_pool("openai").get(f"{server.url}/v1/models").status_code)

    settings = Settings(openai_api_key=KEY, openai_api_base=server.base_url("openai"))
    client = Client("openai:gpt-6-luna", settings=settings, observers=[observer])
    client.complete("hi")  # loads the SDK
    server.script(Answer(delay=30))
    with pytest.raises(LLMTimeoutError):
        client.complete("hi", timeout=0.5)

    assert statuses == [200, 200]


def test_a_missing_key_is_recorded_without_an_attempt() -> None:
    """Observers hear of every well-asked call, and attempts are requests that were sent."""
    records: list[CallRecord] = []
    with pytest.raises(ConfigurationError) as caught:
        Client("openai:gpt-6-luna", observers=[records.append]).complete("hi")

    assert caught.value.attempts == ()
    assert [record.code for record in records] == [ErrorCode.CONFIGURATION_ERROR]


def test_a_cancelled_pause_keeps_its_cause(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever cancels a call that waits for its next try still sees why it had failed."""
    pausing, sleep = threading.Event(), Scope.sleep

    def sleep_noted(scope: Scope, seconds: float) -> None:
        pausing.set()
        sleep(scope, seconds)

    monkeypatch.setattr(Scope, "sleep", sleep_noted)
    server.answer = Answer(status=429, headers={"retry-after": "30"})
    adapter = get_adapter("gpt-6-luna", api_key=KEY, api_base=server.base_url("openai"))
    with Scope(60).entered() as scope:

        def cancel_in_the_pause() -> None:
            pausing.wait(10)
            scope.cancel()

        threading.Thread(target=cancel_in_the_pause).start()
        with pytest.raises(CancelledError) as caught:
            adapter.generate("hi")

    assert [attempt.code for attempt in caught.value.attempts] == [ErrorCode.LLM_RATE_LIMIT]
    assert isinstance(caught.value.__cause__, RateLimitError)


def test_the_attempt_of_a_stream_says_how_it_ended(server: ProviderServer) -> None:
    """A stream's request has its id, and its Attempt a code when it broke."""
    adapter = get_adapter("gpt-6-luna", api_key=KEY, api_base=server.base_url("openai"))
    with adapter.stream("hi") as stream:
        assert "".join(stream.text_stream)
    assert stream.completion.attempts[0].request_id == "req_fake"

    server.answer = Answer("a b c", end_mark=False)
    stream = adapter.stream("hi")
    with pytest.raises(StreamInterruptedError) as caught:
        list(stream)
    assert caught.value.attempts[0].code is ErrorCode.LLM_STREAM_INTERRUPTED


def test_the_sdk_sends_through_the_providers_own_pool(server: ProviderServer) -> None:
    """One provider has one pool: the one that a user gets, and that the warm-up has opened."""
    cleanup_connection_pools()
    settings = Settings(openai_api_key=KEY, openai_api_base=server.base_url("openai"))
    get_connection_pool("openai")
    Client("openai:gpt-6-luna", settings=settings).complete("hi")

    assert list(health_check()) == ["openai"]
    assert health_check()["openai"]["connections"] == 1


def test_a_client_sees_settings_that_were_read_again(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`reload_settings` reaches a Client that has been used already."""
    import llmkit.settings

    monkeypatch.setenv("OPENAI_API_BASE", server.base_url("openai"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-old-0123456789")
    client = Client("openai:gpt-6-luna")
    client.complete("hi")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-new-0123456789")
    llmkit.settings.reload_settings()
    client.complete("hi")

    keys = [request.headers["authorization"] for request in server.requests]
    assert keys == ["Bearer sk-old-0123456789", "Bearer sk-new-0123456789"]


class _Simple(BaseLLMAdapter):
    """A user's own adapter, whose stream ends in whatever it is given."""

    end: Any = None

    def _generate_text(self, request: Request) -> Mapping[str, Any]:
        return {"text": "plain"}

    def _stream_text(self, request: Request) -> Any:
        yield Chunk("a")
        return self.end


def test_an_own_stream_may_end_in_a_mapping_and_in_nothing_less() -> None:
    """A user's own adapter may return the documented mapping; nothing at all is a clear error."""
    adapter = _Simple("mine", "own")
    adapter.end = {"text": "a"}
    stream = adapter.stream("hi")
    assert [chunk.text for chunk in stream] == ["a"]
    assert stream.completion.text == "a"

    adapter.end = None
    with pytest.raises(Exception, match="expected a Completion or a mapping"):
        list(adapter.stream("hi"))


def test_deadlines_in_interleaved_generators_do_not_outlive_them(server: ProviderServer) -> None:
    """A deadline that ended inside a generator never comes back for the thread's later calls."""
    adapter = get_adapter("gpt-6-luna", api_key=KEY, api_base=server.base_url("openai"))

    def streaming(seconds: float) -> Iterator[str]:
        with deadline(seconds):
            yield from adapter.stream("hi").text_stream

    one, other = streaming(0.5), streaming(10)
    next(one)
    next(other)
    list(one)
    list(other)

    assert current_scope() is None
    with contextvars.copy_context().run(deadline, 5):
        assert current_scope() is not None
    assert current_scope() is None


@pytest.mark.parametrize(
    "seconds",
    [
        0,
        -1,
        math.nan,
        math.inf,
        True,
        "5",
        None,
        *(pytest.param(10**n, id=str(n)) for n in (400, 5000)),
    ],
)
def test_a_deadline_is_a_positive_number(seconds: Any) -> None:
    """What can't be meant is refused in plain words, however many digits it has."""
    with pytest.raises(InvalidRequestError, match="positive number"), deadline(seconds):
        pass


def test_a_deadline_may_be_left_in_another_context() -> None:
    """Servers that run each step of a generator in a context of its own get no strange error."""

    def step() -> Generator[None, None, None]:
        with deadline(5):
            yield

    generator = step()
    contextvars.copy_context().run(next, generator)
    contextvars.copy_context().run(generator.close)
    assert current_scope() is None


def test_shutdown_ends_calls_in_other_threads(server: ProviderServer) -> None:
    """A process that wants to end is not held by a call that waits for its answer."""
    server.answer = Answer(delay=60)
    adapter = get_adapter("gpt-6-luna", api_key=KEY, api_base=server.base_url("openai"))
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(adapter.generate, "hi")
        (request,) = server.wait_for_requests(1)
        shutdown()
        assert isinstance(call.exception(timeout=10), CancelledError)
    assert request.disconnected.wait(5)


def test_one_thread_at_a_time_reads_a_stream(server: ProviderServer) -> None:
    """A second reader gets a clear error, and the first one keeps its stream."""
    server.answer = Answer(chunks=("a", "b"), chunk_delay=0.15)
    adapter = get_adapter("gpt-6-luna", api_key=KEY, api_base=server.base_url("openai"))
    stream = adapter.stream("hi")
    assert next(stream).text == "a"
    with ThreadPoolExecutor(1) as pool:
        rest = pool.submit(list, stream)
        while not stream._reading:
            time.sleep(0.001)
        with pytest.raises(InvalidRequestError, match="another thread"):
            next(stream)
        assert [chunk.text for chunk in rest.result()] == ["b"]


def test_threads_may_name_new_models_all_the_time() -> None:
    """A Client that gets to know a model meanwhile breaks no other thread's call."""
    client = Client()
    known = client._asking._adapters
    stranger = get_adapter("gpt-6-luna", api_key=KEY)
    known.update({f"model {n}": get_adapter("gpt-6-luna", api_key=KEY) for n in range(200)})
    is_over = threading.Event()

    def name_models() -> None:
        for n in itertools.count():
            known[f"new {n % 50}"] = stranger
            known.pop(f"new {(n + 25) % 50}", None)
            if is_over.is_set():
                return

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    naming = threading.Thread(target=name_models)
    naming.start()
    try:
        for _ in range(500):
            client._asking._made(client._asking._adapters["model 199"])
    finally:
        is_over.set()
        naming.join()
        sys.setswitchinterval(before)


@pytest.mark.parametrize(
    "model", ["gemini:../../v1/files", "gemini:a?key=b", "gemini:a#b", "openai:a b"]
)
def test_a_models_name_never_reaches_into_the_url(model: str) -> None:
    """What could change the address that is asked is not a model's name."""
    with pytest.raises(InvalidRequestError):
        get_adapter(model, api_key=KEY)


@pytest.mark.parametrize(
    ("model", "vendor"),
    [("gpt-6-luna", "openai"), ("claude-haiku-5-5", "anthropic"), ("gemini-3.8-flash", "gemini")],
)
def test_reports_with_local_variables_show_no_key(
    server: ProviderServer, model: str, vendor: Any
) -> None:
    """A tool that prints the variables of a traceback's frames finds no key in them."""
    key = "sk-secret-0123456789"
    server.answer = Answer(status=401)
    adapter = get_adapter(model, api_key=key, api_base=server.base_url(vendor))
    with pytest.raises(LLMError) as caught:
        adapter.generate("hi")
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [line for line in report.format() if "test_pipeline" not in line]

    assert key not in "".join(frames).replace(f"key = '{key}'", "")
    assert key.encode() not in pickle.dumps(adapter)


@pytest.fixture(autouse=True)
def closed_pools() -> Iterator[None]:
    yield
    cleanup_connection_pools()


@pytest.mark.parametrize(
    "model", ["anthropic/claude-haiku-5-5:free", "openai/gpt-6-luna", "qwen/qwen-3:free"]
)
def test_a_routers_names_are_taken_as_they_are(model: str) -> None:
    """A router's model name may begin with another provider's and end in a variant."""
    assert get_adapter(model, provider="openrouter").model == model
