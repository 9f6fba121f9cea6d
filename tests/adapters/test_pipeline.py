"""What happens around the vendor's step: stand-ins, own adapters, honesty about parameters."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llmkit import (
    BaseLLMAdapter,
    CallRecord,
    Completion,
    InvalidRequestError,
    LLMError,
    ProviderError,
    RateLimitError,
    get_performance_tracker,
)
from llmkit.adapters import sdk_clients
from llmkit.performance import LLMPerformanceTracker
from llmkit.request import Request
from llmkit.testing import Answer, ProviderServer
from tests.adapters.vendor_cases import ANTHROPIC, CASES, GEMINI, OPENAI, Case, fresh_key
from tests.interruption import Interruption


class Parrot(BaseLLMAdapter):
    """A user's own adapter: it repeats what it hears."""

    def __init__(self, answer: Callable[[Request], Any], **arguments: Any) -> None:
        super().__init__("parrot-1", "zoo", **arguments)
        self._answer = answer

    def _generate_text(self, request: Request) -> Any:
        return self._answer(request)


def echo(request: Request) -> dict[str, Any]:
    return {"text": request.messages[-1].text}


def test_an_own_adapter_needs_one_method() -> None:
    """A subclass that returns a mapping can be asked, streamed, timed, and is told to observers."""
    records: list[CallRecord] = []
    parrot = Parrot(echo)
    parrot.observers = (records.append,)
    reply = parrot.generate("hello", max_tokens=5)
    assert (reply.text, reply.model, reply.provider) == ("hello", "parrot-1", "zoo")
    assert reply["choices"][0]["text"] == "hello"
    stream = parrot.stream("hello again")
    assert list(stream.text_stream) == ["hello again"]
    assert stream.completion.text == "hello again"
    assert [record.ok for record in records] == [True, True]
    assert parrot.health_check()["status"] == "healthy"


@pytest.mark.parametrize(
    "answer",
    [
        {"text": "good"},
        {"choices": [{"text": "good"}]},
        {"choices": [{"message": {"content": "good"}}], "usage": {"prompt_tokens": 3}},
        Completion("good", "m", "p"),
    ],
    ids=["text", "choices", "messages", "completion"],
)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.provider)
def test_a_stand_in_may_answer(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch, case: Case, answer: Any
) -> None:
    """`_generate_text` is looked up at each call, so that tests can replace it."""
    adapter = case.adapter(server)
    monkeypatch.setattr(adapter, "_generate_text", lambda request: answer)
    assert adapter.generate("hi").text == "good"
    assert server.requests == []


@pytest.mark.parametrize("answer", [None, "text", 5, ["text"], {}, {"text": 5}, {"choices": []}])
def test_a_stand_in_that_gives_something_else_is_named(answer: Any) -> None:
    """What is no answer is a ProviderError that says what it was, plain or streamed."""
    parrot = Parrot(lambda request: answer, max_retries=0)
    for call in (parrot.generate, parrot.stream):
        with pytest.raises(ProviderError) as caught:
            call("hi")
        assert (caught.value.provider, caught.value.model) == ("zoo", "parrot-1")


def test_an_answer_given_twice_is_two_answers() -> None:
    """A stand-in that always returns one object does not make the calls share their figures."""
    same = Completion("good", "parrot-1", "zoo", warnings=("mind the step",))
    parrot = Parrot(lambda request: same)
    first, second = parrot.generate("hi"), parrot.generate("hi")
    assert first is not second
    assert first.warnings == second.warnings
    assert first.warnings.count("mind the step") == 1
    assert same.attempts == ()


def test_a_raising_stand_in_is_retried_by_its_code(pauses: list[float]) -> None:
    """Retryable errors of an own adapter are tried again, and each try is an attempt."""
    outcomes = iter([RateLimitError("slow", retry_after=2.5), ConnectionError("gone"), "x"])

    def answer(request: Request) -> dict[str, Any]:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return {"text": outcome}

    reply = Parrot(answer).generate("hi")
    assert [attempt.code for attempt in reply.attempts] == [
        "LLM_RATE_LIMIT",
        "LLM_CONNECTION_ERROR",
        None,
    ]
    assert pauses == [2.5, 1.0]


@pytest.mark.parametrize(
    ("bug", "code"),
    [
        (ZeroDivisionError("oops"), "LLM_PROVIDER_ERROR"),
        (TimeoutError("late"), "LLM_TIMEOUT"),
        (KeyboardInterrupt(), "LLM_CANCELLED"),
    ],
    ids=["bug", "timeout", "interrupt"],
)
def test_a_bug_is_passed_on_and_recorded(bug: BaseException, code: str) -> None:
    """An exception that is not llmkit's stays what it is, and counts as one failed call."""
    records: list[CallRecord] = []

    def fail(request: Request) -> None:
        raise bug

    parrot = Parrot(fail, max_retries=0)
    parrot.observers = (records.append,)
    for call in (parrot.generate, parrot.stream):
        with pytest.raises(type(bug)) as caught:
            call("hi")
        assert caught.value is bug
    assert [record.code for record in records] == [code, code]
    assert [record.attempts[0].code for record in records] == [code, code]


def test_a_broken_observer_breaks_nothing(server: ProviderServer) -> None:
    """An observer that raises does not turn an answer into an error, nor hide it from others."""
    records: list[CallRecord] = []

    def broken(record: CallRecord) -> None:
        raise ValueError("observer")

    adapter = OPENAI.adapter(server)
    adapter.observers = (broken, records.append)
    assert str(adapter.generate("hi"))
    assert len(records) == 1
    tracker = get_performance_tracker()
    assert isinstance(tracker, LLMPerformanceTracker)
    assert tracker.get_stats("gpt-4o")["requests"] == 1


@pytest.mark.parametrize(
    ("case", "model", "given", "left_out"),
    [
        (OPENAI, "gpt-6-luna", {"temperature": 0.5, "top_p": 0.5}, ("temperature", "top_p")),
        (OPENAI, "o4-mini", {"temperature": 0.5, "stop": ["x"]}, ("temperature", "stop")),
        (OPENAI, "gpt-5", {"reasoning_effort": "xhigh"}, ("xhigh", "minimal, low, medium, high")),
        (ANTHROPIC, "claude-opus-5-5", {"temperature": 0.5, "top_p": 0.5}, ("temperature",)),
        (ANTHROPIC, "claude-haiku-4-5", {"seed": 7}, ("seed",)),
        (ANTHROPIC, "claude-haiku-4-5", {"reasoning_effort": "low"}, ("it takes none",)),
        (ANTHROPIC, "brand-new-9", {"seed": 7}, ("seed",)),
        (GEMINI, "gemini-3.8-flash", {"temperature": 0.5}, ("temperature",)),
    ],
)
def test_what_a_model_refuses_is_left_out_and_said(
    server: ProviderServer, case: Case, model: str, given: dict[str, Any], left_out: tuple[str, ...]
) -> None:
    """A refused parameter is not sent and stands in the warnings, or is an error, or is dropped."""
    adapter = case.adapter(server, model=model)
    reply = adapter.generate("hi", **given)
    body = server.requests[0].json
    assert not {*given, "top_p", "output_config"} & {*body, *body.get("generationConfig", {})}
    assert all(any(word in note for note in reply.warnings) for word in left_out)
    silent = adapter.generate("hi", on_unsupported="drop", **given)
    assert not any(word in note for note in silent.warnings for word in left_out)
    for call in (adapter.generate, adapter.stream):
        with pytest.raises(InvalidRequestError) as caught:
            call("hi", on_unsupported="error", **given)
        assert all(word in str(caught.value) for word in left_out)
    assert len(server.requests) == 2


def test_what_a_model_takes_is_sent(server: ProviderServer) -> None:
    """Parameters that the registry has nothing against reach the wire, without a warning."""
    reply = OPENAI.adapter(server, model="gpt-5").generate("hi", reasoning_effort="minimal", seed=7)
    body = server.requests[0].json
    assert (body["reasoning_effort"], body["seed"]) == ("minimal", 7)
    assert [note for note in reply.warnings if "shut down" not in note] == []


def test_reasoning_models_get_the_newer_name(server: ProviderServer) -> None:
    """`max_tokens` is refused by OpenAI's reasoning models under that name, so it has another."""
    OPENAI.adapter(server, model="o3").generate("hi", max_tokens=50)
    body = server.requests[0].json
    assert body["max_completion_tokens"] == 50
    assert "max_tokens" not in body


def test_anthropic_is_told_the_models_own_longest_answer(server: ProviderServer) -> None:
    """Anthropic insists on a length: not given, it is the registry's maximum for the model."""
    ANTHROPIC.adapter(server).generate("hi")
    ANTHROPIC.adapter(server, model="brand-new-9").generate("hi")
    lengths = [request.json["max_tokens"] for request in server.requests]
    assert lengths == [64000, 8192]


def test_metadata_is_never_sent(server: ProviderServer) -> None:
    """A caller's own notes stay here."""
    OPENAI.adapter(server).generate("hi", metadata={"secret": "note"})
    assert b"note" not in server.requests[0].body


def test_many_threads_build_one_client(
    server: ProviderServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that begin at once share one SDK client instead of building one each."""
    import openai

    built: list[object] = []
    original = openai.OpenAI

    def build(**arguments: Any) -> openai.OpenAI:
        client = original(**arguments)
        built.append(client)
        return client

    monkeypatch.setattr(openai, "OpenAI", build)
    adapter = OPENAI.adapter(server, api_key=fresh_key())
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda _: adapter.generate("hi"), range(32)))
    assert len(built) == 1


def test_rotating_keys_do_not_pile_up(server: ProviderServer) -> None:
    """Only so many SDK clients are kept; giving one up disturbs no shared connection."""
    for _ in range(3):
        GEMINI.adapter(server, api_key=fresh_key).generate("hi")
    for _ in range(sdk_clients.MAX_CLIENTS + 5):
        OPENAI.adapter(server, api_key=fresh_key).generate("hi")
    assert str(GEMINI.adapter(server).generate("hi"))
    clients = sdk_clients._clients.get()
    assert len(clients._clients) <= sdk_clients.MAX_CLIENTS


def test_a_client_in_use_outlives_rotating_keys(server: ProviderServer) -> None:
    """The clients that go are those that were not used for longest, not those built first."""
    lasting, passing = fresh_key(), fresh_key()
    clients = sdk_clients._clients.get()
    OPENAI.adapter(server, api_key=lasting).generate("hi")
    OPENAI.adapter(server, api_key=passing).generate("hi")
    (built,) = (known for address, known in clients._clients.items() if address[2] == lasting)
    for _ in range(sdk_clients.MAX_CLIENTS):
        OPENAI.adapter(server, api_key=fresh_key).generate("hi")
        OPENAI.adapter(server, api_key=lasting).generate("hi")
    kept = {address[2]: known for address, known in clients._clients.items()}
    assert kept[lasting] is built
    assert passing not in kept


def test_a_key_is_hidden_after_its_client_went(server: ProviderServer) -> None:
    """A key whose client was given up is still taken out of texts; only so many are kept."""
    key = fresh_key()
    OPENAI.adapter(server, api_key=key).generate("hi")
    for _ in range(sdk_clients.MAX_CLIENTS):
        OPENAI.adapter(server, api_key=fresh_key).generate("hi")
    clients = sdk_clients._clients.get()
    assert key not in [each for _, _, each in clients._clients]
    assert sdk_clients.without_keys(f"the key {key} was refused") == "the key *** was refused"
    fresh = sdk_clients._SdkClients()
    for _ in range(sdk_clients.MAX_KEYS + 5):
        fresh.get((object, "url", fresh_key()), None, object)
    assert len(fresh.keys()) == sdk_clients.MAX_KEYS


def test_errors_name_the_call(server: ProviderServer) -> None:
    """An error carries who was asked, the vendor's id of the request, and the HTTP status."""
    server.answer = Answer(status=400, request_id="req_9")
    for case in (OPENAI, ANTHROPIC):
        with pytest.raises(LLMError) as caught:
            case.adapter(server).generate("hi")
        error = caught.value
        assert (error.request_id, error.status) == ("req_9", 400)
        assert error.attempts[0].request_id == "req_9"
        assert f"{case.provider}:{case.model}" in str(error)


def test_ctrl_c_holds_up_no_later_use_of_a_client() -> None:
    """Wherever it ends the building of an SDK's client, the next call builds it without a wait."""
    address = (object, "http://x", "a key")
    for point in itertools.count(1):
        clients = sdk_clients._SdkClients()
        interruption = Interruption(point, ("/llmkit/adapters/sdk_clients.py",))
        with contextlib.suppress(KeyboardInterrupt), interruption.armed():
            clients.get(address, 1, list)
        assert not clients._building, point
        assert clients.get(address, 1, list) == []
        if not interruption.has_come:
            assert point > 5
            return


def test_a_client_that_is_never_finished_is_built_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A signal handler doesn't wait for the thread that it has interrupted."""
    monkeypatch.setattr(sdk_clients, "PATIENCE", 0.01)
    clients = sdk_clients._SdkClients()
    address = (object, "http://x", "a key")
    assert clients.get(address, 1, lambda: clients.get(address, 1, lambda: "handled")) == "handled"
    assert not clients._building


def test_an_endless_error_is_cut_before_keys_are_looked_for(server: ProviderServer) -> None:
    """Megabytes of an error hold no call up beyond its deadline, and no half of a key is shown."""
    key = fresh_key()
    OPENAI.adapter(server, api_key=key).generate("hi")
    shown = sdk_clients.without_keys("a" * (sdk_clients.LONGEST_TEXT - 9) + key + "b" * 10**7)
    assert key[:4] not in shown
    assert set(shown) == {"a", "…"}
    assert sdk_clients.without_keys(f"{'a' * 1000} {key}") == f"{'a' * 1000} ***"
