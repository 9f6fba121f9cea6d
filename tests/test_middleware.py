"""Middleware: a user's own functions around every call of a Client."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from llmkit import (
    AllModelsFailedError,
    Budget,
    BudgetExceededError,
    CallRecord,
    Client,
    Completion,
    InvalidRequestError,
    LLMError,
    LLMTimeoutError,
    Message,
    ProviderError,
    RateLimitError,
    Request,
    Stream,
    StreamInterruptedError,
    get_adapter,
)
from llmkit.cache import MemoryCache
from llmkit.scope import current_scope
from llmkit.testing import Answer, ProviderServer
from tests.deadline.calling import VENDORS, adapter

CallNext = Callable[[Request], Any]
Middleware = Callable[[Request, CallNext], Any]


@pytest.fixture
def models(server: ProviderServer) -> list[Any]:
    """One model of each vendor, asked once so that no test counts the loading of an SDK."""
    made = [adapter(vendor, server.base_url(vendor)) for vendor in VENDORS]
    for each in made:
        each.generate("warm up")
    server.reset()
    return made


def client(*middleware: Middleware, **arguments: Any) -> Client:
    return Client(middleware=middleware, max_retries=0, **arguments)


def passing(request: Request, call_next: CallNext) -> Any:
    return call_next(request)


def test_the_first_one_is_outermost(server: ProviderServer, models: list[Any]) -> None:
    """Middleware runs in the order in which it is given, and back again."""
    steps: list[str] = []

    def named(name: str) -> Middleware:
        def run(request: Request, call_next: CallNext) -> Any:
            steps.append(f"{name} in")
            reply = call_next(request)
            steps.append(f"{name} out")
            return reply

        return run

    client(named("first"), named("second")).complete("hi", model=models[0])
    assert steps == ["first in", "second in", "second out", "first out"]


def test_the_request_can_be_changed(server: ProviderServer, models: list[Any]) -> None:
    """What the middleware passes on is what is sent; it sees what was asked."""
    seen: list[Request] = []

    def polite(request: Request, call_next: CallNext) -> Any:
        seen.append(request)
        messages = (Message("system", "Be polite."), *request.messages)
        return call_next(replace(request, messages=messages, seed=5))

    client(polite).complete("hi", model=models[0], max_tokens=9, metadata={"view": "home"})
    assert (seen[0].max_tokens, seen[0].metadata) == (9, {"view": "home"})
    (sent,) = server.requests
    assert [message["content"] for message in sent.json["messages"]] == ["Be polite.", "hi"]
    assert sent.json["seed"] == 5


def test_the_model_can_not_be_changed(server: ProviderServer, models: list[Any]) -> None:
    """A middleware that would send a request to another model is told that it is too late."""

    def swap(request: Request, call_next: CallNext) -> Any:
        return call_next(replace(request, model="gpt-4o"))

    with pytest.raises(InvalidRequestError, match="can't change the model"):
        client(swap).complete("hi", model=models[0])
    assert not server.requests


def test_the_answer_can_be_changed(server: ProviderServer, models: list[Any]) -> None:
    """What the outermost middleware returns is what the caller gets."""

    def loud(request: Request, call_next: CallNext) -> Any:
        reply = call_next(request)
        return replace(reply, text=reply.text.upper())

    server.answer = Answer("quiet")
    assert client(loud).complete("hi", model=models[0]).text == "QUIET"


def test_it_may_answer_itself(server: ProviderServer, models: list[Any]) -> None:
    """An own `Completion` ends the way: nothing is sent, and what is inside is not asked."""
    inner: list[Request] = []

    def canned(request: Request, call_next: CallNext) -> Completion:
        return Completion("canned", request.model, "nobody")

    def noted(request: Request, call_next: CallNext) -> Any:
        inner.append(request)
        return call_next(request)

    asking = client(canned, noted)
    assert asking.complete("hi", model=models[0]).text == "canned"
    assert asking.race("hi", models).text == "canned"
    assert not inner
    assert not server.requests


@pytest.mark.parametrize("text", ["canned", ""])
def test_its_own_answer_to_a_stream_is_streamed(
    text: str, server: ProviderServer, models: list[Any]
) -> None:
    """`stream` gives a Stream, also when a middleware has the whole answer already."""

    def canned(request: Request, call_next: CallNext) -> Completion:
        return Completion(text, request.model, "nobody")

    asking = client(canned)
    for stream in (asking.stream("hi", model=models[0]), asking.race_stream("hi", models)):
        assert isinstance(stream, Stream)
        with stream:
            assert [chunk.text for chunk in stream] == [text] * bool(text)
        assert stream.completion.text == text
    stream = asking.stream("hi", model=models[0])
    stream.close()
    if text:
        with pytest.raises(StreamInterruptedError):
            _ = stream.completion
    assert not server.requests


@pytest.mark.parametrize("returned", [None, "text", {"text": "no"}])
def test_a_forgotten_return_is_said(
    returned: object, server: ProviderServer, models: list[Any]
) -> None:
    """A middleware that returns something else is named, in every kind of call."""

    def forgetful(request: Request, call_next: CallNext) -> Any:
        call_next(request)
        return returned

    asking = client(passing, forgetful)
    for call in (
        lambda: asking.complete("hi", model=models[0]),
        lambda: asking.stream("hi", model=models[0]),
        lambda: asking.race("hi", models),
    ):
        with pytest.raises(InvalidRequestError, match=r"forgetful returned .* return what"):
            call()


def test_a_stream_is_no_answer_to_a_plain_call(server: ProviderServer, models: list[Any]) -> None:
    """`complete` never gives a Stream, whatever a middleware does."""
    other = Client()
    opened: list[Stream] = []

    def streams(request: Request, call_next: CallNext) -> Any:
        opened.append(other.stream("hi", model=models[0]))
        return opened[0]

    with pytest.raises(InvalidRequestError, match="expected a Completion"):
        client(streams).complete("hi", model=models[0])
    opened[0].close()


def test_exceptions_come_out_as_they_are(server: ProviderServer, models: list[Any]) -> None:
    """A middleware's exception reaches the caller, and a call's error reaches the middleware."""
    seen: list[LLMError] = []

    def refuses(request: Request, call_next: CallNext) -> Any:
        raise PermissionError("not on Sundays")

    def catches(request: Request, call_next: CallNext) -> Any:
        try:
            return call_next(request)
        except LLMError as error:
            seen.append(error)
            return Completion("sorry", request.model, "nobody")

    with pytest.raises(PermissionError, match="Sundays"):
        client(passing, refuses).complete("hi", model=models[0])
    assert not server.requests
    server.answer = Answer(status=503)
    assert client(catches).complete("hi", model=models[0]).text == "sorry"
    assert isinstance(seen[0], ProviderError)
    assert len(seen[0].attempts) == 1


def test_it_may_call_again(server: ProviderServer, models: list[Any]) -> None:
    """Each `call_next` is a call of its own, with its own record; a mended request gets through."""
    records: list[CallRecord] = []

    def again(request: Request, call_next: CallNext) -> Any:
        reply = call_next(request)
        if reply.text == "no":
            reply = call_next(replace(request, messages=(Message("user", "please"),)))
        return reply

    server.script(Answer("no"), Answer("yes"))
    reply = client(again, observers=[records.append]).complete("hi", model=models[0])
    assert reply.text == "yes"
    assert len(reply.attempts) == 1
    assert len(records) == len(server.requests) == 2


def test_the_deadline_holds_over_it(server: ProviderServer, models: list[Any]) -> None:
    """The time that a middleware takes counts, and what it waits for in the Scope is ended."""
    left: list[float | None] = []

    def slow(request: Request, call_next: CallNext) -> Any:
        time.sleep(0.3)
        return call_next(request)

    def looks(request: Request, call_next: CallNext) -> Any:
        scope = current_scope()
        assert scope is not None
        left.append(scope.remaining())
        return call_next(request)

    def waits(request: Request, call_next: CallNext) -> Any:
        scope = current_scope()
        assert scope is not None
        scope.sleep(30)

    with pytest.raises(LLMTimeoutError):
        client(slow).complete("hi", model=models[0], timeout=0.2)
    assert not server.requests
    client(slow, looks).complete("hi", model=models[0], timeout=20)
    assert left[0] is not None
    assert left[0] <= 19.8
    began = time.monotonic()
    with pytest.raises(LLMTimeoutError, match="gpt-6-luna"):
        client(waits).complete("hi", model=models[0], timeout=0.2)
    assert time.monotonic() - began < 5
    assert current_scope() is None

    server.answer = Answer(delay=30)
    with pytest.raises(LLMTimeoutError):
        client(passing).complete("hi", model=models[0], timeout=0.2)


def test_streams_pass_through(server: ProviderServer, models: list[Any]) -> None:
    """A middleware sees the Stream that the caller will read, and leaves no deadline behind."""
    seen: list[Any] = []

    def noted(request: Request, call_next: CallNext) -> Any:
        seen.append(call_next(request))
        return seen[0]

    server.answer = Answer(chunks=["a", "b"], chunk_delay=0.05)
    with client(noted).stream("hi", model=models[1], timeout=20) as stream:
        assert current_scope() is None
        assert "".join(stream.text_stream) == "ab"
    assert seen == [stream]


def test_a_streams_own_time_out_survives_it(server: ProviderServer, models: list[Any]) -> None:
    """`timeout` still bounds a stream that came through middleware, from the call's beginning."""
    server.answer = Answer(chunks=["x" * 5000, "y" * 5000], stall_after=8000)
    stream = client(passing).stream("hi", model=models[0], timeout=0.5)
    began = time.monotonic()
    with pytest.raises(StreamInterruptedError):
        list(stream)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("how", ["complete", "stream", "race", "race_stream"])
def test_fallbacks_and_races_run_inside_it(
    how: str, server: ProviderServer, models: list[Any]
) -> None:
    """One call is one way through the middleware, however many models it asks."""
    passed: list[Request] = []

    def tags(request: Request, call_next: CallNext) -> Any:
        passed.append(request)
        return call_next(replace(request, max_tokens=33))

    def answer(request: Any) -> Answer:
        if request.vendor == "openai":
            return Answer(status=503)
        if how.startswith("race"):  # not before the other one is there, too
            server.wait_for_requests(2)
        return Answer("yes")

    server.answer = answer
    asking = client(tags)
    call: Callable[[], Any]
    if how.startswith("race"):
        call = functools.partial(getattr(asking, how), "hi", models[:2])
    else:
        call = functools.partial(getattr(asking, how), "hi", model=models[0], fallbacks=models[1:2])
    result = call()
    if isinstance(result, Stream):
        list(result)
        result = result.completion
    assert (result.text, result.provider) == ("yes", "anthropic")
    assert len(passed) == 1
    limits = {request.vendor: request.json for request in server.requests}
    assert limits["openai"]["max_completion_tokens"] == limits["anthropic"]["max_tokens"] == 33

    server.answer = Answer(status=503)
    with pytest.raises(AllModelsFailedError):
        call()
    assert len(passed) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda request: None, "call_next was given None"),
        (lambda request: replace(request, messages=[{"role": "user"}]), "a llmkit.Message"),
    ],
)
def test_a_request_that_can_not_be_is_said(
    change: Callable[[Request], Any], said: str, server: ProviderServer, models: list[Any]
) -> None:
    """What middleware passes on is checked: messages as in a prompt are an easy mistake."""

    def changing(request: Request, call_next: CallNext) -> Any:
        return call_next(change(request))

    server.reset()
    with pytest.raises(InvalidRequestError, match=said):
        client(changing).complete("hi", model=models[0])
    assert not server.requests


def test_messages_may_be_a_list(server: ProviderServer, models: list[Any]) -> None:
    """A middleware that puts a list of messages into the request need not know of tuples."""

    def adding(request: Request, call_next: CallNext) -> Any:
        messages: Any = [Message("system", "Be brief."), *request.messages]
        return call_next(replace(request, messages=messages))

    assert client(adding).complete("hi", model=models[0]).text
    assert [each["role"] for each in server.requests[-1].json["messages"]] == ["system", "user"]


@pytest.mark.parametrize("middleware", [passing, "passing", ["passing"], [None]])
def test_what_is_no_middleware_is_refused(middleware: Any) -> None:
    """It is said when the Client is made, not in the first call."""
    with pytest.raises(InvalidRequestError, match="functions"):
        Client(middleware=middleware)


def test_a_callable_object_without_a_name_can_be_middleware(
    server: ProviderServer, models: list[Any]
) -> None:
    """Objects with `__call__` serve, and are named in errors as well as possible."""

    class Forgetful:
        def __call__(self, request: Request, call_next: CallNext) -> Any:
            return None

    with pytest.raises(InvalidRequestError, match="Forgetful"):
        client(Forgetful()).complete("hi", model=models[0])


def test_an_adapter_of_the_users_own_is_under_all_that_the_client_was_given(
    server: ProviderServer,
) -> None:
    """Budgets, observers, limits and the cache of a Client hold for adapters given to it, too."""
    mine = get_adapter(
        "gpt-6-luna", api_key="sk-test-0123456789", api_base=server.base_url("openai")
    )
    with pytest.raises(BudgetExceededError):
        Client(mine.model, budget=Budget(tokens=1)).complete("hi", model=mine)
    limited = Client(rate_limits={"gpt-6-luna": {"requests_per_minute": 1}})
    limited.complete("hi", model=mine, timeout=5)
    with pytest.raises(RateLimitError):
        limited.complete("hi", model=mine, timeout=5)
    assert len(server.requests) == 1

    cached = Client(cache=MemoryCache())
    assert cached.complete("hi", model=mine, use_cache=True).cached is None
    assert cached.complete("hi", model=mine, use_cache=True).cached == "memory"
    assert Client(cache=False).complete("hi", model=mine).cached is None
